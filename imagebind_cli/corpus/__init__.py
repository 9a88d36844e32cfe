"""A whole job: inputs embedded into a store or prepared for later runs, resumed, divided among machines, with a file of failures."""

from imagebind_cli.corpus.estimate import Estimate, estimate
from imagebind_cli.corpus.job import embed
from imagebind_cli.corpus.preprocess import Inspection, inspect_inputs, preprocess
from imagebind_cli.corpus.share import Share

__all__ = ["Estimate", "Inspection", "Share", "embed", "estimate", "inspect_inputs", "preprocess"]
