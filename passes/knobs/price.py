"""Prices under knobs that change what a program has of its machine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from codesign.costmodel.machine import Machine
from codesign.costmodel.protocol import CostBatch, CostModel, joined
from codesign.costmodel.summary import KernelSummary
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.passes.knobs.room import Room, rooms


def predict(
    model: CostModel, summary: KernelSummary, machine: Machine, batch: ScheduleBatch, sizes: Mapping[str, int]
) -> CostBatch:
    """What the model says of a batch, each schedule on the machine as its knobs leave it."""
    names = [room.name for room in _changing() if room.name in batch.columns]
    if not names:
        return model.predict(summary, machine, batch, sizes)
    count = len(batch)
    values = np.stack([np.broadcast_to(batch.columns[name], (count,)) for name in names], axis=1)
    distinct, which = np.unique(values, axis=0, return_inverse=True)
    parts, places = [], []
    for position in range(len(distinct)):
        rows = np.flatnonzero(which.reshape(-1) == position)
        own = machine_under(machine, batch.row(int(rows[0])))
        parts.append(model.predict(summary, own, batch.take(rows), sizes))
        places.append(rows)
    return joined(parts, np.argsort(np.concatenate(places), kind="stable"))


def machine_under(machine: Machine, schedule: Schedule) -> Machine:
    """The machine as a program of a schedule has it."""
    for room in _changing():
        for _, _, value in room.said(schedule):
            machine = room.machine(machine, value)
    return machine


def launch_options(schedule: Schedule) -> dict[str, int]:
    """Options of the code generator's compiler that a schedule's knobs give, by the compiler's names."""
    found: dict[str, int] = {}
    for room in rooms():
        if type(room).options is not Room.options:
            for _, _, value in room.said(schedule):
                found.update(room.options(value))
    return found


def _changing() -> list[Room]:
    return [room for room in rooms() if type(room).machine is not Room.machine]
