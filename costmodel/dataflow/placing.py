"""Where buffers lie in a core's memories: which of them have slots, and at which addresses, in the model and in lowered programs.

What two engines touch has slots, one for each iteration in flight of the loop that it lives in (or of that over programs), and addresses
of its own; the rest shares addresses where lives do not overlap. Where that doesn't fit, it is given up step by step (`CHOICES`).
Buffers are placed first-fit, the largest first; sums of products lie in the array's own memory as far as it has room.

Written in the part of Python that `native` translates, for one schedule a row.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.costmodel.dataflow.buffers import Buffer
from codesign.costmodel.dataflow.shape import Array
from codesign.costmodel.native import (
    FloatsByRow,
    IntsByRow,
    Routine,
    RowFloat,
    RowInt,
    TableByRow,
    at,
    mask,
    put,
    some,
    where,
)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

ALIGNMENT = 64
ALWAYS = 1 << 40
"""A position after all others."""
ALONE, IN_LOOP, IN_PROGRAMS = range(3)
"""What a buffer may have slots for: nothing; iterations of a loop; programs."""
CHOICES = 6
"""In the order in which they are tried: all slots, without those of programs, none; each first with addresses apart, then with shared ones."""


@dataclass
class Placing:
    """Buffers (`count`) under so many schedules (`rows`), in memories of so many bytes (`core`, `array`).

    By buffer: see Life. By row: `sizes` and the `slots` that buffers have if they have them, and for each pair of choices the
    order by size (`orders`). Found by row: the `choice`, bytes of the core's memory (`held`; where nothing fits, of the last
    choice), and by buffer its `place`, whether that is `near` the array, and its bytes with all slots (`whole`).
    State of a row: lives (`first`, `last`) under the choice that is tried.
    """

    rows: int
    count: int
    core: int
    array: int
    of: Ints
    sums: Ints
    low: Ints
    begin: Ints
    end: Ints
    high: IntsByRow
    sizes: IntsByRow
    slots: IntsByRow
    orders: IntsByRow
    choice: IntsByRow
    held: FloatsByRow
    place: TableByRow
    near: TableByRow
    whole: TableByRow
    first: TableByRow
    last: TableByRow


def live(p: Placing, choice: int, active: RowInt) -> None:
    """Bytes of all slots, and from when to when buffers live, under a choice."""
    apart = 1 - choice % 2
    b = 0
    while b < p.count:
        many = p.slots[b] * 0 + 1
        if (p.of[b] == IN_LOOP and choice < 4) or (p.of[b] == IN_PROGRAMS and choice < 2):
            many = p.slots[b]
        size = (p.sizes[b] * many + (ALIGNMENT - 1)) // ALIGNMENT * ALIGNMENT
        first = where(many > 1, p.begin[b], p.low[b])
        last = where(many > 1, p.end[b], p.high[b])
        if apart == 1 and p.of[b] != ALONE:
            first = 0
            last = ALWAYS
        put(p.whole, b, where(active, size * 1.0, at(p.whole, b)))
        put(p.first, b, where(active, first * 1.0, at(p.first, b)))
        put(p.last, b, where(active, last * 1.0, at(p.last, b)))
        b += 1


def lay(p: Placing, order: int, level: int, active: RowInt) -> RowFloat:
    """Give the buffers of a level their places, from an order by size; returns the end of the last one."""
    top = p.held[0] * 0.0
    rank = 0
    while rank < p.count:
        item = p.orders[order + rank]
        mine = at(p.whole, item)
        here = mask(active & (at(p.near, item) == level) & (mine > 0.0))
        free = mine * 0.0
        again = here
        while some(again):
            moved = mine < 0.0
            before = 0
            while before < rank:
                other = p.orders[order + before]
                start = at(p.place, other)
                size = at(p.whole, other)
                hit = again & (at(p.near, other) == level) & (start < free + mine) & (free < start + size)
                hit = hit & (at(p.first, other) <= at(p.last, item)) & (at(p.first, item) <= at(p.last, other))
                free = where(hit, start + size, free)
                moved = moved | hit
                before += 1
            again = mask(moved)
        put(p.place, item, where(here, free, at(p.place, item)))
        top = where(here & (free + mine > top), free + mine, top)
        rank += 1
    return top


def near_sums(p: Placing, order: int, active: RowInt) -> None:
    """Choose the sums that the array's memory holds: each in turn that has room beside those before."""
    b = 0
    while b < p.count:
        put(p.near, b, where(active, 0.0, at(p.near, b)))
        b += 1
    if p.array == 0:
        return
    b = 0
    while b < p.count:
        if p.sums[b] == 1:
            put(p.near, b, where(active, 1.0, at(p.near, b)))
            fits = lay(p, order, 1, active) <= p.array
            put(p.near, b, where(active & (1 - fits), 0.0, at(p.near, b)))
        b += 1


