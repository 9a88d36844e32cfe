"""The config of a ONE-PEACE model, from the shapes of its tensors and what its file says of itself: `onepeace_config`."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.errors import UserError
from imagebind_cli.families.onepeace.tokens import FIRST, vocabulary
from imagebind_cli.transformer import LINE_LENGTH, TrunkConfig, mlp_ratio
from imagebind_cli.weights.family import Values
from imagebind_cli.weights.model_config import ModelConfig, packaged_config

NAME = "onepeace"
THEIRS = {"vision": "image", "text": "text", "audio": "audio"}  # our encoders, and the names of theirs
EPSILON = 1e-5  # of every LayerNorm
RATE = 16_000  # Hz
SECONDS = 15  # of a sound that are heard, unless the config says otherwise
STEPS = 5, 2, 2, 2, 2, 2, 2  # of the sound's convolutions, unless the config says otherwise
TOKENS = 70  # of a text that are read, without the end token
PADDING, END = 1, 2  # ids of padding, and of the end of a text


def is_onepeace(values: Values) -> bool:
    """Check whether a config is one of ONE-PEACE's; some of its own spell it `one_piece`."""
    model = values.get("model")
    return isinstance(model, Mapping) and str(model.get("_name", "")).startswith(("one_peace", "one_piece"))


def grid_side(rows: int) -> int:
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
        buckets = grid_side(rows) if them == "image" else rows // 2 - 1
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
    side = grid_side(file.shape(table, 2)[0])
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
    if tokens < FIRST + len(vocabulary()[1]):
        raise UserError(f"{file.place}: embed_tokens has {tokens} tokens; the vocabulary of texts has {FIRST + len(vocabulary()[1])}")
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
