"""The parts of a method's page that are no figure: banner, first screen, tables by category."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import pandas as pd
from IPython.display import display

from clipad_core.metrics import METRIC_LABELS
from clipad_harness.data.cards import read_card
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.shards import MAIN
from clipad_harness.papers.card import read_paper
from clipad_harness.papers.numbers import dataset_titles
from clipad_harness.papers.verdicts import MEAN
from clipad_harness.report.ablations import (
    ablation_figure,
    ablation_table,
    group_of,
    is_measured,
)
from clipad_harness.report.claims import direction_table
from clipad_harness.report.figures import show
from clipad_harness.report.method import (
    comparable,
    comparison,
    incomplete,
    shown_dataset,
)
from clipad_harness.report.summary import headline, headline_cell
from clipad_harness.report.tables import (
    DASH,
    Cell,
    Html,
    Row,
    callout,
    facts,
    html_table,
    source_list,
    with_spread,
)


def banner(scorer: Scorer, frame: pd.DataFrame) -> Html:
    """The one sentence above everything: reproduced, not reproduced, or why that cannot be said."""
    means, reason = comparable(scorer)
    kind = scorer.backbone(scorer.variants[0].config).kind
    if kind == "random":
        return callout(
            "Random weights: the maps and scores on this page mean nothing. It shows that the "
            "pipeline runs.",
            "fail",
        )
    if not means:
        beside = dataset_titles(shown_dataset(scorer))[0]
        return callout(
            f"The paper's columns are not comparable: {reason}. Its numbers ({beside}) stand beside "
            "ours for orientation only; no difference is taken and no verdict is given.",
            "warning",
        )
    counts = frame["verdict"].value_counts()
    failed, passed = int(counts.get("fail", 0)), int(counts.get("pass", 0))
    if not passed + failed:
        return callout(
            "No verdict: none of the numbers on this page has one of the paper's and a tolerance declared in "
            "data/papers/tolerances.csv beside it.",
            "warning",
        )
    word = "Not reproduced" if failed else "Reproduced"
    text = (
        f"{word}: {passed} of {passed + failed} numbers are within the tolerance declared in "
        "data/papers/tolerances.csv."
    )
    return callout(text, "fail" if failed else "pass")


def first_screen(scorer: Scorer, results: pd.DataFrame) -> Html:
    """What was run, on what, with which weights, and how far from the paper."""
    frame, paper = comparison(scorer, results), read_paper(scorer.method)
    backbone = scorer.backbone(scorer.variants[0].config)
    test = scorer.tested.index[scorer.tested.index["split"] == "test"]
    rows = frame[(frame["category"] == MEAN) & frame["metric"].isin(paper.metrics)]
    categories = test["category"].nunique()
    bundled = backbone.kind in ("stand-in", "random")
    boxes = facts(
        {
            "dataset": read_card(scorer.profile.dataset).title,
            "categories": categories if categories > 1 else test["category"].iloc[0],
            "test images": f"{len(test)}, {int(test['label'].sum())} anomalous",
            "weights": f"{scorer.profile.weights[paper.name].backbone}, {backbone.kind}"
            if bundled
            else backbone.label,
            "seeds": results.loc[results["variant"] == MAIN, "seed"].nunique(),
            "AUPRO": f"{scorer.variants[0].aupro}, FPR up to {scorer.variants[0].fpr_limit:g}",
        }
    )
    caption = (
        "Mean over categories, per cent; ± is the mean of the categories' standard deviations over "
        "seeds, as in WinCLIP's tables, not the deviation of the mean, which is smaller"
    )
    missing = incomplete(scorer)
    note = callout(f"What is missing: {'; '.join(missing)}.", "warning") if missing else Html("")
    whole = Html(
        '<p>The papers\' tables with all their rows: <a href="tables.html">row by row</a>. Where papers '
        'print different values of one row: <a href="conflicts.html">contradictions in print</a>.</p>'
    )
    return banner(scorer, frame) + note + boxes + shots_table(rows, caption, "metric") + whole


def shots_table(frame: pd.DataFrame, caption: str, by: str = "category") -> Html:
    """A row a category (or metric), a column a number of shots; ours above the paper's number.

    The source of every printed number is listed below and marked in its cell.

    Args:
        frame: rows of `comparison`; one metric where ``by`` is the category.
        caption: what the table shows.
        by: ``category`` or ``metric``.
    """
    shots = sorted(frame["k_shot"].unique())
    sources = list(dict.fromkeys(text for text in frame["source"] if text))
    anchor = "note-" + hashlib.sha256(frame.to_csv().encode()).hexdigest()[:8]
    marks = {
        text: Html('<sup><a href="#{}-{}">{}</a></sup>').format(anchor, number, number)
        for number, text in enumerate(sources, 1)
    }
    body = []
    for name, block in frame.groupby(by, sort=False):
        cells = {row["k_shot"]: row for row in block.to_dict("records")}
        label = METRIC_LABELS.get(str(name), str(name).replace("_", " "))
        values = [_shots_cell(cells.get(k_shot), marks) for k_shot in shots]
        body.append(Row([Cell(label, "row"), *values], "total" if name == MEAN else ""))
    head = [Cell(by, "col"), *(Cell(f"{k_shot}-shot", "col") for k_shot in shots)]
    return html_table(caption, [head], body) + source_list(sources, anchor)


def _shots_cell(row: dict | None, marks: Mapping[str, Html]) -> Cell:
    if row is None:
        return Cell(DASH)
    line = headline(row)
    if line.paper is None:
        return Cell(with_spread(line.ours, line.ours_std))
    return headline_cell(line, marks.get(line.source, ""))


def category_tables(frame: pd.DataFrame, metrics: Sequence[str]) -> Html:
    """One `shots_table` a metric: the first open, the others behind a line to open."""
    parts: list[Html] = []
    folded = Html("<details><summary>{} by category</summary>{}</details>")
    for metric in metrics:
        rows = frame[frame["metric"] == metric]
        if rows.empty:
            continue
        label = METRIC_LABELS[metric]
        table_html = shots_table(rows, f"{label}, per cent")
        parts.append(folded.format(label, table_html) if parts else table_html)
    return Html("").join(parts) or callout("Undefined for this data: there are no masks.")


def ablation_panel(results: pd.DataFrame, name: str) -> None:
    """One ablation as a page shows it: table, figure, and whether the paper's claims hold here.

    A run may leave groups out, which its page says.
    """
    display(ablation_table(results, name))
    if not is_measured(results, name):
        return
    show(*ablation_figure(results, name))
    if group_of(results, name).claims:
        display(direction_table(results, name))
