"""Products of 8-bit integers on a machine whose matrix units take none: as products of floats, which hold each of them and sums of a thousand.

rewrite:
    sum(k: K) in i32 { i32(%a[i, k]) * i32(%b[k, j]) }  ->  sum(k: K) in f32 { f32(%a[i, k]) * f32(%b[k, j]) }               (K up to 1024)
    ->  %part[i, j, p] = sum(k: C) in f32 { ... %a[i, p*C + k] ... };  sum(p: K/C) in i32 { i32(%part[i, j, p]) }            (C divides K)
    ->  sum(k: K) in i64 { ... }, which is no matrix unit's                                                                 (else)
"""

from __future__ import annotations

import math

from codesign.ir.analysis import ContractionForm
from codesign.ir.dtypes import F32, I32, I64, DType
from codesign.ir.index import index
from codesign.ir.scalar import Read, Scalar, apply, cast
from codesign.ir.tensor import Compute, Dim

EXACT = 1 << 10
"""Products of two 8-bit integers, 2**14 at most, whose sum float32 has exactly."""

LEAST = 64
"""Elements of a part below which a matrix unit would have too little to do."""


def in_floats(compute: Compute, form: ContractionForm) -> list[Compute]:
    """The computes that make a product of 8-bit integers otherwise, of which the last gives its result."""
    extents = [dim.extent for dim in compute.reductions]
    fixed = all(extent.is_constant for extent in extents)
    steps = math.prod(extent.constant for extent in extents) if fixed else 0
    if fixed and steps <= EXACT:
        return [_summed(compute, _product(form, F32), F32)]
    part = _length(steps) if fixed and len(extents) == 1 else 0
    if part < LEAST:
        return [_summed(compute, _product(form, I64), I64)]
    (whole,) = compute.reductions
    parts, name = Dim(f"{whole.name}_part", index(steps // part)), compute.result.name
    body = _product(form, F32).substitute({whole.name: index(parts.name) * part + index(whole.name)})
    made = Compute(
        (*compute.dims, parts),
        body,
        dtype=I32,
        reductions=[Dim(whole.name, index(part))],
        monoid="sum",
        accumulate=F32,
        name=f"{name}_parts",
        location=compute.location,
    )
    total = Compute(
        compute.dims,
        Read(made.result, [dim.name for dim in made.dims]),
        dtype=compute.dtype,
        reductions=[parts],
        monoid="sum",
        accumulate=I32,
        name=name,
        location=compute.location,
    )
    return [made, total]


def _length(steps: int) -> int:
    """The longest part that float32 sums exactly and that divides the whole."""
    return next(part for part in range(EXACT, 0, -1) if steps % part == 0)


def _product(form: ContractionForm, dtype: DType) -> Scalar:
    return apply("mul", cast(form.left, dtype), cast(form.right, dtype))


def _summed(compute: Compute, body: Scalar, accumulate: DType) -> Compute:
    return Compute(
        compute.dims,
        body,
        dtype=compute.dtype,
        reductions=compute.reductions,
        monoid="sum",
        accumulate=accumulate,
        name=compute.result.name,
        location=compute.location,
    )
