"""Who waits for which semaphores, and who signals them, in flat arrays."""

from __future__ import annotations

import numpy as np

from codesign.backends.accelerator.flat import Flat, Ints
from codesign.backends.accelerator.timing import waits_of
from codesign.costmodel.dataflow.target import Target
from codesign.ir.program import ENGINES, Program


class Semaphores:
    """Each core's instance of each semaphore has a number.

    `needs[position]`: by issue, the signals that it waits for there. By core and instruction (rows): `waited`, by position, the semaphore; up
    to `signal_end` those that it `signals`; whether it is `unsure`, since what it waits for is not signalled in the order of one engine's
    work. By semaphore: where its signals `begin` among `total`, and up to `waiters_end` the engines that may wait.
    """

    def __init__(self, program: Program, target: Target, flat: Flat, kinds: Ints) -> None:
        engines, cores = len(ENGINES), flat.cores
        self.needs = np.stack(waits) if (waits := waits_of(flat)) else np.zeros((0, len(flat.number)), np.int64)
        of_core = self._instances(program, target, cores)
        prepared = flat.prepared
        every = np.arange(cores)
        self.waited = np.zeros((cores, len(prepared), len(self.needs)), np.int64)
        signals = [np.array([of_core[name] for name in item.source.signals], np.int64) for item in prepared]
        counts = np.zeros(self.count, np.int64)
        sources, waiters = [], []
        for item, rows, names, kind in zip(prepared, flat.rows, signals, kinds.tolist(), strict=False):
            issues = np.bincount(flat.core_of(rows.places), minlength=cores)
            runs = np.flatnonzero(issues)
            engine = engines * runs + kind
            for semaphore in names:
                np.add.at(counts, semaphore, issues)
                sources.append(np.stack([semaphore[runs], 2 * engine + item.moves], axis=1))
            for position, wait in enumerate(item.source.waits):
                self.waited[:, item.number, position] = of_core[wait.name]
                waiters.append(np.stack([of_core[wait.name][runs], engine], axis=1))
        per_row = np.array([[len(names) for names in signals]] * cores, np.int64).ravel()
        self.signal_end = np.cumsum(per_row)
        self.signals = np.concatenate(
            [names[:, core] for core in every for names in signals if len(names)] or [every[:0]]
        )
        self.begin, self.total = np.cumsum(counts) - counts, int(counts.sum())
        pairs = _distinct(waiters)
        self.waiters = np.ascontiguousarray(pairs[:, 1])
        self.waiters_end = np.searchsorted(pairs[:, 0], np.arange(self.count), side="right")
        several = np.bincount(_distinct(sources)[:, 0], minlength=self.count) > 1
        asks = np.array([[p < len(item.source.waits) for p in range(len(self.needs))] for item in prepared], np.bool_)
        self.unsure = (several[self.waited] & asks).any(axis=2).astype(np.int64).ravel() if self.count else per_row * 0

    def _instances(self, program: Program, target: Target, cores: int) -> dict[str, Ints]:
        """Of each semaphore, the number of its instance by core."""
        self.count = 0
        found = {}
        for semaphore in program.semaphores:
            sharing = target.sharing.get(semaphore.scope, 1)
            found[semaphore.name] = self.count + np.arange(cores, dtype=np.int64) // sharing
            self.count += -(-cores // sharing)
        return found


def _distinct(pairs: list[Ints]) -> Ints:
    """All different pairs, in order."""
    return np.unique(np.concatenate(pairs), axis=0) if pairs else np.zeros((0, 2), np.int64)
