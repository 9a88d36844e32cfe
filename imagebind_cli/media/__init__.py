"""Decoding only: bytes to arrays, and facts about what was read. No modality, no model, no normalisation.

`audio/`, `image.py`, `video/`, `maps/` (depth and thermal) and `motion/` read files; their own docstrings say more. Shared by them are
`decoding.py` (the guard around every reader), `arrays.py` (NPY, NPZ), `hdf5.py`, `tracks.py` (of containers with sound or video),
`picture_kinds.py` (what is recognised but not read), `essential.py` (pictures without their text and profiles) and `number_text.py`.
`isolation.py` and `pipes.py` read what large libraries decode in a separate process, and `clock.py` the time of a recording. `regions.py` and
`masks.py` cut regions out; `windows.py`, `views.py` and `picture_operations.py` choose and vary the part of an item that is read; `resampling.py`
changes a sound's rate.
"""
