"""Every way to name inputs, against real folders, links, pipes and manifests."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from imagebind_cli.errors import UserError
from imagebind_cli.sources import Failure, Item, Stretch, from_arguments, from_lines, from_manifest

NOTHING = io.BytesIO()


def arguments(*names: object, modality: str = "image", stdin: bytes = b"") -> list[Item | Failure]:
    return list(from_arguments([str(name) for name in names], (modality,), io.BytesIO(stdin)))


def lines(data: bytes, modality: str = "image", nul: bool = False) -> list[Item | Failure]:
    return list(from_lines(io.BytesIO(data), (modality,), nul))


def payloads(items: list[Item | Failure]) -> list[str]:
    return [item.payload for item in items if isinstance(item, Item)]


def files(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"content")
    return [str(folder / name) for name in names]


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, Callable[[bytes], int]]]:
    """A real pipe: what a reader has, and how to write into it."""
    reading, writing = os.pipe()
    with open(reading, "rb") as stream:
        yield stream, lambda data: os.write(writing, data)
        os.close(writing)


def test_a_file_is_itself_and_its_id_is_the_name_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path, "dog.png")
    monkeypatch.chdir(tmp_path)
    assert arguments("dog.png", "./dog.png") == [Item("dog.png", "dog.png"), Item("./dog.png", "./dog.png")]


def test_a_missing_file_is_a_failure_and_the_rest_goes_on(tmp_path: Path) -> None:
    (there,) = files(tmp_path, "dog.png")
    first, second = arguments(tmp_path / "cat.png", there)
    assert first == Failure(str(tmp_path / "cat.png"), "no such file or folder")
    assert second == Item(there, there)


def test_a_folder_gives_all_files_below_it_sorted_without_dot_files(tmp_path: Path) -> None:
    wanted = files(tmp_path, "a/2.png", "a/10.png", "b.png", "c/d/e.png")
    files(tmp_path, ".hidden.png", ".git/x.png", "a/.DS_Store")
    assert payloads(arguments(tmp_path)) == sorted(wanted)


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    assert arguments(tmp_path) == [Failure(str(tmp_path), "no file in this folder")]


def test_a_link_to_a_folder_above_ends_the_walk_there(tmp_path: Path) -> None:
    wanted = files(tmp_path, "a/1.png", "b.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert payloads(arguments(tmp_path)) == wanted


def test_a_folder_reached_twice_is_walked_once(tmp_path: Path) -> None:
    wanted = files(tmp_path, "a/1.png")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert payloads(arguments(tmp_path)) == wanted


def test_a_linked_file_and_a_dangling_link_are_items(tmp_path: Path) -> None:
    (there,) = files(tmp_path, "a.png")
    (tmp_path / "b.png").symlink_to(there)
    (tmp_path / "c.png").symlink_to("nowhere")
    assert payloads(arguments(tmp_path)) == [str(tmp_path / name) for name in ("a.png", "b.png", "c.png")]
    assert payloads(arguments(tmp_path / "c.png")) == [str(tmp_path / "c.png")]


def test_a_link_to_itself_does_not_end_the_walk(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    wanted = files(tmp_path, "z.png")
    assert wanted[0] in payloads(arguments(tmp_path))


def test_a_pattern_gives_what_it_matches_sorted(tmp_path: Path) -> None:
    wanted = files(tmp_path, "a1.png", "a2.png")
    files(tmp_path, "b.png", "a1.jpg")
    assert payloads(arguments(tmp_path / "a*.png")) == wanted
    assert payloads(arguments(tmp_path / "a[12].png")) == wanted


def test_a_pattern_with_two_stars_goes_through_folders(tmp_path: Path) -> None:
    wanted = files(tmp_path, "a/b/1.png", "a/2.png")
    assert sorted(payloads(arguments(tmp_path / "**/*.png"))) == sorted(wanted)


def test_a_pattern_that_matches_a_folder_walks_it(tmp_path: Path) -> None:
    wanted = files(tmp_path, "day1/a.png", "day2/b.png")
    assert payloads(arguments(tmp_path / "day*")) == wanted


def test_a_pattern_without_matches_is_a_failure(tmp_path: Path) -> None:
    assert arguments(tmp_path / "*.png") == [Failure(str(tmp_path / "*.png"), "no file matches this pattern")]


def test_a_file_whose_name_looks_like_a_pattern_is_itself(tmp_path: Path) -> None:
    (there,) = files(tmp_path, "a[1].png")
    assert payloads(arguments(there)) == [there]


def test_a_dash_stands_for_the_lines_of_stdin_in_its_place(tmp_path: Path) -> None:
    one, two = files(tmp_path, "1.png", "2.png")
    assert payloads(arguments(one, "-", two, stdin=b"x.png\ny.png\n")) == [one, "x.png", "y.png", two]


def test_text_arguments_are_sentences_even_where_a_file_or_pattern_has_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path, "dog")
    monkeypatch.chdir(tmp_path)
    assert payloads(arguments("dog", "a * star?", "", modality="text")) == ["dog", "a * star?", ""]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_lines_are_paths_whatever_ends_them(ending: bytes) -> None:
    names = [b"a.png", b" with spaces .png", b"last.png"]
    assert payloads(lines(ending.join(names))) == [os.fsdecode(name) for name in names]


def test_empty_lines_are_skipped() -> None:
    assert payloads(lines(b"\na.png\n\n\r\nb.png\n\n")) == ["a.png", "b.png"]


def test_undecodable_bytes_of_a_name_come_back_as_they_were() -> None:
    (item,) = lines(b"caf\xe9 \xff.png\n")
    assert os.fsencode(item.id) == b"caf\xe9 \xff.png"


def test_nul_entries_keep_newlines_and_spaces() -> None:
    assert payloads(lines(b"a\nb.png\0 c .png\0\0last\r\n", nul=True)) == ["a\nb.png", " c .png", "last\r\n"]


def test_nul_entries_are_whole_across_reads(pipe: tuple[BinaryIO, Callable[[bytes], int]]) -> None:
    stream, write = pipe
    items = from_lines(stream, ("image",), nul=True)
    write(b"first\0sec")
    assert next(items) == Item("first", "first")
    write(b"ond\0")
    assert next(items) == Item("second", "second")


def test_many_nul_entries_come_whole_and_in_order() -> None:
    names = [f"{'long' * 50}/{number}" for number in range(1000)]  # several blocks of 64 KiB
    assert payloads(lines("\0".join(names).encode(), nul=True)) == names


def test_json_lines_have_an_id_a_payload_and_the_rest() -> None:
    data = b'{"id": "a1", "image": "dog.png", "label": 3}\n{"image": "cat.png"}\n'
    assert lines(data) == [Item("a1", "dog.png", {"label": 3}), Item("cat.png", "cat.png")]


def test_json_lines_and_names_may_be_mixed() -> None:
    assert payloads(lines(b'dog.png\n  {"image": "cat.png"}\n')) == ["dog.png", "cat.png"]


def test_a_row_without_the_modality_names_the_columns_there_are() -> None:
    first, second, third = lines(b'{"id": "a1", "audio": "dog.wav"}\n{}\n{"image": "cat.png"}\n')
    assert isinstance(first, Failure)
    assert first.id == "a1"
    assert "line 1" in first.reason
    assert "'image'" in first.reason
    assert "id, audio" in first.reason
    assert isinstance(second, Failure)
    assert second.id == "line 2"
    assert third == Item("cat.png", "cat.png")


def test_an_id_of_null_is_no_id() -> None:
    assert lines(b'{"id": null, "image": "dog.png"}\n') == [Item("dog.png", "dog.png")]


@pytest.mark.parametrize("sentence", ["{not json", "{} trailing", "[1, 2]", '"quoted"', "{'a': 1}"])
def test_a_line_that_is_no_json_object_is_a_sentence(sentence: str) -> None:
    assert payloads(lines(sentence.encode() + b"\n", "text")) == [sentence]


@pytest.mark.timeout(10)
def test_the_first_line_is_an_item_before_the_input_ends(pipe: tuple[BinaryIO, Callable[[bytes], int]]) -> None:
    stream, write = pipe
    items = from_arguments(["-"], ("image",), stream)
    for number in range(3):
        write(b"%d.png\n" % number)
        assert next(items) == Item(f"{number}.png", f"{number}.png")


def manifest(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write rows in the format the name ends in."""
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        mark = "," if path.suffix == ".csv" else "\t"
        table = [list(rows[0]), *(row.values() for row in rows)]
        text = "".join(mark.join(str(value) for value in line) + "\n" for line in table)
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.csv", "pairs.tsv"])
def test_a_manifest_gives_paths_from_its_own_folder(tmp_path: Path, name: str) -> None:
    rows: list[dict[str, object]] = [
        {"id": "one", "image": "sub/dog 1.png", "text": "a dog"},
        {"id": "two", "image": "/far/cat.png", "text": "a cat"},
    ]
    items = list(from_manifest(manifest(tmp_path / name, rows), ("image",)))
    assert items == [
        Item("one", str(tmp_path / "sub/dog 1.png"), {"text": "a dog"}),
        Item("two", "/far/cat.png", {"text": "a cat"}),
    ]


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.csv", "pairs.tsv"])
def test_text_in_a_manifest_is_no_path_and_an_id_may_be_missing(tmp_path: Path, name: str) -> None:
    path = manifest(tmp_path / name, [{"text": "a dog barks", "image": "dog.png"}])
    assert list(from_manifest(path, ("text",))) == [Item("a dog barks", "a dog barks", {"image": "dog.png"})]
    assert list(from_manifest(path, ("image",)))[0].id == "dog.png"


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.tsv"])
def test_a_table_without_the_column_names_those_it_has(tmp_path: Path, name: str) -> None:
    path = manifest(tmp_path / name, [{"id": 1, "image": "a.png"}])
    with pytest.raises(UserError, match="no column 'audio'; it has id, image"):
        list(from_manifest(path, ("audio",)))


