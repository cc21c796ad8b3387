"""Refinements: a last step that any method's map may end with, `refine(image, map) -> map`.

A map is coarse: the towers see patches. A refinement moves its edges to those of the image. It reads the
image and the map alone, so every method can end with every refinement, and no method knows of any::

    refined = RefinedDetector(detector, GuidedFilter())(images)

Image scores stay as the method gives them.
"""

from clipad_core.refinement.detector import RefinedDetection, RefinedDetector, refine_maps
from clipad_core.refinement.guided import GuidedFilter
from clipad_core.refinement.reading import NO_REFINEMENT, read_refinement
from clipad_core.refinement.refinement import Refinement
from clipad_core.refinement.regions import Felzenszwalb, Slic
from clipad_core.refinement.sam import SegmentAnything

__all__ = [
    "NO_REFINEMENT",
    "Felzenszwalb",
    "GuidedFilter",
    "RefinedDetection",
    "RefinedDetector",
    "Refinement",
    "SegmentAnything",
    "Slic",
    "read_refinement",
    "refine_maps",
]
