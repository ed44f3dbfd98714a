"""Simulation of a program: values and time.

Per core, the control processor issues instructions into the bounded queues of four engines. An engine takes the instruction at its
head when its waits hold, is busy for the clocks that `codesign.costmodel.dataflow.engines` gives, and signals when it is done. DMA
transfers also pass the ports of the memories above the core, each of which serves the cores below it in order of arrival (at one clock, by
the core's number); that is where cores slow each other down. A load that cores share begins when all of them could begin it.

A program means the same whatever its clocks are, or it has a race and is refused; so its values (`values`) and its clock (`engine`) are
worked out apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from codesign.backends.accelerator.check import check_fits, checked
from codesign.backends.accelerator.costs import cost_of
from codesign.backends.accelerator.engine import Clock, Span
from codesign.backends.accelerator.flat import Flat, flatten
from codesign.backends.accelerator.order import check_ends
from codesign.backends.accelerator.timing import Floats, Gangs, classes_of, gangs_of
from codesign.backends.accelerator.together import check_together
from codesign.backends.accelerator.values import Values
from codesign.costmodel.dataflow.target import Target, target_of
from codesign.costmodel.machine import Machine
from codesign.ir.errors import EvaluationError
from codesign.ir.numerics import Array
from codesign.ir.program import ENGINES, Load, Program, Store


@dataclass
class SimulationResult:
    """The outcome of a run.

    `cycles`: clocks from the start of the program to its last event; `seconds` adds the launch, or what it takes to join the program before.
    `joules`: NaN where the machine file lacks an energy, with the reason in `remarks`. `busy[engine]`, `stalled[engine]`: clocks over all
    cores that an engine worked, and that the head of its queue waited for a semaphore. `dram_bytes`: whole lines moved. `trace`: spans,
    when asked for.
    """

    program: Program
    machine: str
    clock_hz: float
    cycles: float
    seconds: float
    joules: float
    dram_bytes: float
    instructions: int
    busy: dict[str, float]
    stalled: dict[str, float]
    joules_by: dict[str, float]
    outputs: list[Array]
    trace: list[Span]
    remarks: list[str] = field(default_factory=list)

    def utilisation(self, engine: str) -> float:
        """Share of the run that an engine works, over the cores in use."""
        return self.busy[engine] / (self.cycles * self.program.cores) if self.cycles else 0.0


def simulate(
    program: Program,
    buffers: Sequence[Array] | None,
    machine: Machine,
    *,
    values: bool = True,
    trace: bool = False,
) -> SimulationResult:
    """Run a program.

    `buffers`: the inputs, or inputs and outputs (which atomic stores add to), as the interpreter holds their dtypes; None with
    `values=False`, which computes time alone. Raises Deadlock, Race (with values), EvaluationError for an address out of range,
    ScheduleError when the program does not fit the machine.
    """
    target = target_of(machine)
    check_fits(program, target)
    flat = flatten(program)
    check_together(program, flat)
    gangs = gangs_of(flat)
    outputs, lanes = _values(program, flat, gangs, target, buffers) if values else ([], {})
    clock = Clock(program, target, flat, classes_of(program, flat, target, lanes), gangs)
    clock.advance()
    if not clock.finished:
        check_ends(program, flat, gangs, target)
        raise AssertionError("the clock comes to no end where the program has one")
    return _result(program, target, clock, outputs, clock.spans() if trace else [])


def _result(
    program: Program, target: Target, clock: Clock, outputs: list[Array], trace: list[Span]
) -> SimulationResult:
    moved, joules = clock.figures()
    cycles = clock.end
    by_engine = dict(zip(ENGINES, joules, strict=True))
    parts = {
        "dma": by_engine["load"] + by_engine["store"] + by_engine["stage"],
        "tensor": by_engine["tensor"],
        "vector": by_engine["vector"],
    }
    begin = target.meeting_seconds if program.joined else target.launch_seconds
    seconds = float(target.throttled(cycles / target.clock_hz + begin, sum(parts.values())))
    remarks = [
        f"{target.name} lacks an energy figure that the {name} engine needs" for name, j in parts.items() if np.isnan(j)
    ]
    if np.isnan(target.static_watts):
        remarks.append(f"{target.name} has no static_watts: energy is of the switching only")
    else:
        parts["static"] = target.static_watts * seconds
    return SimulationResult(
        program=program,
        machine=target.name,
        clock_hz=target.clock_hz,
        cycles=cycles,
        seconds=seconds,
        joules=float(sum(parts.values())),
        dram_bytes=moved,
        instructions=len(clock.flat.number),
        busy=dict(zip(ENGINES, clock.busy, strict=True)),
        stalled=dict(zip(ENGINES, clock.stalled, strict=True)),
        joules_by=parts,
        outputs=outputs,
        trace=trace,
        remarks=remarks,
    )


def _values(
    program: Program, flat: Flat, gangs: Gangs, target: Target, buffers: Sequence[Array] | None
) -> tuple[list[Array], dict[int, Floats]]:
    """Carry a program out: its results, and the share of lanes that data leaves to transfers."""
    given = list(buffers or [])
    if len(given) not in (len(program.inputs), len(program.params)):
        raise EvaluationError(f"@{program.name} takes {len(program.inputs)} input buffers, got {len(given)}")
    if len(given) == len(program.inputs):
        given += [np.zeros([s.constant for s in v.shape], v.type.dtype.numpy) for v in program.results]
    counted = {}
    for item in flat.prepared:
        cost = cost_of(item, program, target)
        if cost.depends_on_data():
            assert isinstance(item.instruction, Load | Store)
            counted[item.number] = [guard in cost.others for guard in item.instruction.guards]
    memories = Values(program, flat, target, given, counted)
    for batch in checked(program, flat, gangs, target):
        memories.execute(batch)
    return given[len(program.inputs) :], memories.lanes
