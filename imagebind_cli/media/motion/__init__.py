"""Recordings of an accelerometer and a gyroscope.

`recordings.py` reads one; `tables/` turns files into named columns, `layouts.py` knows the published datasets' own, `columns.py` picks six
channels, `time_columns.py`, `time_units.py` and `time_order.py` find when each reading was taken, `signals.py` puts readings on an even grid.
"""
