"""Search stores of embeddings, and evaluate that search. Never imports torch by itself.

finder.py         what Python and `imagebind retrieve` call: `find` for one query, `Finder` for many
requests.py       queries before they have vectors: in a call, by flags, or line by line in a file
queries.py        requests to vectors, through the model, the stores and files
stored_items.py   an item of the stores, or one of its windows, as part of a query
vector_files.py   vectors in stores, arrays and lines of JSON
search.py         the nearest rows of several stores, which are searched as one
codes.py          exact search by int8 codes
index.py          approximate search with FAISS
sidecar.py        files derived from a store and kept beside it
evaluate.py       scores of two stores whose items belong together
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagebind_cli.retrieval.evaluate import evaluate_pairs
    from imagebind_cli.retrieval.finder import Finder, find

__all__ = ["Finder", "evaluate_pairs", "find"]

_PUBLIC = {"Finder": "finder", "find": "finder", "evaluate_pairs": "evaluate"}


def __getattr__(name: str) -> Any:
    """Import public names when they are first used (PEP 562), so that the command line's help needs no numpy."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"imagebind_cli.retrieval.{_PUBLIC[name]}"), name)
