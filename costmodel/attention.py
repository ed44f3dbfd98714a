"""How serving systems run attention: the tiles, splits and launches that their published kernels fix.

An implementation offers few schedules. The rows of its tile are queries, with the heads that share keys where it packs
them; keys go by in steps. For decoding it splits the keys by a rule of its own that knows the number of SMs: as many
parts as fill so many waves, each of no fewer keys than a least, and no more parts than a most. What each implementation
has is a row of `attention.toml`, with its source.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from itertools import product as cartesian
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from codesign.costmodel.gpu.chains import MEET_ALWAYS, MEET_INSIDE, MEET_LAUNCHED
from codesign.costmodel.gpu.geometry import FOLD, RESIDENT
from codesign.costmodel.rules import Value, number

Columns = dict[str, npt.NDArray[np.float32]]

UNBOUNDED = 1e6


@dataclass(frozen=True)
class Tiles:
    """Schedules of one kernel of an implementation: `rows` of a tile, `keys` of a step, and whether heads that share
    keys are `packed` into the rows; `warps`, `stages` of the pipeline, `resident` blocks of an SM; where the vector
    unit multiplies, `vector` is how many instructions it issues a multiply-add (loads, conversions, sums across lanes);
    `in_flight` bytes that a thread has on the way by plain loads (0: asynchronous copies fill the stages);
    `exposed` is the share of a block's latency that the block before it does not hide (0: the machine's);
    `lookup` clocks a sequence that a block takes to find its own among several."""

    rows: int
    keys: int
    packed: bool = True
    warps: int = 8
    stages: int = 2
    resident: int = 1
    vector: float = 0.0
    in_flight: float = 0.0
    exposed: float = 0.0
    lookup: float = 0.0


@dataclass(frozen=True)
class Splits:
    """A rule for the parts of the keys: as many as make `waves` of blocks (the next whole number where `up`, else the
    last), of `least` keys or more, `most` at most.

    `seen` false counts all keys of the sequence although a window hides most: the parts that see none still run.
    `all_parts` launches as many as `least` allows, the most at most, wherever it splits.
    """

    waves: float = 0.0
    least: float = 0.0
    most: float = UNBOUNDED
    up: bool = False
    seen: bool = True
    all_parts: bool = False


NO_SPLITS = Splits()


@dataclass(frozen=True)
class Kernel:
    """What an implementation runs for some shapes: the `tiles` that it has, its rule of `splits`, the `launches` of
    one call (appending to the cache, converting, scheduling, attention itself), how parts `meet` (`MEET_...`), whether
    queries are written once more (`converts`), and what a tile that a window hides costs of one that is seen
    (`hidden`). `part` names the kernel of an implementation that has several unlike ones; `generated` code reaches a
    share of the tensor rate that is its own. `mixed`: queries keep their type, keys are converted to it; else wgmma takes
    two operands of one type, the keys'. `keys_only`: machines whose tables were taken with a cache of keys alone, which
    are the values too, so that a kernel that goes over both in one step reads them once. `assumed`: of another
    implementation, for want of this one's."""

    tiles: Sequence[Tiles]
    splits: Splits = NO_SPLITS
    launches: float = 2.0
    meet: float = MEET_LAUNCHED
    converts: bool = False
    hidden: float = 0.0
    part: str = ""
    generated: bool = False
    mixed: bool = False
    keys_only: tuple[str, ...] = ()
    assumed: bool = False

    def columns(self, head: int) -> Columns:
        """The schedules as columns of knobs."""
        rows: list[dict[str, float]] = []
        for tiles in self.tiles:
            row: dict[str, float] = {"tile.j": tiles.keys, "warps": tiles.warps, "pipeline": tiles.stages}
            row |= {"pack.rows": tiles.rows} if tiles.packed else {"tile.i": tiles.rows, "tile.r": 1.0}
            rows.append({**row, "blocks_limit": tiles.resident, "vector_unit": float(tiles.vector > 0)})
            rows[-1] |= {"instructions": tiles.vector, "in_flight": tiles.in_flight, "exposed": tiles.exposed}
            rows[-1]["lookup_clocks"] = tiles.lookup
        fixed = {"tile.b": 1.0, "tile.g": 1.0, "tile.e": head, "reduce.j": FOLD, "reduce.d": RESIDENT}
        fixed |= {"launches": self.launches, "split.meet": self.meet, "converts": float(self.converts)}
        rule = self.splits
        if rule != NO_SPLITS:
            fixed |= {"split.waves": rule.waves, "split.least": rule.least, "split.most": rule.most}
            fixed |= {"split.up": float(rule.up), "split.seen": float(rule.seen), "split.all": float(rule.all_parts)}
        return {name: np.array([{**fixed, **row}[name] for row in rows], np.float32) for name in {**fixed, **rows[0]}}


