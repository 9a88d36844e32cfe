"""Check the samples of a tar shard or a prepared HDF5 file: whether each is complete and matches its checksums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from imagebind_cli.errors import UserError
from imagebind_cli.prepared.entries import Prepared
from imagebind_cli.prepared.files import index
from imagebind_cli.prepared.hdf5 import is_hdf5
from imagebind_cli.prepared.tar import is_shard
from imagebind_cli.store import is_store


def is_prepared(path: Path) -> bool:
    """Check whether a file is a tar shard, or an HDF5 file other than a store."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError:
        return False
    return is_shard(head) or (is_hdf5(head) and not is_store(path))


def sample_findings(path: Path, note: Callable[[str], None] = lambda line: None) -> Iterator[str]:
    """Read every sample, and yield a line for each that is damaged.

    Args:
        note: called with remarks that are not faults: that samples have no checksums.
    """
    count = unsummed = 0
    try:
        for entry in index(path):
            count += 1
            try:
                about = entry.about()
                payloads = [entry.payload(modality, about) for modality in entry.provenance.get("inputs", {})]
                prepared = [payload for payload in payloads if isinstance(payload, Prepared)]
                for payload in prepared:
                    for _ in payload.arrays():
                        pass
                unsummed += any(payload.sums is None for payload in prepared) or not prepared
            except ValueError as error:
                yield f"{entry.key}: {error}"
    except UserError as error:
        yield str(error).removeprefix(f"{path}: ")
    if unsummed:
        note(f"{unsummed:,} of {count:,} samples have no checksum, as of an earlier version; damage to them may go unnoticed")
