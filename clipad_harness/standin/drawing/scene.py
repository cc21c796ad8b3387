"""Light, background and camera: from a surface to pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image, ImageFilter

from clipad_harness.standin.drawing.canvas import (
    Frame,
    Sketch,
    Surface,
    grid,
    jitter,
    plane_values,
    pose,
    smoothstep,
)
from clipad_harness.standin.drawing.exact import Array, cos, sin
from clipad_harness.standin.drawing.palette import colour_of


@dataclass
class Scene:
    """Everything around the thing, the same for a sound and a damaged image of it."""

    background: Array  # (3, size, size), lit
    direction: tuple[float, float, float]  # towards the lamp, unit length
    field: Array  # (size, size) brightness of the lamp over the image
    ambient: float
    tone: Array  # (3, 1, 1) colour of the light
    noise: Array  # (3, size, size) in grey levels
    blur: float


def make_scene(sketch: Sketch, shadow_of: Array | None, spread: float = 1.0) -> Scene:
    """Draw lamp, background and camera by the instance; `shadow_of` casts a shadow if given."""
    rng, size = sketch.instance, sketch.size
    x, y = grid(size)
    turn, slant = rng.uniform(0, 2 * math.pi), rng.uniform(0.5, 0.95)
    across, down, level = cos(turn), sin(turn), cos(slant)
    direction = (across * level, down * level, sin(slant))
    fall = rng.uniform(0.0, 0.22) * spread
    field = 1 + fall * (across * x + down * y)
    field -= rng.uniform(0.0, 0.14) * spread * (x * x + y * y)
    field *= rng.uniform(0.86, 1.2)
    if rng.random() < 0.3:
        field *= _shade_edge(sketch)
    warm = rng.uniform(-0.05, 0.05)
    tone = plane_values((1 + warm, 1.0, 1 - warm))
    ambient = rng.uniform(0.30, 0.5)
    background = _background(sketch) * (field * (ambient + 0.75)) * tone
    if shadow_of is not None:
        background *= _shadow(shadow_of, direction, rng)
    sigma = rng.uniform(0.6, 2.6)
    noise = np.stack([sketch.noise("grain") for _ in range(3)]) * (0.6 * sigma)
    noise += sketch.noise("grain") * (0.7 * sigma)
    return Scene(
        background,
        direction,
        field,
        ambient,
        tone,
        noise,
        rng.choice((0.0, 0.0, 0.0, 0.15, 0.3)) * size / 96,
    )


def _shade_edge(sketch: Sketch) -> Array:
    """The soft shadow of something beside the picture: a window frame, a hand, a machine."""
    rng = sketch.instance
    x, y = grid(sketch.size)
    turn = rng.uniform(0, 2 * math.pi)
    along = cos(turn) * x + sin(turn) * y + rng.uniform(-0.6, 0.6)
    if rng.random() < 0.4:
        along = np.abs(along) - rng.uniform(0.15, 0.4)
    soft = rng.uniform(0.04, 0.3)
    return 1 - rng.uniform(0.12, 0.4) * smoothstep(along, soft, -soft)


def _background(sketch: Sketch) -> Array:
    """A bench, a cloth, a belt or a light table, (3, size, size)."""
    rng = sketch.instance
    names = (
        "white",
        "light grey",
        "grey",
        "dark grey",
        "black",
        "beige",
        "light blue",
        "dark green",
        "dark blue",
        "brown",
        "olive",
    )
    colour = jitter(rng, colour_of(rng.choice(names)), 0.06)
    factor = 1 + rng.uniform(0.01, 0.06) * sketch.noise("cloud")
    kind = rng.random()
    x, y = grid(sketch.size)
    angle = rng.uniform(0, math.pi)
    c, s = cos(angle), sin(angle)
    along = c * x + s * y
    if kind < 0.3:
        factor += rng.uniform(0.01, 0.07) * sketch.noise("grain")
    elif kind < 0.5:
        factor += rng.uniform(0.03, 0.09) * sketch.streaks(along, c * y - s * x)
    elif kind < 0.65:
        factor += rng.uniform(0.02, 0.06) * sin(along * rng.uniform(25, 70))
    elif kind < 0.8:  # a joint of the bench
        line = np.abs(along - rng.uniform(-0.9, 0.9))
        factor -= rng.uniform(0.1, 0.4) * (1 - smoothstep(line, 0.005, 0.035))
    return plane_values(colour) * factor


def _shadow(alpha: Array, direction: tuple[float, float, float], rng: Random) -> Array:
    """One minus the blurred, shifted outline of the thing."""
    size = alpha.shape[0]
    reach = rng.uniform(0.02, 0.07) * size
    image = Image.fromarray((alpha * 255).astype(np.uint8))
    image = image.transform(
        image.size, Image.Transform.AFFINE, (1, 0, direction[0] * reach, 0, 1, direction[1] * reach)
    )
    image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.015, 0.05) * size))
    image = image.filter(ImageFilter.BoxBlur(0.015 * size))
    return 1 - np.asarray(image, np.float32) * (rng.uniform(0.3, 0.65) / 255)


def render(surface: Surface, scene: Scene) -> Array:
    """Lambert's diffuse light plus a Blinn highlight, (3, size, size) in grey levels."""
    size = surface.height.shape[0]
    gx, gy = _slopes(surface.height)
    lx, ly, lz = scene.direction
    inverse = 1 / np.sqrt(1 + gx * gx + gy * gy)
    light = np.maximum((lz - lx * gx - ly * gy) * inverse, 0) * (0.75 / lz)
    light = (light + scene.ambient) * scene.field
    x, y = grid(size)
    half = math.sqrt(2 + 2 * lz)
    hx, hy, hz = lx / half, ly / half, (1 + lz) / half
    # A near lamp and a near camera: the mirror direction drifts over the image.
    shine = np.maximum(
        (hz - (hx + 0.22 * x) * gx - (hy + 0.22 * y) * gy - 0.28 * (hx * x + hy * y)) * inverse, 0
    )
    shine = np.square(np.minimum(shine, 1.0))
    shine *= shine
    shine *= shine
    shine *= shine
    image = surface.albedo * light
    image *= scene.tone
    shine *= 0.55 * surface.gloss * scene.field
    glint = 0.65 * surface.albedo
    glint += 0.35
    glint *= shine
    image += glint
    image -= scene.background
    image *= surface.alpha
    image += scene.background
    return _tone_curve(image)


