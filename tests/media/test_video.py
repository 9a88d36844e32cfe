"""The video reader: which frames are seen, by their time stamps, in every odd kind of file."""

from __future__ import annotations

import io
import itertools
import struct
import sys
import time
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, features
from PIL.PngImagePlugin import PngInfo

from imagebind_cli import UserError
from imagebind_cli.media.image import read_image
from imagebind_cli.media.video.animation import Animation, is_animation
from imagebind_cli.media.video.clips import Video, open_video
from imagebind_cli.media.windows import seen, windows
from imagebind_cli.sources import Stretch
from tests import generate

SIZE = (64, 48)
LEVELS = 12  # greys of a frame's left and right half, which tell its number


def film(
    path: Path, times: list[int], codec: str = "libx264", size: tuple[int, int] = SIZE, tick: int = 1000, keep: bool = True, **options: str
) -> Path:
    """A video whose frame i starts at times[i] milliseconds; see `numbered`."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = ({"qp": "0"} if codec == "libx264" and keep else {}) | options
        stream.codec_context.time_base = Fraction(1, tick)
        for number, at in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(number, size), format="rgb24")
            frame.pts, frame.time_base = at * tick // 1000, Fraction(1, tick)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbered(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A frame that carries its number up to 143: its last digit to the base of 12 as the grey of the left half, the one before on the right."""
    frame = np.empty((size[1], size[0], 3), np.uint8)
    frame[:, : size[0] // 2], frame[:, size[0] // 2 :] = (10 + 20 * digit for digit in reversed(divmod(number % LEVELS**2, LEVELS)))
    return frame


def number_of(frame: np.ndarray) -> int:
    middle = frame.shape[1] // 2
    low, high = (round((float(half.mean()) - 10) / 20) for half in (frame[:, : middle - 4], frame[:, middle + 4 :]))
    return low + LEVELS * high


def even(seconds: float, rate: int = 25) -> list[int]:
    return [1000 * i // rate for i in range(round(seconds * rate))]


def numbers(path: Path, clips: int | None = None, count: int = 2) -> list[list[int]]:
    """The numbers of the frames that each window shows."""
    with Video(str(path)) as video:
        shown = list(video.clips(windows(video.duration, 2, clips), count))
    return [[number_of(frame) for frame in clip] for clip in shown]


def expected(times: list[int], duration: float, clips: int | None = None) -> list[list[int]]:
    starts = [Fraction(at, 1000) for at in times]
    return [seen(starts, start, end, 2) for start, end in windows(duration, 2, clips)]


def read(model: Any, path: Any, **options: Any) -> tuple[torch.Tensor, list[Any], dict[str, Any]]:
    samples = list(model.read("video", path if isinstance(path, tuple) else str(path), **options))
    assert all(not sample.facts for sample in samples[1:])
    return torch.cat([sample.tensor for sample in samples]), [span for sample in samples for span in sample.spans], dict(samples[0].facts)


# Which frames


@pytest.mark.parametrize(
    ("times", "start", "end", "count", "wanted"),
    [
        ([0, 1, 2, 3], 0, 2, 2, [0, 1]),
        ([0, 1, 2, 3], 1, 4, 2, [1, 3]),
        ([0, 1, 2, 3], 0, 9, 3, [0, 1, 3]),  # linspace(0, 3, 3) cut to integers
        ([0, 5], 1, 3, 2, [0, 0]),
        ([0], 0, 2, 2, [0, 0]),
        ([3], 0, 2, 2, []),
        ([0, 1, 2], 0, 3, 1, [0]),
    ],
)
def test_frames_seen_in_a_window(times: list[int], start: int, end: int, count: int, wanted: list[int]) -> None:
    assert seen(times, start, end, count) == wanted


@pytest.mark.parametrize("clips", [None, 1, 5, 9])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.mp4", {}),
        ("b.mp4", {"bf": "3", "g": "12"}),
        ("open.mp4", {"bf": "3", "g": "12", "x264-params": "open-gop=1"}),
        ("one-group.mkv", {"bf": "2", "g": "999"}),
        ("broadcast.ts", {"bf": "2", "g": "25"}),
        ("flash.flv", {"bf": "0"}),
    ],
)
def test_frames_are_found_by_seeking(tmp_path: Path, name: str, options: dict[str, str], clips: int | None) -> None:
    times = even(4.4)
    path = film(tmp_path / name, times, **options)
    with Video(str(path)) as video:
        duration = video.duration
    assert duration == pytest.approx(4.4, abs=0.05)
    assert numbers(path, clips) == expected(times, duration, clips)


