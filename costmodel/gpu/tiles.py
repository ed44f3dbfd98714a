"""The numbers of a batch of schedules in one program's text: elements of tiles, trips of loops, threads of a block."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from codesign.costmodel.gpu.geometry import Array, Geometry
from codesign.costmodel.gpu.program import Dims, Steps


@dataclass
class Tiles:
    """The tiling, and warps of each schedule. `wide`: 1 where warp groups multiply from shared memory, 2 where the results lie in tensor
    memory, else 0. `lanes` of a warp."""

    g: Geometry
    warps: Array
    wide: int
    lanes: float
    known_elements: dict[Dims, Array] = field(default_factory=dict)
    known_trips: dict[Steps, Array] = field(default_factory=dict)
    known: dict[object, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.threads = self.warps * self.lanes

    @cached_property
    def mean_sizes(self) -> dict[str, Array]:
        """What `footprint` reads of the mean tile inside of the domain."""
        return self.g.sizes(self.g.mean)

    def elements(self, dims: Dims) -> Array:
        """Elements of a tile."""
        found = self.known_elements.get(dims)
        if found is None:
            found = 1.0
            for dim in dims:
                found = found * self.g.tile[dim]
            self.known_elements[dims] = found
        return found

    def trips(self, loops: Steps) -> Array:
        """How often a block goes through these loops."""
        found = self.known_trips.get(loops)
        if found is None:
            found = 1.0
            for dim, stretch in loops:
                found = found * (self.g.trips[dim] if stretch is None else self.g.parted[dim, stretch])
            self.known_trips[loops] = found
        return found

    def once(self, work: Callable[..., Any], *args: Hashable) -> Any:
        """What `work` makes of these tiles and of what several texts or parts of one say alike, worked out once."""
        key = work, *args
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = work(self, *args)
        return found

    def times(self, loops: Steps, dims: Iterable[str]) -> Array:
        """The same with the trips of a block that walks by itself along outer dims, for what depends on these dims."""
        found = self.trips(loops)
        for dim in dims:
            if dim in self.g.blocks and dim in self.g.trips:
                found = found * self.g.trips[dim]
        return found

    def held(self, dims: Dims) -> Array:
        """Elements of a tile that one thread holds; a tile smaller than the block is repeated."""
        found: Array = self.once(_held, dims)
        return found

    def lanes_of(self, dims: Dims) -> Array:
        """Lanes that issue for a tile: all threads of a block do, however small it is."""
        found: Array = self.once(_lanes, dims)
        return found


def _held(tiles: Tiles, dims: Dims) -> Array:
    return np.maximum(tiles.elements(dims) / tiles.threads, 1.0)


def _lanes(tiles: Tiles, dims: Dims) -> Array:
    return np.maximum(tiles.elements(dims), tiles.threads)