def arrange(p: Placing) -> None:
    """Try the choices until one fits."""
    active = mask(p.choice[0] == 0)
    choice = 0
    while choice < CHOICES:
        order = choice // 2 * p.count
        live(p, choice, active)
        near_sums(p, order, active)
        lay(p, order, 1, active)
        top = lay(p, order, 0, active)
        p.held[0] = where(active, top, p.held[0])
        p.choice[0] = where(active, choice, p.choice[0])
        active = mask(active & (p.held[0] > p.core))
        if not some(active):
            break
        choice += 1


@dataclass(frozen=True)
class Placed:
    """Where buffers lie under some schedules, or under one for all: see Placing."""

    choice: Ints
    held: Floats
    place: Floats
    near: Floats
    whole: Floats

    def of(self, rows: slice | Ints) -> Placed:
        """Under some of the schedules."""
        if len(self.choice) == 1:
            return self
        choice, (held, place, near, whole) = (
            self.choice[rows],
            (np.ascontiguousarray(column[rows]) for column in (self.held, self.place, self.near, self.whole)),
        )
        return Placed(choice, held, place, near, whole)


def having_slots(choice: int) -> tuple[int, ...]:
    """What still has slots under a choice."""
    return ((IN_LOOP, IN_PROGRAMS), (IN_LOOP,), ())[choice // 2]


def kind_of(buffer: Buffer) -> int:
    """What a buffer may have slots for."""
    if len(buffer.engines) == 1:
        return ALONE
    return IN_PROGRAMS if buffer.home is None else IN_LOOP


@dataclass(frozen=True)
class Life:
    """What decides of the place of a buffer besides its bytes: what it may have slots `of`, whether the array's own memory may hold it
    (`sums`), from when to when it is in use (`low`, `high`), and how long the loop goes on whose iterations have slots (`begin`, `end`)."""

    of: int
    sums: bool
    low: int
    high: int
    begin: int = 0
    end: int = ALWAYS


@dataclass(frozen=True)
class Lives:
    """The lives of several buffers, by number. `through`: a part, what it reads, and until when that lives instead where the part has no bytes."""

    of: Ints
    sums: Ints
    low: Ints
    high: Ints
    begin: Ints
    end: Ints
    through: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def of_each(cls, lives: Sequence[Life], through: tuple[tuple[int, int, int], ...] = ()) -> Lives:
        table = [(life.of, life.sums, life.low, life.high, life.begin, life.end) for life in lives]
        of, sums, low, high, begin, end = np.array(table, np.int64).reshape(-1, 6).T.copy()
        return cls(of, sums, low, high, begin, end, through)

    @classmethod
    def of_buffers(cls, buffers: Sequence[Buffer]) -> Lives:
        """Those of a text."""
        numbers = {id(buffer): number for number, buffer in enumerate(buffers)}
        lives: list[Life] = []
        for buffer in buffers:
            home = buffer.home
            lives.append(
                Life(
                    kind_of(buffer),
                    buffer.sums,
                    *buffer.life_beside_parts,
                    *((0, ALWAYS) if home is None else home.span),
                )
            )
        read = ((numbers[id(part)], numbers[id(b)], position) for b in buffers for part, position in b.through)
        return cls.of_each(lives, tuple(read))

    def highs(self, sizes: Ints) -> Ints:
        """Until when each is in use, where they have so many bytes (`sizes`): a row for each row, or one for all."""
        high = self.high[None]
        if self.through:
            high = np.repeat(high, len(sizes), axis=0)
            for part, read, position in self.through:
                longer = np.where(sizes[:, part] == 0, position, 0)
                high[:, read] = np.maximum(high[:, read], longer)
        return np.ascontiguousarray(high)


@dataclass(frozen=True, eq=False)
class Storage:
    """The buffers of a text; and what follows from its stages alone, by what it is of (`known`)."""

    buffers: tuple[Buffer, ...]
    known: dict[Hashable, Any] = field(default_factory=dict)

    @cached_property
    def lives(self) -> Lives:
        """Those of the buffers."""
        return Lives.of_buffers(self.buffers)


def placed(
    lives: Lives,
    sizes: Sequence[Array],
    depth: Array,
    slots: Array,
    core: int,
    array: int,
    *,
    compiled: bool = True,
) -> Placed:
    """Lay buffers of so many bytes out under all schedules. `depth`: steps of loops in flight at most, `slots`: programs."""
    columns = np.stack(
        np.broadcast_arrays(*(np.asarray(column, np.int64) for column in (depth, slots, *sizes))), axis=-1
    )
    different, which = _different(columns.reshape(-1, columns.shape[-1]))
    loops, programs = lives.of == IN_LOOP, lives.of == IN_PROGRAMS
    many = np.where(loops, different[:, :1], np.where(programs, different[:, 1:2], 1))
    return placed_by_life(lives, different[:, 2:], many, core, array, compiled=compiled).of(which)


def placed_by_life(lives: Lives, sizes: Ints, slots: Ints, core: int, array: int, *, compiled: bool = True) -> Placed:
    """Lay out what lives so long, in each row with other bytes (`sizes`, of one slot) and `slots` wanted (one for what has none)."""
    rows, count = sizes.shape
    having = [np.isin(lives.of, having_slots(choice)) for choice in range(0, CHOICES, 2)]
    bytes_ = sizes[:, None] * np.where(having, slots[:, None], 1)
    orders = np.argsort(-(-(-bytes_ // ALIGNMENT) * ALIGNMENT), axis=2, kind="stable")
    table = Placing(
        rows=rows,
        count=count,
        core=core,
        array=array,
        of=lives.of,
        sums=lives.sums,
        low=lives.low,
        begin=lives.begin,
        end=lives.end,
        high=lives.highs(sizes),
        sizes=np.ascontiguousarray(sizes),
        slots=np.ascontiguousarray(slots),
        orders=np.ascontiguousarray(orders.reshape(rows, -1)),
        choice=np.zeros((rows, 1), np.int64),
        held=np.zeros((rows, 1)),
        place=np.zeros((rows, count)),
        near=np.zeros((rows, count)),
        whole=np.zeros((rows, count)),
        first=np.zeros((1, count)),
        last=np.zeros((1, count)),
    )
    arrange_all(table, compiled=compiled)
    return Placed(table.choice[:, 0], table.held[:, 0], table.place, table.near, table.whole)


@lru_cache(maxsize=64)
def _weights(count: int) -> Ints:
    """Odd numbers."""
    return np.random.default_rng(0).integers(1 << 62, size=count) | 1


def _different(columns: Ints) -> tuple[Ints, Ints]:
    """The different rows, and which of them each row is; by their sums at odd weights, and all rows where two have the same sum."""
    if len(columns) == 1:
        return columns, np.zeros(1, np.int64)
    sums = columns @ _weights(columns.shape[1])  # modulo 2^64
    _, first, which = np.unique(sums, return_index=True, return_inverse=True)
    which = which.reshape(-1)
    if not np.array_equal(columns[first][which], columns):
        return columns, np.arange(len(columns))
    return columns[first], which


arrange_all = Routine(Placing, live, lay, near_sums, arrange)
