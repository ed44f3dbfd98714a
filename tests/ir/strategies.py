"""Random index expressions, scalars, ops and modules for property tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from codesign.ir import tile
from codesign.ir.core import Block, Function, Module, Op, Symbol, Value
from codesign.ir.draws import Distribution
from codesign.ir.dtypes import BOOL, DTYPES, F32, I64, DType
from codesign.ir.functions import FUNCTIONS
from codesign.ir.index import Index, index, maximum, minimum
from codesign.ir.location import UNKNOWN, Location
from codesign.ir.precision import PRECISIONS
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar, apply
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import (
    Call,
    Collective,
    Compute,
    Constant,
    Dim,
    Fusion,
    If,
    Launch,
    Random,
    Scan,
    Scatter,
    Sort,
    While,
)
from codesign.ir.types import BufferType, TensorType, tensor

BOOLEAN = st.booleans()
DTYPE = st.sampled_from(list(DTYPES.values()))
NAMES = st.sampled_from(["i", "j", "k", "head", "in", "sum", "index", "x.y", "N", "t0", "step", "weird name"])
TEXTS = st.text(max_size=8)


@st.composite
def indices(draw: st.DrawFn, variables: Sequence[str] = ("i", "j", "k", "S"), depth: int = 3) -> Index:
    """An index expression over the variables, with positive divisors."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        if len(variables) > 0 and draw(BOOLEAN):
            return index(draw(st.sampled_from(list(variables))))
        return index(draw(st.integers(-20, 20)))
    left = draw(indices(variables, depth - 1))
    kind = draw(st.sampled_from(["+", "-", "*", "*c", "//", "%", "//S", "%S", "min", "max"]))
    if kind in ("+", "-", "min", "max", "*"):
        right = draw(indices(variables, depth - 1))
        if kind == "+":
            return left + right
        if kind == "-":
            return left - right
        if kind == "*":
            return left * right
        return minimum(left, right) if kind == "min" else maximum(left, right)
    divisor: Index = index(draw(st.integers(1, 12)))
    if kind.endswith("S") and "S" in variables:
        divisor = divisor * "S"
    return left * divisor if kind == "*c" else left // divisor if kind.startswith("//") else left % divisor


@st.composite
def literals(draw: st.DrawFn, dtype: DType) -> Literal:
    """A constant of the dtype."""
    if dtype is BOOL:
        return Literal(draw(BOOLEAN), dtype)
    if dtype.is_float:
        return Literal(draw(st.floats()), dtype)
    info = np.iinfo(np.dtype(dtype.numpy.type))
    return Literal(draw(st.integers(int(info.min), int(info.max))), dtype)


@st.composite
def scalars(
    draw: st.DrawFn, dtype: DType, values: Sequence[Value], variables: Sequence[str], depth: int = 3, reads: str = "any"
) -> Scalar:
    """A scalar of the dtype that reads the values; `reads`: "axes" makes indices bare names, as tiles are read."""

    def again(kind: DType) -> st.SearchStrategy[Scalar]:
        return scalars(kind, values, variables, depth - 1, reads)

    readable = [value for value in values if value.type.dtype is dtype]
    kind = draw(st.sampled_from(["literal", "index", "read", "cast", "apply", "apply", "select", "shared"]))
    if depth == 0 or kind == "literal":
        return draw(literals(dtype))
    if kind == "index" and not dtype.is_float and dtype is not BOOL:
        return IndexValue(draw(indices(variables, 2)), dtype)
    if kind == "read" and readable:
        source = draw(st.sampled_from(readable))
        rank = len(source.type.shape)
        if reads == "axes":
            return Read(source, draw(st.permutations(list(variables)))[:rank])
        places = [draw(indices(variables, 2)) for _ in range(rank)]
        tables = [value for value in values if value.type.dtype is I64 and len(value.type.shape) == 1]
        if tables and places and draw(BOOLEAN):
            looked_up = draw(st.lists(st.sampled_from(tables), min_size=1, max_size=3))
            found = [Read(table, [places[0]]).as_index() for table in looked_up]
            places[0] = sum((place * draw(st.integers(1, 3)) for place in found[1:]), found[0])
        elif places and draw(st.integers(0, 4)) == 0:
            places[0] = draw(again(I64)).as_index()
        return Read(source, places, draw(st.none() | again(dtype)))
    if kind == "cast":
        return Apply("cast", (draw(again(draw(DTYPE))),), dtype)
    if kind == "select":
        return apply("select", draw(again(BOOL)), draw(again(dtype)), draw(again(dtype)))
    rows = [f for f in FUNCTIONS.values() if f.name not in ("cast", "bitcast", "select")]
    if dtype is BOOL and draw(BOOLEAN):
        inner = draw(DTYPE)
        fitting = [f for f in rows if f.result == "bool" and f.takes(inner)]
    else:
        inner = dtype
        fitting = [f for f in rows if f.result == "same" and f.takes(dtype)]
    row = draw(st.sampled_from(fitting))
    if kind == "shared":
        part = draw(again(inner))
        return apply(row.name, *[part] * row.arity)
    return apply(row.name, *(draw(again(inner)) for _ in range(row.arity)))


