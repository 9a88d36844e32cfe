"""docs/new-family.md, done: its file as a package and in a copy of this one, its commands run, and its models found by name."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save

import imagebind_cli as ib
from imagebind_cli.errors import UserError
from imagebind_cli.weights import download
from imagebind_cli.weights.find import NotFetched
from tests.conftest import Python, Run
from tests.encoders.test_new_modality import CONFIG as TOUCH_CONFIG
from tests.encoders.test_new_modality import ENCODER as TOUCH_FILE
from tests.families import sketch
from tests.generate import pixels
from tests.site import Site, offer, serve

SENTENCES = ["a mug", "two mugs on a table"]
RunAt = Callable[..., "subprocess.CompletedProcess[str]"]


def with_packages(folder: Path) -> dict[str, str]:
    """The environment in which this folder's packages are installed."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(ib.__file__).parents[1])])}


@pytest.fixture
def run_at(python: Python) -> RunAt:
    """Run `imagebind WORDS` in a folder, with the packages of another."""

    def run(place: Path, packages: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = python("-m", "imagebind_cli", *words, cwd=place, env=with_packages(packages))
        assert done.returncode == code, done.stderr
        return done

    return run


@pytest.mark.usefixtures("family")
def test_its_vectors_are_those_of_its_authors(tmp_path: Path) -> None:
    ours, theirs = ib.load(sketch.write_weights(tmp_path / "sketch"), device="cpu"), sketch.tensors()
    pictures = torch.randn(3, 3, sketch.VALUES["size"], sketch.VALUES["size"])
    ids = torch.cat([sample.tensor for text in SENTENCES for sample in ours.read("text", text)])
    assert (ours.encode("image", pictures) - sketch.encode(theirs, "vision", pictures)).abs().max() < 1e-5
    assert (ours.encode("text", ids) - sketch.encode(theirs, "text", ids)).abs().max() < 1e-5


@pytest.mark.timeout(600)
def test_what_the_page_shows_works_from_a_package(run_at: RunAt, tmp_path: Path) -> None:
    packages = sketch.write_package(tmp_path / "packages")
    (packages / "sketch_family.py").write_text(sketch.FILE)
    place = tmp_path / "place"
    sketch.write_weights(place / "sketch")
    Image.fromarray(pixels(3, (90, 60))).save(place / "mug.png")
    said = [run_at(place, packages, *shlex.split(line)[1:]) for line in re.findall(r"^\$ (.+)$", sketch.COMMANDS, re.MULTILINE)]
    info, _, found, _, prepared, _, text = said
    assert "\nfamily     sketch\n" in info.stdout
    assert json.loads(found.stdout.splitlines()[0])["id"] == "mug.png"
    square = np.array(Image.fromarray(pixels(3, (90, 60))).resize((48, 48), Image.Resampling.BILINEAR), np.float32)
    picture = torch.from_numpy(square).permute(2, 0, 1)[None] / 255 * 2 - 1
    expected = sketch.encode(sketch.tensors(), "vision", picture)[0].numpy()
    assert json.loads(prepared.stdout)["embedding"] == pytest.approx(expected, abs=1e-5)
    (sample,) = ib.load("tiny", device="cpu").read("text", "a mug")
    expected = sketch.encode(sketch.tensors(), "text", sample.tensor)[0].numpy()
    assert json.loads(text.stdout)["embedding"] == pytest.approx(expected, abs=1e-5)

    assert "sketch, of the package sketch-family 0.1" in run_at(place, packages, "doctor").stdout
    refused = run_at(place, packages, "embed", "image", "mug.png", "--model", "sketch", "--clips", "3", code=2)
    assert "image has no option" in refused.stderr
    without = run_at(place, tmp_path, "embed", "text", "a mug", "--model", "ours", code=1)
    assert without.stderr.startswith("imagebind: unknown family 'sketch' of models; known are imagebind, ")
    assert len(without.stderr.splitlines()) == 1


@pytest.mark.timeout(300)
def test_one_line_in_this_package_does_the_same(run_at: RunAt, tmp_path: Path) -> None:
    package = tmp_path / "imagebind_cli"
    shutil.copytree(Path(ib.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "families" / "sketch.py").write_text(sketch.FILE)
    text = (package / "registry.py").read_text()
    (package / "registry.py").write_text(text.replace("FAMILIES = {\n", f"FAMILIES = {{\n{sketch.LINE}", 1))
    sketch.write_weights(tmp_path / "sketch")
    assert "\nfamily     sketch\n" in run_at(tmp_path, tmp_path, "weights", "info", "sketch").stdout


BROKEN = {
    "cannot_be_imported": ("raise RuntimeError('made for another version')\n", "RuntimeError: made for another version"),
    "of_another_name": (sketch.FILE.replace('Family(\n    "sketch"', 'Family(\n    "draft"'), "is named 'draft'"),
    "without_a_family": ("FAMILY = 3\n", "is not a family"),
}


@pytest.mark.parametrize(("text", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_package_is_named_and_stops_no_other_model(run_at: RunAt, python: Python, tmp_path: Path, text: str, reason: str) -> None:
    packages = sketch.write_package(tmp_path / "packages")
    (packages / "sketch_family.py").write_text(text)
    done = run_at(tmp_path, packages, "embed", "text", "a mug", "--model", "tiny")
    assert len(json.loads(done.stdout)["embedding"]) == 64
    refused = run_at(tmp_path, packages, "embed", "text", "a mug", "--model", "nothing", code=1)
    assert len([line for line in refused.stderr.splitlines() if reason in line and "sketch-family 0.1" in line]) == 1
    code = "from imagebind_cli.installation import _families as f; print([(c.ok, c.found) for c in f()])"
    check = python("-c", code, env=with_packages(packages))
    assert "(False, 'sketch of the package sketch-family 0.1" in check.stdout.replace('"', "'"), check.stderr


# A new modality from a package


OPTIONS = """
from dataclasses import dataclass
from imagebind_cli.options import ReadingOptions, choice

@dataclass(frozen=True)
class TouchOptions(ReadingOptions):
    full_load: int = choice(4095, "Number that a fully loaded sensor gives.", minimum=1)
"""


def write_touch(folder: Path) -> Path:
    """A package that brings the modality of docs/new-modality.md, and an option for its reader."""
    sketch.write_package(folder, "touch-sensor", sketch.MODALITY_ENTRIES)
    (folder / "touch_sensor").mkdir()
    (folder / "touch_sensor" / "__init__.py").touch()
    (folder / "touch_sensor" / "touch.py").write_text(TOUCH_FILE.replace("values / FULL_LOAD", "values / options.full_load"))
    (folder / "touch_sensor" / "options.py").write_text(OPTIONS)
    return folder


def test_a_package_brings_a_modality_with_its_options(run_at: RunAt, tmp_path: Path) -> None:
    packages = write_touch(tmp_path / "packages")
    help = run_at(tmp_path, packages, "embed", "touch", "--help").stdout
    assert "Reading touch:\n  --full-load N  Number that a fully loaded sensor gives. [default: 4095]" in help
    listed = run_at(tmp_path, packages, "preprocess", "--help").stdout
    assert "\n  touch\n" in listed
    assert "full-load" not in run_at(tmp_path, packages, "embed", "audio", "--help").stdout
    assert "touch, of the package touch-sensor 0.1" in run_at(tmp_path, packages, "doctor").stdout
    (tmp_path / "touch.json").write_text(json.dumps(json.loads(TOUCH_CONFIG) | {"rule_seed": 1}))
    np.save(tmp_path / "mug.npy", np.arange(256, dtype=np.uint16).reshape(16, 16))
    words = ("preprocess", "touch", "mug.npy", "--model", "touch.json", "--inspect")
    plain = json.loads(run_at(tmp_path, packages, *words).stdout)
    assert plain["shape"] == [1, 32, 32]
    wrong = run_at(tmp_path, packages, *words, "--full-load", "0", code=2)
    assert "full-load" in wrong.stderr
    unknown = run_at(tmp_path, tmp_path, "embed", "touch", "x", code=2)
    assert "unknown modality 'touch'; choose from image, video" in unknown.stderr


def test_help_imports_neither_torch_nor_the_package(run_at: RunAt, tmp_path: Path) -> None:
    packages = write_touch(tmp_path)
    (packages / "touch_sensor" / "touch.py").write_text("raise SystemExit('imported')\n")
    (packages / "torch.py").write_text("raise SystemExit('torch is imported')\n")
    assert "\n  touch\n" in run_at(tmp_path, packages, "embed", "--help").stdout


# Models published under a name


def found(name: str) -> None:
    ib.load(name, device="cpu")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    """The hub and the mirror of single files, which have Sketch's models."""
    import huggingface_hub
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_OFFLINE", "IMAGEBIND_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    folder = sketch.write_weights(tmp_path / "published")
    for site in serve():
        monkeypatch.setenv("HF_ENDPOINT", site.address)
        monkeypatch.setenv("IMAGEBIND_MIRROR", site.address)
        offer(site, {path.name: path.read_bytes() for path in folder.iterdir()}, repository="me/sketch-small")
        yield site
    huggingface_hub.close_session()


@pytest.mark.usefixtures("family", "site")
def test_a_model_is_pulled_and_found_by_its_name(imagebind: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = json.loads(imagebind("weights", "list", "--json").out)
    (mine,) = [each for each in row if each["name"] == "sketch-small"]
    state = "not here; imagebind weights pull sketch-small"
    assert mine == {
        "name": "sketch-small", "family": "sketch", "state": state, "licence": "MIT", "about": "Sketch with two layers", "default": False,
    }  # fmt: skip
    early = imagebind("embed", "text", "a mug", "--model", "sketch-small")
    assert (early.code, early.notices) == (
        1, ["imagebind: sketch-small is not on this machine; fetch it with: imagebind weights pull sketch-small"],
    )  # fmt: skip
    with pytest.raises(NotFetched):
        found("sketch-small")
    pulled = imagebind("weights", "pull", "sketch-small")
    assert pulled.code == 0, pulled.err
    assert "sketch-small: its weights are under MIT" in pulled.err
    assert Path(pulled.out.decode().strip()) == download.home() / "hf" / "me--sketch-small"
    lines = imagebind("weights", "list").out.decode().splitlines()
    assert [line.split()[:3] for line in lines if "sketch-small" in line] == [["sketch-small", "sketch", "fetched"]]

    model = ib.load("sketch-small", device="cpu")
    assert (model.name, model.checkpoint.config.licence, model.folder) == ("sketch-small", "MIT", None)
    record = model.record("text")
    assert (record["model"], record["family"], record["licence"]) == ("sketch-small", "sketch", "MIT")
    store = tmp_path / "text.h5"
    assert imagebind("embed", "text", *SENTENCES, "--model", "sketch-small", "-o", store).code == 0
    monkeypatch.delenv("IMAGEBIND_MODEL")
    asked = imagebind("retrieve", store, "--text", SENTENCES[1], "-k", 1)
    assert asked.ids == [SENTENCES[1]], asked.err
    about = json.loads(imagebind("weights", "info", "sketch-small", "--json").out)
    assert (about["name"], about["family"], about["origin"]["address"]) == ("sketch-small", "sketch", "hf://me/sketch-small")
    assert imagebind("weights", "verify", "sketch-small").out.startswith(b"sketch-small (sketch): 2 files as recorded, 2 encoders load")
    assert ib.load("hf://me/sketch-small", device="cpu").name != "sketch-small"


@pytest.mark.usefixtures("family")
def test_a_single_file_is_pulled_by_its_name(site: Site, imagebind: Run) -> None:
    content = save(sketch.tensors())
    site.files["/sketch/sketch-file.safetensors"] = content
    assert imagebind("weights", "pull", "sketch-file", "--sha256", "0" * 64).code == 1
    pulled = imagebind("weights", "pull", "sketch-file")
    folder = Path(pulled.out.decode().strip())
    assert folder == download.home() / "sketch-file"
    assert load_file(folder / "sketch-file.safetensors").keys() == sketch.tensors().keys()
    with pytest.raises(UserError, match=r"need their sketch\.json"):  # as its authors publish it, it says nothing of itself
        found("sketch-file")
    (folder / "sketch.json").write_text(sketch.CONFIG)
    assert ib.load("sketch-file", device="cpu").name == "sketch-file"
    assert imagebind("weights", "pull", "sketch-small", "--sha256", "0" * 64).code == 2


@pytest.mark.usefixtures("family")
def test_names_of_models_are_in_messages(imagebind: Run) -> None:
    unknown = imagebind("embed", "text", "a mug", "--model", "sketch-large")
    assert "did you mean sketch-file?" in unknown.err
    unknown = imagebind("embed", "text", "a mug", "--model", "nowhere")
    assert "and not one of mini, base, compact, huge, tiny, " in unknown.err
    assert unknown.err.rstrip().endswith("sketch-small, sketch-file")
    nothing = imagebind("weights", "pull", "sketch-large")
    assert "choose from huge, " in nothing.err
    assert nothing.err.rstrip().endswith("sketch-small, sketch-file, hf://owner/repo")


@pytest.mark.usefixtures("family")
def test_names_of_models_are_completed_without_importing_families(imagebind: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_IMAGEBIND_COMPLETE", "complete_bash")
    for words in (["embed", "text", "--model", "sk"], ["weights", "pull", "sk"]):
        monkeypatch.setenv("COMP_WORDS", " ".join(["imagebind", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        assert imagebind().out.decode().split() == ["sketch-file", "sketch-small"]
    assert "sketch_family" not in sys.modules
