"""Configs that others write: the published constructor's arguments and OpenCLIP's JSON; `read_config` reads these and ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from imagebind_cli.documents import read_object
from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.errors import UserError
from imagebind_cli.transformer import TrunkConfig
from imagebind_cli.weights.model_config import ModelConfig, from_json, packaged_config, reject_unknown_keys


def read_config(path: Path) -> ModelConfig:
    """Read a config file of any kind: our format, OpenCLIP's, or the published constructor's arguments.

    Raises:
        UserError: it is none of these.
    """
    values = read_object(path)
    if "format" in values:
        return from_json(path.read_bytes(), str(path))
    if "model_cfg" in values or "vision_cfg" in values:
        return openclip_config(str(path))
    return _checked(from_published, values, str(path))


def openclip_config(name: str) -> ModelConfig:
    """Read a config from an OpenCLIP JSON file, or from a name in the installed open_clip package (`ViT-H-14`, `ViT-H-14-quickgelu`).

    Raises:
        UserError: no such file or name, or towers that these encoders do not have.
    """
    path = Path(name)
    if not path.is_file():
        from importlib.util import find_spec

        package = find_spec("open_clip")  # found, not imported
        path = Path(package.origin if package and package.origin else ".").parent / "model_configs" / f"{name}.json"
        if Path(name).name != name or not path.is_file():
            raise UserError(f"{name}: neither an OpenCLIP JSON file nor a config name of the open_clip package")
    model = path.stem if path.stem != "open_clip_config" else path.parent.name
    return _checked(partial(from_openclip, name=model), read_object(path), str(path))


def _checked(make: Callable[[dict[str, Any]], ModelConfig], values: dict[str, Any], place: str) -> ModelConfig:
    """Make a config of others' values, and refuse what would be refused in one of ours."""
    try:
        text = make(values).to_json()
    except UserError:
        raise
    except Exception as error:  # whatever arithmetic makes of values of another type
        raise UserError(f"{place}: a value that no such model has: {error}") from error
    return from_json(text, place)


def from_published(arguments: Mapping[str, Any]) -> ModelConfig:
    """Make a config from the published constructor's arguments (`ImageBindModel(...)`), with its defaults for the others.

    Raises:
        UserError: an unknown argument, with the nearest known one.
    """
    reject_unknown_keys(arguments, PUBLISHED_DEFAULTS, "published config")
    values = {**PUBLISHED_DEFAULTS, **arguments}
    huge = packaged_config("huge")

    def encoder(name: str, **changes: Any) -> EncoderConfig:
        trunk = dataclasses.replace(
            huge.encoders[name].trunk,
            width=values[f"{name}_embed_dim"],
            layers=values[f"{name}_num_blocks"],
            heads=values[f"{name}_num_heads"],
            drop_path=values.get(f"{name}_drop_path", 0.0),
        )
        return dataclasses.replace(huge.encoders[name], dim=values["out_embed_dim"], trunk=trunk, **changes)

    kernel = tuple(values["kernel_size"])
    square = {name: (values[f"{name}_kernel_size"],) * 2 for name in ("audio", "depth", "thermal")}
    encoders = {
        "vision": encoder("vision", shape=(3, values["video_frames"], 224, 224), patch=kernel, stride=kernel),
        "text": encoder("text"),
        "audio": encoder(
            "audio",
            shape=(1, values["audio_num_mel_bins"], values["audio_target_len"]),
            patch=square["audio"],
            stride=(values["audio_stride"],) * 2,
        ),
        "depth": encoder("depth", patch=square["depth"], stride=square["depth"]),
        "thermal": encoder("thermal", patch=square["thermal"], stride=square["thermal"]),
        "imu": encoder("imu"),  # the published constructor takes imu_kernel_size and builds 8 all the same
    }
    return ModelConfig(name="published", dim=values["out_embed_dim"], encoders=encoders, licence=huge.licence)


PUBLISHED_DEFAULTS: dict[str, Any] = dict(
    video_frames=2, kernel_size=(2, 14, 14), out_embed_dim=768,
    vision_embed_dim=1024, vision_num_blocks=24, vision_num_heads=16,
    text_embed_dim=768, text_num_blocks=12, text_num_heads=12,
    audio_embed_dim=768, audio_num_blocks=12, audio_num_heads=12, audio_kernel_size=16, audio_stride=10,
    audio_num_mel_bins=128, audio_target_len=204, audio_drop_path=0.1,
    depth_embed_dim=384, depth_num_blocks=12, depth_num_heads=8, depth_kernel_size=16, depth_drop_path=0.0,
    thermal_embed_dim=768, thermal_num_blocks=12, thermal_num_heads=12, thermal_kernel_size=16, thermal_drop_path=0.0,
    imu_embed_dim=512, imu_num_blocks=6, imu_num_heads=8, imu_kernel_size=8, imu_drop_path=0.7,
)  # fmt: skip


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
            dim=model["embed_dim"], shape=(3, 2, size, size), patch=(2, patch, patch), stride=(2, patch, patch),
            trunk=trunk(vision, vision["width"] // vision["head_width"], pre_norm=True),
            mean=tuple(preprocess.get("mean", clip.mean)), std=tuple(preprocess.get("std", clip.std)),
        ),
        "text": EncoderConfig(
            dim=model["embed_dim"], shape=(text["context_length"],), vocabulary=text["vocab_size"], pool="eos",
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
