"""Both samples of a pair's row, as their encoders take them, and chunks of rows read in worker processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imagebind_cli.encoder import Sample
from imagebind_cli.errors import UserError
from imagebind_cli.media.views import View
from imagebind_cli.media.windows import Moment, within
from imagebind_cli.prepared import Prepared
from imagebind_cli.readers import read_source
from imagebind_cli.sources import Failure
from imagebind_cli.training import augment
from imagebind_cli.training.rows import Data
from imagebind_cli.training.sides import PICTURES, TIMED, Side

MIDDLE = 0.5

ATTEMPTS = 10
"""Other rows that are tried for one that cannot be read."""


@dataclass(frozen=True)
class PairReader:
    """Reads rows of one pair.

    number: the pair's in the recipe. aligned: one crop, mirror and moment for both sides. unreadable: rows, by view, whose anchor is known
    to be broken, and why; they are not tried.
    """

    number: int
    data: Data
    sides: tuple[Side, Side]
    seed: int
    aligned: bool
    unreadable: Mapping[tuple[int, int], str] = field(default_factory=dict)

    def read(self, row: int, view: int | None, sides: Sequence[int] = (0, 1)) -> list[Sample]:
        """A sample of one clip, (1, *shape), for each side asked for.

        Args:
            view: number of the augmentation; None for the middle of everything.
        Raises:
            OSError, ValueError: a side cannot be read; the reason begins with its modality.
        """
        if view is not None and (row, view) in self.unreadable:
            raise ValueError(self.unreadable[row, view])
        given = self.data.rows[row]
        payloads = self.data.payloads(given, [self.sides[number].modality for number in sides])
        return [self._sample(number, row, given, payloads[self.sides[number].modality], view) for number in sides]

    def _sample(self, number: int, row: int, given: Mapping[str, Any], payload: Any, view: int | None) -> Sample:
        side = self.sides[number]
        place = (self.number, row, 0 if view is None else view, *(() if self.aligned else (number,)))
        chosen: dict[str, Any] = {}
        if side.modality in TIMED:
            where = MIDDLE if view is None else augment.draw_place(self.seed, *place)
            chosen["moment"] = Moment(where, given.get("start"), given.get("end"))
        if side.augment and view is not None and side.encoder in PICTURES:
            chosen["view"] = augment.draw_view(side.augment, self.seed, *place)
        elif side.modality == "video":
            chosen["crops"] = "1"
        try:
            if isinstance(payload, Prepared):
                sample = prepared_sample(payload, side, chosen.get("moment"), chosen.get("view"))
            else:
                sample = next(read_source(side.modality, payload, side.config, {**side.options, **chosen}))
        except (OSError, ValueError) as error:
            raise ValueError(f"{side.modality}: {getattr(error, 'strerror', None) or error}") from None
        if not side.augment or view is None:
            return sample
        tensor = sample.tensor
        if side.augment.frequency_mask:
            tensor = augment.mask_frequencies(tensor, side.augment.frequency_mask, self.seed, *place)
        if side.augment.turn:
            tensor = augment.turn_sensors(tensor, side.augment.turn, side.config.mean, side.config.std, self.seed, *place)
        return dataclasses.replace(sample, tensor=tensor)


def prepared_sample(source: Prepared, side: Side, moment: Moment | None, view: View | None) -> Sample:
    """One clip of prepared ones: the window at a moment, of a video's crops the middle one; its square looked at in a view."""
    wanted = clip_number(source.spans, moment)
    for sample in read_source(side.modality, source, side.config, side.options):
        if wanted < len(sample.tensor):
            clip = sample.tensor[wanted]
            if view is not None:
                normalised = source.provenance["inputs"][side.modality]["options"].get("depth_normalise") != "none"
                clip = looked_at(clip, view, *((side.config.mean, side.config.std) if normalised else ((0.0,), (1.0,))))
            return dataclasses.replace(sample, tensor=clip.unsqueeze(0), spans=sample.spans[wanted : wanted + 1])
        wanted -= len(sample.tensor)
    raise ValueError("prepared with fewer clips than spans")


def clip_number(spans: Sequence[Any], moment: Moment | None) -> int:
    """Which of the prepared clips a moment means: of the windows, evenly, those within its stretch; of a window's crops the middle one.

    Raises:
        ValueError: none lies in the stretch.
    """
    if moment is None or not all(spans):
        return 0
    inside = within(spans, (moment.start, moment.end))
    chosen = inside[int(moment.place * len(inside))]
    crops = [number for number, span in enumerate(spans) if tuple(span) == chosen]
    return crops[len(crops) // 2]


def looked_at(clip: Tensor, view: View, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """A prepared square (c, h, w), or frames (3, t, h, w), in a view: its normalisation is undone and done again."""
    size = clip.shape[-1]
    centre, scale = (torch.tensor(values).view(-1, *[1] * (clip.dim() - 1)) for values in (mean, std))
    values = clip * scale + centre
    if len(clip) == 1:
        return (torch.from_numpy(view.plane(values[0].numpy(), size).copy())[None] - centre) / scale
    frames = (values.reshape(3, -1, size, size) * 255).round().clamp(0, 255).byte().permute(1, 2, 3, 0)  # (t, h, w, 3)
    seen = np.stack([np.asarray(view.picture(Image.fromarray(frame.numpy()), size)) for frame in frames])
    return (torch.from_numpy(seen).permute(3, 0, 1, 2).reshape(clip.shape).float() / 255 - centre) / scale


@dataclass(frozen=True)
class Request:
    """Rows to read, each in a view. replace: take another row for one that cannot be read, and not leave it out."""

    pair: int
    rows: tuple[int, ...]
    views: tuple[int | None, ...]
    sides: tuple[int, ...] = (0, 1)
    replace: bool = True


@dataclass(frozen=True)
class Chunk:
    """What was read: of `rows`, tensors (c, *shape) for each side. What could not be: `lost`, and why."""

    rows: tuple[int, ...]
    views: tuple[int | None, ...]
    lost: tuple[int, ...]
    ids: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    failures: tuple[Failure, ...]


def read_chunk(reader: PairReader, request: Request) -> Chunk:
    """Carry out a request.

    Raises:
        UserError: a row and all that were tried in its place cannot be read, or shards do not fit the encoder.
    """
    rows: list[int] = []
    views: list[int | None] = []
    lost: list[int] = []
    read: list[list[Tensor]] = []
    failures: list[Failure] = []
    for wanted, view in zip(request.rows, request.views, strict=True):
        row = wanted
        for attempt in range(ATTEMPTS + 1 if request.replace else 1):
            if attempt:
                row = other_row(reader, wanted, view or 0, attempt)
            try:
                samples = reader.read(row, view, request.sides)
            except (OSError, ValueError) as error:
                lost.append(row)
                failures.append(Failure(reader.data.id(row), str(error)))
            else:
                rows.append(row)
                views.append(view)
                read.append([sample.tensor[0] for sample in samples])
                break
        else:
            if request.replace:
                last = f"{failures[-1].id}: {failures[-1].reason}"
                raise UserError(f"{ATTEMPTS + 1} samples one after another cannot be read; the last, {last}")
    stacked = tuple(torch.stack(side) for side in zip(*read, strict=True))
    return Chunk(tuple(rows), tuple(views), tuple(lost), tuple(reader.data.id(row) for row in rows), stacked, tuple(failures))


def other_row(reader: PairReader, row: int, view: int, attempt: int) -> int:
    """The row that stands in for one that cannot be read."""
    return int(augment.random(reader.seed, "replacement", reader.number, row, view, attempt).integers(len(reader.data)))
