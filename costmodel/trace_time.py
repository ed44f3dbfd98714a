"""Times of a trace in the Chrome JSON format, so that a reader which keeps whole nanoseconds sees slices whole."""

from __future__ import annotations

import math


def slice_times(start: float, end: float) -> dict[str, float]:
    """`ts` and `dur` of a slice, in microseconds, from its ends in seconds.

    Readers keep whole nanoseconds and drop a slice that then reaches into its neighbour. So both ends are rounded, and
    the duration is their difference: what ended where the next began still does.
    """
    first, last = nanoseconds(start), nanoseconds(end)
    return {"ts": microseconds(first), "dur": microseconds(last - first)}


def nanoseconds(seconds: float) -> int:
    """Whole nanoseconds, the nearest."""
    return round(seconds * 1e9)


def microseconds(whole: int) -> float:
    """Microseconds of whole nanoseconds, such that times 1000 gives them back whether a reader rounds or cuts off."""
    value = whole / 1000.0
    while math.floor(value * 1000.0) < whole:
        value = math.nextafter(value, math.inf)
    return value
