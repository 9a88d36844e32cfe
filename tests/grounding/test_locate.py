"""Places of queries in made scenes, in sounds and in videos, on the mini model; the arithmetic of heat maps by hand."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import imagebind_cli as ib
from imagebind_cli.encoders.audio import band_hertz, mel_filters
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.events import Listener
from imagebind_cli.grounding.enlarged import with_size
from imagebind_cli.grounding.locate import locate
from imagebind_cli.grounding.located import Located, Spot
from imagebind_cli.grounding.locator import Locator
from imagebind_cli.grounding.shares import dense
from imagebind_cli.grounding.squares import Axis, Canvas, peak_cell, region_box, square_view
from imagebind_cli.media.regions import squares
from imagebind_cli.retrieval.requests import QueryRequest, combined_request
from imagebind_cli.space import Space
from imagebind_cli.weights.convert import convert, round_checkpoint
from imagebind_cli.weights.find import find_checkpoint
from tests import generate
from tests.grounding.test_shares import SQUARE, TRUNK, built

SAMPLES = Path(__file__).parents[2] / "imagebind_cli" / "demo" / "samples"
PYTHON = Path(__file__).parents[2] / "docs" / "python.md"
SIDE, DRAWING = 192, 64
# Four scenes of three drawings each: the name that is asked for, and where its drawing is.
SCENES = [
    {"guitar": (0, 0), "sun": (128, 10), "umbrella": (60, 128)},
    {"trumpet": (120, 120), "apple": (10, 110), "bell": (70, 5)},
    {"house": (5, 64), "drum": (128, 0), "helicopter": (110, 128)},
    {"violin": (0, 128), "sunflower": (64, 30), "baby": (128, 120)},
]


@pytest.fixture(scope="module")
def mini() -> Any:
    return ib.load("mini", device="cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def drawing(name: str, size: int = DRAWING) -> Image.Image:
    return Image.open(SAMPLES / "image" / f"{name}.png").convert("RGB").resize((size, size), Image.Resampling.LANCZOS)


def scene(objects: dict[str, tuple[int, int]], size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """Drawings on white."""
    picture = Image.new("RGB", size, "white")
    for name, place in objects.items():
        picture.paste(drawing(name), place)
    return picture


def contains(place: tuple[int, int], spot: Spot) -> bool:
    return all(start <= at < start + DRAWING for start, at in zip(place, spot.peak, strict=True))


class Kept(Listener):
    """Keeps failures."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: dict[str, str] = {}

    def failure(self, id: str, reason: str) -> None:
        super().failure(id, reason)
        self.reasons[id] = reason


def test_each_named_drawing_is_found_and_not_another(folder: Path, mini: Any) -> None:
    for method, least, most in (("shares", 0.5, 0.15), ("both", 0.8, 0.05)):
        hits, others = [], []
        for number, objects in enumerate(SCENES):
            scene(objects).save(f"{number}.png")
            requests = [combined_request([("text", name)]) for name in objects]
            for found, name in zip(locate([f"{number}.png"], model=mini, method=method, requests=requests), objects, strict=True):
                assert (found.query.id, found.size) == (name, (SIDE, SIDE))
                hits.append(contains(objects[name], found.spots[0]))
                others += [contains(place, found.spots[0]) for other, place in objects.items() if other != name]
        assert sum(hits) / len(hits) >= least, method
        assert sum(others) / len(others) <= most, method


def test_a_sound_finds_what_makes_it(folder: Path, mini: Any) -> None:
    scene({"guitar": (0, 0), "umbrella": (120, 120)}).save("a.png")
    (found,) = locate(["a.png"], model=mini, method="both", audio=SAMPLES / "audio" / "guitar.mp3")
    assert contains((0, 0), found.spots[0])
    left, top, right, bottom = found.spots[0].box
    assert left <= found.spots[0].peak[0] <= right
    assert top <= found.spots[0].peak[1] <= bottom
    assert found.as_json(box=True)["box"] == [round(edge, 1) for edge in found.spots[0].box]


