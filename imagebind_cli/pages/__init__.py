"""Every HTML page and picture that the program makes, all on the base in `base.py`.

base.py             what every page shares: escaping, security policy, style, tables, and writing a page whole
search.py           answers to queries, with pictures and players
classification.py   the report of a classification, and a picture of its confusion matrix
curves.py           line charts as SVG, for the report of a training run
scatter.py          a map of stores: a mark for each item
timeline.py         moments in recordings, and a picture of their curves
strips.py           a whole recording as one strip under a time axis
preview.py          samples as their encoder sees them, and a page to look through them
heat.py             heat maps over pictures, spectrograms and videos
pictures.py         a small picture of any file, and its sound
thumbnails.py       thumbnails of a store's files as JPEG, for other programs
"""
