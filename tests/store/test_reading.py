"""`open_store`: the same rows from every format, where they lie; and one clear line for what is no store, or not a whole one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from imagebind_cli.errors import UserError
from imagebind_cli.store import FORMATS, STAMP, Row, Stamp, Store, id_hash, is_store, open_store, source
from imagebind_cli.store.folder import writer as folder_writer
from imagebind_cli.store.writer import StoredIds
from imagebind_cli.store_formats import StoreFormat
from tests import generate

DIM = 8
MADE = {"model": "m", "weights": "0123", "modality": "audio", "dim": DIM, "pool": "none", "scale": 20.0, "version": "1"}
ODD_IDS = ["plain.wav", 'new\nline, "embedding": [1].wav', os.fsdecode(b"caf\xe9.wav"), "🐕"]


def vectors(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors (count, DIM)."""
    rows = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write(path: Path, rows: list[Row], **made: Any) -> Path:
    with Store(path, MADE | made) as store:
        for row in rows:
            store.append([row])
    return path


def rows(count: int) -> list[Row]:
    return [Row(f"{number}.wav", vector, stamp=Stamp(number, 7)) for number, vector in enumerate(vectors(count))]


@pytest.fixture(params=list(FORMATS))
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A store's path, once for every format."""
    return tmp_path / f"store{request.param}"


def test_a_reader_gives_back_all_that_was_written(path: Path) -> None:
    written = [
        replace(row, id=id, span=span, meta=meta, stamp=stamp)
        for row, id, span, meta, stamp in zip(
            rows(4),
            ODD_IDS,
            [(0.0, 2.0), None, (1.5, 3.5), None],
            [{}, {"label": "dog", "n": [1, None]}, {}, {"caption": "日本"}],
            [Stamp(5, 6), Stamp(hash=bytes(range(16))), Stamp(), Stamp(1 << 40, 1_700_000_000_123_456_789, b"\1" * 16)],
            strict=True,
        )
    ]
    reader = open_store(write(path, written))
    assert (len(reader), reader.modality, reader.dim, reader.replaced) == (4, "audio", DIM, 0)
    assert reader.provenance["scale"] == 20.0
    assert reader.ids == ODD_IDS
    assert [reader.id(2), reader.id(3)] == ODD_IDS[2:]
    assert reader.spans is not None
    assert np.isnan(reader.spans).tolist() == [[False] * 2, [True] * 2, [False] * 2, [True] * 2]
    assert reader.spans[2].tolist() == [1.5, 3.5]
    assert [reader.meta(row) for row in range(4)] == [dict(row.meta) for row in written]
    assert reader.stamps["key"].tolist() == [id_hash(id) for id in ODD_IDS]
    assert [int(size) for size in reader.stamps["size"]] == [5, -1, -1, 1 << 40]
    assert int(reader.stamps["mtime"][3]) == 1_700_000_000_123_456_789
    assert reader.stamps["hash"][3].tobytes() == b"\1" * 16
    assert reader.vectors().tobytes() == np.concatenate(list(reader.blocks())).tobytes() == vectors(4).tobytes()
    assert reader.rows([3, 0, 3]).tobytes() == vectors(4)[[3, 0, 3]].tobytes()
    assert reader.rows([]).shape == (0, DIM)
    assert list(map(vars, (row for item in reader.items() for row in [replace(item[0], vector=None)]))) == [
        vars(replace(row, vector=None)) for row in written
    ]


