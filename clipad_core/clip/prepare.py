"""A frozen CLIP for another input size or activation: a changed copy, the original stays as it is.

The methods that learn run a 336 px model at 518 px, by one of two rules for the positional
embedding; VCP-CLIP and APRIL-GAN also run OpenAI's weights with another GELU than they were made with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import gcd
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.vision import VisionTower
from clipad_core.errors import ClipadError

# How F.interpolate resizes the positional embedding of the patches; never align_corners.
POSITIONAL_RULES: dict[str, dict[str, Any]] = {
    "bilinear": {"mode": "bilinear"},
    "bicubic_antialias": {"mode": "bicubic", "antialias": True},
}


def resize_grid(tower: VisionTower, grid: tuple[int, int], rule: str) -> VisionTower:
    """The tower for another grid of patches; the class token keeps its positional embedding.

    Args:
        grid: rows and columns of patches.
        rule: "bilinear" (AnomalyCLIP) or "bicubic_antialias" (VCP-CLIP, APRIL-GAN).

    Returns:
        The same tower where the grid is its own already.
    """
    if rule not in POSITIONAL_RULES:
        raise ClipadError(
            f"positional: found {rule!r}, expected one of {', '.join(POSITIONAL_RULES)}."
        )
    if grid == tower.grid:
        return tower
    first, patches = tower.positional_embedding[:1], tower.positional_embedding[1:]
    square = rearrange(patches.cpu(), "(h w) c -> 1 c h w", h=tower.grid[0])
    resized: Tensor = F.interpolate(square, size=grid, **POSITIONAL_RULES[rule])
    moved = rearrange(resized, "1 c h w -> (h w) c").to(first.device)  # the same on every device
    positional = torch.cat([first, moved])
    return replace(tower, positional_embedding=positional, grid=grid)


def prepare(backbone: Backbone, image_size: int, positional: str, activation: str) -> Backbone:
    """The backbone for ``image_size`` pixels; whatever changed is written behind its digest.

    ``Backbone.image_size`` stays what the weights were made for.

    Args:
        image_size: side of the square input in pixels; of a rectangle the shorter one, and the longer
            one follows: the grid of patches keeps its proportions.
        activation: "gelu", "quick_gelu", or "backbone" for what the weights say.

    Raises:
        ClipadError: a size that is no whole number of patches; an unknown rule.
    """
    grid = _grid_of(backbone, image_size)
    vision, text = resize_grid(backbone.vision, grid, positional), backbone.text
    digest = backbone.digest
    if vision is not backbone.vision:
        digest += f"+{image_size}{positional}"
    quick = vision.transformer.quick_gelu if activation == "backbone" else activation != "gelu"
    if (quick, quick) != (vision.transformer.quick_gelu, text.transformer.quick_gelu):
        digest += f"+{activation}"
        vision = replace(vision, transformer=replace(vision.transformer, quick_gelu=quick))
        text = replace(text, transformer=replace(text.transformer, quick_gelu=quick))
    return replace(backbone, vision=vision, text=text, digest=digest)


def check_has_blocks(backbone: Backbone, blocks: Sequence[int], name: str = "blocks") -> None:
    """Refuse numbers of blocks that the image tower does not have.

    Args:
        name: of the field, for the message.

    Raises:
        ClipadError: a number above the tower's depth.
    """
    if max(blocks) > backbone.vision.depth:
        raise ClipadError(
            f"{name}: found {max(blocks)}, expected at most {backbone.vision.depth}, the depth of "
            f"{backbone.label}; choose among its blocks."
        )


def _grid_of(backbone: Backbone, image_size: int) -> tuple[int, int]:
    """Rows and columns of patches where the shorter side has ``image_size`` pixels."""
    height, width = backbone.vision.grid
    # The smallest grid of these proportions: 1 x 1 of a square.
    rows, columns = height // gcd(height, width), width // gcd(height, width)
    step = min(rows, columns) * backbone.vision.patch_size
    times, remainder = divmod(image_size, step)
    if remainder or not times:
        why = f"the patch size of {backbone.label}"
        if height != width:
            why = (
                f"so that a grid like the {height} x {width} of {backbone.label} has whole patches"
            )
        raise ClipadError(f"image_size: found {image_size}, expected a multiple of {step}, {why}.")
    return rows * times, columns * times
