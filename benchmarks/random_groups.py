"""Fused groups of random shapes, by kind, as text of the tensor IR; what `benchmarks/simulator.py` compares two models on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from codesign.ir.tensor import Fusion
from codesign.ir.text import parse


def group_of(kind: str, rng: Generator) -> Fusion:
    """A group of a kind, with sizes drawn by `rng`."""
    (function,) = parse(KINDS[kind](rng)).functions.values()
    return next(op for op in function.body.ops if isinstance(op, Fusion))


def _one(rng: Generator, *values: int) -> int:
    return int(rng.choice(np.array(values)))


def product(rng: Generator) -> str:
    """A product with a bias and a maximum, in bf16 or f32."""
    m, n, k = (_one(rng, 256, 384, 512, 1000, 1024) for _ in range(3))
    dtype = str(rng.choice(np.array(["bf16", "f32"])))
    return f"""
func @product(%x: {dtype}[{m}, {k}], %w: {dtype}[{n}, {k}], %bias: {dtype}[{n}]) {{
  %o = fusion {{
    %h = compute {dtype}[i: {m}, j: {n}] sum(k: {k}) in f32 {{ f32(%x[i, k]) * f32(%w[j, k]) }}
    %r = compute {dtype}[i: {m}, j: {n}] {{ max(%h[i, j] + %bias[j], 0.0:{dtype}) }}
    yield %r
  }}
  return %o
}}
"""


def softmax(rng: Generator) -> str:
    rows, width = _one(rng, 512, 1000, 2048), _one(rng, 200, 500, 1024, 2000)
    return f"""
func @softmax(%x: f32[{rows}, {width}]) {{
  %o = fusion {{
    %top = compute f32[i: {rows}] max(j: {width}) {{ %x[i, j] }}
    %power = compute f32[i: {rows}, j: {width}] {{ exp(%x[i, j] - %top[i]) }}
    %total = compute f32[i: {rows}] sum(j: {width}) {{ %power[i, j] }}
    %share = compute f32[i: {rows}, j: {width}] {{ %power[i, j] / %total[i] }}
    yield %share
  }}
  return %o
}}
"""


def row_norm(rng: Generator) -> str:
    rows, width = _one(rng, 512, 2000, 4096), _one(rng, 256, 1000, 1024, 4096)
    return f"""
func @row_norm(%x: f16[{rows}, {width}], %gain: f16[{width}]) {{
  %o = fusion {{
    %squares = compute f32[i: {rows}] sum(j: {width}) {{ f32(%x[i, j]) * f32(%x[i, j]) }}
    %scale = compute f32[i: {rows}] {{ rsqrt(%squares[i] / {width}.0 + 1e-05) }}
    %normed = compute f16[i: {rows}, j: {width}] {{ f16(f32(%x[i, j]) * %scale[i] * f32(%gain[j])) }}
    yield %normed
  }}
  return %o
}}
"""


def reduction(rng: Generator) -> str:
    """Sums or maxima along rows or columns."""
    rows, width = _one(rng, 1000, 2048, 3000), _one(rng, 500, 1024, 2000)
    monoid = str(rng.choice(np.array(["sum", "max"])))
    kept, gone = (f"i: {rows}", f"j: {width}") if rng.integers(2) else (f"j: {width}", f"i: {rows}")
    return f"""
func @reduction(%x: f32[{rows}, {width}]) {{
  %o = fusion {{
    %s = compute f32[{kept}] {monoid}({gone}) {{ %x[i, j] }}
    yield %s
  }}
  return %o
}}
"""


def element_wise(rng: Generator) -> str:
    """A sum with a tensor of the same layout or transposed."""
    rows, columns = _one(rng, 512, 1000, 1024), _one(rng, 512, 800, 2048)
    turned = bool(rng.integers(2))
    shape, place = (f"{columns}, {rows}", "j, i") if turned else (f"{rows}, {columns}", "i, j")
    return f"""
func @element_wise(%x: f32[{rows}, {columns}], %y: f32[{shape}]) {{
  %o = fusion {{
    %s = compute f32[i: {rows}, j: {columns}] {{ %x[i, j] + %y[{place}] }}
    yield %s
  }}
  return %o
}}
"""


def attention(rng: Generator) -> str:
    heads, rows, keys, width = _one(rng, 4, 8), _one(rng, 200, 256, 512), _one(rng, 256, 500), _one(rng, 64, 128)
    return f"""
func @attention(%q: f16[{heads}, {rows}, {width}], %k: f16[{heads}, {keys}, {width}], %v: f16[{heads}, {keys}, {width}]) {{
  %o = fusion {{
    %scores = compute f32[h: {heads}, i: {rows}, j: {keys}] sum(d: {width}) {{ f32(%q[h, i, d]) * f32(%k[h, j, d]) }}
    %top = compute f32[h: {heads}, i: {rows}] max(j: {keys}) {{ %scores[h, i, j] }}
    %power = compute f32[h: {heads}, i: {rows}, j: {keys}] {{ exp(%scores[h, i, j] - %top[h, i]) }}
    %total = compute f32[h: {heads}, i: {rows}] sum(j: {keys}) {{ %power[h, i, j] }}
    %share = compute f16[h: {heads}, i: {rows}, j: {keys}] {{ f16(%power[h, i, j] / %total[h, i]) }}
    %out = compute f16[h: {heads}, i: {rows}, e: {width}] sum(j: {keys}) in f32 {{
      f32(%share[h, i, j]) * f32(%v[h, j, e])
    }}
    yield %out
  }}
  return %o
}}
"""


def digits(rng: Generator) -> str:
    """A product that reads its left operand through a reshape, or the same read without a product."""
    heads, width, rows, columns = _one(rng, 4, 8), _one(rng, 64, 96, 128), _one(rng, 256, 500), _one(rng, 256, 384)
    k = heads * width
    if rng.integers(3):
        return f"""
