"""Everyday object carriers of the pretraining and auxiliary categories."""

from __future__ import annotations

import numpy as np

from clipad_harness.standin.drawing import shapes
from clipad_harness.standin.drawing.canvas import Sketch, jitter, scaled, smoothstep
from clipad_harness.standin.drawing.exact import exp, power, sin
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


def ball(sketch: Sketch, look: Look) -> Item:
    """Fruit, pebble, marble: a rounded body, blotched, with a stalk or a stripe."""
    p, f, rng = sketch.product, sketch.frame, sketch.instance
    a, b = 0.92, p.uniform(0.62, 0.92)
    d = shapes.ellipse(f.u, f.v, a, b) + 0.02 * rng.uniform(0, 1) * sketch.noise("cloud")
    surface = body(sketch, look, d, 0.1, 0.1)
    dome = np.sqrt(np.maximum(0.03, 1 - np.square(f.u / a) - np.square(f.v / b)))
    surface.height[:] = p.uniform(0.3, 0.7) * dome
    surface.tint(np.clip(0.2 * sketch.noise("cloud"), 0, 0.5), contrasting(p, look.colour))
    style = p.random()
    if style < 0.4:
        x, y = p.uniform(-0.4, 0.4), p.uniform(-0.3, 0.3)
        pit = exp(-(np.square(f.u - x) + np.square(f.v - y)) * 30)
        surface.height -= 0.12 * pit
        stalk = f.cover(shapes.segment(f.u - x, f.v - y, 0, 0, 0.12, 0.16, 0.035))
        surface.tint(stalk, colour_of("dark brown"))
    elif style < 0.7:
        for k in range(p.randint(1, 3)):
            band = np.abs(f.v - 0.3 * sin(k * 2.4) - 0.2 * f.u * f.u) - p.uniform(0.02, 0.1)
            surface.tint(f.cover(band) * 0.8, contrasting(p, look.colour))
    return item(sketch, look, surface)


def biscuit(sketch: Sketch, look: Look) -> Item:
    """Baked goods: browned rim, docked or studded with crumbs."""
    p, f, rng = sketch.product, sketch.frame, sketch.instance
    lobes, square = p.choice((0, 12, 18, 24)), p.random() < 0.3
    rough = 0.012 * sketch.noise("cloud")
    if square:
        d = shapes.box(f.u, f.v, 0.9, p.uniform(0.6, 0.9), 0.12) + rough
    else:
        d = shapes.wave_disc(f.u, f.v, 0.88, lobes, 0.03 if lobes else 0.0) + rough
    surface = body(sketch, look, d, p.uniform(0.1, 0.4), p.uniform(0.08, 0.2))
    surface.shade(1 - 0.45 * smoothstep(d, -0.3, 0.0))
    if p.random() < 0.5:
        n = p.choice((2, 3, 4))
        for i in range(n):
            for j in range(n):
                x, y = (i - (n - 1) / 2) * 1.1 / n, (j - (n - 1) / 2) * 1.1 / n
                dimple = f.cover(shapes.circle(f.u - x, f.v - y, 0.05))
                surface.shade(1 - 0.55 * dimple)
                surface.height -= 0.03 * dimple
        return item(sketch, look, surface)
    crumb = round_part(p, contrasting(p, look.colour), p.uniform(0.06, 0.12), 0.2)
    parts = [
        Part(crumb, rng.uniform(-0.55, 0.55), rng.uniform(-0.45, 0.45), 0.0, 0.1)
        for _ in range(p.randint(4, 9))
    ]
    return item(sketch, look, surface, parts)


