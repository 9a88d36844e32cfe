"""Stores: what is written is what is read, with each format's own library; broken ends heal; mixed origins are refused."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebind_cli.errors import UserError
from imagebind_cli.sources import names_store
from imagebind_cli.store import FORMATS, Row, Store, json_line, open_store, writer
from imagebind_cli.store.maintenance import compact
from imagebind_cli.store.row import stored_line
from imagebind_cli.store_formats import GROWING
from tests.stores import read_plainly

DIM = 5
MADE = {"model": "m", "weights": "0123", "modality": "audio", "dim": DIM, "pool": "none", "options": {"clips": None}} | {
    "array": "float32",
    "version": "1",
}
ODD_IDS = ["plain.wav", "with spaces and 'quotes\".wav", "new\nline.wav", os.fsdecode(b"caf\xe9.wav"), "日本.wav", "🐕"]


def embeddings(*ids: str, span: tuple[float, float] | None = None, seed: int = 0) -> list[Row]:
    """Unit vectors that differ in every bit, another for each id."""
    rows = np.random.default_rng([seed, *map(ord, "".join(ids))]).standard_normal((len(ids), DIM)).astype(np.float32)
    return [Row(id, row / np.linalg.norm(row), span) for id, row in zip(ids, rows, strict=True)]


def write(path: Path, rows: Iterable[Row], made: dict[str, Any] | None = None) -> None:
    with Store(path, made or MADE) as store:
        for row in rows:
            store.append([row])


def held(store: Store, ids: Iterable[str]) -> set[str]:
    """Which of some ids an opened store has."""
    return {id for id in ids if store.stamp(id) is not None}


@pytest.fixture(params=list(FORMATS))
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A store's path, once for every format."""
    return tmp_path / f"store{request.param}"


def test_a_store_gives_back_ids_vectors_spans_and_origin(path: Path) -> None:
    rows = [*embeddings(*ODD_IDS, span=(0.5, 2.5)), *embeddings("whole.wav")]
    write(path, rows)
    ids, vectors, spans, made = read_plainly(path)
    assert ids == [row.id for row in rows]
    assert vectors.dtype == np.float32
    assert vectors.tobytes() == np.stack([row.vector for row in rows]).tobytes()
    assert spans == [row.span for row in rows]
    assert made == MADE | {"assumptions": []}


def test_a_store_of_nothing_is_whole(path: Path) -> None:
    write(path, [])
    ids, vectors, _, made = read_plainly(path)
    assert ids == []
    assert vectors.size == 0
    assert made["model"] == "m"


def test_an_opened_store_knows_its_ids_and_goes_on_behind_them(path: Path) -> None:
    first, second = embeddings(*ODD_IDS), embeddings("more.wav", "last.wav")
    write(path, first)
    with Store(path, MADE) as store:
        assert held(store, [*ODD_IDS, "more.wav"]) == set(ODD_IDS)
        store.append(second)
    ids, vectors, _, _ = read_plainly(path)
    assert ids == [row.id for row in first + second]
    assert vectors.tobytes() == np.stack([row.vector for row in first + second]).tobytes()


def test_opening_a_store_and_adding_nothing_changes_no_row(path: Path) -> None:
    write(path, embeddings("a", "b", span=(0.0, 2.0)))
    before = read_plainly(path)
    write(path, [])
    after = read_plainly(path)
    assert after[0] == before[0]
    assert after[1].tobytes() == before[1].tobytes()
    assert after[2:] == before[2:]


def test_assumptions_are_recorded_once_and_kept_by_the_next_run(path: Path) -> None:
    (row,) = embeddings("a")
    for rows in ([("a", ("first", "second")), ("b", ("first",))], [("c", ("second", "third"))]):
        with Store(path, MADE) as store:
            for id, notes in rows:
                store.append([Row(id, row.vector)], notes)
    assert read_plainly(path)[3]["assumptions"] == ["first", "second", "third"]


