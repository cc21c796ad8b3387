"""The methods on the same images under the same definitions, and intervals of their differences.

A difference between two methods rests on few images of a category and few seeds. Both are drawn
again with replacement, many times, the same images for both methods: the middle 95 per cent of the
differences found so is the interval (percentile bootstrap, Efron and Tibshirani 1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from clipad_harness.experiments.contenders import Contender
from clipad_harness.report.galleries import ranked_right

RESAMPLES = 2000
# With fewer normal or fewer damaged images there is no interval: what is drawn from a handful of
# images, or from a single one, hardly varies, however little it says.
LEAST_IMAGES = 5


@dataclass(frozen=True)
class Drawn:
    """One method on one category: what a resample needs, a row a seed.

    Attributes:
        scores: image scores (seeds, b).
        pixels: normal and damaged pixels by bin of their score, a seed each (2, b, bins); None without
            masks.
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    pixels: Sequence[NDArray[np.float64] | None]


@dataclass(frozen=True)
class SideBySide:
    """Every contender on every category.

    Attributes:
        metrics: `contender, category, seed, metric, value`, one definition of each metric for all.
        images: a row a test image and contender, first seed: `contender, category, image, defect,
            label, ranked`.
        drawn: by contender and category.
        sizes: by contender, the maps' sizes in pixels.
    """

    metrics: pd.DataFrame
    images: pd.DataFrame
    drawn: dict[tuple[str, str], Drawn]
    sizes: dict[str, str]


def measure_all(among: Sequence[Contender], categories: Sequence[str]) -> SideBySide:
    """Every category by every contender and seed, read where it is scored already.

    AUPRO is at every distinct threshold for all of them.
    """
    rows, frames, drawn, sizes = [], [], {}, {}
    for category in tqdm(categories, desc="compare", unit="category", delay=2):
        for contender in among:
            images = contender.test_images(category)
            labels = images["label"].to_numpy()
            kept = [contender.by_image(category, seed) for seed in contender.seeds]
            for seed, one in zip(contender.seeds, kept, strict=True):
                rows += [(contender.label, category, seed, *pair) for pair in one.values.items()]
            ranked = ranked_right(labels, kept[0].image_scores)
            described = images[["category", "image", "defect", "label"]]
            frames.append(described.assign(contender=contender.label, ranked=ranked))
            sizes[contender.label] = " × ".join(map(str, kept[0].map_size))
            drawn[contender.label, category] = Drawn(
                labels,
                np.stack([one.image_scores for one in kept]),
                [None if one.pixels is None else one.pixels.astype(np.float64) for one in kept],
            )
    columns = ["contender", "category", "seed", "metric", "value"]
    images = pd.concat(frames, ignore_index=True)
    return SideBySide(pd.DataFrame(rows, columns=columns), images, drawn, sizes)


def resampled(
    first: Drawn, second: Drawn, level: str, category: int, seed: int = 0
) -> NDArray[np.float64]:
    """AUROC of the first method minus that of the second, in every resample of images and seeds.

    Args:
        level: `image` or `pixel`.
        category: its number, so that every one has draws of its own, the same for all methods.
        seed: of the draws.

    Returns:
        `RESAMPLES` differences in [-1, 1]; nan where undefined.
    """
    weights = image_weights(first.labels, category, seed)
    generator = np.random.default_rng((seed, category, 1))
    values = []
    for drawn in (first, second):
        by_seed = np.stack(
            [aurocs(drawn, seed, weights, level) for seed in range(len(drawn.scores))]
        )
        chosen = generator.integers(len(by_seed), size=(len(by_seed), RESAMPLES))
        values.append(np.take_along_axis(by_seed, chosen, axis=0).mean(axis=0))
    difference: NDArray[np.float64] = values[0] - values[1]
    return difference


def image_weights(labels: NDArray[np.int64], category: int, seed: int = 0) -> NDArray[np.float64]:
    """How often every image is in each resample (RESAMPLES, b); both classes keep their sizes.

    Args:
        labels: of the images (b,).
        category: its number; two of equal labels are drawn from apart from each other.
        seed: of the draws.
    """
    return _image_weights(tuple(labels.tolist()), category, seed)


