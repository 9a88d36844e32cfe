"""LanguageBind (arXiv 2310.01852): text and one other input in each published model, its layout of weights, and its preprocessing.

The towers are CLIP's. A video's blocks have an attention over time besides; sound is three stretches of log-mel energies as three channels.
What the published code does at random when it embeds has a fixed place here: no clip is mirrored, and of a long sound the middle of each
third is taken.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from imagebind_cli.encoder import EncoderConfig, InputConfig, Modality, Sample, Span
from imagebind_cli.encoders import text
from imagebind_cli.encoders.audio import FRAME, HOP, RATE, Levels, check_length, heard_rows, open_sound, part_of_sound
from imagebind_cli.encoders.depth import depth_unit, read_numbers, to_metres
from imagebind_cli.encoders.text import END, TextStem
from imagebind_cli.encoders.vision import check_frames, normalise, stored_picture, video_notes
from imagebind_cli.errors import UserError
from imagebind_cli.families.clip import TRANSFORMERS_ACTIVATIONS, transformers_rows
from imagebind_cli.media.decoding import Source
from imagebind_cli.media.image import middle, upright
from imagebind_cli.media.resampling import Resampled
from imagebind_cli.media.video.clips import open_video
from imagebind_cli.media.windows import Times, cut
from imagebind_cli.options import RECENT, REGION_OPTIONS, AudioOptions, DepthOptions, TextOptions, ThermalOptions, VisionOptions
from imagebind_cli.region_samples import region_samples
from imagebind_cli.transformer import TrunkConfig, mlp_ratio
from imagebind_cli.weights.family import Family, Publication, Values, WeightLayout
from imagebind_cli.weights.model_config import ModelConfig, packaged_config
from imagebind_cli.weights.tensor_files import release_pages

NAME = "languagebind"
TOWERS = {  # what a config's model_type says, and the encoder of the input that is not text
    "LanguageBindImage": "vision",
    "LanguageBindVideo": "vision",
    "LanguageBindAudio": "audio",
    "LanguageBindDepth": "depth",
    "LanguageBindThermal": "thermal",
}
LICENCE = "MIT (as stated by its authors)"

# Published name -> ours, with {t} for the tower that is not text: what CLIP in the same layout lacks, or has in another shape.
TENSORS = """
vision_model.embeddings.class_embedding                        {t}.stem.cls                                as_class_tokens
vision_model.encoder.layers.{i}.temporal_embedding             {t}.trunk.blocks.{i}.time.pos
vision_model.encoder.layers.{i}.temporal_layer_norm1.{p}       {t}.trunk.blocks.{i}.time.norm.{p}
vision_model.encoder.layers.{i}.temporal_attn.q_proj.{p}       {t}.trunk.blocks.{i}.time.attn.qkv.{p}#0
vision_model.encoder.layers.{i}.temporal_attn.k_proj.{p}       {t}.trunk.blocks.{i}.time.attn.qkv.{p}#1
vision_model.encoder.layers.{i}.temporal_attn.v_proj.{p}       {t}.trunk.blocks.{i}.time.attn.qkv.{p}#2
vision_model.encoder.layers.{i}.temporal_attn.out_proj.{p}     {t}.trunk.blocks.{i}.time.attn.out.{p}
logit_scale                                                    text.log_scale,{t}.log_scale
"""


def tensor_table(config: ModelConfig) -> str:
    """Return the table of names for a model of this config: that of the tower it has."""
    tower = next((name for name in config.encoders if name != "text"), "vision")
    return TENSORS.replace("{t}", tower) + transformers_rows(tower, "one_frame") + transformers_rows("text")


# ---- LoRA

WRAPPED, PLAIN = "vision_model.encoder.base_model.model.", "vision_model.encoder."  # the tower's blocks with PEFT around them, and without
ADAPTER = re.compile(r"(.+)\.lora_([AB])\.default\.weight")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


class FoldedTensors(Mapping[str, Tensor]):
    """Tensors by their plain names, with the products of low-rank matrices added to the weights that have some, when they are asked for."""

    def __init__(self, tensors: Mapping[str, Tensor], keys: Mapping[str, str], adapters: Mapping[str, tuple[str, str, float]]) -> None:
        """keys: plain name to the file's. adapters: plain name of a weight to the file's names of A and B, and the factor of B A."""
        self._tensors, self._keys, self._adapters = tensors, keys, adapters

    def __getitem__(self, name: str) -> Tensor:
        weight = self._tensors[self._keys[name]]
        if name not in self._adapters:
            return weight
        down, up, factor = self._adapters[name]
        change = self._tensors[up].float() @ self._tensors[down].float()  # (out, r) (r, in)
        folded = torch.add(weight.float(), change, alpha=factor).to(weight.dtype)
        release_pages(weight)
        return folded

    def __contains__(self, name: object) -> bool:
        return name in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def fold_adapters(tensors: Mapping[str, Tensor], values: Values, place: str) -> Mapping[str, Tensor]:
    """Return tensors without PEFT's names, LoRA (arXiv 2106.09685) to be folded in as W + alpha / r B A; those without it unchanged.

    Both namings are read: until PEFT 0.6 an adapted weight keeps its name, since 0.7 it is `base_layer.weight`.

    Raises:
        UserError: a file with adapters lacks some, or their shapes do not fit the weight or the config's rank.
    """
    if not any(name.startswith(WRAPPED) for name in tensors):
        return tensors
    keys: dict[str, str] = {}
    pairs: dict[str, dict[str, str]] = {}
    for key in tensors:
        if match := ADAPTER.fullmatch(key):
            pairs.setdefault(_plain(match[1]) + ".weight", {})[match[2]] = key
            continue
        name = _plain(key)
        if name in keys:
            raise UserError(f"{place}: {keys[name]} and {key} are the same tensor")
        keys[name] = key
    vision = ConfigFields.of(values, "vision_config", place)
    alpha = vision.number("lora_alpha", 16.0)
    rank = vision.whole("lora_r", 2, least=0)
    attention = "temporal_attn" if any(".temporal_attn." in name for name in keys) else "self_attn"
    layers = {name.removeprefix(f"{PLAIN}layers.").split(".")[0] for name in keys if name.startswith(f"{PLAIN}layers.")}
    expected = [f"{PLAIN}layers.{layer}.{attention}.{part}.weight" for layer in sorted(layers) for part in PROJECTIONS]
    missing = [
        f"{_wrapped(name).removesuffix('.weight')}.lora_{side}.default.weight"
        for name in dict.fromkeys((*expected, *pairs))
        for side in "AB"
        if side not in pairs.get(name, {})
    ]
    missing += [_spelling(name, tensors) for name in pairs if name not in keys]
    if missing:
        raise UserError(f"{place}: tensors missing: {', '.join(missing[:5])}" + f" and {len(missing) - 5} more" * (len(missing) > 5))
    adapters = {}
    for name, pair in pairs.items():
        (out, inner), down, up = tensors[keys[name]].shape, tensors[pair["A"]].shape, tensors[pair["B"]].shape
        if len(down) != 2 or down[0] != rank:
            raise vision.fault("lora_r", f"is {rank}; {pair['A']} has shape {tuple(down)}")
        if (tuple(down), tuple(up)) != ((rank, inner), (out, rank)):
            wrong = "A" if tuple(down) != (rank, inner) else "B"
            needed = (rank, inner) if wrong == "A" else (out, rank)
            shapes = tuple(tensors[pair[wrong]].shape), (out, inner)
            raise UserError(f"{place}: {pair[wrong]} has shape {shapes[0]}; {keys[name]} {shapes[1]}, which needs {needed}")
        adapters[name] = pair["A"], pair["B"], alpha / rank
    return FoldedTensors(tensors, keys, adapters)


def _plain(key: str) -> str:
    """Return a tensor's name without what PEFT puts around it."""
    return key.replace(WRAPPED, PLAIN).replace(".base_layer.", ".")


