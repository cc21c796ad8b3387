"""CoOp at work: what its context does to the two prompts of a category, and how far seeds are apart."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from matplotlib.figure import Figure

from clipad_core.metrics import METRIC_LABELS
from clipad_harness.report.figures import PALETTE
from clipad_harness.report.tables import Html, percent, table


def cosine_figure(cosines: pd.DataFrame) -> tuple[Figure, str]:
    """Cosine of the two prompts of every category before and after training; the alt text.

    Args:
        cosines: ``category, seed, before, after``.
    """
    names = list(dict.fromkeys(cosines["category"]))
    figure, axes = plt.subplots(figsize=(7.6, 1.0 + 0.26 * len(names)))
    seeds = list(dict.fromkeys(cosines["seed"]))
    for place, seed in enumerate(seeds):
        own = cosines[cosines["seed"] == seed].set_index("category").loc[names]
        height = np.arange(len(names)) + 0.22 * (place - (len(seeds) - 1) / 2)
        axes.hlines(height, own["before"], own["after"], color=PALETTE[place], linewidth=1.4)
        axes.plot(own["before"], height, "|", color=PALETTE[place], markersize=9)
        axes.plot(own["after"], height, "o", color=PALETTE[place], markersize=5, label=f"{seed}")
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("cosine of both prompts: | before, ● after training")
    axes.legend(
        title="seed",
        frameon=False,
        fontsize=8,
        title_fontsize=8,
        loc="upper left",
        bbox_to_anchor=(1, 1),
    )
    seaborn.despine(ax=axes, left=True)
    means = cosines[["before", "after"]].mean()
    return figure, (
        f"Cosine of the two prompts, mean over {len(names)} categories and {len(seeds)} seeds: "
        f"{means['before']:.3f} before training, {means['after']:.3f} after."
    ).replace("-", "−")


def seed_table(main: pd.DataFrame, metrics: tuple[str, ...]) -> Html:
    """Means over categories of every seed, and how far the seeds are apart; per cent.

    Args:
        main: results of the main variant.
    """
    rows = main[main["metric"].isin(metrics)]
    wide = 100 * rows.pivot_table(index="seed", columns="metric", values="value", dropna=False)
    wide = wide.reindex(columns=list(metrics))
    shown = wide.map(percent)
    shown.loc["deviation"] = [percent(value) for value in wide.std(ddof=1)]
    shown.columns = pd.Index([METRIC_LABELS[name] for name in metrics])
    return table(shown, "Each training by its seed: mean over categories, per cent")
