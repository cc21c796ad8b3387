"""Machined and moulded object carriers of the pretraining and auxiliary categories."""

from __future__ import annotations

import math

import numpy as np

from clipad_harness.standin.drawing import shapes
from clipad_harness.standin.drawing.canvas import Sketch, jitter
from clipad_harness.standin.drawing.exact import sin
from clipad_harness.standin.drawing.items import (
    Item,
    Look,
    Part,
    block_part,
    body,
    contrasting,
    drill,
    groove,
    item,
    print_lines,
    round_part,
    screw,
)
from clipad_harness.standin.drawing.palette import colour_of


def around(n: int, radius: float) -> list[tuple[float, float]]:
    """So many points evenly on a circle."""
    return [(radius * x, radius * y) for x, y in shapes.directions(n)]


def disc(sketch: Sketch, look: Look) -> Item:
    """Coin, lid, cap or button: rim, grooves, an emblem, holes or studs on a circle."""
    p, f = sketch.product, sketch.frame
    d = shapes.circle(f.u, f.v, 0.95)
    surface = body(sketch, look, d, p.uniform(0.04, 0.3), p.uniform(0.04, 0.14))
    for _ in range(p.randint(0, 3)):
        groove(
            surface,
            f,
            shapes.circle(f.u, f.v, p.uniform(0.25, 0.85)),
            p.uniform(0.01, 0.04),
            p.uniform(0.01, 0.04),
        )
    if p.random() < 0.4:
        emblem = shapes.polygon(f.u, f.v, p.randint(3, 6), p.uniform(0.12, 0.25))
        surface.tint(f.cover(emblem) * 0.8, contrasting(p, look.colour))
    style, n, r = p.random(), p.randint(2, 8), p.uniform(0.4, 0.7)
    radius = min(p.uniform(0.07, 0.16), 0.7 * r * sin(math.pi / n))
    parts: list[Part] = []
    if style < 0.35:
        for x, y in around(n, r):
            drill(surface, f, shapes.circle(f.u - x, f.v - y, radius))
    elif style < 0.75:
        stud = (
            screw(p, radius)
            if p.random() < 0.4
            else round_part(p, contrasting(p, look.colour), radius)
        )
        parts = [Part(stud, x, y, p.uniform(0, 3), radius) for x, y in around(n, r)]
    return item(sketch, look, surface, parts)


def button(sketch: Sketch, look: Look) -> Item:
    """A sewing button: raised rim, two or four holes."""
    p, f = sketch.product, sketch.frame
    surface = body(sketch, look, shapes.circle(f.u, f.v, 0.95), 0.12, 0.12)
    surface.height -= 0.08 * f.cover(shapes.circle(f.u, f.v, p.uniform(0.55, 0.7)))
    groove(surface, f, shapes.circle(f.u, f.v, 0.72), 0.02, 0.03)
    for x, y in around(p.choice((2, 4, 4)), p.uniform(0.2, 0.28)):
        drill(surface, f, shapes.circle(f.u - x, f.v - y, 0.1))
    return item(sketch, look, surface)


def plate(sketch: Sketch, look: Look) -> Item:
    """A face plate: rounded box with holes or screws in the corners, a label, lines."""
    p, f = sketch.product, sketch.frame
    a, b = 0.95, p.uniform(0.5, 0.95)
    surface = body(
        sketch,
        look,
        shapes.box(f.u, f.v, a, b, p.uniform(0.02, 0.3)),
        p.uniform(0.02, 0.12),
        p.uniform(0.02, 0.08),
    )
    r = p.uniform(0.06, 0.11)
    inset = r + p.uniform(0.06, 0.14)
    corners = [(sx * (a - inset), sy * (b - inset)) for sx in (-1, 1) for sy in (-1, 1)]
    style, w, h = p.random(), p.uniform(0.25, 0.5), p.uniform(0.12, 0.5 * b)
    window = shapes.box(f.u, f.v, w, h, 0.04)
    if style < 0.35:
        drill(surface, f, window)
    elif style < 0.7:
        surface.tint(f.cover(window), contrasting(p, look.colour))
        print_lines(sketch, surface, w, h, look.colour)
    else:
        for k in range(p.randint(1, 5)):
            groove(surface, f, f.v - (k - 2) * 0.14, 0.015, 0.02)
    parts: list[Part] = []
    if p.random() < 0.4:
        for x, y in corners:
            drill(surface, f, shapes.circle(f.u - x, f.v - y, r))
    else:
        head = screw(p, r)
        parts = [Part(head, x, y, p.uniform(0, 3), r) for x, y in corners]
    return item(sketch, look, surface, parts)


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
        radius = 0.22 * (0.95 - inner)
        stud = round_part(p, jitter(p, colour_of("golden"), 0.1), radius, 0.7)
        parts = [
            Part(stud, x, y, 0.0, radius) for x, y in around(p.randint(3, 8), 0.5 * (inner + 0.95))
        ]
    return item(sketch, look, surface, parts)


