"""Tensors in files: safetensors and PyTorch's own, memory-mapped."""

from __future__ import annotations

import ctypes
import json
import mmap
import re
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagebind_cli.checksums import check_seal, checksum, seal
from imagebind_cli.documents import parse_json, read_object
from imagebind_cli.errors import UserError, first_line
from imagebind_cli.files import replacing

ABOUT = "imagebind"  # the one entry of a safetensors file's metadata: several would be written in any order, and no two files be equal


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Map a file's tensors by name, without reading them yet; see `read_weight_file`."""
    return read_weight_file(path)[0]


def read_weight_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Map a file's tensors by name, without reading them yet, and return what it says of its model: {} for most. Other pickled objects are refused.

    A training checkpoint may hold its tensors under `state_dict`, as OpenCLIP's, or under `model` beside a config `cfg`, as fairseq's.

    Raises:
        UserError: the file cannot be read or holds anything but tensors.
    """
    from pickle import UnpicklingError

    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path), {}
        values = _load_plain(path)
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
    about: dict[str, Any] = {}
    if isinstance(values, dict) and isinstance(values.get("model"), dict):
        cfg = values.get("cfg")
        about, values = (cfg if isinstance(cfg, dict) else {}), values["model"]
    if not isinstance(values, dict) or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in values.items()):
        raise UserError(f"{path}: refused: not a dictionary of tensors")
    return values, about


def read_shards(index: Path, check: Callable[[Path], object] = lambda path: None) -> dict[str, Tensor]:
    """Map the tensors of several files, by the `*.index.json` that lists which file has which.

    Args:
        check: called with each file before it is mapped.
    Raises:
        UserError: not such a list, a file outside the list's own folder or not there, or other tensors in the files than in the list.
    """
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise UserError(f"{index}: not a list of weight files: it has no weight_map")
    tensors: dict[str, Tensor] = {}
    for name in dict.fromkeys(places.values()):
        if not isinstance(name, str) or name != Path(name).name or not name.endswith((".safetensors", ".bin", ".pth", ".pt")):
            raise UserError(f"{index}: {name!r} is not the name of a weight file in this folder")
        path = index.parent / name
        if not path.is_file():
            raise UserError(f"{index}: {name} is missing")
        check(path)
        found = read_tensors(path)
        for key, tensor in found.items():
            if places.get(key) != name:
                raise UserError(f"{path}: holds {key}, which {index.name} does not list there")
            tensors[key] = tensor
    if missing := [key for key in places if key not in tensors]:
        raise UserError(f"{index.parent / places[missing[0]]}: {missing[0]} is missing, which {index.name} lists there")
    return tensors


def _load_plain(path: Path) -> Any:
    """Load a file of tensors and plain values, memory-mapped where its format allows. Only in a second attempt NumPy's numbers are understood."""
    from pickle import UnpicklingError

    def load() -> Any:
        return torch.load(path, mmap=zipfile.is_zipfile(path), weights_only=True, map_location="cpu")

    try:
        return load()
    except UnpicklingError:
        with _ALONE, torch.serialization.safe_globals(_STAND_INS):
            return load()


class _NumberType:
    """Stands in for `numpy.dtype` while a file is loaded, whose own `__setstate__` trusts what it is given."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code if isinstance(code, str) and re.fullmatch("[bfiu][1248]", code) else ""

    def __setstate__(self, state: object) -> None:
        """Take its byte order from the state; the rest is of other types."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
        self.code = self.code and (">" if order == ">" else "<") + self.code


def _number(kind: object, content: object) -> float:
    """Stand in for the function that makes NumPy's numbers, and make plain ones.

    Raises:
        UnpicklingError: it is not a number.
    """
    from pickle import UnpicklingError

    if isinstance(kind, _NumberType) and kind.code and isinstance(content, bytes) and len(content) == int(kind.code[-1]):
        number: float = np.frombuffer(content, kind.code)[0].item()
        return number
    raise UnpicklingError("not a number")


