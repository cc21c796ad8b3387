"""Area under the per-region overlap curve (AUPRO), in the definitions that papers report.

A region is an 8-connected component of one mask. At a threshold, PRO is the mean over ALL regions
of the data set of the covered share of the region, and FPR the share of all background pixels,
those of normal images included, that are predicted anomalous (Bergmann et al., "The MVTec Anomaly
Detection Dataset", IJCV 2021). The definitions differ in the thresholds they visit and in what
they do at the FPR limit, by up to several points on coarse maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import ndimage

from clipad_core.errors import ClipadError
from clipad_core.metrics.ranking import Ranking, check_binary, check_scores, mean_up_to, rank

AuproDefinition = Literal["exact", "cflow200", "mvtec"]
MVTEC_THRESHOLDS = 100
CFLOW_STEPS = 200
EIGHT_CONNECTED = np.ones((3, 3), dtype=int)
CHUNK = 1 << 16  # pixels binned at a time, so that their 64-bit positions stay in the cache


@dataclass(frozen=True)
class Pixels:
    """All pixels of a data set; `overlap` is the share of its region that a pixel covers."""

    background: Float[np.ndarray, " n"]
    foreground: Float[np.ndarray, " p"]
    overlap: Float[np.ndarray, " p"]

    @cached_property
    def ranking(self) -> Ranking:
        """The pixels sorted, `background` in place: a data set's pixels are held once."""
        return rank(self.background, self.foreground, self.overlap)


def pool_pixels(
    maps: Shaped[np.ndarray, "b H W"] | Sequence[Shaped[np.ndarray, "_ _"]],
    masks: Shaped[np.ndarray, "b H W"] | Sequence[Shaped[np.ndarray, "_ _"]],
) -> Pixels:
    """Pool the pixels of all images, with the share of its region for every anomalous pixel.

    Raises:
        ClipadError: no image, another number or size of masks than of maps, a map that is not
            numeric or not finite, a mask value other than 0 and 1.

    >>> import numpy as np
    >>> touching_corners_and_one_apart = np.array([[1, 0, 0, 0], [0, 1, 0, 1]])
    >>> pool_pixels(np.zeros((1, 2, 4)), touching_corners_and_one_apart[None]).overlap
    array([0.5, 0.5, 1. ])
    """
    if len(maps) == 0 or len(maps) != len(masks):
        raise ClipadError(
            f"maps, masks: found {len(maps)} maps and {len(masks)} masks, expected at least one "
            "map and as many masks as maps; give normal images an empty mask."
        )
    images = [check_scores(f"maps[{i}]", image, ndim=2) for i, image in enumerate(maps)]
    background = np.empty(
        sum(image.size for image in images), np.result_type(*{image.dtype for image in images})
    )
    foreground = [background[:0]]
    areas = [np.empty(0)]
    n_background = 0
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        is_anomalous = check_binary(f"masks[{i}]", mask, shape=image.shape)
        normal = image.ravel()
        if is_anomalous.any():
            normal = image[~is_anomalous]
            foreground.append(image[is_anomalous])
            areas.append(_area_of_own_region(is_anomalous))
        background[n_background : n_background + normal.size] = normal
        n_background += normal.size
    overlap = 1 / np.concatenate(areas)
    return Pixels(background[:n_background], np.concatenate(foreground), overlap)


def _area_of_own_region(is_anomalous: Bool[np.ndarray, "H W"]) -> Int[np.ndarray, " p"]:
    """For every anomalous pixel, row by row, the area of the region it lies in."""
    labels, _ = ndimage.label(is_anomalous, structure=EIGHT_CONNECTED)
    own = labels[is_anomalous]
    return np.bincount(own)[own]


@dataclass(frozen=True)
class AuproCurve:
    """Overlap with the regions against false positives, from the highest threshold to the lowest.

    Attributes:
        fpr: share of the background that is predicted anomalous, ascending in [0, 1].
        pro: mean over all regions of the share of each that is, in [0, 1].
        thresholds: descending; a pixel is predicted anomalous that scores strictly above. inf: no pixel
            is, -inf: all are.
    """

    fpr: Float[np.ndarray, " k"]
    pro: Float[np.ndarray, " k"]
    thresholds: Float[np.ndarray, " k"]

    def __len__(self) -> int:
        return len(self.fpr)


NO_CURVE = AuproCurve(np.empty(0), np.empty(0), np.empty(0))


def curve_of_pixels(pixels: Pixels, definition: AuproDefinition) -> AuproCurve:
    """Choose the definition; see `clipad_core.metrics.metrics.aupro_curve`."""
    if definition not in get_args(AuproDefinition):
        definitions = ", ".join(get_args(AuproDefinition))
        raise ClipadError(f"definition: found {definition!r}, expected one of {definitions}.")
    if not (pixels.foreground.size and pixels.background.size):
        return NO_CURVE
    if definition == "cflow200":
        return cflow200_curve(pixels)
    return mvtec_curve(pixels.ranking) if definition == "mvtec" else exact_curve(pixels.ranking)


