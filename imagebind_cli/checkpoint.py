"""Weights on disk: the published .pth, our folder of safetensors, OpenCLIP's ViT towers. One encoder is read without the others.

Names of tensors in foreign files stand in two tables; whatever a table does not know is an error that names it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagebind_cli import model_config, registry
from imagebind_cli.encoder import Encoder, EncoderConfig, build_encoder
from imagebind_cli.errors import UserError
from imagebind_cli.model_config import ModelConfig

# Published name -> ours; the first row that fits wins, in both directions. {m} modality, {i} digits, {p} weight or bias, {kv} k or v.
PUBLISHED_KEYS = """
modality_preprocessors.text.mask                            -
modality_preprocessors.text.token_embedding.weight          text.stem.tokens.weight
modality_preprocessors.text.pos_embed                       text.stem.pos
modality_preprocessors.imu.pos_embed                        imu.stem.pos
modality_preprocessors.imu.imu_stem.proj.weight             imu.stem.proj.weight
modality_preprocessors.imu.imu_stem.norm_layer.{p}          imu.stem.norm.{p}
modality_preprocessors.depth.depth_stem.proj.weight         depth.stem.proj.weight
modality_preprocessors.depth.depth_stem.norm_layer.{p}      depth.stem.norm.{p}
modality_preprocessors.vision.rgbt_stem.proj.1.weight       vision.stem.proj.weight
modality_preprocessors.{m}.rgbt_stem.proj.weight            {m}.stem.proj.weight
modality_preprocessors.{m}.rgbt_stem.norm_layer.{p}         {m}.stem.norm.{p}
modality_preprocessors.{m}.cls_token                        {m}.stem.cls
modality_preprocessors.{m}.pos_embedding_helper.pos_embed   {m}.stem.pos
modality_trunks.{m}.pre_transformer_layer.0.{p}             {m}.trunk.norm.{p}
modality_trunks.{m}.blocks.{i}.attn.in_proj_{p}             {m}.trunk.blocks.{i}.attn.qkv.{p}
modality_trunks.{m}.blocks.{i}.attn.out_proj.{p}            {m}.trunk.blocks.{i}.attn.out.{p}
modality_trunks.{m}.blocks.{i}.attn.bias_{kv}               {m}.trunk.blocks.{i}.attn.bias_{kv}
modality_trunks.{m}.blocks.{i}.norm_1.{p}                   {m}.trunk.blocks.{i}.norm1.{p}
modality_trunks.{m}.blocks.{i}.norm_2.{p}                   {m}.trunk.blocks.{i}.norm2.{p}
modality_trunks.{m}.blocks.{i}.mlp.fc1.{p}                  {m}.trunk.blocks.{i}.mlp.up.{p}
modality_trunks.{m}.blocks.{i}.mlp.fc2.{p}                  {m}.trunk.blocks.{i}.mlp.down.{p}
modality_heads.text.proj.0.{p}                              text.head.norm.{p}
modality_heads.text.proj.1.weight                           text.head.proj.weight
modality_heads.imu.3.weight                                 imu.head.proj.weight
modality_heads.{m}.0.{p}                                    {m}.head.norm.{p}
modality_heads.{m}.2.weight                                 {m}.head.proj.weight
modality_postprocessors.{m}.1.log_logit_scale               {m}.log_scale
"""

# OpenCLIP's name -> ours, and what is done to the tensor on the way.
OPENCLIP_KEYS = """
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

CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    # Half the kernel on each of two frames: on a still picture, two equal frames, exactly the 2-D convolution.
    "two_frames": lambda kernel: (kernel / 2).unsqueeze(2).repeat(1, 1, 2, 1, 1),
    "as_sequence": lambda tensor: tensor.reshape(1, -1, tensor.shape[-1]),
    "transposed": lambda tensor: tensor.T.contiguous(),
}

PLACES = {
    "{m}": f"(?P<m>{'|'.join(registry.ENCODERS)})",
    "{i}": r"(?P<i>\d+)",
    "{p}": "(?P<p>weight|bias)",
    "{kv}": "(?P<kv>k|v)",
}


