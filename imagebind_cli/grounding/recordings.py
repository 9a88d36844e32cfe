"""The recordings that are searched: windows in stores, and files that are embedded into a store of their own first."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli import registry
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.events import Listener
from imagebind_cli.file_kinds import KINDS
from imagebind_cli.media.clock import clock_text, parse_clock
from imagebind_cli.options import TIME_WINDOWS
from imagebind_cli.retrieval.stored_items import RowPlace, stored_exhibit
from imagebind_cli.sources import whole_source
from imagebind_cli.space import Space
from imagebind_cli.store import StoreReader, is_store, open_store

# What a file is read as, by the kind that its name says.
MODALITY_OF_KIND = {"video": "video", "audio": "audio", "table": "imu", "array": "imu"}


@dataclass(frozen=True)
class WindowedItem:
    """A recording with a row for each of its windows. number: of its store among those that are searched. rows (w,), spans (w, 2) in seconds."""

    store: StoreReader
    number: int
    id: str
    rows: np.ndarray
    spans: np.ndarray

    @property
    def path(self) -> str:
        """The file that its record names, else the one that its id names."""
        return str(whole_source(stored_exhibit(self.store, int(self.rows[0])).source))

    def clock(self, seconds: float) -> str | None:
        """Return a time of the recording in ISO 8601, where its file states when it began."""
        text = self.store.clock(int(self.rows[0]))
        time = parse_clock(text) if text else None
        return None if time is None else clock_text(time, seconds - float(self.spans[0, 0]))

    def without(self, places: frozenset[RowPlace]) -> WindowedItem | None:
        """Return the recording without the windows that share seconds with some of its own rows; None where nothing is left."""
        own = np.array([row for number, row in places if number == self.number], np.int64)
        asked = np.isin(self.rows, own)
        if not asked.any():
            return self
        starts, ends = self.spans[asked].T
        shares = ((self.spans[:, :1] < ends) & (self.spans[:, 1:] > starts)).any(axis=1)
        return WindowedItem(self.store, self.number, self.id, self.rows[~shares], self.spans[~shares]) if not shares.all() else None


def windowed_items(stores: Sequence[StoreReader]) -> list[WindowedItem]:
    """Return the recordings of some stores, in the order of their rows.

    Raises:
        UserError: a store has a row for each item, and not for each window.
    """
    items = []
    for number, store in enumerate(stores):
        if not len(store):
            continue
        spans = store.spans
        if spans is None:
            raise UserError(
                f"{store.path}: has no windows, and a moment is made of them; embed the recordings with --pool none --hop 1, or give the files"
            )
        rows: dict[str, list[int]] = {}
        for row in np.flatnonzero(~np.isnan(spans).any(axis=1)).tolist():
            rows.setdefault(store.ids[row], []).append(row)
        items += [WindowedItem(store, number, id, np.array(of_item), spans[of_item]) for id, of_item in rows.items()]
    return items


def split_inputs(inputs: Sequence[str], modality: str | None) -> tuple[list[str], dict[str, list[str]]]:
    """Separate stores from files.

    Args:
        modality: what files and folders are read as; by their names if None.
    Returns:
        The stores, and by modality the files.
    Raises:
        UserError: a file of another kind than sounds, videos and motion recordings, or something that does not exist.
    """
    stores: list[str] = []
    files: dict[str, list[str]] = {}
    for given in inputs:
        if is_store(given) or (not os.path.lexists(given) and any(map(is_store, glob.glob(given)))):
            stores.append(given)
            continue
        if not os.path.lexists(given) and not glob.glob(given, recursive=True):
            raise UserError(f"{given}: no such store or recording")
        files.setdefault(modality or _modality_by_name(given), []).append(given)
    return stores, files


def _modality_by_name(given: str) -> str:
    ending = os.path.splitext(given)[1].lstrip(".").lower()
    for kind, modality in MODALITY_OF_KIND.items():
        if ending in KINDS[kind]:
            return modality
    raise UsageError(f"{given}: neither a store nor named as a sound, video or table; say what it is: --modality audio, video or imu")


def embed_windows(
    space: Space, modality: str, files: Sequence[str], store: Path, hop: float, chosen: Mapping[str, Any], listener: Listener
) -> StoreReader:
    """Embed the windows of files into a store, or those that it lacks.

    Args:
        hop: seconds from one window to the next. chosen: reading options of any modality; those that this one has are used.
    Raises:
        UserError: as `corpus.embed`, or nothing in the files can be read.
    """
    from imagebind_cli.corpus import embed

    face = registry.face(modality)
    if not face.timed:
        raise UsageError(f"{modality} has no seconds; moments are of audio, video and imu")
    options: dict[str, Any] = {name: value for name, value in chosen.items() if name in face.options.names()}
    if not TIME_WINDOWS & options.keys():
        options["hop"] = hop
    embed(space, modality, files, store, pool="none", listener=listener, **options)
    if not is_store(store):
        raise UserError(f"{', '.join(files)}: no {modality} here can be read")
    return open_store(store)