@st.composite
def locations(draw: st.DrawFn) -> Location:
    """A place, a merged place, or none."""
    kind = draw(st.sampled_from(["none", "one", "many"]))
    if kind == "none":
        return UNKNOWN
    one = st.builds(Location, TEXTS, st.integers(0, 99), TEXTS, TEXTS).filter(lambda place: place != UNKNOWN)
    return draw(one) if kind == "one" else Location(parts=tuple(draw(st.lists(one, min_size=1, max_size=3))))


@st.composite
def dims(draw: st.DrawFn, least: int = 0, most: int = 3, avoid: Sequence[str] = ()) -> tuple[Dim, ...]:
    """Dimensions of different names; an extent is an integer or a multiple of S."""
    names = draw(st.lists(NAMES.filter(lambda name: name not in avoid), min_size=least, max_size=most, unique=True))
    extent = st.integers(1, 9).map(index) | st.integers(1, 3).map(lambda c: index("S") * c)
    return tuple(Dim(name, draw(extent)) for name in names)


@st.composite
def computes(draw: st.DrawFn, values: Sequence[Value]) -> Compute:
    """A compute that reads the values."""
    kept = draw(dims())
    monoid: Any = draw(st.sampled_from([None, "sum", "max", "argmin", "any"]))
    reduced = () if monoid is None else draw(dims(1, 1 if monoid == "argmin" else 2, [dim.name for dim in kept]))
    body = draw(scalars(draw(DTYPE), values, [dim.name for dim in (*kept, *reduced)] + ["S"]))
    return Compute(
        kept,
        body,
        dtype=draw(st.none() | DTYPE),
        reductions=reduced,
        monoid=monoid,
        accumulate=draw(st.none() | DTYPE),
        name=draw(st.sampled_from(["", "v", "x", "a.b"])),
        location=draw(locations()),
    )


