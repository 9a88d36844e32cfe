"""Merge stores, compact one, and prune one: whole stores written from whole stores."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from imagebind_cli.descriptors import WINDOWS
from imagebind_cli.errors import UserError
from imagebind_cli.files import replacing
from imagebind_cli.store.provenance import check_alike, provenance_path
from imagebind_cli.store.reader import StoreReader, open_store
from imagebind_cli.store.row import Row, id_hash
from imagebind_cli.store.writer import FLUSH_ROWS, Rewritable, Store
from imagebind_cli.store_formats import FORMATS


@dataclass
class MergeCounts:
    """What a merge did.

    added, replaced: new items, and those that replaced one with another input. same: items already in the target. twice: ids in several of
    the merged stores.
    """

    added: int = 0
    same: int = 0
    replaced: int = 0
    twice: list[str] = field(default_factory=list)


def merge(
    readers: Sequence[StoreReader], path: Path, array: str | None = None, report: Callable[[MergeCounts], None] = lambda so_far: None
) -> MergeCounts:
    """Add the items of some stores to a target, which is created if it does not exist. The same call again adds nothing.

    Of an id in several stores the first one's rows are taken. An id that the target has with another input is replaced.

    Args:
        array: number type of a new target; that of the stores if not given. report: called with the counts so far.
    Raises:
        UserError: their provenance differs, or the target's does, or the target is one of them.
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
    """Rewrite a store without replaced rows. The old one counts until the new one is complete; readers are not disturbed.

    Returns:
        How many replaced rows were dropped.
    Raises:
        UserError: it is not a store of one file or folder, or another process writes to it.
    """
    _check_exists(path)
    _check_rewritable(path, f"export leaves replaced rows out: imagebind store export {path} -o NEW.npy")
    return _rewrite(path, lambda rows: True)


@dataclass
class PruneCounts:
    """What a prune found. items: items of the store. missing: ids of those to drop. rows: how many rows these have."""

    items: int = 0
    rows: int = 0
    missing: list[str] = field(default_factory=list)


def prune(path: Path, dry_run: bool = False) -> PruneCounts:
    """Rewrite a store without the items whose file no longer exists. Sentences and members of archives have no file and stay.

    Args:
        dry_run: only count them.
    Raises:
        UserError: as `compact`; or none of the files exists, as in another folder than that in which they were embedded.
    """
    _check_exists(path)
    if not dry_run:
        _check_rewritable(path, f"prune a copy: imagebind store export {path} -o COPY.h5")
    reader = open_store(path)
    counts, files = PruneCounts(), 0
    for rows in reader.items():
        counts.items += 1
        file = _file(rows[0], reader.modality)
        files += file is not None
        if file is not None and _is_missing(file):
            counts.missing.append(rows[0].id)
            counts.rows += len(rows)
    if files and len(counts.missing) == files:
        raise UserError(f"{path}: none of its {files:,} files exists from here; run this in the folder in which they were embedded")
    if counts.missing and not dry_run:
        missing = set(counts.missing)
        _rewrite(path, lambda rows: rows[0].id not in missing)
    return counts


def _file(row: Row, modality: str) -> str | None:
    """Return the path of the file that a row was embedded from; None where it was none."""
    recorded = row.meta.get(modality)
    return None if row.stamp.size < 0 else recorded if isinstance(recorded, str) else row.id


def _is_missing(path: str) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):  # it cannot be examined, which is a different error
        return False
    return False


def _check_exists(path: Path) -> None:
    """Refuse what is not one store."""
    if not path.exists():
        several = "; a pattern is not rewritten: name each store" if glob.has_magic(str(path)) else ""
        raise UserError(f"{path}: no such store{several}")


def _check_rewritable(path: Path, remedy: str) -> None:
    """Refuse a store that cannot be replaced whole. remedy: what to do with it instead."""
    if path.suffix not in FORMATS:
        raise UserError(f"{path}: not rewritten in place, as its name ends in none of {', '.join(FORMATS)}; {remedy}")
    if not FORMATS[path.suffix].rewritable:
        raise UserError(f"{path}: its two files cannot be replaced at once; {remedy}")


def _rewrite(path: Path, keeps: Callable[[list[Row]], bool]) -> int:
    """Rewrite a store with the items to keep. Returns how many replaced rows the old one had."""
    provenance = open_store(path).provenance
    with ExitStack() as open_files:
        store = open_files.enter_context(Store(path, provenance))  # keeps other writers out
        reader = open_store(path)
        replaced, items = reader.replaced, filter(keeps, reader.items())
        del reader  # maps the file until all items are read, and Windows replaces no mapped file
        if isinstance(store.format, Rewritable):
            store.format.rewrite(_batches(items))
        else:
            _replace(path, provenance, items, open_files)
        return replaced


def _replace(path: Path, provenance: Mapping[str, Any], items: Iterable[list[Row]], open_files: ExitStack) -> None:
    with replacing(path) as place:
        with Store(place, provenance) as store:
            store.assume(provenance.get("assumptions", []))
            for rows in items:
                store.append(rows)
        provenance_path(place).unlink(missing_ok=True)  # the record beside the old file is the same
        if WINDOWS:  # which replaces no open file, and where a writer that comes now makes the replacement fail
            open_files.close()


def _batches(items: Iterator[list[Row]]) -> Iterator[list[Row]]:
    while batch := [row for rows in islice(items, FLUSH_ROWS) for row in rows]:
        yield batch
