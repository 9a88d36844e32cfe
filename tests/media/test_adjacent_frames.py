"""Clips of two adjacent frames (`--adjacent`): the frames that FFmpeg's filter `fps` takes, every pair of them, scaled as torchvision does."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from imagebind_cli import UserError
from imagebind_cli.media.video.clips import open_video
from imagebind_cli.media.windows import adjacent
from imagebind_cli.sources import Stretch
from tests import generate
from tests.media.test_video import animation, even, film, number_of


def frames_of_ffmpeg(path: Path, rate: str) -> list[int]:
    """The numbers of the frames that FFmpeg's filter lets through."""
    with av.open(path) as container:
        graph = av.filter.Graph()
        nodes = [
            graph.add_buffer(template=container.streams.video[0]),
            graph.add("fps", f"fps={rate}"),
            graph.add("format", "rgb24"),
            graph.add("buffersink"),
        ]
        for one, other in zip(nodes, nodes[1:], strict=False):
            one.link_to(other)
        graph.configure()
        taken = []
        for frame in [*container.decode(video=0), None]:
            graph.push(frame)
            while True:
                try:
                    taken.append(number_of(graph.pull().to_ndarray(format="rgb24")))
                except (av.BlockingIOError, av.EOFError):
                    break
    return taken


def pairs_of(path: Path, rate: str | None, begin: float = 0, end: float | None = None) -> list[tuple[int, int]]:
    with open_video(str(path)) as video:
        last = Fraction(video.duration if end is None else end)
        _, shown = adjacent(video.starts(), Fraction(begin), last, None if rate is None else Fraction(rate))
        return [(number_of(one), number_of(other)) for one, other in video.clips(shown, 2)]


@pytest.mark.parametrize("rate", ["0.5", "2", "3.7", "10"])
@pytest.mark.parametrize("times", [even(4.2, 10), even(3, 25), [0, 90, 400, 410, 1700, 1710, 1720, 3000, 3900]])
def test_frames_at_a_rate_are_those_of_ffmpeg(tmp_path: Path, times: list[int], rate: str) -> None:
    path = film(tmp_path / "film.mkv", times)
    taken = frames_of_ffmpeg(path, rate)
    assert pairs_of(path, rate) == list(zip(taken, taken[1:], strict=False))


def test_all_frames_make_as_many_clips_but_one(tmp_path: Path) -> None:
    for times in (even(1, 10), [0, 40, 300, 1000]):
        count = len(times)
        assert pairs_of(film(tmp_path / "film.mp4", times), None) == [(i, i + 1) for i in range(count - 1)]
    assert len(pairs_of(animation(tmp_path / "a.gif", [100, 50, 200]), None)) == 2
    assert pairs_of(film(tmp_path / "one.mp4", [0]), None) == [(0, 0)]
    assert pairs_of(film(tmp_path / "one.mp4", [0]), "0.5") == [(0, 0)]


def test_a_stretch_has_the_frames_that_are_on_screen_in_it(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", even(2, 10))
    assert pairs_of(path, None, 0.55, 0.85) == [(5, 6), (6, 7), (7, 8)]
    assert pairs_of(path, "5", 0.5, 1.1) == [(5, 7), (7, 9)]


def test_the_seconds_of_a_clip_are_those_in_which_its_frames_are_shown() -> None:
    starts = [Fraction(i, 4) for i in range(4)]
    spans, shown = adjacent(starts, Fraction(0), Fraction(1), None)
    assert spans == [(0, Fraction(1, 2)), (Fraction(1, 4), Fraction(3, 4)), (Fraction(1, 2), 1)]
    assert [start for start, _ in shown] == starts[:3]
    assert adjacent(starts, Fraction(0), Fraction(1), Fraction(2))[0] == [(0, 1)]
    assert adjacent(starts, Fraction(0), Fraction(1), Fraction(1, 2))[0] == [(0, 1)]
    with pytest.raises(ValueError, match="at most 1,000,000 are read"):
        adjacent(starts, Fraction(0), Fraction(10**7), Fraction(2))


def test_clips_are_scaled_bicubic_and_cropped_in_three_places(tiny: Any) -> None:
    frames = np.stack([generate.pixels(i, (300, 180)) for i in range(8)])
    tensor = torch.cat([sample.tensor for sample in tiny.read("video", (frames, 2.0), adjacent="1")])
    taken = frames[[0, 2, 4, 6]]  # of each second the last frame that starts before its middle
    config = tiny.encoder("vision").config
    size = config.shape[-1]
    whole = resize(torch.from_numpy(taken).permute(0, 3, 1, 2), [size], InterpolationMode.BICUBIC, antialias=True).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    spare = whole.shape[-1] - size
    crops = [((whole - mean) / std)[..., left : left + size] for left in (0, -(-spare // 2), spare)]  # (t, 3, h, w)
    wanted = torch.stack([crop[i : i + 2].transpose(0, 1) for i in range(3) for crop in crops])  # (clips, 3, 2, h, w)
    assert tensor.shape == wanted.shape
    assert (tensor - wanted).abs().max() * max(config.std) * 255 < 2.5  # levels, by which Pillow and torchvision round differently


def test_arrays_files_and_folders_give_the_same(tiny: Any, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    frames = np.stack([generate.pixels(i) for i in range(5)])
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.png")
    wanted = torch.cat([sample.tensor for sample in tiny.read("video", (frames, 25.0), adjacent="all", crops="1")])
    assert len(wanted) == 4
    assert torch.equal(wanted, torch.cat([sample.tensor for sample in tiny.read("video", folder, adjacent="all", crops="1")]))
    part = [sample.spans for sample in tiny.read("video", Stretch(str(folder), 0.04, 0.12), adjacent="all", crops="1")]
    assert part == [[(0.04, 0.12)]]


@pytest.mark.parametrize("value", ["none", "0", "-1", "nan", "inf", "2000", ""])
def test_a_rate_is_a_number_or_all(tiny: Any, value: str) -> None:
    with pytest.raises(UserError, match="all is needed, or a rate of at most 1000 Hz"):
        tiny.read("video", "a.mp4", adjacent=value)


def test_adjacent_frames_exclude_windows(tiny: Any) -> None:
    with pytest.raises(UserError, match="clips and adjacent exclude each other"):
        tiny.read("video", "a.mp4", adjacent="all", clips=5)
