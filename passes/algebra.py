"""Scalar rewrites: small functions in a table keyed by scalar function, applied bottom-up by one driver until none fits.

A rule takes an `Apply` whose arguments are already simplified and returns an equal expression, or None. Equal means equal values
for all inputs, NaN and infinities included; so is the sign of a zero, unless `signed_zeros` is off.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from codesign.ir.analysis import is_exact_cast
from codesign.ir.dtypes import BOOL, F32, F64, I64, DType
from codesign.ir.functions import FUNCTIONS
from codesign.ir.index import Bounds, Index, index
from codesign.ir.numerics import round_to
from codesign.ir.scalar import Apply, IndexValue, Literal, Number, Read, Scalar, apply, cast
from codesign.ir.tensor import Compute


@dataclass
class Rewriting:
    """What rules may know: ranges of index variables, and whether the sign of zero must survive."""

    bounds: Bounds
    signed_zeros: bool = True
    _simple: dict[Index, Index] = field(default_factory=dict)

    def index(self, expression: Index) -> Index:
        """The index expression simplified under the bounds."""
        if expression not in self._simple:
            self._simple[expression] = expression.simplify(self.bounds)
        return self._simple[expression]


Rule = Callable[[Apply, Rewriting], Scalar | None]
RULES: dict[str, list[Rule]] = {}


def rule(*functions: str) -> Callable[[Rule], Rule]:
    """Decorator: the rule is tried on applications of these functions."""

    def enter(one: Rule) -> Rule:
        for function in functions:
            if function not in FUNCTIONS:
                raise KeyError(f"rule {one.__name__}: no scalar function {function!r}")
            RULES.setdefault(function, []).append(one)
        return one

    return enter


def simplify_scalar(body: Scalar, rewriting: Rewriting) -> Scalar:
    """The expression with all rules applied, indices simplified, needless `otherwise` dropped, equal nodes shared."""
    known: dict[Scalar, Scalar] = {}

    def change(node: Scalar) -> Scalar:
        for _ in range(32):
            new = _step(node, rewriting)
            if new is None:
                break
            node = new
        return known.setdefault(node, node)

    return body.rewrite(change)


def _step(node: Scalar, rewriting: Rewriting) -> Scalar | None:
    if isinstance(node, Apply):
        folded = fold_literals(node)
        if folded is not None:
            return folded
        for one in RULES.get(node.function, ()):
            new = one(node, rewriting)
            if new is not None:
                return new
        return _to_index(node, rewriting)
    if isinstance(node, IndexValue):
        simple = rewriting.index(node.index)
        if simple.is_constant:
            return Literal(simple.constant, node.dtype)
        data = simple.data()
        if len(data) == 1 and simple == Index(()) + data[0].as_index() and data[0].dtype is node.dtype:
            return data[0]
        return IndexValue(simple, node.dtype) if simple != node.index else None
    if isinstance(node, Read):
        return _simplify_read(node, rewriting)
    return None


def _simplify_read(node: Read, rewriting: Rewriting) -> Scalar | None:
    indices = tuple(rewriting.index(i) for i in node.indices)
    otherwise = node.otherwise
    if otherwise is not None:
        shape = node.source.shape
        if all(in_range(i, size, rewriting.bounds) for i, size in zip(indices, shape, strict=True)):
            otherwise = None
        elif any(out_of_range(i, size, rewriting.bounds) for i, size in zip(indices, shape, strict=True)):
            return otherwise
    if indices == node.indices and otherwise is node.otherwise:
        return None
    return Read(node.source, indices, otherwise)


def in_range(i: Index, size: Index, bounds: Bounds) -> bool:
    """Proven that `0 <= i < size` for all values inside the bounds."""
    return not i.data() and i.proves_at_least(0, bounds) and i.proves_less(size, bounds)


def out_of_range(i: Index, size: Index, bounds: Bounds) -> bool:
    """Proven that i is never inside `0 <= i < size`."""
    if size == 0:
        return True
    return not i.data() and (i.proves_less(0, bounds) or i.proves_at_least(size, bounds))


# -- numbers ----------------------------------------------------------------------------------------------------------
def is_number(node: Scalar, value: float) -> bool:
    """The node is a literal of that value (a zero of either sign for 0)."""
    return isinstance(node, Literal) and not isinstance(node.value, bool) and node.value == value


def _negative_zero(node: Scalar) -> bool:
    return isinstance(node, Literal) and node.dtype.is_float and node.value == 0 and math.copysign(1.0, node.value) < 0


def literal_of(value: object, dtype: DType) -> Literal:
    """The literal of a dtype nearest to a NumPy value."""
    array = np.asarray(value)
    rounded = (round_to(array, dtype) if dtype.is_float else array.astype(dtype.numpy)).item()
    number: Number = bool(rounded) if dtype is BOOL else float(rounded) if dtype.is_float else int(rounded)
    return Literal(number, dtype)


def integer_range(dtype: DType) -> tuple[int, int]:
    """Least and greatest value of an integer dtype."""
    if dtype.kind == "uint":
        return 0, (1 << dtype.bits) - 1
    return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1


def fold_literals(node: Apply) -> Literal | None:
    """A function of literals, evaluated in the arguments' dtype."""
    if not node.args or not all(isinstance(arg, Literal) for arg in node.args):
        return None
    values = [np.asarray(arg.value, dtype=arg.dtype.numpy) for arg in node.args if isinstance(arg, Literal)]
    source = node.args[0].dtype
    if node.function == "bitcast":
        return None  # its bits may be a NaN's, which a literal doesn't keep
    if node.function == "cast" and source.is_float and not node.dtype.is_float and not np.isfinite(values[0]):
        return None  # undefined: leave it to the machine
    if node.function == "cast" and source.is_float and node.dtype.is_integer:
        least, greatest = integer_range(node.dtype)
        if not least <= float(values[0]) <= greatest:
            return None
    if node.function in ("floordiv", "truncdiv", "mod", "fmod") and source.is_integer and values[1] == 0:
        return None
    with np.errstate(all="ignore"):
        if node.function == "pow" and source.is_integer and values[1] < 0:
            return None
        result = FUNCTIONS[node.function].evaluate(*values)
    return literal_of(result, node.dtype)


