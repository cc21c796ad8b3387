"""What a builder hands over: a painted body and the parts that sit on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import numpy as np

from clipad_harness.standin.drawing import shapes
from clipad_harness.standin.drawing.canvas import (
    Colour,
    Frame,
    Sketch,
    Surface,
    bevel,
    brightness,
    jitter,
    smoothstep,
)
from clipad_harness.standin.drawing.exact import Array
from clipad_harness.standin.drawing.palette import Material, colour_of, finish

CONTACT = 0.35  # how far the shadow at the foot of a part reaches, in its half widths
PaintPart = Callable[[Surface, Frame, float, float, float], Array]


@dataclass(frozen=True)
class Part:
    """A thing on the body that can be absent, elsewhere or another colour.

    `paint` puts it at (x, y) turned by an angle and returns what it covers, (size, size).
    """

    paint: PaintPart
    x: float
    y: float
    angle: float
    reach: float  # half its width, the unit in which it is misplaced


@dataclass
class Item:
    """A thing before its photograph."""

    base: Surface
    frame: Frame
    colour: str
    material: str
    parts: list[Part] = field(default_factory=list)

    def parts_in_view(self) -> list[int]:
        """Which parts lie well within the image, by their place in `parts`."""
        spots = (self.frame.project(part.x, part.y) for part in self.parts)
        return [n for n, (x, y) in enumerate(spots) if max(abs(x), abs(y)) < 0.92]

    def assemble(self, parts: list[Part] | None = None) -> Surface:
        """The body with its parts on it, or with the given ones instead."""
        surface = self.base.copy()
        for part in self.parts if parts is None else parts:
            part.paint(surface, self.frame, part.x, part.y, part.angle)
        return surface


@dataclass(frozen=True)
class Look:
    """Material and colour of a product."""

    material: Material
    name: str
    colour: Colour

    @classmethod
    def draw(cls, rng: Random, material: Material, name: str | None = None) -> Look:
        """A look by chance, in one of the material's colours unless one is named."""
        name = name or material.pick(rng)
        return cls(material, name, jitter(rng, colour_of(name), 0.04))


def body(sketch: Sketch, look: Look, distance: Array, width: float, height: float) -> Surface:
    """A solid with a rounded rim, in its material; `distance` is in frame coordinates."""
    colour = jitter(sketch.instance, look.colour, 0.025)
    alpha = sketch.frame.cover(distance)
    surface = Surface.blank(sketch.size, colour, look.material.gloss, alpha)
    surface.height[:] = bevel(distance, width, height)
    return surface


def item(sketch: Sketch, look: Look, surface: Surface, parts: list[Part] | None = None) -> Item:
    """Finish the grain of the body and hand it over."""
    finish(surface, sketch, look.material)
    return Item(surface, sketch.frame, look.name, look.material.word, parts or [])


def groove(surface: Surface, frame: Frame, distance: Array, width: float, depth: float) -> None:
    """Engrave along the zero line of a distance."""
    line = frame.cover(np.abs(distance) - width)
    surface.height -= depth * line
    surface.shade(1 - 0.25 * line)


def drill(surface: Surface, frame: Frame, distance: Array, rim: float = 0.02) -> None:
    """A hole that belongs there: the background shows, with a shaded inner wall."""
    surface.height -= 0.6 * rim * frame.cover(np.abs(distance) - rim)
    surface.cut(frame.cover(distance))


def contrasting(rng: Random, colour: Colour) -> Colour:
    """A second product colour, lighter on dark things and darker on light ones."""
    dark = brightness(colour) < 0.6
    names = (
        ("white", "yellow", "light grey", "beige", "orange", "light blue")
        if dark
        else ("black", "dark blue", "dark red", "dark green", "dark grey", "red", "blue")
    )
    return colour_of(rng.choice(names))


