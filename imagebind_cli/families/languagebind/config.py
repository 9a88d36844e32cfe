"""The config of a LanguageBind model, from its published `config.json` and the shapes of its tensors: `languagebind_config`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.encoders.audio import RATE
from imagebind_cli.encoders.text import END
from imagebind_cli.errors import UserError
from imagebind_cli.families.clip.transformers import TRANSFORMERS_ACTIVATIONS
from imagebind_cli.families.languagebind.adapters import published_spelling
from imagebind_cli.families.languagebind.fields import MOST_LAYERS, UNDERSTOOD, UNDERSTOOD_TEXT, UNDERSTOOD_VISION, ConfigFields
from imagebind_cli.transformer import TrunkConfig, mlp_ratio
from imagebind_cli.weights.family import Values
from imagebind_cli.weights.model_config import ModelConfig, packaged_config

NAME = "languagebind"
LARGEST_LOGARITHM = (
    100.0  # of the initial scale, so that its exponential is a number; `Encoder.scale` limits the scale itself, as training does
)
TOWERS = {  # what a config's model_type says, and the encoder of the input that is not text
    "LanguageBindImage": "vision",
    "LanguageBindVideo": "vision",
    "LanguageBindAudio": "audio",
    "LanguageBindDepth": "depth",
    "LanguageBindThermal": "thermal",
}


def is_languagebind(values: Values) -> bool:
    """Check whether values are a LanguageBind config; one whose model_type is missing is known by fields that only it has."""
    kind, vision = values.get("model_type"), values.get("vision_config")
    if "model_type" not in values:
        return isinstance(vision, Mapping) and ("lora_r" in vision or "add_time_attn" in vision)
    return isinstance(kind, str) and kind.startswith("LanguageBind")


def languagebind_config(values: Values, tensors: Mapping[str, Tensor], place: str) -> ModelConfig:
    """Make a config of a published `config.json`; sizes must be those of the tensors, as far as these are at hand.

    Raises:
        UserError: there is none, or a field is wrong, of unknown meaning, or not what a tensor has; it is named.
    """
    kinds = ", ".join(TOWERS)
    if not values:
        raise UserError(f"{place}: weights under transformers' names need their config.json beside them, or --config config.json")
    whole = ConfigFields(values, "", place)
    kind = values.get("model_type")
    if kind not in TOWERS:
        raise UserError(f"{place}: model_type is {'missing' if kind is None else repr(kind)}; choose from {kinds}")
    if over_time := next((name for name in tensors if ".temporal_mlp." in name or ".temporal_layer_norm2." in name), None):
        raise UserError(
            f"{place}: {published_spelling(over_time, tensors)} is not supported: an MLP over time, which no published tower has"
        )
    vision, words = (ConfigFields.of(values, part, place) for part in ("vision_config", "text_config"))
    for fields, understood in ((whole, UNDERSTOOD), (vision, UNDERSTOOD_VISION), (words, UNDERSTOOD_TEXT)):
        if fields is not whole and not fields.values:
            raise UserError(f"{place}: {fields.section.removesuffix('.')} is missing")
        fields.check_known(understood)
    if words.flag("add_time_attn", False):
        raise words.fault("add_time_attn", "is true; text has no time")
    name = TOWERS[kind]
    found = tensors["visual_projection.weight"].shape[:1] if "visual_projection.weight" in tensors else ()
    dim = whole.whole("projection_dim", found[0] if found else 512)
    for tensor in ("visual_projection.weight", "text_projection.weight"):
        whole.agree("projection_dim", dim, tensors, tensor, 0)
    scale = math.exp(whole.number("logit_scale_init_value", 2.6592, most=LARGEST_LOGARITHM))
    towers = {
        name: _tower(kind, vision, tensors, dim=dim, scale=scale, learn_scale=True),
        "text": _text(words, tensors, dim=dim, scale=scale, learn_scale=True),
    }
    folder = Path(place).parent.name
    other = kind.removeprefix("LanguageBind").lower()
    return ModelConfig(name=folder or f"{NAME}-{other}", dim=dim, encoders=towers, about=f"LanguageBind, text and {other}")


def _tower(kind: str, vision: ConfigFields, tensors: Mapping[str, Tensor], **shared: Any) -> EncoderConfig:
    """Make the config of the tower that is not text."""
    patch = vision.whole("patch_size", 32)
    vision.agree("patch_size", patch, tensors, "vision_model.embeddings.patch_embedding.weight", -1)
    frames, frame_tokens = _frames(kind, vision, tensors)
    height, width = _plane(kind, vision, patch, tensors)
    clip = packaged_config("huge").encoders["vision"]  # CLIP's mean and deviation
    mean, std = clip.mean, clip.std
    if kind == "LanguageBindAudio":
        mean = (vision.number("audio_mean", 0.5),) * 3
        std = (2 * vision.number("audio_std", 0.5, least=1e-6),) * 3
        if vision.whole("audio_sample_rate", RATE) != RATE:
            raise vision.fault("audio_sample_rate", f"is {vision.values['audio_sample_rate']}; {RATE} is supported")
    return EncoderConfig(
        family=NAME, shape=(3, *((frames,) if frames else ()), height, width), patch=(patch, patch), stride=(patch, patch),
        mean=mean, std=std, frame_tokens=frame_tokens,
        max_depth=vision.number("max_depth", 10, least=0) if kind == "LanguageBindDepth" else None,
        trunk=_trunk(vision, 12, tensors, "vision_model", pre_norm=True, frames=frames), **shared,
    )  # fmt: skip


def _text(words: ConfigFields, tensors: Mapping[str, Tensor], **shared: Any) -> EncoderConfig:
    """Make the config of the text tower."""
    vocabulary, context = words.whole("vocab_size", 49408), words.whole("max_position_embeddings", 77)
    words.agree("vocab_size", vocabulary, tensors, "text_model.embeddings.token_embedding.weight", 0)
    words.agree("max_position_embeddings", context, tensors, "text_model.embeddings.position_embedding.weight", 0)
    return EncoderConfig(
        family=NAME, shape=(context,), vocabulary=vocabulary, padding=min(END, vocabulary - 1), pool="eos",
        trunk=_trunk(words, 8, tensors, "text_model", causal=True), **shared,
    )  # fmt: skip


def _trunk(fields: ConfigFields, heads: int, tensors: Mapping[str, Tensor], model: str, **changes: Any) -> TrunkConfig:
    """Make the config of a trunk. heads: the published default of a tower of this kind, whose heads are 64 wide."""
    is_text = model == "text_model"
    width = fields.whole("hidden_size", 512 if is_text else 768)
    hidden = fields.whole("intermediate_size", 2048 if is_text else 3072)
    layers = fields.whole("num_hidden_layers", 12, most=MOST_LAYERS)
    first = "token_embedding.weight" if is_text else "class_embedding"
    fields.agree("hidden_size", width, tensors, f"{model}.embeddings.{first}", -1)
    fields.agree("intermediate_size", hidden, tensors, f"{model}.encoder.layers.0.mlp.fc1.weight", 0)
    numbers = {int(match[1]) for name in tensors if (match := re.match(rf"{model}\.encoder\.layers\.(\d+)\.", name))}
    if numbers and max(numbers) + 1 != layers:
        raise fields.fault("num_hidden_layers", f"is {layers}; the weights have {model}.encoder.layers.{max(numbers)}")
    count = fields.whole("num_attention_heads", heads)
    if width % count or ("num_attention_heads" not in fields.values and width // count != 64):  # no tensor's shape tells them
        raise fields.fault("num_attention_heads", f"is {count}, and hidden_size {width}: not heads of one width")
    activation = fields.values.get("hidden_act", "quick_gelu")
    if activation not in TRANSFORMERS_ACTIVATIONS:
        raise fields.fault("hidden_act", f"is {activation!r:.40}; choose from {', '.join(TRANSFORMERS_ACTIVATIONS)}")
    return TrunkConfig(
        width=width, layers=layers, heads=count, mlp=mlp_ratio(hidden, width), activation=TRANSFORMERS_ACTIVATIONS[activation],
        norm_eps=fields.number("layer_norm_eps", 1e-5, least=0, most=1), **changes,
    )  # fmt: skip


def _frames(kind: str, vision: ConfigFields, tensors: Mapping[str, Tensor]) -> tuple[int, bool]:
    """Return the frames of a clip, 0 for a tower without time, and whether each frame has a class token, as the tensors' shapes tell."""
    kernel, cls = (f"vision_model.embeddings.{name}" for name in ("patch_embedding.weight", "class_embedding"))
    over_time = next((name for name in tensors if ".temporal_attn." in name or ".temporal_embedding" in name), None)
    has_time, frames = vision.flag("add_time_attn", False), vision.whole("num_frames", 1, most=1 << 12)
    if has_time != (kind == "LanguageBindVideo"):
        raise vision.fault("add_time_attn", f"is {str(has_time).lower()}, which no published {kind} is")
    if over_time and not has_time:
        raise vision.fault("add_time_attn", f"is false; the weights have {published_spelling(over_time, tensors)}")
    if not has_time:
        if frames != 1:
            raise vision.fault("num_frames", f"is {frames}; a {kind} takes 1")
        if cls in tensors and tensors[cls].dim() != 1:
            raise UserError(f"{vision.place}: {cls} has shape {tuple(tensors[cls].shape)}; one class token is needed")
        return 0, False
    vision.agree("num_frames", frames, tensors, "vision_model.encoder.layers.0.temporal_embedding", 1)
    if kernel in tensors and tensors[kernel].dim() == 5 and tensors[kernel].shape[2] != 1:
        raise UserError(f"{vision.place}: {kernel} has shape {tuple(tensors[kernel].shape)}; kernels over several frames are not supported")
    if cls not in tensors:
        return frames, vision.values.get("clip_type") == "vl_new"
    if tensors[cls].dim() == 2 and tensors[cls].shape[0] != frames:
        raise vision.fault("num_frames", f"is {frames}; {cls} has shape {tuple(tensors[cls].shape)}")
    return frames, tensors[cls].dim() == 2