# Meters in fairseq's training checkpoints hold NumPy's numbers. By the names under which those are pickled, our own classes are called.
_STAND_INS: list[Any] = [(_NumberType, "numpy.dtype"), *((_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core"))]
_ALONE = threading.Lock()  # PyTorch's list of what is safe belongs to the process


def write_tensors(tensors: Mapping[str, Tensor], path: Path, about: Mapping[str, Any] | None = None) -> None:
    """Write a safetensors file with checksums, all or nothing, with the permissions of any new file; the library's own are for its owner alone.

    Args:
        about: what else its metadata says, as `read_about` returns it.
    Raises:
        UserError: it cannot be written, as when the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path) as place:
        place.touch()
        rights = place.stat().st_mode & 0o777
        try:
            save_file(dict(tensors), place, metadata={ABOUT: seal(json.dumps({**(about or {}), "sums": tensor_sums(tensors)}))})
        except SafetensorError as error:
            raise UserError(f"{path}: {error}") from None
        place.chmod(rights)


def tensor_sums(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the checksum of each tensor with its type and shape."""
    return {
        name: checksum(
            [f"{tensor.dtype} {tuple(tensor.shape)}".encode(), tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()]
        )
        for name, tensor in sorted(tensors.items())
    }


def read_about(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """Return what a safetensors file's metadata says, as `write_tensors` was given it, and `sums`; {} where we did not write it.

    Raises:
        ValueError: it is damaged.
    """
    text = (metadata or {}).get(ABOUT, "{}")
    check_seal(text)
    about: dict[str, Any] = parse_json(text)
    return about


def differing_tensors(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> list[str]:
    """Return the names of a file's tensors that do not match the checksums in what `read_about` returns; [] if it has none."""
    sums = about.get("sums")
    return [name for name, sum in tensor_sums(tensors).items() if sum != sums.get(name)] if sums else []


def damaged_part(path: Path) -> str:
    """Return in words which part of a damaged weight file does not match the checksums inside the file; "" where it has none, or they match."""
    from safetensors import safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                names = differing_tensors({name: file.get_tensor(name) for name in file.keys()}, read_about(file.metadata()))  # noqa: SIM118
            return f"damaged: {', '.join(names[:3])}{f' and {len(names) - 3} more' * (len(names) > 3)}" if names else ""
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return f"damaged: {member}" if (member := archive.testzip()) else ""
    except Exception as error:  # whatever damaged bytes happen to mean
        return f"cannot be read: {first_line(error)}"
    return ""


def release_pages(tensor: Tensor) -> None:
    """Give the memory back that a tensor of a mapped file takes, once it was copied; if it is used again, it is read from the file again.

    Only whole pages that the kernel says are the file's are dropped, so that nothing can be lost: a tensor in memory of its own, or one that
    was written to since it was mapped, is left as it is. On systems other than Linux nothing is done.
    """
    first = -(-tensor.data_ptr() // mmap.PAGESIZE)
    count = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE - first
    if not sys.platform.startswith("linux") or tensor.device.type != "cpu" or not tensor.is_contiguous() or count < 1:
        return
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            pagemap.seek(8 * first)
            pages = np.frombuffer(pagemap.read(8 * count), np.uint64)
    except OSError:
        return
    present, swapped, of_file = (((pages >> np.uint64(bit)) & np.uint64(1)).astype(bool) for bit in (63, 62, 61))  # proc_pid_pagemap(5)
    if len(pages) == count and present.any() and not (swapped | (present & ~of_file)).any():
        drop = 4  # MADV_DONTNEED
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first * mmap.PAGESIZE), ctypes.c_size_t(count * mmap.PAGESIZE), drop)


class JoinedTensors(Mapping[str, Tensor]):
    """Tensors by name, each joined from its parts along the first axis when it is asked for, and then not kept: a whole encoder is read
    tensor by tensor, and never takes its memory twice."""

    def __init__(self, parts: Mapping[str, Callable[[], Sequence[Tensor]]]) -> None:
        """parts: of each tensor, a function that gives them in order."""
        self._parts = parts

    def __getitem__(self, name: str) -> Tensor:
        with self.parts(name) as parts:
            if len(parts) == 1:
                return parts[0]
            return torch.cat(list(parts))

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    @contextmanager
    def parts(self, name: str) -> Iterator[Sequence[Tensor]]:
        """Give the parts of a tensor, which are not joined for that; the memory of several is given back afterwards."""
        parts = self._parts[name]()
        yield parts
        for part in parts if len(parts) > 1 else ():
            release_pages(part)