def _to_index(node: Apply, rewriting: Rewriting) -> Scalar | None:
    """64-bit integer arithmetic on index values is index arithmetic."""
    if node.dtype is not I64 or not any(isinstance(arg, IndexValue) for arg in node.args):
        return None
    if not all(isinstance(arg, IndexValue) or (isinstance(arg, Literal) and arg.dtype is I64) for arg in node.args):
        return None
    parts = [arg.as_index() for arg in node.args]
    if node.function in ("floordiv", "mod") and parts[1].is_constant and parts[1].constant > 0:
        result = parts[0] // parts[1] if node.function == "floordiv" else parts[0] % parts[1]
    elif node.function in ("add", "sub", "neg"):
        result = node.as_index()
    elif node.function == "mul" and any(part.is_constant for part in parts):
        result = node.as_index()
    else:
        return None
    return IndexValue(rewriting.index(result), I64)


# -- rules ------------------------------------------------------------------------------------------------------------
def represents(narrow: DType, wide: DType) -> bool:
    """Every value of the first dtype is a value of the second."""
    if narrow is wide or narrow is BOOL:
        return True
    if wide is BOOL:
        return False
    if narrow.is_float:
        return is_exact_cast(narrow, wide)
    digits = narrow.bits - (narrow.kind == "int")
    if wide.is_float:
        return wide.mantissa + 1 >= digits and wide.bits >= 32
    return wide.bits - (wide.kind == "int") >= digits and (narrow.kind == "uint" or wide.kind == "int")


@rule("cast")
def cast_of_cast(node: Apply, _: Rewriting) -> Scalar | None:
    """cast(cast(x: a -> b) -> c)  ->  cast(x: a -> c)   when b holds every value of a."""
    if node.args[0].dtype is node.dtype:
        return node.args[0]
    inner = _made(node.args[0])
    if isinstance(inner, Apply) and inner.function == "cast" and represents(inner.args[0].dtype, inner.dtype):
        return cast(inner.args[0], node.dtype)
    return None


