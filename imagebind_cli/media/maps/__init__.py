"""Files with one number per pixel: depth and thermal maps.

`formats.py` finds the reader by a file's first bytes: `picture_map.py` (PNG, TIFF and others by Pillow), `netpbm.py`, `exr.py`, `hdf5_map.py`,
`matrices.py` (text), `thermal_jpeg.py` (FLIR); NPY and NPZ are in `media/arrays.py`. `pixel_map.py` holds what they return. `missing.py` and
`holes.py` find and fill pixels without a value, `palettes.py` undoes false colours, `telemetry.py` cuts rows that are not picture, `fitting.py`
scales to the encoder's square.
"""
