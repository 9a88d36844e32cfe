"""Live readings of an IMU, lines of CSV through real pipes: the vectors of the file with `--hop`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebind_cli.events import Listener
from imagebind_cli.live import StreamFormat
from tests import generate
from tests.conftest import Run, Start
from tests.live.test_sound import feed, finish, stream

HEAD = "t,gyro x (deg/s),gyro y (deg/s),gyro z (deg/s),acc x (g),acc y (g),acc z (g)"


def lines(seconds: float, rate: float, head: str = HEAD) -> bytes:
    """A recording with a clock and units in its names, or the plain six columns."""
    values = generate.readings(seconds, rate=int(rate))
    rows = [",".join(f"{value:.4f}" for value in row) for row in values]
    if head:
        rows = [head, *(f"{i / rate:.4f},{row}" for i, row in enumerate(rows))]
    return ("\n".join(rows) + "\n").encode()


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_chunks_of_any_size_give_the_vectors_of_the_file(embed: Run, start: Start, tmp_path: Path, chunk: int) -> None:
    text = lines(8.2, 50)
    (tmp_path / "a.csv").write_bytes(text)
    flags = ("--hop", 1, "--rate", 50)
    wanted = embed("imu", tmp_path / "a.csv", *flags, "--pool", "none", "--batch-size", 1)
    process = start("embed", "imu", "-", "--live", *flags)
    feed(process, text, chunk)
    code, rows, err = finish(process)
    assert code == 0, err
    assert [(row["start"], row["end"]) for row in rows] == [(row["start"], row["end"]) for row in wanted.rows]
    assert np.abs(np.array([row["embedding"] for row in rows], np.float32) - wanted.vectors).max() < 1e-6
    assert "converted from g to m/s2" in err
    assert "timestamps not used" in err


@pytest.mark.parametrize(
    ("rate", "head", "hop", "seconds"), [(400, "", 0.7, 9), (100, "", 5, 11.3), (512, HEAD, 2.5, 12), (33, HEAD, 1.5, 10), (50, "", 1, 3)]
)
def test_every_rate_and_hop_gives_the_vectors_of_the_file(
    embed: Run, tiny: Any, tmp_path: Path, rate: int, head: str, hop: float, seconds: float
) -> None:
    text = lines(seconds, rate, head)
    (tmp_path / "a.csv").write_bytes(text)
    wanted = embed("imu", tmp_path / "a.csv", "--rate", rate, "--hop", hop, "--pool", "none")
    rows = list(stream(tiny, text, StreamFormat(rate=rate), "imu", hop=hop, listener=Listener()))
    assert [(row.start, row.end) for row in rows] == [(row["start"], row["end"]) for row in wanted.rows]
    assert np.abs(np.stack([row.vector for row in rows]) - wanted.vectors).max() < 1e-6


def test_a_stream_that_ends_in_the_middle_of_a_line_keeps_its_rows(start: Start) -> None:
    process = start("embed", "imu", "-", "--live")
    feed(process, lines(5.5, 400, "") + b"0.5,0.25")
    code, rows, err = finish(process)
    assert (code, len(rows)) == (1, 1)
    assert "imagebind: stdin: ends in the middle of a line: '0.5,0.25'" in err.splitlines()
    assert "assumed: readings taken to be at 400 Hz" in err


def test_a_window_with_a_bad_line_fails_alone(tiny: Any) -> None:
    listener = Listener()
    text = lines(5, 100, "") + b"1,2,wet,4,5,6\n" + lines(11, 100, "")
    rows = list(stream(tiny, text, StreamFormat(rate=100), "imu", hop=5, listener=listener))
    assert [row.start for row in rows] == [10]  # the filter of the first window reaches the line
    assert listener.failed == 2


def test_no_readings_are_an_error(start: Start) -> None:
    process = start("embed", "imu", "-", "--live")
    feed(process, HEAD.encode() + b"\n")
    code, rows, err = finish(process)
    assert (code, rows) == (1, [])
    assert "imagebind: stdin: 0 reading; at least 2 are needed" in err.splitlines()
