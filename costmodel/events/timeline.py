"""What a simulation saw: phases of blocks on SMs, how busy each resource was, and which one was in the way at each
moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from codesign.costmodel.events.fluid import NAMES
from codesign.costmodel.gpu.model import TERM_NAMES
from codesign.costmodel.trace_events import called, counted, ran

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

    def places(self, shown: int) -> Iterator[tuple[int, list[int]]]:
        """Those of the first `shown` SMs that it was on, each with the first and the last of its blocks there."""
        for sm in range(self.sm, min(self.sm + self.sms, shown)):
            first = self.block + (sm - self.sm) * self.blocks
            yield sm, [first, first + self.blocks - 1]


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
        slot, counters of utilisation in per cent. Times are microseconds, as the format asks.
        """
        shown = self.sms if sms is None else min(sms, self.sms)
        chip = self.sms + 1
        events = [*(called(f"SM {sm}", sm + 1) for sm in range(shown)), called("chip", chip)]
        for span in self.spans:
            for sm, blocks in span.places(shown):
                args = {"blocks": blocks, "limit": span.limit, "stream": span.slot}
                events.append(ran(span.phase, "kernel", sm + 1, span.slot + 1, span.start, span.end, args))
        if self.steady is not None:
            start, end, count = self.steady
            events.append(ran(f"steady state: {count} blocks, as before", "kernel", chip, 1, start, end, {"stream": 0}))
        for moment in self.moments:
            level = {name: round(100.0 * value, 2) for name, value in zip(NAMES, moment.busy, strict=True)}
            for name, value in {**level, "SMs with work": moment.sms}.items():
                events.append(counted(name, chip, moment.start, {"value": value}))
        about = {"kernel": self.kernel, "machine": self.machine, "seconds": self.seconds, "terms": self.terms}
        return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": about}
