"""Device functions of quotients and remainders of floats, exact where hardware's `/` and `%` are not; as those of `library.py`."""

# mypy: ignore-errors
# Device code: its values are Triton tensors, which Python types do not describe.
import triton
import triton.language as tl

from codesign.backends.triton.library import _copysign, _signbit, _trunc


@triton.jit
def _quotient(a, b):
    """a / b, rounded once (`/` of float32 is off by up to two units in the last place on NVIDIA GPUs)."""
    if a.dtype == tl.float32:
        return tl.div_rn(a, b)
    else:
        return a / b


@triton.jit
def _float_truncdiv(a, b):
    return _trunc(_quotient(a, b))


@triton.jit
def _largest(x):
    """Of a tile's elements, or of a scalar itself."""
    if x.type.is_block():
        return tl.max(x)
    else:
        return x


@triton.jit
def _float_rest(a, b):
    """a - trunc(a / b) * b without rounding, as C's fmod: by the numbers' digits as integers, as many at a time as 64 bits hold.

    Hardware has no such instruction, and `%` of floats becomes one rounded quotient: wrong from quotients of 2^24 on, and near whole ones.
    """
    wide: tl.constexpr = a.dtype == tl.float64
    digits: tl.constexpr = 52 if wide else 23
    infinite: tl.constexpr = 2047 if wide else 255
    kind: tl.constexpr = tl.int64 if wide else tl.int32
    room: tl.constexpr = 62 - digits
    x = tl.abs(a).to(kind, bitcast=True).to(tl.int64)
    y = tl.abs(b).to(kind, bitcast=True).to(tl.int64)
    high, low = x >> digits, y >> digits
    fraction = (tl.full([], 1, tl.int64) << digits) - 1
    rest = (x & fraction) + tl.where(high > 0, fraction + 1, 0)
    whole = (y & fraction) + tl.where(low > 0, fraction + 1, 0)
    whole = tl.where(whole == 0, 1, whole)
    low = tl.maximum(low, 1)
    left = tl.maximum(high, 1) - low
    less = left < 0
    rest = rest % whole
    left = tl.where((high == infinite) | (low == infinite) | (y == 0), 0, left)
    while _largest(left) > 0:
        step = tl.minimum(tl.maximum(left, 0), room)
        rest = (rest << step) % whole
        left = left - step
    power = low - (
        infinite // 2 + digits
    )  # of two, by which the digits are multiplied, in halves that no format is too small for
    half = power >> 1
    first = ((half + infinite // 2) << digits).to(kind).to(a.dtype, bitcast=True)
    second = ((power - half + infinite // 2) << digits).to(kind).to(a.dtype, bitcast=True)
    found = rest.to(a.dtype) * first * second
    found = tl.where(_signbit(a), -found, found)
    found = tl.where(less, a, found)
    return tl.where((tl.abs(a) == float("inf")) | (a != a) | (b == 0) | (b != b), float("nan"), found)


@triton.jit
def _float_floordiv(a, b):
    """Quotient rounded down, exact about whole quotients, a zero with the quotient's sign (as torch defines `//` for floats)."""
    m = _float_rest(a, b)
    q = _quotient(a - m, b)
    q = tl.where((m != 0) & ((m < 0) != (b < 0)), q - 1, q)
    low = tl.floor(q)
    low = tl.where(q - low > 0.5, low + 1, low)
    low = tl.where(q == 0, _copysign(low, a / b), low)
    return tl.where(b == 0, a / b, low)


@triton.jit
def _float_mod(a, b):
    m = _float_rest(a, b)
    return tl.where((m != 0) & ((m < 0) != (b < 0)), m + b, m)
