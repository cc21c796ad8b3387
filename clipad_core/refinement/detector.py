"""Refinements at the end of detectors, and of maps of images of any size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from clipad_core.clip.features import Images, canvas_of, check_images
from clipad_core.clip.preprocess import AnyPixels
from clipad_core.detection import Detection
from clipad_core.errors import ClipadError
from clipad_core.methods.method import Detector
from clipad_core.refinement.refinement import AnyMap, Refinement


@dataclass(frozen=True)
class RefinedDetection(Detection):
    """What a detector returns, its maps refined.

    Attributes:
        unrefined: places of the images that the refinement found nothing in; their maps are as the method
            gives them.
    """

    unrefined: tuple[int, ...] = ()


class RefinedDetector:
    """A detector whose maps are refined: ``RefinedDetector(detector, GuidedFilter())(images)``.

    Args:
        detector: of any method.
        refinement: what its maps end with.

    Raises:
        ClipadError: the refinement lacks a package or a file.
    """

    def __init__(self, detector: Detector, refinement: Refinement) -> None:
        refinement.check()
        self.detector, self.refinement = detector, refinement

    def __call__(self, images: Images) -> RefinedDetection:
        """Score images as the detector does, then refine their maps.

        Args:
            images: RGB images, arrays (height, width, 3) of uint8.

        Raises:
            ClipadError: see `Detector`; normalised tensors, which show no image.
        """
        if isinstance(images, torch.Tensor):
            raise ClipadError(
                "images: found a tensor, expected RGB images in a list, since a refinement reads the image "
                "itself."
            )
        backbone, recipe = self.detector.backbone, self.detector.recipe
        check_images(images, backbone.input_size)
        detection = self.detector(images)
        seen = (canvas_of(backbone, image, recipe) for image in images)
        own = detection.anomaly_map
        maps, unrefined = refine_maps(self.refinement, seen, list(own.cpu().numpy()))
        refined = torch.from_numpy(np.stack(maps)).to(own)
        return RefinedDetection(detection.image_score, refined, tuple(unrefined))


def refine_maps(
    refinement: Refinement, images: Iterable[AnyPixels], maps: Sequence[AnyMap]
) -> tuple[list[AnyMap], list[int]]:
    """Refine maps by their images.

    Args:
        images: as the method saw them; one of another size than its map is resized to it.
        maps: one an image.

    Returns:
        The maps, and the places of those that stayed as they are, since nothing was found in their image.
    """
    refined, unrefined = [], []
    for place, (image, anomaly_map) in enumerate(zip(images, maps, strict=True)):
        refined.append(refinement(_at_size(image, anomaly_map.shape), anomaly_map))
        if refined[-1] is anomaly_map:
            unrefined.append(place)
    return refined, unrefined


def _at_size(image: AnyPixels, size: tuple[int, ...]) -> AnyPixels:
    if image.shape[:2] == size:
        return image
    height, width = size
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)
