"""The two sides of a score: stores as they are, or files that are embedded into a store for as long as they are compared."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from imagebind_cli import registry
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.events import Listener
from imagebind_cli.file_kinds import KINDS
from imagebind_cli.insight.protocols import ScoreProtocol
from imagebind_cli.space import Space
from imagebind_cli.store import StoreReader, is_store, open_store

Side = str | Path | StoreReader
SCORED_KINDS = ("video", "audio", "image")  # kinds of files that are also names of modalities
WORDS = "AB"  # what the two sides are called


@contextmanager
def open_sides(
    given: Sequence[Side],
    modalities: Sequence[str] | None,
    protocol: ScoreProtocol | None,
    space: Space,
    chosen: Mapping[str, Any],
    listener: Listener,
) -> Iterator[tuple[StoreReader, StoreReader]]:
    """Open two sides that are comparable. Everything is checked before anything is embedded.

    Args:
        given: two stores, or files and folders. modalities: what each is; of files by default what their names say.
        protocol: how the vectors must be made. chosen: reading options of files, of either modality.
    Raises:
        UsageError: not two sides or two modalities; a kind of file that is not clear; an option that contradicts the protocol.
        UserError: no such store or file, stores of several models, of another modality, or made otherwise than the protocol says.
    """
    stores, names = _stores_and_modalities(given, modalities)
    reading: list[dict[str, Any]] = []
    for store, name in zip(stores, names, strict=True):
        if store is None:
            reading.append(_reading(name, protocol, chosen))
            continue
        reading.append({})
        space.admit(store, name)
        if protocol is not None:
            protocol.check(store)
    unused = next((option for option in chosen if not any(option in options for options in reading)), None)
    if unused is not None:
        raise UsageError(f"no file among A and B is read with an option {unused!r}")
    with TemporaryDirectory(prefix="imagebind-score-") as folder:
        opened = []
        for word, side, store, name, options in zip(WORDS, given, stores, names, reading, strict=True):
            if store is None:
                store = _embed(str(side), name, options, Path(folder) / f"{word}.h5", space, listener)  # noqa: PLW2901
                space.admit(store)
                if protocol is not None:  # prepared samples and a model bring choices of their own
                    protocol.check(store)
            opened.append(store)
        yield opened[0], opened[1]


def file_modalities(given: Sequence[Side], modalities: Sequence[str] | None) -> list[str]:
    """Return the modalities of those sides that are files; see `open_sides`."""
    return [name for store, name in zip(*_stores_and_modalities(given, modalities), strict=True) if store is None]


def _stores_and_modalities(given: Sequence[Side], modalities: Sequence[str] | None) -> tuple[list[StoreReader | None], list[str]]:
    """Return the store of each side, None where it is files, and the modality of each."""
    if len(given) != 2 or (modalities is not None and len(modalities) != 2):
        raise UsageError(f"a score needs two sides with a modality each; there are {len(given)} and {len(modalities or given)}")
    stores = [each if isinstance(each, StoreReader) else _store_of(each) for each in given]
    asked = [None, None] if modalities is None else [registry.face(name).name for name in modalities]
    names = [
        name or (_modality_of(str(side)) if store is None else store.modality)
        for side, store, name in zip(given, stores, asked, strict=True)
    ]
    return stores, names


def _store_of(side: str | Path) -> StoreReader | None:
    """Open a side that is a store or a pattern of stores; return None where it is files."""
    matches = [str(side)] if os.path.lexists(side) else glob.glob(str(side), recursive=True)
    if not matches:
        raise UserError(f"{side}: no such store or file")
    return open_store(side) if any(map(is_store, matches)) else None


def _reading(modality: str, protocol: ScoreProtocol | None, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options to read files of a modality with."""
    face = registry.face(modality)
    own = {name: value for name, value in chosen.items() if name in face.option_names()}
    options = own if protocol is None else protocol.complete(face, own)
    face.read_options(options)
    return options


def _modality_of(side: str) -> str:
    """Return what the names of files say that they are; of a folder, the one kind that it has.

    Raises:
        UsageError: they say nothing, or there are several kinds.
    """
    names = [name for _, _, files in os.walk(side) for name in files] if os.path.isdir(side) else glob.glob(side, recursive=True) or [side]
    endings = {os.path.splitext(name)[1].lstrip(".").lower() for name in names}
    kinds = [kind for kind in SCORED_KINDS if endings & KINDS[kind]]
    if len(kinds) == 1:
        return kinds[0]
    found = f"has files of {' and '.join(kinds)}" if kinds else "is neither a store nor named as video, sound or pictures"
    raise UsageError(f"{side}: {found}; say what A and B are: --modalities video,audio")


def _embed(side: str, modality: str, options: Mapping[str, Any], place: Path, space: Space, listener: Listener) -> StoreReader:
    from imagebind_cli.corpus import embed

    embed(space, modality, [side], place, batch_size=space.batch_size, workers=space.workers, listener=listener, **options)
    if not is_store(place):
        raise UserError(f"{side}: no {modality} among its files can be read")
    store = open_store(place)
    if not len(store):
        raise UserError(f"{side}: no {modality} among its files can be read")
    store.path = Path(side)  # messages name what was given
    return store
