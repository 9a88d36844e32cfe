"""ONE-PEACE (arXiv 2305.11172): pictures, text and sounds through three encoders that share their attention, as published.

Source: github.com/OFA-Sys/ONE-PEACE at 71cfadf, its hub interface and retrieval model. A published file holds all three and its own config.

Dimensions: b batch, c channels, n tokens, d width.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import regex
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from imagebind_cli.encoder import EncoderConfig, InputConfig, Modality, Sample
from imagebind_cli.encoders.audio import open_sound, part_of_sound
from imagebind_cli.encoders.text import byte_letters, merge_pairs, sentence_samples
from imagebind_cli.encoders.vision import normalise, stored_picture
from imagebind_cli.errors import UserError
from imagebind_cli.media.audio.sound import Excerpt, Sound, Waveform
from imagebind_cli.media.decoding import Source
from imagebind_cli.media.image import as_rgb, upright
from imagebind_cli.options import REGION_OPTIONS, AudioOptions, TextOptions, VisionOptions
from imagebind_cli.region_samples import region_samples
from imagebind_cli.transformer import LINE_LENGTH, TrunkConfig, mlp_ratio
from imagebind_cli.weights.family import Family, Publication, Values, WeightLayout
from imagebind_cli.weights.model_config import ModelConfig, packaged_config

NAME = "onepeace"
THEIRS = {"vision": "image", "text": "text", "audio": "audio"}  # our encoders, and the names of theirs
EPSILON = 1e-5  # of every LayerNorm

# Names: published -> ours, for one encoder; <them> and <us> are its names. See `weights.tensor_names`.
ENCODER = """
encoder_wrapper.<them>_adapter.rp_bucket                                       -
encoder_wrapper.<them>_adapter.position_idx                                    -
encoder_wrapper.<them>_adapter.mask_embedding                                  -
encoder_wrapper.<them>_adapter.cls_embedding                                   <us>.stem.cls
encoder_wrapper.<them>_adapter.rel_pos_table_list.{i}.weight                   <us>.trunk.tables.{i}
encoder_wrapper.fusion_model.layers.{i}.<them>_ffn.0.wi_0.weight               <us>.trunk.blocks.{i}.mlp.up.weight#0
encoder_wrapper.fusion_model.layers.{i}.<them>_ffn.0.wi_1.weight               <us>.trunk.blocks.{i}.mlp.up.weight#1
encoder_wrapper.fusion_model.layers.{i}.<them>_ffn.2.{p}                       <us>.trunk.blocks.{i}.mlp.norm.{p}
encoder_wrapper.fusion_model.layers.{i}.<them>_ffn.3.{p}                       <us>.trunk.blocks.{i}.mlp.down.{p}
encoder_wrapper.fusion_model.<them>_layer_norm.{p}                             <us>.head.norm.{p}
<them>_proj.{p}                                                                <us>.head.proj.{p}
"""
STEMS = """
encoder_wrapper.image_adapter.pos_embed                                        vision.stem.pos                   as_sequence
encoder_wrapper.image_adapter.embed_images.0.{p}                               vision.stem.patches.conv.0.{p}
encoder_wrapper.image_adapter.embed_images.1.layer_norm.{p}                    vision.stem.patches.norm.0.{p}
encoder_wrapper.image_adapter.embed_images.3.{p}                               vision.stem.patches.conv.1.{p}
encoder_wrapper.image_adapter.embed_images.4.layer_norm.{p}                    vision.stem.patches.norm.1.{p}
encoder_wrapper.image_adapter.embed_images.6.{p}                               vision.stem.patches.conv.2.{p}
encoder_wrapper.text_adapter.embed_tokens.weight                               text.stem.tokens.weight
encoder_wrapper.text_adapter.embed_positions.weight                            text.stem.pos                     as_sequence
encoder_wrapper.audio_adapter.cls_pos_embed                                    audio.stem.cls_pos
encoder_wrapper.audio_adapter.embed_audios.0.conv_layers.{i}.0.weight          audio.stem.pieces.conv.{i}.weight
encoder_wrapper.audio_adapter.embed_audios.0.conv_layers.{i}.2.1.{p}           audio.stem.pieces.norm.{i}.{p}
encoder_wrapper.audio_adapter.embed_positions.{i}.0.{p}                        audio.stem.pos.{i}.{p}
encoder_wrapper.audio_adapter.embed_audios.2.{p}                               audio.stem.norm.{p}
encoder_wrapper.audio_adapter.embed_audios.3.{p}                               audio.stem.proj.{p}
"""
# The attention, which every encoder gets. <all> stands for their names in turn. A missing bias of the keys is zeros.
SHARED = """
encoder_wrapper.fusion_model.version                                           -
encoder_wrapper.fusion_model.layers.{i}.self_attn.q_proj.weight                <all>.trunk.blocks.{i}.attn.qkv.weight#0
encoder_wrapper.fusion_model.layers.{i}.self_attn.k_proj.weight                <all>.trunk.blocks.{i}.attn.qkv.weight#1
encoder_wrapper.fusion_model.layers.{i}.self_attn.v_proj.weight                <all>.trunk.blocks.{i}.attn.qkv.weight#2
encoder_wrapper.fusion_model.layers.{i}.self_attn.q_proj.bias                  <all>.trunk.blocks.{i}.attn.qkv.bias#0     then_zeros
encoder_wrapper.fusion_model.layers.{i}.self_attn.v_proj.bias                  <all>.trunk.blocks.{i}.attn.qkv.bias#1
encoder_wrapper.fusion_model.layers.{i}.self_attn.out_proj.{p}                 <all>.trunk.blocks.{i}.attn.out.{p}
encoder_wrapper.fusion_model.layers.{i}.self_attn.ln.{p}                       <all>.trunk.blocks.{i}.attn.norm.{p}
encoder_wrapper.fusion_model.layers.{i}.self_attn_layer_norm.{p}               <all>.trunk.blocks.{i}.norm1.{p}
encoder_wrapper.fusion_model.layers.{i}.final_layer_norm.{p}                   <all>.trunk.blocks.{i}.norm2.{p}
encoder_wrapper.fusion_model.layers.{i}.gamma_{j}                              <all>.trunk.blocks.{i}.scale{j}
"""
TRAINING_ONLY = re.compile(r"decoder_wrapper\.|decoder_(text|image|audio)_embed\.|(text|image|audio)_mask_(token|head)")

# Published addresses are those of the repository's checkpoints.md.
PUBLICATIONS = {
    "onepeace": Publication(
        "https://one-peace-shanghai.oss-accelerate.aliyuncs.com/one-peace.pt",
        "Apache-2.0",
        "pictures, text and sounds: 4 billion parameters, 15.5 GB",
    ),
    "onepeace-audiocaps": Publication(
        "https://one-peace-shanghai.oss-accelerate.aliyuncs.com/one_peace_checkpoints/finetune_al_retrieval.pt",
        "Apache-2.0",
        "sounds and text, fine-tuned on AudioCaps, Clotho and MACS",
    ),
    "onepeace-coco": Publication(
        "https://one-peace-shanghai.oss-accelerate.aliyuncs.com/one_peace_checkpoints/finetune_coco.pt",
        "Apache-2.0",
        "pictures and text, fine-tuned on COCO",
    ),
    "onepeace-flickr": Publication(
        "https://one-peace-shanghai.oss-accelerate.aliyuncs.com/one_peace_checkpoints/finetune_flickr.pt",
        "Apache-2.0",
        "pictures and text, fine-tuned on Flickr30K",
    ),
}

RATE = 16_000
SECONDS = 15  # of a sound that are heard, unless the config says otherwise
BLOCK = 1 << 19  # samples that are decoded at once
STEPS = 5, 2, 2, 2, 2, 2, 2  # of the sound's convolutions, unless the config says otherwise
TOKENS = 70  # of a text that are read, without the end token
PADDING, END, FIRST = 1, 2, 4  # ids: of padding, of the end of a text, and of the first token of the vocabulary
WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")  # GPT-2's


def onepeace_names(config: ModelConfig) -> str:
    """Return the table of names for the encoders that a file has."""
    ours = list(config.encoders)
    rows = [ENCODER.strip().replace("<them>", THEIRS[name]).replace("<us>", name) for name in ours]
    for line in SHARED.strip().splitlines():
        source, target, change = [*line.split(), ""][:3]
        rows.append(f"{source} {','.join(target.replace('<all>', name) for name in ours)} {change}")
    scaled = ",".join(f"{name}.log_scale" for name in ours if config.encoders[name].scale is not None)
    return "\n".join([*rows, STEMS.strip(), f"logit_scale {scaled or '-'}"])


def published_tensors(tensors: Mapping[str, Tensor], values: Values, place: str) -> dict[str, Tensor]:
    """Drop the tensors of training alone, and do what the published code does when it loads a file.

    A temperature that a file lacks is CLIP's first. Positions of pictures that were learnt on another grid are interpolated. Of the positions
    of texts, those of the longest text stay.
    """
    kept = {
        name.replace("rel_pos_table.weight", "rel_pos_table_list.0.weight"): tensor  # an earlier name
        for name, tensor in tensors.items()
        if not TRAINING_ONLY.match(name)
    }
    kept.setdefault("logit_scale", torch.tensor(math.log(1 / 0.07)))
    texts, pictures = "encoder_wrapper.text_adapter.embed_positions.weight", "encoder_wrapper.image_adapter.pos_embed"
    if texts in kept:
        kept[texts] = kept[texts][: TOKENS + 2]
    table = kept.get("encoder_wrapper.image_adapter.rel_pos_table_list.0.weight")
    if pictures in kept and table is not None:
        kept[pictures] = _on_grid(kept[pictures], _grid_side(len(table)))
    return kept


def _on_grid(positions: Tensor, side: int) -> Tensor:
    """Interpolate positions (1 + s * s, d), the class token's first, to a grid of another side."""
    learnt = math.isqrt(max(len(positions) - 1, 0))
    if positions.dim() != 2 or learnt**2 + 1 != len(positions) or learnt in (0, side) or side < 1:
        return positions
    grid = positions[1:].reshape(1, learnt, learnt, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid.float(), size=(side, side), mode="bicubic").to(positions.dtype)
    return torch.cat([positions[:1], grid.permute(0, 2, 3, 1).flatten(0, 2)])


