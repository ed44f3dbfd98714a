"""What instructions compute: the contents of scratchpads and DRAM, in NumPy, with the interpreter's arithmetic.

Executions that nothing orders are carried out at once: each core has its own part of one array for each scratch, and an instruction of many
cores is one operation over an axis more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from codesign.backends.accelerator.flat import Flat, Ints
from codesign.backends.accelerator.order import Batch
from codesign.backends.accelerator.prepare import Prepared, place_of
from codesign.backends.accelerator.rewrite import map_reads
from codesign.backends.accelerator.windows import BatchDomain, BatchEvaluator, places_of, window_of
from codesign.costmodel.dataflow.target import Target
from codesign.ir.core import Value
from codesign.ir.dtypes import F32, DType
from codesign.ir.errors import EvaluationError
from codesign.ir.index import Index, index
from codesign.ir.interpreter.reduction import reduce_array
from codesign.ir.microscaling import halves, scale_of
from codesign.ir.numerics import Array, combine_at, convert, finish
from codesign.ir.precision import multiply
from codesign.ir.program import Instruction, Load, Matmul, Program, Store, Vector
from codesign.ir.scalar import IndexValue, Read
from codesign.ir.tile import Axis, Guard


class Values:
    """The memories of one run. `buffers`: one array per parameter of the program, results included; written in place.

    `lanes`: of each transfer whose guards depend on data, the share of lanes that they leave, by execution. `counted`: such instructions, and of
    each guard whether it is one of these; the others cut a box out.
    """

    def __init__(
        self,
        program: Program,
        flat: Flat,
        target: Target,
        buffers: Sequence[Array],
        counted: Mapping[int, Sequence[bool]],
    ) -> None:
        self.program, self.flat, self.target, self.counted = program, flat, target, counted
        for value, array in zip(program.params, buffers, strict=True):
            shape = tuple(size.constant for size in value.shape)
            if tuple(array.shape) != shape or array.dtype != value.type.dtype.numpy:
                raise EvaluationError(
                    f"buffer %{value.name} of @{program.name} is {value.type.dtype}{list(shape)}, "
                    f"got {array.dtype}{list(array.shape)}"
                )
        self.data: dict[Value, Array] = dict(zip(program.params, buffers, strict=True))
        self.owner: dict[Value, Index] = {}
        self.sharing = {item.level: target.sharing.get(item.level, 1) for item in program.scratches}
        for item in program.scratches:
            instances = 1 if item.over > 1 else -(-flat.cores // self.sharing[item.level])
            self.owner[item.value] = index(0) if instances == 1 else index(f"@{item.level}")
            self.data[item.value] = np.zeros((instances, *item.shape), item.dtype.numpy)
        self.instructions = [self._placed(item.instruction) for item in flat.prepared]
        self.lanes = {number: np.ones(len(flat.rows[number].places)) for number in counted}

    def _placed(self, op: Instruction) -> Instruction:
        """The instruction with the owner as the first index of each scratch."""

        def change(read: Read) -> Read:
            owner = self.owner.get(read.source)
            return read if owner is None else Read(read.source, (owner, *read.indices))

        placed = map_reads(op, change)
        if isinstance(placed, Load):
            if placed.source in self.owner:
                placed = replace(placed, indices=(self.owner[placed.source], *placed.indices))
            if placed.keep is not None:
                placed = replace(placed, keep=replace(placed.keep, place=change(placed.keep.place)))
        return placed

    def execute(self, batch: Batch) -> None:
        """Carry out one instruction for several cores."""
        rows = self.flat.rows[batch.number]
        self._execute(self.flat.prepared[batch.number], np.searchsorted(rows.places, batch.places))

    def _execute(self, item: Prepared, chosen: Ints) -> None:
        op, rows = self.instructions[item.number], self.flat.rows[item.number]
        for switch in self._switches(op):
            on = rows.controls[switch][chosen] != 0
            if on.any() and not on.all():
                self._execute(item, chosen[~on])
                self._execute(item, chosen[on])
                return
        core = self.flat.core_of(rows.places[chosen])
        values = {name: column[chosen] for name, column in rows.controls.items()}
        values |= {f"@{level}": core // cores for level, cores in self.sharing.items()}
        fixed = {name: int(v[0]) if (v == v[0]).all() else v for name, v in values.items()}
        try:
            if isinstance(op, Matmul):
                self._matmul(op, fixed, len(chosen))
            elif isinstance(op, Vector):
                self._vector(op, fixed, len(chosen))
            elif isinstance(op, Load):
                self._load(op, fixed, item.number, chosen)
            elif isinstance(op, Store):
                self._store(op, fixed, item.number, chosen)
        except EvaluationError as error:
            raise EvaluationError(error.message, place=place_of(item, self.program)) from error

    @staticmethod
    def _switches(op: Instruction) -> list[str]:
        """Controls that say which of two things an instruction does."""
        found = [op.first] if isinstance(op, Matmul) else [op.keep and op.keep.again] if isinstance(op, Load) else []
        return [str(value) for value in found if value is not None]

    def _vector(self, op: Vector, fixed: Mapping[str, Any], count: int) -> None:
        domain = BatchDomain((*op.axes, *op.reduced), fixed, count)
        value: Array = np.asarray(BatchEvaluator(domain, self.data).scalar(op.body))
        if op.monoid is not None:
            rank = 1 + len(op.axes)
            wide = value.shape[0] if value.ndim else 1
            value = np.ascontiguousarray(np.broadcast_to(value, (wide, *domain.shape[1:])))
            value = reduce_array(value, tuple(range(rank, rank + len(op.reduced))), op.monoid, op.body.dtype)
        self._write(op.target, op.axes, fixed, count, value)

    def _matmul(self, op: Matmul, fixed: Mapping[str, Any], count: int) -> None:
        m, n, k = op.axes
        dtype = op.target.source.type.dtype
        overwrite = not op.accumulate or (op.first is not None and fixed[str(op.first)] == 0)
        precision = op.precision if F32 in (op.a.dtype, op.b.dtype) else "ieee"
        with np.errstate(all="ignore"):
            left, right = (
                np.ascontiguousarray(convert(self._factor(*factor, fixed, count), dtype))
                for factor in ((op.a, op.scales[0], (m, k)), (op.b, op.scales[1], (k, n)))
            )
            product = multiply(left, right, precision)
            if not overwrite:
                product = product + self._read(op.target, (m, n), fixed, count)
            self._write(op.target, (m, n), fixed, count, finish(product, dtype), dtype)

    def _factor(
        self, factor: Read, scales: Sequence[Read], axes: Sequence[Axis], fixed: Mapping[str, Any], count: int
    ) -> Array:
        """An operand of a product, times the scales of its blocks, one after the other."""
        numbers = self._read(factor, axes, fixed, count)
        for scale in scales:
            numbers = numbers * scale_of(self._read(scale, axes, fixed, count), scale.dtype)
        return numbers

    def _load(self, op: Load, fixed: Mapping[str, Any], number: int, chosen: Ints) -> None:
        count = len(chosen)
        if op.keep is not None and fixed[str(op.keep.again)]:
            kept = self._read(op.keep.place, op.axes, fixed, count)
            self._write(op.target, op.axes, fixed, count, kept, op.keep.place.dtype)
            return
        domain = BatchDomain(op.axes, fixed, count)
        evaluator = BatchEvaluator(domain, self.data)
        active = evaluator.active(op.guards)
        self._count(evaluator, op.guards, number, chosen)
        dtype = op.target.source.type.dtype if op.half is None else op.source.type.dtype
        idle = convert(0 if op.otherwise is None else op.otherwise.value, dtype)
        memory = self.data[op.source]
        if active is True:
            try:
                lanes = evaluator.scalar(Read(op.source, op.indices))
            except EvaluationError:
                places_of(op.source, op.indices, evaluator, memory, active)  # says which address is out of range
                raise
        elif not np.any(active) or memory.size == 0:
            lanes = idle
        else:
            gathered = memory[places_of(op.source, op.indices, evaluator, memory, active)]
            lanes = np.where(active, gathered, idle)
        dtype = op.source.type.dtype
        if op.half is not None:
            half = np.asarray(evaluator.scalar(IndexValue(op.half)))
            lanes, dtype = halves(np.asarray(lanes, np.uint8), half), op.target.source.type.dtype
        for place in (op.target, *(() if op.keep is None else (op.keep.place,))):
            self._write(place, op.axes, fixed, count, lanes, dtype)

    def _store(self, op: Store, fixed: Mapping[str, Any], number: int, chosen: Ints) -> None:
        domain = BatchDomain(op.axes, fixed, len(chosen))
        evaluator = BatchEvaluator(domain, self.data)
        active = evaluator.active(op.guards)
        self._count(evaluator, op.guards, number, chosen)
        memory, dtype = self.data[op.target], op.target.type.dtype
        if not np.any(active):
            return
        values = evaluator.scalar(op.source)
        values = np.broadcast_to(values if op.source.dtype is dtype else convert(values, dtype), domain.shape)
        window = window_of(op.indices, domain, memory) if active is True and op.atomic is None else None
        if window is not None:
            window.write(values)
            return
        found = places_of(op.target, op.indices, evaluator, memory, active)
        places = tuple(np.broadcast_to(place, domain.shape) for place in found)
        if active is not True:
            lanes = np.broadcast_to(active, domain.shape)
            places, values = tuple(place[lanes] for place in places), values[lanes]
        combine_at(memory, places, values, op.atomic or "set", dtype)

    def _count(self, evaluator: BatchEvaluator, guards: Sequence[Guard], number: int, chosen: Ints) -> None:
        """Note which share of its lanes data leaves each execution."""
        if number not in self.counted:
            return
        boxes = [guard for guard, counts in zip(guards, self.counted[number], strict=True) if not counts]
        others = [guard for guard, counts in zip(guards, self.counted[number], strict=True) if counts]
        shape = evaluator.domain.shape
        boxed = np.broadcast_to(evaluator.active(boxes), shape).reshape(len(chosen), -1)
        active = boxed & np.broadcast_to(evaluator.active(others), shape).reshape(len(chosen), -1)
        self.lanes[number][chosen] = active.sum(axis=1) / np.maximum(boxed.sum(axis=1), 1)

    def _read(self, read: Read, axes: Sequence[Axis], fixed: Mapping[str, Any], count: int) -> Array:
        """A part of a scratch for each execution, of the axes' shape."""
        domain = BatchDomain(axes, fixed, count)
        window = window_of(read.indices, domain, self.data[read.source])
        found = BatchEvaluator(domain, self.data).scalar(read) if window is None else window.read()
        return np.broadcast_to(found, (found.shape[0], *domain.shape[1:]))

    def _write(
        self,
        target: Read,
        axes: Sequence[Axis],
        fixed: Mapping[str, Any],
        count: int,
        value: Any,
        held: DType | None = None,
    ) -> None:
        """Put values into scratchpad, converted to its dtype; `held`: the dtype that they are values of already."""
        domain = BatchDomain(axes, fixed, count)
        array, dtype = self.data[target.source], target.source.type.dtype
        converted = np.broadcast_to(value if held is dtype else convert(value, dtype), domain.shape)
        window = window_of(target.indices, domain, array)
        if window is not None:
            window.write(converted)
            return
        evaluator = BatchEvaluator(domain, self.data)
        found = places_of(target.source, target.indices, evaluator, array, True)
        array[tuple(np.broadcast_to(place, domain.shape) for place in found)] = converted
