"""The space of schedules of a kernel on a machine: named knobs, what they may be, and the constraints between them.

Nothing here is a table of good sizes: the values of a knob are all powers of two that the extents, the matrix unit and the machine's
limits allow, and what is good is the cost model's to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.ir.schedule import REDUCE_MODES, Schedule, ScheduleBatch

Ints = npt.NDArray[np.int64]
Columns = Mapping[str, Ints]

LOOPED, RESIDENT, FOLD = (REDUCE_MODES.index(mode) for mode in ("looped", "resident", "fold"))


@dataclass(frozen=True)
class Knob:
    """One choice: the column it fills in a batch, its values in ascending order, and the one to start from."""

    name: str
    values: tuple[int, ...]
    default: int


@dataclass(frozen=True)
class Constraint:
    """A rule between knobs: `holds` says where (vectorised: of each schedule, or once of all), `explain` says in one line why one schedule
    breaks it."""

    name: str
    holds: Callable[[Columns], npt.NDArray[np.bool_]]
    explain: Callable[[Mapping[str, int]], str]


class _Watched(Mapping[str, Ints]):
    """Columns that remember which of them were `read`."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Ints:
        found = self.columns[name]
        self.read.add(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)


@dataclass(frozen=True)
class CodedBatch(ScheduleBatch):
    """A batch that a space made, with the codes that it was made from."""

    codes: Ints | None = None


