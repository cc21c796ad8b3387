"""Signed distances of plane shapes: negative inside, positive outside, in the units of (u, v).

The formulas are the usual ones of computer graphics (Quilez, "2D distance functions"). Nothing needs
an angle: where one would be turned or multiplied, its cosine and sine are.
"""

from __future__ import annotations

import math
from functools import lru_cache, reduce

import numpy as np

from clipad_harness.standin.drawing.exact import Array, cos, sin


def circle(u: Array, v: Array, radius: float) -> Array:
    """A disc."""
    return np.sqrt(u * u + v * v) - radius


def ellipse(u: Array, v: Array, a: float, b: float) -> Array:
    """First-order distance, exact on the outline."""
    k = np.sqrt(np.square(u / a) + np.square(v / b)) + 1e-6
    slope = np.sqrt(np.square(u / (a * a)) + np.square(v / (b * b))) + 1e-6
    return k * (k - 1) / slope


def ring(u: Array, v: Array, inner: float, outer: float) -> Array:
    """A flat ring between two radii."""
    return np.abs(np.sqrt(u * u + v * v) - 0.5 * (inner + outer)) - 0.5 * (outer - inner)


def box(u: Array, v: Array, a: float, b: float, corner: float = 0.0) -> Array:
    """A box of half sides (a, b) with rounded corners."""
    du, dv = np.abs(u) - (a - corner), np.abs(v) - (b - corner)
    outside = np.sqrt(np.square(np.maximum(du, 0)) + np.square(np.maximum(dv, 0)))
    return outside + np.minimum(np.maximum(du, dv), 0) - corner


def segment(u: Array, v: Array, x0: float, y0: float, x1: float, y1: float, r: float) -> Array:
    """A line with round ends, `r` half as thick."""
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((u - x0) * dx + (v - y0) * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
    return np.sqrt(np.square(u - x0 - along * dx) + np.square(v - y0 - along * dy)) - r


def polygon(u: Array, v: Array, sides: int, radius: float) -> Array:
    """A regular polygon, `radius` to the middle of its sides; exact inside."""
    return reduce(np.maximum, (c * u + s * v for c, s in directions(sides))) - radius


def wave_disc(u: Array, v: Array, radius: float, lobes: int, depth: float) -> Array:
    """A disc whose outline waves `lobes` times."""
    return (np.sqrt(u * u + v * v) - radius - ripple(u, v, {lobes: (depth, 0.0)})) * 0.9


def rays(u: Array, v: Array, n: int) -> Array:
    """Distance to the line of the nearest of n rays, evenly around the middle from (1, 0) on."""
    along, across = u, np.abs(v)
    for c, s in directions(n)[1:]:
        reach = c * u + s * v
        across = np.where(reach > along, np.abs(c * v - s * u), across)
        along = np.maximum(along, reach)
    return across


@lru_cache(maxsize=64)
def directions(n: int) -> tuple[tuple[float, float], ...]:
    """So many unit vectors evenly around, from (1, 0) on.

    >>> [(round(x, 9), round(y, 9)) for x, y in directions(2)]
    [(1.0, 0.0), (-1.0, 0.0)]
    """
    turns = (2 * math.pi * k / n for k in range(n))
    return tuple((cos(t), sin(t)) for t in turns)


def ripple(u: Array, v: Array, terms: dict[int, tuple[float, float]]) -> Array:
    r"""A wave around the middle, :math:`\sum_k a_k \cos k\theta + b_k \sin k\theta`, by products alone.

    Horner's scheme on :math:`z = \cos\theta + i \sin\theta`, whose powers are the cosines and sines
    (de Moivre): the sum is the real part of :math:`\sum_k (a_k - i b_k) z^k`.

    Args:
        u, v: where; theta is the angle of (u, v). In the middle, where no angle is, the sum is zero.
        terms: (a_k, b_k) by k of at least one, each with about k roundings of error.

    >>> np.round(ripple(np.array([1.0, 1.0]), np.array([0.0, 1.0]), {2: (3.0, 4.0)}), 9)
    array([3., 4.])
    """
    r = np.maximum(np.sqrt(u * u + v * v), 1e-9)
    c, s = u / r, v / r
    real, imaginary = np.zeros_like(r), np.zeros_like(r)
    first, second = np.empty_like(r), np.empty_like(r)  # new memory costs more than the products
    for k in range(max(terms), 0, -1):
        if k in terms:
            real += terms[k][0]
            imaginary -= terms[k][1]
        np.multiply(imaginary, s, out=first)
        np.multiply(real, s, out=second)
        real *= c
        real -= first
        imaginary *= c
        imaginary += second
    return real


def union(*distances: Array) -> Array:
    """All the shapes together."""
    out = distances[0]
    for distance in distances[1:]:
        out = np.minimum(out, distance)
    return out


def without(distance: Array, hole: Array) -> Array:
    """The first shape less the second."""
    return np.maximum(distance, -hole)
