"""Object carriers of the target dataset; no other category is built from these."""

from __future__ import annotations

import math

import numpy as np

from clipad_harness.standin.drawing import shapes
from clipad_harness.standin.drawing.canvas import (
    Frame,
    Sketch,
    Surface,
    bevel,
    jitter,
    scaled,
    smoothstep,
)
from clipad_harness.standin.drawing.exact import Array, cos, exp, sin
from clipad_harness.standin.drawing.items import (
    Item,
    Look,
    PaintPart,
    Part,
    block_part,
    body,
    drill,
    item,
    round_part,
)
from clipad_harness.standin.drawing.palette import colour_of


def hex_nut(sketch: Sketch, look: Look) -> Item:
    """A nut from above: chamfered corners and a threaded bore."""
    f = sketch.frame
    d = shapes.polygon(f.u, f.v, 6, 0.84)
    surface = body(sketch, look, d, 0.05, 0.12)
    r = np.sqrt(f.u * f.u + f.v * f.v)
    surface.height -= smoothstep(r, 0.76, 1.0) * 0.12
    surface.height -= smoothstep(r, 0.56, 0.44) * 0.09
    thread = sin((r - 0.4) * (math.pi / 0.035)) * smoothstep(r, 0.53, 0.5)
    surface.shade(1 + 0.35 * thread)
    surface.shade(1 - 0.3 * f.cover(r - 0.52))
    drill(surface, f, r - 0.38)
    return item(sketch, look, surface)


def _tooth(look: Look, grain: Array, height: float) -> PaintPart:
    """A tooth that points away from the middle of the wheel, of the wheel's own metal."""

    def paint(surface: Surface, frame: Frame, x: float, y: float, angle: float) -> Array:
        u, v = frame.at(x, y, angle)
        flank = np.abs(v) - (0.085 - 0.28 * (u + 0.02))
        distance = np.maximum(flank, np.abs(u) - 0.15)
        cover = frame.cover(distance)
        surface.tint(cover, look.colour)
        surface.shade(1 + cover * (grain - 1))
        surface.raise_to(cover, np.maximum(bevel(distance, 0.03, height), surface.height))
        np.maximum(surface.alpha, cover, out=surface.alpha)
        return cover

    return paint


def gear_wheel(sketch: Sketch, look: Look) -> Item:
    """A toothed wheel with a hub, a keyway and round windows."""
    f = sketch.frame
    n = 14
    r = np.sqrt(f.u * f.u + f.v * f.v)
    surface = body(sketch, look, r - 0.76, 0.03, 0.07)
    surface.height -= 0.05 * smoothstep(r, 0.62, 0.58) * smoothstep(r, 0.3, 0.34)
    surface.shade(1 - 0.2 * smoothstep(r, 0.62, 0.58) * smoothstep(r, 0.3, 0.34))
    bore = shapes.union(r - 0.15, shapes.box(f.u, f.v - 0.15, 0.05, 0.06))
    drill(surface, f, bore)
    for k in range(5):
        a = 2 * math.pi * (k + 0.5) / 5
        drill(surface, f, shapes.circle(f.u - 0.46 * cos(a), f.v - 0.46 * sin(a), 0.085))
    grain = 1 + 0.06 * sketch.noise("cloud") + 0.04 * sketch.noise("grain")
    tooth = _tooth(look, grain, 0.07)
    parts = [
        Part(tooth, 0.83 * cos(a), 0.83 * sin(a), a, 0.1)
        for a in (2 * math.pi * k / n for k in range(n))
    ]
    return item(sketch, look, surface, parts)


