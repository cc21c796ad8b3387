"""The sections that every method's page has, a call each: results, further ablations, gallery, failures."""

from __future__ import annotations

from collections.abc import Collection

import matplotlib.pyplot as plt
import pandas as pd
import seaborn
from IPython.display import display
from matplotlib.figure import Figure

from clipad_core.metrics import METRIC_LABELS
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.shards import MAIN
from clipad_harness.papers.verdicts import MEAN
from clipad_harness.report import galleries
from clipad_harness.report.ablations import claimed_questions, further
from clipad_harness.report.claims import direction_table
from clipad_harness.report.dataset_tables import weakest
from clipad_harness.report.figures import PALETTE, UNDEFINED, say_undefined, show
from clipad_harness.report.galleries import Scored
from clipad_harness.report.method import comparison
from clipad_harness.report.method_page import ablation_panel, category_tables
from clipad_harness.report.tables import DASH, callout, comparison_table, percent, table

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1max")
PIXEL_METRICS = ("pixel_auroc", "aupro", "pixel_ap", "pixel_f1max")
# Images of a gallery.
SHOWN = 6


def result_tables(scorer: Scorer, results: pd.DataFrame) -> None:
    """Display all results of the main variant: means, means by number of shots, categories."""
    frame = comparison(scorer, results)
    display(comparison_table(frame[frame["category"] == MEAN], caption="Mean over categories"))
    if frame["k_shot"].nunique() > 1:
        band = "Thin: the categories."
        if results.loc[results["variant"] == MAIN, "seed"].nunique() > 1:
            band += " Band: deviation over the seeds."
        show(*shots_figure(results, frame), caption=band)
    display(category_tables(frame, IMAGE_METRICS))
    display(category_tables(frame, PIXEL_METRICS))


def shots_figure(results: pd.DataFrame, comparison: pd.DataFrame) -> tuple[Figure, str]:
    """Image and pixel AUROC by number of shots, and the alt text.

    A thin line a category; the thick one is their mean, its band the deviation over the seeds. The
    paper's line is drawn only where it is comparable.
    """
    main = results[results["variant"] == MAIN]
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.8))
    alt = []
    for panel, metric in zip(axes, ("image_auroc", "pixel_auroc"), strict=True):
        part = main[main["metric"] == metric]
        part = part.assign(value=100 * part["value"], k_shot=part["k_shot"].astype(str))
        values = part.dropna(subset="value")
        panel.set(xlabel="normal reference images", ylabel="")
        panel.set_title(f"{METRIC_LABELS[metric]}, per cent", fontsize=9.5)
        if values.empty:
            say_undefined(panel)
            alt.append(f"{METRIC_LABELS[metric]} {UNDEFINED}")
            continue
        # As in the tables, a mean is unknown where one of its categories is.
        by_seed = part.groupby(["k_shot", "seed"])["value"]
        means = by_seed.mean().where(by_seed.count() == by_seed.size()).reset_index()
        x, y = "k_shot", "value"
        seaborn.lineplot(
            data=values.groupby([x, "category"])[y].mean().reset_index(),
            x=x,
            y=y,
            units="category",
            estimator=None,
            color="#c3c9d0",
            linewidth=1,
            ax=panel,
        )
        seaborn.lineplot(
            data=means, x=x, y=y, errorbar="sd", marker="o", linewidth=2.5, label="mean", ax=panel
        )
        rows = comparison[(comparison["category"] == MEAN) & (comparison["metric"] == metric)]
        rows = rows.dropna(subset="difference")
        if not rows.empty:
            shots = rows["k_shot"].astype(str)
            panel.plot(shots, rows["paper_mean"], "s--", color=PALETTE[1], label="paper")
        parts = [
            f"{percent(v)} with {k}" for k, v in means.groupby("k_shot")["value"].mean().items()
        ]
        alt.append(f"{METRIC_LABELS[metric]} {', '.join(parts)}")
        panel.set(xlabel="normal reference images", ylabel="")
        panel.legend(frameon=False, fontsize=8, loc="lower right")
    return figure, f"Mean over categories by number of shots: {'; '.join(alt)}."


def further_panels(results: pd.DataFrame, besides: Collection[str] = ()) -> None:
    """Display every group of which the paper prints nothing, and its claims that questions are about.

    Args:
        results: of the run.
        besides: groups that the page shows elsewhere.
    """
    for name in further(results):
        if name not in besides:
            ablation_panel(results, name)
    for name in claimed_questions(results):
        display(direction_table(results, name))


def score_figures(scored: Scored, subject: str) -> None:
    """Display how the image scores lie, by category and as curves over all thresholds."""
    note = galleries.seed_note(scored)
    about = "The image AUROC of a category says how well its two colours separate."
    show(*galleries.scores_figure(scored, subject), caption=about + note)
    about = "A line a category; the dot is the threshold of its highest F1, which F1-max is."
    show(*galleries.curves_figure(scored, subject), caption=about + note)


def gallery(scorer: Scorer, scored: Scored) -> None:
    """Display the images that are found best, in the middle and worst, and the false alarms.

    A part without images, as where a dataset has no normal ones, is a dash.
    """
    parts = {
        "Best found": galleries.best,
        "In the middle": galleries.median,
        "Missed most": galleries.worst,
        "Normal images that score highest": galleries.false_alarms,
    }
    for title, choose in parts.items():
        if positions := choose(scored, SHOWN):
            figure, alt, about = galleries.draw(scorer, scored, positions, title)
            show(figure, alt, caption=about, kind="jpeg")
        else:
            display(callout(f"{title}: {DASH} (no such test image)."))


def failures(scorer: Scorer, results: pd.DataFrame, scored: Scored, k_shot: int) -> None:
    """Display what is missed: categories, kinds of defects, and the size of the defects.

    Args:
        scorer: of the run.
        results: of the run.
        scored: all images at this number of shots.
        k_shot: number of references.
    """
    if words := weakest(comparison(scorer, results), k_shot):
        display(callout(words))
    caption = f"{k_shot}-shot, by kind of defect, from missed most, per cent."
    caption += galleries.seed_note(scored)
    display(table(galleries.by_defect(scored), caption))
    about = galleries.size_sentence(scored)
    if galleries.sized(scored).empty:
        display(callout(about))
    else:
        show(galleries.size_figure(scored), about, caption=about)
