"""Verification of kernels: each against the meaning of its fused group, on fresh random inputs.

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codesign.backends.triton.emit import emission
from codesign.backends.triton.interpret import Array, run_kernel
from codesign.backends.triton.promote import promoted
from codesign.backends.triton.shrink import shrink
from codesign.ir.core import Module, Value, tensor_type
from codesign.ir.dtypes import DType
from codesign.ir.index import Bounds, Datum
from codesign.ir.interpreter import evaluate_block
from codesign.ir.numerics import round_to
from codesign.ir.scalar import Scalar
from codesign.ir.tensor import Compute, Fusion
from codesign.ir.tile import Kernel
from codesign.passes.normalize import Normalized
from codesign.passes.tile import lower


@dataclass(frozen=True)
class Verification:
    """What came of it: `max_error` and `tolerance` relative to |expected| + rms(expected).

    `extents`: dims that were shortened, name -> (of the model, verified). `device`: "cpu" is Triton's interpreter.
    """

    against: str
    max_error: float
    tolerance: float
    ok: bool
    device: str = "cpu"
    extents: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        """The `verified` part of the report."""
        return {"against": self.against, "max_error": self.max_error, "tolerance": self.tolerance, "ok": self.ok}


def verify_kernel(
    group: Normalized,
    kernel: Kernel,
    *,
    bounds: Bounds | None = None,
    seed: int | None = None,
    device: str = "cpu",
) -> Verification:
    """Run a kernel, or its lowering at shorter extents where it is big, and compare with the group's meaning in the IR's interpreter.

    `group`: the normalised group that the kernel was lowered from. `seed`: of the random inputs (fresh ones by default).
    """
    ranges = bounds or Bounds()
    small = shrink(group, kernel.schedule)
    if small.changed:
        normal = small.group
        kernel = lower(normal.fusion, kernel.schedule, name=kernel.name, bounds=ranges, outputs=normal.outputs)

    def run(arrays: list[Array], sizes: Mapping[str, int]) -> list[Array]:
        return run_kernel(kernel, arrays, sizes, device=device, emitted=emission(kernel, ranges))

    return compare(small.group, run, sizes=_sizes(kernel, ranges), seed=seed, extents=small.changed, device=device)


def compare(
    group: Normalized,
    run: Callable[[list[Array], Mapping[str, int]], Sequence[Array]],
    *,
    sizes: Mapping[str, int],
    seed: int | None = None,
    extents: Mapping[str, tuple[int, int]] | None = None,
    device: str = "cpu",
) -> Verification:
    """What `run` makes of fresh random inputs of a group, against the group's meaning in the IR's interpreter.

    `run` takes the group's inputs and sizes and returns the buffers of its outputs (whose layout `group.outputs` describes).
    """
    rng = np.random.default_rng(seed)
    fusion, outputs = group.fusion, group.outputs
    inputs = fusion.uses()
    for attempt in range(2):
        arrays = random_inputs(fusion, sizes, rng, positive=attempt > 0)
        env: dict[Value, Array] = dict(zip(inputs, arrays, strict=True))
        with np.errstate(all="ignore"):
            evaluate_block([fusion], env, sizes, Module())
        expected = [env[value] for value in fusion.results]
        if all(np.isfinite(e).mean() > 0.5 for e in expected if e.size and np.issubdtype(e.dtype, np.floating)):
            break  # otherwise roots or logarithms of negative numbers: once more, all inputs positive
    actual = run(arrays, sizes)
    tolerance = tolerance_of(fusion, sizes)
    worst, message = 0.0, ""
    for value, where, wanted, got in zip(fusion.results, outputs, expected, actual, strict=True):
        compute = _computed(fusion, value)
        grid: tuple[Array, ...] = np.indices(wanted.shape, sparse=True)
        places = {dim.name: axis for dim, axis in zip(compute.dims, grid, strict=True)}
        picked = tuple(np.broadcast_to(i.evaluate({**sizes, **places}), wanted.shape) for i in where.indices)
        error, text = difference(wanted, got[picked] if picked else got.reshape(()))
        if not error <= worst:
            worst, message = error, f"%{value.name}: {text}"
    if tolerance < worst < math.inf:
        tolerance += 4 * _own_error(fusion, expected, arrays, sizes)
    ok = worst <= tolerance
    return Verification("tensor interpreter", worst, tolerance, ok, device, extents or {}, "" if ok else message)


def _own_error(fusion: Fusion, expected: Sequence[Array], arrays: Sequence[Array], sizes: Mapping[str, int]) -> float:
    """What the reference itself is off by for these inputs, by its evaluation with float64 for float32."""
    wide, inputs = promoted(fusion)
    env: dict[Value, Array] = {
        inputs[value]: array.astype(tensor_type(inputs[value]).dtype.numpy)
        for value, array in zip(fusion.uses(), arrays, strict=True)
    }
    with np.errstate(all="ignore"):
        evaluate_block([wide], env, sizes, Module())
    errors = [difference(env[v].astype(e.dtype), e)[0] for v, e in zip(wide.results, expected, strict=True)]
    return max((error for error in errors if math.isfinite(error)), default=0.0)


def _computed(fusion: Fusion, result: Value) -> Compute:
    owner = fusion.body.yields[fusion.results.index(result)].owner
    assert isinstance(owner, Compute)
    return owner


def _sizes(kernel: Kernel, bounds: Bounds) -> dict[str, int]:
    """A size for each symbol: two tiles and a bit, within its range."""
    widest = max(kernel.schedule.tiles.values(), default=16)
    sizes = {}
    for name in kernel.symbols:
        low, high = bounds.symbols.get(name, (1, None))
        wish = min(2 * widest + 3, 259)
        sizes[name] = max(low, wish if high is None else min(wish, high))
    return sizes


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


def random_inputs(
    fusion: Fusion, sizes: Mapping[str, int], rng: np.random.Generator, *, positive: bool = False
) -> list[Array]:
    """Fresh inputs of a group: normal floats, integers that stay inside whatever they index, coin-flip bools."""
    limits = _index_limits(fusion, sizes)
    arrays = []
    for value in fusion.uses():
        kind = tensor_type(value)
        shape = tuple(int(size.evaluate(dict(sizes))) for size in kind.shape)
        arrays.append(random_array(rng, kind.dtype, shape, limits.get(value), positive=positive))
    return arrays


def random_array(
    rng: np.random.Generator, dtype: DType, shape: Sequence[int], limit: int | None = None, *, positive: bool = False
) -> Array:
    """Random values as the IR's interpreter holds the dtype; integers below `limit` (default 8)."""
    if dtype.kind == "bool":
        return rng.random(tuple(shape)) < 0.5
    if not dtype.is_float:
        low = 0 if positive or limit is not None or dtype.kind == "uint" else -8
        return rng.integers(low, limit if limit is not None else 8, tuple(shape)).astype(dtype.numpy)
    values = rng.standard_normal(tuple(shape))
    values = np.abs(values) + 0.1 if positive else values
    return np.asarray(round_to(values.astype(np.float64 if dtype.bits == 64 else np.float32), dtype)).astype(
        dtype.numpy
    )


def _index_limits(fusion: Fusion, sizes: Mapping[str, int]) -> dict[Value, int]:
    """For integer inputs used as indices, the least size of a dim that they index."""
    found: dict[Value, int] = {}

    members = {compute.result: compute for compute in fusion.computes}

    def note(scalar: Scalar, size: int) -> None:
        for read in scalar.reads():
            if read.dtype.is_integer and read.source in members:
                note(members[read.source].body, size)
            elif read.dtype.is_integer:
                found[read.source] = min(found.get(read.source, size), max(size, 1))

    for compute in fusion.computes:
        for read in compute.body.reads():
            for expression, size in zip(read.indices, read.source.shape, strict=True):
                for atom in expression.atoms():
                    if isinstance(atom, Datum):
                        note(atom.scalar, int(size.evaluate(dict(sizes))))
    return found
