"""A whole embedding job from Python: inputs to a store, resumed, shared out among machines, with a file of what failed."""

from imagebind_cli.corpus.job import embed
from imagebind_cli.corpus.plan import Estimate, estimate
from imagebind_cli.corpus.share import Share

__all__ = ["Estimate", "Share", "embed", "estimate"]
