"""Evaluating a whole domain at once gives what evaluating each of its points alone gives."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codesign.ir.core import Value
from codesign.ir.dtypes import BOOL, F16, F32, I64, DType
from codesign.ir.index import Index, index
from codesign.ir.interpreter import reduction
from codesign.ir.interpreter.reduction import evaluate_domain
from codesign.ir.interpreter.scalars import Span
from codesign.ir.location import UNKNOWN
from codesign.ir.numerics import Array
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar, apply, select
from codesign.ir.types import tensor
from tests.ir.strategies import indices

SIZES = {"a": 4, "b": 3, "c": 5}
X = Value(tensor(F32, 5, 4), "x")
H = Value(tensor(F16, 3), "h")
IDS = Value(tensor(I64, 6), "ids")
DATA: dict[Value, Array] = {
    X: np.linspace(-3, 3, 20, dtype=np.float32).reshape(5, 4),
    H: np.array([0.5, -1.25, 2.0], np.float16),
    IDS: np.array([0, 3, -1, 9, 2, 1]),
}


@st.composite
def bodies(draw: st.DrawFn, dtype: DType, depth: int = 3) -> Scalar:
    """A scalar over the dims that reads with an else, affine or gathered."""
    names = ("a", "b", "c", "S")
    kind = draw(st.sampled_from(["read", "read", "literal", "apply", "cast", "select", "index"]))
    if kind == "index" and dtype is I64:
        return IndexValue(draw(indices(names, 2)))
    if depth == 0 or kind in ("literal", "index"):
        return Literal(draw(st.integers(-4, 4)) / (1 if dtype is I64 else 2), dtype)
    if kind == "select":
        condition = apply("lt", draw(bodies(F32, depth - 1)), draw(bodies(F32, depth - 1)))
        return select(condition, draw(bodies(dtype, depth - 1)), draw(bodies(dtype, depth - 1)))
    if kind == "cast" and dtype is not I64:
        return Apply("cast", (draw(bodies(draw(st.sampled_from([F16, F32, I64])), depth - 1)),), dtype)
    if kind == "read":
        source = {F32: X, F16: H, I64: IDS}[dtype]
        places: list[Index] = []
        for _ in source.shape:
            simple = st.sampled_from(
                [index("a"), index("b"), index("c"), index("c") - 1, 3 - index("a"), index("b") * 2]
            )
            gathered = indices(names, 1).map(lambda i: Read(IDS, [i], Literal(1, I64)).as_index())
            places.append(draw(simple | indices(names, 2) | gathered))
        return Read(source, places, draw(bodies(dtype, depth - 1)))
    function = draw(st.sampled_from(["add", "mul", "max", "min", "sub"]))
    return apply(function, draw(bodies(dtype, depth - 1)), draw(bodies(dtype, depth - 1)))


def _evaluate(body: Scalar, spans: list[Span], reduced: int, monoid: str | None, dtype: DType) -> Array:
    return evaluate_domain(body, spans, reduced, monoid, dtype, {"S": 2}, DATA, UNKNOWN)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([F32, F16, I64]).flatmap(lambda d: bodies(d)), st.permutations(["a", "b", "c"]))
def test_a_map_is_its_points(body: Scalar, order: list[str]) -> None:
    spans = [Span(name, 0, SIZES[name]) for name in order]
    whole = _evaluate(body, spans, 0, None, body.dtype)
    for point in itertools.product(*(range(span.size) for span in spans)):
        alone = _evaluate(body, [Span(n, p, p + 1) for n, p in zip(order, point, strict=True)], 0, None, body.dtype)
        np.testing.assert_array_equal(alone.reshape(()), whole[point])


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(bodies(F32, 2), bodies(F32, 2), st.integers(0, 3), st.permutations(["a", "b", "c"]))
def test_a_sum_of_products_is_its_terms(left: Scalar, right: Scalar, reduced: int, order: list[str]) -> None:
    """The path through matrix products gives what multiplying and adding element by element gives."""
    body = apply("mul", left, right)
    spans = [Span(name, 0, SIZES[name]) for name in order]
    fast = _evaluate(body, spans, reduced, "sum", F32)
    terms = _evaluate(body, spans, 0, None, F32)
    axes = tuple(range(3 - reduced, 3))
    np.testing.assert_allclose(fast, terms.astype(np.float64).sum(axis=axes), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("monoid", ["sum", "max", "min", "prod", "argmax", "any"])
@pytest.mark.parametrize("limit", [1, 7, 20])
def test_pieces_do_not_change_the_result(monoid: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    body: Scalar = apply("add", Read(X, ["c", "a"]), apply("cos", Read(X, ["b", "a"])))
    if monoid == "any":
        body = apply("gt", body, Literal(3.0, F32))
    spans = [Span("b", 0, 3), Span("a", 0, 4), Span("c", 0, 5)]
    reduced = 1 if monoid == "argmax" else 2
    dtype = BOOL if monoid == "any" else F32
    whole = _evaluate(body, spans, reduced, monoid, dtype)
    monkeypatch.setattr(reduction, "POINTS_AT_ONCE", limit)
    np.testing.assert_allclose(_evaluate(body, spans, reduced, monoid, dtype), whole, rtol=1e-6)
    product = apply("mul", Read(X, ["c", "a"]), Read(X, ["b", "a"]))
    pieces = _evaluate(product, spans, 1, "sum", F32)
    monkeypatch.undo()
    np.testing.assert_allclose(pieces, _evaluate(product, spans, 1, "sum", F32), rtol=1e-6)