def test_frames_of_a_long_film(tmp_path: Path) -> None:
    """Five windows of two minutes, far from one another, with key frames only every ten seconds."""
    times = even(120)
    path = film(tmp_path / "long.mp4", times, size=(32, 32), bf="2", g="250")
    assert numbers(path, 5) == [[number % LEVELS**2 for number in clip] for clip in expected(times, 120, 5)]


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_variable_rate_goes_by_time(tmp_path: Path, tiny: Any, ending: str) -> None:
    """Fast, then nothing for five seconds, then slow: windows without a new frame show the one on screen."""
    times = [*range(0, 1000, 50), 6000, 6700, 7400, 8000]
    path = film(tmp_path / f"film.{ending}", times)
    with Video(str(path)) as video:
        duration = video.duration
    assert numbers(path) == expected(times, duration)
    assert [19, 19] in numbers(path)
    assert read(tiny, path)[2]["variable_rate"] is True


def test_a_film_that_starts_late(tmp_path: Path) -> None:
    times = [at + 7000 for at in even(4)]
    for name in ("film.mkv", "film.ts", "film.mp4"):
        path = film(tmp_path / name, times)
        with Video(str(path)) as video:
            assert video.duration == pytest.approx(4, abs=0.05)
        assert numbers(path) == [[0, 49], [50, 99]]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_fewer_frames_than_a_window(tmp_path: Path, tiny: Any, count: int) -> None:
    path = film(tmp_path / "short.mp4", even(count / 25))
    assert numbers(path) == [[0, count - 1]]
    assert numbers(path, 5) == [[0, count - 1]] * 5
    tensor, spans, facts = read(tiny, path)
    assert tensor.shape == (3, 3, 2, 224, 224)
    assert spans == [(0, 2)] * 3
    assert (facts["frames"], facts["windows"]) == (count, 1)


def test_a_still_picture_is_a_film_of_one_frame(tmp_path: Path, tiny: Any) -> None:
    path = generate.picture(tmp_path / "picture.png")
    tensor, spans, _ = read(tiny, path)
    assert spans == [(0, 2)] * 3
    assert torch.equal(tensor[:, :, 0], tensor[:, :, 1])


def test_a_bare_stream_without_times(tmp_path: Path, tiny: Any) -> None:
    """A raw H.264 stream has no time stamps, no length and no rate: frames are numbered at 25 a second."""
    path = film(tmp_path / "film.h264", even(5), bf="2", g="20")
    assert numbers(path) == expected(even(5), 5)
    assert read(tiny, path)[2]["seconds"] == 5


