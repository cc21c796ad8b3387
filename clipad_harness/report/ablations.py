"""The ablations of a page: tables and figures of ours beside the printed ones."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipad_core.errors import ClipadError
from clipad_core.metrics import METRIC_LABELS
from clipad_harness.experiments.shards import MAIN
from clipad_harness.experiments.switch_steps import walk_group
from clipad_harness.experiments.variants import question_group
from clipad_harness.papers.card import AblationFacts, Paper, read_paper
from clipad_harness.papers.numbers import dataset_titles, load_reported, reported
from clipad_harness.report.figures import PALETTE
from clipad_harness.report.tables import (
    Cell,
    Html,
    Row,
    callout,
    html_table,
    percent,
    with_spread,
)

# The group whose rows are whole published codes.
PRESET = "preset"
# So many categories are named beside their number.
FEW = 3
UNMEASURED = "not measured in this run"
# Why ablations are measured on fewer categories than the main result.
FEWER = "so that many rows fit into minutes; every group has its own base row"


def paper_of(results: pd.DataFrame) -> Paper:
    """The paper of the method that the results are of."""
    return read_paper(str(results["method"].iloc[0]))


def group_of(results: pd.DataFrame, name: str) -> AblationFacts:
    """What is known of a group of the method that the results are of."""
    return paper_of(results).ablation(name)


def rows_of(results: pd.DataFrame, name: str) -> pd.DataFrame:
    """The results of one group of rows."""
    return results[results["variant"].str.startswith(f"{name}/")]


def is_measured(results: pd.DataFrame, name: str) -> bool:
    """Whether some results hold a group of rows; a run may leave groups out."""
    return not rows_of(results, name).empty


def ablation(results: pd.DataFrame, name: str) -> pd.DataFrame:
    """One ablation, long: a row a variant, number of shots and metric; per cent, categories' mean.

    Returns:
        Columns ``row, k_shot, metric, ours, std (over the seeds' means), paper``; NaN for unknown.

    Raises:
        ClipadError: the results hold no such group.
    """
    measured = rows_of(results, name)
    if measured.empty:
        groups = dict.fromkeys(v.split("/")[0] for v in results["variant"] if "/" in v)
        raise ClipadError(
            f"ablation: found {name!r}, expected one of {', '.join(groups) or 'none'}; add it to "
            f"{paper_of(results).name}.ablations in params.yaml and measure again."
        )
    paper, group = paper_of(results), group_of(results, name)
    by_seed = measured.groupby(["variant", "k_shot", "metric", "seed"], sort=False)["value"]
    # The mean over the categories of a seed is unknown where one of them is.
    means = 100 * by_seed.mean().where(by_seed.count() == by_seed.size())
    seeds = means.groupby(level=[0, 1, 2], sort=False).agg(["mean", "std"])
    rows = []
    for variant, k_shot in (
        measured[["variant", "k_shot"]].drop_duplicates().itertuples(index=False)
    ):
        row = variant.removeprefix(f"{name}/")
        # A metric of pixels is missing where there are no masks.
        by_metric = seeds.loc[variant, k_shot].reindex(group.metrics)
        for metric, value, std in by_metric.itertuples():
            if name == PRESET and not paper.gives(row, metric):
                value = std = math.nan
            printed = _printed(paper, group, row, k_shot, metric)
            rows.append((row, k_shot, metric, value, std, printed))
    return pd.DataFrame(rows, columns=["row", "k_shot", "metric", "ours", "std", "paper"])


def _printed(paper: Paper, group: AblationFacts, row: str, k_shot: int, metric: str) -> float:
    """What the paper prints of a row; NaN for nothing."""
    if row not in group.rows:
        return float("nan")
    dataset = group.dataset or paper.dataset
    number = reported(paper.name, dataset, k_shot, metric, variant=group.rows[row])
    return number.mean if number else float("nan")


def ablation_table(results: pd.DataFrame, name: str) -> Html:
    """The ablation as the paper lays it out: a row a variant, the paper's number below ours.

    One that the run leaves out is a sentence.
    """
    if not is_measured(results, name):
        return callout(f"{name}: {UNMEASURED}.")
    long, group = ablation(results, name), group_of(results, name)
    shots = list(long["k_shot"].unique())
    cells = {(c["row"], c["metric"], c["k_shot"]): c for c in long.to_dict("records")}
    body = []
    for row in long["row"].unique():
        line = [_cell(cells[row, metric, k_shot]) for metric in group.metrics for k_shot in shots]
        body.append(Row([Cell(pretty(row), "row"), *line]))
    heads = [
        Cell(METRIC_LABELS[metric], "colgroup", "number", columns=len(shots))
        for metric in group.metrics
    ]
    below = [Cell(f"{k_shot}-shot", "col", "number") for k_shot in shots]
    measured = rows_of(results, name)
    seeds = measured["seed"].nunique()
    over = "one seed" if seeds == 1 else f"± the deviation of the means of {seeds} seeds"
    about = (
        f"mean over {how_many_categories(results, measured)}, {over}, "
        f"per cent{_where_printed(results, name, bool(long['paper'].notna().any()))}"
    )
    head = [[Cell("", "col", rows=2), *heads], below * len(group.metrics)]
    return html_table(Html("<strong>{}</strong>, {}").format(name, about), head, body)


def _dataset(results: pd.DataFrame, name: str) -> str:
    """The dataset of an ablation's printed numbers, as papers call it."""
    return dataset_titles(group_of(results, name).dataset or paper_of(results).dataset)[0]


def _where_printed(results: pd.DataFrame, name: str, printed: bool) -> str:
    """The end of a caption: where the numbers below ours stand, or that there are none."""
    group = group_of(results, name)
    if not group.table:
        return ""
    of = "" if group.table.startswith("rebuttal") else " of the paper"
    if not printed:
        return f"; {group.table}{of} prints no number for these rows"
    return f"; below: {group.table}{of} ({_dataset(results, name)})"


def how_many_categories(results: pd.DataFrame, part: pd.DataFrame) -> str:
    """What a mean of some results is over: "categories" where it is all, else how many of them.

    A few are named, as in "2 of 13 categories (hex nut, light bulb)".
    """
    every = set(results.loc[results["variant"] == MAIN, "category"])
    measured = list(dict.fromkeys(part.loc[part["category"].isin(every), "category"]))
    if len(measured) >= len(every):
        return "categories"
    names = f" ({', '.join(measured).replace('_', ' ')})" if 0 < len(measured) <= FEW else ""
    return f"{len(measured)} of {len(every)} categories{names}"


def _cell(value: Mapping[Hashable, Any]) -> Cell:
    printed = Html('<span class="cell-paper">paper {}</span>').format(percent(value["paper"]))
    below = Html("") if pd.isna(value["paper"]) else printed
    return Cell(with_spread(value["ours"], value["std"]) + below, kind="number")


def pretty(row: str) -> str:
    """The row of params.yaml with the paper's symbols."""
    return row.replace("M^W", "Mᵂ").replace("M^P", "Mᴾ")


def ablation_figure(results: pd.DataFrame, name: str) -> tuple[Figure, str]:
    """Dots by row and number of shots, the paper's in a panel of their own scale; the alt text."""
    long, group = ablation(results, name), group_of(results, name)
    long = long[long["metric"] == group.metrics[0]]
    printed = long["paper"].notna().any()
    order = list(long["row"].unique())
    figure, axes = plt.subplots(
        1,
        2 if printed else 1,
        sharey=True,
        squeeze=False,
        figsize=(9.4 if printed else 7.0, 0.95 + 0.32 * len(order)),
    )
    _dots(axes[0, 0], long, "ours", order)
    axes[0, 0].set_title(f"this run: {name}", fontsize=9.5)
    if printed:
        _dots(axes[0, 1], long.dropna(subset="paper"), "paper", order)
        axes[0, 1].set_title(f"paper, {group.table}: {_dataset(results, name)}", fontsize=9.5)
    for panel in axes[0]:
        panel.set_xlabel(f"{METRIC_LABELS[group.metrics[0]]}, per cent")
        panel.set_ylabel("")
    if long["k_shot"].nunique() > 1:
        axes[0, -1].legend(
            *axes[0, 0].get_legend_handles_labels(),
            frameon=False,
            fontsize=8,
            loc="upper left",
            bbox_to_anchor=(1, 1),
        )
    return figure, _alt(long, name, group.metrics[0])


def _dots(axes: Axes, long: pd.DataFrame, value: str, order: list[str]) -> None:
    shots = sorted(long["k_shot"].unique())
    places = {name: position for position, name in enumerate(order)}
    for shift, k_shot in enumerate(shots):
        part = long[long["k_shot"] == k_shot]
        height = [places[row] + 0.16 * (shift - (len(shots) - 1) / 2) for row in part["row"]]
        spread = part["std"].fillna(0) if value == "ours" else 0 * part[value]
        axes.errorbar(
            part[value],
            height,
            xerr=spread,
            fmt="o",
            markersize=6,
            capsize=2,
            color=PALETTE[shift],
            label=f"{k_shot}-shot",
        )
    axes.set_yticks(range(len(order)), [pretty(row) for row in order])
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.margins(x=0.12)
    seaborn.despine(ax=axes, left=True)


def _alt(long: pd.DataFrame, name: str, metric: str) -> str:
    """The figure in words: highest and lowest row at every number of shots."""
    parts = []
    for k_shot, cell in long.groupby("k_shot"):
        values = cell.dropna(subset="ours").set_index("row")["ours"]
        if values.empty:
            continue
        parts.append(
            f"{k_shot}-shot from {percent(values.min())} ({values.idxmin()}) to "
            f"{percent(values.max())} ({values.idxmax()})"
        )
    subject = f"{name}: {METRIC_LABELS[metric]} in per cent"
    return f"{subject}, {'; '.join(parts)}." if parts else f"{subject}: undefined for this data."


def backbones(
    results: pd.DataFrame, table: str, metrics: Sequence[str] = ("image_auroc", "pixel_auroc")
) -> pd.DataFrame:
    """A paper's table of zero-shot backbones on its own dataset, and below it this run's."""
    paper, printed = paper_of(results), load_reported()
    dataset = dataset_titles(paper.dataset)[0]
    printed = printed[(printed["method"] == paper.title) & (printed["table"] == table)]
    printed = printed[printed["dataset"] == dataset]
    wide = printed.pivot_table(index="backbone", columns="metric", values="mean", sort=False)
    main = results[(results["variant"] == MAIN) & (results["k_shot"] == 0)]
    values = main.groupby("metric")["value"]
    means = 100 * values.mean().where(values.count() == values.size())
    frame = wide.reindex(columns=list(metrics)).rename(columns=METRIC_LABELS)
    frame.insert(0, "dataset", dataset)
    frame.index = pd.Index([f"paper: {name}" for name in frame.index], name="backbone")
    row = [str(main["dataset"].iloc[0]), *(float(means.get(m, float("nan"))) for m in metrics)]
    this_run = pd.DataFrame([row], columns=frame.columns)
    this_run.index = pd.Index([f"this run: {main['backbone'].iloc[0]}"], name="backbone")
    return pd.concat([frame, this_run])


def further(results: pd.DataFrame) -> list[str]:
    """The groups of this run of which the paper prints nothing, but for walks and questions."""
    names = dict.fromkeys(v.split("/")[0] for v in results["variant"] if "/" in v)
    elsewhere = walk_group(""), question_group("")
    return [n for n in names if not n.startswith(elsewhere) and not group_of(results, n).table]


def claimed_questions(results: pd.DataFrame) -> list[str]:
    """The groups of questions of this run that a claim of the paper is about."""
    names = dict.fromkeys(v.split("/")[0] for v in results["variant"] if "/" in v)
    asked = [name for name in names if name.startswith(question_group(""))]
    return [name for name in asked if group_of(results, name).claims]


def gains(results: pd.DataFrame, group: str, row: str, base: str, metric: str) -> pd.DataFrame:
    """What a row adds to another by category, points, highest first."""
    measured = results[results["metric"] == metric]
    wide = measured.pivot_table(index="category", columns="variant", values="value")
    wide = wide.reindex(columns=[f"{group}/{row}", f"{group}/{base}"]).dropna(how="all")
    points = 100 * (wide.iloc[:, 0] - wide.iloc[:, 1]).sort_values(ascending=False)
    points.index = pd.Index([str(name).replace("_", " ") for name in points.index], name="category")
    return points.rename(f"{METRIC_LABELS[metric]}, points").to_frame()


def printed_gains(method: str, variant: str, dataset: str) -> pd.DataFrame:
    """Gains by category as a paper prints them."""
    rows = load_reported()
    rows = rows[(rows["method"] == method) & (rows["variant"] == variant)]
    rows = rows[rows["dataset"].isin(dataset_titles(dataset)) & (rows["category"] != "")]
    ordered = rows.sort_values("mean", ascending=False, kind="stable")
    index = pd.Index([name.replace("_", " ") for name in ordered["category"]], name="category")
    return pd.DataFrame({"paper, points": ordered["mean"].to_numpy()}, index=index)
