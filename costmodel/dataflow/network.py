"""Networks between a memory and the instances of a level inside of it: which links a transfer passes, for a line, a ring and a mesh.

The memory's port is at instance 0. Each other instance is reached over one link from its neighbour on the way: along the line, the shorter way
round the ring, or down the first column of the mesh and then along a row. So links are numbered by the instance that they lead to, transfers to
one instance pass those of its way, and what is sent to many passes each link of the tree of their ways once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import inf

import numpy as np

from codesign.costmodel.dataflow.shape import Array
from codesign.costmodel.levels import Level
from codesign.costmodel.machine import Machine


@dataclass(frozen=True)
class Network:
    """Links of one width between `count` instances of `cores` each; `inside`: how many of the target's places are not inside one instance.

    `bytes_per_clock`: of a link, both ways together; `hop_clocks`: until a byte has passed one more; `joules` of a byte on one (NaN: not known).
    """

    topology: str
    count: int
    columns: int
    cores: int
    inside: int
    bytes_per_clock: Array
    hop_clocks: Array
    joules: float

    def before(self, instance: int) -> int:
        """The neighbour that an instance's link comes from."""
        if self.topology == "mesh":
            return instance - 1 if instance % self.columns else instance - self.columns
        if self.topology == "ring" and 2 * instance > self.count:
            return (instance + 1) % self.count
        return instance - 1

    @cached_property
    def ways(self) -> tuple[tuple[int, ...], ...]:
        """Of each instance, the links to it."""
        found = []
        for instance in range(self.count):
            way = []
            while instance:
                way.append(instance)
                instance = self.before(instance)
            found.append(tuple(way))
        return tuple(found)

    @cached_property
    def _reached(self) -> list[float]:
        """Of each link, the share of the instances that are reached over it."""
        return [sum(link in way for way in self.ways) / self.count for link in range(1, self.count)]

    @property
    def hops(self) -> float:
        """Links on the way to an instance, in the mean."""
        return sum(map(len, self.ways)) / self.count

    def tree(self, instances: Iterable[int]) -> set[int]:
        """The links that are passed on the way to some instances."""
        return {link for instance in instances for link in self.ways[instance]}

    def passed(self, sharers: Array) -> Array:
        """Links that one transfer to so many instances passes, in the mean over which these are."""
        return sum((1.0 - (1.0 - share) ** sharers for share in self._reached), np.zeros(1))

    def busiest(self, sharers: Array) -> Array:
        """The part of such transfers that passes the busiest link."""
        return np.max([1.0 - (1.0 - share) ** np.asarray(sharers) for share in self._reached], axis=0)


def network_of(machine: Machine, level: Level, cores: int, inside: int, clock: float) -> Network | None:
    """What connects a level's instances to the memory of the level around; None where its file says nothing, or there is one instance."""
    if level.network is None or level.fanout == 1:
        return None
    found, where = level.network, f"levels.{level.name}.network"
    joules = found.joules_per_byte
    return Network(
        found.topology,
        level.fanout,
        found.columns,
        cores // machine.instances(level.name),
        inside,
        machine.need(found.link_bandwidth, f"{where}.link_bandwidth") / clock if found.link_bandwidth else inf,
        machine.need(found.hop_seconds, f"{where}.hop_seconds") * clock if found.hop_seconds else 0.0,
        machine.need(joules, f"{where}.joules_per_byte") if joules else float("nan"),
    )
