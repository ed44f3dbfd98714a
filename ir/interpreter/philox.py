"""Random numbers from counters: Philox 4x32-10 (Salmon et al., SC 2011, "Parallel random numbers: as easy as 1, 2, 3").

The maps from words to floats are those of Triton's `tl.rand` and `tl.randn`, so that a generated kernel draws the
same numbers.
"""

from __future__ import annotations

import numpy as np

from codesign.ir.numerics import Array

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SCALE = np.float32(4.6566127342e-10)
"""The greatest float32 that keeps 0x7fffffff * scale below 1."""


def philox(seed: int, counters: Array) -> tuple[Array, Array, Array, Array]:
    """Four words (uint32) per 64-bit counter."""
    counter = counters.astype(np.uint64)
    words = [counter & _LOW, counter >> np.uint64(32), np.zeros_like(counter), np.zeros_like(counter)]
    key = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
    for _ in range(10):
        a, b = words[0] * _MULTIPLIERS[0], words[2] * _MULTIPLIERS[1]
        words = [
            (b >> np.uint64(32)) ^ words[1] ^ np.uint64(key[0]),
            b & _LOW,
            (a >> np.uint64(32)) ^ words[3] ^ np.uint64(key[1]),
            a & _LOW,
        ]
        key = [(k + w) & 0xFFFFFFFF for k, w in zip(key, _WEYL, strict=True)]
    first, second, third, fourth = (word.astype(np.uint32) for word in words)
    return first, second, third, fourth


def uniform(words: Array) -> Array:
    """float32 in [0, 1) from words."""
    signed = words.view(np.int32)
    return np.where(signed < 0, -signed - 1, signed).astype(np.float32) * _SCALE


def normal(first: Array, second: Array) -> Array:
    """Standard normal float32 from two words (Box and Muller)."""
    radius = np.sqrt(np.float32(-2.0) * np.log(np.maximum(np.float32(1e-7), uniform(first))))
    return (radius * np.cos(np.float32(6.283185307179586) * uniform(second))).astype(np.float32)


def draw(distribution: str, seed: int, offset: int, shape: tuple[int, ...]) -> Array:
    """A tensor of draws: element number p in row-major order uses counter `offset + p`. "bits" gives uint32."""
    count = int(np.prod(shape, dtype=np.int64))
    words = philox(seed, np.arange(offset, offset + count, dtype=np.uint64))
    if distribution == "bits":
        flat = words[0]
    else:
        flat = uniform(words[0]) if distribution == "uniform" else normal(words[0], words[1])
    return flat.reshape(shape)
