"""Merge stores, and compact one: whole stores written from whole stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from imagebind_cli.errors import UserError
from imagebind_cli.files import replacing
from imagebind_cli.store.folder import FolderWriter
from imagebind_cli.store.provenance import check_alike, provenance_path
from imagebind_cli.store.reader import StoreReader, open_store
from imagebind_cli.store.row import Row, id_hash
from imagebind_cli.store.writer import FLUSH_ROWS, Store


@dataclass
class MergeCounts:
    """What a merge did: items added, there already, and in place of one whose input was another; ids that several of the stores have."""

    added: int = 0
    same: int = 0
    replaced: int = 0
    twice: list[str] = field(default_factory=list)


def merge(
    readers: Sequence[StoreReader], path: Path, array: str | None = None, report: Callable[[MergeCounts], None] = lambda so_far: None
) -> MergeCounts:
    """Add the items of some stores to another, which is made if it is not there. The same again adds nothing.

    An id that several of them have counts as the first has it. One that the target has with another input is replaced.

    Args:
        array: number type of a new target; that of the stores if not given. report: called with the counts so far.
    Raises:
        UserError: they were not made alike, the target was not, or it is one of them.
    """
    provenance = {key: value for key, value in readers[0].provenance.items() if key not in ("assumptions", "array")}
    for reader in readers:
        check_alike(reader.path, {**reader.provenance, "array": ""}, readers[0].path, {**provenance, "array": ""})
        if path.exists() and reader.path.exists() and path.samefile(reader.path):
            raise UserError(f"{path}: is both the target and among the stores to merge; leave it out of these")
    done, came = MergeCounts(), set[int]()
    with Store(path, provenance | {"array": array or readers[0].provenance.get("array", "float32")}) as store:
        for reader in readers:
            store.assume(reader.provenance.get("assumptions", []))
            for rows in reader.items():
                key, before = id_hash(rows[0].id), store.stamp(rows[0].id)
                if key in came:
                    done.twice.append(rows[0].id)
                elif before is not None and rows[0].stamp.is_of(before):
                    done.same += 1
                else:
                    store.append(rows)
                    done.added += before is None
                    done.replaced += before is not None
                came.add(key)
                report(done)
    return done


def compact(path: Path) -> int:
    """Write a store anew without replaced rows, and give their number. Until all is there the old one counts; readers are not disturbed.

    Raises:
        UserError: it is no store of one file or folder, another process writes to it, or its format cannot be put in place at once.
    """
    provenance = open_store(path).provenance
    if path.suffix == ".npy":
        raise UserError(f"{path}: two files cannot be replaced at once; write another without these rows: imagebind store export")
    with Store(path, provenance) as store:  # no other writer now
        reader = open_store(path)
        if isinstance(store.format, FolderWriter):
            store.format.rewrite(_batches(reader))
        else:
            _replace(path, reader)
        return reader.replaced


def _replace(path: Path, reader: StoreReader) -> None:
    with replacing(path) as place:
        with Store(place, reader.provenance) as store:
            store.assume(reader.provenance.get("assumptions", []))
            for rows in reader.items():
                store.append(rows)
        provenance_path(place).unlink(missing_ok=True)  # the record beside the old file is the same


def _batches(reader: StoreReader) -> Iterator[list[Row]]:
    items = reader.items()
    while some := [row for rows in islice(items, FLUSH_ROWS) for row in rows]:
        yield some
