"""The categories: which builder, which material, which defects."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from clipad_harness.standin.drawing import goods, objects, target_objects, target_textures, textures
from clipad_harness.standin.drawing.canvas import Sketch
from clipad_harness.standin.drawing.items import Item, Look

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
    turn: float = math.pi


_COMMON = ("scratch", "crack", "stain", "hole", "dent", "contamination", "wrong_colour", "burn")
PRETRAINING_DEFECTS = _COMMON + ("missing_part",)
TARGET_ONLY_DEFECTS = ("tear", "misplaced_part")

_OBJECTS: dict[str, tuple[Builder, str]] = {
    "metal_lid": (objects.disc, "metal"),
    "plastic_cap": (objects.disc, "plastic"),
    "ceramic_plate": (objects.disc, "ceramic"),
    "rubber_stopper": (objects.disc, "rubber"),
    "painted_cover": (objects.disc, "painted"),
    "shirt_button": (objects.button, "plastic"),
    "face_plate": (objects.plate, "metal"),
    "switch_plate": (objects.plate, "plastic"),
    "painted_panel": (objects.plate, "painted"),
    "stone_tablet": (objects.plate, "stone"),
    "rubber_gasket": (objects.washer, "rubber"),
    "brass_ring": (objects.washer, "metal"),
    "plastic_ring": (objects.washer, "plastic"),
    "stone_ring": (objects.washer, "stone"),
    "shelf_bracket": (objects.bracket, "painted"),
    "plastic_clip": (objects.bracket, "plastic"),
    "cast_flange": (objects.flange, "cast"),
    "plastic_knob": (objects.flange, "plastic"),
    "hand_wheel": (objects.wheel, "cast"),
    "toy_wheel": (objects.wheel, "plastic"),
    "moulded_part": (objects.moulding, "plastic"),
    "cast_part": (objects.moulding, "cast"),
    "machined_part": (objects.moulding, "metal"),
    "rubber_part": (objects.moulding, "rubber"),
    "painted_part": (objects.moulding, "painted"),
    "ceramic_part": (objects.moulding, "ceramic"),
    "parts_tray": (objects.tray, "plastic"),
    "sweets_box": (objects.tray, "card"),
    "fruit": (goods.ball, "food"),
    "pebble": (goods.ball, "stone"),
    "bead": (goods.ball, "ceramic"),
    "cookie": (goods.biscuit, "food"),
    "soap_bar": (goods.biscuit, "plastic"),
    "paper_label": (goods.card, "card"),
    "plastic_card": (goods.card, "plastic"),
    "name_plate": (goods.card, "painted"),
    "fabric_patch": (goods.card, "fabric"),
    "metal_pipe": (goods.cylinder, "metal"),
    "marker_pen": (goods.cylinder, "plastic"),
    "candle": (goods.cylinder, "ceramic"),
    "rubber_roller": (goods.cylinder, "rubber"),
    "remote_control": (goods.keypad, "plastic"),
    "rubber_keypad": (goods.keypad, "rubber"),
    "control_panel": (goods.keypad, "painted"),
    "dry_leaf": (goods.leaf, "food"),
    "fabric_leaf": (goods.leaf, "fabric"),
    "cardboard_box": (goods.carton, "card"),
    "gift_box": (goods.carton, "fabric"),
    "metal_spoon": (goods.tool, "metal"),
    "hand_tool": (goods.tool, "cast"),
    "plastic_scoop": (goods.tool, "plastic"),
    "terminal_block": (goods.terminal, "plastic"),
    "ceramic_socket": (goods.terminal, "ceramic"),
}
_TEXTURES: dict[str, tuple[Builder, str]] = {
    "woven_cloth": (textures.weave, "fabric"),
    "plastic_matting": (textures.weave, "plastic"),
    "stone_wall": (textures.brick, "stone"),
    "glazed_tiles": (textures.brick, "ceramic"),
    "concrete_slab": (textures.cloudy, "stone"),
    "felt_sheet": (textures.cloudy, "fabric"),
    "gravel_bed": (textures.granules, "stone"),
    "foam_sheet": (textures.granules, "plastic"),
    "striped_cloth": (textures.stripes, "fabric"),
    "printed_paper": (textures.stripes, "card"),
    "corrugated_board": (textures.ribbed, "card"),
    "corduroy": (textures.ribbed, "fabric"),
    "punched_board": (textures.perforated, "card"),
    "dotted_foil": (textures.perforated, "plastic"),
    "upholstery": (textures.quilted, "fabric"),
    "embossed_paper": (textures.quilted, "card"),
    "patchwork_cloth": (textures.mosaic, "fabric"),
    "glass_mosaic": (textures.mosaic, "ceramic"),
    "printed_foil": (textures.mosaic, "plastic"),
    "painted_sheet": (textures.mosaic, "painted"),
    "carpet": (textures.pile, "fabric"),
    "sandpaper": (textures.pile, "card"),
    "asphalt": (textures.pile, "stone"),
    "sponge": (textures.pile, "plastic"),
    "rubber_mat": (textures.ribbed, "rubber"),
    "grooved_plate": (textures.ribbed, "metal"),
    "punched_metal": (textures.perforated, "metal"),
    "dotted_cloth": (textures.perforated, "fabric"),
    "rubber_sheet": (textures.cloudy, "rubber"),
    "enamel_sheet": (textures.cloudy, "ceramic"),
    "crazy_paving": (textures.granules, "ceramic"),
    "wicker": (textures.weave, "food"),
    "painted_wall": (textures.cloudy, "painted"),
    "crate_wall": (textures.brick, "card"),
    "roof_tiles": (textures.scales, "ceramic"),
    "shingles": (textures.scales, "stone"),
    "brushed_metal": (textures.brushed, "metal"),
    "kraft_paper": (textures.brushed, "card"),
}
CATALOGUE: dict[str, Category] = {
    **{
        name: Category(build, material, False, PRETRAINING_DEFECTS)
        for name, (build, material) in _OBJECTS.items()
    },
    **{
        name: Category(build, material, True, _COMMON)
        for name, (build, material) in _TEXTURES.items()
    },
}
PRETRAINING = tuple(CATALOGUE)


def _fixed(
    build: Builder,
    material: str,
    colour: str,
    product: int,
    defects: tuple[str, ...],
    texture: bool = False,
    turn: float = math.pi,
) -> Category:
    return Category(build, material, texture, defects, colour, product, turn)


_AUXILIARY: dict[str, Category] = {
    "metal_washer": _fixed(objects.washer, "metal", "silver", 4, _COMMON),
    "coat_button": _fixed(objects.button, "plastic", "dark brown", 3, _COMMON),
    "steel_bracket": _fixed(objects.bracket, "metal", "steel grey", 8, PRETRAINING_DEFECTS),
    "oat_biscuit": _fixed(goods.biscuit, "food", "beige", 8, _COMMON),
    "alkaline_battery": _fixed(goods.cylinder, "painted", "black", 10, _COMMON),
    "number_keypad": _fixed(
        goods.keypad, "plastic", "light grey", 0, PRETRAINING_DEFECTS, turn=0.4
    ),
    "pill_tray": _fixed(objects.tray, "plastic", "white", 4, PRETRAINING_DEFECTS, turn=0.4),
    "woven_fabric": _fixed(textures.weave, "fabric", "dark blue", 9, _COMMON, True),
    "brick_wall": _fixed(textures.brick, "stone", "brown", 4, _COMMON, True),
    "marble_slab": _fixed(textures.cloudy, "ceramic", "white", 7, _COMMON, True),
    "cork_board": _fixed(textures.granules, "card", "brown", 0, _COMMON, True),
    "perforated_sheet": _fixed(textures.perforated, "metal", "silver", 2, _COMMON, True),
    "ribbed_rubber": _fixed(textures.ribbed, "rubber", "dark grey", 10, _COMMON, True),
}
AUXILIARY = tuple(_AUXILIARY)

_STIFF = ("scratch", "crack", "dent", "stain", "contamination", "wrong_colour")
_SOFT = ("hole", "stain", "contamination", "wrong_colour", "burn", "tear")
_TARGET: dict[str, Category] = {
    "hex_nut": _fixed(target_objects.hex_nut, "metal", "silver", 1, _STIFF + ("burn",)),
    "gear_wheel": _fixed(
        target_objects.gear_wheel,
        "cast",
        "steel grey",
        1,
        _STIFF + ("missing_part", "misplaced_part"),
    ),
    "circuit_board": _fixed(
        target_objects.circuit_board,
        "painted",
        "dark green",
        1,
        ("scratch", "crack", "stain", "burn", "contamination", "missing_part", "misplaced_part"),
        turn=0.25,
    ),
    "zip_fastener": _fixed(
        target_objects.zip_fastener,
        "fabric",
        "dark blue",
        1,
        ("stain", "hole", "burn", "contamination", "tear", "missing_part", "misplaced_part"),
        turn=0.3,
    ),
    "door_key": _fixed(target_objects.door_key, "metal", "golden", 1, _STIFF + ("burn",)),
    "light_bulb": _fixed(
        target_objects.light_bulb,
        "ceramic",
        "white",
        1,
        ("scratch", "crack", "hole", "stain", "burn", "contamination", "wrong_colour"),
    ),
    "brush_head": _fixed(
        target_objects.brush_head,
        "plastic",
        "blue",
        1,
        ("scratch", "stain", "contamination", "wrong_colour", "missing_part", "misplaced_part"),
        turn=0.4,
    ),
    "wooden_floor": _fixed(
        target_textures.wooden_floor,
        "wood",
        "light brown",
        1,
        ("scratch", "crack", "stain", "hole", "dent", "contamination", "burn"),
        True,
    ),
    "leather_hide": _fixed(
        target_textures.leather_hide, "rubber", "dark red", 1, _SOFT + ("scratch",), True
    ),
    "wire_mesh": _fixed(
        target_textures.wire_mesh,
        "metal",
        "silver",
        1,
        ("hole", "contamination", "stain", "burn", "tear"),
        True,
    ),
    "knitted_wool": _fixed(target_textures.knitted_wool, "fabric", "dark red", 1, _SOFT, True),
    "honeycomb_panel": _fixed(
        target_textures.honeycomb_panel,
        "plastic",
        "yellow",
        1,
        ("hole", "stain", "crack", "contamination", "wrong_colour", "burn"),
        True,
    ),
    "terrazzo_floor": _fixed(
        target_textures.terrazzo_floor,
        "ceramic",
        "light grey",
        1,
        ("scratch", "crack", "stain", "hole", "contamination", "burn"),
        True,
    ),
}
TARGET = tuple(_TARGET)
CATALOGUE.update(_AUXILIARY)
CATALOGUE.update(_TARGET)
