"""The drawing board: coordinates, noise, the paintable surface.

Everything is painted at the final resolution from signed distances, which give smooth edges
without supersampling. Lengths are in scene units: the image spans [-1, 1] in x and in y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

import numpy as np

from clipad_harness.standin.drawing.exact import Array, cos, sin
from clipad_harness.standin.drawing.noise import TILE, cell_table, noise_tile

Window = tuple[slice, slice]
Colour = tuple[float, float, float]


@lru_cache(maxsize=8)
def grid(size: int) -> tuple[Array, Array]:
    """Pixel centres (x, y), each (size, size) in [-1, 1], y pointing down."""
    axis = ((np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1).astype(np.float32)
    x = np.ascontiguousarray(np.broadcast_to(axis, (size, size)))
    y = np.ascontiguousarray(np.broadcast_to(axis[:, None], (size, size)))
    x.setflags(write=False)
    y.setflags(write=False)
    return x, y


@dataclass
class Frame:
    """Where a thing lies in the image: its own coordinates (u, v) at every pixel.

    `pixel` is the width of one pixel in those coordinates, the unit of every soft edge.
    """

    u: Array
    v: Array
    pixel: float
    size: int
    centre: tuple[float, float]
    axes: tuple[float, float, float, float]  # image (x, y) of the unit steps along u and v

    def project(self, u: float, v: float) -> tuple[float, float]:
        """Where a point of the thing lies in the image; within [-1, 1] it is in view."""
        ux, uy, vx, vy = self.axes
        return self.centre[0] + u * ux + v * vx, self.centre[1] + u * uy + v * vy

    def window(self, u: float, v: float, extent: float) -> Window:
        """The rows and columns that hold all pixels within `extent` of a point of the thing."""
        ux, uy, vx, vy = self.axes
        x, y = self.project(u, v)
        rows = self._pixels(y, extent * math.sqrt(uy * uy + vy * vy))
        return rows, self._pixels(x, extent * math.sqrt(ux * ux + vx * vx))

    def _pixels(self, middle: float, half: float) -> slice:
        first, last = ((end + 1) * self.size / 2 for end in (middle - half, middle + half))
        return slice(max(0, math.floor(first)), max(0, math.ceil(last)))

    def within(self, window: Window) -> Frame:
        """The same coordinates on some of the pixels."""
        return replace(self, u=self.u[window], v=self.v[window])

    def cover(self, distance: Array) -> Array:
        """Share of every pixel inside a shape, in [0, 1], from its signed distance."""
        return np.clip(0.5 - distance * (1 / self.pixel), 0, 1)

    def at(self, x: float, y: float, angle: float = 0.0) -> tuple[Array, Array]:
        """The coordinates as seen from a point of the thing, turned by `angle` radians."""
        du, dv = self.u - x, self.v - y
        if angle == 0.0:
            return du, dv
        c, s = cos(angle), sin(angle)
        return c * du + s * dv, c * dv - s * du


def pose(size: int, x: float, y: float, scale: float, angle: float, squeeze: float = 1.0) -> Frame:
    """A frame at (x, y), `scale` large, turned by `angle`; `squeeze` < 1 tilts it backwards."""
    gx, gy = grid(size)
    cosine, sine = cos(angle), sin(angle)
    c, s = cosine / scale, sine / scale
    du, dv = gx - x, (gy - y) / squeeze
    along, across = scale * cosine, scale * sine
    axes = (along, across * squeeze, -across, along * squeeze)
    return Frame(c * du + s * dv, c * dv - s * du, 2 / size / scale, size, (x, y), axes)


@dataclass
class Sketch:
    """What a builder draws with: two sources of chance and the frame.

    `product` decides what the thing is (layout, colour); `instance` decides this one piece of
    it (grain, wear). A category of the datasets keeps its product and varies the instance.
    """

    size: int
    product: Random
    instance: Random
    frame: Frame

    def noise(self, kind: str) -> Array:
        """A crop of unit-deviation noise, (size, size); read only."""
        tile = noise_tile(self.size, kind)
        room = (TILE - 1) * self.size
        i, j = self.instance.randrange(room), self.instance.randrange(room)
        crop = tile[i : i + self.size, j : j + self.size]
        return crop[::-1] if self.instance.random() < 0.5 else crop

    def streaks(self, u: Array, v: Array, stretch: float = 1.0) -> Array:
        """Streaks along u, unit deviation, following given coordinates."""
        tile = noise_tile(self.size, "fibre")
        half = 0.5 * self.size
        offset = self.instance.randrange(tile.shape[0])
        rows = ((v * half).astype(np.int32) + offset) % tile.shape[0]
        columns = ((u * (half / stretch)).astype(np.int32) + 2 * offset) % tile.shape[1]
        return tile[rows, columns]

    def cells(self, i: Array, j: Array, fixed: bool = False) -> Array:
        """One uniform number in [0, 1) for every integer cell (i, j)."""
        start = (self.product if fixed else self.instance).randrange(4096)
        index = i.astype(np.int32) * 619 + j.astype(np.int32) * 1657 + start
        return cell_table()[index & 4095]  # a power of two, so the bits do for the remainder


class Surface:
    """A lit layer: height, albedo, coverage and gloss at every pixel.

    height: scene units, its slope is what the light sees. albedo: (3, size, size) in [0, 1].
    alpha: (size, size), 0 where the background shows. gloss: (size, size), highlight strength.
    Colours lie in planes all through the drawing: NumPy is several times as fast on a plane as on
    the three values of a pixel.
    """

    def __init__(self, height: Array, albedo: Array, alpha: Array, gloss: Array) -> None:
        self.height, self.albedo, self.alpha, self.gloss = height, albedo, alpha, gloss

    @classmethod
    def blank(cls, size: int, colour: Colour, gloss: float, alpha: Array | None = None) -> Surface:
        """A flat surface of one colour."""
        albedo = np.empty((3, size, size), np.float32)
        albedo[:] = plane_values(colour)
        shape = (size, size)
        return cls(
            np.zeros(shape, np.float32),
            albedo,
            np.ones(shape, np.float32) if alpha is None else alpha.astype(np.float32),
            np.full(shape, gloss, np.float32),
        )

    def copy(self) -> Surface:
        """A surface that can be changed without changing this one."""
        return Surface(self.height.copy(), self.albedo.copy(), self.alpha.copy(), self.gloss.copy())

    def within(self, window: Window) -> Surface:
        """Some of the pixels; what is painted on them is painted on this surface."""
        return Surface(
            self.height[window],
            self.albedo[:, *window],
            self.alpha[window],
            self.gloss[window],
        )

    def tint(self, cover: Array, colour: Colour | Array) -> None:
        """Lay a colour, or planes of colours, over the albedo, as thick as `cover` in [0, 1]."""
        colours = colour if isinstance(colour, np.ndarray) else plane_values(colour)
        self.albedo += cover * (colours - self.albedo)

    def shade(self, factor: Array) -> None:
        """Multiply the albedo, (size, size)."""
        self.albedo *= factor

    def raise_to(self, cover: Array, height: Array | float) -> None:
        """Replace the height where `cover` is one."""
        self.height += cover * (height - self.height)

    def polish(self, cover: Array, gloss: float) -> None:
        """Replace the gloss where `cover` is one."""
        self.gloss += cover * (gloss - self.gloss)

    def cut(self, cover: Array) -> None:
        """Open the surface so that the background shows."""
        self.alpha *= 1 - cover


def plane_values(colour: Colour) -> Array:
    """A colour as (3, 1, 1), to be spread over planes."""
    return np.asarray(colour, np.float32)[:, None, None]


def bevel(distance: Array, width: float, height: float) -> Array:
    """A plateau of `height` whose rim falls off, rounded, over `width` inside the outline."""
    t = np.clip(-distance * (1 / width), 0, 1)
    return height * t * (2 - t)


def smoothstep(values: Array, low: float, high: float) -> Array:
    """Zero up to `low`, one from `high`, smooth between; falls where `high` < `low`."""
    t = np.clip((values - low) * (1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def brightness(colour: Colour) -> float:
    """The sum of the channels, from the first to the last."""
    r, g, b = colour
    return r + g + b  # Python's own `sum` rounds otherwise since 3.12


def scaled(colour: Colour, factor: float, offset: float = 0.0) -> Colour:
    """A lighter or darker shade."""
    r, g, b = (min(1.0, c * factor + offset) for c in colour)
    return r, g, b


def jitter(rng: Random, colour: Colour, amount: float) -> Colour:
    """A colour near the given one; brightness moves together, hue a little."""
    common = rng.uniform(-amount, amount)
    moved = [min(1.0, max(0.01, c + common + rng.uniform(-amount, amount) * 0.35)) for c in colour]
    return moved[0], moved[1], moved[2]
