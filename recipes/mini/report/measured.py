"""Rows that a program beside this one has measured, for the report: scenes.py, moments.py and recipes/separate/evaluate.py write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.documents import read_object
from imagebind_cli.files import write_json
from imagebind_cli.metrics import interval


@dataclass(frozen=True)
class Measured:
    """A mean over `count` items with its 95 % interval. floor: what chance or the baseline reaches. control: what a wrong query reaches."""

    value: float
    low: float
    high: float
    floor: float
    control: float
    count: int


def measured(values: np.ndarray, floor: float, control: float, count: int | None = None) -> Measured:
    """Summarise values (n,), drawn anew for the interval. count: items, where a value is the mean of several."""
    low, high = interval(values)
    return Measured(float(values.mean()), low, high, float(floor), float(control), count or len(values))


def write_rows(rows: Mapping[str, Measured], path: Path, **about: Any) -> None:
    """Write rows by their titles, and what else is to be kept beside them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"rows": {title: asdict(row) for title, row in rows.items()}, **about})


def read_rows(path: Path) -> dict[str, Measured]:
    """Read what `write_rows` has written; {} where there is no such file."""
    return {title: Measured(**row) for title, row in read_object(path)["rows"].items()} if path.exists() else {}
