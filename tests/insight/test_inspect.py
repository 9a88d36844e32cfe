"""`imagebind store inspect`: planted copies, outliers, wrong labels and wrong pairs are found, whatever memory there is; docs/python.md runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.insight import item_vectors
from imagebind_cli.insight.findings import inspect_pairs, inspect_store
from imagebind_cli.insight.neighbours import find_neighbours
from imagebind_cli.insight.proposals import copy_threshold, mispairing_threshold, outlier_threshold
from imagebind_cli.store import open_store
from tests.conftest import Run
from tests.stores import store, unit_rows

PYTHON = Path(__file__).parents[2] / "docs" / "python.md"
CLASSES, DIM = 8, 32


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def auc(scores: np.ndarray, planted: np.ndarray) -> float:
    """Return how often a planted item scores above another, ties half."""
    inside, outside = scores[planted][:, None], scores[~planted][None]
    return float(((inside > outside) + 0.5 * (inside == outside)).mean())


class Planted:
    """Clusters of items with 1 % copies (`copies` has both sides) and 1 % wrong labels, of which `true` has the right ones."""

    def __init__(self, count: int, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        true = random.integers(0, CLASSES, count)
        self.rows = unit(unit_rows(CLASSES, DIM, seed)[true] + 1.2 / DIM**0.5 * random.standard_normal((count, DIM)))
        source, target, wrong = random.permutation(count)[: 3 * (count // 100)].reshape(3, -1)
        self.rows[target] = unit(self.rows[source] + 0.02 / DIM**0.5 * random.standard_normal((len(source), DIM)))
        true[target] = true[source]
        given = true.copy()
        given[wrong] = (given[wrong] + random.integers(1, CLASSES, len(wrong))) % CLASSES
        self.copies, self.wrong = np.zeros(count, bool), np.zeros(count, bool)
        self.copies[source], self.copies[target], self.wrong[wrong] = True, True, True
        self.pairs = {frozenset(pair) for pair in zip(source.tolist(), target.tolist(), strict=True)}
        self.ids = [f"class{label}/{number}.png" for number, label in enumerate(given)]
        self.true = [f"class{label}" for label in true]

    def write(self, path: str) -> str:
        return str(store(Path(path), "image", self.ids, self.rows))


@pytest.mark.parametrize("exact", [True, False])
def test_planted_copies_and_wrong_labels_are_found(folder: Path, exact: bool) -> None:
    planted = Planted(4000)
    found = inspect_store(planted.write("a.npy"), "folder", exact=exact)
    assert found.exact is exact
    assert auc(found.scores["copies"], planted.copies) >= 0.98
    assert auc(found.scores["labels"], planted.wrong) >= 0.98
    number = {id: row for row, id in enumerate(planted.ids)}
    groups = {frozenset(number[id] for id in finding.ids) for finding in found.findings if finding.kind == "copies"}
    assert groups == planted.pairs
    labels = [finding for finding in found.findings if finding.kind == "labels"]
    reported = [number[finding.ids[0]] for finding in labels]
    assert np.mean(planted.wrong[reported]) >= 0.9
    assert len(reported) >= 0.7 * planted.wrong.sum()
    right = [finding.suggested == planted.true[number[finding.ids[0]]] for finding in labels if planted.wrong[number[finding.ids[0]]]]
    assert np.mean(right) >= 0.9
    assert all(finding.label == finding.ids[0].split("/")[0] for finding in labels)


def test_nothing_is_reported_where_nothing_was_planted(folder: Path) -> None:
    random = np.random.default_rng(5)
    rows = unit(unit_rows(CLASSES, DIM)[np.arange(3000) % CLASSES] + 0.5 / DIM**0.5 * random.standard_normal((3000, DIM)))
    store(Path("a.npy"), "image", [f"{row % CLASSES}/{row}" for row in range(3000)], rows)
    assert inspect_store("a.npy", "folder").findings == []


def test_outliers_are_the_items_far_from_all_others(folder: Path) -> None:
    random = np.random.default_rng(1)
    rows = unit(unit_rows(CLASSES, DIM)[np.arange(2000) % CLASSES] + 0.5 / DIM**0.5 * random.standard_normal((2000, DIM)))
    rows[[7, 1234]] = unit(random.standard_normal((2, DIM)))
    store(Path("a.npy"), "image", [str(row) for row in range(2000)], rows)
    found = inspect_store("a.npy")
    assert {finding.ids for finding in found.findings} == {("7",), ("1234",)}
    assert {finding.kind for finding in found.findings} == {"outliers"}


def test_neighbours_of_all_pairs_are_those_of_float64() -> None:
    rows = unit_rows(3000, DIM)
    found = find_neighbours(rows, 5, exact=True)
    cosines = rows.astype(np.float64) @ rows.astype(np.float64).T
    np.fill_diagonal(cosines, -np.inf)
    best = np.argsort(-cosines, axis=1)[:, :5]
    assert np.mean(found.rows == best) > 0.999  # float32 may exchange two of equal distance
    np.testing.assert_allclose(found.cosines, np.take_along_axis(cosines, best, axis=1), atol=1e-6)


def test_neighbours_by_cells_miss_few_and_no_copy() -> None:
    planted = Planted(8000, seed=3)
    exact, cells = find_neighbours(planted.rows, 10, exact=True), find_neighbours(planted.rows, 10, exact=False)
    recall = np.mean([len({*one} & {*other}) / 10 for one, other in zip(exact.rows.tolist(), cells.rows.tolist(), strict=True)])
    assert recall > 0.8
    for one, other in planted.pairs:
        assert cells.rows[one, 0] == other
        assert cells.rows[other, 0] == one


def test_rows_that_are_all_alike_are_copies_and_take_no_quadratic_time(folder: Path) -> None:
    rows = np.repeat(unit_rows(1, DIM), 30_000, axis=0)
    found = find_neighbours(rows, 5)
    assert (found.cosines > 1 - 1e-5).all()
    assert (found.rows != np.arange(len(rows))[:, None]).all()
    store(Path("a.npy"), "image", [str(row) for row in range(50)], rows[:50])
    (copies,) = inspect_store("a.npy").findings
    assert (copies.kind, len(copies.ids)) == ("copies", 50)


@pytest.mark.parametrize("bytes_per_number", [3, 1])
def test_a_memory_limit_changes_where_the_vectors_are_and_not_what_is_found(folder: Path, bytes_per_number: int) -> None:
    planted = Planted(2000)
    planted.write("a.npy")
    memory = 2 * bytes_per_number * planted.rows.size
    with item_vectors.item_vectors(open_store("a.npy"), memory) as items:
        assert items.rows.dtype == np.float16
        assert isinstance(items.rows, np.memmap) == (bytes_per_number == 1)
    full, limited = inspect_store("a.npy", "folder"), inspect_store("a.npy", "folder", memory=memory)
    assert {finding.ids for finding in full.findings} == {finding.ids for finding in limited.findings}
    np.testing.assert_allclose(limited.scores["copies"], full.scores["copies"], atol=1e-3)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads what is resident from Linux")
def test_memory_of_mapped_rows_is_released(folder: Path) -> None:
    def resident() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssFile", "RssShmem")))

    np.save("rows.npy", np.ones((100, 1 << 18), np.float32))  # 105 MB
    rows = np.load("rows.npy", mmap_mode="r")
    before = resident()
    assert rows[10:].sum() == 90 * (1 << 18)
    assert resident() - before > 80_000_000
    item_vectors.release(rows[10:])
    assert resident() - before < 20_000_000
    assert rows[99, 7] == 1


@pytest.mark.parametrize("memory", [1_000_000_000, 100])
def test_windows_of_an_item_count_as_their_mean(folder: Path, memory: int) -> None:
    rows = unit_rows(6, DIM)
    spans = [(0.0, 2.0), (1.0, 3.0)] * 3
    store(Path("a.h5"), "audio", ["a", "a", "b", "b", "c", "c"], rows, spans, pool="none")
    with item_vectors.item_vectors(open_store("a.h5"), memory) as items:
        assert (items.ids, items.first.tolist()) == (["a", "b", "c"], [0, 2, 4])
        np.testing.assert_allclose(items.rows, unit(rows.reshape(3, 2, DIM).mean(axis=1)), atol=1e-6)
    assert inspect_store("a.h5", memory=memory).findings == []


def test_labels_come_from_columns_files_and_mappings_and_may_be_several(folder: Path) -> None:
    planted = Planted(1000)
    metas = [{"kind": id.split("/")[0]} for id in planted.ids]
    store(Path("a.h5"), "image", planted.ids, planted.rows, metas=metas)
    by_folder = inspect_store("a.h5", "folder")
    assert inspect_store("a.h5", "kind").findings == by_folder.findings
    Path("truth.jsonl").write_text("".join(json.dumps({"id": id, "label": id.split("/")[0]}) + "\n" for id in planted.ids[1:]))
    from_file = inspect_store("a.h5", "truth.jsonl")
    assert np.isneginf(from_file.scores["labels"][0])
    assert next(from_file.rows())["labels"] is None
    assert from_file.notes == ["1 items have no label"]
    both = {id: [id.split("/")[0], true] for id, true in zip(planted.ids, planted.true, strict=True) if id.split("/")[0] != true}
    several = inspect_store("a.h5", {id: id.split("/")[0] for id in planted.ids} | both)
    assert not {finding.ids[0] for finding in several.findings if finding.kind == "labels"} & both.keys()
    with pytest.raises(UserError, match="no labels by nothing; at least two"):
        inspect_store("a.h5", "nothing")


# Thresholds


def test_thresholds_follow_the_distribution() -> None:
    random = np.random.default_rng(0)
    for scale in (0.3, 0.001):  # a model whose cosines are all near 1 has another threshold
        bulk = 1 - scale * np.exp(0.2 * random.standard_normal(10_000))
        copies = 1 - scale * 1e-3 * np.ones(2000)
        threshold = copy_threshold(np.concatenate([bulk, copies]), 1e-7)
        assert bulk.max() < threshold < copies.min()
        far = 1 - scale * 4 * np.ones(20)
        assert far.max() < outlier_threshold(np.concatenate([bulk, far]), 1e-7) < bulk.min()


def test_a_threshold_of_pairs_estimates_how_many_are_wrong() -> None:
    random = np.random.default_rng(0)
    shuffled = random.standard_normal(10_000)
    threshold, share = mispairing_threshold(np.concatenate([random.standard_normal(500) + 6, random.standard_normal(9500) + 6]), shuffled)
    assert (threshold, share) == (-np.inf, 0)
    threshold, share = mispairing_threshold(np.concatenate([random.standard_normal(500), random.standard_normal(9500) + 6]), shuffled)
    assert share == pytest.approx(0.05, abs=0.01)
    assert 1.5 < threshold < 4


# Pairs


def paired_stores(count: int, wrong: int) -> tuple[list[str], np.ndarray]:
    """Two stores of modalities far apart, of which some pairs have the other's partner."""
    random = np.random.default_rng(0)
    meaning, gap = unit_rows(count, DIM, 2), 2 * unit_rows(2, DIM, 3)
    sides = [meaning + 0.5 / DIM**0.5 * random.standard_normal((count, DIM)) for _ in gap]
    places = random.permutation(count)[:wrong]
    sides[1][places] = sides[1][np.roll(places, 1)]
    ids = [f"{row}.png" for row in range(count)]
    store(Path("a.h5"), "image", ids, unit(sides[0] + gap[0]))
    store(Path("b.h5"), "audio", [f"b/{row}.wav" for row in range(count)], unit(sides[1] + gap[1]))
    return ids, np.isin(np.arange(count), places)


