"""The plugin inside the real `llm`: its models, what it makes of content, and what a user sees of an error."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagebind_cli.model import load
from tests import generate
from tests.installing import REPOSITORY, install
from tests.later import Later, needs

llm = Later("llm")
pytestmark = needs("llm")

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Register the plugin, and let `llm` keep its files in a folder of the test."""
    from llm import plugins

    import llm_imagebind

    monkeypatch.setattr(sys, "_called_from_test", True, raising=False)  # `llm` then loads no plugin of the environment
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    monkeypatch.chdir(tmp_path)
    plugins.load_plugins()
    plugins.pm.register(llm_imagebind, "imagebind")
    yield
    plugins.pm.unregister(llm_imagebind)


def run(*arguments: str | Path) -> tuple[int, str]:
    """Run a command of `llm` in this process; return its exit code and all it prints."""
    from click.testing import CliRunner
    from llm.cli import cli

    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_both_models_are_listed() -> None:
    code, listed = run("embed-models")
    assert code == 0
    assert "imagebind-mini" in listed
    assert "imagebind-huge" in listed


def test_vectors_equal_those_of_the_package(tmp_path: Path) -> None:
    paths = {
        "audio": generate.audio(tmp_path / "a.wav"),
        "image": generate.picture(tmp_path / "a.png"),
        "video": generate.video(tmp_path / "a.mp4", seconds=2, sound=True),
    }
    model = load("mini", device="cpu")
    wanted = [model.embed("text", ["a dog"])[0], *(model.embed(modality, [path])[0] for modality, path in paths.items())]
    items = ["a dog", *(path.read_bytes() for path in paths.values())]
    found = list(llm.get_embedding_model("imagebind-mini").embed_multi([*items, "a dog"]))
    np.testing.assert_allclose(found, [*wanted, wanted[0]], atol=1e-6)
    assert type(found[0][0]) is float


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tiff"])
def test_every_kind_of_picture_is_recognised(suffix: str) -> None:
    from llm_imagebind import modality_of

    file = io.BytesIO()
    Image.fromarray(generate.pixels()).save(file, Image.registered_extensions()[f".{suffix}"])
    assert modality_of(file.getvalue()) == "vision"


def test_a_sound_with_a_cover_and_a_film_without_pictures_are_sounds(tmp_path: Path) -> None:
    from llm_imagebind import modality_of

    assert modality_of(generate.video(tmp_path / "sound.mp4", pictures=False, sound=True).read_bytes()) == "audio"
    assert modality_of(generate.video(tmp_path / "film.mp4", seconds=1, sound=True).read_bytes()) == "vision"


def test_a_sentence_finds_a_stored_item(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        generate.picture(folder / f"{seed}.png", seed=seed)
    code, said = run("embed-multi", "photos", "-m", "imagebind-mini", "--files", folder, "*.png", "--binary", "--store")
    assert code == 0, said
    code, said = run("similar", "photos", "-c", "a picture", "-n", "2")
    assert code == 0, said
    found = [json.loads(line) for line in said.splitlines()]
    model = load("mini", device="cpu")
    scores = model.embed("image", [folder / f"{seed}.png" for seed in range(3)]) @ model.embed("text", ["a picture"])[0]
    best = np.argsort(-scores)[:2]
    assert [line["id"] for line in found] == [f"{seed}.png" for seed in best]
    np.testing.assert_allclose([line["score"] for line in found], scores[best], atol=1e-5)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no picture", "content of 10 bytes: "), (b"RIFF\0\0\0\0WAVEfmt ", "content of 16 bytes: ")],
)
def test_an_unreadable_file_is_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "bad").write_bytes(content)
    code, said = run("embed", "-m", "imagebind-mini", "--binary", "-i", tmp_path / "bad")
    assert code == 1
    assert said.startswith(f"Error: imagebind-mini: {reason}")
    assert len(said.splitlines()) == 1


def test_a_sentence_without_words_is_refused_by_name() -> None:
    code, said = run("embed", "-m", "imagebind-mini", "-c", " ")
    assert code == 1
    assert said == "Error: imagebind-mini:  : an empty sentence: there are no words to embed\n"


def test_an_installed_plugin_is_found_by_llm(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "installed"
    install("llm-imagebind", source, folder)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [folder, REPOSITORY])), "LLM_USER_PATH": str(tmp_path / "llm")}
    code = "import sys; from llm.cli import cli; cli(['embed-models', '-q', 'imagebind'], standalone_mode=False); sys.exit('torch' in sys.modules)"
    listed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    assert "imagebind-huge" in listed.stdout
