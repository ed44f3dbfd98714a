"""Element types: name, width, kind, and how NumPy holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["bool", "int", "uint", "float"]


@dataclass(frozen=True, slots=True)
class DType:
    """An element type.

    `bits`: storage width. `mantissa`: explicit mantissa bits of a float (0 otherwise). `numpy`: the NumPy dtype that
    holds values in the interpreter; formats that NumPy lacks are held rounded in float32.
    """

    name: str
    kind: Kind
    bits: int
    mantissa: int
    numpy: np.dtype[np.generic]

    @property
    def bytes(self) -> float:
        """Storage per element in bytes (a fraction for sub-byte formats)."""
        return 1.0 if self.kind == "bool" else self.bits / 8

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("int", "uint")

    @property
    def exponent(self) -> int:
        """Exponent bits of a float (0 otherwise)."""
        return self.bits - 1 - self.mantissa if self.is_float else 0

    @property
    def is_fixed(self) -> bool:
        """Whether it is a float without exponent bits: its point is behind the first bit of the mantissa, its scale stands elsewhere."""
        return self.is_float and self.exponent == 0

    @property
    def epsilon(self) -> float:
        """Spacing of floats just above 1 (0 for integers)."""
        return float(2.0 ** (self.is_fixed - self.mantissa)) if self.is_float else 0.0

    def __reduce__(self) -> tuple[object, ...]:
        return _by_name, (self.name,)  # copies and pickles are the one object of the name

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name


def _by_name(name: str) -> DType:
    return DTYPES[name]


def _dtype(name: str, kind: Kind, bits: int, mantissa: int, numpy: type[np.generic]) -> DType:
    return DType(name, kind, bits, mantissa, np.dtype(numpy))


BOOL = _dtype("bool", "bool", 8, 0, np.bool_)
I8 = _dtype("i8", "int", 8, 0, np.int8)
I16 = _dtype("i16", "int", 16, 0, np.int16)
I32 = _dtype("i32", "int", 32, 0, np.int32)
I64 = _dtype("i64", "int", 64, 0, np.int64)
U8 = _dtype("u8", "uint", 8, 0, np.uint8)
U16 = _dtype("u16", "uint", 16, 0, np.uint16)
U32 = _dtype("u32", "uint", 32, 0, np.uint32)
U64 = _dtype("u64", "uint", 64, 0, np.uint64)
F8E4M3 = _dtype("f8e4m3", "float", 8, 3, np.float32)
F8E5M2 = _dtype("f8e5m2", "float", 8, 2, np.float32)
F8E4M3FNUZ = _dtype("f8e4m3fnuz", "float", 8, 3, np.float32)
F8E5M2FNUZ = _dtype("f8e5m2fnuz", "float", 8, 2, np.float32)
F6E2M3 = _dtype("f6e2m3", "float", 6, 3, np.float32)
F6E3M2 = _dtype("f6e3m2", "float", 6, 2, np.float32)
F4E2M1 = _dtype("f4e2m1", "float", 4, 1, np.float32)
F8E0M7 = _dtype("f8e0m7", "float", 8, 7, np.float32)
F5E0M4 = _dtype("f5e0m4", "float", 5, 4, np.float32)
"""Elements of blocks with a scale (`ir.microscaling`); they have neither infinities nor NaN. Those of MX9 and MX6 have no exponents of their own."""
F8E8M0 = _dtype("f8e8m0", "uint", 8, 0, np.uint8)
F4X2 = _dtype("f4x2", "uint", 8, 0, np.uint8)
"""Scales of blocks (an exponent) and pairs of 4-bit floats, the first in the lower half: bytes, whose numbers are worked out where they are
used (OCP Microscaling Formats 1.0)."""
F1E1M0 = _dtype("f1e1m0", "uint", 1, 0, np.uint8)
"""The exponent of one bit that a pair of elements shares in MX9 and MX6: their numbers are halved where it is 1."""
F16 = _dtype("f16", "float", 16, 10, np.float16)
BF16 = _dtype("bf16", "float", 16, 7, np.float32)
F32 = _dtype("f32", "float", 32, 23, np.float32)
F64 = _dtype("f64", "float", 64, 52, np.float64)

DTYPES: dict[str, DType] = {
    d.name: d
    for d in (
        *(BOOL, I8, I16, I32, I64, U8, U16, U32, U64),
        *(F8E4M3, F8E5M2, F8E4M3FNUZ, F8E5M2FNUZ, F6E2M3, F6E3M2, F4E2M1, F8E0M7, F5E0M4),
        *(F8E8M0, F4X2, F1E1M0, F16, BF16, F32, F64),
    )
}
