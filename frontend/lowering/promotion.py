"""Type promotion as torch does it, and the dtypes that torch computes in."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND as KIND
from torch._prims_common import elementwise_dtypes

from codesign.frontend.arrays import from_torch_dtype, to_torch_dtype
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import F32, F64, I32, I64, DType
from codesign.ir.index import Index
from codesign.ir.scalar import Scalar


def opmath(dtype: DType) -> DType:
    """The dtype that element-wise arithmetic runs in: float32 for narrower floats, else the dtype itself."""
    return F32 if dtype.is_float and dtype.bits < 32 else dtype


def accumulator(dtype: DType) -> DType:
    """The dtype that sums are kept in: f64 for f64, f32 for other floats, i64 for integers and bool."""
    if dtype.is_float:
        return F64 if dtype is F64 else F32
    return I64


def product_sums(dtype: DType) -> DType:
    """The dtype that a matrix product with results of a dtype is summed in: as sums are, but integers of 32 bits and less wrap in i32."""
    return I32 if dtype.is_integer and dtype.bits <= 32 else accumulator(dtype)


def common_dtype(*operands: Any) -> DType:
    """The promoted dtype of element-wise operands (0-dim tensors and numbers count by category only)."""
    return from_torch_dtype(_promote(tuple(_stand_in(operand) for operand in operands)))


@lru_cache(maxsize=4096)
def _promote(kinds: tuple[tuple[torch.dtype | type, int], ...]) -> torch.dtype:
    examples: list[Any] = []
    for kind, rank in kinds:
        if isinstance(kind, torch.dtype):
            examples.append(torch.empty((1,) * rank, dtype=kind, device="meta"))
        else:
            examples.append(kind(0))
    return elementwise_dtypes(*examples, type_promotion_kind=KIND.DEFAULT)[1]


def _stand_in(operand: Any) -> tuple[torch.dtype | type, int]:
    if isinstance(operand, Value):
        kind = tensor_type(operand)
        return to_torch_dtype(kind.dtype), min(len(kind.shape), 1)
    if isinstance(operand, Scalar):
        return (float if operand.dtype.is_float else int), 0
    if isinstance(operand, Index):
        return int, 0
    return type(operand), 0
