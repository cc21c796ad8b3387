"""From patch tokens to maps: the raw branch, the branch of Post-VCP, and how they are fused.

Both branches give two logits a patch and block. They are upsampled before the softmax, so a map is
smooth where its logits are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.features import Features
from clipad_core.errors import ClipadError
from clipad_core.learned.linear_heads import head_logits
from clipad_core.maps import smoothed, upsampled_difference
from clipad_core.methods.vcpclip.config import VCPCLIPConfig
from clipad_core.methods.vcpclip.learner import VCPCLIPLearner


def block_tokens(config: VCPCLIPConfig, features: Features) -> list[Float[Tensor, "b p c"]]:
    """The patch tokens that a config reads, blocks ascending."""
    return [features.patch_tokens[block] for block in sorted(config.blocks)]


def raw_logits(
    learner: VCPCLIPLearner,
    config: VCPCLIPConfig,
    features: Features,
    text: Float[Tensor, "b 2 d"],
) -> list[Float[Tensor, "b p 2"]]:
    r"""Patches against the text embeddings, a linear head a block (Eq. (3), before upsampling).

    :math:`\langle n(W_l x + b_l), t \rangle / \tau_1` for every block l, ascending.

    Raises:
        ClipadError: a learner whose head is a decoder.
    """
    if learner.decoder is not None:
        raise ClipadError(
            "head: found decoder, expected contrastive: a decoder compares no patch with the text; train "
            "with head: contrastive."
        )
    tokens = block_tokens(config, features)
    return head_logits(learner.raw_heads, tokens, text, learner.raw_logit_scale.exp())


def new_logits(
    learner: VCPCLIPLearner,
    config: VCPCLIPConfig,
    features: Features,
    text: Float[Tensor, "b 2 d"],
) -> list[Float[Tensor, "b p 2"]]:
    r"""Patches against text embeddings that saw them (Eq. (9), before upsampling); may be empty.

    :math:`\langle n(x), O_t \rangle / \tau_2`, where Post-VCP makes :math:`O_t` of each block's own
    patches with the same weights.
    """
    if learner.post_vcp is None:
        return []
    scale, queries, logits = learner.post_vcp.logit_scale.exp(), learner.post_vcp.ask(text), []
    for block in sorted(config.blocks):
        tokens = features.patch_tokens[block]
        patches = F.normalize(tokens, dim=-1)
        seen = patches if config.post_unit_tokens else tokens
        logits.append(scale * (patches @ learner.post_vcp(queries, seen).transpose(1, 2)))
    return logits


def branch_map(
    logits: list[Float[Tensor, "b p 2"]], grid: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "b H W"]:
    """Probability of an anomaly at every pixel, the mean over the blocks (section 3.4)."""
    total = torch.sigmoid(upsampled_difference(logits[0], grid, size))
    for block_logits in logits[1:]:
        total += torch.sigmoid(upsampled_difference(block_logits, grid, size))
    return total / len(logits)


def fuse(
    raw: Float[Tensor, "b H W"], new: Float[Tensor, "b H W"] | None, config: VCPCLIPConfig
) -> Float[Tensor, "b H W"]:
    """Weigh and smooth the branches; without Post-VCP the raw one is the map.

    The official evaluation then stretches the maps of a whole category to [0, 1]. That moves its
    printed threshold and no metric here, so it is left out: a map does not depend on other images.
    """
    fused = raw if new is None else config.alpha * raw + (1 - config.alpha) * new
    return smoothed(fused, config.sigma)


def mean_of_top(maps: Float[Tensor, "b H W"], count: int) -> Float[Tensor, " b"]:
    """Mean of the ``count`` largest pixels of each map.

    >>> mean_of_top(torch.tensor([[[1.0, 2.0], [3.0, 6.0]]]), 2)
    tensor([4.5000])
    """
    return maps.flatten(1).topk(count, sorted=False).values.mean(dim=1)
