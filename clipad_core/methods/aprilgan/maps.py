"""From patch tokens to maps: against text through learned layers.

The map adds up over blocks, in [0, 1] for every block; that of references is in `learned.token_memory`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.features import Features
from clipad_core.learned.linear_heads import head_logits
from clipad_core.maps import upsampled_difference
from clipad_core.methods.aprilgan.config import APRILGANConfig
from clipad_core.methods.aprilgan.learner import APRILGANLearner


def block_logits(
    learner: APRILGANLearner,
    config: APRILGANConfig,
    features: Features,
    text: Float[Tensor, "n 2 d"],
) -> list[Float[Tensor, "b p 2"]]:
    """Patches against the text embeddings, a linear layer a block (Eq. (3)), blocks ascending.

    Args:
        text: a pair an image or one for all.
    """
    tokens = [features.patch_tokens[block] for block in sorted(config.blocks)]
    return head_logits(learner.heads, tokens, text, 1 / config.temperature)


def text_map(
    logits: list[Float[Tensor, "b p 2"]], grid: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "b H W"]:
    """Probability of an anomaly at every pixel, added up over the blocks (section 2.1).

    Logits are upsampled before the softmax, with ``align_corners=True``, and nothing is smoothed.
    """
    total = torch.sigmoid(upsampled_difference(logits[0], grid, size))
    for block in logits[1:]:
        total += torch.sigmoid(upsampled_difference(block, grid, size))
    return total
