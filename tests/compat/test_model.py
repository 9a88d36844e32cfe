"""The model under the import name `imagebind`: the published numbers, names of tensors, stages and ways to load it."""

from __future__ import annotations

import copy
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.published_weights import overlapping_weights, published_shapes
from imagebind import imagebind_model
from imagebind.models.imagebind_model import HUGE, HUGE_ARGUMENTS, ImageBindModel, ModalityType, imagebind_huge
from imagebind_cli import UserError
from imagebind_cli.families.imagebind import from_published
from imagebind_cli.weights.model_config import packaged_config
from tests.golden import INPUTS, META, OUTPUTS
from tests.site import Site, serve

Tensors = dict[str, Tensor]


def error(vectors: Tensor, name: str) -> float:
    """The largest difference to the published outputs, in units of the modality's logit scale."""
    published = OUTPUTS[name]
    return float(np.abs(vectors.detach().float().numpy() - published).max() / np.linalg.norm(published, axis=1).max())


@pytest.mark.parametrize("name", [*INPUTS, "text"])
def test_outputs_are_the_published_ones_with_their_scale(model: ImageBindModel, inputs: Tensors, name: str) -> None:
    modality = name.split("_", maxsplit=1)[0]
    assert error(model({modality: inputs[name]})[modality], name) < 1e-6


def test_any_of_the_modalities_may_be_given(model: ImageBindModel, inputs: Tensors) -> None:
    given = {ModalityType.AUDIO: inputs["audio"], ModalityType.TEXT: inputs["text"], ModalityType.VISION: None}
    vectors = model(given)
    assert list(vectors) == ["audio", "text"]
    assert error(vectors["audio"], "audio") < 1e-6
    assert error(vectors["text"], "text") < 1e-6


def test_a_clip_of_one_frame_is_a_still_picture(model: ImageBindModel, inputs: Tensors) -> None:
    pictures = inputs["vision"]
    still = model({"vision": pictures})["vision"]
    assert torch.equal(model({"vision": pictures.unsqueeze(2)})["vision"], still)
    assert torch.allclose(model({"vision": pictures[:, None, :, None]})["vision"], still, atol=1e-6)


def test_a_wrong_shape_is_named_with_the_right_ones(model: ImageBindModel) -> None:
    with pytest.raises(
        UserError, match=r"audio: tensor of shape \(1, 128, 204\); \(b, 1, 128, 204\) or \(b, clips, 1, 128, 204\) is needed"
    ):
        model({"audio": torch.zeros(1, 128, 204)})


def test_tensors_have_their_published_names_and_shapes(model: ImageBindModel, weights: Tensors) -> None:
    state = model.state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == META["state_dict"]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in state.items())


def test_names_hold_inside_another_module_and_for_a_stage_alone(model: ImageBindModel, weights: Tensors) -> None:
    outer = nn.ModuleDict({"teacher": copy.deepcopy(model)})
    assert set(outer.state_dict()) == {f"teacher.{name}" for name in weights}
    assert outer.load_state_dict({f"teacher.{name}": tensor for name, tensor in weights.items()}).missing_keys == []
    for stage in ("modality_preprocessors", "modality_trunks", "modality_heads", "modality_postprocessors"):
        part = getattr(model, stage)
        assert {f"{stage}.{name}" for name in part.state_dict()} == {name for name in weights if name.startswith(stage)}
        part.load_state_dict(part.state_dict())


def test_missing_and_unknown_tensors_are_reported_by_their_published_names(model: ImageBindModel, weights: Tensors) -> None:
    gone, new = "modality_trunks.audio.blocks.0.attn.in_proj_weight", "modality_trunks.audio.blocks.0.attn.extra"
    state = {name: 2 * tensor for name, tensor in weights.items() if name != gone} | {new: torch.zeros(1)}
    with pytest.raises(RuntimeError, match=rf'Missing key.*"{gone}"(.|\n)*Unexpected key.*"{new}"'):
        model.load_state_dict(state)
    report = model.load_state_dict(state, strict=False)
    assert (report.missing_keys, report.unexpected_keys) == ([gone], [new])
    assert torch.equal(model.state_dict()[gone], weights[gone])  # as it was
    assert torch.equal(model.state_dict()["modality_heads.audio.2.weight"], 2 * weights["modality_heads.audio.2.weight"])


