"""Ours beside the paper's: difference and verdict.

`data/papers/tolerances.csv` says how far from the paper a number may be and still count as
reproduced, with the reason. Verdicts come from it alone, in both directions: a number far *above*
the paper's is not reproduced either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from clipad_core.errors import ClipadError
from clipad_core.metrics import METRIC_LABELS
from clipad_harness.papers.card import PAPERS, paper_names, read_paper
from clipad_harness.papers.numbers import (
    Reported,
    dataset_titles,
    look_up,
    printed_methods,
    read_numbers,
    refuse,
    select,
)

MEAN = "mean"
COMPARISON_COLUMNS = (
    "category",
    "k_shot",
    "metric",
    "ours_mean",
    "ours_std",
    "paper_mean",
    "paper_std",
    "difference",
    "verdict",
    "source",
)
NO_VERDICT = ""

_TOLERANCES = ["method", "row", "metric", "points", "spreads", "reason"]
_RESULTS = ["method", "variant", "backbone", "dataset", "category", "k_shot", "seed", "metric"]


def compare(
    results: pd.DataFrame,
    reported: pd.DataFrame,
    comparable: bool,
    dataset: str = "",
    variant: str = "",
) -> pd.DataFrame:
    """Ours beside the paper's, a row per shots, metric and category, then their mean.

    The mean is unweighted over categories, per seed. Its `ours_std` is the average of the
    categories' standard deviations, because that is what the papers' ± of a mean row is;
    `ours_std_of_mean` is the standard deviation of the mean over the seeds.

    Args:
        results: rows of one method, variant, backbone and dataset of the results table.
        reported: as from `load_reported`.
        comparable: False for stand-in or random weights, a part of the images, or another dataset
            than the paper's: every printed number is then "not comparable", without a difference.
        dataset: show this dataset's printed numbers instead; only where not comparable.
        variant: compare with this printed variant, for an ablation.

    Returns:
        Columns `category, k_shot, metric, ours_mean, ours_std, paper_mean, paper_std, difference,
        verdict, source, ours_std_of_mean`; the category of a mean row is `mean`. Per cent, NaN for
        unknown or undefined. The verdict is "pass", "fail", "not comparable", or "" where a number
        is missing or only quoted by others. A mean over other categories than the paper's is not
        comparable.

    Raises:
        ClipadError: mixed methods, variants, backbones or datasets, rows twice, a category or seed
            that is missing, values outside 0 to 1, or `comparable` with another dataset's numbers.
    """
    check_results(results)
    own, method = results["dataset"].iloc[0], results["method"].iloc[0]
    if comparable and dataset not in ("", own):
        raise ClipadError(
            f"comparable: found True for {own} beside printed numbers of {dataset}, expected False."
        )
    titles = dataset_titles(dataset or own)
    published = set(reported.loc[reported["dataset"].isin(titles), "category"]) - {""}
    chosen = select(reported, method, dataset or own, variant)
    same_categories = not published or published == set(results["category"])
    rows = []
    for row in measured(results):
        name = "" if row["category"] == MEAN else row["category"]
        number = look_up(chosen, name, row["k_shot"], row["metric"])
        row |= beside(row, method, number, comparable and (name != "" or same_categories))
        rows.append(row)
    return pd.DataFrame(rows, columns=[*COMPARISON_COLUMNS, "ours_std_of_mean"])


def beside(
    row: dict[str, Any], method: str, number: Reported | None, comparable: bool
) -> dict[str, object]:
    """A printed number beside a row of `measured`: difference and verdict.

    Args:
        row: its `category`, `metric` and `ours_mean`.
        method: ours or the printed name.
        number: None where none is printed.
        comparable: see `compare`.

    Returns:
        `paper_mean, paper_std, difference, verdict, source` as of `compare`.
    """
    paper = number.mean if number else math.nan
    std = number.std if number and number.std is not None else math.nan
    difference = row["ours_mean"] - paper if comparable else math.nan
    if number is None:
        verdict = NO_VERDICT
    elif not comparable:
        verdict = "not comparable"
    elif math.isnan(difference) or number.quality != "primary":
        verdict = NO_VERDICT
    else:
        allowed = tolerance(method, row["metric"], row["category"], std)
        verdict = "pass" if abs(difference) <= allowed + 1e-9 else "fail"
    return {
        "paper_mean": paper,
        "paper_std": std,
        "difference": difference,
        "verdict": verdict,
        "source": number.source if number else "",
    }


def measured(results: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Ours of one variant, a row per shots, metric and category, then their mean; see `compare`."""
    metrics = [name for name in METRIC_LABELS if name in set(results["metric"])]
    for k_shot in sorted(results["k_shot"].unique()):
        for metric in metrics:
            block = results[(results["k_shot"] == k_shot) & (results["metric"] == metric)]
            values = 100 * block.pivot(index="seed", columns="category", values="value")
            if values.empty:
                continue
            means, spreads = values.mean(skipna=False), values.std(ddof=1, skipna=False)
            overall = values.mean(axis=1, skipna=False)
            about = {"k_shot": int(k_shot), "metric": metric, "ours_std_of_mean": math.nan}
            for category in values.columns:
                mean, std = means[category], spreads[category]
                yield {**about, "category": category, "ours_mean": mean, "ours_std": std}
            yield {
                **about,
                "category": MEAN,
                "ours_mean": overall.mean(skipna=False),
                "ours_std": spreads.mean(skipna=False),
                "ours_std_of_mean": overall.std(ddof=1, skipna=False),
            }


