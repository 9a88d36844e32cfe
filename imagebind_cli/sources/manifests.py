"""The rows of a manifest as items."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imagebind_cli.object_storage import join_path
from imagebind_cli.registry import face
from imagebind_cli.sources.items import (
    Failure,
    Item,
    Modalities,
    Stretch,
    as_sentence,
    payload_of,
    stretched,
)
from imagebind_cli.tabular import BadRow, read_rows


def from_manifest(path: Path, modalities: Modalities, columns: Mapping[str, str] | None = None) -> Iterator[Item | Failure]:
    """Yield the items of a manifest's rows: JSON Lines, or CSV or TSV with a line of column names. Relative paths start at its folder.

    A row that cannot be used is a `Failure`.

    Args:
        columns: names to give to columns, as in `tabular.read_rows`.
    Raises:
        UserError: see `tabular.read_rows`; a table must have a column for each modality.
    """
    for number, row in read_rows(path, modalities, columns):
        place = f"{path}:{number}"
        if isinstance(row, BadRow) and (not row.cells or row.cells.keys() >= set(modalities)):
            yield Failure(place, row.reason)
        else:  # for a row that is too short, the message names what it lacks and its id
            yield from_row(row.cells if isinstance(row, BadRow) else row, modalities, place, os.path.dirname(path))


def from_row(row: dict[str, Any], modalities: Modalities, place: str, folder: str = "") -> Item | Failure:
    """Return one manifest row as an item. Its id is its `id`, else the path or sentence, with its stretch. Relative paths start at `folder`."""
    first = row.get(modalities[0])
    id = first if row.get("id") is None else row["id"]
    for modality in modalities:
        value = row.get(modality)
        if not isinstance(value, str):
            why = (
                f"no {modality!r} in this row; it has {', '.join(row) or 'nothing'}"
                if value is None
                else f"{modality} is {value!r}, not a string"
            )
            return Failure(place, why) if id is None else Failure(str(id), f"{place}: {why}")
    paths = {modality: row[modality] if face(modality).text else join_path(folder, row[modality]) for modality in modalities}
    try:
        given = {modality: stretched(path, modality, row) for modality, path in paths.items()}
    except ValueError as error:
        return Failure(place, str(error)) if row.get("id") is None else Failure(str(id), f"{place}: {error}")
    if row.get("id") is None:
        id = row[modalities[0]] + next((part.label for part in given.values() if isinstance(part, Stretch)), "")
    for modality in modalities:
        if face(modality).text and isinstance(empty := as_sentence(row[modality]), Failure):
            return Failure(place if row.get("id") is None else str(id), empty.reason)
    meta = {key: value for key, value in row.items() if key not in ("id", *modalities)}
    return Item(str(id), payload_of(given), meta)
