"""Change of basis of iteration dims: cutting a dim into digits, and gluing digits back, so that loops of two computes coincide.

A reshape between a producer `%v[p]` and its reader shows as `%v[c0*T + c1]` (the reader's dims are the digits of p in mixed radix)
or as `%v[c // T, c % T]` (the producer's dims are the digits of c). Either way an exact change of basis makes the read
`%v[its own dims]`, and then the two can share a loop nest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from codesign.ir.core import Value
from codesign.ir.index import Bounds, FloorDiv, Index, Mod, index
from codesign.ir.scalar import Read, Scalar
from codesign.ir.tensor import Compute, Dim
from codesign.passes.algebra import Rewriting, simplify_scalar


@dataclass(frozen=True)
class Split:
    """One dim written in other dims: `name = value` where `digits` (outermost first) run over their whole extents."""

    name: str
    digits: tuple[Dim, ...]
    value: Index


def quotient(a: Index, b: Index) -> Index | None:
    """a / b when b divides a exactly, else None."""
    return None if b == 0 or (a % b).terms else a // b


def mixed_radix(expression: Index, extent: Index, extents: Mapping[str, Index]) -> tuple[str, ...] | None:
    """Dims (outermost first) of which the expression is the full mixed-radix number `0 <= e < extent`, else None.

    `i*4 + j` with j: 4 and i: 6 covers 24 once: ("i", "j"). The expression 0 of extent 1 has no digits.
    """
    used = expression.variables()
    names = [name for name in extents if name in used]
    strides: dict[str, Index] = {}
    rest = expression
    for name in names:
        stride = expression.coefficient(name)
        if stride is None or stride.variables() & set(names):
            return None
        strides[name] = stride
        rest = rest - stride * name
    if rest.terms:
        return None
    digits: list[str] = []
    step = index(1)
    while strides:
        fitting = [name for name, stride in strides.items() if stride == step]
        if not fitting:
            return None
        digit = next(
            (name for name in fitting if extents[name] == 1), fitting[0]
        )  # which leaves the step to the others
        del strides[digit]
        digits.insert(0, digit)
        step = step * extents[digit]
    return tuple(digits) if step == extent else None


def digits_asked_for(name: str, extent: Index, expressions: Iterable[Index]) -> Split | None:
    """How to cut dim `name` so that the `name // a` and `name % a` in the expressions become digits; None when not exact."""
    bounds: dict[Index, None] = {}
    for expression in expressions:
        for atom in expression.atoms():
            if isinstance(atom, (FloorDiv, Mod)):
                inner, scale = _strip(atom.numerator, name)
                if inner:
                    bounds[scale * atom.denominator] = None
    edges = [edge for edge in bounds if edge != 1 and edge != extent]
    if not edges:
        return None
    chain = _divisor_chain(edges, extent)
    if chain is None:
        return None
    sizes = [quotient(high, low) for low, high in zip([index(1), *chain], [*chain, extent], strict=True)]
    digits = [Dim(f"{name}_{len(chain) - k}", size) for k, size in enumerate(sizes) if size is not None]
    value = index(0)
    for digit, stride in zip(digits, [index(1), *chain], strict=True):
        value = value + stride * digit.name
    return Split(name, tuple(reversed(digits)), value)


def _strip(numerator: Index, name: str) -> tuple[bool, Index]:
    """Whether the numerator is `name`, `name // a` or `name % a`, and the product of the divisors taken so far."""
    if numerator.variable == name:
        return True, index(1)
    if len(numerator.terms) == 1 and numerator.terms[0][1] == 1 and len(numerator.terms[0][0]) == 1:
        atom = numerator.terms[0][0][0]
        if isinstance(atom, FloorDiv):
            inner, scale = _strip(atom.numerator, name)
            return inner, scale * atom.denominator
        if isinstance(atom, Mod):
            return _strip(atom.numerator, name)
    return False, index(1)


def _divisor_chain(edges: Sequence[Index], extent: Index) -> list[Index] | None:
    """The edges ordered so that each divides the next and the last divides the extent; None when they don't."""
    chain: list[Index] = []
    left = list(edges)
    while left:
        least = next((e for e in left if all(e is o or quotient(o, e) is not None for o in left)), None)
        if least is None:
            return None
        left.remove(least)
        chain.append(least)
    return chain if quotient(extent, chain[-1]) is not None else None


def rebased(
    computes: Sequence[Compute],
    names: Mapping[str, str],
    splits: Mapping[str, Split],
    outer: Bounds,
    change: Callable[[Compute, Scalar], Scalar] | None = None,
) -> tuple[list[Compute], dict[Value, Value]]:
    """Copies of the computes with dims renamed and split (in that order of reading: a split dim is not renamed).

    Reads of each other's values are by the readers' and producers' common dims before, and so after. Returns the copies and the
    mapping of old values to new.
    """
    values: dict[str, Index | int | str] = {**names, **{name: split.value for name, split in splits.items()}}
    mapping: dict[Value, Value] = {}
    dims_of: dict[Value, tuple[Dim, ...]] = {}
    made: list[Compute] = []
    for op in computes:
        body = op.body if change is None else change(op, op.body)
        touched = body is not op.body
        mine: dict[str, Index | int | str] = {dim.name: values[dim.name] for dim in op.domain if dim.name in values}
        if mine:
            body = body.substitute(mine)
            touched = touched or any(dim.name in splits for dim in op.domain)
        dims, reductions = _cut(op.dims, names, splits), _cut(op.reductions, names, splits)
        body = redirected(body, mapping, dims_of)
        if touched:
            extents = {dim.name: dim.extent for dim in (*dims, *reductions)}
            body = simplify_scalar(body, Rewriting(outer.with_extents(extents)))
        new = op.with_domain(dims, reductions, body)
        mapping[op.result] = new.result
        dims_of[new.result] = dims
        made.append(new)
    return made, mapping


def _cut(dims: Iterable[Dim], names: Mapping[str, str], splits: Mapping[str, Split]) -> tuple[Dim, ...]:
    cut: list[Dim] = []
    for dim in dims:
        cut.extend(splits[dim.name].digits if dim.name in splits else (Dim(names.get(dim.name, dim.name), dim.extent),))
    return tuple(cut)


def redirected(body: Scalar, mapping: Mapping[Value, Value], dims_of: Mapping[Value, tuple[Dim, ...]]) -> Scalar:
    """The body with reads of old values made reads of the new ones, each at its own dims."""

    def change(node: Scalar) -> Scalar | None:
        if isinstance(node, Read) and node.source in mapping:
            new = mapping[node.source]
            return Read(new, tuple(index(dim.name) for dim in dims_of[new]))
        return None

    return body.rewrite(change) if any(read.source in mapping for read in body.reads()) else body
