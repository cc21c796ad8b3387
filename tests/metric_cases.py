"""Maps, masks, labels and scores that several tests of the metrics share."""

import numpy as np
import pytest

from clipad_core.metrics.metrics import aupr_trapezoid, auroc, average_precision, f1_max

PUBLISHED = pytest.mark.official(
    "metrics", "anomalib 2.7.0, scikit-learn, the evaluations of MVTec AD, AnomalyCLIP and VCP-CLIP"
)
DEFINITIONS = ("exact", "cflow200", "mvtec")
SCALARS = (auroc, average_precision, aupr_trapezoid, f1_max)
EXACT = {"rel": 0, "abs": 1e-12}  # two correct float64 computations
FLOAT32 = {"rel": 0, "abs": 5e-7}  # anomalib sums in float32

HAND_MAP = np.array([[[0.9, 0.8, 0.1], [0.7, 0.2, 0.1], [0.1, 0.1, 0.6]]])
HAND_MASK = np.array([[[1, 0, 0], [1, 0, 0], [0, 0, 1]]])


def random_labels_and_scores(seed: int, levels: int | None) -> tuple[np.ndarray, np.ndarray]:
    """200 scores, with few distinct values where `levels` is given."""
    random = np.random.default_rng(seed)
    labels = (random.random(200) < 0.2).astype(int)
    scores = random.normal(size=200) + labels
    return labels, scores if levels is None else np.round(scores * levels / 4) / levels


def random_maps_and_masks(
    seed: int, levels: int | None = None, size: int = 9
) -> tuple[np.ndarray, np.ndarray]:
    """Five maps with blobs and with corners that touch; the first image is normal."""
    random = np.random.default_rng(seed)
    masks = (random.random((5, size, size)) < 0.15).astype(np.uint8)
    masks[0] = 0
    maps = random.random((5, size, size)) + 0.4 * masks
    if levels is not None:
        maps = np.round(maps * levels) / levels
    return maps.astype(np.float32), masks


def naive_area(points: list[tuple[float, float]], limit: float = 1.0) -> float:
    """Trapezoids under the points, the last one cut at the limit."""
    area = 0.0
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if x1 > limit:
            if x0 < limit:
                y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
                area += (limit - x0) * (y0 + y1) / 2
            break
        area += (x1 - x0) * (y0 + y1) / 2
    return area