_ROUNDED_ONCE = ("add", "sub", "mul", "div", "reciprocal", "sqrt")


@rule("cast")
def rounded_once(node: Apply, _: Rewriting) -> Scalar | None:
    """f32(f64(x) / f64(y))  ->  x / y   of f32: to round to 53 bits first changes nothing (Figueroa 1995, "When is double rounding innocuous?")."""
    inner = _made(node.args[0])
    if node.dtype is not F32 or inner.dtype is not F64 or not isinstance(inner, Apply):
        return None
    if inner.function not in _ROUNDED_ONCE:
        return None
    narrow = [_single(_made(arg)) for arg in inner.args]
    exact = [arg for arg in narrow if arg is not None]
    return apply(inner.function, *exact) if len(exact) == len(narrow) else None


def _made(scalar: Scalar) -> Scalar:
    """What an element-wise compute in f64 makes, in place of a read of it: machines that have no f64 may need no more than is left."""
    if not isinstance(scalar, Read) or scalar.otherwise is not None or scalar.dtype is not F64:
        return scalar
    maker = scalar.source.owner
    if not isinstance(maker, Compute) or maker.reductions:
        return scalar
    places = {dim.name: place for dim, place in zip(maker.dims, scalar.indices, strict=True)}
    return cast(maker.body, F64).substitute(places)


def _single(wide: Scalar) -> Scalar | None:
    """A number of f64 in f32, where it is one."""
    if isinstance(wide, Literal):
        with np.errstate(over="ignore"):
            return Literal(wide.value, F32) if float(np.float32(wide.value)) == wide.value else None
    if isinstance(wide, Apply) and wide.function == "cast" and is_exact_cast(wide.args[0].dtype, F32):
        return cast(wide.args[0], F32)
    return None


@rule("cast")
def cast_of_index(node: Apply, rewriting: Rewriting) -> Scalar | None:
    """cast(index -> integer)  ->  the index in that dtype, when it fits."""
    inner = node.args[0]
    if not isinstance(inner, IndexValue) or not node.dtype.is_integer or inner.index.data():
        return None
    low, high = inner.index.limits(rewriting.bounds)
    least, greatest = integer_range(node.dtype)
    if low is None or high is None or low < least or high > greatest:
        return None
    return IndexValue(inner.index, node.dtype)


@rule("add", "mul", "and", "or", "xor", "eq", "ne", "max", "min")
def literal_last(node: Apply, _: Rewriting) -> Scalar | None:
    """literal + x  ->  x + literal   (one spelling, so that equal things look equal)."""
    a, b = node.args
    return Apply(node.function, (b, a), node.dtype) if isinstance(a, Literal) and not isinstance(b, Literal) else None


@rule("add", "sub")
def add_zero(node: Apply, rewriting: Rewriting) -> Scalar | None:
    """x + 0, x - 0  ->  x   (-0.0 + 0.0 is 0.0, so for floats only where the sign of zero may go)."""
    a, b = node.args
    if not is_number(b, 0):
        return None
    exact = not node.dtype.is_float or (_negative_zero(b) if node.function == "add" else not _negative_zero(b))
    return a if exact or not rewriting.signed_zeros else None


@rule("sub")
def zero_minus(node: Apply, rewriting: Rewriting) -> Scalar | None:
    """0 - x  ->  -x."""
    if is_number(node.args[0], 0) and (not node.dtype.is_float or not rewriting.signed_zeros):
        return apply("neg", node.args[1])
    return None


@rule("add", "sub")
def add_negated(node: Apply, _: Rewriting) -> Scalar | None:
    """x + -y  ->  x - y,   x - -y  ->  x + y."""
    a, b = node.args
    if isinstance(b, Apply) and b.function == "neg":
        return apply("sub" if node.function == "add" else "add", a, b.args[0])
    return None


@rule("mul", "div", "floordiv", "truncdiv", "pow")
def by_one(node: Apply, _: Rewriting) -> Scalar | None:
    """x * 1, x / 1, x ** 1  ->  x   (integer divisions too; floor division of floats rounds, so not there)."""
    if node.dtype.is_float and node.function in ("floordiv", "truncdiv"):
        return None
    return node.args[0] if is_number(node.args[1], 1) else None


