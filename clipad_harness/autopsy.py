"""Why numbers differ: the effect of every switch between a paper and the codes that repeat it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from matplotlib.figure import Figure

from clipad_core.errors import ClipadError
from clipad_harness.figures import PALETTE
from clipad_harness.method_facts import FACTS
from clipad_harness.paper_numbers import load_reported
from clipad_harness.switches import NOT_MEASURED, SWITCHES
from clipad_harness.tables import METRIC_LABELS, Html, callout, percent, table
from clipad_harness.walks import walk_group

METRICS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")
DRAWN = ("image_auroc", "pixel_auroc")


def walk(results: pd.DataFrame, preset: str, k_shot: int = 0) -> pd.DataFrame:
    """Means over categories after every step of a walk, per cent: a row a step, a column a metric.

    Raises:
        ClipadError: the results hold no such walk.
    """
    group = f"{walk_group(preset)}/"
    mine = results[results["variant"].str.startswith(group) & (results["k_shot"] == k_shot)]
    if mine.empty:
        name = FACTS[str(results["method"].iloc[0])].name
        raise ClipadError(
            f"walk: found none to {preset!r} with {k_shot} shots; add it to {name}.walks in params.yaml "
            "and measure again."
        )
    wide = mine.pivot_table(
        index="variant", columns="metric", values="value", sort=False, dropna=False
    )
    wide.index = pd.Index([str(name).removeprefix(group) for name in wide.index], name="step")
    return 100 * wide.reindex(columns=list(METRICS))


def effects(values: pd.DataFrame) -> pd.DataFrame:
    """What each step adds, in points; the start is left out. They sum to last minus first."""
    return values.diff().iloc[1:]


def field_of(step: str) -> str:
    """The field that names a step.

    >>> field_of("3 class_name")
    'class_name'
    """
    return step.partition(" ")[2]


def waterfall(values: pd.DataFrame, title: str, end: str) -> tuple[Figure, str]:
    """Start, the effect of every step, end: image and pixel AUROC side by side; the alt text."""
    names = ["start", *(field_of(step).replace("_", " ") for step in values.index[1:]), end]
    figure, axes = plt.subplots(1, 2, figsize=(9.4, 1.0 + 0.27 * len(names)), sharey=True)
    alt = []
    for one, metric in zip(axes, DRAWN, strict=True):
        heights = values[metric].to_numpy()
        changes = np.diff(heights)
        lefts = [heights[0], *heights[:-1], heights[-1]]
        widths = [0.0, *changes, 0.0]
        colours = ["#4a525c", *(PALETTE[2] if c >= 0 else PALETTE[1] for c in changes), "#4a525c"]
        places = range(len(names))
        one.barh(places, widths, left=lefts, color=colours, height=0.62)
        one.plot([heights[0], heights[-1]], [0, len(names) - 1], "D", color="#4a525c")
        for place, left, width in zip(places, lefts, widths, strict=True):
            is_end = place in (0, len(names) - 1)
            text = percent(left) if is_end else percent(width, signed=True)
            one.annotate(
                text,
                (max(left, left + width), place),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
            )
        one.set_yticks(places, names)
        one.set_ylim(len(names) - 0.5, -0.5)
        one.margins(x=0.16)
        one.set_title(f"{METRIC_LABELS[metric]}, per cent", fontsize=9.5)
        seaborn.despine(ax=one, left=True)
        largest = int(np.abs(changes).argmax()) if len(changes) else 0
        alt.append(
            f"{METRIC_LABELS[metric]} from {percent(heights[0])} to {percent(heights[-1])}, largest "
            f"step {names[largest + 1]} {percent(changes[largest], signed=True)}"
        )
    return figure, f"{title}: {'; '.join(alt)}."


def effect_table(values: pd.DataFrame, caption: str) -> Html:
    """A row a switch: what it is, its effect on every metric, and its source."""
    found = effects(values)
    rows = []
    for step in found.index:
        switch = SWITCHES[field_of(str(step))]
        shown = [percent(float(found.loc[step, metric]), signed=True) for metric in METRICS]
        rows.append([switch.meaning, *shown, switch.source])
    columns = ["what", *(METRIC_LABELS[metric] for metric in METRICS), "source"]
    index = pd.Index([field_of(str(step)).replace("_", " ") for step in found.index], name="switch")
    return table(pd.DataFrame(rows, columns=columns, index=index), f"{caption}, points")


def not_measured() -> Html:
    """Switches that no run can throw, with the reason."""
    index = pd.Index([row[0] for row in NOT_MEASURED], name="switch")
    rows = [[row[1], "–", row[2]] for row in NOT_MEASURED]
    frame = pd.DataFrame(rows, columns=["why it is not measured", "effect", "source"], index=index)
    return table(frame, "Known causes without a number here")


def largest_switches(walks: dict[str, pd.DataFrame], count: int = 3) -> Html:
    """The first screen's sentence: which switches move a number most."""
    rows = [
        (abs(float(value)), f"{title}, {field_of(str(step)).replace('_', ' ')}: "
         f"{percent(float(value), signed=True)} points of {METRIC_LABELS[metric]}")
        for title, values in walks.items()
        for metric in DRAWN
        for step, value in effects(values)[metric].items()
        if value == value
    ]  # fmt: skip
    if not rows:
        return callout("No walk of this run is defined for its data.", "warning")
    top = [text for _, text in sorted(rows, reverse=True)[:count]]
    return callout(f"The switches that move a number most here: {'; '.join(top)}.")


def reported_range(method: str, dataset: str = "MVTec AD") -> pd.DataFrame:
    """How far apart others report the same method on the same data: lowest and highest, per cent.

    Runs by others and the paper's own numbers together, zero-shot means over categories.
    """
    rows = load_reported()
    rows = rows[(rows["method"] == method) & (rows["dataset"] == dataset)]
    rows = rows[(rows["category"] == "") & (rows["k_shot"] == "0")]
    rows = rows[~rows["variant"].str.contains("ablation|state word|optimisation|remove|local loss|"
                                              "backbone|shared|ensemble|image layers|template|"
                                              "resolution|test-time|components|baseline")]  # fmt: skip
    found = []
    for metric in ("image_auroc", "pixel_auroc", "aupro"):
        part = rows[rows["metric"] == metric].sort_values("mean")
        if len(part):
            low, high = part.iloc[0], part.iloc[-1]
            texts = [f"{percent(one['mean'])}: {one['variant']} ({one['source']})"
                     for one in (low, high)]  # fmt: skip
            found.append((len(part), *texts))
    index = pd.Index(
        [METRIC_LABELS[m] for m in ("image_auroc", "pixel_auroc", "aupro")][: len(found)]
    )
    return pd.DataFrame(found, columns=["reports", "lowest", "highest"], index=index)
