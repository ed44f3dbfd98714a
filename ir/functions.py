"""The scalar functions: arity, result dtype, reference meaning in NumPy, and what unit of a machine executes them.

One row per function; the interpreter, the verifier, the cost models and each code generator read this table, so a
new function is one row here and one row per code generator.

One meaning at the ends, on all targets (PyTorch's on a CPU where it has one):
- `mod`, `fmod` of floats: a zero result has the sign of the dividend, so -4.0 % 2.0 is -0.0.
- integer arithmetic wraps modulo 2**bits: the least integer divided by -1 is itself, also by `truncdiv`; powers wrap likewise.
- float to integer: `numerics.convert` says it; towards zero, then modulo 2**bits; beyond 64 bits and of NaN unspecified.
- `acosh` below 1, `log` below 0, `asin`, `acos` and `atanh` beyond 1 are NaN; `c ** inf` is 0 or infinity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from codesign.ir.dtypes import BOOL, DType
from codesign.ir.errors import VerificationError
from codesign.ir.philox import two_words
from codesign.ir.precision import ARITHMETIC

Unit = Literal["free", "alu", "fma", "special", "integer"]
"""Which unit executes a function: `fma` multiply-add pipes, `alu` compare/select/logic, `special` transcendental unit."""


@dataclass(frozen=True, slots=True)
class Function:
    """One scalar function.

    `result`: "same" (dtype of the arguments), "bool", or "second" (dtype of argument 1, for select). `unit` and
    `cost`: which pipe runs it and how many issue slots of it one element takes (a software expansion counts its
    instructions). `symbol`: its infix spelling in the text format. `accepts`: kinds, or names, of dtypes that it takes.
    """

    name: str
    arity: int
    evaluate: Callable[..., Any]
    unit: Unit
    cost: float = 1.0
    result: Literal["same", "bool", "second"] = "same"
    symbol: str = ""
    commutative: bool = False
    accepts: frozenset[str] = frozenset({"float", "int", "uint", "bool"})

    def takes(self, dtype: DType) -> bool:
        """Whether it takes arguments of a dtype."""
        return dtype.kind in self.accepts or dtype.name in self.accepts


PHILOX = 20.0
"""Issue slots of a counter, on integers of 64 bits: in each of ten rounds two products and two exclusive ors of 32, which are halves."""

_FLOAT = frozenset({"float"})
_INTEGER = frozenset({"int", "uint"})
_LOGIC = frozenset({"int", "uint", "bool"})
_OTHER_PRODUCTS = tuple(row for row in ARITHMETIC.values() if row.function != "mul")
"""Products of float32 that a matrix unit may round, as torch is told (`codesign.ir.precision`); by themselves they are exact."""


def _special(name: str) -> Callable[..., Any]:
    """One of SciPy's functions, whose package is loaded when it is first evaluated: most programs never do."""

    def call(*arguments: Any) -> Any:
        from scipy import special

        return getattr(special, name)(*arguments)

    return call


def _inverse_error(a: Any) -> Any:
    """The inverse of erf; a zero keeps its sign, which SciPy's loses."""
    return np.copysign(_special("erfinv")(a), a)


def _floor_divide(a: Any, b: Any) -> Any:
    if np.issubdtype(np.asarray(a).dtype, np.floating):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.floor_divide(a, b))
    with np.errstate(divide="ignore"):
        return np.floor_divide(a, b)


def _truncate_divide(a: Any, b: Any) -> Any:
    a, b = np.asarray(a), np.asarray(b)
    if np.issubdtype(a.dtype, np.floating):
        return np.trunc(a / b)
    with np.errstate(divide="ignore"):
        quotient = np.floor_divide(a, b)
        return quotient + ((a - quotient * b != 0) & ((a < 0) != (b < 0))).astype(a.dtype)


def _modulo(a: Any, b: Any) -> Any:
    """The remainder with the divisor's sign; of floats a zero keeps the dividend's sign, as PyTorch has it."""
    a, b = np.asarray(a), np.asarray(b)
    if not np.issubdtype(a.dtype, np.floating):
        return np.mod(a, b)
    with np.errstate(invalid="ignore"):
        rest = np.fmod(a, b)
        return np.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest)


