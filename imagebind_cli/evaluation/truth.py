"""What the items really are: by the folder each lies in, by a column of its manifest, or by a file of ids and labels."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.tabular import read_good_rows

FOLDER = "folder"
"""The word that stands for the name of the folder an item lies in."""


class Truth:
    """The labels of items, by id from a file or a suite, or as each item carries them.

    how: `folder` or a column, as `label_by` takes it; where `by_id` holds the labels, what to call it.
    """

    def __init__(self, how: str, by_id: Mapping[str, Sequence[str]] | None = None) -> None:
        self.how, self.by_id = how, by_id
        self._met: set[str] = set()

    def of(self, id: str, meta: Mapping[str, Any]) -> Sequence[str] | None:
        """The labels of an item, which has now been met; None if nothing is known of it."""
        if self.by_id is None:
            return label_by(self.how, id, meta) or None
        self._met.add(id)
        return self.by_id.get(id)

    @property
    def several(self) -> bool:
        """Whether an item is known to have several labels."""
        return any(len(labels) > 1 for labels in (self.by_id or {}).values())

    def unmet(self) -> list[str]:
        """The ids in the file that no item had."""
        return [id for id in self.by_id or {} if id not in self._met]

    def record(self) -> dict[str, Any]:
        """What a report says about it: where it is from, and a hash of the labels by id."""
        if self.by_id is None:
            return {"by": self.how}
        rows = json.dumps(sorted((id, sorted(labels)) for id, labels in self.by_id.items()))
        return {"by": self.how, "count": len(self.by_id), "sha256": hashlib.sha256(rows.encode()).hexdigest()}


def open_truth(given: str) -> Truth:
    """Truth as the command line names it: `folder`, a file, or a column.

    Raises:
        UserError: see `read_truth`.
    """
    is_file = given != FOLDER and (os.path.exists(given) or given.lower().endswith((".csv", ".tsv", ".jsonl")))
    return Truth(given, read_truth(Path(given)) if is_file else None)


def label_by(how: str, id: str, meta: Mapping[str, Any]) -> list[str]:
    """The labels an item carries with it: none if it has none.

    how: `folder`, for the name of the folder in its id; `id`; or a column of what its manifest said besides: a string with | between
    labels, or a list of them.
    """
    if how == FOLDER:
        folder = os.path.basename(os.path.dirname(id))
        return [folder] if folder else []
    return [id] if how == "id" else _labels(meta.get(how))


def read_truth(path: Path) -> dict[str, list[str]]:
    """Ids and labels of a CSV or TSV file with columns `id` and `label`, or of JSON Lines with those keys.

    Several labels of an item: rows of the same id, | between them in a table, a list in JSON.

    Raises:
        UserError: as `read_good_rows`, an id without a label, the same label twice for an id, no rows.
    """
    found: dict[str, list[str]] = {}
    for number, row in read_good_rows(path, ("id", "label")):
        labels = _labels(row.get("label"))
        if not labels or row.get("id") in (None, ""):
            raise UserError(f"{path}: row {number} has no id or no label")
        known = found.setdefault(str(row["id"]), [])
        for label in labels:
            if label in known:
                raise UserError(f"{path}: row {number} gives {row['id']} the label {label!r} a second time")
            known.append(label)
    if not found:
        raise UserError(f"{path}: no rows in it")
    return found


def _labels(value: Any) -> list[str]:
    parts = value.split("|") if isinstance(value, str) else value if isinstance(value, list) else [] if value is None else [value]
    return [label for label in (str(part).strip() for part in parts) if label]