@dataclass(frozen=True)
class Checkpoint:
    """A model whose weights can be read.

    config: what it is made of. place: where it lies, for messages and records. read: encoder name to its tensors under our names.
    """

    config: ModelConfig
    place: str
    read: Callable[[str], Mapping[str, Tensor]]

    @property
    def untrained(self) -> bool:
        """Whether the weights are made by rule, so that nearness between modalities means nothing."""
        return self.config.rule_seed is not None


def rename(key: str, table: str, backwards: bool = False) -> tuple[str | None, str | None]:
    """A tensor's name on the other side of a table, and the name of the change made on the way.

    (None, None) for a name the table drops.

    Raises:
        KeyError: for a name the table does not know.
    """
    for pattern, template, change in _rows(table, backwards):
        if match := pattern.fullmatch(key):
            return (None if template == "-" else template.format_map(match.groupdict())), change
    raise KeyError(key)


@cache
def _rows(table: str, backwards: bool) -> list[tuple[re.Pattern[str], str, str | None]]:
    rows: list[tuple[re.Pattern[str], str, str | None]] = []
    for line in table.strip().splitlines():
        source, target, *rest = line.split()
        if backwards:
            source, target = target, source
        pattern = re.escape(source).replace(r"\{", "{").replace(r"\}", "}")
        for place, expression in PLACES.items():
            pattern = pattern.replace(place, expression)
        rows.append((re.compile(pattern), target, rest[0] if rest else None))
    return rows


def open_file(path: Path, config: ModelConfig | None = None) -> Checkpoint:
    """A single file of published or OpenCLIP tensors (.pth, .pt, .bin, .safetensors), memory-mapped and as it is.

    Args:
        config: what it holds; None takes a `.json` of the same name beside it, else the published model's for published names.
    Raises:
        UserError: unreadable, not plain tensors, or names of neither kind.
    """
    return from_tensors(read_tensors(path), config or _config_beside(path), str(path))


def from_tensors(tensors: Mapping[str, Tensor], config: ModelConfig | None, place: str) -> Checkpoint:
    """A checkpoint from tensors under published or OpenCLIP names; every name is checked at once, before any is read.

    Raises:
        UserError: names no table knows, or OpenCLIP's without their config.
    """
    openclip = any(key.startswith("visual.") for key in tensors)
    if config is None and openclip:
        raise UserError(f"{place}: OpenCLIP weights need their config: --config open_clip_config.json, or a name such as ViT-H-14")
    table = OPENCLIP_KEYS if openclip else PUBLISHED_KEYS
    ours: dict[str, tuple[str, str | None]] = {}
    unknown = []
    for key in tensors:
        try:
            name, change = rename(key, table)
        except KeyError:
            unknown.append(key)
            continue
        if name is not None:
            ours[name] = (key, change)
    if unknown:
        raise UserError(f"{place}: tensors that are no part of this model: {_some(unknown)}")
    if config is None:
        config = replace(model_config.named("huge"), address=None)

    def read(encoder: str) -> Mapping[str, Tensor]:
        prefix = f"{encoder}."
        mine = {name.removeprefix(prefix): value for name, value in ours.items() if name.startswith(prefix)}
        return {name: CHANGES[change](tensors[key]) if change else tensors[key] for name, (key, change) in mine.items()}

    held = {name.partition(".")[0] for name in ours}
    config = replace(config, encoders={name: encoder for name, encoder in config.encoders.items() if name in held})
    return Checkpoint(config, place, read)


