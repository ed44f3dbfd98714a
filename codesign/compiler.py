"""The driver: a captured module on a machine becomes a plan and the code of its kernels. Commands, tests and studies go through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codesign import compiled_truth
from codesign.backend import Backend, backend_for
from codesign.command import Steps
from codesign.costmodel.cache import choices_file
from codesign.costmodel.machine import Machine
from codesign.document import Compiled as Outcome
from codesign.frontend import Frontend
from codesign.ir.core import Module
from codesign.ir.plan import Plan
from codesign.ir.schedule import Schedule
from codesign.passes import Pass
from codesign.passes.planning import Choices, Clock, Planned, plan_module


@dataclass(frozen=True)
class Options:
    """What a user chose.

    `policy`, `budget`: of the schedule search. `fusion`: policy of fusion, which is explained with `explain_fusion`. `verify`: run kernels and
    the model. `kernels`: compile kernels for the target. `sizes`: values of dynamic sizes when costing. `dynamic`: make the first size of every
    input dynamic. `schedules`: by kernel name, replayed instead of searched for. `passes`: run after clean-up and before fusion. `reuse`: take
    over what earlier runs chose. `frontend`: what lowers the exported model, `torch` (rules of ours) or `torch-mlir`. `backward`: the
    model with the gradients of its weights, and with the step of an `optimizer`.
    """

    policy: str = "default"
    budget: int | None = None
    fusion: str = "greedy"
    explain_fusion: bool = False
    verify: bool = True
    kernels: bool = True
    seed: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    dynamic: bool = False
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    passes: Sequence[Pass] = ()
    reuse: bool = True
    frontend: Frontend = "torch"
    backward: bool = False
    optimizer: str = ""

    def choices(self) -> Choices:
        """Those of the plan."""
        return Choices(
            policy=self.policy,
            budget=self.budget,
            seed=self.seed,
            fusion=self.fusion,
            explain_fusion=self.explain_fusion,
            passes=self.passes,
            sizes=self.sizes,
            schedules=self.schedules,
            kept=choices_file() if self.reuse else None,
        )


@dataclass
class Compiled:
    """A module compiled for a machine. `outcomes`: what the backend's compiler reported, by kernel name, where code was made.
    `seconds`: what each phase took."""

    machine: Machine
    planned: Planned
    backend: Backend
    outcomes: dict[str, Outcome]
    seconds: dict[str, float]

    @property
    def plan(self) -> Plan:
        """What was decided, as plain data."""
        return self.planned.plan(self.planned.module.name)


def compile(
    module: Module,
    machine: Machine,
    options: Options | None = None,
    *,
    steps: Steps | None = None,
    sources: Path | None = None,
    remarks: list[str] | None = None,
) -> Compiled:
    """Plan a captured module for a machine, and make the code of its kernels where `options.kernels` says so.

    `steps` shows progress. `sources`: the folder of the user's model, whose lines may be shown in the code. `remarks` gets what is worth telling.
    """
    chosen, show, clock = options or Options(), steps or Steps(None), Clock()
    planned = plan_module(module, machine, chosen.choices(), clock=clock, step=show.step, remarks=remarks)
    backend = backend_for(machine, planned.module, planned.sizes, sources)
    outcomes: dict[str, Outcome] = {}
    if chosen.kernels:
        with clock.phase("kernels"):
            tick = show.each(f"building kernels for {machine.name}", len(planned.kernels))
            outcomes = compiled_truth.build(planned.module, planned.kernels, planned.tuner, backend, tick)
    return Compiled(machine, planned, backend, outcomes, clock.seconds)
