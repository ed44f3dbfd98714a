"""What a kernel makes of fresh inputs against the meaning of its fused group in the IR's interpreter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.backends.verification.allowance import allowance_of
from codesign.backends.verification.defined import has_undefined, with_stand_in, without_masked
from codesign.backends.verification.inputs import DOMAINS, random_inputs, roles_of
from codesign.backends.verification.promote import promoted
from codesign.backends.verification.special import signs_of_zero_count, sprinkled
from codesign.backends.verification.tolerance import described, errors_of, rms_of
from codesign.ir.core import Module, Value, tensor_type
from codesign.ir.errors import EvaluationError
from codesign.ir.interpreter import evaluate_block
from codesign.ir.tensor import Compute, Fusion
from codesign.passes.normalize import Normalized

Array = npt.NDArray[Any]


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


def compare(
    group: Normalized,
    run: Callable[[list[Array], Mapping[str, int]], Sequence[Array]],
    *,
    sizes: Mapping[str, int],
    seed: int | None = None,
    extents: Mapping[str, tuple[int, int]] | None = None,
    device: str = "cpu",
) -> Verification:
    """What `run` makes of fresh random inputs of a group, special values among them, against the group's meaning in the IR's interpreter.

    `run` takes the group's inputs and sizes and returns the buffers of its outputs (whose layout `group.outputs` describes).
    """
    fusion = group.fusion
    allowed = allowance_of(fusion, sizes)
    try:
        trial = _trial(fusion, sizes, np.random.default_rng(seed))
    except EvaluationError as failure:
        note = f"no inputs: {failure}"
        return Verification("tensor interpreter", math.inf, allowed.largest, False, device, extents or {}, note)
    actual = run(trial.arrays, sizes)
    worst, ok, message, extra = 0.0, True, trial.note, 0.0
    own: _OwnError | None = None
    for position, (value, buffer) in enumerate(zip(fusion.results, actual, strict=True)):
        wanted = trial.expected[position]
        got = _picked(group, position, buffer, sizes)
        keep = trial.defined[position]
        wanted, got = np.where(keep, wanted, wanted.dtype.type(0)), np.where(keep, got, got.dtype.type(0))
        error = errors_of(wanted, got, trial.scales[position])
        if device == "cpu" and trial.signs:
            error = np.where((wanted == 0) & (got == 0) & (np.signbit(wanted) != np.signbit(got)), np.inf, error)
        largest = float(error.max(initial=0.0))
        limit: Array = np.asarray(allowed.largest)
        if allowed.largest < largest < math.inf:
            own = own or _OwnError(trial, sizes)
            limit = allowed.largest + 4 * own.of(position)
            extra = max(extra, 4 * own.plain)
        refused = allowed.refuses(wanted, got, 0.0) if (error <= limit).all() else "too far"
        worst = max(worst, largest)
        if refused and ok:
            over = np.where(error <= limit, 0.0, error) if not (error <= limit).all() else error
            ok, message = False, f"%{value.name}: {described(wanted, got, over)}"
    return Verification("tensor interpreter", worst, allowed.largest + extra, ok, device, extents or {}, message)


@dataclass(frozen=True)
class _Trial:
    """Inputs to check on, and what to expect of them."""

    fusion: Fusion
    plain: list[Array]
    """The inputs without special values."""
    ordinary: list[Array]
    """The results of those."""
    arrays: list[Array]
    expected: list[Array]
    defined: list[Array]
    """Of each result, the elements that have a value to compare with."""
    signs: bool
    """Whether the sign of zero counts."""
    note: str = ""

    @property
    def scales(self) -> list[float]:
        """The root mean square of each result, special values aside."""
        return [rms_of(array) for array in self.ordinary]


def _evaluated(fusion: Fusion, arrays: Sequence[Array], sizes: Mapping[str, int]) -> list[Array]:
    env: dict[Value, Array] = dict(zip(fusion.uses(), arrays, strict=True))
    with np.errstate(all="ignore"):
        evaluate_block([fusion], env, sizes, Module())
    return [env[value] for value in fusion.results]


def _trial(fusion: Fusion, sizes: Mapping[str, int], rng: np.random.Generator) -> _Trial:
    """Inputs of the first domain in which nearly all results are finite, or most; then with special values, where enough is left."""
    best: tuple[float, list[Array], list[Array]] | None = None
    failure: EvaluationError | None = None
    for drawn in _drawn(fusion, sizes, rng):
        try:
            results = _evaluated(fusion, drawn, sizes)
        except EvaluationError as error:  # an index outside of what it indexes
            failure = failure or error
            continue
        share = min((float(np.isfinite(r).mean()) for r in results if r.size and r.dtype.kind == "f"), default=1.0)
        if best is None or share > best[0]:
            best = (share, drawn, results)
        if share > 0.9:
            break
    if best is None:
        assert failure is not None
        raise failure
    share, plain, ordinary = best
    note = "" if share > 0.5 else f"only {share:.0%} of the results are finite, whatever the inputs"
    arrays, expected = plain, ordinary
    special = sprinkled(fusion, plain, sizes, rng)
    try:
        results = _evaluated(fusion, special, sizes)
        if all(_left(new, old) for new, old in zip(results, ordinary, strict=True)):
            arrays, expected = special, results
    except EvaluationError:
        pass  # a special value reaches an index
    defined = _defined(fusion, arrays, expected, sizes)
    return _Trial(fusion, plain, ordinary, arrays, expected, defined, signs_of_zero_count(fusion), note)


_ALIKE = 32
"""So many values are tried for all places of what indexes, where values drawn place by place lead outside."""


def _drawn(fusion: Fusion, sizes: Mapping[str, int], rng: np.random.Generator) -> Iterator[list[Array]]:
    """Inputs of every domain; and such as index alike from everywhere, for indices that not every place can have (a place in a window over an
    edge)."""
    for domain in DOMAINS:
        yield random_inputs(fusion, sizes, rng, domain=domain)
    limits = roles_of(fusion, sizes).limits
    plain = random_inputs(fusion, sizes, rng)
    for value in range(min(max(limits.values(), default=0), _ALIKE)):
        yield [
            np.full_like(array, min(value, limits[use] - 1)) if use in limits else array
            for use, array in zip(fusion.uses(), plain, strict=True)
        ]


def _left(new: Array, old: Array) -> bool:
    """Whether special values leave most of a result as ordinary as it was."""
    return old.dtype.kind != "f" or int(np.isfinite(new).sum()) * 2 >= int(np.isfinite(old).sum())


def _defined(
    fusion: Fusion, arrays: Sequence[Array], expected: Sequence[Array], sizes: Mapping[str, int]
) -> list[Array]:
    """Where each result has one value: not where it hangs on an undefined one or on a NaN or infinity behind a mask, nor where float32
    overflows on a way that is only the reference's."""
    masks = [np.ones(array.shape, np.bool_) for array in expected]
    if has_undefined(fusion):
        for stand_in in (1, 5):
            other = _evaluated(with_stand_in(fusion, stand_in), arrays, sizes)
            for mask, e, o in zip(masks, expected, other, strict=True):
                mask &= (e == o) | ((e != e) & (o != o))
    skipping = without_masked(fusion)
    if skipping is not None:
        for mask, e, s in zip(masks, expected, _evaluated(skipping, arrays, sizes), strict=True):
            if e.dtype.kind == "f":
                mask &= (np.isfinite(e) & np.isfinite(s)) | (e == s) | (np.isnan(e) & np.isnan(s))
    if not any(compute.monoid in ("sum", "prod") for compute in fusion.computes):
        for mask, e, w in zip(masks, expected, _promoted(fusion, arrays, expected, sizes), strict=True):
            if e.dtype.kind == "f":
                mask &= (np.isfinite(e) & np.isfinite(w)) | (e == w) | (np.isnan(e) & np.isnan(w))
    return masks


