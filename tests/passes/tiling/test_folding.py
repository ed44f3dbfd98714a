"""Folds in loops over tiles: the same values at every tile size, as float64 gives them, whatever the magnitudes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from codesign.ir.core import Block
from codesign.ir.dtypes import DTYPES
from codesign.ir.errors import ScheduleError
from codesign.ir.numerics import round_to
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Compute, Fusion
from codesign.ir.text import parse, print_kernel
from codesign.ir.tile import For, Kernel
from codesign.passes.tile import lower
from tests.passes.tiling import groups

Array = Any


def group(arguments: str, *computes: str, yields: int = 1) -> Fusion:
    """The group of some computes (`%name = compute ...`), which yields the last ones."""
    names = [line.split(" = ")[0] for line in computes[-yields:]]
    text = "\n  ".join(computes)
    module = parse(f"module @m\n\nfunc @main({arguments}) {{\n  {text}\n  return {', '.join(names)}\n}}\n")
    found = [op for op in module.main.body.ops if isinstance(op, Compute)]
    return Fusion(Block((), found, [op.result for op in found[-yields:]]), label="group")


# -- rows ---------------------------------------------------------------------------------------------------------------
def _shifted(x: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.exp(x - x.max(-1, keepdims=True))


def _log_sum(x: Array) -> Array:
    top = np.where(np.isinf(x.max(-1)), 0.0, x.max(-1))
    with np.errstate(divide="ignore", over="ignore"):
        return np.log(np.exp(x - top[..., None]).sum(-1)) + top


def _log_share(x: Array) -> Array:
    return x - x.max(-1, keepdims=True) - np.log(_shifted(x).sum(-1, keepdims=True))


def _share(x: Array) -> Array:
    return np.exp(_log_share(x))


TOP = "%m = compute {d}[i: 6] max(j: 75) {{ %x[i, j] }}"
SUM = "%s = compute f32[i: 6] sum(j: 75) {{ exp(f32(%x[i, j]) - f32(%m[i])) }}"
GUARDED = (
    "%m = compute f32[i: 6] max(j: 75) {{ f32(%x[i, j]) }}",
    "%g = compute f32[i: 6] {{ select(abs(%m[i]) == inf, 0.0, %m[i]) }}",
    "%s = compute f32[i: 6] sum(j: 75) {{ exp(f32(%x[i, j]) - %g[i]) }}",
    "%l = compute f32[i: 6] {{ log(%s[i]) + %g[i] }}",
)
SHARE = "let e = f32(%x[i, j]) - f32(%m[i]); let p = exp(e) / %s[i]"
MEAN = ("%t = compute f32[i: 6] sum(j: 75) {{ f32(%x[i, j]) }}", "%a = compute f32[i: 6] {{ %t[i] / 75.0 }}")

ROWS: dict[str, tuple[tuple[str, ...], Callable[[Array], Array]]] = {
    "softmax": (
        (TOP, SUM, "%y = compute f32[i: 6, j: 75] {{ exp(f32(%x[i, j]) - f32(%m[i])) / %s[i] }}"),
        lambda x: _shifted(x) / _shifted(x).sum(-1, keepdims=True),
    ),
    "log softmax": (
        (TOP, SUM, "%y = compute f32[i: 6, j: 75] {{ f32(%x[i, j]) - f32(%m[i]) - log(%s[i]) }}"),
        lambda x: x - x.max(-1, keepdims=True) - np.log(_shifted(x).sum(-1, keepdims=True)),
    ),
    "log-sum-exp": (GUARDED, _log_sum),
    "weights by the log-sum-exp": (
        (*GUARDED, "%y = compute f32[i: 6] sum(j: 75) {{ exp(f32(%x[i, j]) - %l[i]) * f32(%x[i, 74 - j]) }}"),
        lambda x: (np.exp(x - _log_sum(x)[:, None]) * x[:, ::-1]).sum(-1),
    ),
    "the least of a softmin": (
        (
            "%m = compute f32[i: 6] min(j: 75) {{ f32(%x[i, j]) }}",
            "%s = compute f32[i: 6] sum(j: 75) {{ exp((%m[i] - f32(%x[i, j])) * 0.5) }}",
            "%y = compute f32[i: 6] min(j: 75) {{ exp((%m[i] - f32(%x[i, j])) * 0.5) / %s[i] }}",
        ),
        lambda x: (np.exp((x.min(-1, keepdims=True) - x) * 0.5)).min(-1)
        / np.exp((x.min(-1, keepdims=True) - x) * 0.5).sum(-1),
    ),
    "variance": (
        (*MEAN, "%y = compute f32[i: 6] sum(j: 75) {{ let e = f32(%x[i, j]) - %a[i]; e * e }}"),
        lambda x: ((x - x.mean(-1, keepdims=True)) ** 2).sum(-1),
    ),
    "covariance": (
        (*MEAN, "%y = compute f32[i: 6] sum(j: 75) {{ f32(%x[i, 74 - j]) * (f32(%x[i, j]) - %a[i]) / 75.0 }}"),
        lambda x: (x[:, ::-1] * (x - x.mean(-1, keepdims=True))).sum(-1) / 75.0,
    ),
    "a sum under a shift": (
        (TOP, "%y = compute f32[i: 6] sum(j: 75) {{ f32(%x[i, j]) - f32(%m[i]) }}"),
        lambda x: (x - x.max(-1, keepdims=True)).sum(-1),
    ),
    "an extreme under a shift": (
        (*MEAN, "%y = compute f32[i: 6] max(j: 75) {{ f32(%x[i, j]) - %a[i] }}"),
        lambda x: (x - x.mean(-1, keepdims=True)).max(-1),
    ),
    "an entropy": (
        (TOP, SUM, f"%y = compute f32[i: 6] sum(j: 75) {{{{ {SHARE}; p * (e - log(%s[i])) }}}}"),
        lambda x: (_share(x) * _log_share(x)).sum(-1),
    ),
    "an entropy, with logarithms of shares": (
        (TOP, SUM, f"%y = compute f32[i: 6] sum(j: 75) {{{{ {SHARE}; p * log(p) }}}}"),
        lambda x: np.where((np.exp(_log_share(x)) < 1e-45).any(-1), np.nan, (_share(x) * _log_share(x)).sum(-1)),
    ),
    "an entropy of shares that may be zero": (
        (TOP, SUM, f"%y = compute f32[i: 6] sum(j: 75) {{{{ {SHARE}; select(isnan(p), nan, select(p == 0.0, 0.0, p * log(p))) }}}}"),
        lambda x: (_share(x) * _log_share(x)).sum(-1),
    ),
    "a divergence": (
        (TOP, SUM, f"%y = compute f32[i: 6] sum(j: 75) {{{{ {SHARE}; p * (e - log(%s[i]) - (f32(%x[i, 74 - j]) - f32(%m[i]) - log(%s[i]))) }}}}"),
        lambda x: (_share(x) * (x - x[:, ::-1])).sum(-1),
    ),
    "a value under shares and about the largest": (
        (TOP, SUM, f"%y = compute f32[i: 6] sum(j: 75) {{{{ {SHARE}; select(j < 40, e * 0.5 * exp(e), 0.0) }}}}"),
        lambda x: ((x - x.max(-1, keepdims=True)) * 0.5 * _shifted(x))[:, :40].sum(-1),
    ),
    "a difference of two terms": (
        (TOP, SUM, f"%y = compute f32[i: 6] sum(j: 75) {{{{ {SHARE}; p * (e - log(%s[i])) - exp(e * 0.5) * 0.015625 }}}}"),
        lambda x: (_share(x) * _log_share(x) - np.exp((x - x.max(-1, keepdims=True)) * 0.5) / 64).sum(-1),
    ),
}  # fmt: skip
"""Results of rows of 75, by name: the computes and what they give in float64."""


def rows(name: str, dtype: str) -> Fusion:
    return group(f"%x: {dtype}[6, 75]", *(line.format(d=dtype) for line in ROWS[name][0]))


def folded(fusion: Fusion, tile: int, *arrays: Array) -> Array:
    """The result by a fold in steps of a tile."""
    (found,) = groups.run_tiles(lower(fusion, Schedule({"i": 8, "j": tile}, reduce={"j": "fold"})), arrays)
    return found


def sweeps(kernel: Kernel) -> int:
    return sum(isinstance(op, For) for op in kernel.body.ops)


@pytest.mark.parametrize("name", ROWS)
def test_rows_need_one_sweep_and_another_only_to_write_them(name: str) -> None:
    fusion = rows(name, "f32")
    found = lower(fusion, Schedule({"i": 2, "j": 16}, reduce={"j": "fold"}))
    looped = lower(fusion, Schedule({"i": 2, "j": 16}, reduce={"j": "looped"}))
    assert sweeps(found) == 1 + any(dim.name == "j" for dim in fusion.computes[-1].dims)
    assert sweeps(looped) > sweeps(found)
    printed = print_kernel(found)
    assert print_kernel(parse(f"module @m\n\n{printed}").kernels["kernel"]) == printed


def assert_as_near(found: Array, written: Array, wanted: Array) -> None:
    """Values are as near to those wanted as those of the group as it is written, and the same are none."""
    there = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.isnan(found), ~there)
    allowed = 16.0 * np.abs(written - wanted).max(where=there, initial=0.0) + 2e-6 * np.abs(wanted) + 1e-30
    assert (np.abs(found - wanted) <= allowed)[there].all()


TILES = [32, *(pytest.param(tile, marks=pytest.mark.slow) for tile in (1, 4, 64))]


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("name", ROWS)
def test_rows_are_as_near_to_float64_as_when_done_as_written(name: str, dtype: str, tile: int) -> None:
    """With values of one, of 10,000, and of one around 10,000."""
    fusion = rows(name, dtype)
    values = np.random.default_rng(7).standard_normal((6, 75))
    for magnitude, offset in ((1.0, 0.0), (1e4, 0.0), (1.0, 1e4)):
        x = round_to((values * magnitude + offset).astype(np.float32), DTYPES[dtype])
        wanted = ROWS[name][1](x.astype(np.float64))
        (written,) = groups.reference(fusion, [x])
        assert_as_near(folded(fusion, tile, x), written, wanted)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("name", ROWS)
def test_rows_with_infinities_and_nan_are_what_they_are_as_written(name: str, tile: int) -> None:
    """Rows that begin masked, are masked whole, or hold an infinity or a NaN, at the start, in the midst and at the end."""
    fusion = rows(name, "f32")
    x = np.random.default_rng(3).standard_normal((6, 75)).astype(np.float32)
    x[0, :40] = -np.inf
    x[1] = -np.inf
    x[2, [0, 30, 74][len(name) % 3]] = np.inf
    x[3, [0, 30, 74][len(name) % 3]] = np.nan
    x[4, 20:] = -np.inf
    with np.errstate(all="ignore"):
        (written,) = groups.reference(fusion, [x])
        np.testing.assert_allclose(folded(fusion, tile, x), written, rtol=2e-6, atol=1e-6, equal_nan=True)


def test_a_fold_of_which_a_part_is_made_in_the_steps_of_another_loop_is_refused() -> None:
    """A norm and the product of what it normalises go on together along j, but not where another loop asks for the product in each step."""
    fusion = group(
        "%x: f32[32, 64], %u: f32[48, 64], %d: f32[64, 48]",
        "%t = compute f32[i: 32] sum(j: 64) { %x[i, j] * %x[i, j] }",
        "%r = compute f32[i: 32] { rsqrt(%t[i] * 0.015625 + 1e-5) }",
        "%n = compute f32[i: 32, j: 64] { %x[i, j] * %r[i] }",
        "%h = compute f32[i: 32, k: 48] sum(j: 64) { %n[i, j] * %u[k, j] }",
        "%y = compute f32[i: 32, j: 64] sum(k: 48) { %h[i, k] * %d[j, k] }",
    )
    tiles = {"i": 16, "j": 16, "k": 16}
    with pytest.raises(ScheduleError, match=r"reduce\.j: fold: only some .* along k"):
        lower(fusion, Schedule(tiles, reduce={"j": "fold"}))
    lower(fusion, Schedule(tiles, reduce={"j": "fold", "k": "resident"}))