@dataclass(frozen=True)
class Space:
    """All schedules of a kernel on a machine, as codes [N, knobs] (positions in each knob's values) or as batches.

    `derive` adds columns that follow from the others. `common` is what all schedules share.
    """

    knobs: tuple[Knob, ...]
    constraints: tuple[Constraint, ...] = ()
    derive: Callable[[dict[str, Ints]], dict[str, Ints]] | None = None
    common: Schedule = field(default_factory=Schedule)

    @property
    def points(self) -> int:
        """Points of the product of all knobs, those that break a constraint included: of many knobs more than 64 bits count."""
        return math.prod(len(knob.values) for knob in self.knobs)

    def places(self) -> npt.NDArray[Any]:
        """What each knob's position counts in the number of a code among the points of the space."""
        sizes = [len(knob.values) for knob in self.knobs]
        return _places(sizes)

    def batch(self, codes: Ints) -> ScheduleBatch:
        """Schedules of codes."""
        return CodedBatch(self._columns(codes), self.common, codes)

    def codes_of(self, batch: ScheduleBatch) -> Ints:
        """Codes [N, knobs] of schedules, -1 where a knob is at none of its values; a knob that is not said is at its default."""
        if isinstance(batch, CodedBatch) and batch.codes is not None:
            return batch.codes
        codes = np.zeros((len(batch), len(self.knobs)), np.int64)
        for position, knob in enumerate(self.knobs):
            values = np.array(knob.values, dtype=np.int64)
            column = batch.column(knob.name, knob.default)
            found = np.minimum(np.searchsorted(values, column), len(values) - 1)
            codes[:, position] = np.where(values[found] == column, found, -1)
        return codes

    def legal(self, codes: Ints) -> npt.NDArray[np.bool_]:
        """Which codes meet all constraints."""
        columns = self._columns(codes)
        good = np.ones(len(codes), dtype=np.bool_)
        for constraint in self.constraints:
            good &= constraint.holds(columns)
        return good

    def violations(self, codes: Ints) -> dict[str, int]:
        """How many of the codes break each constraint."""
        columns = self._columns(codes)
        return {c.name: int(np.broadcast_to(~c.holds(columns), (len(codes),)).sum()) for c in self.constraints}

    def explain(self, schedule: Schedule) -> str:
        """Why a schedule is not in the space; empty when it is."""
        row = {name: int(column[0]) for name, column in ScheduleBatch.of([schedule]).columns.items()}
        for knob in self.knobs:
            row.setdefault(knob.name, knob.default)
        columns = {name: np.array([value], dtype=np.int64) for name, value in row.items()}
        for knob in self.knobs:  # each is a value that it has, or follows from others
            value = row[knob.name]
            if value not in knob.values and self._followed(knob, columns) != value:
                return f"{knob.name} = {value}: values are {', '.join(map(str, knob.values))}"
        for constraint in self.constraints:
            if not bool(constraint.holds(columns)[0]):
                return f"{constraint.name}: {constraint.explain(row)}"
        return ""

    def _followed(self, knob: Knob, columns: dict[str, Ints]) -> int:
        """What the others make of a knob."""
        given = {**columns, knob.name: np.array([knob.default], dtype=np.int64)}
        return int((self.derive(given) if self.derive else given)[knob.name][0])

    def enumerate(self, chunk: int = 1 << 16) -> Iterator[Ints]:
        """Codes of all legal schedules, in chunks of at most so many."""
        sizes = [len(knob.values) for knob in self.knobs]
        split = self._read()
        while split < len(sizes) and math.prod(sizes[split:]) > chunk:
            split += 1
        inner = math.prod(sizes[split:])  # points of the last knobs, which no constraint reads
        tails = _positions(np.arange(inner), sizes[split:])
        heads = math.prod(sizes[:split])
        for start in range(0, heads, chunk):
            at = np.arange(start, min(start + chunk, heads))
            codes = np.repeat(self.start(), len(at), axis=0)
            codes[:, :split] = _positions(at, sizes[:split]).T
            legal = codes[self.legal(codes), :split].T
            for first in range(0, legal.shape[1], chunk // inner):
                some = legal[:, first : first + chunk // inner]
                block = np.empty((len(sizes), some.shape[1], inner), np.int64)  # a knob's codes lie together
                block[:split], block[split:] = some[:, :, None], tails[:, None, :]
                yield block.reshape(len(sizes), -1).T

    def _read(self) -> int:
        """How many of the first knobs there are up to the last one that a constraint reads."""
        given = {knob.name: np.array([knob.default], dtype=np.int64) for knob in self.knobs}
        columns = _Watched(self.derive(given) if self.derive else given)
        for constraint in self.constraints:
            constraint.holds(columns)
        names = [knob.name for knob in self.knobs]
        if any(columns.columns[name] is not given.get(name) for name in columns.read):
            return len(names)  # what follows from others may follow from all
        return max((names.index(name) + 1 for name in columns.read), default=0)

    def sample(self, count: int, rng: np.random.Generator) -> Ints:
        """Codes of up to `count` distinct legal schedules, drawn evenly (fewer when the space has no more)."""
        if self.points <= 4 * count:
            codes = np.concatenate([*self.enumerate(), np.zeros((0, len(self.knobs)), np.int64)])
            return codes if len(codes) <= count else codes[rng.choice(len(codes), count, replace=False)]
        found = np.zeros((0, len(self.knobs)), np.int64)
        for _ in range(8):
            drawn = np.stack([rng.integers(len(knob.values), size=2 * count) for knob in self.knobs], axis=1)
            found = unique_rows(np.concatenate([found, drawn[self.legal(drawn)]]))
            if len(found) >= count:
                return found[rng.choice(len(found), count, replace=False)]
        return found

    def start(self) -> Ints:
        """Codes [1, knobs] of every knob's default (which need not be legal together)."""
        return np.array([[knob.values.index(knob.default) for knob in self.knobs]], dtype=np.int64)

    def grid(self, points: Mapping[str, tuple[int, ...]]) -> Ints:
        """Legal codes of the product of some values of some knobs, the others at their default."""
        picked = [[knob.values.index(v) for v in points.get(knob.name, (knob.default,))] for knob in self.knobs]
        sizes = [len(values) for values in picked]
        codes = _positions(np.arange(math.prod(sizes)), sizes).T
        for position, values in enumerate(picked):
            codes[:, position] = np.array(values, dtype=np.int64)[codes[:, position]]
        return codes[self.legal(codes)]

    def neighbours(self, codes: Ints, *, pairs: bool = True) -> Ints:
        """Legal codes one step of one knob, or (with `pairs`) opposite steps of two knobs, away from any of the given."""
        count = len(self.knobs)
        moves = []
        for i in range(count):
            for step in (-1, 1):
                move = np.zeros(count, dtype=np.int64)
                move[i] = step
                moves.append(move)
                for j in range(count if pairs else 0):
                    if j != i:
                        both = move.copy()
                        both[j] = -step
                        moves.append(both)
        if not moves:
            return np.zeros((0, 0), np.int64)
        near = (codes[:, None, :] + np.stack(moves)[None]).reshape(-1, count)
        tops = np.array([len(knob.values) for knob in self.knobs])
        near = unique_rows(near[((near >= 0) & (near < tops)).all(axis=1)])
        return near[self.legal(near)]

    def _columns(self, codes: Ints) -> dict[str, Ints]:
        columns: dict[str, Ints] = {}
        for position, knob in enumerate(self.knobs):
            columns[knob.name] = np.array(knob.values, dtype=np.int64).take(codes[:, position])
        return self.derive(columns) if self.derive else columns


def _places(sizes: Sequence[int]) -> npt.NDArray[Any]:
    """What each position counts in the number of a point of a grid, the last fastest; Python's integers where 64 bits are too few."""
    counts = [math.prod(sizes[place + 1 :]) for place in range(len(sizes))]
    return np.array(counts, dtype=np.int64 if math.prod(sizes) < 1 << 62 else object)


def _positions(numbers: Ints, sizes: Sequence[int]) -> Ints:
    """Positions [dims, N] of points of a grid by number: of as many dims and points as there are, which NumPy's own indexing limits."""
    found, rest = np.zeros((len(sizes), len(numbers)), np.int64), numbers
    for place in reversed(range(len(sizes))):
        rest, found[place] = np.divmod(rest, sizes[place])
    return found


def unique_rows(codes: Ints) -> Ints:
    """The distinct rows, in order of first appearance."""
    if not len(codes) or not codes.shape[1]:
        return codes[:1]
    places = _places((codes.max(axis=0) + 1).tolist())
    if places.dtype != object:  # one number a row sorts faster than rows
        _, first = np.unique(codes @ places, return_index=True)
    else:
        rows = np.ascontiguousarray(codes).view(np.dtype((np.void, codes.itemsize * codes.shape[1])))
        _, first = np.unique(rows.ravel(), return_index=True)
    return codes[np.sort(first)]


def powers_of_two(low: int, high: int) -> tuple[int, ...]:
    """Powers of two from `low` (one itself) up to `high`, at least `low`."""
    values = [low]
    while values[-1] * 2 <= high:
        values.append(values[-1] * 2)
    return tuple(values)


def nearest(values: tuple[int, ...], wanted: float) -> int:
    """The value closest to a wanted one in ratio."""
    return min(values, key=lambda value: abs(np.log2(value / wanted)))


def columns_product(columns: Columns, names: Any) -> Ints | int:
    """The product of some tile columns; dims without a knob count as 1."""
    total: Ints | int = 1
    for name in names:
        column = columns.get(f"tile.{name}")
        if column is not None:
            total = total * column
    return total
