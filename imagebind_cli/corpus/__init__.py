"""A whole job: inputs embedded into a store or prepared for later runs, resumed, divided among machines, with a file of failures.

share.py        the part of them that one process takes
failures.py     the file of `--errors`
renamed.py      files that a store has under another name
resume.py       which items are not done yet, each once
job.py          `embed`: items into a store
preprocess.py   `preprocess` and `inspect_inputs`: items decoded once, for later runs
estimate.py     `estimate`: what `embed` would do
"""

from imagebind_cli.corpus.estimate import Estimate, estimate
from imagebind_cli.corpus.job import embed
from imagebind_cli.corpus.preprocess import Inspection, inspect_inputs, preprocess
from imagebind_cli.corpus.share import Share

__all__ = ["Estimate", "Inspection", "Share", "embed", "estimate", "inspect_inputs", "preprocess"]