def card(sketch: Sketch, look: Look) -> Item:
    """Label, ticket or tag: flat print with a bar code, a picture and lines of text."""
    p, f = sketch.product, sketch.frame
    b = p.uniform(0.5, 0.8)
    surface = body(sketch, look, shapes.box(f.u, f.v, 0.95, b, p.uniform(0.0, 0.12)), 0.02, 0.012)
    ink = contrasting(p, look.colour)
    frame = np.abs(shapes.box(f.u, f.v, 0.86, b - 0.09, 0.05)) - 0.014
    if p.random() < 0.6:
        surface.tint(f.cover(frame), ink)
    x = p.choice((-0.4, 0.4))
    bars = sketch.cells(np.floor(f.u * 26), np.zeros_like(f.u), fixed=True) > 0.5
    code = shapes.box(f.u + x, f.v - 0.3 * b, 0.32, 0.3 * b)
    if p.random() < 0.5:
        surface.tint(f.cover(code) * bars, (0.01, 0.01, 0.01))
    if p.random() < 0.7:
        logo = shapes.polygon(f.u - x, f.v + 0.1, p.randint(3, 7), p.uniform(0.12, 0.24))
        surface.tint(f.cover(logo), contrasting(p, look.colour))
    print_lines(sketch, surface, 0.6, 0.3 * b, ink, -0.45 * b)
    if p.random() < 0.4:
        drill(surface, f, shapes.circle(f.u - 0.78, f.v, 0.07))
    return item(sketch, look, surface)


def cylinder(sketch: Sketch, look: Look) -> Item:
    """Battery, pen, candle, roller: lies on its side, with bands, caps and print."""
    p, f = sketch.product, sketch.frame
    b = p.uniform(0.2, 0.5)
    d = shapes.box(f.u, f.v, 0.95, b, p.uniform(0.02, 0.15))
    surface = body(sketch, look, d, 0.05, 0.05)
    surface.height[:] = np.sqrt(np.maximum(0.02 * b * b, b * b - f.v * f.v)) * 0.8
    for _ in range(p.randint(1, 4)):
        x, w = p.uniform(-0.9, 0.9), p.uniform(0.02, 0.2)
        band = f.cover(np.abs(f.u - x) - w)
        if p.random() < 0.6:
            surface.tint(band, contrasting(p, look.colour))
        else:
            surface.height -= 0.05 * band
    if p.random() < 0.5:
        nub = shapes.box(f.u - 0.98, f.v, 0.07, 0.3 * b, 0.02)
        cover = f.cover(nub)
        surface.tint(cover, colour_of("silver"))
        np.maximum(surface.alpha, cover, out=surface.alpha)
    if p.random() < 0.6:
        print_lines(sketch, surface, 0.4, 0.4 * b, contrasting(p, look.colour), 0.0)
    return item(sketch, look, surface)


def keypad(sketch: Sketch, look: Look) -> Item:
    """Keys, sockets or switches in rows on a housing."""
    p, f = sketch.product, sketch.frame
    columns, rows = p.randint(3, 6), p.randint(2, 5)
    b = min(0.95, 0.95 * rows / columns + 0.1)
    surface = body(sketch, look, shapes.box(f.u, f.v, 0.95, b, p.uniform(0.03, 0.2)), 0.06, 0.06)
    step_x, step_y = 1.75 / columns, 1.75 * b / rows
    a, h = 0.4 * step_x, 0.4 * step_y
    colours = [contrasting(p, look.colour) for _ in range(p.choice((1, 1, 2)))]
    keys = [block_part(p, c, a, h, 0.3 * min(a, h), 0.07, 0.4, look.colour) for c in colours]
    parts = []
    for i in range(columns):
        for j in range(rows):
            x, y = (i - (columns - 1) / 2) * step_x, (j - (rows - 1) / 2) * step_y
            socket = f.cover(shapes.box(f.u - x, f.v - y, a * 0.8, h * 0.8))
            surface.shade(1 - 0.5 * socket)
            parts.append(Part(keys[(i * 5 + j * 3) % len(keys)], x, y, 0.0, min(a, h)))
    return item(sketch, look, surface, parts)


def leaf(sketch: Sketch, look: Look) -> Item:
    """Leaf or feather: midrib and side veins."""
    p, f = sketch.product, sketch.frame
    width, point = p.uniform(0.35, 0.6), p.uniform(0.8, 1.4)
    edge = width * power(np.maximum(0, 1 - np.square(f.u / 0.95)), point)
    teeth = p.choice((0.0, 0.03)) * sin(f.u * 40)
    d = np.maximum(np.abs(f.v) - edge - teeth, np.abs(f.u) - 0.95) * 0.8
    surface = body(sketch, look, d, 0.03, 0.02)
    rib = smoothstep(np.abs(f.v), 0.035, 0.01)
    t = (f.u + np.abs(f.v) * -0.8) * p.uniform(4, 7)
    vein = smoothstep(np.abs(t - np.floor(t) - 0.5), 0.12, 0.04)
    light = scaled(look.colour, 1.6, 0.05)
    surface.tint(np.maximum(rib, 0.5 * vein) * 0.7, light)
    surface.height += 0.02 * rib + 0.01 * vein
    return item(sketch, look, surface)


