"""What readers of traces keep of one, by their own rules, made again here as the readers themselves are downloads."""

from __future__ import annotations

import math
from typing import Any


def slices_of_perfetto(events: list[dict[str, Any]]) -> int:
    """Slices that Perfetto (v51 to v56) keeps: whole nanoseconds, nested or apart on each track; thread 0 of another
    process is another track, so that it counts as lost."""
    tracks: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for event in events:
        if event["ph"] == "X" and event["tid"] > 0 and event["pid"] > 0 and event["dur"] >= 0:
            start = math.floor(event["ts"] * 1000.0)
            end = start + math.floor(event["dur"] * 1000.0)
            tracks.setdefault((event["pid"], event["tid"]), []).append((start, end))
    kept = 0
    for slices in tracks.values():
        open_ends: list[int] = []
        for start, end in sorted(slices, key=lambda each: (each[0], -each[1])):
            while open_ends and open_ends[-1] <= start:
                open_ends.pop()
            if open_ends and open_ends[-1] < end:
                continue
            open_ends.append(end)
            kept += 1
    return kept


def slices_of_trace_analysis(events: list[dict[str, Any]]) -> int:
    """Slices that HolisticTraceAnalysis 0.5 takes for work of a device."""
    fields = {"ph", "cat", "name", "pid", "tid", "ts", "dur", "args"}
    return sum(
        event["ph"] == "X"
        and fields <= {*event}
        and type(event["args"].get("stream")) is int
        and event["args"]["stream"] >= 0
        for event in events
    )
