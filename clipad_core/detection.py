"""What every detector returns."""

from __future__ import annotations

from dataclasses import dataclass

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
