"""Schedules: how a kernel's iteration domain is cut, ordered and staged on the levels of a machine.

A `Schedule` is immutable plain data (JSON) and says the same on every machine; a `ScheduleBatch` is many of them as
columns of integers, which is what cost models evaluate.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import factorial
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.ir.errors import ScheduleError

Knob = int | str | bool


@dataclass(frozen=True)
class AtLevel:
    """How a kernel lies on one level of a machine.

    `split`: into how many parts a dim is split in space over the level's instances (below one instance of the level around it). `tile`:
    so much of a dim an instance works on at a time, at most. `order`: its loops over those tiles, slowest first; dims that it leaves out come after
    them as the grid walks them. `stage`: operands that are held there
    (`operand_name`), with their buffers.
    """

    split: Mapping[str, int] = field(default_factory=dict)
    tile: Mapping[str, int] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    stage: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data, without what is empty."""
        counts = {name: dict(getattr(self, name)) for name in AT_LEVEL}
        return {key: value for key, value in {**counts, "order": list(self.order)}.items() if value}

    def with_count(self, what: str, name: str, value: int) -> AtLevel:
        """The same with one of its numbers set."""
        changed: dict[str, Any] = {what: {**getattr(self, what), name: value}}
        return replace(self, **changed)

    @staticmethod
    def from_json(path: str, data: Any) -> AtLevel:
        """From plain data; ScheduleError names a field that is wrong."""
        given = _mapping(path, data)
        _only_known(path, given, (*AT_LEVEL, "order"))
        counts = {
            name: {
                str(k): _positive(f"{path}.{name}.{k}", v)
                for k, v in _mapping(f"{path}.{name}", given.get(name, {})).items()
            }
            for name in AT_LEVEL
        }
        return AtLevel(**counts, order=_order(f"{path}.order", given.get("order", [])))


AT_LEVEL = ("split", "tile", "stage")
"""What a schedule says of a level in numbers; a batch has a column `levels.<place>.<one of these>.<dim or operand>` for each."""


def operand_name(position: int) -> str:
    """What schedules call a kernel's buffer with this position: names differ between kernels that are otherwise the same."""
    return f"in{position}"


def result_name(position: int | str) -> str:
    """What schedules call a kernel's result with this position."""
    return f"out{position}"


@dataclass(frozen=True)
class Schedule:
    """One way to run a kernel.

    `tiles`: for each dim, the block size that one program instance works on at a time; outer dims are
    cut into the grid by it, inner (reduction) dims into loop steps. `levels`: how its programs lie on the levels of the machine between
    the whole of it and where one program runs, by the place of each level (`chip`, `cluster`, `core`, ...); programs that no level splits are
    dealt out in the grid's order. What follows is no choice: what does not depend on a dim that is split is
    read once for all instances that need it. `order`: outer dims, slowest first, as the
    grid walks them. `reduce`: for each inner dim "looped" (in steps of its tile), "resident" (all of it at once) or
    "fold" (in steps, reductions that need each other in one pass: `codesign.ir.fold`). `split`: parts that a reduction
    dim is split into over the grid (1 = none). `pipeline`: iterations of
    loads in flight. `extras`: knobs of one kind of machine: GPU "warps", "group" (tiles of the slowest grid dim
    walked together for L2 reuse), "persistent", "tma", "warp_specialize"; accelerator "dataflow", "partial".
    """

    tiles: Mapping[str, int] = field(default_factory=dict)
    levels: Mapping[str, AtLevel] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    reduce: Mapping[str, str] = field(default_factory=dict)
    split: Mapping[str, int] = field(default_factory=dict)
    pipeline: int = 1
    extras: Mapping[str, Knob] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data, without what is empty or default."""
        data: dict[str, Any] = {
            "tiles": dict(self.tiles),
            "levels": {place: found for place, level in self.levels.items() if (found := level.to_json())},
            "order": list(self.order),
            "reduce": dict(self.reduce),
            "split": dict(self.split),
            "pipeline": self.pipeline,
            "extras": dict(self.extras),
        }
        return {key: value for key, value in data.items() if value not in ({}, [])}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Schedule:
        """From plain data; ScheduleError names a field that is wrong."""
        if not isinstance(data, Mapping):
            raise ScheduleError("a schedule is a JSON object")
        if data.get("inner", {}) != {}:
            raise ScheduleError("inner: schedules say this by `levels` now", hint="tune again, or write it as `levels`")
        _only_known("", data, ("tiles", "levels", "order", "reduce", "split", "pipeline", "extras", "inner"))
        parts = {key: _mapping(key, data.get(key, {})) for key in ("tiles", "levels", "reduce", "split", "extras")}
        return Schedule(
            tiles={str(k): _positive(f"tiles.{k}", v) for k, v in parts["tiles"].items()},
            levels={str(k): AtLevel.from_json(f"levels.{k}", v) for k, v in parts["levels"].items()},
            order=_order("order", data.get("order", [])),
            reduce={str(k): _mode(k, v) for k, v in parts["reduce"].items()},
            split={str(k): _positive(f"split.{k}", v) for k, v in parts["split"].items()},
            pipeline=_positive("pipeline", data.get("pipeline", 1)),
            extras={str(k): _knob(k, v) for k, v in parts["extras"].items()},
        )

    @property
    def hash(self) -> str:
        """Content hash, 12 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:12]

    def extra(self, name: str, default: int) -> int:
        """An integer extra, or the default."""
        value = self.extras.get(name, default)
        return int(value) if not isinstance(value, str) else default

    def __hash__(self) -> int:
        return hash(self.hash)

    def __str__(self) -> str:
        return json.dumps(self.to_json())


