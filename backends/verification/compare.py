"""What a kernel makes of fresh inputs against the meaning of its fused group in the IR's interpreter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.backends.verification.inputs import random_inputs
from codesign.backends.verification.promote import promoted
from codesign.backends.verification.tolerance import difference, tolerance_of
from codesign.ir.core import Module, Value, tensor_type
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
