"""Leaving out what was measured: machines, kinds of kernels, types of operands and implementations in turn.

What is left out is predicted as it would be by who had not measured it, from an interval of the nearest thing that was. How far errors
reach beyond that is what `distances.py` learns from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from codesign.costmodel.achievable import published
from codesign.costmodel.attention import UNKNOWN
from codesign.costmodel.calibration import PROFILED_FIT, constants_of, regimes
from codesign.costmodel.fitting import Floats, fit, prepare
from codesign.costmodel.gpu.model import family_of, ledger, spread_of
from codesign.costmodel.gpu.parameters import (
    TYPICAL,
    Calibration,
    Parameters,
    calibration_like,
    calibrations,
    load_calibration,
)
from codesign.costmodel.gpu.timing import estimate
from codesign.costmodel.machine import Machine, load_machine, machine_names
from codesign.costmodel.ranking import CONVOLUTION, filtered_image, is_ranking
from codesign.costmodel.rows import Rows, phase_of
from codesign.costmodel.tables import kernels_of, machine_rows


@dataclass(frozen=True)
class Left:
    """Rows predicted without what was measured of them: at which `distance` they lie ("" at none), of which `family` of kernels
    (or type of operands), which `group` was left out, the logarithms of measured over predicted time and of the ends of the interval
    that the prediction begins with, and what rows of one run have in common (`together`)."""

    distance: str
    family: str
    group: str
    error: Floats
    low: Floats
    high: Floats
    together: Floats

    @property
    def beyond(self) -> Floats:
        """The spread that would take the interval to each row."""
        side = np.where(self.error < 0.0, self.low, self.high)
        found: Floats = np.sqrt(np.maximum(self.error**2 - side**2, 0.0))
        return found

    @property
    def sides(self) -> tuple[Floats, Floats]:
        """The same of each side, the faster and the slower: nothing of rows on the other."""
        return np.where(self.error < 0.0, self.beyond, 0.0), np.where(self.error < 0.0, 0.0, self.beyond)

    def of(self, rows: npt.NDArray[np.bool_]) -> Left:
        """Some of the rows."""
        arrays = (self.error, self.low, self.high, self.together)
        return Left(self.distance, self.family, self.group, *(array[rows] for array in arrays))


LONG = 20.0
"""Times as long as the small kernels of a quantised product from which on they hardly count."""


def left_out(
    tables: Sequence[pd.DataFrame], rows: int = 200, step: Callable[[str], None] = lambda text: None
) -> Iterator[Left]:
    """All ways of leaving out that the tables allow, of at most so many rows of each kernel."""
    for name in machine_names():
        machine = load_machine(name)
        if machine.kind != "gpu":
            continue
        found = [part for table in tables for part in _rows(table, machine, rows)]
        if found:
            step(f"leaving out what was measured of {name}")
            for way in (_nothing, _generations, _implementations, _operands, _chains, _profiled, _eager):
                yield from way(found, machine)
            for table in tables:
                yield from _unknown(table, machine, rows)
    step("asking for products that others published")
    yield from _published()
    for table in tables:
        if is_ranking(table):
            step("leaving out kernels of tuning spaces")
            yield from _spaces(table, rows)


def _rows(table: pd.DataFrame, machine: Machine, most: int) -> list[Rows]:
    """Kernels of a table that says where it was measured (or is of profiled operators, which one machine has), each with a
    sample of rows."""
    if is_ranking(table):
        return []
    told = {"machine", "hardware"} & {*table.columns}
    picked = machine_rows(table, machine.name) if told else table if machine.name in _measured_ops() else table[:0]
    return [_sampled(part, most) for part in kernels_of(picked, machine)] if len(picked) else []


def _measured_ops() -> list[str]:
    """Machines with a calibration of profiled operators, whose tables do not name them."""
    found = ((name, load_calibration(load_machine(name))) for name in calibrations())
    return [name for name, own in found if any(key.startswith("profiled") and key not in own.far for key in own.spread)]


def _sampled(part: Rows, most: int) -> Rows:
    picked = np.sort(np.random.default_rng(0).permutation(len(part.seconds))[:most])
    return replace(
        part,
        sizes={name: value[picked] for name, value in part.sizes.items()},
        seconds=part.seconds[picked],
        index=part.index[picked],
        site=part.site[picked],
        regime_size=part.regime_size[picked] if len(part.regime_size) else np.zeros(len(picked)),
    )


def _left(
    distance: str,
    group: str,
    part: Rows,
    machine: Machine,
    p: Parameters,
    known: Calibration,
    residual: str,
    family: str = "",
) -> Left:
    """The rows as some parameters predict them, with the interval of a family of kernels."""
    best, terms, _ = regimes(part, machine, p, prepare(part, machine, p).space)
    error = np.log(part.seconds / (best.seconds * part.launches))
    pair = spread_of(known, terms, residual)
    return _of(distance, family or family_of(part.kernel), group, error, pair, part.regime_size)


def _of(
    distance: str, family: str, group: str, error: Floats, pair: tuple[Any, Any], together: Floats | None = None
) -> Left:
    low, high = (np.log(np.broadcast_to(side, error.shape)) for side in pair)
    return Left(distance, family, group, error, low, high, np.zeros(len(error)) if together is None else together)


def _nothing(found: Sequence[Rows], machine: Machine) -> Iterator[Left]:
    """Nothing is left out: what is left is the residual."""
    known = load_calibration(machine)
    for part in found:
        if part.method != "eager" and not part.assumed and not known.transferred:
            p = known.of(part.implementation, part.method)
            yield _left("", f"{machine.name} {part.op}", part, machine, p, known, family_of(part.kernel))


def _generations(found: Sequence[Rows], machine: Machine) -> Iterator[Left]:
    """The machine: predicted from each calibrated one of another generation."""
    if machine.name not in calibrations():
        return
    for donor in calibrations():
        known = calibration_like(donor, machine)
        for part in found:
            named = part.implementation
            if part.method != "graph" or donor == machine.name or (named and named not in known.implementations):
                continue
            p, residual = known.of(named), part.op if part.op in known.spread else family_of(part.kernel)
            yield _left("generation", f"{machine.name} like {donor}", part, machine, p, known, residual)


def _implementations(found: Sequence[Rows], machine: Machine) -> Iterator[Left]:
    """An implementation of attention: predicted from the middle of the machine's others, of one whose code a compiler of tiles made from what is
    expected of such code."""
    known = load_calibration(machine)
    for part in found:
        own = known.implementations.get(part.implementation, {})
        others = [
            constants
            for name, constants in known.implementations.items()
            if "helper_seconds" in constants and name not in (part.implementation, TYPICAL)
        ]
        if not (part.part_of_attention and own and (others or part.generated)):
            continue
        if part.generated:
            _, p = constants_of([part], known.parameters, machine)
        else:
            shared = set[str].intersection(*map(set, others))
            p = replace(known.parameters, **{key: float(np.median([one[key] for one in others])) for key in shared})
        yield _left("implementation", f"{machine.name} {part.op}", part, machine, p, known, "chain")


def _unknown(table: pd.DataFrame, machine: Machine, most: int) -> Iterator[Left]:
    """An implementation of attention, as if nobody knew its name: predicted as unknown ones are, by the middle of the machine's others."""
    known = load_calibration(machine)
    if "kernel_source" not in table or known.transferred:
        return
    picked = machine_rows(table, machine.name)
    for source in dict.fromkeys(picked["kernel_source"]):
        others = [
            constants
            for name, constants in known.implementations.items()
            if "helper_seconds" in constants and name != TYPICAL and name.split()[0] != source
        ]
        if not others:
            continue
        shared = set[str].intersection(*map(set, others))
        p = replace(known.parameters, **{key: float(np.median([one[key] for one in others])) for key in shared})
        mine = picked[picked["kernel_source"] == source].assign(kernel_source=UNKNOWN)
        for part in kernels_of(mine, machine):
            phase = phase_of(part)
            group = f"{machine.name} {phase} {source}"
            yield _left("unknown", group, _sampled(part, most), machine, p, known, "chain", phase)