def test_ids_and_columns_of_single_rows_are_read_by_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening the file for each row took nearly all the time of a search with many answers."""
    reader, opened = open_store(write(tmp_path / "a.h5", [replace(row, meta={"n": row.id}) for row in rows(150)])), []
    monkeypatch.setattr(h5py, "File", lambda *given, real=h5py.File, **options: opened.append(1) or real(*given, **options))
    order = [149, 0, 63, 64, *range(150)]
    assert [(reader.id(row), reader.meta(row)) for row in order] == [(f"{row}.wav", {"n": f"{row}.wav"}) for row in order]
    assert len(opened) <= 6  # twice for each page of 64 rows
    reader.meta(3).clear()
    assert reader.meta(3) == {"n": "3.wav"}


@pytest.mark.parametrize("kind", ["external", "link"])
def test_a_store_reaches_into_no_other_file(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a.h5", rows(3))
    with h5py.File(path, "r+") as file:
        spans = file["spans"][:]
        del file["spans"]
        if kind == "external":
            (tmp_path / "raw").write_bytes(spans.tobytes())
            file.create_dataset("spans", spans.shape, spans.dtype, external=[(str(tmp_path / "raw"), 0, spans.nbytes)])
        else:
            with h5py.File(tmp_path / "other.h5", "w") as other:
                other["spans"] = spans
            file["spans"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "spans")
    with pytest.raises(UserError, match="its spans is in another file"):
        open_store(path).ids  # noqa: B018
    with pytest.raises(UserError, match="its spans is in another file"):
        write(path, rows(3))


def test_a_store_without_windows_has_no_spans_and_one_of_nothing_has_no_rows(path: Path) -> None:
    assert open_store(write(path, rows(3))).spans is None
    nothing = open_store(write(path.with_name(f"none{path.suffix}"), []))
    assert (len(nothing), nothing.ids, nothing.spans, list(nothing.blocks()), list(nothing.items())) == (0, [], None, [], [])
    assert nothing.vectors().shape == (0, DIM)


@pytest.mark.parametrize("array", ["float32", "float16"])
def test_blocks_are_views_of_the_file_where_the_format_allows_it(path: Path, array: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "BLOCK_ROWS", 1000)
    reader = open_store(write(path, rows(2500), array=array))
    blocks = list(reader.blocks())
    assert np.concatenate(blocks).tobytes() == vectors(2500).astype(array).tobytes() or path.suffix == ".jsonl"
    assert reader.vectors() == pytest.approx(vectors(2500).astype(array).astype(np.float32), abs=0)
    assert len(blocks) > 2 or path.suffix != ".npy"
    if path.suffix != ".jsonl":
        assert {str(block.dtype) for block in blocks} == {array}
        assert not any(block.flags.owndata or block.flags.writeable for block in blocks)
        assert all(block.flags.aligned and block.flags.c_contiguous for block in blocks)
    assert reader.rows([2400, 1, 1024]) == pytest.approx(reader.vectors()[[2400, 1, 1024]], abs=0)


def test_replaced_rows_are_out_of_sight_everywhere(path: Path) -> None:
    written = rows(6)
    write(path, [*written[:2], replace(written[2], span=(0.0, 1.0)), *written[3:]])
    again = [
        Row(f"{number}.wav", vector, meta={"again": number}, stamp=Stamp(9, 9))
        for number, vector in zip((1, 4), vectors(2, 1), strict=True)
    ]
    write(path, again)
    reader = open_store(path)
    assert reader.replaced == (2 if FORMATS[path.suffix].grows else 0)
    assert reader.ids == ["0.wav", "2.wav", "3.wav", "5.wav", "1.wav", "4.wav"]
    assert [reader.id(row) for row in range(6)] == reader.ids
    wanted = np.concatenate([vectors(6)[[0, 2, 3, 5]], vectors(2, 1)])
    assert reader.vectors().tobytes() == reader.rows(range(6)).tobytes() == wanted.tobytes()
    assert [reader.meta(row) for row in (0, 4, 5)] == [{}, {"again": 1}, {"again": 4}]
    assert reader.spans is not None
    assert reader.spans[1].tolist() == [0, 1]
    assert reader.stamps["size"].tolist() == [0, 2, 3, 5, 9, 9]
    assert [item[0].id for item in reader.items()] == reader.ids
    with Store(path, MADE) as store:
        assert store.stored == 6
        assert store.stamp("1.wav") == Stamp(9, 9)


def test_a_folder_of_many_parts_is_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_writer, "PART_BYTES", 7 * 4 * DIM)  # seven rows
    path = tmp_path / "a.store"
    for start in (0, 5, 14, 15, 40):  # in the middle of a part, at its end, over several
        write(path, rows(60)[start : {0: 5, 5: 14, 14: 15, 15: 40, 40: 60}[start]])
    assert len(list(path.glob("vectors-*.npy"))) == 9
    reader = open_store(path)
    assert reader.ids == [row.id for row in rows(60)]
    assert reader.vectors().tobytes() == vectors(60).tobytes()
    assert reader.rows([59, 0, 6, 7]).tobytes() == vectors(60)[[59, 0, 6, 7]].tobytes()
    assert [reader.id(row) for row in (0, 6, 7, 59)] == ["0.wav", "6.wav", "7.wav", "59.wav"]
    assert reader.stamps["size"].tolist() == list(range(60))
    everybody = [np.load(part) for part in sorted(path.glob("vectors-*.npy"))]
    assert np.concatenate(everybody).tobytes() == vectors(60).tobytes()
    lines = [json.loads(line)["id"] for part in sorted(path.glob("rows-*.jsonl")) for line in part.read_text().splitlines()]
    assert lines == reader.ids


# What is no store


def test_every_store_is_told_from_inputs_by_its_content(path: Path, tmp_path: Path) -> None:
    write(path, rows(2))
    assert is_store(path)
    np.save(tmp_path / "plain.npy", vectors(2))
    generate.depth(tmp_path / "depth.npy")
    with h5py.File(tmp_path / "depth.h5", "w") as file:
        file["depth"] = np.ones((4, 4))
    (tmp_path / "manifest.jsonl").write_text('{"id": "a", "image": "a.png"}\n')
    (tmp_path / "empty.h5").touch()
    (tmp_path / "folder").mkdir()
    generate.picture(tmp_path / "a.png")
    for name in ("plain.npy", "depth.npy", "depth.h5", "manifest.jsonl", "empty.h5", "folder", "a.png", "none"):
        assert not is_store(tmp_path / name), name
        with pytest.raises(UserError, match=f"^{tmp_path / name}: (not a store of imagebind embed|no such store)$"):
            open_store(tmp_path / name)


def test_lines_from_stdout_lack_what_made_them(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "a", "modality": "audio", "embedding": [1, 0]}\n')
    with pytest.raises(UserError, match=r"a\.jsonl: not a complete store: there is no a\.made\.json beside it"):
        open_store(tmp_path / "a.jsonl")


def cuts(size: int) -> Iterator[int]:
    """Lengths that a file may be cut to."""
    yield from sorted({0, 1, 7, size // 7, size // 3, size // 2, size * 3 // 4, size - 4097, size - 100, size - 1} & set(range(size)))


def files(path: Path) -> list[Path]:
    """The files that a store is."""
    return sorted(path.iterdir()) if path.is_dir() else [file for file in path.parent.iterdir() if file.suffix in (path.suffix, ".jsonl")]


@pytest.mark.parametrize("ending", [".h5", ".safetensors", ".store"])
def test_a_store_that_was_cut_short_is_told_in_one_line(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"store{ending}", [*rows(3000)])
    for file in files(path):
        whole = file.read_bytes()
        for length in cuts(len(whole)):
            file.write_bytes(whole[:length])
            if file.name == "commits":
                assert len(open_store(path)) in (0, 1024, 2048, 3000)  # an earlier commit, or none
            elif file.name != "replaced-00000.npy" and whole[length:] != b"\n":
                with pytest.raises(UserError) as error:
                    open_store(path)
                assert str(error.value).startswith(f"{path}: not a ")
                assert "\n" not in str(error.value)
        file.write_bytes(whole)
    assert len(open_store(path)) == 3000


@pytest.mark.parametrize("ending", [".jsonl", ".npy"])
def test_a_plain_store_that_was_cut_short_has_its_first_rows_or_is_told(tmp_path: Path, ending: str) -> None:
    path, told = write(tmp_path / f"store{ending}", rows(300)), []
    for file in files(path):
        whole = file.read_bytes()
        for length in cuts(len(whole)):
            file.write_bytes(whole[:length])
            try:
                reader = open_store(path)
                assert reader.ids == [row.id for row in rows(300)][: len(reader)]
                assert reader.vectors().tobytes() == vectors(300)[: len(reader)].tobytes()
            except UserError as error:
                told.append(str(error))
        file.write_bytes(whole)
    assert [line for line in told if "\n" in line] == []


def test_broken_bytes_anywhere_end_in_a_line_or_in_numbers(path: Path) -> None:
    write(path, [replace(row, meta={"a": 1}, span=(0.0, 1.0)) for row in rows(40)])
    told, random = [], np.random.default_rng(0)
    for file in files(path):
        whole = file.read_bytes()
        used = np.flatnonzero(np.frombuffer(whole, np.uint8))
        for place in random.choice(used, 50 if len(used) else 0):
            data = bytearray(whole)
            data[place] ^= 1 << random.integers(8)
            file.write_bytes(data)
            try:
                reader = open_store(path)
                assert len(reader.ids) == len(reader.stamps) == len(reader) == sum(map(len, reader.blocks()))
                assert all(isinstance(reader.meta(row), dict) for row in range(len(reader)))
            except UserError as error:
                told.append(str(error))
        file.write_bytes(whole)
    assert len(told) > 10
    assert [line for line in told if "\n" in line] == []


# Several


def test_a_pattern_names_one_store_of_several(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"part-{number}.h5", [replace(row, id=f"{number}/{row.id}") for row in rows(5)])
    write(tmp_path / "part-1.h5", [Row("1/3.wav", vectors(1, 5)[0], stamp=Stamp(99, 99))])
    reader = open_store(tmp_path / "part-*.h5")
    assert len(reader) == 15
    assert reader.ids[5:10] == ["1/0.wav", "1/1.wav", "1/2.wav", "1/4.wav", "1/3.wav"]
    assert reader.rows([9, 14]).tobytes() == np.concatenate([vectors(1, 5), vectors(5)[4:]]).tobytes()
    assert reader.vectors()[9].tobytes() == vectors(1, 5).tobytes()
    assert reader.id(9) == "1/3.wav"
    assert [path.name for path in reader.paths] == ["part-0.h5", "part-1.h5", "part-2.h5"]
    with pytest.raises(UserError, match=r"no store matches this pattern$"):
        open_store(tmp_path / "none-*.h5")


def test_a_pattern_over_two_models_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", rows(1))
    write(tmp_path / "b.h5", rows(1), weights="9")
    with pytest.raises(UserError, match=rf"b\.h5: made with weights '9', {tmp_path}/a\.h5 with '0123'; they cannot be one store$"):
        open_store(tmp_path / "*.h5")


# Formats


def test_a_format_that_would_take_every_file_is_refused() -> None:
    for start in (b"", None):
        with pytest.raises(ValueError, match="without `start` needs `recognise`"):
            StoreFormat("lines", "JSONLinesWriter", "open_lines", start=start)


@pytest.mark.parametrize("ending", FORMATS)
def test_a_format_that_begins_alike_leaves_the_stores_of_others_alone(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked first, and does not recognise them."""
    store, other = write(tmp_path / f"a{ending}", rows(1)), tmp_path / "other.txt"
    other.write_text("PAR1")
    chooses = ("lines", "is_described") if FORMATS[ending].folder else ("folder", "is_folder_store")
    alike = replace(FORMATS[ending], module=chooses[0], recognise=chooses[1])
    monkeypatch.setattr("imagebind_cli.store.reader.FORMATS", FORMATS | {".new": alike})
    assert open_store(store).ids == ["0.wav"]
    assert not is_store(other)