def bracket(sketch: Sketch, look: Look) -> Item:
    """L, T or U of flat bars with screw holes."""
    p, f = sketch.product, sketch.frame
    w, c = p.uniform(0.16, 0.3), p.uniform(0.02, 0.12)
    kind = p.randrange(3)
    base = shapes.box(f.u, f.v - 0.9 + w, 0.95, w, c)
    if kind == 0:
        d = shapes.union(base, shapes.box(f.u + 0.95 - w, f.v, w, 0.9, c))
        holes = [(-0.95 + w, -0.6), (-0.95 + w, 0.1), (0.15, 0.9 - w), (0.7, 0.9 - w)]
    elif kind == 1:
        d = shapes.union(base, shapes.box(f.u, f.v, w, 0.9, c))
        holes = [(0.0, -0.6), (0.0, 0.0), (-0.65, 0.9 - w), (0.65, 0.9 - w)]
    else:
        d = shapes.union(base, shapes.box(np.abs(f.u) - 0.95 + w, f.v, w, 0.9, c))
        holes = [(-0.95 + w, -0.6), (0.95 - w, -0.6), (-0.3, 0.9 - w), (0.3, 0.9 - w)]
    surface = body(sketch, look, d, p.uniform(0.03, 0.1), p.uniform(0.03, 0.08))
    r = w * p.uniform(0.35, 0.5)
    if p.random() < 0.5:
        for x, y in holes:
            drill(surface, f, shapes.circle(f.u - x, f.v - y, r))
        return item(sketch, look, surface)
    head = screw(p, r)
    return item(sketch, look, surface, [Part(head, x, y, p.uniform(0, 3), r) for x, y in holes])


def flange(sketch: Sketch, look: Look) -> Item:
    """A lobed or many-sided plate with a bore and a circle of bolts."""
    p, f = sketch.product, sketch.frame
    n = p.randint(3, 6)
    if p.random() < 0.5:
        d = shapes.wave_disc(f.u, f.v, 0.82, n, p.uniform(0.06, 0.13))
    else:
        d = shapes.polygon(f.u, f.v, n if n != 6 else 8, 0.74) - 0.08
    surface = body(sketch, look, d, p.uniform(0.04, 0.15), p.uniform(0.04, 0.1))
    bore = p.uniform(0.2, 0.36)
    collar = shapes.ring(f.u, f.v, bore, bore + 0.13)
    surface.raise_to(f.cover(collar), 0.16)
    drill(surface, f, shapes.circle(f.u, f.v, bore))
    r = p.uniform(0.07, 0.11)
    if p.random() < 0.4:
        for x, y in around(n, 0.68):
            drill(surface, f, shapes.circle(f.u - x, f.v - y, r))
        return item(sketch, look, surface)
    head = round_part(p, colour_of("steel grey"), r, 0.7)
    return item(sketch, look, surface, [Part(head, x, y, 0.0, r) for x, y in around(n, 0.68)])