@pytest.mark.parametrize("kind", ["image", "depth", "thermal", "audio", "video"])
def test_the_whole_input_has_the_cosine_of_embed(folder: Path, mini: Any, kind: str) -> None:
    path = generate.sample(kind, folder)
    (found,) = locate([path], kind, model=mini, text="a dog")
    wanted = mini.embed(kind, [path])[0] @ mini.embed("text", ["a dog"])[0]
    assert found.whole == pytest.approx(wanted, abs=2e-5)


@pytest.mark.parametrize("kind", ["image", "depth", "thermal", "video"])
def test_every_drawn_modality_has_all_methods(folder: Path, mini: Any, kind: str) -> None:
    path = generate.sample(kind, folder)
    for method in ("shares", "crops", "both"):
        (found,) = locate([path], kind, model=mini, method=method, text="a dog")
        width, height = found.size
        assert 0 < found.spots[0].peak[0] < width
        assert 0 < found.spots[0].peak[1] < height
        assert np.isfinite(found.spots[0].heat).all()


def test_crops_are_the_cosines_of_the_files_cut_by_hand(folder: Path, mini: Any) -> None:
    """A place has the mean of the squares over it, each embedded as a picture of its own."""
    generate.picture(Path("a.png"), size=(96, 96))
    (found,) = locate(["a.png"], model=mini, method="crops", text="a dog")
    picture, sums, counts = Image.fromarray(generate.pixels(size=(96, 96))), np.zeros((96, 96)), np.zeros((96, 96))
    boxes = [
        (left, top, left + side, top + side)
        for side in (96, 48, 32)
        for top in range(0, 97 - side, side // 2)
        for left in range(0, 97 - side, side // 2)
    ]
    vectors = mini.embed("image", [np.asarray(picture.crop(box)) for box in boxes])
    for (left, top, right, bottom), cosine in zip(boxes, vectors @ mini.embed("text", ["a dog"])[0], strict=True):
        sums[top:bottom, left:right] += cosine
        counts[top:bottom, left:right] += 1
    assert np.ptp(sums / counts) > 0.02
    np.testing.assert_allclose(found.spots[0].heat, sums / counts, atol=2e-3)  # scaling sees a pixel beyond a cut


def test_shares_of_a_clip_come_to_its_cosine(mini: Any) -> None:
    locator = Locator(Space(mini), "image", "shares", None, Listener())
    asked = locator.queries([combined_request([("text", "a dog")])])
    clips = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    units, cosines, shares = locator.look(clips, asked.vectors)
    assert shares is not None
    assert shares.shape == (3, 2, 8, 8)  # the query and its empty query
    with torch.inference_mode():
        parts, rest = dense(locator.encoder, clips)
        length = (parts.sum(dim=1) + rest).norm(dim=1)
        rest = (rest @ asked.vectors.T / length[:, None]).numpy()
    np.testing.assert_allclose(shares.mean(axis=(2, 3)) + rest, cosines, atol=1e-5)
    np.testing.assert_allclose(units, mini.encode("image", clips).numpy(), atol=1e-5)


@pytest.mark.parametrize("changes", [{"frames": 4}, {"relative": "grid", "buckets": 4, "inner_norms": True}])
def test_encoders_of_other_families_have_one_map_for_each_clip(mini: Any, changes: dict[str, Any]) -> None:
    """Frames of a clip that are apart, and relative positions."""
    frames = "frames" in changes
    config = replace(SQUARE, shape=(3, 4, 32, 32) if frames else SQUARE.shape, frame_tokens=frames, trunk=replace(TRUNK, **changes))
    locator = Locator(Space(mini), "image", "shares", None, Listener())
    locator.encoder = built("vision", config)
    clips, vectors = torch.randn(2, *config.shape), torch.nn.functional.normalize(torch.randn(3, 10), dim=1)
    _, cosines, shares = locator.look(clips, vectors)
    assert shares is not None
    assert shares.shape == (2, 3, 4, 4)
    with torch.inference_mode():
        np.testing.assert_allclose(cosines, (locator.encoder(clips) @ vectors.T).numpy(), atol=1e-5)
        parts, rest = dense(locator.encoder, clips)
        length = (parts.sum(dim=1) + rest).norm(dim=1, keepdim=True)
        np.testing.assert_allclose(shares.mean(axis=(2, 3)), cosines - (rest @ vectors.T / length).numpy(), atol=1e-4)
    with pytest.raises(UsageError, match="relative"):
        with_size(built("vision", replace(SQUARE, trunk=replace(TRUNK, relative="grid", buckets=4))), 64)


def test_all_of_a_wide_picture_is_looked_at_in_its_own_pixels(folder: Path, mini: Any) -> None:
    scene({"guitar": (500, 60)}, (600, 192)).save("wide.png")
    (found,) = locate(["wide.png"], model=mini, text="a guitar")
    assert contains((500, 60), found.spots[0])
    assert found.size == (600, 192)


def test_a_picture_that_exif_turns_is_located_upright(folder: Path, mini: Any) -> None:
    exif = Image.Exif()
    exif[274] = 6  # its rows were stored as columns: turn right to see it
    scene({"guitar": (500, 60)}, (600, 192)).rotate(90, expand=True).save("turned.jpg", exif=exif, quality=95)
    (found,) = locate(["turned.jpg"], model=mini, text="a guitar")
    assert found.size == (600, 192)
    assert contains((500, 60), found.spots[0])


def test_the_middle_of_a_very_long_picture_counts_from_its_true_beginning(folder: Path, mini: Any) -> None:
    """Only the middle 32 of 40 squares are read."""
    picture = Image.new("RGB", (1280, 32), "white")
    picture.paste(drawing("guitar", 32), (1000, 0))
    picture.save("long.png")
    (found,) = locate(["long.png"], model=mini, text="a guitar")
    assert found.size == (1280, 32)
    assert 1000 <= found.spots[0].peak[0] < 1032


def test_when_and_in_which_band_a_sound_is(folder: Path, mini: Any) -> None:
    (guitar, rate), (rain, other) = (soundfile.read(SAMPLES / "audio" / f"{name}.mp3") for name in ("guitar", "rain"))
    assert rate == other
    joined = np.concatenate([rain[: 2 * rate], guitar[: 2 * rate], np.zeros(rate)])
    soundfile.write("joined.wav", joined, rate)
    (found,) = locate(["joined.wav"], "audio", model=mini, reading={"hop": 1.0}, text="a guitar")
    (spot,) = found.spots
    assert 2 <= spot.peak[0] < 4
    assert 20 <= spot.peak[1] <= 8000
    assert spot.box[0] <= spot.peak[0] <= spot.box[2]
    assert spot.box[1] <= spot.peak[1] <= spot.box[3]
    assert found.size == (0, 5)
    assert spot.heat.shape == (128, 500)  # bands, steps of 10 ms


def test_a_sound_shorter_than_a_window_ends_where_it_ends(folder: Path, mini: Any) -> None:
    soundfile.write("short.wav", generate.tone(0.5), generate.RATE)
    (found,) = locate(["short.wav"], "audio", model=mini, text="a guitar")
    assert found.size == (0, 0.5)
    assert found.spots[0].peak[0] < 0.5
    part = ib.Stretch("long.wav", 1, 1.5)
    soundfile.write("long.wav", generate.tone(4), generate.RATE)
    Path("rows.jsonl").write_text(json.dumps({"id": "part", "audio": "long.wav", "start": 1, "end": 1.5, "text": "a guitar"}))
    (found,) = locate((), "audio", model=mini, manifest="rows.jsonl")
    assert found.payload.label == part.label
    assert found.size[0] == 1
    assert 1 <= found.spots[0].peak[0] <= 3


def test_bands_lie_around_the_filters_of_the_spectrogram() -> None:
    edges, filters = band_hertz(128), mel_filters(128).to_dense().numpy()
    assert len(edges) == 129
    for band in range(40, 128):  # lower ones are narrower than the transform's steps
        assert edges[band] - 16 <= filters[band].argmax() * 16_000 / 512 <= edges[band + 1] + 16


def write_video(path: Path, frames: list[Image.Image]) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = SIDE, SIDE, "yuv420p", 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame), format="rgb24")))
        container.mux(stream.encode(None))