def test_pairs_that_disagree_are_found_across_the_modality_gap(folder: Path) -> None:
    ids, wrong = paired_stores(2000, 20)
    found = inspect_pairs(["a.h5", "b.h5"], "stem")
    assert auc(-found.scores["pairs"], wrong) >= 0.98
    listed = {finding.ids for finding in found.findings}
    planted = {(ids[row], f"b/{row}.wav") for row in np.flatnonzero(wrong)}
    assert len(listed & planted) >= 0.9 * len(planted)
    assert len(listed - planted) <= 0.1 * len(listed)
    assert found.notes == [f"about {found.notes[0].split()[1]} of the pairs score as pairs put together by chance do"]


def test_pairs_are_named_by_id_by_stem_or_by_a_file(folder: Path) -> None:
    rows = unit_rows(4, DIM)
    store(Path("a.h5"), "image", ["x", "y", "z", "w"], rows)
    store(Path("b.h5"), "audio", ["x", "y", "z", "v"], rows)
    by_id = inspect_pairs(["a.h5", "b.h5"], "ids")
    assert list(by_id.ids) == [("x", "x"), ("y", "y"), ("z", "z")]
    assert "without a partner: 1 items of a.h5, 1 of b.h5" in by_id.notes
    Path("pairs.jsonl").write_text('{"image": "w", "audio": "v"}\n{"image": "x", "audio": "y"}\n{"image": "q", "audio": "y"}\n')
    by_file = inspect_pairs(["a.h5", "b.h5"], "pairs.jsonl")
    assert list(by_file.ids) == [("x", "y"), ("w", "v")]
    assert "1 pairs name an id that is not in the stores" in by_file.notes
    store(Path("c.h5"), "audio", ["p/x.wav", "q/x.wav"], rows[:2])
    with pytest.raises(UserError, match="'p/x.wav' and 'q/x.wav' have the same stem"):
        inspect_pairs(["a.h5", "c.h5"], "stem")
    with pytest.raises(UserError, match="no pair has both its items"):
        inspect_pairs(["a.h5", "c.h5"], "ids")
    store(Path("d.h5"), "audio", ["x"], rows[:1], model="another", weights="other")
    with pytest.raises(UserError, match=r"d\.h5"):
        inspect_pairs(["a.h5", "d.h5"])


