"""`--live`: the flags of commands that read an endless stream, and the stream that is read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from imagebind_cli.cli.configuration import refuse_useless
from imagebind_cli.cli.flags import input_option, output_option
from imagebind_cli.cli.output import write
from imagebind_cli.cli.talk import Talk, line_if_stopped, say
from imagebind_cli.descriptors import open_descriptor
from imagebind_cli.errors import UsageError

if TYPE_CHECKING:
    from imagebind_cli.live import LiveRow, StreamFormat

STDIN = "-"


@dataclass(frozen=True)
class LiveOptions:
    """Hold what --live reads, and what it does where it falls behind."""

    live: bool = False
    format: str | None = None
    sample_rate: int | None = None
    size: str | None = None
    behind: Literal["wait", "drop"] | None = None
    memory: Path | None = None


LIVE_HELP = "Read one endless stream; a row for each window at once. See docs/live.md."
LIVE_FLAGS: dict[str, Any] = {
    "live": Annotated[bool, input_option("--live", help=LIVE_HELP)],
    "format": Annotated[
        str | None,
        input_option("--format", metavar="NAME", hidden=True, help="With --live: u8, s16le, s32le, f32le (s16le:2 is stereo), rawvideo."),
    ],
    "sample_rate": Annotated[
        int | None, input_option("--rate", "--sample-rate", metavar="HZ", hidden=True, help="With --live: samples a second of a sound.")
    ],
    "size": Annotated[str | None, input_option("--size", metavar="WxH", hidden=True, help="With --live: width and height of rawvideo.")],
    "behind": Annotated[
        Literal["wait", "drop"] | None,
        output_option("--behind", hidden=True, help="With --live: if windows come too fast, let the stream wait, or drop the oldest."),
    ],
    "memory": Annotated[
        Path | None, output_option("--memory", metavar="STORE", hidden=True, help="With --live: append the rows to a store as well.")
    ],
}


def hidden_live_flags() -> dict[str, Any]:
    """Return the flags for a command whose help is full without --live."""
    return LIVE_FLAGS | {"live": Annotated[bool, input_option("--live", hidden=True, help=LIVE_HELP)]}


def refuse_without_live(live: LiveOptions) -> None:
    """Refuse flags of a stream where none is read."""
    for flag, value in {
        "--format": live.format, "--sample-rate": live.sample_rate, "--size": live.size, "--behind": live.behind, "--memory": live.memory
    }.items():  # fmt: skip
        if value is not None:
            refuse_useless(flag, f"{flag} is for a live stream; give --live")


def refuse_with_live(flags: Mapping[str, Any]) -> None:
    """Refuse the first flag that was typed and has no use for a stream. flags: by name."""
    for flag, value in flags.items():
        if value not in (None, False, [], ()):
            refuse_useless(name := f"--{flag.replace('_', '-')}", f"{name}: does not apply to a live stream")


def stream_format(live: LiveOptions, chosen: Mapping[str, Any]) -> StreamFormat:
    """Return what the bytes of the stream are, as the flags say. chosen: reading options, of which --rate and --fps are those of the stream too.

    Raises:
        UsageError: a malformed --size.
    """
    from imagebind_cli.live import StreamFormat

    size = None
    if live.size is not None:
        width, cross, height = live.size.lower().partition("x")
        if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
            raise UsageError(f"--size {live.size}: width and height are needed, as in 640x480")
        size = int(width), int(height)
    rate = next((rate for rate in (live.sample_rate, chosen.get("rate"), chosen.get("fps")) if rate is not None), None)
    return StreamFormat(live.format, rate, size)


@contextmanager
def open_stream(inputs: Sequence[str] | None) -> Iterator[tuple[int, str]]:
    """Open the one stream among the inputs, - or none for stdin; give its file descriptor and its name.

    Raises:
        UsageError: several inputs, a closed stdin, or one that is a terminal.
    """
    name, *more = inputs or [STDIN]
    if more:
        raise UsageError(f"--live reads one stream; {len(more) + 1} inputs are given")
    if name != STDIN:
        file = open_descriptor(name, os.O_RDONLY)
        try:
            yield file, name
        finally:
            os.close(file)
        return
    if sys.stdin is None:
        raise UsageError("- stands for stdin, which is closed")
    if sys.stdin.isatty():
        raise UsageError("no stream: pipe one to stdin, or name a FIFO")
    yield 0, "stdin"


def live_line(row: LiveRow) -> bytes:
    """Return a row as a line of JSON: what `embed` prints of a window, with its latency in seconds and the windows dropped so far."""
    from imagebind_cli.store import vector_line

    return vector_line(live_head(row), row.vector)


def live_head(row: LiveRow) -> dict[str, Any]:
    """Return what a row's line begins with, whatever it holds of the vector."""
    head = {"id": row.id, "modality": row.modality, "start": row.start, "end": row.end, "clock": row.clock}
    return head | {"latency": round(row.latency, 4), "dropped": row.dropped}


def write_live(rows: Iterator[LiveRow], talk: Talk, line: Callable[[LiveRow], bytes] = live_line) -> None:
    """Write a line for each row at once, and report the counts at the end, also after Ctrl-C."""
    dropped = 0

    def summary() -> str:
        return talk.summary(f"{dropped:,} dropped")

    with line_if_stopped(lambda: f"{summary()}; stopped"):
        for row in rows:
            dropped = row.dropped
            write(line(row))
    say(summary())
