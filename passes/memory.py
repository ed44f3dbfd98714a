"""Memory planning: which bytes of one arena each intermediate value occupies, from when it is made until it is last read.

Values that are live together never overlap; values whose lives are apart share bytes. Inputs, results and constants are the
caller's memory and lie outside of the arena.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from codesign.ir.core import Block, Function, Op, Value
from codesign.ir.index import Bounds, index
from codesign.ir.scalar import Read
from codesign.ir.tensor import Compute, Constant, Fusion, Launch
from codesign.ir.tile import Kernel
from codesign.passes.rebase import mixed_radix
from codesign.passes.renewing import renewed

ALIGNMENT = 256
"""Bytes that every buffer's offset is a multiple of (what CUDA's allocator guarantees, and vector accesses want)."""


@dataclass(frozen=True)
class Buffer:
    """One value's place: `offset` and `size` in bytes of the arena; live from op `first` to op `last`, both included."""

    offset: int
    size: int
    first: int
    last: int

    def overlaps(self, other: Buffer) -> bool:
        """Both live at once in some of the same bytes."""
        together = self.first <= other.last and other.first <= self.last
        return together and self.offset < other.offset + other.size and other.offset < self.offset + self.size


@dataclass(frozen=True)
class MemoryPlan:
    """Where a function's intermediates live.

    `buffers`: place of each intermediate in the arena. `aliases`: values that are another value's bytes under another shape.
    `in_place`: values that overwrite the operand they are made of, and new values of the caller's tensors that overwrite the old ones.
    `peak_bytes`: size of the arena. `lower_bound_bytes`: greatest sum of sizes that are live at once, which no plan beats.
    `constant_bytes`, `input_bytes`, `output_bytes`: memory outside of the arena.
    """

    buffers: Mapping[Value, Buffer]
    aliases: Mapping[Value, Value] = field(default_factory=dict)
    in_place: Mapping[Value, Value] = field(default_factory=dict)
    peak_bytes: int = 0
    lower_bound_bytes: int = 0
    constant_bytes: int = 0
    input_bytes: int = 0
    output_bytes: int = 0

    @property
    def offsets(self) -> dict[Value, int]:
        return {value: buffer.offset for value, buffer in self.buffers.items()}

    @property
    def sizes(self) -> dict[Value, int]:
        return {value: buffer.size for value, buffer in self.buffers.items()}

    @property
    def total_bytes(self) -> int:
        """All memory that a run of the function holds at its peak: arena, constants, inputs and results."""
        return self.peak_bytes + self.constant_bytes + self.input_bytes + self.output_bytes


def value_bytes(value: Value, sizes: Mapping[str, int]) -> int:
    """Bytes of a tensor value with the size symbols bound; KeyError names a symbol without a value."""
    elements = math.prod(int(size.evaluate(sizes)) for size in value.shape)
    return math.ceil(elements * value.type.dtype.bytes)


def plan(
    function: Function, sizes: Mapping[str, int] | None = None, kernels: Mapping[str, Kernel] | None = None
) -> MemoryPlan:
    """The memory plan of a function at given values of its size symbols; `kernels`: those that it launches.

    Offsets are chosen largest buffer first, each in the tightest gap that is free during its life (best fit).
    """
    bound = dict(sizes or {})
    block = function.body
    aliases = find_aliases(block, kernels)
    lives = _lives(block, aliases)
    outside = {*block.args, *(_root(value, aliases) for value in block.yields)}
    constants: dict[str, int] = {}
    for op in block.ops:
        if isinstance(op, Constant):
            outside.add(op.result)
            constants[op.constant] = value_bytes(op.result, bound)
    shared = _shared(block, lives, outside, bound)
    renewals = renewed(function, kernels or {}, aliases)
    spans = {value: life for value, life in lives.items() if value not in outside and value not in shared}
    for value in shared:
        first_holder = _root(value, shared)
        spans[first_holder] = (spans[first_holder][0], max(spans[first_holder][1], lives[value][1]))
    placed = _place([(value_bytes(value, bound), value, *span) for value, span in spans.items()])
    buffers = {
        value: replace(placed[_root(value, shared)], first=lives[value][0], last=lives[value][1])
        for value in lives
        if value not in outside
    }
    outputs = {_root(value, aliases) for value in block.yields}
    return MemoryPlan(
        buffers=buffers,
        aliases=aliases,
        in_place={**shared, **renewals},
        peak_bytes=max((_aligned(b.offset + b.size) for b in buffers.values()), default=0),
        lower_bound_bytes=_lower_bound(placed),
        constant_bytes=sum(constants.values()),
        input_bytes=sum(value_bytes(value, bound) for value in block.args),
        output_bytes=sum(
            value_bytes(v, bound)
            for v in outputs
            if v not in block.args and v not in renewals and not isinstance(v.owner, Constant)
        ),
    )


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _root(value: Value, aliases: Mapping[Value, Value]) -> Value:
    while value in aliases:
        value = aliases[value]
    return value


