"""Running a compiled model on this computer: kernels in Triton's interpreter or on the simulated accelerator, the rest in NumPy.

And checking it against torch: on the user's example first, then on other inputs. What the model writes into inputs and buffers is compared
as well. The example runs on the kernels; other inputs, where the example has been run, on the meanings of the fused groups, to which
each kernel is held by itself on inputs of its own. Where torch's float32 and the compiled model disagree, torch in float64 decides: the compiled
model is right if it is as near to that as the tolerance asks, or no further from it than torch's own float32 is (up to a factor of 2, of 8
where values cancel: the bias before a batch norm has no gradient); or if it agrees with torch whose products are rounded as it lets matrix
units round them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from codesign.backend import Backend
from codesign.backends.verification import difference, meaning
from codesign.backends.verification.allowance import Allowance, allowance_of, together
from codesign.backends.verification.tolerance import rms_of
from codesign.document import Verified
from codesign.frontend import Captured, ModelSource
from codesign.frontend.arrays import as_real, to_torch
from codesign.frontend.eager import Values, run_eager, run_rounded, run_wide
from codesign.frontend.externals import externals
from codesign.frontend.inputs import cloned, fresh_inputs, without_values
from codesign.frontend.load import Arguments, first_line
from codesign.ir.core import Module, tensor_type
from codesign.ir.index import index
from codesign.ir.interpreter import Launcher, evaluate
from codesign.ir.tile import Kernel
from codesign.passes.lowering import KernelInfo

ILL = 0.1
"""An error of torch's own float32 beyond which float64 is not believed: such a model does something else in another type."""

CANCELLED = 2.0**-12
"""A result this small beside the largest is what rounding leaves of values that cancel, where float64 leaves far less."""


