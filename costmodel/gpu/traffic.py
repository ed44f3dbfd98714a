"""DRAM traffic of a grid: what the blocks of one wave share through L2, and what L2 keeps from one wave to the next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np

from codesign.costmodel.gpu.geometry import Array, Geometry
from codesign.costmodel.gpu.runs import run_bytes
from codesign.costmodel.gpu.sweeps import Sweeps, further
from codesign.costmodel.summary import Access, KernelSummary, footprint, kept_by_masks

FRESH = (0.05, 0.6)
"""Share of L2 up to which all that the kernel before has written is still found there, and from which on nothing is."""

STREAM_KEPT = 0.3
"""Share of L2 up to which it keeps a part of what a kernel in the midst of a model streams out, less the more that is.
Fitted (`benchmarks/constants.py`)."""

ROTATED = 5.0
"""Copies of the weights that a timing of products takes in turn (`repeat_n` of AIConfigurator's collectors)."""

EVICTED = {False: (0.85, 1.05), True: (0.67, 0.82)}
"""Share of L2 that a cycle of memory may touch before its earliest parts are gone, and from which on all are: of one cache,
and of one in two halves that each keep what their own SMs read. Read off products of few weights and long operands: on an
L40S up to 86 of 96 MB are found again, on an A100 26 of 42, on an H100 36 of 52, on a B300 87 of 132."""

APART = 65536.0
"""Bytes between rows of a product's results from which on each run of a tile's row pays for DRAM's turn to it alone; of closer rows, runs share it,
the more the square of their distance is less. Read off an L40S's products of 32 to 128 terms: their stores reach 0.82 to 0.85 of DRAM's bandwidth up
to 12288 columns, 0.79 with 16384, and 0.5 to 0.67 with 51200 and 65536."""

KEPT = 0.8
"""Share of the capacity of L2 that holds a kernel's operands between two reads. Fitted: half of it costs 0.2 points of the tables' error
(`benchmarks/constants.py`)."""

READ_GAP = 8.0
"""Bytes of DRAM time that each contiguous run of reads costs on top of its own: runs that tiles read are whole sectors,
so what is left is the start of a burst."""

READ_OF_WRITE = 0.25
"""What a run of a product's reads costs over what one of its writes does (`write_gap`). Its tiles go along many rows: long products of an L40S read
a row's 128 bytes at 0.75 of DRAM's bandwidth, 256 at 0.80 and those of matrix-vector kernels at 0.88; fits of it and of an A100 are best by it."""


@dataclass
class Traffic:
    """Bytes of the whole kernel at DRAM: `read` and `write`, `least_read` when nothing is read twice. `read_effort`
    and `write_effort` are the bytes of a stream of long runs that would take as long: short runs cost more.
    `online` is the part of the least bytes that an online loop goes over."""

    read: Array
    write: Array
    read_effort: Array
    write_effort: Array
    least_read: Array
    online: Array = 0.0
    cycle: Array = 1.0
    """Share of what the kernel touches that L2 has lost when it is timed again; 1 where it is not."""
    together: Array = 0.0
    """Distinct bytes that each wave of blocks loads, in sum over the waves."""
    slowest: Array = 1.0
    """Share of the operand that misses L2 most, for which a step of a tiled loop waits."""

    @cached_property
    def missed(self) -> Array:
        """Share of the distinct bytes that come from DRAM and not from a warm L2."""
        return np.minimum(self.read / np.maximum(self.least_read, 1.0), 1.0)


def traffic(
    kernel: KernelSummary,
    g: Geometry,
    slots: Array,
    group: Array,
    order: tuple[str, ...],
    l2_bytes: float,
    warm: float,
    write_gap: float,
    absorbed: float = 0.0,
    halved: bool = False,
    sweeps: Sweeps = MappingProxyType({}),
) -> Traffic:
    """DRAM bytes read and written.

    A wave of `slots` blocks covers a box of the grid, the fastest dim of `order` first and `group` tiles of the
    slowest tiled dim together. Blocks of a wave share what they load. A later wave finds an operand in L2 as far as
    the operand, with what streams past it, fits. A further sweep over an operand finds what the wave has not pushed out
    since. Of a result that fits L2, DRAM takes the share `absorbed` only after the kernel. `halved`: L2 is in two halves. `sweeps`: of operands
    that a block goes over again, how often.
    """
    waves = g.grid / (wave := np.minimum(slots, g.grid))
    box = box_of(kernel, g, wave / np.minimum(g.split, wave), group, order)
    streaming = not any(nest.contraction for nest in kernel.nests)
    runs = side_by_side(g, box) if streaming else g
    whole = g.sizes(g.extents)
    wide = {dim: np.minimum(g.mean[dim] * box[dim] * g.trips.get(dim, 1.0), g.extents[dim]) for dim in kernel.outer}
    deep = {dim: g.extents[dim] / np.maximum(g.split / wave, 1.0) for dim in kernel.inner}
    per_wave = g.sizes({**wide, **deep})
    entries = _entries(kernel, g, whole, per_wave)
    if not streaming:  # those of blocks in any order, where it makes no difference
        each = undivided([each for _, _, each in entries], group)
        entries = [(access, once, one) for (access, once, _), one in zip(entries, each, strict=True)]
    flow: Array = sum(each for _, _, each in entries)
    write, write_effort = _written(kernel, whole, runs, write_gap)
    if not streaming:
        write_effort = write_effort * lasting(write, absorbed, l2_bytes)
    elif "fresh" in kernel.notes:
        write_effort = write_effort * np.minimum(write / (STREAM_KEPT * l2_bytes), 1.0)
    totals = _by_tensor((access, once) for access, once, _ in entries)
    loads, flow = flow, flow + write / waves
    fresh = sum(once for access, once, _ in entries if noted(kernel, "fresh", access))
    read: Array = 0.0
    least: Array = 0.0
    slowest: Array = 0.0
    online: Array = 0.0
    working_set = sum(totals.values()) + write
    timed = "rotated" in kernel.notes or ("replayed" in kernel.notes and not halved)
    cycle = cycled_cold(working_set, l2_bytes, halved) if timed else 1.0
    if timed and not halved:  # the next timing writes over what was not written back yet
        write_effort = write_effort * cycle
    stays = kept_between_sweeps(loads + write / waves, l2_bytes)
    read_effort: Array = 0.0
    gap = read_gap(kernel, write_gap)
    for access, once, each in entries:
        share = np.minimum(
            _tensor_bytes(access, g) / totals[access.tensor], 1.0
        )  # several accesses of one tensor read it once
        once, each = once * share, each * share
        again = np.maximum(each * waves - once, 0.0)
        kept = np.minimum(KEPT * l2_bytes / (once + flow - each), 1.0)
        first = once * cold_share(kernel, access, once, fresh, l2_bytes, warm)
        if noted(kernel, "replayed", access):
            first = np.minimum(first, once * replayed_cold(working_set, l2_bytes))
        if timed:
            copies = ROTATED * (1.0 + halved) - 1.0 if noted(kernel, "rotated", access) else 0.0
            gone = cycled_cold(working_set + copies * once, l2_bytes, halved) if copies else cycle
            first = np.minimum(first, once * gone)
        over = further(sweeps, access) * np.maximum(each * waves, once)
        missed = first + again * (1.0 - kept) + over * (1.0 - stays)
        slowest = np.maximum(slowest, np.minimum(missed / np.maximum(once, 1.0), 1.0))
        read = read + missed
        read_effort = read_effort + missed * (1.0 + gap / run_bytes(access, runs))
        least = least + once
        if any(np.any(g.online[dim]) for dim in access.dims if dim in g.online):
            online = online + once
    lost = cycle if timed and not halved else 1.0
    return Traffic(read, write, read_effort, write_effort, least, online, lost, loads * waves, slowest)


def undivided(values: Sequence[Array], group: Array) -> Sequence[Array]:
    """Values once where none of them differs along the axis of `group`, if it has one of its own."""
    if np.ndim(group) < 2:
        return values
    along = [np.ndim(value) == np.ndim(group) for value in values]
    if any(its and not (value[1:] == value[:1]).all() for value, its in zip(values, along, strict=True)):
        return values
    return [value[:1] if its else value for value, its in zip(values, along, strict=True)]


def _entries(
    kernel: KernelSummary, g: Geometry, whole: Mapping[str, Array], per_wave: Mapping[str, Array]
) -> list[tuple[Access, Array, Array]]:
    """Each operand once, with the bytes that the whole kernel and that one wave of blocks touch."""
    found = {}
    for access in (access for nest in kernel.nests for access in nest.loads):
        if (access.tensor, access.index) not in found:
            left = _left_by_masks(kernel, access, g)
            found[access.tensor, access.index] = (
                access,
                footprint(access, whole) * left,
                footprint(access, per_wave) * left,
            )
    return [*found.values()]


def _left_by_masks(kernel: KernelSummary, access: Access, g: Geometry) -> Array:
    """Bytes of an element, as far as masks leave elements to load."""
    left: Array = access.dtype.bytes
    for dim in kept_by_masks(access, kernel.reach, kernel.extents):
        left = left * g.left.get(dim, 1.0)
    return left


def _by_tensor(entries: Iterable[tuple[Access, Array]]) -> dict[str, Array]:
    """Bytes of all accesses of each tensor."""
    totals: dict[str, Array] = {}
    for access, once in entries:
        totals[access.tensor] = totals.get(access.tensor, 0.0) + once
    return totals


def _tensor_bytes(access: Access, g: Geometry) -> Array:
    """Of the whole tensor."""
    total: Array = access.dtype.bytes
    for extent in access.shape:
        total = total * extent.evaluate(g.symbols)
    return total


def _written(
    kernel: KernelSummary, whole: Mapping[str, Array], runs: Geometry, write_gap: float
) -> tuple[Array, Array]:
    """Bytes that are stored, and as how many they count with the gaps between their runs."""
    write: Array = 0.0
    effort: Array = 0.0
    for nest in kernel.nests:
        for access in nest.stores:
            size = footprint(access, whole) * access.dtype.bytes
            write = write + size
            effort = effort + size * (1.0 + write_gap * apart(kernel, access, runs) / run_bytes(access, runs))
    return write, effort


def apart(kernel: KernelSummary, access: Access, g: Geometry) -> Array:
    """Which share of the gap after each run the stores of a kernel pay: a product's tiles go along many rows, by how far these are apart."""
    if kernel.chained != 1 or not access.shape:
        return 1.0
    pitch = access.shape[-1].evaluate(g.symbols) * access.dtype.bytes
    return np.minimum(np.square(pitch / APART), 1.0)


def read_gap(kernel: KernelSummary, write_gap: Array) -> Array:
    """Bytes of DRAM time that each run of a kernel's reads costs on top of its own."""
    return READ_OF_WRITE * write_gap if kernel.chained == 1 else READ_GAP


def lasting(write: Array, absorbed: float, l2_bytes: float) -> Array:
    """Share of a product's result that DRAM takes while the kernel runs; of one that fits L2 it takes the share `absorbed` only afterwards."""
    return 1.0 - absorbed * np.clip(1.5 - write / (0.5 * l2_bytes), 0.0, 1.0)


def kept_between_sweeps(flow: Array, l2_bytes: float) -> Array:
    """Share of the rows at work that a further sweep over them still finds in L2, when `flow` is read and written by all blocks in the
    time of one: all while that fits, and nothing of what is older than twice as much. Torch's layer norm and softmax of long rows
    on an A100 (NeuSight's tables) begin to read again where rows and results take KEPT of its L2, and read all again at 1.8 times that."""
    return np.clip(2.0 - flow / np.maximum(KEPT * l2_bytes, 1.0), 0.0, 1.0)


def side_by_side(g: Geometry, box: Mapping[str, Array]) -> Geometry:
    """The tiling whose runs in memory are those of a wave's blocks together, which go along at the same time."""
    return replace(g, mean={dim: size * box.get(dim, 1.0) for dim, size in g.mean.items()})


def drain_seconds(read_seconds: Array, waves: Array, needed: Array) -> Array:
    """Time that DRAM loses at the end of a grid, while the last wave of blocks runs out.

    `needed` is the bytes in flight over those that hide the latency. Blocks end spread over the time of one wave; with
    a share u of them left, DRAM runs at u r / (1 + u r) for r = `needed`, so ln(1 + r) / r of that time is lost. A
    single wave ends together.
    """
    return np.minimum(waves - 1.0, 1.0) * read_seconds / waves * np.log1p(needed) / needed


def replayed_cold(working_set: Array, l2_bytes: float) -> Array:
    """Share of a replayed kernel's inputs that is no longer in L2.

    A cyclic sweep finds all while everything fits and, under least recently used, nothing as soon as it does not; the
    two slices of the cache and what else lives there blur the step.
    """
    return np.clip((working_set / l2_bytes - 0.85) / 0.3, 0.0, 1.0)


def cycled_cold(touched: Array, l2_bytes: float, halved: bool) -> Array:
    """Share of what a cycle of timings comes back to that is no longer in L2, when the cycle touches so many bytes."""
    kept, gone = EVICTED[halved]
    return np.clip((touched / l2_bytes - kept) / (gone - kept), 0.0, 1.0)


def noted(kernel: KernelSummary, note: str, access: Access) -> bool:
    """True when a note of the kernel ("warm": written some kernels ago, "fresh": by the kernel just before) names the
    tensor of an access."""
    names = kernel.notes.get(note, "").split(",")
    return access.tensor in names or access.tensor.split("#")[0] in names


def cold_share(kernel: KernelSummary, access: Access, once: Array, fresh: Array, l2_bytes: float, warm: float) -> Array:
    """Share of the first reads of an operand of `once` bytes that DRAM answers; `fresh` bytes were written just before,
    this operand perhaps among them."""
    if noted(kernel, "warm", access):
        return 1.0 - warm * np.clip(1.5 - once / (0.5 * l2_bytes), 0.0, 1.0)
    if noted(kernel, "fresh", access):
        return np.clip((fresh / l2_bytes - FRESH[0]) / (FRESH[1] - FRESH[0]), 0.0, 1.0)
    return 1.0


def box_of(kernel: KernelSummary, g: Geometry, wave: Array, group: Array, order: tuple[str, ...]) -> dict[str, Array]:
    """How many blocks along each outer dim one wave covers."""
    dims = [dim for dim in order if dim in g.blocks] + [dim for dim in kernel.outer if dim not in order]
    batch = {dim for nest in kernel.nests if nest.contraction for dim in nest.contraction.batch}
    slow = next((dim for dim in dims if dim not in batch), None)
    box: dict[str, Array] = {}
    left: Array = wave
    together: Array = 1.0
    if slow is not None:
        together = np.minimum(np.minimum(group, g.blocks[slow]), left)
        left = left / together
    for dim in reversed(dims):
        if dim == slow:
            taken = np.minimum(np.maximum(g.blocks[dim] / together, 1.0), left)
            box[dim] = taken * together
        else:
            taken = np.minimum(g.blocks[dim], left)
            box[dim] = taken
        left = left / taken
    return box
