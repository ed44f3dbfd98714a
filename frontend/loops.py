"""Loops over the first dim of tensors (scan, map, associative scan): loops with a counter, whose results are written part by part."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from codesign.frontend.lowering.builder import Builder, literal, read
from codesign.ir.core import Block, Value, tensor_type
from codesign.ir.dtypes import I64
from codesign.ir.index import Index, index
from codesign.ir.scalar import apply, cast
from codesign.ir.tensor import While
from codesign.ir.types import TensorType

Step = Callable[[list[Value], list[Value]], Sequence[Value]]
"""One step of a scan: from the carried values and the parts at its place, the next carried values and the parts of the results."""


def scanned(
    b: Builder,
    steps: Index,
    first: int,
    carried: Sequence[Value],
    sources: Sequence[Value],
    results: Sequence[Value],
    step: Step,
) -> list[Value]:
    """The last carried values and the results, whose parts from `first` on the steps make; those before are as given in `results`.

    Step k, from `first` to the end of the first dim of extent `steps`, takes part k of each source.
    """
    name = b.name
    counter = b.compute((), lambda i: literal(first, I64), name=f"{name}_first")
    start = [counter, *carried, *results]
    args = [Value(value.type, f"{name}_carried_{k}") for k, value in enumerate(start)]
    at, state, made = args[0], args[1 : 1 + len(carried)], args[1 + len(carried) :]
    condition = _block(b, args, lambda: [_before(b, at, steps)])

    def body() -> list[Value]:
        place = read(at, ()).as_index()
        parts = [part_of(b, source, place) for source in sources]
        found = list(step(list(state), parts))
        b.name = name
        next_state, new = found[: len(state)], found[len(state) :]
        after = b.compute((), lambda i: apply("add", read(at, ()), literal(1, I64)), name=f"{name}_next")
        written = [with_part(b, whole, part, place) for whole, part in zip(made, new, strict=True)]
        return [after, *next_state, *written]

    trips = (steps - first) if steps != first else index(0)
    op = While(start, condition, _block(b, args, body), trips=trips, names=[name] * len(start))
    return list(b.add(op).results)[1:]


def empty_results(b: Builder, kinds: Sequence[TensorType]) -> list[Value]:
    """Zeros for results that steps write."""

    def zeros(kind: TensorType) -> Value:
        return b.compute(kind.shape, lambda i: literal(0, kind.dtype), name=f"{b.name}_results")

    return [zeros(kind) for kind in kinds]


def _before(b: Builder, at: Value, steps: Index) -> Value:
    return b.compute((), lambda i: apply("lt", read(at, ()), b.number(steps, I64)), name=f"{b.name}_goes_on")


def part_of(b: Builder, whole: Value, place: Index) -> Value:
    """The part of a tensor at a place of its first dim."""
    return b.compute(whole.shape[1:], lambda i: read(whole, (place, *i)), name=f"{b.name}_part")


def with_part(b: Builder, whole: Value, part: Value, place: Index) -> Value:
    """The tensor with another part at a place of its first dim."""
    kind = tensor_type(whole).dtype
    return b.scatter("set", whole, part.shape, lambda i: ((place, *i), cast(read(part, i), kind)))


def _block(b: Builder, args: Sequence[Value], make: Callable[[], list[Value]]) -> Block:
    outer, b.ops = b.ops, []
    place = (b.location, b.name, b.target, b.types)
    yields = make()
    block = Block(args, b.ops, yields)
    b.ops = outer
    b.location, b.name, b.target, b.types = place
    return block
