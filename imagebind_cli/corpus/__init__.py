"""A whole embedding job: inputs to a store, resumed, divided among machines, with a file of failures."""

from imagebind_cli.corpus.job import embed
from imagebind_cli.corpus.share import Share

__all__ = ["Share", "embed"]
