"""What others report of the same method on the same data: how far apart, and of which code."""

from __future__ import annotations

import math

import pandas as pd

from clipad_core.metrics import METRIC_LABELS
from clipad_harness.papers.ablation_groups import gives
from clipad_harness.papers.numbers import load_reported, reported
from clipad_harness.report.tables import Html, percent, source_list, table

REPORTED = ("image_auroc", "pixel_auroc", "aupro")
# A preset of WinCLIP -> the variant in data/paper/ that is reported of it; of anomalib nobody has.
REPORTED_AS = {
    "paper": "zero-shot",
    "zqhang": "re-implementation (zqhang), zero-shot",
    "caoyunkang": "re-implementation (caoyunkang), zero-shot",
    "malalab": "mala-lab re-implementation run by TUK, zero-shot",
}


def codes_table(results: pd.DataFrame) -> Html:
    """The published codes of WinCLIP: what is reported of each, and what its preset gives here."""
    mine = results[(results["variant"].str.startswith("preset/")) & (results["k_shot"] == 0)]
    wide = 100 * mine.pivot_table(index="variant", columns="metric", values="value", sort=False)
    body, sources, index = [], [], []
    for variant, here in wide.iterrows():
        code, row = str(variant).removeprefix("preset/"), []
        name = REPORTED_AS.get(code)
        for metric in REPORTED:
            found = name and reported("winclip", "mvtec", 0, metric, variant=name, reruns=True)
            ours = float(here[metric]) if gives(code, metric) else math.nan
            row += [percent(found.mean if found else math.nan), percent(ours)]
            sources += [f"{code}: {found.source}"] if found else []
        body.append(row)
        index.append(code)
    columns = [f"{METRIC_LABELS[m]}, {where}" for m in REPORTED for where in ("reported", "here")]
    frame = pd.DataFrame(body, columns=columns, index=pd.Index(index, name="code"))
    caption = (
        "Zero-shot, per cent: reported on MVTec AD with the published weights, and here with this run's "
        "data and weights, where only differences between rows compare; a dash where a code gives no map"
    )
    return Html(table(frame, caption) + source_list(sources))


def reported_range(method: str, dataset: str = "MVTec AD") -> Html:
    """How far apart the same method is reported on the same data, zero-shot means, per cent.

    The paper's own numbers and runs by others, of equal numbers the paper's first. Left out are
    ablations, quotations, which say nothing new, and what stands in no repository that can be opened.
    """
    rows = load_reported()
    rows = rows[(rows["method"] == method) & (rows["dataset"] == dataset)]
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
            notes += [f"{percent(one['mean'])}, {one['variant']}: {one['source']}" for one in ends]
            spread = percent(ends[1]["mean"] - ends[0]["mean"])
            body.append((len(part), *(percent(one["mean"]) for one in ends), spread))
            index.append(METRIC_LABELS[metric])
    columns = ["numbers", "lowest", "highest", "apart"]
    frame = pd.DataFrame(body, columns=columns, index=pd.Index(index, name="metric"))
    caption = f"{method} on {dataset}, zero-shot, as reported by paper and others, per cent"
    return Html(table(frame, caption) + source_list(notes))
