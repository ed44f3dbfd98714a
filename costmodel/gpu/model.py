"""Fidelity 1: the analytic tile model of GPUs as a CostModel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from codesign.costmodel.gpu.energy import total_joules
from codesign.costmodel.gpu.generator import code_generator
from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.grid import Grid
from codesign.costmodel.gpu.intervals import Widening, common_share, distances, holding, widened
from codesign.costmodel.gpu.least import first_data_seconds, least_seconds
from codesign.costmodel.gpu.occupancy import Known, known, reasons
from codesign.costmodel.gpu.overlap import THROTTLE, raised
from codesign.costmodel.gpu.parameters import Calibration, load_calibration
from codesign.costmodel.gpu.strands import of_one_code, side_by_side
from codesign.costmodel.gpu.taking import taken
from codesign.costmodel.gpu.timing import Estimate, case_of, computed, timed
from codesign.costmodel.machine import Machine
from codesign.costmodel.performed import Priced, Rows, by_performance, laid_out
from codesign.costmodel.protocol import CostBatch, Floats, Reported
from codesign.costmodel.summary import KernelSummary, Nest
from codesign.costmodel.tested import ASSUMED
from codesign.ir.errors import MachineError
from codesign.ir.schedule import Schedule, ScheduleBatch

TERM_NAMES = ("launch", "fill", "tensor", "vector", "l2", "dram", "store", "requests", "power", "latency", "reduction")
CHUNK = 1 << 15
"""Schedules that are priced at once: their arrays still lie in a core's caches."""


