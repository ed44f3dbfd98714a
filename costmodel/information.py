"""What a table of measurements says of fitted parameters, and which further measurements would say most.

The Fisher information of a fit is that of its slopes: how the logarithm of each row's time changes with the logarithm of each parameter. Rows of
one site err together, so the variance of the estimate is taken over sites (the sandwich of Huber and White). A parameter is known
from the table as far as the fit's pull towards the physical value does not decide it; two are confused where the rows tell only something
of both. Measurements are chosen one by one, each the one that most increases the determinant of the information (a D-optimal design,
Fedorov 1972); what one site says again counts less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from codesign.costmodel.calibration import Fitted
from codesign.costmodel.fitting import PRIOR_WEIGHT, STEP, Floats, Prepared
from codesign.costmodel.gpu.parameters import BOUNDS, Parameters
from codesign.costmodel.machine import Machine

NINETY = 1.645
"""Standard errors on each side of a 90 % interval."""

TOLD = 0.5
"""Share of a parameter's information that must come from the table for it to be identified."""

CONFUSED = 0.8
"""Correlation of the estimates of two parameters from which the table does not tell them apart."""


UNITS = {
    name: unit
    for unit, names in {
        "of the machine's": "tensor_efficiency l2_efficiency dram_efficiency vector_efficiency lasting_clock profiled_clock",
        "DRAM latencies": "fill_latency reduction_latency profiled_fill_latency",
        "s": "launch_seconds profiled_launch_seconds helper_seconds quantise_seconds",
        "s/token": "token_seconds",
        "J": "tensor_joules",
        "elements": "tile_overhead",
        "bytes": "write_gap",
        "bytes/clock": "pass_bytes",
        "clocks": "step_clocks",
        "share": "exposed warm",
        "order": "sharpness",
        "passes": "extra_passes quantise_passes result_passes convert_passes extra_query_passes",
    }.items()
    for name in names.split()
}
"""What each parameter counts."""


@dataclass(frozen=True)
class Identified:
    """A fitted parameter: its value and 90 % interval, which share of what is known of it the table says (the rest is the physical value that
    the fit is pulled to), and parameters with which it is confused, with the correlation."""

    name: str
    value: float
    low: float
    high: float
    told: float
    confused: dict[str, float]
    at_bound: bool

    @property
    def unit(self) -> str:
        """What the value counts."""
        return UNITS[self.name]

    @property
    def identified(self) -> bool:
        """Whether the table decides the value, and not the pull or a bound."""
        return self.told >= TOLD and not self.at_bound


def slopes(prepared: Sequence[Prepared], machine: Machine, p: Parameters, names: Sequence[str]) -> list[Floats]:
    """Of each kernel's rows, the change of the logarithm of time with that of each parameter: rows x parameters."""

    values = np.array([max(getattr(p, name), 1e-15) for name in names])
    steps = np.exp(STEP * np.eye(len(names)))
    points = np.vstack([values / steps, values * steps])  # all in one call: what no parameter moves is worked out once
    moved = replace(p, **dict(zip(names, points.T[:, :, None, None], strict=True)))
    found = []
    for entry in prepared:
        before, after = np.split(np.log(entry.predict(machine, moved)), 2)
        found.append(((after - before) / (2.0 * STEP)).T)
    return found


def identify(fitted: Fitted, machine: Machine) -> list[Identified]:
    """What the rows of a fit say of each parameter."""
    names, p = fitted.names, fitted.parameters
    felt = slopes(fitted.prepared, machine, p, names)
    errors = [np.log(entry.predict(machine, p) / entry.rows.seconds) for entry in fitted.prepared]
    inverse = np.linalg.inv(known_of(felt, fitted.weight))
    spread = inverse @ _of_sites(fitted.prepared, felt, errors) @ inverse * fitted.weight**2
    told = 1.0 - PRIOR_WEIGHT**2 * np.diag(inverse)
    scale = np.sqrt(np.diag(inverse))
    alike = inverse / scale[:, None] / scale[None, :]
    found = []
    for row, name in enumerate(names):
        value, wide = float(getattr(p, name)), NINETY * float(np.sqrt(spread[row, row]))
        wide = float(
            np.hypot(wide, np.log(2.0) * (1.0 - told[row]))
        )  # what the table does not say may be another by twice
        least, most = BOUNDS[name]
        ends = max(value * np.exp(-wide), least), min(value * np.exp(wide), most)
        at_bound = value <= least * 1.001 or value >= most * 0.999
        others = {
            other: round(float(alike[row, column]), 2)
            for column, other in enumerate(names)
            if column != row and abs(alike[row, column]) >= CONFUSED
        }
        found.append(Identified(name, value, float(ends[0]), float(ends[1]), float(told[row]), others, at_bound))
    return found


def known_of(felt: Sequence[Floats], weight: float) -> Floats:
    """The information of a fit: that of its rows and that of its pull."""
    pull: Floats = PRIOR_WEIGHT**2 * np.eye(felt[0].shape[1])
    return sum((weight * (each.T @ each) for each in felt), pull)


def _of_sites(prepared: Sequence[Prepared], felt: Sequence[Floats], errors: Sequence[Floats]) -> Floats:
    """Variance of the sum of slopes times errors, whose rows of one site are taken together."""
    sums = []
    for entry, slope, error in zip(prepared, felt, errors, strict=True):
        pulls = slope * error[:, None]
        sums += [pulls[entry.rows.site == site].sum(axis=0) for site in np.unique(entry.rows.site)]
    count = len(sums)
    each = np.array(sums)
    found: Floats = each.T @ each * (count / max(count - 1.0, 1.0))
    return found


@dataclass(frozen=True)
class Measurement:
    """A measurement that would help: which row of the candidates, by how much the determinant of the information grows (its logarithm), and
    the parameter whose variance it lowers most, with the share that it takes away."""

    row: int
    gain: float
    parameter: str
    lowers: float


def design(
    known: Floats, felt: Floats, sites: npt.NDArray[np.int64], names: Sequence[str], count: int
) -> list[Measurement]:
    """The `count` rows of candidates (of slopes `felt`) that add most to the information `known`, one after the other."""
    inverse, left = np.linalg.inv(known), np.ones(len(felt), dtype=np.bool_)
    taken = np.zeros(len(felt))
    found = []
    for _ in range(min(count, len(felt))):
        weighed = felt / np.sqrt(1.0 + taken)[:, None]
        gains = np.einsum("ij,jk,ik->i", weighed, inverse, weighed)
        row = int(np.argmax(np.where(left, gains, -1.0)))
        moved = inverse @ weighed[row]
        lowered = moved**2 / (1.0 + gains[row]) / np.diag(inverse)
        most = int(np.argmax(lowered))
        found.append(Measurement(row, float(np.log1p(gains[row])), names[most], float(lowered[most])))
        inverse = inverse - np.outer(moved, moved) / (1.0 + gains[row])
        left[row] = False
        taken[sites == sites[row]] += 1.0
    return found