# The command


def test_the_command_prints_what_python_returns(imagebind: Run, folder: Path) -> None:
    planted = Planted(1000)
    planted.write("a.h5")
    run = imagebind("store", "inspect", "a.h5", "--truth", "folder", "--scores", "scores.jsonl")
    found = inspect_store("a.h5", "folder")
    assert run.code == 0
    assert run.rows == [finding.as_json() for finding in found.findings]
    assert [json.loads(line) for line in Path("scores.jsonl").read_text().splitlines()] == list(found.rows())
    assert "1,000 items inspected" in run.err
    assert "20 items are copies of each other, in 10 groups: cosine at least" in run.err
    table = imagebind("store", "inspect", "a.h5", "--truth", "folder", "--plain").out.decode().splitlines()
    assert len(table) == len(found.findings)
    assert all(id in line for line, finding in zip(table, found.findings, strict=True) for id in finding.ids)
    none = imagebind("store", "inspect", "a.h5", "--threshold", "copies=1.5", "--threshold", "outliers=-2")
    assert (none.code, none.out) == (0, b"")


def test_the_command_compares_two_stores(imagebind: Run, folder: Path) -> None:
    paired_stores(500, 10)
    run = imagebind("store", "inspect", "a.h5", "b.h5", "--pairs", "stem", "--scores", "s.jsonl")
    assert run.rows == [finding.as_json() for finding in inspect_pairs(["a.h5", "b.h5"], "stem").findings]
    assert json.loads(Path("s.jsonl").read_text().splitlines()[0]).keys() == {"ids", "pairs"}
    assert "500 pairs inspected" in run.err


