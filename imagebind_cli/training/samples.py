"""Both samples of a pair's row, as their encoders take them, and chunks of rows as a worker process reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imagebind_cli.crashes import call_for
from imagebind_cli.encoder import Sample
from imagebind_cli.engine.item_timeout import ITEM_SECONDS
from imagebind_cli.errors import UserError
from imagebind_cli.media.isolation import time_limit
from imagebind_cli.media.views import View
from imagebind_cli.media.windows import Moment, within
from imagebind_cli.prepared import Prepared
from imagebind_cli.readers import read_source
from imagebind_cli.sources import Failure
from imagebind_cli.training import augment
from imagebind_cli.training.inputs import CROPPABLE, TIMED, PairInput
from imagebind_cli.training.rows import PairRows

MIDDLE = 0.5
ATTEMPTS = 10  # other rows to try in place of one that cannot be read
CHECKED = 5  # rows to try before a modality counts as unreadable


@dataclass(frozen=True)
class PairReader:
    """Reads rows of one pair.

    number: the pair's in the recipe. inputs: the anchor's and the other's. aligned: use one crop, mirroring and time for both.
    unreadable: by row and view of its cache, why an anchor cannot be read; such rows are not tried again. cached: views in that cache.
    """

    number: int
    rows: PairRows
    inputs: tuple[PairInput, PairInput]
    seed: int
    aligned: bool
    unreadable: Mapping[tuple[int, int], str] = field(default_factory=dict)
    cached: int = 1

    def read(self, row: int, view: int | None, which: Sequence[int] = (0, 1)) -> list[Sample]:
        """Read a sample of one clip, (1, *shape), of each input asked for.

        Args:
            view: number of the augmentation; None for the middle of everything.
            which: 0 for the anchor, 1 for the other.
        Raises:
            OSError, ValueError: an input cannot be read; the reason begins with its modality.
        """
        if view is not None and self.unreadable and (row, view % self.cached) in self.unreadable:
            raise ValueError(self.unreadable[row, view % self.cached])
        content = self.rows.rows[row]
        payloads = self.rows.payloads(content, [self.inputs[number].modality for number in which])
        return [self._sample(number, row, content, payloads[self.inputs[number].modality], view) for number in which]

    def mask(self, row: int, view: int | None) -> Tensor:
        """Read the mask of an anchor's picture, (h, w) bool as its sample is seen in a view: what belongs to the thing, not the background.

        Raises:
            UserError: it cannot be read.
        """
        source, content = self.inputs[0], self.rows.rows[row]
        seen = (
            View() if source.augment is None or view is None else augment.draw_view(source.augment, self.seed, *self._place(0, row, view))
        )
        try:
            with Image.open(content["mask"]) as picture:
                plane = np.asarray(picture.convert("L"), np.float32)
        except (OSError, ValueError) as error:
            raise UserError(f"{content['mask']}: {getattr(error, 'strerror', None) or error}; a mask is a grey picture") from None
        return torch.from_numpy(seen.plane(plane, source.config.shape[-1]) > 127)

    def _place(self, number: int, row: int, view: int | None) -> tuple[int, ...]:
        """Return what a sample's random choices follow from, beside the seed."""
        return (self.number, row, 0 if view is None else view, *(() if self.aligned else (number,)))

    def _sample(self, number: int, row: int, content: Mapping[str, Any], payload: Any, view: int | None) -> Sample:
        source = self.inputs[number]
        place = self._place(number, row, view)
        chosen: dict[str, Any] = {}
        if source.face.windowed:
            where = MIDDLE if view is None else augment.draw_place(self.seed, *place)
            chosen["moment"] = Moment(where, content.get("start"), content.get("end"))
        if source.augment and view is not None and source.face.drawn:
            chosen["view"] = augment.draw_view(source.augment, self.seed, *place)
        elif source.face.windowed and "crops" in source.options.names():  # the middle one of a clip's views
            chosen["crops"] = "1"
        try:
            if isinstance(payload, Prepared):
                sample = prepared_sample(payload, source, chosen.get("moment"), chosen.get("view"))
            else:
                with time_limit(ITEM_SECONDS):
                    sample = next(read_source(source.face, payload, source.config, dataclasses.replace(source.options, **chosen)))
        except (OSError, ValueError) as error:
            raise ValueError(f"{source.modality}: {getattr(error, 'strerror', None) or error}") from None
        if not source.augment or view is None:
            return sample
        tensor = sample.tensor
        if source.augment.frequency_mask:
            tensor = augment.mask_frequencies(tensor, source.augment.frequency_mask, self.seed, *place)
        if source.augment.recolour and (numbers := augment.random(self.seed, "recolour", *place)).random() < source.augment.recolour:
            tensor = augment.recolour(tensor[0], source.config.mean, source.config.std, numbers)[None]
        if source.augment.turn:
            tensor = augment.turn_sensors(tensor, source.augment.turn, source.config.mean, source.config.std, self.seed, *place)
        return dataclasses.replace(sample, tensor=tensor)


def prepared_sample(prepared: Prepared, source: PairInput, moment: Moment | None, view: View | None) -> Sample:
    """Pick the window at `moment` (the middle crop for video), then apply `view`."""
    if prepared.regions:
        raise ValueError("prepared as tiles, and training takes whole pictures; prepare it without --tiles")
    number = clip_at(prepared.spans, moment)
    for sample in read_source(source.face, prepared, source.config, source.options):
        if number < len(sample.tensor):
            clip = sample.tensor[number]
            if view is not None:
                record = prepared.provenance["inputs"][source.modality]["options"]
                clip = apply_view(clip, view, *source.face.options.normalisation(record, source.config.mean, source.config.std))
            return dataclasses.replace(sample, tensor=clip.unsqueeze(0), spans=sample.spans[number : number + 1])
        number -= len(sample.tensor)
    raise ValueError("prepared with fewer clips than spans")