def _grid_side(rows: int) -> int:
    """Return the side of the grid whose relative positions have so many rows; see `transformer.relative_rows`."""
    return (math.isqrt(max(rows - 3, 0)) + 1) // 2


def onepeace_config(values: Values, tensors: Mapping[str, Tensor], place: str) -> ModelConfig:
    """Make a config of the tensors' shapes, and of what they do not show of a file's own config.

    Raises:
        UserError: tensors are missing, or the file's config does not fit them; what it is about is named.
    """
    if not tensors:
        raise UserError(f"{place}: ONE-PEACE's sizes are read from its tensors; name the weight file")
    file = _File(values, tensors, place)
    make = {"vision": _picture_encoder, "text": _text_encoder, "audio": _sound_encoder}
    held = [name for name, them in THEIRS.items() if any(key.startswith(f"encoder_wrapper.{them}_adapter.") for key in tensors)]
    if not held:
        raise UserError(f"{place}: tensors missing: encoder_wrapper.image_adapter, text_adapter, audio_adapter")
    if (activation := file.value("model.encoder.activation_fn", "gelu")) != "gelu":
        raise UserError(f"{place}: cfg.model.encoder.activation_fn is {activation!r}; gelu is supported")
    encoders = {name: make[name](file) for name in held}
    return ModelConfig(
        name=Path(place).stem,
        dim=encoders[held[0]].dim,
        encoders=encoders,
        licence="Apache-2.0",
        about="ONE-PEACE: pictures, text and sounds in one space",
    )


