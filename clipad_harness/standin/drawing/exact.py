"""Elementary functions of our own: the same bits on every processor.

IEEE 754 fixes `+ - * /`, the square root, comparisons, and roundings to integers and to other
formats to the last bit. It does not fix sine, exponential and logarithm: the C library and NumPy
have several of each and choose by what the processor can do, and their last bits differ. Nor does
it fix the order of a sum, or whether `a * b + c` is rounded once or twice (FMA), so neither
matrix products nor NumPy's `sum`, `fft` and complex numbers are the same everywhere. One last bit
turns a grey level at the edge of a rounding. So the drawing computes with what is fixed, and with
the functions below, whose every step is one such operation on Python's floats or, one NumPy call
a step, on arrays; `tests/harness/standin/test_exact.py` refuses every other function in the drawing.

What Pillow does to a drawing is fixed too. Box blur, `reduce` and ellipses are integer arithmetic,
and the one affine map has coefficients of one. A wide line divides by `hypot` of whole numbers; its
last bit would decide only where the quotient, a root of whole numbers, lies within 1e-15 of a half,
and it is either a half, where `hypot` is exact, or 1e-11 away. The edges of polygons are
`a * b + c` in C: two roundings in wheels for x86-64, whose compilers may not count on FMA; on arm64
they may contract it, so there this one step is likely, not certainly, the same.

Functions take a float and return a float, or an array: float32 gives float32, within 0.6 units in
the last place or 5e-16, anything else gives float64 within what each function states.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TypeVar, cast

import numpy as np

Array = np.ndarray
Value = TypeVar("Value", float, Array)

# Cody and Waite's split: the high part has 33 bits, so a whole multiple of it below 2**20 is exact.
# The constants are fdlibm's (Sun Microsystems 1993, e_rem_pio2.c and e_exp.c).
TURN_HIGH, TURN_LOW = 4 * 1.57079632673412561417, 4 * 6.07710050650619224932e-11
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
TO_INTEGER = 6755399441055744.0  # 1.5 * 2^52: added and subtracted again, it rounds

# Taylor's coefficients, highest power first; float32 sees no more than the last of them.
SINE = tuple((1.0 - 2.0 * (k % 2)) / math.factorial(2 * k + 1) for k in range(10, 0, -1))
SINE_SHORT = SINE[-6:]
EXPONENTIAL = tuple(1.0 / math.factorial(k) for k in range(13, -1, -1))
EXPONENTIAL_SHORT = EXPONENTIAL[-9:]
AREA_TANGENT = tuple(1.0 / (2 * k + 1) for k in range(10, 0, -1))


def sin(x: Value) -> Value:
    r"""Sine of an angle in radians, :math:`|x| < 2^{20}`, within 5e-16.

    >>> sin(math.pi / 2), sin(np.array([0.0, -math.pi / 2], np.float32))
    (1.0, array([ 0., -1.], dtype=float32))
    """
    return _in_float64(partial(_cosine, shift=0.25), x)


def cos(x: Value) -> Value:
    r"""Cosine of an angle in radians, :math:`|x| < 2^{20}`, within 5e-16.

    >>> cos(0.0), cos(np.array([math.pi]))
    (1.0, array([-1.]))
    """
    return _in_float64(partial(_cosine, shift=0.0), x)


def _cosine(angle: Value, short: bool, shift: float) -> Value:
    r""":math:`\cos(x - 2\pi\,\text{shift})`.

    Whole turns off, the angle is a in [-pi, pi], and its cosine is the sine of b = pi/2 - abs(a),
    which lies in [-pi/2, pi/2]. Taylor's series up to b**21 leaves less than 2e-18 there, up to
    b**13 less than 7e-10.
    """
    turns = angle * (0.5 / math.pi)
    turns -= shift
    turns += TO_INTEGER
    turns -= TO_INTEGER
    angle = angle - turns * TURN_HIGH
    turns *= TURN_LOW
    angle -= turns
    angle -= shift * (2 * math.pi)
    angle = 0.5 * math.pi - abs(angle)
    square = angle * angle
    first, *coefficients = SINE_SHORT if short else SINE
    series = square * first
    for coefficient in coefficients:
        series += coefficient
        series *= square
    series *= angle
    series += angle
    return series


def exp(x: Value) -> Value:
    r"""The exponential, within 5e-16 of its size; 0 below -708.75, infinity above 709.43.

    >>> exp(0.0), exp(np.array([1.0, -1000.0])), exp(np.array([-2.0], np.float32))
    (1.0, array([2.71828183, 0.        ]), array([0.13533528], dtype=float32))
    """
    return _in_float64(_exponential, x)


def _exponential(x: Value, short: bool) -> Value:
    r""":math:`e^x = 2^k e^r` with a whole k and :math:`|r| \le \tfrac12\ln 2`.

    Taylor's series up to r**13 leaves less than 5e-18 of it, up to r**8 less than 3e-10.
    :math:`2^k` is written as bits.
    """
    remainder = np.minimum(np.maximum(x, -709.4), 710.0)
    power_of_two = remainder * (1 / (LN2_HIGH + LN2_LOW))
    power_of_two += TO_INTEGER
    power_of_two -= TO_INTEGER
    remainder -= power_of_two * LN2_HIGH
    remainder -= power_of_two * LN2_LOW
    first, *coefficients = EXPONENTIAL_SHORT if short else EXPONENTIAL
    series = remainder * first
    for coefficient in coefficients[:-1]:
        series += coefficient
        series *= remainder
    series += coefficients[-1]
    power_of_two += 1023
    series *= (power_of_two.astype(np.int64) << 52).view(np.float64)
    return cast(Value, series)


def log(x: Value) -> Value:
    """The natural logarithm of a normal number above zero, within 5e-16 of its size.

    >>> log(1.0), log(np.array([2.0, 0.1]))
    (0.0, array([ 0.69314718, -2.30258509]))
    """
    return _in_float64(_logarithm, x)


def _logarithm(x: Value, _: bool) -> Value:
    r""":math:`\ln x = k\ln 2 + 2\,\mathrm{artanh}\,s`.

    :math:`m = 2^{-k}x` is in :math:`[\sqrt{1/2}, \sqrt2)` and :math:`s = (m - 1)/(m + 1)`, so
    :math:`|s| < 0.172`: the series of artanh up to s**21 leaves less than 1e-18 of it.
    """
    mantissa, exponent = np.frexp(x)
    low = mantissa < math.sqrt(0.5)
    mantissa = mantissa * (1.0 + low)
    exponent = (exponent - low).astype(np.float64)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    series = square * AREA_TANGENT[0]
    for coefficient in AREA_TANGENT[1:]:
        series += coefficient
        series *= square
    series *= s
    series += s
    return cast(Value, exponent * LN2_HIGH + (2.0 * series + exponent * LN2_LOW))


def power(x: Array, y: float) -> Array:
    r""":math:`x^y = e^{y\ln x}` for x of at least 0 and y above 0.

    The error is 1e-15 of the size, and as much again for every unit of :math:`|y \ln x|`.

    >>> power(np.array([0.0, 4.0, 1.0]), 0.5)
    array([0., 2., 1.])
    """
    positive = x > 0
    logarithm = log(np.where(positive, x, 1).astype(np.float64))
    return (exp(logarithm * y) * positive).astype(x.dtype)


def _in_float64(function: Callable[[Value, bool], Value], x: Value) -> Value:
    """A function of float64 on what was given; its second argument: float32 is all that is wanted."""
    if not isinstance(x, np.ndarray):
        return float(function(float(x), False))
    short = x.dtype == np.float32
    result = function(x.astype(np.float64, copy=False), short)
    return result.astype(np.float32 if short else np.float64, copy=False)


def total(values: Array) -> float:
    """The sum of an array, in a fixed order: its second half is added to its first, again and again.

    Every value meets at most log2(n) additions in float64, so the error is below 1.2e-16 log2(n) of
    the sum of magnitudes. The last few are summed with one rounding. NumPy's own order depends on
    how the array lies in memory and on its version; one rounding for all takes forty times as long.

    >>> total(np.array([[1, 2, 3], [4, 5, 6]], np.float32))
    21.0
    """
    sums = values.astype(np.float64).ravel()
    while sums.size > 64:
        half = sums.size // 2
        folded = sums[:half] + sums[half : 2 * half]
        if sums.size % 2:
            folded[0] += sums[-1]
        sums = folded
    return math.fsum(sums.tolist())