def test_a_length_that_no_header_tells(tmp_path: Path) -> None:
    """Matroska written to a pipe has no duration."""

    class Pipe:
        def __init__(self, file: Any) -> None:
            self.write = file.write

    with open(tmp_path / "film.mkv", "wb") as file, av.open(Pipe(file), "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height = SIZE
        for number in range(100):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(tmp_path / "film.mkv") as container:
        assert container.duration is None
    assert numbers(tmp_path / "film.mkv") == [[0, 49], [50, 99]]


def test_an_open_file_is_read_like_its_path(tmp_path: Path, tiny: Any) -> None:
    path = film(tmp_path / "film.mp4", even(3))
    with open(path, "rb") as file:
        assert torch.equal(torch.cat([sample.tensor for sample in tiny.read("video", file)]), read(tiny, path)[0])


# Turned, mirrored, stretched


def displayed(path: Path, matrix: tuple[float, float, float, float]) -> Path:
    """A film whose track header asks that a pixel at (x, y) be shown at (a x + c y, b x + d y)."""
    generate.video(path)
    data = bytearray(path.read_bytes())
    place = data.index(struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), data.index(b"tkhd"))
    a, b, c, d = (round(value * 65536) for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "matrix", [m for m in itertools.product((-1, 0, 1), repeat=4) if abs(m[0] * m[3] - m[1] * m[2]) == 1 and sum(map(abs, m)) == 2]
)
def test_a_display_matrix_turns_and_mirrors_the_frames(tmp_path: Path, tiny: Any, matrix: tuple[int, int, int, int]) -> None:
    """A phone held upright stores its frames lying, a selfie camera may store them mirrored. Every pixel is looked up by itself."""
    plain, path = generate.video(tmp_path / "plain.mp4"), displayed(tmp_path / "film.mp4", matrix)
    with Video(str(plain)) as film, Video(str(path)) as turned:
        stored, shown = next(film.clips(windows(3, 2), 2))[0], next(turned.clips(windows(3, 2), 2))[0]
    a, b, c, d = matrix
    y, x = np.mgrid[: stored.shape[0], : stored.shape[1]]
    across, down = a * x + c * y, b * x + d * y
    expected = np.zeros_like(shown)
    expected[down - down.min(), across - across.min()] = stored
    assert np.array_equal(shown, expected)
    facts = read(tiny, path)[2]
    assert facts["size"] == list(shown.shape[1::-1])
    assert facts["mirrored"] is (a * d - b * c < 0)
    assert np.array_equal(np.rot90(stored[:, ::-1] if facts["mirrored"] else stored, facts["rotation"] // 90), shown)


def test_a_slanted_display_matrix_is_refused(tmp_path: Path, tiny: Any) -> None:
    half = 0.5**0.5
    path = displayed(tmp_path / "film.mp4", (half, half, -half, half))
    with pytest.raises(ValueError, match=r"^its display matrix turns the pictures by 45 degrees; quarter turns are understood$"):
        read(tiny, path)


def stretched(path: Path, pixel: Fraction, size: tuple[int, int]) -> Path:
    """One second of a ramp from left to right and another from top to bottom, whose pixels are `pixel` times as wide as high."""
    ramps = np.stack([*np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1])), np.full(size[::-1], 128.0)], axis=-1)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height = size
        stream.pix_fmt, stream.options = "yuv444p", {"qp": "0"}
        stream.codec_context.sample_aspect_ratio = pixel
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(ramps.astype(np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize(
    ("pixel", "size", "shown"), [("64:45", (720, 576), (1024, 576)), ("1:2", (64, 48), (64, 96)), ("1:1", (64, 48), (64, 48))]
)
def test_pixels_become_square(tmp_path: Path, tiny: Any, ending: str, pixel: str, size: tuple[int, int], shown: tuple[int, int]) -> None:
    """PAL widescreen and the like: nothing is cropped, and a ramp is a ramp from edge to edge."""
    path = stretched(tmp_path / f"film.{ending}", Fraction(pixel.replace(":", "/")), size)
    with Video(str(path)) as video:
        frame = next(video.clips(windows(1, 2), 2))[0].astype(float)
    assert frame.shape == (shown[1], shown[0], 3)
    ramps = np.stack(np.meshgrid(*(np.linspace(0, 255, side) for side in shown)), axis=-1)
    assert np.abs(frame[..., :2] - ramps).mean() < 2.5
    facts = read(tiny, path)[2]
    assert (facts["size"], facts["pixel_aspect"]) == (list(shown), pixel)


def test_absurd_pixels_are_refused(tmp_path: Path, tiny: Any) -> None:
    path = stretched(tmp_path / "film.mkv", Fraction(40), (64, 48))
    with pytest.raises(ValueError, match=r"^its pixels are said to be 40:1, wide to high; at most 32:1 is understood$"):
        read(tiny, path)


@pytest.mark.parametrize("size", [(16, 4000), (4000, 16)])
def test_of_a_thin_film_the_middle_is_seen(tmp_path: Path, tiny: Any, size: tuple[int, int]) -> None:
    """32 times as long as wide: the same views as of the middle alone, and no gigabytes for the rest."""
    frames = np.random.default_rng(0).integers(0, 256, (4, size[1], size[0], 3), dtype=np.uint8)
    thin, _, _ = read(tiny, (frames, 2.0))
    middle = frames[:, 1744:2256] if size[1] == 4000 else frames[:, :, 1744:2256]
    assert torch.equal(thin, read(tiny, (middle, 2.0))[0])
    with av.open(tmp_path / "film.mkv", "w") as container:
        stream = container.add_stream("ffv1", rate=2)
        stream.width, stream.height = size
        stream.pix_fmt = "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    assert torch.equal(read(tiny, tmp_path / "film.mkv")[0], thin)


# Animations


def animation(path: Path, durations: list[int]) -> Path:
    frames = [Image.fromarray(np.full((40, 60, 3), 10 + 40 * i, np.uint8)) for i in range(len(durations))]
    options = {"lossless": True} if path.suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, **options)
    return path


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_an_animation_goes_by_its_own_durations(tmp_path: Path, tiny: Any, ending: str) -> None:
    """Frames start at 0, 0.1, 0.5, 2.5 and 5.5 s and the last stays for a second; the third window has no new one."""
    path = animation(tmp_path / f"moving.{ending}", [100, 400, 2000, 3000, 1000])
    assert is_animation(str(path))
    with Animation(str(path)) as moving:
        assert moving.duration == 6.5
        clips = list(moving.clips(windows(6.5, 2), 2))
    levels = [[round((float(frame.mean()) - 10) / 40) for frame in clip] for clip in clips]
    assert levels == [[0, 2], [3, 3], [3, 3], [4, 4]]
    tensor, spans, facts = read(tiny, path)
    assert tensor.shape == (12, 3, 2, 224, 224)
    assert spans[-1] == (4.5, 6.5)
    assert (facts["frames"], facts["variable_rate"], facts["seconds"]) == (5, True, 6.5)


def test_a_still_gif_is_no_animation(tmp_path: Path) -> None:
    for name in ("still.gif", "still.png", "still.webp"):
        assert not is_animation(str(generate.picture(tmp_path / name)))
    assert not is_animation(str(generate.video(tmp_path / "film.mp4")))


def test_a_broken_animation_is_told(tmp_path: Path, tiny: Any) -> None:
    path = animation(tmp_path / "moving.webp", [100] * 5)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="can be decoded|not a readable"):
        read(tiny, path)


