"""What every detector returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Detection:
    """Scores of b images; higher = more anomalous.

    Attributes:
        image_score: one number an image.
        anomaly_map: one number a pixel, at the size the method evaluates.
    """

    image_score: Float[Tensor, " b"]
    anomaly_map: Float[Tensor, "b H W"]


def joined(parts: Sequence[Detection]) -> Detection:
    """Detections of images whose maps have one shape, one after the other."""
    return Detection(
        torch.cat([part.image_score for part in parts]),
        torch.cat([part.anomaly_map for part in parts]),
    )