def open_folder(folder: Path, config: ModelConfig | None = None) -> Checkpoint:
    """A model folder: ours (`config.json` and a safetensors file per encoder), OpenCLIP's (`open_clip_config.json`), or one foreign file.

    Raises:
        UserError: none of these, or a config that does not fit.
    """
    ours = folder / "config.json"
    if config is None and ours.is_file() and '"format"' in ours.read_text():
        config = model_config.from_json(ours.read_text(), str(ours))
        return Checkpoint(config, str(folder), lambda encoder: read_tensors(folder / f"{encoder}.safetensors"))
    stem = "*"
    if (folder / "open_clip_config.json").is_file():
        stem = "open_clip_*"  # such a folder often holds the same weights again for another library
        config = config or openclip_config(str(folder / "open_clip_config.json"))
    files = [path for ending in ("safetensors", "pth", "bin", "pt") for path in sorted(folder.glob(f"{stem}.{ending}"))]
    if not files:
        raise UserError(f"{folder}: no model here: neither config.json with format {model_config.FORMAT} nor a weight file")
    return open_file(files[0], config)


def openclip_config(name: str) -> ModelConfig:
    """A config from an OpenCLIP JSON file, or from a name in the installed open_clip package (`ViT-H-14`, `ViT-H-14-quickgelu`).

    Raises:
        UserError: no such file or name, or towers these encoders do not have.
    """
    path = Path(name)
    if not path.is_file():
        from importlib.util import find_spec

        package = find_spec("open_clip")  # found, not imported
        path = Path(package.origin if package and package.origin else ".").parent / "model_configs" / f"{name}.json"
        if Path(name).name != name or not path.is_file():
            raise UserError(f"{name}: neither an OpenCLIP JSON file nor a config name of the open_clip package")
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    return model_config.from_openclip(values, path.stem if path.stem != "open_clip_config" else path.parent.name)


def by_rule(config: ModelConfig) -> Checkpoint:
    """A model that needs no file: every tensor drawn from `config.rule_seed` and its own name, so that each encoder stands alone."""

    def read(encoder: str) -> Mapping[str, Tensor]:
        shapes = build_encoder(registry.get(encoder), config.encoders[encoder]).state_dict()
        return {name: _ruled(f"{encoder}.{name}", tuple(shape.shape), config, encoder) for name, shape in shapes.items()}

    return Checkpoint(config, f"{config.name} (made by rule)", read)


def _ruled(name: str, shape: tuple[int, ...], config: ModelConfig, encoder: str) -> Tensor:
    if name.endswith("log_scale"):
        return torch.tensor(math.log(config.encoders[encoder].scale or 1.0))
    random = np.random.default_rng([config.rule_seed or 0, zlib.crc32(name.encode())])
    values = random.standard_normal(shape, dtype=np.float32)
    if "norm" in name:
        values = 0.05 * values + (1 if name.endswith("weight") else 0)
    elif name.endswith("bias"):
        values *= 0.02
    elif name.endswith(("cls", "pos", "tokens.weight", "bias_k", "bias_v")):
        values *= 0.3
    else:
        values /= np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(values)


def encoder_config(checkpoint: Checkpoint, modality: str) -> EncoderConfig:
    """The config of the encoder behind a modality.

    Raises:
        UserError: unknown modality, or one this model has no encoder for.
    """
    name = registry.encoder_name(modality)
    if name not in checkpoint.config.encoders:
        raise UserError(f"{checkpoint.place}: this model has no {name} encoder; it has {', '.join(checkpoint.config.encoders)}")
    return checkpoint.config.encoders[name]


def load_encoder(checkpoint: Checkpoint, modality: str, device: torch.device, dtype: torch.dtype | None = None) -> Encoder:
    """One encoder with its weights, in eval mode. Device and dtype are decided here and nowhere else.

    Args:
        dtype: None for float32 on CPU and the weights' own type elsewhere.
    Raises:
        UserError: the model lacks this encoder, or tensors are missing, too many or of another shape; each is named.
    """
    name = registry.encoder_name(modality)
    encoder = build_encoder(registry.get(name), encoder_config(checkpoint, modality))
    tensors = checkpoint.read(name)
    _check_tensors(tensors, encoder.state_dict(), f"{checkpoint.place}, {name}")
    encoder.load_state_dict(tensors, strict=True, assign=True)
    if dtype is None and device.type == "cpu":
        dtype = torch.float32
    encoder = encoder.to(device=device, dtype=dtype)
    if hasattr(encoder, "log_scale"):  # half precision would move the temperature
        encoder.log_scale.data = tensors["log_scale"].to(device=device, dtype=torch.float32)
    return encoder