def _slopes(height: Array) -> tuple[Array, Array]:
    scale = height.shape[0] / 4
    gx, gy = np.zeros_like(height), np.zeros_like(height)
    np.subtract(height[:, 2:], height[:, :-2], out=gx[:, 1:-1])
    np.subtract(height[2:], height[:-2], out=gy[1:-1])
    return gx * scale, gy * scale


def _tone_curve(image: Array) -> Array:
    """Bend the highlights so that bright metal does not clip, then the display's gamma.

    The image is used up: in place, arrays of this size take half the time.
    """
    np.maximum(image, 0, out=image)
    bent = image * 0.12
    bent += 1
    bent *= image
    image *= 0.42
    image += 1
    bent /= image
    np.sqrt(bent, out=bent)
    bent *= 255
    return bent


def photograph(clean: Array, scene: Scene) -> Array:
    """The camera: a little blur, (3, size, size); the noise is added by `expose`."""
    if scene.blur == 0:
        return clean
    blur = ImageFilter.BoxBlur(scene.blur)
    planes = [Image.fromarray(p).filter(blur) for p in np.clip(clean, 0, 255).astype(np.uint8)]
    return np.stack([np.asarray(plane, np.float32) for plane in planes])


def expose(clean: Array, scene: Scene) -> Array:
    """Sensor noise and eight bits, (size, size, 3)."""
    planes = np.clip(clean + scene.noise + 0.5, 0, 255).astype(np.uint8)
    pixels = np.empty((*planes.shape[1:], 3), np.uint8)
    for channel, plane in enumerate(planes):  # an eighth of the time that moving the axis takes
        pixels[..., channel] = plane
    return pixels


def random_frame(rng: Random, size: int, scale: tuple[float, float], turn: float) -> Frame:
    """A pose for an object: anywhere near the middle, at most `turn` radians away."""
    s = rng.uniform(*scale)
    room = max(0.0, 0.96 - s)
    return pose(
        size,
        rng.uniform(-room, room) * 0.8,
        rng.uniform(-room, room) * 0.8,
        s,
        rng.uniform(-turn, turn),
        rng.uniform(0.88, 1.0),
    )
