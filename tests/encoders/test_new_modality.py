"""docs/new-modality.md, done: its file, line and config put into a copy of the package, and its commands run there."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imagebind_cli
from tests.generate import pixels

PAGE = Path(__file__).parents[2] / "docs" / "new-modality.md"
ENCODER, LINE, SUFFIXES, CONFIG, ROW, COMMANDS = [match[1] for match in re.finditer(r"```\w*\n(.*?)```", PAGE.read_text(), re.DOTALL)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the package as the page changes it, and gloves' pressure maps that follow from their pictures."""
    folder = tmp_path_factory.mktemp("touch")
    package = folder / "imagebind_cli"
    shutil.copytree(Path(imagebind_cli.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "encoders" / "touch.py").write_text(ENCODER)
    registry = (package / "registry.py").read_text()
    (package / "registry.py").write_text(registry.replace("ENCODERS = {\n", f"ENCODERS = {{\n{LINE}", 1))
    kinds = (package / "file_kinds.py").read_text()
    assert "for modality, suffixes in {\n" in kinds
    (package / "file_kinds.py").write_text(kinds.replace("for modality, suffixes in {\n", f"for modality, suffixes in {{\n{SUFFIXES}", 1))
    (folder / "touch.json").write_text(CONFIG)
    names = ["mug", *(f"thing{number}" for number in range(1, 16))]
    for seed, name in enumerate(names):
        seen = Image.fromarray(pixels(seed, (64, 64)))
        seen.save(folder / f"{name}.png")
        np.save(folder / f"{name}.npy", np.asarray(seen.convert("L").resize((16, 16))).astype(np.uint16) * 16)
    rows = [json.dumps(json.loads(ROW) | {"id": name, "image": f"{name}.png", "touch": f"{name}.npy"}) + "\n" for name in names]
    (folder / "pairs.jsonl").write_text("".join(rows[:12]))
    (folder / "val.jsonl").write_text("".join(rows[12:]))
    return folder


@pytest.mark.timeout(600)
def test_what_the_page_shows_works(place, program):
    said = {}
    for command in re.findall(r"^\$ (.+)$", COMMANDS, re.MULTILINE):
        line = re.sub(r"(^|\| )imagebind ", rf"\1{shlex.quote(str(program))} ", command)
        done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], cwd=place, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        said[command] = done
    learnt, trained, embedded, _, found = said.values()
    assert "learnt by heart" in learnt.stderr
    assert "vision is frozen" in trained.stderr
    assert json.loads(trained.stdout)["steps"] == 40
    vector = json.loads(embedded.stdout)["embedding"]
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    best = json.loads(found.stdout.splitlines()[0])
    assert (best["id"], best["modality"]) == ("mug.npy", "touch")
    assert best["score"] == pytest.approx(1, abs=1e-4)


def test_it_is_offered(place):
    done = subprocess.run([sys.executable, "-m", "imagebind_cli", "embed", "smell", "x"], cwd=place, capture_output=True, text=True)
    assert (done.returncode, "touch" in done.stderr) == (2, True), done.stderr


def test_a_folder_skips_what_is_no_touch(place, python):
    (place / "things").mkdir()
    for name in ("mug.npy", "mug.png", "pairs.jsonl"):
        shutil.copy(place / name, place / "things")
    arguments = ["preprocess", "touch", "things", "--model", "touch.json", "-o", "things.tar"]
    done = python("-m", "imagebind_cli", *arguments, cwd=place)
    assert (done.returncode, "1 prepared, 2 other files skipped" in done.stderr) == (0, True), done.stderr


WITH_OPTION = """
import dataclasses, sys
from imagebind_cli import options
from imagebind_cli.options.modalities import OPTIONS
load = options.choice(4095, "Number that a fully loaded sensor gives.", minimum=1)
OPTIONS["touch"] = dataclasses.make_dataclass("TouchOptions", [("full_load", int, load)], frozen=True, bases=(options.ReadingOptions,))
from imagebind_cli.cli import run_command_line
run_command_line()
"""


@pytest.mark.parametrize("command", ["embed", "preprocess", "zeroshot"])
def test_its_subcommand_and_flags_appear_by_themselves(place, command):
    def shown(*words):
        done = subprocess.run([sys.executable, "-c", WITH_OPTION, command, *words], cwd=place, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    listed, own, other = shown("--help"), shown("touch", "--help"), shown("audio", "--help")
    assert "\n  touch\n" in listed
    assert "Reading touch:\n  --full-load N  Number that a fully loaded sensor gives. [default: 4095]" in own
    assert "full-load" not in listed + other
