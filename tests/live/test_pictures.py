"""Live pictures of a video, raw through real pipes: the vectors of the file with `--hop`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from imagebind_cli import registry
from imagebind_cli.live import StreamFormat
from imagebind_cli.sources import Item
from tests import generate
from tests.conftest import Run, Start
from tests.live.test_sound import feed, finish, stream

SIZE = 48, 32


def pictures(seconds: float, rate: float) -> np.ndarray:
    """Different pictures (t, h, w, 3) uint8."""
    return np.stack([generate.pixels(number, SIZE) for number in range(round(seconds * rate))])


@pytest.mark.parametrize("chunk", [7, 4096])
def test_chunks_of_any_size_give_the_vectors_of_the_file(embed: Run, start: Start, tmp_path: Path, chunk: int) -> None:
    path = generate.video(tmp_path / "a.mp4", 4.5, rate=10)
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    height, width, _ = frames[0].shape
    wanted = embed("video", path, "--hop", 0.5, "--pool", "none")
    process = start(
        "embed", "video", "-", "--live", "--format", "rawvideo", "--size", f"{width}x{height}", "--fps", 10, "--hop", 0.5
    )  # fmt: skip
    feed(process, np.stack(frames).tobytes(), chunk)
    code, rows, err = finish(process)
    assert code == 0, err
    assert [(row["start"], row["end"]) for row in rows] == [(row["start"], row["end"]) for row in wanted.rows]
    assert np.abs(np.array([row["embedding"] for row in rows], np.float32) - wanted.vectors).max() < 1e-6


@pytest.mark.parametrize(("rate", "hop", "seconds"), [(10, 0.7, 6), (29.97, 1.3, 5), (1, 3, 9), (0.4, 1, 10), (25, 2, 0.6)])
def test_every_rate_and_hop_gives_the_vectors_of_the_frames(tiny: Any, rate: float, hop: float, seconds: float) -> None:
    frames = pictures(seconds, rate)
    options = registry.face("video").read_options({"hop": hop})
    ((_, wanted),) = tiny.embed_items("video", [Item("a", (frames, rate))], options=options, pool="none", batch_size=1)
    rows = list(stream(tiny, frames.tobytes(), StreamFormat("rawvideo", rate, SIZE), "video", hop=hop))
    assert [(row.start, row.end) for row in rows] == [embedding.span for embedding in wanted.embeddings]
    assert max(np.abs(row.vector - embedding.vector).max() for row, embedding in zip(rows, wanted.embeddings, strict=True)) < 1e-6


def test_a_stream_that_ends_in_the_middle_of_a_picture_keeps_its_rows(start: Start) -> None:
    process = start("embed", "video", "-", "--live", "--size", "48x32", "--fps", 5)
    feed(process, pictures(2.4, 5).tobytes()[:-1])
    code, rows, err = finish(process)
    assert (code, len(rows)) == (1, 1)
    assert "imagebind: stdin: ends in the middle of a picture: 4,607 of its 4,608 bytes are there" in err.splitlines()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--fps", 5], "size: width and height"),
        (["--size", "48x32"], "fps: how many pictures a second"),
        (["--size", "48"], "width and height are needed, as in 640x480"),
        (["--size", "48x32", "--fps", 5, "--format", "s16le"], "it is rawvideo"),
    ],
)
def test_wrong_usage_is_refused(imagebind: Run, flags: list[object], reason: str) -> None:
    run = imagebind("embed", "video", "-", "--live", *flags)
    assert (run.code, run.out) == (2, b"")
    assert reason in run.err
