"""Raw patch tokens against text, a learned linear layer a block: APRIL-GAN, and VCP-CLIP's raw branch."""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor, nn

NORM_LEAST = 1e-12  # as torch.nn.functional.normalize has it


def head_logits(
    heads: nn.ModuleList,
    tokens: Iterable[Float[Tensor, "b p c"]],
    text: Float[Tensor, "_ 2 d"],
    scale: float | Float[Tensor, ""],
) -> list[Float[Tensor, "b p 2"]]:
    r"""Logits of every patch, normal and anomalous, a list entry a block.

    .. math:: s \, \langle n(W_l x + b_l), t \rangle

    Args:
        heads: the linear layers, from the width of the tower to that of the joint space.
        tokens: of their blocks, not normalised.
        text: unit norm, a pair an image or one for all.
        scale: what similarities are multiplied with, :math:`1/\tau`.

    >>> import torch
    >>> head = nn.Linear(2, 2, bias=False)
    >>> _ = nn.init.eye_(head.weight)
    >>> patches = torch.tensor([[[3.0, 4.0]]])
    >>> head_logits(nn.ModuleList([head]), [patches], torch.eye(2)[None], 10.0)[0].detach()
    tensor([[[6., 8.]]])
    """
    logits = []
    for head, raw in zip(heads, tokens, strict=True):
        patches = head(raw)
        # The two products are divided by the norm, not the whole patch: up to a fifth less time.
        norm = patches.norm(dim=-1, keepdim=True).clamp_min(NORM_LEAST)
        logits.append(scale * (patches @ text.transpose(1, 2)) / norm)
    return logits
