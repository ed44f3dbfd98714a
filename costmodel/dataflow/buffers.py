"""What a program keeps in a core's scratchpad, and what of it lives at the same time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from codesign.ir.index import Index, index

if TYPE_CHECKING:
    from codesign.costmodel.dataflow.selection import Section


@dataclass(eq=False)
class Buffer:
    """Scratchpad of one value. `home`: the innermost loop that has every access to it (None: the loop over programs)."""

    size: Index
    engines: set[str] = field(default_factory=set)
    paths: list[tuple[Section, ...]] = field(default_factory=list)
    first: int = 1 << 30
    last: int = -1
    summed: bool = False
    operand: bool = False
    """A matrix product adds to it; or reads it."""

    @property
    def sums(self) -> bool:
        """Whether the array's own memory may hold it."""
        return self.summed and not self.operand and self.engines <= {"tensor", "vector"}

    @property
    def home(self) -> Section | None:
        common = self.paths[0] if self.paths else ()
        for path in self.paths[1:]:
            length = sum(1 for ours, theirs in zip(common, path, strict=False) if ours is theirs)
            common = common[:length]
        return common[-1] if common else None


@dataclass(frozen=True)
class Crowd:
    """Bytes of buffers that live at once: of loads inside loops, of what engines pass on once a program, of what one engine uses alone, and of sums
    of products, which the array may hold."""

    ahead: Index
    turn: Index
    alone: Index
    sums: Index


def together(buffers: Iterable[Buffer]) -> tuple[Index, ...]:
    """Sums of the sizes of what one engine uses alone, of all sets that live at once."""
    found = [
        _total(b.size for b in some) for some in _at_once([b for b in buffers if len(b.engines) == 1], looped=False)
    ]
    return tuple(dict.fromkeys(found))


def crowds(buffers: Sequence[Buffer]) -> tuple[Crowd, ...]:
    """All sets that live at once, what has slots in a loop for as long as that goes on."""
    found: list[Crowd] = []
    for some in _at_once(buffers, looped=True):
        kinds: dict[str, list[Index]] = {"ahead": [], "turn": [], "alone": [], "sums": []}
        for buffer in some:
            shared = "ahead" if buffer.home is not None else "turn"
            kinds["sums" if buffer.sums else shared if len(buffer.engines) > 1 else "alone"].append(buffer.size)
        found.append(Crowd(**{kind: _total(sizes) for kind, sizes in kinds.items()}))
    return tuple(dict.fromkeys(found))


def _at_once(buffers: Sequence[Buffer], *, looped: bool) -> list[list[Buffer]]:
    """The largest sets of buffers that live at the same time. `looped`: what engines pass on in a loop lives as long as the loop."""
    lives: list[tuple[int, int, Buffer]] = []
    for buffer in buffers:
        home = buffer.home
        first, last = buffer.first, buffer.last
        for path in buffer.paths:
            inside = path[path.index(home) + 1 :] if home is not None else path
            for section in inside:
                first, last = min(first, section.span[0]), max(last, section.span[1])
        if looped and home is not None and len(buffer.engines) > 1:
            first, last = home.span
        lives.append((first, last, buffer))
    sets = {frozenset(i for i, (low, high, _) in enumerate(lives) if low <= at <= high) for at, _, _ in lives}
    largest = sorted(sorted(one) for one in sets if not any(one < other for other in sets))
    return [[lives[i][2] for i in one] for one in largest]


def _total(sizes: Iterable[Index]) -> Index:
    return sum(sizes, index(0))
