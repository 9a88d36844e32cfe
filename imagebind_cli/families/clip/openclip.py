"""OpenCLIP's layout of a CLIP: the names of its tensors, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.errors import UserError
from imagebind_cli.transformer import TrunkConfig
from imagebind_cli.weights.family import Values, WeightLayout
from imagebind_cli.weights.model_config import ModelConfig, packaged_config

# OpenCLIP's name -> ours, and how the tensor is changed; see `weights.tensor_names`.
OPENCLIP = """
visual.conv1.weight                                   vision.stem.proj.weight                two_frames
visual.class_embedding                                vision.stem.cls                        as_sequence
visual.positional_embedding                           vision.stem.pos                        as_sequence
visual.ln_pre.{p}                                     vision.trunk.norm.{p}
visual.transformer.resblocks.{i}.attn.in_proj_{p}     vision.trunk.blocks.{i}.attn.qkv.{p}
visual.transformer.resblocks.{i}.attn.out_proj.{p}    vision.trunk.blocks.{i}.attn.out.{p}
visual.transformer.resblocks.{i}.ln_1.{p}             vision.trunk.blocks.{i}.norm1.{p}
visual.transformer.resblocks.{i}.ln_2.{p}             vision.trunk.blocks.{i}.norm2.{p}
visual.transformer.resblocks.{i}.mlp.c_fc.{p}         vision.trunk.blocks.{i}.mlp.up.{p}
visual.transformer.resblocks.{i}.mlp.c_proj.{p}       vision.trunk.blocks.{i}.mlp.down.{p}
visual.ln_post.{p}                                    vision.head.norm.{p}
visual.proj                                           vision.head.proj.weight                transposed
token_embedding.weight                                text.stem.tokens.weight
positional_embedding                                  text.stem.pos                          as_sequence
transformer.resblocks.{i}.attn.in_proj_{p}            text.trunk.blocks.{i}.attn.qkv.{p}
transformer.resblocks.{i}.attn.out_proj.{p}           text.trunk.blocks.{i}.attn.out.{p}
transformer.resblocks.{i}.ln_1.{p}                    text.trunk.blocks.{i}.norm1.{p}
transformer.resblocks.{i}.ln_2.{p}                    text.trunk.blocks.{i}.norm2.{p}
transformer.resblocks.{i}.mlp.c_fc.{p}                text.trunk.blocks.{i}.mlp.up.{p}
transformer.resblocks.{i}.mlp.c_proj.{p}              text.trunk.blocks.{i}.mlp.down.{p}
ln_final.{p}                                          text.head.norm.{p}
text_projection                                       text.head.proj.weight                  transposed
logit_scale                                           text.log_scale
attn_mask                                             -
"""


def openclip_config(values: Values, tensors: Mapping[str, Tensor], place: str) -> ModelConfig:
    """Make a config from OpenCLIP's JSON; its name is that of the file, or of the folder around `open_clip_config.json`.

    Raises:
        UserError: there is no JSON, or it asks for what these encoders do not have.
    """
    if not values:
        raise UserError(f"{place}: OpenCLIP weights need their config: --config open_clip_config.json, or a name such as ViT-H-14")
    path = Path(place)
    return from_openclip(values, path.stem if path.stem != "open_clip_config" else path.parent.name)


def packaged_openclip_config(name: str) -> Path | None:
    """Return the JSON of a name in the installed open_clip package (`ViT-H-14`, `ViT-H-14-quickgelu`); None where it has none."""
    package = find_spec("open_clip")  # found, not imported
    path = Path(package.origin if package and package.origin else ".").parent / "model_configs" / f"{name}.json"
    return path if Path(name).name == name and path.is_file() else None


def from_openclip(values: Mapping[str, Any], name: str, licence: str | None = None) -> ModelConfig:
    """Make a config from OpenCLIP's JSON (`open_clip_config.json`, or the `model_cfg` in it), for its plain ViT towers.

    Epsilon and activation come from the JSON, else from OpenCLIP's own defaults (1e-5, exact GELU).

    Raises:
        UserError: the JSON asks for anything these encoders do not have (another pooling, LayerScale, timm, …), by name.
    """
    model = dict(values.get("model_cfg", values))
    preprocess = values.get("preprocess_cfg", {})
    vision, text = ({**OPENCLIP_DEFAULTS[tower], **model.get(f"{tower}_cfg", {})} for tower in ("vision", "text"))
    for place, given, plain in (
        ("", model, OPENCLIP_PLAIN),
        ("vision_cfg.", vision, OPENCLIP_PLAIN_TOWER),
        ("text_cfg.", text, OPENCLIP_PLAIN_TOWER),
    ):
        for key, value in given.items():
            if key not in OPENCLIP_UNDERSTOOD and not (key in plain and value in plain[key]):
                raise UserError(f"{name}: OpenCLIP's {place}{key} = {value!r} is not supported; plain ViT towers are")
    if preprocess.get("interpolation", "bicubic") != "bicubic" or preprocess.get("resize_mode", "shortest") != "shortest":
        raise UserError(f"{name}: OpenCLIP's preprocessing {preprocess} is not supported; bicubic to the shortest side is")
    size, patch = vision["image_size"], vision["patch_size"]
    clip = packaged_config("huge").encoders["vision"]  # OpenCLIP's own default normalisation, CLIP's

    def trunk(tower: Mapping[str, Any], heads: int, **shape: Any) -> TrunkConfig:
        activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
        if (tower.get("act_kwargs") or {}).get("approximate") == "tanh" and activation == "gelu":
            activation = "gelu_tanh"
        return TrunkConfig(
            width=tower["width"], layers=tower["layers"], heads=heads, mlp=tower["mlp_ratio"], activation=activation,
            norm_eps=(tower.get("norm_kwargs") or {}).get("eps", 1e-5), **shape,
        )  # fmt: skip

    encoders = {
        "vision": EncoderConfig(
            family="clip", dim=model["embed_dim"], shape=(3, 2, size, size), patch=(2, patch, patch), stride=(2, patch, patch),
            trunk=trunk(vision, vision["width"] // vision["head_width"], pre_norm=True),
            mean=tuple(preprocess.get("mean", clip.mean)), std=tuple(preprocess.get("std", clip.std)),
        ),
        "text": EncoderConfig(
            family="clip", dim=model["embed_dim"], shape=(text["context_length"],), vocabulary=text["vocab_size"], pool="eos",
            trunk=trunk(text, text["heads"], causal=True), scale=1 / 0.07, learn_scale=True,
        ),
    }  # fmt: skip
    return ModelConfig(name=name, dim=model["embed_dim"], encoders=encoders, licence=licence, about="image and text towers from OpenCLIP")


OPENCLIP_DEFAULTS: dict[str, dict[str, Any]] = {
    "vision": dict(layers=12, width=768, head_width=64, mlp_ratio=4.0, patch_size=16, image_size=224),
    "text": dict(context_length=77, vocab_size=49408, width=512, heads=8, layers=12, mlp_ratio=4.0),
}
OPENCLIP_UNDERSTOOD = {
    "embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "layers", "width", "head_width", "heads", "mlp_ratio", "patch_size",
    "image_size", "context_length", "vocab_size", "act_kwargs", "norm_kwargs", "patch_dropout", "output_tokens",
}  # fmt: skip
OPENCLIP_PLAIN: dict[str, tuple[Any, ...]] = {"custom_text": (False,), "init_logit_scale": (None,), "init_logit_bias": (None,)}
OPENCLIP_PLAIN_TOWER: dict[str, tuple[Any, ...]] = {
    "ls_init_value": (None,), "attentional_pool": (False,), "no_ln_pre": (False,), "pos_embed_type": ("learnable",),
    "final_ln_after_pool": (False,), "pool_type": ("tok", "argmax"), "timm_model_name": (None, ""), "hf_model_name": (None, ""),
    "hf_tokenizer_name": (None, ""), "tokenizer_mode": (None,), "tokenizer_kwargs": (None,), "embed_cls": (False,),
    "no_causal_mask": (False,), "pad_id": (0,), "eos_id": (2,), "proj_bias": (False,), "proj_type": ("linear",),
    "block_type": (None, "default"), "qk_norm": (False,), "scaled_cosine_attn": (False,), "scale_heads": (False,),
    "scale_attn_inner": (False,), "scale_attn": (False,), "scale_fc": (False,), "attn_pooler_queries": (256,), "attn_pooler_heads": (8,),
}  # fmt: skip

OPENCLIP_LAYOUT = WeightLayout(
    prefixes=("visual.",),
    table=lambda config: OPENCLIP,
    config=openclip_config,
    describes=lambda values: "model_cfg" in values or "vision_cfg" in values,
    config_file="open_clip_config.json",
    weight_files="open_clip_*",  # such a folder often holds the same weights again for another library
)
