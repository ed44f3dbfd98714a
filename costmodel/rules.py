"""Expressions of data files: numbers and conditions over a few names, as `"128 if head <= 128 else 64"`.

The syntax is Python's, of which only arithmetic, comparisons, `and`, `or`, `not`, `if`-`else` and a few functions exist: a
rule is data, read once, and can do nothing but compute a number.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from codesign.ir.errors import CodesignError

Value = float | bool | str

_ARITHMETIC: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: Mapping[str, Callable[..., float]] = {"min": min, "max": max, "ceil": math.ceil}


@dataclass(frozen=True)
class Rule:
    """A rule as written; `value(names)` computes it."""

    text: str
    tree: ast.expr

    def value(self, names: Mapping[str, Value]) -> float:
        """The number that the rule gives; CodesignError for a name that it does not know."""
        return float(_evaluate(self.tree, names, self.text))


@lru_cache(maxsize=1024)
def rule(text: str) -> Rule:
    """A rule from its text; CodesignError for what the language does not have."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise CodesignError(
            f"not a rule: {text[:80]!r}", hint="an expression of numbers, names and comparisons"
        ) from None
    return Rule(text, tree)


def number(entry: float | bool | str, names: Mapping[str, Value]) -> float:
    """The value of a field of a data file: a number as it is, a text as a rule over the names."""
    return rule(entry).value(names) if isinstance(entry, str) else float(entry)


def _evaluate(node: ast.expr, names: Mapping[str, Value], text: str) -> float:
    def of(child: ast.expr) -> float:
        return _evaluate(child, names, text)

    match node:
        case ast.Constant(value=bool() | int() | float() as value):
            return value
        case ast.Name(id=name) if name in names and not isinstance(names[name], str):
            return names[name]  # type: ignore[return-value]
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return not of(inner)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -of(inner)
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(of(part) for part in parts)
        case ast.BoolOp(values=parts):
            return any(of(part) for part in parts)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _ARITHMETIC[type(op)](of(left), of(right))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
            return _COMPARISONS[type(op)](of(left), of(right))
        case ast.IfExp(test=test, body=body, orelse=other):
            return of(body) if of(test) else of(other)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*map(of, arguments))
    raise CodesignError(
        f"rule {text[:80]!r}: unknown {ast.unparse(node)[:40]!r}", hint=f"names are {', '.join(sorted(names))}"
    )
