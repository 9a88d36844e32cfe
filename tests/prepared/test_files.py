"""Files of prepared samples: what is written is what is read, in order or by number; whole or not there."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from imagebind_cli.errors import UserError
from imagebind_cli.prepared import (
    Entry,
    Member,
    Prepared,
    ShardWriter,
    belongs_to,
    index,
    member_key,
    open_writer,
    read_hdf5,
    read_shard,
    sample_findings,
)
from imagebind_cli.prepared import hdf5 as hdf5_module
from imagebind_cli.sources import Failure, Item, from_arguments
from tests import generate

MADE: dict[str, Any] = {"inputs": {"audio": {"options": {}}, "image": {"options": {}}}, "array": "float32"}
FORMATS = ["x.tar", "x-%02d.tar", "x.h5"]


def sample(number: int) -> dict[str, list[np.ndarray]]:
    """Stretches by modality: of some samples the sound is long."""
    random = np.random.default_rng(number)
    stretches = [random.standard_normal((2 + i, 1, 4, 5)).astype(np.float32) for i in range(1 + 11 * (number % 3 == 2))]
    return {"audio": stretches, "image": [random.standard_normal((1, 3, 4, 4)).astype(np.float32)]}


def about(number: int) -> dict[str, Any]:
    clips = sum(map(len, sample(number)["audio"]))
    spans = {"audio": [[float(i), i + 2.0] for i in range(clips)], "image": [None]}
    return {"id": f"dir/sound {number}.wav", "spans": spans, "notes": {"audio": ["a note"]}, "scene": f"\udcff{number}"}


def write(path: Path, numbers: Iterator[int] | range, made: dict[str, Any] = MADE) -> None:
    with open_writer(str(path), made, 20_000) as writer:
        for number in numbers:
            key = member_key(about(number)["id"])
            if about(number)["id"] in writer.ids:
                continue
            for name, stretches in sample(number).items():
                for stretch in stretches:
                    writer.add(key, name, stretch)
            writer.finish(key, about(number))


def files(path: Path) -> list[Path]:
    return sorted(path.parent.glob(path.name.replace("%02d", "*")))


@pytest.fixture(params=FORMATS)
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hdf5_module, "PART_BYTES", 20_000)
    return tmp_path / request.param


def check(entry: Entry, number: int) -> None:
    assert entry.key == member_key(about(number)["id"])
    assert entry.about() == about(number)
    for name, stretches in sample(number).items():
        prepared = entry.payload(name, entry.about())
        assert isinstance(prepared, Prepared)
        arrays = list(prepared.arrays())
        assert np.array_equal(np.concatenate(arrays), np.concatenate(stretches))
        assert prepared.spans == about(number)["spans"][name]
        assert all(array.flags.writeable for array in arrays)


def test_samples_come_back_by_number_in_any_order(path: Path) -> None:
    write(path, range(12))
    entries = [entry for file in files(path) for entry in index(file)]
    assert len(entries) == 12
    for number in np.random.default_rng(0).permutation(12):
        check(entries[number], number)
    if path.suffix == ".h5":
        whole = index(path)
        assert [entry.key for entry in whole[2:5]] == [entry.key for entry in entries[2:5]]
        check(whole[-1], 11)
        with pytest.raises(IndexError):
            whole[12]


def test_samples_come_back_in_order_as_items(path: Path) -> None:
    write(path, range(5))
    items = list(from_arguments([str(file) for file in files(path)], ("audio",), io.BytesIO()))
    assert [item.id for item in items] == [about(number)["id"] for number in range(5)]
    assert isinstance(items[2], Item)
    assert items[2].meta == {"scene": "\udcff2"}
    assert np.array_equal(np.concatenate(list(items[2].payload.arrays())), np.concatenate(sample(2)["audio"]))


def test_a_run_goes_on_where_the_last_one_stopped_and_equals_an_unbroken_one(path: Path) -> None:
    if path.name == "x.tar":
        pytest.skip("one tar is written at once or not at all")

    def broken() -> Iterator[int]:
        yield from range(7)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(path, broken())
    if path.suffix == ".h5":
        assert sum(len(index(part)) for part in (path.parent / "x.h5.partial").glob("*.tar")) == 7
    write(path, range(12))
    (path.parent / "whole").mkdir()
    write(path.parent / "whole" / path.name, range(12))
    assert [file.name for file in files(path)] == [file.name for file in files(path.parent / "whole" / path.name)]
    for file in files(path):
        assert file.read_bytes() == (path.parent / "whole" / file.name).read_bytes()
    assert not [file for file in path.parent.iterdir() if "partial" in file.name]


def test_what_is_added_later_stands_behind_what_was_there(path: Path) -> None:
    if path.name == "x.tar":
        pytest.skip("one tar is written at once or not at all")
    write(path, range(4))
    write(path, range(9))
    write(path, range(9))
    entries = [entry for file in files(path) for entry in index(file)]
    assert len(entries) == 9
    for number, entry in enumerate(entries):
        check(entry, number)


def test_a_sample_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    with open_writer(str(tmp_path / "x.h5"), MADE) as writer:
        pass
    with pytest.raises(KeyboardInterrupt), open_writer(str(tmp_path / "x.h5"), MADE) as writer:
        for number in range(3):
            for name, stretches in sample(number).items():
                writer.add(member_key(about(number)["id"]), name, stretches[0])
            if number == 2:
                raise KeyboardInterrupt
            writer.finish(member_key(about(number)["id"]), about(number))
    (part,) = (tmp_path / "x.h5.partial").glob("*.tar")
    assert [entry.about()["id"] for entry in index(part)] == [about(number)["id"] for number in range(2)]


def test_samples_made_otherwise_are_not_mixed(path: Path) -> None:
    write(path, range(3))
    with pytest.raises(UserError, match="made with array 'float32'; this run has 'float16'"):
        write(path, range(3), MADE | {"array": "float16"})


def test_a_sample_that_breaks_midway_leaves_nothing(path: Path) -> None:
    with open_writer(str(path), MADE, 10**9) as writer:
        for number in range(3):
            key = member_key(about(number)["id"])
            for name, stretches in sample(number).items():
                for stretch in stretches:
                    writer.add(key, name, stretch)
            if number == 1:
                writer.drop()
            else:
                writer.finish(key, about(number))
    first, second = [entry for file in files(path) for entry in index(file)]
    check(first, 0)
    check(second, 2)


def test_a_second_writer_is_refused_while_the_first_writes(path: Path) -> None:
    def two() -> Iterator[int]:
        yield 0
        with pytest.raises(UserError, match="another run is writing to it"):
            write(path, range(3))
        yield 1

    write(path, two())
    assert sum(len(index(file)) for file in files(path)) == 2


def test_nothing_prepared_leaves_nothing(path: Path) -> None:
    write(path, range(0))
    assert list(path.parent.iterdir()) == []


def test_an_hdf5_file_is_plain_datasets_for_others(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", range(5))
    with h5py.File(tmp_path / "x.h5") as file:
        clips, first = file["audio/clips"], file["audio/first"][:]
        assert clips.shape == (sum(len(stretch) for number in range(5) for stretch in sample(number)["audio"]), 1, 4, 5)
        assert clips.chunks is None
        assert clips.dtype == np.float32
        assert np.array_equal(clips[first[2] : first[3]], np.concatenate(sample(2)["audio"]))
        lines = [json.loads(line) for line in file["about/text"][:].tobytes().splitlines()]
        assert [line.pop("sums").keys() for line in lines] == [{"audio", "image"}] * 5
        assert [line.popitem()[0] for line in lines] == ["crc32"] * 5
        assert lines == [about(number) for number in range(5)]
        made = json.loads(file.attrs["made"])
        assert (made.popitem()[0], made) == ("crc32", MADE)
        assert all(file[name].id.get_offset() % 64 == 0 for name in ("audio/clips", "image/clips"))


def test_reading_by_number_reads_nothing_else(tmp_path: Path) -> None:
    """The arrays of a file are views of it: what is written there afterwards is seen."""
    write(tmp_path / "x.h5", range(3))
    entries = index(tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file["image/clips"][1] = 7.0
    prepared = entries[1].payload("image", entries[1].about())
    assert isinstance(prepared, Prepared)
    with pytest.raises(ValueError, match="damaged: image of sample 1 of .*x.h5 does not match its checksum; prepare this input again"):
        list(prepared.arrays())
    (array,) = replace(prepared, sums=None).arrays()
    assert (array == 7).all()


def test_text_and_half_precision_keep_their_numbers(tmp_path: Path) -> None:
    made = {"inputs": {"text": {}, "depth": {}}}
    tokens, depth = np.arange(154, dtype=np.int32).reshape(2, 77), np.linspace(0, 1, 6).reshape(1, 1, 2, 3).astype(np.float16)
    for name in ("x.h5", "x.tar"):
        with open_writer(str(tmp_path / name), made) as writer:
            writer.add("a", "text", tokens)
            writer.add("a", "depth", depth)
            writer.finish("a", {"id": "a", "spans": {"text": [None, None], "depth": [None]}, "notes": {}})
        (entry,) = index(tmp_path / name)
        (text,) = entry.payload("text", entry.about()).arrays()  # type: ignore[union-attr]
        (values,) = entry.payload("depth", entry.about()).arrays()  # type: ignore[union-attr]
        assert text.dtype == np.int64
        assert np.array_equal(text, tokens)
        assert values.dtype == np.float32
        assert np.array_equal(values, depth.astype(np.float32))


def damaged(path: Path, name: str) -> None:
    with h5py.File(path, "r+") as file:
        if name == "no table":
            del file["audio/first"]
        elif name == "table":
            file["audio/first"][-1] = 99
        elif name == "backwards":
            file["audio/first"][1] = file["audio/first"][2] + 1
        elif name == "compressed":
            values = file["audio/clips"][:]
            del file["audio/clips"]
            file.create_dataset("audio/clips", data=values, compression="gzip")
        elif name in ("external", "link"):
            first = file["audio/first"][:]
            del file["audio/first"]
            if name == "external":
                path.with_name("raw").write_bytes(first.tobytes())
                file.create_dataset("audio/first", first.shape, first.dtype, external=[(str(path.with_name("raw")), 0, first.nbytes)])
            else:
                with h5py.File(path.with_name("other.h5"), "w") as other:
                    other["first"] = first
                file["audio/first"] = h5py.ExternalLink(str(path.with_name("other.h5")), "first")
        elif name == "words":
            del file["image/clips"]
            file["image/clips"] = ["a"] * 3
        elif name == "fewer":
            del file["image"]
            file["image/clips"], file["image/first"] = np.zeros((1, 2)), np.array([0, 1])


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("no table", "audio/clips cannot be read"),
        ("table", "audio/clips cannot be read: first does not divide the rows among the samples"),
        ("backwards", "audio/clips cannot be read: first does not divide the rows among the samples"),
        ("compressed", "audio/clips cannot be read: float32, not contiguous"),
        ("external", "audio/clips cannot be read: dataset audio/first lies in other files"),
        ("link", "audio/clips cannot be read: dataset audio/first is a link"),
        ("words", "image/clips cannot be read"),
        ("fewer", "its modalities have different numbers of samples"),
    ],
)
def test_a_damaged_hdf5_file_is_one_line(tmp_path: Path, name: str, line: str) -> None:
    write(tmp_path / "x.h5", range(3))
    damaged(tmp_path / "x.h5", name)
    with pytest.raises(UserError, match=f"x.h5.*{line}"):
        index(tmp_path / "x.h5")
    (failure,) = from_arguments([str(tmp_path / "x.h5")], ("audio",), io.BytesIO())
    assert isinstance(failure, Failure)


def test_broken_json_of_one_sample_is_a_failure_of_that_sample(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", range(3))
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        start = file["about/first"][1]
        file["about/text"][start : start + 4] = ord("?")
    first, broken, last = from_arguments([str(tmp_path / "x.h5")], ("audio",), io.BytesIO())
    assert isinstance(broken, Failure)
    assert broken.id == "sample 1"
    assert "JSON is broken" in broken.reason
    assert isinstance(first, Item)
    assert isinstance(last, Item)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_torn_hdf5_file_is_one_line(tmp_path: Path, share: float) -> None:
    write(tmp_path / "x.h5", range(3))
    data = (tmp_path / "x.h5").read_bytes()
    (tmp_path / "x.h5").write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match="x.h5: not a readable HDF5 file"):
        index(tmp_path / "x.h5")
    (failure,) = from_arguments([str(tmp_path / "x.h5")], ("depth",), io.BytesIO())
    assert isinstance(failure, Failure)
    assert failure.reason.startswith("not a readable HDF5 file")


def test_another_hdf5_file_is_an_input_as_it_is(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "depth.h5", "w") as file:
        file["depth"] = np.ones((4, 4))
    assert list(from_arguments([str(tmp_path / "depth.h5")], ("depth",), io.BytesIO())) == [Item(*2 * [str(tmp_path / "depth.h5")])]
    with pytest.raises(UserError, match="an HDF5 file, but not of imagebind preprocess"):
        list(read_hdf5(tmp_path / "depth.h5"))
    (tmp_path / "words.txt").write_text("words")
    for name, line in (("words.txt", "neither a tar shard nor an HDF5 file"), ("none.tar", "No such file")):
        with pytest.raises(UserError, match=line):
            index(tmp_path / name)


def test_an_endless_archive_takes_no_memory(tmp_path: Path) -> None:
    """`tarfile` keeps the headers of all members it has seen."""
    write(tmp_path / "x.tar", range(6))
    with open(tmp_path / "x.tar", "rb") as file:
        entries = read_shard(file, str(tmp_path / "x.tar"))
        next(entries)
        assert len(entries.gi_frame.f_locals["archive"].members) <= 1  # type: ignore[attr-defined]


def test_headers_alone_are_read_of_a_tar_on_disk(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path / "x.tar"), MADE, 10**9) as shards:
        for number in range(8):
            shards.add(f"k{number}", "audio", np.zeros((100, 1000), np.float32))
            shards.finish(f"k{number}", {"id": f"k{number}", "spans": {"audio": [None] * 100}, "notes": {}})

    class Counted(io.FileIO):
        count = 0

        def readinto(self, buffer: Any) -> int:
            Counted.count += (read := super().readinto(buffer)) or 0
            return read or 0

    with io.BufferedReader(Counted(tmp_path / "x.tar")) as file:
        assert len(list(read_shard(file, str(tmp_path / "x.tar")))) == 8
    assert Counted.count < (tmp_path / "x.tar").stat().st_size / 10


@pytest.mark.parametrize("pattern", ["a-%s.tar", "a-%d-%d.tar", "a-%%.tar"])
def test_a_pattern_needs_one_number(pattern: str) -> None:
    with pytest.raises(UserError, match="one number such as %06d"):
        ShardWriter(pattern, {}, 1)


def test_one_tar_takes_more_and_is_as_if_written_at_once(tmp_path: Path) -> None:
    write(tmp_path / "x.tar", range(2))
    write(tmp_path / "x.tar", range(5))
    write(tmp_path / "x.tar", range(5))
    write(tmp_path / "y.tar", range(5))
    assert (tmp_path / "x.tar").read_bytes() == (tmp_path / "y.tar").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.tar", "y.tar"]


def test_one_tar_that_another_run_wrote_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    late = ShardWriter(str(tmp_path / "x.tar"), MADE, 1)
    write(tmp_path / "x.tar", range(2))
    before = (tmp_path / "x.tar").read_bytes()
    with pytest.raises(UserError, match=r"x.tar: another run has written it meanwhile"), late:
        late.add("a", "audio", np.zeros((1, 2), np.float32))
    assert (tmp_path / "x.tar").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.tar"]


@pytest.mark.parametrize("name", ["x.tar", "x-%03d.tar"])
def test_samples_that_all_broke_midway_leave_no_tar(tmp_path: Path, name: str) -> None:
    with ShardWriter(str(tmp_path / name), MADE, 1) as writer:
        writer.add("a", "audio", np.zeros((1, 2), np.float32))
        writer.drop()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    for name in ("x.h5", "x-%d.tar"):
        with pytest.raises(UserError, match="there is no folder"):
            open_writer(str(tmp_path / "none" / name), MADE)


@pytest.mark.parametrize(
    ("output", "own", "other"),
    [
        ("x-%06d.tar", ["x-000001.tar", "./x-12.tar", "x-000001.tar.partial"], ["x.tar", "x-1.tar.gz", "y/x-1.tar", "x-a.tar"]),
        ("a/x.h5", ["a/x.h5", "a/x.h5.partial/000000.tar", "b/../a/x.h5"], ["x.h5", "a/x.h5.partially", "a/xyh5"]),
        ("-", [], ["x.wav", "x-1.tar"]),
    ],
)
def test_an_output_knows_its_own_files(output: str, own: list[str], other: list[str]) -> None:
    assert all(belongs_to(path, output) for path in own)
    assert not any(belongs_to(path, output) for path in other)


def test_pickled_arrays_are_refused() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        list(Prepared([Member("x", buffer.getvalue())], [], (), {}).arrays())


def test_members_are_named_as_webdataset_names_them(tmp_path: Path) -> None:
    write(tmp_path / "x.tar", range(3))
    with tarfile.open(tmp_path / "x.tar") as archive:
        names = archive.getnames()
    key = member_key(about(2)["id"])
    assert names[0] == "__made__"
    assert [name for name in names if name.startswith(key)] == [
        f"{key}.audio.npy",
        *(f"{key}.audio.{number:04d}.npy" for number in range(1, 12)),
        f"{key}.image.npy",
        f"{key}.json",
    ]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (("a.jpg", "a.png"), "a.jpg and a.png may each be its image; keep one"),
        (("a.image.jpg", "a.jpg"), "a.image.jpg and a.jpg may each be its image; keep one"),
        (("a.jpg", "a.jpg"), "member a.jpg is in the archive twice; keep one"),
        (("a.JPG", "a.jpg"), "members a.JPG and a.jpg are the same part of it; keep one"),
    ],
)
@pytest.mark.parametrize("piped", [False, True])
def test_a_sample_with_two_pictures_fails_alone_and_both_are_named(
    tmp_path: Path, members: tuple[str, ...], words: str, piped: bool
) -> None:
    path = generate.tar(tmp_path / "x.tar", *((name, b"one picture") for name in members), ("b.jpg", b"a picture"))
    stream: Any = io.BufferedReader(io.BytesIO(path.read_bytes()))  # type: ignore[arg-type]
    broken, whole = from_arguments(["-" if piped else str(path)], ("image",), stream)
    assert broken == Failure("a", f"this sample of {'stdin' if piped else path}: {words}")
    assert whole.id == "b"


def test_a_member_that_comes_again_later_is_told(tmp_path: Path) -> None:
    path = generate.tar(tmp_path / "x.tar", ("a.jpg", b"one"), ("b.jpg", b"two"), ("a.jpg", b"another"))
    *good, broken = from_arguments([str(path)], ("image",), io.BytesIO())
    assert [item.id for item in good] == ["a", "b"]
    assert broken == Failure("a", f"this sample of {path}: member a.jpg is in the archive twice; keep one")


def test_pictures_of_two_modalities_and_a_sentence_are_one_sample(tmp_path: Path) -> None:
    path = generate.tar(tmp_path / "x.tar", ("a.jpg", b"one"), ("a.thermal.png", b"two"), ("a.txt", b"a dog"))
    (item,) = from_arguments([str(path)], ("image", "thermal", "text"), io.BytesIO())
    assert isinstance(item, Item)
    assert (item.payload["image"].read(), item.payload["thermal"].read(), item.payload["text"]) == (b"one", b"two", "a dog")


def test_what_macos_adds_to_a_tar_is_passed_over(tmp_path: Path) -> None:
    path = generate.tar(tmp_path / "x.tar", ("._a.jpg", b"its attributes"), ("a.jpg", b"one"), (".DS_Store", b"x"))
    (item,) = from_arguments([str(path)], ("image",), io.BytesIO())
    assert item.id == "a"


@pytest.mark.parametrize("name", ["x.tar", "x.h5"])
def test_a_flipped_bit_of_a_sample_is_a_finding_and_a_failure_of_that_sample(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, range(6))
    before = [[array.tobytes() for modality in ("audio", "image") for array in prepared_of(entry, modality)] for entry in index(path)]
    whole, draw = path.read_bytes(), random.Random(0)
    assert list(sample_findings(path)) == []
    for _ in range(60):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        if not (found := list(sample_findings(path))):
            after = [
                [array.tobytes() for modality in ("audio", "image") for array in prepared_of(entry, modality)] for entry in index(path)
            ]
            assert after == before
        elif "does not match its checksum" in found[0]:
            failed = [item for item in from_arguments([str(path)], ("audio",), io.BytesIO()) if isinstance(item, Failure)]
            assert (len(found), failed) == (1, [])  # it fails when its arrays are read


def prepared_of(entry: Entry, modality: str) -> list[np.ndarray]:
    """The arrays of a modality of a sample."""
    prepared = entry.payload(modality, entry.about())
    assert isinstance(prepared, Prepared)
    return list(prepared.arrays())


def test_samples_of_an_earlier_version_are_read_and_said_once() -> None:
    for name in ("prepared.tar", "prepared.h5"):
        notes: list[str] = []
        assert list(sample_findings(Path(__file__).parents[1] / "data" / "earlier" / name, notes.append)) == []
        assert notes == ["2 of 2 samples have no checksum, as of an earlier version; damage to them may go unnoticed"]