def aupro_of_pixels(pixels: Pixels, definition: AuproDefinition, fpr_limit: float) -> float:
    """The area under the curve of a definition; see `clipad_core.metrics.metrics.aupro`."""
    curve = curve_of_pixels(pixels, definition)
    if not 0 < fpr_limit <= 1:
        raise ClipadError(f"fpr_limit: found {fpr_limit}, expected a rate in (0, 1], usually 0.3.")
    if definition == "cflow200":
        return _stretched_area(curve, fpr_limit)
    return mean_up_to(curve.fpr, curve.pro, fpr_limit) if len(curve) else float("nan")


def exact_curve(ranking: Ranking) -> AuproCurve:
    """Every distinct score is a threshold.

    What anomalib >= 2.3 integrates. The curve starts at (0, 0) and ends at (1, 1); between two
    thresholds that add anomalous pixels it runs level.
    """
    n_points = 2 * len(ranking.thresholds)
    fpr, pro = np.zeros(n_points + 2), np.ones(n_points + 2)
    # Before and after the positives of each score: strictly above it, and above the next lower number.
    thresholds = np.full(n_points + 2, np.inf, ranking.thresholds.dtype)
    thresholds[1:-1:2] = ranking.thresholds
    thresholds[2:-1:2] = np.nextafter(ranking.thresholds, ranking.thresholds.dtype.type(-np.inf))
    thresholds[-1] = -np.inf
    fpr[1:-1:2] = ranking.false_positives_above
    fpr[2:-1:2] = ranking.false_positives
    fpr[:-1] /= len(ranking.negatives)
    fpr[-1] = 1
    pro[0] = pro[1] = 0
    pro[2:-1:2] = ranking.recall
    pro[3:-1:2] = pro[2:-3:2]
    return AuproCurve(fpr, pro, thresholds)


def mvtec_curve(ranking: Ranking) -> AuproCurve:
    """100 thresholds at equal ranks of the sorted background, FPR taken from the rank.

    The evaluation code published with MVTec 3D-AD. Tied background pixels are NOT grouped, so that
    maps with few levels score differently.
    """
    n_background = len(ranking.negatives)
    ranks = np.linspace(n_background - 1, 0, MVTEC_THRESHOLDS).astype(int)
    fpr = np.append(1 - (ranks + 1) / n_background, 1.0)
    thresholds = ranking.negatives[ranks]
    pro = np.append(ranking.recall_above(thresholds), 1.0)
    return AuproCurve(fpr, pro, np.append(thresholds, thresholds.dtype.type(-np.inf)))


def cflow200_curve(pixels: Pixels) -> AuproCurve:
    """200 equal steps from the lowest to the highest score.

    The routine of the official AnomalyCLIP and VCP-CLIP code and of most CLIP papers (it came with
    CFLOW-AD). Empty for maps without a range that can be divided into steps.
    """
    lowest = min(pixels.background.min(), pixels.foreground.min())
    highest = max(pixels.background.max(), pixels.foreground.max())
    step = (highest - lowest) / CFLOW_STEPS
    if not 0 < step < np.inf:
        return NO_CURVE
    thresholds = np.arange(lowest, highest, step)
    fpr = _sum_above(thresholds, pixels.background) / len(pixels.background)
    pro = _sum_above(thresholds, pixels.foreground, pixels.overlap) / pixels.overlap.sum()
    return AuproCurve(fpr[::-1], pro[::-1], thresholds[::-1])


def _stretched_area(curve: AuproCurve, fpr_limit: float) -> float:
    """Area where the kept FPR is stretched to [0, 1], as the routine of the 200 steps does.

    Points with FPR < limit are kept, their FPR is rescaled by its own minimum and maximum, nothing is
    interpolated at the limit. Undefined (nan) with fewer than two distinct kept FPR.
    """
    below_limit = curve.fpr < fpr_limit
    fpr, pro = curve.fpr[below_limit], curve.pro[below_limit]
    if len(fpr) < 2 or fpr[0] == fpr[-1]:
        return float("nan")
    return mean_up_to((fpr - fpr[0]) / (fpr[-1] - fpr[0]), pro, 1.0)


def _sum_above(
    thresholds: Float[np.ndarray, " t"],
    scores: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, " t"]:
    """Number (or weight) of the scores strictly above each of the ascending thresholds."""
    # score > threshold holds for exactly the same scores when the threshold is rounded down to
    # their precision; without this, every score would be widened to 64 bits.
    rounded = thresholds.astype(scores.dtype)
    rounded = np.where(rounded > thresholds, np.nextafter(rounded, -np.inf), rounded)
    total = np.zeros(len(thresholds) + 1)
    for start in range(0, len(scores), CHUNK):
        part = slice(start, start + CHUNK)
        n_below = np.searchsorted(rounded, scores[part])
        total += np.bincount(n_below, None if weights is None else weights[part], len(total))
    return total[:0:-1].cumsum()[::-1]
