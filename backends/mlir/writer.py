"""Lines of MLIR with numbered values, and types, numbers and index expressions in its spelling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from codesign.ir import dtypes
from codesign.ir.dtypes import BOOL, DType
from codesign.ir.errors import UnsupportedError
from codesign.ir.types import TensorType, Type

_FLOATS = {
    dtypes.F8E4M3: "f8E4M3FN",
    dtypes.F8E5M2: "f8E5M2",
    dtypes.F8E4M3FNUZ: "f8E4M3FNUZ",
    dtypes.F8E5M2FNUZ: "f8E5M2FNUZ",
}
_INFINITY = {
    dtypes.F16: 0x7C00,
    dtypes.BF16: 0x7F80,
    dtypes.F32: 0x7F800000,
    dtypes.F64: 0x7FF << 52,
    dtypes.F8E5M2: 0x7C,
}
_NAN = {
    dtypes.F16: 0x7E00,
    dtypes.BF16: 0x7FC0,
    dtypes.F32: 0x7FC00000,
    dtypes.F64: 0x7FF8 << 48,
    dtypes.F8E5M2: 0x7E,
    dtypes.F8E4M3: 0x7F,
    dtypes.F8E4M3FNUZ: 0x80,
    dtypes.F8E5M2FNUZ: 0x80,
}


def element(dtype: DType) -> str:
    """An element type; integers carry no sign, bools are i1."""
    if dtype is BOOL:
        return "i1"
    if dtype.is_float:
        return _FLOATS.get(dtype, dtype.name)
    return f"i{dtype.bits}"


def tensor(kind: Type) -> str:
    """A tensor type, `?` for each size that is not a number."""
    assert isinstance(kind, TensorType)
    sizes = "".join(f"{size.constant if size.is_constant else '?'}x" for size in kind.shape)
    return f"tensor<{sizes}{element(kind.dtype)}>"


def number(value: bool | int | float, dtype: DType) -> str:
    """A number as an attribute's text."""
    if dtype is BOOL:
        return "true" if value else "false"
    if not dtype.is_float:
        return str(int(value))
    x = float(value)
    if math.isfinite(x):
        text = repr(x)
        mantissa, e, exponent = text.partition("e")
        return f"{mantissa if '.' in mantissa else mantissa + '.0'}{e}{exponent}"
    bits = _NAN.get(dtype) if math.isnan(x) else _INFINITY.get(dtype)
    if bits is None:
        raise UnsupportedError(f"{dtype} has no {x}")
    if x < 0:
        bits |= 1 << (dtype.bits - 1)
    return f"0x{bits:0{dtype.bits // 4}X}"


def dense(array: np.ndarray, dtype: DType) -> str:
    """The elements of an array as a nested list."""
    if array.ndim == 0:
        return number(array.item(), dtype)
    return "[" + ", ".join(dense(np.asarray(part), dtype) for part in array) + "]"


@dataclass
class Writer:
    """Collects lines; `declared` has functions that the module must declare, by name, with their signature."""

    lines: list[str] = field(default_factory=list)
    depth: int = 1
    count: int = 0
    declared: dict[str, str] = field(default_factory=dict)

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def value(self, text: str, prefix: str = "v") -> str:
        """A line that gives one value; its new name."""
        name = self.fresh(prefix)
        self.line(f"{name} = {text}")
        return name

    def fresh(self, prefix: str = "v") -> str:
        self.count += 1
        return f"%{prefix}{self.count}"

    @contextmanager
    def block(self, opening: str, closing: str | None = "}") -> Iterator[None]:
        """Lines between these two, indented; None where the opening of the next block closes this one."""
        self.line(opening)
        self.depth += 1
        yield
        self.depth -= 1
        if closing is not None:
            self.line(closing)

    def constant(self, value: bool | int | float, dtype: DType) -> str:
        kind = "" if dtype is BOOL else f" : {element(dtype)}"
        return self.value(f"arith.constant {number(value, dtype)}{kind}")

    def index(self, value: int) -> str:
        return self.value(f"arith.constant {value} : index", "c")
