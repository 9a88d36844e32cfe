"""Class names and prompts from every kind of file, and the vectors made of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation import labels, prompts, prototypes
from tests.stores import DIM, unit_rows


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Prompts


def test_the_default_templates_are_clips() -> None:
    """OpenCLIP carries the same list."""
    found = importlib.util.find_spec("open_clip")
    assert found
    assert found.origin
    spec = importlib.util.spec_from_file_location("published", Path(found.origin).parent / "zero_shot_metadata.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert list(prompts.read_templates().lines) == [template("{}") for template in module.OPENAI_IMAGENET_TEMPLATES]


@pytest.mark.parametrize("name", prompts.template_sets())
def test_every_set_in_the_package_can_be_used(name: str) -> None:
    found = prompts.read_templates(name)
    assert all(line.count("{}") == 1 for line in found.lines)
    assert found.record()["count"] == len(found.fill("a {dog}")) == len(set(found.fill("a {dog}")))
    assert found.fill("a {dog}")[0] == found.lines[0].replace("{}", "a {dog}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no templates"),
        ("a {}\na dog\n", "'a dog' has no {}"),
        ("a {}\n\na {} \n", "'a {}' is listed twice"),
        (None, "not one of audio, clip"),
    ],
)
def test_templates_that_cannot_be_used_are_told(folder: Path, text: str | None, words: str) -> None:
    if text is not None:
        (folder / "mine.txt").write_text(text)
    with pytest.raises(UserError, match=words.replace("{}", r"\{\}")):
        prompts.read_templates("mine.txt")


# Classes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "\ufeffdog=dog|puppy\r\n\r\ncat\r\n"),
        ("a.json", '[["dog", "puppy"], "cat"]'),
        ("a.json", '{"dog": ["dog", "puppy"], "cat": "cat"}'),
        ("a.toml", 'dog = ["dog", "puppy"]\ncat = "cat"\n'),
        ("a.csv", "class,name\ndog,dog\ncat,\ndog,puppy\n"),
        ("a.tsv", "id\tclass\tname\n1\tdog\tdog|puppy\n2\tcat\tcat\n"),
    ],
)
def test_classes_read_the_same_from_every_file(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    wanted = [labels.Label("dog", ("dog", "puppy")), labels.Label("cat", ("cat",))]
    assert labels.read_labels(name) == labels.read_labels("dog|puppy, cat") == wanted
    assert labels.labels_digest(labels.read_labels(name)) == labels.labels_digest(wanted)


def test_names_in_json_are_taken_as_they_are(folder: Path) -> None:
    (folder / "a.json").write_text('["E=mc|2", "a,b"]')
    assert labels.read_labels("a.json") == [labels.Label("E=mc|2", ("E=mc|2",)), labels.Label("a,b", ("a,b",))]
    assert labels.read_labels("person=man|woman,tree")[0] == labels.Label("person", ("man", "woman"))


@pytest.mark.parametrize(
    ("given", "text", "words"),
    [
        ("none.txt", None, "no such file, and one class alone"),
        ("dog,cat,dog", None, "class 'dog' is listed twice"),
        ("dog=,cat", None, "'dog' has an empty name"),
        ("dog|dog,cat", None, "'dog' has a name twice"),
        ("a.txt", "\n\n", "no classes; at least two"),
        ("a.txt", "dog\n", "1 class; at least two"),
        ("a.json", "{", "a.json: "),
        ("a.json", "[1, 2]", "1 is not a name"),
        ("a.json", '"dog"', "a list of names"),
        ("a.toml", "dog", "a.toml: "),
        ("a.csv", "label\ndog\n", "no column 'class'; it has label"),
        ("a.csv", "class\ndog\ndog\n", "'dog' is listed twice"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(folder: Path, given: str, text: str | None, words: str) -> None:
    if text is not None:
        (folder / given).write_text(text)
    with pytest.raises(UserError, match=words):
        labels.read_labels(given)


def test_each_sentence_is_embedded_once_and_averaged_over_templates() -> None:
    given: list[str] = []

    def embed(sentences: list[str]) -> Any:
        given.extend(sentences)
        return iter(vector_of[sentence] for sentence in sentences)

    lines = prompts.check_templates("mine", ["a {}", "the {}", "one {} more"])
    classes = [labels.Label("dog", ("dog", "puppy")), labels.Label("pet", ("dog", "cat"))]
    sentences = [sentence for name in ("dog", "puppy", "cat") for sentence in lines.fill(name)]
    vector_of = dict(zip(sentences, unit_rows(9), strict=True))
    found = prototypes.from_prompts(classes, lines, embed, {})
    assert given == sentences
    means = unit_rows(9).astype(np.float64).reshape(3, 3, DIM).mean(axis=1)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert found.vectors == pytest.approx(means[[0, 1, 0, 2]], abs=1e-6)
    items = unit_rows(5, seed=9)
    cosines = items @ means.T
    assert found.scores(items) == pytest.approx(np.column_stack([cosines[:, [0, 1]].max(axis=1), cosines[:, [0, 2]].max(axis=1)]), abs=1e-6)
    pairs = np.stack([means[[0, 1]].mean(axis=0), means[[0, 2]].mean(axis=0)])
    pairs /= np.linalg.norm(pairs, axis=1, keepdims=True)
    assert found.averaged().scores(items) == pytest.approx(items @ pairs.T, abs=1e-6)
    assert labels.shared_names(classes) == ["dog"]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ('"table, wooden",chair', ["table, wooden", "chair"]),
        (' "table, wooden" , chair , ', ["table, wooden", "chair"]),
        ('"say ""hi""",b', ['say "hi"', "b"]),
        ('"furniture=bed, wide|desk",c', ["furniture", "c"]),
        (",".join(f"name {number}" for number in range(1000)), [f"name {number}" for number in range(1000)]),
    ],
)
def test_a_typed_list_may_be_of_any_length_and_its_names_hold_commas(folder: Path, given: str, names: list[str]) -> None:
    assert [label.name for label in labels.read_labels(given)] == names
    quoted = (name.replace('"', '""') for name in names)
    (folder / "a.txt").write_text("".join(f'"{name}"\n' for name in quoted))
    assert [label.name for label in labels.read_labels("a.txt")] == names


