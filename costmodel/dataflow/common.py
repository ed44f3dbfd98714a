"""What the texts of one group have in common under a batch of schedules: each figure is worked out once, for all of the batch.

Texts differ in loops, masks and guards; most of their loads, products and sizes are the same expressions of the tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

from codesign.costmodel.dataflow.shape import Array, Shape
from codesign.costmodel.dataflow.target import Target
from codesign.ir.index import Index

T = TypeVar("T")


class Common:
    """Figures under a batch of schedules (`shape`), by what they are of."""

    def __init__(self, target: Target, shape: Shape, dataflow: str = "") -> None:
        self.target = target
        self.shape = shape
        self.dataflow = dataflow
        self.sizes: dict[str, Array] = dict(shape.symbols)
        self.named: dict[str, str] = {}
        """By symbol of a tile's size, its dim."""
        self._known: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is known by a key, or is made now."""
        if key not in self._known:
            self._known[key] = make()
        found: T = self._known[key]
        return found

    def at(self, expression: Index) -> Array:
        """The value of an expression under all schedules."""
        return self.once(expression, lambda: expression.evaluate(self.sizes))

    def name(self, tiles: Mapping[str, str]) -> bool:
        """Take a text's symbols of dims' tiles; False where another text calls another dim so."""
        if any(self.named.get(symbol, dim) != dim for dim, symbol in tiles.items()):
            return False
        for dim, symbol in tiles.items():
            self.named[symbol], self.sizes[symbol] = dim, self.shape.tile[dim]
        return True
