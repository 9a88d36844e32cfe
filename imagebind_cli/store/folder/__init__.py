"""The folder store, `NAME.store/`, for the largest stores: append-only parts in common formats.

    made.json               its provenance, and how many rows a part has
    vectors-00000.npy       float32 or float16 (rows, dim)
    rows-00000.jsonl        the id of each row and what belongs to it
    index-00000.npy         the same as records of fixed length (`INDEX`), to look up a million rows at once
    sums-00000.npy          the checksums of each row (`SUMS`)
    replaced-00000.npy      numbers of replaced rows: their input changed and was embedded again
    commits                 a record for each commit: how much of all these is valid

Readers ignore what comes after the last commit, and the next writer cuts it off, so that nothing needs repair.
Compacting writes new parts after the old ones; one commit then makes them the first that count.

files.py         the files and the commits
source.py        reading
writer.py        appending, and rewriting by compaction
"""

from imagebind_cli.store.folder.files import is_folder_store
from imagebind_cli.store.folder.source import FolderSource
from imagebind_cli.store.folder.writer import FolderWriter

__all__ = ["FolderSource", "FolderWriter", "is_folder_store"]
