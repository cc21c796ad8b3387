"""CLIP and CLIP-AC at work: maps worse than chance, what a word and what a template is worth."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from clipad_core.metrics import METRIC_LABELS
from clipad_harness.papers.numbers import dataset_titles
from clipad_harness.report.figures import PALETTE, say_undefined
from clipad_harness.report.readings import PrintedRow
from clipad_harness.report.tables import percent

CHANCE = 50.0
MARKERS = ("D", "s", "^", "v", "P", "X")


def by_category(results: Mapping[str, pd.DataFrame], metric: str) -> pd.DataFrame:
    """One metric of some results, a column each, mean over seeds, per cent; a row a category."""
    columns = {}
    for name, rows in results.items():
        own = rows[rows["metric"] == metric]
        columns[name] = 100 * own.groupby("category", sort=False)["value"].mean()
    return pd.DataFrame(columns)


def chance_figure(values: pd.DataFrame, metric: str) -> tuple[Figure, str]:
    """A metric by category with the line of chance; the alt text says how many lie below it.

    Args:
        values: as from `by_category`.
    """
    ordered = values.sort_values(values.columns[0], kind="stable")
    names = [str(name).replace("_", " ") for name in ordered.index]
    figure, axes = plt.subplots(figsize=(7.6, 1.0 + 0.24 * len(names)))
    alt = []
    for place, (label, column) in enumerate(ordered.items()):
        axes.plot(column, range(len(names)), MARKERS[place], color=PALETTE[place], label=label)
        known = column.dropna()
        if len(known):
            below = int((known < CHANCE).sum())
            alt.append(f"{label} {percent(known.mean())} on average, below in {below}")
    _frame(axes, names, f"{METRIC_LABELS[metric]}, per cent")
    axes.axvline(CHANCE, color="#8a929c", linewidth=1, linestyle="--")
    if not alt:
        say_undefined(axes)
    text = "; ".join(alt) or "undefined for this data"
    subject = f"{METRIC_LABELS[metric]} in {len(names)} categories, chance is {CHANCE:g}"
    return figure, f"{subject}: {text}."


def templates_figure(
    singles: Mapping[str, NDArray[np.floating]], ensembles: pd.DataFrame
) -> tuple[Figure, str]:
    """Image AUROC of every single template and of their means, a row a category; the alt text.

    Args:
        singles: category -> image AUROC of each template alone, per cent.
        ensembles: the same of means of several, a row a category, a column a mean.
    """
    names = [str(name).replace("_", " ") for name in singles]
    figure, axes = plt.subplots(figsize=(7.6, 1.2 + 0.3 * len(names)))
    for row, values in enumerate(singles.values()):
        once = f"each of {len(values)} templates alone" if row == 0 else None
        height = np.full(len(values), float(row))
        axes.plot(values, height, "|", color="#8a929c", markersize=11, label=once)
    for place, (label, column) in enumerate(ensembles.items()):
        shift = 0.16 * (place - (ensembles.shape[1] - 1) / 2)
        heights = np.arange(len(names)) + shift
        marker, colour = MARKERS[place], PALETTE[place]
        axes.plot(column, heights, marker, color=colour, markersize=6, label=label)
    _frame(axes, names, "image AUROC, per cent")
    known = [values for values in singles.values() if not np.isnan(values).any()]
    if not known:
        say_undefined(axes)
        return figure, "Image AUROC of single templates: undefined for this data."
    widths = [float(np.ptp(values)) for values in known]
    means = [float(np.mean(known)), *(float(ensembles[name].mean()) for name in ensembles)]
    labels = ["a single template on average", *map(str, ensembles.columns)]
    words = ", ".join(f"{label} {percent(mean)}" for label, mean in zip(labels, means, strict=True))
    return figure, (
        f"Image AUROC by category, mean over categories: {words}. Single templates of a category lie "
        f"{percent(min(widths))} to {percent(max(widths))} points apart."
    )


def printed_differences(
    first: PrintedRow, second: PrintedRow, metric: str, datasets: tuple[str, ...]
) -> pd.DataFrame:
    """First minus second as printed by category: ``dataset, category, points``, lowest first."""
    rows = []
    for dataset in datasets:
        both = [row.numbers(dataset) for row in (first, second)]
        own = [
            rows[(rows["metric"] == metric) & (rows["category"] != "")].set_index("category")[
                "mean"
            ]
            for rows in both
        ]
        points = (own[0] - own[1]).dropna()
        rows += [(dataset_titles(dataset)[0], name, value) for name, value in points.items()]
    frame = pd.DataFrame(rows, columns=["dataset", "category", "points"])
    return frame.sort_values("points", kind="stable", ignore_index=True)


def differences_figure(frame: pd.DataFrame, subject: str) -> tuple[Figure, str]:
    """Differences by category, a colour a dataset, their means as lines; the alt text.

    Args:
        frame: as from `printed_differences`.
        subject: what is taken from what, and the metric.
    """
    names = [str(name).replace("_", " ") for name in frame["category"]]
    figure, axes = plt.subplots(figsize=(7.6, 1.0 + 0.17 * len(names)))
    means = []
    for place, (dataset, rows) in enumerate(frame.groupby("dataset", sort=False)):
        mean = float(rows["points"].mean())
        means.append(f"{dataset} {percent(mean, signed=True)}")
        colour, label = PALETTE[place], f"{dataset}, mean {percent(mean, signed=True)}"
        axes.barh(rows.index, rows["points"], height=0.7, color=colour, label=label)
    _frame(axes, names, f"{subject}, points")
    axes.tick_params(axis="y", labelsize=7.5)
    axes.axvline(0, color="black", linewidth=1)
    low, high = frame.iloc[0], frame.iloc[-1]
    ends = [f"{row['category']} {percent(row['points'], signed=True)}" for row in (low, high)]
    return figure, f"{subject}, as printed: from {' to '.join(ends)}; means {', '.join(means)}."


def _frame(axes: Axes, names: list[str], label: str) -> None:
    """Rows from the top, a label below, the legend beside."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(label)
    seaborn.despine(ax=axes, left=True)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
