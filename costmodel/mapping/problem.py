"""Products to be mapped: operands over dims, as `c[m, n] = a[m, k] * b[k, n]` says it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod, sqrt

from codesign.ir.errors import ScheduleError

ROLES = ("input", "weight", "output")
"""What a machine file may say of operands: the first factor, the second, and the result."""

_LARGEST = 2**31
"""The greatest size of a dim, as in schedules."""

Position = tuple[tuple[str, int], ...]
"""One axis of a tensor: its dims with their coefficients (`2*p + r`)."""


@dataclass(frozen=True)
class Operand:
    """A tensor of a product: `axes` in terms of the dims, `bytes` of a value, and its role."""

    name: str
    axes: tuple[Position, ...]
    bytes: float
    role: str

    @cached_property
    def dims(self) -> frozenset[str]:
        return frozenset(dim for axis in self.axes for dim, _ in axis)

    @cached_property
    def windows(self) -> tuple[Position, ...]:
        """Axes of which a tile is not the product of its dims' tiles."""
        return tuple(axis for axis in self.axes if len(axis) > 1 or axis[0][1] != 1)

    @cached_property
    def window_dims(self) -> frozenset[str]:
        return frozenset(dim for axis in self.windows for dim, _ in axis)

    def values(self, tile: Mapping[str, int]) -> int:
        """Values that a tile of the dims touches."""
        return prod(1 + sum(abs(by) * (tile[dim] - 1) for dim, by in axis) for axis in self.axes)


@dataclass(frozen=True)
class Problem:
    """A product of two operands, summed over the dims that the result does not have."""

    extents: Mapping[str, int]
    operands: tuple[Operand, ...]
    dtype: str

    def __post_init__(self) -> None:
        if wrong := [dim for dim, extent in self.extents.items() if not 1 <= extent <= _LARGEST]:
            raise ScheduleError(f"{wrong[0]}: needs a size from 1 to {_LARGEST}, got {self.extents[wrong[0]]}")

    def filled(self) -> Problem:
        """With each dim filled up with zeros to a multiple of the greatest power of two that adds a sixteenth or less: a prime has no parts."""
        return replace(self, extents={dim: _filled(extent) for dim, extent in self.extents.items()})

    @property
    def macs(self) -> int:
        return prod(self.extents.values())

    def bytes_of(self, operand: Operand) -> float:
        """Of the whole operand."""
        return operand.values(self.extents) * operand.bytes

    @property
    def compulsory_bytes(self) -> float:
        """Of all operands, once."""
        return sum(self.bytes_of(operand) for operand in self.operands)

    def least_bytes(self, capacity_bytes: float) -> float:
        """Bytes that must pass between a memory and what is inside it when that holds `capacity_bytes`: all operands once, and for products of
        matrices 2 mnk / sqrt(values held) (Hong and Kung 1981; the constant as in Smith et al. 2019)."""
        least = self.compulsory_bytes
        each = min(operand.bytes for operand in self.operands)
        if all(not operand.windows for operand in self.operands) and capacity_bytes < float("inf"):
            least = max(least, 2.0 * self.macs / sqrt(max(capacity_bytes / each, 1.0)) * each)
        return least


def gemm(m: int, n: int, k: int, dtype: str = "i8", width: float = 1.0) -> Problem:
    """`c[m, n] = a[m, k] * w[k, n]`; `width` in bytes."""
    return parse_problem("c[m, n] = a[m, k] * w[k, n]", {"m": m, "n": n, "k": k}, dtype, width)


def batched(b: int, m: int, n: int, k: int, dtype: str = "bf16", width: float = 2.0) -> Problem:
    """`c[b, m, n] = a[b, m, k] * w[b, k, n]`."""
    return parse_problem("c[b, m, n] = a[b, m, k] * w[b, k, n]", {"b": b, "m": m, "n": n, "k": k}, dtype, width)


def _filled(extent: int) -> int:
    steps = (1 << bits for bits in reversed(range(extent.bit_length())))
    return next(full for step in steps if (full := -(-extent // step) * step) * 16 <= extent * 17)


_TENSOR = re.compile(r"\s*(\w+)\s*\[([^\[\]]*)\]\s*")
_TERM = re.compile(r"\s*(?:(\d+)\s*\*\s*)?([A-Za-z_]\w*)\s*")


def parse_problem(text: str, extents: Mapping[str, int], dtype: str, width: float) -> Problem:
    """A product from its text; indices are sums of dims, each with a whole factor. ScheduleError names what cannot be read."""
    parts = re.split(r"\+?=|\*(?=\s*\w+\s*\[)", text)
    if len(parts) != 3:
        raise ScheduleError(f"{text!r} is no product", hint="c[m, n] = a[m, k] * w[k, n]")
    result, *factors = (
        _operand(part, role, width) for part, role in zip(parts, ("output", "input", "weight"), strict=True)
    )
    operands = (*factors, result)
    named = list(dict.fromkeys(dim for operand in operands for axis in operand.axes for dim, _ in axis))
    if missing := [dim for dim in named if dim not in extents]:
        raise ScheduleError(f"no size for {', '.join(missing)}", hint=f"--size {missing[0]}=...")
    if unused := [dim for dim in extents if dim not in named]:
        raise ScheduleError(f"{', '.join(unused)}: not among the product's dims", hint=f"dims: {', '.join(named)}")
    if loose := result.dims - operands[0].dims - operands[1].dims:
        raise ScheduleError(f"{', '.join(sorted(loose))}: in the result and in no factor")
    return Problem({dim: extents[dim] for dim in named}, operands, dtype)


def _operand(text: str, role: str, width: float) -> Operand:
    found = _TENSOR.fullmatch(text)
    axes: list[Position] = []
    for index in found[2].split(",") if found else ():
        terms = [_TERM.fullmatch(term) for term in index.split("+")]
        axes.append(tuple((term[2], int(term[1] or 1)) for term in terms if term))
        if not all(terms) or not all(by for _, by in axes[-1]):
            found = None
    if not found:
        raise ScheduleError(f"cannot read the operand {text.strip()!r}", hint="a[m, k], or x[n, c, 2*p + r]")
    dims = [dim for axis in axes for dim, _ in axis]
    if len(set(dims)) != len(dims):
        raise ScheduleError(f"{text.strip()}: names a dim twice")
    return Operand(found[1], tuple(axes), width, role)
