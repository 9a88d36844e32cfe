"""Embeddings on disk and as lines of JSON, without torch.

`Store` writes the format of a name's ending; `open_store` recognises the format by a file's content.
"""

from imagebind_cli.store.reader import StoreReader, is_store, open_store
from imagebind_cli.store.row import STAMP, UNKNOWN, Row, Stamp, content_hash, id_hash, json_line
from imagebind_cli.store.writer import FORMATS, Store, check_writable

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
]
