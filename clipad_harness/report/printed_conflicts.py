"""The page of contradictions: values of one row in several papers, their spans, and how far a step is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from matplotlib.figure import Figure

from clipad_core.metrics import METRIC_LABELS
from clipad_harness.papers.conflicts import (
    SAME,
    Cause,
    Conflict,
    Value,
    causes,
    counts,
    listed_by,
)
from clipad_harness.papers.printed_tables import CellName
from clipad_harness.report.figures import PALETTE
from clipad_harness.report.summary import Headline
from clipad_harness.report.tables import (
    DASH,
    Cell,
    Html,
    Row,
    callout,
    facts,
    html_table,
    percent,
    source_list,
)

MEASURED_HERE = "measured here"
# Conflicts in the figure.
_DRAWN = 25
_KINDS = {"stated": "stated", "numbers": "from the numbers", "likely": "likely"}
_UNKNOWN = "unexplained"


def measured_values(
    compared: Mapping[tuple[str, str], Mapping[CellName, Headline]],
) -> list[Value]:
    """What this run measures of the same rows, zero-shot, where it can be compared; each once."""
    values = {}
    for cells in compared.values():
        for cell, line in cells.items():
            if cell.k_shot == 0 and line.ours is not None:
                row, dataset = listed_by(cell.row, cell.dataset)
                value = Value(row, dataset, cell.metric, line.ours, MEASURED_HERE, "", "this run")
                values[row, dataset, cell.metric] = value
    return list(values.values())


def opening(found: Sequence[Conflict], values: Sequence[Value]) -> Html:
    """What is listed, how many of it, and whether anything measured here is among it."""
    lead = Html(
        '<p class="lead">One method, one dataset, one metric, and more than one number in print. Every '
        "value with "
        "whoever prints it, how far they are apart, and the reason where one is known.</p>"
    )
    cells = {(value.row, value.dataset, value.metric) for value in values}
    above, one, five, ten = counts(found, (SAME, 1, 5, 10))
    boxes = facts(
        {
            "rows by dataset and metric": f"{len(cells):,}",
            "with two sources or more": len(found),
            f"differ by more than {SAME}": above,
            "by 1 point or more": one,
            "by 5 or more": five,
            "by 10 or more": ten,
        }
    )
    here = sum(value.by == MEASURED_HERE for value in values)
    text = (
        f"{here} values measured in this run, with the published weights on the whole dataset, stand "
        "among them."
        if here
        else "No value measured in this run stands among them: only what was measured with the "
        "published weights on the whole dataset joins the list."
    )
    how = Html(
        "<p>Counted are zero-shot means over a dataset's categories, of every method in the tables of "
        "the papers "
        "whose numbers this project holds; not ablations, not averages over datasets. A quotation "
        "counts as "
        "well as a run: a reader of that paper sees its value.</p>"
    )
    return lead + boxes + how + callout(text)


def progress_section(found: Sequence[Conflict], steps: pd.DataFrame) -> Html:
    """How much of the printed progress is smaller than the spans; all computed from the printed values."""
    spans = pd.DataFrame([(c.metric, c.span) for c in found], columns=["metric", "span"])
    typical = spans.groupby("metric")["span"].median()
    steps = steps.assign(typical=steps["metric"].map(typical))
    body = []
    for name, block in [*steps.groupby("paper", sort=False), ("all", steps)]:
        body.append(_progress_row(str(name), block))
    names = (
        *("printed by", "steps", "median step", "no step up", "below the typical span"),
        *("other row printed elsewhere too", "below the span of that row"),
        "not above its best value in print",
    )
    head = [Cell(name, "col", "number" if place else "") for place, name in enumerate(names)]
    caption = (
        "A step is a paper's own row minus the best other row of its own tables, for one dataset and "
        "metric, in "
        "points. The typical span is the median of the spans of that metric, over all rows and datasets "
        "that two "
        "sources or more print, equal values included"
    )
    quantiles = np.quantile(spans["span"], (0.25, 0.5, 0.75, 0.9))
    low, middle, high, tenth = (percent(float(value)) for value in quantiles)
    small, own = _share(steps["step"] < steps["typical"]), steps.dropna(subset="span")
    beaten, gone = _share(own["step"] < own["span"]), _share(own["step_from_best"] <= 0)
    text = (
        f"Of {len(found)} numbers that two sources or more print, a quarter differ by at most {low} "
        "points, half by "
        f"at most {middle}; a quarter by {high} or more, a tenth by {tenth} or more. Of {len(steps)} "
        "steps by which "
        f"papers here set their own row above the best other one, {small} % are smaller than the "
        "typical span of their "
        f"metric; and of the {len(own)} whose other row is printed elsewhere too, {beaten} % are "
        "smaller than the span "
        f"of just that row on just that dataset; in {gone} % the paper's own row is not above the best "
        "value that is in "
        "print for the other one."
    )
    often = pd.Series([conflict.row for conflict in found]).value_counts().index[:2]
    text += (
        f" A span can only grow with the number of sources; most are of {' and '.join(often)}, the rows "
        "that are printed most often."
    )
    return Html("<p>{}</p>").format(text) + html_table(caption, [head], body)


def _progress_row(name: str, steps: pd.DataFrame) -> Row:
    own = steps.dropna(subset="span")
    cells = [
        len(steps),
        percent(float(steps["step"].median()), signed=True),
        int((steps["step"] <= 0).sum()),
        f"{_share(steps['step'] < steps['typical'])} %",
        len(own),
        f"{_share(own['step'] < own['span'])} %" if len(own) else DASH,
        f"{_share(own['step_from_best'] <= 0)} %" if len(own) else DASH,
    ]
    return Row(
        [Cell(name, "row"), *(Cell(cell, kind="number") for cell in cells)],
        "total" if name == "all" else "",
    )


def _share(true: pd.Series) -> int:
    return round(100 * float(true.mean()))


def spans_figure(found: Sequence[Conflict]) -> tuple[Figure, str]:
    """The values of the largest conflicts, a line each; and the alt text."""
    drawn = found[:_DRAWN]
    known, unknown = "a cause is known of it", "no cause is known of it"
    rows = [
        (_name(conflict), mean, known if all(value.causes for value in group) else unknown)
        for conflict in drawn
        for mean, values in groupby(conflict.values, key=lambda value: value.mean)
        for group in [list(values)]
    ]
    frame = pd.DataFrame(rows, columns=["row", "value", "of the value"])
    figure, axes = plt.subplots(figsize=(9.0, 0.29 * len(drawn) + 1.1))
    for place, conflict in enumerate(drawn):
        means = [value.mean for value in conflict.values]
        axes.plot([min(means), max(means)], [place, place], color="#c3c9d0", linewidth=2, zorder=1)
        label = percent(conflict.span)
        axes.annotate(
            label, (max(means), place), (7, 0), textcoords="offset points", va="center", fontsize=8
        )
    seaborn.stripplot(
        data=frame,
        x="value",
        y="row",
        hue="of the value",
        hue_order=[unknown, known],
        palette=[PALETTE[0], PALETTE[1]],
        order=[_name(conflict) for conflict in drawn],
        jitter=False,
        size=7,
        ax=axes,
        zorder=2,
    )
    axes.set(xlabel="printed values, per cent", ylabel="", xlim=(0, 105))
    axes.tick_params(axis="y", labelsize=8)
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    first = drawn[0]
    alt = (
        f"The {len(drawn)} largest spans. The first: {_name(first)} is in print with values from "
        f"{percent(first.values[0].mean)} to {percent(first.values[-1].mean)}."
    )
    return figure, alt


def steps_figure(found: Sequence[Conflict], steps: pd.DataFrame) -> tuple[Figure, str]:
    """Which share of spans, and of steps, is at most so many points; and the alt text."""
    spans = pd.Series([conflict.span for conflict in found])
    sizes = steps["step"]
    figure, axes = plt.subplots(figsize=(7.2, 3.4))
    labels = {
        "spans of one row in several papers": spans,
        "steps of a paper above the best other row": sizes,
    }
    for place, (label, values) in enumerate(labels.items()):
        seaborn.ecdfplot(
            x=values, ax=axes, color=PALETTE[place], label=label, linewidth=2, stat="percent"
        )
    axes.set(xlabel="points", ylabel="per cent of them are at most so large", xlim=(-2, 30))
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    at_five = [_share(values <= 5) for values in labels.values()]
    alt = f"At most 5 points: {at_five[0]} % of the spans, {at_five[1]} % of the steps."
    return figure, alt


def _name(conflict: Conflict) -> str:
    return f"{conflict.row} · {conflict.dataset} · {METRIC_LABELS[conflict.metric]}"


def conflict_table(found: Sequence[Conflict]) -> Html:
    """Every number with values more than `SAME` apart, the largest span first."""
    known, marks = causes(), {}
    sources: list[str] = []
    differing = found[: counts(found, (SAME,))[0]]
    for conflict in differing:
        for value in conflict.values:
            if (place := _place(value)) not in marks:
                sources.append(place)
                marks[place] = len(sources)
    body = [_conflict_row(conflict, known, marks) for conflict in differing]
    names = ("row", "dataset", "metric", "printed, per cent", "span", "known cause")
    head = [Cell(name, "col", "number" if name == "span" else "") for name in names]
    caption = (
        f"Values more than {SAME} points apart, the largest span first, in points. Behind a cause: "
        "whose values it is of, "
        "and how sure it is. A known cause need not be the whole reason; left is the span among values "
        "of which the "
        "same causes are known, or none"
    )
    return html_table(caption, [head], body) + source_list(sources, "source")


def _place(value: Value) -> str:
    """Where a value stands, for the list of sources."""
    return value.source if value.by == value.source else f"{value.by}: {value.source}"


def _conflict_row(conflict: Conflict, known: Mapping[str, Cause], marks: Mapping[str, int]) -> Row:
    line = Html('<span class="printed-value"><b>{}</b> {}</span>')
    printed = []
    for mean, group in groupby(conflict.values, key=lambda value: value.mean):
        papers = {(value.by, marks[_place(value)]) for value in group}
        by: dict[str, list[int]] = {}
        for paper, mark in sorted(papers):
            by.setdefault(paper, []).append(mark)
        links = [_with_marks(paper, places) for paper, places in by.items()]
        printed.append(line.format(percent(mean), Html(", ").join(links)))
    names = conflict.causes
    given = Html("").join(_cause_link(name, known[name], conflict) for name in names)
    if not conflict.explained:
        given += Html('<span class="cause none">{}</span>').format(
            f"{percent(conflict.left)} points left" if names else _UNKNOWN
        )
    cells = [
        Cell(conflict.row, "row"),
        Cell(conflict.dataset),
        Cell(METRIC_LABELS[conflict.metric], kind="short"),
        Cell(Html("").join(printed)),
        Cell(percent(conflict.span), kind="number"),
        Cell(given),
    ]
    return Row(cells, "" if conflict.explained else "left")


def _with_marks(paper: str, places: Sequence[int]) -> Html:
    mark = Html('<a href="#source-{}">{}</a>')
    links = Html(" ").join(mark.format(place, place) for place in places)
    return Html("{}<sup>{}</sup>").format(paper, links)


def _cause_link(name: str, cause: Cause, conflict: Conflict) -> Html:
    whose = dict.fromkeys(value.by for value in conflict.values if name in value.causes)
    link = Html('<span class="cause"><a href="#{}">{}</a> ({}; {})</span>')
    return link.format(_anchor(name), name, ", ".join(whose), _KINDS[cause.kind])


def _anchor(name: str) -> str:
    plain = "".join(sign if sign.isalnum() else "-" for sign in name.lower())
    return f"cause-{plain}"


def causes_table(found: Sequence[Conflict]) -> Html:
    """The known causes, those of most numbers first."""
    differing = found[: counts(found, (SAME,))[0]]
    touched = {name: sum(name in conflict.causes for conflict in differing) for name in causes()}
    body = []
    for name, cause in sorted(causes().items(), key=lambda item: -touched[item[0]]):
        below = Html('{}<span class="cell-paper">{}</span>')
        cells = [
            Cell(below.format(name, _KINDS[cause.kind]), "row"),
            Cell(touched[name], kind="number"),
            Cell(below.format(cause.says, cause.source)),
        ]
        body.append(Row(cells, anchor=_anchor(name)))
    left = sum(not conflict.explained for conflict in differing)
    caption = (
        "Stated: somebody responsible says it, or a file shows it. From the numbers: it follows from "
        "comparing printed "
        f"values. Likely: neither contradicts it. Of {len(differing)} numbers {left} have more than "
        f"{SAME} points left"
    )
    names = ("cause", "numbers", "what it is, and where that is known from")
    head = [Cell(name, "col", "number" if name == "numbers" else "") for name in names]
    return html_table(caption, [head], body)
