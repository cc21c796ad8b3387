"""Minimal pairs: one thing drawn sound and damaged from the same seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import numpy as np

from clipad_core.errors import ClipadError
from clipad_harness.standin.drawing.canvas import Frame, Sketch, Surface, grid, pose
from clipad_harness.standin.drawing.catalogue import CATALOGUE, Category
from clipad_harness.standin.drawing.defects import PART_DEFECTS, SURFACE_DEFECTS, damage_part
from clipad_harness.standin.drawing.exact import Array, total
from clipad_harness.standin.drawing.items import Item, Look
from clipad_harness.standin.drawing.noise import Chance
from clipad_harness.standin.drawing.palette import MATERIALS
from clipad_harness.standin.drawing.prints import decorate
from clipad_harness.standin.drawing.scene import (
    Scene,
    expose,
    make_scene,
    photograph,
    random_frame,
    render,
)

VISIBLE = 7.0  # grey levels from which a change counts as touched
WEAKEST = 14.0  # mean change within the mask, grey levels
SMALLEST = 0.0011  # least share of the image, ten pixels of 96 x 96
ATTEMPTS = 30


@dataclass(frozen=True)
class Pair:
    """The same thing without and with one defect.

    sound, damaged: (size, size, 3) uint8, equal outside the mask. mask: (size, size) bool.
    name, colour, material, defect: words for a caption, as "metal washer", "dark blue", "metal",
    "missing part".
    """

    sound: Array
    damaged: Array
    mask: Array
    name: str
    colour: str
    material: str
    defect: str


def words(identifier: str) -> str:
    """The caption form of a category or defect name.

    >>> words("missing_part")
    'missing part'
    """
    return identifier.replace("_", " ")


def defects_of(category: str) -> tuple[str, ...]:
    """The defects a category can show, in the order of the catalogue."""
    return _spec(category).defects


def is_texture(category: str) -> bool:
    """Whether a category fills the image, rather than lying on a background."""
    return _spec(category).texture


def draw_sound(category: str, seed: int, size: int) -> Array:
    """The sound half of `draw_pair` alone, (size, size, 3) uint8."""
    _, _, _, scene, before = _photograph_sound(category, seed, size)
    return expose(before, scene)


def draw_pair(category: str, seed: int, size: int, defect: str | None = None) -> Pair:
    """Draw one thing twice, sound and damaged; the same arguments give the same pixels.

    Args:
        category: a name of the catalogue, as "metal_lid".
        seed: any whole number; it decides pose, light, background, wear and the defect's place,
            and for pretraining categories also the product itself.
        size: side of the images in pixels.
        defect: a defect the category can show, as "missing_part"; None lets the seed choose.

    Raises:
        ClipadError: an unknown category, or a defect the category cannot show.
    """
    item, sketch, sound, scene, before = _photograph_sound(category, seed, size)
    first = expose(before, scene)
    for candidate in _candidates(category, item, sketch, defect):
        for attempt in range(ATTEMPTS):
            surface, cover = _damage(item, sound, sketch, candidate, 1.0 + 0.25 * attempt)
            after = photograph(render(surface, scene), scene)
            change = _change(before, after)
            mask = _touched(change, cover)
            if _is_visible(change, mask):
                second = np.where(mask[..., None], expose(after, scene), first)
                return Pair(
                    first,
                    second,
                    mask,
                    words(category),
                    item.colour,
                    item.material,
                    words(candidate),
                )
    raise ClipadError(
        f"{category}, seed {seed}: found no visible {defect or 'defect'} in "
        f"{ATTEMPTS} attempts, expected one; choose another seed."
    )


def _spec(category: str) -> Category:
    if category not in CATALOGUE:
        raise ClipadError(
            f"category: found {category!r}, expected one of "
            f"{', '.join(sorted(CATALOGUE))}; choose one of these."
        )
    return CATALOGUE[category]


def _photograph_sound(
    category: str, seed: int, size: int
) -> tuple[Item, Sketch, Surface, Scene, Array]:
    """Build the thing and its scene, and take the picture without noise."""
    spec = _spec(category)
    rng = Chance(f"{category}/{seed}")
    product = Chance(f"{category}/product/{spec.product}") if spec.product is not None else rng
    sketch = Sketch(size, product, rng, _frame(spec, rng, size))
    look = Look.draw(product, MATERIALS[spec.material], spec.colour)
    item = spec.build(sketch, look)
    if spec.product is None and product.random() < (0.15 if spec.texture else 0.4):
        decorate(item.base, sketch, look)
    sound = item.assemble()
    scene = make_scene(sketch, None if spec.texture else sound.alpha)
    return item, sketch, sound, scene, photograph(render(sound, scene), scene)


def _candidates(category: str, item: Item, sketch: Sketch, defect: str | None) -> list[str]:
    """The wanted defect, or all in an order by chance; part defects need a thing with parts."""
    in_view = item.parts_in_view()
    possible = [d for d in defects_of(category) if in_view or d not in PART_DEFECTS]
    if defect is None:
        return sketch.instance.sample(possible, len(possible))
    if defect not in possible:
        raise ClipadError(
            f"defect: found {defect!r}, expected one of {', '.join(possible)} for "
            f"this {words(category)}; choose one of these or None."
        )
    return [defect]


def _is_visible(change: Array, mask: Array) -> bool:
    """Large and strong enough that a person finds it when told where to look."""
    changes = change[mask]
    if changes.size < SMALLEST * mask.size:
        return False
    return total(changes) > WEAKEST * changes.size


def _frame(spec: Category, rng: Random, size: int) -> Frame:
    """The pose; wider for pretraining, where close and far, whole and cut-off are welcome."""
    free = spec.product is None
    if spec.texture:
        return pose(
            size,
            rng.uniform(-1, 1),
            rng.uniform(-1, 1),
            rng.uniform(*((0.6, 1.7) if free else (0.85, 1.15))),
            rng.uniform(-1, 1) * (math.pi if free else 0.2),
            rng.uniform(0.9, 1.0),
        )
    return random_frame(rng, size, (0.6, 1.15) if free else (0.72, 0.92), spec.turn)


def _damage(
    item: Item, sound: Surface, sketch: Sketch, defect: str, strength: float
) -> tuple[Surface, Array]:
    rng = sketch.instance
    on_part = defect in PART_DEFECTS or (
        defect == "wrong_colour" and bool(item.parts_in_view()) and rng.random() < 0.5
    )
    if on_part:
        surface = damage_part(item, rng, defect, strength)
        return surface, np.zeros((sketch.size, sketch.size), np.float32)
    surface = sound.copy()
    at = _place(sound.alpha, sketch)
    return surface, SURFACE_DEFECTS[defect](surface, sketch, at, strength)


def _place(alpha: Array, sketch: Sketch) -> tuple[float, float]:
    """A point well on the thing, uniformly."""
    x, y = grid(sketch.size)
    inside = np.flatnonzero((alpha > 0.9) & (np.maximum(np.abs(x), np.abs(y)) < 0.88))
    spot = int(inside[sketch.instance.randrange(len(inside))])
    return float(x.flat[spot]), float(y.flat[spot])


def _change(before: Array, after: Array) -> Array:
    """Largest change over the channels, (size, size), in grey levels."""
    r, g, b = np.abs(after - before)
    return np.maximum(np.maximum(r, g), b)


def _touched(change: Array, cover: Array) -> Array:
    """Where the picture changed visibly, with gaps of a pixel closed."""
    seen = (change > VISIBLE) | ((cover > 0.6) & (change > 1.5))
    return ~_grown(~_grown(seen))


def _grown(mask: Array) -> Array:
    """A mask and the eight neighbours of its pixels."""
    tall = mask.copy()
    tall[1:] |= mask[:-1]
    tall[:-1] |= mask[1:]
    wide = tall.copy()
    wide[:, 1:] |= tall[:, :-1]
    wide[:, :-1] |= tall[:, 1:]
    return wide
