"""Which rows of a batch differ in a few columns: a batch has many rows of few different values, which are found without sorting the rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]

WIDEST = 1 << 22
"""Values apart up to which a table says which of them occur."""


def distinct(columns: Sequence[npt.ArrayLike]) -> tuple[Numbers, npt.NDArray[np.intp]]:
    """The different rows [D, columns] of columns of whole numbers that broadcast, and which of them each row is (flat)."""
    arrays = [np.asarray(column, dtype=np.int64) for column in columns]
    if len(arrays) == 1:
        own, places = _ranked(arrays[0])
        return own[:, None], places.ravel()
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    codes: npt.NDArray[np.int64] = np.zeros((), dtype=np.int64)
    values: list[Numbers] = []  # of each column up to the last time that codes were ranked, by rank
    further: list[Numbers] = []  # values of each column since then
    count = 1  # codes that there may be
    for array in arrays:
        own, places = _ranked(array)
        if count * len(own) > WIDEST:
            values, codes = _squeezed(values, further, codes)
            further, count = [], len(values[0]) if values else 1
        codes = codes * len(own) + places
        further.append(own)
        count *= len(own)
    values, codes = _squeezed(values, further, codes)
    flat = np.broadcast_to(codes, shape).ravel()
    return np.stack(values, axis=-1) if values else np.zeros((1, 0), np.int64), flat


def _squeezed(
    values: Sequence[Numbers], further: Sequence[Numbers], codes: Numbers
) -> tuple[list[Numbers], npt.NDArray[np.intp]]:
    """Each column's values by the rank of a code among those that occur, and the ranks."""
    found, ranks = _ranked(codes)
    last = []
    for own in reversed(further):
        found, place = np.divmod(found, len(own))
        last.append(own[place])
    return [*(held[found] for held in values), *reversed(last)], ranks


def _ranked(array: Numbers) -> tuple[Numbers, npt.NDArray[np.intp]]:
    """The different values of an array, ascending, and the rank of each entry among them."""
    if not array.size:
        return np.zeros(0, np.int64), array.astype(np.intp)
    low, high = int(array.min()), int(array.max())
    if low == high:
        return np.array([low]), np.zeros(array.shape, np.intp)
    if high - low >= WIDEST:
        values, places = np.unique(array, return_inverse=True)
        return values, places.reshape(array.shape)
    table, above = np.zeros(high - low + 1, dtype=np.intp), array - low
    table[above] = 1
    values = np.flatnonzero(table)
    table[values] = np.arange(len(values))
    return values + low, table.take(above)
