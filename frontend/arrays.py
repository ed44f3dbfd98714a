"""Between torch tensors and the NumPy arrays of the interpreter.

Formats that NumPy lacks (bfloat16, float8) are held as float32 arrays whose values are exact in the format, as
`codesign.ir.dtypes.DType.numpy` says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from codesign.ir import dtypes
from codesign.ir.dtypes import DType
from codesign.ir.errors import UnsupportedError

_FROM_TORCH: dict[torch.dtype, DType] = {
    torch.bool: dtypes.BOOL,
    torch.int8: dtypes.I8,
    torch.int16: dtypes.I16,
    torch.int32: dtypes.I32,
    torch.int64: dtypes.I64,
    torch.uint8: dtypes.U8,
    torch.uint16: dtypes.U16,
    torch.uint32: dtypes.U32,
    torch.uint64: dtypes.U64,
    torch.float8_e4m3fn: dtypes.F8E4M3,
    torch.float8_e5m2: dtypes.F8E5M2,
    torch.float8_e4m3fnuz: dtypes.F8E4M3FNUZ,
    torch.float8_e5m2fnuz: dtypes.F8E5M2FNUZ,
    torch.float8_e8m0fnu: dtypes.F8E8M0,
    torch.float4_e2m1fn_x2: dtypes.F4X2,
    torch.float16: dtypes.F16,
    torch.bfloat16: dtypes.BF16,
    torch.float32: dtypes.F32,
    torch.float64: dtypes.F64,
}
_TO_TORCH = {ours: theirs for theirs, ours in _FROM_TORCH.items()}
_HELD_IN_FLOAT32 = tuple(
    theirs for theirs, ours in _FROM_TORCH.items() if ours.is_float and ours.numpy.itemsize * 8 != ours.bits
)


_BYTES = (torch.float8_e8m0fnu, torch.float4_e2m1fn_x2)
"""Formats that the IR has as bytes."""


def from_torch_dtype(dtype: torch.dtype) -> DType:
    """Our dtype of a torch dtype; UnsupportedError for complex and quantised ones."""
    try:
        return _FROM_TORCH[dtype]
    except KeyError:
        what = "complex numbers; use torch.view_as_real" if dtype.is_complex else "this element type; use another"
        raise UnsupportedError(f"{dtype} is not supported", hint=f"the IR has no {what}") from None


def to_torch_dtype(dtype: DType) -> torch.dtype:
    """The torch dtype of ours."""
    return _TO_TORCH[dtype]


def is_bytes(dtype: torch.dtype) -> bool:
    """Whether the IR has a format as bytes."""
    return dtype in _BYTES


def as_real(tensor: torch.Tensor) -> torch.Tensor:
    """A complex tensor as the real one that stands for it, with a last dim of 2; any other as it is."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def as_complex(tensor: torch.Tensor) -> torch.Tensor:
    """The complex tensor that a real one with a last dim of 2 stands for."""
    return torch.complex(*tensor.unbind(-1))


def to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """The values as the interpreter holds them, complex ones in real form; shares memory with the tensor where the layouts agree."""
    plain = as_real(tensor.detach()).resolve_conj().resolve_neg().cpu()
    if plain.dtype in _BYTES:
        plain = plain.view(torch.uint8)
    if plain.dtype in _HELD_IN_FLOAT32:
        plain = plain.to(torch.float32)
    return np.asarray(plain.numpy())


def to_torch(array: Any, dtype: DType, *, is_complex: bool = False) -> torch.Tensor:
    """A torch tensor of the dtype from an interpreter's array (a copy, so that callees may write to it); `is_complex`: of its real form."""
    tensor, kind = torch.from_numpy(np.array(array, order="C", copy=True)), to_torch_dtype(dtype)
    tensor = tensor.view(kind) if kind in _BYTES else tensor.to(kind)
    return as_complex(tensor) if is_complex else tensor


class TensorData:
    """Values of a constant that stay where torch has them; converted to NumPy when somebody asks (`__array__`)."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the model's own format."""
        return self.tensor.numel() * self.tensor.element_size()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = to_numpy(self.tensor)
        if dtype is not None and array.dtype != np.dtype(dtype):
            return array.astype(dtype)
        return array.copy() if copy else array

    def __repr__(self) -> str:
        return f"TensorData({self.tensor.dtype}, {list(self.tensor.shape)})"


def has_data(tensor: torch.Tensor) -> bool:
    """False for tensors that are only shapes (meta, fake)."""
    from torch._subclasses.fake_tensor import FakeTensor

    return not (tensor.is_meta or isinstance(tensor, FakeTensor))
