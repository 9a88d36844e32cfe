"""A server of embeddings and of search, over HTTP: what `imagebind serve` runs.

application.py    `app`: the server as an ASGI application
process.py        `run`: the process around it, from its socket to its graceful end
guard.py          what is admitted: token, names, size and time of bodies; headers of answers
limits.py         what requests may take, and the refusal of others
bodies.py         bodies of requests: JSON of limited depth, and one line about what is wrong
contents.py       sentences and files in a request
dialects.py       OpenAI's, Infinity's, Jina's and vLLM's requests for embeddings
embeddings.py     the routes that embed
weaviate.py       the contract of Weaviate's module multi2vec-bind
searching.py      the routes that search stores
classifying.py    the routes that classify
grounding.py      the routes that find places and moments
stored_files.py   the files of stored items
page.py           the page of the server, and its documentation
service.py        what all routes share
spool.py          files of requests that must be on disk until the answer
lanes.py          lanes in which the inputs of all clients wait, and become batches
served_stores.py  the stores that are searched
counts.py         what is counted, for Prometheus
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagebind_cli.server.application import app
    from imagebind_cli.server.limits import Limits
    from imagebind_cli.server.process import run

__all__ = ["Limits", "app", "run"]

_PUBLIC = {"Limits": "limits", "app": "application", "run": "process"}


def __getattr__(name: str) -> Any:
    """Import public names when they are first used (PEP 562): FastAPI is an extra."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"imagebind_cli.server.{_PUBLIC[name]}"), name)