@dataclass(frozen=True)
class GpuTileModel:
    """The tile model; `calibration` overrides the shipped parameters of the machine. `compiled`: the code is this
    compiler's, else a library's. `reported`: of the kernel that is asked for, what a compiler said of schedules that it
    made code of, which counts instead of what the model assumes."""

    calibration: Calibration | None = None
    compiled: bool = True
    reported: Mapping[Schedule, Reported] = field(default_factory=dict)
    fidelity: ClassVar[int] = 1

    def parameters(self, machine: Machine) -> Calibration:
        return self.calibration or load_calibration(machine)

    def first_data_seconds(self, machine: Machine) -> float:
        """Until a block's first data are there, which nothing beats besides the launch."""
        return first_data_seconds(machine, self.parameters(machine).parameters)

    def least_seconds(
        self,
        kernel: KernelSummary,
        machine: Machine,
        sizes: Mapping[str, int],
        tiles: Mapping[str, float] | None = None,
    ) -> float:
        """Seconds besides the launch that no schedule of a kernel beats; where it says the longest `tiles` along the grid, none of these."""
        return least_seconds(kernel, machine, sizes, self.parameters(machine).parameters, tiles)

    def predict(
        self, kernel: KernelSummary, machine: Machine, schedules: ScheduleBatch, sizes: Mapping[str, int] | None = None
    ) -> CostBatch:
        """Seconds of each schedule with terms, interval, domain and reasons; see CostModel."""
        report = known(self.reported, [schedules.row(k) for k in range(len(schedules))]) if self.reported else None

        def alone(nest: KernelSummary, some: ScheduleBatch, held: Known | None) -> CostBatch:
            """Schedules of one loop nest; `held`: of each row, what a block of its code holds."""

            def predict(which: KernelSummary, part: ScheduleBatch, rows: Rows) -> Priced:
                return self._predict(which, machine, part, sizes, None if held is None else held.take(rows))

            if not self.compiled:
                rows = np.arange(len(some))
                return laid_out([(predict(nest, some, rows), rows)])
            return by_performance(nest, some, predict)

        if not kernel.strands:
            return alone(kernel, schedules, report)
        if report is None:
            return of_one_code(kernel, machine, schedules, alone)
        return side_by_side(kernel, machine, schedules, lambda strand, some: alone(strand, some, report))

    def _predict(
        self,
        kernel: KernelSummary,
        machine: Machine,
        schedules: ScheduleBatch,
        sizes: Mapping[str, int] | None,
        report: Known | None,
    ) -> Priced:
        if machine.kind != "gpu":
            raise MachineError(
                f"{machine.name} is not a GPU", hint="cost_model_for(machine) picks the model of a machine"
            )
        missing = [symbol for symbol in kernel.symbols if symbol not in (sizes or {})]
        if missing:
            raise MachineError(f"{kernel.name}: no value for size {', '.join(missing)}", hint="pass sizes={...}")
        calibration = self.parameters(machine)
        count = len(schedules)
        given = knob_columns(schedules)
        understood = code_generator(machine).knobs if self.compiled else ()
        knobs = {
            name: np.asarray(column, dtype=np.float64)
            for name, column in given.items()
            if not self.compiled or name in understood or of_the_text(name)
        }
        if kernel.tested and "skip" in knobs:  # loads in a block that may be left out do not run ahead
            knobs["pipeline"] = np.where(knobs["skip"] > 0, 1, knobs.get("pipeline", 1)).astype(np.float64)
        values = {name: float(value) for name, value in (sizes or {}).items()}
        grid = Grid.of(knobs, count) if report is None else Grid(knobs, count)
        found = _Points.empty(grid)
        for rows in _slices(grid.rest, CHUNK // prod(grid.axes[1:])):
            part, told = taken(grid.knobs, rows, grid.rest), None if report is None else report.take(rows)
            case = case_of(kernel, machine, part, values, calibration.parameters, self.compiled, told)
            done, size = computed(case), rows.stop - rows.start
            for some in _slices(size, CHUNK // prod(grid.axes)):
                c, computing = case.taken(some, size), taken(done, some, size)
                found.put(some.stop - some.start, timed(c, computing, schedules.common.order))
        found = found.filled()
        count, terms, details = len(found.joules), found.terms.T, found.details
        total = sum(found.terms)  # in this order, however many schedules there are
        seconds = np.where(found.fits, total, np.inf)
        far = distances_of(kernel, calibration)
        low, high = widened(spread_of(calibration, terms, family_of(kernel)), far)
        read, write = details["dram_read_bytes"], details["dram_write_bytes"]
        joules = total_joules(found.joules, total, machine)
        remarks = domain_remarks(kernel, machine, calibration)
        said = (ASSUMED,) if kernel.tested and np.any(given.get("skip", 0)) else ()
        cost = CostBatch(
            seconds=seconds,
            terms=terms,
            term_names=TERM_NAMES,
            low=seconds * low,
            high=seconds * high,
            in_domain=np.full(count, not remarks),
            reason=found.reason,
            joules=joules,
            dram_bytes=read + write,
            details=details,
            remarks=(*remarks, *widening_remarks(far), *said),
            spreads={each.name: each.spread for each in far},
            residual=residual_of(kernel),
        )
        return cost, grid.places(found.shapes)


def knob_columns(schedules: ScheduleBatch) -> dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """All knobs of a batch, those common to all schedules included."""
    columns = {name: np.asarray(column) for name, column in schedules.columns.items()}
    common = schedules.common
    for name, column in ScheduleBatch.of([common]).columns.items():
        if name != "pipeline" or "pipeline" not in columns:
            columns.setdefault(name, column)
    return columns


def of_the_text(name: str) -> bool:
    """Whether a knob changes the text of a kernel or the order of its blocks; what neither does nor the code generator reads is of libraries'
    kernels."""
    return name in ("group", "skip") or name.startswith(("tile.", "reduce.", "split."))


DETAILS = (
    "blocks_per_sm",
    "rounds",
    "threads",
    "registers",
    "shared_bytes",
    "spilled_bytes",
    "grid",
    "dram_read_bytes",
    "dram_write_bytes",
    "flops",
)


def _details(found: Estimate) -> dict[str, Any]:
    """What a prediction tells besides its terms."""
    occupancy = found.occupancy
    values = (
        found.blocks_per_sm,
        found.rounds,
        occupancy.threads,
        occupancy.registers,
        occupancy.shared_bytes,
        occupancy.spilled,
    )
    return dict(zip(DETAILS, (*values, found.grid, found.dram_read, found.dram_write, found.flops), strict=True))


def _slices(count: int, most: int) -> Iterator[slice]:
    """Parts of so many of `count` things."""
    step = max(most, 1)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


@dataclass(frozen=True)
class _Points:
    """What the points of a grid cost, laid flat part after part: `terms` [T, points], the others [points]. `shapes` of the parts [*axes, rest]: an
    axis along which nothing differs has one point."""

    axes: tuple[int, ...]
    terms: Floats
    joules: Floats
    details: Mapping[str, Floats]
    reason: npt.NDArray[np.object_]
    fits: npt.NDArray[np.bool_]
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    @staticmethod
    def empty(grid: Grid) -> _Points:
        count = grid.points
        details = {name: np.empty(count) for name in DETAILS}
        fits = np.empty(count, dtype=np.bool_)
        return _Points(
            grid.axes, np.empty((len(TERM_NAMES), count)), np.empty(count), details, np.empty(count, object), fits
        )

    @property
    def known(self) -> int:
        """Points so far."""
        return sum(prod(shape) for shape in self.shapes)

    def put(self, rest: int, found: Estimate) -> None:
        """What the next `rest` points of the last axis cost, along all others."""
        terms, details = terms_of(found), _details(found)
        fits, reason = reasons(found.occupancy)
        columns = [*terms, found.joules, *details.values(), fits, reason]
        kept = [*self.terms, self.joules, *(self.details[name] for name in details), self.fits, self.reason]
        differing = np.broadcast_shapes((1,) * (len(self.axes) + 1), *(np.shape(column) for column in columns))
        shape = (*differing[:-1], rest)
        here = slice(self.known, self.known + prod(shape))
        for row, column in zip(kept, columns, strict=True):
            row[here].reshape(shape)[...] = column
        self.shapes.append(shape)

    def filled(self) -> _Points:
        """Those that there are."""
        some = slice(self.known)
        details = {name: value[some] for name, value in self.details.items()}
        return _Points(
            self.axes, self.terms[:, some], self.joules[some], details, self.reason[some], self.fits[some], self.shapes
        )


def ledger(found: Estimate, count: int) -> Floats:
    """Terms [count, T] in the order of TERM_NAMES; rows sum to the total."""
    terms = np.empty((len(TERM_NAMES), count))  # a term's values lie together
    for row, term in zip(terms, terms_of(found), strict=True):
        row[...] = term
    return terms.T


def terms_of(found: Estimate) -> list[Array]:
    """The terms in the order of TERM_NAMES, which sum to the total.

    What runs at the same time shares the time in proportion to the fourth power: the resource that bounds gets nearly
    all. The power limit gets its part of the norm by which it throttles, so that it bounds only what draws it.
    """
    busy = [name for name in TERM_NAMES[2:10] if name != "power"]
    whole: Any = 1e-300
    shares: dict[str, Array] = {}
    for name in busy:
        square = np.square(np.asarray(found.resources[name]) * 1e6)
        shares[name] = np.square(square)
        whole = whole + shares[name]
    fill = np.minimum(found.resources["fill"], found.exposed)
    rest = found.total - found.launch - found.reduction - fill
    limited = rest * raised(found.resources["power"] / found.total, THROTTLE)
    scale = (rest - limited) / whole
    terms = {name: share * scale for name, share in shares.items()} | {"power": limited}
    return [found.launch, fill, *(terms[name] for name in TERM_NAMES[2:10]), found.reduction]


REGIMES = ("launch", "memory", "compute")


def _regimes(terms: Floats) -> npt.NDArray[np.int64]:
    launch = terms[:, 0] + terms[:, 1] + terms[:, 9] + terms[:, 10]
    compute = terms[:, 2] + terms[:, 3] + terms[:, 8]
    memory = terms[:, 4] + terms[:, 5] + terms[:, 6] + terms[:, 7]
    found = np.where(memory > launch, 1, 0)
    return np.where(compute > np.maximum(launch, memory), 2, found)


def regime_of(terms: Floats) -> npt.NDArray[np.object_]:
    """`launch`, `memory` or `compute`, by what the largest share of the time is spent on."""
    return np.array(REGIMES, dtype=object)[_regimes(terms)]


def family_of(kernel: KernelSummary) -> str:
    """What a kernel is made of, for its interval: one `contraction`, a `chain` of them, or none and a `reduction`, a
    `gather`, or neither (`elementwise`)."""
    if kernel.chained:
        return "contraction" if kernel.chained == 1 else "chain"
    if any(nest.reductions for nest in kernel.nests):
        return "reduction"
    return "gather" if any(access.gather for nest in kernel.nests for access in nest.loads) else "elementwise"


BANDS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
"""Seconds that part kernels by how long they take: the longer, the less do fixed costs and partial waves blur."""


def cells(family: str, terms: Floats) -> npt.NDArray[np.object_]:
    """The cell that each prediction's interval belongs to: `family:regime:band`, by what bounds it and how long it is."""
    found: npt.NDArray[np.object_] = np.array(_names(family), dtype=object)[_regimes(terms), _bands(terms)]
    return found


def _bands(terms: Floats) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = np.searchsorted(BANDS, terms.sum(axis=1))
    return found


def _names(family: str) -> list[list[str]]:
    return [[f"{family}:{regime}:{band}" for band in range(len(BANDS) + 1)] for regime in REGIMES]


def spread_of(calibration: Calibration, terms: Floats, family: str = "contraction") -> tuple[Floats, Floats]:
    """Factors from the predicted time to its 90 % interval where it was measured, which holds it: those of its cell, else of its family
    and regime, else of the family, else of products."""
    spread, family = calibration.spread, calibration.measured(family)
    default = next((spread[name] for name in (family, "default", "contraction") if name in spread), (0.6, 1.7))
    pairs = np.array(
        [
            [holding(spread.get(name, spread.get(name.rsplit(":", 1)[0], default))) for name in row]
            for row in _names(family)
        ]
    )
    regimes, bands = _regimes(terms), _bands(terms)
    return pairs[regimes, bands, 0], pairs[regimes, bands, 1]


def residual_of(kernel: KernelSummary) -> tuple[str, float]:
    """The name of the residual that a kernel's interval begins with, and how much of it kernels of its family share."""
    family = family_of(kernel)
    return f"residual {family}", common_share(family)


def distances_of(kernel: KernelSummary, calibration: Calibration, name: str = "") -> tuple[Widening, ...]:
    """In which ways a kernel differs from those that its interval (of its family, or of `name`) was measured on: the machine, the kind
    of kernel, and the type of what is multiplied."""
    family, known = family_of(kernel), distances()
    measured = calibration.measured(name or family)
    found = [known[far].widening(family) for far in (calibration.far.get(measured, ""),) if far]
    if measured not in calibration.spread:
        found.append(known["kind"].widening(family, family))
    elif any(_slides(nest) for nest in kernel.nests):
        found.append(known["kind"].widening("window", "window"))
    operands = {nest.contraction.operand for nest in kernel.nests if nest.contraction is not None}
    if other := sorted(str(operand) for operand in operands if operand.bits != 16):
        found.append(known["dtype"].widening(family, ", ".join(other)))
    return tuple(found)


def _slides(nest: Nest) -> bool:
    """Whether a nest reads a window: an index that moves with a dim of the result and with a reduced one."""
    outer, inner = set(nest.dims), set(nest.reductions)
    names = [set(part.variables()) for load in nest.loads for part in load.index]
    return any(part & outer and part & inner for part in names)


def widening_remarks(far: Iterable[Widening]) -> tuple[str, ...]:
    """What widened an interval, and by how much, in words."""
    return tuple(f"interval widened by {np.expm1(max(each.spread)):.0%}: {each.why}" for each in far)


def domain_remarks(kernel: KernelSummary, machine: Machine, calibration: Calibration) -> tuple[str, ...]:
    """What lies outside of what the model was validated for."""
    remarks = []
    for nest in kernel.nests:
        if nest.contraction and nest.contraction.left.name in ("f64",):
            remarks.append(f"{nest.name.split('#')[0]}: {nest.contraction.left} contractions were never validated")
    if machine.vendor != "nvidia":
        remarks.append(f"{machine.name}: the model was calibrated on NVIDIA GPUs only")
    if kernel.chained and "unchecked" in calibration.provenance:
        remarks.append(f"{machine.name}: {calibration.provenance['unchecked']}")
    return tuple(remarks)