@dataclass(frozen=True)
class _File:
    """A published file: the values of its config, its tensors, and its name for messages."""

    values: Values
    tensors: Mapping[str, Tensor]
    place: str

    def shape(self, name: str, axes: int) -> tuple[int, ...]:
        """Return the shape of a tensor that must be there, with so many axes."""
        if name not in self.tensors:
            raise UserError(f"{self.place}: tensors missing: {name}")
        shape = tuple(self.tensors[name].shape)
        if len(shape) != axes or 0 in shape:
            raise UserError(f"{self.place}: {name} has shape {shape}; one of {axes} axes is needed")
        return shape

    def numbered(self, before: str, after: str) -> list[str]:
        """Return the names of tensors that differ by one number, in its order."""
        pattern = re.compile(rf"{re.escape(before)}(\d+){re.escape(after)}")
        found = {int(match[1]): name for name in self.tensors if (match := pattern.fullmatch(name))}
        return [found[number] for number in sorted(found)]

    def value(self, path: str, default: Any = None) -> Any:
        """Return a value of the config by its path, as `model.encoder.layers`; the default where it is not there."""
        value: Any = self.values
        for key in path.split("."):
            if not isinstance(value, Mapping) or value.get(key) is None:
                return default
            value = value[key]
        return value

    def check(self, path: str, found: int, name: str, *, needed: bool = False) -> None:
        """Compare a value of the config, where there is one, with the size of a tensor that it describes.

        Raises:
            UserError: they differ, or the value is needed and missing.
        """
        value = self.value(path)
        if value is None and needed and self.values:
            raise UserError(f"{self.place}: cfg.{path} is missing; by the shape of {name} it is {found}")
        if value is not None and value != found:
            raise UserError(f"{self.place}: cfg.{path} is {value!r}; by the shape of {name} it is {found}")

    def trunk(self, them: str) -> TrunkConfig:
        """Return the shape of an encoder's trunk. them: its published name."""
        adapter, layers = f"encoder_wrapper.{them}_adapter", "encoder_wrapper.fusion_model.layers."
        names = {
            "width": f"{adapter}.cls_embedding",
            "up": f"{layers}0.{them}_ffn.0.wi_0.weight",
            "table": f"{adapter}.rel_pos_table_list.0.weight",
        }
        width, hidden = self.shape(names["width"], 3)[-1], self.shape(names["up"], 2)[0]
        rows, heads = self.shape(names["table"], 2)
        norms = self.numbered(layers, ".self_attn_layer_norm.weight")
        if not norms:
            raise UserError(f"{self.place}: tensors missing: {layers}0.self_attn_layer_norm.weight")
        tables = self.numbered(f"{adapter}.rel_pos_table_list.", ".weight")
        buckets = _grid_side(rows) if them == "image" else rows // 2 - 1
        self.check("model.encoder.attention_heads", heads, names["table"], needed=True)
        self.check("model.encoder.embed_dim", width, names["width"])
        self.check("model.encoder.ffn_embed_dim", hidden, names["up"])
        self.check("model.encoder.layers", len(norms), norms[-1])
        if them != "image":
            self.check(f"model.encoder.{them}_adapter.bucket_size", buckets, names["table"])
        return TrunkConfig(
            width=width, layers=len(norms), heads=heads, mlp=mlp_ratio(hidden, width), norm_eps=EPSILON, gated=True, inner_norms=True,
            layer_scale=True, relative="grid" if them == "image" else "line", buckets=buckets, shared_relative=len(tables) == 1,
        )  # fmt: skip

    def encoder(self, them: str, **more: Any) -> EncoderConfig:
        """Return the config of an encoder, with what its own kind has."""
        dim = self.shape(f"{them}_proj.weight", 2)[0]
        return EncoderConfig(family=NAME, dim=dim, trunk=self.trunk(them), head_bias=True, **more)


