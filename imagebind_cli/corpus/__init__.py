"""A whole job: inputs embedded into a store or prepared for later runs, resumed, divided among machines, with a file of failures.

share.py        the part of them that one process takes
failures.py     the file of `--errors`
renamed.py      files that a store has under another name
resume.py       which items are not done yet, each once
job.py          `embed`: items into a store
preprocess.py   `preprocess` and `inspect_inputs`: items decoded once, for later runs
estimate.py     `estimate`: what `embed` would do
uploads.py      outputs in object storage
blocks.py       the inputs of a job on a cluster, listed once and handed out in blocks
ray_actors.py   the blocks of a job on the actors of a Ray cluster
cluster.py      `embed_on_cluster` and `preprocess_on_cluster`
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from imagebind_cli.corpus.estimate import Estimate, estimate
from imagebind_cli.corpus.job import embed
from imagebind_cli.corpus.preprocess import Inspection, inspect_inputs, preprocess
from imagebind_cli.corpus.share import Share

if TYPE_CHECKING:
    from imagebind_cli.corpus.cluster import embed_on_cluster, preprocess_on_cluster, share_pattern
    from imagebind_cli.corpus.ray_actors import Cluster
    from imagebind_cli.corpus.uploads import uploaded

__all__ = [
    "Cluster",
    "Estimate",
    "Inspection",
    "Share",
    "embed",
    "embed_on_cluster",
    "estimate",
    "inspect_inputs",
    "preprocess",
    "preprocess_on_cluster",
    "share_pattern",
    "uploaded",
]

_CLUSTER = {
    **dict.fromkeys(("embed_on_cluster", "preprocess_on_cluster", "share_pattern"), "cluster"),
    "Cluster": "ray_actors",
    "uploaded": "uploads",
}


def __getattr__(name: str) -> Any:
    """Import what clusters and object storage need when it is first used (PEP 562), since users wait for `embed` to start."""
    if name not in _CLUSTER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_CLUSTER[name]}"), name)