@lru_cache(maxsize=64)
def _image_weights(labels: tuple[int, ...], category: int, seed: int) -> NDArray[np.float64]:
    """Drawn once for all pairs of rows that a page compares."""
    generator, weights = np.random.default_rng((seed, category)), np.zeros((RESAMPLES, len(labels)))
    for label in (0, 1):  # so that no resample is without one of the classes
        members = np.flatnonzero(np.equal(labels, label))
        if len(members):
            shares = np.full(len(members), 1 / len(members))
            weights[:, members] = generator.multinomial(len(members), shares, RESAMPLES)
    weights.flags.writeable = False
    return weights


def aurocs(
    drawn: Drawn, seed: int, weights: NDArray[np.float64], level: str
) -> NDArray[np.float64]:
    """The AUROC of every resample, from the pairs that each two images contribute.

    All counts are whole or half, and far below 2^53, so sums are exact in whatever order.
    """
    if level == "image":
        scores = drawn.scores[seed]
        wins = (scores[:, None] > scores) + 0.5 * (scores[:, None] == scores)
        positive, negative = drawn.labels == 1, drawn.labels == 0
        right = wins * positive[:, None] * negative
    else:
        if (pixels := drawn.pixels[seed]) is None:
            return np.full(len(weights), np.nan)
        normal, damaged = pixels
        below = np.cumsum(normal, axis=1) - normal / 2
        right = damaged @ below.T
        positive, negative = damaged.sum(axis=1), normal.sum(axis=1)
    pairs = (weights @ positive) * (weights @ negative)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(pairs > 0, ((weights @ right) * weights).sum(axis=1) / pairs, np.nan)


def differences(
    measured: SideBySide, first: str, second: str, level: str, seed: int = 0
) -> pd.DataFrame:
    """First minus second by category and on the mean, in points, with the 95 per cent interval.

    Returns:
        Columns ``difference, low, high, clear`` (the interval leaves zero out), indexed by
        category; the last row is the mean over categories. No interval, NaN, where a category, or
        for the mean all of them together, have fewer than `LEAST_IMAGES` of a kind.
    """
    metric = f"{level}_auroc"
    own = measured.metrics[measured.metrics["metric"] == metric]
    means = own.groupby(["contender", "category"], sort=False)["value"].mean()
    categories = list(dict.fromkeys(name for _, name in measured.drawn))
    rows, spread, counts = [], [], []
    for place, name in enumerate(categories):
        pair = measured.drawn[first, name], measured.drawn[second, name]
        samples = resampled(*pair, level, place, seed)
        spread.append(samples)
        counts.append(np.bincount(measured.drawn[first, name].labels, minlength=2))
        defined = (first, name) in means and (second, name) in means
        exact = means[first, name] - means[second, name] if defined else np.nan
        rows.append((exact, *percentile_interval(samples, counts[-1])))
    interval = percentile_interval(np.mean(spread, axis=0), np.sum(counts, axis=0))
    rows.append((np.mean([row[0] for row in rows]), *interval))
    index = pd.Index([*categories, "mean"], name="category")
    frame = 100 * pd.DataFrame(rows, columns=["difference", "low", "high"], index=index)
    return frame.assign(clear=(frame["low"] > 0) | (frame["high"] < 0))


def percentile_interval(
    samples: NDArray[np.float64], images: NDArray[np.int64]
) -> tuple[float, float]:
    """The middle 95 per cent of some resamples; nan where they rest on too few images.

    Args:
        images: how many normal and how many damaged ones there are.
    """
    return middle(samples) if images.min() >= LEAST_IMAGES else (np.nan, np.nan)


def middle(samples: NDArray[np.float64]) -> tuple[float, float]:
    """Between which values the middle 95 per cent of some resamples lie.

    >>> middle(np.arange(41.0))
    (1.0, 39.0)
    """
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(low), float(high)