def clip_at(spans: Sequence[Any], moment: Moment | None) -> int:
    """Return the number of the prepared clip at a moment: of the windows within its stretch; of a window's crops the middle one.

    Raises:
        ValueError: no window is within the stretch.
    """
    if moment is None or not all(spans):
        return 0
    inside = within(spans, (moment.start, moment.end))
    window = inside[int(moment.place * len(inside))]
    crops = [number for number, span in enumerate(spans) if tuple(span) == window]
    return crops[len(crops) // 2]


def apply_view(clip: Tensor, view: View, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Apply a view to a prepared square (c, h, w), or frames (3, t, h, w): undo the normalisation, crop and augment, and normalise again."""
    size = clip.shape[-1]
    centre, scale = (torch.tensor(values).view(-1, *[1] * (clip.dim() - 1)) for values in (mean, std))
    values = clip * scale + centre
    if len(clip) == 1:
        return (torch.from_numpy(view.plane(values[0].numpy(), size).copy())[None] - centre) / scale
    frames = (values.reshape(3, -1, size, size) * 255).round().clamp(0, 255).byte().permute(1, 2, 3, 0)  # (t, h, w, 3)
    viewed = np.stack([np.asarray(view.picture(Image.fromarray(frame.numpy()), size)) for frame in frames])
    return (torch.from_numpy(viewed).permute(3, 0, 1, 2).reshape(clip.shape).float() / 255 - centre) / scale


def check_first_rows(reader: PairReader) -> Iterator[str]:
    """Read one row of each modality and yield what was assumed to read it.

    Raises:
        UserError: none of the first few rows can be read.
    """
    for number, source in enumerate(reader.inputs):
        failure = ""
        for row in range(min(CHECKED, len(reader.rows))):
            try:
                (sample,) = reader.read(row, 0, (number,))
                break
            except (OSError, ValueError) as error:
                failure = failure or f"{reader.rows.id(row)}: {error}"
        else:
            count = min(CHECKED, len(reader.rows))
            raise UserError(f"{reader.rows.files[0]}: none of its first {count} rows can be read; {failure}")
        if failure:
            yield f"cannot be read: {failure}"
        for note in (*sample.notes, *sample.warnings):
            yield f"{source.modality}: {note}"
        content = reader.rows.rows[row]
        if "file" in content and isinstance(reader.rows.payloads(content, (source.modality,))[source.modality], Prepared):
            how = "windows are drawn from the prepared ones" if source.modality in TIMED else "read as prepared"
            if source.augment and source.encoder in CROPPABLE:
                how = f"crops are taken from prepared squares of {source.config.shape[-1]} x {source.config.shape[-1]}"
            yield f"{source.modality}: {how}"


@dataclass(frozen=True)
class ReadRequest:
    """Rows for a worker to read.

    views: one for each row. which: 0 for the anchor, 1 for the other. replace: read another row in place of one that cannot be read,
    instead of leaving it out.
    """

    pair: int
    rows: tuple[int, ...]
    views: tuple[int | None, ...]
    which: tuple[int, ...] = (0, 1)
    replace: bool = True


@dataclass(frozen=True)
class SampleChunk:
    """What a worker read.

    rows, views, ids: of the c samples. tensors: (c, *shape) for each input. lost: rows that could not be read; failures: the reason for each.
    """

    rows: tuple[int, ...]
    views: tuple[int | None, ...]
    ids: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    lost: tuple[int, ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class ChunkReader:
    """Reads chunks of all pairs. A worker process holds one."""

    readers: Sequence[PairReader]

    def __call__(self, request: ReadRequest) -> SampleChunk:
        """Read the rows of a request.

        Raises:
            UserError: a row and all that were tried in its place cannot be read, or shards do not fit the encoder.
        """
        reader = self.readers[request.pair]
        rows: list[int] = []
        views: list[int | None] = []
        lost: list[int] = []
        samples: list[list[Tensor]] = []
        failures: list[Failure] = []
        for first, view in zip(request.rows, request.views, strict=True):
            row = first
            for attempt in range(ATTEMPTS + 1 if request.replace else 1):
                if attempt:
                    row = replacement_row(reader, first, view or 0, attempt)
                try:
                    pair = call_for(reader.rows.id(row), reader.read, row, view, request.which)
                except (OSError, ValueError) as error:
                    lost.append(row)
                    failures.append(Failure(reader.rows.id(row), str(error)))
                else:
                    rows.append(row)
                    views.append(view)
                    samples.append([sample.tensor[0] for sample in pair])
                    break
            else:
                if request.replace:
                    last = f"{failures[-1].id}: {failures[-1].reason}"
                    raise UserError(f"{ATTEMPTS + 1} samples in a row cannot be read; the last, {last}")
        tensors = tuple(torch.stack(tensors) for tensors in zip(*samples, strict=True))
        ids = tuple(reader.rows.id(row) for row in rows)
        return SampleChunk(tuple(rows), tuple(views), ids, tensors, tuple(lost), tuple(failures))


def replacement_row(reader: PairReader, row: int, view: int, attempt: int) -> int:
    """Draw the row to read in place of one that cannot be read."""
    return int(augment.random(reader.seed, "replacement", reader.number, row, view, attempt).integers(len(reader.rows)))