def _wrapped(name: str) -> str:
    return name.replace(PLAIN, WRAPPED, 1)


def _spelling(name: str, names: Any) -> str:
    """Return how a file that has these names spells a plain one."""
    if not name.startswith(PLAIN) or not any(key.startswith(WRAPPED) for key in names):
        return name
    module, _, kind = _wrapped(name).rpartition(".")
    is_adapted = f"{module}.lora_A.default.weight" in names and any(".base_layer." in key for key in names)
    return f"{module}.base_layer.{kind}" if is_adapted else f"{module}.{kind}"


# ---- config.json

UNDERSTOOD = {
    "model_type", "projection_dim", "logit_scale_init_value", "text_config", "vision_config",
}  # fmt: skip
UNDERSTOOD_TOWER = {
    "hidden_act", "layer_norm_eps", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
}  # fmt: skip
UNDERSTOOD_TEXT = UNDERSTOOD_TOWER | {"vocab_size", "max_position_embeddings", "add_time_attn"}
UNDERSTOOD_VISION = UNDERSTOOD_TOWER | {
    "patch_size", "image_size", "num_mel_bins", "target_length", "audio_mean", "audio_std", "audio_sample_rate", "add_time_attn",
    "num_frames", "clip_type", "lora_r", "lora_alpha", "max_depth",
}  # fmt: skip
# ConfigFields that mean nothing here unless they have another value than these.
PLAIN_VALUES: dict[str, tuple[Any, ...]] = {
    "num_channels": (3,), "tube_size": (None, 1), "pruned_heads": (None, {}), "add_cross_attention": (False,), "is_decoder": (False,),
    "is_encoder_decoder": (False,), "use_bfloat16": (False,), "quantization_config": (None,), "text_config_dict": (None,),
    "vision_config_dict": (None,),
}  # fmt: skip
# What transformers writes into every config, and settings of training: no vector depends on them.
WITHOUT_EFFECT = {
    "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "architectures", "attention_dropout",
    "attn_implementation", "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "chunk_size_feed_forward",
    "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty", "do_sample", "dropout", "dtype", "early_stopping",
    "encoder_no_repeat_ngram_size", "eos_token_id", "exponential_decay_length_penalty", "finetuning_task", "force_patch_dropout",
    "forced_bos_token_id", "forced_eos_token_id", "gradient_checkpointing", "id2label", "initializer_factor", "initializer_range",
    "label2id", "length_penalty", "lora_dropout", "max_length", "min_length", "model_type", "no_repeat_ngram_size", "num_beam_groups",
    "num_beams", "num_return_sequences", "output_attentions", "output_hidden_states", "output_scores", "pad_token_id", "prefix",
    "problem_type", "projection_dim", "remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate",
    "sep_token_id", "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder",
    "tie_word_embeddings", "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "transformers_version", "typical_p",
    "use_cache", "use_return_dict", "video_decode_backend",
}  # fmt: skip
MOST = 1 << 20  # of any size in a config
MOST_LAYERS = 1000


