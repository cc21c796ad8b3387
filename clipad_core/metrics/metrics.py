"""Image and pixel AUROC, average precision, F1-max, IoU and AUPRO, exact and from one sort.

Labels are 0 (normal) and 1 (anomalous), higher scores are more anomalous, ties are grouped by
value. All values lie in [0, 1]; a metric that is undefined for the data (one of the two classes
is missing, for AUPRO also no region) is float nan, to be read as "undefined" and shown as a dash.
Bad input (NaN, infinite or no scores, other shapes, labels other than 0 and 1) raises ClipadError.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped

from clipad_core.metrics.aupro import (
    AuproCurve,
    AuproDefinition,
    Pixels,
    aupro_of_pixels,
    curve_of_pixels,
    pool_pixels,
)
from clipad_core.metrics.ranking import Ranking, check_binary, check_scores, rank

UNDEFINED = float("nan")


def image_metrics(
    labels: Shaped[np.ndarray, " b"], scores: Shaped[np.ndarray, " b"]
) -> dict[str, float]:
    """Image AUROC, average precision and F1-max of one category.

    Args:
        labels: 0 for normal, 1 for anomalous images.
        scores: image scores.

    Returns:
        `image_auroc`, `image_ap`, `image_f1max`; nan where undefined.

    >>> import numpy as np
    >>> image_metrics(np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.4, 0.8]))
    {'image_auroc': 0.875, 'image_ap': 0.8333333333333333, 'image_f1max': 0.8}
    """
    return _named("image", _rank_labelled(labels, scores))


def pixel_metrics(
    maps: Shaped[np.ndarray, "b H W"] | Sequence[Shaped[np.ndarray, "_ _"]],
    masks: Shaped[np.ndarray, "b H W"] | Sequence[Shaped[np.ndarray, "_ _"]],
    *,
    aupro: AuproDefinition = "exact",
    fpr_limit: float = 0.3,
    iou: bool = False,
) -> dict[str, float]:
    """Pixel AUROC, average precision, F1-max and AUPRO of one category, all pixels pooled.

    Args:
        maps: anomaly maps, a stack or a sequence of maps of any sizes.
        masks: 0/1 masks of the maps' sizes; empty for normal images.
        aupro: definition of AUPRO, see `clipad_core.metrics.metrics.aupro`.
        fpr_limit: upper end of the false-positive rates that AUPRO integrates over.
        iou: whether to give `pixel_iou` as well, see `clipad_core.metrics.metrics.pixel_iou`.

    Returns:
        `pixel_auroc`, `pixel_ap`, `pixel_f1max`, `aupro`; nan where undefined.

    >>> import numpy as np
    >>> maps = np.array([[[0.1, 0.2], [0.3, 0.9]]])
    >>> pixel_metrics(maps, np.array([[[0, 0], [0, 1]]]))
    {'pixel_auroc': 1.0, 'pixel_ap': 1.0, 'pixel_f1max': 1.0, 'aupro': 1.0}
    """
    return metrics_of_pixels(pool_pixels(maps, masks), aupro=aupro, fpr_limit=fpr_limit, iou=iou)


def metrics_of_pixels(
    pixels: Pixels, *, aupro: AuproDefinition = "exact", fpr_limit: float = 0.3, iou: bool = False
) -> dict[str, float]:
    """`pixel_metrics` of pixels that are pooled already, which further metrics can be read from too.

    >>> import numpy as np
    >>> pixels = pool_pixels(np.array([[[0.1, 0.2], [0.3, 0.9]]]), np.array([[[0, 0], [0, 1]]]))
    >>> metrics_of_pixels(pixels)["pixel_auroc"]
    1.0
    """
    region_overlap = aupro_of_pixels(pixels, aupro, fpr_limit)
    named = _named("pixel", pixels.ranking) | {"aupro": region_overlap}
    return named | ({"pixel_iou": _iou(pixels.ranking)} if iou else {})


def pixel_iou(
    maps: Shaped[np.ndarray, "b H W"] | Sequence[Shaped[np.ndarray, "_ _"]],
    masks: Shaped[np.ndarray, "b H W"] | Sequence[Shaped[np.ndarray, "_ _"]],
) -> float:
    """Intersection over union at the threshold of the largest pixel F1, all pixels pooled.

    As the official VCP-CLIP code has it: of several best thresholds the lowest, and a pixel is
    predicted anomalous strictly ABOVE it, while F1 counts those at it too.

    Returns:
        A value in [0, 1]; 1: prediction and masks are the same pixels. nan without both classes.

    >>> import numpy as np
    >>> maps, masks = np.array([[[0.1, 0.9], [0.3, 0.9]]]), np.array([[[0, 1], [1, 1]]])
    >>> round(pixel_iou(maps, masks), 4)  # F1 is 1 at 0.3; above it are two of three
    0.6667
    """
    return _iou(pool_pixels(maps, masks).ranking)


def aupro(
    maps: Shaped[np.ndarray, "b H W"] | Sequence[Shaped[np.ndarray, "_ _"]],
    masks: Shaped[np.ndarray, "b H W"] | Sequence[Shaped[np.ndarray, "_ _"]],
    definition: AuproDefinition = "exact",
    fpr_limit: float = 0.3,
) -> float:
    """Normalised area under the per-region overlap curve up to `fpr_limit`.

    Definitions, each tested against recorded values of the code it comes from:

    - `exact`: every distinct score a threshold, interpolated at the limit (anomalib >= 2.3).
    - `cflow200`: 200 equal steps of the score range, kept FPR stretched to [0, 1] (official
      AnomalyCLIP and VCP-CLIP code, Accurate-WinCLIP, most CLIP papers).
    - `mvtec`: 100 thresholds at equal background ranks, interpolated at the limit (MVTec).

    Returns:
        A value in [0, 1]; 1: every region is covered before any background. nan without a region or
        without background, and for `cflow200` where fewer than two distinct FPR are kept.

    >>> import numpy as np
    >>> maps = np.array([[[0.9, 0.8, 0.1], [0.7, 0.2, 0.1], [0.1, 0.1, 0.6]]])
    >>> masks = np.array([[[1, 0, 0], [1, 0, 0], [0, 0, 1]]])
    >>> round(aupro(maps, masks), 4)  # (0, 1/4), (1/6, 1/4), (1/6, 1), (1, 1)
    0.5833
    """
    return aupro_of_pixels(pool_pixels(maps, masks), definition, fpr_limit)


def aupro_curve(
    maps: Shaped[np.ndarray, "b H W"] | Sequence[Shaped[np.ndarray, "_ _"]],
    masks: Shaped[np.ndarray, "b H W"] | Sequence[Shaped[np.ndarray, "_ _"]],
    definition: AuproDefinition = "exact",
) -> AuproCurve:
    """The per-region overlap curve whose area up to a limit is `aupro`.

    Args:
        definition: which thresholds are visited, see `aupro`; what a definition does at its limit is
            not part of the curve.

    Returns:
        False-positive rates, mean overlaps and thresholds; empty where `aupro` has no curve: without a
        region or without background, and for `cflow200` without a range of scores.

    >>> import numpy as np
    >>> maps = np.array([[[0.9, 0.8, 0.1], [0.7, 0.2, 0.1], [0.1, 0.1, 0.6]]])
    >>> masks = np.array([[[1, 0, 0], [1, 0, 0], [0, 0, 1]]])
    >>> curve = aupro_curve(maps, masks)
    >>> curve.fpr.round(3), curve.pro
    (array([0.   , 0.   , 0.   , 0.167, 0.167, 0.167, 0.167, 1.   ]),
     array([0.  , 0.  , 0.25, 0.25, 0.5 , 0.5 , 1.  , 1.  ]))
    >>> curve.thresholds.round(3)
    array([ inf,  0.9,  0.9,  0.7,  0.7,  0.6,  0.6, -inf])
    """
    return curve_of_pixels(pool_pixels(maps, masks), definition)


def auroc(labels: Shaped[np.ndarray, " n"], scores: Shaped[np.ndarray, " n"]) -> float:
    """Area under the ROC curve: the chance that an anomaly scores above a normal, ties half.

    Equal to the trapezoid over all distinct thresholds (Hanley and McNeil, 1982).

    >>> import numpy as np
    >>> auroc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.8]))
    0.875
    """
    return _auroc(_rank_labelled(labels, scores))


def average_precision(labels: Shaped[np.ndarray, " n"], scores: Shaped[np.ndarray, " n"]) -> float:
    r"""Average precision :math:`\sum_k (R_k - R_{k-1}) P_k` over the distinct thresholds.

    What scikit-learn, the official AnomalyCLIP and VCP-CLIP code and anomalib >= 2.7 report.

    >>> import numpy as np
    >>> average_precision(np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.4, 0.8]))
    0.8333333333333333
    """
    return _average_precision(_rank_labelled(labels, scores))


def aupr_trapezoid(labels: Shaped[np.ndarray, " n"], scores: Shaped[np.ndarray, " n"]) -> float:
    """Trapezoid area under the precision-recall curve, from recall 0 at precision 1.

    What anomalib < 2.7 and mala-lab's WinCLIP report as AUPR. Interpolating precision is
    optimistic or pessimistic where thresholds are few (Davis and Goadrich, ICML 2006); use
    `average_precision` unless numbers printed with this rule are to be met.

    >>> import numpy as np
    >>> round(aupr_trapezoid(np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.4, 0.8])), 4)
    0.9167
    """
    ranking = _rank_labelled(labels, scores)
    if not ranking.is_defined:
        return UNDEFINED
    # Before its positives a threshold has met the negatives above it: the segment starts there.
    before = np.append(0, ranking.true_positives[:-1])
    predicted = before + ranking.false_positives_above
    start = np.divide(before, predicted, out=np.ones(len(before)), where=predicted > 0)
    steps = ranking.true_positives - before
    return float(np.dot(steps, start + _precision(ranking)) / 2 / len(ranking.positives))


def f1_max(labels: Shaped[np.ndarray, " n"], scores: Shaped[np.ndarray, " n"]) -> float:
    """Largest F1 = 2 TP / (2 TP + FP + FN) over all distinct thresholds (an oracle threshold).

    >>> import numpy as np
    >>> f1_max(np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.4, 0.8]))
    0.8
    """
    return _f1_max(_rank_labelled(labels, scores))


def f1_max_threshold(labels: Shaped[np.ndarray, " n"], scores: Shaped[np.ndarray, " n"]) -> float:
    """The threshold of `f1_max`: what scores AT LEAST as much is predicted anomalous.

    Of several best thresholds the lowest, as scikit-learn's ascending ones give it to ``argmax`` in the
    official codes. It is an oracle: it has seen the labels. For maps, give all pixels:
    ``f1_max_threshold(masks.ravel(), maps.ravel())``.

    Returns:
        A score of an anomaly; nan where one of the two classes is missing.

    >>> import numpy as np
    >>> f1_max_threshold(np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.4, 0.8]))
    0.4
    """
    ranking = _rank_labelled(labels, scores)
    return float(ranking.thresholds[_best(ranking)]) if ranking.is_defined else UNDEFINED


def _rank_labelled(labels: Shaped[np.ndarray, " n"], scores: Shaped[np.ndarray, " n"]) -> Ranking:
    scores = check_scores("scores", scores, ndim=1)
    anomalous = check_binary("labels", labels, shape=scores.shape)
    return rank(scores[~anomalous], scores[anomalous])


def _named(level: str, ranking: Ranking) -> dict[str, float]:
    return {
        f"{level}_auroc": _auroc(ranking),
        f"{level}_ap": _average_precision(ranking),
        f"{level}_f1max": _f1_max(ranking),
    }


def _auroc(ranking: Ranking) -> float:
    if not ranking.is_defined:
        return UNDEFINED
    positives_per_score = np.diff(ranking.true_positives, prepend=0)
    # Integers, so that the sum is exact: twice the pairs lost by a negative above, once per tie.
    lost = np.dot(positives_per_score, ranking.false_positives + ranking.false_positives_above)
    return 1 - int(lost) / (2 * len(ranking.positives) * len(ranking.negatives))


def _precision(ranking: Ranking) -> Float[np.ndarray, " g"]:
    return ranking.true_positives / (ranking.true_positives + ranking.false_positives)


def _average_precision(ranking: Ranking) -> float:
    if not ranking.is_defined:
        return UNDEFINED
    positives_per_score = np.diff(ranking.true_positives, prepend=0)
    return float(np.dot(positives_per_score, _precision(ranking)) / len(ranking.positives))


def _f1_max(ranking: Ranking) -> float:
    if not ranking.is_defined:
        return UNDEFINED
    return float(np.max(_f1(ranking)))


def _f1(ranking: Ranking) -> Float[np.ndarray, " g"]:
    predicted = ranking.true_positives + ranking.false_positives
    return 2 * ranking.true_positives / (predicted + len(ranking.positives))


def _best(ranking: Ranking) -> int:
    """Place of the threshold with the largest F1, of several the lowest."""
    f1 = _f1(ranking)
    return len(f1) - 1 - int(np.argmax(f1[::-1]))


def _iou(ranking: Ranking) -> float:
    if not ranking.is_defined:
        return UNDEFINED
    best = _best(ranking)
    hits = ranking.true_positives[best - 1] if best else 0
    return float(hits / (len(ranking.positives) + ranking.false_positives_above[best]))
