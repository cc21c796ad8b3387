"""A frozen CLIP for another input size or activation: a changed copy, the original stays as it is.

The two methods that learn run a 336 px model at 518 px, each with a rule of its own for the
positional embedding; VCP-CLIP also runs OpenAI's weights with another GELU than they were made with.
"""

from __future__ import annotations

from dataclasses import replace
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
        rule: "bilinear" (AnomalyCLIP) or "bicubic_antialias" (VCP-CLIP).

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
    square = rearrange(patches, "(h w) c -> 1 c h w", h=tower.grid[0])
    resized: Tensor = F.interpolate(square, size=grid, **POSITIONAL_RULES[rule])
    positional = torch.cat([first, rearrange(resized, "1 c h w -> (h w) c")])
    return replace(tower, positional_embedding=positional, grid=grid)


def prepare(backbone: Backbone, image_size: int, positional: str, activation: str) -> Backbone:
    """The backbone for ``image_size`` pixels; whatever changed is written behind its digest.

    ``Backbone.image_size`` stays what the weights were made for.

    Args:
        activation: "gelu", "quick_gelu", or "backbone" for what the weights say.

    Raises:
        ClipadError: a size that is no whole number of patches; an unknown rule.
    """
    side, rest = divmod(image_size, backbone.vision.patch_size)
    if rest or not side:
        raise ClipadError(
            f"image_size: found {image_size}, expected a multiple of {backbone.vision.patch_size}, the "
            f"patch size of {backbone.label}."
        )
    vision, text = resize_grid(backbone.vision, (side, side), positional), backbone.text
    digest = backbone.digest
    if vision is not backbone.vision:
        digest += f"+{image_size}{positional}"
    quick = vision.transformer.quick_gelu if activation == "backbone" else activation != "gelu"
    if (quick, quick) != (vision.transformer.quick_gelu, text.transformer.quick_gelu):
        digest += f"+{activation}"
        vision = replace(vision, transformer=replace(vision.transformer, quick_gelu=quick))
        text = replace(text, transformer=replace(text.transformer, quick_gelu=quick))
    return replace(backbone, vision=vision, text=text, digest=digest)
