"""`imagebind store`: what is in a store, several as one, other programs' forms, tidying, and a check that finds what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from safetensors import safe_open

from imagebind_cli.store import FORMATS, STAMP, Row, Stamp, Store, open_store
from imagebind_cli.store import parquet as parquet_export
from imagebind_cli.store.row import stamp_record
from tests.conftest import PROGRAM, Run
from tests.later import Later
from tests.stores import without_checksums

parquet = Later("pyarrow.parquet")
DIM = 8
REWRITABLE = [ending for ending, format in FORMATS.items() if format.rewritable]
MADE = {
    "model": "m",
    "weights": "0123",
    "modality": "image",
    "dim": DIM,
    "pool": "mean",
    "scale": 1.0,
    "options": {"crops": "3"},
    "version": "1",
}


def vector(number: int) -> np.ndarray:
    """A unit vector (DIM,), another for each number."""
    row = np.random.default_rng(number).standard_normal(DIM).astype(np.float32)
    return row / np.linalg.norm(row)


def row(number: int, version: int = 0, **more: Any) -> Row:
    return Row(f"{number}.png", vector(number + 1000 * version), stamp=Stamp(number, version), **more)


def write(path: Path, *rows: Row, **made: Any) -> Path:
    with Store(path, MADE | made) as store:
        store.assume(["a note"])
        for each in rows:
            store.append([each])
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# info


@pytest.mark.parametrize("ending", list(FORMATS))
def test_info_tells_what_there_is_and_how_it_was_made(imagebind: Run, folder: Path, ending: str) -> None:
    windows = [replace(row(3), span=(float(start), start + 2.0), windows=2) for start in (0, 1)]
    with Store(Path(f"s{ending}"), MADE) as store:
        for item in ([row(1)], [row(2)], windows):
            store.append(item)
    write(Path(f"s{ending}"), row(1, version=1))
    run = imagebind("store", "info", f"s{ending}", "--json")
    assert (run.code, run.err) == (0, "")
    (about,) = run.rows
    size = about.pop("bytes")
    assert 0 < size < 500_000
    assert about == {
        "store": f"s{ending}",
        "rows": 4,
        "items": 3,
        "replaced": int(FORMATS[ending].grows),
        "array": "float32",
        "windows": True,
        "made": MADE | {"assumptions": ["a note"]},
    }
    table = imagebind("store", "info", f"s{ending}").out.decode()
    assert [line.split()[1] for line in table.splitlines() if line.startswith(("rows", "model", "weights"))] == ["4", "m", "0123"]


def test_info_of_a_pattern_adds_up_and_of_several_tells_each(imagebind: Run, folder: Path) -> None:
    write(Path("a-1.h5"), row(1))
    write(Path("a-2.h5"), row(2), row(3))
    assert imagebind("store", "info", "a-*.h5", "--json").rows[0]["rows"] == 3
    assert [about["rows"] for about in imagebind("store", "info", "a-1.h5", "a-2.h5", "--json").rows] == [1, 2]
    refused = imagebind("store", "info", "none.h5")
    assert (refused.code, refused.err) == (1, "imagebind: none.h5: no such store\n")


# merge


def test_merge_joins_what_was_made_alike_and_adds_only_what_is_new(imagebind: Run, folder: Path) -> None:
    write(Path("a-1.h5"), row(1), row(2, meta={"label": "dog"}))
    write(Path("a-2.h5"), row(3), row(4))
    first = imagebind("store", "merge", "a-1.h5", "a-2.h5", "-o", "all.store")
    assert (first.code, first.out) == (0, b"")
    assert "all.store: 4 added (" in first.err
    write(Path("a-2.h5"), row(3, version=1), row(5))
    again = imagebind("store", "merge", "a-*.h5", "-o", "all.store")
    assert "all.store: 2 added, 3 there already (" in again.err
    assert "1 of them in place of older ones" in again.err
    reader = open_store("all.store")
    assert reader.ids == ["1.png", "2.png", "4.png", "3.png", "5.png"]
    assert reader.vectors().tobytes() == np.stack([vector(number) for number in (1, 2, 4, 1003, 5)]).tobytes()
    assert reader.meta(1) == {"label": "dog"}
    assert reader.provenance["assumptions"] == ["a note"]
    assert imagebind("store", "check", "all.store").code == 0


def test_merge_tells_ids_that_several_stores_have_and_keeps_the_first(imagebind: Run, folder: Path) -> None:
    write(Path("a.h5"), *(row(number) for number in range(8)))
    write(Path("b.h5"), *(row(number, version=1) for number in range(8)), row(9))
    run = imagebind("store", "merge", "a.h5", "b.h5", "-o", "c.h5")
    assert run.code == 0
    assert [line for line in run.notices if "in several of these stores; the first one's rows are kept" in line] == run.notices[:5]
    assert run.notices[5] == "imagebind: 3 more ids in several stores"
    assert open_store("c.h5").vectors().tobytes() == np.stack([vector(number) for number in (*range(8), 9)]).tobytes()


@pytest.mark.parametrize(
    ("key", "value", "its", "other"),
    [
        ("model", "other", "model 'other'", "'m'"),
        ("weights", "9", "weights '9'", "'0123'"),
        ("modality", "audio", "modality 'audio'", "'image'"),
        ("dim", 9, "dim 9", f"{DIM}"),
        ("options", {"crops": "1"}, "--crops 1", "3"),
    ],
)
def test_merge_refuses_stores_of_different_origin(imagebind: Run, folder: Path, key: str, value: object, its: str, other: str) -> None:
    write(Path("a.h5"), row(1))
    with Store(Path("b.h5"), MADE | {key: value}):
        pass
    run = imagebind("store", "merge", "a.h5", "b.h5", "-o", "c.h5")
    assert run.code == 1
    assert run.err == f"imagebind: b.h5: made with {its}, a.h5 with {other}; they cannot be one store\n"
    assert not (folder / "c.h5").exists()
    into = imagebind("store", "merge", "a.h5", "-o", "b.h5")
    assert (into.code, into.err.count("\n")) == (1, 1)
    assert f"b.h5: made with {its}; this run has {other}; write to another file" in into.err


def test_merge_says_which_store_is_of_an_earlier_version(imagebind: Run, folder: Path) -> None:
    for name, weights in (("new.h5", "2:6c1118d0146878b3"), ("old.h5", "6c1118d0146878b3")):
        with Store(Path(name), MADE | {"weights": weights}):
            pass
    for sources in (("new.h5", "old.h5"), ("old.h5", "new.h5")):
        run = imagebind("store", "merge", *sources, "-o", "c.h5")
        assert (run.code, run.err.count("\n")) == (1, 1)
        assert run.err.startswith("imagebind: old.h5: made by an earlier version of imagebind")


def test_merge_refuses_a_target_among_its_sources(imagebind: Run, folder: Path) -> None:
    write(Path("a.h5"), row(1))
    before = (folder / "a.h5").read_bytes()
    assert "leave it out" in imagebind("store", "merge", "a.h5", "-o", "a.h5").err
    assert (folder / "a.h5").read_bytes() == before


def test_merge_can_change_the_number_type(imagebind: Run, folder: Path) -> None:
    write(Path("a.h5"), row(1))
    assert imagebind("store", "merge", "a.h5", "-o", "b.h5", "--array", "float16").code == 0
    write(Path("c.h5"), row(2), array="float16")
    assert imagebind("store", "merge", "a.h5", "c.h5", "-o", "d.h5").code == 0  # each is taken as the target has it
    assert [str(next(open_store(name).blocks()).dtype) for name in ("b.h5", "d.h5")] == ["float16", "float32"]


# export


@pytest.fixture
def store(folder: Path) -> Path:
    """A store with windows, odd names and a replaced row."""
    rows = [row(1), row(2), replace(row(3, meta={"caption": "a dog"}), id=os.fsdecode(b"caf\xe9.png")), replace(row(4), span=(0.5, 2.5))]
    write(Path("s.h5"), *rows)
    return write(Path("s.h5"), row(2, version=1))


WANTED = np.stack([vector(number) for number in (1, 3, 4, 1002)])
IDS = ["1.png", os.fsdecode(b"caf\xe9.png"), "4.png", "2.png"]


def test_export_to_npy_is_what_numpy_and_faiss_take(imagebind: Run, store: Path) -> None:
    assert imagebind("store", "export", store, "-o", "out.npy").code == 0
    vectors = np.load("out.npy")
    assert (vectors.dtype, vectors.tobytes()) == (np.float32, WANTED.tobytes())
    assert [json.loads(line)["id"] for line in Path("out.jsonl").read_text().splitlines()] == IDS
    import faiss

    index = faiss.IndexFlatIP(DIM)
    index.add(vectors)
    assert index.search(WANTED, 1)[1][:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("ending", list(FORMATS))
@pytest.mark.parametrize("array", ["float32", "float16"])
def test_export_to_every_format_of_ours_and_back_loses_nothing(imagebind: Run, store: Path, ending: str, array: str) -> None:
    assert imagebind("store", "export", store, "-o", f"out{ending}", "--array", array).code == 0
    ours, theirs = open_store(store), open_store(f"out{ending}")
    assert theirs.ids == ours.ids
    assert theirs.vectors() == pytest.approx(ours.vectors().astype(array).astype(np.float32), abs=0)
    assert theirs.spans == pytest.approx(ours.spans, nan_ok=True)
    assert [theirs.meta(number) for number in range(4)] == [ours.meta(number) for number in range(4)]
    assert theirs.stamps.tobytes() == ours.stamps.tobytes()
    assert {**theirs.provenance, "array": ""} == {**ours.provenance, "array": ""}


def test_export_to_safetensors_is_read_by_its_library(imagebind: Run, store: Path) -> None:
    imagebind("store", "export", store, "-o", "out.safetensors")
    with safe_open("out.safetensors", framework="numpy") as file:
        assert file.get_tensor("embeddings").tobytes() == WANTED.tobytes()
        assert [entry["id"] for entry in json.loads(bytes(file.get_tensor("rows")))] == IDS


@pytest.mark.parametrize("array", ["float32", "float16"])
def test_export_to_parquet(imagebind: Run, store: Path, array: str) -> None:
    assert imagebind("store", "export", store, "-o", "out.parquet", "--array", array).code == 0
    table = parquet.read_table("out.parquet")
    assert table.column_names == ["id", "modality", "start", "end", "meta", "embedding"]
    assert table["id"].to_pylist() == ["1.png", "caf\\xe9.png", "4.png", "2.png"]
    assert np.stack(table["embedding"].to_numpy()).tobytes() == WANTED.astype(array).tobytes()
    assert table["start"].to_pylist() == [None, None, 0.5, None]
    assert table["meta"].to_pylist() == [None, '{"caption": "a dog"}', None, None]
    assert json.loads(table.schema.metadata[b"made"])["weights"] == "0123"


def test_export_for_clip_retrieval_has_its_folders_and_columns(imagebind: Run, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert imagebind("store", "export", store, "-o", "whole", "--clip-retrieval").code == 0
    assert sorted(str(path.relative_to("whole")) for path in Path("whole").rglob("*.*")) == [
        "img_emb/img_emb_0.npy",
        "metadata/metadata_0.parquet",
    ]
    monkeypatch.setattr(parquet_export, "PART_ROWS", 3)
    monkeypatch.setattr(parquet_export, "BLOCK_ROWS", 2)
    assert imagebind("store", "export", store, "-o", "parts", "--clip-retrieval").code == 0
    for name, count in [("whole", 1), ("parts", 2)]:
        vectors = [np.load(path) for path in sorted(Path(name).glob("img_emb/*.npy"))]
        tables = [parquet.read_table(path) for path in sorted(Path(name).glob("metadata/*.parquet"))]
        assert (len(vectors), len(tables)) == (count, count)
        assert np.concatenate(vectors).tobytes() == WANTED.tobytes()
        assert [path for table in tables for path in table["image_path"].to_pylist()] == ["1.png", "caf\\xe9.png", "4.png", "2.png"]
        assert [caption for table in tables for caption in table["caption"].to_pylist()] == [None, "a dog", None, None]
        assert [len(table) for table in tables] == [len(some) for some in vectors]


def test_sentences_are_captions_for_clip_retrieval(imagebind: Run, folder: Path) -> None:
    write(Path("t.h5"), replace(row(1), id="a dog barks"), modality="text")
    imagebind("store", "export", "t.h5", "-o", "out", "--clip-retrieval")
    assert np.load("out/text_emb/text_emb_0.npy").shape == (1, DIM)
    assert parquet.read_table("out/metadata/metadata_0.parquet")["caption"].to_pylist() == ["a dog barks"]


def test_export_overwrites_nothing_and_names_what_it_knows(imagebind: Run, store: Path) -> None:
    Path("there.npy").write_bytes(b"mine")
    assert imagebind("store", "export", store, "-o", "there.npy").err == "imagebind: there.npy: exists; name another, or remove it\n"
    assert Path("there.npy").read_bytes() == b"mine"
    unknown = imagebind("store", "export", store, "-o", "out.csv")
    assert unknown.code == 2
    assert "unknown ending '.csv'; choose from" in unknown.err
    assert ".parquet" in unknown.err


def test_parquet_without_pyarrow_is_told(imagebind: Run, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    run = imagebind("store", "export", store, "-o", "out.parquet")
    assert (run.code, run.err) == (1, "imagebind: Parquet is written by pyarrow, which is not installed: pip install pyarrow\n")


# compact


@pytest.mark.parametrize("ending", REWRITABLE)
def test_compact_drops_replaced_rows_and_nothing_else(imagebind: Run, folder: Path, ending: str) -> None:
    path = write(Path(f"s{ending}"), *(row(number, meta={"n": number}) for number in range(20)))
    write(path, *(row(number, version=1) for number in range(0, 20, 2)))
    before = open_store(path)
    wanted = (before.ids, before.vectors(), before.provenance, [before.meta(number) for number in range(20)], before.stamps.tobytes())
    run = imagebind("store", "compact", path)
    assert run.code == 0
    assert f"{0 if ending == '.safetensors' else 10} replaced rows dropped" in run.err
    after = open_store(path)
    assert (after.replaced, after.ids, after.provenance) == (0, wanted[0], wanted[2])
    assert after.vectors().tobytes() == wanted[1].tobytes()
    assert [after.meta(number) for number in range(20)] == wanted[3]
    assert after.stamps.tobytes() == wanted[4]
    assert before.vectors().tobytes() == wanted[1].tobytes()  # a reader from before goes on
    write(path, row(50))
    assert open_store(path).ids == [*wanted[0], "50.png"]
    assert imagebind("store", "check", path).code == 0
    left = {"s.made.json"} if ending == ".jsonl" else set()
    assert {each.name for each in folder.iterdir()} == {path.name} | left


def test_compact_of_a_folder_leaves_only_the_new_parts(imagebind: Run, folder: Path) -> None:
    path = write(Path("s.store"), row(1), row(2))
    write(path, row(1, version=1))
    imagebind("store", "compact", path)
    assert {each.name for each in path.iterdir()} == {
        "made.json", "commits", "vectors-00001.npy", "rows-00001.jsonl", "index-00001.npy", "sums-00001.npy", "replaced-00001.npy",
    }  # fmt: skip
    assert np.load(path / "vectors-00001.npy").shape == (2, DIM)


def test_compact_refuses_what_it_cannot_do_whole(imagebind: Run, folder: Path) -> None:
    write(Path("s.npy"), row(1))
    assert "imagebind store export" in imagebind("store", "compact", "s.npy").err
    write(Path("a-1.h5"), row(1))
    assert "no such store" in imagebind("store", "compact", "a-*.h5").err
    with Store(Path("a-1.h5"), MADE):
        assert "another run is writing to it" in imagebind("store", "compact", "a-1.h5").err


# check


@pytest.mark.parametrize("ending", list(FORMATS))
def test_a_good_store_is_clean(imagebind: Run, folder: Path, ending: str) -> None:
    windows = [replace(row(9), vector=vector(90 + start), span=(float(start), start + 2.0), windows=3) for start in (2, 0, 1)]
    with Store(Path(f"s{ending}"), MADE | {"array": "float16"}) as store:
        for item in ([row(1)], windows, [row(2)]):
            store.append(item)
    write(Path(f"s{ending}"), row(2, version=1), array="float16")
    run = imagebind("store", "check", f"s{ending}")
    assert (run.code, run.out, run.err) == (0, b"", f"imagebind: s{ending}: clean\n")


def spoil_vectors(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["embeddings"][1] *= 1.01
        file["embeddings"][3, 2] = np.nan


def spoil_ids(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["ids"][2] = "another.png"


def repeat_an_id(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["ids"][4] = "0.png"
        file["inputs"][4] = np.array(stamp_record("0.png", Stamp()), STAMP)


def repeat_a_window(path: Path) -> None:
    repeat_an_id(path)
    with h5py.File(path, "r+") as file:
        for name in ("ids", "inputs"):
            file[name][1:5] = file[name][0]
        file["spans"][:5] = [[0, 2], [1, 3], [1, 3], [5, 4], [6, 8]]


def drop_a_span(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["spans"].resize(4, axis=0)


def forget_the_model(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        made = json.loads(file.attrs["made"])
        del made["weights"]
        file.attrs["made"] = json.dumps(made)


@pytest.mark.parametrize(
    ("spoil", "findings"),
    [
        (spoil_vectors, ["row 1 ('1.png'): length 1.01, not 1", "row 3 ('3.png'): no finite number in its vector"]),
        (spoil_ids, ["row 2 ('another.png'): its hash is another id's"]),
        (repeat_an_id, ["'0.png' comes 2 times"]),
        (repeat_a_window, ["row 1 ('0.png'): its window comes 2 times", "row 3 ('0.png'): its window ends before it starts"]),
        (drop_a_span, ["not a complete store: its spans are float64 (4, 2); float64 (5, 2) is needed"]),
        (forget_the_model, ["does not say with what weights it was made"]),
    ],
)
def test_check_finds_what_is_wrong(imagebind: Run, folder: Path, spoil: Any, findings: list[str]) -> None:
    path = without_checksums(write(Path("s.h5"), *map(row, range(5))))
    spoil(path)
    run = imagebind("store", "check", "s.h5")
    assert run.code == 1
    assert run.out.decode().splitlines() == [f"s.h5: {line}" for line in findings]


def test_check_names_a_few_and_counts_the_rest(imagebind: Run, folder: Path) -> None:
    without_checksums(write(Path("s.h5"), *map(row, range(20))))
    with h5py.File("s.h5", "r+") as file:
        file["embeddings"][:12] = 0
    lines = imagebind("store", "check", "s.h5").out.decode().splitlines()
    assert len(lines) == 6
    assert lines[-1] == "s.h5: 7 more rows like these"


def test_check_finds_what_a_killed_writer_left_until_the_next_run(imagebind: Run, folder: Path) -> None:
    for ending, words in [(".jsonl", "ends in the middle of an item"), (".npy", "ends in the middle of an item")]:
        path = write(Path(f"s{ending[1:]}{ending}"), row(1), row(2))
        lines = path.with_suffix(".jsonl")
        os.truncate(lines, lines.stat().st_size - 3)
        run = imagebind("store", "check", path)
        assert run.code == 1
        assert words in run.out.decode()
        write(path, row(2))
        assert imagebind("store", "check", path).code == 0


def test_the_ids_beside_an_array_stand_for_their_store_in_a_check_and_name_it_elsewhere(imagebind: Run, folder: Path) -> None:
    write(Path("n.npy"), row(1), row(2))
    run = imagebind("store", "check", "n.jsonl")
    assert (run.code, run.out, run.notices) == (0, b"", ["imagebind: n.jsonl: clean"])
    without_checksums(Path("n.npy"))
    vectors = np.load("n.npy")
    vectors[1] *= 2
    np.save("n.npy", vectors)
    run = imagebind("store", "check", "n.jsonl")
    assert (run.code, run.out) == (1, b"n.jsonl: row 1 ('2.png'): length 2, not 1\n")
    run = imagebind("store", "info", "n.jsonl")
    assert (run.code, run.notices) == (1, ["imagebind: n.jsonl: holds only ids; open n.npy instead"])
    Path("n.npy").unlink()
    run = imagebind("store", "check", "n.jsonl")
    assert (run.code, run.out) == (1, b"n.jsonl: holds only ids; n.npy is missing\n")


# All of them


@pytest.mark.parametrize(
    "command",
    [("info", "s.h5"), ("check", "s.h5"), ("compact", "s.h5"), ("merge", "s.h5", "-o", "m.h5"), ("export", "s.h5", "-o", "e.npy")],
)
def test_stores_are_looked_after_without_torch(folder: Path, command: tuple[str, ...]) -> None:
    write(Path("s.h5"), row(1))
    code = (
        "import sys; from imagebind_cli.cli import app\ntry: app()\nexcept SystemExit as end: sys.exit(end.code or 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code, "store", *command], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_real_command_answers_quickly_and_survives_head(folder: Path) -> None:
    write(Path("s.h5"), *map(row, range(3)))
    started = time.monotonic()
    script = f'"{PROGRAM}" store info s.h5 | head -1; echo "${{PIPESTATUS[@]}}"'
    run = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert time.monotonic() - started < 5
    assert run.stdout.splitlines()[0] == "store        s.h5"
    assert run.stderr == ""


# prune


@pytest.mark.parametrize("ending", REWRITABLE)
def test_prune_drops_the_items_whose_file_is_gone_and_nothing_else(imagebind: Run, folder: Path, ending: str) -> None:
    path, files = folder / f"p{ending}", [folder / name for name in ("a.png", "b.png", "c.png")]
    with Store(path, {"model": "m", "weights": "0123", "modality": "image", "dim": 4, "pool": "mean", "version": "1"}) as new:
        for number, file in enumerate(files):
            file.write_bytes(b"x")
            stamp = Stamp(size=1, mtime=file.stat().st_mtime_ns)
            meta = {"image": str(file)} if number else {}
            new.append([Row(f"row {number}" if number else str(file), np.eye(4, dtype=np.float32)[number], meta=meta, stamp=stamp)])
        new.append([Row("in an archive", np.eye(4, dtype=np.float32)[3], stamp=Stamp(hash=b"h" * 16))])
    files[1].unlink()
    before = open_store(path)
    dry = imagebind("store", "prune", path, "--missing", "--dry-run")
    assert (dry.code, dry.out) == (0, b"row 1\n")
    assert f"{path}: 1 of 4 items (1 row) would be dropped" in dry.err
    assert open_store(path).ids == before.ids
    run = imagebind("store", "prune", path, "--missing", "--json")
    assert json.loads(run.out) == {"store": str(path), "items": 4, "missing": ["row 1"], "rows": 1, "dry_run": False}
    after = open_store(path)
    assert after.ids == [str(files[0]), "row 2", "in an archive"]
    assert after.provenance == before.provenance
    np.testing.assert_array_equal(after.vectors(), np.eye(4)[[0, 2, 3]])
    assert after.meta(1) == {"image": str(files[2])}
    assert imagebind("store", "check", path).code == 0
    for file in (files[0], files[2]):
        file.unlink()
    refused = imagebind("store", "prune", path, "--missing")
    assert refused.code == 1
    assert "none of its 2 files exists from here" in refused.err
    assert imagebind("store", "prune", path).code == 2
    assert len(open_store(path)) == 3


# Every command on every format

WORKS = {
    "info": lambda path: ["info", path],
    "check": lambda path: ["check", path],
    "merge": lambda path: ["merge", path, "-o", "merged.h5"],
    "merge into it": lambda path: ["merge", write(Path("more.h5"), row(2)), "-o", path],
    **{f"export to {ending}": lambda path, ending=ending: ["export", path, "-o", f"exported{ending}"] for ending in (*FORMATS, ".parquet")},
    "prune --dry-run": lambda path: ["prune", path, "--missing", "--dry-run"],
    "prune": lambda path: ["prune", path, "--missing"],
    "compact": lambda path: ["compact", path],
}
REFUSED = {
    (
        "compact",
        ".npy",
    ): "its two files cannot be replaced at once; export leaves replaced rows out: imagebind store export s.npy -o NEW.npy",
    ("prune", ".npy"): "its two files cannot be replaced at once; prune a copy: imagebind store export s.npy -o COPY.h5",
}


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("command", WORKS)
def test_every_command_works_on_every_format_or_says_what_to_do(imagebind: Run, folder: Path, command: str, ending: str) -> None:
    path = write(Path(f"s{ending}"), row(0), row(1))
    for name in ("0.png", "1.png"):
        Path(name).touch()
    run = imagebind("store", *WORKS[command](path))
    if reason := REFUSED.get((command, ending)):
        assert (run.code, run.err) == (1, f"imagebind: s{ending}: {reason}\n")
    else:
        assert run.code == 0, run.err
    assert imagebind("store", "check", path).code == 0
    assert set(open_store(path).ids) >= {"0.png", "1.png"}


@pytest.mark.parametrize("command", [["compact"], ["prune", "--missing"], ["prune", "--missing", "--dry-run"]])
def test_a_pattern_of_stores_is_not_rewritten(imagebind: Run, folder: Path, command: list[str]) -> None:
    write(Path("a-1.h5"), row(1))
    run = imagebind("store", command[0], "a-*.h5", *command[1:])
    assert (run.code, run.err) == (1, "imagebind: a-*.h5: no such store; a pattern is not rewritten: name each store\n")
    assert {each.name for each in folder.iterdir()} == {"a-1.h5"}
