"""Runs whole tiled modules on the simulated machine: kernels as programs one after the other, external calls as given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from codesign.backends.accelerator.lower import lower
from codesign.backends.accelerator.simulate import SimulationResult, simulate
from codesign.costmodel.external import external_seconds
from codesign.costmodel.machine import Machine
from codesign.ir.core import Module
from codesign.ir.interpreter import External, evaluate, with_outputs
from codesign.ir.numerics import Array
from codesign.ir.program import Program
from codesign.ir.tensor import Call as CallOp
from codesign.ir.tensor import Collective, Random, Scan, Scatter, Sort
from codesign.ir.tile import Kernel


@dataclass
class ModelRun:
    """The outcome of a whole model.

    `outputs`: results of the function. `launches`: kernel name and simulation, in order of execution. `external`: ops that no program
    does, with their estimated seconds. `seconds`, `joules`: of the programs; `external_seconds` apart, since it is only an estimate.
    """

    outputs: list[Array]
    launches: list[tuple[str, SimulationResult]]
    external: list[tuple[str, float]]
    programs: dict[str, Program] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return sum(result.seconds for _, result in self.launches)

    @property
    def cycles(self) -> float:
        return sum(result.cycles for _, result in self.launches)

    @property
    def joules(self) -> float:
        return sum(result.joules for _, result in self.launches)

    @property
    def external_seconds(self) -> float:
        return sum(seconds for _, seconds in self.external)


def run_module(
    module: Module,
    machine: Machine,
    inputs: Sequence[Any],
    *,
    externals: Mapping[str, External] | None = None,
    symbols: Mapping[str, int] | None = None,
    function: str | None = None,
) -> ModelRun:
    """Run a module whose fused groups are launches of kernels (after tiling).

    Each launch is lowered for the machine and the sizes of its inputs and simulated, values and time. `externals` runs the `call`
    ops by target, as for the interpreter. Raises what lowering and simulation raise.
    """
    runner = _Runner(machine)
    outputs = evaluate(module, inputs, function, symbols, externals, runner.launch)
    target = module.main if function is None else module.functions[function]
    kinds = (CallOp, Collective, Random, Scan, Scatter, Sort)
    external = [
        (op.target if isinstance(op, CallOp) else op.opcode, external_seconds(op, machine, dict(runner.sizes)).seconds)
        for op in target.body.walk()
        if isinstance(op, kinds)
    ]
    return ModelRun(outputs, runner.done, external, runner.programs)


class _Runner:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.programs: dict[str, Program] = {}
        self.done: list[tuple[str, SimulationResult]] = []
        self.lowered: dict[str, dict[str, int]] = {}
        self.sizes: dict[str, int] = {}

    def launch(self, kernel: Kernel, inputs: Sequence[Array], sizes: Mapping[str, int]) -> Sequence[Array]:
        self.sizes.update(sizes)
        own = {name: sizes[name] for name in kernel.symbols}
        if self.lowered.get(kernel.name) != own:
            self.programs[kernel.name], self.lowered[kernel.name] = lower(kernel, self.machine, sizes), own
        program = self.programs[kernel.name]
        shapes = [tuple(size.constant for size in value.shape) for value in program.inputs]
        buffers = [array.reshape(shape) for array, shape in zip(inputs, shapes, strict=True)]
        result = simulate(program, with_outputs(kernel, buffers, sizes), self.machine)
        self.done.append((kernel.name, result))
        return result.outputs