@dataclass(frozen=True)
class ConfigFields:
    """A part of a config with its name in front of errors. Every field that is not there has the published code's default.

    values: of the part. section: its name and a dot, "" for the whole. place: the file.
    """

    values: Mapping[str, Any]
    section: str
    place: str

    @classmethod
    def of(cls, values: Values, part: str, place: str) -> ConfigFields:
        """Return a part of a config; a part that is missing is empty.

        Raises:
            UserError: it is not a table.
        """
        table = values.get(part, {})
        if not isinstance(table, Mapping):
            raise UserError(f"{place}: {part} is {table!r:.40}; a table is needed")
        return cls(table, f"{part}.", place)

    def fault(self, name: str, what: str) -> UserError:
        """Return an error about a field; one that is not there is said to be missing."""
        missing = "" if name in self.values else " (missing: its default)"
        return UserError(f"{self.place}: {self.section}{name} {what}{missing}")

    def check_known(self, understood: set[str]) -> None:
        """Refuse fields whose meaning is not known.

        Raises:
            UserError: names the first.
        """
        for name, value in self.values.items():
            plain = PLAIN_VALUES.get(name)
            if not (name in understood or name in WITHOUT_EFFECT or (plain is not None and value in plain)):
                raise UserError(f"{self.place}: {self.section}{name} = {value!r:.60} is not supported; published towers have no such field")

    def whole(self, name: str, default: int, least: int = 1, most: int = MOST) -> int:
        """Return a whole number, which may be written as 112.0."""
        value = self.values.get(name, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not least <= value <= most or value != int(value):
            raise self.fault(name, f"is {value!r:.40}; a whole number from {least} to {most:,} is needed")
        return int(value)

    def number(self, name: str, default: float, least: float = -1e9, most: float = 1e9) -> float:
        """Return a number."""
        value = self.values.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
            raise self.fault(name, f"is {value!r:.40}; a number from {least:g} to {most:g} is needed")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """Return a truth value."""
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise self.fault(name, f"is {value!r:.40}; true or false is needed")
        return value

    def agree(self, name: str, value: int, tensors: Mapping[str, Tensor], tensor: str, axis: int) -> None:
        """Refuse a size that a tensor does not have, where that tensor is at hand.

        Raises:
            UserError: names the field and the tensor.
        """
        shape = tensors[tensor].shape if tensor in tensors else None
        if shape is not None and (len(shape) < max(axis + 1, -axis) or shape[axis] != value):
            raise self.fault(name, f"is {value}; {tensor} has shape {tuple(shape)}")


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
        raise UserError(f"{place}: {_spelling(over_time, tensors)} is not supported: an MLP over time, which no published tower has")
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
    scale = math.exp(whole.number("logit_scale_init_value", 2.6592, most=100.0))
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
        raise vision.fault("add_time_attn", f"is false; the weights have {_spelling(over_time, tensors)}")
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


# ---- preprocessing

FAILS = "the published code fails on such pictures"


def _square(plane: Tensor, size: int, resize: str) -> Tensor:
    """Scale a plane (h, w) so that its short side is `size`, bicubic, and cut out the middle, (size, size).

    As torchvision resizes tensors: release 0.14.1, to which the published code is pinned, without antialiasing, `recent` ones with it.
    """
    height, width = plane.shape
    short = min(height, width)
    if short != size:
        scaled = tuple(size if side == short else int(size * side / short) for side in (height, width))
        plane = F.interpolate(plane[None, None], size=scaled, mode="bicubic", align_corners=False, antialias=resize == RECENT)[0, 0]
    return _middle(plane, size)


def _middle(planes: Tensor, size: int) -> Tensor:
    """Cut the middle out of planes (…, h, w); half a pixel is rounded to the even one."""
    top, left = (round((side - size) / 2) for side in planes.shape[-2:])
    return planes[..., top : top + size, left : left + size]


def read_rgb_picture(
    source: Source | np.ndarray | Image.Image, config: InputConfig, options: VisionOptions | ThermalOptions
) -> Iterator[Sample]:
    """Read a picture file, a Pillow image, or an array (h, w, 3) or (h, w) uint8, as one clip; or regions of it. So are thermal pictures.

    Raises:
        OSError, ValueError: the file cannot be read, or the array has another shape.
    """
    if options.has_regions:
        picture, facts, taken = _rgb_picture(source, options)
        to_clip = partial(_picture_clip, config=config, options=options)
        yield from region_samples(picture, options, config.mean, to_clip, notes=_picture_notes(facts), facts=facts, began=taken)
    else:
        yield _picture_sample(source, config, options)


def _picture_sample(source: Any, config: InputConfig, options: VisionOptions | ThermalOptions) -> Sample:
    """Make the sample. Not inside `read_rgb_picture`, whose local variables, and so the picture in full size, would live until it is used."""
    picture, facts, taken = _rgb_picture(source, options)
    return Sample(_picture_clip(picture, config, options)[None], [None], _picture_notes(facts), facts, began=taken)


def _rgb_picture(source: Any, options: VisionOptions | ThermalOptions) -> tuple[Image.Image, dict[str, Any], datetime | None]:
    if isinstance(source, np.ndarray) and source.ndim == 2:
        source = np.repeat(source[..., None], 3, axis=-1)
    stored, facts, taken = stored_picture(source)
    return upright(stored.copy() if isinstance(source, Image.Image) else stored, whole=options.has_regions), facts, taken


def _picture_clip(picture: Image.Image, config: InputConfig, options: VisionOptions | ThermalOptions) -> Tensor:
    """Turn a picture in RGB into the encoder's input (3, size, size)."""
    size = config.shape[-1]
    if options.view is not None:
        picture = options.view.picture(picture, size)
    # One channel after the other: in float32 a large picture takes four times its room.
    channels = (torch.from_numpy(np.array(channel)).float() / 255 for channel in picture.split())
    return normalise(torch.stack([_square(channel, size, options.resize) for channel in channels]), config)


def _picture_notes(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what was made of a picture on which the published code fails, or which it does not turn."""
    notes = []
    if facts["mode"] != "RGB":
        only = ", the upper 8 of their 16 bits" if facts["bits"] == 16 else ""
        notes.append(f"pictures of mode {facts['mode']} are read as RGB{only}; {FAILS}")
    if facts["orientation"] != 1:
        notes.append("pictures are turned upright as their EXIF orientation says, which the published code does not heed")
    return tuple(notes)


def read_metric_depth(source: Source | np.ndarray, config: InputConfig, options: DepthOptions) -> Iterator[Sample]:
    """Read a depth file in millimetres (whole numbers) or metres, or an array (h, w), as one clip: far is bright; or regions of it.

    Raises:
        OSError, ValueError: the file cannot be read, or holds no metric depth.
    """
    if options.has_regions:
        plane, notes, facts = _shares_of_farthest(source, config, options)
        yield from region_samples(
            plane, options, config.mean, partial(_depth_clip, config=config, options=options), notes=notes, facts=facts
        )
    else:
        yield _depth_sample(source, config, options)


METRIC = ("metres", "mm", "sunrgbd")
NEAREST = 0.01  # metres; nothing is nearer, so a pixel without depth, 0, is the nearest of all


def _depth_sample(source: Source | np.ndarray, config: InputConfig, options: DepthOptions) -> Sample:
    plane, notes, facts = _shares_of_farthest(source, config, options)
    plane = plane[middle(*plane.shape), middle(*plane.shape[::-1])]
    return Sample(_depth_clip(plane, config, options)[None], [None], notes, facts)


def _depth_clip(plane: np.ndarray, config: InputConfig, options: DepthOptions) -> Tensor:
    """Turn a map of shares of the farthest (h, w) into the encoder's input (3, size, size)."""
    if options.view is not None:
        plane = options.view.plane(plane, config.shape[-1]).copy()
    square = _square(torch.from_numpy(np.ascontiguousarray(plane, np.float32)), config.shape[-1], options.resize)
    return normalise(square.expand(3, -1, -1), config)


def _shares_of_farthest(
    source: Source | np.ndarray, config: InputConfig, options: DepthOptions
) -> tuple[np.ndarray, tuple[str, ...], dict[str, Any]]:
    """Return depth in shares of the farthest (h, w), what was assumed, in words, and facts about the file."""
    numbers = read_numbers(source, options)
    unit = depth_unit(numbers.values, options)
    if unit not in METRIC:
        raise ValueError(f"{unit} depth has no metres, which LanguageBind's depth tower takes")
    metres = to_metres(numbers.values, unit).astype(np.float32)
    known = numbers.known & (metres > 0)
    if not known.any():
        raise ValueError("no pixel has a depth")
    lifted = np.where(known, metres, 0).clip(min=NEAREST)
    farthest = np.float32(config.max_depth or lifted.max())
    notes = list(numbers.notes) if options.depth_format else [*numbers.notes, f"depth read as {unit}"]
    facts = {
        "size": list(metres.shape), "bits": 8 * numbers.values.dtype.itemsize, "unit": unit, "nearest": float(metres[known].min()),
        "farthest": float(metres[known].max()), "missing": 1 - float(known.mean()),
    }  # fmt: skip
    if not known.all():
        notes.append(f"pixels without depth are taken as {NEAREST} m away, as published")
    if float(np.median(metres[known])) > farthest:
        notes.append(f"most pixels lie beyond {farthest:g} m, where depth is cut off: is it really {unit}?")
    return np.minimum(lifted, farthest) / farthest, tuple(notes), facts


EVER = Fraction(10**9)  # seconds; later than any frame, also of a file that says less than it has


def read_whole_video(source: Any, config: InputConfig, options: VisionOptions) -> Iterator[Sample]:
    """Read a video file, an animated picture, a folder of frames, (frames (t, h, w, 3) uint8 in RGB, rate in Hz), or frames alone, as one clip.

    Its frames are evenly spaced from the first to the last of the whole, or of a stretch; a short one repeats some.

    Raises:
        OSError, ValueError: the file cannot be read, or the array has another shape.
    """
    if isinstance(source, np.ndarray | tuple):
        yield _frames_sample(source, config, options)
        return
    with open_video(source, options.fps, options.track) as video:
        begin, end, lacks = _part(options, video.duration)
        (frames,) = video.clips([(begin, EVER if end is None else end)], config.shape[1])
        facts = video.facts | {"windows": 1}
        assumed = video_notes(video, options) + _repeated(facts["frames"] if end is None else None, config)
        span = float(begin), float(video.duration if end is None else end)
        began = video.began
    yield Sample(_clip(frames, config, options), [span], assumed, facts, lacks, began=began)


def _frames_sample(source: np.ndarray | tuple[np.ndarray, float], config: InputConfig, options: VisionOptions) -> Sample:
    frames, rate = source if isinstance(source, tuple) else (source, None)
    check_frames(frames, 1.0 if rate is None else rate)
    count, first, stop = config.shape[1], 0, len(frames)
    lacks: tuple[str, ...] = ()
    span: Span = None if rate is None else (0.0, len(frames) / rate)
    if rate is not None:
        begin, end, lacks = _part(options, len(frames) / rate)
        if end is not None:
            first, stop = math.ceil(begin * Fraction(rate)), math.ceil(end * Fraction(rate))
            stop, span = max(stop, first + 1), (float(begin), float(end))
    chosen = [first + i * (stop - 1 - first) // max(count - 1, 1) for i in range(count)]
    facts = {"size": [frames.shape[2], frames.shape[1]], "fps": rate, "frames": len(frames), "windows": 1}
    return Sample(_clip([frames[i] for i in chosen], config, options), [span], _repeated(stop - first, config), facts, lacks)


def _part(options: VisionOptions, duration: float) -> tuple[Fraction, Fraction | None, tuple[str, ...]]:
    """Return when the requested part begins and ends, None for the end of the whole, and in words what of it is missing."""
    times: Times | None = options.stretch
    if options.moment is not None:
        times = options.moment.start, options.moment.end
    if times is None or times == (None, None):
        return Fraction(0), None, ()
    return cut(times, duration)


def _repeated(frames: int | None, config: InputConfig) -> tuple[str, ...]:
    note = f"videos of fewer than {config.shape[1]} frames show some of them twice or more, as published"
    return () if frames is None or frames >= config.shape[1] else (note,)


def _clip(frames: Sequence[np.ndarray], config: InputConfig, options: VisionOptions) -> Tensor:
    """Turn frames (h, w, 3) uint8 into one clip (1, 3, t, size, size): short side to size, bilinear and not antialiased, then the middle."""
    size = config.shape[-1]
    if options.view is not None:
        frames = [np.asarray(options.view.picture(Image.fromarray(frame), size)) for frame in frames]
    planes = []
    for frame in frames:
        kept = np.ascontiguousarray(frame[middle(*frame.shape[:2]), middle(*frame.shape[1::-1])].transpose(2, 0, 1))
        pixels = normalise(torch.from_numpy(kept).float() / 255, config)
        height, width = pixels.shape[1:]
        scaled = (math.floor(height / width * size), size) if width < height else (size, math.floor(width / height * size))
        planes.append(_middle(F.interpolate(pixels[None], size=scaled, mode="bilinear", align_corners=False)[0], size))
    return torch.stack(planes, dim=1)[None]


WHOLE_SECONDS = 300  # a sound of at most this length is read whole, as published; of a longer one only what is heard


def read_stretches(source: Any, config: InputConfig, options: AudioOptions) -> Iterator[Sample]:
    """Read a sound file, or (waveform (samples,) or (channels, samples) in [-1, 1], rate in Hz), or a waveform alone at 16 kHz, as one clip.

    Its three channels are three stretches of the log-mel energies of one channel: of a sound that is no longer than one, the same, repeated
    up to its length; else those in the middle of each third of all places where one can begin.

    Raises:
        OSError, ValueError: the file cannot be read, or is too short.
    """
    most = config.shape[-1]
    length = (most - 1) * HOP + FRAME  # samples of a stretch
    levels = Levels()
    with open_sound(source, options.track) as whole:
        if options.moment is not None:
            duration = whole.length / whole.rate
            first, last = options.moment.window(duration, length / RATE)
            options = replace(options, stretch=(float(first), min(float(last), duration)))
        sound, begin, lacks = part_of_sound(whole, options.stretch)
        check_length(sound)

        def rows(start: int, stop: int) -> Tensor:
            samples = sound.read(start, stop)
            levels.add(samples, heard_rows(samples, options.channels)[0])
            return torch.from_numpy(np.ascontiguousarray(samples))

        resampled = Resampled(rows, sound.length, sound.rate, RATE)
        frames = (resampled.length - FRAME) // HOP + 1
        places = stretch_places(frames, most)
        if resampled.length <= WHOLE_SECONDS * RATE:
            energies = _log_mel(resampled.read(0, resampled.length), config, options)
            stretches = [energies[:, place : place + most] for place in places]
        else:
            each = {place: _log_mel(samples, config, options) for place, samples in _stretches(resampled, sorted(set(places)), length)}
            stretches = [each[place] for place in places]
        notes: tuple[str, ...] = ()
        if frames < most:
            stretches = [stretch[:, torch.arange(most) % frames] for stretch in stretches]
            notes = (f"sounds of less than {length / RATE:g} s are repeated up to that length, as published",)
        elif frames > most:
            notes = (f"of sounds longer than {length / RATE:g} s the middle of each third is heard; the published code draws parts",)
        seconds = resampled.length / RATE
        facts = sound.facts | {"heard": options.channels, "windows": 1, "stretches": [place * HOP / RATE for place in places]}
        yield Sample(
            normalise(torch.stack(stretches), config)[None], [(float(begin), float(begin) + seconds)], sound.notes + notes, facts,
            (*sound.warnings, *lacks, *levels.warnings(options.channels)), began=whole.began,
        )  # fmt: skip


def _log_mel(samples: Tensor, config: InputConfig, options: AudioOptions) -> Tensor:
    """Return log-mel energies (bins, frames) of samples (channels, n), less the mean of all of them.

    torchaudio's, in float32 like the published ones. `encoders.audio`'s are more exact, and so differ where a band holds little but rounding.
    """
    from torchaudio.compliance.kaldi import fbank  # imported here: nothing else that reads needs torchaudio

    heard = samples[0] if options.channels == "first" else samples.mean(dim=0)
    return fbank(
        (heard - samples.mean())[None], htk_compat=True, sample_frequency=RATE, use_energy=False, window_type="hanning",
        num_mel_bins=config.shape[1], dither=0.0, frame_length=1000 * FRAME / RATE, frame_shift=1000 * HOP / RATE,
    ).T  # fmt: skip


def stretch_places(frames: int, most: int) -> list[int]:
    """Return the frames at which the three stretches of `most` frames begin: the middle of each third of all places; 0 for an empty third."""
    if frames <= most:
        return [0, 0, 0]
    thirds = np.array_split(np.arange(frames - most + 1), 3)
    return [int(third[len(third) // 2]) if len(third) else 0 for third in thirds]


def _stretches(resampled: Resampled, places: Sequence[int], length: int) -> Iterator[tuple[int, Tensor]]:
    """Yield each place with its samples (channels, length), in the order of time; what two of them share is read once."""
    held, at = torch.empty(0, 0), 0
    for place in places:
        first, reached = place * HOP, at + held.shape[1]
        fresh = resampled.read(max(first, reached), first + length)
        held = torch.cat([held[:, first - at :], fresh], dim=1) if first < reached else fresh
        at = first
        yield place, held


def read_padded_text(source: str, config: EncoderConfig, options: TextOptions) -> Iterator[Sample]:
    """Read a sentence as ImageBind does, but fill it up with the end token, as published.

    Raises:
        ValueError: as `encoders.text.read_text`.
    """
    for sample in text.read_text(source, config, options):
        tokens = sample.tensor
        after = (tokens == END).flip(-1).cumsum(-1).flip(-1) == 0  # behind the last end token
        yield replace(sample, tensor=torch.where(after, config.padding, tokens))


PICTURES = Modality("vision", {"image": read_rgb_picture}, options=("resize", *REGION_OPTIONS))
VIDEOS = Modality("vision", {"video": read_whole_video}, options=("fps", "track"))
OTHERS = {
    "text": Modality("text", {"text": read_padded_text}, stem=TextStem),
    "audio": Modality("audio", {"audio": read_stretches}, preview="spectrogram", options=("channels", "track")),
    "depth": Modality("depth", {"depth": read_metric_depth}, options=("depth_format", "dataset", "frame", "resize", *REGION_OPTIONS)),
    "thermal": Modality("thermal", {"thermal": read_rgb_picture}, options=("resize", *REGION_OPTIONS)),
}


def inputs_of(encoder: str, config: InputConfig) -> Modality | None:
    """Return how an encoder's inputs are read. A vision tower takes pictures, or clips with frames."""
    if encoder == "vision":
        return VIDEOS if len(config.shape) == 4 else PICTURES
    return OTHERS.get(encoder)


LAYOUT = WeightLayout(
    prefixes=("vision_model.", "text_model."),
    table=tensor_table,
    config=languagebind_config,
    describes=is_languagebind,
    prepare=fold_adapters,
    spelling=_spelling,
)

PUBLICATIONS = {
    "languagebind-image": Publication("hf://LanguageBind/LanguageBind_Image", LICENCE, "pictures and text: CLIP, as the others started"),
    "languagebind-video": Publication("hf://LanguageBind/LanguageBind_Video_V1.5_FT", LICENCE, "videos and text, version 1.5"),
    "languagebind-video-ft": Publication("hf://LanguageBind/LanguageBind_Video_FT", LICENCE, "videos and text, version 1, fully tuned"),
    "languagebind-video-lora": Publication("hf://LanguageBind/LanguageBind_Video", LICENCE, "videos and text, version 1, with LoRA"),
    "languagebind-video-huge": Publication(
        "hf://LanguageBind/LanguageBind_Video_Huge_V1.5_FT", LICENCE, "videos and text, ViT-H: vectors of its own of 1024 numbers"
    ),
    "languagebind-audio": Publication("hf://LanguageBind/LanguageBind_Audio_FT", LICENCE, "sound and text, fully tuned"),
    "languagebind-audio-lora": Publication("hf://LanguageBind/LanguageBind_Audio", LICENCE, "sound and text, with LoRA"),
    "languagebind-depth": Publication("hf://LanguageBind/LanguageBind_Depth", LICENCE, "depth maps in metres and text"),
    "languagebind-thermal": Publication("hf://LanguageBind/LanguageBind_Thermal", LICENCE, "thermal pictures and text"),
}

FAMILY = Family(
    NAME,
    "text, each with one of pictures, videos, sound, depth and thermal",
    (LAYOUT,),
    modality=inputs_of,
    publications=PUBLICATIONS,
)