@pytest.mark.parametrize(
    ("given", "data", "words"),
    [
        ('5" disk,cd', None, "a quotation mark at '5\" disk,cd' stands alone"),
        ('furniture="a, b",c', None, "an entry with commas is"),
        ('"a, b', None, "stands alone or inside an entry"),
        ('a,"b"c', None, "stands alone or inside an entry"),
        ("'a, b',c", None, "straight double quotation marks"),
        ("\u201ca, b\u201d,c", None, "straight double quotation marks"),
        ("cat\ndog, big\nbird", None, "line breaks in a typed list"),
        ("x" * 5000, None, "no such file, and one class alone"),
        ("a.txt", "dog\ncaf\xe9\n".encode("latin1"), r"a\.txt: line 2: not UTF-8 text: .*iconv -f latin1"),
        ("a.json", '["a", "b"]'.encode("utf-16"), r"a\.json: line 1: not UTF-8 text but UTF-16"),
        ("a.csv", b"class,name\na dog, big,x\n", r"a\.csv:2: has 3 cells for 2 columns"),
        ("a.csv", b'class\n"a dog\ncat\n', r"a\.csv:2: a quotation mark opens here and is never closed"),
        ("a.csv", b"class;name\na;b\n", "semicolons separate its cells"),
    ],
)
def test_a_list_that_may_be_meant_otherwise_is_refused(folder: Path, given: str, data: bytes | None, words: str) -> None:
    if data is not None:
        (folder / given).write_bytes(data)
    with pytest.raises(UserError, match=words):
        labels.read_labels(given)


def test_quotation_marks_in_a_tsv_of_classes_are_characters(folder: Path) -> None:
    (folder / "a.tsv").write_text('class\n"a dog\ncat\n')
    assert [label.name for label in labels.read_labels("a.tsv")] == ['"a dog', "cat"]
