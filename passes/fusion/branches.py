"""Where conditions on a dim branch: `n < 64` at 64, `n % 2 < 1` at each point of a period; and the digits that tell the branches apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from codesign.ir.core import Value
from codesign.ir.index import FloorDiv, Index, Mod, index
from codesign.ir.scalar import Apply, Read, Scalar
from codesign.ir.tensor import Compute, Dim
from codesign.passes.fusion.group import fresh_name
from codesign.passes.rebase import Split


def branches(readers: Sequence[Compute], source: Value) -> tuple[dict[str, Split], dict[str, int]]:
    """How to cut the dims along which a value is read where conditions on them branch, and the sizes of the digits that say which branch."""
    splits: dict[str, Split] = {}
    sizes: dict[str, int] = {}
    reading = [op for op in readers if source in op.operands()]
    reads = [read for op in reading for read in op.body.reads() if read.source is source]
    names = {name for read in reads for place in read.indices for name in place.variables()}
    for dim in dict.fromkeys(dim for op in reading for dim in op.domain if dim.name in names):
        found = _digits(dim, reading) if dim.extent.is_constant else None
        if found is not None:
            splits[dim.name], asked = found
            sizes.update(asked)
    return splits, sizes


def edges(dim: Dim, readers: Iterable[Compute]) -> list[int]:
    """The places along a dim before which conditions of readers branch, in order, and its end."""
    extent = dim.extent.constant
    found = {edge for op in readers for atom, edge in _conditions(op) if atom == dim.name}
    return [*sorted(edge for edge in found if 0 < edge < extent), extent]


def _digits(dim: Dim, readers: Iterable[Compute]) -> tuple[Split, dict[str, int]] | None:
    """A dim as digits, and those that conditions ask for; None where none does or they are no whole parts of the dim."""
    extent = dim.extent.constant
    edges, periods = {extent}, {1}
    for op in readers:
        for atom, edge in _conditions(op):
            if isinstance(atom, Mod):
                periods |= {atom.denominator.constant} if atom.numerator.variable == dim.name else set()
            elif isinstance(atom, FloorDiv):
                edges |= {edge * atom.denominator.constant} if atom.numerator.variable == dim.name else set()
            elif atom == dim.name:
                edges.add(edge)
    high, low = math.gcd(*(edge for edge in edges if 0 < edge <= extent)), math.lcm(*periods)
    if (high == extent and low == 1) or extent % high or high % low:
        return None
    digits, asked, value = list[Dim](), dict[str, int](), index(0)
    for size, stride, wanted in ((extent // high, high, True), (high // low, low, False), (low, 1, True)):
        if size > 1:
            digits.append(Dim(fresh_name(dim.name), index(size)))
            value = value + index(digits[-1].name) * stride
            asked.update({digits[-1].name: size} if wanted else {})
    return Split(dim.name, tuple(digits), value), asked


def _conditions(op: Compute) -> Iterator[tuple[str | Mod | FloorDiv, int]]:
    """What a compute compares with constants, and the values of it from which on the comparisons come out otherwise."""
    extents = op.extents()
    for node in op.body.walk():
        yield from _conditions_of(node, extents)


def _conditions_of(node: Scalar, extents: Mapping[str, Index]) -> Iterator[tuple[str | Mod | FloorDiv, int]]:
    if isinstance(node, Read) and node.otherwise is not None:
        for place, size in zip(node.indices, node.source.shape, strict=True):
            yield from _edge(place, 0, extents)
            yield from _edge(place - size, 0, extents)
    if not isinstance(node, Apply) or node.function not in ("lt", "le", "gt", "ge") or node.reads():
        return
    yield from _edge(node.args[0].as_index() - node.args[1].as_index(), int(node.function in ("le", "gt")), extents)


def _edge(difference: Index, past: int, extents: Mapping[str, Index]) -> Iterator[tuple[str | Mod | FloorDiv, int]]:
    """Of `atom - edge` or `edge - atom`, which changes its side at zero (or, `past` by one, beyond it), the atom and the edge."""
    for sign in (1, -1):
        rest = (difference - difference.offset) * sign
        edge = difference.offset * -sign + (past if sign == 1 else 1 - past)
        if rest.variable is not None:
            yield rest.variable, edge
        elif len(rest.terms) == 1 and rest.terms[0][1] == 1 and len(rest.terms[0][0]) == 1:
            (atom,) = rest.terms[0][0]
            if isinstance(atom, (Mod, FloorDiv)) and atom.denominator.is_constant:
                yield atom, edge
        else:
            yield from _slowest(rest, edge, extents)


def _slowest(rest: Index, edge: int, extents: Mapping[str, Index]) -> Iterator[tuple[str, int]]:
    """Of digits `s*8 + b` that are compared with a whole number of the slowest one's strides, that digit: `s*8 + b < 16` is `s < 2`."""
    own = rest.variables()
    sizes = {name: extent for name, extent in extents.items() if name in own}
    steps = {name: step.constant for name in sizes if (step := rest.coefficient(name)) is not None and step.is_constant}
    if len(steps) < 2 or rest != sum((index(name) * step for name, step in steps.items()), index(0)):
        return
    slow = max(steps, key=lambda name: steps[name])
    others = [name for name in steps if name != slow]
    if any(steps[name] < 0 or not sizes[name].is_constant for name in others) or edge % steps[slow]:
        return
    if sum(steps[name] * (sizes[name].constant - 1) for name in others) < steps[slow]:
        yield slow, edge // steps[slow]