def _picture_encoder(file: _File) -> EncoderConfig:
    names = [f"encoder_wrapper.image_adapter.embed_images.{number}.weight" for number in (0, 3, 6)]
    shapes = [file.shape(name, 4) for name in names]
    patch = math.prod(shape[-1] for shape in shapes)
    table = "encoder_wrapper.image_adapter.rel_pos_table_list.0.weight"
    side = _grid_side(file.shape(table, 2)[0])
    size = file.value("task.patch_image_size", side * patch)
    if not isinstance(size, int) or size // patch != side:
        known = f"by the shape of {table} pictures are of {side * patch} x {side * patch}"
        raise UserError(f"{file.place}: cfg.task.patch_image_size is {size!r}; {known}, and its relative positions are not interpolated")
    clip = packaged_config("huge").encoders["vision"]
    return file.encoder(
        "image", shape=(3, side * patch, side * patch), patch=(patch, patch), stride=(patch, patch), mean=clip.mean, std=clip.std,
        convolutions=tuple((shape[0], shape[-1], shape[-1]) for shape in shapes),
    )  # fmt: skip


def _text_encoder(file: _File) -> EncoderConfig:
    tokens = file.shape("encoder_wrapper.text_adapter.embed_tokens.weight", 2)[0]
    if tokens < FIRST + len(_vocabulary()[1]):
        raise UserError(f"{file.place}: embed_tokens has {tokens} tokens; the vocabulary of texts has {FIRST + len(_vocabulary()[1])}")
    return file.encoder("text", shape=(TOKENS + 1,), vocabulary=tokens, padding=PADDING, scale=1 / 0.07, learn_scale=True)


