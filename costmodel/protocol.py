"""What every cost model answers, and how it is asked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from codesign.costmodel.sums import Part
from codesign.ir.schedule import ScheduleBatch

if TYPE_CHECKING:
    from codesign.costmodel.machine import Machine
    from codesign.costmodel.summary import KernelSummary

Floats = npt.NDArray[np.float64]


FOLLOWED = "followed"
"""Detail of a batch: which schedules were priced; others have what they take at the least (see Limit)."""
NEAR = 1e-3
"""Schedules whose time is within this share of the best are among the best, however many."""


@dataclass(frozen=True)
class Limit:
    """What is wanted of a batch: schedules that may be among the `best` ones (0: all), those of earlier batches with these `seconds` included, or
    as good as the best."""

    best: int = 0
    seconds: tuple[float, ...] = ()

    @property
    def beyond(self) -> float:
        """Seconds above which nothing is wanted."""
        if not self.best or len(self.seconds) < self.best:
            return math.inf
        return max(self.seconds[-1], self.seconds[0] * (1.0 + 2.0 * NEAR))

    def after(self, seconds: Floats) -> Limit:
        """The limit when more schedules are known."""
        if not self.best:
            return self
        known = np.sort(np.concatenate([self.seconds, seconds[np.isfinite(seconds)]]))[: self.best]
        return Limit(self.best, tuple(known.tolist()))


ALL = Limit()
"""Every schedule is wanted."""
LEAST = 1e-30
"""Seconds below which an end of an interval is none."""


@dataclass(frozen=True)
class Reported:
    """What a compiler says of the code that it made of one schedule: `registers` and `spilled_bytes` of a thread, `warps` and
    `shared_bytes` of a block as it is launched."""

    registers: int
    warps: int
    shared_bytes: int
    spilled_bytes: float = 0.0


@dataclass(frozen=True)
class CostBatch:
    """The cost of N schedules of one kernel on one machine.

    `seconds` [N], infinite where a schedule does not fit. `terms` [N, T] in seconds, named by `term_names`; rows sum to `seconds`.
    `low`, `high` [N]: the interval (90 %). `in_domain` [N]: False where the model was asked beyond what it was validated for, with
    `remarks` saying which input. `reason` [N]: why a schedule does not fit ("" where it does). `joules` [N], NaN where the machine's
    energies are unknown. `dram_bytes` [N]: predicted traffic. `details`: further arrays [N] of the model's own (occupancy, waves, ...).
    """

    seconds: Floats
    terms: Floats
    term_names: tuple[str, ...]
    low: Floats
    high: Floats
    in_domain: npt.NDArray[np.bool_]
    reason: npt.NDArray[np.object_]
    joules: Floats
    dram_bytes: Floats
    details: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    spreads: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """What widened the intervals, by a name that all kernels have which err together by it, in the logarithm of the faster and the slower side."""
    residual: tuple[str, float] = ("residual", 0.0)
    """The name of the rest of the intervals, and how much of it (of its square) kernels have in common on one machine."""

    def __len__(self) -> int:
        return len(self.seconds)

    def bound(self, row: int) -> str:
        """The name of the largest term of a row."""
        return self.term_names[int(np.argmax(self.terms[row]))]

    @property
    def followed(self) -> npt.NDArray[np.bool_]:
        """Which schedules were priced (see Limit)."""
        return np.asarray(self.details.get(FOLLOWED, np.ones(len(self), dtype=np.bool_)), dtype=np.bool_)

    def parts(self, row: int) -> dict[str, Part]:
        """What the interval of a row that fits is made of."""
        further = [sum(sides[side] ** 2 for sides in self.spreads.values()) for side in (0, 1)]
        seconds = max(float(self.seconds[row]), LEAST)
        ends = (math.log(max(float(side[row]), LEAST) / seconds) for side in (self.low, self.high))
        down, up = (math.sqrt(max(each**2 - own, 0.0)) for each, own in zip(ends, further, strict=True))
        name, common = self.residual
        found = {name: Part(math.exp(-down), math.exp(up), common)}
        return found | {name: Part(math.exp(-down), math.exp(up)) for name, (down, up) in self.spreads.items()}


class CostModel(Protocol):
    """Predicts time and energy of schedules; vectorised over schedules, deterministic, without side effects."""

    @property
    def fidelity(self) -> int:
        """0 roofline, 1 analytic tile model, 2 event simulation."""
        ...

    def predict(
        self, kernel: KernelSummary, machine: Machine, schedules: ScheduleBatch, sizes: Mapping[str, int] | None = None
    ) -> CostBatch:
        """Cost of each schedule; `sizes` gives values of the kernel's size symbols. A missing cost rule raises UnsupportedError."""
        ...


@runtime_checkable
class Selective(CostModel, Protocol):
    """A model that need not price what is beyond a limit: other schedules of a batch have `seconds` beyond it that they take at the least, and are
    not `followed`."""

    def within(self, limit: Limit) -> CostModel:
        """The model for who wants no more of a batch."""
        ...


def joined(parts: list[CostBatch], order: np.ndarray[tuple[int], np.dtype[np.intp]]) -> CostBatch:
    """Batches of one kernel as one, its rows in the given order."""
    arrays: dict[str, Any] = {}
    for entry in fields(CostBatch):
        if isinstance(getattr(parts[0], entry.name), np.ndarray):
            arrays[entry.name] = _rows([getattr(part, entry.name) for part in parts], order)
    remarks = tuple(dict.fromkeys(remark for part in parts for remark in part.remarks))
    return replace(parts[0], **arrays, details=_Joined(parts, order, arrays), remarks=remarks)


def parted(cost: CostBatch) -> tuple[Sequence[CostBatch], np.ndarray[tuple[int], np.dtype[np.intp]]] | None:
    """The batches that a cost was joined of, in which a price that many schedules share stands once, and which of their rows each of its own is; None
    where it was not, or was changed since."""
    details = cost.details
    if isinstance(details, _Joined) and all(getattr(cost, name) is made for name, made in details.columns.items()):
        return details.parts, details.order
    return None


def _rows(columns: list[Any], order: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Any:
    whole = columns[0] if len(columns) == 1 else np.concatenate(columns)
    return whole.T.take(order, axis=-1).T  # what lies together stays together


class _Joined(Mapping[str, npt.NDArray[Any]]):
    """Details of joined batches, each put in order when it is asked for: searches ask for few of them."""

    def __init__(
        self, parts: list[CostBatch], order: np.ndarray[tuple[int], np.dtype[np.intp]], columns: Mapping[str, Any]
    ) -> None:
        self.parts, self.order, self.columns = parts, order, columns
        self._made: dict[str, npt.NDArray[Any]] = {}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self._made:
            columns = [np.broadcast_to(part.details[name], (len(part),)) for part in self.parts]
            self._made[name] = _rows(columns, self.order)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts[0].details)

    def __len__(self) -> int:
        return len(self.parts[0].details)
