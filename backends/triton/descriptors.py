"""Tensor descriptors: which loads are rectangular blocks of a dense tensor, so that a tensor memory accelerator can fetch them.

With the schedule's extra `tma`, such loads go through `tl.make_tensor_descriptor`. On Hopper and later that is one instruction of one thread for
a whole block, straight to shared memory; elsewhere Triton turns it back into pointers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from codesign.ir.index import Index, Var, index
from codesign.ir.tile import Axis, Load
from codesign.ir.types import BufferType

ALIGNMENT = 16
"""Bytes that the base, the strides of the outer dims and the rows of a block must be multiples of."""

LARGEST_BOX = 256
"""Elements of a block along one dim."""


@dataclass(frozen=True)
class Block:
    """A load as a block of its buffer: `start` and `shape` per buffer dim, and the axis along each (None: a single element)."""

    start: tuple[Index, ...]
    shape: tuple[int, ...]
    axes: tuple[Axis | None, ...]


def block_of(op: Load, steps: Mapping[str, int]) -> Block | None:
    """The block that a load fetches; None where it isn't one, or where its alignment can't be proven.

    `steps`: index variables that are multiples of more than 1, as loop indices are of their step.

    Lanes outside the tensor must be exactly the guarded ones, and read as zero: that is what the hardware does.
    """
    buffer = op.buffer.type
    assert isinstance(buffer, BufferType)
    if not 2 <= len(op.axes) <= 5 or len(buffer.shape) > 5 or not buffer.contiguous or op.otherwise.value != 0:
        return None
    if not all(size.is_constant for size in buffer.shape):
        return None
    item = buffer.dtype.bytes
    if any((stride.constant * item) % ALIGNMENT for stride in buffer.strides[:-1]):
        return None
    start, shape, axes = [], [], list[Axis | None]()
    for position in op.indices:
        found = [axis for axis in op.axes if axis.name in position.variables()]
        if len(found) > 1 or (found and position.coefficient(found[0].name) != 1) or position.data():
            return None
        axis = found[0] if found else None
        start.append(position - index(axis.name) if axis else position)
        shape.append(axis.size if axis else 1)
        axes.append(axis)
    used = [axis for axis in axes if axis is not None]
    if len(used) != len(op.axes) or set(used) != set(op.axes) or max(shape) > LARGEST_BOX:
        return None
    if axes[-1] is None or (axes[-1].size * item) % ALIGNMENT or not _aligned(start[-1], item, steps):
        return None
    return Block(tuple(start), tuple(shape), tuple(axes)) if _bounds_are_the_tensors(op, buffer) else None


def _aligned(start: Index, item: float, steps: Mapping[str, int]) -> bool:
    """Every term of the start along the contiguous dim is a multiple of 16 bytes."""
    for monomial, c in start.terms:
        multiple = c
        for atom in monomial:
            multiple *= steps.get(atom.name, 1) if isinstance(atom, Var) else 1
        if (multiple * item) % ALIGNMENT:
            return False
    return True


def _bounds_are_the_tensors(op: Load, buffer: BufferType) -> bool:
    for guard in op.guards:
        if guard.value not in op.indices:
            return False
        size = buffer.shape[op.indices.index(guard.value)]
        if (guard.low is not None and guard.low != 0) or (guard.high is not None and guard.high != size):
            return False
    return True