def check_results(results: pd.DataFrame) -> None:
    """Refuse what no means could be taken of; see `compare`."""
    missing = [name for name in [*_RESULTS, "value"] if name not in results.columns]
    if missing or results.empty:
        problem = f"no column {', '.join(missing)}" if missing else "no rows"
        raise ClipadError(f"results: found {problem}, expected rows of the results table.")
    for name in ("method", "variant", "backbone", "dataset"):
        if results[name].nunique(dropna=False) > 1:
            kinds = ", ".join(map(str, results[name].unique()))
            raise ClipadError(
                f"results: found {name} {kinds}, expected one; compare them one by one."
            )
    wrong = {
        f"a metric of {', '.join(METRIC_LABELS)}": ~results["metric"].isin(METRIC_LABELS),
        "a value from 0 to 1": (results["value"] < 0) | (results["value"] > 1),
        "every row once": results.duplicated(_RESULTS),
    }
    for expected, rows in wrong.items():
        if rows.any():
            row = results[rows].iloc[0].to_dict()
            raise ClipadError(f"results: found {row}, expected {expected}; make them again.")
    categories = results["category"].nunique()
    for (k_shot, metric), block in results.groupby(["k_shot", "metric"]):
        if len(block) != block["seed"].nunique() * categories:
            raise ClipadError(
                f"results: {metric} with {k_shot} shots has {len(block)} rows, expected "
                f"{block['seed'].nunique()} seeds of {categories} categories; finish the run."
            )


@cache
def _tolerances(folder: Path) -> dict[tuple[str, str, str], tuple[float, float]]:
    """Points and spreads by method, row and metric: only those that some verdict is looked up by."""
    path = folder / "tolerances.csv"
    rows = read_numbers(path, _TOLERANCES, ("points", "spreads"))
    names = {
        "method": [read_paper(name, folder).reported_as[0] for name in paper_names(folder)],
        "row": [MEAN, "category"],
        "metric": list(METRIC_LABELS),
    }
    for column, known in names.items():
        expected = f"{column}: expected one of {', '.join(known)}"
        refuse(path, ~rows[column].isin(known), rows[column], expected)
    for column in ("points", "spreads"):
        refuse(path, rows[column] < 0, rows[column], f"{column}: expected 0 or more")
    refuse(path, rows["reason"].str.strip() == "", rows["reason"], "reason: expected one")
    twice = rows.duplicated(list(names))
    refuse(path, twice, rows["metric"], "expected every method, row and metric once")
    keys = zip(rows["method"], rows["row"], rows["metric"])
    return dict(zip(keys, zip(rows["points"], rows["spreads"])))


def tolerance(method: str, metric: str, category: str, std: float) -> float:
    """How many points ours may be from the paper's: ``points + spreads * std``.

    Args:
        method: ours (`winclip`) or the printed name.
        metric: a name of the results table.
        category: `mean` for the mean over categories, which has tolerances of its own.
        std: the printed standard deviation, in points; NaN where none is printed.

    Raises:
        ClipadError: no tolerance is declared.

    >>> tolerance("winclip", "image_auroc", "mean", 0.0)
    1.5
    """
    row = MEAN if category == MEAN else "category"
    key = (printed_methods(method)[0], row, metric)
    declared = _tolerances(PAPERS)
    if key not in declared:
        raise ClipadError(
            f"{PAPERS / 'tolerances.csv'}: found no tolerance for {' '.join(key)}; declare one."
        )
    points, spreads = declared[key]
    return points + spreads * (0.0 if math.isnan(std) else std)
