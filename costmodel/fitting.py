"""Fitting the physical parameters of the tile model to measured tables, with cross-validation by site.

Bounded least squares on the logarithm of time, regularised towards the physical values and robust to outliers. In
library mode every evaluation picks the best schedule anew, so the parameters are fitted to what a tuner would find,
not to one schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from codesign.costmodel.gpu.library import Columns, Near, least_of, library, library_space, nearby, thin, tiled_space
from codesign.costmodel.gpu.parameters import BOUNDS, Calibration, Parameters
from codesign.costmodel.machine import Machine
from codesign.costmodel.rows import Rows, TableError

Floats = npt.NDArray[np.float64]

ROBUST_SCALE = 0.06
"""Residual of log time where the loss turns from square to linear: twice the disagreement of two labs."""

STEP = 0.02
"""Step of a parameter's logarithm from which slopes are taken: the best schedule changes in jumps, which a step must span."""

IDENTIFIED = 0.001
"""Least change of a row's log time (root mean square over rows) with a parameter's logarithm: a parameter that the rows
do not speak of stays at its physical value."""

SETTLED = 1e-3
"""Share of its cost by which a step of a fit must better it for another to be tried: far less than what other rows of the same table change."""

PRIOR_WEIGHT = 0.3
"""Pull of each parameter's logarithm towards its physical value, in units of one row's residual. Launch and fill, for one, add
up in small kernels: the pull is what tells them apart."""


@dataclass(frozen=True)
class Prepared:
    """Rows of a kernel with the schedules that are tried for them."""

    rows: Rows
    space: Columns | None

    def predict(self, machine: Machine, parameters: Parameters, picked: npt.NDArray[np.int64] | None = None) -> Floats:
        """Predicted seconds of the picked rows (all by default); where parameters are arrays [points, 1, 1], of each point."""
        p, sizes = self._of(machine, parameters), self._sizes(picked)
        return library(self.rows.kernel, machine, sizes, p, self.space).seconds * self.rows.launches

    def nearby(self, machine: Machine, parameters: Parameters, picked: npt.NDArray[np.int64], within: float) -> Near:
        """The best schedules of the picked rows, and those that take up to `within` longer in the logarithm."""
        space = self.space if self.space is not None else library_space(self.rows.kernel, machine)
        return nearby(self.rows.kernel, machine, self._sizes(picked), self._of(machine, parameters), space, within)

    def moved(self, machine: Machine, parameters: Parameters, picked: npt.NDArray[np.int64], near: Near) -> Floats:
        """Seconds of one launch of the picked rows by the best of these schedules at each point of the parameters."""
        space = self.space if self.space is not None else library_space(self.rows.kernel, machine)
        return least_of(self.rows.kernel, machine, self._sizes(picked), self._of(machine, parameters), space, near)

    def _sizes(self, picked: npt.NDArray[np.int64] | None) -> dict[str, npt.NDArray[Any]]:
        return {name: value if picked is None else value[picked] for name, value in self.rows.sizes.items()}

    def _of(self, machine: Machine, parameters: Parameters) -> Parameters:
        return Calibration(machine.name, parameters, {}, {}).of(method=self.rows.method)


def prepare(rows: Rows, machine: Machine, start: Parameters) -> Prepared:
    """The rows with a thinned space: schedules that are best somewhere under a spread of parameters."""
    spread = [
        start,
        replace(start, tile_overhead=start.tile_overhead * 3 + 1, l2_efficiency=start.l2_efficiency * 0.7),
        replace(
            start,
            step_clocks=start.step_clocks * 2,
            fill_latency=start.fill_latency * 2,
            launch_seconds=start.launch_seconds * 0.8,
        ),
        replace(start, tensor_efficiency=start.tensor_efficiency * 1.1),
        replace(
            start,
            dram_efficiency=start.dram_efficiency * 0.9,
            vector_efficiency=start.vector_efficiency * 0.6,
        ),
    ]
    columns = rows.columns
    if "tile_rows" in rows.sizes:
        return Prepared(rows, tiled_space(rows.kernel, machine, rows.tiles))
    if columns is None and (not rows.split or any(rows.tiles)):
        space = library_space(rows.kernel, machine)
        has = space["split.k"] == 1.0 if not rows.split else np.ones(len(space["split.k"]), dtype=np.bool_)
        for side, sizes in zip(("tile.m", "tile.n"), rows.tiles, strict=True):
            has &= np.isin(space[side], sizes) if sizes else True
        columns = {name: column[has] for name, column in space.items()}
    if rows.columns is not None and len(next(iter(rows.columns.values()))) == 1:
        return Prepared(rows, rows.columns)
    return Prepared(rows, thin(rows.kernel, machine, rows.sizes, spread, columns))


PHYSICAL = Parameters()
"""The physical values that fits are pulled towards."""


@dataclass(frozen=True)
class Fit:
    """Fitted parameters and the error of the rows that they were fitted on."""

    parameters: Parameters
    mape: float
    rows: int


