"""Runs the tile level: a kernel, one program instance after the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from codesign.ir import tile
from codesign.ir.core import Block, Op, Value
from codesign.ir.dtypes import F32
from codesign.ir.errors import EvaluationError
from codesign.ir.interpreter.reduction import reduce_array
from codesign.ir.interpreter.scalars import Domain, Evaluator, Span
from codesign.ir.interpreter.symbols import bind_symbols
from codesign.ir.numerics import Array, combine_at, convert, finish
from codesign.ir.precision import multiply


def run_kernel(kernel: tile.Kernel, buffers: Sequence[Array], symbols: Mapping[str, int] | None = None) -> None:
    """Run every program of the grid in order, writing into the output buffers in place.

    `buffers`: one array per parameter, shaped as its type says and held as the interpreter holds the dtype. Size
    symbols are bound from the shapes; `symbols` gives the others.
    """
    if len(buffers) != len(kernel.params):
        raise EvaluationError(f"@{kernel.name} takes {len(kernel.params)} buffers, got {len(buffers)}")
    for value, array in zip(kernel.params, buffers, strict=True):
        if array.dtype != value.type.dtype.numpy:
            raise EvaluationError(
                f"buffer %{value.name} of @{kernel.name} holds {array.dtype}, needs {value.type.dtype.numpy} "
                f"for {value.type.dtype}"
            )
    shapes = ((v.name, v.shape, a.shape) for v, a in zip(kernel.params, buffers, strict=True))
    sizes = bind_symbols(shapes, symbols)
    env = dict(zip(kernel.params, buffers, strict=True))
    extents = [int(dim.extent.evaluate(sizes)) for dim in kernel.grid]
    for place in itertools.product(*(range(extent) for extent in extents)):
        variables = {**sizes, **{dim.name: i for dim, i in zip(kernel.grid, place, strict=True)}}
        run_block(kernel.body, dict(env), variables)


def with_outputs(kernel: tile.Kernel, inputs: Sequence[Array], sizes: Mapping[str, int]) -> list[Array]:
    """The inputs of a kernel and its outputs as they are before it runs: zeros, or a copy of the input that one overwrites."""
    outputs = [
        np.array(inputs[kernel.overwrites[k]])
        if k in kernel.overwrites
        else np.zeros([int(size.evaluate(sizes)) for size in value.shape], value.type.dtype.numpy)
        for k, value in enumerate(kernel.results)
    ]
    return [*inputs, *outputs]


def run_block(block: Block, env: dict[Value, Array], variables: dict[str, int]) -> list[Array]:
    """Run a block of one program; `variables` are its grid and loop indices and the size symbols."""
    for op in block.ops:
        rule = _RULES.get(type(op))
        if rule is None:
            raise EvaluationError(f"the interpreter has no tile-level rule for {op.opcode!r}", place=op.location)
        for value, array in zip(op.results, rule(op, env, variables), strict=True):
            env[value] = array
    return [env[value] for value in block.yields]


def _domain(axes: Sequence[tile.Axis], variables: Mapping[str, int]) -> Domain:
    return Domain([Span(axis.name, 0, int(axis.extent.evaluate(variables))) for axis in axes], variables)


def _places(
    op: tile.Load | tile.Store, evaluator: Evaluator, buffer: Array, active: bool | Array
) -> tuple[int | Array, ...]:
    """The index of every lane along each buffer dim, idle lanes moved inside; EvaluationError when an active one is outside."""
    places: list[int | Array] = []
    for axis, (expression, size) in enumerate(zip(op.indices, buffer.shape, strict=True)):
        place = evaluator.index(expression)
        if np.min(place) < 0 or np.max(place) >= size:
            outside = (np.asarray(place) < 0) | (np.asarray(place) >= size)
            if np.any(outside & active):
                raise EvaluationError(
                    f"{op.opcode} reaches index {np.min(place)}..{np.max(place)} along dim {axis} of "
                    f"%{op.buffer.name}, whose size is {size}, in lanes that no guard stops",
                    place=op.location,
                )
            place = np.clip(place, 0, max(size - 1, 0))
        places.append(place)
    return tuple(places)


def _load(op: tile.Load, env: dict[Value, Array], variables: Mapping[str, int]) -> list[Array]:
    domain = _domain(op.axes, variables)
    evaluator = Evaluator(domain, env, op.location)
    buffer = env[op.buffer]
    active = evaluator.active(op.guards)
    idle = convert(op.otherwise.value, op.buffer.type.dtype)
    if not np.any(active) or buffer.size == 0:
        return [np.full(domain.shape, idle, buffer.dtype)]
    gathered = np.asarray(buffer[_places(op, evaluator, buffer, active)])
    lanes = gathered if active is True else np.where(active, gathered, idle)
    return [np.array(np.broadcast_to(lanes, domain.shape))]


def _store(op: tile.Store, env: dict[Value, Array], variables: Mapping[str, int]) -> list[Array]:
    domain = _domain(op.axes, variables)
    evaluator = Evaluator(domain, env, op.location)
    buffer = env[op.buffer]
    active = evaluator.active(op.guards)
    if not np.any(active):
        return []
    places = tuple(np.broadcast_to(place, domain.shape) for place in _places(op, evaluator, buffer, active))
    dtype = op.buffer.type.dtype
    values = np.broadcast_to(convert(env[op.value], dtype), domain.shape)
    if active is not True:
        chosen = np.broadcast_to(active, domain.shape)
        places, values = tuple(place[chosen] for place in places), values[chosen]
    combine_at(buffer, places, values, op.atomic or "set", dtype)
    return []


def _map(op: tile.Map, env: dict[Value, Array], variables: Mapping[str, int]) -> list[Array]:
    domain = _domain(op.axes, variables)
    value = Evaluator(domain, env, op.location).scalar(op.body)
    return [np.array(np.broadcast_to(convert(value, op.result.type.dtype), domain.shape))]


def _reduce(op: tile.Reduce, env: dict[Value, Array], variables: Mapping[str, int]) -> list[Array]:
    domain = _domain((*op.axes, *op.reduced), variables)
    value = np.broadcast_to(Evaluator(domain, env, op.location).scalar(op.body), domain.shape)
    axes = tuple(range(len(op.axes), len(domain.shape)))
    return [convert(reduce_array(value, axes, op.monoid, op.body.dtype), op.result.type.dtype)]


def _dot(op: tile.Dot, env: dict[Value, Array], variables: Mapping[str, int]) -> list[Array]:
    dtype = op.accumulator.type.dtype
    a, b = env[op.a], env[op.b]
    with np.errstate(all="ignore"):
        product = multiply(convert(a, dtype), convert(b, dtype), op.precision if op.a.type.dtype is F32 else "ieee")
        return [finish(env[op.accumulator] + product, dtype)]


def _for(op: tile.For, env: dict[Value, Array], variables: dict[str, int]) -> list[Array]:
    carried = [env[value] for value in op.initial]
    low, high, step = (int(i.evaluate(variables)) for i in (op.lower, op.upper, op.step))
    if step < 1:
        raise EvaluationError(f"loop {op.variable} has step {step}", place=op.location)
    for i in range(low, high, step):
        inner = {**env, **dict(zip(op.body.args, carried, strict=True))}
        carried = run_block(op.body, inner, {**variables, op.variable: i})
    return carried


def _when(op: tile.When, env: dict[Value, Array], variables: dict[str, int]) -> list[Array]:
    if bool(env[op.condition]):
        return run_block(op.body, dict(env), variables)
    return [env[value] for value in op.otherwise]


def _band(op: tile.Band, env: dict[Value, Array], variables: dict[str, int]) -> list[Array]:
    first, end = (int(i.evaluate(variables)) for i in (op.first, op.end))
    if first <= variables[op.variable] < end:
        place = {name: int(i.evaluate(variables)) for name, i in op.places().items()}
        run_block(op.body, dict(env), {**variables, **place})
    return []


_RULES: dict[type[Op], Callable[[Any, dict[Value, Array], dict[str, int]], list[Array]]] = {
    tile.Load: _load,
    tile.Store: _store,
    tile.Map: _map,
    tile.Reduce: _reduce,
    tile.Dot: _dot,
    tile.For: _for,
    tile.When: _when,
    tile.Band: _band,
}
