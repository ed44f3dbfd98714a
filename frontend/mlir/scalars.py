"""Scalar operations of `arith` and `math` as scalar expressions of the tensor IR.

MLIR's integers have no sign: they are held as signed ones, and operations that mean unsigned numbers read the bits as such. `index` is i64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from codesign.backends.mlir.scalars import OF_FLOATS, OF_INTEGERS, OF_SIGNED, OF_UNSIGNED
from codesign.backends.mlir.writer import element
from codesign.frontend.lowering.builder import literal, where
from codesign.ir import dtypes
from codesign.ir.dtypes import BOOL, I64, DType
from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Bounds, Index, index, maximum, minimum
from codesign.ir.scalar import Apply, IndexValue, Literal, Scalar, apply, bitcast, cast

_FLOATS = (dtypes.F16, dtypes.BF16, dtypes.F32, dtypes.F64)
_BYTES = (dtypes.F8E4M3, dtypes.F8E5M2, dtypes.F8E4M3FNUZ, dtypes.F8E5M2FNUZ)
_TYPES = {element(dtype): dtype for dtype in (BOOL, dtypes.I8, dtypes.I16, dtypes.I32, I64, *_FLOATS, *_BYTES)}
_TYPES["index"] = I64
_UNSIGNED = {dtypes.I8: dtypes.U8, dtypes.I16: dtypes.U16, dtypes.I32: dtypes.U32, I64: dtypes.U64}
_SIGNED = {unsigned: signed for signed, unsigned in _UNSIGNED.items()}


def _functions(*tables: dict[str, str]) -> dict[str, str]:
    """What our own text of MLIR says by each operation: the first of several functions."""
    return {operation: name for table in tables for name, operation in reversed(table.items())}


_SAME = {**_functions(OF_FLOATS, OF_INTEGERS, OF_SIGNED), "math.isnan": "isnan", "math.isinf": "isinf"}
"""Operations whose meaning is that of a scalar function on the same types."""

_OF_UNSIGNED = _functions(OF_UNSIGNED)
_OF_BITS = {"add": "xor", "sub": "xor", "mul": "and"}
"""Arithmetic modulo 2."""

_ORDERED = {1: "eq", 2: "gt", 3: "ge", 4: "lt", 5: "le", 13: "ne"}
"""Predicates of `arith.cmpf` that are functions: false where one side is NaN (`une`, the last: true)."""

_NEGATED = {9: "le", 10: "lt", 11: "ge", 12: "gt"}
"""Those that are true where one side is NaN: the opposite of an ordered one."""

_INTEGER = ("eq", "ne", "lt", "le", "gt", "ge", "lt", "le", "gt", "ge")
"""Predicates of `arith.cmpi` by number; from 6 on of unsigned numbers."""


def dtype_of(kind: Any) -> DType:
    """Our dtype of an MLIR element type; UnsupportedError for others, such as complex numbers."""
    name = str(kind)
    if name not in _TYPES:
        raise UnsupportedError(f"the element type {name} of torch-mlir has no form in the IR")
    return _TYPES[name]


def signless(value: Scalar) -> Scalar:
    """A scalar as MLIR holds it: integers without a sign as signed ones."""
    return bitcast(value, _SIGNED[value.dtype]) if value.dtype in _SIGNED else value


def unsigned(value: Scalar) -> Scalar:
    """The bits of an integer as a number without a sign."""
    return bitcast(value, _UNSIGNED[value.dtype]) if value.dtype in _UNSIGNED else value


def plain(value: Any) -> Index | None:
    """A scalar that is index arithmetic."""
    if isinstance(value, IndexValue):
        return value.index
    if isinstance(value, Literal) and value.dtype is I64:
        return index(int(value.value))
    return None


def of_index(value: Index, bounds: Bounds) -> Scalar:
    """An index expression as a scalar, a number where it is one."""
    simple = value.simplify(bounds)
    return Literal(simple.constant, I64) if simple.is_constant else IndexValue(simple)


def operation(op: Any, args: list[Scalar], bounds: Bounds, notes: list[str]) -> Scalar:
    """The value of one scalar operation; UnsupportedError for one that has no form."""
    name = op.name
    if name in _SAME:
        return _function(_SAME[name], args, bounds)
    if name in _OF_UNSIGNED:
        return signless(apply(_OF_UNSIGNED[name], *(unsigned(a) for a in args)))
    rule = _RULES.get(name)
    if rule is None:
        raise UnsupportedError(f"{name} of torch-mlir has no form in the tensor IR", hint="leave --frontend out")
    return rule(op, args, bounds, notes)


def _function(name: str, args: list[Scalar], bounds: Bounds) -> Scalar:
    """A function, folded where it is index arithmetic; of bits modulo 2."""
    if args[0].dtype is BOOL and name in _OF_BITS:
        return apply(_OF_BITS[name], *args)
    sides = [side for side in map(plain, args) if side is not None]
    if len(sides) == len(args) == 2:
        folded = _index_function(name, sides[0], sides[1], bounds)
        if folded is not None:
            return of_index(folded, bounds)
    return apply(name, *args)


def _index_function(name: str, x: Index, y: Index, bounds: Bounds) -> Index | None:
    if name in ("add", "sub", "mul"):
        return x + y if name == "add" else x - y if name == "sub" else x * y
    if name in ("min", "max"):
        return minimum(x, y) if name == "min" else maximum(x, y)
    positive = y.proves_at_least(1, bounds)
    if name == "floordiv" and positive:
        return x // y
    if name in ("truncdiv", "fmod") and positive and x.proves_at_least(0, bounds):
        return x // y if name == "truncdiv" else x % y
    return None


def _compare_integers(op: Any, args: list[Scalar], bounds: Bounds, notes: list[str]) -> Scalar:
    number = int(op.attributes["predicate"].value)
    name = _INTEGER[number]
    x, y = (plain(a) for a in args)
    if x is not None and y is not None and number < 6:
        known = _proved(name, x, y, bounds)
        if known is not None:
            return Literal(known, BOOL)
    if number >= 6:
        args = [unsigned(a) for a in args]
    return apply(name, *args)


def _proved(name: str, x: Index, y: Index, bounds: Bounds) -> bool | None:
    """A comparison of index expressions where it is the same at all points."""
    if name in ("gt", "le"):
        return _proved("lt" if name == "gt" else "ge", y, x, bounds)
    difference = (x - y).simplify(bounds)
    low, high = difference.limits(bounds)
    if name in ("eq", "ne"):
        equal = True if low == high == 0 else False if (low or 0) > 0 or (high is not None and high < 0) else None
        return equal if name == "eq" or equal is None else not equal
    below = True if high is not None and high < 0 else False if low is not None and low >= 0 else None
    return below if name == "lt" or below is None else not below


def _compare_floats(op: Any, args: list[Scalar], bounds: Bounds, notes: list[str]) -> Scalar:
    number, (x, y) = int(op.attributes["predicate"].value), args
    if number in (0, 15):
        return Literal(number == 15, BOOL)
    if number in _ORDERED:
        return apply(_ORDERED[number], x, y)
    if number in _NEGATED:
        return apply("not", apply(_NEGATED[number], x, y))
    unordered = apply("or", apply("isnan", x), apply("isnan", y))
    if number in (7, 14):
        return unordered if number == 14 else apply("not", unordered)
    apart = apply("or", apply("lt", x, y), apply("gt", x, y))
    return apart if number == 6 else apply("not", apart)


def _select(op: Any, args: list[Scalar], bounds: Bounds, notes: list[str]) -> Scalar:
    condition, yes, no = args
    return yes if yes == no else where(condition, yes, no)


def _cast(op: Any, args: list[Scalar], bounds: Bounds, notes: list[str]) -> Scalar:
    return cast(args[0], dtype_of(op.results[0].type))


def _index_cast(op: Any, args: list[Scalar], bounds: Bounds, notes: list[str]) -> Scalar:
    value = unsigned(args[0]) if op.name.endswith("ui") else args[0]
    return cast(value, dtype_of(op.results[0].type))


def _from_unsigned(op: Any, args: list[Scalar], bounds: Bounds, notes: list[str]) -> Scalar:
    """Zero extension, and conversion to floats."""
    return cast(unsigned(args[0]), dtype_of(op.results[0].type))


def _from_signed(op: Any, args: list[Scalar], bounds: Bounds, notes: list[str]) -> Scalar:
    """Sign extension, and conversion to floats: the one bit of an i1 is its sign."""
    value = cast(args[0], dtype_of(op.results[0].type))
    return apply("neg", value) if args[0].dtype is BOOL else value


def _truncate(op: Any, args: list[Scalar], bounds: Bounds, notes: list[str]) -> Scalar:
    dtype = dtype_of(op.results[0].type)
    if dtype is not BOOL:
        return cast(args[0], dtype)
    return apply("ne", apply("and", args[0], literal(1, args[0].dtype)), literal(0, args[0].dtype))


def _to_integer(op: Any, args: list[Scalar], bounds: Bounds, notes: list[str]) -> Scalar:
    """A float towards zero; a quotient of integers that torch-mlir forms in float64 is that of the integers."""
    (value,), dtype = args, dtype_of(op.results[0].type)
    if isinstance(value, Apply) and value.function in ("floor", "trunc") and isinstance(value.args[0], Apply):
        quotient = value.args[0]
        sides = [_as_integer(side, dtype) for side in quotient.args]
        if quotient.function == "div" and sides[0] is not None and sides[1] is not None:
            notes.append(
                "torch-mlir divides integers in float64, which is wrong beyond 2**53; they are divided as integers"
            )
            return apply("floordiv" if value.function == "floor" else "truncdiv", sides[0], sides[1])
    if op.name == "arith.fptoui" and dtype in _UNSIGNED:
        return signless(cast(value, _UNSIGNED[dtype]))
    return cast(value, dtype)


def _as_integer(value: Scalar, dtype: DType) -> Scalar | None:
    """What was converted to a float, where it was of this integer type; a whole number as one."""
    if isinstance(value, Apply) and value.function == "cast" and value.args[0].dtype is dtype:
        return value.args[0]
    if isinstance(value, Literal) and float(value.value).is_integer() and abs(value.value) < 2**53:
        return Literal(int(value.value), dtype)
    return None


def _power(op: Any, args: list[Scalar], bounds: Bounds, notes: list[str]) -> Scalar:
    return apply("pow", args[0], cast(args[1], args[0].dtype))


def _fused(op: Any, args: list[Scalar], bounds: Bounds, notes: list[str]) -> Scalar:
    return apply("add", apply("mul", args[0], args[1]), args[2])


def _ceiling(op: Any, args: list[Scalar], bounds: Bounds, notes: list[str]) -> Scalar:
    x, y = args
    return _function("sub", [Literal(0, x.dtype), _function("floordiv", [_negated(x, bounds), y], bounds)], bounds)


def _negated(x: Scalar, bounds: Bounds) -> Scalar:
    return _function("sub", [Literal(0, x.dtype), x], bounds)


def _bits(op: Any, args: list[Scalar], bounds: Bounds, notes: list[str]) -> Scalar:
    return bitcast(args[0], dtype_of(op.results[0].type))


_RULES: dict[str, Callable[[Any, list[Scalar], Bounds, list[str]], Scalar]] = {
    "arith.cmpi": _compare_integers,
    "arith.cmpf": _compare_floats,
    "arith.select": _select,
    **dict.fromkeys(("arith.extf", "arith.truncf"), _cast),
    **dict.fromkeys(("arith.index_cast", "arith.index_castui"), _index_cast),
    **dict.fromkeys(("arith.extui", "arith.uitofp"), _from_unsigned),
    **dict.fromkeys(("arith.extsi", "arith.sitofp"), _from_signed),
    "arith.trunci": _truncate,
    **dict.fromkeys(("arith.fptosi", "arith.fptoui"), _to_integer),
    "math.fpowi": _power,
    "math.fma": _fused,
    "arith.ceildivsi": _ceiling,
    "arith.bitcast": _bits,
}
