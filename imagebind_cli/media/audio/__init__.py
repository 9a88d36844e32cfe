"""Sounds.

`sound.py` is what others open; behind it, `sound_file.py` decodes with libsndfile and `container_track.py` with PyAV, both after `decoder.py`;
`flac.py` has what FLAC says of itself.
"""
