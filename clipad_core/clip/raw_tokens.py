"""Raw patch tokens of some blocks, and the class token in the joint space.

What VCP-CLIP and APRIL-GAN read, whose official codes share this part.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.features import Features
from clipad_core.clip.one_pass import FeatureReader, PassRecipe
from clipad_core.clip.vision import PatchTokens, VisionTower


@dataclass(frozen=True)
class TokensRecipe(PassRecipe):
    """What must be encoded of an image.

    Its class token after ``ln_post`` and projection, not normalised, and the raw tokens of the blocks.
    """

    def reader(self, tower: VisionTower) -> FeatureReader:
        """What reads one pass."""
        return _RawTokens(tower, self)

    def numbers(self, tower: VisionTower) -> int:
        """How many numbers are kept of a view: the tokens are of the width."""
        return len(self.blocks) * tower.patches * len(tower.proj) + tower.proj.shape[1]


class _RawTokens(PatchTokens, FeatureReader):
    def __init__(self, tower: VisionTower, recipe: TokensRecipe) -> None:
        super().__init__(tower.depth, recipe.blocks)
        self.tower = tower

    def features(self, class_token: Float[Tensor, "b c"]) -> Features:
        return Features(self.tower.ln_post(class_token) @ self.tower.proj, self.tokens)
