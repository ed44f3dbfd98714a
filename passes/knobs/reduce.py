"""Ways of a reduction: in the steps of a loop, in one loop with those that it needs, or all of it at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from codesign.ir.schedule import REDUCE_MODES, Schedule
from codesign.passes.knobs.room import Read, Room, Value, register
from codesign.passes.knobs.site import Site
from codesign.passes.knobs.tile import no_such_dim
from codesign.passes.schedule.space import FOLD, LOOPED, RESIDENT, Columns, Ints, Knob


@register
class Reduce(Room):
    """How each reduction dim is gone over: all at once where its tile is all of it, else looped or, where reductions need each other, folded."""

    name = "reduce"
    rank = 50
    default = "looped"

    def values(self, site: Site | None, dim: str = "") -> Sequence[Value]:
        return REDUCE_MODES

    def offered(self, site: Site) -> Iterable[Knob]:
        for dim in site.summary.folding:
            if site.extents[dim] > 1:
                yield Knob(f"reduce.{dim}", (LOOPED, FOLD), FOLD)

    def derive(self, columns: Columns, site: Site) -> Mapping[str, Ints]:
        found: dict[str, Ints] = {}
        for dim in site.summary.inner:
            tile = columns.get(f"tile.{dim}")
            if tile is not None:
                fixed = site.summary.extents[dim].is_constant
                parts = columns.get(f"split.{dim}", 1)
                whole = tile * parts >= site.extents[dim] if fixed else np.zeros(len(tile), np.bool_)
                looped = columns.get(f"reduce.{dim}", LOOPED)
                found[f"reduce.{dim}"] = np.where(whole, RESIDENT, looped).astype(np.int64, copy=False)
        return found

    def said(self, schedule: Schedule) -> Iterator[Read]:
        for dim, mode in schedule.reduce.items():
            yield f"reduce.{dim}", dim, mode

    def wrong(self, value: Value, site: Site | None, dim: str = "") -> str:
        if site is None or dim in site.summary.inner:
            return super().wrong(value, site, dim)
        if dim in site.extents:
            some = ", ".join(site.summary.inner) or "it reduces nothing"
            return f"{dim} is no reduction dim of the kernel, and nothing reads this; reduction dims: {some}"
        return no_such_dim(dim, site.extents)