def _sound_encoder(file: _File) -> EncoderConfig:
    adapter = "encoder_wrapper.audio_adapter"
    kernels = [file.shape(name, 3) for name in file.numbered(f"{adapter}.embed_audios.0.conv_layers.", ".0.weight")]
    found = [(shape[0], shape[-1]) for shape in kernels]
    path = "model.encoder.audio_adapter.feature_encoder_spec"
    written = file.value(path)
    try:
        pieces = _layers(written) if written is not None else [(*shape, step) for shape, step in zip(found, STEPS, strict=True)]
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise UserError(f"{file.place}: cfg.{path} is {written!r}; a list of (channels, kernel, step) is needed") from None
    if [piece[:2] for piece in pieces] != found or not found:
        raise UserError(f"{file.place}: cfg.{path} is {written!r}; by their shapes the convolutions have (channels, kernel) {found}")
    reach, step = 1, 1
    for _, kernel, each in pieces:
        reach, step = reach + (kernel - 1) * step, step * each
    seconds = file.value("task.max_duration", SECONDS)
    longest = ((LINE_LENGTH - 1) * step + reach - 1) / RATE
    if not isinstance(seconds, int | float) or not 1 <= seconds <= longest:
        raise UserError(f"{file.place}: cfg.task.max_duration is {seconds!r}; 1 to {longest:.4g} s can be heard")
    positions = [file.shape(name, 3) for name in file.numbered(f"{adapter}.embed_positions.", ".0.weight")]
    if positions:
        file.check(
            "model.encoder.audio_adapter.conv_pos_groups", positions[0][0] // positions[0][1], f"{adapter}.embed_positions.1.0.weight"
        )
        file.check("model.encoder.audio_adapter.conv_pos_depth", len(positions), f"{adapter}.embed_positions.{len(positions)}.0.weight")
    return file.encoder(
        "audio", shape=(int(seconds * RATE),), shortest=RATE, patch=(reach,), stride=(step,), convolutions=tuple(pieces),
        position_convolutions=tuple((shape[-1], shape[0] // shape[1]) for shape in positions), scale=1 / 0.07, learn_scale=True,
    )  # fmt: skip


def _layers(written: str) -> list[tuple[int, int, int]]:
    """Return the convolutions of a specification such as `[(512, 10, 5)] + [(512, 3, 2)] * 4`, which is Python; nothing is executed.

    Raises:
        ValueError, SyntaxError, TypeError: it is something else.
    """

    def layers(node: ast.expr) -> list[Any]:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return layers(node.left) + layers(node.right)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            times = ast.literal_eval(node.right)
            if type(times) is int and 0 < times <= 100:
                return layers(node.left) * times
        found = ast.literal_eval(node)
        if isinstance(found, list) and all(isinstance(layer, tuple) and len(layer) == 3 for layer in found):
            return found
        raise ValueError("not layers")

    found = layers(ast.parse(written, mode="eval").body)
    if not all(type(number) is int and number > 0 for layer in found for number in layer):
        raise ValueError("not sizes")
    return found


class Convolutions(nn.Module):
    """Convolutions in a row, (b, c, …) to (b, c', …), each with a LayerNorm over channels and GELU, of which the last may have neither."""

    def __init__(self, config: EncoderConfig, channels: int, axes: int, *, bias: bool, last_norm: bool) -> None:
        """channels: of the input. axes: those that are convolved, one of sounds, two of pictures."""
        super().__init__()
        convolution: Any = nn.Conv2d if axes == 2 else nn.Conv1d
        widths = [channels, *(width for width, _, _ in config.convolutions)]
        self.conv = nn.ModuleList(
            convolution(before, width, kernel, step, bias=bias)
            for before, (width, kernel, step) in zip(widths, config.convolutions, strict=False)
        )
        normed = widths[1:] if last_norm else widths[1:-1]
        self.norm = nn.ModuleList(nn.LayerNorm(width, eps=EPSILON) for width in normed)

    def forward(self, x: Tensor) -> Tensor:
        for number, convolution in enumerate(self.conv):
            x = convolution(x)
            if number < len(self.norm):
                x = F.gelu(self.norm[number](x.movedim(1, -1)).movedim(-1, 1))
        return x


class PictureStem(nn.Module):
    """Turns pictures (b, 3, h, w) into tokens (b, n, d): three convolutions, the class token, learned positions."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.trunk.width
        self.patches = Convolutions(config, config.shape[0], 2, bias=True, last_norm=False)
        self.cls = nn.Parameter(torch.empty(1, 1, width))
        self.pos = nn.Parameter(torch.empty(1, config.tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)  # (b, n - 1, d)
        return torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.pos


class SentenceStem(nn.Module):
    """Turns token ids (b, n - 1) into tokens (b, n, d): the class token first, which is not a word of the vocabulary, learned positions."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.trunk.width
        self.tokens = nn.Embedding(config.vocabulary, width)
        self.cls = nn.Parameter(torch.empty(1, 1, width))
        self.pos = nn.Parameter(torch.empty(1, config.shape[0] + 1, width))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.cls.expand(len(x), -1, -1), self.tokens(x)], dim=1)
        return x + self.pos[:, : x.shape[1]]


