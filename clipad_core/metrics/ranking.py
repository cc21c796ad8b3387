"""Scores ranked once: what every threshold-free metric of `clipad_core.metrics.metrics` is read from.

Only thresholds at which a positive enters the prediction can change recall, precision at a new
recall, F1 or region overlap; between two of them nothing but false positives arrives. So the
negatives (in segmentation nearly all pixels) are only sorted, and all cumulative sums run over the
few positives. Scores are compared by value: ties enter together.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from clipad_core.errors import ClipadError


def check_scores(
    name: str, scores: Shaped[np.ndarray, "..."], ndim: int
) -> Float[np.ndarray, "..."]:
    """Return the scores in their own precision, integers and half precision widened exactly.

    Raises:
        ClipadError: another number of axes, nothing inside, no real numbers, NaN or infinity.
    """
    scores = np.asarray(scores)
    if scores.ndim != ndim or scores.size == 0:
        raise ClipadError(
            f"{name}: found shape {scores.shape}, expected {ndim} axes and at least one score."
        )
    if scores.dtype.kind not in "fiu":
        raise ClipadError(f"{name}: found dtype {scores.dtype}, expected real numbers.")
    if not np.isfinite(scores).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(scores))[0])
        raise ClipadError(
            f"{name}: found {scores[where]} at {where}, expected finite scores; look for a "
            "division by zero or an overflow in the detector."
        )
    return scores.astype(np.result_type(scores.dtype, np.float32), copy=False)


def check_binary(
    name: str, labels: Shaped[np.ndarray, "..."], shape: tuple[int, ...]
) -> Bool[np.ndarray, "..."]:
    """Return 0/1 labels or a 0/1 mask of the expected shape as booleans.

    Raises:
        ClipadError: another shape, or a value other than 0 and 1.
    """
    labels = np.asarray(labels)
    if labels.shape != shape:
        raise ClipadError(
            f"{name}: found shape {labels.shape}, expected {shape} as the scores have; resize the "
            "masks to the maps."
        )
    if labels.dtype == bool:
        return labels
    if labels.dtype.kind not in "fiu":
        raise ClipadError(f"{name}: found dtype {labels.dtype}, expected 0 and 1.")
    positive = labels == 1
    if np.count_nonzero(labels) != np.count_nonzero(positive):
        invalid = labels[~positive & (labels != 0)][0]
        raise ClipadError(
            f"{name}: found the value {invalid}, expected 0 (normal) and 1 (anomalous); threshold a "
            "grey mask first, for example mask > 127."
        )
    return positive


@dataclass(frozen=True)
class Ranking:
    """Positives and negatives in ascending order, and the counts at each distinct positive score.

    Arrays along the axis `g` belong to the distinct scores of the positives, highest first: the
    thresholds "predict anomalous where score >= threshold" at which the true positives grow.

    Args:
        negatives: scores of the negatives, ascending.
        positives: scores of the positives, ascending.
        weights: what each of `positives` counts in `recall`.
    """

    negatives: Float[np.ndarray, " n"]
    positives: Float[np.ndarray, " p"]
    weights: Float[np.ndarray, " p"]

    @property
    def is_defined(self) -> bool:
        """Whether both classes are there; without one of them nothing can be ranked."""
        return bool(len(self.negatives) and len(self.positives))

    @cached_property
    def _first(self) -> Int[np.ndarray, " g"]:
        """Position in `positives` of the first of each distinct score, highest score first."""
        is_first = np.ones(len(self.positives), dtype=bool)
        np.not_equal(self.positives[1:], self.positives[:-1], out=is_first[1:])
        return np.flatnonzero(is_first)[::-1]

    @cached_property
    def thresholds(self) -> Float[np.ndarray, " g"]:
        """The distinct scores of the positives."""
        return self.positives[self._first]

    @cached_property
    def true_positives(self) -> Int[np.ndarray, " g"]:
        """Positives at or above each threshold."""
        return len(self.positives) - self._first

    @cached_property
    def false_positives(self) -> Int[np.ndarray, " g"]:
        """Negatives at or above each threshold."""
        # Ascending queries keep the binary search in the cache.
        below = np.searchsorted(self.negatives, self.thresholds[::-1])[::-1]
        return len(self.negatives) - below

    @cached_property
    def false_positives_above(self) -> Int[np.ndarray, " g"]:
        """Negatives strictly above each threshold: those that came before the tied positives."""
        above = self.false_positives.copy()
        lowest_in = np.minimum(len(self.negatives) - above, len(self.negatives) - 1)
        tied = np.flatnonzero(self.negatives[lowest_in] == self.thresholds)
        not_above = np.searchsorted(self.negatives, self.thresholds[tied], side="right")
        above[tied] = len(self.negatives) - not_above
        return above

    @cached_property
    def _recall_from(self) -> Float[np.ndarray, " _"]:
        """Weighted share of the positives from each position upwards, and 0 behind the last."""
        total = np.zeros(len(self.positives) + 1)
        np.cumsum(self.weights[::-1], out=total[-2::-1])
        return total / total[0]

    @property
    def recall(self) -> Float[np.ndarray, " g"]:
        """Weighted share of the positives at or above each threshold."""
        return self._recall_from[self._first]

    def recall_above(self, thresholds: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
        """Weighted share of the positives strictly above each of the given thresholds."""
        return self._recall_from[np.searchsorted(self.positives, thresholds, side="right")]


def rank(
    negatives: Float[np.ndarray, " n"],
    positives: Float[np.ndarray, " p"],
    weights: Float[np.ndarray, " p"] | None = None,
) -> Ranking:
    """Sort both classes. `negatives` is sorted IN PLACE, to hold the pixels of a data set once.

    Without `weights` every positive counts the same.

    >>> import numpy as np
    >>> ranking = rank(np.array([0.1, 0.5, 0.9]), np.array([0.5, 0.7]))
    >>> ranking.thresholds, ranking.true_positives
    (array([0.7, 0.5]), array([1, 2]))
    >>> ranking.false_positives, ranking.false_positives_above
    (array([1, 2]), array([1, 1]))
    """
    negatives.sort()
    order = np.argsort(positives)
    weights = np.ones(len(positives)) if weights is None else weights[order]
    return Ranking(negatives, positives[order], weights)


def mean_up_to(x: Float[np.ndarray, " k"], y: Float[np.ndarray, " k"], limit: float) -> float:
    """Mean of the curve y(x) over x in [0, limit], by trapezoids, interpolated at the limit.

    Args:
        x: ascending from 0 to at least the limit.
        y: values in [0, 1].

    >>> import numpy as np
    >>> mean_up_to(np.array([0.0, 1.0]), np.array([0.0, 1.0]), limit=0.5)
    0.25
    """
    end = int(np.searchsorted(x, limit, side="right"))
    area = float(np.dot(np.diff(x[:end]), y[1:end] + y[: end - 1])) / 2
    if end < len(x):
        width = limit - x[end - 1]
        at_limit = y[end - 1] + (y[end] - y[end - 1]) * width / (x[end] - x[end - 1])
        area += float(width * (at_limit + y[end - 1])) / 2
    return min(area / limit, 1.0)  # rounding may add a last digit
