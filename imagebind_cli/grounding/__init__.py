"""Where in a picture, a map or a spectrogram a query is, and when in a recording, on a frozen model.

shares.py      the part of an embedding that each patch contributes
squares.py     squares that cover a picture, and the heat map that they add up to
pieces.py      an input as what `embed` encodes of it, and as squares
enlarged.py    an encoder at another size of pictures
heat_maps.py   the heat maps of one input, put together from its pieces
locator.py     a model that looks for queries in inputs of one modality
located.py     an answer: the place of a query, its box and its heat map
locate.py      the place of a query in each input: what `imagebind locate` does
curves.py      scores of a recording over time, and the runs of seconds that stand out
recordings.py  the recordings that are searched: windows in stores, and files
moments.py     what Python and `imagebind moments` call: `find_moments` for one query, `MomentFinder` for many
live_moments.py  moments in an endless stream
cuts.py        clips of moments
lighthouse.py  annotations, predictions and scores in the forms of Lighthouse, QVHighlights and Charades-STA
suites/        published evaluations of both
"""
