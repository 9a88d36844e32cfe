"""Help that a person can read: its length, its headings, and the options of one modality alone; and what the parser takes beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebind_cli import registry
from imagebind_cli.cli.flags import modality_flags
from imagebind_cli.options import modalities
from tests import generate

Run = Any
GROUPS = ["embed", "preprocess", "zeroshot"]


@pytest.fixture
def help(imagebind: Run, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The help of a command on a terminal of 120 columns, as its lines."""
    monkeypatch.setenv("COLUMNS", "120")

    def lines(*words: str, flag: str = "--help") -> list[str]:
        run = imagebind(*words, flag)
        assert (run.code, run.err) == (0, "")
        return run.out.decode().splitlines()

    return lines


def flags(lines: list[str]) -> set[str]:
    """The long options that are described."""
    return {name for line in lines for name in re.findall(r"^  (?:-\S+, )*--([\w-]+)", line)}


def headings(lines: list[str]) -> list[str]:
    return [line.removesuffix(":") for line in lines if re.fullmatch(r"[A-Z][\w, ]+:", line)]


def own_flags(modality: str) -> set[str]:
    return {name.replace("_", "-") for name in modality_flags([modality])}


READING = {name.replace("_", "-") for name in modalities.flags()}


@pytest.mark.parametrize(
    ("words", "most"), [(["embed"], 45), (["preprocess"], 45), (["zeroshot"], 70), (["retrieve"], 60), (["train"], 45), (["locate"], 70)]
)
def test_help_of_a_command_is_short(help: Any, words: list[str], most: int) -> None:
    lines = help(*words)
    assert len(lines) <= most
    assert max(map(len, lines)) <= 120
    assert not flags(lines) & READING


@pytest.mark.parametrize("command", GROUPS)
@pytest.mark.parametrize("modality", registry.MODALITIES)
def test_a_modality_has_the_common_options_and_its_own(help: Any, command: str, modality: str) -> None:
    lines = help(command, modality)
    assert flags(lines) & READING == own_flags(modality)
    assert {"manifest", "column", "include", "model", "errors"} <= flags(lines)
    if modality not in ("depth", "thermal", "imu"):
        assert len(lines) <= 60 + 4 * ("tiles" in own_flags(modality))
        assert not re.search(r"depth|thermal|IMU|video" if modality == "audio" else r"IMU", "\n".join(lines[3:]))
    assert headings(lines)[0] == "Input"
    assert headings(lines)[-1] == (f"Reading {modality}" if own_flags(modality) else "Model")


@pytest.mark.parametrize("command", GROUPS)
def test_a_group_lists_its_modalities_and_the_common_options_under_headings(help: Any, command: str) -> None:
    lines = help(command)
    listed = lines[lines.index("Modalities:") + 1 :][: len(registry.MODALITIES)]
    assert [line.split()[0] for line in listed] == list(registry.MODALITIES)
    assert all(modalities.SUMMARIES[line.split()[0]] in line for line in listed)
    assert {"Input", "Output", "Model"} <= set(headings(lines))


def test_defaults_are_shown(help: Any) -> None:
    lines = " ".join(" ".join(help("embed", "imu")).split())
    for wanted in ("--max-gap NUMBER", "[default: 0.1]", "--placement hand|chest|ankle Sensor of a PAMAP2 recording. [default: hand]"):
        assert wanted in lines
    assert "--channels first|mix Use the first channel, or all channels mixed. [default: first]" in " ".join(
        " ".join(help("embed", "audio")).split()
    )


def test_joined_modalities_have_the_options_of_each(help: Any) -> None:
    assert flags(help("preprocess", "audio,depth")) & READING == own_flags("audio") | own_flags("depth")


def test_retrieve_shows_its_parts_and_reading_flags_on_demand(help: Any) -> None:
    lines = help("retrieve")
    assert headings(lines) == ["Queries", "Search", "Page", "Evaluation", "Model", "Other"]
    assert lines[-1].endswith("imagebind retrieve --help-all")
    everything = help("retrieve", flag="--help-all")
    assert flags(everything) - flags(lines) == READING | {"config", "server"}


@pytest.mark.parametrize("command", GROUPS)
def test_everything_is_shown_on_demand(help: Any, command: str) -> None:
    assert flags(help(command, flag="--help-all")) >= READING | flags(help(command))
    assert flags(help(command, "audio", flag="--help-all")) & READING == own_flags("audio")


def test_rare_options_of_a_probe_wait_for_help_all(help: Any) -> None:
    rare = {"seed", "epochs", "learning-rate", "weight-decay", "shot-batch"}
    assert not rare & flags(help("zeroshot", "audio"))
    assert rare <= flags(help("zeroshot", "audio", flag="--help-all"))


# What the parser takes


