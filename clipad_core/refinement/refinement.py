"""What a refinement is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from clipad_core.clip.preprocess import AnyPixels
from clipad_core.errors import ClipadError

# One number a pixel, higher = more anomalous.
AnomalyMap = Float[np.ndarray, "H W"]
# Several maps, each of a size of its own.
AnyMap = Float[np.ndarray, "_ _"]


@dataclass(frozen=True)
class Refinement(ABC):
    """A step from an image and its map to a map that keeps to the image's edges; a field a setting.

    Attributes:
        name: what params.yaml and the command line call it.
    """

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, image: AnyPixels, anomaly_map: AnomalyMap) -> AnomalyMap:
        """Refine one map.

        Args:
            image: uint8 RGB (H, W, 3), as the method saw it, at the map's size.
            anomaly_map: (H, W).

        Returns:
            (H, W) of the map's type; the very map that was given where the image has nothing to refine
            it by, such as a single region.

        Raises:
            ClipadError: as `check` does.
        """

    def check(self) -> None:  # noqa: B027  # most need nothing
        """Find what is missing before a map is refined.

        Raises:
            ClipadError: a package or a file that the refinement needs is not here.
        """

    def key(self) -> dict[str, object]:
        """All that its maps depend on, the code apart, for the hash that names a result."""
        return {"name": self.name, **asdict(self)}


def check_sides(image: AnyPixels, anomaly_map: AnyMap) -> None:
    """Refuse an image of another size than its map.

    Raises:
        ClipadError: it is.
    """
    if image.shape[:2] != anomaly_map.shape:
        raise ClipadError(
            f"image: found {image.shape[0]} x {image.shape[1]} pixels beside a map of "
            f"{anomaly_map.shape[0]} x {anomaly_map.shape[1]}, expected one size; resize the image."
        )


def check_above_zero(name: str, value: float) -> None:
    """Refuse a setting that must be above 0.

    >>> check_above_zero("epsilon", 0.0)
    Traceback (most recent call last):
        ...
    clipad_core.errors.ClipadError: epsilon: found 0.0, expected a number above 0.
    """
    if not 0 < value < float("inf"):
        raise ClipadError(f"{name}: found {value}, expected a number above 0.")


def lacks(refinement: str, package: str, install: str) -> ClipadError:
    """The error of a package that is not installed.

    >>> str(lacks("slic", "scikit-image", "pip install scikit-image")).partition("; ")[0]
    'refine: slic needs scikit-image, which is not installed here'
    """
    return ClipadError(
        f"refine: {refinement} needs {package}, which is not installed here; `{install}`, or choose "
        "guided or none."
    )