def _operands(found: Sequence[Rows], machine: Machine) -> Iterator[Left]:
    """Types of operands: quantised products and those in f32, predicted from 16-bit ones."""
    known = load_calibration(machine)
    for part in found:
        family = family_of(part.kernel)
        if family == "contraction" and ("quantised" in part.sizes or part.method == "eager"):
            p, plain = known.of(method=part.method), replace(part, columns=None)
            (operand,) = {str(nest.contraction.operand) for nest in part.kernel.nests if nest.contraction}
            left = _left("dtype", f"{machine.name} {part.op}", plain, machine, p, known, "contraction", operand)
            # small kernels that quantise are no matter of the type: of long products they are a small part
            yield left.of(part.seconds > LONG * p.quantise_seconds) if "quantised" in part.sizes else left


def _chains(found: Sequence[Rows], machine: Machine) -> Iterator[Left]:
    """Chains of products: predicted from single ones and what is expected of any attention."""
    known = load_calibration(machine)
    for part in found:
        if part.part_of_attention and not known.transferred:
            _, p = constants_of([part], known.parameters, machine)
            yield _left("kind", f"{machine.name} {part.op}", part, machine, p, known, "contraction")


def _profiled(found: Sequence[Rows], machine: Machine) -> Iterator[Left]:
    """Each family of profiled kernels: predicted by parameters that were fitted to the others."""
    known = load_calibration(machine)
    parts = [part for part in found if part.method == "profiled"]
    for family in dict.fromkeys(family_of(part.kernel) for part in parts):
        others = [part for part in parts if family_of(part.kernel) != family]
        p = known.parameters
        prepared = [prepare(part, machine, p) for part in others]
        p = fit(prepared, machine, p, PROFILED_FIT, limit=150, evaluations=8).parameters if prepared else p
        p = replace(known, parameters=p).of(method="profiled")
        for part in parts:
            if family_of(part.kernel) == family:
                yield _left("kind", f"{machine.name} {part.op}", part, machine, p, known, "contraction")


