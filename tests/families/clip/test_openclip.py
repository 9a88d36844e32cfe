"""CLIP in OpenCLIP's layout, against OpenCLIP's own model on small random configs."""

import dataclasses
import json

import pytest
import torch

import imagebind_cli as ib
from imagebind_cli.errors import UserError
from imagebind_cli.families.clip.openclip import from_openclip
from imagebind_cli.weights import foreign_config, model_config

OPENCLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 56, "layers": 3, "width": 48, "head_width": 12, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2},
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"quick_gelu": True},
        {"vision_cfg": {"norm_kwargs": {"eps": 1e-3}, "act_kwargs": {"approximate": "tanh"}, "mlp_ratio": 3.0}},
        {"vision_cfg": {"image_size": 64, "patch_size": 16, "head_width": 24}, "text_cfg": {"heads": 2, "norm_kwargs": {"eps": 1e-2}}},
    ],
    ids=["plain", "quick_gelu", "eps_and_tanh", "shapes"],
)
def test_both_towers_are_exact(change, tmp_path):
    import open_clip
    from open_clip.model import CLIP

    values = OPENCLIP | {key: OPENCLIP[key] | value if isinstance(value, dict) else value for key, value in change.items()}
    torch.manual_seed(0)
    theirs = CLIP(values["embed_dim"], values["vision_cfg"], values["text_cfg"], quick_gelu=values.get("quick_gelu", False)).eval()
    with torch.no_grad():  # fresh biases and norms are 0 and 1, which would hide a mistake
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    torch.save(theirs.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": values, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.4] * 3}})
    )

    ours = ib.load(tmp_path, device="cpu")
    size = values["vision_cfg"]["image_size"]
    picture = torch.randn(3, 3, size, size)
    tokens = open_clip.SimpleTokenizer()(["a dog", "two birds on a wire", ""])
    with torch.no_grad():
        expected = theirs.encode_image(picture, normalize=True), theirs.encode_text(tokens, normalize=True)
    assert (ours.encode("image", picture) - expected[0]).abs().max() < 1e-6
    assert (ours.encode("text", tokens) - expected[1]).abs().max() < 1e-6
    assert ours.scale("text") == pytest.approx(min(float(theirs.logit_scale.detach().exp()), 100), rel=1e-6)
    assert ours.encoder("image").config.mean == (0.5, 0.5, 0.5)


def test_weights_without_their_config_are_refused_and_take_a_name(tmp_path):
    from open_clip.model import CLIP

    torch.save(CLIP(**OPENCLIP).state_dict(), tmp_path / "x.pt")
    with pytest.raises(UserError, match="OpenCLIP weights need their config"):
        ib.load(tmp_path / "x.pt")
    with pytest.raises(UserError, match="has shape|missing"):
        ib.load(tmp_path / "x.pt", config="ViT-B-32", modalities=["text"])
    with pytest.raises(UserError, match="neither an OpenCLIP JSON file nor a config name"):
        ib.load(tmp_path / "x.pt", config="ViT-Z")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"vision_cfg": {"timm_model_name": "vit_x"}}, "vision_cfg.timm_model_name"),
        ({"text_cfg": {"no_causal_mask": True}}, "text_cfg.no_causal_mask"),
        ({"vision_cfg": {"ls_init_value": 0.1}}, "vision_cfg.ls_init_value"),
        ({"multimodal_cfg": {}}, "multimodal_cfg"),
    ],
)
def test_towers_of_another_kind_are_refused_by_name(change, named):
    values = OPENCLIP | {key: OPENCLIP.get(key, {}) | value for key, value in change.items()}
    with pytest.raises(UserError, match=named):
        from_openclip(values, "x")


def test_vit_h_14_has_the_shapes_of_huge():
    huge, openclip = model_config.packaged_config("huge"), foreign_config.model_config_of(foreign_config.named_config("ViT-H-14"))
    for name in ("vision", "text"):
        trunk = dataclasses.replace(openclip.encoders[name].trunk, norm_eps=1e-6)
        assert trunk == huge.encoders[name].trunk
