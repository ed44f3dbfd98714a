"""The index algebra: every operation keeps the value, for all points inside the bounds."""

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from codesign.ir.index import Bounds, Index, ceildiv, index, maximum, minimum
from tests.ir.strategies import indices

VARIABLES = ("i", "j", "k", "S")
values = st.integers(-50, 50)
points = st.fixed_dictionaries({"i": values, "j": values, "k": values, "S": st.integers(1, 9)})


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Bounds, dict[str, int]]:
    """Bounds, and a point inside them."""
    low = draw(st.integers(1, 4))
    high = draw(st.none() | st.integers(low, 9))
    size = draw(st.integers(low, 9 if high is None else high))
    extents: dict[str, Index] = {}
    point = {"S": size}
    for name in ("i", "j", "k"):
        extent = draw(st.integers(1, 12).map(index) | st.just(index("S")) | st.just(index("S") * 4) | st.none())
        if extent is None:
            point[name] = draw(values)
            continue
        extents[name] = extent
        point[name] = draw(st.integers(0, extent.evaluate({"S": size}) - 1))
    return Bounds(extents, {"S": (low, high)}), point


@given(indices(), indices(), points)
def test_arithmetic_keeps_values(a: Index, b: Index, point: dict[str, int]) -> None:
    x, y = a.evaluate(point), b.evaluate(point)
    assert (a + b).evaluate(point) == x + y
    assert (a - b).evaluate(point) == x - y
    assert (a * b).evaluate(point) == x * y
    assert (-a).evaluate(point) == -x
    assert minimum(a, b).evaluate(point) == min(x, y)
    assert maximum(a, b).evaluate(point) == max(x, y)
    if y != 0:
        assert (a // b).evaluate(point) == x // y
        assert (a % b).evaluate(point) == x % y


@given(indices(), st.integers(1, 64), points)
def test_division_by_constants(a: Index, divisor: int, point: dict[str, int]) -> None:
    x = a.evaluate(point)
    assert (a // divisor).evaluate(point) == x // divisor
    assert (a % divisor).evaluate(point) == x % divisor
    assert ceildiv(a, divisor).evaluate(point) == -(-x // divisor)


@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 16), st.integers(1, 16))
def test_quotient_and_remainder_rejoin(c: int, d: int, divisor: int, other: int) -> None:
    expression = i * c + j * d + 5
    assert (expression // divisor) * divisor + expression % divisor == expression
    digits = (expression // divisor) // other * (divisor * other) + (expression // divisor) % other * divisor
    assert digits + expression % divisor == expression


@given(indices(), boxes())
def test_simplify_keeps_values(a: Index, box: tuple[Bounds, dict[str, int]]) -> None:
    bounds, point = box
    simple = a.simplify(bounds)
    assert simple.evaluate(point) == a.evaluate(point)
    assert simple.simplify(bounds).evaluate(point) == a.evaluate(point)


@given(indices(), boxes())
def test_limits_hold(a: Index, box: tuple[Bounds, dict[str, int]]) -> None:
    bounds, point = box
    low, high = a.limits(bounds)
    value = a.evaluate(point)
    assert low is None or low <= value
    assert high is None or value <= high


@given(indices(), indices(), boxes())
def test_proofs_hold(a: Index, b: Index, box: tuple[Bounds, dict[str, int]]) -> None:
    bounds, point = box
    if a.proves_less(b, bounds):
        assert a.evaluate(point) < b.evaluate(point)
    if a.proves_at_least(b, bounds):
        assert a.evaluate(point) >= b.evaluate(point)


@given(indices(), indices(("i", "j"), 2), points)
def test_substitution_keeps_values(a: Index, by: Index, point: dict[str, int]) -> None:
    inner = {**point, "i": by.evaluate(point)}
    assert a.substitute({"i": by}).evaluate(point) == a.evaluate(inner)


@given(indices(), points)
def test_rebuilding_changes_nothing(a: Index, point: dict[str, int]) -> None:
    again = a.substitute({name: name for name in VARIABLES})
    assert again == a
    assert hash(again) == hash(a)
    assert str(again) == str(a)


@given(indices(), points)
def test_coefficient_is_the_slope(a: Index, point: dict[str, int]) -> None:
    factor = a.coefficient("i")
    assume(factor is not None)
    assert factor is not None
    step = a.evaluate({**point, "i": point["i"] + 1}) - a.evaluate(point)
    assert factor.evaluate(point) == step


def test_what_is_not_linear_has_no_coefficient() -> None:
    a, b = index("i"), index("j")
    assert (a * 3 + b * a + 7).coefficient("i") == b + 3
    assert (a * a).coefficient("i") is None
    assert (a * a * b + a).coefficient("i") is None
    assert (a + a // 2).coefficient("i") is None
    assert (b // 2).coefficient("i") == 0


BOUNDS = Bounds(
    {"i": index("M"), "j": index("S"), "k": index(8), "m": index(64), "n": index(3), "f": index("S") * 64},
    {"M": (1, None), "S": (1, None), "T": (4, 4096)},
)
i, j, k, m, n, f, S = (index(name) for name in ("i", "j", "k", "m", "n", "f", "S"))


@pytest.mark.parametrize(
    ("expression", "simple"),
    [
        ((i * S + j) // S, i),
        ((i * S + j) % S, j),
        ((i * S * 8 + j * 8 + k) // (S * 8), i),
        ((i * S * 8 + j * 8 + k) % (S * 8), j * 8 + k),
        ((i * S * 8 + j * 8 + k) // 8 % S, j),
        ((i * 8 + k) // 8, i),
        ((i * 8 + k) % 8, k),
        ((i * 64 + m) // 8 % 8, m // 8),
        ((m * 3 + n) // 3, m),
        ((m * 3 + n) % 3, n),
        ((m * 3 + n) // 6, m // 2),
        ((m * 3 + n) // 3 % 2, m % 2),
        (k % 8, k),
        (k // 8, index(0)),
        ((k + 8) // 8, index(1)),
        ((k + 8) % 8, k),
        ((k - 8) // 8, index(-1)),
        ((m // 8) * 8 + m % 8, m),
        (f // 64 * 64 + f % 64, f),
        (f // 64 % S, f // 64),
        ((f // 64) // S, index(0)),
        (minimum(k, 8), k),
        (minimum(k, 7), k),
        (maximum(k, 0), k),
        (maximum(k - 8, 0), index(0)),
        ((m % 8) // 8, index(0)),
        ((m % 8) % 4, m % 4),
        ((m // 2) // 4, m // 8),
        ((i * S + j + S) // S, i + 1),
    ],
    ids=str,
)
def test_simplify_finds(expression: Index, simple: Index) -> None:
    assert expression.simplify(BOUNDS) == simple


def test_limits_are_tight_for_affine() -> None:
    expression = 3 * m - 2 * k + 5
    everything = [3 * a - 2 * b + 5 for a, b in itertools.product(range(64), range(8))]
    assert expression.limits(BOUNDS) == (min(everything), max(everything))


@pytest.mark.parametrize(("a", "b"), [((-3, 4), (-5, 2)), ((-3, 4), (1, 6)), ((-4, -1), (-5, -2)), ((2, 3), (-9, -4))])
def test_limits_of_a_product_are_those_of_its_corners(a: tuple[int, int], b: tuple[int, int]) -> None:
    corners = [x * y for x in a for y in b]
    assert (index("a") * "b").limits(Bounds({}, {"a": a, "b": b})) == (min(corners), max(corners))


def test_equal_polynomials_are_equal_objects() -> None:
    assert (i + j) * (i - j) == i * i - j * j
    assert hash((i + 1) * 2) == hash(i * 2 + 2)
    assert i * 0 == 0
    assert {i + j: 1}[j + i] == 1


def test_division_by_zero_is_refused() -> None:
    with pytest.raises(ZeroDivisionError):
        _ = i // 0
