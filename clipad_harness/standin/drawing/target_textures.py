"""Texture carriers of the target dataset; no other category is built from these."""

from __future__ import annotations

import math

import numpy as np

from clipad_harness.standin.drawing.canvas import Sketch, Surface, scaled, smoothstep
from clipad_harness.standin.drawing.exact import Array, cos, exp, sin
from clipad_harness.standin.drawing.items import Item, Look, item
from clipad_harness.standin.drawing.palette import colour_of
from clipad_harness.standin.drawing.textures import cells_of, sheet


def wooden_floor(sketch: Sketch, look: Look) -> Item:
    """Floor boards: year rings that bend around a knot, pores, joints between the boards."""
    f, rng = sketch.frame, sketch.instance
    boards = f.v * 1.15 + rng.uniform(0, 1)
    j = np.floor(boards)
    tone, shift = sketch.cells(j, j), sketch.cells(j, j + 1)
    warp = sketch.noise("cloud")
    kx, ky = rng.uniform(-1.2, 1.2), rng.uniform(-1.0, 1.0)
    du, dv = f.u - kx, f.v - ky
    near = np.sqrt(du * du * 0.35 + dv * dv)
    rings = f.v + 0.06 * warp + shift * 3 + 0.1 * f.u * (tone - 0.5)
    rings += 0.16 * np.sign(dv) * exp(-near * 5) * (np.abs(dv) < 0.6)
    phase = rings * rng.uniform(6, 9) + 0.8 * sin(rings * 4)
    saw = phase - np.floor(phase)
    late = smoothstep(saw, 0.1, 0.85) * smoothstep(saw, 1.0, 0.88)
    surface = sheet(sketch, look)
    surface.shade((0.82 + 0.4 * tone) * (1.15 - rng.uniform(0.3, 0.5) * late))
    surface.shade(1 + rng.uniform(0.06, 0.13) * sketch.streaks(f.u, f.v, 1.5))
    knot = smoothstep(near, 0.12, 0.05)
    rim = smoothstep(np.abs(near - 0.09), 0.03, 0.0)
    surface.tint(0.55 * knot + 0.25 * rim, scaled(look.colour, 0.3))
    joint = np.abs(boards - j - 0.5) - 0.5
    gap = smoothstep(joint, -0.022, -0.006)
    surface.shade(1 - 0.8 * gap)
    surface.height -= 0.03 * gap - 0.004 * late
    return item(sketch, look, surface)


def leather_hide(sketch: Sketch, look: Look) -> Item:
    """Grained leather: small cushions between creases."""
    f, rng = sketch.frame, sketch.instance
    n = rng.uniform(8.5, 10.5)
    warp = 0.35 * sketch.noise("cloud")
    near, second, i, j = cells_of(sketch, f.u * n + warp, f.v * n - warp, 0.9)
    edge = second - near
    cushion = smoothstep(edge, 0.0, 0.45)
    surface = sheet(sketch, look)
    surface.height += cushion * 0.028
    surface.shade(0.66 + 0.34 * smoothstep(edge, 0.0, 0.2))
    surface.shade(0.94 + 0.12 * sketch.cells(i, j))
    surface.shade(1 + rng.uniform(0.05, 0.2) * sketch.noise("cloud"))
    if rng.random() < 0.5:
        _sewn_seam(sketch, surface, look)
    return item(sketch, look, surface)


def _sewn_seam(sketch: Sketch, surface: Surface, look: Look) -> None:
    """A fold with a row of light stitches beside it."""
    f, rng = sketch.frame, sketch.instance
    u, v = f.at(rng.uniform(-0.8, 0.8), 0.0, rng.choice((0.0, math.pi / 2)) + rng.gauss(0, 0.1))
    fold = smoothstep(np.abs(u), 0.05, 0.0)
    surface.height -= 0.06 * fold
    surface.shade(1 - 0.5 * smoothstep(np.abs(u), 0.03, 0.0))
    stitch = f.cover(np.abs(u - 0.14) - 0.02) * smoothstep(sin(v * 24), -0.5, -0.2)
    surface.tint(0.8 * stitch, scaled(look.colour, 2.5, 0.25))
    surface.height += 0.02 * stitch


