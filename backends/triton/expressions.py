"""Index and scalar expressions as Triton text, aligned by broadcasting to the axes of a tile."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from codesign.backends.triton.functions import (
    COMPARISON,
    PRECEDENCE,
    Call,
    Infix,
    Pattern,
    Prefix,
    compute_dtype,
    spelling,
)
from codesign.backends.triton.names import triton_type
from codesign.backends.triton.paired import halved
from codesign.backends.triton.writer import Writer
from codesign.ir.atoms import inside
from codesign.ir.core import Value
from codesign.ir.dtypes import BOOL, F32, I32, I64, U8, DType
from codesign.ir.errors import UnsupportedError
from codesign.ir.functions import FUNCTIONS
from codesign.ir.index import Atom, Bounds, Datum, Extremum, FloorDiv, Index, Mod, Var, index
from codesign.ir.numerics import round_to
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar
from codesign.ir.tile import Axis

ATOM = PRECEDENCE["atom"]
LARGEST = 2**31 - 1
"""Offsets and indices up to this are computed in 32 bits."""
LONGEST = 88
"""Expressions whose text grows past this get a name."""


@dataclass(frozen=True, slots=True)
class Term:
    """Text of an expression over a tile's axes.

    `axes`: those along which it varies (it has size 1 along the others; no axes: a scalar). `dtype`: what the text evaluates to; None
    for a Python number, which takes the type of what it meets.
    """

    text: str
    axes: tuple[str, ...]
    precedence: int
    dtype: DType | None

    def within(self, precedence: int) -> str:
        """The text, in parentheses when it binds no tighter than the place it goes to."""
        return self.text if self.precedence > precedence else f"({self.text})"


_ORDER: dict[str, Callable[[Index, Index], tuple[Index | None, Index | None]]] = {
    "lt": lambda a, b: (None, b),
    "le": lambda a, b: (None, b + 1),
    "ge": lambda a, b: (b, None),
    "gt": lambda a, b: (b + 1, None),
}
"""Comparisons of indices as `low <= a < high`, so that they share their masks with guards."""


class Expressions:
    """Renders expressions of one kernel; names the pieces that are shared or that a loop does not change.

    `wide`: index arithmetic in 64 bits, because a buffer has 2^31 elements or more, or an index is beyond that. `far`: whether an index was met
    that 32 bits do not hold. `stepped`: ids of nodes whose quotients are rounded once (`before_steps`). `even`: variables of loops that are even.
    """

    def __init__(
        self,
        writer: Writer,
        values: dict[Value, str],
        bounds: Bounds,
        wide: bool,
        stepped: Set[int] = frozenset(),
        even: Set[str] = frozenset(),
    ) -> None:
        self.stepped = stepped
        self.even = even
        self.writer = writer
        self.values = values
        self.bounds = bounds
        self.wide = wide
        self.far = False
        self._widths: dict[str, DType] = {}
        """Of names of index arithmetic, which keep what they were made in: places read from data are held against sizes in 64 bits."""

    # -- alignment --------------------------------------------------------------------------------------------------
    @staticmethod
    def _align(name: str, axes: Sequence[str], order: Sequence[str]) -> str:
        """`name`, whose axes are in the order's sequence, with size-1 axes put in for those that it lacks."""
        if not axes or len(axes) == len(order):
            return name
        return f"{name}[{', '.join(':' if axis in axes else 'None' for axis in order)}]"

    def lanes(self, axis: Axis) -> str:
        """The name of `0, 1, ..., size - 1` along an axis."""
        text = f"tl.arange(0, {axis.size})"
        return self.writer.once(("lanes", axis), axis.name, f"{text}.to(tl.int64)" if self.wide else text, 0)

    # -- indices ----------------------------------------------------------------------------------------------------
    def index(self, value: Index, order: Sequence[Axis]) -> Term:
        """An index expression over a tile's axes; each part along one axis gets a name in the outermost scope possible."""
        names = [axis.name for axis in order]
        if not self.wide and not self.far:
            self.far = _is_far(value, self.bounds.with_extents({axis.name: index(axis.size) for axis in order}))
        groups: dict[tuple[str, ...], Index] = {}
        for monomial, c in value.terms:
            part = Index(((monomial, c),))
            axes = tuple(name for name in names if name in part.variables())
            groups[axes] = groups.get(axes, Index(())) + part
        single = next((axes for axes in groups if len(axes) == 1), None)
        if () in groups and single is not None:  # the scalar part rides on a one-dimensional one
            groups[single] = groups[single] + groups.pop(())
        if not groups:
            return self._typed("0", (), ATOM)
        terms = [self._group(part, axes, order) for axes, part in groups.items()]
        if len(terms) == 1:
            return terms[0]
        text = " + ".join(term.within(PRECEDENCE["+"] - 1) for term in terms)
        axes = tuple(name for name in names if any(name in term.axes for term in terms))
        total = self._typed(text, axes, PRECEDENCE["+"])
        return replace(total, dtype=I64) if any(term.dtype is I64 for term in terms) else total

    def _named(self, name: str, axes: tuple[str, ...], order: Sequence[str]) -> Term:
        """Index arithmetic that has a name, in the width that it was made in."""
        width = self._widths.setdefault(name, I64 if self.wide else I32)
        return Term(self._align(name, axes, order), axes, ATOM, width)

    def _typed(self, text: str, axes: tuple[str, ...], precedence: int) -> Term:
        return Term(text, axes, precedence, I64 if self.wide else I32)

    def _group(self, part: Index, axes: tuple[str, ...], order: Sequence[Axis]) -> Term:
        names = [axis.name for axis in order]
        if len(axes) == 1:
            (axis,) = [a for a in order if a.name == axes[0]]
            if part.variable == axis.name:
                return self._named(self.lanes(axis), axes, names)
            text = self._polynomial(part, [axis]).text
            scope = self.writer.depth if part.data() else self.writer.scope_of(part.variables())
            name = self.writer.once(("index", part, axis), f"offs_{axis.name}", text, scope)
            return self._named(name, axes, names)
        term = self._polynomial(part, order)
        if not axes and ("//" in term.text or "%" in term.text) and not part.data():
            name = self.writer.once(("index", part), "base", term.text, self.writer.scope_of(part.variables()))
            return self._typed(name, (), ATOM)
        return term

    def _polynomial(self, value: Index, order: Sequence[Axis]) -> Term:
        """The sum as it is written, without naming parts."""
        names = [axis.name for axis in order]
        axes = tuple(name for name in names if name in value.variables())
        if not value.terms:
            return self._typed("0", (), ATOM)
        text, precedence = "", PRECEDENCE["+"]
        terms = sorted(value.terms, key=lambda item: item[1] < 0)  # a sum that starts with a minus sign reads badly
        for monomial, c in terms:
            factors = [self._atom(atom, order) for atom in monomial]
            if not factors:
                body = str(abs(c))
            else:
                body = " * ".join(f.within(PRECEDENCE["*"] - 1) for f in factors)
                body = body if abs(c) == 1 else f"{body} * {abs(c)}"
            if text:
                text += f" + {body}" if c > 0 else f" - {body}"
            else:
                text = body if c > 0 else f"-{body}"
                if len(terms) == 1 and c > 0:
                    precedence = ATOM if not factors or (len(factors) == 1 and c == 1) else PRECEDENCE["*"]
                    precedence = min([precedence, *(f.precedence for f in factors)])
        return self._typed(text, axes, precedence)

    def _atom(self, atom: Atom, order: Sequence[Axis]) -> Term:
        names = [axis.name for axis in order]
        if isinstance(atom, Var):
            for axis in order:
                if axis.name == atom.name:
                    return self._typed(self._align(self.lanes(axis), (axis.name,), names), (axis.name,), ATOM)
            if atom.name not in self.writer.variables:
                raise UnsupportedError(
                    f"index variable {atom.name} is neither an axis, a grid or loop index, nor a size"
                )
            return self._typed(self.writer.variables[atom.name][0], (), ATOM)
        if isinstance(atom, (FloorDiv, Mod)):
            a, b = self._polynomial(atom.numerator, order), self._polynomial(atom.denominator, order)
            axes = tuple(name for name in names if name in a.axes or name in b.axes)
            bounds = self.bounds.with_extents({axis.name: Index((((), axis.size),)) for axis in order})
            symbol = "//" if isinstance(atom, FloorDiv) else "%"
            if atom.numerator.proves_at_least(0, bounds) and atom.denominator.proves_at_least(1, bounds):
                level = PRECEDENCE[symbol]
                return self._typed(f"{a.within(level - 1)} {symbol} {b.within(level)}", axes, level)
            call = "_floordiv" if isinstance(atom, FloorDiv) else "_floormod"
            return self._typed(f"{call}({a.text}, {b.text})", axes, ATOM)
        if isinstance(atom, Extremum):
            parts = [self._polynomial(arg, order) for arg in atom.args]
            axes = tuple(name for name in names if any(name in part.axes for part in parts))
            text = parts[0].text
            for part in parts[1:]:
                text = f"tl.{atom.kind}imum({text}, {part.text})"
            return self._typed(text, axes, ATOM)
        if isinstance(atom, Datum):
            term = self.scalar(atom.scalar, order, "gathered")
            return replace(self.convert(term, I64 if self.wide else I32), dtype=I64 if self.wide else I32)
        raise TypeError(f"unknown atom {atom!r}")

    # -- scalars ----------------------------------------------------------------------------------------------------
    def scalar(self, body: Scalar, order: Sequence[Axis], wish: str) -> Term:
        """A scalar expression over a tile's axes, of the body's dtype (or a Python number); shared parts get names."""
        pairs = {id(node): found for node in body.walk() if (found := halved(node, order, self.even))}
        walked = list(_without_below(body, pairs) if pairs else body.walk())
        uses: Counter[int] = Counter(id(child) for node in walked for child in node.children())
        done: dict[int, Term] = {}
        for node in walked:
            if id(node) in pairs:
                done[id(node)] = self._of_pairs(*pairs[id(node)], order, wish)
                continue
            term = self._node(node, [done[id(child)] for child in node.children()], order)
            shared = uses[id(node)] > 1 and term.precedence < ATOM
            call = uses[id(node)] > 1 and "(" in term.text and not term.text.startswith("float(")
            named = shared or call or len(term.text) > LONGEST
            if named and node is not body and not isinstance(node, Literal):  # Triton makes a named number float32
                label = node.function if isinstance(node, Apply) else "part"
                key = ("scalar", node, id(node) in self.stepped, tuple(order))
                name = self.writer.once(key, f"{wish}_{label}", term.text)
                term = Term(name, term.axes, ATOM, term.dtype)
            done[id(node)] = term
        return done[id(body)]

    def _of_pairs(self, axis: Axis, pairs: Scalar, order: Sequence[Axis], wish: str) -> Term:
        """The term of which `pairs` is the half along an axis: each of its elements for two neighbours."""
        place = [one.name for one in order].index(axis.name)
        half = [Axis(one.name, one.size // 2) if one is axis else one for one in order]
        term = self.scalar(pairs, half, wish)
        name = self.writer.once(("pairs", pairs, tuple(half)), f"{wish}_pairs", term.text)
        text = f"tl.join({name}, {name})"
        if place < len(order) - 1:
            text = f"tl.permute({text}, {[*range(place + 1), len(order), *range(place + 1, len(order))]})"
        shape = [one.size if one.name in term.axes else 1 for one in order]
        key = ("neighbours", pairs, tuple(half))
        return replace(
            term, text=self.writer.once(key, f"{wish}_words", f"tl.reshape({text}, {shape})"), precedence=ATOM
        )

    def _node(self, node: Scalar, children: list[Term], order: Sequence[Axis]) -> Term:
        if isinstance(node, Literal):
            return _literal(node)
        if isinstance(node, IndexValue):
            number = self.index(node.index, order)
            return self.convert(number, node.dtype) if number.dtype is I64 and node.dtype.bits < 64 else number
        if isinstance(node, Read):
            return self._read(node, order)
        assert isinstance(node, Apply)
        names = [axis.name for axis in order]
        axes = tuple(name for name in names if any(name in child.axes for child in children))
        if node.function == "cast":
            source = children[0]
            if isinstance(node.args[0], IndexValue):  # index arithmetic in 32 bits converts at once
                return self.convert(source, node.dtype)
            return self.convert(self._settle(source, node.args[0].dtype), node.dtype)
        if node.function == "bitcast":
            return self._bitcast(children[0], node.args[0].dtype, node.dtype)
        if node.function == "select":
            condition, yes, no = children
            yes, no = self._settle(yes, node.dtype), self._settle(no, node.dtype)
            text = f"tl.where({condition.text}, {yes.text}, {no.text})"
            return Term(text, axes, ATOM, node.dtype)
        return self._apply(node, children, axes, order)

    def _bitcast(self, term: Term, source: DType, dtype: DType) -> Term:
        """The term's bits in another dtype; a bool has one bit in registers and goes by way of its byte."""
        term = self._settle_strong(term, source) if term.dtype is None else self.convert(term, source)
        byte = self.convert(term, U8) if source is BOOL else term
        if dtype is BOOL:
            as_byte = Term(f"{byte.within(PRECEDENCE['unary'])}.to(tl.uint8, bitcast=True)", term.axes, ATOM, U8)
            return self.convert(as_byte, BOOL)
        if byte.dtype is dtype:
            return byte
        text = f"{byte.within(PRECEDENCE['unary'])}.to({triton_type(dtype)}, bitcast=True)"
        return Term(text, term.axes, ATOM, dtype)

    def _settle(self, term: Term, dtype: DType) -> Term:
        """The term as a value of the dtype; Python numbers stay where Triton types them right by itself."""
        if term.dtype is None:
            if dtype in (F32, I32, BOOL):
                return term
            if dtype.is_float and dtype.bits == 8:
                return self.convert(self._settle_strong(term, F32), dtype)
            return self._settle_strong(term, dtype)
        return self.convert(term, dtype)

    def _apply(self, node: Apply, children: list[Term], axes: tuple[str, ...], order: Sequence[Axis]) -> Term:
        dtype = node.args[0].dtype
        result = BOOL if FUNCTIONS[node.function].result == "bool" else node.dtype
        working = compute_dtype(dtype, node.function)
        if node.function in _ORDER and all(
            isinstance(arg, (IndexValue, Literal)) and not arg.dtype.is_float for arg in node.args
        ):
            value, other = (arg.as_index() for arg in node.args)
            least, limit = _ORDER[node.function](value, other)
            (comparison,) = self.condition(value, least, limit, order)
            return comparison
        base = node.args[0]
        if (
            node.function == "pow"
            and isinstance(base, Literal)
            and dtype.is_float
            and 0 < base.value < math.inf
            and base.value != 1
        ):
            exponent = (
                self.convert(children[1], working) if children[1].dtype else self._settle_strong(children[1], working)
            )
            logarithm = math.log2(base.value)
            head = float(np.float32(logarithm)) if working is F32 else logarithm
            call = f"_constant_power({exponent.text}, {head!r}, {logarithm - head!r})"
            return self.convert(Term(call, axes, ATOM, working), result)
        if node.function == "pow" and isinstance(node.args[1], Literal):
            special = self._literal_power(children[0], node.args[1].value, working, axes)
            if special is not None:
                return self.convert(special, result)
        # integers narrower than their dtype (index arithmetic in 32 bits) may be compared as they are
        narrow = result is BOOL and working is I64 and all(child.dtype in (None, I32) for child in children)
        if not narrow:
            children = [self.convert(child, working) if child.dtype is not None else child for child in children]
        if all(child.dtype is None for child in children):
            children = [Term(f"tl.full([], {c.text}, {triton_type(working)})", (), ATOM, working) for c in children]
        how = spelling(node.function, working)
        if working is F32 and node.function in ("div", "reciprocal") and id(node) in self.stepped:
            one = [self._settle_strong(Term("1", (), ATOM, None), working)]
            how, children = Call("_quotient"), children if node.function == "div" else one + children
        if isinstance(how, Call) and how.name.startswith("_"):  # device functions ask their arguments for a dtype
            children = [c if c.dtype else self._settle_strong(c, working) for c in children]
        produced = BOOL if result is BOOL else working
        if isinstance(how, Call):
            arguments = ", ".join([*(child.text for child in children), *([how.extra] if how.extra else [])])
            term = Term(f"{how.name}({arguments})", axes, ATOM, produced)
        elif isinstance(how, Prefix):
            term = Term(f"{how.symbol}{children[0].within(PRECEDENCE['unary'])}", axes, PRECEDENCE["unary"], produced)
        elif isinstance(how, Infix):
            level = PRECEDENCE[how.symbol]
            left, right = children[0].within(level - 1), children[1].within(level)
            term = Term(f"{left} {how.symbol} {right}", axes, level, produced)
        else:
            assert isinstance(how, Pattern)
            text = how.text.format(*(child.within(PRECEDENCE["*"]) for child in children))
            term = Term(text, axes, how.precedence if how.precedence != COMPARISON else COMPARISON, produced)
        return self.convert(term, result)

    def _settle_strong(self, term: Term, dtype: DType) -> Term:
        return Term(f"tl.full([], {term.text}, {triton_type(dtype)})", (), ATOM, dtype)

    def _literal_power(self, base: Term, exponent: float, dtype: DType, axes: tuple[str, ...]) -> Term | None:
        """x**n for small whole n by multiplication, and square roots: exact where a general power is not."""
        base = self._settle_strong(base, dtype) if base.dtype is None else self.convert(base, dtype)
        if dtype.is_float and exponent in (0.5, -0.5):
            name = "tl.sqrt" if exponent > 0 else "tl.rsqrt"
            return Term(f"{name}({base.text})", axes, ATOM, dtype)
        if exponent != int(exponent) or not 1 <= abs(exponent) <= 4 or (exponent < 0 and not dtype.is_float):
            return None
        if base.precedence < ATOM or "(" in base.text:
            name = self.writer.once(("base", base.text, self.writer.depth), "base", base.text)
            base = Term(name, base.axes, ATOM, dtype)
        text = " * ".join([base.text] * int(abs(exponent)))
        if exponent > 0:
            return Term(text, axes, ATOM if exponent == 1 else PRECEDENCE["*"], dtype)
        return Term(f"1 / ({text})", axes, PRECEDENCE["/"], dtype)

    def _read(self, node: Read, order: Sequence[Axis]) -> Term:
        names = [axis.name for axis in order]
        if node.source not in self.values:
            raise UnsupportedError(f"%{node.source.name} is read before it is defined")
        name = self.values[node.source]
        axes: list[str] = []
        for i in node.indices:
            if i.variable not in names:
                raise UnsupportedError(
                    f"{node}: a tile is read by bare axis names, one per dimension; {i} is none of {names}"
                )
            axes.append(str(i.variable))
        sequence = [axis for axis in names if axis in axes]
        if axes != sequence:
            permutation = [axes.index(axis) for axis in sequence]
            name = f"tl.trans({name})" if len(axes) == 2 else f"tl.permute({name}, {permutation})"
        return Term(self._align(name, sequence, names), tuple(sequence), ATOM, node.dtype)

    # -- conversion -------------------------------------------------------------------------------------------------
    def convert(self, term: Term, dtype: DType) -> Term:
        """The term in another dtype, converted as torch does: to nearest even, to narrow floats by way of float32, to bool by `!= 0`."""
        if term.dtype is dtype:
            return term
        if term.dtype is None:
            return self._settle(term, dtype)
        if dtype is BOOL:
            return Term(f"{term.within(PRECEDENCE['*'])} != 0", term.axes, COMPARISON, BOOL)
        source = term.dtype
        eighth = dtype.is_float and dtype.bits == 8
        if (
            dtype.is_float and dtype.bits < 32 and source is not F32
        ):  # one rounding when it holds the source, else torch's two
            if eighth or not source.is_float or source.bits in (8, dtype.bits, 64):
                return self.convert(self.convert(term, F32), dtype)
        if eighth:
            return Term(f"_to_{triton_type(dtype).removeprefix('tl.')}({term.text})", term.axes, ATOM, dtype)
        if source.is_float and source.bits < 32 and not dtype.is_float:
            return self.convert(self.convert(term, F32), dtype)
        if not term.axes and source in (I32, I64):  # a loop index may be a Python integer
            return Term(f"tl.cast({term.text}, {triton_type(dtype)})", (), ATOM, dtype)
        return Term(f"{term.within(PRECEDENCE['unary'])}.to({triton_type(dtype)})", term.axes, ATOM, dtype)

    def full(self, term: Term, order: Sequence[Axis], dtype: DType) -> str:
        """The term as a tile of exactly these axes and dtype."""
        shape = f"[{', '.join(str(axis.size) for axis in order)}]"
        if term.dtype is None and dtype.is_float and dtype.bits == 8:
            term = self._settle(term, dtype)
        if term.dtype is None:
            return f"tl.full({shape}, {term.text}, {triton_type(dtype)})"
        term = self.convert(term, dtype)
        if len(term.axes) == len(order):
            return term.text
        return f"tl.broadcast_to({term.text}, {shape})"

    def condition(self, value: Index, low: Index | None, high: Index | None, order: Sequence[Axis]) -> list[Term]:
        """The comparisons of a guard; one along a single axis is named in the outermost scope possible."""
        found = []
        for symbol, limit in ((">=", low), ("<", high)):
            if limit is None:
                continue
            difference = value - limit
            axes = [axis for axis in order if axis.name in difference.variables()]
            left, right = self.index(value, order), self.index(limit, order)
            text = f"{left.within(COMPARISON)} {symbol} {right.within(COMPARISON)}"
            names = tuple(axis.name for axis in order if axis.name in left.axes or axis.name in right.axes)
            if len(axes) == 1 and not difference.data():
                one = [axes[0]]
                inner = (
                    f"{self.index(value, one).within(COMPARISON)} {symbol} {self.index(limit, one).within(COMPARISON)}"
                )
                scope = self.writer.scope_of(difference.variables())
                name = self.writer.once(("mask", difference, symbol, axes[0]), f"mask_{axes[0].name}", inner, scope)
                aligned = self._align(name, (axes[0].name,), [axis.name for axis in order])
                found.append(Term(aligned, (axes[0].name,), ATOM, BOOL))
            else:
                found.append(Term(text, names, COMPARISON, BOOL))
        return found


def _is_far(value: Index, bounds: Bounds) -> bool:
    """Whether an index, or what a quotient, remainder or extremum in it is of, is beyond 32 bits; what wraps within a sum comes back."""
    parts = [value, *(part for atom in value.atoms() for part in inside(atom))]
    return any(limit is not None and abs(limit) > LARGEST for part in parts for limit in part.limits(bounds))


def _without_below(body: Scalar, ends: Container[int]) -> Iterator[Scalar]:
    """The nodes of an expression, children first, without those that only nodes of these ids need."""
    needed, stack = {id(body)}, [body]
    while stack:
        node = stack.pop()
        for child in () if id(node) in ends else node.children():
            if id(child) not in needed:
                needed.add(id(child))
                stack.append(child)
    yield from (node for node in body.walk() if id(node) in needed)


def _literal(node: Literal) -> Term:
    """A Python number; of a narrow float the value that the format holds, since it may meet wider numbers."""
    value = node.value
    if node.dtype is BOOL:
        return Term(str(bool(value)), (), ATOM, None)
    if node.dtype.is_float:
        if node.dtype.bits < 32:
            value = float(round_to(value, node.dtype))
        if math.isinf(value) or math.isnan(value):
            return Term(f'float("{value}")', (), ATOM, None)
        text = repr(float(value))
    else:
        text = str(int(value))
    return Term(text, (), ATOM if not text.startswith("-") else PRECEDENCE["unary"], None)
