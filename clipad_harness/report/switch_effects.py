"""Why numbers differ: the effect of every switch between a paper and the codes that repeat it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from IPython.display import display
from matplotlib.figure import Figure

from clipad_core.config import Choice, choices, fields_read
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_core.metrics import METRIC_LABELS
from clipad_harness.base.settings import MethodSettings
from clipad_harness.experiments.pipeline import Run
from clipad_harness.experiments.switch_steps import differing, walk_group
from clipad_harness.experiments.variants import Variant
from clipad_harness.papers.card import paper_names, read_paper
from clipad_harness.report.ablations import how_many_categories, paper_of
from clipad_harness.report.figures import PALETTE, show
from clipad_harness.report.tables import Html, callout, percent, table

METRICS = ("image_auroc", "pixel_auroc", "aupro", "image_ap", "pixel_ap")
DRAWN = ("image_auroc", "pixel_auroc", "aupro")
# A field that nobody's code decides: this run's own settings hold another value than the preset.
OWN = Choice("this run's own setting, back to the preset's", "params.yaml")
# Points: an axis is never shorter, so that a hair does not look like a leap.
SHORTEST_AXIS = 4.0


def walk(results: pd.DataFrame, preset: str, k_shot: int = 0) -> pd.DataFrame:
    """Means over categories after every step of a walk, per cent: a row a step, a column a metric.

    Raises:
        ClipadError: the results hold no such walk.
    """
    group = f"{walk_group(preset)}/"
    paper = paper_of(results)
    taken = results[results["variant"].str.startswith(group) & (results["k_shot"] == k_shot)]
    if taken.empty:
        raise ClipadError(
            f"walk: found none to {preset!r} with {k_shot} shots; add it to {paper.name}.walks in "
            "params.yaml and measure again."
        )
    wide = taken.pivot_table(
        index="variant", columns="metric", values="value", sort=False, dropna=False
    )
    wide.index = pd.Index([str(name).removeprefix(group) for name in wide.index], name="step")
    if not k_shot:  # what is read only with references cannot act
        unread = fields_read(find_method(paper.name).config, "references")
        wide = wide[[field_of(str(step)) not in unread for step in wide.index]]
    measured = [metric for metric in METRICS if paper.gives(preset, metric)]
    return 100 * wide.reindex(columns=measured).reindex(columns=list(METRICS))


def walks(results: pd.DataFrame) -> dict[tuple[str, int], pd.DataFrame]:
    """All walks that some results hold, as from `walk`, by where they lead and number of shots."""
    variant = results["variant"].str.replace(r"/.*", "", regex=True)
    steps = results.assign(walk=variant)[variant.str.startswith(walk_group(""))]
    taken = steps[["walk", "k_shot"]].drop_duplicates().itertuples(index=False)
    names = [(str(name).removeprefix(walk_group("")), int(k_shot)) for name, k_shot in taken]
    return {(name, k_shot): walk(results, name, k_shot) for name, k_shot in names}


def titled_walks(run: Run, results: pd.DataFrame) -> dict[str, tuple[str, pd.DataFrame]]:
    """All walks of a method by the title that a reader sees: where each leads, and its steps.

    Args:
        run: of the method.
        results: its results.
    """
    title, start = run.method.title, run.settings.preset
    taken = walks(results)
    shots = ", {}-shot" if any(k_shot for _, k_shot in taken) else ""
    return {
        f"{title}, {start} to {end}" + shots.format(k_shot): (end, steps)
        for (end, k_shot), steps in taken.items()
    }


def walk_panels(run: Run | None, results: pd.DataFrame) -> None:
    """What the switches of a method are, then a waterfall and a table a walk.

    Args:
        run: of the method; None where this run has none of it.
        results: its results.
    """
    if run is None:
        display(callout("This method is not part of this run."))
        return
    panels = titled_walks(run, results)
    if not panels:
        display(callout(f"{run.method.title}: no walk is measured in this run."))
        return
    display(switch_table([steps for _, steps in panels.values()], run.name))
    for title, (end, steps) in panels.items():
        show(*waterfall(steps, title, end), caption=title)
        display(effect_table(steps, run.variants, end, title))


def effects(values: pd.DataFrame) -> pd.DataFrame:
    """What each step adds, in points; the start is left out. They sum to last minus first."""
    return values.diff().iloc[1:]


def measured_on(results: pd.DataFrame) -> Html:
    """What the walks are measured on, where that is less than what the headline numbers are."""
    steps = results[results["variant"].str.startswith(walk_group(""))]
    if steps.empty:
        return callout("No walk is measured in this run.")
    scope = how_many_categories(results, steps)
    if scope == "categories":
        return callout("Every walk is measured on all categories.")
    return callout(
        f"Walks and tables of this page are means over {scope}, so their start is not the headline "
        "number, which is over all. The differences are what counts here."
    )


def field_of(step: str) -> str:
    """The field that names a step.

    >>> field_of("3 class_name")
    'class_name'
    """
    return step.partition(" ")[2]


def waterfall(values: pd.DataFrame, title: str, end: str) -> tuple[Figure, str]:
    """Start, the effect of every step, end, a panel a metric; the alt text."""
    names = ["start", *(field_of(step).replace("_", " ") for step in values.index[1:]), end]
    drawn = [metric for metric in DRAWN if values[metric].notna().all()] or [DRAWN[0]]
    size = (1.8 + 3.2 * len(drawn), 1.0 + 0.27 * len(names))
    figure, axes = plt.subplots(1, len(drawn), figsize=size, sharey=True, squeeze=False)
    alt = []
    for panel, metric in zip(axes[0], drawn, strict=True):
        heights = values[metric].to_numpy()
        changes = np.diff(heights)
        lefts = [heights[0], *heights[:-1], heights[-1]]
        widths = [0.0, *changes, 0.0]
        colours = ["#4a525c", *(PALETTE[2] if c >= 0 else PALETTE[1] for c in changes), "#4a525c"]
        places = range(len(names))
        panel.barh(places, widths, left=lefts, color=colours, height=0.62)
        panel.plot([heights[0], heights[-1]], [0, len(names) - 1], "D", color="#4a525c")
        for place, left, width in zip(places, lefts, widths, strict=True):
            is_end = place in (0, len(names) - 1)
            text = percent(left) if is_end else percent(width, signed=True)
            panel.annotate(
                text,
                (max(left, left + width), place),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
                # A minus sign on a line of the grid would not be seen.
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            )
        panel.set_yticks(places, names)
        panel.set_ylim(len(names) - 0.5, -0.5)
        low, high = heights.min(), heights.max()
        more = max(0.0, SHORTEST_AXIS - (high - low)) / 2
        if np.isfinite(high - low):
            panel.set_xlim(
                low - more - 0.3 - 0.03 * (high - low), high + more + 0.25 * (high - low + 2 * more)
            )
        panel.set_title(f"{METRIC_LABELS[metric]}, per cent", fontsize=9.5)
        seaborn.despine(ax=panel, left=True)
        largest = int(np.abs(changes).argmax()) if len(changes) else 0
        alt.append(
            f"{METRIC_LABELS[metric]} from {percent(heights[0])} to {percent(heights[-1])}, largest "
            f"step {names[largest + 1]} {percent(changes[largest], signed=True)}"
        )
    return figure, f"{title}: {'; '.join(alt)}."


def effect_table(values: pd.DataFrame, among: Sequence[Variant], preset: str, title: str) -> Html:
    """A row a switch: its positions before and after, and its effect on every metric in points.

    Args:
        values: as from `walk`.
        among: the variants of the method; those of the walk say what is switched.
        title: what the walk is, for the caption.
    """
    steps = [variant for variant in among if variant.name.startswith(f"{walk_group(preset)}/")]
    before = {after.name.partition("/")[2]: previous for previous, after in pairwise(steps)}
    positions = {variant.name.partition("/")[2]: variant for variant in steps}
    points = effects(values)
    rows = []
    for step, worth in points.iterrows():
        cells = [percent(float(worth[metric]), signed=True) for metric in METRICS]
        rows.append([*_turned(before[str(step)], positions[str(step)]), *cells])
    columns = ["from", "to", *(METRIC_LABELS[metric] for metric in METRICS)]
    index = pd.Index(
        [field_of(str(step)).replace("_", " ") for step in points.index], name="switch"
    )
    frame = pd.DataFrame(rows, columns=columns, index=index)
    return table(frame, f"{title}: what every switch is worth, points")


def _turned(before: Variant, after: Variant) -> list[str]:
    """The positions of a switch: one value, or those of the fields that are thrown together."""
    configs = [variant.tested_with(variant.seeds[0]) for variant in (before, after)]
    names = differing(*configs)
    sides = [[getattr(config, name) for name in names] for config in configs]
    if before.aupro != after.aupro:  # decided where it is measured, not in the method
        sides = [
            [*values, variant.aupro] for values, variant in zip(sides, (before, after), strict=True)
        ]
    return [
        ", ".join(" ".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in values)
        for values in sides
    ]


def switches(method: str) -> dict[str, Choice]:
    """What a method's switches are, by field: of its config, and of how its maps are measured."""
    fields = {**choices(MethodSettings), **choices(find_method(read_paper(method).name).config)}
    return {name: choice for name, choice in fields.items() if choice.meaning}