def test_an_empty_table_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    with pytest.raises(UserError, match="no column 'image'; it has none"):
        list(from_manifest(tmp_path / "empty.csv", ("image",)))


def test_an_empty_cell_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("id,image\n1,a.png\n2,\n3,c.png\n")
    first, second, third = from_manifest(tmp_path / "pairs.csv", ("image",))
    assert (first.id, third.id) == ("1", "3")
    assert isinstance(second, Failure)
    assert second.id == "2"
    assert "pairs.csv:3" in second.reason


def test_a_table_may_have_a_byte_order_mark_crlf_quotes_and_newlines_in_cells(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_bytes(b'\xef\xbb\xbftext,id\r\n"a dog, ""loud""\nand near",1\r\n')
    assert list(from_manifest(tmp_path / "pairs.csv", ("text",))) == [Item("1", 'a dog, "loud"\nand near')]


def test_a_long_cell_is_read_whole(tmp_path: Path) -> None:
    sentence = "word " * 40_000
    (tmp_path / "pairs.csv").write_text(f'text,id\n"{sentence}",1\n')
    assert list(from_manifest(tmp_path / "pairs.csv", ("text",))) == [Item("1", sentence)]


def test_a_manifest_line_that_is_no_json_object_is_named(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"image": "a.png"}\n\n[1]\n')
    items = from_manifest(tmp_path / "pairs.jsonl", ("image",))
    assert next(items) == Item("a.png", str(tmp_path / "a.png"))
    with pytest.raises(UserError, match=r"pairs\.jsonl:3: not a JSON object"):
        next(items)


def test_a_missing_manifest_and_one_that_is_no_text_say_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl: No such file"):
        list(from_manifest(tmp_path / "none.jsonl", ("image",)))
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"bytes\.jsonl: .*decode"):
        list(from_manifest(tmp_path / "bytes.jsonl", ("image",)))


