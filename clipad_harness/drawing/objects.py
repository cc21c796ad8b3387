"""Object carriers of the pretraining and auxiliary categories."""

from __future__ import annotations

import math

import numpy as np

from clipad_harness.drawing import shapes
from clipad_harness.drawing.canvas import Sketch, smoothstep
from clipad_harness.drawing.items import (
    Item, Look, Part, block_part, body, contrasting, drill, groove, item, round_part, screw,
)
from clipad_harness.drawing.palette import colour_of, jitter


def disc(sketch: Sketch, look: Look) -> Item:
    """Coin, lid, cap or button: rim, grooves, an emblem, holes or studs on a circle."""
    p, f = sketch.product, sketch.frame
    d = shapes.circle(f.u, f.v, 0.95)
    surface = body(sketch, look, d, p.uniform(0.04, 0.3), p.uniform(0.04, 0.14))
    for _ in range(p.randint(0, 3)):
        groove(surface, f, shapes.circle(f.u, f.v, p.uniform(0.25, 0.85)), p.uniform(0.01, 0.04),
               p.uniform(0.01, 0.04))
    parts: list[Part] = []
    style = p.random()
    n, r = p.randint(2, 8), p.uniform(0.4, 0.7)
    radius = min(p.uniform(0.07, 0.16), 0.7 * r * math.sin(math.pi / n))
    spots = [(r * math.cos(2 * math.pi * k / n), r * math.sin(2 * math.pi * k / n))
             for k in range(n)]
    if style < 0.35:
        for x, y in spots:
            drill(surface, f, shapes.circle(f.u - x, f.v - y, radius))
    elif style < 0.75:
        stud = screw(p, radius) if p.random() < 0.4 else round_part(
            p, contrasting(p, look.colour), radius)
        parts = [Part(stud, x, y, p.uniform(0, 3), radius) for x, y in spots]
    if p.random() < 0.4:
        emblem = shapes.polygon(f.u, f.v, p.randint(3, 6), p.uniform(0.12, 0.25))
        surface.tint(f.cover(emblem) * 0.8, contrasting(p, look.colour))
    return item(sketch, look, surface, parts)


def plate(sketch: Sketch, look: Look) -> Item:
    """A face plate: rounded box with holes or screws in the corners, a label, lines."""
    p, f = sketch.product, sketch.frame
    a, b = 0.95, p.uniform(0.5, 0.95)
    surface = body(sketch, look, shapes.box(f.u, f.v, a, b, p.uniform(0.02, 0.3)),
                   p.uniform(0.02, 0.12), p.uniform(0.02, 0.08))
    r = p.uniform(0.06, 0.11)
    inset = r + p.uniform(0.06, 0.14)
    corners = [(sx * (a - inset), sy * (b - inset)) for sx in (-1, 1) for sy in (-1, 1)]
    parts: list[Part] = []
    if p.random() < 0.4:
        for x, y in corners:
            drill(surface, f, shapes.circle(f.u - x, f.v - y, r))
    else:
        head = screw(p, r)
        parts = [Part(head, x, y, p.uniform(0, 3), r) for x, y in corners]
    style = p.random()
    w, h = p.uniform(0.25, 0.5), p.uniform(0.12, 0.5 * b)
    window = shapes.box(f.u, f.v, w, h, 0.04)
    if style < 0.35:
        drill(surface, f, window)
    elif style < 0.7:
        surface.tint(f.cover(window), contrasting(p, look.colour))
        print_lines(sketch, surface, w, h, look.colour)
    else:
        for k in range(p.randint(1, 5)):
            groove(surface, f, f.v - (k - 2) * 0.14, 0.015, 0.02)
    return item(sketch, look, surface, parts)


def print_lines(sketch: Sketch, surface, w: float, h: float, colour) -> None:
    """Rows of letter-like strokes inside a box of half sides (w, h)."""
    p, f = sketch.product, sketch.frame
    rows = max(1, int(h / 0.09))
    for row in range(rows):
        y = -h + (row + 0.5) * 2 * h / rows
        i = np.floor(f.u * (1 / 0.06))
        ink = (sketch.cells(i, np.full_like(i, row), fixed=True) > 0.3).astype(np.float32)
        line = f.cover(shapes.box(f.u, f.v - y, w * p.uniform(0.5, 0.85), 0.45 * h / rows))
        gap = smoothstep(np.abs(f.u / 0.06 - i - 0.5), 0.5, 0.35)
        surface.tint(0.85 * line * ink * gap, colour)


def washer(sketch: Sketch, look: Look) -> Item:
    """Ring, gasket or washer."""
    p, f = sketch.product, sketch.frame
    inner = p.uniform(0.3, 0.68)
    d = shapes.ring(f.u, f.v, inner, 0.95)
    surface = body(sketch, look, d, p.uniform(0.03, 0.2), p.uniform(0.04, 0.16))
    for _ in range(p.randint(0, 2)):
        groove(surface, f, shapes.circle(f.u, f.v, p.uniform(inner + 0.05, 0.9)), 0.015, 0.02)
    parts: list[Part] = []
    if p.random() < 0.35:
        n, r = p.randint(3, 8), 0.5 * (inner + 0.95)
        radius = 0.22 * (0.95 - inner)
        stud = round_part(p, jitter(p, colour_of("golden"), 0.1), radius, 0.7)
        parts = [Part(stud, r * math.cos(6.2832 * k / n), r * math.sin(6.2832 * k / n), 0, radius)
                 for k in range(n)]
    return item(sketch, look, surface, parts)


def tray(sketch: Sketch, look: Look) -> Item:
    """A tray of equal things in rows."""
    p, f = sketch.product, sketch.frame
    columns, rows = p.randint(2, 5), p.randint(2, 4)
    a, b = 0.95, 0.95 * min(1.0, rows / columns)
    surface = body(sketch, look, shapes.box(f.u, f.v, a, b, 0.1), 0.05, 0.06)
    step_x, step_y = 1.8 / columns, 1.9 * b / rows
    r = 0.38 * min(step_x, step_y)
    colour = contrasting(p, look.colour)
    thing = round_part(p, colour, r * 0.85) if p.random() < 0.6 else block_part(
        p, colour, r * 0.8, r * 0.8, 0.2 * r, 0.06, mark=look.colour)
    parts = []
    for i in range(columns):
        for j in range(rows):
            x, y = (i - (columns - 1) / 2) * step_x, (j - (rows - 1) / 2) * step_y
            pit = shapes.circle(f.u - x, f.v - y, r)
            surface.height -= 0.05 * f.cover(pit + 0.02)
            surface.shade(1 - 0.3 * f.cover(pit))
            parts.append(Part(thing, x, y, 0.0, r))
    return item(sketch, look, surface, parts)
