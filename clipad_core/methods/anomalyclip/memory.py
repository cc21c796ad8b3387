"""AnomalyCLIP with references: a memory of normal patches beside the two prompts.

The paper (Zhou et al., ICLR 2024) reads no normal image. This gives its branch what WinCLIP+ (section
4.3) and APRIL-GAN (section 2.2) give theirs: every patch is compared with all patches of k normal
images, and what is like none of them is anomalous, whatever the prompts say of it.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.features import Features
from clipad_core.learned.token_memory import Memory, patch_distances


def visual_map(features: Features, memory: Memory, grid: tuple[int, int]) -> Float[Tensor, "b h w"]:
    r"""How far every patch is from its nearest reference patch, the mean over the blocks, in [0, 1].

    WinCLIP (Jeong et al., CVPR 2023), Eqs. (4) and (5), on patches of the blocks L:

    .. math:: \frac{1}{|L|} \sum_{l \in L} \min_{r \in R_l} \tfrac12 \left(1 - \langle p_l, r \rangle\right)

    Args:
        grid: rows and columns of patches.
    """
    distances = [patch_distances(features.patch_tokens[block], memory[block]) for block in memory]
    # A patch that is its own reference is at -1e-7, and reciprocals of both signs cancel.
    total = torch.stack(distances).mean(dim=0).clamp(min=0) / 2
    return rearrange(total, "b (h w) -> b h w", h=grid[0])


def fused_image_score(
    text: Float[Tensor, " b"], visual: Float[Tensor, "b h w"], rule: str
) -> Float[Tensor, " b"]:
    """The image score with references, in [0, 1].

    Args:
        text: probability of the anomalous prompt, of the class token.
        visual: as `visual_map` gives it.
        rule: "both": the mean of the text score and the map's largest patch (WinCLIP, Eq. (6)); or one of
            the two alone, "text" or "visual".

    >>> scores = torch.tensor([0.5]), torch.tensor([[[0.25, 0.0]]])
    >>> [float(fused_image_score(*scores, rule)) for rule in ("both", "visual", "text")]
    [0.375, 0.25, 0.5]
    """
    highest = visual.flatten(1).amax(dim=1)
    return {"both": (text + highest) / 2, "visual": highest, "text": text}[rule]
