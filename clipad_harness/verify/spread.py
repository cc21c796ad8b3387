"""How far a learned method's numbers move with the seed of its training, as the run itself measured.

Below float64 another CPU rounds otherwise, and training amplifies that: after some hundred steps the
learner is another one, at most as far away as that of another seed. So the spread over seeds bounds what
another CPU may do, and no figure has to be guessed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from clipad_core.metrics import METRIC_LABELS
from clipad_harness.experiments.shards import MAIN

# Three standard deviations of the difference of two independent trainings.
_DEVIATIONS = 3 * math.sqrt(2)
# Two values of a table with six decimals.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Spread:
    """Standard deviations over seeds, of metrics from 0 to 1 and of parts of the loss.

    Attributes:
        seeds: over how many it was measured.
        single: of one shard: the root of the mean over categories of the variance over seeds.
        of_means: of a mean over all categories, measured on the means; {} where they are not known.
    """

    seeds: int
    single: Mapping[str, float]
    of_means: Mapping[str, float]

    def tolerance(self, metric: str, categories: int = 1, seeds: int = 1) -> float | None:
        """Of one shard, or of a mean over categories and seeds; None for a metric without a spread.

        Categories share a training, so their deviations may go the same way: a mean over them has the
        larger of what independent ones would give and what was measured.

        >>> spread = Spread(3, {"aupro": 0.02}, {"aupro": 0.015})
        >>> round(spread.tolerance("aupro"), 4), round(spread.tolerance("aupro", 4, 9), 4)
        (0.0849, 0.0212)
        """
        if metric == "number":  # of a page: some metric in per cent, of one category over the seeds
            widest = max((v for k, v in self.single.items() if k in METRIC_LABELS), default=0.0)
            return 100 * _DEVIATIONS * widest / math.sqrt(self.seeds)
        if metric not in self.single:
            return None
        deviation = self.single[metric]
        if categories > 1:
            deviation = max(deviation / math.sqrt(categories), self.of_means.get(metric, 0.0))
        return _DEVIATIONS * deviation / math.sqrt(seeds) + _ROUNDING

    def tolerance_of_deviation(self, metric: str, seeds: int) -> float | None:
        """Of a printed standard deviation over seeds, itself known to 1 / sqrt(2 (seeds - 1)).

        Seeds are few, and categories share them, so the mean over categories is not known better.
        """
        if metric not in self.single or seeds < 2:
            return None
        return _DEVIATIONS * self.single[metric] / math.sqrt(2 * (seeds - 1)) + _ROUNDING

    @staticmethod
    def widest(spreads: Sequence[Spread]) -> Spread:
        """The larger deviation of each metric: for a page about several methods."""
        deviations: tuple[dict[str, float], dict[str, float]] = ({}, {})
        for spread in spreads:
            for largest, own in zip(deviations, (spread.single, spread.of_means), strict=True):
                largest |= {k: max(v, largest.get(k, 0.0)) for k, v in own.items()}
        return Spread(min(spread.seeds for spread in spreads), *deviations)


def spread_of(files: Mapping[str, Path], method: str) -> Spread | None:
    """That of one side, given its files by name; None with fewer than two seeds.

    From the table of results, else from the metrics file, whose mean of standard deviations is a little
    smaller.
    """
    path = files.get(f"reports/results/{method}/results.csv")
    if path is not None:
        spread = results_spread(pd.read_csv(path))
    else:
        spread = _summary_spread(files.get(f"reports/summaries/{method}.json"))
    curves = files.get(f"reports/results/{method}/training.csv")
    if spread is None or curves is None:
        return spread
    losses = curves_spread(pd.read_csv(curves))
    return Spread(spread.seeds, {**spread.single, **losses}, spread.of_means)


def results_spread(results: pd.DataFrame) -> Spread | None:
    """Over the seeds of the main variant in a results table."""
    main = results[results["variant"] == MAIN]
    seeds = int(main["seed"].nunique())
    if seeds < 2:
        return None
    columns = ["metric", "category", "k_shot"]
    variances = main.groupby(columns)["value"].var(ddof=1).groupby("metric").mean()
    means = main.groupby(["metric", "k_shot", "seed"])["value"].mean()
    of_means = means.groupby(["metric", "k_shot"]).std(ddof=1).groupby("metric").max()
    return Spread(seeds, _finite(variances.map(math.sqrt)), _finite(of_means))


def curves_spread(curves: pd.DataFrame) -> dict[str, float]:
    """Of each part of the loss of the main variant, over seeds, all epochs together."""
    main = curves[curves["variant"] == MAIN]
    variances = main.groupby(["part", "epoch"])["value"].var(ddof=1).groupby("part").mean()
    return _finite(variances.map(math.sqrt))


def _summary_spread(path: Path | None) -> Spread | None:
    if path is None:
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        seeds, headline = int(record["seeds"]), record["headline"]
        single = {
            metric: line["ours_std"] / 100
            for shots in headline.values()
            for metric, line in shots.items()
            if line["ours_std"] is not None
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Spread(seeds, single, {}) if seeds > 1 and single else None


def _finite(values: pd.Series) -> dict[str, float]:
    return {str(name): float(value) for name, value in values.items() if np.isfinite(value)}
