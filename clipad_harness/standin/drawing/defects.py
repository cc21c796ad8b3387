"""The defects: each changes a sound surface in place and returns where it meant to.

A defect works on height, colour and coverage before the light falls on them, so the lamp, the
gloss and the grain of the carrier show in it as in the rest of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from clipad_harness.standin.drawing.canvas import Sketch, Surface, brightness, grid, smoothstep
from clipad_harness.standin.drawing.exact import Array, cos, exp, sin, total
from clipad_harness.standin.drawing.items import Item
from clipad_harness.standin.drawing.palette import colour_of, other_colour
from clipad_harness.standin.drawing.shapes import ripple

Spot = tuple[float, float]
BLACK, PALE = (0.012, 0.012, 0.014), (0.42, 0.40, 0.37)


def strokes(size: int, lines: list[tuple[list[Spot], float]]) -> Array:
    """Cover of tapering polylines [(points, full width)], (size, size), smooth edges."""
    k = 4
    image = Image.new("L", (size * k, size * k))
    pen = ImageDraw.Draw(image)
    half = size * k / 2
    for points, width in lines:
        xy = [((x + 1) * half, (y + 1) * half) for x, y in points]
        n = len(xy) - 1
        for index in range(n):
            taper = 1 - 0.55 * abs(2 * (index + 0.5) / n - 1)
            w = max(2, round(width * half * taper))
            pen.line((xy[index], xy[index + 1]), fill=255, width=w)
            if w > 4:
                (x, y), r = xy[index + 1], w / 2 - 1
                pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
    return np.asarray(image.reduce(k), np.float32) * (1 / 255)


def walk(
    rng: Random,
    start: Spot,
    length: float,
    turn: float,
    bend: float,
    steps: int,
) -> list[Spot]:
    """A wandering line; `bend` is the greatest change of direction a step, in radians."""
    x, y = start
    points = [start]
    for _ in range(steps):
        turn += rng.uniform(-bend, bend)
        x, y = x + cos(turn) * length / steps, y + sin(turn) * length / steps
        points.append((x, y))
    return points


def blob(sketch: Sketch, at: Spot, radius: float, rough: float) -> Array:
    """Signed field of an uneven spot: negative inside, in scene units."""
    rng = sketch.instance
    x, y = grid(sketch.size)
    turn, stretch = rng.uniform(0, math.pi), rng.uniform(0.6, 1.0)
    c, s = cos(turn), sin(turn)
    du, dv = x - at[0], y - at[1]
    u, v = (c * du + s * dv) / stretch, (c * dv - s * du) * stretch
    r = np.sqrt(u * u + v * v)
    waves = {}
    for k in (2, 3, 5, 7):
        size, phase = rough * rng.uniform(-1, 1) / k, rng.uniform(0, 6.28)
        waves[k] = size * sin(phase), size * cos(phase)
    return r - radius * (1 + ripple(u, v, waves))


def under(s: Surface, cover: Array) -> tuple[float, float, float]:
    """Mean albedo below a defect, in [0, 1]."""
    weight = total(cover) + 1e-3
    r, g, b = ((total(cover * plane) + 5e-4) / weight for plane in s.albedo)
    return r, g, b


def is_dark(s: Surface, cover: Array) -> bool:
    """Whether a black defect would drown in what it lies on."""
    return brightness(under(s, cover)) < 0.17


def scratch(s: Surface, sketch: Sketch, at: Spot, strength: float) -> Array:
    """One to three long, nearly straight lines, light or dark."""
    rng = sketch.instance
    turn, lines = rng.uniform(0, 2 * math.pi), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        length = rng.uniform(0.2, 1.0)
        start = (
            at[0] - cos(turn) * length / 2 + rng.uniform(-0.08, 0.08),
            at[1] - sin(turn) * length / 2 + rng.uniform(-0.08, 0.08),
        )
        lines.append((walk(rng, start, length, turn, 0.06, 10), rng.uniform(0.014, 0.034)))
    cover = strokes(sketch.size, lines) * s.alpha
    level = rng.choice((0.12, 0.9, 0.8)) if brightness(under(s, cover)) > 0.3 else 0.75
    s.tint(cover * strength * rng.uniform(0.45, 0.9), (level, level, level))
    s.height -= cover * 0.02
    return cover


def crack(s: Surface, sketch: Sketch, at: Spot, strength: float) -> Array:
    """A jagged dark line with branches."""
    rng = sketch.instance
    turn = rng.uniform(0, 2 * math.pi)
    length, width = rng.uniform(0.35, 1.1), rng.uniform(0.016, 0.045)
    main = (
        walk(rng, at, length / 2, turn, 0.7, 8)[::-1]
        + walk(rng, at, length / 2, turn + math.pi, 0.7, 8)[1:]
    )
    lines = [(main, width)]
    for _ in range(rng.randint(0, 3)):
        start = rng.choice(main[3:-3])
        side = turn + rng.choice((-1, 1)) * rng.uniform(0.5, 1.2)
        lines.append((walk(rng, start, length * rng.uniform(0.15, 0.4), side, 0.6, 5), width * 0.7))
    cover = strokes(sketch.size, lines) * s.alpha
    if is_dark(s, cover):  # black on black is no crack: light catches its broken lips
        lips = strokes(sketch.size, [(points, 2.2 * width) for points, width in lines]) * s.alpha
        s.tint(np.clip(lips * 0.3 * strength, 0, 1), PALE)
    s.tint(cover * min(1.0, strength * rng.uniform(0.7, 1.0)), BLACK)
    s.height -= cover * 0.05
    s.gloss *= 1 - cover
    return cover


def stain(s: Surface, sketch: Sketch, at: Spot, strength: float) -> Array:
    """A soft-edged discoloured spot, sometimes with a drying ring."""
    rng = sketch.instance
    field = blob(sketch, at, rng.uniform(0.08, 0.34), 0.35) + 0.02 * sketch.noise("mottle")
    soft = rng.uniform(0.02, 0.08)
    cover = smoothstep(field, soft, -soft) * s.alpha
    ring = exp(-np.square(field / 0.025)) * rng.choice((0.0, 0.3, 0.5))
    names = ("dark brown", "brown", "olive", "black", "dark red", "dark blue", "dark green")
    colour = colour_of(rng.choice(names))
    if brightness(under(s, cover)) < 0.36:
        colour = colour_of(rng.choice(("beige", "white", "light grey")))
    s.tint(cover * np.clip(strength * rng.uniform(0.35, 0.8) + ring, 0, 1), colour)
    return cover


def hole(s: Surface, sketch: Sketch, at: Spot, strength: float) -> Array:
    """A punched spot with a burr; dark inside, or open to the bench."""
    rng = sketch.instance
    field = blob(sketch, at, rng.uniform(0.05, 0.17), 0.25)
    soft = 2.2 / sketch.size
    cover = smoothstep(field, soft, -soft)
    rim = exp(-np.square(field / 0.03))
    if is_dark(s, cover):
        s.tint(np.clip(0.4 * strength * rim, 0, 1), PALE)
    s.height -= 0.03 * rim + 0.1 * cover
    s.tint(cover, BLACK)
    s.gloss *= 1 - cover
    touched = cover * s.alpha
    inside = s.alpha[cover > 0.5]
    if rng.random() < 0.35 or total(inside) < 0.95 * inside.size:
        s.cut(cover * smoothstep(field, 0.0, -0.04))
    return touched


def dent(s: Surface, sketch: Sketch, at: Spot, strength: float) -> Array:
    """A bowl or a bump: only light and shade change."""
    rng = sketch.instance
    radius = rng.uniform(0.1, 0.3)
    field = blob(sketch, at, radius, 0.15) + radius
    depth = radius * rng.uniform(0.25, 0.5) * strength * rng.choice((1, 1, -1))
    bowl = exp(-np.square(field / (0.55 * radius)) * 2)
    s.height -= depth * bowl
    if is_dark(s, bowl):  # black things show a dent by the wear on it
        s.tint(np.clip(0.1 * strength * bowl, 0, 1), PALE)
    return (bowl > 0.3) * s.alpha


def contamination(s: Surface, sketch: Sketch, at: Spot, strength: float) -> Array:
    """A fibre, or a scatter of foreign specks."""
    rng = sketch.instance
    size = sketch.size
    if rng.random() < 0.4:  # a fibre
        width = rng.uniform(0.02, 0.04)
        cover = strokes(
            size, [(walk(rng, at, rng.uniform(0.4, 0.9), rng.uniform(0, 6.28), 0.45, 14), width)]
        )
    else:
        spread = rng.uniform(0.05, 0.25)
        dots = [
            (
                [(at[0] + rng.gauss(0, spread), at[1] + rng.gauss(0, spread))] * 2,
                rng.uniform(0.03, 0.1),
            )
            for _ in range(rng.randint(1, 9))
        ]
        cover = strokes(size, dots)
    cover = cover * s.alpha
    s.tint(cover, other_colour(rng, under(s, cover)))
    s.height += cover * 0.04
    return cover


def wrong_colour(s: Surface, sketch: Sketch, at: Spot, strength: float) -> Array:
    """A sharply bounded patch of a colour the product does not have."""
    rng = sketch.instance
    field = blob(sketch, at, rng.uniform(0.15, 0.4), 0.1)
    cover = smoothstep(field, 0.02, -0.02) * s.alpha
    s.tint(cover * 0.8, other_colour(rng, under(s, cover)))
    return cover


def burn(s: Surface, sketch: Sketch, at: Spot, strength: float) -> Array:
    """A scorched spot: black inside, brown around; ash on dark things."""
    rng = sketch.instance
    field = blob(sketch, at, rng.uniform(0.1, 0.25), 0.3) + 0.015 * sketch.noise("mottle")
    outer, inner = smoothstep(field, 0.1, -0.05), smoothstep(field, 0.0, -0.1)
    # Ash on what is black already.
    s.tint(outer * 0.6 * s.alpha, PALE if is_dark(s, outer) else (0.10, 0.05, 0.02))
    s.tint(inner * 0.9 * s.alpha, BLACK)
    s.gloss *= 1 - outer
    return (outer > 0.25) * s.alpha


def tear(s: Surface, sketch: Sketch, at: Spot, strength: float) -> Array:
    """A jagged slit that gapes: what lies behind shows between two frayed lips."""
    rng = sketch.instance
    turn, length = rng.uniform(0, math.pi), rng.uniform(0.35, 0.9)
    gape = rng.uniform(0.05, 0.13)
    c, n = (cos(turn), sin(turn)), 9
    upper: list[Spot] = []
    lower: list[Spot] = []
    for k in range(n + 1):
        t = k / n - 0.5
        open_ = gape * (1 - 4 * t * t)
        for side, points in ((1, upper), (-1, lower)):
            off = side * open_ * rng.uniform(0.6, 1.3) + rng.uniform(-0.015, 0.015)
            points.append(
                (at[0] + c[0] * t * length - c[1] * off, at[1] + c[1] * t * length + c[0] * off)
            )
    size, k = sketch.size, 4
    image = Image.new("L", (size * k, size * k))
    half = size * k / 2
    ImageDraw.Draw(image).polygon(
        [((x + 1) * half, (y + 1) * half) for x, y in upper + lower[::-1]], fill=255
    )
    cover = np.asarray(image.reduce(k), np.float32) * (1 / 255)
    lips = strokes(size, [(upper, 0.05), (lower, 0.05)]) * s.alpha
    s.height += 0.03 * lips
    s.tint(0.35 * lips, (0.7, 0.68, 0.62))
    s.cut(cover)
    return np.maximum(cover, lips > 0.5)


SURFACE_DEFECTS: dict[str, Callable[[Surface, Sketch, Spot, float], Array]] = {
    "scratch": scratch,
    "crack": crack,
    "stain": stain,
    "hole": hole,
    "dent": dent,
    "contamination": contamination,
    "wrong_colour": wrong_colour,
    "burn": burn,
    "tear": tear,
}
PART_DEFECTS = ("missing_part", "misplaced_part")


def damage_part(item: Item, rng: Random, defect: str, strength: float) -> Surface:
    """The item without one of its parts, with it shifted and turned, or with it recoloured.

    Where a part is missing its seat stays: a dark recess, or nothing at all beyond the body.
    """
    index = rng.choice(item.parts_in_view())
    part = item.parts[index]
    surface = item.assemble(item.parts[:index] + item.parts[index + 1 :])
    if defect == "wrong_colour":
        cover = part.paint(surface, item.frame, part.x, part.y, part.angle)
        surface.tint(0.85 * cover, other_colour(rng, under(surface, cover)))
        return surface
    if defect == "missing_part":
        cover = part.paint(item.base.copy(), item.frame, part.x, part.y, part.angle)
        if is_dark(surface, cover):
            surface.tint(np.clip(0.15 * strength * cover, 0, 1), PALE)
        else:
            surface.shade(1 - min(0.9, rng.uniform(0.3, 0.7) * strength) * cover)
        surface.height -= 0.03 * cover
        return surface
    way = rng.uniform(0, 2 * math.pi)
    far = part.reach * rng.uniform(0.6, 1.3) * strength
    part.paint(
        surface,
        item.frame,
        part.x + far * cos(way),
        part.y + far * sin(way),
        part.angle + rng.uniform(0.3, 1.2),
    )
    return surface
