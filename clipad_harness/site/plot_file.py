"""The picture of a method's numbers by category, as a file: what `dvc plots` shows.

DVC draws tables in the browser, with a library that it loads from the network; it shows a picture without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn
from matplotlib.figure import Figure

from clipad_core.metrics import METRIC_LABELS
from clipad_harness.experiments.pipeline import by_category_path
from clipad_harness.report.figures import save, say_undefined, use_house_style

PLOTTED = ("image_auroc", "pixel_auroc", "aupro")


def plot_path(root: Path, name: str) -> Path:
    """The picture of a method."""
    return root / "reports" / "plots" / f"{name}.png"


def write_plot(root: Path, name: str) -> Path:
    """Draw the metrics of every category from the table that stage `measure` wrote."""
    use_house_style()
    figure = category_figure(pd.read_csv(by_category_path(root, name)))
    return save(figure, plot_path(root, name))


def category_figure(table: pd.DataFrame) -> Figure:
    """A panel a metric, a row a category, a dot a number of references.

    Args:
        table: columns `category`, `k_shot` and a metric each, in per cent.
    """
    categories = list(dict.fromkeys(table["category"]))
    height = 1.2 + 0.26 * max(len(categories), 3)
    figure, panels = plt.subplots(1, len(PLOTTED), figsize=(9.6, height), sharey=True)
    shots = table["k_shot"].map("{}-shot".format)
    dots: tuple[list[Any], list[Any]] = ([], [])
    for panel, metric in zip(panels, PLOTTED, strict=True):
        panel.set_title(METRIC_LABELS[metric])
        if table[metric].isna().all():
            say_undefined(panel)
            continue
        seaborn.stripplot(
            x=table[metric],
            y=table["category"],
            hue=shots,
            order=categories,
            jitter=False,
            ax=panel,
        )
        panel.set(xlabel="%", ylabel="")
        panel.grid(visible=True, axis="y")
        dots = panel.get_legend_handles_labels()
        panel.get_legend().remove()
    figure.legend(*dots, loc="outside right upper", frameon=False)
    return figure
