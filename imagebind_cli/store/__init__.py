"""Embeddings on disk and as lines of JSON, without torch.

`Store` writes in the format that a name's ending says; `open_store` reads what a file's content shows it to be.

row.py           one row, as a line of JSON and as a stamp by which it is looked up
provenance.py    how a store's vectors were made, and the refusal to mix two kinds
writer.py        `Store`; `store_formats` lists the formats
lines.py         the formats `.jsonl` and `.npy`
tensors.py       the format `.safetensors`
hdf5.py          the format `.h5`
folder/          the format `.store`
growing.py       files that are appended to, for `.jsonl`, `.npy` and `.store`
journal.py       a file that changes in whole steps, for `.h5`
sums.py          the checksums of rows
source.py        what a format offers to its reader
reader.py        `open_store`
describe.py      what a store holds
check.py         whether every row of one is sound
maintenance.py   merge, compact, prune
export.py        the same rows in another format
table_columns.py the columns of a store that is exported as a table
parquet.py       Parquet, and the folder of clip-retrieval
lance.py         a table of LanceDB, written and read
postgres.py      a table of PostgreSQL with pgvector
"""

from imagebind_cli.store.reader import StoreReader, is_store, open_store
from imagebind_cli.store.row import STAMP, UNKNOWN, Row, Stamp, content_hash, id_hash, json_line, vector_line
from imagebind_cli.store.writer import Store, check_writable
from imagebind_cli.store_formats import FORMATS

__all__ = [
    "FORMATS",
    "STAMP",
    "UNKNOWN",
    "Row",
    "Stamp",
    "Store",
    "StoreReader",
    "check_writable",
    "content_hash",
    "id_hash",
    "is_store",
    "json_line",
    "open_store",
    "vector_line",
]
