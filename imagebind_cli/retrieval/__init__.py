"""Search stores of embeddings, and evaluate that search. Never imports torch by itself.

find.py           what Python and `imagebind retrieve` call: `find` for one query, `Finder` for many
requests.py       queries before they have vectors: in a call, by flags, or line by line in a file
queries.py        requests to vectors, through the model, the stores and files
stored_items.py   an item of the stores, or one of its windows, as part of a query
vector_files.py   vectors in stores, arrays and lines of JSON
search.py         the nearest rows of several stores, which are searched as one
index.py          approximate search with FAISS
evaluate.py       scores of two stores whose items belong together
"""
