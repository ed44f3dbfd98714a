"""Block formats: the tables of the OCP specification, rounding and saturation, bits and bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from codesign.ir.dtypes import F4E2M1, F5E0M4, F6E2M3, F6E3M2, F8E0M7, F8E4M3, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, DType
from codesign.ir.microscaling import FORMATS, dequantise, pack, power_of_two, quantise, split_pairs, unpack
from codesign.ir.numerics import round_to
from codesign.ir.small_floats import decode, encode

POSITIVE = {
    F4E2M1: [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0],
    F8E0M7: [*np.arange(0.0, 2.0, 1 / 64)],
    F5E0M4: [*np.arange(0.0, 2.0, 1 / 8)],
    F6E2M3: [*np.arange(0.0, 2.0, 0.125), *np.arange(2.0, 4.0, 0.25), *np.arange(4.0, 8.0, 0.5)],
    F6E3M2: [*np.arange(0.0, 0.5, 0.0625), *(m * 2.0**e for e in range(-1, 5) for m in (1.0, 1.25, 1.5, 1.75))],
}
"""Tables 3 to 5 of the specification: subnormal numbers, then those of each exponent."""

EIGHT_BITS = {
    F8E4M3: torch.float8_e4m3fn,
    F8E5M2: torch.float8_e5m2,
    F8E4M3FNUZ: torch.float8_e4m3fnuz,
    F8E5M2FNUZ: torch.float8_e5m2fnuz,
}


@pytest.mark.parametrize("dtype", [*EIGHT_BITS, *POSITIVE], ids=str)
def test_bits_are_those_of_the_format(dtype: DType) -> None:
    codes = np.arange(1 << dtype.bits, dtype=np.uint8)
    values = decode(codes, dtype)
    if dtype in POSITIVE:
        np.testing.assert_array_equal(values, [*POSITIVE[dtype], *(-value for value in POSITIVE[dtype])])
    else:
        theirs = torch.from_numpy(codes).view(EIGHT_BITS[dtype]).float().numpy()
        np.testing.assert_array_equal(values, theirs)
    numbers = ~np.isnan(values)
    np.testing.assert_array_equal(encode(values, dtype)[numbers], codes[numbers])
    np.testing.assert_array_equal(round_to(values[np.isfinite(values)], dtype), values[np.isfinite(values)])
    np.testing.assert_array_equal(unpack(pack(codes, dtype.bits), dtype.bits, len(codes)), codes)


@pytest.mark.parametrize("dtype", POSITIVE, ids=str)
def test_rounding_is_to_the_nearest_even(dtype: DType) -> None:
    table = np.array(POSITIVE[dtype])
    middles = (table[1:] + table[:-1]) / 2
    np.testing.assert_array_equal(round_to(middles, dtype), [table[i + i % 2] for i in range(len(middles))])
    np.testing.assert_array_equal(round_to(np.nextafter(middles, 0.0, dtype=np.float32), dtype), table[:-1])
    np.testing.assert_array_equal(round_to(np.nextafter(-middles, -99.0, dtype=np.float32), dtype), -table[1:])
    np.testing.assert_array_equal(round_to(np.array([1e6, -np.inf]), dtype), [table[-1], -table[-1]])


@pytest.mark.parametrize(("name", "exponent", "count"), [
    ("mxfp8_e4m3", 8, 33), ("mxfp8_e5m2", 15, 33), ("mxfp6_e2m3", 2, 25), ("mxfp6_e3m2", 4, 25), ("mxfp4", 2, 17),
    ("mxint8", 0, 33), ("mx9", 0, 18), ("mx6", 0, 12),
])  # fmt: skip
def test_exponents_and_bytes(name: str, exponent: int, count: int) -> None:
    """`emax` of table 1 of the specification; nine and six bits a number on average for Microsoft's."""
    form = FORMATS[name]
    assert form.greatest_exponent == exponent
    assert form.bytes(form.block) == count
    assert form.bytes(form.block + 1) == 2 * count


@pytest.mark.parametrize("name", FORMATS)
def test_a_block_is_scaled_by_its_largest_number(name: str) -> None:
    form = FORMATS[name]
    rng = np.random.default_rng(1)
    values = (rng.standard_normal((3, 4 * form.block)) * 10.0 ** rng.integers(-6, 6, (3, 1))).astype(np.float32)
    scales, elements = quantise(values, form)
    assert scales.shape == (3, 4)
    largest = np.abs(values.reshape(3, 4, -1)).max(-1)
    np.testing.assert_array_equal(power_of_two(scales), 2.0 ** (np.floor(np.log2(largest)) - form.greatest_exponent))
    again = quantise(dequantise(scales, elements, form), form)
    if not form.pair:
        np.testing.assert_array_equal(dequantise(*again, form), dequantise(scales, elements, form))
    mantissa = form.element.mantissa if form.element is not None else form.bits - 2
    error = np.abs(dequantise(scales, elements, form) - values).reshape(3, 4, -1)
    assert np.all(error <= largest[..., None] * (2.0**-mantissa)), "half a step, or what is beyond the greatest"


def test_what_is_no_number_and_what_is_too_large() -> None:
    form = FORMATS["mxfp6_e2m3"]
    values = np.zeros((4, 32), np.float32)
    values[0, 3], values[1, 5], values[3] = np.nan, np.inf, 7.9
    scales, elements = quantise(values, form)
    assert scales.tolist() == [[255], [127 + 126], [0], [127]]
    assert np.isnan(dequantise(scales, elements, form)[0]).all()
    assert elements[1, 5] == 7.5
    assert (elements[3] == 7.5).all(), "7.9 is beyond the greatest at this scale"


def test_a_pair_of_small_numbers_has_one_bit_more() -> None:
    """`mx9`, `mx6`: where both of a pair are below half of the block's power of two, their step is half as wide."""
    form = FORMATS["mx6"]
    values = np.zeros((1, 16), np.float32)
    values[0, :4] = [1.0, 1 / 16, 0.5, 1 / 16]
    elements = quantise(values, form)[1]
    assert elements[0, :4].tolist() == [1.0, 0.0, 0.5, 1 / 16]


@pytest.mark.parametrize("name", ["mx9", "mx6"])
def test_the_exponents_of_pairs_and_what_is_left_make_the_elements(name: str) -> None:
    """What is left has the bits of the format's elements, one number for each of them."""
    form = FORMATS[name]
    assert form.element is not None
    values = np.random.default_rng(4).standard_normal((5, 64)) * 2.0 ** np.random.default_rng(5).integers(
        -5, 5, (5, 64)
    )
    _, elements = quantise(values, form)
    halved, own = split_pairs(elements, form)
    assert halved.shape == (5, 32)
    assert set(halved.ravel()) == {0, 1}
    np.testing.assert_array_equal(round_to(own, form.element), own)
    np.testing.assert_array_equal(own * 0.5 ** np.repeat(halved, 2, axis=-1), elements)
    np.testing.assert_array_equal(split_pairs(elements, form)[0], halved)
