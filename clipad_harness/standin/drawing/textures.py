"""Texture carriers of the pretraining and auxiliary categories."""

from __future__ import annotations

import math

import numpy as np

from clipad_harness.standin.drawing.canvas import Sketch, Surface, jitter, smoothstep
from clipad_harness.standin.drawing.exact import Array, sin
from clipad_harness.standin.drawing.items import Item, Look, contrasting, item


def sheet(sketch: Sketch, look: Look) -> Surface:
    """A flat sheet over the whole image, this piece's shade of the product's colour."""
    colour = jitter(sketch.instance, look.colour, 0.02)
    return Surface.blank(sketch.size, colour, look.material.gloss)


def cells_of(sketch: Sketch, u: Array, v: Array, loose: float) -> tuple[Array, Array, Array, Array]:
    """Distances to the nearest and second-nearest seed of a jittered unit grid, and its cell.

    Worley's cellular basis; `loose` in [0, 1] is how far seeds leave their cell's middle.
    """
    i0, j0 = np.floor(u), np.floor(v)
    state = sketch.instance.getstate()
    near = np.full(u.shape, 9.0, np.float32)
    second, ni, nj = near.copy(), i0.copy(), j0.copy()
    for dj in (-1, 0, 1):
        for di in (-1, 0, 1):
            i, j = i0 + di, j0 + dj
            sketch.instance.setstate(state)  # every neighbour reads the same two tables
            x = i + 0.5 + loose * (sketch.cells(i, j) - 0.5) - u
            y = j + 0.5 + loose * (sketch.cells(i, j) - 0.5) - v
            d = np.sqrt(x * x + y * y)
            closer = d < near
            second = np.minimum(second, np.maximum(near, d))
            near = np.minimum(near, d)
            ni, nj = np.where(closer, i, ni), np.where(closer, j, nj)
    return near, second, ni, nj


def weave(sketch: Sketch, look: Look) -> Item:
    """Plain or twill weave of two yarns."""
    p, f = sketch.product, sketch.frame
    n = p.uniform(5, 14)
    u, v = f.u * n, f.v * n
    i, j = np.floor(u), np.floor(v)
    twill = p.choice((2, 2, 3, 4))
    over = ((i + j) % twill < twill / 2).astype(np.float32)
    ridge = over * sin(math.pi * (u - i)) + (1 - over) * sin(math.pi * (v - j))
    surface = sheet(sketch, look)
    second = look.colour if p.random() < 0.4 else contrasting(p, look.colour)
    surface.tint(1 - over, second)
    surface.height += ridge * (0.35 / n)
    surface.shade((0.55 + 0.45 * ridge) * (0.9 + 0.2 * sketch.cells(i * over, j * (1 - over))))
    return item(sketch, look, surface)


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
    block = smoothstep(np.minimum(du, dv), joint, joint + 0.06)
    surface = sheet(sketch, look)
    spread = p.uniform(0.05, 0.5)
    surface.shade(1 - spread / 2 + spread * sketch.cells(i, j))
    surface.tint(1 - block, contrasting(p, look.colour))
    surface.height += block * (0.12 / n)
    surface.gloss *= block
    return item(sketch, look, surface)


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


def granules(sketch: Sketch, look: Look) -> Item:
    """Cork, gravel, foam: many small grains, each with its own shade."""
    p, f = sketch.product, sketch.frame
    n = p.uniform(5, 13)
    near, second, i, j = cells_of(sketch, f.u * n, f.v * n * p.uniform(0.7, 1.3), 0.9)
    round_ = smoothstep(second - near, 0.0, p.uniform(0.15, 0.5))
    surface = sheet(sketch, look)
    spread = p.uniform(0.2, 0.8)
    surface.shade((1 - spread / 2 + spread * sketch.cells(i, j)) * (0.55 + 0.45 * round_))
    surface.height += round_ * p.uniform(0.0, 0.3) / n
    if p.random() < 0.4:
        surface.tint((sketch.cells(i, j) < 0.15) * round_, contrasting(p, look.colour))
    return item(sketch, look, surface)