def circuit_board(sketch: Sketch, look: Look) -> Item:
    """A board with copper tracks, chips, capacitors and a socket."""
    p, f = sketch.product, sketch.frame
    surface = body(sketch, look, shapes.box(f.u, f.v, 0.95, 0.78, 0.03), 0.03, 0.03)
    track = jitter(p, (look.colour[0] + 0.03, look.colour[1] + 0.13, look.colour[2] + 0.05), 0.01)
    gold = colour_of("golden")
    for k in range(9):
        x, y, bend = p.uniform(-0.8, 0.2), -0.62 + 0.155 * k, p.choice((-0.12, 0.12))
        d = shapes.union(
            shapes.segment(f.u, f.v, x, y, x + 0.3, y, 0.016),
            shapes.segment(f.u, f.v, x + 0.3, y, x + 0.42, y + bend, 0.016),
            shapes.segment(f.u, f.v, x + 0.42, y + bend, 0.85, y + bend, 0.016),
        )
        surface.tint(f.cover(d), track)
        surface.tint(f.cover(shapes.circle(f.u - x, f.v - y, 0.04)), gold)
    for sx in (-1, 1):
        for sy in (-1, 1):
            hole = shapes.circle(f.u - 0.84 * sx, f.v - 0.67 * sy, 0.05)
            surface.tint(f.cover(hole - 0.03), gold)
            drill(surface, f, hole)
    black, silver = (0.02, 0.02, 0.022), colour_of("silver")
    chip = block_part(p, black, 0.26, 0.2, 0.02, 0.05, 0.3, (0.35, 0.35, 0.35))
    small = block_part(p, (0.35, 0.24, 0.12), 0.07, 0.045, 0.01, 0.04, 0.4)
    socket = block_part(p, (0.5, 0.5, 0.48), 0.1, 0.3, 0.02, 0.06, 0.4, (0.1, 0.1, 0.1))
    can = round_part(p, silver, 0.115, 0.8)
    parts = [
        Part(chip, -0.28, -0.22, 0.0, 0.2),
        Part(chip, 0.2, 0.34, 1.5708, 0.2),
        Part(socket, 0.76, 0.1, 0.0, 0.12),
        Part(can, -0.68, 0.36, 0.3, 0.13),
        Part(can, -0.4, 0.46, 0.3, 0.13),
    ]
    parts += [
        Part(small, x, y, 0.0, 0.07)
        for x, y in (
            (0.2, -0.5),
            (0.4, -0.5),
            (0.6, -0.5),
            (-0.72, -0.1),
            (-0.72, 0.05),
            (0.46, -0.1),
        )
    ]
    legs = [
        shapes.box(f.u + 0.28, np.abs(f.v + 0.22) - 0.22, 0.24, 0.03),
        shapes.box(np.abs(f.u - 0.2) - 0.22, f.v - 0.34, 0.03, 0.24),
    ]
    stripes = (sin(f.u * 70), sin(f.v * 70))
    for leg, stripe in zip(legs, stripes, strict=True):
        surface.tint(f.cover(leg) * (stripe > 0), silver)
    return item(sketch, look, surface, parts)


def zip_fastener(sketch: Sketch, look: Look) -> Item:
    """Two strips of tape, a row of interlocking teeth and a slider."""
    p, f, rng = sketch.product, sketch.frame, sketch.instance
    d = shapes.box(f.u, f.v, 1.02, 0.6, 0.01)
    surface = body(sketch, look, d, 0.02, 0.02)
    i, j = np.floor(f.u * 22), np.floor(f.v * 22)
    surface.shade(0.9 + 0.2 * ((i + j) % 2))
    surface.height += 0.006 * sin(f.u * 69) * sin(f.v * 69)
    for y in (-0.42, 0.42):
        stitch = f.cover(np.abs(f.v - y) - 0.018) * (sin(f.u * 26) > -0.5)
        surface.tint(stitch * 0.7, scaled(look.colour, 2.2, 0.06))
        surface.height += 0.01 * stitch
    surface.shade(1 - 0.55 * f.cover(np.abs(f.v) - 0.06))
    metal = jitter(rng, colour_of("golden"), 0.03)
    tooth = block_part(p, metal, 0.033, 0.11, 0.02, 0.05, 0.85)
    n = 17
    parts = [
        Part(tooth, -0.96 + 1.92 * k / (n - 1), 0.05 if k % 2 else -0.05, 0.0, 0.12)
        for k in range(n)
    ]
    pull = rng.uniform(-0.6, 0.6)
    slider = block_part(p, metal, 0.13, 0.19, 0.07, 0.12, 0.9, (0.05, 0.04, 0.02))
    out = item(sketch, look, surface, parts)
    out.parts.append(Part(slider, pull, 0.0, 0.0, 0.3))
    return out


