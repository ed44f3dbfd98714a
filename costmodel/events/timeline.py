"""What a simulation saw: phases of blocks on SMs, how busy each resource was, and which one was in the way at each
moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from codesign.costmodel.events.fluid import NAMES
from codesign.costmodel.gpu.model import TERM_NAMES
from codesign.costmodel.trace_time import microseconds, nanoseconds, slice_times

TERMS = TERM_NAMES
"""What the time was spent on: the terms of the analytic model, with the same meaning."""


@dataclass(frozen=True)
class Span:
    """`blocks` blocks from number `block` on were in `phase` from `start` to `end` (seconds) on each of `sms` SMs from
    `sm` on, in the `slot`-th place; `limit` is what they mostly waited for.
    """

    sm: int
    sms: int
    slot: int
    block: int
    blocks: int
    phase: str
    start: float
    end: float
    limit: str


@dataclass(frozen=True)
class Moment:
    """From `start` on (until the next moment) each resource was busy to the shares `busy` (of NAMES), on `sms` SMs that
    had work.
    """

    start: float
    busy: tuple[float, ...]
    sms: int


@dataclass
class Timeline:
    """The result of a simulation.

    `seconds`: from launch to the last store. `terms`: seconds by what was in the way, summing to `seconds`. `busy`:
    mean utilisation of each resource over the whole time. `steady`: (start, end, blocks) of the stretch that repeats
    what went before and was not simulated event by event. `drain`: seconds added because DRAM could not have moved the
    least traffic, or a unit not have done its work, any earlier.
    """

    kernel: str
    machine: str
    seconds: float
    terms: dict[str, float]
    busy: dict[str, float]
    grid: int
    sms: int
    blocks_per_sm: int
    waves: float
    idle: float
    """Mean share of SMs without work."""
    dram_read_bytes: float
    dram_write_bytes: float
    joules: float
    """Of the kernel's work, without what the machine draws anyway."""
    events: int
    drain: float = 0.0
    steady: tuple[float, float, int] | None = None
    spans: list[Span] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)

    @property
    def bound(self) -> str:
        """The largest term."""
        return max(self.terms, key=lambda name: self.terms[name])

    def to_perfetto(self, sms: int | None = None) -> dict[str, Any]:
        """A trace in the Chrome/Perfetto JSON format: one process per SM (the first `sms` of them), one thread per
        slot, counters of utilisation in per cent. Times are microseconds, as the format asks; processes and threads
        count from 1, as readers take thread 0 for the process itself.
        """
        shown = self.sms if sms is None else min(sms, self.sms)
        events: list[dict[str, Any]] = [
            {"name": "process_name", "ph": "M", "pid": sm + 1, "args": {"name": f"SM {sm}"}} for sm in range(shown)
        ]
        chip = self.sms + 1
        events.append({"name": "process_name", "ph": "M", "pid": chip, "args": {"name": "chip"}})
        for span in self.spans:
            events.extend(_slices(span, shown))
        if self.steady is not None:
            start, end, blocks = self.steady
            name = f"steady state: {blocks} blocks, as before"
            place = {"ph": "X", "cat": "kernel", "pid": chip, "tid": 1, "args": {"stream": 0}}
            events.append({"name": name, **place, **slice_times(start, end)})
        for moment in self.moments:
            level = {name: round(100.0 * value, 2) for name, value in zip(NAMES, moment.busy, strict=True)}
            for name, value in {**level, "SMs with work": moment.sms}.items():
                place = {"ph": "C", "pid": chip, "ts": microseconds(nanoseconds(moment.start))}
                events.append({"name": name, **place, "args": {"value": value}})
        about = {"kernel": self.kernel, "machine": self.machine, "seconds": self.seconds, "terms": self.terms}
        return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": about}


def _slices(span: Span, shown: int) -> Iterator[dict[str, Any]]:
    for sm in range(span.sm, min(span.sm + span.sms, shown)):
        first = span.block + (sm - span.sm) * span.blocks
        yield {
            "name": span.phase,
            "ph": "X",
            "cat": "kernel",
            "pid": sm + 1,
            "tid": span.slot + 1,
            **slice_times(span.start, span.end),
            "args": {"blocks": [first, first + span.blocks - 1], "limit": span.limit, "stream": span.slot},
        }
