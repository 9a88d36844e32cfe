"""Rows as JSON in memory that processes share."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable
from typing import Any

import torch


class PackedRows:
    """JSON objects in two tensors: millions of rows take the memory of their text, and processes share it."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        text, ends = bytearray(), array("q", [0])
        for line in lines:
            text += line
            ends.append(len(text))
        self._text = torch.frombuffer(text or bytearray(1), dtype=torch.uint8)
        self._ends = torch.frombuffer(ends, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> dict[str, Any]:
        return json.loads(self.line(number))

    def line(self, number: int) -> bytes:
        """Return the text of one row."""
        start, end = self._ends[number : number + 2].tolist()
        return self._text[start:end].numpy().tobytes()

    def bytes(self) -> memoryview:
        """Return the text of all rows, without separators."""
        return self._text.numpy().data
