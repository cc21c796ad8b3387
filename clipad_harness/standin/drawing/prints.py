"""What belongs on a product though it looks busy: prints, speckles, seams, marks.

A detector has to learn that not every edge is a defect, so many sound things carry one of these.
"""

from __future__ import annotations

import math

import numpy as np

from clipad_harness.standin.drawing import shapes
from clipad_harness.standin.drawing.canvas import Sketch, Surface, smoothstep
from clipad_harness.standin.drawing.items import Look, contrasting, print_lines


def decorate(surface: Surface, sketch: Sketch, look: Look) -> None:
    """Put one print or seam on a finished body, by the product."""
    sketch.product.choice((_stripes, _dots, _speckle, _seam, _mark, _text, _zones))(
        surface, sketch, look
    )


def _stripes(surface: Surface, sketch: Sketch, look: Look) -> None:
    p = sketch.product
    u, _ = sketch.frame.at(0, 0, p.choice((0.0, math.pi / 2, 0.8)))
    n, width = p.uniform(2, 7), p.uniform(0.15, 0.5)
    t = np.abs(u * n - np.floor(u * n) - 0.5)
    surface.tint(0.8 * sketch.frame.cover((t - 0.5 * width) / n), contrasting(p, look.colour))


def _dots(surface: Surface, sketch: Sketch, look: Look) -> None:
    p, f = sketch.product, sketch.frame
    n, radius = p.uniform(2.5, 6), p.uniform(0.15, 0.35)
    du, dv = f.u * n - np.floor(f.u * n) - 0.5, f.v * n - np.floor(f.v * n) - 0.5
    dot = f.cover(shapes.circle(du, dv, radius) / n)
    surface.tint(0.85 * dot, contrasting(p, look.colour))


def _speckle(surface: Surface, sketch: Sketch, look: Look) -> None:
    p = sketch.product
    level = p.uniform(1.2, 2.0)
    speck = smoothstep(sketch.noise("mottle"), level, level + 0.4)
    surface.tint(speck * p.uniform(0.3, 0.8), contrasting(p, look.colour))


def _seam(surface: Surface, sketch: Sketch, look: Look) -> None:
    """A moulding line or a joint straight across."""
    p, f = sketch.product, sketch.frame
    u, _ = f.at(p.uniform(-0.4, 0.4), 0, p.choice((0.0, math.pi / 2)))
    line = f.cover(np.abs(u) - p.uniform(0.008, 0.02))
    surface.height += p.choice((-0.02, 0.02)) * line
    surface.shade(1 - p.uniform(0.0, 0.35) * line)


def _mark(surface: Surface, sketch: Sketch, look: Look) -> None:
    """A logo: a ring with a shape in it."""
    p, f = sketch.product, sketch.frame
    x, y, r = p.uniform(-0.4, 0.4), p.uniform(-0.3, 0.3), p.uniform(0.12, 0.28)
    u, v = f.at(x, y)
    logo = shapes.union(
        shapes.ring(u, v, 0.8 * r, r), shapes.polygon(u, v, p.randint(3, 6), 0.45 * r)
    )
    surface.tint(0.85 * f.cover(logo), contrasting(p, look.colour))


def _text(surface: Surface, sketch: Sketch, look: Look) -> None:
    p = sketch.product
    print_lines(
        sketch,
        surface,
        p.uniform(0.3, 0.6),
        p.uniform(0.06, 0.2),
        contrasting(p, look.colour),
        p.uniform(-0.4, 0.4),
        p.uniform(-0.2, 0.2),
    )


def _zones(surface: Surface, sketch: Sketch, look: Look) -> None:
    """Two colours that meet along a straight or a round line."""
    p, f = sketch.product, sketch.frame
    if p.random() < 0.5:
        u, _ = f.at(p.uniform(-0.4, 0.4), 0, p.uniform(0, math.pi))
        zone = f.cover(u)
    else:
        zone = f.cover(shapes.circle(f.u, f.v, p.uniform(0.3, 0.7)))
    surface.tint(zone * p.uniform(0.5, 0.95), contrasting(p, look.colour))