def _power(a: Any, b: Any) -> Any:
    """Powers; of integers with a negative exponent 1/a**-b rounded towards zero, so 0 unless a is 1 or -1."""
    a, b = np.asarray(a), np.asarray(b)
    if not np.issubdtype(a.dtype, np.signedinteger):
        return np.power(a, b)
    positive = np.power(a, np.maximum(b, 0))
    unit = np.where(a == 1, 1, np.where(a == -1, np.where(b % 2 == 0, 1, -1), 0)).astype(a.dtype)
    return np.where(b < 0, unit, positive)


def _log_gamma(a: Any) -> Any:
    a = np.asarray(a)
    return _special("gammaln")(np.where(np.isinf(a), np.abs(a), a))


def _sign(a: Any) -> Any:
    """-1, 0 or 1; of NaN 0, as PyTorch has it."""
    a = np.asarray(a)
    return a if a.dtype == np.bool_ else np.nan_to_num(np.sign(a), nan=0.0)


def _rows() -> list[Function]:
    f = Function
    return [
        f("add", 2, np.add, "fma", symbol="+", commutative=True),
        f("sub", 2, np.subtract, "fma", symbol="-", accepts=_FLOAT | _INTEGER),
        f("mul", 2, np.multiply, "fma", symbol="*", commutative=True),
        *(f(row.function, 2, np.multiply, "fma", commutative=True, accepts=_FLOAT) for row in _OTHER_PRODUCTS),
        f("div", 2, np.divide, "special", 3.0, symbol="/", accepts=_FLOAT),
        f("floordiv", 2, _floor_divide, "special", 6.0, symbol="//", accepts=_FLOAT | _INTEGER),
        f("truncdiv", 2, _truncate_divide, "special", 6.0, accepts=_FLOAT | _INTEGER),
        f("mod", 2, _modulo, "special", 6.0, symbol="%", accepts=_FLOAT | _INTEGER),
        f("fmod", 2, np.fmod, "special", 6.0, accepts=_FLOAT | _INTEGER),
        # powf is the lanes' work: torch's power by a number takes 80 of their instructions on an A100 (NeuSight's table)
        f("pow", 2, _power, "special", 10.0, symbol="**", accepts=_FLOAT | _INTEGER),
        f("atan2", 2, np.arctan2, "special", 12.0, accepts=_FLOAT),
        f("hypot", 2, np.hypot, "special", 4.0, accepts=_FLOAT),
        f("copysign", 2, np.copysign, "alu", accepts=_FLOAT),
        f("nextafter", 2, np.nextafter, "alu", 4.0, accepts=_FLOAT),
        f("min", 2, np.minimum, "alu", commutative=True),
        f("max", 2, np.maximum, "alu", commutative=True),
        f("fmin", 2, np.fmin, "alu", commutative=True),
        f("fmax", 2, np.fmax, "alu", commutative=True),
        f("lt", 2, np.less, "alu", result="bool", symbol="<"),
        f("le", 2, np.less_equal, "alu", result="bool", symbol="<="),
        f("gt", 2, np.greater, "alu", result="bool", symbol=">"),
        f("ge", 2, np.greater_equal, "alu", result="bool", symbol=">="),
        f("eq", 2, np.equal, "alu", result="bool", symbol="==", commutative=True),
        f("ne", 2, np.not_equal, "alu", result="bool", symbol="!=", commutative=True),
        f("and", 2, np.bitwise_and, "alu", symbol="&", commutative=True, accepts=_LOGIC),
        f("or", 2, np.bitwise_or, "alu", symbol="|", commutative=True, accepts=_LOGIC),
        f("xor", 2, np.bitwise_xor, "alu", symbol="^", commutative=True, accepts=_LOGIC),
        f("shl", 2, np.left_shift, "alu", symbol="<<", accepts=_INTEGER),
        f("shr", 2, np.right_shift, "alu", symbol=">>", accepts=_INTEGER),
        f("not", 1, np.invert, "alu", accepts=_LOGIC),
        f("neg", 1, np.negative, "fma", accepts=_FLOAT | _INTEGER),
        f("abs", 1, np.abs, "alu"),
        f("sign", 1, _sign, "alu", 2.0),
        f("exp", 1, np.exp, "special", accepts=_FLOAT),
        f("exp2", 1, np.exp2, "special", accepts=_FLOAT),
        f("expm1", 1, np.expm1, "special", 3.0, accepts=_FLOAT),
        f("log", 1, np.log, "special", accepts=_FLOAT),
        f("log2", 1, np.log2, "special", accepts=_FLOAT),
        f("log10", 1, np.log10, "special", 2.0, accepts=_FLOAT),
        f("log1p", 1, np.log1p, "special", 3.0, accepts=_FLOAT),
        f("sqrt", 1, np.sqrt, "special", accepts=_FLOAT),
        f("rsqrt", 1, lambda a: 1 / np.sqrt(a), "special", accepts=_FLOAT),
        f("reciprocal", 1, np.reciprocal, "special", accepts=_FLOAT),
        f("sin", 1, np.sin, "special", 2.0, accepts=_FLOAT),
        f("cos", 1, np.cos, "special", 2.0, accepts=_FLOAT),
        f("tan", 1, np.tan, "special", 5.0, accepts=_FLOAT),
        f("asin", 1, np.arcsin, "special", 8.0, accepts=_FLOAT),
        f("acos", 1, np.arccos, "special", 8.0, accepts=_FLOAT),
        f("atan", 1, np.arctan, "special", 8.0, accepts=_FLOAT),
        f("sinh", 1, np.sinh, "special", 4.0, accepts=_FLOAT),
        f("cosh", 1, np.cosh, "special", 4.0, accepts=_FLOAT),
        f("tanh", 1, np.tanh, "special", 1.0, accepts=_FLOAT),
        f("asinh", 1, np.arcsinh, "special", 6.0, accepts=_FLOAT),
        f("acosh", 1, np.arccosh, "special", 6.0, accepts=_FLOAT),
        f("atanh", 1, np.arctanh, "special", 6.0, accepts=_FLOAT),
        f("erf", 1, _special("erf"), "fma", 14.0, accepts=_FLOAT),
        f("erfc", 1, _special("erfc"), "fma", 18.0, accepts=_FLOAT),
        f("erfinv", 1, _inverse_error, "fma", 24.0, accepts=_FLOAT),
        f("lgamma", 1, _log_gamma, "fma", 40.0, accepts=_FLOAT),
        f("digamma", 1, _special("digamma"), "fma", 40.0, accepts=_FLOAT),
        f("floor", 1, np.floor, "alu", accepts=_FLOAT),
        f("ceil", 1, np.ceil, "alu", accepts=_FLOAT),
        f("trunc", 1, np.trunc, "alu", accepts=_FLOAT),
        f("round", 1, np.rint, "alu", accepts=_FLOAT),
        f("isnan", 1, np.isnan, "alu", result="bool", accepts=_FLOAT),
        f("isinf", 1, np.isinf, "alu", result="bool", accepts=_FLOAT),
        f("select", 3, np.where, "alu", result="second"),
        # of a seed, a row and a column the first two words of `codesign.ir.philox`, the second in the upper half
        f("philox", 3, two_words, "integer", PHILOX, accepts=frozenset({"i64"})),
    ]


