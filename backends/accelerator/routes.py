"""What transfers pass: the ports of the memories between a core and theirs, and the links of networks; and what data shared by cores passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from codesign.backends.accelerator.flat import Ints
from codesign.backends.accelerator.timing import Classes, Floats, on_grid
from codesign.costmodel.dataflow.keeping import holders
from codesign.costmodel.dataflow.network import Network
from codesign.costmodel.dataflow.space import passes
from codesign.costmodel.dataflow.target import Target
from codesign.ir.program import Store

Ways = list[tuple[int, float]]
"""The ways of a route, each with the clocks that a transfer takes on it."""


class Routes:
    """Ways are numbered: of each port the way in of each instance, then those out (the same where reads and writes share), then links."""

    def __init__(self, target: Target, classes: Classes, cores: int) -> None:
        self.target, self.classes, self.cores = target, classes, cores
        self.count = 0
        self.inward, self.outward, self.links = [], [], []
        for port in target.ports:
            instances = -(-cores // port.cores)
            self.inward.append(self._some(instances))
            self.outward.append(self._some(instances) if port.write_bytes_per_clock else self.inward[-1])
            self.links.append(self._some(port.network.count * instances) if port.network else self.count)
        self.ends: list[int] = []
        self.ways: list[int] = []
        self.takes: list[float] = []

    def _some(self, count: int) -> int:
        self.count += count
        return self.count - count

    def latencies(self) -> Floats:
        """Of each core, clocks from a request to the first byte out of DRAM."""
        base = sum(port.latency_clocks for port in self.target.ports)
        return np.array(
            [
                on_grid(base + sum(many * net.hop_clocks for net, _, _, many in self.linked((core,), 0)))
                for core in range(self.cores)
            ]
        )

    def linked(self, cores: Sequence[int], outer: int, into: int = 0) -> list[tuple[Network, int, int, int]]:
        """The links that a transfer to some cores (`into`: to their instances of a port's memory) passes, with their network and the number of
        its port: once where a network sends to many, else for each instance that has some of them."""
        found = []
        for number, port in enumerate(self.target.ports[: into or None]):
            net = port.network
            if net is None or number < outer:
                continue
            for group in sorted({core // port.cores for core in cores}):
                instances = sorted({core // net.cores % net.count for core in cores if core // port.cores == group})
                ways = [net.tree(instances)] if port.multicast else [net.ways[instance] for instance in instances]
                times = Counter(link for way in ways for link in way)
                found += [(net, number, group * net.count + link, many) for link, many in sorted(times.items())]
        return found

    def alone(self, cls: int, cores: Iterable[int]) -> Ints:
        """The routes of a class of transfers that each of these cores makes by itself."""
        outer, into, moved = self._figures(cls)
        stores = isinstance(self.classes.costs[cls].item.source, Store)
        ports = [
            (begin, port.cores, on_grid(moved / ((stores and port.write_bytes_per_clock) or port.bytes_per_clock)))
            for begin, port in zip(self.outward if stores else self.inward, self.target.ports, strict=True)
        ][outer : into or None]
        made = []
        for core in cores:
            ways = [(begin + core // sharing, takes) for begin, sharing, takes in ports]
            ways += self._staged((core,), into, moved)
            made.append(self._add(ways + self._over((core,), outer, into, moved)))
        return np.array(made, np.int64)

    def together(self, cls: int, cores: Sequence[int]) -> int:
        """The route of a load that these cores make together."""
        outer, into, moved = self._figures(cls)
        leaves, arrives = passes(self.target, cores)
        ways: Ways = []
        for port, begin, out, reached in list(zip(self.target.ports, self.inward, leaves, arrives, strict=True))[
            outer : into or None
        ]:
            takes = on_grid(moved / port.bytes_per_clock * out / reached)
            ways += [(begin + place, takes) for place in sorted({core // port.cores for core in cores})]
        return self._add(ways + self._staged(cores, into, moved) + self._over(cores, outer, into, moved))

    def _figures(self, cls: int) -> tuple[int, int, float]:
        """The ports of the memories that a class of transfers comes from and is staged in, and its bytes."""
        return self.classes.outer[cls], self.classes.into[cls], self.classes.timed[cls][1]

    def _staged(self, cores: Sequence[int], into: int, moved: float) -> Ways:
        """The ways of the memory that something is staged in for some cores: each instance holds its part where it is spread over them."""
        if not into:
            return []
        port = self.target.ports[into]
        instances = sorted({core // port.cores for core in cores})
        parts = len(instances) if holders(self.target, into) > 1 else 1
        takes = on_grid(moved / parts / (port.write_bytes_per_clock or port.bytes_per_clock))
        return [(self.outward[into] + place, takes) for place in instances]

    def _over(self, cores: Sequence[int], outer: int, into: int, moved: float) -> Ways:
        return [
            (self.links[number] + link, on_grid(moved * many / net.bytes_per_clock))
            for net, number, link, many in self.linked(cores, outer, into)
        ]

    def _add(self, ways: Ways) -> int:
        self.ways += [way for way, _ in ways]
        self.takes += [takes for _, takes in ways]
        self.ends.append(len(self.ways))
        return len(self.ends) - 1
