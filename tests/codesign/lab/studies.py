"""Small studies for tests: spaces with a price by formula, and measured ones as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from codesign.costmodel.protocol import CostBatch
from codesign.ir.schedule import ScheduleBatch
from codesign.lab.measured import Measured, Value
from codesign.lab.prices import plain
from codesign.lab.problem import Problem, digest
from codesign.passes.schedule.space import Constraint, Knob, Space

VALUES = tuple(1 << i for i in range(9))


def bowl(*, fidelity: int = 1, calls: list[int] | None = None) -> Problem:
    """A kernel of three knobs, best at 16, 16 and 8; an eighth of its space breaks a constraint and some of it does not fit."""

    def priced(batch: ScheduleBatch) -> CostBatch:
        if calls is not None:
            calls.append(len(batch))
        x, y, z = (np.log2(batch.column(name)) for name in ("tile.m", "tile.n", "warps"))
        seconds = 1e-3 * (1.0 + (x - 4) ** 2 + (y - 4) ** 2 + 0.3 * np.abs(z - 3) + 0.5 * np.abs(x - y))
        return plain(np.where(x + y > 14, np.inf, seconds))

    knobs = (Knob("tile.m", VALUES, 16), Knob("tile.n", VALUES, 64), Knob("warps", VALUES[:6], 4))
    even = Constraint("even", lambda c: (c["tile.m"] > 1) | (c["tile.n"] < 128), lambda row: "too flat")
    return Problem("bowl", "nowhere", digest(["bowl", fidelity]), Space(knobs, (even,)), priced, fidelity=fidelity)


def measured(kernel: str = "scan", failing: bool = True) -> Measured:
    """A space of two numbers, a switch and a word, some of which was not tried and some of which failed."""
    knobs: dict[str, list[int | str]] = {
        "block": [32, 64, 128, 256],
        "unroll": [1, 2, 4],
        "vector": [0, 1],
        "order": ["column", "row"],
    }
    rows: dict[tuple[Value, ...], float] = {}
    failures: dict[tuple[Value, ...], str] = {}
    for position, key in enumerate(np.ndindex(4, 3, 2, 2)):
        values = tuple(column[at] for column, at in zip(knobs.values(), key, strict=True))
        if position % 7 == 3:
            continue
        rows[values] = 1e-3 * (1 + abs(key[0] - 2) + 0.5 * abs(key[1] - 1) + 0.25 * key[2] + 0.1 * key[3])
        if failing and position % 11 == 5:
            rows[values] = float("inf")
            failures[values] = "CompilationFailedConfig"
    return Measured(kernel, "nowhere", knobs, rows, failures, [1024, 1])


def plan_file(folder: Path, spaces: list[str], *, policies: list[str], seeds: int = 2, budget: str = "20") -> Path:
    """A study of measured spaces as a file."""
    path = folder / "study.toml"
    path.write_text(
        f"policies = {json.dumps(policies)}\nspaces = {json.dumps(spaces)}\nseeds = {seeds}\nbudget = {budget}\n"
    )
    return path
