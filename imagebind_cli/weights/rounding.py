"""Weights in a smaller number type, for files: bfloat16, float16, or matrices as int8 rows with a scale for each; and back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from imagebind_cli.errors import UserError
from imagebind_cli.weights.tensor_files import JoinedTensors

INT8_SCALE = ".scale"  # suffix of the tensor that holds the scales of an int8 matrix, one for each row, in the same file
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float16}  # for what is not stored as int8 rows
# The temperature stays in float32, which half precision would change. The head's matrix is not stored as int8 rows: it is a thousandth of
# an encoder, and its errors move every vector directly.
SINGLE, NO_ROWS = ("log_scale",), ("head.",)


def rounded(name: str, tensor: Tensor, dtype: str) -> dict[str, Tensor]:
    """Return what a file stores of an encoder's tensor: itself in half precision, or int8 rows and their scales, by name.

    Args:
        name: of the tensor in its encoder. dtype: `bf16`, `fp16`, or `int8` for matrices, with `fp16` for all else.
    Raises:
        UserError: values that float16 cannot hold.
    """
    if dtype == "int8" and tensor.dim() == 2 and not name.startswith(NO_ROWS):
        rows, scale = to_int8(tensor)
        kept = {name: rows, name + INT8_SCALE: scale}
    else:
        kept = {name: tensor.float() if name in SINGLE else tensor.to(HALF[dtype]).contiguous()}
    if not all(bool(part.isfinite().all()) for part in kept.values()):
        raise UserError(f"{name} has values over 65,504 or not finite, which {dtype} cannot hold; choose bf16 for larger ones")
    return kept


def to_int8(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix (n, m) to int8 rows; return them and a float16 scale for each row (n, 1).

    That takes half the space of float16; each number is off by at most 1/254 of its row's largest. In a file, the scales have the matrix's name
    + `INT8_SCALE`; `from_int8` reads both back.
    """
    scale = (tensor.float().abs().amax(dim=1, keepdim=True) / 127).clamp(min=2**-14).half()
    return (tensor.float() / scale.float()).round().clamp(-127, 127).to(torch.int8), scale


def from_int8(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return a file's tensors by name, int8 rows multiplied by their scales to float32 when they are asked for, all others unchanged."""
    matrices = {name for name, tensor in tensors.items() if tensor.dtype == torch.int8 and name + INT8_SCALE in tensors}
    if not matrices:
        return tensors

    def widened(name: str) -> list[Tensor]:
        return [tensors[name].float() * tensors[name + INT8_SCALE].float() if name in matrices else tensors[name]]

    scales = {name + INT8_SCALE for name in matrices}
    return JoinedTensors({name: partial(widened, name) for name in tensors if name not in scales})