def mosaic(sketch: Sketch, look: Look) -> Item:
    """Patches of a few colours: camouflage, confetti, patchwork, agate."""
    p, f = sketch.product, sketch.frame
    n, blend = p.uniform(1.5, 6), p.uniform(0.0, 0.5)
    warp = p.uniform(0.0, 0.5) * sketch.noise("cloud")
    if p.random() < 0.5:
        _, _, i, j = cells_of(sketch, f.u * n + warp, f.v * n - warp, p.uniform(0.3, 1))
    else:
        i, j = np.floor(f.u * n + warp), np.floor(f.v * n - warp)
    lot = sketch.cells(i, j)
    surface = sheet(sketch, look)
    for _ in range(p.randint(1, 3)):
        low = p.random()
        surface.tint((np.abs(lot - low) < 0.16) * (1 - blend), contrasting(p, look.colour))
    surface.shade(0.92 + 0.16 * lot)
    return item(sketch, look, surface)


def pile(sketch: Sketch, look: Look) -> Item:
    """Carpet, sand, turf, sandpaper: rough, without any pattern but soft tracks."""
    p, f = sketch.product, sketch.frame
    surface = sheet(sketch, look)
    rough = p.uniform(0.08, 0.28)
    surface.shade(np.maximum(0.1, 1 + rough * sketch.noise("grain")))
    surface.shade(1 + p.uniform(0.0, 0.2) * sketch.noise("mottle"))
    surface.height += p.uniform(0.002, 0.012) * sketch.noise("mottle")
    if p.random() < 0.4:
        track = sin(f.v * p.uniform(3, 9) + 0.6 * sketch.noise("cloud"))
        surface.height += p.uniform(0.005, 0.02) * track
        surface.shade(1 + 0.1 * track)
    return item(sketch, look, surface)


def stripes(sketch: Sketch, look: Look) -> Item:
    """Printed or woven stripes, checks or tartan."""
    p, f = sketch.product, sketch.frame
    surface = sheet(sketch, look)
    ways = p.choice((1, 1, 2))
    for _ in range(p.randint(1, 3)):
        n, phase, width = p.uniform(1.5, 6), p.random(), p.uniform(0.1, 0.6)
        colour, thick = contrasting(p, look.colour), p.uniform(0.5, 0.95)
        for way in range(ways):
            t = (f.v if way else f.u) * n + phase
            t = np.abs(t - np.floor(t) - 0.5) * (1 / n)
            surface.tint(f.cover(t - 0.5 * width / n) * thick, colour)
    surface.height += 0.004 * sin(f.u * 60) * sin(f.v * 60) * p.choice((0, 1))
    return item(sketch, look, surface)


def ribbed(sketch: Sketch, look: Look) -> Item:
    """Parallel ridges: corrugated sheet, corduroy, tread."""
    p, f = sketch.product, sketch.frame
    n, flat = p.uniform(3, 11), p.uniform(0.2, 1.0)
    t = sin(f.u * n * math.pi)
    ridge = np.clip(t * (1 / flat), -1, 1)
    surface = sheet(sketch, look)
    surface.height += ridge * p.uniform(0.08, 0.25) / n
    surface.shade(0.85 + 0.15 * ridge)
    if p.random() < 0.35:
        cross = np.clip(sin(f.v * n * math.pi * p.uniform(0.4, 1)) * 3, -1, 1)
        surface.height -= 0.1 / n * cross
        surface.shade(0.9 + 0.1 * cross)
    return item(sketch, look, surface)


