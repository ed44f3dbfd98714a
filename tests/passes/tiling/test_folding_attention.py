"""Attention in one pass over the keys, in many variants, from its definition: two products and a softmax between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from codesign.ir.dtypes import DTYPES
from codesign.ir.numerics import round_to
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Fusion
from codesign.ir.tile import Dot, For
from codesign.passes.tile import lower
from tests.passes.tiling import groups
from tests.passes.tiling.test_folding import group

Array = Any
ROW, COLUMN = np.arange(32)[:, None], np.arange(80)[None, :]
"""Places of queries and keys."""

VARIANTS: dict[str, tuple[str, Callable[[Array, list[Array]], Array]]] = {
    "plain": ("%z[h, i, j]", lambda z, _: z),
    "scaled": ("%z[h, i, j] * 0.25", lambda z, _: z * 0.25),
    "causal": ("select(j <= i + 48, %z[h, i, j], -inf)", lambda z, _: np.where(COLUMN <= ROW + 48, z, -np.inf)),
    "window": (
        "select((j <= i + 40) & (i + 10 <= j), %z[h, i, j], -inf)",
        lambda z, _: np.where((COLUMN <= ROW + 40) & (ROW + 10 <= COLUMN), z, -np.inf),
    ),
    "rows masked whole": ("select(j < i - 3, %z[h, i, j], -inf)", lambda z, _: np.where(COLUMN < ROW - 3, z, -np.inf)),
    "soft cap": ("tanh(%z[h, i, j] / 3.0) * 3.0", lambda z, _: np.tanh(z / 3.0) * 3.0),
    "bias": ("%z[h, i, j] + %b[i, j]", lambda z, more: z + more[0]),
    "slope by distance": (
        "%z[h, i, j] + %c[h] * f32(index(j - i))",
        lambda z, more: z + more[1][:, None, None] * (COLUMN - ROW),
    ),
    "documents": (
        "select(%p[i] == %k[j], %z[h, i, j], -inf)",
        lambda z, more: np.where(more[2][:, None] == more[3][None, :], z, -np.inf),
    ),
}
"""Scores by name, over the product z of queries and keys; further inputs: b, c, p and k."""


def variant(
    score: str, dtype: str, *, width: int = 16, group_size: int = 1, sink: bool = False, zero: bool = False
) -> Fusion:
    """A softmax of scores times values of a width. `group_size`: query heads for each head of keys; `sink`: a further score a head that
    takes weight; `zero`: rows masked whole give zeros.
    """
    kept = "h" if group_size == 1 else f"h // {group_size}"
    heads = 4 // group_size
    m = "%n" if sink else "%m"
    weights = f"exp(%s[h, i, j] - {m}[h, i]) / {'%u' if sink else '%t'}[h, i]"
    if zero:
        weights = f"select(%m[h, i] == -inf, 0.0, {weights})"
    return group(
        f"%q: {dtype}[4, 32, 16], %key: {dtype}[{heads}, 80, 16], %v: {dtype}[{heads}, 80, {width}], "
        "%b: f32[32, 80], %c: f32[4], %p: i64[32], %k: i64[80]",
        f"%z = compute f32[h: 4, i: 32, j: 80] sum(d: 16) {{ f32(%q[h, i, d]) * f32(%key[{kept}, j, d]) }}",
        f"%s = compute f32[h: 4, i: 32, j: 80] {{ {score} }}",
        "%m = compute f32[h: 4, i: 32] max(j: 80) { %s[h, i, j] }",
        "%n = compute f32[h: 4, i: 32] { max(%m[h, i], %c[h]) }",
        f"%t = compute f32[h: 4, i: 32] sum(j: 80) {{ exp(%s[h, i, j] - {m}[h, i]) }}",
        f"%u = compute f32[h: 4, i: 32] {{ %t[h, i] + exp(%c[h] - {m}[h, i]) }}",
        f"%w = compute {dtype}[h: 4, i: 32, j: 80] {{ {weights if dtype == 'f32' else f'{dtype}({weights})'} }}",
        f"%o = compute f32[h: 4, i: 32, e: {width}] sum(j: 80) {{ f32(%w[h, i, j]) * f32(%v[{kept}, j, e]) }}",
    )


def inputs(fusion: Fusion, dtype: str, magnitude: float) -> list[Array]:
    """By name: normal values, of queries times a magnitude; documents are runs."""
    rng = np.random.default_rng(11)
    arrays = []
    for value in fusion.uses():
        shape = [size.constant for size in value.shape]
        if value.name in ("p", "k"):
            arrays.append((np.arange(shape[0]) * 3 // shape[0]).astype(np.int64))
            continue
        scale = magnitude if value.name == "q" else 1.0
        kind = DTYPES[dtype] if value.name in ("q", "key", "v") else DTYPES["f32"]
        arrays.append(round_to((rng.standard_normal(shape) * scale).astype(np.float32), kind))
    return arrays


def check(fusion: Fusion, dtype: str, wanted: Array, arrays: Sequence[Array], tile: int) -> None:
    width = fusion.dims()["e"].constant
    schedule = Schedule(
        {"i": 16, "j": tile, "d": 16, "e": width}, reduce={"j": "fold", "d": "resident"}, extras={"warps": 4}
    )
    kernel = lower(fusion, schedule)
    stretches = [op for op in kernel.body.ops if isinstance(op, For)]
    for loop in stretches:
        assert len([op for op in loop.body.ops if isinstance(op, Dot)]) == 2, "both products go on in the one loop"
    for loop, following in itertools.pairwise(stretches):
        assert following.initial == loop.results, "what one stretch of it leaves the next goes on with"
    assert len([op for op in kernel.body.ops if isinstance(op, Dot)]) == 0
    with np.errstate(all="ignore"):
        (found,) = groups.run_tiles(kernel, list(arrays))
        (written,) = groups.reference(fusion, list(arrays))
    off = np.nanmax(np.abs(written - wanted), initial=0.0)
    allowed = 4.0 * off + {"f32": 1e-6, "bf16": 4e-3, "f16": 5e-4}[dtype] * np.nanmax(np.abs(wanted))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=allowed, equal_nan=True)


def in_float64(score: Callable[[Array, list[Array]], Array], arrays: Sequence[Array], names: list[str]) -> Array:
    """Attention of scores, in float64."""
    by_name = {name: array.astype(np.float64) for name, array in zip(names, arrays, strict=True)}
    repeat = 4 // len(by_name["key"])
    key, value = np.repeat(by_name["key"], repeat, 0), np.repeat(by_name["v"], repeat, 0)
    more = [by_name.get(name, np.zeros(1)) for name in ("b", "c", "p", "k")]
    with np.errstate(all="ignore"):
        s = score(by_name["q"] @ key.transpose(0, 2, 1), more)
        weights = np.exp(s - s.max(-1, keepdims=True))
        return (weights / weights.sum(-1, keepdims=True)) @ value


def names_of(fusion: Fusion) -> list[str]:
    return [value.name for value in fusion.uses()]


@pytest.mark.parametrize("tile", [32, *(pytest.param(tile, marks=pytest.mark.slow) for tile in (16, 64))])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_one_pass(name: str, tile: int) -> None:
    text, score = VARIANTS[name]
    for dtype, magnitude in (("f16", 1.0), ("bf16", 100.0), ("f32", 1e4)):
        fusion = variant(text, dtype)
        arrays = inputs(fusion, dtype, magnitude)
        check(fusion, dtype, in_float64(score, arrays, names_of(fusion)), arrays, tile)


@pytest.mark.parametrize(("group_size", "width"), [(2, 16), (4, 32), (1, 64)])
def test_grouped_queries_and_values_of_another_width(group_size: int, width: int) -> None:
    fusion = variant(VARIANTS["causal"][0], "f16", group_size=group_size, width=width)
    arrays = inputs(fusion, "f16", 1.0)
    check(fusion, "f16", in_float64(VARIANTS["causal"][1], arrays, names_of(fusion)), arrays, 32)


def test_a_sink_takes_its_share_of_the_weight() -> None:
    fusion = variant(VARIANTS["window"][0], "f16", sink=True)
    arrays = inputs(fusion, "f16", 2.0)
    by_name = dict(zip(names_of(fusion), arrays, strict=True))

    def with_sink(z: Array, more: list[Array]) -> Array:
        more[1] = by_name["c"].astype(np.float64)
        sink = np.broadcast_to(more[1][:, None, None], (4, 32, 1))
        return np.concatenate([VARIANTS["window"][1](z, more), sink], -1)

    padded = [np.pad(a, ((0, 0), (0, 1), (0, 0))) if n == "v" else a for n, a in by_name.items()]
    wanted = in_float64(with_sink, padded, list(by_name))
    check(fusion, "f16", wanted, arrays, 32)


def test_rows_masked_whole_give_zeros_where_the_source_says_so() -> None:
    text, score = VARIANTS["rows masked whole"]
    fusion = variant(text, "f16", zero=True)
    arrays = inputs(fusion, "f16", 1.0)
    wanted = in_float64(score, arrays, names_of(fusion))
    assert np.isnan(wanted[:, :4]).all()
    check(fusion, "f16", np.nan_to_num(wanted, nan=0.0), arrays, 32)
