"""Segment Anything (Kirillov et al., ICCV 2023) through its own package, prompted by the map."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from scipy.ndimage import find_objects, label

from clipad_core.clip.device import AUTO, find_device
from clipad_core.clip.preprocess import AnyPixels
from clipad_core.config import check_least
from clipad_core.errors import ClipadError
from clipad_core.refinement.refinement import AnomalyMap, Refinement, check_sides, lacks
from clipad_core.refinement.regions import region_means

Prompts = Literal["box and point", "box", "point"]


@runtime_checkable
class Predictor(Protocol):
    """What is used of the package's ``SamPredictor``."""

    def set_image(self, image: np.ndarray) -> None:
        """Encode an image, uint8 RGB."""

    def predict(self, **prompts: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masks (m, H, W), the overlap that each is expected to have, and logits."""


class Prompt(NamedTuple):
    """Where a map is high.

    Attributes:
        box: left, top, right and bottom pixel.
        point: column and row of the highest value in it.
    """

    box: tuple[int, int, int, int]
    point: tuple[int, int]


@dataclass(frozen=True)
class SegmentAnything(Refinement):
    """Segments around the peaks of a map; their means replace its values, and all others stay.

    Attributes:
        checkpoint: file of the published weights.
        model: which of the published models the file holds.
        prompts: what of a peak the model is given.
        most: peaks of a map, the highest first.
        device: where it computes, see `clipad_core.clip.device.find_device`.
    """

    name: ClassVar[str] = "sam"

    checkpoint: str
    model: Literal["vit_b", "vit_l", "vit_h"] = "vit_b"
    prompts: Prompts = "box and point"
    most: int = 5
    device: str = AUTO

    def __post_init__(self) -> None:
        check_least("most", self.most, 1)

    def __call__(self, image: AnyPixels, anomaly_map: AnomalyMap) -> AnomalyMap:
        """Refine one map; see `Refinement`."""
        return refine_by_segments(_opened(self), image, anomaly_map, self.prompts, self.most)

    def check(self) -> None:
        """Find a missing package or file."""
        _package()
        self._file()

    def key(self) -> dict[str, object]:
        """The fields, with the content of the checkpoint in place of its name."""
        with self._file().open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return super().key() | {"checkpoint": digest}

    def _file(self) -> Path:
        path = Path(self.checkpoint)
        if not path.is_file():
            raise ClipadError(
                f"refine: sam.checkpoint: found no file {path}, expected the weights of {self.model} that "
                "its authors publish."
            )
        return path

    def open(self, package: Any) -> Predictor:
        """Load the model.

        Args:
            package: ``segment_anything``, or what has its ``sam_model_registry`` and ``SamPredictor``.

        Raises:
            ClipadError: the checkpoint cannot be read, or is of another model.
        """
        try:
            model = package.sam_model_registry[self.model](checkpoint=self.checkpoint)
        except (OSError, EOFError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
            raise ClipadError(
                f"refine: sam.checkpoint: {self.checkpoint} cannot be read as {self.model} "
                f"({str(error).partition(chr(10))[0]}), expected the weights of {self.model} that its "
                "authors publish; say which `model` the file holds."
            ) from error
        predictor: Predictor = package.SamPredictor(model.to(find_device(self.device)))
        return predictor


@lru_cache(maxsize=1)
def _opened(settings: SegmentAnything) -> Predictor:
    """The model of some settings, loaded once."""
    settings.check()
    return settings.open(_package())


def _package() -> Any:
    # First, since it imports torchvision: see there.
    import clipad_core.clip.open_clip  # noqa: F401

    try:
        import segment_anything
    except ImportError as error:
        source = "pip install git+https://github.com/facebookresearch/segment-anything"
        raise lacks(SegmentAnything.name, "segment_anything", source) from error
    return segment_anything


def prompts_of(anomaly_map: AnomalyMap, most: int) -> list[Prompt]:
    """Boxes and points around the highest peaks of a map.

    A peak is what is connected and above the middle between the map's median and its maximum.

    Args:
        anomaly_map: (H, W).
        most: how many, the highest first.

    >>> peaks = np.zeros((4, 6))
    >>> peaks[1:3, 1:3], peaks[0, 5] = [[2, 3], [2, 2]], 4
    >>> prompts_of(peaks, most=2)
    [Prompt(box=(5, 0, 5, 0), point=(5, 0)), Prompt(box=(2, 1, 2, 1), point=(2, 1))]
    """
    low, high = float(np.median(anomaly_map)), float(anomaly_map.max())
    numbers, _ = label(anomaly_map > (low + high) / 2)
    peaks = []
    for place, (rows, columns) in enumerate(find_objects(numbers), start=1):
        own = np.where(numbers[rows, columns] == place, anomaly_map[rows, columns], -np.inf)
        row, column = np.unravel_index(int(own.argmax()), own.shape)
        box = (columns.start, rows.start, columns.stop - 1, rows.stop - 1)
        point = (columns.start + int(column), rows.start + int(row))
        peaks.append((float(own.max()), Prompt(box, point)))
    return [prompt for _, prompt in sorted(peaks, key=lambda peak: -peak[0])[:most]]


def refine_by_segments(
    predictor: Predictor,
    image: AnyPixels,
    anomaly_map: AnomalyMap,
    prompts: Prompts = "box and point",
    most: int = 5,
) -> AnomalyMap:
    """Replace the values of a map by the means over the segments around its peaks.

    Where segments overlap the one counts that the model trusts most.

    Args:
        predictor: a loaded model.
        image: uint8 RGB, at the map's size.
        anomaly_map: (H, W).
        prompts: what of a peak the model is given.
        most: peaks.

    Returns:
        (H, W); the very map where the model finds no segment.
    """
    check_sides(image, anomaly_map)
    peaks = prompts_of(anomaly_map, most)
    regions = np.full(anomaly_map.shape, -1)
    if not peaks:
        return anomaly_map
    predictor.set_image(image)
    segments = [_segment(predictor, peak, prompts) for peak in peaks]
    ordered: Sequence[int] = np.argsort([trust for _, trust in segments], kind="stable").tolist()
    for place in ordered:
        regions[segments[place][0]] = place
    return region_means(anomaly_map, regions)


def _segment(predictor: Predictor, peak: Prompt, prompts: Prompts) -> tuple[np.ndarray, float]:
    """The mask (H, W) of one peak, and the overlap with the truth that the model expects of it."""
    asked: dict[str, np.ndarray] = {}
    if prompts != "point":
        asked["box"] = np.array(peak.box, dtype=np.float64)
    if prompts != "box":
        asked["point_coords"] = np.array([peak.point], dtype=np.float64)
        asked["point_labels"] = np.array([1])
    masks, trust, _ = predictor.predict(**asked, multimask_output=False)
    return np.asarray(masks[0], dtype=bool), float(trust[0])
