"""What lies in stores: copies, outliers, labels that are likely wrong, pairs that disagree. numpy alone, in blocks, under a stated memory limit.

item_vectors.py  the items of a store as unit vectors, in memory or in a file beside it
cells.py         clusters of rows by direction
neighbours.py    the nearest neighbours of every row among all rows
proposals.py     thresholds proposed from a distribution
findings.py      what Python and `imagebind store inspect` call: `inspect_store` and `inspect_pairs`
score.py         the mean cosine of pairs: `score_pairs`
pairing.py       which items of two stores belong together
"""