func @digits(%x: bf16[{heads}, {rows}, {width}], %w: bf16[{columns}, {k}]) {{
  %o = fusion {{
    %h = compute bf16[i: {rows}, j: {columns}] sum(k: {k}) in f32 {{
      f32(%x[k // {width}, i, k % {width}]) * f32(%w[j, k])
    }}
    yield %h
  }}
  return %o
}}
"""
    return f"""
func @digits(%x: f32[{heads}, {rows}, {width}], %y: f32[{rows}, {k}]) {{
  %o = fusion {{
    %s = compute f32[i: {rows}, k: {k}] {{ %x[k // {width}, i, k % {width}] + %y[i, k] }}
    yield %s
  }}
  return %o
}}
"""


def window(rng: Generator) -> str:
    """Maxima of windows."""
    images, channels, size = _one(rng, 1, 4), _one(rng, 16, 32), _one(rng, 28, 56)
    reach, stride = _one(rng, 2, 3), _one(rng, 1, 2)
    out = (size - reach) // stride + 1
    return f"""
func @window(%x: f32[{images}, {channels}, {size}, {size}]) {{
  %o = fusion {{
    %p = compute f32[n: {images}, c: {channels}, y: {out}, x: {out}] max(r: {reach}, s: {reach}) {{
      %x[n, c, y*{stride} + r, x*{stride} + s]
    }}
    yield %p
  }}
  return %o
}}
"""


def convolution(rng: Generator) -> str:
    """A padded convolution of 3 x 3 with a bias, in f32 or bf16."""
    images, channels, size = _one(rng, 1, 2, 4), _one(rng, 16, 32, 64), _one(rng, 14, 28)
    out, stride = _one(rng, 32, 64), _one(rng, 1, 2)
    side = (size + 2 - 3) // stride + 1
    dtype = str(rng.choice(np.array(["f32", "bf16"])))
    return f"""
func @convolution(%x: {dtype}[{images}, {channels}, {size}, {size}], %w: {dtype}[{out}, {channels}, 3, 3], %b: {dtype}[{out}]) {{
  %o = fusion {{
    %h = compute {dtype}[n: {images}, o: {out}, y: {side}, x: {side}] sum(c: {channels}, r: 3, s: 3) in f32 {{
      f32(%x[n, c, y*{stride} + r - 1, x*{stride} + s - 1] else 0.0:{dtype}) * f32(%w[o, c, r, s])
    }}
    %r = compute {dtype}[n: {images}, o: {out}, y: {side}, x: {side}] {{ %h[n, o, y, x] + %b[o] }}
    yield %r
  }}
  return %o
}}
"""


def masked_attention(rng: Generator) -> str:
    """Attention of grouped heads under a causal mask or a window, with more to do for later rows."""
    heads, grouped, rows = _one(rng, 4, 8, 16), _one(rng, 1, 4), _one(rng, 512, 1000, 2048)
    width, reach = _one(rng, 64, 128), _one(rng, 128, 4096)
    shape, wide = f"h: {heads}, i: {rows}, j: {rows}", f"{heads // grouped}, {rows}, {width}"
    return f"""
func @masked_attention(%q: f16[{heads}, {rows}, {width}], %k: f16[{wide}], %v: f16[{wide}]) {{
  %o = fusion {{
    %scores = compute f32[{shape}] sum(d: {width}) {{ f32(%q[h, i, d]) * f32(%k[h // {grouped}, j, d]) }}
    %masked = compute f32[{shape}] {{
      select((index<i32>(j) <= index<i32>(i)) & (index<i32>(i - j) < {reach}:i32), %scores[h, i, j], -inf:f32)
    }}
    %top = compute f32[h: {heads}, i: {rows}] max(j: {rows}) {{ %masked[h, i, j] }}
    %power = compute f32[{shape}] {{ exp(%masked[h, i, j] - %top[h, i]) }}
    %total = compute f32[h: {heads}, i: {rows}] sum(j: {rows}) {{ %power[h, i, j] }}
    %share = compute f16[{shape}] {{ f16(%power[h, i, j] / %total[h, i]) }}
    %out = compute f16[h: {heads}, i: {rows}, e: {width}] sum(j: {rows}) in f32 {{
      f32(%share[h, i, j]) * f32(%v[h // {grouped}, j, e])
    }}
    yield %out
  }}
  return %o
}}
"""


KINDS: dict[str, Callable[[Generator], str]] = {
    "product": product,
    "softmax": softmax,
    "row norm": row_norm,
    "reduction": reduction,
    "element-wise": element_wise,
    "attention": attention,
    "digits": digits,
    "window": window,
    "convolution": convolution,
    "masked attention": masked_attention,
}
