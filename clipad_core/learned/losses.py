"""The losses of AnomalyCLIP and VCP-CLIP, on probabilities, not logits.

Both official codes hold the same text (zqhang/AnomalyCLIP@45ed4dd, loss.py;
xiaozhen228/VCP-CLIP@4dd96ec, utils/loss.py). Their trainers squeeze a batch of one image into a
batch of its rows; here an image stays an image.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from clipad_core.errors import ClipadError

FOCAL_SMOOTH = 1e-5
FOCAL_GAMMA = 2
DICE_SMOOTH = 1.0


def focal_loss(
    normal: Float[Tensor, "*l b h w"],
    anomalous: Float[Tensor, "*l b h w"],
    target: Float[Tensor, "b h w"],
) -> Float[Tensor, ""]:
    r"""Focal loss of two classes, mean over the pixels of the batch, summed over maps of it.

    Lin et al., ICCV 2017, as AnomalyCLIP, Eq. (2) uses it, with :math:`\gamma = 2` and no class
    weights; the one-hot target is clamped to [1e-5, 1 - 1e-5]:

    .. math:: L = -(1 - p_t)^2 \log p_t, \quad p_t = \textstyle\sum_c y_c\, p_c + 10^{-5}

    Args:
        normal, anomalous: probabilities of both, summing to 1; in front, one map a block or none.
        target: 1 where a pixel is anomalous.

    Returns:
        At least 0; about 0: every pixel is right and sure.

    >>> import torch
    >>> sure = torch.full((1, 1, 1), 0.75)
    >>> round(float(focal_loss(1 - sure, sure, torch.ones(1, 1, 1))), 4)
    0.018
    """
    low, high = FOCAL_SMOOTH, 1 - FOCAL_SMOOTH
    # Each class is clamped by itself: in float32 1 - high is not low, and where a map is sure and wrong
    # its loss is the logarithm of what low leaves.
    hot_normal, hot_anomalous = (1 - target).clamp(low, high), target.clamp(low, high)
    right = hot_normal * normal + hot_anomalous * anomalous + FOCAL_SMOOTH
    each = (1 - right) ** FOCAL_GAMMA * right.log()
    return -each.sum() / target.numel()


def dice_loss(
    probability: Float[Tensor, "*l b h w"], target: Float[Tensor, "b h w"]
) -> Float[Tensor, ""]:
    r"""Dice loss of one channel, per image, mean over the batch, summed over maps of it.

    Milletari et al., 3DV 2016, as AnomalyCLIP, Eq. (2) uses it, smoothed by 1, nothing squared:

    .. math:: L = 1 - \frac1b \sum_b \frac{2 \sum p\, g + 1}{\sum p + \sum g + 1}

    Args:
        probability: of the channel; in front, one map a block or none.

    Returns:
        In [0, 1) for one map; 0: the channel equals the target.

    >>> import torch
    >>> float(dice_loss(torch.ones(1, 2, 2), torch.ones(1, 2, 2)))
    0.0
    """
    both = (probability * target).sum(dim=(-2, -1))
    each = probability.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1))
    return (1 - (2 * both + DICE_SMOOTH) / (each + DICE_SMOOTH)).sum() / len(target)


def check_masks(masks: Tensor, images: int, size: tuple[int, int]) -> None:
    """Masks must have the size of the maps, one for every image.

    Raises:
        ClipadError: another number or another size.
    """
    if masks.shape != (images, *size):
        raise ClipadError(
            f"masks: found {tuple(masks.shape)}, expected {(images, *size)}, one for every image and as "
            "large as its map; resize them."
        )
