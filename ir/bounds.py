"""What is known of the variables of index expressions, and a memory for what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codesign.ir.index import Index


@dataclass(frozen=True)
class Bounds:
    """What is known of variables: `0 <= dim < extent` for dimensions, `low <= symbol <= high` for symbols.

    `high` None means no upper limit is known. Variables that appear in neither are unbounded. The mappings must not
    change afterwards: what follows from them is remembered in `memo`.
    """

    extents: Mapping[str, Index] = field(default_factory=dict)
    symbols: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @staticmethod
    def of(extents: Mapping[str, Index], symbols: Mapping[str, tuple[int, int | None]]) -> Bounds:
        """Bounds of this content, the same ones each time as long as they are remembered, with what was found out under them."""
        return _bounds(tuple(extents.items()), tuple(symbols.items()))

    def with_extents(self, extents: Mapping[str, Index]) -> Bounds:
        """These bounds with more dimensions (a new range replaces an old one)."""
        return Bounds.of({**self.extents, **extents}, self.symbols)

    def remember(self, key: Any, found: Any) -> None:
        """Keep in `memo` what follows from these bounds, which is let go of where it has become much."""
        if len(self.memo) >= REMEMBERED:
            self.memo.clear()
        self.memo[key] = found


REMEMBERED = 1 << 14
"""Facts that are kept of one set of bounds, and substitutions and quotients that are kept in all."""


@lru_cache(maxsize=64)
def _bounds(extents: tuple[tuple[str, Index], ...], symbols: tuple[tuple[str, tuple[int, int | None]], ...]) -> Bounds:
    return Bounds(dict(extents), dict(symbols))
