"""What the papers claim to be better, beside what this run shows; and what a choice is worth here."""

from __future__ import annotations

import math
import re

import pandas as pd

from clipad_core.metrics import METRIC_LABELS, METRICS
from clipad_harness.report.ablations import UNMEASURED, ablation, group_of, pretty
from clipad_harness.report.tables import Html, percent, table

# A difference below a twentieth of a point is none: printed numbers have one decimal.
SAME = 0.05
# Standard errors, over the categories, that a difference must exceed to be called one.
DECIDED = 2.0
AGREES, DISAGREES, UNDECIDED = "as in the paper", "not as in the paper", "undecided"


def directions(results: pd.DataFrame, name: str) -> pd.DataFrame:
    """What the paper reports as better, in points, here and there, and whether the sign agrees.

    Where the paper's own numbers contradict its words, the numbers count.

    Returns:
        A row a claim and number of shots, columns ``shots, paper, this run, direction``.
    """
    long, group = ablation(results, name), group_of(results, name)
    metric = group.metrics[0]
    printed = long[long["metric"] == metric].set_index(["row", "k_shot"])["paper"]
    values = _by_category(results, name, metric)
    rows, index = [], []
    for better, worse in group.claims:
        for k_shot in long["k_shot"].unique():
            if (better, k_shot) not in values.index or (worse, k_shot) not in values.index:
                continue
            paper = printed[better, k_shot] - printed[worse, k_shot]
            difference, error = _mean(values.loc[(better, k_shot)] - values.loc[(worse, k_shot)])
            falls = paper < 0 or (math.isnan(paper) and not METRICS[metric].higher_is_better)
            sign = -1 if falls else 1
            text = percent(difference, signed=True)
            text += "" if math.isnan(error) else f" ± {percent(error)}"
            rows.append(
                (k_shot, percent(paper, signed=True), text, _verdict(sign * difference, error))
            )
            index.append(pretty(f"{better} against {worse}"))
    columns = ["shots", "paper", "this run", "direction"]
    return pd.DataFrame(rows, columns=columns, index=pd.Index(index, name=group.table))


def _by_category(results: pd.DataFrame, name: str, metric: str) -> pd.DataFrame:
    """One metric of an ablation, mean over seeds, per cent: (row, shots) by category."""
    rows = results[results["variant"].str.startswith(f"{name}/") & (results["metric"] == metric)]
    rows = rows.assign(row=rows["variant"].str.removeprefix(f"{name}/"))
    means = rows.groupby(["row", "k_shot", "dataset", "category"], sort=False)["value"].mean()
    return 100 * means.unstack(["dataset", "category"])


def _mean(differences: pd.Series) -> tuple[float, float]:
    """Mean and standard error over categories; unknown where one category is, as every mean here."""
    if differences.isna().any():
        return math.nan, math.nan
    values = differences.to_numpy(dtype=float)
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), float(error)


def _verdict(difference: float, error: float) -> str:
    """From a difference in the paper's direction; one category has no standard error."""
    if math.isnan(difference):
        return "undefined for this data"
    if abs(difference) < SAME and not error >= SAME:
        return "no difference"
    if abs(difference) <= DECIDED * error:
        return UNDECIDED
    return AGREES if difference > 0 else DISAGREES


def direction_table(results: pd.DataFrame, name: str) -> Html:
    """The claims of the paper as a table, the verdict computed from the numbers."""
    frame, group = directions(results, name), group_of(results, name)
    counts = {
        word: int((frame["direction"] == word).sum()) for word in (AGREES, DISAGREES, UNDECIDED)
    }
    verdicts = "; ".join(f"{count} {word}" for word, count in counts.items() if count)
    caption = (
        f"Differences in {METRIC_LABELS[group.metrics[0]]}, points, ± their standard error over "
        f"categories. Within {DECIDED:g} of them a difference is undecided. "
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