def _promoted(
    fusion: Fusion, arrays: Sequence[Array], expected: Sequence[Array], sizes: Mapping[str, int]
) -> list[Array]:
    """The results with float64 for float32 inside, rounded to their own formats at the end."""
    wide, inputs = promoted(fusion)
    env: dict[Value, Array] = {
        inputs[value]: array.astype(tensor_type(inputs[value]).dtype.numpy)
        for value, array in zip(fusion.uses(), arrays, strict=True)
    }
    with np.errstate(all="ignore"):
        evaluate_block([wide], env, sizes, Module())
        return [env[v].astype(e.dtype) for v, e in zip(wide.results, expected, strict=True)]


class _OwnError:
    """What the reference itself is off by, by its evaluation with float64 for float32."""

    def __init__(self, trial: _Trial, sizes: Mapping[str, int]) -> None:
        self._trial = trial
        ordinary = _promoted(trial.fusion, trial.plain, trial.ordinary, sizes)
        errors = [errors_of(w, e) for w, e in zip(ordinary, trial.ordinary, strict=True)]
        self.plain = max((float(e[np.isfinite(e)].max(initial=0.0)) for e in errors), default=0.0)
        """The largest one for ordinary inputs."""
        self._promoted = _promoted(trial.fusion, trial.arrays, trial.expected, sizes)

    def of(self, position: int) -> Array:
        """For each element of a result: its own, and at least the largest one for ordinary inputs."""
        trial = self._trial
        own = errors_of(self._promoted[position], trial.expected[position], trial.scales[position])
        return np.maximum(np.where(np.isfinite(own), own, 0.0), self.plain)


