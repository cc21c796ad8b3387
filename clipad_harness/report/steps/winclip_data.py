"""The WinCLIP page about its prompts, and its results by number of shots."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn
from matplotlib.figure import Figure

from clipad_core.methods.winclip.prompts import PromptEnsemble
from clipad_core.metrics import METRIC_LABELS
from clipad_harness.experiments.shards import MAIN
from clipad_harness.papers.verdicts import MEAN
from clipad_harness.report.figures import PALETTE
from clipad_harness.report.tables import Html, percent, table


def prompt_table(ensemble: PromptEnsemble, words: str) -> Html:
    """States and templates side by side, and how many prompts they make."""
    normal, anomalous = ensemble.prompts(words)
    columns = {
        "normal states": [state.replace("{}", words) for state in ensemble.normal_states],
        "anomalous states": [state.replace("{}", words) for state in ensemble.anomalous_states],
    }
    templates = [template.replace("{}", "[state]") for template in ensemble.templates]
    half = -(-len(templates) // 2)
    columns |= {"templates": templates[:half], "more templates": templates[half:]}
    rows = max(len(cells) for cells in columns.values())
    padded = {name: [*cells, *[""] * (rows - len(cells))] for name, cells in columns.items()}
    frame = pd.DataFrame(padded, index=pd.Index(range(1, rows + 1), name=""))
    caption = (
        f"{len(ensemble.normal_states)} × {len(ensemble.templates)} = {len(normal)} normal and "
        f"{len(ensemble.anomalous_states)} × {len(ensemble.templates)} = {len(anomalous)} anomalous "
        f"prompts ({ensemble.source})"
    )
    return table(frame, caption)


def shots_figure(results: pd.DataFrame, comparison: pd.DataFrame) -> tuple[Figure, str]:
    """Image and pixel AUROC by number of shots, and the alt text.

    A thin line a category; the thick one is their mean, its band the deviation over the reference
    seeds. The paper's line is drawn only where it is comparable.
    """
    main = results[results["variant"] == MAIN]
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.8))
    alt = []
    for one, metric in zip(axes, ("image_auroc", "pixel_auroc"), strict=True):
        part = main[main["metric"] == metric].dropna(subset="value")
        shown = part.assign(value=100 * part["value"], k_shot=part["k_shot"].astype(str))
        means = shown.groupby(["k_shot", "seed"])["value"].mean().reset_index()
        x, y = "k_shot", "value"
        seaborn.lineplot(
            data=shown.groupby([x, "category"])[y].mean().reset_index(),
            x=x,
            y=y,
            units="category",
            estimator=None,
            color="#c3c9d0",
            linewidth=1,
            ax=one,
        )
        seaborn.lineplot(
            data=means, x=x, y=y, errorbar="sd", marker="o", linewidth=2.5, label="mean", ax=one
        )
        rows = comparison[(comparison["category"] == MEAN) & (comparison["metric"] == metric)]
        rows = rows.dropna(subset="difference")
        if not rows.empty:
            shots = rows["k_shot"].astype(str)
            one.plot(shots, rows["paper_mean"], "s--", color=PALETTE[1], label="paper")
        parts = [
            f"{percent(v)} with {k}" for k, v in means.groupby("k_shot")["value"].mean().items()
        ]
        alt.append(f"{METRIC_LABELS[metric]} {', '.join(parts)}")
        one.set(xlabel="normal reference images", ylabel="")
        one.set_title(f"{METRIC_LABELS[metric]}, per cent", fontsize=9.5)
        one.legend(frameon=False, fontsize=8, loc="lower right")
    return figure, f"Mean over categories by number of shots: {'; '.join(alt)}."
