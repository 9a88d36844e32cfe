"""Tensors in files: safetensors and PyTorch's own, memory-mapped; matrices may be stored as int8 rows, in half the room of float16."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from imagebind_cli.checksums import checksum
from imagebind_cli.documents import parse_json
from imagebind_cli.errors import UserError, first_line
from imagebind_cli.files import replacing

SUMS_KEY = "crc32"  # in a safetensors file's metadata: the checksum of each tensor, and of each other entry of the metadata
INT8_SCALE = ".scale"  # suffix of the tensor that holds the scales of an int8 matrix, one for each row, in the same file


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Map a file's tensors by name, without reading them yet. Any pickled object other than a plain tensor is refused.

    Raises:
        UserError: the file cannot be read or holds anything but tensors.
    """
    from pickle import UnpicklingError

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
    except MemoryError:
        raise UserError(f"{path}: does not fit into memory, or is damaged") from None
    except Exception as error:  # unpickling other bytes, or damaged ones, raises whatever they happen to mean
        raise UserError(f"{path}: not a readable weight file: {first_line(error)}") from None
    if isinstance(values, dict) and isinstance(values.get("state_dict"), dict):  # OpenCLIP's training checkpoints
        values = {key.removeprefix("module."): value for key, value in values["state_dict"].items()}
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        raise UserError(f"{path}: refused: not a dictionary of tensors")
    return values


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file with checksums, all or nothing, with the permissions of any new file; the library's own are for its owner alone.

    Raises:
        UserError: it cannot be written, as when the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path) as place:
        place.touch()
        rights = place.stat().st_mode & 0o777
        try:
            save_file(dict(tensors), place, metadata={**(metadata or {}), SUMS_KEY: json.dumps(tensor_sums(tensors, metadata or {}))})
        except SafetensorError as error:
            raise UserError(f"{path}: {error}") from None
        place.chmod(rights)


def tensor_sums(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, int]:
    """Return the checksum of each tensor, with its type and shape, and under `metadata NAME` that of each entry of the metadata."""
    sums = {f"metadata {name}": checksum([text.encode()]) for name, text in metadata.items() if name != SUMS_KEY}
    for name, tensor in tensors.items():
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        sums[name] = checksum([f"{tensor.dtype} {tuple(tensor.shape)}".encode(), data])
    return sums


def differing_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[str]:
    """Return the names of a safetensors file's tensors, and entries of its metadata, that do not match its checksums; [] if it has none.

    Raises:
        ValueError: its checksums themselves are damaged.
    """
    if SUMS_KEY not in metadata:
        return []
    recorded, found = parse_json(metadata[SUMS_KEY]), tensor_sums(tensors, metadata)
    if not isinstance(recorded, dict):
        raise ValueError("its checksums are damaged")
    return sorted(name for name in recorded.keys() | found.keys() if recorded.get(name) != found.get(name))


def damaged_part(path: Path) -> str:
    """Return in words which part of a damaged weight file does not match the checksums inside the file; "" where it has none, or they match."""
    from safetensors import safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                names = differing_tensors({name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118
            return f"damaged: {', '.join(names[:3])}{f' and {len(names) - 3} more' * (len(names) > 3)}" if names else ""
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return f"damaged: {member}" if (member := archive.testzip()) else ""
    except Exception as error:  # whatever damaged bytes happen to mean
        return f"cannot be read: {first_line(error)}"
    return ""


def to_int8(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix (n, m) to int8 rows; return them and a float16 scale for each row (n, 1).

    That takes half the room of float16; each number is off by at most 1/254 of its row's largest. In a file, the scales have the matrix's name
    + `INT8_SCALE`; `from_int8` reads both back.
    """
    scale = (tensor.float().abs().amax(dim=1, keepdim=True) / 127).clamp(min=2**-14).half()
    return (tensor.float() / scale.float()).round().clamp(-127, 127).to(torch.int8), scale


def from_int8(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a file's tensors by name, int8 rows multiplied by their scales to float32, all others unchanged."""
    scales = {name + INT8_SCALE for name, tensor in tensors.items() if tensor.dtype == torch.int8}
    return {
        name: tensor.float() * tensors[name + INT8_SCALE].float()
        if name + INT8_SCALE in scales and name + INT8_SCALE in tensors
        else tensor
        for name, tensor in tensors.items()
        if name not in scales
    }
