"""Chance that is normally distributed: single numbers, and tiles of coloured noise."""

from __future__ import annotations

import math
from functools import lru_cache
from random import Random

import numpy as np

from clipad_harness.standin.drawing.exact import Array, cos, exp, log, sin, total

NOISE_SEED = 20240607
TILE = 3  # a noise tile spans this many images, so that crops of it differ


class Chance(Random):
    """Python's generator, except that its normal numbers are made of exact functions.

    All else that the drawing draws from it is integers and their quotients already.

    >>> Chance(1).random() == Random(1).random(), round(Chance(1).gauss(0, 1), 6)
    (True, 1.288185)
    """

    gauss_next: float | None

    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        """A normal number by Box and Muller, as `Random.gauss`: two of two uniform ones."""
        ready, self.gauss_next = self.gauss_next, None
        if ready is None:
            turn = 2 * math.pi * self.random()
            radius = math.sqrt(-2 * log(1 - self.random()))
            ready, self.gauss_next = cos(turn) * radius, sin(turn) * radius
        return mu + ready * sigma


@lru_cache(maxsize=1)
def cell_table() -> Array:
    """Uniform numbers in [0, 1), (4096,)."""
    return np.random.default_rng(NOISE_SEED).random(4096, dtype=np.float32)


@lru_cache(maxsize=64)
def noise_tile(size: int, kind: str) -> Array:
    """Periodic Gaussian noise of unit deviation, (3 * size, 3 * size), by its spectrum.

    `cloud`: smooth, falls as 1/f^2. `mottle`: blotches of a twelfth of the image.
    `grain`: pixel noise, slightly softened. `fibre`: long streaks along x.

    A wave of every frequency with an independent complex normal amplitude (Box and Muller), times
    the gain there: the real part of their sum is white noise sent through that gain.
    """
    side = size * TILE
    chance = np.random.default_rng([NOISE_SEED, size, *kind.encode()])
    # A generator's own normal numbers use the C library's logarithm; the uniform ones are integers.
    radius = np.sqrt(-2 * log(1 - chance.random((side, side)))) * _gain(size, kind)
    turn = 2 * math.pi * chance.random((side, side))
    real, imaginary = radius * cos(turn), radius * sin(turn)
    for _ in range(2):  # along y, then along x
        real, imaginary = (np.ascontiguousarray(part.T) for part in fourier(real, imaginary))
    deviation = math.sqrt(total(real * real) / real.size)  # its mean is zero: so is the gain there
    return (real / deviation).astype(np.float32)


def _gain(size: int, kind: str) -> Array:
    """How strong the waves of a noise are, (3 * size, 3 * size) by their cycles along y and x."""
    side = size * TILE
    index = np.arange(side)
    cycles = np.minimum(index, side - index) / TILE  # per image
    fy, fx = cycles[:, None], cycles[None, :]
    f = np.sqrt(fx * fx + fy * fy)
    if kind == "cloud":
        gain = 1 / np.square(f + 0.7)
    elif kind == "mottle":
        gain = exp(-np.square((f - 10) / 6))
    elif kind == "grain":
        gain = exp(-np.square(f / (0.38 * size)))
    else:
        gain = exp(-np.square(fx / 2.0)) * exp(-np.square(fy / (0.3 * size)))
    return gain * (f > 0)


def fourier(real: Array, imaginary: Array) -> tuple[Array, Array]:
    r"""The discrete Fourier transform along the first axis, on real and imaginary parts apart.

    .. math:: X_k = \sum_{j=0}^{n-1} x_j\, e^{-2\pi i jk/n}

    Cooley and Tukey (1965) for any n = p q: transform each of the p sequences of every p-th
    number, turn number k of sequence s by s k / n, and transform across the sequences.

    Args:
        real, imaginary: x, (n, m) float64.

    Returns:
        Real and imaginary part of X, (n, m), within 1e-15 log2(n) of the largest where the primes
        of n are small.

    >>> real, imaginary = fourier(np.array([[1.0], [2.0], [4.0]]), np.zeros((3, 1)))
    >>> np.round(real[:, 0], 3), np.round(imaginary[:, 0], 3)
    (array([ 7., -2., -2.]), array([ 0.   ,  1.732, -1.732]))
    """
    n = real.shape[0]
    if n == 1:
        return real, imaginary
    p = 4 if n % 4 == 0 else next(p for p in range(2, n + 1) if n % p == 0)
    q = n // p
    a, b = fourier(real.reshape(q, -1), imaginary.reshape(q, -1))
    a, b = a.reshape(q, p, -1), b.reshape(q, p, -1)
    turn = (np.arange(q)[:, None] * np.arange(p))[:, :, None] * (2 * math.pi / n)
    c, s = cos(turn), sin(turn)
    a, b = _across(a * c + b * s, b * c - a * s)
    return a.reshape(real.shape), b.reshape(real.shape)


def _across(a: Array, b: Array) -> tuple[Array, Array]:
    """The transform of the second axis as it stands, (q, p, m) to (p, q, m).

    Terms s and p - s share a cosine and have opposite sines, and so do results t and p - t.
    """
    q, p, m = a.shape
    pairs = range(1, (p + 1) // 2)
    added = [(a[:, s] + a[:, p - s], b[:, s] + b[:, p - s]) for s in pairs]
    taken = [(a[:, s] - a[:, p - s], b[:, s] - b[:, p - s]) for s in pairs]
    real, imaginary = np.empty((p, q, m)), np.empty((p, q, m))
    for t in range(p // 2 + 1):
        even_a, even_b = a[:, 0].copy(), b[:, 0].copy()
        odd_a, odd_b = np.zeros((q, m)), np.zeros((q, m))
        if p % 2 == 0:
            sign = 1 - 2 * (t % 2)
            even_a += sign * a[:, p // 2]
            even_b += sign * b[:, p // 2]
        for s, (a_sum, b_sum), (a_difference, b_difference) in zip(
            pairs, added, taken, strict=True
        ):
            turn = 2 * math.pi * (s * t % p) / p
            even_a += cos(turn) * a_sum
            even_b += cos(turn) * b_sum
            odd_a += sin(turn) * b_difference
            odd_b -= sin(turn) * a_difference
        real[-t], imaginary[-t] = even_a - odd_a, even_b - odd_b
        real[t], imaginary[t] = even_a + odd_a, even_b + odd_b
    return real, imaginary
