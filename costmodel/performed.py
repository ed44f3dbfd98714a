"""What a kernel performs under a schedule: its nests as written, or as its folds do them where the schedule folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from codesign.costmodel.protocol import CostBatch, joined
from codesign.costmodel.summary import KernelSummary
from codesign.ir.schedule import REDUCE_MODES, Schedule, ScheduleBatch

LOOPED, FOLD = REDUCE_MODES.index("looped"), REDUCE_MODES.index("fold")


Rows = npt.NDArray[np.intp]


def performed(kernel: KernelSummary, schedule: Schedule) -> tuple[KernelSummary, Schedule]:
    """The kernel as one schedule performs it, and the schedule without folding."""
    if "fold" not in schedule.reduce.values():
        return kernel, schedule
    plain = {dim: "looped" if mode == "fold" else mode for dim, mode in schedule.reduce.items()}
    return kernel.folded or kernel, replace(schedule, reduce=plain)


Priced = tuple[CostBatch, Rows | None]
"""Costs, and where each schedule's is among them (None: they are the schedules')."""


def by_performance(
    kernel: KernelSummary, schedules: ScheduleBatch, predict: Callable[[KernelSummary, ScheduleBatch, Rows], Priced]
) -> CostBatch:
    """The prediction of a batch whose schedules fold or don't, each of what it performs; `predict` is told which rows of the batch it gets."""
    folds = _folding(schedules)
    if not folds.any():
        rows = np.arange(len(schedules))
        return laid_out([(predict(kernel, schedules, rows), rows)])
    columns = {
        name: np.where(column == FOLD, LOOPED, column) if name.startswith("reduce.") else column
        for name, column in schedules.columns.items()
    }
    plain = ScheduleBatch(columns, schedules.common)
    if folds.all():
        rows = np.arange(len(schedules))
        return laid_out([(predict(kernel.folded or kernel, plain, rows), rows)])
    parts = ((kernel.folded or kernel, np.flatnonzero(folds)), (kernel, np.flatnonzero(~folds)))
    return laid_out([(predict(which, plain.take(rows), rows), rows) for which, rows in parts])


def laid_out(parts: Sequence[tuple[Priced, Rows]]) -> CostBatch:
    """The cost of each row of a batch from those of its parts."""
    if len(parts) == 1 and parts[0][0][1] is None:
        return parts[0][0][0]
    order = np.empty(sum(len(rows) for _, rows in parts), dtype=np.intp)
    before = 0
    for (cost, places), rows in parts:
        order[rows] = before + (np.arange(len(rows)) if places is None else places)
        before += len(cost)
    return joined([cost for (cost, _), _ in parts], order)


def _folding(schedules: ScheduleBatch) -> npt.NDArray[np.bool_]:
    found = np.zeros(len(schedules), dtype=np.bool_)
    for name, column in schedules.columns.items():
        if name.startswith("reduce."):
            found |= np.equal(column, FOLD)
    return found