# Frames and pictures with more beside their pixels than the decoders know


def with_orientation(orientation: int | None) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera"
    if orientation:
        exif[ExifTags.Base.Orientation] = orientation
    return exif.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_of_a_jpeg_turns_it_as_a_video_too(tmp_path: Path, tiny: Any, orientation: int) -> None:
    """FFmpeg attaches EXIF to its frames as side data, of a kind that PyAV does not know."""
    path, plain = generate.picture(tmp_path / "picture.jpg", exif=with_orientation(orientation)), generate.picture(tmp_path / "plain.jpg")
    frames = []
    for each in (path, plain):
        with open_video(str(each)) as video:
            frames.append(next(video.clips([(Fraction(0), Fraction(2))], 2))[0])
    turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)
    expected = frames[1] if turned is None else np.asarray(Image.fromarray(frames[1]).transpose(Image.Transpose(turned)))
    assert np.array_equal(frames[0], expected)
    (picture,) = tiny.read("image", str(path))
    assert picture.facts["orientation"] == orientation


def test_a_film_of_jpegs_with_exif_is_the_film_without(tmp_path: Path, tiny: Any) -> None:
    films = []
    for exif in (b"", with_orientation(None)):
        path = tmp_path / f"film{len(exif)}.avi"
        with av.open(path, "w") as container:
            stream = container.add_stream("mjpeg", rate=10)
            stream.width, stream.height, stream.pix_fmt = 80, 60, "yuvj420p"
            container.start_encoding()
            for number in range(20):
                file = io.BytesIO()
                Image.fromarray(generate.pixels(number)).save(file, "JPEG", quality=95, exif=exif)
                packet = av.Packet(file.getvalue())
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 10)
                packet.is_keyframe = True
                container.mux(packet)
        films.append(read(tiny, path)[0])
    assert torch.equal(*films)


def chunk(kind: bytes, data: bytes, damage: int = 0) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ damage)


PACKED_ZEROS = zlib.compress(bytes(80 << 20), 1)
BESIDE = {
    "large text": chunk(b"tEXt", b"a\0" + b"x" * 3_000_000),
    "packed text": chunk(b"zTXt", b"a\0\0" + PACKED_ZEROS),
    "much text": b"".join(chunk(b"tEXt", b"a%d\0" % number + b"x" * 900_000) for number in range(80)),
    "packed metadata": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + PACKED_ZEROS),
    "no EXIF": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 9\nzz!\n")),
    **{f"noise as {kind}": chunk(kind.encode(), bytes(range(99))) for kind in ("iCCP", "eXIf", "pHYs", "gAMA", "iTXt", "sBIT", "cHRM")},
    **{f"damaged {kind}": chunk(kind.encode(), bytes(9), damage=1) for kind in ("iCCP", "eXIf", "pHYs", "gAMA", "tEXt", "tIME", "zzZz")},
    **{f"empty {kind}": chunk(kind.encode(), b"") for kind in ("iCCP", "eXIf", "pHYs", "gAMA", "zTXt", "iTXt", "bKGD")},
}


@pytest.mark.parametrize("modality", ["image", "vision", "video"])
@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.filterwarnings("ignore")  # as the command does
def test_what_lies_beside_the_pixels_of_a_png_does_not_matter(tmp_path: Path, tiny: Any, modality: str, beside: str) -> None:
    path = generate.picture(tmp_path / "picture.png")
    (plain,) = tiny.read(modality, str(path))
    data = path.read_bytes()
    for place in (33, len(data) - 12):  # behind the header, before the end
        path.write_bytes(data[:place] + BESIDE[beside] + data[place:])
        (sample,) = tiny.read(modality, str(path))
        assert torch.equal(sample.tensor, plain.tensor)


def test_chunks_beside_an_animation_and_a_map_do_not_matter(tmp_path: Path, tiny: Any) -> None:
    beside = BESIDE["packed text"] + BESIDE["damaged iCCP"]
    for modality, path in [("video", animation(tmp_path / "moving.png", [500] * 4)), ("depth", generate.depth(tmp_path / "depth.png"))]:
        plain = torch.cat([sample.tensor for sample in tiny.read(modality, str(path))])
        data = path.read_bytes()
        path.write_bytes(data[:33] + beside + data[33:])
        assert torch.equal(torch.cat([sample.tensor for sample in tiny.read(modality, str(path))]), plain)


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'


