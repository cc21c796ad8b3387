"""The categories: which builder, which material, which defects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clipad_harness.drawing import objects, textures
from clipad_harness.drawing.canvas import Sketch
from clipad_harness.drawing.items import Item, Look

Builder = Callable[[Sketch, Look], Item]


@dataclass(frozen=True)
class Category:
    """A category; a `product` of None is drawn anew for every image (pretraining)."""

    build: Builder
    material: str
    texture: bool
    defects: tuple[str, ...]
    colour: str | None = None
    product: int | None = None


_COMMON = ("scratch", "crack", "stain", "hole", "dent", "contamination", "wrong_colour", "burn")
PRETRAINING_DEFECTS = _COMMON + ("missing_part",)
TARGET_ONLY_DEFECTS = ("tear", "misplaced_part")

_OBJECTS: dict[str, tuple[Builder, str]] = {
    "metal_lid": (objects.disc, "metal"), "plastic_button": (objects.disc, "plastic"),
    "ceramic_plate": (objects.disc, "ceramic"), "rubber_stopper": (objects.disc, "rubber"),
    "painted_cover": (objects.disc, "painted"),
    "face_plate": (objects.plate, "metal"), "switch_plate": (objects.plate, "plastic"),
    "painted_panel": (objects.plate, "painted"), "stone_tablet": (objects.plate, "stone"),
    "rubber_gasket": (objects.washer, "rubber"), "brass_ring": (objects.washer, "metal"),
    "plastic_ring": (objects.washer, "plastic"),
    "parts_tray": (objects.tray, "plastic"), "sweets_box": (objects.tray, "card"),
}
_TEXTURES: dict[str, tuple[Builder, str]] = {
    "woven_cloth": (textures.weave, "fabric"), "plastic_matting": (textures.weave, "plastic"),
    "stone_wall": (textures.brick, "stone"), "glazed_tiles": (textures.brick, "ceramic"),
    "concrete_slab": (textures.cloudy, "stone"), "felt_sheet": (textures.cloudy, "fabric"),
}
CATALOGUE: dict[str, Category] = {
    **{name: Category(build, material, False, PRETRAINING_DEFECTS)
       for name, (build, material) in _OBJECTS.items()},
    **{name: Category(build, material, True, _COMMON)
       for name, (build, material) in _TEXTURES.items()},
}
PRETRAINING = tuple(CATALOGUE)
CATALOGUE.update({
    "metal_washer": Category(objects.washer, "metal", False, PRETRAINING_DEFECTS, "silver", 5),
    "woven_fabric": Category(textures.weave, "fabric", True, _COMMON, "dark blue", 3),
})
AUXILIARY = ("metal_washer", "woven_fabric")
CATALOGUE.update({
    "pill_tray": Category(objects.tray, "plastic", False, PRETRAINING_DEFECTS + TARGET_ONLY_DEFECTS,
                          "white", 5),
    "brick_wall": Category(textures.brick, "stone", True, _COMMON + ("tear",), "brown", 3),
})
TARGET = ("pill_tray", "brick_wall")
