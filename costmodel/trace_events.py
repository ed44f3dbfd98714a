"""Events of a trace in the Chrome JSON format, timed so that a reader which keeps whole nanoseconds sees slices whole.

Processes and threads count from 1: readers take thread 0 for the process itself.
"""

from __future__ import annotations

import math
from typing import Any


def called(text: str, process: int, thread: int | None = None) -> dict[str, Any]:
    """The name of a process, or of one of its threads."""
    if thread is None:
        return {"name": "process_name", "ph": "M", "pid": process, "args": {"name": text}}
    return {"name": "thread_name", "ph": "M", "pid": process, "tid": thread, "args": {"name": text}}


def ran(
    name: str, category: str, process: int, thread: int, start: float, end: float, args: dict[str, Any]
) -> dict[str, Any]:
    """A slice of a thread, from `start` to `end` in seconds.

    Readers keep whole nanoseconds and drop a slice that then reaches into its neighbour. So both ends are rounded, and
    the duration is their difference: what ended where the next began still does.
    """
    first, last = _nanoseconds(start), _nanoseconds(end)
    times = {"ts": _microseconds(first), "dur": _microseconds(last - first)}
    return {"name": name, "ph": "X", "cat": category, "pid": process, "tid": thread, **times, "args": args}


def counted(name: str, process: int, start: float, args: dict[str, float]) -> dict[str, Any]:
    """The values of a counter from `start` (in seconds) on."""
    return {"name": name, "ph": "C", "pid": process, "ts": _microseconds(_nanoseconds(start)), "args": args}


def _nanoseconds(seconds: float) -> int:
    """Whole nanoseconds, the nearest."""
    return round(seconds * 1e9)


def _microseconds(whole: int) -> float:
    """Microseconds of whole nanoseconds, such that times 1000 gives them back whether a reader rounds or cuts off."""
    value = whole / 1000.0
    while math.floor(value * 1000.0) < whole:
        value = math.nextafter(value, math.inf)
    return value
