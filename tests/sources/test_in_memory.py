"""Bytes, rows of Hugging Face datasets and Pillow images give what their files give."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imagebind_cli as ib
from imagebind_cli.registry import MODALITIES
from imagebind_cli.sources import Failure, Item
from tests import generate

FILES = [modality for modality in MODALITIES.here if modality != "text"]


@pytest.fixture(scope="module")
def model():
    return ib.load("tiny", device="cpu")


@pytest.mark.parametrize("modality", FILES)
def test_bytes_and_rows_equal_the_file(model, modality, tmp_path):
    path = generate.sample(modality, tmp_path)
    content = Path(path).read_bytes()
    rows = [{"bytes": content, "path": "elsewhere"}, {"bytes": None, "path": path}]
    vectors = model.embed(modality, [path, content, bytearray(content), memoryview(content), *rows])
    assert (vectors == vectors[0]).all()


@pytest.mark.parametrize("modality", FILES)
def test_bytes_are_read_with_the_limits_of_files(model, modality):
    wrong = [b"", b"\x89PNG\r\n\x1a\nbroken", {"bytes": b"RIFF\0\0\0\0WEBPVP8 "}, {"path": "gone.bin"}, {"bytes": None}, {"url": "x"}]
    results = list(model.embed_items(modality, [Item(str(number), payload) for number, payload in enumerate(wrong)]))
    assert all(isinstance(result, Failure) for _, result in results)
    assert results[0][1].reason == "the file is empty"
    assert "bytes and path" in results[-1][1].reason


def test_a_bomb_in_bytes_is_refused(model, tmp_path):
    Image.new("1", (15_000, 15_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ib.UserError, match=r"input 0: .*pixels"):
        model.embed("image", (tmp_path / "bomb.png").read_bytes())


def test_sentences_in_bytes(model):
    vectors = model.embed("text", ["größer", "größer".encode(), {"bytes": "größer".encode()}])
    assert (vectors == vectors[0]).all()
    with pytest.raises(ib.UserError, match="not UTF-8"):
        model.embed("text", [b"\xff"])
    with pytest.raises(ib.UserError, match="a sentence"):
        model.embed("text", [{"bytes": None, "path": "a.txt"}])


def test_a_decoded_sound_equals_its_array(model):
    sound = generate.tone()
    rows = [(sound, generate.RATE), {"array": sound, "sampling_rate": generate.RATE, "path": None}]
    vectors = model.embed("audio", rows)
    assert np.array_equal(*vectors)


@pytest.mark.parametrize("modality", ["image", "depth", "thermal"])
def test_pillow_images_equal_their_files(model, modality, tmp_path):
    path = generate.sample(modality, tmp_path)
    if modality == "depth":
        path = str(tmp_path / "depth.png")
        Image.fromarray((generate.relief() * 1000).astype(np.uint16)).save(path)
    vectors = model.embed(modality, [path, Image.open(path)])
    assert np.array_equal(*vectors)


def test_a_failed_row_is_named_by_its_path(model):
    with pytest.raises(ib.UserError, match="clips/bark.wav: "):
        model.embed("audio", [{"bytes": b"nothing", "path": "clips/bark.wav"}])


def test_rows_of_a_dataset(model, tmp_path):
    datasets = pytest.importorskip("datasets")
    path = generate.sample("image", tmp_path)
    data = datasets.Dataset.from_dict({"picture": [path, path]}).cast_column("picture", datasets.Image(decode=False))
    vectors = model.embed("image", data["picture"])
    assert np.array_equal(vectors, model.embed("image", [path, path]))
    assert np.array_equal(vectors, model.embed("image", data.cast_column("picture", datasets.Image())["picture"]))
