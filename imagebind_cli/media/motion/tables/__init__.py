"""Files of readings to named columns of float64.

`formats.py` finds the reader by a file's first bytes; there is one file per container: `text.py` (CSV and its kin), `numpy_files.py` (NPY,
NPZ), `zipped.py` (tables in a zip file), `hdf5.py` (with MATLAB 7.3), `matlab.py` (MATLAB 5) and `parquet.py`. `table.py` holds what they
all return, and how much memory one item may take; `columns_of.py` makes a table of arrays.
"""
