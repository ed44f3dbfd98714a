"""The index algebra against isl, which decides equality of quasi-affine functions over whole boxes, also of open size.

A random expression is kept as the tree it was written as. The tree means one function to isl, operation by operation;
what the algebra makes of it is translated from its normal form. Symbolic divisors are decided for each value of the
symbol, symbolic extents for all values at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from codesign.ir.index import (
    Atom,
    Bounds,
    Extremum,
    FloorDiv,
    Index,
    Mod,
    Var,
    ceildiv,
    divide,
    index,
    maximum,
    minimum,
)

if TYPE_CHECKING:
    import islpy as isl
else:
    isl = pytest.importorskip("islpy", reason="islpy, the oracle of these tests, is not installed (make setup)")

DIMS = ("i", "j", "k")


@dataclass(frozen=True)
class Tree:
    """An expression as written: a name or an integer, or an operation on one or two trees and perhaps a divisor."""

    kind: str
    args: tuple[Tree, ...] = ()
    leaf: str | int = 0

    def built(self) -> Index:
        """What the algebra makes of it."""
        if self.kind == "leaf":
            return index(self.leaf)
        a, b = self.args[0].built(), self.args[-1].built()
        if self.kind in ("min", "max"):
            return minimum(a, b) if self.kind == "min" else maximum(a, b)
        return {"+": a + b, "-": a - b}[self.kind] if self.kind in "+-" else self._with_divisor(a)

    def _with_divisor(self, a: Index) -> Index:
        factor = index(self.leaf)
        return a * factor if self.kind == "*" else a // factor if self.kind == "//" else a % factor


@dataclass(frozen=True)
class Box:
    """A set of points: `0 <= dim < extent`, where an extent of 0 stands for the open size N >= 1."""

    extents: tuple[int, int, int]

    @property
    def bounds(self) -> Bounds:
        sizes = {name: index(extent or "N") for name, extent in zip(DIMS, self.extents, strict=True)}
        return Bounds(sizes, {"N": (1, None), "S": (1, 5)})

    @property
    def points(self) -> isl.Set:
        limits = [f"0 <= {name} < {extent or 'N'}" for name, extent in zip(DIMS, self.extents, strict=True)]
        return isl.Set(f"[N] -> {{ [i, j, k] : N >= 1 and {' and '.join(limits)} }}")


def affine(text: str) -> isl.PwAff:
    return isl.PwAff(f"[N] -> {{ [i, j, k] -> [({text})] }}")


def quotient(a: isl.PwAff, divisor: int) -> isl.PwAff:
    return a.scale_down_val(isl.Val(divisor)).floor()


def remainder(a: isl.PwAff, divisor: int) -> isl.PwAff:
    return a.sub(quotient(a, divisor).scale_val(isl.Val(divisor)))


def meant(tree: Tree, symbol: int) -> isl.PwAff:
    """What the tree means where the symbol S has this value."""
    if tree.kind == "leaf":
        return affine(str(symbol if tree.leaf == "S" else tree.leaf))
    args = [meant(arg, symbol) for arg in tree.args]
    match tree.kind:
        case "+":
            return args[0].add(args[1])
        case "-":
            return args[0].sub(args[1])
        case "min":
            return args[0].min(args[1])
        case "max":
            return args[0].max(args[1])
    factor = symbol if tree.leaf == "S" else int(tree.leaf)
    if tree.kind == "*":
        return args[0].scale_val(isl.Val(factor))
    return quotient(args[0], factor) if tree.kind == "//" else remainder(args[0], factor)


def translated(value: Index, symbol: int) -> isl.PwAff:
    """What a normal form means where the symbol S has this value."""
    total = affine("0")
    for monomial, c in value.terms:
        term = affine(str(c))
        for atom in monomial:
            term = term.mul(_atom(atom, symbol))  # isl refuses a product of two that vary
        total = total.add(term)
    return total


def _atom(atom: Atom, symbol: int) -> isl.PwAff:
    if isinstance(atom, Var):
        return affine(str(symbol) if atom.name == "S" else atom.name)
    if isinstance(atom, (FloorDiv, Mod)):
        divisor = atom.denominator.evaluate({"S": symbol})
        whole = translated(atom.numerator, symbol)
        return quotient(whole, divisor) if isinstance(atom, FloorDiv) else remainder(whole, divisor)
    assert isinstance(atom, Extremum)
    first, *others = [translated(arg, symbol) for arg in atom.args]
    for other in others:
        first = first.min(other) if atom.kind == "min" else first.max(other)
    return first


def range_of(function: isl.PwAff, box: Box) -> tuple[int | None, int | None]:
    """Least and greatest value over the box for all N, None where there is none."""
    image = isl.Map.from_pw_aff(function).intersect_domain(box.points).range().project_out(isl.dim_type.param, 0, 1)
    ends = image.dim_min_val(0), image.dim_max_val(0)
    low, high = (end.to_python() if end.is_int() else None for end in ends)
    return low, high


def leaves(symbols: bool) -> st.SearchStrategy[Tree]:
    names = [*DIMS, *DIMS, "N", *(["S"] if symbols else [])]
    return st.builds(lambda leaf: Tree("leaf", leaf=leaf), st.sampled_from(names) | st.integers(-12, 12))


def trees(symbols: bool = False) -> st.SearchStrategy[Tree]:
    """Expressions that are quasi-affine once S has a value."""
    divisors: st.SearchStrategy[str | int] = st.integers(1, 12)
    if symbols:
        divisors = divisors | st.just("S")

    def grown(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
        two = st.builds(
            lambda kind, a, b: Tree(kind, (a, b)), st.sampled_from(["+", "+", "-", "min", "max"]), inner, inner
        )
        divided = st.builds(lambda kind, a, by: Tree(kind, (a,), by), st.sampled_from(["//", "%"]), inner, divisors)
        scaled = st.builds(lambda a, by: Tree("*", (a,), by), inner, st.integers(-6, 8) | divisors)
        kinds = st.sampled_from(["//", "%"])
        digits = st.builds(
            lambda first, then, a, by, last: Tree(then, (Tree(first, (a,), by),), last),
            kinds, kinds, inner, divisors, divisors,
        )  # fmt: skip
        return two | divided | scaled | digits

    i, j = Tree("leaf", leaf="i"), Tree("leaf", leaf="j")
    address = st.builds(lambda width: Tree("+", (Tree("*", (i,), width), j)), st.integers(2, 12) | divisors)
    return st.recursive(leaves(symbols) | address, grown, max_leaves=5)


def affine_trees() -> st.SearchStrategy[Tree]:
    scaled = st.builds(lambda leaf, by: Tree("*", (leaf,), by), leaves(False), st.integers(-6, 8))
    return st.recursive(scaled, lambda inner: st.builds(lambda a, b: Tree("+", (a, b)), inner, inner), max_leaves=4)


sizes = st.sampled_from([1, 2, 3, 4, 5, 8, 12, 16])
closed = st.builds(lambda *extents: Box(extents), sizes, sizes, sizes)
boxes = st.builds(lambda *extents: Box(extents), sizes, sizes, sizes | st.just(0))


def agree(a: isl.PwAff, b: isl.PwAff, box: Box) -> bool:
    return bool(a.ne_set(b).intersect(box.points).is_empty())


@given(trees(), boxes)
def test_construction_and_simplification_keep_the_function(tree: Tree, box: Box) -> None:
    value, truth = tree.built(), meant(tree, 1)
    assert translated(value, 1).ne_set(truth).is_empty(), value
    assert agree(translated(value.simplify(box.bounds), 1), truth, box), value.simplify(box.bounds)


@given(trees(symbols=True), closed)
def test_simplification_keeps_the_function_for_every_symbol(tree: Tree, box: Box) -> None:
    value = tree.built().simplify(box.bounds)
    for symbol in (1, 2, 3, 5):
        assert agree(translated(value, symbol), meant(tree, symbol), box), (value, symbol)


@given(trees(), boxes)
def test_limits_contain_the_range(tree: Tree, box: Box) -> None:
    low, high = tree.built().limits(box.bounds)
    least, greatest = range_of(meant(tree, 1), box)
    assert low is None or (least is not None and low <= least)
    assert high is None or (greatest is not None and greatest <= high)


@given(affine_trees(), closed)
def test_limits_of_affine_are_the_range(tree: Tree, box: Box) -> None:
    value = tree.built()
    assume("N" not in value.variables())
    assert value.limits(box.bounds) == range_of(meant(tree, 1), box)


@given(trees(), trees(), boxes)
def test_proofs_are_true(a: Tree, b: Tree, box: Box) -> None:
    left, right = meant(a, 1), meant(b, 1)
    if a.built().proves_less(b.built(), box.bounds):
        assert left.ge_set(right).intersect(box.points).is_empty()
    if a.built().proves_at_least(b.built(), box.bounds):
        assert left.lt_set(right).intersect(box.points).is_empty()


@given(trees(), boxes, st.integers(0, 1))
def test_proofs_at_the_ends_of_the_range(tree: Tree, box: Box, beyond: int) -> None:
    """The sharpest claims: one beyond the true end must not be proven, the end itself may be."""
    least, greatest = range_of(meant(tree, 1), box)
    value = tree.built()
    if least is not None:
        assert not value.proves_at_least(least + 1 + beyond, box.bounds)
    if greatest is not None:
        assert not value.proves_less(greatest - beyond, box.bounds)


@given(affine_trees(), closed)
def test_proofs_about_affine_are_found(tree: Tree, box: Box) -> None:
    value = tree.built()
    assume("N" not in value.variables())
    least, greatest = range_of(meant(tree, 1), box)
    assert least is not None
    assert greatest is not None
    assert value.proves_at_least(least, box.bounds)
    assert value.proves_less(greatest + 1, box.bounds)


@given(trees(), st.integers(1, 16), boxes)
def test_quotient_and_remainder(tree: Tree, divisor: int, box: Box) -> None:
    truth = meant(tree, 1)
    whole, rest = (translated(part, 1) for part in divide(tree.built(), index(divisor)))
    assert agree(whole.scale_val(isl.Val(divisor)).add(rest), truth, box)
    assert agree(whole, quotient(truth, divisor), box)
    assert range_of(rest, box)[0] in range(divisor)
    assert range_of(rest, box)[1] in range(divisor)
    above = truth.scale_down_val(isl.Val(divisor)).ceil()
    assert agree(translated(ceildiv(tree.built(), divisor), 1), above, box)


i, j = index("i"), index("j")


@pytest.mark.parametrize(
    ("value", "truth", "box"),
    [
        (i % 5 // 4, "floor((i mod 5)/4)", Box((16, 1, 1))),
        (i % 12 // 8, "floor((i mod 12)/8)", Box((16, 1, 1))),
        (i % 6 // 4 + i % 4 // 3, "floor((i mod 6)/4) + floor((i mod 4)/3)", Box((12, 1, 1))),
        (i // 5 % 4 + i // 4 % 5, "(floor(i/5) mod 4) + (floor(i/4) mod 5)", Box((60, 1, 1))),
        (i // 5 % 4 * 5 + i % 5, "i mod 20", Box((60, 1, 1))),
        (i // 20 * 20 + i // 5 % 4 * 5 + i % 5, "i", Box((60, 1, 1))),
        ((i * 12 + j) % 24 // 12, "floor(((12i + j) mod 24)/12)", Box((8, 12, 1))),
        ((i * 4 + j) // 8, "floor((4i + j)/8)", Box((6, 4, 1))),
        ((i * 4 + j) // 8, "floor((4i + j)/8)", Box((6, 5, 1))),
        ((i * 4 + j) % 8, "(4i + j) mod 8", Box((6, 5, 1))),
        ((i - 3) // 4, "floor((i - 3)/4)", Box((8, 1, 1))),
        ((i - 3) % 4, "(i - 3) mod 4", Box((8, 1, 1))),
    ],
    ids=str,
)
def test_what_looks_needless_and_is_not(value: Index, truth: str, box: Box) -> None:
    assert agree(translated(value, 1), affine(truth), box)
    assert agree(translated(value.simplify(box.bounds), 1), affine(truth), box)
