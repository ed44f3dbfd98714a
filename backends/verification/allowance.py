"""How far a result may lie from its reference, with a rule of its own for floats of 8 bits.

Of a group that rounds to 16 bits and more, every element may be off by `base`, relative to |expected| + rms(expected):

    base = 8 u_stored + 4 u_summed (sqrt(L1) + sqrt(L2) + ...)

(`codesign.backends.verification.tolerance` says why). Eight roundings of an 8-bit float would be half of the value, which hides any mistake. A value
that was computed right differs after such a rounding only where it lay between two steps, so that of 8-bit floats a single element may be
off by one `step` besides, but all of them together only by an eighth of it (root of the mean square, relative to rms(expected)): as if
one in 64 fell to the other side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.ir.analysis import contraction
from codesign.ir.precision import ARITHMETIC
from codesign.ir.scalar import Read
from codesign.ir.tensor import Fusion

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Allowance:
    """What may be off: `base` everywhere, and `step` of 8-bit floats in few elements (0 where none is rounded to)."""

    base: float
    step: float = 0.0

    @property
    def largest(self) -> float:
        """Of a single element, relative to |expected| + rms(expected)."""
        return self.base + self.step

    @property
    def typical(self) -> float:
        """Of the root of the mean squared error, relative to rms(expected)."""
        return self.base + self.step / 8

    def refuses(self, expected: Array, actual: Array, largest: float) -> str:
        """Why these values are too far apart, given the largest error of an element; empty when they are not."""
        if not largest <= self.largest:
            return f"error {largest:.3g} of an element, {self.largest:.3g} allowed"
        if self.step:
            overall = spread(expected, actual)
            if overall > self.typical:
                return f"error {overall:.3g} of all elements together, {self.typical:.3g} allowed"
        return ""


def spread(expected: Array, actual: Array) -> float:
    """The root of the mean squared error over finite elements, relative to that of the expected values."""
    e, a = np.asarray(expected, dtype=np.float64), np.asarray(actual, dtype=np.float64)
    finite = np.isfinite(e) & np.isfinite(a)
    if not finite.any():
        return 0.0
    scale = math.sqrt(float(np.mean(np.square(e[finite])))) or 1e-30
    return math.sqrt(float(np.mean(np.square(a[finite] - e[finite])))) / scale


def allowance_of(fusion: Fusion, sizes: Mapping[str, int] | None = None) -> Allowance:
    """The allowance of a group; a float of 8 bits that is only read is exact and asks for none."""
    stored, summed, step = 0.0, 0.0, 0.0
    for compute in fusion.computes:
        nodes = list(compute.body.walk())
        form = contraction(compute)
        if form is not None and form.precision != "ieee":
            stored = max(stored, ARITHMETIC[form.precision].roundoff)
        for kind in (compute.dtype, *(node.dtype for node in nodes)):
            if kind.is_float and kind.bits > 8:
                stored = max(stored, kind.epsilon / 2)
        rounded = [node.dtype for node in nodes if not isinstance(node, Read)]
        if compute.dtype is not compute.body.dtype:
            rounded.append(compute.dtype)
        step = max([step, *(kind.epsilon for kind in rounded if kind.is_float and kind.bits <= 8)])
        if compute.monoid in ("sum", "prod") and compute.accumulate.is_float:
            terms = math.prod(int(dim.extent.evaluate(dict(sizes or {}))) for dim in compute.reductions)
            summed += math.sqrt(max(terms, 1)) * compute.accumulate.epsilon / 2
    return Allowance(8 * stored + 4 * summed, step)


def together(allowances: Iterable[tuple[Allowance, int]]) -> Allowance:
    """The allowance of groups one after another, each a number of times: errors add as independent ones do."""
    base = step = 0.0
    for allowance, count in allowances:
        base += count * allowance.base**2
        step += count * allowance.step**2
    return Allowance(math.sqrt(base), math.sqrt(step))