def test_weights_can_be_assigned(weights: Tensors, inputs: Tensors) -> None:
    model = ImageBindModel(**META["config"]).eval()
    model.load_state_dict(weights, assign=True)
    assert error(model({"audio": inputs["audio"]})["audio"], "audio") < 1e-6


def test_half_precision_gives_half_precision(model: ImageBindModel, inputs: Tensors) -> None:
    model.half()
    given = {"text": inputs["text"], "audio": inputs["audio"].half(), "vision": inputs["vision"].half()}
    for name, vectors in model(given).items():
        assert vectors.dtype is torch.float16
        assert error(vectors, name) < 2e-3


def test_device_moves_every_tensor(model: ImageBindModel) -> None:
    model.to("meta")
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}


def test_copies_and_pickles_are_equal(model: ImageBindModel, inputs: Tensors) -> None:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    expected = model({"imu": inputs["imu"]})["imu"]
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(other({"imu": inputs["imu"]})["imu"], expected)
        assert list(other.state_dict()) == list(model.state_dict())


def test_a_new_model_trains_and_follows_the_random_state(inputs: Tensors) -> None:
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(ImageBindModel(**META["config"]))
    names = "modality_heads.audio.2.weight", "modality_trunks.imu.blocks.1.mlp.fc1.weight"
    for name in names:
        first, same, other = (model.state_dict()[name] for model in models)
        assert torch.equal(first, same)
        assert not torch.equal(first, other)
    model = models[0]
    assert all(module.training for module in model.modules())
    vectors = model({"audio": inputs["audio"], "text": inputs["text"][:2]})
    (vectors["audio"] @ vectors["text"].T).logsumexp(dim=1).sum().backward()
    assert model.modality_trunks["audio"].blocks[0].attn.qkv.weight.grad.abs().max() > 0
    assert model.modality_postprocessors["text"][1].log_logit_scale.grad is not None
    assert "log_logit_scale" in dict(model.modality_postprocessors["audio"][1].named_buffers())  # fixed


def test_the_scale_of_text_is_at_most_100(model: ImageBindModel, inputs: Tensors) -> None:
    with torch.no_grad():
        model.modality_postprocessors["text"][1].log_logit_scale.fill_(math.log(1000))
    assert torch.allclose(model({"text": inputs["text"]})["text"].norm(dim=1), torch.tensor(100.0))


def test_an_unknown_argument_is_an_error() -> None:
    with pytest.raises(UserError, match="did you mean 'vision_embed_dim'"):
        ImageBindModel(vision_emb_dim=64)


def test_the_arguments_of_huge_are_those_of_the_published_model() -> None:
    assert from_published(HUGE_ARGUMENTS).encoders == packaged_config(HUGE).encoders


def test_pretrained_reads_the_file_that_the_published_code_left(
    weights: Tensors, inputs: Tensors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".checkpoints"
    folder.mkdir()
    torch.save(weights, folder / "imagebind_huge.pth")
    (folder / "imagebind_huge.json").write_text(json.dumps(META["config"]))  # makes it small
    monkeypatch.chdir(tmp_path)
    model = imagebind_model.imagebind_huge(pretrained=True)
    assert all(module.training for module in model.modules())
    assert error(model.eval()({"audio": inputs["audio"]})["audio"], "audio") < 1e-6


@pytest.fixture
def site() -> Iterator[Site]:
    yield from serve()


def test_pretrained_downloads_what_is_missing_once(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes, file = published_shapes(packaged_config(HUGE)), io.BytesIO()
    torch.save(overlapping_weights(shapes, seed=7), file)
    site.files["/imagebind/imagebind_huge.pth"] = file.getvalue()
    monkeypatch.setenv("IMAGEBIND_MIRROR", site.address)
    monkeypatch.chdir(tmp_path)
    state = imagebind_huge(pretrained=True).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes
    printed = capsys.readouterr()
    assert printed.out == ""
    first, *shares = printed.err.splitlines()
    assert first.startswith("imagebind: downloading https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth to ")
    assert first.endswith("its licence is CC-BY-NC-SA-4.0")
    assert shares[-1] == "imagebind: imagebind_huge.pth: 100 %"
    requests = len(site.seen)
    imagebind_huge(pretrained=True)
    assert (capsys.readouterr().err, len(site.seen)) == ("", requests)


def test_offline_without_weights_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEBIND_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="huge is not on this machine, and this run is offline"):
        imagebind_huge(pretrained=True)