@rule("mul")
def by_zero(node: Apply, _: Rewriting) -> Scalar | None:
    """x * 0  ->  0   for integers (a float may be infinite or NaN)."""
    return node.args[1] if not node.dtype.is_float and is_number(node.args[1], 0) else None


@rule("mul")
def by_minus_one(node: Apply, _: Rewriting) -> Scalar | None:
    """x * -1  ->  -x."""
    return apply("neg", node.args[0]) if is_number(node.args[1], -1) and node.dtype.kind in ("float", "int") else None


@rule("div")
def by_power_of_two(node: Apply, _: Rewriting) -> Scalar | None:
    """x / 2**n  ->  x * 2**-n   (exact while the factor is a normal number)."""
    a, b = node.args
    if not isinstance(b, Literal) or not math.isfinite(b.value) or b.value == 0 or node.dtype.bits < 16:
        return None
    fraction, exponent = math.frexp(b.value)
    if abs(fraction) != 0.5 or abs(exponent) > (100 if node.dtype.bits >= 32 or node.dtype.mantissa < 10 else 12):
        return None
    return apply("mul", a, Literal(1.0 / b.value, node.dtype))


@rule("pow")
def small_power(node: Apply, _: Rewriting) -> Scalar | None:
    """x ** 2  ->  x * x,   x ** 3  ->  x * x * x,   x ** -1  ->  1 / x,   x ** 0  ->  1."""
    a, b = node.args
    if is_number(b, 0):
        return Literal(1, node.dtype)
    if is_number(b, 2):
        return apply("mul", a, a)
    if is_number(b, 3):
        return apply("mul", apply("mul", a, a), a)
    if is_number(b, -1) and node.dtype.is_float:
        return apply("reciprocal", a)
    return None


@rule("neg", "not")
def involution(node: Apply, _: Rewriting) -> Scalar | None:
    """--x  ->  x,   not not x  ->  x."""
    inner = node.args[0]
    return inner.args[0] if isinstance(inner, Apply) and inner.function == node.function else None


