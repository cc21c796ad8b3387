"""Colours by name, and materials: how a colour, a grain and a gloss go together."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from clipad_harness.standin.drawing.canvas import Colour, Sketch, Surface, jitter

COLOURS: dict[str, Colour] = {
    "white": (0.86, 0.86, 0.84),
    "light grey": (0.66, 0.66, 0.67),
    "grey": (0.46, 0.46, 0.47),
    "dark grey": (0.25, 0.25, 0.27),
    "black": (0.10, 0.10, 0.11),
    "red": (0.66, 0.12, 0.11),
    "dark red": (0.38, 0.07, 0.08),
    "orange": (0.82, 0.40, 0.08),
    "yellow": (0.84, 0.70, 0.14),
    "beige": (0.74, 0.65, 0.50),
    "brown": (0.40, 0.26, 0.16),
    "light brown": (0.66, 0.47, 0.29),
    "dark brown": (0.23, 0.15, 0.10),
    "green": (0.16, 0.46, 0.20),
    "dark green": (0.07, 0.26, 0.15),
    "olive": (0.40, 0.41, 0.16),
    "turquoise": (0.12, 0.54, 0.54),
    "blue": (0.13, 0.30, 0.66),
    "light blue": (0.46, 0.64, 0.80),
    "dark blue": (0.08, 0.13, 0.36),
    "violet": (0.36, 0.20, 0.52),
    "pink": (0.82, 0.48, 0.56),
}
METALS: dict[str, Colour] = {
    "silver": (0.58, 0.58, 0.60),
    "steel grey": (0.42, 0.43, 0.46),
    "golden": (0.68, 0.54, 0.26),
    "copper red": (0.66, 0.38, 0.26),
    "bright silver": (0.70, 0.71, 0.72),
}


@dataclass(frozen=True)
class Material:
    """`word` is the noun for captions; amplitudes are of the noise in albedo and in height."""

    word: str
    colours: tuple[str, ...]
    gloss: float
    grain: float = 0.03
    cloud: float = 0.03
    bump: float = 0.0
    brushed: float = 0.0

    def pick(self, rng: Random) -> str:
        """The name of a colour this material comes in."""
        return rng.choice(self.colours)


_ALL = tuple(COLOURS)
_EARTH = ("beige", "brown", "dark brown", "olive", "orange")
MATERIALS: dict[str, Material] = {
    "metal": Material("metal", tuple(METALS), 0.75, 0.03, 0.05, 0.0, 0.09),
    "cast": Material("metal", ("steel grey", "silver", "dark grey"), 0.35, 0.05, 0.05, 0.004),
    "painted": Material("painted metal", _ALL, 0.45, 0.02, 0.03),
    "plastic": Material("plastic", _ALL, 0.5, 0.012, 0.02),
    "rubber": Material(
        "rubber",
        ("black", "dark grey", "grey", "dark red", "dark blue", "brown"),
        0.10,
        0.04,
        0.04,
        0.001,
    ),
    "ceramic": Material(
        "ceramic",
        (
            "white",
            "beige",
            "light blue",
            "light grey",
            "turquoise",
            "dark green",
            "dark blue",
            "brown",
        ),
        0.8,
        0.012,
        0.04,
    ),
    "stone": Material(
        "stone",
        ("light grey", "grey", "dark grey", "beige", "brown", "white"),
        0.05,
        0.10,
        0.08,
        0.006,
    ),
    "card": Material(
        "cardboard", ("beige", "brown", "white", "light grey", "yellow"), 0.03, 0.035, 0.03, 0.001
    ),
    "wood": Material("wood", ("light brown", "brown", "beige"), 0.12, 0.03, 0.03),
    "food": Material("food", _EARTH + ("yellow", "red", "green"), 0.15, 0.06, 0.08, 0.006),
    "fabric": Material("fabric", _ALL, 0.04, 0.07, 0.04, 0.003),
}


def colour_of(name: str) -> Colour:
    """Linear reflectance; the tables hold what a screen shows, about its square root."""
    r, g, b = METALS[name] if name in METALS else COLOURS[name]
    return r * r, g * g, b * b


def other_colour(rng: Random, colour: Colour, least: float = 0.35) -> Colour:
    """A named colour that nobody takes for the given one (L1 distance at least `least`)."""
    reflectances = [colour_of(name) for name in COLOURS]
    r, g, b = colour
    far = [c for c in reflectances if abs(c[0] - r) + abs(c[1] - g) + abs(c[2] - b) >= least]
    return jitter(rng, rng.choice(far), 0.03)


def finish(surface: Surface, sketch: Sketch, material: Material) -> None:
    """Give a painted surface the grain of its material, in colour and in height."""
    rng = sketch.instance
    factor = 1 + material.cloud * rng.uniform(0.4, 1.4) * sketch.noise("cloud")
    factor += material.grain * rng.uniform(0.5, 1.5) * sketch.noise("grain")
    if material.brushed:
        u, v = sketch.frame.u, sketch.frame.v
        factor += material.brushed * rng.uniform(0.2, 1.3) * sketch.streaks(u, v)
    surface.shade(factor)
    if material.bump:
        surface.height += material.bump * rng.uniform(0.5, 1.3) * sketch.noise("mottle")
