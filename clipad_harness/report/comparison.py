"""Tables, figures and pictures of the comparison page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image

from clipad_core.metrics import METRIC_LABELS
from clipad_core.metrics import METRICS as KNOWN_METRICS
from clipad_harness.base.settings import read_methods
from clipad_harness.data.cards import read_card
from clipad_harness.data.images import read_image
from clipad_harness.experiments.contenders import Contender
from clipad_harness.experiments.pipeline import Run, measured_methods
from clipad_harness.papers.card import read_paper
from clipad_harness.report.figures import PALETTE, UNDEFINED, draw_intervals, say_undefined
from clipad_harness.report.map_grid import Pictured, map_grid
from clipad_harness.report.side_by_side import SideBySide, differences
from clipad_harness.report.summary import COSTS
from clipad_harness.report.tables import (
    Cell,
    Html,
    Row,
    callout,
    html_table,
    percent,
    table,
    with_spread,
)

METRICS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")
# Longest side of a picture; images and maps are stretched to squares, to stand side by side.
SIDE = 160
# Of a figure with more methods than colours: the further ones begin again with the next.
MARKERS = "oDs^"


def seed_means(measured: SideBySide, metric: str) -> pd.DataFrame:
    """Mean over categories, a row a contender, a column a seed; per cent."""
    rows = measured.metrics[measured.metrics["metric"] == metric]
    wide = rows.pivot_table(
        index=["contender", "seed"], columns="category", values="value", sort=False
    )
    return (100 * wide.mean(axis=1, skipna=False)).rename("value").reset_index()


def headline(measured: SideBySide, among: Sequence[Contender]) -> Html:
    """All contenders and metrics, the best of a column marked, with what each reads and costs."""
    columns = {}
    for metric in METRICS:
        grouped = seed_means(measured, metric).groupby("contender")["value"]
        columns[metric] = pd.DataFrame({"mean": grouped.mean(), "std": grouped.std(ddof=1)})
    body = []
    for contender in among:
        cells = [Cell(contender.label, "row")]
        for metric, frame in columns.items():
            means = frame["mean"] if KNOWN_METRICS[metric].higher_is_better else -frame["mean"]
            best = means.notna().any() and means.idxmax() == contender.label
            mean, std = (float(frame["mean"].get(contender.label, np.nan)),
                         float(frame["std"].get(contender.label, np.nan)))  # fmt: skip
            text = with_spread(mean, std)
            cells.append(
                Cell(Html("<strong>{}</strong>").format(text) if best else text, kind="number")
            )
        body.append(Row([*cells, Cell(contender.reads)]))
    head = [Cell("method", "col"), *(Cell(METRIC_LABELS[m], "col", "number") for m in METRICS)]
    caption = (
        "Mean over categories, per cent; ± is the deviation of that mean over seeds, which is smaller "
        "than the methods' pages give; the best of a column in bold. AUPRO at every distinct "
        "threshold for all methods"
    )
    return html_table(caption, [[*head, Cell("reads of a category", "col")]], body)


def standing(run: Run) -> Html:
    """What the numbers are worth: which data, and whether the weights are the published ones."""
    card = read_card(run.profile.dataset)
    scorer = run.scorer()
    kind = scorer.backbone(scorer.variants[0].config).kind
    test = run.index[run.index["split"] == "test"]
    about = f"{card.title}: {len(test)} test images of {len(run.categories)} categories."
    measured = measured_methods(run.root)
    absent = [name for name in read_methods(run.root) if name not in measured]
    titles = ", ".join(read_paper(name).title for name in absent)
    about += f" Left out, as their pages say: {titles}." if absent else ""
    if kind == "published":
        return callout(f"{about} Published weights.")
    return callout(
        f"{about} The weights are {kind} weights: the page shows how things compare on them. Where a "
        "paper's number stands beside one of these, it is for orientation alone.",
        "warning",
    )


def costs(measured: SideBySide, among: Sequence[Contender]) -> Html:
    """What each method costs, in units that no machine changes."""
    rows = [
        (
            contender.reads,
            f"{contender.learned:,}",
            f"{contender.operations / 1e9:.2f}",
            measured.sizes[contender.label],
        )
        for contender in among
    ]
    columns = ["reads of a category", "numbers learned", "10⁹ operations", "map, pixels"]
    index = pd.Index([contender.label for contender in among], name="method")
    frame = pd.DataFrame(rows, columns=columns, index=index)
    return table(frame, "Cost of one test image, once the detector is made")


def run_costs() -> Html:
    """Seconds and memory of every stage; filled in by the page from a file that is no part of it."""
    return COSTS


def cost_figure(measured: SideBySide, among: Sequence[Contender]) -> tuple[Figure, str]:
    """Accuracy against operations, image and pixel level; the alt text."""
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.4), sharex=True)
    alt = []
    for panel, metric in zip(axes, ("image_auroc", "pixel_auroc"), strict=True):
        means = seed_means(measured, metric).groupby("contender")["value"].mean()
        for place, method in enumerate(among):
            value, cost = means.get(method.label, np.nan), method.operations / 1e9
            again, colour = divmod(place, len(PALETTE))
            style = {"color": PALETTE[colour], "marker": MARKERS[again % len(MARKERS)]}
            panel.scatter(cost, value, s=70, label=method.label, zorder=3, **style)
            alt.append(f"{method.label} {percent(value)} {METRIC_LABELS[metric]} at {cost:.2f}")
        panel.set(xlabel="10⁹ operations an image", ylabel="")
        panel.set_title(f"{METRIC_LABELS[metric]}, per cent", fontsize=9.5)
        panel.margins(0.2)
        if means.isna().all():
            say_undefined(panel)
    axes[1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure, f"Accuracy against billions of operations: {'; '.join(alt)}."


def difference_figure(
    measured: SideBySide, first: str, second: str
) -> tuple[Figure, str, pd.DataFrame]:
    """First minus second by category with intervals, both levels; the alt text and the numbers."""
    frames = {level: differences(measured, first, second, level) for level in ("image", "pixel")}
    names = [name.replace("_", " ") for name in frames["image"].index]
    height = 0.9 + 0.26 * len(names)
    figure, axes = plt.subplots(1, 2, figsize=(9.0, height), sharey=True)
    alt = []
    for panel, (level, frame) in zip(axes, frames.items(), strict=True):
        lines = frame[["difference", "low", "high"]].itertuples(index=False, name=None)
        draw_intervals(panel, names, lines, last="D")
        panel.set_title(f"{level} AUROC, points", fontsize=9.5)
        if frame["difference"].isna().all():
            panel.text(0.5, 0.5, UNDEFINED, transform=panel.transAxes, ha="center", fontsize=9)
        points = [percent(float(v), signed=True) for v in frame.iloc[-1, :3]]
        alt.append(
            f"{level} AUROC on the mean {points[0]} points, interval {points[1]} to {points[2]}"
        )
    joined = pd.concat(frames, axis=1)
    return figure, f"{first} minus {second}: {'; '.join(alt)}.", joined


def verdict_sentence(first: str, second: str, frame: pd.DataFrame) -> str:
    """Where the first is clearly better, clearly worse, and where nothing can be said."""
    parts = []
    for level in ("image", "pixel"):
        every = frame[level].drop(index="mean")
        own = every[every["low"].notna()]
        if own.empty:
            parts.append(f"by {level} AUROC {UNDEFINED}")
            continue
        better = own[own["low"] > 0].index
        worse = own[own["high"] < 0].index
        listed = [
            f"{word} in {len(names)} ({', '.join(names).replace('_', ' ')})"
            if len(names)
            else f"{word} in none"
            for word, names in (("better", better), ("worse", worse))
        ]
        undecided = len(own) - len(better) - len(worse)
        text = f"by {level} AUROC {listed[0]}, {listed[1]}, undecided in {undecided}"
        parts.append(text + (f", undefined in {n}" if (n := len(every) - len(own)) else ""))
    return f"{first} against {second}, categories: {'; '.join(parts)}."


def by_category(measured: SideBySide, among: Sequence[Contender], metric: str) -> Html:
    """One metric of all contenders, a row a category, the mean last."""
    rows = measured.metrics[measured.metrics["metric"] == metric]
    wide = 100 * rows.pivot_table(
        index="category", columns="contender", values="value", sort=False, dropna=False
    )
    wide = wide.reindex(columns=[contender.label for contender in among])
    wide.loc["mean"] = wide.mean(skipna=False)
    wide.index = pd.Index([str(name).replace("_", " ") for name in wide.index], name="category")
    return table(wide, f"{METRIC_LABELS[metric]}, per cent")


def apart(measured: SideBySide, first: str, second: str, count: int = 3) -> pd.DataFrame:
    """The damaged images on which the first ranks most above the second, each category once."""
    damaged = measured.images[measured.images["label"] == 1].dropna(subset="ranked")
    wide = damaged.pivot_table(
        index=["category", "image", "defect"], columns="contender", values="ranked", sort=False
    )
    wide = wide.reindex(columns=[first, second]).reset_index()
    wide = wide.assign(gain=wide[first] - wide[second])
    ordered = wide.sort_values(["gain", "image"], ascending=[False, True], kind="stable")
    return ordered[ordered["gain"] > 0].drop_duplicates("category").head(count)


def pictures(data: Path, chosen: pd.DataFrame, methods: Sequence[Contender]) -> tuple[Figure, str]:
    """Some images, each under the maps of these methods, the first of which gives the masks; the alt text.

    Args:
        data: folder of the dataset.
        chosen: rows with ``category, image, defect``.
    """
    examples: list[Pictured] = []
    columns: dict[str, list[torch.Tensor]] = {method.label: [] for method in methods}
    for row in chosen.to_dict("records"):
        category, name = str(row["category"]), str(row["image"])
        mapped = [method.maps(category, [name])[name] for method in methods]
        for method, one in zip(methods, mapped, strict=True):
            columns[method.label].append(_square(one.anomaly_map))
        mask = _square(mapped[0].mask.astype(np.float32)).numpy() > 0.5
        opened = np.asarray(read_image(data / name).resize((SIDE, SIDE)))
        examples.append(Pictured(category, str(row["defect"]), opened, mask))
    return map_grid(examples, columns)


def _square(array: np.ndarray) -> torch.Tensor:
    resized = Image.fromarray(array, mode="F").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized))
