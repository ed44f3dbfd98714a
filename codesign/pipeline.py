"""The way of a model through the house: capture, compile, check; one document per machine."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codesign.backend import Backend
from codesign.command import Steps
from codesign.compiler import Compiled, Options, compile
from codesign.costmodel.ledger import Ledger
from codesign.costmodel.ledger import explain as ledger
from codesign.costmodel.machine import Machine
from codesign.costmodel.models import cost_model_for, informed
from codesign.costmodel.roofline import kernel_flops
from codesign.document import ModelDocument, Verified
from codesign.documents import document_of
from codesign.frontend import Captured, ModelSource, load_model
from codesign.frontend import capture as capture_model
from codesign.frontend.training import TrainingStep, part_of, trained
from codesign.ir.core import Module
from codesign.ir.errors import CodesignError
from codesign.ir.plan import Plan
from codesign.ir.schedule import ScheduleBatch
from codesign.ir.tensor import Constant
from codesign.passes.lowering import KernelInfo
from codesign.passes.memory import MemoryPlan
from codesign.passes.planning import Clock

__all__ = ["Compilation", "Model", "Options", "capture", "compile_for", "explain"]


@dataclass
class Model:
    """A captured model with what is needed to run it again."""

    source: ModelSource
    captured: Captured
    seconds: dict[str, float]


@dataclass
class Compilation:
    """A model compiled for one machine: the IR as captured (`tensor`), what became of it, and the document that is printed."""

    compiled: Compiled
    tensor: Module
    captured: Captured
    document: ModelDocument
    sources: Path | None = None

    @property
    def machine(self) -> Machine:
        return self.compiled.machine

    @property
    def tiled(self) -> Module:
        """The IR in kernels."""
        return self.compiled.planned.module

    @property
    def kernels(self) -> dict[str, KernelInfo]:
        return self.compiled.planned.kernels

    @property
    def memory(self) -> MemoryPlan:
        return self.compiled.planned.memory

    @property
    def backend(self) -> Backend:
        return self.compiled.backend

    @property
    def plan(self) -> Plan:
        """The decisions as plain data."""
        return self.compiled.planned.plan(self.document.model)


def capture(path: Path, options: Options, steps: Steps) -> Model:
    """Load `model.py` (which runs it) or `model.pt2` (which does not) and capture the model."""
    clock = Clock()
    steps.step(f"loading {path.name}")
    with clock.phase("load"):
        source = load_model(path)
    if options.backward:
        exported = source.program is not None  # which says more of what it lacks
        if not exported and (options.dynamic or source.dynamic_shapes is not None):
            raise CodesignError(
                "--backward: gradients are captured for the sizes of the example only",
                place=str(path),
                hint="leave --dynamic and dynamic_shapes out",
            )
        source = trained(source, options.optimizer)
    if options.dynamic and source.program is not None:
        raise CodesignError(
            "--dynamic: an exported program keeps the sizes that it was exported with",
            place=str(path),
            hint="export it with dynamic_shapes",
        )
    if options.dynamic and source.dynamic_shapes is None:
        source.dynamic_shapes = _first_sizes_dynamic(source)
    steps.step(f"capturing {source.name} with torch.export")
    captured = capture_model(source, frontend=options.frontend)
    if isinstance(source.model, TrainingStep) and source.model.remark:
        captured.warnings.append(source.model.remark)
    return Model(source, captured, {**clock.seconds, **captured.seconds})


def _first_sizes_dynamic(source: ModelSource) -> Any:
    import torch
    from torch.utils import _pytree as pytree

    batch = torch.export.Dim("batch", min=1, max=65536)

    def first(leaf: Any) -> Any:
        return {0: batch} if isinstance(leaf, torch.Tensor) and leaf.dim() else None

    shapes = pytree.tree_map(first, source.inputs)
    if not source.kwargs:
        return shapes
    signature = inspect.signature(source.model.forward)
    named = pytree.tree_map(first, source.kwargs)
    try:
        bound = signature.bind_partial(*shapes, **named)
    except TypeError:
        return (*shapes, *named.values())  # torch.export says what doesn't fit
    return dict(bound.arguments)


def compile_for(model: Model, machine: Machine, options: Options, steps: Steps) -> Compilation:
    """Optimise, schedule, tile, emit and check a captured model for one machine."""
    module = model.captured.module
    remarks: list[str] = list(model.captured.warnings)
    sources = model.source.path.parent if model.source.path else None
    compiled = compile(module, machine, options, steps=steps, sources=sources, remarks=remarks)
    clock = Clock(compiled.seconds)
    verified: dict[str, Verified] = {}
    whole: Verified | None = None
    if options.verify:
        with clock.phase("verify"):
            tick = steps.each("verifying kernels", len(compiled.planned.kernels))
            for name, info in compiled.planned.kernels.items():
                verified[name] = compiled.backend.verify(info, options.seed)
                tick()
            steps.step("verifying the whole model against torch")
            whole = _verify_model(model, compiled, options.seed)
    for name, outcome in compiled.outcomes.items():
        outcome.simulated_seconds = compiled.backend.simulated_seconds(name)
    phases = {**model.seconds, **clock.seconds}
    part = part_of if model.source.trained is not None else None
    document = document_of(model.source.name, compiled, verified, whole, phases, part)
    return Compilation(compiled, module, model.captured, document, sources)


VERIFY_FLOPS = 2e9
"""Work beyond which the whole model is not run in an interpreter (its kernels still are, at shorter extents)."""

VERIFY_ELEMENTS = 1 << 26
"""The same for elements computed, each time that one is."""

VERIFY_BYTES = 1 << 30
"""The same for the memory of inputs, weights, intermediates and results, of which a check holds a few copies."""


def _verify_model(model: Model, compiled: Compiled, seed: int) -> Verified | None:
    """The compiled model against torch; None, with a remark, when it can't be run here."""
    from codesign import execution
    from codesign.frontend.inputs import stored_bytes

    planned, captured = compiled.planned, model.captured
    tiled, kernels, sizes, remarks = planned.module, planned.kernels, planned.sizes, planned.remarks
    missing = [
        op.constant for op in tiled.main.body.walk() if isinstance(op, Constant) and op.constant not in tiled.constants
    ]
    if missing:
        remarks.append("the model is on the meta device and has no weights: only its kernels were verified")
        return None
    flops = sum(kernel_flops(info.tuned.summary, sizes) * info.count for info in kernels.values())
    elements = sum(_points(info, sizes) * info.count for info in kernels.values())
    held = planned.memory.total_bytes + stored_bytes((model.source.inputs, model.source.kwargs))
    for amount, limit, what in (
        (flops, VERIFY_FLOPS, "operations"),
        (elements, VERIFY_ELEMENTS, "elements"),
        (held, VERIFY_BYTES, "bytes"),
    ):
        if amount > limit:
            remarks.append(
                f"the whole model was not run: {amount:.3g} {what} are too many to interpret; its kernels were verified"
            )
            return None
    return execution.verify(model.source, captured, tiled, kernels, compiled.backend, sizes, seed, remarks)