def _plane(kind: str, vision: ConfigFields, patch: int, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return the height and width of what a tower sees: of a sound, mel bins and frames."""
    positions = "vision_model.embeddings.position_embedding.weight"
    bins, length = (vision.whole(name, 0, least=0) for name in ("num_mel_bins", "target_length"))
    if kind == "LanguageBindAudio":
        for name, size in (("num_mel_bins", bins), ("target_length", length)):
            if size < patch:
                raise vision.fault(name, f"is {size}; a sound needs at least the {patch} of one patch")
        names: tuple[str, ...] = ("num_mel_bins", "target_length")
        sizes = bins, length
    else:
        if bins and length:
            raise vision.fault("num_mel_bins", f"is {bins}; a {kind} takes no sound")
        size = vision.values.get("image_size", 224)
        if isinstance(size, list | tuple):  # the published code leaves a list behind where it has built a model
            if len(size) != 2 or size[0] != size[1]:
                raise vision.fault("image_size", f"is {size!r:.40}; a number, or two that are equal, are needed")
            vision = replace(vision, values={**vision.values, "image_size": size[0]})
        side = vision.whole("image_size", 224, least=patch)
        names, sizes = ("image_size",), (side, side)
    patches = (sizes[0] // patch) * (sizes[1] // patch)
    if positions in tensors and tensors[positions].shape[0] != patches + 1:
        others = f" and {vision.section}{names[1]} {sizes[1]}" if len(names) > 1 else ""
        shape = tuple(tensors[positions].shape)
        raise vision.fault(names[0], f"is {sizes[0]}{others}, which makes {patches} patches; {positions} has shape {shape}")
    return sizes