def _eager(found: Sequence[Rows], machine: Machine) -> Iterator[Left]:
    """Kinds of FP32 kernels beside products, to which alone the constants of such tables were fitted."""
    known = load_calibration(machine)
    for part in found:
        if part.method == "eager" and family_of(part.kernel) != "contraction":
            p = known.of(method="eager")
            yield _left("kind", f"{machine.name} {part.op}", part, machine, p, known, "contraction")


def _published() -> Iterator[Left]:
    """Products that others published: of machines which were not measured in a type that was, and the other way round."""
    for one in published():
        known = load_calibration(load_machine(one.machine))
        other_type, other_machine = one.dtype != "bf16", known.far.get("contraction", "") == "machine"
        if other_type != other_machine:
            error, pair = np.array([np.log(one.predicted() / one.teraflops)]), known.spread["contraction:compute"]
            distance, family = ("dtype", one.dtype) if other_type else ("machine", "contraction")
            yield _of(distance, family, f"{one.machine} published", error, pair)


def _spaces(table: pd.DataFrame, most: int) -> Iterator[Left]:
    """Kinds of tuning spaces: the faster kernels of a filter over an image, and mixtures of experts; these on machines that were not
    measured too."""
    if set(table.columns) >= CONVOLUTION:
        machine = load_machine("a100_sxm")
        predicted, fits = filtered_image(table, machine)
        seconds = table.seconds.to_numpy(dtype=np.float64)
        fast = fits & (seconds <= np.nanquantile(seconds, 0.1))
        pair = load_calibration(machine).spread["contraction"]
        yield _of("kind", "window", "filtered image", np.log(seconds[fast] / predicted[fast]), pair)
    if "topk" not in table:
        return
    errors = {}
    for name in ("a100_sxm", *(name for name in machine_names() if name not in calibrations())):
        machine = load_machine(name)
        if len(picked := machine_rows(table, name)):
            errors[name] = _mixture(picked.sample(min(most, len(picked)), random_state=0), machine)
    first = errors.pop("a100_sxm", None)
    if first is None:
        return
    known = load_calibration(load_machine("a100_sxm"))
    yield _of("kind", "contraction", "mixture of experts", first, known.spread["contraction"])
    own = np.quantile(first - np.median(first), [0.05, 0.95])
    for name, error in errors.items():  # what another machine adds to the kernel's own error
        pair = (float(np.exp(own[0])), float(np.exp(own[1])))
        yield _of("machine", "contraction", f"{name} mixture of experts", error - np.median(first), pair)


def _mixture(table: pd.DataFrame, machine: Machine) -> Floats:
    """Logarithm of measured over predicted time of mixtures of experts under their schedules."""
    (part,) = kernels_of(table, machine)
    assert part.columns is not None
    p = load_calibration(machine).parameters
    sizes = {name: value.astype(np.float64) for name, value in part.sizes.items()}
    found = estimate(part.kernel, machine, part.columns, sizes, p, ("e", "m", "n"))
    error: Floats = np.log(part.seconds / ledger(found, len(part.seconds)).sum(axis=1))
    return error