def test_wrong_requests_say_what_is_wrong(folder: Path) -> None:
    store(Path("a.h5"), "image", ["x", "y"], unit_rows(2, DIM))
    with pytest.raises(UsageError, match="no threshold 'copy' here; choose from copies, outliers, labels"):
        inspect_store("a.h5", thresholds={"copy": 1})
    with pytest.raises(UserError, match="2 items; an inspection compares at least 3"):
        inspect_store("a.h5")


def test_the_page_about_python_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted = Planted(1000)
    planted.write("photos.h5")
    store(Path("captions.h5"), "text", [Path(id).with_suffix("").name for id in planted.ids], planted.rows)
    section = PYTHON.read_text().split("## What is in a store")[1].split("\n## ")[0]
    values: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(compile(code, "docs/python.md", "exec"), values)
    assert "copies" in capsys.readouterr().out
    assert values["wrong"] == []


def test_a_threshold_below_every_cosine_is_not_printed(imagebind: Run, tmp_path: Path) -> None:
    """Wide distances put the fence beyond a cosine of -1."""
    rows = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = inspect_store(store(tmp_path / "wide.h5", "image", [f"{number}.png" for number in range(12)], rows))
    assert found.thresholds["outliers"] < -1
    done = imagebind("store", "inspect", tmp_path / "wide.h5")
    assert "imagebind: 0 outliers: none stand out; the threshold is lower than any cosine" in done.notices
