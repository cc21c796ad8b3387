"""The parts of the WinCLIP page that are no figure: banner, first screen, tables, departures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd

from clipad_core.winclip_config import OPEN_CHOICES, PRESETS
from clipad_harness.cards import read_card
from clipad_harness.comparison import MEAN
from clipad_harness.paper_numbers import dataset_titles
from clipad_harness.report import headline_cell
from clipad_harness.score import Scorer
from clipad_harness.tables import (
    METRIC_LABELS,
    Html,
    callout,
    facts,
    percent,
    table,
    with_spread,
)
from clipad_harness.winclip_ablations import ablation
from clipad_harness.winclip_groups import find_group
from clipad_harness.winclip_report import (
    PAPER_BACKBONE,
    comparable,
    comparison,
    headline,
    shown_dataset,
)

FIRST_SCREEN_METRICS = ("image_auroc", "pixel_auroc", "aupro")

# What the paper says about each open choice (arXiv 2303.14814; supplement marked S).
PAPER_SAYS = {
    "weights": "ViT-B/16+ on LAION-400M; epoch not named",
    "class_name": "object names; exact strings not printed",
    "text_average": "average of text embeddings (4.1); norm not said",
    "temperature": "τ in Eq. (1); no value printed",
    "multi_crop": "+1.0 image AUROC (Table 3); crops not described",
    "patch_feature": "last map before pooling (S B); norm not said",
    "reference_aggregation": "not printed for association scores",
    "map_fusion": "language map and Mᵂ are fused; operator not printed",
    "scale_fusion": "harmonic averaging (4.2); weights not printed",
    "map_size": "resolution of the evaluation not printed",
    "mask_rule": "resizing of masks not printed",
    "reference_choice": "5 random seeds; images not listed",
}


def banner(scorer: Scorer, frame: pd.DataFrame) -> Html:
    """The one sentence above everything: reproduced, not reproduced, or why that cannot be said."""
    means, reason = comparable(scorer)
    kind = scorer.backbone(scorer.among[0].config).kind
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
    word = "Not reproduced" if failed else "Reproduced"
    text = (
        f"{word}: {passed} of {passed + failed} numbers are within the tolerance declared in "
        "data/paper/tolerances.csv."
    )
    return callout(text, "fail" if failed else "pass")


def first_screen(scorer: Scorer, results: pd.DataFrame) -> Html:
    """What was run, on what, with which weights, and how far from the paper."""
    frame = comparison(scorer, results)
    backbone = scorer.backbone(scorer.among[0].config)
    test = scorer.index[scorer.index["split"] == "test"]
    rows = frame[(frame["category"] == MEAN) & frame["metric"].isin(FIRST_SCREEN_METRICS)]
    categories = test["category"].nunique()
    bundled = backbone.kind in ("stand-in", "random")
    boxes = facts(
        {
            "dataset": read_card(scorer.profile.dataset).title,
            "categories": categories if categories > 1 else test["category"].iloc[0],
            "test images": f"{len(test)}, {int(test['label'].sum())} anomalous",
            "weights": f"{scorer.profile.winclip.backbone}, {backbone.kind}"
            if bundled
            else backbone.label,
            "reference seeds": results["seed"].nunique(),
        }
    )
    caption = (
        "Mean over categories, per cent; ± is the mean of the categories' standard deviations over "
        "reference seeds, as in the paper"
    )
    return Html(banner(scorer, frame) + boxes + shots_table(rows, caption, "metric"))


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
        text: f'<sup><a href="#{anchor}-{number}">{number}</a></sup>'
        for number, text in enumerate(sources, 1)
    }
    body = []
    for name, block in frame.groupby(by, sort=False):
        cells = {row["k_shot"]: row for row in block.to_dict("records")}
        label = METRIC_LABELS.get(str(name), str(name).replace("_", " "))
        line = "".join(_shots_cell(cells.get(k_shot), marks) for k_shot in shots)
        total = " class=total" if name == MEAN else ""
        body.append(f'<tr{total}><th scope="row">{escape(label)}</th>{line}</tr>')
    head = "".join(f'<th scope="col">{k_shot}-shot</th>' for k_shot in shots)
    notes = "".join(
        f'<li id="{anchor}-{number}">{escape(text)}</li>' for number, text in enumerate(sources, 1)
    )
    below = f'<ol class="sources" aria-label="Sources">{notes}</ol>' if sources else ""
    return Html(
        f'<table><caption>{escape(caption)}</caption><thead><tr><th scope="col">{by}</th>{head}'
        f"</tr></thead><tbody>{''.join(body)}</tbody></table>{below}"
    )


def _shots_cell(row: dict | None, marks: Mapping[str, str]) -> str:
    if row is None:
        return "<td>–</td>"
    line = headline(row)
    if line.paper is None:
        return f"<td>{with_spread(line.ours, line.ours_std)}</td>"
    return headline_cell(line, marks.get(line.source, ""))


def open_choices(scorer: Scorer) -> Html:
    """What the paper leaves open, what this run chose, and what four published codes chose."""
    config = scorer.among[0].config
    rows = []
    for name in OPEN_CHOICES:
        ours = str(getattr(config, name))
        if name == "weights":
            ours = scorer.backbone(config).label
        rows.append([PAPER_SAYS[name], ours, _published(name)])
    columns = ["the paper says", "this run", "published codes"]
    frame = pd.DataFrame(rows, columns=columns, index=pd.Index(OPEN_CHOICES, name="choice"))
    return table(frame, "Open choices: fields of WinCLIPConfig, where the sources are named")


def _published(field: str) -> str:
    """What the published codes chose, those that agree together."""
    chosen: dict[str, list[str]] = {}
    for name, preset in PRESETS.items():
        if name != "paper":
            chosen.setdefault(str(getattr(preset, field)), []).append(name)
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in chosen.items())


def departures(scorer: Scorer, results: pd.DataFrame) -> Html:
    """Where this run differs from the paper: what, why, and what it is worth where measured."""
    config = scorer.among[0].config
    backbone = scorer.backbone(config)
    seeds = results["seed"].nunique()
    rows = []
    if backbone.kind != "published" or scorer.profile.winclip.backbone != PAPER_BACKBONE:
        why = "the published weights cannot be bundled"
        rows.append((f"{backbone.kind} weights: {backbone.label}", why, "no number is comparable"))
    crops = _worth(results, "prompts", "states and templates, five crops", "states and templates")
    if config.multi_crop == "none":
        why = "the paper does not describe its crops; five and ten crops are ablated"
        rows.append(("no multi-crop in the image score", why, crops))
    tokens = _worth(results, "patch feature", "residual stream", "after ln_post")
    rows += [
        (
            f"patch memory: {config.patch_feature}",
            "the norm of the last map is not printed; anomalib's choice",
            tokens,
        ),
        (
            f"map fusion: {config.map_fusion}",
            "the operator is not printed; anomalib's choice",
            _worth(results, "map fusion", "harmonic", "mean"),
        ),
        (
            f"temperature {config.temperature}",
            "no value is printed; anomalib's and zqhang's",
            _worth(results, "temperature", "0.01", "0.07"),
        ),
        (
            f"AUPRO: {scorer.among[0].aupro}, FPR up to {scorer.among[0].fpr_limit:g}",
            "the paper names no implementation; every distinct threshold counts here",
            _worth(results, "AUPRO", "cflow200", "exact"),
        ),
        (
            f"{seeds} reference seed{'s' if seeds > 1 else ''}, drawn by torch.randperm",
            "the paper's 5 seeds and images are not listed",
            "see the ± of the tables",
        ),
    ]
    index = pd.Index([row[0] for row in rows], name="what")
    frame = pd.DataFrame([row[1:] for row in rows], columns=["why", "effect here"], index=index)
    return table(frame, "Departures from the paper and open choices that move numbers")


def _worth(results: pd.DataFrame, group: str, row: str, base: str) -> str:
    """What a row of an ablation is worth against another, at its most shots, in its first metric."""
    if not results["variant"].isin([f"{group}/{row}", f"{group}/{base}"]).any():
        return "not measured in this run"
    long = ablation(results, group)
    k_shot, metric = long["k_shot"].max(), find_group(group).metrics[0]
    part = long[(long["metric"] == metric) & (long["k_shot"] == k_shot)].set_index("row")["ours"]
    if row not in part or base not in part:
        return "not measured in this run"
    points = percent(part[row] - part[base], signed=True)
    return f"{row} against {base}: {points} points of {k_shot}-shot {METRIC_LABELS[metric]}"


def category_tables(frame: pd.DataFrame, metrics: Sequence[str]) -> Html:
    """One `shots_table` a metric: the first open, the others behind a line to open."""
    parts: list[str] = []
    for metric in metrics:
        rows = frame[frame["metric"] == metric]
        if rows.empty:
            continue
        label = METRIC_LABELS[metric]
        made = shots_table(rows, f"{label}, per cent")
        parts.append(
            made
            if not parts
            else f"<details><summary>{label} by category</summary>{made}</details>"
        )
    return Html("".join(parts) or callout("Undefined for this data: there are no masks."))
