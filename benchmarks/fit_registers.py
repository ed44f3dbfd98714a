"""Fits what a thread's registers are spent on (backends/triton/generated/needs.py) to compiled kernels, and says how kernels do that were left out.

    OMP_NUM_THREADS=1 python benchmarks/compiled_truth.py --models llama_block mlp --schedules 3 --rows rows.json
    python benchmarks/fit_registers.py rows.json --models llama_block mlp --kind matrix --arch gfx942 --free fragments words

Least squares on the logarithm, robust, near the values that there are; each group of operators is left out once, and each half of the groups
is predicted by the other.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.compiled_truth import MACHINES, blocks_per_sm, groups
from codesign.backends.triton.aot import Compiled
from codesign.backends.triton.generated import needs
from codesign.backends.triton.generated.code import held_by
from codesign.backends.triton.generated.granted import Freedom, freedom, granted
from codesign.backends.triton.generated.layout import Layout, direct_of, products_of
from codesign.backends.triton.generated.registers import alive, needs_of
from codesign.costmodel.gpu.block import code_of
from codesign.costmodel.gpu.generator import Held
from codesign.costmodel.gpu.geometry import geometry
from codesign.costmodel.gpu.model import knob_columns
from codesign.costmodel.gpu.occupancy import occupancy
from codesign.costmodel.gpu.work import Work
from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.performed import performed
from codesign.costmodel.summary import KernelSummary, summarize
from codesign.ir.schedule import Schedule, ScheduleBatch

NAMES = [entry.name for entry in fields(needs.Needs)][1:]
KINDS = {
    "vector": (needs.VECTOR, needs.WIDE_VECTOR),
    "straight": (needs.STRAIGHT,),
    "elements": (needs.WIDE_ELEMENTS,),
    "fragments": (needs.FRAGMENTS, needs.LATER_FRAGMENTS),
    "matrix": (needs.MATRIX_CORES, needs.EARLIER_CORES),
    "groups": (needs.WARP_GROUPS,),
    "memory": (needs.TENSOR_MEMORY,),
}
NEAR, APART, SPREAD = 0.5, 8.0, 0.08
"""How far a coefficient, and what a kernel or a phase has once, may be from where they were for one share `SPREAD` of a kernel's registers."""

ONCE = ("loop", "stages", "chained")
MOST_SPILLED = 1600
"""Bytes spilled beyond which a kernel says nothing of what it wanted."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel: what each of its phases holds, and what became of it."""

    group: int
    phases: Values
    compiled: Compiled
    held: Held
    free: Freedom
    warps: float
    machine: Machine

    @property
    def needed(self) -> float:
        """Registers that it wanted, 0 where they can't be told: those spilled, each stored once and loaded once, are beyond those that it has."""
        if self.compiled.spills > MOST_SPILLED:
            return 0.0
        return self.compiled.registers + self.compiled.spills / 8.0

    def wanted(self, coefficients: Values) -> float:
        return float((self.phases @ coefficients[1:]).max() + coefficients[0])

    def right(self, coefficients: Values) -> bool:
        """Whether the blocks of an SM come out as compiled."""
        held = self.held._replace(registers=np.array([self.wanted(coefficients)]))
        held = held._replace(granted=granted(held, np.array([self.warps]), self.machine, self.free))
        found = occupancy(Work(), self.machine, np.array([self.warps]), np.array([1.0]), held)
        return int(found.blocks[0]) == blocks_per_sm(self.compiled, self.machine)


def kernel_of(row: dict[str, Any], summary: KernelSummary) -> tuple[Kernel, needs.Needs]:
    """A row of the table with its features, and the needs that the model takes for it."""
    machine, schedule = load_machine(MACHINES[row["arch"]]), Schedule.from_json(row["schedule"])
    columns = knob_columns(ScheduleBatch.of([schedule]))
    knobs = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    which, schedule = performed(summary, schedule)
    g = geometry(which, knobs, {}, float(machine.instances("shared")))
    program, tiles = code_of(which, g, machine, knobs)
    layout = Layout.of(tiles, machine, knobs)
    products = products_of(program, layout)
    direct = bool(np.any(direct_of(products)))
    kind = needs_of(layout, dot=bool(products), direct=direct, loops=bool(program.loops), sums=bool(program.inner))
    held = held_by(program, layout, machine)
    warps = float(schedule.extra("warps", 4))
    said = row["compiled"]
    compiled = Compiled("", row["arch"], said["registers"], said["shared_bytes"], said["spills"], int(warps))
    table = np.array([[float(np.max(phase.get(name, 0.0))) for name in NAMES] for phase in alive(program, layout)])
    return Kernel(row["group"], table, compiled, held, freedom(program), warps, machine), kind


def fit(kernels: list[Kernel], start: Values, free: list[int]) -> Values:
    """Coefficients near the given ones, of which some are free."""
    known = [kernel for kernel in kernels if kernel.needed]
    scale = np.array([APART, *(APART if name in ONCE else NEAR for name in NAMES)])[free]

    def errors(values: Values) -> Values:
        coefficients = start.copy()
        coefficients[free] = np.abs(values)
        off = [np.log(kernel.wanted(coefficients) / kernel.needed) / SPREAD for kernel in known]
        return np.concatenate([off, (np.abs(values) - start[free]) / scale])

    found = start.copy()
    found[free] = np.abs(least_squares(errors, start[free] + 1e-3, loss="soft_l1").x)
    return found


def apart(kernels: list[Kernel], start: Values, free: list[int], parts: list[set[int]]) -> float:
    """How often the blocks of an SM come out as compiled where the kernels of each part of the groups are predicted by all others."""
    right = []
    for part in parts:
        left = fit([kernel for kernel in kernels if kernel.group not in part], start, free)
        right += [kernel.right(left) for kernel in kernels if kernel.group in part]
    return float(np.mean(right))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="what compiled_truth.py --rows wrote")
    parser.add_argument("--models", nargs="+", required=True, help="those that the rows are of")
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--arch", nargs="+", required=True)
    parser.add_argument("--free", nargs="+", choices=NAMES, required=True)
    given = parser.parse_args()
    summaries = [summarize(group.fusion, f"group{k}") for k, group in enumerate(groups(given.models))]
    rows = [row for row in json.loads(given.rows.read_text()) if row["arch"] in given.arch]
    pairs = [kernel_of(row, summaries[row["group"]]) for row in rows]
    kernels = [kernel for kernel, kind in pairs if kind in KINDS[given.kind]]
    start = np.array([getattr(KINDS[given.kind][-1], name) for name in ("base", *NAMES)])
    free = [0, *(1 + NAMES.index(name) for name in given.free)]
    numbers = sorted({kernel.group for kernel in kernels})
    found = fit(kernels, start, free)
    report = {
        "kernels": len(kernels),
        "blocks right": [float(np.mean([kernel.right(c) for kernel in kernels])) for c in (start, found)],
        "blocks right, group left out": apart(kernels, start, free, [{number} for number in numbers]),
        "blocks right, half left out": apart(kernels, start, free, [{*numbers[0::2]}, {*numbers[1::2]}]),
        "needs": {name: round(float(value), 2) for name, value in zip(("base", *NAMES), found, strict=True) if value},
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