def test_assumptions_that_differ_for_every_input_stay_few(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_ASSUMPTIONS", 3)
    for ids in (["a", "b"], ["c", "d", "e"], ["f"]):
        with Store(path, MADE) as store:
            for row in embeddings(*ids):
                store.append([row], [f"{row.id}: 7 pixels"])
    assert read_plainly(path)[3]["assumptions"] == ["a: 7 pixels", "b: 7 pixels", "c: 7 pixels", writer.FURTHER_ASSUMPTIONS]


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder."""
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("key", "value", "differ"),
    [
        ("model", "other", "model 'm'; this run has 'other'"),
        ("weights", "9", "weights '0123'; this run has '9'"),
        ("modality", "image", "modality 'audio'; this run has 'image'"),
        ("pool", "mean", "pool 'none'; this run has 'mean'"),
        ("options", {"clips": 3}, "no --clips; this run has --clips 3"),
        ("options", {"clips": None, "channels": "mix"}, "--channels first; this run has mix"),
    ],
)
def test_a_store_made_otherwise_is_refused_and_stays_as_it_is(path: Path, key: str, value: object, differ: str) -> None:
    write(path, embeddings("a", "b"))
    before = contents(path.parent)
    with pytest.raises(UserError, match=f"^{path}: made with {differ}; write to another file$"):
        Store(path, MADE | {key: value})
    assert contents(path.parent) == before


def test_a_store_with_a_fingerprint_of_the_first_rule_is_said_to_be_of_an_earlier_version(path: Path) -> None:
    earlier = MADE | {"weights": "6c1118d0146878b3"}
    write(path, embeddings("a"), earlier)
    before = contents(path.parent)
    with pytest.raises(
        UserError, match=rf"^{path}: made by an earlier version of imagebind, .*; embed the inputs again, into another file$"
    ):
        Store(path, MADE | {"weights": "2:b7344562238c2094"})
    assert contents(path.parent) == before
    write(path, embeddings("b"), earlier)  # nothing stands in the way of two of that version
    assert read_plainly(path)[0] == ["a", "b"]


@pytest.mark.parametrize("change", [{"version": "2"}, {"licence": "CC BY-NC 4.0, the paper's"}, {"folder": "/elsewhere"}])
def test_a_run_may_go_on_that_differs_in_what_changes_no_vector(path: Path, change: dict[str, str]) -> None:
    write(path, embeddings("a"), MADE | {"licence": "CC-BY-NC-4.0"})
    write(path, embeddings("b"), MADE | change)
    assert read_plainly(path)[0] == ["a", "b"]


def test_a_foreign_file_is_refused_and_stays_as_it_is(path: Path) -> None:
    path.write_bytes(b"somebody's own data\n")
    with pytest.raises(UserError, match=f"^{path}: [^\n]+$"):
        Store(path, MADE)
    assert path.read_bytes() == b"somebody's own data\n"


def test_a_foreign_npy_file_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, DIM), np.float32))
    with pytest.raises(UserError, match="was not made by imagebind embed"):
        Store(tmp_path / "a.npy", MADE)
    assert np.load(tmp_path / "a.npy").shape == (3, DIM)


def test_two_formats_of_one_name_do_not_harm_each_other(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", embeddings("one", "two"))
    before = (tmp_path / "a.jsonl").read_bytes()
    try:
        write(tmp_path / "a.npy", embeddings("one", "two"))
    except UserError:
        assert not (tmp_path / "a.npy").exists()
    assert (tmp_path / "a.jsonl").read_bytes() == before


def test_a_line_makes_a_format_that_every_command_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, ".bin", replace(FORMATS[".safetensors"], rewritable=False))
    path = tmp_path / "a.bin"
    write(path, embeddings("a"))
    assert open_store(path).ids == ["a"]
    assert names_store(path)  # so that a folder's store is not read as an input
    with pytest.raises(UserError, match="two files cannot be replaced at once"):
        compact(path)


def test_an_unknown_ending_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"unknown ending '\.csv'; choose from {re.escape(', '.join(FORMATS))}"):
        Store(tmp_path / "a.csv", MADE)


def test_a_missing_folder_is_named(path: Path) -> None:
    with pytest.raises(UserError, match=f"there is no folder {path.parent / 'none'}"):
        Store(path.parent / "none" / path.name, MADE)


def test_a_folder_of_the_stores_name_is_refused(path: Path) -> None:
    path.mkdir()
    (path / "mine").touch()
    with pytest.raises(UserError, match=f"^{path}: "):
        Store(path, MADE)


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_torn_last_line_is_cut_off_and_its_item_done_again(tmp_path: Path, kept: int) -> None:
    path, rows = tmp_path / "a.jsonl", embeddings("a", "b", "c")
    write(path, rows)
    head, last = path.read_bytes().splitlines(keepends=True)[:2], stored_line(rows[2], "audio")
    path.write_bytes(b"".join(head) + last[:kept])
    with Store(path, MADE) as store:
        assert held(store, "abc") == {"a", "b"}
        store.append(rows[2:])
    assert path.read_bytes() == b"".join(head) + last


def npy_parts(folder: Path) -> tuple[Path, Path, list[Row]]:
    rows = embeddings("a", "b", "c")
    write(folder / "a.npy", rows)
    return folder / "a.npy", folder / "a.jsonl", rows


@pytest.mark.parametrize("lost", [1, 4 * DIM - 1, 4 * DIM, 4 * DIM + 1])
def test_a_torn_last_row_is_cut_off_and_its_item_done_again(tmp_path: Path, lost: int) -> None:
    path, _, rows = npy_parts(tmp_path)
    os.truncate(path, path.stat().st_size - lost)
    whole = 3 - -(-lost // (4 * DIM))
    with Store(path, MADE) as store:
        assert held(store, "abc") == {row.id for row in rows[:whole]}
        store.append(rows[whole:])
    ids, vectors, _, _ = read_plainly(path)
    assert ids == ["a", "b", "c"]
    assert vectors.tobytes() == np.stack([row.vector for row in rows]).tobytes()


@pytest.mark.parametrize("lost", [1, 5, 11, 12])
def test_a_row_without_its_whole_id_is_cut_off_and_its_item_done_again(tmp_path: Path, lost: int) -> None:
    path, ids_path, rows = npy_parts(tmp_path)
    os.truncate(ids_path, ids_path.stat().st_size - lost)
    with Store(path, MADE) as store:
        assert held(store, "abc") == {"a", "b"}
        store.append(rows[2:])
    ids, vectors, _, _ = read_plainly(path)
    assert ids == ["a", "b", "c"]
    assert vectors.tobytes() == np.stack([row.vector for row in rows]).tobytes()


def test_a_header_that_was_not_written_yet_is_healed(tmp_path: Path) -> None:
    path, ids_path, rows = npy_parts(tmp_path)
    os.truncate(path, 10)
    os.truncate(ids_path, 0)
    with Store(path, MADE) as store:
        assert store.stored == 0
        store.append(rows)
    assert np.load(path).shape == (3, DIM)


@pytest.mark.parametrize("ending", [".jsonl", ".npy"])
def test_an_item_of_which_only_some_windows_were_written_is_done_again(tmp_path: Path, ending: str) -> None:
    path, windows = tmp_path / f"a{ending}", [*embeddings("long", span=(0.0, 2.0)), *embeddings("long", span=(2.0, 4.0), seed=1)]
    windows = [replace(row, windows=2) for row in windows]
    write(path, [*embeddings("before", span=(0.0, 2.0)), *windows])
    os.truncate(path, path.stat().st_size - 1)  # killed while the second window was on its way
    with Store(path, MADE) as store:
        assert held(store, ["before", "long"]) == {"before"}
        store.append(windows)
    assert read_plainly(path)[0] == ["before", "long", "long"]


@pytest.mark.parametrize("ending", GROWING)
def test_rows_reach_the_disk_while_the_store_is_open(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, rows = tmp_path / f"a{ending}", embeddings(*map(str, range(writer.FLUSH_ROWS + 3)))
    monkeypatch.setattr(writer, "FLUSH_SECONDS", 3600)  # a machine may take long over so many rows
    with Store(path, MADE) as store:
        for row in rows[:-3]:
            store.append([row])
        assert len(open_store(path)) == writer.FLUSH_ROWS  # by their number
    monkeypatch.setattr(writer, "FLUSH_SECONDS", 0.2)
    with Store(path, MADE) as store:
        for row in rows[-3:]:
            store.append([row])
        deadline = time.monotonic() + 10
        while len(open_store(path)) < len(rows):  # by time, with nobody calling
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_an_error_inside_leaves_a_whole_store_with_what_was_done(path: Path) -> None:
    def fails() -> None:
        with Store(path, MADE) as store:
            store.append(embeddings("a"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert read_plainly(path)[0] == ["a"]


class Ended(BaseException):
    """What a signal raises, as `imagebind` does on SIGTERM."""


def end(signum: int, frame: object) -> None:
    raise Ended


def interrupted(path: Path, seconds: float) -> None:
    """Write numbered rows, each with its number in its vector, until a SIGTERM comes after so many seconds."""
    own = signal.signal(signal.SIGTERM, end)
    timer = threading.Timer(seconds, signal.pthread_kill, (threading.get_ident(), signal.SIGTERM))
    try:
        with suppress(Ended):
            with Store(path, MADE) as store:
                timer.start()
                for number in range(200_000):
                    store.append([Row(str(number), np.full(DIM, number, np.float32))])
            timer.join()
    finally:
        signal.signal(signal.SIGTERM, own)


def test_a_signal_at_any_moment_of_writing_repeats_and_shifts_no_row(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for trial in range(60):
        path = tmp_path / f"{trial}{GROWING[trial % len(GROWING)]}"
        interrupted(path, random.uniform(0.002, 0.04))
        last = Row("last", np.full(DIM, -1, np.float32))
        write(path, [last])
        ids, vectors, _, _ = read_plainly(path)
        assert ids == [*map(str, range(len(ids) - 1)), "last"]
        assert vectors[:, 0].tolist() == [*range(len(ids) - 1), -1]


def test_no_files_are_left_behind(path: Path) -> None:
    write(path, embeddings("a"))
    assert set(path.parent.iterdir()) == set(FORMATS[path.suffix].files(path))
    if path.is_dir():
        parts = {"vectors-00000.npy", "rows-00000.jsonl", "index-00000.npy", "sums-00000.npy", "replaced-00000.npy"}
        assert {file.name for file in path.iterdir()} == parts | {"made.json", "commits"}


def test_the_digits_of_a_json_line_give_the_same_float_back() -> None:
    edges = [1e-38, -1e-45, 0.0, 1 / 3, 0.1, np.nextafter(np.float32(1), np.float32(0)), 3.4e38]
    random = np.random.default_rng(0).integers(0, 2**32, 2000, dtype=np.uint32).view(np.float32)
    vector = np.concatenate([np.array(edges, np.float32), random[np.isfinite(random)]])
    line = json.loads(json_line(Row("a", vector, (0.0, 2.0)), "audio"))
    assert np.array(line.pop("embedding"), np.float32).tobytes() == vector.tobytes()
    assert line == {"id": "a", "modality": "audio", "start": 0.0, "end": 2.0, "windows": 1}
