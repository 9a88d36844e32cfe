"""Properties of the parsers of our own formats: what was written is read back, and of anything else one error of the documented kind comes."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagebind_cli.corpus.failures import FailureFile
from imagebind_cli.documents import DEPTH, parse_json, parse_toml
from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.labels import Label, check_labels, read_labels
from imagebind_cli.media.clock import parse_clock
from imagebind_cli.prepared.entries import as_seconds, stretch_of
from imagebind_cli.prepared.tar import read_shard
from imagebind_cli.retrieval.requests import read_requests, read_weights
from imagebind_cli.sources import Stretch
from imagebind_cli.store import Stamp
from imagebind_cli.store.provenance import parse_provenance
from imagebind_cli.store.row import Row, row_line, row_stamp, sealed_row_line
from imagebind_cli.store.source import RowTable
from imagebind_cli.tabular import BadRow, json_object, parse_columns, read_rows
from imagebind_cli.training.recipe import Recipe
from imagebind_cli.training.recipe_files import read_recipe
from imagebind_cli.weights.model_config import ModelConfig, from_json, from_values, packaged_config
from imagebind_cli.weights.origin import OriginRecord, PartRecord, read_record

few = settings(derandomize=True, database=None, max_examples=25, deadline=None)

TEXTS = st.text(max_size=20)  # with surrogates, as in file names that are not UTF-8
WHOLE = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
CELLS = WHOLE.filter(lambda text: not {*text} & {*"\n\r"} and text == text.strip() and text)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(TEXTS, inside, max_size=4),
    max_leaves=12,
)
JSON = VALUES.map(json.dumps)
BYTES = st.binary(max_size=200) | JSON.map(str.encode) | st.builds(lambda text, cut: text.encode()[:cut], JSON, st.integers(0, 40))
NUMBERS = st.sampled_from(["0", "1", "-1", "90.5", "nan", "inf", "1e999", "1:30", "", " 3 ", "٣", "1_0", "0x10", "9" * 400])
STAMPS = st.builds(Stamp, st.integers(-1, 2**63 - 1), st.integers(-(2**63), 2**63 - 1), st.just(b"") | st.binary(min_size=16, max_size=16))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parsers")


@contextmanager
def may_refuse(*kinds: type[Exception], words: object = "") -> Iterator[None]:
    """Let a block end in an error of these kinds, `UserError` if none is given, with these words in it."""
    kinds = kinds or (UserError,)
    try:
        yield
    except kinds as error:
        if str(words) not in str(error):
            raise AssertionError(f"{words} is not in it") from error


def _nested(value: Any) -> int:
    return 1 + max(map(_nested, value.values() if isinstance(value, dict) else value), default=0) if isinstance(value, dict | list) else 0


# JSON and TOML


@few
@given(st.integers(0, 2 * DEPTH), st.sampled_from(["[]", "{}"]))
def test_depth_is_all_that_counts(depth: int, kind: str) -> None:
    text = "[" * depth + "]" * depth if kind == "[]" else '{"a":' * depth + "1" + "}" * depth
    if not text or depth > DEPTH:
        with pytest.raises(ValueError, match="nested|Expecting"):
            parse_json(text)
    else:
        assert _nested(parse_json(text)) == depth


@few
@given(BYTES)
def test_any_bytes_are_json_and_toml_or_a_value_error(data: bytes) -> None:
    for parse in (parse_json, parse_toml, parse_provenance):
        with may_refuse(ValueError):
            parse(data)


@few
@given(JSON)
def test_json_is_read_as_written(text: str) -> None:
    assert json.dumps(parse_json(text)) == text


# Tables


@few
@given(st.lists(st.fixed_dictionaries({"image": CELLS, "text": CELLS}), min_size=1, max_size=5), st.sampled_from([".csv", ".jsonl"]))
def test_a_table_is_read_as_written(folder: Path, rows: list[dict[str, str]], ending: str) -> None:
    path = folder / f"table{ending}"
    with open(path, "w", encoding="utf-8", newline="") as file:
        if ending == ".csv":
            writer = csv.DictWriter(file, ["image", "text"])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    assert [row for _, row in read_rows(path)] == rows


@few
@given(
    st.binary(max_size=120) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(["csv", "tsv", "jsonl"]),
)
def test_any_bytes_are_rows_or_one_error(folder: Path, data: bytes, ending: str) -> None:
    path = folder / f"any.{ending}"
    path.write_bytes(b"image,text\n" * (ending == "csv") + data)
    with may_refuse(words=path):
        rows = [row for _, row in read_rows(path)]
        assert all(isinstance(row, BadRow | dict) for row in rows)


@few
@given(TEXTS | JSON)
def test_a_line_is_an_object_or_not(line: str) -> None:
    row = json_object(line)
    assert row is None or isinstance(row, dict | BadRow)


@few
@given(st.lists(TEXTS, max_size=4))
def test_columns(texts: list[str]) -> None:
    with may_refuse(words="--column"):
        assert all(name and column for name, column in parse_columns(texts).items())


# Stores


@few
@given(
    st.lists(st.builds(Row, TEXTS, st.just(()), st.none(), st.just(1), st.dictionaries(TEXTS, VALUES, max_size=2), STAMPS), max_size=4),
    st.booleans(),
)
def test_rows_are_read_as_written(rows: list[Row], sealed: bool) -> None:
    table = RowTable()
    for row in rows:
        table.add(sealed_row_line(row, np.zeros(2, np.float32)) if sealed else row_line(row), "line")
    assert table.ids == [row.id for row in rows]
    assert [json.dumps(json.loads(table.metas.get(number, b"{}"))) for number in range(len(rows))] == [
        json.dumps(dict(row.meta)) for row in rows
    ]
    assert table.stamps()["mtime"].tolist() == [row.stamp.mtime if row.stamp.size >= 0 else -1 for row in rows]
    assert [row_stamp(parse_json(row_line(row))).hash for row in rows] == [row.stamp.hash for row in rows]


@few
@given(st.dictionaries(st.sampled_from(["id", "size", "mtime", "hash", "start", "end", "windows", "meta"]), VALUES))
def test_any_object_is_a_row_or_refused(row: dict[str, Any]) -> None:
    table = RowTable()
    with may_refuse(words="r.jsonl: line 1 is not a row of imagebind embed"):
        table.add(json.dumps(row).encode(), "r.jsonl: line 1")
    assert len(table.stamps()) == len(table) == len(list(table.items()))


@few
@given(st.lists(st.tuples(TEXTS, TEXTS, STAMPS), max_size=4))
def test_failures_are_read_as_written(folder: Path, failures: list[tuple[str, str, Stamp]]) -> None:
    path = folder / "errors.jsonl"
    path.unlink(missing_ok=True)
    first = FailureFile(path)
    for id, reason, stamp in failures:
        first.begin(id, stamp)
        first.add(id, reason)
    first.close()
    again = FailureFile(path)
    for id, _, stamp in {id: (id, reason, stamp) for id, reason, stamp in failures}.values():
        assert id in again
        assert again.failed_as(id, stamp) == (stamp.size >= 0 or bool(stamp.hash))
    again.close()


@few
@given(st.lists(BYTES, max_size=3))
def test_any_lines_are_failures_or_refused(folder: Path, lines: list[bytes]) -> None:
    path = folder / "any-errors.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    with may_refuse(words="is not a failure of an earlier run"):
        FailureFile(path).close()


# Models


CONFIG = json.loads(packaged_config("tiny").to_json())


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, below in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from _places(below)


@few
@given(st.integers(0, len([*_places(CONFIG)]) - 1), VALUES)
def test_a_config_with_any_value_is_a_config_or_refused(number: int, value: Any) -> None:
    config = json.loads(json.dumps(CONFIG))
    holder, key = [*_places(config)][number]
    holder[key] = value
    with may_refuse(words="c.json: "):
        read = from_values(config, "c.json")
        assert isinstance(read, ModelConfig)
        assert from_json(read.to_json(), "read again") == read


@few
@given(BYTES, st.sampled_from([OriginRecord, PartRecord]))
def test_any_bytes_are_a_record_or_none(folder: Path, data: bytes, kind: Any) -> None:
    (folder / "origin.json").write_bytes(data)
    assert isinstance(read_record(folder / "origin.json", kind), dict)


@few
@given(BYTES)
def test_any_bytes_are_a_shard_or_refused(data: bytes) -> None:
    with may_refuse(words="x.tar: "):
        assert [*read_shard(io.BytesIO(data), "x.tar")] == []


# Words of the command line


KEYS = st.sampled_from(["run.steps", "optimizer.lr", "pairs.0.batch", "pairs", "run", "model", "encoders.text", "a.b.c", "", "run.steps.x"])


@few
@given(st.lists(st.builds(lambda key, value: f"{key}={value}", KEYS, NUMBERS | WHOLE | JSON), max_size=2))
def test_changes_of_a_recipe(changes: list[str]) -> None:
    with may_refuse():
        assert isinstance(read_recipe("image-depth", changes), Recipe)


@few
@given(st.sampled_from(["a = ", "[pairs]\na = ", "[[pairs]]\nmodalities = ", "[optimizer]\nlr = ", "[run]\nsteps = "]), JSON | TEXTS)
def test_any_toml_is_a_recipe_or_refused(folder: Path, head: str, text: str) -> None:
    path = folder / "r.toml"
    path.write_bytes((head + text).encode("utf-8", "surrogatepass"))
    with may_refuse(words=path):
        assert isinstance(read_recipe(str(path)), Recipe)


@few
@given(NUMBERS | st.floats() | VALUES, NUMBERS | st.floats() | VALUES)
def test_seconds_and_stretches(start: Any, end: Any) -> None:
    assert all(time is None or math.isfinite(time) for time in stretch_of({"start": start, "end": end}))
    with may_refuse(ValueError, words="are seconds"):
        stretch = Stretch("a.wav", start, end)
        assert 0 <= (stretch.start or 0) < (math.inf if stretch.end is None else stretch.end)
        first, _, last = stretch.label[1:].partition("-") if "e-" not in stretch.label else ("", "", "")
        assert not first or as_seconds(first) == stretch.start
        assert not last or as_seconds(last) == stretch.end


@few
@given(WHOLE | NUMBERS)
def test_times_of_day_and_weights(text: str) -> None:
    parse_clock(text)
    with may_refuse():
        assert len(read_weights(text, 2)) == 2


@few
@given(
    st.lists(
        st.tuples(CELLS, st.lists(CELLS, min_size=1, max_size=3, unique=True)), min_size=2, max_size=4, unique_by=lambda label: label[0]
    )
)
def test_labels_are_read_as_written(folder: Path, classes: list[tuple[str, list[str]]]) -> None:
    path = folder / "labels.json"
    path.write_text(json.dumps(dict(classes)))
    assert read_labels(str(path)) == [Label(name, tuple(names)) for name, names in classes]


@few
@given(TEXTS | st.lists(CELLS, min_size=2, max_size=3).map(",".join), st.sampled_from(["", ".txt", ".json", ".toml", ".csv"]))
def test_any_labels_are_labels_or_refused(folder: Path, text: str, ending: str) -> None:
    path = folder / f"any{ending}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with may_refuse():
        labels = read_labels(str(path) if ending else text)
        assert check_labels("x", labels) == labels


@few
@given(st.binary(max_size=100) | JSON.map(str.encode), st.sampled_from(["txt", "csv", "jsonl"]))
def test_any_queries_are_requests_or_failures(folder: Path, data: bytes, ending: str) -> None:
    path = folder / f"q.{ending}"
    path.write_bytes(data)
    with may_refuse(words=path):
        assert all(request is not None for request in read_requests(path))