def wheel(sketch: Sketch, look: Look) -> Item:
    """A rim, spokes and a hub, perhaps with a tyre of another colour."""
    p, f = sketch.product, sketch.frame
    n, w, rim = p.randint(3, 8), p.uniform(0.05, 0.1), p.uniform(0.68, 0.8)
    r = np.sqrt(f.u * f.u + f.v * f.v)
    spoke = np.maximum(shapes.rays(f.u, f.v, n) - w, r - 0.9)
    hub = p.uniform(0.18, 0.28)
    d = shapes.union(shapes.ring(f.u, f.v, rim, 0.95), spoke, r - hub)
    surface = body(sketch, look, d, 0.05, 0.09)
    if p.random() < 0.5:
        tyre = f.cover(np.abs(r - 0.9) - 0.06)
        surface.tint(tyre, colour_of("black"))
        surface.polish(tyre, 0.1)
    if p.random() < 0.5:
        drill(surface, f, r - 0.4 * hub)
        return item(sketch, look, surface)
    bolt = screw(p, 0.5 * hub)
    return item(sketch, look, surface, [Part(bolt, 0.0, 0.0, p.uniform(0, 3), 0.5 * hub)])


def moulding(sketch: Sketch, look: Look) -> Item:
    """A part of no common name: a few bars and discs grown together, with bores and bosses."""
    p, f = sketch.product, sketch.frame
    mirrored = p.random() < 0.6
    mirror = np.abs(f.u) if mirrored else f.u
    grown, spots = [], []
    for _ in range(p.randint(2, 5)):
        x, y = p.uniform(0.0 if mirrored else -0.55, 0.55), p.uniform(-0.6, 0.6)
        u, v = mirror - x, f.v - y
        if p.random() < 0.5:
            r = p.uniform(0.18, 0.4)
            grown.append(shapes.circle(u, v, r))
            spots.append((x, y, r))
        else:
            grown.append(shapes.box(u, v, p.uniform(0.1, 0.45), p.uniform(0.1, 0.4), 0.06))
    grown.append(shapes.segment(mirror, f.v, p.uniform(-0.5, 0.5), -0.6, 0.0, 0.6, 0.16))
    d = shapes.union(*grown) + p.uniform(-0.04, 0.02)
    surface = body(sketch, look, d, p.uniform(0.03, 0.2), p.uniform(0.04, 0.15))
    parts: list[Part] = []
    for x, y, r in spots:
        style = p.random()
        if style < 0.35:
            drill(surface, f, shapes.circle(mirror - x, f.v - y, 0.5 * r))
        elif style < 0.7:
            surface.raise_to(f.cover(shapes.ring(mirror - x, f.v - y, 0.45 * r, 0.7 * r)), 0.15)
        else:
            parts.append(Part(screw(p, 0.4 * r), x, y, p.uniform(0, 3), 0.4 * r))
    return item(sketch, look, surface, parts)


def tray(sketch: Sketch, look: Look) -> Item:
    """A tray of equal things in rows."""
    p, f = sketch.product, sketch.frame
    columns, rows = p.randint(2, 5), p.randint(2, 4)
    b = 0.95 * min(1.0, rows / columns)
    surface = body(sketch, look, shapes.box(f.u, f.v, 0.95, b, 0.1), 0.05, 0.06)
    step_x, step_y = 1.8 / columns, 1.9 * b / rows
    r = 0.38 * min(step_x, step_y)
    colour = contrasting(p, look.colour)
    paint = (
        round_part(p, colour, r * 0.85)
        if p.random() < 0.6
        else block_part(p, colour, r * 0.8, r * 0.8, 0.2 * r, 0.06, mark=look.colour)
    )
    parts = []
    for i in range(columns):
        for j in range(rows):
            x, y = (i - (columns - 1) / 2) * step_x, (j - (rows - 1) / 2) * step_y
            pit = shapes.circle(f.u - x, f.v - y, r)
            surface.height -= 0.05 * f.cover(pit + 0.02)
            surface.shade(1 - 0.3 * f.cover(pit))
            parts.append(Part(paint, x, y, 0.0, r))
    return item(sketch, look, surface, parts)