class SoundStem(nn.Module):
    """Turns waveforms (b, samples) into tokens (b, n, d): the class token, and one for each 20 ms.

    Convolutions over the tokens make their positions, so a padded sound would be another sound: those of a batch are of one length.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.trunk.width
        self.pieces = Convolutions(config, 1, 1, bias=False, last_norm=True)
        self.norm = nn.LayerNorm(config.convolutions[-1][0], eps=EPSILON)
        self.proj = nn.Linear(config.convolutions[-1][0], width)
        positions = enumerate(config.position_convolutions, start=1)  # theirs count from 1
        self.pos = nn.ModuleDict(
            {str(number): nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups) for number, (kernel, groups) in positions}
        )
        self.cls = nn.Parameter(torch.empty(1, 1, width))
        self.cls_pos = nn.Parameter(torch.empty(1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pieces(x.unsqueeze(1)).transpose(1, 2)  # (b, n - 1, c)
        x = self.proj(self.norm(x))  # (b, n - 1, d)
        positions = x.transpose(1, 2)
        for convolution in self.pos.values():
            positions = convolution(positions)[..., : x.shape[1]]  # an even kernel makes one too many
            positions = F.gelu(F.layer_norm(positions.transpose(1, 2), x.shape[-1:], eps=EPSILON)).transpose(1, 2)
        cls = (self.cls + self.cls_pos).expand(len(x), -1, -1)
        return torch.cat([cls, x + positions.transpose(1, 2)], dim=1)


def read_squashed(source: Source | np.ndarray | Image.Image, config: InputConfig, options: VisionOptions) -> Iterator[Sample]:
    """Read a picture file, a Pillow image, or an array (h, w, 3) uint8 in RGB: all of it, scaled to the square; or regions of it.

    EXIF does not turn a picture of which all is read. Regions are of the upright one.

    Raises:
        OSError, ValueError: the file cannot be read, or the array has another shape.
    """
    image, facts, taken = stored_picture(source)
    to_clip = partial(_squashed_clip, config=config, options=options)
    if options.has_regions:
        picture = upright(image.copy() if isinstance(source, Image.Image) else image, whole=True)
        yield from region_samples(picture, options, config.mean, to_clip, facts=facts, began=taken)
        return
    notes = (f"EXIF orientation {facts['orientation']} is not applied, as published",) if facts["orientation"] != 1 else ()
    tensor = to_clip(as_rgb(image)).unsqueeze(0)
    del image, source  # a sample may wait to be used; its full-size pixels need not
    yield Sample(tensor, [None], notes, facts=facts, began=taken)


def _squashed_clip(picture: Image.Image, config: InputConfig, options: VisionOptions) -> Tensor:
    """Scale a picture in RGB to the encoder's input (3, h, w), whatever its shape."""
    height, width = config.shape[-2:]
    if options.view is not None:
        picture = options.view.picture(picture, height)
    pixels = np.array(picture.resize((width, height), Image.Resampling.BICUBIC))  # (h, w, 3)
    return normalise(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, config)


