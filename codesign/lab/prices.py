"""All prices of a small space, taken once: what policies are answered from, what regret is measured against, and how it is kept."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.arrays import read_arrays
from codesign.costmodel.protocol import CostBatch, parted
from codesign.ir.errors import CodesignError
from codesign.lab.problem import Floats, Problem
from codesign.lab.repeats import repeated
from codesign.passes.schedule.space import Ints

PRICED_ANEW = "name another with --database, for which they are taken anew"

UNREAD = "database: prices of a space can't be read"

COLUMNS = ("seconds", "terms", "low", "high", "in_domain", "joules", "dram_bytes")

KINDS = {
    "numbers": "iu",
    "which": "u",
    "reason": "u",
    "reasons": "U",
    "term_names": "U",
    "in_domain": "b",
} | dict.fromkeys(("seconds", "terms", "low", "high", "joules", "dram_bytes"), "f")
"""NumPy's letters for what each array of an archive holds."""


@dataclass(frozen=True)
class Prices:
    """`numbers` of the legal schedules of a problem, ascending, `each` different price (without a model's own details), and `which` of them each
    schedule has."""

    numbers: Ints
    each: CostBatch
    which: npt.NDArray[np.integer[Any]]

    @cached_property
    def cost(self) -> CostBatch:
        """The cost of each schedule."""
        return taken(self.each, self.which)

    @cached_property
    def seconds(self) -> Floats:
        """Seconds of each schedule; infinite where it does not fit."""
        found: Floats = self.each.seconds[self.which]
        return found

    @cached_property
    def best(self) -> float:
        """Seconds of the best schedule; infinite when none fits."""
        return float(self.each.seconds.min()) if len(self.each) else np.inf

    def rows(self, numbers: Ints) -> npt.NDArray[np.intp]:
        """Positions of schedules by their numbers; -1 for one that is not legal."""
        if not len(self.numbers) or not len(numbers):
            return np.full(len(numbers), -1)
        first = int(np.searchsorted(self.numbers, numbers[0]))
        if np.array_equal(
            self.numbers[first : first + len(numbers)], numbers
        ):  # one after the other, as they are walked through
            return np.arange(first, first + len(numbers))
        at = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
        return np.where(self.numbers[at] == numbers, at, -1)

    def answer(self, numbers: Ints) -> CostBatch:
        """The cost of schedules by their numbers."""
        rows = self.rows(numbers)
        if (rows >= 0).all():
            return taken(self.each, self.which[rows])
        return masked(taken(self.each, self.which[np.maximum(rows, 0)]), rows < 0)

    def encoded(self) -> bytes:
        """As an archive of plain arrays with a checksum each (as `numpy.savez` makes it): what each different price is, and which of them each
        schedule has."""
        each, codes = self.each, dict[str, int]({"": 0})
        reason = np.zeros(len(each), dtype=np.uint32)
        said = np.flatnonzero(each.reason != "")
        reason[said] = [codes.setdefault(text, len(codes)) for text in each.reason[said].tolist()]
        arrays: dict[str, Any] = {name: getattr(each, name) for name in COLUMNS} | {"reason": reason}
        arrays |= {"numbers": small(self.numbers), "which": self.which.astype(np.min_scalar_type(len(each)))}
        arrays |= {"term_names": np.array(each.term_names, dtype=str), "reasons": np.array(list(codes), dtype=str)}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    @staticmethod
    def decoded(data: bytes, file: str = "") -> Prices:
        """From `encoded`, as a file has it; CodesignError for anything else. Nothing in it is executed."""
        try:
            found = read_arrays(io.BytesIO(data))
            for name, kinds in KINDS.items():
                if found[name].dtype.kind not in kinds or found[name].ndim != (2 if name == "terms" else 1):
                    raise ValueError(f"{name} of another kind")
            numbers, which, reason = found["numbers"].astype(np.int64), found["which"], found["reason"]
            columns: dict[str, Any] = {name: found[name] for name in COLUMNS}
            names = tuple(str(name) for name in found["term_names"])
            if any(len(column) != len(reason) for column in columns.values()) or len(which) != len(numbers):
                raise ValueError("columns of different lengths")
            if len(which) and which.max() >= len(reason):
                raise ValueError("a price that is not there")
            if columns["terms"].shape[1] != len(names):
                raise ValueError("other terms than names of them")
            if len(reason) and reason.max() >= len(found["reasons"]):
                raise ValueError("a reason that is not there")
            if not (np.diff(numbers) > 0).all() or not (columns["seconds"] >= 0).all():
                raise ValueError("schedules out of order, or seconds that are no time")
        except KeyError as error:
            raise CodesignError(f"{UNREAD}: no {error}", place=file, hint=PRICED_ANEW) from error
        except ValueError as error:
            raise CodesignError(f"{UNREAD}: {error}", place=file, hint=PRICED_ANEW) from error
        reasons = found["reasons"].astype(object)[reason]
        return Prices(numbers, CostBatch(term_names=names, reason=reasons, **columns), which)


