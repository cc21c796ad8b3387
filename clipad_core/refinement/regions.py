"""Regions of the image, whose means replace the values of the map."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from clipad_core.clip.preprocess import AnyPixels
from clipad_core.config import check_least
from clipad_core.errors import ClipadError
from clipad_core.refinement.refinement import (
    AnomalyMap,
    Refinement,
    check_above_zero,
    check_sides,
    lacks,
)

Regions = Int[np.ndarray, "H W"]


def region_means(anomaly_map: AnomalyMap, regions: Regions) -> AnomalyMap:
    """Replace every value by the mean over its region.

    Args:
        anomaly_map: (H, W).
        regions: the number of every pixel's region, from 0; -1 where it is in none and keeps its value.

    Returns:
        (H, W); the very map where all pixels are in one region, or none is in any: it would rank nothing.

    >>> region_means(np.array([[0.0, 1.0, 5.0]]), np.array([[0, 0, -1]]))
    array([[0.5, 0.5, 5. ]])
    """
    if regions.min() == regions.max():
        return anomaly_map
    numbers = regions.ravel() + 1
    counts = np.bincount(numbers)
    sums = np.bincount(numbers, weights=anomaly_map.ravel())
    means = sums / np.maximum(counts, 1)
    return np.where(regions < 0, anomaly_map, means[regions + 1]).astype(anomaly_map.dtype)


@dataclass(frozen=True)
class RegionMeans(Refinement):
    """Regions of the image by its colours alone."""

    @abstractmethod
    def regions(self, image: AnyPixels) -> Regions:
        """The number of every pixel's region, from 0."""

    def __call__(self, image: AnyPixels, anomaly_map: AnomalyMap) -> AnomalyMap:
        """Refine one map; see `Refinement` and `region_means`."""
        check_sides(image, anomaly_map)
        return region_means(anomaly_map, self.regions(image))

    def check(self) -> None:
        """Find a missing package."""
        try:
            import skimage.segmentation  # noqa: F401
        except ImportError as error:
            raise lacks(self.name, "scikit-image", "pip install scikit-image") from error


@dataclass(frozen=True)
class Slic(RegionMeans):
    """Superpixels of SLIC (Achanta et al., TPAMI 2012), as scikit-image finds them.

    Attributes:
        count: about how many, whatever the size of the image.
        compactness: what distance weighs against colour; the paper names 1 to 40 and shows 10.
    """

    name: ClassVar[str] = "slic"

    count: int = 200
    compactness: float = 10.0

    def __post_init__(self) -> None:
        check_least("count", self.count, 2)
        check_above_zero("compactness", self.compactness)

    def regions(self, image: AnyPixels) -> Regions:
        """The superpixels of an image."""
        self.check()
        from skimage.segmentation import slic

        regions = slic(image, self.count, self.compactness, start_label=0, channel_axis=-1)
        return np.asarray(regions)


@dataclass(frozen=True)
class Felzenszwalb(RegionMeans):
    """Regions of a graph of pixels (Felzenszwalb and Huttenlocher, IJCV 2004), as scikit-image finds them.

    Attributes:
        scale: the paper's k, for colours from 0 to 255: the larger, the larger the regions; 150 is what
            it takes for images of 128 x 128 pixels.
        sigma: of the Gaussian filter before, in pixels; the paper always takes 0.8.
        min_size: pixels; a smaller region joins its neighbour, at 20 in the authors' own program.
    """

    name: ClassVar[str] = "felzenszwalb"

    scale: float = 150.0
    sigma: float = 0.8
    min_size: int = 20

    def __post_init__(self) -> None:
        check_above_zero("scale", self.scale)
        check_least("min_size", self.min_size, 1)
        if not 0 <= self.sigma < float("inf"):
            raise ClipadError(f"sigma: found {self.sigma}, expected a number from 0.")

    def regions(self, image: AnyPixels) -> Regions:
        """The regions of an image."""
        self.check()
        from skimage.segmentation import felzenszwalb

        return np.asarray(felzenszwalb(image, self.scale, self.sigma, self.min_size))
