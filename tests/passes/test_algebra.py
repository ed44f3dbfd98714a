"""Scalar rewrites: each keeps the value for all inputs (property-tested), and each example reaches its simplest form."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.ir.core import Block, Function, Module, Value
from codesign.ir.dtypes import BF16, BOOL, F16, F32, F64, I8, I32, I64, DType
from codesign.ir.index import Bounds, index
from codesign.ir.interpreter import evaluate
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar, apply, cast, literal, select
from codesign.ir.tensor import Compute, Dim
from codesign.ir.types import tensor
from codesign.passes.algebra import RULES, Rewriting, represents, simplify_scalar
from codesign.passes.canonicalize import canonicalize_compute

BOUNDS = Bounds({"i": index(8), "j": index(4)}, {"n": (2, None)})
X, Y = Value(tensor(F32, 8), "x"), Value(tensor(F32, 8), "y")
P, Q = Value(tensor(I64, 8), "p"), Value(tensor(I64, 8), "q")
C = Value(tensor(BOOL, 8), "c")
x, y, p, c = Read(X, ["i"]), Read(Y, ["i"]), Read(P, ["i"]), Read(C, ["i"])

WIDE = Compute([Dim("k", index(8))], Read(X, ["k"]), dtype=F64)


def f(value: float) -> Literal:
    return Literal(value, F32)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (apply("mul", x, f(1)), "%x[i]"),
        (apply("add", x, f(0)), "(%x[i] + 0.0)"),  # of -0.0 it is 0.0
        (apply("add", x, f(-0.0)), "%x[i]"),
        (apply("sub", x, f(0)), "%x[i]"),
        (apply("add", f(2), x), "(%x[i] + 2.0)"),
        (apply("div", x, f(8)), "(%x[i] * 0.125)"),
        (apply("div", x, f(3)), "(%x[i] / 3.0)"),
        (apply("pow", x, f(2)), "(%x[i] * %x[i])"),
        (apply("neg", apply("neg", x)), "%x[i]"),
        (apply("add", x, apply("neg", y)), "(%x[i] - %y[i])"),
        (apply("mul", x, f(0)), "(%x[i] * 0.0)"),  # NaN and infinity stay
        (apply("mul", p, literal(0)), "0"),
        (apply("exp", f(0)), "1.0"),
        (cast(cast(Read(Value(tensor(F16, 8), "h"), ["i"]), F32), F16), "%h[i]"),
        (cast(cast(x, F16), F32), "f32(f16(%x[i]))"),  # rounds: stays
        (cast(cast(Read(Value(tensor(BF16, 8), "h"), ["i"]), F32), F64), "f64(%h[i])"),
        (cast(apply("div", Literal(1, F64), cast(x, F64)), F32), "(1.0 / %x[i])"),
        (cast(apply("mul", cast(x, F64), cast(y, F64)), F32), "(%x[i] * %y[i])"),
        (cast(apply("mul", cast(x, F64), Literal(0.1, F64)), F32), "f32((f64(%x[i]) * f64(0.1)))"),  # no f32: stays
        (cast(apply("exp", cast(x, F64)), F32), "f32(exp(f64(%x[i])))"),
        (cast(apply("reciprocal", Read(WIDE.result, ["i"])), F32), "reciprocal(%x[i])"),
        (select(literal(True), x, y), "%x[i]"),
        (select(c, x, x), "%x[i]"),
        (select(apply("not", c), x, y), "select(%c[i], %y[i], %x[i])"),
        (select(c, literal(True), literal(False)), "%c[i]"),
        (select(apply("lt", IndexValue("i"), literal(8)), x, y), "%x[i]"),
        (select(apply("ge", IndexValue("i"), literal(8)), x, y), "%y[i]"),
        (apply("gt", IndexValue("i"), IndexValue("j")), "(index(j) < index(i))"),
        (apply("ge", IndexValue(index("i") - 3), literal(0)), "(index(i) >= 3)"),
        (apply("le", IndexValue("i"), literal(2)), "(index(i) < 3)"),
        (apply("add", IndexValue("i"), literal(1)), "index(i + 1)"),
        (apply("mod", IndexValue(index("i") * 4 + "j"), literal(4)), "index(j)"),
        (cast(IndexValue("i"), I32), "index<i32>(i)"),
        (Read(X, [index("i") * 4 // 4 + index("j") // 4]), "%x[i]"),
        (Read(X, ["i"], f(0)), "%x[i]"),
        (Read(X, [index("i") + 8], f(5)), "5.0"),
    ],
)
def test_simplest_form(before: Scalar, after: str) -> None:
    assert str(simplify_scalar(before, Rewriting(BOUNDS))) == after


def test_complementary_conditions_meet() -> None:
    low, high = apply("lt", IndexValue("i"), literal(4)), apply("ge", IndexValue(index("i") - 4), literal(0))
    body = select(low, x, select(high, y, f(0)))
    assert str(simplify_scalar(body, Rewriting(BOUNDS))) == "select((index(i) < 4), %x[i], %y[i])"


def test_signed_zeros_can_be_dropped() -> None:
    for body in (apply("add", x, f(0.0)), apply("sub", x, f(-0.0))):
        assert simplify_scalar(body, Rewriting(BOUNDS)) == body
        assert simplify_scalar(body, Rewriting(BOUNDS, signed_zeros=False)) == x


@pytest.mark.parametrize("narrow", [BOOL, I8, I32, I64, F16, BF16, F32])
@pytest.mark.parametrize("wide", [I8, I32, I64, F16, BF16, F32, F64])
def test_represents_agrees_with_numpy(narrow: DType, wide: DType) -> None:
    if BF16 in (narrow, wide):
        assert represents(narrow, wide) == (narrow is BOOL or narrow is wide or (narrow is BF16 and wide in (F32, F64)))
    else:
        exact = bool(np.can_cast(narrow.numpy, wide.numpy, "safe")) and not (narrow is I64 and wide is F64)
        exact = exact and not (narrow is I8 and wide is F16)  # true, but left alone
        assert represents(narrow, wide) == exact


# -- every rule keeps values ------------------------------------------------------------------------------------------
_NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 3.0, 0.5, 8.0, float("inf")])
_FLOATS = st.one_of(st.sampled_from([x, y]), _NUMBERS.map(f))
_INTEGERS = st.one_of(
    st.just(p), st.integers(-3, 9).map(literal), st.sampled_from([IndexValue("i"), IndexValue(index("i") * 2 - "j")])
)


def _grow(children: st.SearchStrategy[Scalar]) -> st.SearchStrategy[Scalar]:
    def unary(name: str) -> st.SearchStrategy[Scalar]:
        return children.map(lambda a: apply(name, a))

    def binary(name: str) -> st.SearchStrategy[Scalar]:
        return st.tuples(children, children).map(lambda ab: apply(name, *ab))

    return st.one_of(
        *(unary(name) for name in ("neg", "abs", "exp")),
        *(binary(name) for name in ("add", "sub", "mul", "div", "max", "min", "pow")),
        st.tuples(_conditions(children), children, children).map(lambda abc: select(*abc)),
        children.map(lambda a: cast(cast(a, F64), F32)),
    )


def _conditions(floats: st.SearchStrategy[Scalar]) -> st.SearchStrategy[Scalar]:
    names = st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"])
    basic = st.one_of(
        st.just(c),
        st.booleans().map(literal),
        st.tuples(names, _INTEGERS, _INTEGERS).map(lambda t: apply(t[0], t[1], t[2])),
        st.tuples(names, floats, floats).map(lambda t: apply(t[0], t[1], t[2])),
    )
    return st.one_of(
        basic,
        basic.map(lambda a: apply("not", a)),
        st.tuples(st.sampled_from(["and", "or"]), basic, basic).map(lambda t: apply(t[0], t[1], t[2])),
    )


def _value(body: Scalar) -> npt.NDArray[Any]:
    rng = np.random.default_rng(0)
    data = {
        X: np.array([0.0, -1.5, 2.0, np.inf, -np.inf, np.nan, 0.25, -0.0], np.float32),
        Y: rng.standard_normal(8).astype(np.float32),
        P: rng.integers(-4, 9, 8),
        C: rng.integers(0, 2, 8).astype(bool),
    }
    op = Compute([Dim("i", index(8)), Dim("j", index(4))], body)
    module = Module("m", {}, {"main": Function("main", Block(list(data), [op], [op.result]))})
    with np.errstate(all="ignore"):
        (result,) = evaluate(module, list(data.values()))
    return np.asarray(result)


@settings(max_examples=250, deadline=None)
@given(st.recursive(_FLOATS, _grow, max_leaves=10))
def test_float_rewrites_keep_values(body: Scalar) -> None:
    simple = simplify_scalar(body, Rewriting(BOUNDS))
    np.testing.assert_allclose(_value(simple), _value(body), rtol=1e-5, atol=1e-30)
    assert simplify_scalar(simple, Rewriting(BOUNDS)) == simple  # nothing is left to do


@settings(max_examples=150, deadline=None)
@given(_conditions(_FLOATS))
def test_condition_rewrites_keep_values(body: Scalar) -> None:
    np.testing.assert_array_equal(_value(simplify_scalar(body, Rewriting(BOUNDS))), _value(body))


def test_every_rule_is_documented() -> None:
    for rules in RULES.values():
        for one in rules:
            assert one.__doc__
            assert "->" in one.__doc__ or "comparison" in one.__doc__.lower()


def test_unit_reductions_vanish() -> None:
    op = Compute([Dim("i", index(8))], x, reductions=[Dim("k", index(1))], monoid="sum", accumulate=F32)
    canonicalize_compute(op, Bounds())
    assert op.monoid is None
    assert op.body == x
    arg = Compute([Dim("i", index(8))], x, reductions=[Dim("k", index(1))], monoid="argmax")
    canonicalize_compute(arg, Bounds())
    assert arg.body == literal(0)
    assert arg.monoid is None


def test_apply_of_unknown_function_has_no_rule() -> None:
    node = apply("atan2", x, y)
    assert isinstance(node, Apply)
    assert simplify_scalar(node, Rewriting(BOUNDS)) == node
