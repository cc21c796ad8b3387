"""The equations of WinCLIP, one function each.

Scores are in [0, 1] and higher is more anomalous. Inputs are unit norm; device and dtype come from
them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def cover_matrix(index: Int[Tensor, "n a"], patches: int) -> Float[Tensor, "p n"]:
    """Which window covers which patch: entry (p, n) is 1 where window n holds patch p.

    >>> cover_matrix(torch.tensor([[0, 1], [1, 2]]), patches=3)
    tensor([[1., 0.],
            [1., 1.],
            [0., 1.]])
    """
    matrix = torch.zeros(patches, len(index))
    matrix[index, torch.arange(len(index))[:, None]] = 1
    return matrix


def harmonic_aggregation(
    scores: Float[Tensor, "b n"], cover: Float[Tensor, "p n"]
) -> Float[Tensor, "b p"]:
    r"""Spread window scores over their patches by the harmonic mean, which listens to the lowest.

    WinCLIP (Jeong et al., CVPR 2023), Eq. (3), :math:`C_p` the windows that cover patch p:

    .. math:: M_p = |C_p| \Big/ \sum_{u \in C_p} \frac{1}{s_u}

    A score of zero makes its patches zero, which is the limit of the formula.

    >>> cover = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> harmonic_aggregation(torch.tensor([[0.2, 0.8]]), cover)
    tensor([[0.2000, 0.3200, 0.8000]])
    """
    # 1/0 times a window that does not cover the patch would be NaN; the smallest number is not.
    safe = torch.where(scores == 0, torch.finfo(scores.dtype).tiny, scores)
    return cover.sum(dim=1) / ((1 / safe) @ cover.T)


def arithmetic_aggregation(
    scores: Float[Tensor, "b n"], cover: Float[Tensor, "p n"]
) -> Float[Tensor, "b p"]:
    """The plain mean over the windows of a patch (the "no harmonic" row of Table 8).

    >>> cover = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> arithmetic_aggregation(torch.tensor([[0.2, 0.8]]), cover)
    tensor([[0.2000, 0.5000, 0.8000]])
    """
    return (scores @ cover.T) / cover.sum(dim=1)
