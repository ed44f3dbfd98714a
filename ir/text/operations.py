"""Builds each operation from its parse tree: one rule per operation, listed in a table."""

from __future__ import annotations

from collections.abc import Mapping

from lark import Token, Tree

from codesign.ir import tensor, tile
from codesign.ir.core import Block, Op, Value
from codesign.ir.index import Index
from codesign.ir.precision import PRECISIONS
from codesign.ir.scalar import Literal
from codesign.ir.tensor import MONOIDS
from codesign.ir.text.builder import Builder, Rule, all_children, child, children
from codesign.ir.text.expressions import Branch, Node
from codesign.ir.writes import COMBINERS, Combine, Write

SCAN_MONOIDS = ("sum", "prod", "max", "min", "argmax", "argmin", "logsumexp")
DISTRIBUTIONS = ("uniform", "normal", "bits")
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")


# -- tensor level -----------------------------------------------------------------------------------------------------
def _compute(b: Builder, node: Node, names: list[str]) -> Op:
    dtype, dims, reduction, accumulate, body = node.children
    monoid, reduced = (None, ()) if reduction is None else (child(reduction, 0), b.dims(child(reduction, 1)))
    return tensor.Compute(
        b.dims(dims),
        b.body(body),
        dtype=b.dtype(dtype),
        reductions=reduced,
        monoid=None if monoid is None else b.one_of(monoid, MONOIDS, "reduction"),
        accumulate=None if accumulate is None else b.dtype(child(accumulate, 0)),
    )


def _constant(b: Builder, node: Node, names: list[str]) -> Op:
    return tensor.Constant(b.string(node.children[0]), b.tensor_type(node.children[1]))


def _empty(b: Builder, node: Node, names: list[str]) -> Op:
    return tensor.Empty(b.tensor_type(node.children[0]))


def _fusion(b: Builder, node: Node, names: list[str]) -> Op:
    label, block, listed, reshaped = node.children
    inner = b.block(block)
    given = names if len(names) == len(inner.yields) else []  # a wrong count is told by who called this
    writes: dict[int, Write] = {}
    for entry in children(listed):
        _, combine, base, at = all_children(entry)
        within = isinstance(entry, Tree) and entry.data == "write_within"
        kind: Combine = "set" if combine is None else b.one_of(combine, COMBINERS, "combiner")
        writes[_result(b, child(entry, 0), inner)] = Write(b.value(base), b.indices(at), within, kind)
    shapes = {_result(b, child(entry, 0), inner): b.indices(child(entry, 1)) for entry in children(reshaped)}
    named = "" if label is None else b.string(label)
    return tensor.Fusion(inner, names=given, label=named, writes=writes, shapes=shapes)


def _result(b: Builder, node: Branch, inner: Block) -> int:
    """The position of one of a block's results."""
    position = b.integer(node)
    if position >= len(inner.yields):
        b.fail(f"result {position} of {len(inner.yields)}", node)
    return position


def _scatter(b: Builder, node: Node, names: list[str]) -> Op:
    combine, init, dims, target, body = node.children
    kind = b.one_of(combine, COMBINERS, "combiner")
    return tensor.Scatter(kind, b.value(init), b.dims(dims), b.indices(target), b.body(body))


def _scatter_within(b: Builder, node: Node, names: list[str]) -> Op:
    op = _scatter(b, node, names)
    assert isinstance(op, tensor.Scatter)
    op.within = True
    return op


def _scan(b: Builder, node: Node, names: list[str]) -> Op:
    dtype, dims, monoid, over, accumulate, body = node.children
    return tensor.Scan(
        b.dims(dims),
        b.body(body),
        monoid=b.one_of(monoid, SCAN_MONOIDS, "scan"),
        over=b.name(over),
        dtype=b.dtype(dtype),
        accumulate=None if accumulate is None else b.dtype(child(accumulate, 0)),
    )


def _sort(b: Builder, node: Node, names: list[str]) -> Op:
    source, dim, descending, keep = node.children
    value, axis = b.value(source), b.integer(dim)
    if axis >= max(len(value.type.extents), 1):
        b.fail(f"dim {axis} of a tensor of rank {len(value.type.extents)}", dim)
    kept = None if keep is None else b.index(keep)
    return tensor.Sort(value, axis, descending=descending is not None, keep=kept)


def _random(b: Builder, node: Node, names: list[str]) -> Op:
    distribution, kind, key, seed, offset = node.children
    chosen = b.one_of(distribution, DISTRIBUTIONS, "distribution")
    given = None if key is None else b.value(key)
    return tensor.Random(chosen, b.tensor_type(kind), seed=b.signed(seed), offset=b.signed(offset), key=given)


def _call(b: Builder, node: Node, names: list[str]) -> Op:
    target, inputs, attributes, kinds = node.children
    given = {b.name(child(part, 0)): b.datum(child(part, 1)) for part in children(attributes)}
    return tensor.Call(b.string(target), b.values(inputs), b.types(kinds), attributes=given)


def _collective(b: Builder, node: Node, names: list[str]) -> Op:
    kind, combine, source, devices, described = node.children
    return tensor.Collective(
        b.one_of(kind, COLLECTIVES, "collective"),
        b.value(source),
        b.tensor_type(described),
        devices=b.integer(devices),
        combine=b.name(combine),
    )


