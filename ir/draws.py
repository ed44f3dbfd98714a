"""Random numbers as scalar expressions: an element's number follows from the seed and from where the element lies, and from nothing else.

A counter is a column and a row, both below 2**32, so that 32 bits of index arithmetic tell any two elements of a tensor apart, whatever its
size, and what tile or grid makes it: row r is that of the dims but the last, in row-major order. Of a counter's words neighbours have one each:
the element at column c, the offset added to it, has word c % 2 of the counter (c // 2, r). A normal number takes both words of (c, r).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from codesign.ir.dtypes import F32, I32, I64, U32, DType
from codesign.ir.index import Index, index
from codesign.ir.scalar import IndexValue, Scalar, apply, cast, literal

Distribution = Literal["uniform", "normal", "bits"]
DIGITS = 24
"""Bits of a word that become a uniform number: as many as float32 holds, so that each is exact."""


def number(
    distribution: Distribution, dtype: DType, seed: Scalar, offset: int, place: Sequence[Index], shape: Sequence[Index]
) -> Scalar:
    """The number at a place of a tensor of a shape; the seed is an i64. "bits": the first word as it is."""
    row, column = index(0), index(offset)
    for position, size in zip(place[:-1], shape[:-1], strict=True):
        row = row * size + position
    if place:
        column = column + place[-1]
    if distribution == "normal":
        words = apply("philox", seed, IndexValue(row), IndexValue(column))
        second = cast(apply("shr", words, literal(32, I64)), I32)
        return cast(_normal(_uniform(cast(words, I32)), _uniform(second)), dtype)
    words = apply("philox", seed, IndexValue(row), IndexValue(column // 2))
    word = cast(apply("shr", words, IndexValue(column % 2 * 32)), I32)
    return cast(cast(word, U32) if distribution == "bits" else _uniform(word), dtype)


def _uniform(word: Scalar) -> Scalar:
    """float32 in [0, 1) of a word's lower bits."""
    whole = apply("and", word, literal((1 << DIGITS) - 1, I32))
    return apply("mul", cast(whole, F32), literal(2.0**-DIGITS, F32))


def _normal(first: Scalar, second: Scalar) -> Scalar:
    """Standard normal float32 of two uniform numbers (Box and Muller)."""
    above = apply("max", first, literal(1e-7, F32))
    radius = apply("sqrt", apply("mul", literal(-2.0, F32), apply("log", above)))
    return apply("mul", radius, apply("cos", apply("mul", literal(6.283185307179586, F32), second)))
