"""Inspect stores: copies, outliers, labels that are likely wrong, pairs that disagree. numpy alone, in blocks, under a stated memory limit.

item_vectors.py  the items of a store as unit vectors, in memory or in a file beside it
cells.py         clusters of rows by direction
neighbours.py    the nearest neighbours of every row among all rows
proposals.py     thresholds proposed from a distribution
findings.py      what Python and `imagebind store inspect` call: `inspect_store` and `inspect_pairs`
score.py         the mean cosine of pairs: `score_pairs`
sides.py         what a score compares: stores, or files that are embedded first
protocols.py     how videos and sounds are read for a score, by name
pairing.py       which items of two stores belong together
projection.py    two coordinates for each item: PCA or UMAP
store_map.py     a map of stores: `map_stores`
map_table.py     the same as a table
"""