def test_the_best_window_of_a_video_is_first(folder: Path, mini: Any) -> None:
    before, after = scene({"umbrella": (10, 10)}), scene({"umbrella": (10, 10), "guitar": (120, 100)})
    write_video(Path("film.mp4"), [before] * 40 + [after] * 20)
    (found,) = locate(["film.mp4"], "video", model=mini, method="both", text="a guitar")
    assert [spot.span for spot in found.spots][0] == (4, 6)
    assert contains((120, 100), found.spots[0])
    row = found.as_json(windows=2)
    assert (row["start"], row["end"], len(row["windows"])) == (4, 6, 2)
    assert row["windows"][0]["score"] == row["score"] >= row["windows"][1]["score"]


def test_an_empty_query_is_the_floor(folder: Path, mini: Any) -> None:
    scene(SCENES[0]).save("a.png")
    locator = Locator(Space(mini), "image", "shares", None, Listener())
    silence = mini.embed("audio", [np.zeros(32_000, np.float32)])[0]
    np.testing.assert_allclose(locator.empty_vector("audio"), silence, atol=1e-6)
    (by_name,) = locate(["a.png"], model=mini, text="a guitar")
    (by_silence,) = locate(["a.png"], model=mini, requests=[QueryRequest("silence", (), None, tuple(map(float, silence)))])
    (by_sound,) = locate(["a.png"], model=mini, audio=SAMPLES / "audio" / "guitar.mp3")
    assert by_sound.floor == pytest.approx((by_silence.spots[0].score, by_silence.whole), abs=1e-5)
    assert by_silence.floor is None
    assert by_name.floor != by_sound.floor
    assert by_name.as_json()["floor"] == {"score": by_name.floor[0], "whole": by_name.floor[1]}  # type: ignore[index]