def as_text(key: str, value: str, packed: bool) -> PngInfo:
    info = PngInfo()
    (info.add_text(key, value, zip=True) if packed else info.add_itxt(key, value))
    return info


@pytest.mark.parametrize(
    "options",
    [
        {"exif": with_orientation(6)},
        {"pnginfo": as_text("XML:com.adobe.xmp", XMP, packed=False)},
        {"pnginfo": as_text("Raw profile type exif", f"\nexif\n  99\n{with_orientation(6).hex()}\n", packed=True)},
    ],
)
def test_a_png_is_turned_by_whatever_says_so(tmp_path: Path, tiny: Any, options: dict[str, Any]) -> None:
    path, upright = generate.picture(tmp_path / "picture.png", **options), tmp_path / "upright.png"
    Image.fromarray(np.rot90(generate.pixels(), -1)).save(upright)
    for modality in ("image", "video"):
        (turned,), (expected,) = tiny.read(modality, str(path)), tiny.read(modality, str(upright))
        assert torch.equal(turned.tensor, expected.tensor)


@pytest.mark.parametrize("modality", ["image", "vision", "video", "depth", "thermal"])
@pytest.mark.usefixtures("in_place")
def test_heic_without_the_extra_is_refused_everywhere_alike(tiny: Any, monkeypatch: pytest.MonkeyPatch, modality: str) -> None:
    """FFmpeg would show the first of its tiles."""
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(ValueError, match=r"HEIC needs pi-heif \(pip install 'imagebind-cli\[heic\]'\), or convert it: heif-convert"):
        list(tiny.read(modality, str(GRID)))


def test_the_tiles_of_a_heic_picture_are_put_together(tiny: Any) -> None:
    """All four: each has pixels of its own, and none is the whole."""
    pytest.importorskip("pi_heif")
    with open_video(str(GRID)) as video:
        shown = next(video.clips([(Fraction(0), Fraction(2))], 2))[0]
    assert shown.shape == (384, 512, 3)
    (picture,) = tiny.read("image", str(GRID))
    assert picture.facts["size"] == [512, 384]
    assert np.array_equal(shown, np.asarray(read_image(str(GRID))))
    tiles = [shown[down : down + 192, across : across + 256] for down in (0, 192) for across in (0, 256)]
    assert min(np.abs(one.astype(float) - other).mean() for one, other in itertools.combinations(tiles, 2)) > 1
    assert all(tile.std() > 1 for tile in tiles)


GRID = Path(__file__).parents[1] / "data" / "grid.heic"


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_avif_is_read_as_a_picture_and_as_an_animation(tmp_path: Path, tiny: Any) -> None:
    still, moving = generate.picture(tmp_path / "still.avif", quality=100), animation(tmp_path / "moving.avif", [500, 500, 1000])
    (image,), (expected,) = tiny.read("image", str(still)), tiny.read("image", str(generate.picture(tmp_path / "still.png")))
    assert (image.tensor - expected.tensor).abs().mean() < 0.1
    assert read(tiny, still)[2]["frames"] == 1
    assert (read(tiny, moving)[2]["frames"], read(tiny, moving)[2]["seconds"]) == (3, 2)


