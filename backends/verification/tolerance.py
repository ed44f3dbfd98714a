"""How far two results are apart, and why they may be.

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
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def rms_of(values: Array) -> float:
    """The root of the mean square of the finite ones."""
    with np.errstate(all="ignore"):
        wide = np.asarray(values, dtype=np.float64)
        finite = np.isfinite(wide)
        return math.sqrt(float(np.mean(np.square(wide[finite])))) if finite.any() else 0.0


def errors_of(expected: Array, actual: Array, rms: float | None = None) -> Array:
    """Of each element |actual - expected| / (|expected| + rms), infinite where NaNs or infinities differ.

    `rms`: of the expected values when not given.
    """
    with np.errstate(all="ignore"):
        e, a = np.asarray(expected, dtype=np.float64), np.asarray(actual, dtype=np.float64)
        scale = np.abs(e) + ((rms_of(e) if rms is None else rms) or 1e-30)
        same = (a == e) | (np.isnan(a) & np.isnan(e))
        error = np.where(np.isfinite(e), np.abs(a - e) / scale, np.where(same, 0.0, np.inf))
        error = np.where(np.isnan(error), np.inf, error)
    if np.asarray(expected).dtype.kind in "iu":  # float64 does not tell neighbours apart beyond 2**53
        error = np.where((error == 0) & (np.asarray(expected) != np.asarray(actual)), 1e-300, error)
    return np.asarray(error)


def difference(expected: Array, actual: Array) -> tuple[float, str]:
    """The largest error of an element (see `errors_of`), and where it is."""
    if expected.shape != actual.shape:
        return math.inf, f"shape {actual.shape}, expected {expected.shape}"
    if expected.size == 0:
        return 0.0, ""
    error = errors_of(expected, actual)
    return float(error.max()), described(expected, actual, error)


def described(expected: Array, actual: Array, error: Array) -> str:
    """The element of the largest error, for people."""
    place = np.unravel_index(int(np.argmax(error)), error.shape)
    got, wanted = np.asarray(actual)[place].item(), np.asarray(expected)[place].item()
    return f"at {[int(i) for i in place]} got {got:.9g}, expected {wanted:.9g}"