def test_combined_queries_are_weighted(folder: Path, mini: Any) -> None:
    scene({"guitar": (0, 0), "umbrella": (120, 120)}).save("a.png")
    requests = [combined_request([("text", "a guitar"), ("text", "an umbrella")], weights) for weights in ((1, -1), (-1, 1))]
    guitar, umbrella = locate(["a.png"], model=mini, method="both", requests=requests)
    assert contains((0, 0), guitar.spots[0])
    assert contains((120, 120), umbrella.spots[0])
    assert guitar.query.id == "1 a guitar - 1 an umbrella"
    assert guitar.floor is not None  # the same empty sentence, though the weights add up to nothing


def test_rows_of_a_manifest_have_queries_of_their_own(folder: Path, mini: Any) -> None:
    scene({"guitar": (0, 0), "umbrella": (120, 120)}).save("a.png")
    drawing("umbrella").save("umbrella.png")
    rows: list[dict[str, Any]] = [
        {"id": "one", "image": "a.png", "text": "a guitar"},
        {"id": "two", "image": "a.png", "query": {"image": "umbrella.png"}},
        {"id": "none", "image": "a.png"},
        {"id": "wrong", "image": "a.png", "audio": "missing.wav"},
        {"id": "lost", "image": "missing.png", "text": "a guitar"},
        {"id": "one", "image": "a.png", "query": "an umbrella"},
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = Kept()
    found = list(locate((), model=mini, method="both", manifest="rows.jsonl", listener=kept))
    assert [(answer.id, answer.query.id) for answer in found] == [("one", "a guitar"), ("two", "umbrella.png"), ("one", "an umbrella")]
    places = [(0, 0), (120, 120), (120, 120)]
    assert [contains(place, answer.spots[0]) for place, answer in zip(places, found, strict=True)] == [True, True, True]
    assert (kept.done, kept.failed, set(kept.reasons)) == (3, 3, {"none", "wrong", "lost"})
    assert "no query in this row" in kept.reasons["none"]


def test_a_failure_raises_without_a_listener(folder: Path, mini: Any) -> None:
    with pytest.raises(UserError, match="missing.png"):
        list(locate(["missing.png"], model=mini, text="a dog"))
    Path("broken.png").write_bytes(b"not a picture")
    kept = Kept()
    generate.picture(Path("a.png"))
    assert [found.id for found in locate(["broken.png", "a.png"], model=mini, text="a dog", listener=kept)] == ["a.png"]
    assert set(kept.reasons) == {"broken.png"}


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("text", {}, "text cannot be located"),
        ("imu", {}, "imu cannot be located"),
        ("vision", {}, "name one of them"),
        ("audio", {"method": "both"}, "leave the method and the size out"),
        ("audio", {"size": 64}, "leave the method and the size out"),
        ("image", {"method": "guess"}, "choose from shares, crops, both"),
        ("image", {"size": 100}, "a multiple of 8 is needed"),
        ("image", {"size": 4}, "a multiple of 8 is needed"),
        ("image", {"reading": {"clips": 2}}, "clips"),
        ("image", {"reading": {"tiles": "1/2"}}, "leave tiles and region_shape out"),
    ],
)
def test_what_cannot_be_located_is_refused_before_anything_is_read(mini: Any, kind: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        list(locate(["missing.file"], kind, model=mini, text="a dog", **options))


def test_an_mlp_head_and_int8_have_crops_alone(folder: Path, mini: Any) -> None:
    narrow = ib.load("mini", device="cpu", dtype="int8")
    generate.picture(Path("a.png"))
    with pytest.raises(UsageError, match="this encoder computes them in int8; --method crops"):
        list(locate(["a.png"], model=narrow, text="a dog"))
    (found,) = locate(["a.png"], model=narrow, method="crops", text="a dog")
    assert 0 < found.spots[0].peak[0] < 80


def test_weights_rounded_to_int8_have_shares(folder: Path) -> None:
    generate.picture(Path("a.png"))
    exact = find_checkpoint("mini")
    convert(exact, Path("rounded"), {}, round_checkpoint(exact, "int8").config.rounded)
    (found,) = locate(["a.png"], model=ib.load("rounded", device="cpu"), text="a dog")
    assert 0 < found.spots[0].peak[0] < 80


def test_prepared_samples_are_refused_in_words(folder: Path, mini: Any) -> None:
    from imagebind_cli import corpus

    generate.picture(Path("a.png"))
    corpus.preprocess("image", ["a.png"], "a.tar", model="mini")
    kept = Kept()
    assert list(locate(["a.tar"], model=mini, text="a dog", listener=kept)) == []
    assert "give the files that they were made from" in kept.reasons["a.png"]


def test_another_size_keeps_the_vector_at_its_own_and_moves_it_little_nearby(mini: Any) -> None:
    encoder = mini.encoder("image")
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(with_size(encoder, 64)(x), encoder(x))
        picture = torch.nn.functional.interpolate(x, size=(8, 8)).repeat_interleave(8, 2).repeat_interleave(8, 3)
        larger = torch.nn.functional.interpolate(picture, size=(128, 128), mode="bilinear")
        assert (with_size(encoder, 128)(larger) * encoder(picture)).sum(dim=1).min() > 0.5
    assert encoder.config.shape[-1] == 64  # the encoder itself is as it was
    assert encoder.stem.pos.shape[1] == 65
    relative = mini.encoder("text")
    with pytest.raises(UsageError, match="square pictures"):
        with_size(relative, 64)


def test_a_larger_size_has_as_many_more_patches(folder: Path, mini: Any) -> None:
    locator = Locator(Space(mini), "image", "shares", 128, Listener())
    asked = locator.queries([combined_request([("text", "a dog")])])
    _, _, shares = locator.look(torch.zeros(1, 3, 128, 128), asked.vectors)
    assert shares is not None
    assert shares.shape == (1, 2, 16, 16)
    scene(SCENES[0]).save("a.png")
    (found,) = locate(["a.png"], model=mini, size=128, text="a guitar")
    assert found.size == (SIDE, SIDE)


# Squares and heat maps, by hand


@pytest.mark.parametrize("size", [(60, 60), (61, 47), (300, 20), (7, 90)])
def test_squares_cover_everything_and_stay_inside(size: tuple[int, int]) -> None:
    for divisor in (1, 2, 3):
        side, covered = min(size) / divisor, np.zeros((200, 200), bool)
        for left, top, right, bottom in squares(*size, min(size) / divisor):
            assert (right - left, bottom - top) == pytest.approx((side, side))
            assert min(left, top) >= 0
            assert right <= size[0] + 1e-9
            assert bottom <= size[1] + 1e-9
            x, y = ((np.arange(200) + 0.5) * length / 200 for length in size)
            covered |= ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))
        assert covered.all()
    assert [len(squares(60, 60, 60 / divisor)) for divisor in (1, 2, 3)] == [1, 9, 25]


