"""The Python API."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import imagebind_cli as ib
from imagebind_cli.options.modalities import OPTIONS, flags
from imagebind_cli.registry import face
from tests import generate


@pytest.fixture(scope="module")
def model():
    return ib.load("tiny", device="cpu")


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape)


ARRAYS = {
    "image": random(60, 50, 3).clip(0, 1).astype(np.uint8),
    "video": ((random(12, 40, 50, 3) * 40 + 100).astype(np.uint8), 4.0),
    "text": "a dog",
    "audio": (random(30_000) * 0.1, 16_000),
    "depth": np.full((40, 50), 2.0) + np.arange(50) / 50,
    "thermal": (random(40, 50) * 20 + 100).astype(np.uint8),
    "imu": random(6, 3000),
}


@pytest.mark.parametrize("modality", ARRAYS)
def test_arrays_become_unit_rows(model, modality):
    vectors = model.embed(modality, [ARRAYS[modality]] * 2)
    assert vectors.dtype == np.float32
    assert vectors.shape == (2, 64)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    assert np.abs(vectors[0] - vectors[1]).max() <= 1e-6


@pytest.mark.parametrize(("modality", "rate"), [("audio", 16_000), ("video", 6.0)])
def test_an_array_without_its_rate_has_the_usual_one(model, modality, rate):
    array = ARRAYS[modality][0]
    assert np.array_equal(model.embed(modality, [array]), model.embed(modality, [(array, rate)]))


def test_embedding_arrays_leaves_them_alone(model):
    waveform = np.full(40_000, 0.5, np.float32) + random(40_000).astype(np.float32) * 0.01
    before = waveform.copy()
    model.embed("audio", [(waveform, 16_000)])
    assert np.array_equal(waveform, before)


def test_nothing_in_gives_no_rows(model):
    assert model.embed("text", []).shape == (0, 64)


DEPTH_NOTE = "depth read as metres, focal 518.86 px, baseline 0.075 m"


def logged(caplog):
    return [(record.name, record.levelname, record.getMessage()) for record in caplog.records]


def test_what_reading_assumes_is_logged_once(caplog):
    model = ib.load("tiny", device="cpu")
    for _ in range(2):
        model.embed("depth", [ARRAYS["depth"]] * 2)
    assert logged(caplog) == [("imagebind_cli.events", "WARNING", f"assumed: {DEPTH_NOTE}")]


def test_what_an_input_lost_is_logged_each_time(model, tmp_path, caplog):
    path = tmp_path / "two\nlines.wav"
    generate.audio(path, seconds=4)
    path.write_bytes(path.read_bytes()[:-40_000])
    for _ in range(2):
        model.embed("audio", [path])
    lines = [line for _, _, line in logged(caplog)]
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert lines[0].startswith(f"{tmp_path}/two\\nlines.wav: ")


def test_the_page_shows_how_to_hear_of_assumptions(model, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    np.save("room.npy", ARRAYS["depth"])
    page = (Path(__file__).parent.parent / "docs/python.md").read_text().split("Assumptions made to read an input")[1]
    names = {"model": model}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], names)
    assert capsys.readouterr().out == f"room.npy\n  {DEPTH_NOTE}\n"
    assert names["rooms"].shape == (1, 64)
    assert logged(caplog) == []


def test_a_bad_input_is_named(model):
    with pytest.raises(ib.UserError, match=r"^/no/such\.wav: no such file or directory$"):
        model.embed("audio", ["/no/such.wav"])


def test_a_tensor_of_another_shape_is_refused_with_those_that_fit(model):
    with pytest.raises(ib.UserError) as refused:
        model.encode("image", torch.zeros(1, 3, 8, 8))
    shapes = "(b, 3, 2, 224, 224) or (b, 3, 224, 224) or (b, clips, 3, 2, 224, 224) or (b, clips, 3, 224, 224)"
    assert str(refused.value) == f"image: tensor of shape (1, 3, 8, 8); {shapes} is needed"


def test_an_unknown_option_is_named(model):
    with pytest.raises(ib.UserError, match="clips is '3'; a whole number is needed"):
        list(model.read("audio", "a.wav", clips="3"))
    with pytest.raises(ib.UserError, match="image has no option 'focal'; it has tiles, region_shape, resize"):
        model.embed("image", [ARRAYS["image"]], focal=3)


@pytest.mark.parametrize(
    ("modality", "option", "value", "needed"),
    [
        ("imu", "remove_gravity", "no", "True or False"),
        ("imu", "max_gap", True, "a number"),
        ("imu", "row", None, "a whole number"),
        ("audio", "clips", 2.5, "a whole number"),
        ("depth", "dataset", 1, "text"),
        ("video", "crops", 3, "text"),
    ],
)
def test_an_option_of_a_wrong_type_is_named(modality, option, value, needed):
    with pytest.raises(ib.UserError, match=f"^{option} is {value!r}; {needed} is needed$"):
        face(modality).read_options({option: value})


def test_options_take_whole_numbers_for_numbers():
    assert face("imu").read_options({"rate": 100, "clips": None, "standardise": True}).rate == 100


def test_options_of_one_name_mean_the_same_in_every_modality():
    """One flag of the command line stands for all of them."""
    for kind in OPTIONS.values():
        for entry in kind.flags():
            one = flags()[entry.name]
            assert (entry.type, entry.default) == (one.type, one.default)
            assert entry.metadata | {"only": ""} == one.metadata | {"only": ""}, entry.name  # `only` is about still pictures


def test_a_wrong_shape_is_told(model):
    with pytest.raises(ib.UserError, match=r"\(2, 1, 128, 200\); \(b, 1, 128, 204\) or \(b, clips, 1, 128, 204\) is needed"):
        model.encode("audio", torch.zeros(2, 1, 128, 200))
    with pytest.raises(ib.UserError, match=r"\(b, 3, 2, 224, 224\) or \(b, 3, 224, 224\)"):
        model.encode("image", torch.zeros(3, 224, 224))


@pytest.mark.parametrize("shape", [(2, 3, 224, 224), (2, 4, 3, 224, 224), (2, 3, 2, 224, 224), (2, 4, 3, 2, 224, 224)])
def test_vision_takes_pictures_clips_and_several_of_each(model, shape):
    assert model.encode("vision", torch.zeros(shape)).shape == (2, 64)


def test_only_what_is_asked_for_is_loaded(model):
    loaded = ib.load("tiny", modalities=["audio"], device="cpu")
    assert list(loaded._encoders) == ["audio"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "colossal"}, "no model 'colossal'.*tiny"),
        ({"model": "base"}, "config to train from"),
        ({"model": "huge"}, "not on this machine; fetch it with: imagebind weights pull huge"),
        ({"model": "hf://a/b"}, "imagebind weights pull hf://a/b"),
        ({"model": "tiny", "modalities": ["sound"]}, "unknown modality 'sound'; choose from image"),
        ({"model": "tiny", "device": "tpu"}, "unknown device 'tpu'"),
        ({"model": "tiny", "dtype": "int3"}, "unknown dtype 'int3'"),
    ],
)
def test_impossible_requests_are_one_line(arguments, message):
    with pytest.raises(ib.UserError, match=message):
        ib.load(**arguments)


def test_importing_gives_no_torch_but_names():
    assert set(ib.__all__) <= set(dir(ib))
    assert ib.__version__.count(".") == 2
