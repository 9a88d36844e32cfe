"""Weights on disk: the published .pth, our folder of safetensors, OpenCLIP's ViT towers. One encoder is read without the others.

Foreign names of tensors stand in `tensor_names`. Weights of our own may lie as int8 rows with their scales, which halves a file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagebind_cli import fingerprint as fingerprints
from imagebind_cli import registry
from imagebind_cli.encoder import Encoder, EncoderConfig, build_encoder
from imagebind_cli.errors import UserError
from imagebind_cli.weights import model_config, tensor_names
from imagebind_cli.weights.model_config import ModelConfig

INT8_SCALE = ".scale"
"""Ending of the tensor that holds an int8 tensor's scales, one a row, beside it in a file."""


@dataclass(frozen=True)
class Checkpoint:
    """A model whose weights can be read.

    config: what it is made of. place: where it lies, for messages and records. read: encoder name to its tensors under our names.
    unfinished: what to say of a training run that has not come to its end.
    """

    config: ModelConfig
    place: str
    read: Callable[[str], Mapping[str, Tensor]]
    unfinished: str = ""

    @property
    def untrained(self) -> bool:
        """Whether the weights are made by rule, so that nearness between modalities means nothing."""
        return self.config.rule_seed is not None


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
    table = tensor_names.OPENCLIP if openclip else tensor_names.PUBLISHED
    ours: dict[str, tuple[str, str | None]] = {}
    unknown = []
    for key in tensors:
        try:
            name, change = tensor_names.rename(key, table)
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
        return {name: tensor_names.CHANGES[change](tensors[key]) if change else tensors[key] for name, (key, change) in mine.items()}

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
        return Checkpoint(config, str(folder), lambda encoder: from_int8(read_tensors(folder / f"{encoder}.safetensors")))
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
    except (LookupError, TypeError, AttributeError):  # what unpickling makes of other bytes
        raise UserError(f"{path}: not a weight file") from None
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError) as error:
        raise UserError(
            f"{path}: not a readable weight file: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from None
    if isinstance(values, dict) and isinstance(values.get("state_dict"), dict):  # OpenCLIP's training checkpoints
        values = {key.removeprefix("module."): value for key, value in values["state_dict"].items()}
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        raise UserError(f"{path}: refused: not a dictionary of tensors")
    return values


def to_int8(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix (n, m) to int8 rows; return them and a float16 scale for each row (n, 1).

    That takes half the room of float16; each number is off by at most 1/254 of its row's largest. A file holds the scales beside the rows,
    under the matrix's name + `INT8_SCALE`; `from_int8` reads them back.
    """
    scale = (tensor.float().abs().amax(dim=1, keepdim=True) / 127).clamp(min=2**-14).half()
    return (tensor.float() / scale.float()).round().clamp(-127, 127).to(torch.int8), scale


def from_int8(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a file's tensors by name, int8 rows multiplied by their scales to float32, all others as they are."""
    scales = {name + INT8_SCALE for name, tensor in tensors.items() if tensor.dtype == torch.int8}
    return {
        name: tensor.float() * tensors[name + INT8_SCALE].float()
        if name + INT8_SCALE in scales and name + INT8_SCALE in tensors
        else tensor
        for name, tensor in tensors.items()
        if name not in scales
    }


def fingerprint(checkpoint: Checkpoint, encoder: str) -> str:
    """The fingerprint of one encoder's weights, whatever file they lie in.

    It tells models apart; `imagebind weights verify` is what finds a flipped bit.
    """
    return fingerprints.fingerprint(checkpoint.read(encoder))


def convert(checkpoint: Checkpoint, folder: Path, origin: Mapping[str, Any]) -> ModelConfig:
    """Write a checkpoint as a folder of ours: `config.json` and one safetensors file per encoder. Whole or not at all.

    Raises:
        UserError: the folder exists already, or the weights do not fit their config.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".{folder.name}-{os.getpid()}-{secrets.token_hex(4)}")
    building.mkdir()
    try:
        files = {}
        for name, encoder in checkpoint.config.encoders.items():
            tensors = checkpoint.read(name)
            _check_tensors(tensors, build_encoder(registry.get(name), encoder).state_dict(), f"{checkpoint.place}, {name}")
            path = building / f"{name}.safetensors"
            write_tensors({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
            files[path.name] = {"size": path.stat().st_size, "sha256": file_hash(path)}
        config = replace(checkpoint.config, name=folder.name, origin=dict(origin), files=files, bases={})
        (building / "config.json").write_text(config.to_json())
        os.rename(building, folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return config


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file with the rights that any new file gets here; the library's own are for its owner alone.

    Raises:
        SafetensorError: it cannot be written, as when the disk is full.
    """
    from safetensors.torch import save_file

    path.touch()
    rights = path.stat().st_mode & 0o777
    save_file(dict(tensors), path, metadata=dict(metadata) if metadata else None)
    path.chmod(rights)


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
