"""Signed distances of plane shapes: negative inside, positive outside, in the units of (u, v).

The formulas are the usual ones of computer graphics (Quilez, "2D distance functions").
"""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray


def circle(u: Array, v: Array, radius: float) -> Array:
    """A disc."""
    return np.sqrt(u * u + v * v) - radius


def ellipse(u: Array, v: Array, a: float, b: float) -> Array:
    """First-order distance, exact on the outline."""
    k = np.sqrt((u / a) ** 2 + (v / b) ** 2) + 1e-6
    slope = np.sqrt((u / (a * a)) ** 2 + (v / (b * b)) ** 2) + 1e-6
    return k * (k - 1) / slope


def ring(u: Array, v: Array, inner: float, outer: float) -> Array:
    """A flat ring between two radii."""
    return np.abs(np.sqrt(u * u + v * v) - 0.5 * (inner + outer)) - 0.5 * (outer - inner)


def box(u: Array, v: Array, a: float, b: float, corner: float = 0.0) -> Array:
    """A box of half sides (a, b) with rounded corners."""
    du, dv = np.abs(u) - (a - corner), np.abs(v) - (b - corner)
    outside = np.sqrt(np.maximum(du, 0) ** 2 + np.maximum(dv, 0) ** 2)
    return outside + np.minimum(np.maximum(du, dv), 0) - corner


def segment(u: Array, v: Array, x0: float, y0: float, x1: float, y1: float, r: float) -> Array:
    """A line with round ends, `r` half as thick."""
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((u - x0) * dx + (v - y0) * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
    return np.sqrt((u - x0 - along * dx) ** 2 + (v - y0 - along * dy) ** 2) - r


def polygon(u: Array, v: Array, sides: int, radius: float) -> Array:
    """A regular polygon, `radius` to the middle of its sides; exact inside."""
    angle = np.arctan2(v, u)
    sector = 2 * math.pi / sides
    folded = angle - sector * np.floor(angle / sector + 0.5)
    return np.cos(folded) * np.sqrt(u * u + v * v) - radius


def wave_disc(u: Array, v: Array, radius: float, lobes: int, depth: float) -> Array:
    """A disc whose outline waves `lobes` times."""
    r = np.sqrt(u * u + v * v)
    return (r - radius - depth * np.cos(lobes * np.arctan2(v, u))) * 0.9


def union(*distances: Array) -> Array:
    """All the shapes together."""
    out = distances[0]
    for distance in distances[1:]:
        out = np.minimum(out, distance)
    return out


def without(distance: Array, hole: Array) -> Array:
    """The first shape less the second."""
    return np.maximum(distance, -hole)
