"""The last tiles of a grid in parts of their sums: the same values, whatever is cut off and into however many parts."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.ir.core import Block, Function, Module
from codesign.ir.dtypes import BF16
from codesign.ir.interpreter import evaluate
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Dim, Fusion
from codesign.ir.text import parse, print_module
from codesign.ir.verify import verify
from codesign.passes.normalize import normalize
from codesign.passes.tiling.cutting import Cutting, memory
from codesign.passes.tiling.tail import Tail, has_tail
from tests.passes.tiling import groups

GATED = """func @f(%x: f16[20, 130], %g: f16[130, 40], %u: f16[130, 40]) {{
{0} = fusion {{
%a = compute f16[i: 20, j: 40] sum(k: 130) in f32 {{ f32(%x[i, k]) * f32(%g[k, j]) }}
%b = compute f16[i: 20, j: 40] sum(k: 130) in f32 {{ f32(%x[i, k]) * f32(%u[k, j]) }}
%c = compute f16[i: 20, j: 40] {{ f16(f32(%a[i, j]) / (1.0 + exp(-f32(%a[i, j]))) * f32(%b[i, j])) }}
yield {1} }}
return {0}
}}"""


def gated(results: str = "%o", yields: str = "%c") -> Fusion:
    """Two products of the same rows, and what gates one by the other."""
    (fusion,) = parse(GATED.format(results, yields)).main.body.ops
    assert isinstance(fusion, Fusion)
    return fusion


KINDS = {
    "product and epilogue": (groups.gemm(20, 40, 192), "j", 32),
    "rows": (groups.gemm(40, 16, 192, BF16, swapped=True), "i", 32),
    "batches": (groups.gemm(16, 16, 128, batch=5), "b", 3),
    "two products": (gated(), "j", 16),
    "mean and variance": (groups.layer_norm(5, 130), "i", 3),
    "softmax": (groups.softmax(9, 130), "i", 4),
    "convolution": (groups.convolution(2, 8, 6, 24, 3, 1, 1), "o", 16),
}


def cut(fusion: Fusion, dim: str, start: int, parts: int) -> tuple[Module, Fusion, Fusion]:
    cutting = Cutting(parts, Tail(list(fusion.dims()).index(dim), start))
    assert cutting.applies(fusion)
    both, combination = cutting.halves(fusion)
    body = Block(list(fusion.uses()), [*memory(both), both, combination], combination.results)
    return Module(functions={"main": Function("main", body)}), both, combination


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("name", KINDS)
def test_a_tail_in_parts_computes_the_same(name: str, parts: int) -> None:
    fusion, dim, start = KINDS[name]
    module, both, combination = cut(fusion, dim, start, parts)
    verify(module)
    text = print_module(module)
    assert print_module(parse(text)) == text
    arrays = groups.random_inputs(fusion)
    for found, wanted in zip(evaluate(module, arrays), groups.reference(fusion, arrays), strict=True):
        np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=1e-2, atol=1e-2)
    for half in (both, combination) if parts == 2 else ():
        groups.check(half, Schedule(dict.fromkeys(normalize(half).fusion.dims(), 16)))


def test_all_results_are_written_in_their_own_places() -> None:
    fusion = gated("%o, %p", "%c, %b")
    module, _, _ = cut(fusion, "j", 32, 3)
    arrays = groups.random_inputs(fusion)
    for found, wanted in zip(evaluate(module, arrays), groups.reference(fusion, arrays), strict=True):
        np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dim", ["i", "k"])
def test_what_has_no_tail(dim: str) -> None:
    """A result without the dim would be made in both pieces; what is summed over is no dim of results."""
    product = "%a = compute f32[i: 8, j: 8] sum(k: 64) { %x[i, k] * %w[k, j] }"
    sums = "%s = compute f32[j: 8] sum(k: 64) { %w[k, j] }"
    text = f"func @f(%x: f32[8, 64], %w: f32[64, 8]) {{\n%o, %p = fusion {{\n{product}\n{sums}\nyield %a, %s }}\nreturn %o, %p\n}}"
    (fusion,) = parse(text).main.body.ops
    assert isinstance(fusion, Fusion)
    assert not has_tail(fusion, Dim(dim, fusion.dims()[dim]))
    assert has_tail(fusion, Dim("j", fusion.dims()["j"]))
