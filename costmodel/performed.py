"""What a kernel performs under a schedule: its nests as written, or as its folds do them where the schedule folds."""

from __future__ import annotations

from collections.abc import Callable
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


def by_performance(
    kernel: KernelSummary, schedules: ScheduleBatch, predict: Callable[[KernelSummary, ScheduleBatch, Rows], CostBatch]
) -> CostBatch:
    """The prediction of a batch whose schedules fold or don't, each of what it performs; `predict` is told which rows of the batch it gets."""
    folds = _folding(schedules)
    every = np.arange(len(schedules))
    if not folds.any():
        return predict(kernel, schedules, every)
    columns = {
        name: np.where(column == FOLD, LOOPED, column) if name.startswith("reduce.") else column
        for name, column in schedules.columns.items()
    }
    plain = ScheduleBatch(columns, schedules.common)
    if folds.all():
        return predict(kernel.folded or kernel, plain, every)
    rows = [np.flatnonzero(folds), np.flatnonzero(~folds)]
    parts = [
        predict(which, plain.take(some), some)
        for which, some in zip((kernel.folded or kernel, kernel), rows, strict=True)
    ]
    return joined(parts, np.argsort(np.concatenate(rows), kind="stable"))


def _folding(schedules: ScheduleBatch) -> npt.NDArray[np.bool_]:
    found = np.zeros(len(schedules), dtype=np.bool_)
    for name, column in schedules.columns.items():
        if name.startswith("reduce."):
            found |= np.equal(column, FOLD)
    return found
