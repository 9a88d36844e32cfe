"""The true labels of the inputs: by the folder each is in, by a manifest column, or by a file of ids and labels."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.tabular import read_good_rows

FOLDER, ID = "folder", "id"  # words of --truth and --class-by that are not columns


class Truth:
    """The labels of items, by id from a file or a suite, or as each item carries them.

    how: `folder` or a column, as `labels_of` takes it; where `by_id` holds the labels, the name of their source.
    """

    def __init__(self, how: str, by_id: Mapping[str, Sequence[str]] | None = None) -> None:
        self.how, self.by_id = how, by_id
        self._seen: set[str] = set()

    def of(self, id: str, meta: Mapping[str, Any]) -> Sequence[str] | None:
        """Return the labels of an item, None if they are not known, and remember that the item came."""
        if self.by_id is None:
            return labels_of(self.how, id, meta) or None
        self._seen.add(id)
        return self.by_id.get(id)

    @property
    def is_column(self) -> bool:
        """Whether the labels are in a column of a manifest, or of the manifest a store was made from."""
        return self.by_id is None and self.how not in (FOLDER, ID)

    @property
    def needs_metas(self) -> bool:
        """Whether the manifest columns of an item must be looked up."""
        return self.by_id is None and self.how != FOLDER

    @property
    def has_several(self) -> bool:
        """Whether an item is known to have several labels."""
        return any(len(labels) > 1 for labels in (self.by_id or {}).values())

    def missed(self) -> list[str]:
        """Return the labelled ids for which no item came."""
        return [id for id in self.by_id or {} if id not in self._seen]

    def record(self) -> dict[str, Any]:
        """Return a report's entry on it: the source, and a hash of the labels by id."""
        if self.by_id is None:
            return {"by": self.how}
        rows = json.dumps(sorted((id, sorted(labels)) for id, labels in self.by_id.items()))
        return {"by": self.how, "count": len(self.by_id), "sha256": hashlib.sha256(rows.encode()).hexdigest()}


def open_truth(truth: str | Mapping[str, Any]) -> Truth:
    """Open truth: `folder`, a file, a column, or a mapping of id to a label or a list of labels.

    Raises:
        UserError: see `read_truth`.
    """
    if not isinstance(truth, str):
        return Truth("a mapping", {id: _split(labels) for id, labels in truth.items()})
    return Truth(truth, read_truth(Path(truth)) if is_truth_file(truth) else None)


def is_truth_file(truth: str) -> bool:
    """Check whether truth names a file: one that exists, or that ends as one of ids and labels does."""
    return truth != FOLDER and (os.path.exists(truth) or truth.lower().endswith((".csv", ".tsv", ".jsonl")))


def refuse_column(truth: Truth) -> None:
    """Refuse truth in a column for inputs that have none.

    Raises:
        UserError: the truth is in a column.
    """
    if truth.is_column:
        raise UserError(f"--truth {truth.how}: no such file, and no column: files have none, rows of a manifest or a store do")


def labels_of(how: str, id: str, meta: Mapping[str, Any]) -> list[str]:
    """Return the labels that an item carries; an empty list if it has none.

    how: `folder`, for the name of the folder in its id; `id`; or a manifest column: a string with | between labels, or a list of them.
    """
    if how == FOLDER:
        folder = os.path.basename(os.path.dirname(id))
        return [folder] if folder not in ("", os.curdir, os.pardir) else []
    return [id] if how == ID else _split(meta.get(how))


def read_truth(path: Path) -> dict[str, list[str]]:
    """Read ids and labels from a CSV or TSV file with columns `id` and `label`, or from JSON Lines with these keys.

    An item has several labels by several rows of its id, by | between them in a table, or by a list in JSON.

    Raises:
        UserError: as `read_good_rows`; an id has no label, or the same label twice; there are no rows.
    """
    by_id: dict[str, list[str]] = {}
    for number, row in read_good_rows(path, ("id", "label")):
        labels = _split(row.get("label"))
        if not labels or row.get("id") in (None, ""):
            raise UserError(f"{path}: row {number} has no id or no label")
        known = by_id.setdefault(str(row["id"]), [])
        for label in labels:
            if label in known:
                raise UserError(f"{path}: row {number} gives {row['id']} the label {label!r} a second time")
            known.append(label)
    if not by_id:
        raise UserError(f"{path}: no rows in it")
    return by_id


def _split(value: Any) -> list[str]:
    parts = value.split("|") if isinstance(value, str) else value if isinstance(value, list) else [] if value is None else [value]
    return [label for label in (str(part).strip() for part in parts) if label]
