"""Scalar expressions as `arith` and `math` operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from codesign.backends.mlir.writer import Writer, element, tensor
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import BF16, BOOL, F16, F32, F64, I64, DType
from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Bounds, Datum, Extremum, FloorDiv, Index, Mod, Var
from codesign.ir.precision import ARITHMETIC
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar

OF_FLOATS = {
    "add": "arith.addf",
    "sub": "arith.subf",
    "div": "arith.divf",
    "fmod": "arith.remf",
    "neg": "arith.negf",
    **dict.fromkeys((row.function for row in ARITHMETIC.values()), "arith.mulf"),
    "min": "arith.minimumf",
    "max": "arith.maximumf",
    "fmin": "arith.minnumf",
    "fmax": "arith.maxnumf",
    "pow": "math.powf",
    "abs": "math.absf",
    "round": "math.roundeven",
    "atan2": "math.atan2",
    "copysign": "math.copysign",
    **{
        name: f"math.{name}"
        for name in (
            *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt"),
            *("sin", "cos", "tan", "asin", "acos"),
            *("atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "floor", "ceil", "trunc"),
        )
    },
}
OF_INTEGERS = {
    "add": "arith.addi",
    "sub": "arith.subi",
    "mul": "arith.muli",
    "and": "arith.andi",
    "or": "arith.ori",
    "xor": "arith.xori",
    "shl": "arith.shli",
    "pow": "math.ipowi",
}
OF_SIGNED = {
    "min": "arith.minsi",
    "max": "arith.maxsi",
    "fmin": "arith.minsi",
    "fmax": "arith.maxsi",
    "shr": "arith.shrsi",
    "floordiv": "arith.floordivsi",
    "truncdiv": "arith.divsi",
    "fmod": "arith.remsi",
    "abs": "math.absi",
}
OF_UNSIGNED = {
    "min": "arith.minui",
    "max": "arith.maxui",
    "fmin": "arith.minui",
    "fmax": "arith.maxui",
    "shr": "arith.shrui",
    "floordiv": "arith.divui",
    "truncdiv": "arith.divui",
    "fmod": "arith.remui",
    "mod": "arith.remui",
}
_OF_BOOLS = {
    "add": "arith.ori",
    "mul": "arith.andi",
    "min": "arith.andi",
    "max": "arith.ori",
    "fmin": "arith.andi",
    "fmax": "arith.ori",
    "and": "arith.andi",
    "or": "arith.ori",
    "xor": "arith.xori",
}
_CALLED = ("erfinv", "lgamma", "digamma", "nextafter")
"""Functions that MLIR lacks: calls of functions that the module declares, as `@erfinv_f32`."""

_PREDICATES = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})


@dataclass
class Scalars:
    """Writes scalar expressions at one point: what dims and symbols, tensors, and operands of a region are called there."""

    w: Writer
    names: Mapping[str, str]
    tensors: Mapping[Value, str]
    bounds: Bounds
    known: dict[Scalar, str] = field(default_factory=dict)

    # -- index expressions --------------------------------------------------------------------------------------------
    def index(self, expression: Index) -> str:
        """An index expression as a value of type index."""
        total = ""
        for monomial, factor in expression.terms:
            parts = [self._atom(atom) for atom in monomial]
            term = parts[0] if parts else self.w.index(factor)
            for other in parts[1:]:
                term = self.w.value(f"arith.muli {term}, {other} : index")
            if parts and factor != 1:
                term = self.w.value(f"arith.muli {term}, {self.w.index(factor)} : index")
            total = self.w.value(f"arith.addi {total}, {term} : index") if total else term
        return total or self.w.index(0)

    def _atom(self, atom: object) -> str:
        if isinstance(atom, Var):
            return self.names[atom.name]
        if isinstance(atom, Datum):
            kind = atom.scalar.dtype
            cast = "index_castui" if kind.kind in ("uint", "bool") else "index_cast"
            return self.w.value(f"arith.{cast} {self.scalar(atom.scalar)} : {element(kind)} to index")
        if isinstance(atom, (FloorDiv, Mod)):
            x, y = self.index(atom.numerator), self.index(atom.denominator)
            quotient = self.w.value(f"arith.floordivsi {x}, {y} : index")
            if isinstance(atom, FloorDiv):
                return quotient
            whole = self.w.value(f"arith.muli {quotient}, {y} : index")
            return self.w.value(f"arith.subi {x}, {whole} : index")
        assert isinstance(atom, Extremum)
        first, *rest = (self.index(arg) for arg in atom.args)
        for other in rest:
            first = self.w.value(f"arith.{atom.kind}si {first}, {other} : index")
        return first

    # -- scalars ------------------------------------------------------------------------------------------------------
    def scalar(self, node: Scalar) -> str:
        """The value of an expression, each part once."""
        for part in node.walk():
            if part not in self.known and not isinstance(part, Read):
                self._before(part)
        return self._of(node)

    def _before(self, node: Scalar) -> None:
        """Parts outside of guards come first, so that deep expressions need no deep recursion."""
        if all(child in self.known for child in node.operands()) and not isinstance(node, Literal):
            self._of(node)

    def _of(self, node: Scalar) -> str:
        if node not in self.known:
            self.known[node] = self._write(node)
        return self.known[node]

    def _write(self, node: Scalar) -> str:
        if isinstance(node, Literal):
            return self.w.constant(node.value, node.dtype)
        if isinstance(node, IndexValue):
            whole = self.w.value(f"arith.index_cast {self.index(node.index)} : index to i64")
            return self.converted(whole, I64, node.dtype)
        if isinstance(node, Read):
            return self._read(node)
        assert isinstance(node, Apply)
        args = [self._of(arg) for arg in node.args]
        if node.function == "cast":
            return self.converted(args[0], node.args[0].dtype, node.dtype)
        if node.function == "bitcast":
            return self._reinterpreted(args[0], node.args[0].dtype, node.dtype)
        return self.apply(node.function, args, node.args[-1].dtype)

    def _read(self, node: Read) -> str:
        shape = tensor_type(node.source).shape
        outside = [] if node.otherwise is None else self._conditions(node.indices, shape)
        if node.otherwise is None or not outside:
            return self._extract(node)
        inside = outside[0]
        for other in outside[1:]:
            inside = self.w.value(f"arith.andi {inside}, {other} : i1")
        kind, name = element(node.dtype), self.w.fresh()
        before = dict(self.known)
        with self.w.block(f"{name} = scf.if {inside} -> ({kind}) {{", None):
            self.w.line(f"scf.yield {self._extract(node)} : {kind}")
        self.known = dict(before)
        with self.w.block("} else {"):
            self.w.line(f"scf.yield {self._of(node.otherwise)} : {kind}")
        self.known = before
        return name

    def _extract(self, node: Read) -> str:
        places = ", ".join(self.index(i) for i in node.indices)
        return self.w.value(f"tensor.extract {self.tensors[node.source]}[{places}] : {tensor(node.source.type)}")

    def _conditions(self, indices: tuple[Index, ...], shape: tuple[Index, ...]) -> list[str]:
        """What must hold for a point to be inside, as far as it does not always."""
        found = []
        for place, size in zip(indices, shape, strict=True):
            if not place.proves_at_least(0, self.bounds):
                found.append(self.w.value(f"arith.cmpi sge, {self.index(place)}, {self.w.index(0)} : index"))
            if not place.proves_less(size, self.bounds):
                found.append(self.w.value(f"arith.cmpi slt, {self.index(place)}, {self.index(size)} : index"))
        return found

    # -- functions ----------------------------------------------------------------------------------------------------
    def apply(self, function: str, args: list[str], dtype: DType) -> str:
        """A function on arguments of a dtype (of `select`: that of the choices)."""
        kind = element(dtype)
        if function == "select":
            return self.w.value(f"arith.select {args[0]}, {args[1]}, {args[2]} : {kind}")
        if function in _PREDICATES:
            return self._compare(function, args, dtype)
        row = _of_dtype(dtype).get(function)
        if row is not None:
            return self.w.value(f"{row} {', '.join(args)} : {kind}")
        if function in _CALLED:
            name = f"{function}_{dtype}"
            signature = f"({', '.join([kind] * len(args))}) -> {kind}"
            self.w.declared[name] = signature
            return self.w.value(f"func.call @{name}({', '.join(args)}) : {signature}")
        rule = _RULES.get(function)
        if rule is None or (dtype is BOOL and function in ("abs", "sign")):
            if function in ("abs", "sign", "round", "floor", "ceil", "trunc"):
                return args[0]
            raise UnsupportedError(f"{function} of {dtype} has no form in MLIR")
        return rule(self, args, dtype)

    def _compare(self, function: str, args: list[str], dtype: DType) -> str:
        if dtype.is_float:
            order = "u" if function == "ne" else "o"
            return self.w.value(f"arith.cmpf {order}{function}, {args[0]}, {args[1]} : {element(dtype)}")
        sign = "" if function in ("eq", "ne") else "s" if dtype.kind == "int" else "u"
        return self.w.value(f"arith.cmpi {sign}{function}, {args[0]}, {args[1]} : {element(dtype)}")

    # -- conversions --------------------------------------------------------------------------------------------------
    def converted(self, value: str, source: DType, target: DType) -> str:
        """A value of another dtype: floats to integers towards zero, then modulo 2**bits."""
        if source is target:
            return value
        a, b = element(source), element(target)
        if target is BOOL:
            return self._compare("ne", [value, self.w.constant(0, source)], source)
        if source.is_float and target.is_float:
            return self._between_floats(value, source, target)
        if source.is_float:
            whole = self.w.value(f"arith.fptosi {value} : {a} to i64")
            return whole if target.bits == 64 else self.w.value(f"arith.trunci {whole} : i64 to {b}")
        if target.is_float:
            operation = "sitofp" if source.kind == "int" else "uitofp"
            return self.w.value(f"arith.{operation} {value} : {a} to {b}")
        width = 1 if source is BOOL else source.bits
        if width == target.bits:
            return value
        operation = "trunci" if width > target.bits else "extsi" if source.kind == "int" else "extui"
        return self.w.value(f"arith.{operation} {value} : {a} to {b}")

    def _between_floats(self, value: str, source: DType, target: DType) -> str:
        if source.bits < target.bits:
            return self.w.value(f"arith.extf {value} : {element(source)} to {element(target)}")
        if source.bits > target.bits:
            return self.w.value(f"arith.truncf {value} : {element(source)} to {element(target)}")
        return self._between_floats(self._between_floats(value, source, F32), F32, target)

    def _reinterpreted(self, value: str, source: DType, target: DType) -> str:
        if element(source) == element(target):
            return value
        return self.w.value(f"arith.bitcast {value} : {element(source)} to {element(target)}")


def _of_dtype(dtype: DType) -> Mapping[str, str]:
    if dtype.is_float:
        return OF_FLOATS
    if dtype is BOOL:
        return _OF_BOOLS
    return {**OF_INTEGERS, **(OF_SIGNED if dtype.kind == "int" else OF_UNSIGNED)}


def _not(s: Scalars, args: list[str], dtype: DType) -> str:
    ones = s.w.constant(1 if dtype is BOOL else -1, dtype)
    return s.w.value(f"arith.xori {args[0]}, {ones} : {element(dtype)}")


def _neg(s: Scalars, args: list[str], dtype: DType) -> str:
    return s.apply("sub", [s.w.constant(0, dtype), args[0]], dtype)


def _floordiv(s: Scalars, args: list[str], dtype: DType) -> str:
    return s.apply("floor", [s.apply("div", args, dtype)], dtype)


def _truncdiv(s: Scalars, args: list[str], dtype: DType) -> str:
    return s.apply("trunc", [s.apply("div", args, dtype)], dtype)


def _mod(s: Scalars, args: list[str], dtype: DType) -> str:
    """The remainder with the divisor's sign."""
    zero = s.w.constant(0, dtype)
    rest = s.apply("fmod", args, dtype)
    apart = s.apply("ne", [rest, zero], dtype)
    signs = [s.apply("lt", [value, zero], dtype) for value in (rest, args[1])]
    differ = s.apply("and", [apart, s.apply("xor", signs, BOOL)], BOOL)
    return s.apply("select", [differ, s.apply("add", [rest, args[1]], dtype), rest], dtype)


