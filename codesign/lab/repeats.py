"""Which rows of a cost repeat, found without sorting them: many schedules of a space differ in nothing that its prices follow from."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

_ODD = np.uint64(0x9E3779B97F4A7C15)
_LARGEST_TABLE_BITS = 24


def repeated(columns: Iterable[npt.NDArray[np.generic]]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint32]]:
    """Rows [D] by which all others are known, and which of them [N] each row equals to the last bit.

    A row is looked for where its hash says: of those that meet there one is known by itself, and so is each that differs from that one, so that
    a few of the D may be equal.
    """
    words = [_words(column) for column in columns]
    count = len(words[0])
    hashed = np.zeros(count, dtype=np.uint64)
    for word in words:
        hashed ^= word
        hashed *= _ODD
        hashed ^= hashed >> np.uint64(29)
    bits = min(count.bit_length() + 3, _LARGEST_TABLE_BITS)
    places = (hashed * _ODD >> np.uint64(64 - bits)).astype(np.intp)
    table = np.empty(1 << bits, dtype=np.intp)
    own = np.arange(count)
    table[places] = own
    like = table[places]
    same = np.ones(count, dtype=np.bool_)
    for word in words:
        same &= word[like] == word
    like = np.where(same, like, own)
    alone = like == own
    return np.flatnonzero(alone), (np.cumsum(alone, dtype=np.uint32) - np.uint32(1))[like]


def _words(column: npt.NDArray[np.generic]) -> npt.NDArray[np.uint64]:
    """Entries of a column as whole numbers that are equal where their bits are."""
    return column.view(np.uint64) if column.dtype == np.float64 else column.astype(np.uint64)
