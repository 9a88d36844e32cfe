"""Every way to name inputs, against real folders, links, pipes and manifests."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from imagebind_cli.errors import UserError
from imagebind_cli.file_kinds import Others, is_other
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


def test_files_of_a_folder_have_the_same_ids_where_paths_have_backslashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a\\b.png").touch()  # a name on this system, and a path on Windows
    monkeypatch.setattr("os.sep", "\\")
    assert [item.id for item in arguments(str(tmp_path))] == [f"{tmp_path}/a/b.png"]
    assert [item.id for item in arguments(f"{tmp_path}/*.png")] == [f"{tmp_path}/a/b.png"]
    assert [item.id for item in arguments(f"{tmp_path}/a\\b.png")] == [f"{tmp_path}/a\\b.png"]


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
    assert payloads(arguments("dog", "a * star?", modality="text")) == ["dog", "a * star?"]


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


# Tables in which something else may be meant than stands there


def sentences(path: Path, data: bytes) -> list[str]:
    """The sentences of a manifest, and for a row that is refused its reason."""
    path.write_bytes(data)
    return [item.payload if isinstance(item, Item) else f"{item.id}: {item.reason}" for item in from_manifest(path, ("text",))]


@pytest.mark.parametrize(
    ("name", "data", "wanted"),
    [
        ("quote.tsv", b'id\ttext\n1\tok\n2\t"open quote\n3\t5" disk\n4\ta "b" c\n', ["ok", '"open quote', '5" disk', 'a "b" c']),
        ("middle.csv", b'id,text\n1,a 5" disk\n2,ok\n', ['a 5" disk', "ok"]),
        ("spaces.csv", b'id, text\n1, "a dog, running"\n2, cat\n', ["a dog, running", "cat"]),
        ("blank.csv", b"\n\nid,text\n\n1,a\n , \n,\n2,b\n\n", ["a", "b"]),
        ("old.csv", b"id,text\r1,a\r2,b\r", ["a", "b"]),
        ("old.jsonl", b'{"text": "a"}\r{"text": "b"}\r', ["a", "b"]),
        ("twice.csv", b"id,text\r\r\n1,a\r\r\n2,b\r\r\n", ["a", "b"]),
        ("UPPER.CSV", b"\xef\xbb\xbfid,text\r\n1,a\r\n", ["a"]),
        ("index.csv", b",id,text\n0,1,a\n1,2,b\n", ["a", "b"]),
        ("last.csv", b"id,text,\n1,a,\n2,b,\n", ["a", "b"]),
        ("separator.jsonl", '{"text": "a\u2028b"}\n'.encode(), ["a\u2028b"]),
    ],
)
def test_a_table_is_read_as_it_is_meant(tmp_path: Path, name: str, data: bytes, wanted: list[str]) -> None:
    assert sentences(tmp_path / name, data) == wanted


@pytest.mark.parametrize(
    ("name", "data", "line", "words"),
    [
        ("comma.csv", b"id,text\n1,a dog, running in snow\n2,b\n", 2, "3 cells for 2 columns; put a cell that holds a comma between quot"),
        ("one.csv", b"text\na dog, running\nb\n", 2, "2 cells for 1 column"),
        ("end.csv", b"id,text\n1,a dog,\n2,b\n", 2, "3 cells for 2 columns"),
        ("nameless.csv", b"id,text,\n1,a dog, running\n2,b,\n", 2, "has 'running' in a column without a name"),
        ("short.csv", b"id,text,label\n1,a dog\n2,b,c\n", 2, "has 2 cells for 3 columns"),
        ("tab.tsv", b"id\ttext\n1\ta dog\trunning\n2\tb\n", 2, "3 cells for 2 columns; a cell cannot hold a tab"),
        ("after.csv", b'id,text\n1,"a" dog\n2,b\n', 2, "has text after a closing quotation mark"),
        ("lines.csv", b'id,text\n1,"a\ndog", x\n2,b\n', 2, "3 cells for 2 columns"),
        ("twice.jsonl", b'{"id": 1, "text": "a", "text": "c"}\n{"text": "b"}\n', 1, "has 'text' twice"),
    ],
)
def test_a_row_that_may_be_meant_otherwise_fails_alone_with_its_line(tmp_path: Path, name: str, data: bytes, line: int, words: str) -> None:
    first, last = sentences(tmp_path / name, data)
    assert first.startswith(f"{tmp_path / name}:{line}: ")
    assert words in first
    assert last == "b"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("open.csv", b'id,text\n1,ok\n2,"open\n3,lost\n4,lost\n', "open.csv:3: a quotation mark opens here and is never closed"),
        (
            "swallows.csv",
            b'id,text\n1,ok\n2,"open\n3,lost\n4,"c, d"\n',
            "swallows.csv:3: a quotation mark opens here and the next one, on line 5",
        ),
        ("names.csv", b'"id" x,text\n1,a\n', "names.csv:1: has text after a closing"),
        (
            "latin.csv",
            "id,text\n1,ok\n2,caf\xe9\n".encode("latin1"),
            "latin.csv: line 3: not UTF-8 text: byte 0xE9 cannot be decoded; if it is Latin-1, convert it: ",
        ),
        ("latin.tsv", "id\ttext\n1\tcaf\xe9\n".encode("latin1"), "iconv -f latin1 -t utf-8 "),
        ("latin.jsonl", '{"text": "ok"}\n{"text": "caf\xe9"}\n'.encode("latin1"), "latin.jsonl: line 2: not UTF-8 text"),
        ("windows.csv", "id,text\n1,caf\u2019\n".encode("cp1252"), "iconv -f cp1252 -t utf-8 "),
        (
            "utf16.csv",
            "id,text\n1,a\n".encode("utf-16"),
            "UTF-16, and cannot be decoded; convert it: iconv -f utf-16 ",
        ),
        ("unmarked.csv", "id,text\n1,a\n".encode("utf-16-le"), "unmarked.csv: line 1: not UTF-8 text but UTF-16LE"),
        ("big.jsonl", '{"text": "a"}\n'.encode("utf-16-be"), "big.jsonl: line 1: not UTF-8 text but UTF-16BE"),
        (
            "utf32.csv",
            "id,text\n1,a\n".encode("utf-32"),
            "utf32.csv: line 1: not UTF-8 text but UTF-32, and cannot be decoded",
        ),
        ("same.csv", b"id,text,text\n1,a,b\n", "same.csv: column 'text' occurs twice"),
        ("semicolons.csv", b"id;text\n1;a\n", "no column 'text'; it has id;text: semicolons separate its cells, and commas are needed"),
        ("tabs.csv", b"id\ttext\n1\ta\n", "tabs separate its cells, and commas are needed"),
        ("commas.tsv", b"id,text\n1,a\n", "commas separate its cells, and tabs are needed"),
        ("packed.csv.gz", gzip.compress(b"id,text\n1,a\n", mtime=0), "packed.csv.gz: line 1: compressed with gzip; unpack it first"),
        ("book.csv", b"PK\x03\x04" + bytes(26) + b"a.csv\nxx", "book.csv: line 1: a ZIP archive"),
        ("array.jsonl", b'[{"text": "a"}]\n', "array.jsonl:1: not a JSON object; JSON Lines has one on each line"),
    ],
)
def test_a_table_that_cannot_be_trusted_is_refused_with_its_line_and_the_remedy(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    with pytest.raises(UserError) as told:
        sentences(tmp_path / name, data)
    assert words in str(told.value)


@pytest.mark.parametrize(("name", "data"), [("names.csv", b"id,text\n"), ("none.jsonl", b""), ("blank.jsonl", b"\n\n")])
def test_a_manifest_without_rows_has_no_items(tmp_path: Path, name: str, data: bytes) -> None:
    assert sentences(tmp_path / name, data) == []


def test_a_short_row_that_lacks_what_is_asked_for_is_told_by_its_id(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,label,text\n1,x\n2,x,a dog\n")
    first, second = from_manifest(tmp_path / "a.csv", ("text",))
    assert first == Failure("1", f"{tmp_path / 'a.csv'}:2: no 'text' in this row; it has id, label")
    assert second == Item("2", "a dog", {"label": "x"})


def test_sentences_on_stdin_that_are_not_utf_8_are_told_with_their_line() -> None:
    first, second, third = lines("a\ncaf\xe9\nb\n".encode("latin1"), "text")
    assert (first, third) == (Item("a", "a"), Item("b", "b"))
    assert isinstance(second, Failure)
    assert second.reason.startswith(
        "line 2: not UTF-8 text: byte 0xE9 cannot be decoded; if it is Latin-1, convert it: iconv -f latin1 -t utf-8 "
    )
    for encoding in ("utf-16", "utf-16le", "utf-32"):
        with pytest.raises(
            UserError,
            match=f"stdin: line 1: not UTF-8 text but {encoding.upper()}, and cannot be decoded; convert it: iconv -f {encoding} -t utf-8",
        ):
            lines("a\nb\n".encode(encoding), "text")
    assert payloads(lines(b"a dog\ra cat\r", "text")) == ["a dog", "a cat"]


# Files of other kinds

OTHERS = ["README.md", ".DS_Store", "LICENSE", "Thumbs.db", "a.wav", "data.json", "desktop.ini", "notes.txt", "sub/clip.MP4", "sub/._1.png"]


def gathered(*names: object, modality: str = "image", strict: bool = False) -> tuple[list[Item | Failure], int]:
    """The items of some arguments, and how many other files were skipped."""
    others = Others(strict)
    return list(from_arguments([str(name) for name in names], (modality,), NOTHING, others=others)), others.count


def test_files_of_other_kinds_in_a_folder_are_skipped_and_counted(tmp_path: Path) -> None:
    wanted = files(tmp_path, "1.png", "2.JPG", "broken.heic", "sub/no_suffix", "sub/odd.xyz")
    files(tmp_path, *OTHERS)
    items, skipped = gathered(tmp_path)
    assert payloads(items) == wanted
    assert skipped == len(OTHERS)
    items, skipped = gathered(tmp_path / "*")
    assert payloads(items) == wanted
    assert skipped == len(OTHERS) - 1  # a star means no hidden file


def test_files_of_other_kinds_are_failures_if_asked_and_inputs_if_named(tmp_path: Path) -> None:
    wanted = files(tmp_path, "1.png")
    named = files(tmp_path, *OTHERS)
    items, skipped = gathered(tmp_path, strict=True)
    assert payloads(items) == wanted
    assert {item.id for item in items if isinstance(item, Failure)} == set(named)
    assert skipped == 0
    assert payloads(gathered(*named)[0]) == named
    assert payloads(lines("\n".join(named).encode())) == named


@pytest.mark.parametrize("argument", ["", "*.txt"])
def test_nothing_but_files_of_other_kinds_is_a_failure(tmp_path: Path, argument: str) -> None:
    files(tmp_path, "a.txt", "b.txt")
    place = os.path.join(tmp_path, argument).rstrip("/")
    assert gathered(place) == ([Failure(place, f"no image among its files: 2 of other kinds, the first {tmp_path / 'a.txt'}")], 0)


@pytest.mark.parametrize(
    ("modality", "read", "other"),
    [
        ("image", "a.gif a.tiff a.heic a.svg", "a.mp4 a.npy a.csv a.zip a.h5"),
        ("video", "a.mp4 a.MOV a.gif a.webp", "a.jpg a.png a.wav a.srt"),
        ("vision", "a.mp4 a.jpg a.gif", "a.wav a.npy a.md"),
        ("audio", "a.wav a.m4a a.mp4 a.mkv", "a.jpg a.txt a.csv"),
        ("depth", "a.png a.exr a.npy a.h5 a.mat a.pfm a.csv a.npz", "a.txt a.mp4 a.json a.wav"),
        ("thermal", "a.jpg a.tif a.npy a.csv", "a.txt a.mp4 a.wav"),
        ("imu", "a.csv a.txt a.mat a.npy a.parquet a.zip a.dat", "a.jpg a.mp4 README.txt a.md a.json"),
    ],
)
def test_which_files_are_of_another_kind(modality: str, read: str, other: str) -> None:
    assert [name for name in f"{read} a.tar a a.unknown".split() if is_other(name, [modality])] == []
    assert [name for name in f"{other} README license.TXT a.pt a.7z".split() if not is_other(name, [modality])] == []
    assert is_other("a.wav", ["video", "audio"])  # one file for both has both


def test_done_files_beside_others_are_not_nothing(tmp_path: Path) -> None:
    files(tmp_path, "1.png", "a.txt")
    others = Others()
    assert list(from_arguments([str(tmp_path)], ("image",), NOTHING, skips=lambda path: path.endswith(".png"), others=others)) == []
    assert others.count == 1


def test_an_archive_that_is_no_shard_is_named_with_the_remedy(tmp_path: Path) -> None:
    (picture,) = files(tmp_path, "a.png")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(picture, "a.png")
    tar_bytes = (tmp_path / "s.tar").read_bytes()
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.write(picture, "a.png")
    given = {
        "s.tar.gz": (
            gzip.compress(tar_bytes, mtime=0),
            f"a tar archive compressed with gzip; unpack it, or pipe it in: gunzip -c {tmp_path}/s.tar.gz | ",
        ),
        "odd": (
            gzip.compress(tar_bytes, mtime=0),
            f"a tar archive compressed with gzip; unpack it, or pipe it in: gunzip -c {tmp_path}/odd | ",
        ),
        "s.tar.bz2": (bz2.compress(tar_bytes), "bunzip2 -c "),
        "s.txz": (lzma.compress(tar_bytes), "xz -dc "),
        "s.tar.zst": (b"\x28\xb5\x2f\xfd" + bytes(600), "zstd -dc "),
        "a.png.gz": (gzip.compress(b"picture", mtime=0), "compressed with gzip; unpack it first"),
        "s.zip": ((tmp_path / "s.zip").read_bytes(), "a ZIP archive; unpack it and give its folder"),
        "s.7z": (b"7z\xbc\xaf\x27\x1c" + bytes(600), "a 7-Zip archive; unpack it"),
        "s.rar": (b"Rar!\x1a\x07\x01" + bytes(600), "a RAR archive; unpack it"),
    }
    for name, (data, words) in given.items():
        (tmp_path / name).write_bytes(data)
        (failure,) = arguments(tmp_path / name)
        assert isinstance(failure, Failure)
        assert words in failure.reason
    (failure,) = gathered(tmp_path / "*.gz")[0]
    assert isinstance(failure, Failure)
    assert "compressed with gzip" in failure.reason
    with pytest.raises(UserError, match="stdin: a tar archive compressed with gzip; .*gunzip -c FILE"):
        list(from_arguments(["-"], ("image",), io.BufferedReader(io.BytesIO(gzip.compress(tar_bytes, mtime=0)))))  # type: ignore[arg-type]


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
