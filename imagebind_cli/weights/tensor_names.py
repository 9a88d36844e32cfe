"""Tensors' names in foreign weight files: a family's table has a row for each, its name there and ours.

    theirs        ours      change

Both names may have places: {m} an encoder, {i} and {j} digits, {p} weight or bias, {kv} k or v. Ours is `-` for a tensor that is dropped, may
be several with commas between them, and ends in `#0`, `#1`, … where several tensors are parts of one, joined along their first axis. The
change, a key of `CHANGES`, is made on the way. A name that a table does not have is an error; the first row that matches wins, in both
directions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from imagebind_cli import registry

CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    # Half the kernel on each of two frames: on a still picture, two equal frames, exactly the 2-D convolution.
    "two_frames": lambda kernel: (kernel / 2).unsqueeze(2).repeat(1, 1, 2, 1, 1),
    "one_frame": lambda kernel: kernel.squeeze(2) if kernel.dim() == 5 else kernel,
    "as_sequence": lambda tensor: tensor.reshape(1, -1, tensor.shape[-1]),
    "as_class_tokens": lambda tensor: tensor.reshape(-1, 1, tensor.shape[-1]),
    "transposed": lambda tensor: tensor.T.contiguous(),
    "then_zeros": lambda tensor: torch.cat([tensor, torch.zeros_like(tensor)]),
}

PLACES = {
    "{m}": f"(?P<m>{'|'.join(registry.ENCODERS)})",
    "{i}": r"(?P<i>\d+)",
    "{j}": r"(?P<j>\d+)",
    "{p}": "(?P<p>weight|bias)",
    "{kv}": "(?P<kv>k|v)",
}


class OurTensor(NamedTuple):
    """Name where a tensor goes: our name, which part of that tensor it is, and the change made on the way; "" for none."""

    name: str
    part: int
    change: str


def rename(key: str, table: str) -> list[OurTensor]:
    """Return where a tensor of a foreign file goes; [] for one that the table drops.

    Raises:
        KeyError: the table does not have the name.
    """
    for pattern, _, targets, change in _rows(table):
        if match := pattern.fullmatch(key):
            filled = [target.format_map(match.groupdict()).partition("#") for target in targets]
            return [OurTensor(name, int(part or 0), change) for name, _, part in filled]
    raise KeyError(key)


def published_names(name: str, table: str) -> dict[int, str]:
    """Return the names in a foreign file of the parts of one of our tensors, by part.

    Raises:
        KeyError: the table does not have the name.
    """
    parts: dict[int, str] = {}
    for _, source, targets, _ in _rows(table):
        for target in targets:
            ours, _, part = target.partition("#")
            if (match := _pattern(ours).fullmatch(name)) and int(part or 0) not in parts:
                parts[int(part or 0)] = source.format_map(match.groupdict())
                if not part:
                    return parts
    if not parts:
        raise KeyError(name)
    return parts


@cache
def _rows(table: str) -> list[tuple[re.Pattern[str], str, tuple[str, ...], str]]:
    rows = []
    for line in filter(str.strip, table.splitlines()):
        source, target, change = [*line.split(), ""][:3]
        rows.append((_pattern(source), source, () if target == "-" else tuple(target.split(",")), change))
    return rows


@cache
def _pattern(template: str) -> re.Pattern[str]:
    pattern = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    for place, expression in PLACES.items():
        pattern = pattern.replace(place, expression)
    return re.compile(pattern)
