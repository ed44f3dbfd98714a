"""Passes that end a pipeline: groups become tiled kernels, and buffers are planned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.core import Module
from codesign.passes.context import Context
from codesign.passes.lowering import tile_module
from codesign.passes.manager import Pass, register
from codesign.passes.memory import plan
from codesign.passes.planning import Choices, tuner_for


@register
@dataclass(frozen=True)
class Tile(Pass):
    """Replace every fusion group by a launch of a tiled kernel with the schedule that a policy finds best.

    `policy`: a scheduling policy; `budget`: schedules priced per kernel at most (0: as many as the policy likes).
    """

    name: ClassVar[str] = "tile"
    after_fusion: ClassVar[bool] = True
    policy: str = "default"
    budget: int = 0

    def run(self, module: Module, context: Context) -> Module:
        choices = Choices(policy=self.policy, budget=self.budget or None)
        tuner = tuner_for(module, context.target(), choices, context.sizes)
        for name, info in tile_module(module, tuner).items():
            times = f" x {info.count}" if info.count > 1 else ""
            context.remarks.append(f"{name}{times}: {info.tuned.seconds * 1e6:.2f} us, bound by {info.tuned.bound}")
        return module


@register
@dataclass(frozen=True)
class PlanMemory(Pass):
    """Plan the buffers of every function and remark on the peak; the module stays as it is."""

    name: ClassVar[str] = "plan-memory"
    after_fusion: ClassVar[bool] = True

    def run(self, module: Module, context: Context) -> Module:
        for name, function in module.functions.items():
            result = plan(function, context.sizes, module.kernels)
            context.remarks.append(
                f"@{name}: {len(result.buffers)} intermediates in {result.peak_bytes:,} bytes "
                f"(liveness needs {result.lower_bound_bytes:,}), constants {result.constant_bytes:,} bytes"
            )
        return module
