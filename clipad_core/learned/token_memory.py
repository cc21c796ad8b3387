"""References as a memory of patch tokens: APRIL-GAN's, and that of learned methods where they get some.

Nothing is learned about them: tokens are compared as the frozen tower gives them, block by block.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.device import precise
from clipad_core.clip.features import Features
from clipad_core.maps import association_scores, upsample_by_matrices

# Unit-norm patch tokens of all references, by block.
Memory = dict[int, Tensor]


def build_memory(references: Features, blocks: Iterable[int]) -> Memory:
    """The patch tokens of all references, unit norm, of some blocks (APRIL-GAN, section 2.2)."""
    return {
        block: F.normalize(precise(references.patch_tokens[block].flatten(0, 1)), dim=-1)
        for block in blocks
    }


def patch_distances(
    tokens: Float[Tensor, "b p c"], memory: Float[Tensor, "r c"]
) -> Float[Tensor, "b p"]:
    r"""One minus the cosine to the nearest patch of the references (APRIL-GAN, section 2.2).

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
    """Distances to the references, added up over the blocks and upsampled (APRIL-GAN, section 2.2).

    In [0, 2] for every block. The official code upsamples each by itself, which is the same: both steps
    are linear.
    """
    distances = [patch_distances(features.patch_tokens[block], memory[block]) for block in memory]
    total = rearrange(torch.stack(distances).sum(dim=0), "b (h w) -> b h w", h=grid[0])
    with torch.autocast(total.device.type, enabled=False):
        return upsample_by_matrices(total, size, align_corners=True)
