"""Pictures of a compiled model: its launches in time, its kernels under the roofline, its memory, and blocks on SMs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from codesign.backends.accelerator.engine import Span
from codesign.backends.accelerator.simulate import SimulationResult
from codesign.costmodel.events.timeline import Timeline
from codesign.costmodel.machine import Machine
from codesign.document import KernelDocument, ModelDocument
from codesign.ir.program import ENGINES
from codesign.lab.figures import COLOURS, style, svg
from codesign.passes.memory import MemoryPlan
from codesign.trace import Running

MOST_LAUNCHES = 2000
MOST_SPANS = 3000
MOST_NAMED = 12
MOST_CORES = 4
BELOW: dict[str, Any] = {
    "loc": "upper center",
    "bbox_to_anchor": (0.5, -0.16),
    "ncols": 4,
    "frameon": False,
    "fontsize": 8,
}
"""Where a legend hides nothing of a picture that has another beside it."""


def timeline(found: Sequence[Running]) -> str:
    """Launches as bars, a row for each kernel."""
    shown = found[:MOST_LAUNCHES]
    names = list(dict.fromkeys(one.name for one in shown))

    def draw(axes: Any) -> None:
        for position, name in enumerate(names):
            bars = [(one.start * 1e6, one.seconds * 1e6) for one in shown if one.name == name]
            axes.broken_barh(bars, (len(names) - position - 1.4, 0.8), facecolors=COLOURS[position % len(COLOURS)])
        axes.set_yticks(np.arange(len(names)) - 0.0, names[::-1])
        axes.set(xlabel="µs", ylim=(-0.6, len(names) - 0.4), xlim=(0, None))
        axes.grid(axis="x", alpha=0.3)

    return svg(draw, height=1.2 + 0.3 * max(len(names), 2))


def ceilings(machine: Machine, kernels: Sequence[KernelDocument]) -> dict[str, float]:
    """Peaks that the kernels could reach, by unit and dtype, in operations a second."""
    found: dict[str, float] = {}
    dtypes = list(dict.fromkeys(dtype for kernel in kernels for dtype in kernel.issued.multiply_adds))
    for unit, dtype in [("tensor", dtype) for dtype in dtypes] + [("vector", "f32")]:
        rate = machine.rate(unit, dtype) if machine.has_unit(unit) else None
        if rate:
            found[f"{unit} {dtype}"] = rate
    return found


def roofline(machine: Machine, document: ModelDocument) -> str:
    """Every kernel under the ceilings of its machine: operations a second over operations a byte of DRAM."""
    kernels = [kernel for kernel in document.kernels if kernel.flops > 0 and kernel.dram_bytes > 0]
    bandwidth = machine.levels[0].bandwidth
    slope = bandwidth.value if bandwidth is not None and bandwidth.value else None
    peaks = ceilings(machine, document.kernels)

    def draw(axes: Any) -> None:
        intensities = [kernel.flops / kernel.dram_bytes for kernel in kernels] or [1.0]
        most = max(peaks.values(), default=1e12)
        low = min([*intensities, 1.0]) / 4
        high = max([*intensities, most / slope if slope else 1.0]) * 4
        across = np.geomspace(low, high, 64)
        for position, (name, peak) in enumerate(peaks.items()):
            roof = np.minimum(peak, across * slope) if slope else np.full_like(across, peak)
            axes.plot(across, roof, color="black", linestyle=("-", "--", ":")[position % 3], linewidth=1, label=name)
        for position, (kernel, intensity) in enumerate(zip(kernels, intensities, strict=True)):
            label = kernel.name if position < MOST_NAMED else None
            colour = COLOURS[position % len(COLOURS)]
            axes.plot(
                [intensity],
                [kernel.flops / kernel.seconds],
                "o^sDvP*X"[position // len(COLOURS) % 8],
                color=colour,
                label=label,
            )
        axes.set(xscale="log", yscale="log", xlabel="operations per byte of DRAM", ylabel="operations per second")
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)

    return svg(draw, height=4.6)


def live_bytes(plan: MemoryPlan) -> list[int]:
    """Bytes of intermediates that are live at each op."""
    last = max((buffer.last for buffer in plan.buffers.values()), default=-1)
    change = np.zeros(last + 2, dtype=np.int64)
    for buffer in plan.buffers.values():
        change[buffer.first] += buffer.size
        change[buffer.last + 1] -= buffer.size
    found: list[int] = np.cumsum(change)[: last + 1].tolist()
    return found


def memory(plan: MemoryPlan) -> str:
    """Live intermediates over the ops of the model, and the arena that holds them."""
    live = live_bytes(plan)

    def draw(axes: Any) -> None:
        axes.stairs(np.array(live) / 2**20, fill=True, alpha=0.4, color=COLOURS[0], label="live intermediates")
        axes.axhline(plan.peak_bytes / 2**20, color=COLOURS[1], linestyle="--", label="arena")
        axes.set(xlabel="operation of the model, in order", ylabel="MiB")
        axes.legend(frameon=False)

    return svg(draw, height=3.2)


def waves(found: Timeline) -> str:
    """Phases of blocks on the SMs over time, and how busy each resource is."""
    from codesign.costmodel.events.fluid import NAMES

    spans = [span for span in found.spans if span.slot == 0][:MOST_SPANS]
    phases = list(dict.fromkeys(span.phase for span in spans))

    def draw(axes: Any) -> None:
        top, bottom = axes
        for position, phase in enumerate(phases):
            for span in (span for span in spans if span.phase == phase):
                bar = [(span.start * 1e6, (span.end - span.start) * 1e6)]
                top.broken_barh(
                    bar,
                    (span.sm, span.sms),
                    facecolors=COLOURS[position % len(COLOURS)],
                    edgecolor="white",
                    linewidth=0.2,
                )
            top.plot([], [], color=COLOURS[position % len(COLOURS)], linewidth=6, label=phase)
        top.set(ylabel="SM", xlabel="µs", ylim=(0, found.sms))
        top.legend(**BELOW)
        starts = [moment.start * 1e6 for moment in found.moments]
        for position, name in enumerate(NAMES):
            share = [100 * moment.busy[position] for moment in found.moments]
            bottom.step(starts, share, where="post", label=name, **style(position))
        bottom.set(ylabel="busy, %", xlabel="µs", ylim=(0, 105))
        bottom.legend(**BELOW)

    return svg(draw, height=4.4, columns=2)


def engines(result: SimulationResult, shown: Sequence[Span]) -> str:
    """What each engine of some cores does over time, and where it waits (grey)."""
    scale = 1e6 / result.clock_hz
    cores = sorted({span.core for span in shown})
    rows = [(core, engine) for core in cores for engine in ENGINES]
    places = {row: len(rows) - 1 - position for position, row in enumerate(rows)}

    def draw(axes: Any) -> None:
        for position, engine in enumerate(ENGINES):
            for core in cores:
                own = [span for span in shown if (span.core, span.engine) == (core, engine)]
                at = places[core, engine]
                waits = [((span.start - span.waited) * scale, span.waited * scale) for span in own if span.waited]
                bars = [(span.start * scale, (span.end - span.start) * scale) for span in own]
                axes.broken_barh(waits, (at - 0.15, 0.3), facecolors="#c8c8c8")
                axes.broken_barh(bars, (at - 0.4, 0.8), facecolors=COLOURS[position], edgecolor="white", linewidth=0.2)
        axes.set_yticks(list(places.values()), [f"core {core}, {engine}" for core, engine in places])
        axes.set(xlabel="µs", ylim=(-0.6, len(rows) - 0.4), xlim=(0, None))
        axes.grid(axis="x", alpha=0.3)

    return svg(draw, height=1.2 + 0.28 * max(len(rows), 2))


def first_spans(result: SimulationResult) -> list[Span]:
    """Of the first cores that do anything, what they do, as much as a picture holds: whole cores, or the beginning of one."""
    by_core: dict[int, list[Span]] = {}
    for span in sorted(result.trace, key=lambda span: (span.core, span.start)):
        by_core.setdefault(span.core, []).append(span)
    found: list[Span] = []
    for spans in list(by_core.values())[:MOST_CORES]:
        if found and len(found) + len(spans) > MOST_SPANS:
            break
        found += spans[:MOST_SPANS]
    return found


def fusion_graph(
    groups: Mapping[str, Sequence[str]],
    edges: Sequence[tuple[str, str, str]],
    numbered: Mapping[tuple[str, str], Sequence[int]],
) -> str:
    """Kernels in the order that they run, with arcs where one reads what another wrote; `edges`: from, to, words.

    `numbered`: of two kernels that were asked about and stayed apart, the numbers of the reasons.
    """
    names = list(groups)
    places = {name: -position for position, name in enumerate(names)}

    def draw(axes: Any) -> None:
        for name, ops in groups.items():
            words = ", ".join(ops[:6]) + (" …" if len(ops) > 6 else "")
            box = {"boxstyle": "round", "facecolor": "#eef3f8", "edgecolor": "#00518a"}
            axes.text(0.0, places[name], f"{name}: {words}", ha="left", va="center", bbox=box, fontsize=9)
        longest = max((abs(places[a] - places[b]) for a, b, _ in edges if a in places and b in places), default=1)
        for position, (first, second) in enumerate(dict.fromkeys((first, second) for first, second, _ in edges)):
            if first not in places or second not in places:
                continue
            start, end = places[first], places[second]
            out = -0.1 - 0.9 * abs(start - end) / longest - 0.07 * (position % 3)  # apart from others as long
            axes.plot([-0.05, out, out], [start, start, end], color="#444", linewidth=1)
            axes.annotate("", xy=(-0.05, end), xytext=(out, end), arrowprops={"arrowstyle": "->", "color": "#444"})
            if (first, second) in numbered:
                why = ", ".join(map(str, numbered[first, second]))
                box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": COLOURS[1]}
                axes.text(out, (start + end) / 2, why, ha="center", va="center", fontsize=8, color=COLOURS[1], bbox=box)
        axes.set(xlim=(-1.3, 3.0), ylim=(-len(names) + 0.4, 0.6))
        axes.axis("off")

    return svg(draw, height=0.6 + 0.42 * max(len(names), 2))
