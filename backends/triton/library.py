"""Device functions that Triton lacks, or that its interpreter lacks, written with what both have.

The emitter copies the functions that a kernel needs into the kernel's own file, so that it stands alone. They take and return
float32 or float64 unless they say otherwise; half precisions are computed in float32 by the caller.
"""

# mypy: ignore-errors
# Device code: its values are Triton tensors, which Python types do not describe.
import triton
import triton.language as tl

# --------------------------------------------------------------------------------------------------------- combining


@triton.jit
def _max_nan(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _min_nan(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _max_int(a, b):
    return tl.maximum(a, b)


@triton.jit
def _min_int(a, b):
    return tl.minimum(a, b)


@triton.jit
def _product(a, b):
    return a * b


@triton.jit
def _swapped(base, where, value, active, combine):
    """Combine with the elements that pointers lead to, by comparing and swapping until nobody else was faster; lanes that are not active
    swap the first element (of `base`) for itself."""
    bits: tl.constexpr = tl.core.get_int_dtype(value.dtype.primitive_bitwidth, True)
    place = tl.where(active, where, base).to(tl.pointer_type(bits), bitcast=True)
    old = tl.load(place, mask=active, other=0)
    pending = active.to(tl.int32)
    while tl.max(pending) > 0:
        held = old.to(value.dtype, bitcast=True)
        if value.dtype.is_floating() and value.dtype.primitive_bitwidth == 16:
            new = combine(held.to(tl.float32), value.to(tl.float32)).to(value.dtype)
        else:
            new = combine(held, value)
        new = tl.where(pending > 0, new.to(bits, bitcast=True), old)
        seen = tl.atomic_cas(place, old, new, sem="relaxed")
        pending = pending & (seen != old).to(tl.int32)
        old = seen


# ---------------------------------------------------------------------------------------------------------- integers


@triton.jit
def _floordiv(a, b):
    """Integer quotient rounded towards minus infinity (Triton's rounds towards zero)."""
    q = a // b
    r = a - q * b
    return tl.where((r != 0) & ((r < 0) != (b < 0)), q - 1, q)


@triton.jit
def _floormod(a, b):
    """Integer remainder with the sign of the divisor (Triton's has the dividend's)."""
    r = a % b
    return tl.where((r != 0) & ((r < 0) != (b < 0)), r + b, r)


@triton.jit
def _integer_power(a, b):
    """a**b by squaring, wrapped; b < 0 gives 0 except for a = 1 and -1, as torch does."""
    result = a * 0 + b * 0 + 1
    base = a + b * 0
    exponent = tl.where(b < 0, b * 0, b) + a * 0
    for _ in range(63):
        result = tl.where(exponent % 2 == 1, result * base, result)
        base = base * base
        exponent = exponent // 2
    even = (b % 2) == 0
    negative = tl.where(a == 1, 1, tl.where(a == -1, tl.where(even, 1, -1), 0))
    return tl.where(b < 0, negative.to(result.dtype), result)


@triton.jit
def _unsigned_power(a, b):
    """a**b by squaring, wrapped."""
    result = a * 0 + b * 0 + 1
    base = a + b * 0
    exponent = b + a * 0
    for _ in range(64):
        result = tl.where(exponent % 2 == 1, result * base, result)
        base = base * base
        exponent = exponent // 2
    return result


# ---------------------------------------------------------------------------------------------------------- rounding


@triton.jit
def _trunc(x):
    return tl.where(x < 0, tl.ceil(x), tl.floor(x))


@triton.jit
def _round(x):
    """To the nearest integer, halves to even."""
    low = tl.floor(x)
    rest = x - low
    odd = low - 2 * tl.floor(low * 0.5)
    up = (rest > 0.5) | ((rest == 0.5) & (odd == 1))
    r = tl.where(up, low + 1, low)
    return tl.where((r == 0) & _signbit(x), -tl.abs(r), r)


@triton.jit
def _sign(x):
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, 0.0)).to(x.dtype)


@triton.jit
def _signbit(x):
    if x.dtype == tl.float64:
        return x.to(tl.int64, bitcast=True) < 0
    else:
        return x.to(tl.int32, bitcast=True) < 0


@triton.jit
def _copysign(a, b):
    size = tl.abs(a)
    return tl.where(_signbit(b), -size, size)


@triton.jit
def _nextafter(a, b):
    """The next float of its own format after a towards b."""
    width: tl.constexpr = a.dtype.primitive_bitwidth
    kind: tl.constexpr = tl.int64 if width == 64 else (tl.int32 if width == 32 else tl.int16)
    bits = a.to(kind, bitcast=True)
    x, y = a.to(tl.float64), b.to(tl.float64)
    step = tl.where((x < y) == (x > 0), bits + 1, bits - 1)
    lowest = tl.full([], 1, kind) << (width - 1)
    smallest = tl.where(y > 0, tl.zeros_like(bits) + 1, lowest + 1)
    moved = tl.where(x == 0, smallest, step).to(a.dtype, bitcast=True)
    moved = tl.where(x == y, b, moved)
    return tl.where((x != x) | (y != y), (x + y).to(a.dtype), moved)


