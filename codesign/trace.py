"""The predicted run of a compiled model on a GPU or an accelerator as a Chrome/Perfetto trace.

One process is the machine as a profiler of it would see it: its kernels one after the other on a stream, with DRAM bytes a second
and what the time is spent on as counters. Below it each GPU kernel's first launch is shown from inside: what its blocks do on the first
SMs, as the event simulation has it, fitted to the predicted time of the launch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codesign import command
from codesign.backend import AcceleratorBackend
from codesign.backends.accelerator.flat import flatten
from codesign.backends.accelerator.simulate import SimulationResult
from codesign.backends.accelerator.simulate import simulate as simulate_program
from codesign.costmodel.events import simulate
from codesign.costmodel.events.timeline import Timeline
from codesign.costmodel.external import external_seconds
from codesign.costmodel.gpu.strands import restricted
from codesign.costmodel.performed import performed
from codesign.costmodel.trace_events import called, counted, ran
from codesign.document import KernelDocument
from codesign.documents import EXTERNAL
from codesign.ir.errors import CodesignError
from codesign.ir.schedule import ScheduleBatch
from codesign.ir.tensor import Launch
from codesign.pipeline import Compilation
from codesign.totals import times_run

MACHINE = 1
"""Process of the machine; those of the SMs follow."""
MOST_SLICES = 50_000
"""Of blocks on SMs, in all: what a browser still opens at once."""
MOST_ISSUES = 200_000
"""Instructions that engines carry out, in all: what is simulated one by one in seconds."""


@dataclass(frozen=True)
class Running:
    """A kernel or an external call that runs from `start` on for `seconds`, which are `times` runs where a loop comes by more often."""

    name: str
    start: float
    seconds: float
    times: float
    external: bool


def launches(compilation: Compilation) -> list[Running]:
    """What runs, one after the other, by the model's predicted times."""
    seconds = {kernel.name: kernel.seconds for kernel in compilation.document.kernels}
    sizes = compilation.document.symbols
    found, now = [], 0.0
    for op, times in times_run(compilation.tiled.main.body, sizes):
        if isinstance(op, Launch):
            one = Running(op.kernel, now, times * seconds[op.kernel], times, external=False)
        elif isinstance(op, EXTERNAL):
            took = times * external_seconds(op, compilation.machine, sizes).seconds
            one = Running(f"{op.opcode} (external)", now, took, times, external=True)
        else:
            continue
        found.append(one)
        now += one.seconds
    return found


def blocks(compilation: Compilation, kernel: str) -> list[Timeline]:
    """One launch of a kernel in the event simulation, each of the strands that its programs do side by side alone; none where the machine has
    none or it can't be simulated."""
    if compilation.machine.kind != "gpu":
        return []
    summary, schedule = compilation.kernels[kernel].tuned.summary, compilation.kernels[kernel].tuned.schedule
    sizes = summary.sizes(compilation.document.symbols)
    alone = [(strand, restricted(ScheduleBatch.of([schedule]), strand).row(0)) for strand in summary.strands]
    try:
        return [
            simulate(which, compilation.machine, how, sizes)
            for which, how in (performed(*each) for each in alone or [(summary, schedule)])
        ]
    except CodesignError:
        return []


def engines(compilation: Compilation, kernel: str) -> SimulationResult | None:
    """One launch of a kernel on the accelerator's own simulator, with what each engine of each core does when; None where the machine has
    none, where the kernel has no program, or where it issues more than a page can show."""
    backend = compilation.backend
    if not isinstance(backend, AcceleratorBackend):
        return None
    try:
        program = backend.program(compilation.tiled.kernels[kernel])
        if len(flatten(program).number) > MOST_ISSUES:
            return None
        return simulate_program(program, None, compilation.machine, values=False, trace=True)
    except CodesignError:
        return None


