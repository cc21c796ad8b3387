"""From patch tokens to maps: against text through learned layers, and against references as they are.

Both add up over blocks. A map of text is in [0, 1] for every block, one of references in [0, 2].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.device import precise
from clipad_core.clip.features import Features
from clipad_core.learned.linear_heads import head_logits
from clipad_core.maps import association_scores, upsample_by_matrices, upsampled_difference
from clipad_core.methods.aprilgan.config import APRILGANConfig, compared_blocks
from clipad_core.methods.aprilgan.learner import APRILGANLearner

# Unit-norm patch tokens of all references, by block.
Memory = dict[int, Tensor]


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


def build_memory(references: Features, config: APRILGANConfig) -> Memory:
    """The raw patch tokens of all references, unit norm; nothing is learned about them (2.2)."""
    return {
        block: F.normalize(precise(references.patch_tokens[block].flatten(0, 1)), dim=-1)
        for block in compared_blocks(config)
    }


def patch_distances(
    tokens: Float[Tensor, "b p c"], memory: Float[Tensor, "r c"]
) -> Float[Tensor, "b p"]:
    r"""One minus the cosine to the nearest patch of the references (section 2.2).

    .. math:: \min_m (1 - \langle m, n(x) \rangle)

    Twice WinCLIP's distance; never in half precision, as the official code compares on the CPU.

    Returns:
        Distances in [0, 2]; 0: the patch is in the memory, 2: it is opposite to all of it.

    >>> axes = torch.eye(2)
    >>> patch_distances(torch.stack([3 * axes, -axes]), axes[:1])
    tensor([[0., 1.],
            [2., 1.]])
    """
    return 2 * association_scores(F.normalize(precise(tokens), dim=-1), memory)


def reference_map(
    features: Features, memory: Memory, grid: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "b H W"]:
    """Distances to the references, added up over the blocks and upsampled (section 2.2).

    The official code upsamples every block by itself, which is the same: both steps are linear.
    """
    distances = [patch_distances(features.patch_tokens[block], memory[block]) for block in memory]
    total = rearrange(torch.stack(distances).sum(dim=0), "b (h w) -> b h w", h=grid[0])
    with torch.autocast(total.device.type, enabled=False):
        return upsample_by_matrices(total, size, align_corners=True)