def test_pages_are_no_frames(tmp_path: Path, tiny: Any) -> None:
    pages = [Image.fromarray(generate.pixels(seed)) for seed in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    assert torch.equal(read(tiny, tmp_path / "pages.tif")[0], read(tiny, generate.picture(tmp_path / "first.png"))[0])


# Tracks


def test_of_several_video_tracks_the_default_one_is_seen(tmp_path: Path, tiny: Any) -> None:
    path, flag = tmp_path / "film.mkv", av.stream.Disposition
    with av.open(path, "w") as container:
        streams = [container.add_stream("mpeg4", rate=10) for _ in range(2)]
        streams[0].disposition, streams[1].disposition = flag(0), flag.default
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = *generate.PICTURE_SIZE, "yuv420p"
        for seed, stream in enumerate(streams):
            for number in range(20):
                frame = av.VideoFrame.from_ndarray(generate.pixels(seed), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 10)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    (chosen,), first, second = tiny.read("video", str(path)), read(tiny, path, track=1), read(tiny, path, track=2)
    assert chosen.notes == ("video track 2 of 2, flagged default; --track takes another",)
    assert (chosen.facts["track"], chosen.facts["tracks"]) == (2, 2)
    assert torch.equal(chosen.tensor, second[0])
    assert not torch.equal(chosen.tensor, first[0])
    with pytest.raises(ValueError, match="^has no video track 3; it has 2: choose with --track$"):
        read(tiny, path, track=3)


@pytest.mark.parametrize("make", [lambda folder: animation(folder / "moving.gif", [100] * 3), lambda folder: folder])
def test_animations_and_folders_have_one_track(tmp_path: Path, tiny: Any, make: Callable[[Path], Path]) -> None:
    generate.picture(tmp_path / "frame.gif")
    with pytest.raises(ValueError, match="^has no video track 2; it has 1: choose with --track$"):
        read(tiny, make(tmp_path), track=2)


# Views


def test_one_view_is_the_middle_one(tmp_path: Path, tiny: Any) -> None:
    path = generate.video(tmp_path / "film.mp4", seconds=3)
    three, spans, _ = read(tiny, path)
    one, one_spans, _ = read(tiny, path, crops="1")
    assert torch.equal(one, three[1::3])
    assert one_spans == spans[::3]
    assert tiny.embed("video", str(path), crops="1").shape == tiny.embed("video", str(path)).shape


def test_large_frames_come_a_few_at_a_time(tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "film.mp4", even(6))
    whole = [len(sample.tensor) for sample in tiny.read("video", str(path))]
    monkeypatch.setattr("imagebind_cli.encoders.vision.PIXELS_AT_ONCE", 1)
    few = list(tiny.read("video", str(path)))
    assert (whole, [len(sample.tensor) for sample in few]) == ([9], [3, 3, 3])
    assert torch.equal(torch.cat([sample.tensor for sample in few]), read(tiny, path)[0])


# Facts


def test_facts_of_a_video(tmp_path: Path, tiny: Any) -> None:
    facts = read(tiny, film(tmp_path / "film.mp4", even(4)))[2]
    assert facts == {
        "codec": "h264", "size": [64, 48], "fps": 25.0, "variable_rate": False, "seconds": 4.0, "frames": 100, "rotation": 0,
        "mirrored": False, "pixel_aspect": "1:1", "windows": 2,
    }  # fmt: skip


def test_facts_of_frames(tiny: Any) -> None:
    facts = read(tiny, (np.zeros((10, 48, 64, 3), np.uint8), 5))[2]
    assert facts == {"size": [64, 48], "fps": 5, "frames": 10, "windows": 1}


def test_facts_of_a_picture(tmp_path: Path, tiny: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    generate.picture(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(np.zeros((60, 80), np.uint16)).save(tmp_path / "deep.png")
    (turned,), (deep,) = (list(tiny.read("image", str(tmp_path / name))) for name in ("turned.jpg", "deep.png"))
    assert dict(turned.facts) == {"format": "jpeg", "size": [80, 60], "mode": "RGB", "bits": 8, "orientation": 6}
    assert dict(deep.facts) == {"format": "png", "size": [80, 60], "mode": "I;16", "bits": 16, "orientation": 1}
    (made,) = tiny.read("image", generate.pixels())
    assert made.facts["size"] == [80, 60]


# Folders of frames


def frame_folder(folder: Path, count: int, ending: str = "png") -> Path:
    """Numbered frames whose names sort in another order than their numbers."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(numbered(number)).save(folder / f"frame{number}.{ending}")
    return folder


def test_a_folder_of_frames_is_the_same_as_its_frames_in_one_file(tmp_path: Path, tiny: Any) -> None:
    folder = frame_folder(tmp_path / "walk", 115)
    frames = [numbered(number) for number in range(115)]
    with av.open(tmp_path / "walk.mkv", "w") as container:
        stream = container.add_stream("ffv1", rate=20)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    first, *others = map(Image.fromarray, frames)
    first.save(tmp_path / "walk.png", save_all=True, append_images=others, duration=50)
    tensor, spans, facts = read(tiny, folder, fps=20)
    assert spans[::3] == [(0, 2), (1.875, 3.875), (3.75, 5.75)]
    for file in ("walk.mkv", "walk.png"):
        same, same_spans, _ = read(tiny, tmp_path / file)
        assert torch.equal(tensor, same)
        assert spans == same_spans
    assert (facts["codec"], facts["size"], facts["fps"], facts["frames"], facts["seconds"]) == ("png", list(SIZE), 20, 115, 5.75)


def test_frames_come_in_the_order_of_their_numbers_at_the_stated_rate(tmp_path: Path) -> None:
    folder = frame_folder(tmp_path / "walk", 12, "bmp")
    (folder / ".hidden.txt").write_text("no frame")
    (folder / "masks").mkdir()
    with open_video(folder, fps=29.97) as video:
        assert video.duration == float(12 / Fraction("29.97"))
        starts = [number / Fraction("29.97") for number in range(12)]
        shown = list(video.clips([(starts[2], starts[3]), (starts[2], starts[11])], 2))
    assert [[number_of(frame) for frame in clip] for clip in shown] == [[2, 2], [2, 10]]


def test_the_rate_of_frames_is_assumed_aloud(tmp_path: Path, tiny: Any) -> None:
    folder = frame_folder(tmp_path / "walk", 50)
    (assumed,) = tiny.read("video", folder)
    (stated,) = tiny.read("video", folder, fps=25)
    assert assumed.notes == ("folder of frames: 25 a second; --fps says otherwise",)
    assert stated.notes == ()
    assert torch.equal(assumed.tensor, stated.tensor)
    assert assumed.spans == stated.spans == [(0, 2)] * 3


def test_folders_of_frames_that_are_refused(tmp_path: Path, tiny: Any) -> None:
    broken = frame_folder(tmp_path / "broken", 8)
    (broken / "frame7.png").write_bytes((broken / "frame7.png").read_bytes()[:60])
    mixed = frame_folder(tmp_path / "mixed", 3)
    generate.picture(mixed / "frame9.jpg")
    sizes = frame_folder(tmp_path / "sizes", 8)
    generate.picture(sizes / "frame7.png", size=(30, 20))
    (tmp_path / "empty").mkdir()
    reasons = {
        broken: r"^frame7\.png: not a readable picture",
        mixed: r"^files of several kinds \(frame0\.png, frame9\.jpg\)",
        sizes: r"^frame7\.png: 30 x 20 pixels, the first frame 64 x 48",
        tmp_path / "empty": "^holds no frames",
        tmp_path / "missing": "No such file",
    }
    for folder, reason in reasons.items():
        with pytest.raises((OSError, ValueError), match=reason):
            read(tiny, folder)


# Refused


@pytest.mark.parametrize("suffix", ["ans", "art", "bin", "diz", "idf", "nfo", "txt", "vt", "al", "sb", "sw", "ub", "ul", "uw"])
def test_text_is_neither_video_nor_sound_whatever_its_name(tmp_path: Path, tiny: Any, suffix: str) -> None:
    """FFmpeg draws text as a terminal does, and plays any bytes as samples, under these suffixes."""
    (tmp_path / f"notes.{suffix}").write_text("A word and more words. " * 3000)
    for modality in ("video", "audio"):
        with pytest.raises((OSError, ValueError), match=r"not a readable (video|sound): it seems to be text$"):
            list(tiny.read(modality, str(tmp_path / f"notes.{suffix}")))


def test_files_that_are_refused(tmp_path: Path, tiny: Any) -> None:
    """Each within ten seconds, as an error with words."""
    whole = film(tmp_path / "film.mp4", even(8)).read_bytes()
    longer = film(tmp_path / "film.mkv", even(8), keep=False).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.mkv").write_bytes(longer[: len(longer) // 2])
    generate.audio(tmp_path / "sound.wav")
    generate.video(tmp_path / "sound.mp4", pictures=False, sound=True)
    (tmp_path / "noise.mp4").write_bytes(whole[:64] + np.random.default_rng(0).bytes(10_000))
    (tmp_path / "folder").mkdir()
    reasons = {
        "cut.mp4": "not a readable video",
        "cut.mkv": "no frame",
        "sound.wav": "no picture track",
        "sound.mp4": "no picture track",
        "noise.mp4": "not a readable video",
        "folder": "holds no frames",
    }
    for name, reason in reasons.items():
        began = time.monotonic()
        with pytest.raises(ValueError, match=reason):
            read(tiny, tmp_path / name)
        assert time.monotonic() - began < 10


def test_a_damaged_stretch_is_skipped(tmp_path: Path) -> None:
    """Frames that cannot be decoded are replaced by the next that can; the windows before and after stay as they are."""
    path = film(tmp_path / "film.mp4", even(6), g="25", bf="0")
    good, data = numbers(path), bytearray(path.read_bytes())
    with av.open(path) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    for packet in packets[60:70]:
        data[packet.pos + 4 : packet.pos + packet.size] = bytes(packet.size - 4)
    path.write_bytes(data)
    damaged = numbers(path)
    assert (damaged[0], damaged[2]) == (good[0], good[2])


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_frames_need_a_rate(tiny: Any, rate: float) -> None:
    with pytest.raises(ValueError, match="a second"):
        read(tiny, (np.zeros((10, 48, 64, 3), np.uint8), rate))


@pytest.mark.parametrize("rate", [25, 10])
@pytest.mark.parametrize("times", [(2, 5), (0, 3), (3.2, 4), (2.4, 4.4), (4, None), (None, 2.4)])
def test_a_stretch_is_the_video_cut_by_hand(tiny: Any, tmp_path: Path, rate: int, times: Any) -> None:
    """Frames are lossless, and their numbers tell which were seen."""
    start, end = (0 if times[0] is None else times[0]), (6 if times[1] is None else times[1])
    numbers = range(round(start * rate), round(end * rate))
    frames = np.stack([numbered(number) for number in range(6 * rate)])
    folder, cut = tmp_path / "whole", tmp_path / "cut"
    for place, some in ((folder, range(6 * rate)), (cut, numbers)):
        place.mkdir()
        for number in some:
            Image.fromarray(frames[number]).save(place / f"{number}.png")
    wanted, theirs = seen_of(tiny, str(cut), fps=float(rate))
    film(tmp_path / "film.mp4", even(6, rate))
    sources: list[tuple[Any, dict[str, Any], float]] = [
        (str(folder), {"fps": float(rate)}, 1e-6),
        ((frames, float(rate)), {}, 1e-6),
        (str(tmp_path / "film.mp4"), {}, 0.1),  # colours are rounded
    ]
    for source, options, worst in sources:
        found, spans = seen_of(tiny, Stretch(source, *times), **options)
        assert np.allclose(np.array(spans) - start, theirs)
        assert (found - wanted).abs().max() <= worst


def seen_of(model: Any, source: Any, **options: Any) -> tuple[torch.Tensor, list[Any]]:
    """All clips, and their seconds."""
    samples = list(model.read("video", source, **options))
    return torch.cat([sample.tensor for sample in samples]), [span for sample in samples for span in sample.spans]


def test_a_stretch_of_a_picture_is_refused_and_of_a_video_read_as_either_is_not(tiny: Any, tmp_path: Path) -> None:
    path = str(generate.video(tmp_path / "a.mp4", seconds=6))
    assert next(tiny.read("vision", Stretch(path, 2, 4))).spans == [(2, 4)] * 3
    with pytest.raises(UserError, match="image has no seconds"):
        tiny.read("image", Stretch(path, 2, 4))
    with pytest.raises(ValueError, match="nothing between 7 and 8 s; it lasts from 0 to 6 s"):
        next(tiny.read("video", Stretch(path, 7, 8)))


@pytest.mark.parametrize("ending", ["gif", "png", "webp"])
def test_an_animation_that_claims_hours_is_refused_unless_windows_are_counted(tiny: Any, tmp_path: Path, ending: str) -> None:
    """One picture in 6,528 seconds took 22; a WebP picture may be shown for hours."""
    frames = [Image.new("RGB", (8, 8), (80 * number, 0, 0)) for number in range(3)]
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:], duration=65_500)
    with pytest.raises(ValueError, match="3 frames last 19[67] s according to the file; --clips N reads N windows of them"):
        list(tiny.read("video", tmp_path / f"a.{ending}"))
    (sample,) = tiny.read("video", tmp_path / f"a.{ending}", clips=2)
    assert len(sample.tensor) == 2 * 3
    (sample,) = tiny.read("video", Stretch(str(tmp_path / f"a.{ending}"), 0, 8))
    assert sample.facts["windows"] == 4


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_how_long_a_single_picture_is_shown_does_not_matter(tiny: Any, tmp_path: Path, ending: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / f"a.{ending}", save_all=True, duration=60_000)
    (sample,) = tiny.read("video", tmp_path / f"a.{ending}")
    assert sample.facts["windows"] == 1


# Windows at a hop


@pytest.mark.parametrize(("hop", "count"), [(0.5, 11), (0.4, 13), (2, 3), (3, 2), (9, 1)])
def test_windows_at_a_hop_are_frames_cut_by_hand_to_the_bit(tiny: Any, tmp_path: Path, hop: float, count: int) -> None:
    """7 s at 10 a second. The frames of a file are those that it gives when all are read."""
    rate, path = 10, generate.video(tmp_path / "a.mp4", seconds=7)
    with av.open(str(path)) as container:
        of_file = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    frames = np.stack([numbered(number) for number in range(7 * rate)])
    for source, decoded in (((frames, float(rate)), frames), (str(path), of_file)):
        tensor, spans = seen_of(tiny, source, hop=hop, crops="1")
        np.testing.assert_allclose(spans, [(hop * i, hop * i + 2) for i in range(count)], atol=1e-9)
        assert spans[-1][1] <= 7 < hop * count + 2
        for i in range(count):
            start = round(hop * i * rate)
            cut, theirs = seen_of(tiny, (decoded[start : start + 2 * rate], float(rate)), crops="1")
            assert theirs == [(0, 2)]
            assert torch.equal(tensor[i], cut[0])
    assert len(seen_of(tiny, (frames, float(rate)), hop=hop)[0]) == 3 * count


def test_a_hop_is_in_the_stretch_and_not_of_pictures(tiny: Any, tmp_path: Path) -> None:
    path = str(generate.video(tmp_path / "a.mp4", seconds=7))
    assert seen_of(tiny, Stretch(path, 2, 6.5), hop=1, crops="1")[1] == [(2, 4), (3, 5), (4, 6)]
    with pytest.raises(UserError, match="clips and hop exclude each other"):
        tiny.read("video", path, clips=2, hop=1)
    with pytest.raises(UserError, match="'hop', which is for videos"):
        tiny.read("image", path, hop=1)
