"""From a captured module to a plan on a machine: clean-up, fusion, schedules, tiles, memory. The one way of all who compile."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from codesign.costmodel.machine import Machine
from codesign.ir.core import Module, tensor_type
from codesign.ir.data_sizes import made_sizes
from codesign.ir.errors import CodesignError
from codesign.ir.plan import Plan, PlannedKernel, PlannedMemory
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Call, Launch, While
from codesign.passes.collecting import collecting_rarely
from codesign.passes.context import Context
from codesign.passes.fusion.explain import Edge, in_kernels
from codesign.passes.lowering import KernelInfo, tile_module
from codesign.passes.manager import Pass
from codesign.passes.memory import MemoryPlan
from codesign.passes.memory import plan as plan_memory
from codesign.passes.observers import Verifier
from codesign.passes.pipeline import compilation, optimize
from codesign.passes.schedule.policy import Policy
from codesign.passes.schedule.tuner import Tuner


@dataclass(frozen=True)
class Choices:
    """What a user may choose of how a module is planned.

    `policy`, `budget`, `seed`: of the schedule search. `fusion`: policy of fusion, explained with `explain_fusion`. `passes`: run after clean-up and
    before fusion. `sizes`: values of dynamic sizes when costing. `schedules`: by kernel name or structure, replayed instead of searched for; with
    `of_others` some may be of other modules. `kept`: a file of what earlier runs chose, to take over and to add to.
    """

    policy: str | Policy = "default"
    budget: int | None = None
    seed: int = 0
    fusion: str = "greedy"
    explain_fusion: bool = False
    passes: Sequence[Pass] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    of_others: bool = False
    kept: Path | None = None


class Clock:
    """Seconds of named phases, in order."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = dict(seconds or {})

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


@dataclass
class Planned:
    """A module in kernels for a machine, and everything that was decided on the way. `module`: tiled. `edges`: why producers and consumers
    are together or apart, where that was asked."""

    machine: Machine
    module: Module
    kernels: dict[str, KernelInfo]
    memory: MemoryPlan
    tuner: Tuner
    sizes: dict[str, int]
    remarks: list[str]
    edges: list[Edge] = field(default_factory=list)

    def plan(self, model: str = "") -> Plan:
        """The decisions as plain data."""
        order = tuple(op.kernel for op in self.module.main.body.walk() if isinstance(op, Launch))
        kernels = tuple(_planned(name, info) for name, info in self.kernels.items())
        digest = hashlib.sha256(self.machine.model_dump_json().encode()).hexdigest()[:12]
        memory = _memory(self.memory)
        return Plan(model, self.machine.name, digest, kernels, order, memory, dict(self.sizes))


def plan_module(
    module: Module,
    machine: Machine,
    choices: Choices,
    *,
    clock: Clock | None = None,
    step: Callable[[str], None] = lambda text: None,
    remarks: list[str] | None = None,
) -> Planned:
    """Plan a captured module, which stays as it is; `step` is told what is being done.

    CodesignError for a size that the module does not have, ScheduleError where a group fits the machine under no schedule, and where a
    replayed schedule does not fit or apply.
    """
    clock, remarks = clock or Clock(), [] if remarks is None else remarks
    sizes = sizes_of(module, choices.sizes)
    for name in (name for name in made_sizes(module.main) if name not in choices.sizes):
        remarks.append(f"data decides the size {name}: costed at {sizes[name]:,} (--bind {name}=SIZE for another)")
    tuner = tuner_for(module, machine, choices, sizes)
    context = Context(
        machine, tuner.price, sizes, remarks, why=tuner.why, kept=tuner.store, below=tuner.price, least=tuner.least
    )
    step(f"fusing for {machine.name}")
    with clock.phase("passes"), collecting_rarely():
        observers = [Verifier()] if choices.passes else []
        passes = compilation(choices.passes, choices.fusion, choices.explain_fusion)
        tiled = optimize(module, context, pipeline=passes, observers=observers)
    step(f"scheduling for {machine.name}")
    with clock.phase("schedule"), collecting_rarely():
        kernels = tile_module(tiled, tuner, choices.schedules, remarks, of_others=choices.of_others)
        tuner.keep()
    with clock.phase("memory"):
        memory = plan_memory(tiled.main, sizes, tiled.kernels)
    launches = (op for op in tiled.main.body.walk() if isinstance(op, Launch))
    kernel_of = {value.name: op.kernel for op in launches for value in op.results}
    return Planned(machine, tiled, kernels, memory, tuner, sizes, remarks, in_kernels(context.fusion, kernel_of))


def tuner_for(module: Module, machine: Machine, choices: Choices, sizes: Mapping[str, int]) -> Tuner:
    """What tunes the groups of a module."""
    return Tuner(
        machine,
        policy=choices.policy,
        budget=choices.budget,
        sizes=sizes,
        bounds=module.bounds(),
        seed=choices.seed,
        kept=choices.kept,
    )


def sizes_of(module: Module, given: Mapping[str, int]) -> dict[str, int]:
    """A value for every size symbol: given by the user, else what the model was captured at; of a size that data decides as many as its call
    reads values, and no more than its range says."""
    loops = [op.trips for op in module.main.body.walk() if isinstance(op, While) and isinstance(op.trips, str)]
    unknown = [name for name in given if name not in module.symbols and name not in loops]
    if unknown:
        known = ", ".join([*module.symbols, *loops]) or "none: --dynamic or dynamic_shapes in the model file makes some"
        raise CodesignError(f"the model has no dynamic size {unknown[0]!r}", hint=f"it has {known}")
    sizes = {name: given[name] for name in loops if name in given}
    made = made_sizes(module.main)
    for name in (*(name for name in module.symbols if name not in made), *made):
        symbol, value = module.symbols[name], given.get(name)
        if value is None and name in made:
            most = _most(made[name], sizes)
            value = most if symbol.high is None else min(most, symbol.high)
        elif value is None:
            value = symbol.example or max(symbol.low, 1)
        if value < symbol.low or (symbol.high is not None and value > symbol.high):
            hint = "its range is what dynamic_shapes of the model says, and what torch.export proved the captured program for"
            if value < symbol.low <= 2:
                hint = f"torch.export makes sizes of 0 and 1 constants: for {name} = {value}, capture with inputs of that size"
            raise CodesignError(
                f"{name} = {value} is outside its range {symbol.low} to {symbol.high or 'any'}", hint=hint
            )
        sizes[name] = value
    return sizes


def _most(call: Call, sizes: Mapping[str, int]) -> int:
    """Values of the largest tensor that a call reads."""
    return max((int(tensor_type(value).elements.evaluate(sizes)) for value in call.inputs), default=1)


def _planned(name: str, info: KernelInfo) -> PlannedKernel:
    return PlannedKernel(
        name,
        info.structure,
        info.tuned.schedule,
        info.operators,
        info.places,
        max(round(info.count), 1),
        info.tuned.seconds,
    )


def _memory(memory: MemoryPlan) -> PlannedMemory:
    buffers: dict[str, tuple[int, int]] = {}
    for value, buffer in memory.buffers.items():
        base = name = value.name or "v"
        count = 1
        while name in buffers:
            count += 1
            name = f"{base}_{count}"
        buffers[name] = buffer.offset, buffer.size
    return PlannedMemory(memory.peak_bytes, memory.input_bytes, memory.output_bytes, memory.constant_bytes, buffers)
