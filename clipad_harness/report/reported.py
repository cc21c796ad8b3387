"""What others report of the same method on the same data: how far apart, and of which code."""

from __future__ import annotations

import math

import pandas as pd

from clipad_core.metrics import METRIC_LABELS
from clipad_harness.papers.card import read_paper
from clipad_harness.papers.numbers import dataset_titles, load_reported, reported
from clipad_harness.report.ablations import PRESET, UNMEASURED, is_measured, paper_of, rows_of
from clipad_harness.report.tables import (
    Cell,
    Html,
    Row,
    callout,
    html_table,
    percent,
    source_list,
    table,
)

REPORTED = ("image_auroc", "pixel_auroc", "aupro")


def codes_table(results: pd.DataFrame) -> Html:
    """The published codes of a method: what is reported of each, and what its preset gives here."""
    if not is_measured(results, PRESET):
        return callout(f"{PRESET}: {UNMEASURED}.")
    paper, group = paper_of(results), f"{PRESET}/"
    presets = rows_of(results[results["k_shot"] == 0], PRESET)
    wide = 100 * presets.pivot_table(
        index="variant", columns="metric", values="value", sort=False, dropna=False
    )
    body, sources = [], []
    for variant, values in wide.iterrows():
        code = str(variant).removeprefix(group)
        row = [Cell(code, "row")]
        name = paper.code(code).reported
        for metric in REPORTED:
            number = None
            if name:
                number = reported(paper.name, paper.dataset, 0, metric, variant=name, reruns=True)
            measured = float(values[metric]) if paper.gives(code, metric) else math.nan
            row.append(Cell(percent(number.mean if number else math.nan), kind="number"))
            row.append(Cell(percent(measured), kind="number"))
            sources += [f"{code}: {number.source}"] if number else []
        body.append(Row(row))
    head = [
        [
            Cell("code", "col", rows=2),
            *(Cell(METRIC_LABELS[metric], "colgroup", columns=2) for metric in REPORTED),
        ],
        [Cell(where, "col", "number") for _ in REPORTED for where in ("reported", "here")],
    ]
    caption = (
        f"Zero-shot, per cent: reported on {dataset_titles(paper.dataset)[0]} with the published weights, "
        "and here with this run's data and weights; a dash "
        "where nothing is reported, or a code gives no map"
    )
    return html_table(caption, head, body) + source_list(sources)


def reported_range(method: str) -> Html:
    """How far apart the same method is reported on the same data, zero-shot means, per cent.

    The paper's own numbers and runs by others, of equal numbers the paper's first. Left out are
    ablations, quotations, which say nothing new, and what stands in no repository that can be opened.
    """
    paper, rows = read_paper(method), load_reported()
    dataset = dataset_titles(paper.dataset)[0]
    rows = rows[(rows["method"] == paper.title) & (rows["dataset"] == dataset)]
    rows = rows[(rows["category"] == "") & (rows["k_shot"] == "0")]
    rows = rows[rows["variant"].str.contains("zero-shot|retrained|re-implementation|released")]
    rows = rows[~rows["variant"].str.contains("backbone") & (rows["quality"] != "secondary")]
    rows = rows[~rows["source"].str.contains("not determined")].sort_values(
        "quality", kind="stable"
    )
    body, notes, index = [], [], []
    for metric in REPORTED:
        part = rows[rows["metric"] == metric]
        if len(part):
            values = part["mean"]
            ends = [part[values == end].iloc[0] for end in (values.min(), values.max())]
            notes += [f"{percent(row['mean'])}, {row['variant']}: {row['source']}" for row in ends]
            spread = percent(ends[1]["mean"] - ends[0]["mean"])
            body.append((len(part), *(percent(row["mean"]) for row in ends), spread))
            index.append(METRIC_LABELS[metric])
    columns = ["numbers", "lowest", "highest", "apart"]
    frame = pd.DataFrame(body, columns=columns, index=pd.Index(index, name="metric"))
    caption = f"{paper.title} on {dataset}, zero-shot, as reported by paper and others, per cent"
    return table(frame, caption) + source_list(notes)