def _launch(b: Builder, node: Node, names: list[str]) -> Op:
    kernel, inputs, kinds = node.children
    return tensor.Launch(str(kernel)[1:].strip("`"), b.values(inputs), b.types(kinds))


def _if(b: Builder, node: Node, names: list[str]) -> Op:
    condition, then, otherwise = node.children
    return tensor.If(b.value(condition), b.block(then), b.block(otherwise))


def _while(b: Builder, node: Node, names: list[str]) -> Op:
    bindings, times, condition, body = node.children
    pairs = b.bindings(bindings)
    trips: Index | str = ""
    if times is not None:
        trips = b.string(times) if isinstance(times, Token) and times.type == "STRING" else b.index(times)
    start = [value for _, value in pairs]
    return tensor.While(start, b.block(condition, pairs), b.block(body, pairs), trips=trips)


# -- tile level -------------------------------------------------------------------------------------------------------
def _guards(b: Builder, node: Branch) -> list[tile.Guard]:
    guards = []
    for part in children(node):
        sides = [b.index(side) for side in all_children(part)]
        kind = str(part.data) if part is not None and not isinstance(part, Token) else ""
        if kind == "guard_both":
            guards.append(tile.Guard(sides[1], sides[0], sides[2]))
        elif kind == "guard_high":
            guards.append(tile.Guard(sides[0], None, sides[1]))
        elif kind == "guard_low":
            guards.append(tile.Guard(sides[1], sides[0], None))
        else:
            guards.append(tile.Guard(sides[0], None, None))
    return guards


def _otherwise(b: Builder, node: Branch) -> Literal | None:
    if node is None:
        return None
    sign, number = all_children(node)
    return b.number(number, negative=sign is not None)


def _load(b: Builder, node: Node, names: list[str]) -> Op:
    buffer, axes, places, guards, otherwise = node.children
    source, indices = _accessed(b, buffer, places)
    return tile.Load(
        source, b.axes(children(axes)), indices, guards=_guards(b, guards), otherwise=_otherwise(b, otherwise)
    )


def _store(b: Builder, node: Node, names: list[str]) -> Op:
    value, buffer, axes, places, guards, atomic = node.children
    target, indices = _accessed(b, buffer, places)
    return tile.Store(
        b.value(value),
        target,
        b.axes(children(axes)),
        indices,
        guards=_guards(b, guards),
        atomic=None if atomic is None else b.one_of(child(atomic, 0), tile.ATOMICS, "atomic"),
    )


def _accessed(b: Builder, buffer: Branch, places: Branch) -> tuple[Value, tuple[Index, ...]]:
    value, indices = b.value(buffer), b.indices(places)
    if len(indices) != len(value.type.extents):
        b.fail(f"{buffer} has rank {len(value.type.extents)}, accessed with {len(indices)} indices", places)
    return value, indices


def _map(b: Builder, node: Node, names: list[str]) -> Op:
    dtype, axes, body = node.children
    return tile.Map(b.axes(children(axes)), b.body(body), dtype=b.dtype(dtype))


def _reduce(b: Builder, node: Node, names: list[str]) -> Op:
    dtype, axes, monoid, *reduced, body = node.children
    kind = b.one_of(monoid, MONOIDS, "reduction")
    return tile.Reduce(b.axes(children(axes)), b.axes(reduced), kind, b.body(body), dtype=b.dtype(dtype))


def _dot(b: Builder, node: Node, names: list[str]) -> Op:
    left, right, accumulator, precision = node.children
    chosen = "ieee" if precision is None else b.one_of(child(precision, 0), PRECISIONS, "precision")
    return tile.Dot(b.value(left), b.value(right), b.value(accumulator), precision=chosen)


def _for(b: Builder, node: Node, names: list[str]) -> Op:
    variable, low, high, step, bindings, pipeline, body = node.children
    pairs = b.bindings(bindings)
    limits = b.index(low), b.index(high), b.index(step)
    block: Block = b.block(body, pairs)
    if len(block.yields) != len(pairs):
        b.fail(f"the loop carries {len(pairs)} values but yields {len(block.yields)}", body)
    return tile.For(
        b.name(variable),
        *limits,
        [value for _, value in pairs],
        block,
        pipeline=1 if pipeline is None else b.index(pipeline),
    )


def _when(b: Builder, node: Node, names: list[str]) -> Op:
    condition, others, body = node.children
    otherwise = b.values(others)
    block: Block = b.block(body)
    if len(block.yields) != len(otherwise):
        b.fail(f"else there are {len(otherwise)} values, but the block yields {len(block.yields)}", body)
    return tile.When(b.value(condition), otherwise, block)


def _band(b: Builder, node: Node, names: list[str]) -> Op:
    variable, first, dims, body = node.children
    grid = [tile.GridDim(dim.name, dim.extent) for dim in b.dims(dims)]
    return tile.Band(b.name(variable), b.index(first), grid, b.block(body))


OPERATIONS: Mapping[str, Rule] = {
    "compute": _compute,
    "constant": _constant,
    "empty": _empty,
    "fusion": _fusion,
    "scatter": _scatter,
    "scatter_within": _scatter_within,
    "scan": _scan,
    "sort": _sort,
    "random": _random,
    "call": _call,
    "collective": _collective,
    "launch": _launch,
    "if": _if,
    "while": _while,
    "load": _load,
    "store": _store,
    "map": _map,
    "reduce": _reduce,
    "dot": _dot,
    "for": _for,
    "when": _when,
    "band": _band,
}
