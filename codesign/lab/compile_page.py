"""The page of a compile: timeline, roofline, ledger, fusion, memory, and each kernel's source beside its tile IR beside its code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from codesign.artifacts import texts as forms
from codesign.backends.accelerator.simulate import SimulationResult
from codesign.backends.accelerator.trace import label as named
from codesign.backends.triton.names import file_names
from codesign.costmodel.events.timeline import Timeline
from codesign.document import KernelDocument
from codesign.ir.core import Module, Value
from codesign.ir.program import ENGINES
from codesign.ir.tensor import Launch
from codesign.ir.text import print_module
from codesign.lab import compile_figures as figures
from codesign.lab.figures import stacked
from codesign.lab.page import Section, page, picture, table, texts
from codesign.pipeline import Compilation
from codesign.report import bytes_text, counted, joules_text, launch_count, part_text, schedule_text, seconds_text
from codesign.trace import blocks, engines, launches

MOST_TEXTS = 60
"""Kernels whose texts are on the page: those that take most time."""
MOST_BARS = 24
MOST_STRANDS = 6
MOST_ROWS = 60
"""Instructions of engines that are said in numbers."""


def compile_page(compilation: Compilation) -> str:
    """The whole page."""
    document = compilation.document
    span = f"{seconds_text(document.seconds_low)} to {seconds_text(document.seconds_high)}"
    energy = "energy not known" if document.energy_joules is None else joules_text(document.energy_joules)
    peak = bytes_text(document.peak_memory_bytes)
    times = f"Predicted {seconds_text(document.seconds)} (90 % interval {span}), {energy}, peak memory {peak}."
    distinct = counted(len(document.kernels), "distinct kernel", "distinct kernels")
    lead = [times, f"{distinct}, {counted(launch_count(document), 'launch', 'launches')}."]
    lead += [f"Warning: {warning}" for warning in document.warnings]
    ordered = sorted(document.kernels, key=lambda kernel: -kernel.seconds * kernel.count)
    sections = [_kernels(compilation, ordered), _timeline(compilation, ordered), _roofline(compilation, ordered)]
    sections += [_ledger(ordered), _fusion(compilation), _memory(compilation), _texts(compilation, ordered)]
    return page(f"{document.model} on {document.target}", lead, sections)


def _kernels(compilation: Compilation, ordered: list[KernelDocument]) -> Section:
    total = compilation.document.seconds or 1.0
    heads = [
        "kernel",
        "share",
        "launches",
        "time each",
        "bound by",
        "roofline",
        "bytes over least",
        "fuses",
        "from",
        "schedule",
        "verified",
    ]
    rows = [
        [
            kernel.name,
            f"{kernel.seconds * kernel.count / total:.1%}",
            kernel.count,
            seconds_text(kernel.seconds),
            kernel.bound,
            f"{kernel.roofline_share:.0%}",
            f"{kernel.dram_bytes / kernel.min_dram_bytes:.2f}" if kernel.min_dram_bytes else "–",
            ", ".join(kernel.ops),
            ", ".join(kernel.source),
            schedule_text(kernel.schedule),
            "–" if kernel.verified is None else "yes" if kernel.verified.ok else "NO",
        ]
        for kernel in ordered
    ]
    return Section("Kernels", [], [table("Kernels by their share of the time", heads, rows)])


def _timeline(compilation: Compilation, ordered: list[KernelDocument]) -> Section:
    found = launches(compilation)
    rows = [[one.name, seconds_text(one.start), seconds_text(one.seconds)] for one in found[: figures.MOST_LAUNCHES]]
    section = Section(
        "Timeline", [], [picture("Predicted launches, one after the other", figures.timeline(found))] if found else []
    )
    if ordered:
        section.parts.extend(_blocks(ordered[0].name, blocks(compilation, ordered[0].name)))
        result = engines(compilation, ordered[0].name)
        if result is not None:
            section.parts.extend(_engines(ordered[0].name, result))
    section.parts.append(table("Launches", ["kernel", "start", "time"], rows))
    return section


def _blocks(kernel: str, found: Sequence[Timeline]) -> list[Markup]:
    """One launch in the event simulation: what blocks do on SMs over time, of each strand alone."""
    parts: list[Markup] = []
    for number, seen in enumerate(found[:MOST_STRANDS], 1):
        which = f"{kernel}, strand {number} of {len(found)} alone," if len(found) > 1 else kernel
        label = f"One launch of {which} in the event simulation: blocks on {seen.sms} SMs, {seen.waves:.2f} waves"
        busy = [[name, f"{share:.0%}"] for name, share in seen.busy.items()]
        parts += [
            picture(label, figures.waves(seen)),
            table(f"How busy resources are in {which.rstrip(',')}", ["resource", "busy"], busy),
        ]
    return parts


def _engines(kernel: str, result: SimulationResult) -> list[Markup]:
    """One launch on the simulator: engines of the first cores over time, and all of them in numbers."""
    shown = figures.first_spans(result)
    if not shown:
        return []
    scale = 1.0 / result.clock_hz
    cores = len({span.core for span in shown})
    used = len({span.core for span in result.trace})
    until = seconds_text(max(span.end for span in shown) * scale)
    label = f"One launch of {kernel} simulated: engines of {cores} of {used} cores, up to {until} (grey: waiting)"
    clocks = result.cycles * result.program.cores or 1.0
    busy = [[e, f"{result.busy[e] / clocks:.1%}", f"{result.stalled[e] / clocks:.1%}"] for e in ENGINES]
    instructions = result.program.instructions()
    rows = [
        [named(instructions[s.number]), s.core, s.engine, *(seconds_text(t * scale) for t in (s.start, s.end - s.start, s.waited))]
        for s in shown[:MOST_ROWS]
    ]  # fmt: skip
    return [
        picture(label, figures.engines(result, shown)),
        table(f"Engines in {kernel}, over all cores", ["engine", "works", "waits"], busy),
        table("What they do first", ["instruction", "core", "engine", "from", "takes", "after waiting"], rows),
    ]


def _roofline(compilation: Compilation, ordered: list[KernelDocument]) -> Section:
    machine, document = compilation.machine, compilation.document
    rows = [
        [k.name, k.flops / k.dram_bytes if k.dram_bytes else None, k.flops / k.seconds if k.seconds else None, f"{k.roofline_share:.0%}"]
        for k in ordered
    ]  # fmt: skip
    peaks = [[name, rate] for name, rate in figures.ceilings(machine, document.kernels).items()]
    parts = [picture("Kernels under the roofline", figures.roofline(machine, document))]
    heads = ["kernel", "operations per byte", "operations per second", "of what is possible"]
    return Section(
        "Roofline",
        [],
        [*parts, table("Kernels", heads, rows), table("Peaks", ["unit", "operations per second"], peaks)],
    )


def _ledger(ordered: list[KernelDocument]) -> Section:
    names = list(dict.fromkeys(term for kernel in ordered for term in kernel.terms))
    shown = {k.name: {term: seconds * k.count * 1e6 for term, seconds in k.terms.items()} for k in ordered[:MOST_BARS]}
    rows = [
        [k.name, *(part_text(k.terms.get(term, 0.0) * k.count, k.seconds * k.count) for term in names)] for k in ordered
    ]
    label = "What the time of all launches of a kernel is spent on"
    parts = [picture(label, stacked(shown, "µs"))] if shown else []
    return Section("Ledger", [], [*parts, table("Terms", ["kernel", *names], rows)])


def _fusion(compilation: Compilation) -> Section:
    launched: dict[str, None] = {}
    edges: dict[tuple[str, str, str], None] = {}
    values: dict[Value, str] = {}
    for op in compilation.tiled.main.body.walk():
        if isinstance(op, Launch):
            for value in op.operands():
                if value in values:
                    edges[values[value], op.kernel, value.name] = None
            values.update(dict.fromkeys(op.results, op.kernel))
            launched[op.kernel] = None
    groups = {kernel.name: kernel.ops for kernel in compilation.document.kernels if kernel.name in launched}
    parts = []
    numbered: dict[tuple[str, str], list[int]] = {}
    makers = {value.name: kernel for value, kernel in values.items()}
    for number, asked in enumerate(compilation.document.fusion, 1):
        if not asked.fused and asked.first in makers and asked.second in makers:
            numbered.setdefault((makers[asked.first], makers[asked.second]), []).append(number)
    if 0 < len(groups) <= figures.MOST_LAUNCHES // 20:
        label = "Kernels in order, which reads what another wrote, and the numbers of the reasons why they are not one"
        parts.append(picture(label, figures.fusion_graph(groups, list(edges), numbered)))
    parts.append(table("Which kernel reads which", ["from", "to", "value"], [list(edge) for edge in edges]))
    rows = [
        [number, e.first, e.second, "fused" if e.fused else "apart", None if e.seconds is None else seconds_text(e.seconds),
         seconds_text(e.apart), e.reason, e.count, " -> ".join(e.kernels)]
        for number, e in enumerate(compilation.document.fusion, 1)
    ]  # fmt: skip
    if rows:
        heads = ["number", "producer", "consumer", "", "as one kernel", "as two", "why", "times", "in"]
        parts.append(table("Why producers and consumers are one kernel or two", heads, rows))
    return Section("Fusion", [], parts)


def _memory(compilation: Compilation) -> Section:
    plan = compilation.memory
    rows = [
        [value.name, bytes_text(buffer.size), buffer.offset, buffer.first, buffer.last]
        for value, buffer in sorted(plan.buffers.items(), key=lambda pair: -pair[1].size)
    ]
    parts = [picture("Intermediates over time", figures.memory(plan))] if rows else []
    heads = ["intermediate", "size", "offset", "from operation", "to operation"]
    text = f"The arena of intermediates is {bytes_text(plan.peak_bytes)}; no plan needs less than {bytes_text(plan.lower_bound_bytes)}."
    return Section("Memory", [text], [*parts, table("Intermediates, the largest first", heads, rows)])


def _texts(compilation: Compilation, ordered: list[KernelDocument]) -> Section:
    stems = file_names(kernel.name for kernel in ordered)
    code = {Path(name).stem: text for name, text in forms(compilation, compilation.backend.form).items() if "/" in name}
    parts = []
    for kernel in ordered[:MOST_TEXTS]:
        tile = Module(
            kernel.name, dict(compilation.tiled.symbols), kernels={kernel.name: compilation.tiled.kernels[kernel.name]}
        )
        beside = [("Source", _source(compilation, kernel.name)), ("Tile IR", print_module(tile))]
        made = code.get(stems[kernel.name])
        if made is not None:
            beside.append((compilation.backend.form.capitalize(), made))
        parts.append(texts(kernel.name, beside))
    return Section("Source, tile IR and code", [], parts)


def _source(compilation: Compilation, kernel: str) -> str:
    """The lines of the user's file that a kernel is from."""
    found: dict[tuple[str, int], None] = {}
    for compute in compilation.kernels[kernel].fusion.computes:
        for leaf in compute.location.leaves():
            if leaf.file and leaf.line:
                found[leaf.file, leaf.line] = None
    lines = []
    for file, number in found:
        lines.append(f"{Path(file).name}:{number}: {_line(file, number)}")
    return "\n".join(lines) or "not from a line of a file"


def _line(file: str, number: int) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()[number - 1].strip()
    except (OSError, UnicodeDecodeError, IndexError):
        return ""