def test_json_in_a_file_of_another_format_makes_it_no_store(tmp_path: Path) -> None:
    path = tmp_path / "table.bin"
    path.write_bytes(b'PAR1 {"id": "a", "embedding": [1, 2]}')
    assert not is_store(path)
    path.write_bytes(b'{"id": "a", "embedding": [1, 2]}\n')
    assert is_store(path)


# Lookup


def test_finished_finds_every_id_in_any_order_and_no_other() -> None:
    random = np.random.default_rng(0)
    ids = [f"id {number}" for number in range(5000)]
    stamps = np.array([(id_hash(id), number, number * 2, bytes(16)) for number, id in enumerate(ids)], STAMP)
    hidden = np.sort(random.choice(5000, 500, replace=False))
    finished = StoredIds(stamps, hidden)
    assert len(finished) == 4500
    for row in [*range(100), *random.permutation(5000)]:
        wanted = None if row in hidden else Stamp(row, row * 2)
        assert finished.stamp(ids[row]) == wanted
        assert finished.rows(ids[row]) == ([] if wanted is None else [row])
    assert finished.stamp("another") is None
    assert StoredIds(stamps[:0], hidden[:0]).stamp("a") is None
    windows = StoredIds(np.concatenate([stamps[:3], stamps[1:2]]), np.empty(0, np.int64))
    assert windows.rows("id 1") == [1, 3]