def carton(sketch: Sketch, look: Look) -> Item:
    """A box from above: flaps, tape, a label."""
    p, f = sketch.product, sketch.frame
    b = p.uniform(0.6, 0.95)
    surface = body(sketch, look, shapes.box(f.u, f.v, 0.95, b, 0.02), 0.03, 0.04)
    groove(surface, f, f.v, 0.008, 0.02)
    if p.random() < 0.6:
        tape = f.cover(np.abs(f.v) - p.uniform(0.06, 0.14))
        surface.tint(0.7 * tape, contrasting(p, look.colour))
    if p.random() < 0.7:
        x, y = p.uniform(-0.4, 0.4), p.choice((-0.5, 0.5)) * b
        label = f.cover(shapes.box(f.u - x, f.v - y, 0.34, 0.24 * b, 0.02))
        surface.tint(label, (0.72, 0.72, 0.70))
        print_lines(sketch, surface, 0.26, 0.18 * b, (0.02, 0.02, 0.02), y, x)
    return item(sketch, look, surface)


def tool(sketch: Sketch, look: Look) -> Item:
    """Spoon, spatula, hammer or spanner: a handle and a head."""
    p, f = sketch.product, sketch.frame
    handle = shapes.box(f.u + 0.3, f.v, 0.66, p.uniform(0.06, 0.14), 0.05)
    kind = p.random()
    if kind < 0.35:
        head = shapes.ellipse(f.u - 0.6, f.v, 0.36, p.uniform(0.22, 0.34))
    elif kind < 0.7:
        head = shapes.box(f.u - 0.68, f.v, p.uniform(0.12, 0.25), p.uniform(0.3, 0.5), 0.05)
    else:
        jaw = shapes.circle(f.u - 0.66, f.v, 0.3)
        head = shapes.without(jaw, shapes.box(f.u - 0.86, f.v, 0.24, 0.12))
    surface = body(
        sketch, look, shapes.union(handle, head), p.uniform(0.05, 0.2), p.uniform(0.05, 0.12)
    )
    if kind < 0.35:
        surface.height -= 0.12 * smoothstep(head, -0.02, -0.2)
    if p.random() < 0.6:
        grip = f.cover(np.maximum(handle, f.u + p.uniform(0.1, 0.4)))
        surface.tint(grip, contrasting(p, look.colour))
        surface.shade(1 - 0.25 * grip * (sin(f.u * p.uniform(30, 60)) > 0.4))
    if p.random() < 0.4:
        drill(surface, f, shapes.circle(f.u + 0.84, f.v, 0.05))
    return item(sketch, look, surface)


def terminal(sketch: Sketch, look: Look) -> Item:
    """Connector or terminal block: a housing with a row of pins or screws."""
    p, f = sketch.product, sketch.frame
    b = p.uniform(0.3, 0.5)
    surface = body(sketch, look, shapes.box(f.u, f.v + 0.1, 0.95, b, 0.05), 0.05, 0.09)
    n = p.randint(4, 9)
    step = 1.75 / n
    metal = jitter(p, colour_of(p.choice(("golden", "silver"))), 0.05)
    head = screw(p, 0.32 * step)
    pin = block_part(p, metal, 0.16 * step, 0.3, 0.02, 0.05, 0.8)
    parts = []
    for k in range(n):
        x = (k - (n - 1) / 2) * step
        slot = f.cover(shapes.box(f.u - x, f.v + 0.1, 0.36 * step, b * 0.75, 0.02))
        surface.shade(1 - 0.35 * slot)
        surface.height -= 0.03 * slot
        parts.append(Part(head, x, -0.15, p.uniform(0, 3), 0.32 * step))
    if p.random() < 0.7:
        out = [Part(pin, (k - (n - 1) / 2) * step, b, 0.0, 0.3 * step) for k in range(n)]
        parts = out + parts
    return item(sketch, look, surface, parts)
