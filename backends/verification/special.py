"""Special values among the inputs of a check: NaN, infinities, -0.0, denormals, the largest finite floats, the ends of integer ranges.

They are sprinkled into the inputs thinly, so that one run of the kernel shows both what it makes of them and what it makes of ordinary values.
Groups that sum get no numbers whose sum depends on the order of its terms (the largest ones), groups of several reductions no infinities
either, since a running maximum or sum meets `inf - inf` where the reference doesn't, and so does a product in parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.backends.verification.defined import SHIFTS
from codesign.backends.verification.inputs import roles_of
from codesign.ir.analysis import contraction
from codesign.ir.core import tensor_type
from codesign.ir.dtypes import BF16, F8E4M3, F8E5M2, F16, DType
from codesign.ir.precision import ARITHMETIC
from codesign.ir.scalar import Apply
from codesign.ir.tensor import Fusion

Array = npt.NDArray[Any]

_LEAST = {F16: 2.0**-24, BF16: 2.0**-133, F8E4M3: 2.0**-9, F8E5M2: 2.0**-16}
_LARGEST = {BF16: 255 * 2.0**120, F8E4M3: 448.0, F8E5M2: 57344.0}
_SMALL = 2.0**-126
"""Below it floats are denormal, which units that round factors may take for zero."""

_UNSIGNED = ("min", "max", "fmin", "fmax", "floordiv", "mod")
"""Functions whose zero has no sign that all machines agree on."""

_EXPANDED = ("atan", "erfinv")
"""Functions that a machine without an instruction for them makes of others, whose zero is 0.0."""


def sprinkled(
    fusion: Fusion, arrays: Sequence[Array], sizes: Mapping[str, int], rng: np.random.Generator
) -> list[Array]:
    """The inputs with special values in a few places: one in 16 of elementwise groups, one of each kind where elements meet in reductions."""
    roles = roles_of(fusion, sizes)
    reductions = [compute for compute in fusion.computes if compute.reductions]
    nodes = [node for compute in fusion.computes for node in compute.body.walk()]
    counted = {
        read.source
        for node in nodes
        if isinstance(node, Apply) and node.function in ("pow", *SHIFTS) and node.dtype.is_integer
        for read in node.reads()
    }
    products = [ARITHMETIC[form.precision] for form in map(contraction, reductions) if form is not None]
    in_parts = any(product.products > 1 for product in products)
    rounds = any(product.unit != "f32" for product in products)
    copies_signs = any(isinstance(node, Apply) and node.function == "copysign" for node in nodes)
    result = []
    for value, array in zip(fusion.uses(), arrays, strict=True):
        dtype = tensor_type(value).dtype
        kinds = [] if value in roles.limits else _kinds(dtype, [c.monoid or "" for c in reductions])
        if in_parts:
            kinds = [kind for kind in kinds if not np.isinf(kind)]
        if rounds:  # to zero, which an infinity makes NaN of
            kinds = [kind for kind in kinds if not 0 < abs(kind) < _SMALL]
        if copies_signs:
            kinds = [kind for kind in kinds if kind == kind]  # the sign of NaN means nothing
        if dtype.is_integer and (value in roles.divisors or value in counted):
            kinds = []
        result.append(_placed(array, kinds, 1 if reductions else max(array.size // (16 * max(len(kinds), 1)), 1), rng))
    return result


def _kinds(dtype: DType, monoids: Sequence[str]) -> list[Any]:
    if dtype.is_integer:
        ends = np.iinfo(np.dtype(dtype.numpy.type))
        return [] if monoids else [ends.min, ends.max]
    if not dtype.is_float:
        return []
    if dtype.bits < 8 * dtype.numpy.itemsize and dtype not in _LEAST:
        return []
    least = _LEAST.get(dtype, float(np.finfo(np.dtype(dtype.numpy.type)).smallest_subnormal))
    largest = _LARGEST.get(dtype, float(np.finfo(np.dtype(dtype.numpy.type)).max))
    kinds = [np.nan, -0.0, least, -least]
    if len(monoids) < 2 and dtype is not F8E4M3:  # which has no infinity
        kinds += [np.inf, -np.inf]
    if not any(monoid in ("sum", "prod") for monoid in monoids):
        kinds += [largest, -largest]
    return kinds


def _placed(array: Array, kinds: Sequence[Any], times: int, rng: np.random.Generator) -> Array:
    """The array with each kind at some places, ordinary values at three quarters at least."""
    wanted = [kind for kind in kinds for _ in range(times)]
    count = min(len(wanted), array.size // 4)
    if not count:
        return array
    flat = array.reshape(-1).copy()
    chosen = rng.permutation(len(wanted))[:count]
    flat[rng.permutation(array.size)[:count]] = np.array([wanted[i] for i in chosen]).astype(array.dtype)
    return flat.reshape(array.shape)


def signs_of_zero_count(fusion: Fusion) -> bool:
    """Whether the sign of a zero is defined: not after sums, nor where the greater of 0.0 and -0.0 is asked for."""
    return not any(
        compute.reductions
        or any(isinstance(node, Apply) and node.function in (*_UNSIGNED, *_EXPANDED) for node in compute.body.walk())
        for compute in fusion.computes
    )