def price_all(problem: Problem, chunk: int = 1 << 18) -> Prices:
    """Price the whole space."""
    numbers: list[Ints] = []
    parts: list[CostBatch] = []
    which: list[npt.NDArray[np.integer[Any]]] = []
    for codes in problem.space.enumerate(chunk):
        numbers.append(codes @ problem.strides)
        different, own = _different(problem.priced(problem.space.batch(codes)))
        which.append(own + sum(map(len, parts)) if parts else own)
        parts.extend(different)
    if not parts:
        raise CodesignError(f"{problem.name} on {problem.machine}: no legal schedule", hint="leave it out of the study")
    arrays: dict[str, Any] = {
        name: _joined([getattr(part, name).T for part in parts]).T for name in (*COLUMNS, "reason")
    }
    return Prices(_joined(numbers), CostBatch(term_names=parts[0].term_names, **arrays), _joined(which))


def _different(cost: CostBatch) -> tuple[Sequence[CostBatch], npt.NDArray[np.integer[Any]]]:
    """The different prices of a batch, and which of them each schedule has: as the model shared them, or as they are found to repeat."""
    found = parted(cost)
    if found is not None:
        return found
    columns = [getattr(cost, name) for name in COLUMNS if name != "terms"]
    codes: dict[str, int] = {}
    reason = np.array([codes.setdefault(text, len(codes)) for text in cost.reason.tolist()])
    rows, which = repeated([*columns, reason, *cost.terms.T])
    return [taken(cost, rows)], which


def small(numbers: Ints) -> npt.NDArray[np.integer[Any]]:
    """Numbers of schedules as a file has them, little-endian, of four bytes each where all fit into these."""
    fit = len(numbers) and int(numbers.max()) < 1 << 31
    return np.ascontiguousarray(numbers, dtype="<i4" if fit else "<i8")


def _joined(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """One after the other along the last axis; the only one as it is."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def plain(seconds: Floats, why: str = "does not fit") -> CostBatch:
    """Times of which nothing else is known, as a cost."""
    unknown = np.full(len(seconds), np.nan)
    return CostBatch(
        seconds=seconds,
        terms=seconds[:, None],
        term_names=("seconds",),
        low=seconds,
        high=seconds,
        in_domain=np.ones(len(seconds), dtype=np.bool_),
        reason=np.where(np.isfinite(seconds), "", why).astype(object),
        joules=unknown,
        dram_bytes=unknown,
    )


def taken(cost: CostBatch, rows: npt.NDArray[np.integer[Any]]) -> CostBatch:
    """Some rows of a cost."""
    arrays: dict[str, Any] = {name: getattr(cost, name).T.take(rows, axis=-1).T for name in (*COLUMNS, "reason")}
    return CostBatch(term_names=cost.term_names, remarks=cost.remarks, **arrays)


def masked(cost: CostBatch, outside: npt.NDArray[np.bool_]) -> CostBatch:
    """The cost with some rows said not to be in the space."""
    missing = np.where(outside, np.inf, 0.0)
    return CostBatch(
        seconds=np.where(outside, np.inf, cost.seconds),
        terms=cost.terms + missing[:, None],
        term_names=cost.term_names,
        low=np.where(outside, np.inf, cost.low),
        high=np.where(outside, np.inf, cost.high),
        in_domain=cost.in_domain,
        reason=np.where(outside, "not in the space", cost.reason).astype(object),
        joules=cost.joules,
        dram_bytes=cost.dram_bytes,
        remarks=cost.remarks,
    )
