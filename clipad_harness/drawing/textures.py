"""Texture carriers of the pretraining and auxiliary categories."""

from __future__ import annotations

import math

import numpy as np

from clipad_harness.drawing.canvas import Sketch, Surface, smoothstep
from clipad_harness.drawing.items import Item, Look, contrasting, item


def sheet(sketch: Sketch, look: Look) -> Surface:
    return Surface.blank(sketch.size, look.colour, look.material.gloss)


def weave(sketch: Sketch, look: Look) -> Item:
    """Plain or twill weave of two yarns."""
    p, f = sketch.product, sketch.frame
    n = p.uniform(6, 16)
    u, v = f.u * n, f.v * n
    i, j = np.floor(u), np.floor(v)
    twill = p.choice((2, 2, 3, 4))
    over = ((i + j) % twill < twill / 2).astype(np.float32)
    ridge_u, ridge_v = np.sin(math.pi * (u - i)), np.sin(math.pi * (v - j))
    surface = sheet(sketch, look)
    second = look.colour if p.random() < 0.4 else contrasting(p, look.colour)
    surface.tint(1 - over, second)
    ridge = over * ridge_u + (1 - over) * ridge_v
    surface.height += ridge * (0.35 / n)
    surface.shade(0.55 + 0.45 * ridge)
    surface.shade(0.9 + 0.2 * sketch.cells(i * over, j * (1 - over)))
    out = item(sketch, look, surface)
    out.regions = [(i == i0).astype(np.float32) * over for i0 in (-1, 0, 1)]
    return out


def brick(sketch: Sketch, look: Look) -> Item:
    """Blocks in rows with joints."""
    p, f = sketch.product, sketch.frame
    n, ratio = p.uniform(2.2, 5), p.choice((1.0, 2.0, 2.5))
    v = f.v * n
    j = np.floor(v)
    u = f.u * (n / ratio) + (j % 2) * p.choice((0.0, 0.5, 0.33))
    i = np.floor(u)
    joint = p.uniform(0.03, 0.08)
    du, dv = (0.5 - np.abs(u - i - 0.5)) * ratio, 0.5 - np.abs(v - j - 0.5)
    edge = np.minimum(du, dv)
    block = smoothstep(edge, joint, joint + 0.06)
    surface = sheet(sketch, look)
    surface.shade(0.8 + 0.4 * sketch.cells(i, j))
    surface.tint(1 - block, contrasting(p, look.colour))
    surface.height += block * (0.12 / n)
    surface.polish(1 - block, 0.0)
    out = item(sketch, look, surface)
    out.regions = [block * (i == 0) * (j == j0) for j0 in (-1, 0)]
    return out


def cloudy(sketch: Sketch, look: Look) -> Item:
    """Marble, concrete, felt: clouds, veins and specks."""
    p = sketch.product
    surface = sheet(sketch, look)
    surface.shade(1 + p.uniform(0.03, 0.12) * sketch.noise("cloud"))
    if p.random() < 0.5:
        vein = 1 - smoothstep(np.abs(sketch.noise("cloud")), 0.0, p.uniform(0.1, 0.4))
        surface.tint(vein * p.uniform(0.2, 0.5), contrasting(p, look.colour))
    if p.random() < 0.5:
        speck = smoothstep(sketch.noise("mottle"), 1.6, 2.2)
        surface.tint(speck * p.uniform(0.3, 0.7), contrasting(p, look.colour))
    return item(sketch, look, surface)
