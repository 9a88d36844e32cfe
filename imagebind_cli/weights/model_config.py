"""What a model is made of, as data: read from our JSON, from the published constructor's arguments, from OpenCLIP's JSON."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.errors import UserError
from imagebind_cli.transformer import TrunkConfig

FORMAT = 1
CONFIGS = resources.files("imagebind_cli") / "models"


@dataclass(frozen=True)
class ModelConfig:
    """A model: its encoders and where it comes from.

    name: what the model is called in outputs. dim: size of the joint space. encoders: by registry name; a model need not have all.
    about: one line for people. licence: of the weights; None where there are none. address: where the weights are published.
    rule_seed: weights made by rule from this seed, for a model that needs no file. origin: what a converted folder was made from.
    files: size and SHA-256 of the weight files beside a folder's `config.json`, and in a training run's folder their encoder.
    bases: in such a folder, the model under each encoder's changed weights, and its fingerprint.
    trained_on: for an encoder, evaluation suites by name with what it has seen of their data, in words: what it scores there is no held-out score.
    """

    name: str
    dim: int
    encoders: Mapping[str, EncoderConfig]
    about: str = ""
    licence: str | None = None
    address: str | None = None
    rule_seed: int | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    trained_on: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def to_json(self) -> str:
        """The text of a `config.json`, which `from_json` reads back to an equal config."""
        values = dataclasses.asdict(self)
        values["encoders"] = {
            name: {key: value for key, value in encoder.items() if key != "dim"} for name, encoder in values["encoders"].items()
        }
        return json.dumps({"format": FORMAT, **values}, indent=2) + "\n"


def from_json(text: str, place: str) -> ModelConfig:
    """Our own format. `place` names the file in messages.

    Raises:
        UserError: not JSON, another format, an unknown key (the nearest known one is named), a missing one.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f"{place}: not JSON: {error}") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"{place}: not a model config of format {FORMAT}")
    values = {key: value for key, value in values.items() if key != "format"}
    encoders = {
        name: _build(
            EncoderConfig, {**encoder, "dim": values.get("dim"), "trunk": _build(TrunkConfig, encoder.get("trunk", {}), place)}, place
        )
        for name, encoder in values.get("encoders", {}).items()
    }
    return _build(ModelConfig, {**values, "encoders": encoders}, place)


def named(name: str) -> ModelConfig:
    """One of the configs in the package: `huge`, `base`, `tiny`."""
    return from_json((CONFIGS / f"{name}.json").read_text(), f"{name}.json")


def names() -> list[str]:
    """The names `named` knows."""
    return sorted(entry.name.removesuffix(".json") for entry in CONFIGS.iterdir() if entry.name.endswith(".json"))


def from_published(arguments: Mapping[str, Any]) -> ModelConfig:
    """A config from the published constructor's arguments (`ImageBindModel(...)`), with its defaults for those not given.

    Raises:
        UserError: an argument it does not have, with the nearest it has.
    """
    _check_keys(arguments, PUBLISHED_DEFAULTS, "published config")
    values = {**PUBLISHED_DEFAULTS, **arguments}
    huge = named("huge")

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
    """A config from OpenCLIP's JSON (`open_clip_config.json`, or the `model_cfg` in it), for its plain ViT towers.

    Epsilon and activation come from the JSON and OpenCLIP's own defaults for it (1e-5, exact GELU), never from a guess.

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
    clip = named("huge").encoders["vision"]  # OpenCLIP's own default normalisation, CLIP's

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


def _build(kind: type, values: Mapping[str, Any], place: str) -> Any:
    known = {entry.name: entry for entry in dataclasses.fields(kind)}
    _check_keys(values, known, place)
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    except (TypeError, ValueError) as error:
        raise UserError(f"{place}: {error}") from None


def _check_keys(values: Mapping[str, Any], known: Mapping[str, Any], place: str) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise UserError(f"{place}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
