"""The guided filter: a map that is, in every small window, a linear function of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float64
from scipy.ndimage import uniform_filter

from clipad_core.clip.preprocess import AnyPixels
from clipad_core.refinement.refinement import AnomalyMap, Refinement, check_above_zero, check_sides

# Weights of red, green and blue in the brightness of ITU-R BT.601, which Pillow's "L" has too.
_BRIGHTNESS = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class GuidedFilter(Refinement):
    r"""Guided image filtering (He, Sun, Tang, TPAMI 2013), Eqs. (14) to (16).

    In every window :math:`\omega_k` the output is linear in the guide :math:`I`, and near the map
    :math:`p` in least squares; a pixel takes the mean over all windows that hold it:

    .. math:: a_k = (\Sigma_k + \epsilon U)^{-1} \left(\tfrac{1}{|\omega|} \sum_{i \in \omega_k} I_i p_i -
        \mu_k \bar p_k\right), \quad b_k = \bar p_k - a_k^\top \mu_k, \quad
        q_i = \bar a_i^\top I_i + \bar b_i

    Windows are cut at the border. A flat image has no edges, there it is two box filters in a row.

    Attributes:
        radius: of a window, as a share of the map's shorter side, so that one setting fits every
            resolution; at least one pixel.
        epsilon: variance of the guide, in [0, 1] squared, below which a window counts as flat.
        guide: the three colours, or their brightness.
    """

    name: ClassVar[str] = "guided"

    radius: float = 0.03
    epsilon: float = 0.001
    guide: Literal["colour", "grey"] = "colour"

    def __post_init__(self) -> None:
        check_above_zero("radius", self.radius)
        check_above_zero("epsilon", self.epsilon)

    def __call__(self, image: AnyPixels, anomaly_map: AnomalyMap) -> AnomalyMap:
        """Refine one map; see `Refinement`.

        >>> image = np.zeros((4, 8, 3), np.uint8)
        >>> image[:, 4:] = 255  # an edge in the middle
        >>> blurred = np.tile(np.linspace(0, 1, 8), (4, 1))
        >>> GuidedFilter(radius=0.5)(image, blurred)[0].round(1)
        array([0.2, 0.2, 0.2, 0.3, 0.7, 0.8, 0.8, 0.8])
        """
        check_sides(image, anomaly_map)
        guide = image.astype(np.float64) / 255
        if self.guide == "grey":
            guide = guide @ np.array(_BRIGHTNESS)[:, None]
        pixels = max(1, round(self.radius * min(anomaly_map.shape)))
        refined = guided_filter(guide, anomaly_map.astype(np.float64), pixels, self.epsilon)
        return refined.astype(anomaly_map.dtype)


def guided_filter(
    guide: Float64[np.ndarray, "H W c"],
    values: Float64[np.ndarray, "H W"],
    radius: int,
    epsilon: float,
) -> Float64[np.ndarray, "H W"]:
    """Filter values by a guide of any number of channels; see `GuidedFilter`.

    Args:
        guide: in [0, 1].
        radius: of a window in pixels: its sides are 2 radius + 1.
        epsilon: above 0.
    """
    window = 2 * radius + 1
    inside = uniform_filter(np.ones(values.shape), window, mode="constant")

    def mean(array: np.ndarray) -> np.ndarray:
        """Over the part of every window that lies inside the image, of every channel by itself."""
        size = (window, window) + (1,) * (array.ndim - 2)
        share = inside.reshape(inside.shape + (1,) * (array.ndim - 2))
        return np.asarray(uniform_filter(array, size, mode="constant") / share)

    means, mean_value = mean(guide), mean(values)
    products = guide[..., :, None] * guide[..., None, :]
    covariance = mean(products) - means[..., :, None] * means[..., None, :]
    with_values = mean(guide * values[..., None]) - means * mean_value[..., None]
    regularised = covariance + epsilon * np.eye(guide.shape[-1])
    slopes = np.linalg.solve(regularised, with_values[..., None])[..., 0]
    offsets = mean_value - (slopes * means).sum(axis=-1)
    return np.asarray((mean(slopes) * guide).sum(axis=-1) + mean(offsets))