@st.composite
def tensor_ops(draw: st.DrawFn, values: Sequence[Value], depth: int = 2) -> Op:
    """Any tensor-level op over the values."""
    kind = draw(st.sampled_from(["compute", "compute", "other", "scatter", "scan", "region"]))
    where = draw(locations())
    if kind == "compute" or depth == 0:
        return draw(computes(values))
    if kind == "scatter" and values:
        init = draw(st.sampled_from(list(values)))
        over = draw(dims())
        names = [dim.name for dim in over] + ["S"]
        target = [draw(indices(names, 2)) for _ in init.shape]
        combine: Any = draw(st.sampled_from(["set", "add", "mul", "max", "min"]))
        body = draw(scalars(init.type.dtype, values, names))
        return Scatter(combine, init, over, target, body, location=where)
    if kind == "scan":
        over = draw(dims(1))
        body = draw(scalars(F32, values, [dim.name for dim in over]))
        monoid: Any = draw(st.sampled_from(["sum", "prod", "argmax", "logsumexp"]))
        along = draw(st.sampled_from([dim.name for dim in over]))
        return Scan(over, body, monoid=monoid, over=along, accumulate=draw(st.none() | DTYPE), location=where)
    if kind == "region":
        return draw(_regions(values, depth, where))
    source = draw(st.sampled_from(list(values)))
    other = draw(st.sampled_from(["constant", "sort", "random", "call", "collective", "launch"]))
    shape = tensor(draw(DTYPE), *(dim.extent for dim in draw(dims())))
    if other == "sort" and source.shape:
        keep = draw(st.none() | st.just(index(2)))
        axis = draw(st.integers(0, len(source.shape) - 1))
        return Sort(source, axis, descending=draw(BOOLEAN), keep=keep, location=where)
    if other == "random":
        seed, offset = draw(st.integers(-5, 2**63)), draw(st.integers(0, 9))
        distribution: Distribution = draw(st.sampled_from(["uniform", "normal", "bits"]))
        key = draw(st.none() | st.just(source))
        return Random(distribution, shape, seed=seed, offset=offset, key=key, location=where)
    if other == "call":
        plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
        given = draw(
            st.dictionaries(NAMES, plain | st.tuples(plain, plain) | st.tuples(plain) | st.just(()), max_size=3)
        )
        return Call(draw(TEXTS), [source, source], [shape] * draw(st.integers(0, 2)), attributes=given, location=where)
    if other == "collective":
        return Collective("all_reduce", source, shape, devices=8, location=where)
    if other == "launch":
        return Launch("kernel.1", [source], [shape], location=where)
    return Constant(draw(TEXTS), shape, location=where)


@st.composite
def blocks(draw: st.DrawFn, values: Sequence[Value], depth: int, count: int | None = None) -> Block:
    """A block that reads the values and yields `count` of what it has (any number when not given)."""
    block = Block()
    have = list(values)
    for _ in range(draw(st.integers(0, 3))):
        op = draw(tensor_ops(have, depth))
        block.add(op)
        have.extend(op.results)
    number = draw(st.integers(0, 2)) if count is None else count
    block.yields = tuple(draw(st.sampled_from(have)) for _ in range(number)) if have else ()
    return block


@st.composite
def _regions(draw: st.DrawFn, values: Sequence[Value], depth: int, where: Location) -> Op:
    kind = draw(st.sampled_from(["fusion", "if", "while"]))
    if kind == "fusion":
        made: list[Compute] = []
        for _ in range(draw(st.integers(1, 3))):
            made.append(draw(computes([*values, *(op.result for op in made)])))
        return Fusion(Block(ops=made, yields=[made[-1].result]), label=draw(TEXTS), location=where)
    if kind == "if":
        condition = Value(tensor(BOOL), "c")
        then = draw(blocks(values, depth - 1, 1))
        otherwise = draw(blocks(values, depth - 1, 1))
        truths = [value for value in values if value.type == condition.type]
        return If(truths[0] if truths else values[0], then, otherwise, location=where)
    start = [draw(st.sampled_from(list(values)))]
    regions = []
    for _ in range(2):
        arg = Value(start[0].type, "a")
        region = draw(blocks([*values, arg], depth - 1, 1))
        region.args = [arg]
        regions.append(region)
    return While(start, regions[0], regions[1], location=where)


