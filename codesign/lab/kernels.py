"""The problems of a study: named kernels and the kernels of models on each machine, and measured spaces."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from codesign.command import Steps
from codesign.costmodel import workloads
from codesign.costmodel.machine import Machine, load_machines
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.protocol import CostBatch, CostModel
from codesign.costmodel.summary import KernelSummary
from codesign.ir.dtypes import DTYPES
from codesign.ir.errors import CodesignError
from codesign.ir.schedule import ScheduleBatch
from codesign.lab.measured import problem_of, read_space
from codesign.lab.plan import KernelPlan, StudyPlan
from codesign.lab.problem import Problem, digest
from codesign.passes.knobs import foreign, predict
from codesign.passes.schedule.build import space
from codesign.passes.schedule.space import Space
from codesign.passes.schedule.store import sources_version

KINDS: dict[str, tuple[Callable[[str], KernelSummary], tuple[str, ...]]] = {
    "gemm": (workloads.gemm, ("M", "N", "K")),
    "attention": (lambda dtype: workloads.attention(dtype, dtype), ("B", "G", "R", "Q", "J")),
    "convolution": (workloads.convolution, ("N", "C", "O", "H", "W", "R", "S")),
    "grouped_gemm": (workloads.grouped_gemm, ("E", "M", "N", "K", "T")),
    "rms_norm": (workloads.rms_norm, ("T", "N")),
    "layer_norm": (workloads.layer_norm, ("T", "N")),
    "softmax": (workloads.softmax, ("T", "N")),
    "add": (workloads.add, ("T", "N")),
    "gelu": (workloads.gelu, ("T", "N")),
    "silu_and_multiply": (workloads.silu_and_multiply, ("T", "N")),
    "rope": (workloads.rope, ("T", "H", "D")),
    "embedding": (workloads.embedding, ("T", "N", "V")),
}
"""Kernels by name, and their sizes in the order that the short form gives them in."""


def problems(plan: StudyPlan, steps: Steps | None = None) -> list[Problem]:
    """All problems of a study, those that are the same only once."""
    steps = steps or Steps(None)
    machines = load_machines(plan.machines)
    found: list[Problem] = []
    for machine in machines:
        for kernel in plan.kernels:
            summary, sizes = kernel_of(kernel)
            found.append(kernel_problem(kernel.label, summary, machine, sizes, plan.fidelity))
    if plan.policies:
        for model in plan.models:
            for machine in machines:
                steps.step(f"compiling {Path(model).name} for {machine.name}")
                found.extend(model_problems(Path(model), machine, plan.fidelity))
    for path in plan.spaces:
        steps.step(f"reading {Path(path).name}")
        found.append(problem_of(read_space(Path(path))))
    found.extend(whole_models(plan, steps))
    return list({problem.key: problem for problem in found}.values())


def kernel_of(plan: KernelPlan) -> tuple[KernelSummary, dict[str, int]]:
    """The kernel of a plan with its sizes; CodesignError when there is none of the kind or a size is missing."""
    if plan.kind not in KINDS:
        near = difflib.get_close_matches(plan.kind, KINDS, n=3, cutoff=0.3) or list(KINDS)
        raise CodesignError(f"no kernel is called {plan.kind!r}", hint=f"nearest: {', '.join(near)}")
    if plan.dtype not in DTYPES:
        raise CodesignError(f"{plan.label}: no dtype {plan.dtype!r}", hint=f"dtypes: {', '.join(DTYPES)}")
    make, names = KINDS[plan.kind]
    if isinstance(plan.sizes, dict):
        sizes = dict(plan.sizes)
    else:
        sizes = dict(zip(names, plan.sizes, strict=False))
    if set(sizes) != set(names) or (not isinstance(plan.sizes, dict) and len(plan.sizes) != len(names)):
        raise CodesignError(f"{plan.label}: {plan.kind} has the sizes {' x '.join(names)}", hint="give each of them")
    return make(plan.dtype), sizes


def kernel_problem(
    name: str, summary: KernelSummary, machine: Machine, sizes: Mapping[str, int], fidelity: int = 1
) -> Problem:
    """A kernel on a machine, priced by the machine's model at a fidelity."""
    model = cost_model_for(machine, fidelity)
    kernel_space = space(summary, machine, sizes)
    knobs = [[knob.name, knob.values, knob.default] for knob in kernel_space.knobs]
    facts = {
        "kernel": replace(summary, name=""),
        "machine": machine.model_dump_json(),
        "sizes": dict(sizes),
        "space": knobs,
        "fidelity": fidelity,
        "version": sources_version(),
        "knobs": foreign(),
    }
    return Problem(
        name=name,
        machine=machine.name,
        key=digest(facts),
        space=kernel_space,
        priced=partial(_priced, model, summary, machine, dict(sizes)),
        summary=summary,
        target=machine,
        sizes=dict(sizes),
        fidelity=fidelity,
    )


def _priced(
    model: CostModel, summary: KernelSummary, machine: Machine, sizes: Mapping[str, int], batch: ScheduleBatch
) -> CostBatch:
    return predict(model, summary, machine, batch, sizes)


def model_problems(path: Path, machine: Machine, fidelity: int = 1) -> Iterator[Problem]:
    """The distinct kernels that a model becomes on a machine."""
    from codesign.lab.models import compiled

    compilation = compiled(path, machine)
    for name, info in compilation.kernels.items():
        summary = info.tuned.summary
        sizes = summary.sizes(compilation.document.symbols)
        yield kernel_problem(f"{path.stem}.{name}", summary, machine, sizes, fidelity)


def whole_models(plan: StudyPlan, steps: Steps) -> Iterator[Problem]:
    """Models that fusion policies are compared on, each on each machine."""
    if not plan.fusions:
        return  # without the imports, which take a while
    from codesign.ir.text import print_module
    from codesign.lab.models import captured

    for name in plan.models:
        path = Path(name)
        steps.step(f"capturing {path.name}")
        text = print_module(captured(path).captured.module)
        for machine in load_machines(plan.machines):
            key = digest(["model", text, machine.model_dump_json(), sources_version(), foreign()])
            yield Problem(path.stem, machine.name, key, Space(()), _unpriced, target=machine, model=path)


def _unpriced(batch: ScheduleBatch) -> CostBatch:
    raise CodesignError("a whole model has no schedules", hint="fusion policies are compared on it")
