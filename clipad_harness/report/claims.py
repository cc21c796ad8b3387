"""What the papers claim to be better, beside what this run shows; and what a choice is worth here."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from clipad_core.metrics import METRIC_LABELS, METRICS
from clipad_harness.report.ablations import UNMEASURED, ablation, group_of, pretty, rows_of
from clipad_harness.report.tables import Html, percent, table

# A difference below a twentieth of a point is none: printed numbers have one decimal.
SAME = 0.05
# Two-sided: how often a difference may be called one where there is none, claim by claim.
LEVEL = 0.05
# Below so many categories nothing is decided: two say nearly nothing of how they scatter.
LEAST_CATEGORIES = 3
AGREES, DISAGREES, UNDECIDED = "as in the paper", "not as in the paper", "undecided"


def directions(results: pd.DataFrame, name: str) -> pd.DataFrame:
    """What the paper reports as better, in points, here and there, and whether the sign agrees.

    Where the paper's own numbers contradict its words, the numbers count. Behind ± stands half the
    width of the interval of `half_width`; a difference within it is undecided.

    Returns:
        A row a claim and number of shots, columns ``shots, paper, this run, direction``.
    """
    long, group = ablation(results, name), group_of(results, name)
    metric = group.metrics[0]
    printed = long[long["metric"] == metric].set_index(["row", "k_shot"])["paper"]
    values = _by_seed(results, name, metric)
    rows, index = [], []
    for better, worse in group.claims:
        for k_shot in long["k_shot"].unique():
            if (better, k_shot) not in values.index or (worse, k_shot) not in values.index:
                continue
            paper = printed[better, k_shot] - printed[worse, k_shot]
            differences = values.loc[(better, k_shot)] - values.loc[(worse, k_shot)]
            difference, categories = _mean(differences), differences.shape[1]
            error = half_width(differences)
            falls = paper < 0 or (math.isnan(paper) and not METRICS[metric].higher_is_better)
            sign = -1 if falls else 1
            text = percent(difference, signed=True)
            text += "" if math.isnan(error) else f" ± {percent(error)}"
            verdict = _verdict(sign * difference, error, categories)
            rows.append((k_shot, percent(paper, signed=True), text, verdict))
            index.append(pretty(f"{better} against {worse}"))
    columns = ["shots", "paper", "this run", "direction"]
    return pd.DataFrame(rows, columns=columns, index=pd.Index(index, name=group.table))


def _by_seed(results: pd.DataFrame, name: str, metric: str) -> pd.DataFrame:
    """One metric of an ablation, per cent: (row, shots, seed) by category."""
    rows = rows_of(results[results["metric"] == metric], name)
    rows = rows.assign(row=rows["variant"].str.removeprefix(f"{name}/"))
    means = rows.groupby(["row", "k_shot", "seed", "dataset", "category"], sort=False)["value"]
    return 100 * means.mean().unstack(["dataset", "category"])


def _mean(differences: pd.DataFrame) -> float:
    """Mean over seeds and categories; unknown where one of them is, as every mean here."""
    return float(differences.to_numpy(dtype=float).mean()) if differences.size else math.nan


def half_width(differences: pd.DataFrame) -> float:
    """Half the width of the interval of Student's t in which the true difference lies.

    Categories differ among themselves, and where there are seeds, a training or a draw of references
    moves all categories at once. So there are two intervals, one from the means of the categories and
    one from those of the seeds, and the wider one counts: a difference is one only if it is one over
    both.

    Args:
        differences: of two rows, in points: a row a seed, a column a category.

    Returns:
        Half the width at `LEVEL`; NaN for one category, and where a difference is unknown.

    >>> print(f"{half_width(pd.DataFrame([[40.0, 10.0, -20.0]])):.1f}")
    74.5
    """
    values = differences.to_numpy(dtype=float)
    if values.shape[1] < 2:
        return math.nan
    widths = [_half_width(values.mean(axis=0))]
    if len(values) > 1:
        widths.append(_half_width(values.mean(axis=1)))
    return float(np.max(widths))


def _half_width(means: NDArray[np.float64]) -> float:
    """Student's t: the quantile with n - 1 degrees of freedom times the standard error."""
    quantile = float(stdtrit(len(means) - 1, 1 - LEVEL / 2))
    return quantile * float(means.std(ddof=1)) / math.sqrt(len(means))


def _verdict(difference: float, error: float, categories: int) -> str:
    """From a difference in the paper's direction and half the width of its interval."""
    if math.isnan(difference):
        return "undefined for this data"
    if categories < LEAST_CATEGORIES:
        return UNDECIDED
    if abs(difference) + error < SAME:
        return "no difference"
    if abs(difference) <= error:
        return UNDECIDED
    return AGREES if difference > 0 else DISAGREES


def direction_table(results: pd.DataFrame, name: str) -> Html:
    """The claims of the paper as a table, the verdict computed from the numbers."""
    frame, group = directions(results, name), group_of(results, name)
    counts = {
        word: int((frame["direction"] == word).sum()) for word in (AGREES, DISAGREES, UNDECIDED)
    }
    verdicts = "; ".join(f"{count} {word}" for word, count in counts.items() if count)
    measured = rows_of(results, name)
    categories, seeds = measured["category"].nunique(), measured["seed"].nunique()
    over = f"{categories} {'category' if categories == 1 else 'categories'}"
    over += (
        f", or over {seeds} seeds where that is wider"
        if seeds > 1
        else "; what another seed would change is not in it"
    )
    caption = (
        f"Differences in {METRIC_LABELS[group.metrics[0]]}, points, ± half the width of the "
        f"{100 * (1 - LEVEL):g} % interval of Student's t over {over}. Within it, or on fewer than "
        f"{LEAST_CATEGORIES} categories, a difference is undecided; each claim is judged for itself. "
        f"Of {len(frame)}: {verdicts or 'no verdict'}."
    )
    return table(frame, caption)


def worth(results: pd.DataFrame, group: str, row: str, base: str) -> str:
    """What a row of an ablation is worth against another, at its most shots.

    In the first of the group's metrics that the row moves: a rule of the image score moves no pixel.
    """
    if not results["variant"].isin([f"{group}/{row}", f"{group}/{base}"]).any():
        return UNMEASURED
    long = ablation(results, group)
    k_shot = long["k_shot"].max()
    wide = long[long["k_shot"] == k_shot].pivot(index="row", columns="metric", values="ours")
    if row not in wide.index or base not in wide.index:
        return UNMEASURED
    metrics = group_of(results, group).metrics
    moved = {metric: float(wide.loc[row, metric] - wide.loc[base, metric]) for metric in metrics}
    metric = next((name for name, by in moved.items() if abs(by) >= SAME), metrics[0])
    points = percent(moved[metric], signed=True)
    row, base = (re.sub(r"^\d+ (?=[a-z])", "", name) for name in (row, base))  # a step of a walk
    return f"{row} against {base}: {points} points of {k_shot}-shot {METRIC_LABELS[metric]}"
