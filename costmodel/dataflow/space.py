"""Programs in space: how the splits of a schedule lay a kernel's grid out over the cores, and who needs the same data at the same time.

At each place between the whole chip and the core (clusters, cores, ...) a schedule splits dims into parts. The cores that work on
the parts of one block of programs are a gang; what instances are left make more gangs, to which blocks are dealt out in the grid's order. Where
nothing is split, a gang is one core and a block one program. What a program reads and does not depend on a split dim, the gang's
cores along it read together: once from a memory that can send to many, else once for each instance of the next memory in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from codesign.costmodel.dataflow.shape import Array
from codesign.costmodel.dataflow.target import Target

Parts = Mapping[str, Mapping[str, Array]]
"""By place, into how many parts each dim is split."""


@dataclass(frozen=True)
class Layout:
    """A grid over the cores of a machine, for one schedule or many.

    `parts`: by place (all of the machine's, outermost first), the parts of each dim. `used[place][dim]`: how many of them have a program to
    work on, in the mean over blocks. `gangs`: of cores that work on a block together. `rounds`: programs that a core works on at most.
    `cores`: in use at once, in the mean. `blocks`: of programs along each dim, the slowest first, `whole`: programs of a block along it.
    """

    parts: Sequence[Mapping[str, Array]]
    used: Sequence[Mapping[str, Array]]
    gangs: Array
    rounds: Array
    cores: Array
    blocks: Mapping[str, Array]
    whole: Mapping[str, Array]

    def sharers(self, dims: Iterable[str]) -> list[Array]:
        """For each place, how many of its instances read together what depends on these dims only."""
        needed = set(dims)
        return [_product(n for dim, n in used.items() if dim not in needed) for used in self.used]

    def reach(self, dims: Iterable[str]) -> Array:
        """The last of the first cores that read together what depends on these dims only, as its share of all cores."""
        needed = set(dims)
        position: Array = 1.0
        below: Array = 1.0
        for parts, used in zip(reversed(self.parts), reversed(self.used), strict=True):
            for dim in reversed(list(parts)):
                position = position + (0.0 if dim in needed else (used[dim] - 1.0) * below)
                below = below * used[dim]
        return np.minimum(position / self.cores, 1.0)


def layout(target: Target, grid: Mapping[str, Array], parts: Parts) -> Layout:
    """The layout of a grid (programs by dim) over the machine."""
    split = [{dim: n for dim, n in parts.get(place, {}).items() if dim in grid} for place, _ in target.places]
    whole = {dim: _product(at.get(dim, 1) for at in split) for dim in grid}
    blocks = {dim: -(-np.asarray(extent) // whole[dim]) for dim, extent in grid.items()}
    gangs = _product(count // _product(at.values()) for (_, count), at in zip(target.places, split, strict=True))
    total = _product(blocks.values())
    gangs = np.minimum(gangs, total)
    used = _used(split, {dim: np.asarray(extent) / blocks[dim] for dim, extent in grid.items()})
    rounds = np.ceil(total / gangs)
    return Layout(split, used, gangs, rounds, gangs * _product(_product(at.values()) for at in used), blocks, whole)


def _used(split: Sequence[Mapping[str, Array]], needed: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Parts that have work, filled from the innermost place out."""
    left = dict(needed)
    found: list[dict[str, Array]] = []
    for at in reversed(split):
        found.append({dim: np.minimum(n, left[dim]) for dim, n in at.items()})
        left.update({dim: np.maximum(left[dim] / n, 1.0) for dim, n in at.items()})
    return found[::-1]


def portions(target: Target, sharers: Sequence[Array]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Which part of a core's bytes passes each port outward, and which part arrives in its memory, when so many instances of each place
    read together."""
    ports = target.ports
    inside = [*(port.inside for port in ports[1:]), len(target.places)]
    leaves = tuple(
        1.0 / _product(sharers[port.inside if port.multicast else below :])
        for port, below in zip(ports, inside, strict=True)
    )
    arrives = tuple(1.0 / _product(sharers[port.inside :]) for port in ports)
    return leaves, arrives


def passes(target: Target, cores: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How often data that these cores read together passes each port outward, over all instances, and into how many it arrives."""
    ports = target.ports
    below = [*(port.cores for port in ports[1:]), 1]
    arrives = tuple(len({core // port.cores for core in cores}) for port in ports)
    leaves = tuple(
        into if port.multicast else len({core // size for core in cores})
        for port, into, size in zip(ports, arrives, below, strict=True)
    )
    return leaves, arrives


def worthwhile(target: Target, sharers: Sequence[int]) -> bool:
    """Whether any memory is read less often when so many instances of each place read together."""
    return any(portion < 1.0 for portion in portions(target, sharers)[0])


def users(target: Target, lay: Layout) -> list[Array]:
    """Cores that reach each port through one instance when all that have work are at it."""
    at = [
        count // _product(parts.values()) * _product(used.values())
        for (_, count), parts, used in zip(target.places, lay.parts, lay.used, strict=True)
    ]
    return [_product(at[port.inside :]) for port in target.ports]


def _product(values: Iterable[Array]) -> Array:
    total: Array = 1
    for value in values:
        total = total * value
    return total