def meaning(
    group: Normalized, inputs: Sequence[Array], shapes: Sequence[Sequence[int]], sizes: Mapping[str, int]
) -> list[Array]:
    """The output buffers, of these shapes, that a kernel of a group must make of its input buffers, by the IR's interpreter."""
    fusion = group.fusion
    arrays = [
        array.reshape(tuple(int(size.evaluate(dict(sizes))) for size in value.shape))
        for value, array in zip(fusion.uses(), inputs, strict=True)
    ]
    buffers = []
    for position, result in enumerate(_evaluated(fusion, arrays, sizes)):
        if position in fusion.writes:
            buffers.append(result)
            continue
        buffer = np.zeros(tuple(shapes[position]), result.dtype)
        place = _place(group, position, sizes)
        if place:
            buffer[place] = result
        else:
            buffer.reshape(-1)[:] = result
        buffers.append(buffer)
    return buffers


def _picked(group: Normalized, position: int, buffer: Array, sizes: Mapping[str, int]) -> Array:
    """The elements of an output buffer in the order of the result that it holds."""
    if position in group.fusion.writes:
        return buffer
    place = _place(group, position, sizes)
    return np.asarray(buffer[place] if place else buffer.reshape(()))


def _place(group: Normalized, position: int, sizes: Mapping[str, int]) -> tuple[Array, ...]:
    """Where in its buffer each element of a result lies: an index array for each dim of the buffer."""
    value, where = group.fusion.results[position], group.outputs[position]
    compute = _computed(group.fusion, value)
    shape = tuple(int(dim.extent.evaluate(dict(sizes))) for dim in compute.dims)
    grid: tuple[Array, ...] = np.indices(shape, sparse=True)
    places = {dim.name: axis for dim, axis in zip(compute.dims, grid, strict=True)}
    return tuple(np.broadcast_to(i.evaluate({**sizes, **places}), shape) for i in where.indices)


def _computed(fusion: Fusion, result: Value) -> Compute:
    owner = fusion.body.yields[fusion.results.index(result)].owner
    assert isinstance(owner, Compute)
    return owner
