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
from itertools import product as cartesian

import numpy as np
import numpy.typing as npt

from codesign.costmodel.gpu.chains import MEET_ALWAYS, MEET_INSIDE, MEET_LAUNCHED
from codesign.costmodel.gpu.geometry import ONLINE, RESIDENT

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
    one call (appending to the cache, converting, scheduling, attention itself), how parts `meet` (`MEET_...`), whether
    queries are written once more (`converts`), and what a tile that a window hides costs of one that is seen
    (`hidden`). `part` names the kernel of an implementation that has several unlike ones; `generated` code reaches a
    share of the tensor rate that is its own."""

    tiles: Sequence[Tiles]
    splits: Splits = NO_SPLITS
    launches: float = 2.0
    meet: float = MEET_LAUNCHED
    converts: bool = False
    hidden: float = 0.0
    part: str = ""
    generated: bool = False

    def columns(self, head: int) -> Columns:
        """The schedules as columns of knobs."""
        rows: list[dict[str, float]] = []
        for tiles in self.tiles:
            row: dict[str, float] = {"tile.j": tiles.keys, "warps": tiles.warps, "pipeline": tiles.stages}
            row |= {"pack.rows": tiles.rows} if tiles.packed else {"tile.i": tiles.rows, "tile.r": 1.0}
            rows.append({**row, "blocks_limit": tiles.resident, "vector_unit": float(tiles.vector > 0)})
            rows[-1] |= {"instructions": tiles.vector, "in_flight": tiles.in_flight, "exposed": tiles.exposed}
            rows[-1]["lookup_clocks"] = tiles.lookup
        fixed = {"tile.b": 1.0, "tile.g": 1.0, "tile.e": head, "reduce.j": ONLINE, "reduce.d": RESIDENT}
        fixed |= {"launches": self.launches, "split.meet": self.meet, "converts": float(self.converts)}
        rule = self.splits
        if rule != NO_SPLITS:
            fixed |= {"split.waves": rule.waves, "split.least": rule.least, "split.most": rule.most}
            fixed |= {"split.up": float(rule.up), "split.seen": float(rule.seen), "split.all": float(rule.all_parts)}
        return {name: np.array([{**fixed, **row}[name] for row in rows], np.float32) for name in {**fixed, **rows[0]}}


FLASH_KEYS = {64: 128, 128: 128, 192: 96, 256: 64, 512: 64}
"""Keys of a step of FlashAttention 3 for causal or paged attention, by head dim (`tile_size_fwd_sm90`)."""

TWO_LEVEL_REGISTERS = 432
"""Registers of a row of a tile that results, held twice, and scores share where sums of eight-bit products are added
up in two levels (vLLM's build of FlashAttention 3): 240 a thread, four threads a row, less a base."""

SOURCES = (
    "torch_flow",
    "triton",
    "flash_attention",
    "vllm_flash_attn",
    "vllm_flash_attn_fa3",
    "vllm_flash_attn_fa4",
    "fa3",
)
"""Implementations that are known."""

XQA_HEADS = 32
"""Most query heads a key head of TensorRT-LLM's grouped kernels (XQA); more run as heads of their own."""


@dataclass(frozen=True)
class Call:
    """What a call of attention is asked for: queries of `head` elements and `wanted` bits, `group` query heads a key
    head, keys of `bits` bits; whether it is `decode`, every sequence has a `single` query, several sequences have
    several key heads each (`moved`: heads and queries change places only by a copy), and a `window` slides."""

    decode: bool = False
    head: int = 128
    group: int = 1
    bits: int = 16
    wanted: int = 16
    single: bool = False
    moved: bool = False
    window: bool = False

    @property
    def converts(self) -> bool:
        """Whether queries are converted to the type of the keys: wgmma takes operands of one type."""
        return self.bits < self.wanted


def kernel_of(source: str, call: Call) -> Kernel:
    """The kernel that an implementation runs for a call; of an unknown one, what FlashAttention would run."""
    if source == "torch_flow":
        return _tensorrt_llm(call)
    if source == "triton":
        return _triton(call)
    if source == "flash_attention":  # FlashAttention 3 on Ampere, as SGLang builds it
        return Kernel((Tiles(128, 64),), Splits(0.9, 64.0, up=True), 4.0)
    if source == "vllm_flash_attn":
        return _flash_attention_2(call)
    keys = next((keys for size, keys in FLASH_KEYS.items() if call.head <= size), 64)
    if source == "vllm_flash_attn_fa4":
        splits = Splits(8.0, most=128.0, all_parts=True) if call.single else Splits(0.9, keys, up=True)
        tiles = Tiles(64, 64, stages=1, exposed=1.0, lookup=6.0) if call.single else Tiles(64, 64, stages=1)
        return Kernel((tiles,), splits, 4.0, generated=True)
    rows = 192 if call.head <= 64 and not call.decode else 128
    if source != "vllm_flash_attn_fa3" and call.head == 128 and call.single and call.group <= 64:
        rows = 64  # one group of warps multiplies; vLLM's build is older
    if call.bits == 8:
        keys = 128
    if source == "fa3":
        launches = 3.0 + 3.0 * call.converts + (5.0 if call.head == 192 else 0.0)
    else:
        launches = 5.0 + call.converts
        if call.bits == 8:
            keys = min(128, max(16, (TWO_LEVEL_REGISTERS - 2 * call.head) // 16 * 16))
    return Kernel((Tiles(rows, keys),), Splits(0.9, keys, up=True), launches, converts=call.converts)


def _flash_attention_2(call: Call) -> Kernel:
    if call.single and call.group > 1:  # the heads of a group become its queries, and only then keys are split
        launches = 5.0 if call.moved else 3.0
        return Kernel((Tiles(64, 128, warps=4),), Splits(2.0, 128.0), launches, converts=call.moved)
    tiles = Tiles(64 if call.single else 128, 128 if call.single else 64, False, warps=4, resident=2)
    return Kernel((tiles,), launches=3.0)


def _triton(call: Call) -> Kernel:
    if call.decode:
        tiles = Tiles(16, 32, call.group > 1, warps=4, resident=2, in_flight=2.0 * call.bits, exposed=1.0)
        return Kernel((tiles,), Splits(4.0, 32.0, most=8.0), 3.0, MEET_ALWAYS)
    tiles = Tiles(64 if call.head <= 256 else 32, 64, False, stages=1)
    part = f"extend {call.head}{' window' if call.window else ''} {call.wanted}x{call.bits}"
    return Kernel((tiles,), launches=3.0, hidden=0.33, part=part, generated=True)


def _tensorrt_llm(call: Call) -> Kernel:
    if not call.decode:
        keys = 128 if call.head <= 128 else 64
        launches = 5.0 if call.head == 128 and call.bits > 8 else 8.0
        return Kernel((Tiles(128, keys, False), Tiles(64, 32, False)), launches=launches, part="fmha")
    if call.group == 1 or call.group > XQA_HEADS:
        tiles = Tiles(1, 32, False, resident=3, vector=9.0, exposed=1.0)
        return Kernel((tiles,), Splits(1.0, 256.0), 3.0, MEET_INSIDE, part="xqa")
    if call.bits == 8:
        rows = -(-call.group // 8) * 8
        tiles = Tiles(rows, 64, resident=max(4 - rows * call.head // 1024, 1), exposed=1.0)  # by shared memory
        launches = 2.0 if call.head == 64 else 1.0
        return Kernel((tiles,), Splits(8.0, 128.0, most=512.0), launches, MEET_INSIDE, part="xqa")
    tiles = Tiles(-(-call.group // 16) * 16, 128, exposed=1.0)
    return Kernel((tiles,), Splits(8.0, 128.0, most=512.0, seen=False), 3.0, MEET_INSIDE, part="xqa")


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
    fixed = {"tile.b": 1, "tile.g": 1, "tile.e": head, "reduce.j": ONLINE, "reduce.d": RESIDENT}
    return {**columns, **{name: np.full(len(rows), value, dtype=np.float32) for name, value in fixed.items()}}
