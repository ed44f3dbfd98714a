"""A fold over the columns of a product in parts of a tile each: cross-entropy without logits in memory."""

from __future__ import annotations

import pytest

from codesign.costmodel.machine import load_machine
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.passes.schedule.tuner import Tuner

TYPES = "%x: bf16[{t}, {h}], %w: bf16[{v}, {h}], %t: i64[{t}]"
ROWS = """func @f(TYPES) {{
%o = fusion {{
 %z = compute bf16[i: {t}, j: {v}] sum(k: {h}) in f32 {{ f32(%x[i, k]) * f32(%w[j, k]) }}
 %m = compute f32[i: {t}] max(j: {v}) {{ f32(%z[i, j]) }}
 %s = compute f32[i: {t}] sum(j: {v}) {{ exp(f32(%z[i, j]) - %m[i]) }}
 %p = compute f32[i: {t}] sum(j: {v}) {{ select(i64(index(j)) == %t[i], f32(%z[i, j]), 0.0) }}
 %c = compute f32[i: {t}] {{ log(%s[i]) + %m[i] - %p[i] }}
 yield %c
}}
return %o
}}""".replace("TYPES", TYPES)


def cross_entropy(tokens: int, words: int, width: int) -> Fusion:
    (fusion,) = parse(ROWS.format(t=tokens, v=words, h=width)).main.body.ops
    assert isinstance(fusion, Fusion)
    return fusion


@pytest.mark.parametrize(("tokens", "share"), [(4096, 0.6), (65536, 0.97)])
def test_rows_are_read_once_for_each_tile_of_words(tokens: int, share: float) -> None:
    """On a grid that its rows alone would not fill, and on one that they would."""
    tuner = Tuner(load_machine("h100_sxm"))
    fusion = cross_entropy(tokens, 32000, 4096)
    found, whole = tuner.tune(fusion), tuner.tune(fusion, split=False)
    assert found.cutting.parts == 125
    assert found.seconds < share * whole.seconds
    logits = 2.0 * tokens * 32000
    assert found.phases[0].tuned.details["dram_write_bytes"] < 0.05 * logits
