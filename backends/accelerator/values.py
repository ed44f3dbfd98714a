"""What instructions compute: the contents of scratchpads and DRAM, in NumPy, with the interpreter's arithmetic.

A scratch that has been overwritten through another one at the same addresses is poisoned until it is written again, and
reading it is an error: overlapping lives do not go unseen because arrays are kept apart here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from codesign.backends.accelerator.control import Prepared
from codesign.ir.core import Value
from codesign.ir.dtypes import F32
from codesign.ir.errors import EvaluationError
from codesign.ir.index import Index
from codesign.ir.interpreter.reduction import reduce_array
from codesign.ir.interpreter.scalars import Domain, Evaluator, Span
from codesign.ir.numerics import Array, convert, finish
from codesign.ir.precision import multiply
from codesign.ir.program import Instruction, Load, Matmul, Program, Store, Vector
from codesign.ir.scalar import Read
from codesign.ir.tile import Axis


class Values:
    """The memories of one run. `buffers`: one array per parameter of the program, results included; written in place."""

    def __init__(self, program: Program, buffers: Sequence[Array], clusters: Sequence[int]) -> None:
        self.program = program
        for value, array in zip(program.params, buffers, strict=True):
            shape = tuple(size.constant for size in value.shape)
            if tuple(array.shape) != shape or array.dtype != value.type.dtype.numpy:
                raise EvaluationError(
                    f"buffer %{value.name} of @{program.name} is {value.type.dtype}{list(shape)}, "
                    f"got {array.dtype}{list(array.shape)}"
                )
        dram = dict(zip(program.params, buffers, strict=True))
        shared: dict[tuple[str, int, str], Array] = {}
        self.data: list[dict[Value, Array]] = []
        for core, cluster in enumerate(clusters):
            mine = dict(dram)
            for item in program.scratches:
                owner = 0 if item.over > 1 else {"chip": 0, "cluster": cluster}.get(item.level, core)
                key = (item.level, owner, item.name)
                if key not in shared:
                    shared[key] = np.zeros(item.shape, item.dtype.numpy)
                mine[item.value] = shared[key]
            self.data.append(mine)
        self.overlaps = {
            a.value: [
                b.value
                for b in program.scratches
                if b is not a and a.level == b.level and a.address < b.end and b.address < a.end
            ]
            for a in program.scratches
        }
        self.good: list[set[Value]] = [set() for _ in clusters]

    def execute(self, item: Prepared, core: int, controls: tuple[int, ...]) -> None:
        """Run one instruction to its end."""
        op = item.instruction
        fixed = dict(zip(item.controls, controls, strict=True))
        data = self.data[core]
        try:
            if isinstance(op, Matmul):
                first = op.first is not None and op.first.evaluate(fixed) == 0
                self._check(op, item, core, (op.a, op.b) if first or not op.accumulate else (op.a, op.b, op.target))
                self._matmul(op, fixed, data, overwrite=first or not op.accumulate)
            elif isinstance(op, Vector):
                self._check(op, item, core, op.reads())
                self._vector(op, fixed, data)
            elif isinstance(op, Load):
                self._check(op, item, core, op.reads())
                self._load(op, fixed, data)
            elif isinstance(op, Store):
                self._check(op, item, core, op.reads())
                self._store(op, fixed, data)
        except EvaluationError as error:
            place = item.source.location if item.source.location.known else f"@{self.program.name}"
            raise EvaluationError(error.message, place=place) from error

    def _check(self, op: Instruction, item: Prepared, core: int, reads: Sequence[Read]) -> None:
        good = self.good[core]
        for read in reads:
            if read.source not in good and read.source in self.overlaps:
                raise EvaluationError(
                    f"{op.engine} instruction {item.number} reads scratch {read.source.name}, which core {core} has not "
                    "written, or has overwritten through another scratch at the same address"
                )
        for write in op.writes():
            good.difference_update(self.overlaps[write.source])
            good.add(write.source)

    def _vector(self, op: Vector, fixed: Mapping[str, int], data: Mapping[Value, Array]) -> None:
        domain = _domain((*op.axes, *op.reduced), fixed)
        evaluator = Evaluator(domain, data)
        value = np.broadcast_to(evaluator.scalar(op.body), domain.shape)
        if op.monoid is not None:
            rank, value = len(op.axes), np.ascontiguousarray(value)  # NumPy's order of summation follows the layout
            value = reduce_array(value, tuple(range(rank, rank + len(op.reduced))), op.monoid, op.body.dtype)
        _write(op.target, op.axes, fixed, data, value)

    def _matmul(self, op: Matmul, fixed: Mapping[str, int], data: Mapping[Value, Array], *, overwrite: bool) -> None:
        m, n, k = op.axes
        dtype = op.target.source.type.dtype
        a = _window(op.a, (m, k), fixed, data)
        b = _window(op.b, (k, n), fixed, data)
        precision = op.precision if op.a.dtype is F32 else "ieee"
        with np.errstate(all="ignore"):
            left, right = (np.ascontiguousarray(convert(x, dtype)) for x in (a, b))
            product = multiply(left, right, precision)
            if not overwrite:
                product = product + _window(op.target, (m, n), fixed, data)
            _write(op.target, (m, n), fixed, data, finish(product, dtype))

    def _load(self, op: Load, fixed: Mapping[str, int], data: Mapping[Value, Array]) -> None:
        domain = _domain(op.axes, fixed)
        evaluator = Evaluator(domain, data)
        if op.keep is not None and op.keep.again.evaluate(fixed):
            _write(op.target, op.axes, fixed, data, _window(op.keep.place, op.axes, fixed, data))
            return
        active = evaluator.active(op.guards)
        dtype = op.target.source.type.dtype
        idle = convert(0 if op.otherwise is None else op.otherwise.value, dtype)
        memory = data[op.source]
        if active is True:
            try:
                lanes = evaluator.scalar(Read(op.source, op.indices))
            except EvaluationError:
                _places(op.source, op.indices, evaluator, memory, active)  # says which address is out of range
                raise
        elif not np.any(active) or memory.size == 0:
            lanes = idle
        else:
            gathered = memory[_places(op.source, op.indices, evaluator, memory, active)]
            lanes = np.where(active, gathered, idle)
        for place in (op.target, *(() if op.keep is None else (op.keep.place,))):
            _write(place, op.axes, fixed, data, lanes)

    def _store(self, op: Store, fixed: Mapping[str, int], data: Mapping[Value, Array]) -> None:
        domain = _domain(op.axes, fixed)
        evaluator = Evaluator(domain, data)
        active = evaluator.active(op.guards)
        memory = data[op.target]
        dtype = op.target.type.dtype
        if not np.any(active):
            return
        values = np.broadcast_to(convert(evaluator.scalar(op.source), dtype), domain.shape)
        window = _view(op.indices, domain, memory) if active is True and op.atomic is None else None
        if window is not None:
            window[...] = values
            return
        found = _places(op.target, op.indices, evaluator, memory, active)
        places = tuple(np.broadcast_to(place, domain.shape) for place in found)
        if active is not True:
            chosen = np.broadcast_to(active, domain.shape)
            places, values = tuple(place[chosen] for place in places), values[chosen]
        if op.atomic is None:
            memory[places] = values
            return
        combiner: Any = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[op.atomic]
        with np.errstate(all="ignore"):
            combiner.at(memory, places, values)
            if dtype.is_float and dtype.bits < 32:
                memory[places] = convert(memory[places], dtype)


def _domain(axes: Sequence[Axis], fixed: Mapping[str, int]) -> Domain:
    return Domain([Span(axis.name, 0, axis.size) for axis in axes], fixed)


def _places(
    memory: Value, indices: Sequence[Index], evaluator: Evaluator, array: Array, active: bool | Array
) -> tuple[int | Array, ...]:
    """The index of every lane along each dimension, idle lanes moved inside; EvaluationError when an active one is outside."""
    places: list[int | Array] = []
    for axis, (expression, size) in enumerate(zip(indices, array.shape, strict=True)):
        place = evaluator.index(expression)
        if np.min(place) < 0 or np.max(place) >= size:
            outside = (np.asarray(place) < 0) | (np.asarray(place) >= size)
            if np.any(outside & active):
                raise EvaluationError(
                    f"address out of range: index {np.min(place)}..{np.max(place)} along dim {axis} of %{memory.name}, "
                    f"whose size is {size}"
                )
            place = np.clip(place, 0, max(size - 1, 0))
        places.append(place)
    return tuple(places)


def _view(indices: Sequence[Index], domain: Domain, array: Array) -> Array | None:
    """The part of an array that the domain reaches, as a view of the domain's shape; None when it is not one."""
    picks: list[slice] = []
    axes: list[int] = []
    positions: list[int] = []
    for position, (expression, size) in enumerate(zip(indices, array.shape, strict=True)):
        form = domain.linear(expression)
        if form is None:
            return None
        name, step, start = form
        if not name:
            if not 0 <= start < size:
                return None
            picks.append(slice(start, start + 1))
            continue
        axis = domain.axis[name]
        last = start + step * (domain.spans[axis].size - 1)
        if axis in axes or step < 1 or start < 0 or last >= size:
            return None
        picks.append(slice(start, last + 1, step))
        axes.append(axis)
        positions.append(position)
    if any(span.size != 1 for axis, span in enumerate(domain.spans) if axis not in axes):
        return None
    if not picks:
        return array.reshape(domain.shape)
    order = [position for _, position in sorted(zip(axes, positions, strict=True))]
    rest = [position for position in range(len(picks)) if position not in positions]
    return array[tuple(picks)].transpose([*rest, *order]).reshape(domain.shape)


def _window(read: Read, axes: Sequence[Axis], fixed: Mapping[str, int], data: Mapping[Value, Array]) -> Array:
    domain = _domain(axes, fixed)
    view = _view(read.indices, domain, data[read.source])
    if view is not None:
        return view
    return np.broadcast_to(Evaluator(domain, data).scalar(read), domain.shape)


def _write(
    target: Read, axes: Sequence[Axis], fixed: Mapping[str, int], data: Mapping[Value, Array], value: Any
) -> None:
    """Put values into scratchpad, converted to its dtype."""
    domain = _domain(axes, fixed)
    array = data[target.source]
    converted = convert(value, target.source.type.dtype)
    view = _view(target.indices, domain, array)
    if view is not None:
        view[...] = converted
        return
    evaluator = Evaluator(domain, data)
    places = tuple(
        np.broadcast_to(p, domain.shape) for p in _places(target.source, target.indices, evaluator, array, True)
    )
    array[places] = np.broadcast_to(converted, domain.shape)