def run(captured: Captured, tiled: Module, backend: Backend, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What the compiled model returns for inputs of the original model."""
    return captured.unflatten_outputs(_results(captured, tiled, backend.launcher(), args, kwargs))


def _results(
    captured: Captured, tiled: Module, launcher: Launcher, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Sequence[Any]:
    arrays = captured.flatten_inputs(args, kwargs)
    return evaluate(tiled, arrays, externals=externals(tiled), launcher=launcher)


def _by_meaning(kernels: Mapping[str, KernelInfo]) -> Launcher:
    """Every kernel by the meaning of its fused group."""

    def launch(kernel: Kernel, inputs: Any, sizes: Mapping[str, int]) -> list[Any]:
        shapes = [[int(index(size).evaluate(dict(sizes))) for size in value.type.shape] for value in kernel.results]
        return meaning(kernels[kernel.name].normalized, inputs, shapes, sizes)

    return launch


def tolerance(kernels: Mapping[str, KernelInfo], sizes: Mapping[str, int]) -> Allowance:
    """Allowed error of a whole model: errors of its kernels add as independent ones do."""
    total = together(
        (allowance_of(info.normalized.fusion, sizes), max(round(info.count), 1)) for info in kernels.values()
    )
    return total if total.largest else Allowance(1e-6)


@dataclass
class _Outcome:
    """Of one comparison; `worst` is infinite where values differ that have no distance."""

    worst: float = 0.0
    note: str = ""

    @property
    def ok(self) -> bool:
        return not self.note


@dataclass
class _Check:
    """A compiled model and what it is held to."""

    source: ModelSource
    captured: Captured
    tiled: Module
    launcher: Launcher
    meanings: Launcher
    allowed: Allowance

    def compiled(self, arguments: Arguments) -> Values:
        """What the compiled model makes of a copy of the inputs, with what it writes written."""
        args, kwargs = cloned(arguments)
        results = _results(self.captured, self.tiled, self.launcher, args, kwargs)
        outputs = pytree.tree_leaves(self.captured.unflatten_outputs(results))
        values = Values({f"output {k}": value for k, value in enumerate(outputs)})
        written = self.captured.flatten_tensors(*cloned(arguments))  # results may lie in the memory of the inputs
        leaves = dict(zip(self.captured.input_names, written, strict=True))
        types = self.captured.module.main.results
        for mutation in self.captured.mutations:
            kind = tensor_type(types[mutation.position]).dtype
            new = to_torch(results[mutation.position], kind, is_complex=mutation.is_complex)
            if mutation.kind == "input":
                leaves[mutation.name].copy_(new)
                values.inputs = {f"input {name}": leaf for name, leaf in leaves.items()}
            else:
                values.state[mutation.name] = new
        return values

    def judge(self, arguments: Arguments, expected: Values) -> _Outcome:
        """The compiled model on these inputs against what torch made of them."""
        try:
            actual = self.compiled(arguments)
        except Exception as error:
            return _Outcome(math.inf, f"the compiled model fails: {first_line(error)}")
        mine, theirs = self._flat(actual, expected, arguments), self._flat(expected, actual, arguments)
        found = self._compare(theirs, mine)
        if found.ok:
            return found
        wide = run_wide(self.source, self.captured, arguments)
        decided = None
        if wide is not None:
            decided = self._decide(self._flat(wide, expected, arguments), theirs, mine)
        return decided or self._as_rounded(actual, mine, arguments) or found

    def _as_rounded(self, actual: Values, mine: Mapping[str, Any], arguments: Arguments) -> _Outcome | None:
        """The verdict of torch with products rounded as it lets GPUs round them; None where it has none or isn't met either."""
        rounded = run_rounded(self.source, self.captured, arguments)
        if rounded is None:
            return None
        found = self._compare(self._flat(rounded, actual, arguments), mine)
        return found if found.ok else None

    def _flat(self, values: Values, other: Values, arguments: Arguments) -> dict[str, Any]:
        """Everything to compare by name; what only the other run wrote has the value it had before."""
        flat = dict(values.outputs)
        if values.inputs or other.inputs:
            leaves = self.captured.flatten_tensors(*arguments)
            before = {f"input {name}": leaf for name, leaf in zip(self.captured.input_names, leaves, strict=True)}
            flat.update(values.inputs or before)
        stored = {**dict(self.source.model.named_parameters()), **dict(self.source.model.named_buffers())}
        for name in {**values.state, **other.state}:
            if name in stored:
                flat[f"buffer {name}"] = values.state.get(name, stored[name])
        return flat

    def _compare(self, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> _Outcome:
        found = _Outcome()
        if len(expected) != len(actual):
            return _Outcome(math.inf, f"{len(actual)} results, {len(expected)} expected")
        for name, wanted in expected.items():
            got = actual.get(name)
            error, text = self._one(wanted, got)
            found.worst = max(found.worst, error)
            if text and not found.note:
                found.note = f"{name}: {text}"
        return found

    def _one(self, wanted: Any, got: Any) -> tuple[float, str]:
        """The error of one value, and what is wrong with it if that is too large."""
        if not isinstance(wanted, torch.Tensor):
            same = not isinstance(wanted, (bool, int, float)) or wanted == got or wanted != wanted
            return (0.0, "") if same else (math.inf, f"got {got}, expected {wanted}")
        if not isinstance(got, torch.Tensor) or wanted.dtype != got.dtype:
            return math.inf, f"got {getattr(got, 'dtype', got)}, expected {wanted.dtype}"
        e, a = _numbers(wanted), _numbers(got)
        if _has_fractions(wanted):
            error, where = difference(e, a)
            refused = "" if not math.isfinite(error) else self.allowed.refuses(e, a, error)
            return error, where if not math.isfinite(error) else refused and f"{where}; {refused}"
        if e.shape != a.shape:
            return math.inf, f"shape {a.shape}, expected {e.shape}"
        return (0.0, "") if np.array_equal(e, a) else (math.inf, f"{int((e != a).sum())} integers differ")

    def _decide(self, truth: Mapping[str, Any], theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> _Outcome | None:
        """The verdict of float64; None where it has none, as when torch's own error is too large to believe it."""
        worst = 0.0
        sizes = {
            name: rms_of(_numbers(x)) for name, x in theirs.items() if isinstance(x, torch.Tensor) and _has_fractions(x)
        }
        for name, wanted in theirs.items():
            exact, got = truth.get(name), mine.get(name)
            if not isinstance(wanted, torch.Tensor):
                continue
            if not isinstance(exact, torch.Tensor) or not isinstance(got, torch.Tensor) or wanted.dtype != got.dtype:
                return None
            if not wanted.shape == exact.shape == got.shape:
                return None
            t, e, a = _numbers(exact), _numbers(wanted), _numbers(got)
            if _has_fractions(wanted):
                if rms_of(t) <= ILL * sizes[name] and sizes[name] <= CANCELLED * max(sizes.values()):
                    if not np.abs(a - t).max() <= 8 * np.abs(e - t).max():  # both are rounding, in orders of their own
                        return None
                    continue
                own, error = difference(t, e)[0], difference(t, a)[0]
                if not own <= ILL or (self.allowed.refuses(t, a, error) and not error <= 2 * own):
                    return None
                worst = max(worst, error)
            elif not ((a == e) | (e != t)).all():
                return None
        return _Outcome(worst)


def verify(
    source: ModelSource,
    captured: Captured,
    tiled: Module,
    kernels: Mapping[str, KernelInfo],
    backend: Backend,
    sizes: Mapping[str, int],
    seed: int,
    remarks: list[str] | None = None,
) -> Verified | None:
    """The compiled model against torch on the example and on other inputs; None, with a remark, where torch gives nothing to compare with."""
    remarks = [] if remarks is None else remarks
    check = _Check(source, captured, tiled, backend.launcher(), _by_meaning(kernels), tolerance(kernels, sizes))
    example: Arguments = (source.inputs, source.kwargs)
    outcomes: list[tuple[str, _Outcome]] = []
    notes: list[str] = []
    share = 0.5
    if not without_values(example):
        try:
            expected = run_eager(source, captured, example)
        except Exception as error:
            remarks.append(f"the model was not compared: torch itself fails on the example ({first_line(error)})")
            return None
        share = expected.nan_share()
        if share <= 0.5:
            outcomes.append(("example", check.judge(example, expected)))
        else:
            notes.append(f"the example gives {share:.0%} NaN, which says nothing")
    if outcomes and outcomes[0][1].ok:
        check.launcher = check.meanings  # the kernels have run at their full size
    if all(outcome.ok for _, outcome in outcomes):
        _on_fresh(check, seed, min(share, 0.5), outcomes, notes)
    if not outcomes:
        remarks.append("the model was not compared: " + "; ".join(notes))
        return None
    wrong = [f"{origin} inputs: {outcome.note}" for origin, outcome in outcomes if not outcome.ok]
    worst = max(outcome.worst for _, outcome in outcomes)
    return Verified(
        against="torch",
        max_error=worst if math.isfinite(worst) else None,
        tolerance=check.allowed.largest,
        ok=not wrong,
        note="; ".join([*wrong, *notes]),
        inputs=[origin for origin, _ in outcomes],
    )


def _on_fresh(check: _Check, seed: int, share: float, outcomes: list[tuple[str, _Outcome]], notes: list[str]) -> None:
    """One comparison more, on the first fresh inputs that torch takes and makes no more NaN of than of the example."""
    reason = ""
    for fresh in fresh_inputs(check.source, seed):
        try:
            expected = run_eager(check.source, check.captured, fresh.arguments)
        except Exception as error:
            reason = f"torch fails on {fresh.origin} inputs ({first_line(error)})"
            continue
        found = expected.nan_share()
        if found > share:
            reason = f"{fresh.origin} inputs give {found:.0%} NaN"
            continue
        outcomes.append((fresh.origin, check.judge(fresh.arguments, expected)))
        return
    notes.append(f"{reason}; the example stands alone" if outcomes else reason)


def _has_fractions(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _numbers(tensor: torch.Tensor) -> Any:
    """The values, complex ones as pairs of real ones."""
    plain = as_real(tensor.detach()).cpu()
    return (plain.double() if plain.is_floating_point() else plain).numpy()