@cache
def _vocabulary() -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    """Read the rank of every merge and the id of every token from the package."""
    with np.load(Path(__file__).with_name("onepeace_vocabulary.npz")) as packed:
        lines, order = packed["merges"].tobytes().decode().split("\n"), packed["order"]
    merges = [(first, second) for first, second in (line.split(" ") for line in lines)]
    ids = np.empty(len(order), np.int64)
    ids[order] = np.arange(FIRST, FIRST + len(order))
    tokens = [*byte_letters().values(), *(first + second for first, second in merges)]
    return {merge: rank for rank, merge in enumerate(merges)}, dict(zip(tokens, ids.tolist(), strict=False))


def _word_ids(word: str) -> tuple[int, ...]:
    ranks, ids = _vocabulary()
    return tuple(ids[part] for part in merge_pairs([byte_letters()[byte] for byte in word.encode()], ranks))


_known_word_ids = lru_cache(maxsize=65536)(_word_ids)


def sentence_ids(text: str) -> list[int]:
    """Return the token ids of a text of any length, without end: lower-cased behind a space, otherwise as it is, as the hub interface does."""
    words = WORDS.findall(" " + text.lower())
    return [token for word in words for token in (_known_word_ids if len(word) < 100 else _word_ids)(word)]


def read_sentence(source: str, config: InputConfig, options: TextOptions) -> Iterator[Sample]:
    """Read a sentence.

    Raises:
        ValueError: not a string, not UTF-8, or too long where `long_text` is `error`.
    """
    context = config.shape[0]

    def framed(words: list[int]) -> Tensor:
        return torch.tensor([*words, END] + [config.padding] * (context - 1 - len(words)))

    return sentence_samples(source, options, sentence_ids, framed, context - 1)