def test_a_square_is_the_part_of_the_picture_that_it_says() -> None:
    picture = Image.fromarray(generate.pixels(size=(90, 60)))
    for box in (*squares(90, 60, 60), *squares(90, 60, 30)):
        wanted = picture.crop(tuple(map(int, box))).resize((int(box[2] - box[0]),) * 2)  # type: ignore[arg-type]
        seen = square_view(box, 90, 60).picture(picture, wanted.width)
        assert np.abs(np.asarray(seen, int) - np.asarray(wanted, int)).max() <= 1


def test_patches_are_interpolated_between_their_centres() -> None:
    axis = Axis(8, 8, 3)  # centres at 4, 12, 20
    np.testing.assert_allclose(axis.weights(np.array([0, 4, 6, 12, 23])), [[1, 0, 0], [1, 0, 0], [0.75, 0.25, 0], [0, 1, 0], [0, 0, 1]])
    overlapping = Axis(16, 10, 12)  # of a spectrogram: centres at 8, 18, …
    assert overlapping.weights(np.array([13.0]))[0, :2] == pytest.approx([0.5, 0.5])


def test_a_canvas_has_the_mean_of_what_covers_each_place() -> None:
    canvas, axes = Canvas(40, 20, 2), (Axis(1, 1, 2), Axis(1, 1, 2))
    canvas.add((0, 0, 20, 20), np.array([1.0, 10.0]), None, axes, (2, 2))
    canvas.add((10, 0, 30, 20), np.array([3.0, 30.0]), None, axes, (2, 2))
    heat = canvas.heat()
    assert heat.shape == (2, 20, 40)
    assert [float(heat[0, 5, column]) for column in (5, 15, 25, 35)] == [1, 2, 3, 0]
    assert float(heat[1, 5, 15]) == 20
    hot = Canvas(40, 20, 1)
    hot.add((20, 0, 40, 20), np.zeros(1), np.array([[[0.0, 0.0], [0.0, 1.0]]]), axes, (2, 2))
    row, column = peak_cell(hot.heat()[0])
    assert row >= 15
    assert column >= 35


def test_the_peak_is_the_middle_of_a_plateau_and_the_box_what_is_connected() -> None:
    heat = np.zeros((9, 12))
    heat[2:5, 3:8] = 1
    heat[7:9, 10:12] = 0.9
    assert peak_cell(heat) == (3, 5)
    assert region_box(heat, (3, 5), 0.5) == (3, 2, 8, 5)
    heat[4:8, 7:11] = 0.9
    assert region_box(heat, (3, 5), 0.5) == (3, 2, 12, 9)


def test_the_page_locates(folder: Path, mini: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """docs/python.md, as it stands."""
    scene(SCENES[0]).save("yard.png")
    soundfile.write("bark.wav", generate.tone(2), generate.RATE)
    code = re.search(r"## Where in a picture\n.*?```python\n(.*?)```", PYTHON.read_text(), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {"model": mini}
    exec(compile(code[1], "docs/python.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert Path("heat.png").is_file()
    assert isinstance(names["found"], Located)
    assert math.isfinite(names["found"].whole)
