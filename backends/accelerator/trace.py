"""A run as a Chrome/Perfetto trace: a process per core, a track per engine, and counters of busy engines and memory traffic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from codesign.backends.accelerator.simulate import SimulationResult
from codesign.costmodel.trace_events import called, counted, ran
from codesign.ir.errors import CodesignError
from codesign.ir.program import ENGINES, Instruction, Load, Matmul, Store, Vector


def trace_events(result: SimulationResult) -> list[dict[str, Any]]:
    """Events in the Chrome trace format; times in microseconds of the machine's clock."""
    scale = 1.0 / result.clock_hz
    machine = result.program.cores + 1
    events: list[dict[str, Any]] = []
    instructions = result.program.instructions()
    for core in range(result.program.cores):
        events.append(called(f"core {core}", core + 1))
        for position, name in enumerate(ENGINES):
            track = {"ph": "M", "pid": core + 1, "tid": position + 1}
            events.append(called(name, core + 1, position + 1))
            events.append({**track, "name": "thread_sort_index", "args": {"sort_index": position}})
    changes: dict[str, list[tuple[float, float]]] = {engine: [] for engine in ENGINES}
    for span in result.trace:
        op = instructions[span.number]
        position = ENGINES.index(span.engine)
        args: dict[str, Any] = {"instruction": span.number, "clocks": [span.start, span.end]}
        args |= {"waited_clocks": round(span.waited, 3), "stream": position}
        if op.location.known:
            args["source"] = str(op.location)
        start, end = span.start * scale, span.end * scale
        events.append(ran(label(op), span.engine, span.core + 1, position + 1, start, end, args))
        changes[span.engine] += [(span.start, 1.0), (span.end, -1.0)]
    for engine, moves in changes.items():
        level = 0.0
        for time, change in sorted(moves):
            level += change
            events.append(counted(f"busy {engine}", machine, time * scale, {"cores": level}))
    events.append(called("machine", machine))
    return events


def label(op: Instruction) -> str:
    """What an instruction is called on its track."""
    if isinstance(op, Load):
        return f"load {op.source.name} -> {op.target.source.name}"
    if isinstance(op, Store):
        return f"store {op.source.source.name} -> {op.target.name}"
    if isinstance(op, Matmul):
        return f"matmul {op.target.source.name}"
    if isinstance(op, Vector):
        return f"{op.monoid or 'map'} {op.target.source.name}"
    return "sync"


def write_trace(result: SimulationResult, path: Path) -> None:
    """Write the trace of a run made with `trace=True`; opens in ui.perfetto.dev and chrome://tracing."""
    document = {"traceEvents": trace_events(result), "displayTimeUnit": "ns"}
    try:
        path.write_text(json.dumps(document), encoding="utf-8")
    except OSError as error:
        raise CodesignError(f"the trace can't be written: {error.strerror}", place=str(path)) from error
