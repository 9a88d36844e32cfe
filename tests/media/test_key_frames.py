"""`--decode fast` of videos: which key frames are shown in place of which frames, and that they are the same pictures as when all are decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from imagebind_cli.errors import OptionError
from imagebind_cli.media.video.clips import Video
from imagebind_cli.media.windows import windows
from imagebind_cli.model import load
from tests import generate
from tests.media.test_video import even, film, number_of, numbered, numbers

REPLACED = "frames within 1 s of a key frame are replaced by it"
EXACTLY = "most frames have no key frame within 1 s, so the video is decoded exactly"
TWICE = "some windows show a key frame twice"


def shown(path: Path, clips: int | None = None, count: int = 2) -> tuple[list[list[int]], tuple[str, ...], float | None]:
    """The numbers of the frames that each window shows when decoded fast, the notes, and how far the farthest key frame is."""
    with Video(str(path), fast=True) as video:
        found = [[number_of(frame) for frame in clip] for clip in video.clips(windows(video.duration, 2, clips), count)]
        return found, video.notes, video.facts.get("farthest_key_frame")


def key_frames(path: Path) -> list[int]:
    """The numbers of the key frames of a film with 25 frames a second."""
    with av.open(path) as container:
        stamps = [(float(packet.pts * packet.time_base), packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
    start = min(stamps)[0]
    return sorted(round(25 * (stamp - start)) for stamp, is_key in stamps if is_key)


@pytest.mark.parametrize("clips", [None, 1, 5])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("plain.mp4", "libx264", {"g": "20", "bf": "0"}),
        ("b.mp4", "libx264", {"g": "12", "bf": "3"}),
        ("open.mp4", "libx264", {"g": "15", "bf": "3", "x264-params": "open-gop=1"}),
        ("interlaced.ts", "libx264", {"g": "20", "x264-params": "tff=1"}),
        ("broadcast.ts", "libx264", {"g": "25", "bf": "2"}),
        ("hevc.mkv", "libx265", {"g": "20", "x265-params": "log-level=none:lossless=1"}),
        ("older.avi", "mpeg4", {"g": "10"}),
        ("web.webm", "libvpx-vp9", {"g": "20", "deadline": "realtime"}),
        ("all.mov", "mjpeg", {"strict": "unofficial"}),
    ],
)
def test_each_frame_is_the_nearest_key_frame(tmp_path: Path, name: str, codec: str, options: dict[str, str], clips: int | None) -> None:
    path = film(tmp_path / name, even(5.2), codec=codec, **options)
    keys = np.array(key_frames(path))
    assert len(keys) > 4
    wanted = numbers(path, clips)
    found, notes, farthest = shown(path, clips)
    distances = [abs(keys - number) for clip in wanted for number in clip]
    assert [abs(frame - number) for new, old in zip(found, wanted, strict=True) for frame, number in zip(new, old, strict=True)] == [
        distance.min() for distance in distances
    ]
    assert {frame for clip in found for frame in clip} <= set(keys.tolist())
    assert farthest == pytest.approx(max(distance.min() for distance in distances) / 25, abs=0.005)
    assert REPLACED in notes[0]


def test_a_key_frame_decoded_alone_is_the_same_picture(tmp_path: Path) -> None:
    """To the bit, where the frames before it are decoded as well, which exact reading does."""
    path = film(tmp_path / "film.mp4", even(6), keep=False, g="25", keyint_min="25", sc_threshold="0", bf="2", crf="35")
    assert key_frames(path) == [0, 25, 50, 75, 100, 125]
    with Video(str(path), fast=True) as video, Video(str(path)) as exact:
        spans = [(time, time + 1) for time in range(6)]
        for fast, frame in zip(video.clips(spans, 1), exact.clips(spans, 1), strict=True):
            assert np.array_equal(fast, frame)


def test_a_frame_far_from_every_key_frame_is_shown_itself(tmp_path: Path) -> None:
    """Of groups of 2 s, all frames have a key frame within 1 s but those after the last one."""
    path = film(tmp_path / "film.mp4", even(6), g="50", keyint_min="50", sc_threshold="0")
    assert key_frames(path) == [0, 50, 100]
    assert numbers(path) == [[0, 49], [50, 99], [100, 149 % 144]]
    found, notes, farthest = shown(path)
    assert found == [[0, 50], [50, 100], [100, 149 % 144]]
    assert farthest == pytest.approx(1 / 25)
    assert [REPLACED in note for note in notes] == [True]


def test_where_most_frames_are_far_the_video_is_decoded_exactly(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", even(10), g="250", sc_threshold="0")
    found, notes, farthest = shown(path)
    assert found == numbers(path)
    assert EXACTLY in notes[0]
    assert farthest is None


def test_a_bare_stream_without_times_is_decoded_exactly(tmp_path: Path) -> None:
    path = film(tmp_path / "film.h264", even(5), bf="2", g="20")
    found, notes, _ = shown(path)
    assert found == numbers(path)
    assert EXACTLY in notes[0]


def test_a_window_may_show_a_key_frame_twice_and_a_note_says_so(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", even(2.6), g="30", keyint_min="30", sc_threshold="0")
    assert key_frames(path) == [0, 30, 60]
    found, notes, _ = shown(path, count=8)
    assert found[0] == [0, 0, 0, 30, 30, 30, 30, 60]
    assert TWICE in notes[1]


def test_a_damaged_key_frame_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", even(6), g="25", sc_threshold="0", bf="0")
    with av.open(path) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][50]
    data = bytearray(path.read_bytes())
    data[packet.pos + 4 : packet.pos + packet.size] = bytes(packet.size - 4)
    path.write_bytes(data)
    found, _, _ = shown(path)
    assert found[1][0] != 50
    assert (found[0][0], found[1][1], found[2]) == (0, 100, [100, 125])


def test_vectors_move_a_little_and_the_same_way_twice(tmp_path: Path) -> None:
    model, path = load("mini", device="cpu"), generate.video(tmp_path / "film.mp4", 6)
    exact, fast, again = (model.embed("video", [path], decode=way)[0] for way in ("exact", "fast", "fast"))
    assert np.array_equal(fast, again)
    assert 0.98 < exact @ fast < 1 - 1e-7


def test_frames_and_animations_are_read_as_ever(tmp_path: Path, tiny: Any) -> None:
    frames = np.stack([numbered(number) for number in range(50)])
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(tmp_path / "film.gif", save_all=True, append_images=pictures[1:], duration=40)
    for source in ((frames, 25.0), str(tmp_path / "film.gif")):
        (exact,), (fast,) = (list(tiny.read("video", source, decode=way)) for way in ("exact", "fast"))
        assert np.array_equal(exact.tensor, fast.tensor)
        assert exact.notes == fast.notes


def test_adjacent_frames_are_not_decoded_fast(tmp_path: Path, tiny: Any) -> None:
    with pytest.raises(OptionError, match="adjacent needs neighbouring frames"):
        tiny.embed("video", [film(tmp_path / "film.mp4", even(3))], adjacent="all", decode="fast")