@pytest.mark.parametrize(
    "words",
    [
        ["image", "a.png", "--model", "tiny", "--device", "cpu"],
        ["--model", "tiny", "image", "--device", "cpu", "a.png"],
        ["--model=tiny", "--device", "cpu", "image", "--", "a.png"],
        ["image", "--device", "cpu", "a.png", "--model", "tiny"],
        ["--device", "cpu", "--model", "tiny", "--", "image", "a.png"],
    ],
)
def test_options_may_come_anywhere(imagebind: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    generate.picture(tmp_path / "a.png")
    run = imagebind("embed", *words)
    assert (run.code, run.ids) == (0, ["a.png"])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["embed"], "the modality is missing; choose from image, video"),
        (["embed", "--device", "cpu"], "the modality is missing"),
        (["embed", "image,audio", "x"], "unknown modality 'image,audio'; choose from image"),
        (["embed", "image", "x", "--max-gap", "1"], "image has no option 'max-gap'; it has tiles, region-shape, resize"),
        (
            ["embed", "--max-gap", "1", "audio", "x"],
            f"audio has no option 'max-gap'; it has {', '.join(registry.face('audio').option_names())}",
        ),
        (["preprocess", "image,audio", "x", "-o", "a.tar", "--focal=3"], "none of image, audio has an option 'focal'"),
        (["preprocess", "image,smell", "x", "-o", "a.tar"], "unknown modality 'smell'"),
        (["zeroshot", "audio", "x", "--labels", "a,b", "--focal", "3"], "audio has no option 'focal'; it has clips"),
        (["zeroshot"], "give the modality of the inputs, or a --suite"),
        (["embed", "image", "x", "--none"], "no such option: --none"),
    ],
)
def test_wrong_usage_is_one_line_and_a_hint(imagebind: Run, words: list[str], line: str) -> None:
    run = imagebind(*words)
    assert (run.code, run.out) == (2, b"")
    assert line in run.notices[0]
    assert len(run.notices) == 2


# Which files, and which columns


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures of two kinds and a table of some of them, as people have it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("a.PNG", "b.png", "c.bmp"):
        generate.picture(tmp_path / "photos" / name, len(name))
    (tmp_path / "table.csv").write_text("file_name,caption,what\nphotos/a.PNG,a dog,dog\nphotos/c.bmp,a car,car\n")
    return tmp_path


def test_only_files_that_match_are_taken(embed: Run, imagebind: Run, mixed: Path) -> None:
    run = embed("image", "photos", "--include", "*.png")
    assert (run.code, run.ids) == (0, ["photos/a.PNG", "photos/b.png"])
    assert embed("image", "photos/*", "--include", "*.bmp", "--include", "b.*").ids == ["photos/b.png", "photos/c.bmp"]
    assert embed("image", "photos/c.bmp", "--include", "*.png").ids == ["photos/c.bmp"]  # named, not found
    none = embed("image", "photos", "--include", "*.jpg")
    assert (none.code, none.notices) == (1, ["imagebind: photos: none of its 3 files matches --include *.jpg"])
    run = imagebind("preprocess", "image", "photos", "--include", "*.bmp", "--inspect")
    assert run.ids == ["photos/c.bmp"]
    run = imagebind("zeroshot", "image", "photos", "--include", "*.bmp", "--labels", "cat,dog")
    assert run.ids == ["photos/c.bmp"]


def test_files_are_taken_by_kind(embed: Run, imagebind: Run, mixed: Path) -> None:
    generate.video(mixed / "photos" / "d.MP4", seconds=2, sound=True)
    generate.audio(mixed / "photos" / "e.wav")
    run = embed("audio", "photos", "--include", "kind:audio")
    assert (run.code, run.ids) == (0, ["photos/e.wav"])
    assert embed("audio", "photos", "--include", "kind:video", "--include", "e.*").ids == ["photos/d.MP4", "photos/e.wav"]
    assert embed("vision", "photos", "--include", "kind:video").ids == ["photos/d.MP4"]
    run = imagebind("preprocess", "vision", "photos", "--include", "kind:image", "--inspect")
    assert run.ids == ["photos/a.PNG", "photos/b.png", "photos/c.bmp"]
    assert imagebind("zeroshot", "vision", "photos", "--include", "kind:video", "--labels", "cat,dog").ids == ["photos/d.MP4"]
    assert embed("audio", "photos", "--include", "kind:audio", "--dry-run").out.startswith(b"1 audio input: ")
    for command in (("embed", "audio"), ("preprocess", "--inspect", "audio"), ("zeroshot", "audio", "--labels", "a,b")):
        unknown = imagebind(*command, "photos", "--include", "kind:film")
        assert (unknown.code, "choose from kind:image, kind:video" in unknown.err) == (2, True), unknown.err


def test_one_table_serves_every_command_with_one_id_for_a_row(embed: Run, imagebind: Run, mixed: Path) -> None:
    columns = ["--column", "image=file_name", "--column", "text=caption", "--column", "id=file_name", "--column", "label=what"]
    names = ["photos/a.PNG", "photos/c.bmp"]
    pictures = embed("image", "--manifest", "table.csv", *columns)
    words = embed("text", "--manifest", "table.csv", *columns)
    assert pictures.ids == words.ids == names
    assert np.allclose(words.vectors, embed("text", "a dog", "a car").vectors)
    assert imagebind("preprocess", "image,text", "--manifest", "table.csv", *columns, "-o", "both.tar").code == 0
    assert embed("text", "both.tar").ids == names
    run = imagebind(
        "zeroshot", "image", "--manifest", "table.csv", *columns, "--labels", "dog,car", "--truth", "label", "--report", "r.json"
    )
    assert (run.code, json.loads(Path("r.json").read_text())["items"]["scored"]) == (0, 2)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["photos", "--column", "image=file_name"], "--column names columns of a --manifest"),
        (["--manifest", "table.csv", "--column", "image"], "NAME=COLUMN is needed"),
        (["--manifest", "table.csv", "--column", "imge=file_name"], "unknown name 'imge'; choose from image"),
        (["--manifest", "table.csv", "--column", "image=a", "--column", "image=b"], "image is given twice"),
    ],
)
def test_columns_that_cannot_be_meant_are_refused(embed: Run, mixed: Path, words: list[str], line: str) -> None:
    run = embed("image", *words)
    assert run.code == 2
    assert line in run.err


def test_a_column_that_is_not_there_is_named(embed: Run, mixed: Path) -> None:
    run = embed("image", "--manifest", "table.csv", "--column", "image=path")
    assert (run.code, "no column 'path'; it has file_name, caption, what" in run.err) == (1, True)