_OPPOSITE = {"eq": "ne", "ne": "eq"}
_OPPOSITE_INTEGER = {"lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}


@rule("not")
def negated_comparison(node: Apply, _: Rewriting) -> Scalar | None:
    """not (a < b)  ->  a >= b   (orderings only for integers: a NaN fails both)."""
    inner = node.args[0]
    if not isinstance(inner, Apply) or node.dtype is not BOOL:
        return None
    other = _OPPOSITE.get(inner.function)
    if other is None and inner.args and not inner.args[0].dtype.is_float:
        other = _OPPOSITE_INTEGER.get(inner.function)
    return apply(other, *inner.args) if other else None


@rule("and", "or", "max", "min")
def same_twice(node: Apply, _: Rewriting) -> Scalar | None:
    """x and x  ->  x   (so for or, max, min)."""
    return node.args[0] if node.args[0] == node.args[1] else None


@rule("and", "or")
def with_literal(node: Apply, _: Rewriting) -> Scalar | None:
    """x and true  ->  x,   x and false  ->  false,   x or true  ->  true,   x or false  ->  x."""
    a, b = node.args
    if not isinstance(b, Literal) or node.dtype is not BOOL:
        return None
    return a if bool(b.value) == (node.function == "and") else b


@rule("select")
def select_known(node: Apply, _: Rewriting) -> Scalar | None:
    """select(true, a, b)  ->  a,   select(c, a, a)  ->  a,   select(not c, a, b)  ->  select(c, b, a)."""
    condition, yes, no = node.args
    if isinstance(condition, Literal):
        return yes if condition.value else no
    if yes == no:
        return yes
    if isinstance(condition, Apply) and condition.function == "not":
        return apply("select", condition.args[0], no, yes)
    if node.dtype is BOOL and isinstance(yes, Literal) and isinstance(no, Literal):
        return condition if yes.value else apply("not", condition)
    return None


@rule("select")
def select_nested(node: Apply, _: Rewriting) -> Scalar | None:
    """select(c, select(c, a, b), d)  ->  select(c, a, d)   (so on the other side)."""
    condition, yes, no = node.args
    if isinstance(yes, Apply) and yes.function == "select" and yes.args[0] == condition:
        return apply("select", condition, yes.args[1], no)
    if isinstance(no, Apply) and no.function == "select" and no.args[0] == condition:
        return apply("select", condition, yes, no.args[2])
    return None


def _as_index(node: Scalar) -> Index | None:
    if isinstance(node, IndexValue) and not node.index.data():
        return node.index
    return index(int(node.value)) if isinstance(node, Literal) and node.dtype.is_integer else None


@rule("lt", "le", "gt", "ge", "eq", "ne")
def decided_comparison(node: Apply, rewriting: Rewriting) -> Scalar | None:
    """A comparison of index values that their ranges decide  ->  true or false."""
    if not any(isinstance(arg, IndexValue) for arg in node.args):
        return None
    a, b = _as_index(node.args[0]), _as_index(node.args[1])
    if a is None or b is None:
        return None
    bounds = rewriting.bounds
    less, not_less = a.proves_less(b, bounds), a.proves_at_least(b, bounds)
    more, not_more = b.proves_less(a, bounds), b.proves_at_least(a, bounds)
    verdicts = {
        "lt": (less, not_less),
        "ge": (not_less, less),
        "gt": (more, not_more),
        "le": (not_more, more),
        "eq": (a == b, less or more),
        "ne": (less or more, a == b),
    }
    holds, fails = verdicts[node.function]
    if holds or fails:
        return Literal(holds, BOOL)
    return _one_sided(node, a, b)


def _one_sided(node: Apply, a: Index, b: Index) -> Scalar | None:
    """One spelling of equal conditions: `<`, `>=`, `==`, `!=`, positive terms left, negative ones and the constant right.

    `i - 64 >= 0  ->  i >= 64`,   `i1 < r0  ->  i1 < r0`,   `r0 > i1  ->  i1 < r0`.
    """
    function, difference = node.function, a - b
    if function in ("le", "gt"):  # a <= b  is  a < b + 1
        function, difference = ("lt" if function == "le" else "ge"), difference - 1
    terms = [(monomial, c) for monomial, c in difference.terms if monomial]
    if not terms:
        return None
    if terms[0][1] < 0:  # -e < 0  is  e >= 1
        difference = -difference
        if function in ("lt", "ge"):
            function = "ge" if function == "lt" else "lt"
            difference = difference - 1
    left = Index(tuple((m, c) for m, c in difference.terms if m and c > 0))
    right = left - difference
    if function in ("lt", "ge") and right.offset == 1 and not right.is_constant:  # i >= j + 1  is  j < i
        function, left, right = ("ge" if function == "lt" else "lt"), right - 1, left
    sides = [Literal(i.constant, I64) if i.is_constant else IndexValue(i) for i in (left, right)]
    new = Apply(function, sides, BOOL)
    return None if new == node else new


_COMPLEMENT = {"lt": "ge", "ge": "lt", "eq": "ne", "ne": "eq"}


@rule("select")
def select_assumes(node: Apply, rewriting: Rewriting) -> Scalar | None:
    """select(c, f(c), g(c))  ->  select(c, f(true), g(false))   for conditions on indices (and their opposites)."""
    condition, yes, no = node.args
    if not isinstance(condition, Apply) or condition.function not in _COMPLEMENT or condition.reads():
        return None
    if not isinstance(condition.args[0], IndexValue):
        return None
    opposite = Apply(_COMPLEMENT[condition.function], condition.args, BOOL)

    def assume(truth: bool) -> Callable[[Scalar], Scalar | None]:
        def change(inner: Scalar) -> Scalar | None:
            if inner == condition:
                return Literal(truth, BOOL)
            return Literal(not truth, BOOL) if inner == opposite else None

        return change

    new_yes, new_no = yes.rewrite(assume(True)), no.rewrite(assume(False))
    if new_yes is yes and new_no is no:
        return None
    branches = (simplify_scalar(new_yes, rewriting), simplify_scalar(new_no, rewriting))
    return Apply("select", (condition, *branches), node.dtype)
