"""Read an input as what `embed` encodes of it, and as squares that cover all of it; with what there is to draw a heat map on.

A file is decoded once. Its own reader is given a view that keeps the decoded picture or map; the squares are further views of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imagebind_cli import registry
from imagebind_cli.encoder import IMAGEBIND, EncoderConfig, Sample, Span
from imagebind_cli.encoders.audio import HOP, RATE
from imagebind_cli.errors import UsageError
from imagebind_cli.grounding.squares import square_view
from imagebind_cli.media.image import LONGEST, middle
from imagebind_cli.media.maps.palettes import ramp
from imagebind_cli.media.regions import squares
from imagebind_cli.media.views import Box
from imagebind_cli.options import TIME_WINDOWS, ReadingOptions
from imagebind_cli.prepared import Prepared
from imagebind_cli.readers import prepares_alike, read_source, reader_of
from imagebind_cli.registry import Face
from imagebind_cli.sources import Stretch

FRAME_SECONDS = HOP / RATE  # of a spectrogram
SQUARES_AT_ONCE = 64  # clips in one piece: a long picture has many squares

STILL, FILM, SOUND = "still", "film", "sound"


@dataclass(frozen=True)
class Pieces(Sample):
    """One clip of an input, or some windows of a sound, as an encoder takes them.

    own: how many of the clips `embed` would encode; they come first. boxes: of each clip the part of the picture that it covers; None for
    one that does not count in a heat map. size: width and height of the picture, upright; of a sound its seconds and bands.
    origin: where `boxes` count from. ground: what to draw a heat map on, (h, w, 3) uint8, if it was asked for.
    """

    own: int = 0
    boxes: tuple[Box | None, ...] = ()
    size: tuple[float, float] = (0.0, 0.0)
    origin: tuple[float, float] = (0.0, 0.0)
    covered: tuple[float, float] = (0.0, 0.0)
    ground: np.ndarray | None = None


class KeptView:
    """In place of a `View`: keeps the pictures (RGB) or the map that a reader decodes, and gives the reader a small square of it."""

    def __init__(self) -> None:
        self.pictures: list[Image.Image] = []
        self.planes: list[np.ndarray] = []

    def picture(self, picture: Image.Image, size: int) -> Image.Image:
        """Keep a picture; see `View.picture`."""
        self.pictures.append(picture)
        return picture.resize((size, size), Image.Resampling.NEAREST)

    def plane(self, values: np.ndarray, size: int) -> np.ndarray:
        """Keep a map; see `View.plane`."""
        self.planes.append(values)
        return np.zeros((size, size), np.float32)


def kind_of(face: Face, config: EncoderConfig) -> str:
    """Return how inputs of a modality are searched: `STILL`, `FILM` or `SOUND`.

    Raises:
        UsageError: there are no places in such inputs, or it is not known where they are.
    """
    if face.drawn and not face.mixed and len(config.patch) >= 2:
        reader_of(face, config)  # refuses a picture where the encoder takes clips
        return FILM if face.timed else STILL
    if face.mixed:
        raise UsageError(f"{face.name} is pictures and videos together; name one of them")
    if registry.modality(face.encoder, config).preview == "spectrogram":
        if not prepares_alike(config.family, IMAGEBIND) or len(config.patch) != 2:
            raise UsageError(f"places in the sounds of {config.family} models are not known: an input is not one spectrogram there")
        return SOUND
    raise UsageError(f"{face.name} cannot be located; locate is for pictures, maps, videos and sounds")


def read_pieces(
    source: Any, face: Face, config: EncoderConfig, options: ReadingOptions, divisors: tuple[int, ...], ground: bool
) -> Iterator[Pieces]:
    """Yield the pieces of one input, clip by clip.

    Args:
        divisors: of the short side, for `squares`; not used for sounds. ground: whether to give what to draw on.
    Raises:
        OSError, ValueError: the input cannot be read, or is prepared, so that there is no whole picture.
    """
    if callable(source):
        source = source()
    whole = source.source if isinstance(source, Stretch) else source
    if isinstance(whole, Prepared):
        raise ValueError("prepared samples hold no whole picture; give the files that they were made from")
    if kind_of(face, config) == SOUND:
        yield from _sound_pieces(source, face, config, options)
        return
    kept = KeptView()
    for sample in read_source(face, source, config, replace(options, view=kept)):  # type: ignore[call-arg]
        pictures, planes = kept.pictures[:], kept.planes[:]
        kept.pictures.clear()
        kept.planes.clear()
        if hasattr(whole, "seek"):
            whole.seek(0)
        yield from _drawn_pieces(sample, pictures or planes, whole, face, config, options, divisors, ground)


def _drawn_pieces(
    sample: Sample,
    seen: list[Any],
    source: Any,
    face: Face,
    config: EncoderConfig,
    options: ReadingOptions,
    divisors: tuple[int, ...],
    ground: bool,
) -> Iterator[Pieces]:
    """Yield the pieces of each clip of a sample. seen: its decoded pictures, as many for each clip, or its decoded map."""
    frames = len(seen) // len(sample.tensor)
    for number, span in enumerate(sample.spans):
        shown = seen[number * frames : (number + 1) * frames]
        first = shown[0]
        again, alone = source, options
        if isinstance(first, Image.Image):
            again = np.stack([np.asarray(picture) for picture in shown]) if face.timed else first
            in_time: dict[str, Any] = {name: None for name in (*TIME_WINDOWS, "stretch", "moment") if hasattr(options, name)}
            alone = replace(options, **in_time)
        width, height = first.size if isinstance(first, Image.Image) else first.shape[::-1]
        boxes: list[Box | None] = [box for divisor in divisors for box in squares(width, height, min(width, height) / divisor)]
        own = _tensor(again, face, config, alone)
        clips = [*own]
        if width == height and not face.timed:
            places: list[Box | None] = [boxes.pop(0)]  # the whole picture, as `embed` sees it
        else:
            places = [None] * len(own)
        remarks: dict[str, Any] = {}
        if not number:
            remarks = {"notes": sample.notes, "facts": sample.facts, "warnings": sample.warnings, "began": sample.began}
        shape = _size(sample, width, height)
        about: dict[str, Any] = {"size": shape[0], "origin": shape[1], "covered": (width, height)}
        about["ground"] = _ground(first) if ground and not face.timed else None
        for start in range(0, max(1, len(boxes)), SQUARES_AT_ONCE):
            some = boxes[start : start + SQUARES_AT_ONCE]
            for box in some:
                assert box is not None
                clips += _tensor(again, face, config, replace(alone, view=square_view(box, width, height)))  # type: ignore[call-arg]
            places += some
            yield Pieces(torch.stack(clips), [span] * len(clips), **remarks, own=0 if start else len(own), boxes=tuple(places), **about)
            clips, places, remarks = [], [], {}


def _tensor(source: Any, face: Face, config: EncoderConfig, options: ReadingOptions) -> Tensor:
    if hasattr(source, "seek") and not isinstance(source, Image.Image):
        source.seek(0)
    return torch.cat([sample.tensor for sample in read_source(face, source, config, options)])


def _size(sample: Sample, width: int, height: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return width and height of the file, and where in it the part begins that is read: all of it, unless it is very long."""
    longest, short = max(width, height), min(width, height)
    known = sample.facts.get("size")
    if longest < LONGEST * short or not known:
        return (width, height), (0, 0)
    whole = max(known)
    start = middle(whole, short).start
    return ((whole, height), (start, 0)) if width > height else ((width, whole), (0, start))


def _ground(seen: Image.Image | np.ndarray) -> np.ndarray:
    if isinstance(seen, Image.Image):
        return np.asarray(seen.convert("RGB"))
    low, high = float(seen.min()), float(seen.max())
    return ramp("grey")[((seen - low) / ((high - low) or 1) * 255).astype(np.uint8)].astype(np.uint8)


def _sound_pieces(source: Any, face: Face, config: EncoderConfig, options: ReadingOptions) -> Iterator[Pieces]:
    bands = config.shape[-2]
    for sample in read_source(face, source, config, options):
        spans: list[Span] = sample.spans
        boxes = tuple(None if span is None else (span[0], 0.0, span[1], float(bands)) for span in spans)
        about = {"facts": sample.facts, "warnings": sample.warnings, "began": sample.began}
        yield Pieces(sample.tensor, spans, sample.notes, **about, own=len(spans), boxes=boxes)  # type: ignore[arg-type]
