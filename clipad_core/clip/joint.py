"""Images in the joint space of image and text: the class token and patches as plain CLIP projects them.

What the baselines read: nothing beside the tower, no window. It belongs to no method, so that images
are encoded once for all that read them so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.features import LAST_BLOCK, Features, Recipe
from clipad_core.clip.vision import embed_patches, encode_whole, pre_norm, project
from clipad_core.errors import ClipadError


@dataclass(frozen=True)
class JointRecipe(Recipe):
    """What must be encoded of an image.

    Attributes:
        class_ln_post: whether the class token passes ``ln_post``, as CLIP's own does.
        class_alone: whether patches are never read of the same pass: they are a thousand times as much
            to keep.
    """

    class_ln_post: bool = True
    class_alone: bool = False


def block_numbers(depth: int, blocks: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers of blocks in a tower of so many, the last one by its own; ascending, each once.

    Raises:
        ClipadError: a block that does not exist.

    >>> block_numbers(12, (LAST_BLOCK, 6))
    (6, 12)
    """
    numbers = {depth if block == LAST_BLOCK else block for block in blocks}
    if unknown := sorted(number for number in numbers if not 1 <= number <= depth):
        raise ClipadError(
            f"blocks: found {unknown}, expected numbers from 1 to {depth}, the blocks of the image tower, "
            f"or {LAST_BLOCK} for the last one."
        )
    return tuple(sorted(numbers))


@torch.no_grad()
def encode_joint(
    backbone: Backbone, pixels: Float[Tensor, "v 3 H W"], recipe: JointRecipe
) -> Features:
    """Run the frozen tower on normalised views, a bounded number at a time.

    Returns:
        The projected class token, and under the number of every block its patches after ``ln_post``
        and projection; both of unit norm.

    Raises:
        ClipadError: another size than the backbone's, a block that does not exist.
    """
    tower = backbone.vision
    blocks = block_numbers(tower.depth, recipe.blocks)
    classes: list[Tensor] = []
    patches: dict[int, list[Tensor]] = {block: [] for block in blocks}
    for part in tower.image_chunks(len(pixels)):
        embedded, _ = embed_patches(tower, pixels[part])
        last, tokens = encode_whole(tower, pre_norm(tower, embedded), blocks)
        bare = F.normalize(last @ tower.proj, dim=-1)
        classes.append(project(tower, last) if recipe.class_ln_post else bare)
        for block, block_tokens in tokens.items():
            patches[block].append(project(tower, block_tokens))
    joined = {block: torch.cat(parts) for block, parts in patches.items()}
    return Features(torch.cat(classes), joined)