def _points(info: KernelInfo, sizes: Mapping[str, int]) -> float:
    """Elements that a kernel computes, those reduced over counted too; the terms of a contraction are its operations."""
    contracts = kernel_flops(info.tuned.summary, sizes) > 0
    total = 0.0
    for compute in info.normalized.fusion.computes:
        dims = compute.dims if contracts else (*compute.dims, *compute.reductions)
        total += math.prod(float(dim.extent.evaluate(dict(sizes))) for dim in dims)
    return total


def explain(compilation: Compilation, kernel: str) -> Ledger:
    """The ledger of a kernel's prediction: its terms with their values, what-if questions, and the runner-up schedule.

    CodesignError lists the nearest names when there is no such kernel.
    """
    info = compilation.kernels.get(kernel)
    if info is None:
        near = difflib.get_close_matches(kernel, list(compilation.kernels), n=4, cutoff=0.2) or list(
            compilation.kernels
        )
        raise CodesignError(f"no kernel {kernel!r}", hint=f"the kernels are {', '.join(near)}")
    tuned = info.tuned
    schedules = [tuned.schedule, *(candidate.schedule for candidate in tuned.runners_up)]
    model = cost_model_for(compilation.machine)
    if tuned.reported is not None:
        model = informed(model, {tuned.schedule: tuned.reported})
    sizes = tuned.summary.sizes(compilation.document.symbols)
    found = ledger(tuned.summary, compilation.machine, ScheduleBatch.of(schedules), 0, model, sizes)
    return replace(found, kernel=kernel)  # as the report calls it
