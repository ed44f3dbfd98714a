"""Two pipelines over the same models and machines: what each comes to, paired, and which kernels differ."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import wilcoxon

from codesign.command import Steps
from codesign.costmodel.machine import Machine
from codesign.ir.core import Module
from codesign.ir.errors import CodesignError
from codesign.ir.plan import PlannedKernel
from codesign.ir.text import print_module
from codesign.lab.models import compiled
from codesign.passes import Pass, parse_pipeline
from codesign.passes.fuse import Fuse
from codesign.passes.fusion.policy import policy_named
from codesign.passes.manager import PipelineError
from codesign.passes.pipeline import own_passes
from codesign.pipeline import Compilation, Options
from codesign.report import bytes_text, complaints, launch_count, seconds_text

FEWEST = 6
"""Pairs from which on a test of significance says something."""
FIGURES = ("seconds", "launches", "dram_bytes", "peak_memory_bytes", "compile_seconds")


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Figures(_Document):
    """What a model comes to under one pipeline; `error` where it does not compile, `verified` None where nothing was run, `wrong`: how values
    differ."""

    seconds: float | None = None
    launches: float | None = None
    dram_bytes: float | None = None
    peak_memory_bytes: int | None = None
    compile_seconds: float | None = None
    verified: bool | None = None
    wrong: str = ""
    error: str = ""


class ChangedKernel(_Document):
    """A kernel that is only in one of the two, or in both under another schedule; seconds of one launch."""

    kind: str
    first: str | None
    second: str | None
    ops: list[str]
    first_seconds: float | None
    second_seconds: float | None


class Pair(_Document):
    """A model on a machine under both pipelines; `diff`: the tile IR of the kernel that differs most."""

    model: str
    machine: str
    first: Figures
    second: Figures
    kernels: list[ChangedKernel] = Field(default_factory=list)
    diff: str = ""


class Summary(_Document):
    """Over all pairs that compile under both: the geometric mean of second over first, and how often less and more."""

    figure: str
    ratio: float | None
    better: int
    worse: int
    probability: float | None


class Experiment(_Document):
    """The whole outcome."""

    first: str
    second: str
    pairs: list[Pair]
    summary: list[Summary]


@dataclass(frozen=True)
class Pipeline:
    """Passes between clean-up and fusion, and who decides the fusion."""

    text: str
    passes: Sequence[Pass] = ()
    fusion: str = "greedy"

    @staticmethod
    def parse(text: str) -> Pipeline:
        """`default`, or passes as `codesign.opt` takes them; a `fuse{policy=...}` at their end chooses the fusion."""
        if text in ("", "default"):
            return Pipeline("default")
        try:
            passes = parse_pipeline(text)
        except PipelineError as error:
            place = f"pipeline {text!r}, column {error.column}"
            raise CodesignError(error.message, place=place, hint=error.hint) from error
        fusion = "greedy"
        if passes and isinstance(passes[-1], Fuse):
            last = passes.pop()
            assert isinstance(last, Fuse)
            fusion = last.policy
            policy_named(fusion)
            if replace(last, policy="greedy") != Fuse():
                raise CodesignError(
                    f"{last}: only the policy of fusion can be chosen here", hint="as in fuse{policy=none}"
                )
        own_passes(",".join(map(str, passes)))  # refuses what belongs after fusion
        return Pipeline(text, passes, fusion)


def experiment(
    first: Pipeline,
    second: Pipeline,
    models: Sequence[Path],
    machines: Sequence[Machine],
    options: Options,
    steps: Steps,
) -> Experiment:
    """Compile every model for every machine under both pipelines."""
    tick = steps.each("models", len(models) * len(machines))
    pairs = []
    for model in models:
        compiled(
            model, machines[0], Options(verify=False, kernels=False)
        )  # so that neither pipeline pays for the capture
        for machine in machines:
            pairs.append(_pair(first, second, model, machine, options))
            tick()
    return Experiment(first=first.text, second=second.text, pairs=pairs, summary=summarise(pairs))


def _pair(first: Pipeline, second: Pipeline, model: Path, machine: Machine, options: Options) -> Pair:
    sides: list[Compilation | None] = []
    figures = []
    for pipeline in (first, second):
        chosen = replace(options, passes=pipeline.passes, fusion=pipeline.fusion)
        try:
            compilation = compiled(model, machine, chosen)
            sides.append(compilation)
            figures.append(_figures(compilation))
        except CodesignError as error:
            sides.append(None)
            figures.append(Figures(error=error.one_line()))
    pair = Pair(model=model.stem, machine=machine.name, first=figures[0], second=figures[1])
    if sides[0] is not None and sides[1] is not None:
        pair.kernels = changed_kernels(sides[0], sides[1])
        pair.diff = _diff(sides[0], sides[1], pair.kernels)
    return pair


def _figures(compilation: Compilation) -> Figures:
    document = compilation.document
    checks = [document.verified, *(kernel.verified for kernel in document.kernels)]
    ran = [check.ok for check in checks if check is not None]
    return Figures(
        seconds=document.seconds,
        launches=launch_count(document) + sum(call.count for call in document.external_calls),
        dram_bytes=sum(kernel.dram_bytes * kernel.count for kernel in document.kernels),
        peak_memory_bytes=document.peak_memory_bytes,
        compile_seconds=sum(
            s for phase, s in document.phases.items() if phase in ("passes", "schedule", "memory", "kernels")
        ),
        verified=all(ran) if ran else None,
        wrong=next(iter(complaints(document)), "") if not all(ran) else "",
    )


def changed_kernels(first: Compilation, second: Compilation) -> list[ChangedKernel]:
    """Kernels that differ by schedule or, with name and operators in common, by structure, and those of one side alone; those that take most time
    first."""
    left = {kernel.structure: kernel for kernel in first.plan.kernels}
    right = {kernel.structure: kernel for kernel in second.plan.kernels}
    found = [
        _changed("another schedule", one, right[structure])
        for structure, one in left.items()
        if structure in right and one.schedule != right[structure].schedule
    ]
    alone = {_called(kernel): kernel for structure, kernel in left.items() if structure not in right}
    others = {_called(kernel): kernel for structure, kernel in right.items() if structure not in left}
    found += [_changed("another program", one, others[called]) for called, one in alone.items() if called in others]
    found += [_changed("only in the first", one, None) for called, one in alone.items() if called not in others]
    found += [_changed("only in the second", None, other) for called, other in others.items() if called not in alone]
    return sorted(found, key=lambda kernel: -max(kernel.first_seconds or 0.0, kernel.second_seconds or 0.0))


def _called(kernel: PlannedKernel) -> tuple[str, ...]:
    return kernel.name, *kernel.fuses


def _changed(kind: str, one: PlannedKernel | None, other: PlannedKernel | None) -> ChangedKernel:
    kernel = one or other
    assert kernel is not None
    return ChangedKernel(
        kind=kind,
        first=one.name if one else None,
        second=other.name if other else None,
        ops=list(kernel.fuses),
        first_seconds=one.seconds if one else None,
        second_seconds=other.seconds if other else None,
    )


def _diff(first: Compilation, second: Compilation, kernels: Sequence[ChangedKernel]) -> str:
    """A diff of the tile IR of the kernel that takes most time, and of what does most of its operators on the other side."""
    if not kernels:
        return ""
    chosen = kernels[0]
    left = chosen.first or _nearest(chosen.ops, [k for k in kernels if k.first], "first")
    right = chosen.second or _nearest(chosen.ops, [k for k in kernels if k.second], "second")
    texts = [_kernel_text(first, left), _kernel_text(second, right)]
    here, there = f"first @{left}" if left else "first (none)", f"second @{right}" if right else "second (none)"
    return "\n".join(difflib.unified_diff(texts[0].splitlines(), texts[1].splitlines(), here, there, lineterm=""))


def _nearest(ops: Sequence[str], kernels: Sequence[ChangedKernel], side: str) -> str | None:
    shared = [(len(set(ops) & set(kernel.ops)), getattr(kernel, side)) for kernel in kernels]
    best = max(shared, key=lambda pair: pair[0], default=(0, None))
    return best[1] if best[0] else None


def _kernel_text(compilation: Compilation, name: str | None) -> str:
    if name is None:
        return ""
    kernel: Any = compilation.tiled.kernels[name]
    return print_module(Module(name, dict(compilation.tiled.symbols), kernels={name: kernel}))


def summarise(pairs: Sequence[Pair]) -> list[Summary]:
    """Over all pairs, figure by figure; `probability`: Wilcoxon's signed-rank test of the logarithms of the ratios."""
    found = []
    for figure in FIGURES:
        values = [(getattr(pair.first, figure), getattr(pair.second, figure)) for pair in pairs]
        ratios = np.array([second / first for first, second in values if first and second])
        if not len(ratios):
            found.append(Summary(figure=figure, ratio=None, better=0, worse=0, probability=None))
            continue
        logs = np.log(ratios)
        moved = np.abs(logs) > 1e-9
        tested = wilcoxon(logs[moved]).pvalue if moved.sum() >= FEWEST else None
        found.append(
            Summary(
                figure=figure,
                ratio=math.exp(float(logs.mean())),
                better=int((logs[moved] < 0).sum()),
                worse=int((logs[moved] > 0).sum()),
                probability=None if tested is None else float(tested),
            )
        )
    return found


def failures(outcome: Experiment) -> Mapping[str, str]:
    """What did not compile or verify, by model, machine and pipeline."""
    found = {}
    for pair in outcome.pairs:
        for side, figures in (("first", pair.first), ("second", pair.second)):
            if figures.error or figures.wrong:
                found[f"{pair.model} on {pair.machine}, {side}"] = figures.error or figures.wrong
    return found


HEADS = ("model", "machine", "pipeline", "time", "launches", "bytes", "peak memory", "compile", "verified")


def cells(figures: Figures) -> list[str]:
    """Figures as text."""
    if figures.error:
        return [f"failed: {figures.error}", *["–"] * 5]
    verdict = "–" if figures.verified is None else "yes" if figures.verified else "NO"
    return [
        seconds_text(figures.seconds or 0.0),
        f"{figures.launches:,.0f}",
        bytes_text(figures.dram_bytes or 0.0),
        bytes_text(figures.peak_memory_bytes or 0),
        f"{figures.compile_seconds:.2f} s",
        verdict,
    ]
