"""Chains of contractions that meet in one loop, as in attention: what a launch chooses by rule, a block's own path, the
meeting of its split parts, and the helper kernels of a serving system's call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from codesign.costmodel.gpu.geometry import FOLD, Array, Geometry
from codesign.costmodel.gpu.parameters import Parameters
from codesign.costmodel.gpu.traffic import Traffic, cycled_cold
from codesign.costmodel.gpu.work import Work
from codesign.costmodel.summary import KernelSummary

MEET_INSIDE, MEET_LAUNCHED, MEET_ALWAYS = 0.0, 1.0, 2.0
"""How the parts of a split chain are summed: by the last block, by a kernel launched where there are several parts, or
by one that is always launched and counted among the launches."""

ISSUED_LANES = 128.0
"""Lanes of an SM that get an instruction in a clock: four schedulers, a warp each (CUDA C++ Programming Guide, compute capabilities 7 to 10)."""

LOOKUPS = 3.0
"""Further times that a block with work looks up its sequence: warps that load, compute and store do so for themselves."""

SUMS_IN_FLIGHT = 8.0
"""Parts of a split reduction that the last block of a kernel, which sums them, loads at a time. Fitted, but tables hardly feel it, nor the
next (`benchmarks/constants.py`)."""

PARTS_IN_FLIGHT = 2.0
"""The same for the threads of a kernel that does nothing else."""


def launched(
    kernel: KernelSummary, knobs: Mapping[str, Array], sizes: Mapping[str, Array], sms: float
) -> tuple[Mapping[str, Array], Array]:
    """The knobs with what a launch chooses by rule, and the blocks that find nothing to do, for each that does.

    `pack.rows` rows of a tile hold whole groups of all row dims but the last, flattened with it. `split.waves` waves
    of blocks are wanted, in parts of `split.least` elements of the online dim or more and `split.most` parts at most;
    without `split.seen` the rule counts the size `keys`, not what is visited; with `split.all` as many as `split.least` allows are
    launched wherever more than one part is wanted.
    """
    chosen = dict(knobs)
    if "pack.rows" in knobs:
        contraction = next(nest.contraction for nest in kernel.nests if nest.contraction is not None)
        left = knobs["pack.rows"]
        for dim in contraction.m[:-1]:
            chosen[f"tile.{dim}"] = np.minimum(kernel.extents[dim].evaluate(sizes), left)
            left = left / chosen[f"tile.{dim}"]
        chosen[f"tile.{contraction.m[-1]}"] = left
    if "split.waves" not in knobs:
        return chosen, 0.0
    (dim,) = (dim for dim in kernel.inner if np.any(np.equal(knobs.get(f"reduce.{dim}", 0.0), FOLD)))
    visited = kernel.extents[dim].evaluate(sizes)
    counted = np.where(np.greater(knobs["split.seen"], 0.0), visited, sizes["keys"])
    blocks: Array = 1.0
    for outer in kernel.outer:
        blocks = blocks * np.ceil(kernel.extents[outer].evaluate(sizes) / chosen.get(f"tile.{outer}", 1.0))
    wanted = np.floor(knobs["split.waves"] * sms / blocks + 0.999 * knobs["split.up"])
    least, most = knobs["split.least"], knobs["split.most"]
    offered = np.where(np.greater(least, 0.0), np.floor(counted / np.maximum(least, 1.0)), most)
    offered = np.minimum(offered, most)
    parts = np.where(np.greater(knobs["split.all"], 0.0), offered, np.minimum(wanted, offered))
    parts = np.where(np.greater(wanted, 1.0), np.maximum(parts, 1.0), 1.0)
    busy = np.minimum(parts, np.ceil(visited / knobs[f"tile.{dim}"]))
    chosen[f"split.{dim}"] = busy
    return chosen, parts / busy - 1.0


def _result_bytes(kernel: KernelSummary) -> float:
    """Bytes of an element of what a kernel stores last."""
    return float([access.dtype.bytes for nest in kernel.nests for access in nest.stores][-1])


@dataclass(frozen=True)
class ChainBlock:
    """Seconds of one block of a chain: `begin` until it knows what to do and its first operands arrive; `fill` the same
    for a block with work, whose warps each look up their sequence; `steps` that it waits in its trips for scores and
    for results; `streamed` that its loads take at the least. `seen`: share of the fill that the block before does not
    hide."""

    begin: Array
    fill: Array
    steps: Array
    streamed: Array
    seen: Array


def chain_block(
    w: Work,
    knobs: Mapping[str, Array],
    sizes: Mapping[str, Array],
    p: Parameters,
    *,
    missed: Array,
    in_flight_bytes: Array,
    clock: float,
    l2_latency: float,
    dram_latency: float,
) -> ChainBlock:
    """The block of a chain of contractions; `missed` is the share of its operands that L2 does not have."""
    missed_latency = l2_latency + (dram_latency - l2_latency) * missed
    lookup = knobs.get("lookup_clocks", 0.0) * sizes.get("sequences", 0.0) / clock
    begin = p.fill_latency * dram_latency + lookup
    seen = knobs.get("exposed", 0.0)
    return ChainBlock(
        begin=begin,
        fill=begin + LOOKUPS * lookup,
        steps=2.0 * w.trips * p.step_clocks / clock,
        streamed=w.load_bytes / np.maximum(in_flight_bytes, 1.0) * missed_latency,
        seen=np.where(np.greater(seen, 0.0), seen, p.exposed),
    )


def meeting_seconds(
    kernel: KernelSummary,
    g: Geometry,
    w: Work,
    knobs: Mapping[str, Array],
    idle: Array,
    p: Parameters,
    *,
    dram_bandwidth: float,
    l2_bandwidth: float,
    cache_bytes: float,
    port: float,
    l2_latency: float,
    dram_latency: float,
) -> Array:
    """Seconds until the parts of a split chain are summed: each leaves its results in single precision, those that
    found no keys too, and another block or kernel adds them up."""
    blocks = g.grid * (1.0 + idle)
    parted, meet = np.greater(g.split * (1.0 + idle), 1.0), knobs.get("split.meet", MEET_INSIDE)
    partial = blocks * w.store_bytes * (4.0 / _result_bytes(kernel))
    rate = np.where(np.greater(partial, cache_bytes), dram_bandwidth, l2_bandwidth)
    waited = np.where(np.equal(meet, MEET_ALWAYS), 0.0, p.reduction_latency * dram_latency)
    each = w.store_bytes / port + l2_latency / SUMS_IN_FLIGHT
    summed = g.split * np.where(np.equal(meet, MEET_INSIDE), each, l2_latency / PARTS_IN_FLIGHT)
    return np.where(parted, waited + 2.0 * partial / rate + summed, 0.0)


def further_launches(g: Geometry, knobs: Mapping[str, Array], idle: Array) -> Array:
    """Kernels of one call besides the first: those that an implementation always launches, and the one that sums parts
    where there are several."""
    further = knobs.get("launches", 1.0) - 1.0
    if "split.meet" in knobs:
        further = further + (np.greater(g.split * (1.0 + idle), 1.0) & np.equal(knobs["split.meet"], MEET_LAUNCHED))
    return further


def quantising_seconds(
    sizes: Mapping[str, Array],
    p: Parameters,
    *,
    dram_bandwidth: float,
    l2_bandwidth: Array,
    cache_bytes: float,
    halved: bool,
    sm_clocks: Array,
) -> Array:
    """Seconds of the kernels around a product that quantise its activations before it, and copy or scale its results after it: `quantised` and
    `results` elements of 16 bits, found in L2 as far as they and what is written of them fit. `sm_clocks`: clocks of all SMs in a second."""
    if "quantised" not in sizes:
        return 0.0
    seconds: Array = p.quantise_seconds
    for name, passes in (("quantised", p.quantise_passes), ("results", p.result_passes)):
        size = 2.0 * sizes[name]
        cold = cycled_cold(1.5 * size, cache_bytes, halved)
        slowest = np.maximum(cold / dram_bandwidth + (1.0 - cold) / l2_bandwidth, 1.0 / (p.pass_bytes * sm_clocks))
        seconds = seconds + passes * size * slowest
    return seconds


def helper_seconds(
    t: Traffic,
    knobs: Mapping[str, Array],
    sizes: Mapping[str, Array],
    p: Parameters,
    dram_bandwidth: float,
    l2_bandwidth: Array,
) -> Array:
    """Seconds of an implementation's helper kernels: passes over new keys and values, over queries and results, and
    their work a token."""
    around = t.least_read + t.write - t.online
    passes = p.extra_passes * t.online * sizes.get("appended", 1.0) + p.extra_query_passes * around
    passes = passes + p.convert_passes * knobs.get("converts", 0.0) * around
    each = t.cycle / dram_bandwidth + (1.0 - t.cycle) / l2_bandwidth
    return passes * each + p.token_seconds * sizes.get("tokens", 0.0)
