"""Clock times: what a file states about when it was recorded, from the file to stores, answers and classes, and nothing invented."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from imagebind_cli.media.clock import clock_text, container_clock, epoch_clock, parse_clock
from imagebind_cli.store import FORMATS, Row, Store, open_store
from imagebind_cli.store.maintenance import compact
from tests import generate, stores
from tests.conftest import Run

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
LOCAL = NOON.replace(tzinfo=None)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2024-05-01T12:00:00Z", NOON),
        ("2024-05-01T14:00:00+0200", NOON),
        ("2024-05-01T12:00:00.000000Z", NOON),
        ("2024:05:01 14:00:00+02:00", NOON),
        ("2024:05:01 12:00:00", LOCAL),
        ("2024-05-01 12:00:00", LOCAL),
        ("2024-05-01", None),
        ("2024", None),
        ("1970-01-01T00:00:00Z", None),
        ("1904-01-01T00:00:00Z", None),
        ("0000:00:00 00:00:00", None),
        ("9999-12-31T23:59:59-12:00", None),
        ("", None),
        ("a tune", None),
    ],
)
def test_dates_with_times_are_read_and_unset_clocks_are_not(text: str, time: datetime | None) -> None:
    assert parse_clock(text) == time
    if time is not None:
        assert parse_clock(text).tzinfo == time.tzinfo  # type: ignore[union-attr]


def test_apples_tag_has_the_zone_and_comes_first() -> None:
    tags = {"creation_time": "2024-05-01T23:59:00.000000Z", "com.apple.quicktime.creationdate": "2024-05-01T14:00:00+0200"}
    assert container_clock(tags) == NOON
    assert container_clock({"date": "2024"}) is None
    assert container_clock({"creation_time": "12:00:00"}) is None


def test_seconds_since_1970_are_a_clock_only_of_this_century() -> None:
    assert epoch_clock(NOON.timestamp()) == NOON
    assert epoch_clock(NOON.timestamp(), local=True) == LOCAL
    assert [epoch_clock(seconds) for seconds in (0.0, 1e8, 1e12, float("inf"))] == [None] * 4


def test_clock_times_are_rounded_to_the_millisecond() -> None:
    assert clock_text(NOON, 1.9996) == "2024-05-01T12:00:02.000Z"
    assert clock_text(LOCAL, 0.25) == "2024-05-01T12:00:00.250"


def broadcast(path: Path) -> Path:
    """A broadcast WAV file of 2.5 seconds."""
    data = generate.audio(path).read_bytes()
    origination = bytes(320) + b"2024-05-01" + b"12:00:00"
    chunk = b"bext" + struct.pack("<I", 602) + origination.ljust(602, b"\0")
    path.write_bytes(data[:4] + struct.pack("<I", len(data) + len(chunk) - 8) + data[8:12] + chunk + data[12:])
    return path


def film(path: Path) -> Path:
    """A film of 5 seconds that states its time."""
    generate.video(path.with_name("plain.mp4"), seconds=5)
    with av.open(path.with_name("plain.mp4")) as plain, av.open(path, "w") as container:
        container.metadata["creation_time"] = "2024-05-01T12:00:00.000000Z"
        stream = container.add_stream_from_template(plain.streams.video[0])
        for packet in plain.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return path


def photo(path: Path, offset: str = "") -> Path:
    """A photo that states when it was taken."""
    image, exif = Image.new("RGB", (80, 60)), Image.Exif()
    exif.get_ifd(0x8769).update({0x9003: "2024:05:01 14:00:00"} | ({0x9011: offset} if offset else {}))
    image.save(path, exif=exif)
    return path


def walk(path: Path, first: object, zone: str = "") -> Path:
    """A recording of 12 seconds at 50 Hz. first: its first time, a number or an ISO time without its zone."""
    rows = generate.readings(12, rate=50)
    start = datetime.fromisoformat(first) if isinstance(first, str) else first
    times = [
        (start + timedelta(seconds=i / 50)).isoformat() + zone if isinstance(first, str) else f"{start + i / 50:.3f}"
        for i in range(len(rows))
    ]  # type: ignore[operator]
    lines = ["time,ax,ay,az,gx,gy,gz", *(f"{time},{','.join(map(str, row))}" for time, row in zip(times, rows, strict=True))]
    path.write_text("\n".join(lines))
    return path


FILES: dict[str, tuple[str, Any, datetime | None]] = {
    "broadcast wav": ("audio", lambda folder: broadcast(folder / "a.wav"), LOCAL),
    "plain wav": ("audio", lambda folder: generate.audio(folder / "a.wav"), None),
    "film": ("video", lambda folder: film(folder / "a.mp4"), NOON),
    "plain film": ("video", lambda folder: generate.video(folder / "a.mp4"), None),
    "photo with offset": ("image", lambda folder: photo(folder / "a.jpg", "+02:00"), NOON),
    "photo": ("image", lambda folder: photo(folder / "a.jpg"), LOCAL + timedelta(hours=2)),
    "plain picture": ("image", lambda folder: generate.picture(folder / "a.png"), None),
    "imu since 1970": ("imu", lambda folder: walk(folder / "a.csv", NOON.timestamp()), NOON),
    "imu in ISO with zone": ("imu", lambda folder: walk(folder / "a.csv", "2024-05-01T14:00:00", "+02:00"), NOON),
    "imu in ISO without": ("imu", lambda folder: walk(folder / "a.csv", "2024-05-01T12:00:00"), LOCAL),
    "imu since its start": ("imu", lambda folder: walk(folder / "a.csv", 3.0), None),
}


@pytest.mark.parametrize("name", FILES)
def test_a_files_clock_comes_with_its_sample(tiny: Any, tmp_path: Path, name: str) -> None:
    modality, make, began = FILES[name]
    sample = next(tiny.read(modality, make(tmp_path)))
    assert sample.began == began
    assert began is None or sample.began.tzinfo == began.tzinfo
    embedding = next(iter(tiny.embed_items(modality, [item(modality, tmp_path)], pool="none")))[1].embeddings[-1]
    start = embedding.span[0] if embedding.span else 0.0
    assert embedding.clock == (None if began is None else clock_text(began, start))


def item(modality: str, folder: Path) -> Any:
    from imagebind_cli.sources import Item

    path = str(next(folder.glob("a.*")))
    return Item(path, path)


def test_a_films_sound_has_the_films_clock(tiny: Any, tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    with av.open(generate.video(tmp_path / "b.mp4", sound=True)) as sound, av.open(tmp_path / "c.mp4", "w") as container:
        container.metadata["creation_time"] = "2024-05-01T12:00:00.000000Z"
        streams = {stream.index: container.add_stream_from_template(stream) for stream in sound.streams}
        for packet in sound.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                container.mux(packet)
    assert next(tiny.read("audio", tmp_path / "c.mp4")).began == next(tiny.read("video", path)).began == NOON


def test_a_stretch_keeps_the_clock_of_its_file(embed: Run, tmp_path: Path) -> None:
    path = walk(tmp_path / "a.csv", NOON.timestamp())
    row = f'{{"imu": "{path}", "start": 6, "end": 11.5}}\n'.encode()
    rows = embed("imu", "-", "--pool", "none", "--clips", 1, stdin=row).rows
    assert [(row["start"], row["clock"]) for row in rows] == [(6.0, "2024-05-01T12:00:06.000Z")]


def test_clocks_go_from_files_to_answers_and_classes(embed: Run, imagebind: Run, tmp_path: Path) -> None:
    store, path = tmp_path / "imu.h5", walk(tmp_path / "a.csv", NOON.timestamp())
    plain = generate.imu(tmp_path / "b.csv", seconds=6)
    assert embed("imu", path, plain, "--pool", "none", "-o", store).code == 0
    wanted = ["2024-05-01T12:00:00.000Z", "2024-05-01T12:00:03.500Z", "2024-05-01T12:00:07.000Z", None, None]
    assert open_store(store).clocks == wanted
    answers = imagebind("retrieve", store, "--text", "walking", "--model", "tiny", "--html", tmp_path / "a.html").rows
    assert {row["start"]: row.get("clock") for row in answers if row["id"] == str(path)} == dict(zip((0, 3.5, 7), wanted[:3], strict=True))
    assert all("clock" not in row for row in answers if row["id"] == str(plain))
    assert wanted[1] in (tmp_path / "a.html").read_text()
    table = imagebind("retrieve", store, "--text", "walking", "--model", "tiny", "--plain").out.decode()
    assert "3.50 to 8.50 s  2024-05-01T12:00:03.500Z\n" in table
    classes = ("zeroshot", "imu", "--labels", "walking,lying", "--model", "tiny", "--pool", "none")
    for inputs in ([store], [path, plain]):
        assert [row.get("clock") for row in imagebind(*classes, *inputs).rows] == wanted


@pytest.mark.parametrize("ending", ["tar", "h5"])
def test_prepared_samples_keep_the_clock(embed: Run, imagebind: Run, tmp_path: Path, ending: str) -> None:
    path, prepared = walk(tmp_path / "a.csv", "2024-05-01T12:00:00"), tmp_path / f"p.{ending}"
    assert imagebind("preprocess", "imu", path, "-o", prepared, "--model", "tiny").code == 0
    assert [row["clock"] for row in embed("imu", prepared, "--pool", "none").rows] == [
        "2024-05-01T12:00:00.000",
        "2024-05-01T12:00:03.500",
        "2024-05-01T12:00:07.000",
    ]


def test_inspect_shows_the_clock(imagebind: Run, tmp_path: Path) -> None:
    run = imagebind("preprocess", "imu", walk(tmp_path / "a.csv", "2024-05-01T14:00:00", "+02:00"), "--inspect", "--model", "tiny")
    assert run.rows[0]["clock"] == "2024-05-01T12:00:00.000Z"


def test_a_renamed_file_keeps_its_clock(embed: Run, tmp_path: Path) -> None:
    store, path = tmp_path / "a.h5", photo(tmp_path / "a.jpg", "+02:00")
    embed("image", path, "-o", store, "--verify")
    path.rename(tmp_path / "b.jpg")
    embed("image", tmp_path / "b.jpg", "-o", store, "--verify")
    assert open_store(store).clocks == ["2024-05-01T12:00:00.000Z"] * 2


@pytest.mark.parametrize("ending", FORMATS)
def test_every_store_keeps_clocks_through_replacing_merging_and_compacting(tmp_path: Path, ending: str) -> None:
    path, vectors = tmp_path / f"a{ending}", stores.unit_rows(5)

    def add(number: int, id: str, clock: str | None) -> None:
        with Store(path, {**stores.MADE, "modality": "image"}) as store:
            store.append([Row(id, vectors[number], clock=clock)])

    for number, (id, clock) in enumerate([("a", None), ("b", "2024-05-01T12:00:00.000Z"), ("c", None), ("b", "2024-05-01T13:00:00.000")]):
        add(number, id, clock)
    reader = open_store(path)
    wanted = {"a": None, "b": "2024-05-01T13:00:00.000", "c": None}
    assert dict(zip(reader.ids, reader.clocks, strict=True)) == wanted
    assert {reader.id(row): reader.clock(row) for row in range(3)} == wanted
    if ending != ".npy":
        compact(path)
        reader = open_store(path)
        assert dict(zip(reader.ids, reader.clocks, strict=True)) == wanted


@pytest.mark.parametrize("ending", FORMATS)
def test_a_store_without_clocks_has_no_place_for_them(tmp_path: Path, ending: str) -> None:
    path = stores.store(tmp_path / f"a{ending}", "image", ["a", "b"])
    files = [each for each in (path.rglob("*") if path.is_dir() else tmp_path.glob("a*")) if each.is_file()]
    assert files
    assert not any(b"clock" in each.read_bytes() for each in files)
    assert open_store(path).clocks == [None, None]


def test_a_clock_is_a_column_of_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    from imagebind_cli.store.export import export

    with Store(tmp_path / "a.h5", {**stores.MADE, "modality": "image"}) as store:
        store.append([Row("a", np.eye(1, stores.DIM, dtype=np.float32)[0], clock="2024-05-01T12:00:00.000Z")])
    export(open_store(tmp_path / "a.h5"), tmp_path / "a.parquet", "float32")
    assert parquet.read_table(tmp_path / "a.parquet")["clock"].to_pylist() == ["2024-05-01T12:00:00.000Z"]