@pytest.mark.parametrize(
    ("before", "now", "same", "same_content"),
    [
        (Stamp(1, 2), Stamp(1, 2), True, False),
        (Stamp(1, 2), Stamp(1, 3), False, False),
        (Stamp(1, 2), Stamp(2, 2), False, False),
        (Stamp(1, 2, b"x" * 16), Stamp(1, 3, b"x" * 16), True, True),
        (Stamp(1, 2, b"x" * 16), Stamp(1, 2, b"y" * 16), False, False),
        (Stamp(hash=b"x" * 16), Stamp(hash=b"x" * 16), True, True),
        (Stamp(), Stamp(1, 2), True, False),
        (Stamp(1, 2), Stamp(), True, False),
    ],
)
def test_stamps_tell_whether_an_input_is_the_same(before: Stamp, now: Stamp, same: bool, same_content: bool) -> None:
    assert (now.is_of(before), now.is_of(before, by_content=True)) == (same, same_content)


def test_reading_needs_no_torch_and_a_folder_no_hdf5(tmp_path: Path) -> None:
    for ending in FORMATS:
        path = write(tmp_path / f"{ending[1:]}{ending}", rows(2))
        code = f"import sys; from imagebind_cli.store import open_store; open_store({str(path)!r}).vectors(); print(*sys.modules)"
        modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        assert "torch" not in modules
        assert ("h5py" in modules) == (ending == ".h5")
