"""Images in the joint space of image and text: the class token and patches as plain CLIP projects them.

What the baselines read. It belongs to no method, so that images are encoded once for all that read them
so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.features import LAST_BLOCK, Features
from clipad_core.clip.one_pass import FeatureReader, PassRecipe
from clipad_core.clip.vision import VisionTower, project
from clipad_core.errors import ClipadError


@dataclass(frozen=True)
class JointRecipe(PassRecipe):
    """What must be encoded of an image.

    Its projected class token, and every block's patches after ``ln_post`` and projection; both of unit norm.

    Attributes:
        class_ln_post: whether the class token passes ``ln_post``, as CLIP's own does.
        class_alone: whether patches are never read of the same pass: they are a thousand times as much
            to keep.
    """

    class_ln_post: bool = True
    class_alone: bool = False

    def reader(self, tower: VisionTower) -> FeatureReader:
        """What reads one pass.

        Raises:
            ClipadError: a block that does not exist.
        """
        return _JointSpace(tower, self)

    def numbers(self, tower: VisionTower) -> int:
        """How many numbers are kept of a view: all of the joint space."""
        return (len(self.blocks) * tower.patches + 1) * tower.proj.shape[1]


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


class _JointSpace(FeatureReader):
    """The projected class token, and every block's patches after ``ln_post`` and projection; unit norm."""

    def __init__(self, tower: VisionTower, recipe: JointRecipe) -> None:
        self.tower, self.class_ln_post = tower, recipe.class_ln_post
        self.blocks = set(block_numbers(tower.depth, recipe.blocks))
        self.reads_last = tower.depth in self.blocks
        self.patches: dict[int, Tensor] = {}

    def see(self, number: int, x: Tensor, qkv: Tensor, after: Tensor | None) -> None:
        assert after is not None
        self.patches[number] = project(self.tower, after[:, 1:])

    def features(self, class_token: Float[Tensor, "b c"]) -> Features:
        if self.class_ln_post:
            return Features(project(self.tower, class_token), self.patches)
        return Features(F.normalize(class_token @ self.tower.proj, dim=-1), self.patches)