@st.composite
def tile_ops(draw: st.DrawFn, buffers: Sequence[Value], tiles: Sequence[Value], loops: Sequence[str], depth: int) -> Op:
    """Any tile-level op."""
    where = draw(locations())
    axes = [
        tile.Axis(name, draw(st.sampled_from([16, 32])))
        for name in draw(st.lists(st.sampled_from(["m", "n", "k"]), max_size=2, unique=True))
    ]
    names = [axis.name for axis in axes]
    kind = draw(st.sampled_from(["load", "store", "map", "reduce", "dot", "for"]))
    if kind in ("load", "store") and (kind == "load" or tiles):
        buffer = draw(st.sampled_from(list(buffers)))
        places = [draw(indices([*names, *loops], 2)) for _ in buffer.type.shape]
        side = st.none() | indices([*names, "S"], 2)
        guards = [
            tile.Guard(draw(indices([*names, *loops], 2)), draw(side), draw(side))
            for _ in range(draw(st.integers(0, 2)))
        ]
        if kind == "load":
            otherwise = draw(st.none() | literals(buffer.type.dtype))
            return tile.Load(buffer, axes, places, guards=guards, otherwise=otherwise, location=where)
        atomic: Any = draw(st.sampled_from([None, "add", "max"]))
        value = draw(st.sampled_from(list(tiles)))
        return tile.Store(value, buffer, axes, places, guards=guards, atomic=atomic, location=where)
    if kind == "dot" and len(tiles) >= 3:
        a, b, c = (draw(st.sampled_from(list(tiles))) for _ in range(3))
        return tile.Dot(a, b, c, precision=draw(st.sampled_from(PRECISIONS)), location=where)
    if kind == "for" and depth and tiles:
        start = draw(st.lists(st.sampled_from(list(tiles)), max_size=2))
        args = [Value(value.type, "acc") for value in start]
        body = draw(tile_blocks(buffers, [*tiles, *args], [*loops, f"l{depth}"], depth - 1, len(start)))
        body.args = args
        low, high, step = draw(indices(loops, 2)), draw(indices(loops, 2)), draw(st.integers(1, 64))
        return tile.For(f"l{depth}", low, high, step, start, body, pipeline=draw(st.integers(1, 4)), location=where)
    if kind == "reduce":
        reduction: Any = draw(st.sampled_from(["sum", "max", "argmax"]))
        inner = draw(scalars(F32, tiles, ["m", "n"], 2, "axes"))
        return tile.Reduce(axes, [tile.Axis("r", 16)], reduction, inner, location=where)
    return tile.Map(
        axes, draw(scalars(F32, tiles, ["m", "n"], 2, "axes")), dtype=draw(st.none() | DTYPE), location=where
    )


@st.composite
def tile_blocks(
    draw: st.DrawFn, buffers: Sequence[Value], tiles: Sequence[Value], loops: Sequence[str], depth: int, count: int
) -> Block:
    """A block of a kernel."""
    block, have = Block(), list(tiles)
    for _ in range(draw(st.integers(0, 4))):
        op = draw(tile_ops(buffers, have, loops, depth))
        block.add(op)
        have.extend(op.results)
    block.yields = tuple(draw(st.sampled_from(have)) for _ in range(count))
    return block


@st.composite
def kernels(draw: st.DrawFn, name: str) -> tile.Kernel:
    """A kernel; it need not make sense."""
    params = []
    for number in range(draw(st.integers(1, 3))):
        shape = tuple(dim.extent for dim in draw(dims(0, 2)))
        strides = draw(st.just(()) | st.just(tuple(extent * 3 for extent in shape)))
        params.append(Value(BufferType(draw(DTYPE), shape, strides), f"p{number}"))
    grid = tuple(tile.GridDim(f"g{n}", dim.extent) for n, dim in enumerate(draw(dims(0, 2))))
    body = draw(tile_blocks(params, [], [dim.name for dim in grid], 2, 0))
    schedule = Schedule(
        {"m": 64}, order=("m",), reduce={"k": "looped"}, pipeline=3, extras={"warps": 4, "dataflow": "os"}
    )
    return tile.Kernel(
        name,
        params,
        draw(st.integers(0, 1)),
        grid,
        body,
        draw(st.sampled_from([schedule, Schedule()])),
        draw(st.sampled_from([(), ("S",)])),
        draw(locations()),
        draw(st.dictionaries(TEXTS, TEXTS, max_size=2)),
    )


@st.composite
def modules(draw: st.DrawFn) -> Module:
    """A module with a symbol, a function and kernels; types are right, the rest is random."""
    args = [Value(TensorType(draw(DTYPE), tuple(dim.extent for dim in draw(dims(0, 2)))), "x") for _ in range(2)]
    args += [Value(tensor(I64, "S"), "ids"), Value(tensor(F32, 4, "S"), "w"), Value(tensor(BOOL), "flag")]
    body = draw(blocks(args, 2))
    body.args = args
    kernel = draw(kernels("k-1"))
    symbol = Symbol("S", draw(st.integers(0, 4)), draw(st.none() | st.integers(5, 99)), draw(st.none() | st.just(7)))
    function = Function("main", body, draw(locations()))
    return Module(
        draw(st.sampled_from(["m", "my.model", "a b"])), {"S": symbol}, {"main": function}, {kernel.name: kernel}
    )
