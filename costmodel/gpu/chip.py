"""A machine's figures as the tile model uses them."""

from __future__ import annotations

from dataclasses import dataclass

from codesign.costmodel.gpu.geometry import Array, halved_l2, port_bytes_per_clock, wide_of
from codesign.costmodel.gpu.lanes import Lanes
from codesign.costmodel.gpu.parameters import Parameters
from codesign.costmodel.machine import Machine


@dataclass(frozen=True)
class Chip:
    """A machine's figures as the model uses them: bytes per second of what a well-made kernel reaches at each level,
    seconds of latency, lanes of an SM. `wide`: 0 where warps multiply fragments, 1 where warp groups do, 2 with tensor
    memory; `bulk` where stores and loads are bulk copies; `halved` where L2 is in two halves."""

    sms: float
    dram: float
    l2: float
    port: float
    shared: float
    cache_bytes: float
    dram_latency: float
    l2_latency: float
    clock: Array
    slower: Array
    lanes: Lanes
    warp: float
    wide: int
    bulk: bool
    halved: bool

    @staticmethod
    def of(machine: Machine, p: Parameters, slower: Array) -> Chip:
        """The figures at a clock that is `slower` (a share) than the highest."""
        dram, l2, vector = machine.level("dram"), machine.level("l2"), machine.unit("vector")
        clock = machine.need(vector.clock_hz, "units.vector.clock_hz") * slower
        l2_bandwidth = machine.need(l2.bandwidth, "levels.l2.bandwidth") * machine.instances("l2")
        return Chip(
            sms=float(machine.instances("shared")),
            dram=memory_bandwidth(machine) * p.dram_efficiency,
            l2=l2_bandwidth * p.l2_efficiency * slower,
            port=port_bytes_per_clock(machine) * clock,
            shared=machine.need(machine.level("shared").bandwidth, "levels.shared.bandwidth"),
            cache_bytes=cache_bytes(machine),
            dram_latency=machine.need(dram.latency_seconds, "levels.dram.latency_seconds"),
            l2_latency=machine.need(l2.latency_seconds, "levels.l2.latency_seconds"),
            clock=clock,
            slower=slower,
            lanes=Lanes.of(machine),
            warp=machine.limit("warp_size"),
            wide=wide_of(machine),
            bulk=bool(machine.features.get("tma", False)),
            halved=halved_l2(machine),
        )


def memory_bandwidth(machine: Machine) -> float:
    """Bytes per second of DRAM as the chip sees it: through the last cache before it where there is one."""
    dram = machine.need(machine.level("dram").bandwidth, "levels.dram.bandwidth")
    if not machine.has_level("llc"):
        return dram
    return min(dram, machine.need(machine.level("llc").bandwidth, "levels.llc.bandwidth") * machine.instances("llc"))


def cache_bytes(machine: Machine) -> float:
    """Capacity of the largest cache before DRAM."""
    capacity = machine.need(machine.level("l2").capacity_bytes, "levels.l2.capacity_bytes") * machine.instances("l2")
    if not machine.has_level("llc"):
        return capacity
    last = machine.need(machine.level("llc").capacity_bytes, "levels.llc.capacity_bytes") * machine.instances("llc")
    return max(capacity, last)