def read_waveform(source: Source | np.ndarray | tuple[np.ndarray, int], config: InputConfig, options: AudioOptions) -> Iterator[Sample]:
    """Read a sound file, or (waveform (samples,) or (channels, samples), rate in Hz), or a waveform alone, at 16 kHz.

    As published: the mean of the channels, at 16 kHz, is normalised over the whole of the sound, or of the requested stretch; then its
    first seconds are taken, as many as the encoder hears, and one of less than a second is repeated until it is one.

    Raises:
        OSError, ValueError: the file cannot be read, or holds no sound. UserError: it has another rate, and soxr is not installed.
    """
    most = config.shape[0]
    with open_sound(source, options.track) as whole:
        sound, begin, lacks = part_of_sound(whole, options.stretch)
        duration, first = sound.length / sound.rate, 0
        if options.moment is not None:
            first = int(options.moment.window(duration, most / RATE)[0] * RATE)
        heard, count, total, squares = np.empty(0, np.float32), 0, 0.0, 0.0
        for block in _mono(sound):
            wide = block.astype(np.float64)
            total, squares = total + float(wide.sum()), squares + float(wide @ wide)
            heard = np.concatenate([heard, block[max(first - count, 0) : max(first + most - count, 0)]])
            count += len(block)
        if not len(heard):
            raise ValueError("holds no sound")
        mean = total / count
        variance = max(squares / count - mean**2, 0.0)
        waveform = ((heard - mean) / math.sqrt(variance + EPSILON)).astype(np.float32)
        start = float(begin + Fraction(first, RATE))
        span = start, start + len(heard) / RATE
        warnings = [*sound.warnings, *lacks]
        if count > most and options.moment is None:
            warnings.append(f"{duration:.2f} s of sound, cut to the first {most / RATE:g} s")
        notes = (*sound.notes, "all channels are mixed, as published") if whole.channels > 1 else sound.notes
        if (shortest := config.shortest or 1) > len(waveform):
            waveform = np.tile(waveform, -(-shortest // len(waveform)))[:shortest]
            notes = (*notes, f"sound of less than {shortest / RATE:g} s is repeated until it is as long, as published")
        facts = sound.facts | {"heard": "mix", "windows": 1}
        yield Sample(torch.from_numpy(waveform).unsqueeze(0), [span], notes, facts, tuple(warnings), began=whole.began)


def _mono(sound: Sound | Waveform | Excerpt) -> Iterator[np.ndarray]:
    """Yield the mean of a sound's channels at 16 kHz, block by block, float32.

    Raises:
        UserError: it has another rate, and soxr is not installed.
    """
    stream, left = None, sound.length
    if sound.rate != RATE:
        try:
            from soxr import ResampleStream
        except ImportError:
            needs = f"a sound at {sound.rate} Hz needs soxr for ONE-PEACE, which is not installed"
            raise UserError(f"{needs}: pip install 'imagebind-cli[onepeace]'") from None
        stream, left = ResampleStream(sound.rate, RATE, 1, "float32", "HQ"), math.ceil(sound.length * (RATE / sound.rate))
    for start in range(0, sound.length, BLOCK):
        stop = min(start + BLOCK, sound.length)
        samples = sound.read(start, stop)
        mono = samples[0] if len(samples) == 1 else sum(samples[1:], samples[0]) / np.float32(len(samples))
        block = mono if stream is None else stream.resample_chunk(mono, last=stop == sound.length)
        yield block[:left]
        left -= len(block[:left])
    if left > 0:  # the resampler may make one less
        yield np.zeros(left, np.float32)


def is_onepeace(values: Values) -> bool:
    """Check whether a config is one of ONE-PEACE's; some of its own spell it `one_piece`."""
    model = values.get("model")
    return isinstance(model, Mapping) and str(model.get("_name", "")).startswith(("one_peace", "one_piece"))


def onepeace_modality(encoder: str, config: InputConfig) -> Modality | None:
    """Return how an encoder's inputs are read and its stem is built; None for a modality that ONE-PEACE does not have."""
    return MODALITIES.get(encoder)


MODALITIES = {
    "vision": Modality("vision", {"image": read_squashed, "vision": read_squashed}, PictureStem, options=REGION_OPTIONS),
    "text": Modality("text", {"text": read_sentence}, SentenceStem, options=("long_text",)),
    "audio": Modality("audio", {"audio": read_waveform}, SoundStem, options=("track",)),
}

LAYOUT = WeightLayout(
    prefixes=("encoder_wrapper.",),
    table=onepeace_names,
    config=onepeace_config,
    describes=is_onepeace,
    prepare=published_tensors,
)

FAMILY = Family(NAME, "pictures, text and sounds", (LAYOUT,), onepeace_modality, publications=PUBLICATIONS)
