"""Random words from counters: Philox 4x32-10 (Salmon et al., SC 2011, "Parallel random numbers: as easy as 1, 2, 3")."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
"""Words of 32 bits, held in 64."""

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox(seed: Any, row: Any, column: Any) -> tuple[Words, Words, Words, Words]:
    """Four words of each counter: its words are the column, the row, and two zeros; the key is the seed's 64 bits. All modulo 2**32."""
    seed, row, column = (np.asarray(given).astype(np.int64).view(np.uint64) for given in (seed, row, column))
    words = [column & _LOW, row & _LOW, np.uint64(0), np.uint64(0)]
    key = [seed & _LOW, seed >> _HALF]
    first, second = map(np.uint64, MULTIPLIERS)
    for _ in range(ROUNDS):
        a, b = words[0] * first, words[2] * second
        words = [(b >> _HALF) ^ words[1] ^ key[0], b & _LOW, (a >> _HALF) ^ words[3] ^ key[1], a & _LOW]
        key = [(k + np.uint64(w)) & _LOW for k, w in zip(key, WEYL, strict=True)]
    return words[0], words[1], words[2], words[3]


def two_words(seed: Any, row: Any, column: Any) -> npt.NDArray[np.int64]:
    """The first two words of each counter, the second in the upper half."""
    low, high, _, _ = philox(seed, row, column)
    return (low | (high << _HALF)).view(np.int64)