def wire_mesh(sketch: Sketch, look: Look) -> Item:
    """Woven wire; between the wires the bench shows."""
    f = sketch.frame
    n = 4.6
    u, v = f.u * n, f.v * n
    i, j = np.floor(u), np.floor(v)
    du, dv = u - i - 0.5, v - j - 0.5
    half = 0.17
    sign = 1 - 2 * ((i + j) % 2)
    across, down = f.cover((np.abs(dv) - half) / n), f.cover((np.abs(du) - half) / n)
    wave_u, wave_v = sign * cos(du * math.pi), -sign * cos(dv * math.pi)
    surface = sheet(sketch, look)
    bulge_u = np.sqrt(np.maximum(0.0, half * half - dv * dv)) + 0.12 * wave_u
    bulge_v = np.sqrt(np.maximum(0.0, half * half - du * du)) + 0.12 * wave_v
    top = np.where(across * (bulge_u + 1) > down * (bulge_v + 1), bulge_u, bulge_v)
    surface.height[:] = top / n
    surface.shade(0.8 + 1.3 * np.clip(top, -0.3, 0.25))
    surface.alpha[:] = np.maximum(across, down)
    return item(sketch, look, surface)


def knitted_wool(sketch: Sketch, look: Look) -> Item:
    """Stocking stitch: columns of V-shaped loops."""
    f, rng = sketch.frame, sketch.instance
    n = rng.uniform(4.6, 5.4)
    warp = 0.05 * sketch.noise("cloud")
    u = f.u * n + warp
    i = np.floor(u)
    du = np.abs(u - i - 0.5)
    v = f.v * n * 1.15 + warp - du * 1.25
    j = np.floor(v)
    dv = v - j - 0.5
    across = np.sqrt(np.maximum(0, 1 - np.square(dv / 0.5)))
    side = np.sqrt(np.maximum(0, 1 - np.square((du - 0.25) / 0.27)))
    loop = across * side
    surface = sheet(sketch, look)
    surface.height += loop * (0.3 / n)
    surface.shade(0.3 + 0.7 * smoothstep(loop, 0.0, 0.6))
    yarn = sin((du * 2 + dv) * 16)
    surface.shade(1 + 0.1 * yarn)
    surface.shade(0.92 + 0.16 * sketch.cells(i, j))
    band = (np.floor(f.v * 1.2 + 0.3) % 2 == 0).astype(np.float32)
    surface.tint(0.65 * band * smoothstep(loop, 0.0, 0.3), colour_of("beige"))
    return item(sketch, look, surface)


def honeycomb_panel(sketch: Sketch, look: Look) -> Item:
    """Thin-walled hexagonal cells, seen into."""
    f = sketch.frame
    distance, i, j = hexagons(f.u * 4.0, f.v * 4.0)
    wall = f.cover((distance - 0.09) / 4.0)
    surface = sheet(sketch, look)
    depth = smoothstep(distance, 0.05, 0.5)
    surface.height += wall * 0.06 - 0.02 * depth
    surface.shade(wall + (1 - wall) * (0.16 + 0.12 * depth + 0.05 * sketch.cells(i, j)))
    surface.polish(1 - wall, 0.1)
    return item(sketch, look, surface)


def hexagons(u: Array, v: Array) -> tuple[Array, Array, Array]:
    """Distance to the wall of a hexagonal cell of width one, and the cell's integers."""
    h = math.sqrt(3)
    j0 = np.floor(v / h + 0.5)
    i0 = np.floor(u + 0.5)
    j1 = np.floor(v / h) + 0.5
    i1 = np.floor(u) + 0.5
    a, b = u - i0, v - j0 * h
    c, d = u - i1, v - j1 * h
    first = a * a + b * b < c * c + d * d
    x, y = np.abs(np.where(first, a, c)), np.abs(np.where(first, b, d))
    distance = 0.5 - np.maximum(x, 0.5 * x + 0.5 * h * y)
    return distance, np.where(first, i0, i1) * 2, np.where(first, j0, j1) * 2


def terrazzo_floor(sketch: Sketch, look: Look) -> Item:
    """Polished stone chips of several colours in cement."""
    f = sketch.frame
    surface = sheet(sketch, look)
    names = ("dark grey", "beige", "brown", "white", "dark red", "grey")
    for n, gap in ((3.3, 0.24), (7.0, 0.3)):
        near, second, i, j = cells_of(sketch, f.u * n + 0.12 * sketch.noise("cloud"), f.v * n, 0.95)
        lot = sketch.cells(i, j)
        chip = f.cover((gap - (second - near)) / n) * (lot < 0.66)
        pick = (lot * (len(names) / 0.66)).astype(np.int32).clip(0, len(names) - 1)
        table = np.asarray([colour_of(name) for name in names], np.float32).T
        surface.tint(chip * 0.9, table[:, pick])
    return item(sketch, look, surface)
