"""How far two results are apart, and how far they may be.

The tolerance is relative to |expected| + rms(expected), element by element:

    tolerance = 8 u_stored + 4 u_summed (sqrt(L1) + sqrt(L2) + ...)

where u = 2^-(mantissa bits + 1) is the unit roundoff, u_stored that of the narrowest float that a value of the group is rounded to, u_summed
that of its accumulations, and L1, L2, ... the numbers of terms of the group's reductions, whose errors add. The first part allows a value near a
rounding boundary to fall to either side, a few times over; the second is the probabilistic bound of a sum of L rounded terms in any
order (N. Higham and T. Mary, 2019) with constant 4. A group without floats must agree exactly. Where a kernel exceeds that, the group may be
ill-conditioned (the cosine of a large angle): the reference is then evaluated in float64 as well, and four times its own error is added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.ir.tensor import Fusion

Array = npt.NDArray[Any]


def difference(expected: Array, actual: Array) -> tuple[float, str]:
    """The largest |actual - expected| / (|expected| + rms(expected)), infinite where NaNs or infinities differ; and where it is."""
    if expected.shape != actual.shape:
        return math.inf, f"shape {actual.shape}, expected {expected.shape}"
    if expected.size == 0:
        return 0.0, ""
    with np.errstate(all="ignore"):
        e, a = np.asarray(expected, dtype=np.float64), np.asarray(actual, dtype=np.float64)
        finite = np.isfinite(e)
        rms = math.sqrt(float(np.mean(np.square(e[finite])))) if finite.any() else 0.0
        scale = np.abs(e) + (rms or 1e-30)
        error = np.where(finite, np.abs(a - e) / scale, np.where((a == e) | (np.isnan(a) & np.isnan(e)), 0.0, np.inf))
        error = np.where(np.isnan(error), np.inf, error)
    place = np.unravel_index(int(np.argmax(error)), error.shape)
    text = f"at {[int(i) for i in place]} got {a[place]:.9g}, expected {e[place]:.9g}"
    return float(error[place]), text


def tolerance_of(fusion: Fusion, sizes: Mapping[str, int] | None = None) -> float:
    """The tolerance of a group by the formula at the top of this file."""
    narrowest, summed = 0.0, 0.0
    for compute in fusion.computes:
        kinds = [compute.dtype, compute.body.dtype, *(node.dtype for node in compute.body.walk())]
        narrowest = max([narrowest, *(kind.epsilon / 2 for kind in kinds)])
        if compute.monoid in ("sum", "prod") and compute.accumulate.is_float:
            terms = math.prod(int(dim.extent.evaluate(dict(sizes or {}))) for dim in compute.reductions)
            summed += math.sqrt(max(terms, 1)) * compute.accumulate.epsilon / 2
    return 8 * narrowest + 4 * summed
