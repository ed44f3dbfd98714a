"""The scalar functions in Triton: one row per function of `codesign.ir.functions`, a spelling per kind of dtype.

A spelling is a call (`tl.exp`, or a device function of `library.py`, `division.py` or `draws.py`, which the emitter copies into the kernel's file)
or an infix operator. Half and quarter precisions are computed in float32 and rounded once per operation: for + - * / and the square root that is
the correctly rounded result of the narrow format, because float32 has more than twice its bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from codesign.ir.dtypes import F32, DType
from codesign.ir.errors import UnsupportedError
from codesign.ir.precision import ARITHMETIC

PRECEDENCE = {
    "|": 1,
    "^": 2,
    "&": 3,
    "<<": 4,
    ">>": 4,
    "+": 5,
    "-": 5,
    "*": 6,
    "/": 6,
    "//": 6,
    "%": 6,
    "unary": 7,
    "atom": 9,
}
COMPARISON = 0
"""Comparisons bind weaker than anything else here; Python chains them, so they are always put in parentheses when nested."""


@dataclass(frozen=True, slots=True)
class Call:
    """`name(a, b, extra)`."""

    name: str
    extra: str = ""


@dataclass(frozen=True, slots=True)
class Infix:
    """`a symbol b`."""

    symbol: str


@dataclass(frozen=True, slots=True)
class Prefix:
    """`symbol a`."""

    symbol: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """A template over arguments that are already wrapped where needed: `{0} != {0}`; `uses` each argument how often."""

    text: str
    precedence: int = COMPARISON


Spelling = Call | Infix | Prefix | Pattern


@dataclass(frozen=True, slots=True)
class Row:
    """How one function is written for floats, signed integers, unsigned integers (as signed when None) and bools."""

    float: Spelling | None
    int: Spelling | None = None
    uint: Spelling | None = None
    bool: Spelling | None = None

    def spelling(self, dtype: DType) -> Spelling | None:
        if dtype.is_float:
            return self.float
        if dtype.kind == "bool":
            return self.bool
        return self.uint if dtype.kind == "uint" and self.uint is not None else self.int


def _infix(symbol: str, boolean: Spelling | None = None) -> Row:
    return Row(Infix(symbol), Infix(symbol), None, boolean)


def _comparison(symbol: str) -> Row:
    spelling = Pattern(f"{{0}} {symbol} {{1}}")
    return Row(spelling, spelling, spelling, spelling)


_NAN = "propagate_nan=tl.PropagateNan.ALL"
_IDENTITY = Pattern("{0}", PRECEDENCE["atom"])

ROWS: dict[str, Row] = {
    "add": _infix("+", Infix("|")),
    "sub": _infix("-", Infix("^")),
    "mul": _infix("*", Infix("&")),
    **{row.function: _infix("*") for row in ARITHMETIC.values() if row.function != "mul"},
    "div": Row(Infix("/")),
    "floordiv": Row(Call("_float_floordiv"), Call("_floordiv"), Infix("//")),
    "truncdiv": Row(Call("_float_truncdiv"), Infix("//")),
    "mod": Row(Call("_float_mod"), Call("_floormod"), Infix("%")),
    "fmod": Row(Call("_float_rest"), Infix("%")),
    "pow": Row(Call("_power"), Call("_integer_power"), Call("_unsigned_power")),
    "atan2": Row(Call("_atan2")),
    "hypot": Row(Call("_hypot")),
    "copysign": Row(Call("_copysign")),
    "nextafter": Row(Call("_nextafter")),
    "min": Row(Call("tl.minimum", _NAN), Call("tl.minimum"), None, Infix("&")),
    "max": Row(Call("tl.maximum", _NAN), Call("tl.maximum"), None, Infix("|")),
    "fmin": Row(Call("tl.minimum"), Call("tl.minimum"), None, Infix("&")),
    "fmax": Row(Call("tl.maximum"), Call("tl.maximum"), None, Infix("|")),
    "lt": _comparison("<"),
    "le": _comparison("<="),
    "gt": _comparison(">"),
    "ge": _comparison(">="),
    "eq": _comparison("=="),
    "ne": _comparison("!="),
    "and": Row(None, Infix("&"), None, Infix("&")),
    "or": Row(None, Infix("|"), None, Infix("|")),
    "xor": Row(None, Infix("^"), None, Infix("^")),
    "shl": Row(None, Infix("<<")),
    "shr": Row(None, Infix(">>")),
    "not": Row(None, Prefix("~"), None, Pattern("{0} == 0")),
    "neg": Row(Prefix("-"), Prefix("-"), Pattern("{0} * 0 - {0}", PRECEDENCE["-"]), _IDENTITY),
    "abs": Row(Call("tl.abs"), Call("tl.abs"), _IDENTITY, _IDENTITY),
    "sign": Row(
        Call("_sign"), Pattern("({0} > 0).to({0}.dtype) - ({0} < 0).to({0}.dtype)", PRECEDENCE["-"]), None, _IDENTITY
    ),
    "exp": Row(Call("tl.exp")),
    "exp2": Row(Call("tl.exp2")),
    "expm1": Row(Call("_expm1")),
    "log": Row(Call("tl.log")),
    "log2": Row(Call("tl.log2")),
    "log10": Row(Call("_log10")),
    "log1p": Row(Call("_log1p")),
    "sqrt": Row(Call("tl.sqrt")),
    "rsqrt": Row(Call("tl.rsqrt")),
    "reciprocal": Row(Pattern("1 / {0}", PRECEDENCE["/"])),
    "sin": Row(Call("tl.sin")),
    "cos": Row(Call("tl.cos")),
    "tan": Row(Call("_tan")),
    "asin": Row(Call("_asin")),
    "acos": Row(Call("_acos")),
    "atan": Row(Call("_atan")),
    "sinh": Row(Call("_sinh")),
    "cosh": Row(Call("_cosh")),
    "tanh": Row(Call("_tanh")),
    "asinh": Row(Call("_asinh")),
    "acosh": Row(Call("_acosh")),
    "atanh": Row(Call("_atanh")),
    "erf": Row(Call("tl.erf")),
    "erfc": Row(Call("_erfc")),
    "erfinv": Row(Call("_erfinv")),
    "lgamma": Row(Call("_lgamma")),
    "digamma": Row(Call("_digamma")),
    "floor": Row(Call("tl.floor")),
    "ceil": Row(Call("tl.ceil")),
    "trunc": Row(Call("_trunc")),
    "round": Row(Call("_round")),
    "isnan": Row(Pattern("{0} != {0}")),
    "isinf": Row(Pattern('tl.abs({0}) == float("inf")')),
    "philox": Row(None, Call("_philox")),
}
"""`select` and `cast` are not here: they take arguments of several dtypes and are the emitter's own."""


OWN_FORMAT = frozenset({"nextafter"})
"""Functions that speak of the format itself and are computed in it."""


def compute_dtype(dtype: DType, function: str = "") -> DType:
    """The dtype that a function is computed in: float32 for narrower floats, else the dtype itself."""
    return F32 if dtype.is_float and dtype.bits < 32 and function not in OWN_FORMAT else dtype


def spelling(function: str, dtype: DType) -> Spelling:
    """How a function is written for arguments of a (compute) dtype; UnsupportedError where there is no way."""
    row = ROWS.get(function)
    found = None if row is None else row.spelling(dtype)
    if found is None:
        raise UnsupportedError(
            f"the scalar function {function} on {dtype} has no Triton spelling",
            hint="add a row to codesign/backends/triton/functions.py, or cast its argument",
        )
    return found