def model_trace(compilation: Compilation, sms: int = 4) -> dict[str, Any]:
    """The trace as a JSON document; times are in microseconds, as the format asks.

    `sms`: how many SMs are shown. Slices of blocks are no slices of category `kernel` and of no stream, so that a reader which adds up
    kernels counts each once.
    """
    document = compilation.document
    kernels = {kernel.name: kernel for kernel in document.kernels}
    running = launches(compilation)
    title = f"{document.model} on {document.target}, predicted"
    events = [called(title, MACHINE), called("stream 0", MACHINE, 1)]
    for number, one in enumerate(running):
        events.append(_launch(number, one, kernels.get(one.name)))
        events.extend(_shares(one, kernels.get(one.name)))
    if running:
        events.extend(_counters(running[-1].start + running[-1].seconds, 0.0, {}))
    inside = list(_inside(compilation, running, sms))
    for sm in sorted({event["pid"] for event in inside}):
        events.append(called(f"SM {sm - MACHINE - 1}", sm))
    about = {"model": document.model, "machine": document.target, "seconds": document.seconds, "predicted": True}
    return {"traceEvents": events + inside, "displayTimeUnit": "ns", "otherData": about}


def write_trace(compilation: Compilation, path: Path) -> None:
    """Write the trace; it opens in ui.perfetto.dev and chrome://tracing."""
    command.write_text(path, json.dumps(model_trace(compilation)))


def _launch(number: int, one: Running, kernel: KernelDocument | None) -> dict[str, Any]:
    args: dict[str, Any] = {"stream": 0, "launch": number, "runs": one.times}
    if kernel is not None:
        args |= {"bound by": kernel.bound, "roofline": kernel.roofline_share}
        args |= {"DRAM bytes": kernel.dram_bytes, "from": ", ".join(kernel.source), "schedule": kernel.schedule}
        args["terms, µs"] = {name: round(seconds * 1e6, 3) for name, seconds in kernel.terms.items()}
    return ran(one.name, "kernel", MACHINE, 1, one.start, one.start + one.seconds, args)


def _shares(one: Running, kernel: KernelDocument | None) -> Iterator[dict[str, Any]]:
    """Counters from a launch on: DRAM bytes a second, and the share of its time that each term of the model is."""
    if kernel is None or kernel.seconds <= 0.0:
        return _counters(one.start, 0.0, {})
    shares = {name: seconds / kernel.seconds for name, seconds in kernel.terms.items()}
    return _counters(one.start, kernel.dram_bytes / kernel.seconds, shares)


def _counters(start: float, rate: float, shares: dict[str, float]) -> Iterator[dict[str, Any]]:
    yield counted("DRAM, GB/s", MACHINE, start, {"value": round(rate / 1e9, 3)})
    if shares:
        parts = {name: round(100.0 * share, 2) for name, share in shares.items()}
        yield counted("time spent on, %", MACHINE, start, parts)


def _inside(compilation: Compilation, running: list[Running], sms: int) -> Iterator[dict[str, Any]]:
    """Blocks of the first launch of each kernel on the first SMs; of strands, each of which is simulated alone, one strand after the other."""
    room, seen = MOST_SLICES, set()
    for one in running:
        if one.external or one.name in seen or room <= 0:
            continue
        seen.add(one.name)
        found = blocks(compilation, one.name)
        simulated = sum(timeline.seconds for timeline in found)
        if simulated <= 0.0:
            continue
        scale, begun = one.seconds / one.times / simulated, one.start
        for strand, timeline in enumerate(found):
            for span in timeline.spans:
                start, end = begun + scale * span.start, begun + scale * span.end
                for sm, numbers in span.places(sms):
                    args: dict[str, Any] = {"kernel": one.name, "blocks": numbers, "limit": span.limit}
                    args |= {"strand": strand} if len(found) > 1 else {}
                    args["simulated µs"] = (span.end - span.start) * 1e6
                    yield ran(span.phase, "block", MACHINE + 1 + sm, span.slot + 1, start, end, args)
                    room -= 1
            begun += scale * timeline.seconds