@pytest.mark.timeout(10)
def test_a_manifest_may_be_a_pipe_that_is_still_being_written(tmp_path: Path) -> None:
    path = tmp_path / "endless.jsonl"
    os.mkfifo(path)
    own = os.open(path, os.O_RDWR)  # keeps the pipe open, so that it never ends
    os.write(own, b'{"image": "a.png"}\n')
    items = from_manifest(path, ("image",))
    assert next(items) == Item("a.png", str(tmp_path / "a.png"))
    items.close()
    os.close(own)


# Stretches


def test_a_row_with_seconds_is_a_stretch_and_its_id_says_so() -> None:
    rows = [
        {"audio": "a.wav", "start": 10, "end": 15.5},
        {"audio": "a.wav", "start": "1"},
        {"audio": "a.wav", "end": " 4 "},
        {"id": "x", "audio": "a.wav", "start": 0.25},
    ]
    found = lines("".join(json.dumps(row) + "\n" for row in rows).encode(), "audio")
    assert [item.id for item in found] == ["a.wav#10-15.5", "a.wav#1-", "a.wav#-4", "x"]
    assert payloads(found) == [Stretch("a.wav", 10, 15.5), Stretch("a.wav", 1), Stretch("a.wav", None, 4), Stretch("a.wav", 0.25)]
    assert isinstance(found[0], Item)
    assert found[0].meta == {"start": 10, "end": 15.5}


@pytest.mark.parametrize("modality", ["image", "text", "depth", "thermal"])
def test_seconds_of_what_has_none_are_columns_like_any(modality: str) -> None:
    row = {modality: "a", "start": "soon", "end": -1}
    assert lines(json.dumps(row).encode(), modality) == [Item("a", "a", {"start": "soon", "end": -1})]


def test_seconds_of_a_row_are_those_of_each_of_its_modalities_that_has_time() -> None:
    (item,) = from_lines(io.BytesIO(b'{"image": "a.png", "audio": "a.wav", "start": 1, "end": 2}'), ("image", "audio"))
    assert item == Item("a.png#1-2", {"image": "a.png", "audio": Stretch("a.wav", 1, 2)}, {"start": 1, "end": 2})


@pytest.mark.parametrize("times", ["soon", "10,5", "1:30", -1, 5, True, float("nan"), float("inf"), [1], {}, "", "-0.1"])
def test_seconds_that_are_none_fail_their_row_alone(times: object) -> None:
    rows = [
        {"id": "a", "video": "a.mp4", "start": times, "end": 5},
        {"video": "b.mp4", "end": -2},
        {"video": "c.mp4", "start": None, "end": None},
    ]
    first, second, third = lines("".join(json.dumps(row) + "\n" for row in rows).encode(), "video")
    for failure, id, place in ((first, "a", "line 1: "), (second, "line 2", "")):
        assert isinstance(failure, Failure)
        assert failure.id == id
        assert failure.reason.startswith(f"{place}start and end are seconds")
    assert third == Item("c.mp4", "c.mp4", {"start": None, "end": None})
