"""The frozen tower as it is, once for each image: its class token, and raw patch tokens of some blocks.

What VCP-CLIP and APRIL-GAN read, whose official codes share this part.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.features import Features, Recipe
from clipad_core.clip.vision import embed_patches, encode_whole, pre_norm


@torch.no_grad()
def encode(backbone: Backbone, pixels: Float[Tensor, "b 3 H W"], recipe: Recipe) -> Features:
    """Run the frozen tower on normalised images, a bounded number at a time.

    Args:
        backbone: the one that a method prepared.

    Returns:
        ``ln_post`` and projection of the class token, not normalised, and the raw tokens of the
        recipe's blocks.
    """
    tower = backbone.vision
    classes: list[Tensor] = []
    tokens: dict[int, list[Tensor]] = {block: [] for block in recipe.blocks}
    for part in tower.image_chunks(len(pixels)):
        embedded, _ = embed_patches(tower, pixels[part])
        last, patch_tokens = encode_whole(tower, pre_norm(tower, embedded), recipe.blocks)
        classes.append(tower.ln_post(last) @ tower.proj)
        for block in recipe.blocks:
            tokens[block].append(patch_tokens[block])
    joined = {block: torch.cat(parts) for block, parts in tokens.items()}
    return Features(torch.cat(classes), joined)
