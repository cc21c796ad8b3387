"""What the two methods that learn on an auxiliary dataset have in common: frozen features.

The towers are frozen, so an image is encoded once, and every later epoch or variant reads the same
features. Both methods are used in the same way: ``recipe(config)`` says what to encode,
``encode(backbone, pixels, recipe)`` gives `FrozenFeatures`, a learner (an ``nn.Module`` that holds
the learnable tensors and nothing else) turns them into a loss while training and into a `Detection`
afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clipad_core.errors import ClipadError


@dataclass(frozen=True)
class FrozenFeatures:
    """What the frozen tower says about b images.

    Attributes:
        image_embedding: projected class token, NOT normalised; each method says what it projects.
        patch_tokens: block number (1-based) -> one vector a patch, row-major, no class token.
    """

    image_embedding: Float[Tensor, "b d"]
    patch_tokens: dict[int, Tensor]

    def __len__(self) -> int:
        return len(self.image_embedding)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        tensors = (self.image_embedding, *self.patch_tokens.values())
        return sum(tensor.nbytes for tensor in tensors)

    def __getitem__(self, index: slice | Tensor) -> FrozenFeatures:
        """The features of some of the images."""
        tokens = {block: found[index] for block, found in self.patch_tokens.items()}
        return FrozenFeatures(self.image_embedding[index], tokens)


def join(parts: list[FrozenFeatures]) -> FrozenFeatures:
    """Features of several batches, one after the other."""
    blocks = parts[0].patch_tokens
    tokens = {block: torch.cat([one.patch_tokens[block] for one in parts]) for block in blocks}
    return FrozenFeatures(torch.cat([one.image_embedding for one in parts]), tokens)


def check_masks(masks: Tensor, images: int, size: int) -> None:
    """Masks must have the size of the maps, one for every image.

    Raises:
        ClipadError: another number or another size.
    """
    if masks.shape != (images, size, size):
        raise ClipadError(
            f"masks: found {tuple(masks.shape)}, expected {images} masks of {size} pixels a side; "
            "resize them to image_size."
        )