def _lives(block: Block, aliases: Mapping[Value, Value]) -> dict[Value, tuple[int, int]]:
    """First and last op of each value's life, ops of regions counted too; an alias prolongs the life of what it stands for."""
    lives: dict[Value, tuple[int, int]] = {}
    clock = itertools.count()

    def use(values: Iterable[Value], position: int) -> None:
        for value in values:
            root = _root(value, aliases)
            if root in lives:
                lives[root] = (lives[root][0], position)

    def visit(body: Block) -> None:
        for op in body.ops:
            if not isinstance(op, Fusion):
                for inner in op.blocks():
                    start = next(clock)
                    lives.update(dict.fromkeys(inner.args, (start, start)))
                    visit(inner)
            position = next(clock)
            for value in op.results:
                if value not in aliases:
                    lives[value] = (position, position)
            use(op.uses(), position)
        use(body.yields, next(clock))

    visit(block)
    return lives


def _shared(
    block: Block, lives: dict[Value, tuple[int, int]], outside: set[Value], sizes: Mapping[str, int]
) -> dict[Value, Value]:
    """Results of element-wise groups that may overwrite an operand: it dies there, and each point reads its own element only."""
    shared: dict[Value, Value] = {}
    taken: set[Value] = set()
    for op in block.ops:
        if not isinstance(op, Fusion) or op.inner_dims() or len(op.computes) != 1 or op.results[0] not in lives:
            continue
        if op.result in outside:
            continue
        (compute,) = op.computes
        own = tuple(index(dim.name) for dim in compute.dims)
        for value in op.uses():
            if value in outside or value not in lives or value in taken or lives[value][1] != lives[op.result][0]:
                continue
            reads = [read for read in compute.body.reads() if read.source is value]
            if all(read.indices == own for read in reads) and value_bytes(value, sizes) == value_bytes(
                op.result, sizes
            ):
                shared[op.result] = value
                taken.add(value)
                break
    return shared


def _place(wanted: list[tuple[int, Value, int, int]]) -> dict[Value, Buffer]:
    order = sorted(range(len(wanted)), key=lambda i: (-wanted[i][0], wanted[i][2]))
    placed: list[Buffer] = []
    buffers: dict[Value, Buffer] = {}
    for i in order:
        size, value, first, last = wanted[i]
        rivals = sorted((b for b in placed if b.first <= last and first <= b.last), key=lambda b: b.offset)
        if not size:
            buffers[value] = Buffer(0, 0, first, last)
            continue
        offset, tightest, free = None, math.inf, 0
        for rival in rivals:
            gap = rival.offset - free
            if size <= gap < tightest:
                offset, tightest = free, gap
            free = max(free, _aligned(rival.offset + rival.size))
        buffer = Buffer(free if offset is None else offset, size, first, last)
        placed.append(buffer)
        buffers[value] = buffer
    return buffers


def _lower_bound(buffers: Mapping[Value, Buffer]) -> int:
    changes: dict[int, int] = {}
    for buffer in buffers.values():
        changes[buffer.first] = changes.get(buffer.first, 0) + _aligned(buffer.size)
        changes[buffer.last + 1] = changes.get(buffer.last + 1, 0) - _aligned(buffer.size)
    live = most = 0
    for position in sorted(changes):
        live += changes[position]
        most = max(most, live)
    return most


def _written_into(op: Op, kernels: Mapping[str, Kernel]) -> dict[Value, Value]:
    """Results that are an operand with a part of it written anew, in its memory."""
    if isinstance(op, Fusion):
        return {op.results[position]: write.base for position, write in op.writes.items()}
    if isinstance(op, Launch) and op.kernel in kernels:
        return {op.results[k]: op.inputs[source] for k, source in kernels[op.kernel].overwrites.items()}
    return {}


def find_aliases(block: Block, kernels: Mapping[str, Kernel] | None = None) -> dict[Value, Value]:
    """Results that hold the same elements in the same order as a value made before: reshapes that need no copy.

    So are tensors that a group or a kernel of `kernels` has written into. Returned reshapes are not aliases: the caller owns their memory.
    """
    aliases: dict[Value, Value] = {}
    returned = set(block.yields)
    for op in block.ops:
        aliases.update(_written_into(op, kernels or {}))
        source = same_bytes(op)
        if source is not None and op.result not in returned:
            aliases[op.result] = source
    return aliases


def same_bytes(op: Op) -> Value | None:
    """The value whose row-major bytes the op's only result repeats."""
    compute = op.computes[0] if isinstance(op, Fusion) and len(op.computes) == 1 and len(op.results) == 1 else op
    if isinstance(op, Fusion) and op.writes:
        return None
    if not isinstance(compute, Compute) or compute.reductions or not isinstance(compute.body, Read):
        return None
    read = compute.body
    if read.otherwise is not None or read.dtype is not compute.dtype or any(i.data() for i in read.indices):
        return None
    flat = index(0)
    total = index(1)
    for i, size in zip(read.indices, read.source.shape, strict=True):
        flat, total = flat * size + i, total * size
    flat = flat.simplify(compute.bounds(Bounds()))
    digits = mixed_radix(flat, total, compute.extents())
    names = [dim.name for dim in compute.dims if dim.extent != 1]
    return read.source if digits is not None and list(digits) == names else None