def door_key(sketch: Sketch, look: Look) -> Item:
    """A key: bow with an eye, shaft with a groove, bit with notches."""
    f = sketch.frame
    bow = shapes.wave_disc(f.u + 0.55, f.v, 0.36, 4, 0.04)
    shaft = shapes.box(f.u - 0.38, f.v, 0.6, 0.105, 0.04)
    bit = shapes.box(f.u - 0.5, f.v - 0.13, 0.44, 0.09, 0.01)
    notch = f.v - 0.16 + 0.075 * np.abs(((f.u * 4.2) % 1.0) - 0.5) * 2
    d = shapes.union(bow, shaft, np.maximum(bit, notch - 0.03))
    d = np.maximum(d, 0.7 * (np.abs(f.v) + f.u - 1.02))
    surface = body(sketch, look, d, 0.06, 0.07)
    channel = f.cover(shapes.box(f.u - 0.42, f.v + 0.02, 0.5, 0.028, 0.02))
    surface.height -= 0.035 * channel
    surface.shade(1 - 0.35 * channel)
    inner = f.cover(shapes.circle(f.u + 0.5, f.v, 0.2))
    surface.height -= 0.025 * inner
    drill(surface, f, shapes.circle(f.u + 0.72, f.v, 0.09))
    return item(sketch, look, surface)


def light_bulb(sketch: Sketch, look: Look) -> Item:
    """A bulb lying on its side: frosted glass and a screw cap."""
    f = sketch.frame
    globe = shapes.circle(f.u + 0.3, f.v, 0.6)
    neck = np.maximum(np.abs(f.v) - (0.56 - 0.55 * (f.u + 0.1)), np.abs(f.u - 0.15) - 0.33)
    glass = np.minimum(globe, neck)
    surface = body(
        sketch,
        look,
        shapes.union(
            glass,
            shapes.box(f.u - 0.68, f.v, 0.24, 0.24, 0.05),
            shapes.circle(f.u - 0.93, f.v, 0.09),
        ),
        0.4,
        0.3,
    )
    surface.height[:] = 0.8 * np.sqrt(
        np.maximum(0.02, 0.36 - np.square(np.minimum(f.u, 0) + 0.3) * (f.u < -0.3) - f.v * f.v)
    )
    cap = f.cover(shapes.box(f.u - 0.68, f.v, 0.24, 0.25, 0.03))
    surface.tint(cap, colour_of("silver"))
    turns = sin((f.u + 0.1 * f.v) * 52)
    surface.raise_to(cap, 0.7 * np.sqrt(np.maximum(0.004, 0.06 - f.v * f.v)) + 0.022 * turns)
    surface.shade(1 - 0.25 * cap * (turns < -0.3))
    surface.polish(cap, 0.8)
    tip = f.cover(0.9 - f.u)
    surface.tint(tip, (0.03, 0.03, 0.03))
    glow = exp(-(np.square(f.u + 0.3) + np.square(f.v)) * 4)
    surface.shade(1 + 0.12 * glow * (1 - cap))
    return item(sketch, look, surface)


def brush_head(sketch: Sketch, look: Look) -> Item:
    """The head of a brush from above: a handle and rows of coloured tufts."""
    p, f = sketch.product, sketch.frame
    d = shapes.union(
        shapes.box(f.u + 0.2, f.v, 0.76, 0.42, 0.36), shapes.box(f.u - 0.78, f.v, 0.4, 0.13, 0.08)
    )
    surface = body(sketch, look, d, 0.14, 0.09)
    tufts = [round_part(p, colour_of(name), 0.085, 0.1) for name in ("white", "turquoise")]
    parts = []
    for i in range(6):
        for j in range(4):
            x, y = -0.76 + 0.215 * i, -0.285 + 0.19 * j
            if abs(x + 0.22) > 0.5 and j in (0, 3):
                continue
            surface.shade(1 - 0.6 * f.cover(shapes.circle(f.u - x, f.v - y, 0.07)))
            parts.append(Part(tufts[(i + j) % 2], x, y, 0.0, 0.12))
    return item(sketch, look, surface, parts)