def _check_tensors(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], place: str) -> None:
    if missing := [name for name in wanted if name not in given]:
        raise UserError(f"{place}: tensors missing: {_some(missing)}")
    if unknown := [name for name in given if name not in wanted]:
        raise UserError(f"{place}: tensors that are no part of this encoder: {_some(unknown)}")
    for name, tensor in given.items():
        if tensor.shape != wanted[name].shape:
            raise UserError(f"{place}: {name} has shape {tuple(tensor.shape)}; the config says {tuple(wanted[name].shape)}")
        if not tensor.is_floating_point():
            raise UserError(f"{place}: {name} holds {tensor.dtype}; floating-point numbers are needed")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name to tensor, mapped from the file and not read yet. Only plain tensors: any other pickled object is refused.

    Raises:
        UserError: the file cannot be read or holds anything but tensors.
    """
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        values = torch.load(path, mmap=zipfile.is_zipfile(path), weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnpicklingError:
        with open(path, "rb") as file:
            pickled = file.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
        why = "refused: it holds pickled objects other than plain tensors" if pickled else "not a weight file"
        raise UserError(f"{path}: {why}") from None
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError) as error:
        raise UserError(
            f"{path}: not a readable weight file: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from None
    if isinstance(values, dict) and isinstance(values.get("state_dict"), dict):  # OpenCLIP's training checkpoints
        values = {key.removeprefix("module."): value for key, value in values["state_dict"].items()}
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        raise UserError(f"{path}: refused: not a dictionary of tensors")
    return values


def fingerprint(checkpoint: Checkpoint, encoder: str) -> str:
    """16 hex digits that tell one set of weights from another, whatever file format it lies in.

    A SHA-256 over every tensor's name and shape and 16 values spread over it, as float32: a few pages of a multi-gigabyte file are
    touched, not all of it. It tells models apart; `imagebind weights verify` is what finds a flipped bit.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(checkpoint.read(encoder).items()):
        flat = tensor.detach().reshape(-1)
        some = flat[torch.linspace(0, len(flat) - 1, min(16, len(flat))).long()].to(torch.float32)
        digest.update(f"{name}{tuple(tensor.shape)}".encode() + some.numpy().tobytes())
    return digest.hexdigest()[:16]


def convert(checkpoint: Checkpoint, folder: Path, origin: Mapping[str, Any]) -> ModelConfig:
    """Write a checkpoint as a folder of ours: `config.json` and one safetensors file per encoder. Whole or not at all.

    Raises:
        UserError: the folder exists already, or the weights do not fit their config.
    """
    from safetensors.torch import save_file

    if folder.exists():
        raise UserError(f"{folder} exists already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        files = {}
        for name, encoder in checkpoint.config.encoders.items():
            tensors = checkpoint.read(name)
            _check_tensors(tensors, build_encoder(registry.get(name), encoder).state_dict(), f"{checkpoint.place}, {name}")
            path = building / f"{name}.safetensors"
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
            files[path.name] = {"size": path.stat().st_size, "sha256": file_hash(path)}
        config = replace(checkpoint.config, name=folder.name, origin=dict(origin), files=files, bases={})
        (building / "config.json").write_text(config.to_json())
        building.chmod(0o755)
        os.rename(building, folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return config


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _config_beside(path: Path) -> ModelConfig | None:
    """The config in a `.json` of the same name: ours, or the published constructor's arguments."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return None
    return read_config(beside)


def read_config(path: Path) -> ModelConfig:
    """A config file of any kind: our format, OpenCLIP's, or the published constructor's arguments."""
    text = path.read_text()
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a JSON object")
    if "format" in values:
        return model_config.from_json(text, str(path))
    if "model_cfg" in values or "vision_cfg" in values:
        return openclip_config(str(path))
    return model_config.from_published(values)


def _some(names: list[str]) -> str:
    """A few of many names, for a message of one line."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