# ------------------------------------------------------------------------------------- float32 to the 8-bit floats
# Conversion instructions disagree on what is too large (PTX's saturate in every format); what torch gives is chosen here.


@triton.jit
def _to_float8e4nv(x):
    """Rounded to nearest even; beyond 448 saturated (the format has no infinity)."""
    low = tl.maximum(x, -448.0, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(low, 448.0, propagate_nan=tl.PropagateNan.ALL).to(tl.float8e4nv)


@triton.jit
def _to_float8e5(x):
    """Rounded to nearest even; infinite from halfway between 57344 and the next power of two."""
    infinite = tl.where(x < 0, 0xFC, 0x7C).to(tl.uint8)
    bits = x.to(tl.float8e5).to(tl.uint8, bitcast=True)
    return tl.where(tl.abs(x) >= 61440.0, infinite, bits).to(tl.float8e5, bitcast=True)


@triton.jit
def _to_float8e4b8(x):
    """Rounded to nearest even; NaN beyond 240, infinities included; one zero (the pattern of -0.0 is the NaN)."""
    bits = x.to(tl.float8e4b8).to(tl.uint8, bitcast=True)
    bits = tl.where(tl.abs(x) <= 0.00048828125, tl.zeros_like(bits), bits)
    return tl.where(tl.abs(x) < 248.0, bits, tl.zeros_like(bits) + 0x80).to(tl.float8e4b8, bitcast=True)


@triton.jit
def _to_float8e5b16(x):
    """Rounded to nearest even; NaN beyond 57344, infinities included; one zero (the pattern of -0.0 is the NaN)."""
    bits = x.to(tl.float8e5b16).to(tl.uint8, bitcast=True)
    bits = tl.where(tl.abs(x) <= 0.000003814697265625, tl.zeros_like(bits), bits)
    return tl.where(tl.abs(x) < 61440.0, bits, tl.zeros_like(bits) + 0x80).to(tl.float8e5b16, bitcast=True)


# ------------------------------------------------------------------------------------------- exponential and logarithm


@triton.jit
def _expm1(x):
    """exp(x) - 1; a Taylor series near 0 where the difference would cancel."""
    small = tl.abs(x) < 0.5
    t = tl.where(small, x, x * 0)
    if x.dtype == tl.float64:
        s = t / 17 + 1
        for n in tl.static_range(2, 17):
            s = 1 + s * t / (18 - n)
    else:
        s = t / 9 + 1
        for n in tl.static_range(2, 9):
            s = 1 + s * t / (10 - n)
    return tl.where(small, s * t, tl.exp(x) - 1)


@triton.jit
def _log1p(x):
    """log(1 + x), with the rounding error of 1 + x corrected (W. Kahan)."""
    u = 1 + x
    d = u - 1
    exact = tl.where((d == 0) | (u == float("inf")), x * 0 + 1, d)
    corrected = tl.log(u) * (x / exact)
    return tl.where(d == 0, x, tl.where(u == float("inf"), u, corrected))


@triton.jit
def _log10(x):
    return tl.log(x) * 0.43429448190325182765


@triton.jit
def _tanh(x):
    size = tl.abs(x)
    e = _expm1(2 * tl.where(size > 22, 22.0, size))
    t = e / (e + 2)
    t = tl.where(_signbit(x), -t, t)
    return tl.where(x != x, x, t)


@triton.jit
def _sinh(x):
    size = tl.abs(x)
    e = _expm1(tl.where(size > 20, size * 0, size))
    small = 0.5 * (e + e / (e + 1))
    half = tl.exp(0.5 * size)
    large = 0.5 * half * half
    s = tl.where(size > 20, large, small)
    return tl.where(_signbit(x), -s, s)


@triton.jit
def _cosh(x):
    size = tl.abs(x)
    e = tl.exp(tl.where(size > 20, size * 0, size))
    small = 0.5 * (e + 1 / e)
    half = tl.exp(0.5 * size)
    return tl.where(size > 20, 0.5 * half * half, small)


@triton.jit
def _asinh(x):
    size = tl.abs(x)
    large = size > 1e9
    a = tl.where(large, size * 0, size)
    small = _log1p(a + a * a / (1 + tl.sqrt(1 + a * a)))
    r = tl.where(large, tl.log(size) + 0.693147180559945309417, small)
    return tl.where(_signbit(x), -r, r)


@triton.jit
def _acosh(x):
    large = x > 1e9
    t = tl.where(large, x * 0, x - 1)
    small = _log1p(t + tl.sqrt(2 * t + t * t))
    r = tl.where(large, tl.log(x) + 0.693147180559945309417, small)
    return tl.where(x < 1, float("nan"), r)


@triton.jit
def _atanh(x):
    size = tl.abs(x)
    r = 0.5 * _log1p(2 * size / (1 - size))
    return tl.where(_signbit(x), -r, r)


@triton.jit
def _power(x, y):
    """x**y for floats, with the signs, zeros and NaNs of C's pow."""
    size = tl.abs(x)
    whole = tl.floor(y) == y
    odd = whole & (y - 2 * tl.floor(y * 0.5) == 1)
    p = tl.exp2(y * tl.log2(size))
    p = tl.where(y == 1, size, tl.where(y == 2, size * size, p))  # exact up to the largest float
    p = tl.where(_signbit(x) & odd, -p, p)
    p = tl.where((x < 0) & (size != float("inf")) & (whole == 0), float("nan"), p)
    p = tl.where((x == -1) & (tl.abs(y) == float("inf")), 1.0, p)
    p = tl.where((x != x) | (y != y), x + y, p)
    return tl.where((y == 0) | (x == 1), 1.0, p)


@triton.jit
def _constant_power(y, high, low):
    """2**(y * (high + low)): a constant to the power y, the constant's logarithm in two parts so that the product keeps its low bits."""
    product = y * high
    rest = tl.fma(y, tl.full([], high, y.dtype), -product) + y * low
    rest = tl.where(tl.abs(product) < 4096, rest, 0.0)  # beyond, the power is 0 or infinite
    return tl.exp2(product) * (1 + 0.693147180559945309417 * rest)


@triton.jit
def _hypot(a, b):
    a = tl.abs(a)
    b = tl.abs(b)
    large = tl.maximum(a, b)
    small = tl.minimum(a, b)
    ratio = tl.where(large == 0, large, small / tl.where(large == 0, large + 1, large))
    r = large * tl.sqrt(1 + ratio * ratio)
    r = tl.where((a != a) | (b != b), a + b, r)
    return tl.where((a == float("inf")) | (b == float("inf")), float("inf"), r)


# ------------------------------------------------------------------------------------------------------ trigonometry


@triton.jit
def _tan(x):
    return tl.sin(x) / tl.cos(x)


@triton.jit
def _atan(x):
    """Arc tangent: reduction about tan(pi/8) and tan(3 pi/8), then a rational approximation (S. Moshier, Cephes)."""
    size = tl.abs(x)
    far = size > 2.414213562373095
    mid = (size > 0.6) & (far == 0)
    safe = tl.where(far, size, size * 0 + 1)
    t = tl.where(far, -1 / safe, tl.where(mid, (size - 1) / (size + 1), size))
    right = tl.full([], 1.5707963267948966, x.dtype)
    base = tl.where(far, right, tl.where(mid, 0.5 * right, 0.0 * right))
    z = t * t
    p = -0.8750608600031904122785
    p = p * z - 16.15753718733365076637
    p = p * z - 75.00855792314704667340
    p = p * z - 122.8866684490136173410
    p = p * z - 64.85021904942025371773
    q = z + 24.85846490142306297962
    q = q * z + 165.0270098316988542046
    q = q * z + 432.8810604912902668951
    q = q * z + 485.3903996359136964868
    q = q * z + 194.5506571482613964425
    r = base + (t + t * z * p / q)
    r = tl.where(size == float("inf"), right, r)
    r = tl.where(_signbit(x), -r, r)
    return tl.where(x != x, x, r)


@triton.jit
def _atan2(y, x):
    both = (tl.abs(x) == float("inf")) & (tl.abs(y) == float("inf"))
    a = tl.where(both, tl.where(_signbit(y), -1.0, 1.0), y)
    b = tl.where(both, tl.where(_signbit(x), -1.0, 1.0), x)
    r = _atan(tl.abs(a) / tl.where(b == 0, 1.0, tl.abs(b)))
    right = tl.full([], 1.5707963267948966, x.dtype)
    r = tl.where(b == 0, tl.where(a == 0, 0.0 * right, right), r)
    r = tl.where(_signbit(b), 2 * right - r, r)
    r = tl.where(_signbit(a), -r, r)
    return tl.where((x != x) | (y != y), x + y, r)


@triton.jit
def _asin(x):
    return _atan2(x, tl.sqrt((1 - x) * (1 + x)))


@triton.jit
def _acos(x):
    return 2 * _atan2(tl.sqrt(1 - x), tl.sqrt(1 + x))


# ------------------------------------------------------------------------------------------------- special functions


@triton.jit
def _erfc(x):
    """1 - erf(x); in float32 a Chebyshev fit of the exponential's factor keeps relative accuracy away from 0, float64 is the difference."""
    size = tl.abs(x)
    t = 1 / (1 + 0.5 * size)
    s = 0.17087277
    s = s * t - 0.82215223
    s = s * t + 1.48851587
    s = s * t - 1.13520398
    s = s * t + 0.27886807
    s = s * t - 0.18628806
    s = s * t + 0.09678418
    s = s * t + 0.37409196
    s = s * t + 1.00002368
    s = s * t - 1.26551223
    far = t * tl.exp(-size * size + s)
    near = 1 - tl.erf(x)
    if x.dtype == tl.float64:
        return near
    else:
        return tl.where(x > 0.5, far, near)


@triton.jit
def _erfinv(y):
    """Inverse of erf: a polynomial start (M. Giles, 2012), then Newton steps with erf itself."""
    w = -tl.log((1 - y) * (1 + y))
    a = w - 2.5
    p = 2.81022636e-08
    p = p * a + 3.43273939e-07
    p = p * a - 3.5233877e-06
    p = p * a - 4.39150654e-06
    p = p * a + 0.00021858087
    p = p * a - 0.00125372503
    p = p * a - 0.00417768164
    p = p * a + 0.246640727
    p = p * a + 1.50140941
    b = tl.sqrt(tl.where(w < 5, 5.0, w)) - 3
    q = -0.000200214257
    q = q * b + 0.000100950558
    q = q * b + 0.00134934322
    q = q * b - 0.00367342844
    q = q * b + 0.00573950773
    q = q * b - 0.0076224613
    q = q * b + 0.00943887047
    q = q * b + 1.00167406
    q = q * b + 2.83297682
    x = tl.where(w < 5, p, q) * y
    if y.dtype == tl.float64:
        for _ in tl.static_range(2):
            x = x - (tl.erf(x) - y) / (1.1283791670955126 * tl.exp(-x * x))
    edge = tl.where(y > 0, float("inf"), float("-inf"))
    return tl.where(tl.abs(y) == 1, edge, x)


@triton.jit
def _lgamma(value):
    """log |gamma(x)| by Lanczos' approximation (g = 7, 9 terms) in float64, with the reflection formula below 1/2."""
    x = value.to(tl.float64)
    flip = x < 0.5
    z = tl.where(flip, 1 - x, x) - 1
    s = 0.99999999999980993 + 676.5203681218851 / (z + 1)
    s = s - 1259.1392167224028 / (z + 2)
    s = s + 771.32342877765313 / (z + 3)
    s = s - 176.61502916214059 / (z + 4)
    s = s + 12.507343278686905 / (z + 5)
    s = s - 0.13857109526572012 / (z + 6)
    s = s + 9.9843695780195716e-6 / (z + 7)
    s = s + 1.5056327351493116e-7 / (z + 8)
    t = z + 7.5
    r = 0.91893853320467274178 + (z + 0.5) * tl.log(t) - t + tl.log(s)
    r = tl.where(t == float("inf"), t, r)
    turn = tl.abs(tl.sin(3.141592653589793 * (x - tl.floor(x + 0.5))))
    turn = tl.where(x == tl.floor(x), 0.0, turn)
    r = tl.where(flip, 1.1447298858494002 - tl.log(turn) - r, r)
    r = tl.where(tl.abs(x) == float("inf"), float("inf"), r)
    return r.to(value.dtype)


@triton.jit
def _digamma(value):
    """Derivative of lgamma: recurrence up to 10, asymptotic series, reflection below 0; in float64."""
    x = value.to(tl.float64)
    flip = x <= 0
    z = tl.where(flip, 1 - x, x)
    r = tl.zeros_like(z)
    for _ in tl.static_range(10):
        low = z < 10
        r = r - tl.where(low, 1 / z, 0.0)
        z = tl.where(low, z + 1, z)
    i = 1 / (z * z)
    tail = i * (1.0 / 12 - i * (1.0 / 120 - i * (1.0 / 252 - i * (1.0 / 240 - i * (1.0 / 132)))))
    r = r + tl.log(z) - 0.5 / z - tail
    angle = 3.141592653589793 * (x - tl.floor(x + 0.5))
    sine = tl.where(x == tl.floor(x), 1.0, tl.sin(angle))
    r = tl.where(flip, r - 3.141592653589793 * tl.cos(angle) / sine, r)
    r = tl.where(x == 0, tl.where(_signbit(value), float("inf"), float("-inf")), r)
    r = tl.where((x < 0) & (x == tl.floor(x)), float("nan"), r)
    return r.to(value.dtype)
