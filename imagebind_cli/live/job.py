"""Embed a live stream: a row for each window as soon as it is complete, and into a store that can be searched meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.nn.functional import normalize

from imagebind_cli import registry
from imagebind_cli.errors import OptionError, UsageError, UserError
from imagebind_cli.events import Listener, LogListener
from imagebind_cli.live.cutting import Cutter, StreamFormat
from imagebind_cli.live.waiting import Behind, WindowQueue
from imagebind_cli.media.clock import clock_text
from imagebind_cli.options import ReadingOptions
from imagebind_cli.space import Space
from imagebind_cli.store import Row, Store, check_writable

if TYPE_CHECKING:
    from imagebind_cli.model import Model

CUTTERS = {
    "audio": "imagebind_cli.live.sound:SoundCutter",
    "video": "imagebind_cli.live.pictures:PictureCutter",
    "imu": "imagebind_cli.live.readings:ReadingCutter",
}
FAMILIES = ("imagebind", "clip")  # whose windows are ImageBind's


@dataclass(frozen=True)
class LiveRow:
    """The vector of a window of a stream.

    id: of the stream. start, end: seconds from its beginning. clock: when the window began, in ISO 8601, by this machine's clock when the
    first bytes came. dropped: windows left out so far. whole: `time.monotonic` when its last bytes had come.
    """

    id: str
    modality: str
    start: float
    end: float
    clock: str
    vector: np.ndarray
    dropped: int
    whole: float

    @property
    def latency(self) -> float:
        """Seconds since the window was complete."""
        return time.monotonic() - self.whole


def embed_stream(
    model: Model | Space | str | None,
    modality: str,
    file: int,
    format: StreamFormat,
    *,
    behind: Behind = "wait",
    memory: Path | str | None = None,
    array: str = "float32",
    name: str = "stream",
    listener: Listener | None = None,
    **options: Any,
) -> Iterator[LiveRow]:
    """Embed a stream: yield a row for each window of a possibly endless stream, in memory that does not grow.

    Args:
        model: a model, its name, or a `Space`.
        file: an open file descriptor, from which a thread reads. format: what its bytes are.
        behind: what happens where windows come faster than rows are taken: `wait` stops reading, `drop` leaves out the oldest window.
        memory: a store to append the rows to; it can be read meanwhile, 2 seconds late. array: its number type, float32 or float16.
        name: of the stream, for messages. listener: receives what was assumed, counts, and windows that cannot be embedded.
        options: fields of the modality's options, e.g. `hop=0.5`; by default windows follow each other.
    Raises:
        UsageError: a modality without streams, a format that does not fit it, or an option that needs a whole recording.
        UserError: the stream ends in the middle of a sample or before there is anything to embed; rows of what came before are yielded first.
    """
    if modality not in CUTTERS:
        raise UsageError(f"{modality} is not read live; {', '.join(CUTTERS)} are")
    if behind not in ("drop", "wait"):
        raise UsageError(f"unknown behind {behind!r}; choose from drop, wait")
    listener = LogListener() if listener is None else listener
    reading = registry.face(modality).read_options(options)
    module, _, kind = CUTTERS[modality].partition(":")
    make = getattr(import_module(module), kind)
    _check_heeded(modality, reading, make.heeds)
    if memory is not None:
        check_writable(Path(memory))
    loaded = Space.of(model, listener).local
    config = loaded.config(modality)
    if config.family not in FAMILIES:
        raise UserError(f"model {loaded.name} is of family {config.family}, whose windows are not read live")
    cutter: Cutter = make(config, reading, format)
    reading = replace(reading, hop=reading.hop or cutter.seconds)  # type: ignore[attr-defined, call-arg]
    loaded.encoder(modality)
    made = loaded.record(modality, reading, "none") | {"array": array}
    return _rows(loaded, modality, WindowQueue(file, cutter, behind), cutter, name, listener, memory, made)


def _check_heeded(modality: str, reading: ReadingOptions, heeds: frozenset[str]) -> None:
    """Refuse an option that the cutter does not follow, since the store would record it.

    Raises:
        OptionError: with those that it follows.
    """
    for option in reading.flags():
        if option.name not in heeds and getattr(reading, option.name) != option.default:
            known = ", ".join(sorted(heeds))
            raise OptionError(
                f"{option.name}: a live stream is read a window at a time, and this needs the whole recording or its file; "
                f"a live {modality} has {known}",
                [option.name, *heeds],
            )


def _rows(
    model: Model,
    modality: str,
    windows: WindowQueue,
    cutter: Cutter,
    name: str,
    listener: Listener,
    memory: Path | str | None,
    provenance: dict[str, Any],
) -> Iterator[LiveRow]:
    with ExitStack() as stack:
        store = None if memory is None else stack.enter_context(Store(Path(memory), provenance))
        id = ""
        try:
            for window, whole in windows:
                began = datetime.fromtimestamp(windows.began or time.time(), UTC)
                id = id or f"live-{clock_text(began)}"
                place = f"{name}: {window.start:g} to {window.end:g} s"
                try:
                    sample = window.prepare()
                except ValueError as error:
                    listener.failure(place, str(error))
                    continue
                vector = normalize(model.encode(modality, sample).cpu().mean(dim=0), dim=0).numpy()  # as the pipeline does
                if not np.isfinite(vector).all():
                    listener.failure(place, "gives no finite vector: its values are too large, or not numbers")
                    continue
                listener.remarks(name, cutter.notes, ())
                clock = clock_text(began, window.start)
                if store is not None:
                    store.append([Row(id, vector, (window.start, window.end), 0, clock=clock)], cutter.notes)
                listener.succeeded(place)
                yield LiveRow(id, modality, window.start, window.end, clock, vector, windows.dropped, whole)
        except ValueError as error:
            raise UserError(f"{name}: {error}") from None