def round_part(
    rng: Random, colour: Colour, radius: float, gloss: float = 0.5, slot: float | None = None
) -> PaintPart:
    """A stud, rivet, pill or screw head; `slot` is the half width of a screw's slot."""
    height = radius * rng.uniform(0.3, 0.7)

    def paint(surface: Surface, frame: Frame, x: float, y: float, angle: float) -> Array:
        u, v = frame.at(x, y, angle)
        distance = shapes.circle(u, v, radius)
        cover = _lay(surface, frame, distance, radius, colour, gloss)
        surface.raise_to(cover, bevel(distance, radius * 0.9, height))
        if slot is not None:
            line = frame.cover(shapes.box(u, v, radius * 0.75, slot))
            surface.shade(1 - 0.75 * line)
        return cover

    return _nearby(paint, (1 + CONTACT) * radius)


def _nearby(paint: PaintPart, extent: float) -> PaintPart:
    """Paint only the pixels within `extent` of the part: it leaves all others as they are."""

    def paint_near(surface: Surface, frame: Frame, x: float, y: float, angle: float) -> Array:
        window = frame.window(x, y, extent + frame.pixel)
        cover = np.zeros_like(surface.alpha)
        cover[window] = paint(surface.within(window), frame.within(window), x, y, angle)
        return cover

    return paint_near


def _lay(
    surface: Surface, frame: Frame, distance: Array, reach: float, colour: Colour, gloss: float
) -> Array:
    """Colour and coverage of a part, with the thin shadow where it meets the body."""
    dark = np.clip(1 - np.maximum(distance, 0) * (1 / (CONTACT * reach)), 0, 1)
    surface.shade(1 - 0.4 * dark * dark)
    cover = frame.cover(distance)
    surface.tint(cover, colour)
    surface.polish(cover, gloss)
    np.maximum(surface.alpha, cover, out=surface.alpha)
    return cover


def block_part(
    rng: Random,
    colour: Colour,
    a: float,
    b: float,
    corner: float,
    height: float,
    gloss: float = 0.4,
    mark: Colour | None = None,
) -> PaintPart:
    """A key, chip or tile: a box of half sides (a, b), perhaps with a printed mark."""
    mx, my = rng.uniform(-0.4, 0.4) * a, rng.uniform(-0.3, 0.3) * b

    def paint(surface: Surface, frame: Frame, x: float, y: float, angle: float) -> Array:
        u, v = frame.at(x, y, angle)
        distance = shapes.box(u, v, a, b, corner)
        cover = _lay(surface, frame, distance, min(a, b), colour, gloss)
        surface.raise_to(cover, bevel(distance, 0.3 * min(a, b), height))
        if mark is not None:
            surface.tint(0.9 * frame.cover(shapes.box(u - mx, v - my, 0.35 * a, 0.14 * b)), mark)
        return cover

    return _nearby(paint, math.sqrt(a * a + b * b) + CONTACT * min(a, b))


def screw(rng: Random, radius: float) -> PaintPart:
    """A slotted screw head."""
    return round_part(rng, jitter(rng, colour_of("silver"), 0.08), radius, 0.8, radius * 0.14)


def print_lines(
    sketch: Sketch,
    surface: Surface,
    w: float,
    h: float,
    colour: Colour,
    y0: float = 0.0,
    x0: float = 0.0,
) -> None:
    """Rows of letter-like strokes inside a box of half sides (w, h) about (x0, y0)."""
    p, f = sketch.product, sketch.frame
    rows = max(1, int(h / 0.09))
    i = np.floor(f.u * (1 / 0.06))
    gap = smoothstep(np.abs(f.u * (1 / 0.06) - i - 0.5), 0.5, 0.35)
    for row in range(rows):
        y = y0 - h + (row + 0.5) * 2 * h / rows
        ink = sketch.cells(i, np.full_like(i, row), fixed=True) > 0.3
        width = w * p.uniform(0.5, 0.85)
        line = f.cover(shapes.box(f.u - x0, f.v - y, width, 0.45 * h / rows))
        surface.tint(0.85 * line * ink * gap, colour)