def _hypot(s: Scalars, args: list[str], dtype: DType) -> str:
    squares = [s.apply("mul", [a, a], dtype) for a in args]
    return s.apply("sqrt", [s.apply("add", squares, dtype)], dtype)


def _sign(s: Scalars, args: list[str], dtype: DType) -> str:
    zero, one = s.w.constant(0, dtype), s.w.constant(1, dtype)
    positive = s.apply("select", [s.apply("gt", [args[0], zero], dtype), one, zero], dtype)
    if dtype.kind == "uint":
        return positive
    below = s.apply("lt", [args[0], zero], dtype)
    return s.apply("select", [below, s.w.constant(-1, dtype), positive], dtype)


def _reciprocal(s: Scalars, args: list[str], dtype: DType) -> str:
    return s.apply("div", [s.w.constant(1, dtype), args[0]], dtype)


def _isnan(s: Scalars, args: list[str], dtype: DType) -> str:
    return s.w.value(f"arith.cmpf uno, {args[0]}, {args[0]} : {element(dtype)}")


def _isinf(s: Scalars, args: list[str], dtype: DType) -> str:
    if dtype not in (F16, BF16, F32, F64):
        raise UnsupportedError(f"isinf of {dtype} has no form in MLIR")
    return s.apply("eq", [s.apply("abs", args, dtype), s.w.constant(float("inf"), dtype)], dtype)


_RULES: dict[str, Callable[[Scalars, list[str], DType], str]] = {
    "not": _not,
    "neg": _neg,
    "floordiv": _floordiv,
    "truncdiv": _truncdiv,
    "mod": _mod,
    "hypot": _hypot,
    "sign": _sign,
    "reciprocal": _reciprocal,
    "isnan": _isnan,
    "isinf": _isinf,
}
