"""Images through the frozen tower as it is: one pass for all that is read of it, by whichever method.

Methods whose towers agree read different things of the same pass: AnomalyCLIP its branch, CLIP and CoOp
the joint space, VCP-CLIP and APRIL-GAN raw tokens. A recipe says what is read of a pass, and its reader
reads it, so an image passes a tower once for all recipes that are asked for together.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.features import Features, Recipe, join, of_views
from clipad_core.clip.preprocess import Views
from clipad_core.clip.vision import Reader, VisionTower, embed_patches, pre_norm, run_tower


class FeatureReader(Reader):
    """What becomes features of one pass."""

    @abstractmethod
    def features(self, class_token: Float[Tensor, "b c"]) -> Features:
        """The features of the images that passed.

        Args:
            class_token: of the last block, before ``ln_post``.
        """


@dataclass(frozen=True)
class PassRecipe(Recipe):
    """What is read of a pass of the tower that nothing beside it changes."""

    @abstractmethod
    def reader(self, tower: VisionTower) -> FeatureReader:
        """What reads one pass."""

    @abstractmethod
    def numbers(self, tower: VisionTower) -> int:
        """How many numbers are kept of a view."""

    def size(self, backbone: Backbone) -> int:
        """Bytes that the features of a view take."""
        return self.numbers(backbone.vision) * backbone.dtype.itemsize

    def same_views(self, other: Recipe) -> bool:
        """Whether one pass of the same backbone, which tells the size, serves both."""
        same_cut = (self.resize, self.channels) == (other.resize, other.channels)
        alone = self.multi_crop == other.multi_crop == "none" and self.tiles == other.tiles == 0
        return isinstance(other, PassRecipe) and same_cut and alone


@torch.no_grad()
def encode_together(
    tower: VisionTower, pixels: Float[Tensor, "v 3 H W"], recipes: Sequence[PassRecipe]
) -> list[Features]:
    """Run the tower on normalised views, a bounded number at a time, and read what each recipe asks for.

    Args:
        tower: of a backbone as a method prepared it.

    Returns:
        Features a recipe; what they are does not depend on the other recipes by a bit.

    Raises:
        ClipadError: another size than the backbone's, a block that does not exist.
    """
    parts: list[list[Features]] = [[] for _ in recipes]
    for part in tower.image_chunks(len(pixels)):
        embedded, _ = embed_patches(tower, pixels[part])
        readers = [recipe.reader(tower) for recipe in recipes]
        class_tokens = run_tower(tower, pre_norm(tower, embedded), readers)
        for own, reader, class_token in zip(parts, readers, class_tokens, strict=True):
            own.append(reader.features(class_token))
    return [join(own) for own in parts]


def encode(backbone: Backbone, pixels: Float[Tensor, "v 3 H W"], recipe: PassRecipe) -> Features:
    """Run the tower for one recipe; see `encode_together`."""
    [features] = encode_together(backbone.vision, pixels, [recipe])
    return features


def encode_views_together(
    backbone: Backbone, views: Sequence[Views], recipes: Sequence[PassRecipe]
) -> list[Features]:
    """Encode the views of some images, where the backbone lies, for recipes of the same views."""
    return of_views(
        backbone, views, lambda pixels: encode_together(backbone.vision, pixels, recipes)
    )
