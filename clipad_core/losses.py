"""The losses of AnomalyCLIP and VCP-CLIP, on probabilities, not logits.

Both official codes hold the same text (zqhang/AnomalyCLIP@45ed4dd, loss.py;
xiaozhen228/VCP-CLIP@4dd96ec, utils/loss.py). Their trainers squeeze a batch of one image into a
batch of its rows; here an image stays an image.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

FOCAL_SMOOTH = 1e-5
FOCAL_GAMMA = 2
DICE_SMOOTH = 1.0


def focal_loss(
    probabilities: Float[Tensor, "b 2 h w"], target: Float[Tensor, "b h w"]
) -> Float[Tensor, ""]:
    r"""Focal loss of two classes, mean over the pixels of the batch.

    Lin et al., ICCV 2017, as AnomalyCLIP, Eq. (2) uses it, with :math:`\gamma = 2` and no class
    weights; the one-hot target is clamped to [1e-5, 1 - 1e-5]:

    .. math:: L = -(1 - p_t)^2 \log p_t, \quad p_t = \textstyle\sum_c y_c\, p_c + 10^{-5}

    Args:
        probabilities: channel 0 normal, channel 1 anomalous, summing to 1.
        target: 1 where a pixel is anomalous.

    Returns:
        At least 0; about 0: every pixel is right and sure.

    >>> sure = torch.tensor([0.25, 0.75]).reshape(1, 2, 1, 1)
    >>> round(float(focal_loss(sure, torch.ones(1, 1, 1))), 4)
    0.018
    """
    hot = torch.stack([1 - target, target], dim=1).clamp(FOCAL_SMOOTH, 1 - FOCAL_SMOOTH)
    right = (hot * probabilities).sum(dim=1) + FOCAL_SMOOTH
    return (-((1 - right) ** FOCAL_GAMMA) * right.log()).mean()


def dice_loss(
    probability: Float[Tensor, "b h w"], target: Float[Tensor, "b h w"]
) -> Float[Tensor, ""]:
    r"""Dice loss of one channel, per image, mean over the batch.

    Milletari et al., 3DV 2016, as AnomalyCLIP, Eq. (2) uses it, smoothed by 1, nothing squared:

    .. math:: L = 1 - \frac1b \sum_b \frac{2 \sum p\, g + 1}{\sum p + \sum g + 1}

    Returns:
        In [0, 1); 0: the channel equals the target.

    >>> float(dice_loss(torch.ones(1, 2, 2), torch.ones(1, 2, 2)))
    0.0
    """
    both = (probability * target).sum(dim=(1, 2))
    each = probability.sum(dim=(1, 2)) + target.sum(dim=(1, 2))
    return 1 - ((2 * both + DICE_SMOOTH) / (each + DICE_SMOOTH)).mean()