def switch_table(walks: Sequence[pd.DataFrame], method: str) -> Html:
    """What the switches of some walks of a method are, each once, with its source."""
    names = dict.fromkeys(field_of(str(step)) for values in walks for step in values.index[1:])
    fields = switches(method)
    rows = [[fields.get(name, OWN).meaning, fields.get(name, OWN).source] for name in names]
    index = pd.Index([name.replace("_", " ") for name in names], name="switch")
    frame = pd.DataFrame(rows, columns=["what it changes", "source"], index=index)
    return linked(table(frame, "The switches; P is the method's paper"))


def linked(html: Html) -> Html:
    """The repositories, at their commits, and the threads that a table names, as links.

    They may wrap at their slash and before their commit. An address of an issue leads on to the pull
    request where the number is one's.

    >>> print(linked(Html("zqhang/AnomalyCLIP@45ed4dd"))[:63])
    <a href="https://github.com/zqhang/AnomalyCLIP/tree/45ed4dd">zq
    """
    at_commit = r"([\w-]+)/([\w.-]+)@([0-9a-f]{7}|v\d+\.\d+\.\d+)\b"
    issue = r"([\w-]+)/([\w.-]+)#(\d+)"
    tree = r'<a href="https://github.com/\1/\2/tree/\3">\1/<wbr>\2<wbr>@\3</a>'
    thread = r'<a href="https://github.com/\1/\2/issues/\3">\1/<wbr>\2<wbr>#\3</a>'
    # As plain text: what re puts together of pieces of Html, Html would escape.
    return Html(re.sub(issue, thread, re.sub(at_commit, tree, str(html))))


def not_measured() -> Html:
    """Switches that no run can throw, with the reason; those of all papers."""
    causes = [cause for name in paper_names() for cause in read_paper(name).not_measured]
    index = pd.Index([cause.what for cause in causes], name="switch")
    rows = [[cause.why, "–", cause.source] for cause in causes]
    frame = pd.DataFrame(rows, columns=["why it is not measured", "effect", "source"], index=index)
    return linked(table(frame, "Known causes without a number here"))


def largest_switches(walks: dict[str, pd.DataFrame], count: int = 3) -> Html:
    """The first screen's sentence: which steps of the walks move a number most."""
    rows = [
        (abs(float(value)), f"{title}, {field_of(str(step)).replace('_', ' ')}: "
         f"{percent(float(value), signed=True)} points of {METRIC_LABELS[metric]}")
        for title, values in walks.items()
        for metric in METRICS
        for step, value in effects(values)[metric].items()
        if value == value
    ]  # fmt: skip
    if not rows:
        return callout("No walk of this run is defined for its data.", "warning")
    top = [text for _, text in sorted(rows, reverse=True)[:count]]
    return callout(f"The steps that move a number most here: {'; '.join(top)}.")