def perforated(sketch: Sketch, look: Look) -> Item:
    """A sheet with rows of holes, or of raised or printed dots."""
    p, f = sketch.product, sketch.frame
    n = p.uniform(2.5, 6)
    v = f.v * n
    j = np.floor(v)
    u = f.u * n + (j % 2) * p.choice((0.0, 0.5))
    du, dv = u - np.floor(u) - 0.5, v - j - 0.5
    radius, style = p.uniform(0.14, 0.36), p.random()
    square = p.random() < 0.25
    d = np.maximum(np.abs(du), np.abs(dv)) if square else np.sqrt(du * du + dv * dv)
    d = (d - radius) / n
    surface = sheet(sketch, look)
    if style < 0.5:
        surface.height -= 0.03 * f.cover(np.abs(d) - 0.02)
        surface.cut(f.cover(d))
    elif style < 0.75:
        surface.height += 0.05 * smoothstep(d, 0.0, -radius / n)
    else:
        surface.tint(f.cover(d), contrasting(p, look.colour))
    return item(sketch, look, surface)


def quilted(sketch: Sketch, look: Look) -> Item:
    """Cushions between seams: quilt, upholstery, waffle, embossed paper."""
    p, f = sketch.product, sketch.frame
    n, turn = p.uniform(1.6, 4), p.choice((0.0, math.pi / 4))
    u, v = f.at(0, 0, turn)
    du, dv = sin(u * n * math.pi), sin(v * n * math.pi)
    swell = np.sqrt(np.abs(du * dv))
    surface = sheet(sketch, look)
    surface.height += swell * p.uniform(0.15, 0.4) / n * p.choice((1, 1, -1))
    seam = smoothstep(np.minimum(np.abs(du), np.abs(dv)), 0.16, 0.02)
    surface.shade(1 - p.uniform(0.1, 0.5) * seam)
    if p.random() < 0.4:
        stitch = seam * (sin((u + v) * 45) > 0)
        surface.tint(0.7 * stitch, contrasting(p, look.colour))
    return item(sketch, look, surface)


def scales(sketch: Sketch, look: Look) -> Item:
    """Overlapping rounded plates: roof tiles, shingles, sequins."""
    p, f = sketch.product, sketch.frame
    n = p.uniform(2.2, 5)
    v = f.v * n
    surface = sheet(sketch, look)
    j = np.floor(v)
    u = f.u * n * p.uniform(0.6, 1.0) + 0.5 * (j % 2)
    i = np.floor(u)
    du, dv = u - i - 0.5, v - j
    below = dv - np.sqrt(np.maximum(0.0, 1.0 - 2.6 * du * du)) + 0.12
    row = j + (below > 0)
    side = np.where(below > 0, np.floor(u + 0.5), i)
    lip = smoothstep(np.abs(below), 0.14, 0.0)
    surface.height += 0.25 / n * np.where(below > 0, below * 0.3, dv)
    surface.shade((1 - 0.35 * lip * (below > 0)) * (0.85 + 0.3 * sketch.cells(side, row)))
    return item(sketch, look, surface)


def brushed(sketch: Sketch, look: Look) -> Item:
    """Metal or paper with streaks along one way, and perhaps a printed or milled pattern."""
    p, f = sketch.product, sketch.frame
    surface = sheet(sketch, look)
    surface.shade(1 + p.uniform(0.05, 0.14) * sketch.streaks(f.u, f.v, p.uniform(0.5, 2)))
    if p.random() < 0.4:  # the tread of a chequer plate
        n = p.uniform(2.5, 4.5)
        i, j = np.floor(f.u * n), np.floor(f.v * n)
        flip = 1 - 2 * ((i + j) % 2)
        du, dv = f.u * n - i - 0.5, f.v * n - j - 0.5
        a, b = (du + flip * dv) * 0.7071, (flip * du - dv) * 0.7071
        bar = smoothstep(np.sqrt(np.square(a / 0.42) + np.square(b / 0.13)), 1.15, 0.7)
        surface.height += bar * 0.12 / n
    return item(sketch, look, surface)