KERNELS = Path(__file__).resolve().parent / "attention.toml"

UNKNOWN = "*"
"""The row that stands for an implementation that is not known."""

_MEET = {"inside": MEET_INSIDE, "launched": MEET_LAUNCHED, "always": MEET_ALWAYS}


@dataclass(frozen=True)
class Call:
    """What a call of attention is asked for: queries of `head` elements and `wanted` bits, `group` query heads a key
    head, keys of `bits` bits; whether it is `decode`, every sequence has a `single` query, several sequences have
    several key heads each (`moved`: heads and queries change places only by a copy), and a `window` slides; `sm`: the
    machine's compute capability, as 89 for 8.9 (0 where it is not known, or the machine is no NVIDIA GPU)."""

    decode: bool = False
    head: int = 128
    group: int = 1
    bits: int = 16
    wanted: int = 16
    single: bool = False
    moved: bool = False
    window: bool = False
    sm: int = 0

    @property
    def converts(self) -> bool:
        """Whether queries are converted to the type of the keys: wgmma takes operands of one type."""
        return self.bits < self.wanted


Entry = TypeVar("Entry", Tiles, Splits)


@lru_cache(maxsize=1)
def _rows() -> tuple[dict[str, Any], ...]:
    return tuple(tomllib.loads(KERNELS.read_text(encoding="utf-8"))["kernel"])


def sources() -> tuple[str, ...]:
    """Implementations that are known."""
    return tuple(dict.fromkeys(name for row in _rows() for name in row["of"] if name != UNKNOWN))


def row_of(source: str, call: Call) -> Mapping[str, Any]:
    """The row of the file that an implementation runs for a call: the first of its rows whose condition holds, else the
    one of implementations that are not known."""
    names = _names(call)
    return next(
        row
        for name in (source, UNKNOWN)
        for row in _rows()
        if name in row["of"] and number(row.get("when", True), names)
    )


def _names(call: Call) -> dict[str, Value]:
    return {**asdict(call), "converts": call.converts}


@lru_cache(maxsize=4096)
def kernel_of(source: str, call: Call) -> Kernel:
    """The kernel that an implementation runs for a call; one that is not known is `assumed` to run FlashAttention's."""
    row, names = row_of(source, call), _names(call)
    if "keys" in row:
        names["keys"] = number(row["keys"], names)
    tiles = tuple(_filled(Tiles, entry, names) for entry in row["tiles"])
    return Kernel(
        tiles=tiles,
        splits=_filled(Splits, row["splits"], names) if "splits" in row else NO_SPLITS,
        launches=number(row["launches"], names),
        meet=_MEET[row.get("meet", "launched")],
        converts=bool(number(row.get("converts", False), names)),
        hidden=row.get("hidden", 0.0),
        part=row.get("part", "").format(**asdict(call)),
        generated=row.get("generated", False),
        mixed=row.get("mixed", False),
        keys_only=tuple(row.get("keys_only", ())),
        assumed=UNKNOWN in row["of"],
    )


def _filled(kind: type[Entry], entry: Mapping[str, float | bool | str], names: Mapping[str, Value]) -> Entry:
    """Tiles or splits with their fields computed for a call, each in the type of its default."""
    types = {known.name: known.type for known in fields(kind)}
    values = {name: number(value, names) for name, value in entry.items()}
    return kind(
        **{name: {"int": int, "bool": bool}.get(str(types[name]), float)(value) for name, value in values.items()}
    )


def attention_space(head: int, decode: bool) -> Columns:
    """Schedules of flash attention to search: 128 rows (queries, with the heads that share keys) by keys, one block on
    an SM, keys split for decoding."""
    rows = []
    if decode:
        steps = (64, 128) if head <= 128 else (32, 64)
        for shared, step, split in cartesian(
            (1, 2, 4, 8, 16, 32, 64), steps, (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128)
        ):
            rows.append((1, shared, step, 8, 2 if head <= 256 else 1, split, 1))
    else:
        shapes = [(128, 1), (64, 2), (32, 4), (16, 8), (4, 32)] if head <= 256 else [(64, 1), (32, 2), (16, 4)]
        for (queries, shared), step in cartesian(shapes, (64, 128) if head <= 128 else (32, 64)):
            rows.append((queries, shared, step, 8, 2 if head <= 256 else 1, 1, 1))
    values = np.array(rows, dtype=np.float32).T
    names = ("tile.i", "tile.r", "tile.j", "warps", "pipeline", "split.j", "blocks_limit")
    columns = dict(zip(names, values, strict=True))
    fixed = {"tile.b": 1, "tile.g": 1, "tile.e": head, "reduce.j": FOLD, "reduce.d": RESIDENT}
    return {**columns, **{name: np.full(len(rows), value, dtype=np.float32) for name, value in fixed.items()}}