FUNCTIONS: dict[str, Function] = {row.name: row for row in _rows()}
FUNCTIONS["cast"] = Function("cast", 1, lambda a: a, "alu")
FUNCTIONS["bitcast"] = Function("bitcast", 1, lambda a: a, "free")
"""Both give a dtype of their own and are evaluated by `codesign.ir.numerics`: `convert` keeps the value, `reinterpret` the bits."""


def result_dtype(function: str, dtypes: tuple[DType, ...]) -> DType:
    """The dtype of a function's result; VerificationError when the arguments don't suit it."""
    row = FUNCTIONS.get(function)
    if row is None:
        raise VerificationError(f"unknown scalar function {function!r}")
    if len(dtypes) != row.arity:
        raise VerificationError(f"{function} takes {row.arity} arguments, got {len(dtypes)}")
    same = dtypes[1:] if function == "select" else dtypes
    if any(d is not same[0] for d in same):
        raise VerificationError(f"{function} needs arguments of one dtype, got {', '.join(map(str, dtypes))}")
    if function == "select" and dtypes[0] is not BOOL:
        raise VerificationError(f"select needs a bool condition, got {dtypes[0]}")
    if not row.takes(same[0]):
        raise VerificationError(f"{function} does not take {same[0]}")
    return BOOL if row.result == "bool" else same[0]
