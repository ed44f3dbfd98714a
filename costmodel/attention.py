"""How serving systems run attention: the tiles, splits and launches that their published kernels fix.

An implementation offers few schedules. The rows of its tile are queries, with the heads that share keys where it packs
them; keys go by in steps. For decoding it splits the keys by a rule of its own that knows the number of SMs: as many
parts as fill so many waves, each of no fewer keys than a least, and no more parts than a most. Sources:
FlashAttention 2 and 3 (`tile_size.h`, `heuristics.h`, `flash_prepare_scheduler.cu`), TensorRT-LLM (`torch_flow`: XQA
with `computeMultiBlockCount`, masked multi-head attention where heads are not grouped, FMHA for prefill), Triton
(SGLang's `extend_attention.py` and `decode_attention.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.costmodel.gpu.geometry import ONLINE, RESIDENT
from codesign.costmodel.gpu.timing import MEET_ALWAYS, MEET_INSIDE, MEET_LAUNCHED

Columns = dict[str, npt.NDArray[np.float32]]

UNBOUNDED = 1e6


@dataclass(frozen=True)
class Tiles:
    """Schedules of one kernel of an implementation: `rows` of a tile, `keys` of a step, and whether heads that share
    keys are `packed` into the rows; `warps`, `stages` of the pipeline, `resident` blocks of an SM; where the vector unit
    multiplies, `vector` is how many instructions it issues a multiply-add (loads, conversions, sums across lanes);
    `in_flight` bytes that a thread has on the way by plain loads (0: asynchronous copies fill the stages)."""

    rows: int
    keys: int
    packed: bool = True
    warps: int = 8
    stages: int = 2
    resident: int = 1
    vector: float = 0.0
    in_flight: float = 0.0


@dataclass(frozen=True)
class Splits:
    """A rule for the parts of the keys: as many as make `waves` of blocks (the next whole number where `up`, else the
    last), of `least` keys or more, `most` at most.

    `seen` false counts all keys of the sequence although a window hides most: the parts that see none still run.
    `all_parts` launches the most wherever it splits.
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
    one call (appending to the cache, scheduling, attention itself), how parts `meet` (`MEET_...`), whether it `converts` queries to the type of the keys first; `part` names the kernel of an implementation that has several
    unlike ones; and whether tiles that a window hides are `pruned`."""

    tiles: Sequence[Tiles]
    splits: Splits = NO_SPLITS
    launches: float = 2.0
    meet: float = MEET_LAUNCHED
    converts: bool = False
    hidden: float = 0.0
    part: str = ""

    def columns(self, head: int) -> Columns:
        """The schedules as columns of knobs."""
        rows: list[dict[str, float]] = []
        for tiles in self.tiles:
            row: dict[str, float] = {"tile.j": tiles.keys, "warps": tiles.warps, "pipeline": tiles.stages}
            row |= {"pack.rows": tiles.rows} if tiles.packed else {"tile.i": tiles.rows, "tile.r": 1.0}
            rows.append({**row, "blocks_limit": tiles.resident, "vector_unit": float(tiles.vector > 0)})
            rows[-1] |= {"instructions": tiles.vector, "in_flight": tiles.in_flight}
        fixed = {"tile.b": 1.0, "tile.g": 1.0, "tile.e": head, "reduce.j": ONLINE, "reduce.d": RESIDENT}
        fixed |= {"launches": self.launches, "split.meet": self.meet, "converts": float(self.converts)}
        rule = self.splits
        if rule != NO_SPLITS:
            fixed |= {"split.waves": rule.waves, "split.least": rule.least, "split.most": rule.most}
            fixed |= {"split.up": float(rule.up), "split.seen": float(rule.seen), "split.all": float(rule.all_parts)}
        return {name: np.array([{**fixed, **row}[name] for row in rows], np.float32) for name in {**fixed, **rows[0]}}


FLASH_KEYS = {64: 128, 128: 128, 192: 96, 256: 64, 512: 64}
"""Keys of a step of FlashAttention 3 for causal or paged attention, by head dim (`tile_size_fwd_sm90`)."""


def kernel_of(
    source: str,
    decode: bool,
    head: int,
    group: int,
    bits: int,
    wanted: int = 16,
    single: bool = False,
    moved: bool = False,
    windowed: bool = False,
) -> Kernel:
    """The kernel that an implementation runs for queries of `head` elements and `wanted` bits, `group` query heads a
    key head, and keys of `bits` bits; `single` where every sequence has one query, `moved` where
    several sequences have several key heads each, so that heads and queries cannot change places without a copy,
    `windowed` under a sliding window."""
    keys = next((keys for size, keys in FLASH_KEYS.items() if head <= size), 64)
    narrow = bits == 8
    converts = 1.0 if narrow and wanted > 8 else 0.0
    if "fa4" in source:
        splits = Splits(8.0, most=128.0, all_parts=True) if single else Splits(0.9, keys, up=True)
        return Kernel((Tiles(64, 64, stages=1),), splits, 4.0)
    if source in ("fa3", "vllm_flash_attn_fa3"):
        rows = 192 if head <= 64 and not decode else 128
        served = source == "fa3"
        launches = 3.0 + 3.0 * converts + (5.0 if head == 192 else 0.0) if served else 5.0 + converts
        step = keys if bits > 8 else 128
        if bits == 8 and not served:  # sums of short runs of keys are added up in registers of their own
            step = min(128, max(16, (432 - 2 * head) // 16 * 16))
        return Kernel((Tiles(rows, step),), Splits(0.9, step, up=True), launches, converts=converts > 0)
    if source == "flash_attention":
        return Kernel((Tiles(128, 64, warps=8, resident=1),), Splits(0.9, 64.0, up=True), 4.0)
    if source == "vllm_flash_attn":
        if single and group > 1:  # one query: the heads of a group become its queries, and only then keys are split
            tiles = Tiles(64, 128, warps=4, stages=2, resident=1)
            return Kernel((tiles,), Splits(2.0, 128.0), 5.0 if moved else 3.0, converts=moved)
        tiles = Tiles(64, 128, False, warps=4, stages=2, resident=2)
        return Kernel((tiles if single else Tiles(128, 64, False, warps=4, stages=2, resident=2),), launches=3.0)
    if source == "triton" and decode:
        tiles = Tiles(16, 32, group > 1, warps=4, resident=3, in_flight=2.0 * bits)
        return Kernel((tiles,), Splits(4.0, 32.0, most=8.0), 3.0, MEET_ALWAYS)
    if source == "triton":  # SGLang's extend: a branch around hidden tiles keeps loads from being pipelined
        tiles = Tiles(64 if head <= 256 else 32, 64, False, stages=1)
        return Kernel((tiles,), launches=3.0, hidden=0.33, part=f"extend {head}{' windowed' if windowed else ''} {wanted}:{bits}")
    if source == "torch_flow" and decode:
        if group == 1 or group > 32:
            return Kernel((Tiles(1, 32, False, stages=2, resident=3, vector=9.0),), Splits(1.0, 256.0), 3.0, meet=MEET_INSIDE, part="xqa")
        if narrow:
            rows = -(-group // 8) * 8
            return Kernel((Tiles(rows, 64, stages=2, resident=max(4 - rows * head // 1024, 1)),), Splits(8.0, 128.0, most=512.0), 1.0, meet=MEET_INSIDE, part="xqa")
        rows = -(-group // 16) * 16
        return Kernel((Tiles(rows, 128, stages=2, resident=1),), Splits(8.0, 128.0, most=512.0, seen=False), 3.0, meet=MEET_INSIDE, part="xqa")
    keys = 128 if head <= 128 else 64
    return Kernel((Tiles(128, keys, False), Tiles(64, 32, False)), launches=5.0 if head == 128 and not narrow else 8.0, part="fmha")