def fit(
    prepared: Sequence[Prepared],
    machine: Machine,
    start: Parameters,
    names: Sequence[str],
    *,
    use: Sequence[npt.NDArray[np.bool_]] | None = None,
    limit: int = 1200,
    evaluations: int = 25,
    seed: int = 0,
    prior: Parameters = PHYSICAL,
    progress: Callable[[str], None] | None = None,
) -> Fit:
    """Fit some parameters on at most `limit` rows of each kernel; `use` masks the rows that may be seen."""
    rng = np.random.default_rng(seed)
    picks = []
    for position, entry in enumerate(prepared):
        allowed = np.arange(len(entry.rows.seconds)) if use is None else np.flatnonzero(use[position])
        picks.append(np.sort(rng.permutation(allowed)[:limit]))
    logs = [np.log(entry.rows.seconds[pick]) for entry, pick in zip(prepared, picks, strict=True)]
    low = np.log([BOUNDS[name][0] or 1e-3 for name in names])
    high = np.log([BOUNDS[name][1] for name in names])
    origin = np.clip(np.log([max(getattr(start, name), 1e-15) for name in names]), low + 1e-6, high - 1e-6)
    physical = np.clip(np.log([max(getattr(prior, name), 1e-15) for name in names]), low + 1e-6, high - 1e-6)

    def make(x: Floats) -> Parameters:
        each: Any = np.exp(x).tolist() if x.ndim == 1 else np.exp(x.T).astype(np.float32)[:, :, None, None]
        return replace(start, **dict(zip(names, each, strict=True)))

    counted = [
        np.sqrt(weight_of(prepared, limit) * len(entry.rows.seconds) / max(len(pick), 1))
        for entry, pick in zip(prepared, picks, strict=True)
    ]  # every measured row counts the same
    seen = [each for each in zip(prepared, picks, logs, counted, strict=True) if len(each[1])]
    last: dict[bytes, list[Near]] = {}

    def residuals(x: Floats) -> Floats:
        near = [entry.nearby(machine, make(x), pick, 2.0 * STEP) for entry, pick, _, _ in seen]
        last.clear()
        last[x.tobytes()] = near
        if progress is not None:
            progress("fit")
        parts = [
            weight * (np.log(found.seconds * entry.rows.launches) - log)
            for found, (entry, _, log, weight) in zip(near, seen, strict=True)
        ]
        return np.concatenate([*parts, PRIOR_WEIGHT * (x - physical)])

    known: dict[bytes, Floats] = {}

    def slopes(x: Floats) -> Floats:
        if x.tobytes() in known:  # where the fit begins
            return known.pop(x.tobytes())
        if x.tobytes() not in last:
            residuals(x)
        step = np.where(x + STEP < high, STEP, -STEP)[:, None]
        moved = make(x + np.diag(step[:, 0]))
        # no time moves by more than its parameter does: a schedule that is best after the step is within two steps of the best before it
        parts = [
            weight * np.log(entry.moved(machine, moved, pick, near) / near.seconds) / step
            for near, (entry, pick, _, weight) in zip(last[x.tobytes()], seen, strict=True)
        ]
        return np.concatenate([*parts, PRIOR_WEIGHT * np.eye(len(x))], axis=-1).T

    begun = slopes(origin)
    felt = np.sqrt(np.mean(np.square(begun[: -len(names)]), axis=0)) >= IDENTIFIED
    if felt.all():
        known[origin.tobytes()] = begun
    else:
        mute = [name for name, is_felt in zip(names, felt, strict=True) if not is_felt]
        start = replace(start, **{name: getattr(prior, name) for name in mute})
        names = [name for name in names if name not in mute]
        low, high, origin, physical = low[felt], high[felt], origin[felt], physical[felt]

    solved = least_squares(
        residuals,
        origin,
        slopes,
        bounds=(low, high),
        loss="soft_l1",
        f_scale=ROBUST_SCALE,
        max_nfev=evaluations,
        ftol=SETTLED,
    )
    parameters = make(solved.x)
    parts = zip(prepared, picks, strict=True)
    errors = [np.abs(e.predict(machine, parameters, pick) / e.rows.seconds[pick] - 1.0) for e, pick in parts]
    return Fit(parameters, float(np.concatenate(errors).mean()), int(sum(map(len, picks))))


def weight_of(prepared: Sequence[Prepared], limit: int) -> float:
    """How much the squared error of a measured row counts against the pull of one parameter: all rows as much as `limit` of them."""
    return limit / sum(len(entry.rows.seconds) for entry in prepared)


def folds_of(rows: Rows, folds: int, among: Sequence[Rows] = ()) -> npt.NDArray[np.int64]:
    """A fold for each row; all rows of a site are in one fold, also those of the kernels `among` which it is fitted."""
    sites = np.unique(np.concatenate([other.site for other in (among or (rows,))]))
    order = np.random.default_rng(1).permutation(len(sites))
    where = np.empty(int(sites.max()) + 1 if len(sites) else 0, dtype=np.int64)
    where[sites[order]] = np.arange(len(sites)) % folds
    return where[rows.site]


def cross_validate(
    prepared: Sequence[Prepared],
    machine: Machine,
    start: Parameters,
    names: Sequence[str],
    *,
    folds: int = 5,
    limit: int = 1200,
    prior: Parameters = PHYSICAL,
    progress: Callable[[str], None] | None = None,
) -> list[Floats]:
    """Predictions for every row by parameters fitted on the other folds' sites; TableError where there are no others."""
    if len(np.unique(np.concatenate([entry.rows.site for entry in prepared]))) < 2:
        ops = ", ".join(sorted({entry.rows.op for entry in prepared}))
        raise TableError(
            f"all rows of {ops} are of one site (n and k of a product), and a fit is checked on sites it has not seen",
            hint="measure other sizes too: --suggest names them",
        )
    numbers = [folds_of(entry.rows, folds, [other.rows for other in prepared]) for entry in prepared]
    held = [np.empty(len(entry.rows.seconds)) for entry in prepared]
    for fold in range(folds):
        use = [number != fold for number in numbers]
        found = fit(
            prepared,
            machine,
            start,
            names,
            use=use,
            limit=limit,
            evaluations=12,
            seed=fold,
            prior=prior,
            progress=progress,
        )
        for entry, number, target in zip(prepared, numbers, held, strict=True):
            picked = np.flatnonzero(number == fold)
            if len(picked):
                target[picked] = entry.predict(machine, found.parameters, picked)
    return held
