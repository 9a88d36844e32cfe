"""Where in a picture, a map or a spectrogram a query is, and when in a recording, on a frozen model.

shares.py      the part of an embedding that each patch contributes
curves.py      scores of a recording over time, and the runs of seconds that stand out
recordings.py  the recordings that are searched: windows in stores, and files
moments.py     what Python and `imagebind moments` call: `find_moments` for one query, `MomentFinder` for many
cuts.py        clips of moments
lighthouse.py  annotations, predictions and scores in the forms of Lighthouse, QVHighlights and Charades-STA
"""
