"""Read the inputs of a job: arguments, folders, patterns, lines on stdin, manifests, prepared samples. One item at a time, in a stable order.

inputs.py      the inputs of a job: arguments, stdin or a manifest
folders.py     the files in a folder, or of a pattern
manifests.py   the rows of a manifest
archives.py    the samples in a tar shard or a prepared HDF5 file
in_memory.py   bytes, rows of Hugging Face datasets and pictures, as the readers take them
box_files.py   the regions of pictures, from COCO's JSON or a manifest with boxes
items.py       what all of these yield: an item, or why it cannot be used
"""

from imagebind_cli.sources.archives import from_shard
from imagebind_cli.sources.box_files import BoxFile, read_boxes
from imagebind_cli.sources.folders import from_files, names_store
from imagebind_cli.sources.inputs import Inputs, from_arguments, from_lines, from_stream
from imagebind_cli.sources.items import (
    Failure,
    Item,
    Modalities,
    Regions,
    Skips,
    Stretch,
    as_sentence,
    kept_beside,
    reason,
    stretched,
    whole_source,
)
from imagebind_cli.sources.manifests import from_manifest, from_row

__all__ = [
    "BoxFile",
    "Failure",
    "Inputs",
    "Item",
    "Modalities",
    "Regions",
    "Skips",
    "Stretch",
    "as_sentence",
    "from_arguments",
    "from_files",
    "from_lines",
    "from_manifest",
    "from_row",
    "from_shard",
    "from_stream",
    "kept_beside",
    "names_store",
    "read_boxes",
    "reason",
    "stretched",
    "whole_source",
]