NOTHING = Schedule()
"""A schedule that says nothing."""

LARGEST = 1 << 31
"""No size or count of a schedule is larger."""


def _shown(value: Any) -> str:
    """A wrong value in a message, cut short."""
    try:
        text = json.dumps(value, default=repr)
    except (RecursionError, ValueError):  # nested too deep, or an integer of thousands of digits
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _only_known(path: str, data: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in data:
        if key not in known:
            where = f"a schedule's {path}" if path else "a schedule"
            raise ScheduleError(f"unknown field {key!r} in {where}", hint=f"known: {', '.join(sorted(known))}")


def _order(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
        raise ScheduleError(f"{name}: needs a list of dims, got {_shown(value)}")
    if len(set(value)) != len(value):
        raise ScheduleError(f"{name}: names a dim twice: {', '.join(value)}")
    return tuple(value)


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ScheduleError(f"{name}: needs an object, got {_shown(value)}")
    return value


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST:
        raise ScheduleError(f"{name}: needs an integer from 1 to {LARGEST}, got {_shown(value)}")
    return value


def _mode(name: Any, value: Any) -> str:
    if not isinstance(value, str) or value not in REDUCE_MODES:
        raise ScheduleError(f"reduce.{name}: needs looped, resident or fold, got {_shown(value)}")
    return value


def _knob(name: Any, value: Any) -> Knob:
    if not isinstance(value, int | str):
        raise ScheduleError(f"extras.{name}: needs an integer, a string or a bool, got {_shown(value)}")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ScheduleError(f"extras.{name}: needs an integer of at most {LARGEST}, got {_shown(value)}")
    return value


def unsaid(column: str) -> int:
    """What a schedule has in a column of a batch that it does not name: a level's tile is all there is, and nothing is staged."""
    kind, _, rest = column.partition(".")
    what = rest.split(".")[1] if kind == "levels" else ""
    return {"tile": LARGEST, "stage": 0, "order": 0}.get(what, 1)


REDUCE_MODES = ("looped", "resident", "fold")
"""Codes of the `reduce.<dim>` column of a batch."""


@dataclass(frozen=True)
class ScheduleBatch:
    """Many schedules of one kernel as struct of arrays.

    `columns`: knob name -> integer array [N] (or [1], broadcast). Names: `tile.<dim>`, `levels.<place>.split.<dim>` (see AT_LEVEL),
    `levels.<place>.order.<dim>` (its place in that order, from 1; 0: not named),
    `split.<dim>`, `reduce.<dim>` (code in REDUCE_MODES), `pipeline`, `order` (which permutation of `common.order`, see `ordered`), and
    `<extra>` for extras by their own name (booleans as 0/1). What is the same for all is in `common` (its order, and string extras).
    """

    columns: Mapping[str, npt.NDArray[np.int64]]
    common: Schedule = field(default_factory=Schedule)

    def __len__(self) -> int:
        return max((len(column) for column in self.columns.values()), default=1)

    def column(self, name: str, default: int = 1) -> npt.NDArray[np.int64]:
        """The knob's values, shape [N] or [1]; the default when no schedule sets it."""
        found = self.columns.get(name)
        return np.full(1, default, dtype=np.int64) if found is None else found

    def take(self, rows: npt.ArrayLike) -> ScheduleBatch:
        """The batch of some rows (integer positions or a bool mask)."""
        n = len(self)
        picked = np.asarray(rows)
        if picked.dtype == np.bool_:
            picked = np.flatnonzero(picked)
        columns = {k: (np.broadcast_to(v, (n,)) if len(v) != n else v).take(picked) for k, v in self.columns.items()}
        return ScheduleBatch(columns, self.common)

    def row(self, position: int) -> Schedule:
        """One schedule of the batch."""
        tiles: dict[str, int] = dict(self.common.tiles)
        levels: dict[str, AtLevel] = dict(self.common.levels)
        reduce: dict[str, str] = dict(self.common.reduce)
        split: dict[str, int] = dict(self.common.split)
        extras: dict[str, Knob] = dict(self.common.extras)
        pipeline, order = self.common.pipeline, self.common.order
        walks: dict[str, dict[str, int]] = {}
        for name, column in self.columns.items():
            value = int(column[position if len(column) > 1 else 0])
            kind, _, rest = name.partition(".")
            if kind == "tile":
                tiles[rest] = value
            elif kind == "levels":
                place, what, dim = rest.split(".", 2)
                if what == "order":
                    walks.setdefault(place, {})[dim] = value
                elif value != unsaid(name):
                    levels[place] = levels.get(place, AtLevel()).with_count(what, dim, value)
            elif kind == "reduce":
                reduce[rest] = REDUCE_MODES[value]
            elif kind == "split":
                split[rest] = value
            elif name == "pipeline":
                pipeline = value
            elif name == "order":
                order = ordered(order, value)
            else:
                extras[name] = value
        for place, numbers in walks.items():
            if walk := walked(order, numbers):
                levels[place] = replace(levels.get(place, AtLevel()), order=walk)
        return Schedule(tiles, levels, order, reduce, split, pipeline, extras)

    @staticmethod
    def of(schedules: Iterable[Schedule]) -> ScheduleBatch:
        """A batch of given schedules (which share the dims of their order, and string extras); a knob that one leaves out is as `unsaid` says."""
        rows = list(schedules)
        if not rows:
            raise ScheduleError("a batch needs at least one schedule")
        flat = [_flatten(schedule) for schedule in rows]
        names = list(dict.fromkeys(name for row in flat for name in row))
        columns = {name: np.array([row.get(name, unsaid(name)) for row in flat], dtype=np.int64) for name in names}
        first = rows[0].order
        if any(row.order != first for row in rows) and all(set(row.order) == set(first) for row in rows):
            columns["order"] = np.array([rank_of(first, row.order) for row in rows], dtype=np.int64)
        strings = {k: v for k, v in rows[0].extras.items() if isinstance(v, str)}
        return ScheduleBatch(columns, Schedule(order=rows[0].order, extras=strings))


def walked(dims: Sequence[str], numbers: Mapping[str, int]) -> tuple[str, ...]:
    """The dims that have a place in an order, those of one place as `dims` are."""
    named = [dim for dim in dict.fromkeys((*dims, *numbers)) if numbers.get(dim, 0)]
    return tuple(sorted(named, key=lambda dim: numbers[dim]))


def ordered(dims: Sequence[str], rank: int) -> tuple[str, ...]:
    """The permutation of some dims with this number, counted in lexicographic order of their positions; 0 leaves them as they are."""
    left, found = list(dims), []
    while left:
        below = factorial(len(left) - 1)
        found.append(left.pop(rank // below % len(left)))
        rank %= below
    return tuple(found)


def rank_of(dims: Sequence[str], permutation: Sequence[str]) -> int:
    """The number of a permutation of some dims: `ordered(dims, rank_of(dims, p)) == p`."""
    left, rank = list(dims), 0
    for dim in permutation:
        rank += left.index(dim) * factorial(len(left) - 1)
        left.remove(dim)
    return rank


def _flatten(schedule: Schedule) -> dict[str, int]:
    row = {f"tile.{dim}": size for dim, size in schedule.tiles.items()}
    for place, level in schedule.levels.items():
        row.update({f"levels.{place}.{what}.{k}": v for what in AT_LEVEL for k, v in getattr(level, what).items()})
        row.update({f"levels.{place}.order.{dim}": number for number, dim in enumerate(level.order, 1)})
    row.update({f"split.{dim}": parts for dim, parts in schedule.split.items()})
    row.update({f"reduce.{dim}": REDUCE_MODES.index(mode) for dim, mode in schedule.reduce.items()})
    row.update({name: int(value) for name, value in schedule.extras.items() if not isinstance(value, str)})
    row["pipeline"] = schedule.pipeline
    return row
