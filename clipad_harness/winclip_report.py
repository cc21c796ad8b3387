"""What the WinCLIP page says in numbers: ours beside the paper's, verdicts, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from clipad_core.errors import ClipadError
from clipad_harness.cards import read_card
from clipad_harness.comparison import MEAN, compare
from clipad_harness.datasets import index_hash
from clipad_harness.paper_numbers import load_reported, reported
from clipad_harness.provenance import about_page, origins
from clipad_harness.score import Scorer
from clipad_harness.shards import MAIN
from clipad_harness.summary import Headline, Summary
from clipad_harness.tables import Html

TITLE = "WinCLIP and WinCLIP+"
PAPER_BACKBONE = "ViT-B-16-plus-240"
# Whose printed means stand beside a dataset that the paper does not have, never compared.
PAPER_DATASET = "mvtec"
# The files that say how an image is scored.
CODE = ("clipad_core/winclip.py", "clipad_core/winclip_config.py", "clipad_harness/score.py")


def matching(scorer: Scorer, results: pd.DataFrame) -> pd.DataFrame:
    """The results table, after a check that this run's data and weights made it.

    Raises:
        ClipadError: another dataset, other categories or other weights.
    """
    ours = {
        "dataset": {scorer.profile.dataset},
        "categories": set(scorer.index["category"]),
        "weights": {scorer.backbone(scorer.among[0].config).label},
    }
    theirs = {
        "dataset": set(results["dataset"]),
        "categories": set(results["category"]),
        "weights": set(results["backbone"]),
    }
    for what, wanted in ours.items():
        if theirs[what] != wanted:
            raise ClipadError(
                f"reports/winclip/results.csv: its {what} are {', '.join(sorted(theirs[what]))}, "
                f"expected {', '.join(sorted(wanted))}; set profile and dataset in params.yaml and "
                "run `./repro clipad measure winclip`."
            )
    return results


def comparable(scorer: Scorer) -> tuple[bool, str]:
    """Whether the paper's columns mean something beside this run, and if not, why."""
    backbone = scorer.backbone(scorer.among[0].config)
    dataset = scorer.profile.dataset
    if backbone.kind in ("stand-in", "random"):
        return False, f"this run uses {backbone.kind} weights, not the published ones"
    if scorer.profile.winclip.backbone != PAPER_BACKBONE:
        return False, f"the paper's numbers were made with {PAPER_BACKBONE}"
    if reported("winclip", dataset, 0, "image_auroc") is None:
        return False, f"the paper prints no number for the dataset {dataset}"
    for category, complete in read_card(dataset).counts.categories.items():
        found = len(scorer.rows(category, "test"))
        if found not in (0, complete):
            return False, f"{category} has {found} of its {complete} test images"
    return True, ""


def comparison(scorer: Scorer, results: pd.DataFrame) -> pd.DataFrame:
    """Ours, paper, difference and verdict for every category, number of shots and metric."""
    main = results[results["variant"] == MAIN]
    return compare(main, load_reported(), comparable(scorer)[0], shown_dataset(scorer))


def shown_dataset(scorer: Scorer) -> str:
    """Whose printed numbers stand beside ours: its own where the paper has it."""
    own = scorer.profile.dataset
    return own if reported("winclip", own, 0, "image_auroc") else PAPER_DATASET


def summarise(scorer: Scorer, results: pd.DataFrame) -> Summary:
    """The page's metrics file: headline means, verdict counts, what is missing."""
    frame = comparison(scorer, matching(scorer, results))
    lines: dict[str, dict[str, Headline]] = {}
    for row in frame[frame["category"] == MEAN].to_dict("records"):
        shots = lines.setdefault(f"{row['k_shot']}-shot", {})
        shots[str(row["metric"])] = headline(row)
    means, reason = comparable(scorer)
    backbone = scorer.backbone(scorer.among[0].config)
    counts = frame["verdict"].value_counts()
    return Summary(
        title=TITLE,
        method="WinCLIP",
        dataset=scorer.profile.dataset,
        backbone=backbone.label,
        stand_in=backbone.kind == "stand-in",
        comparable=means,
        reason=reason,
        categories=int(scorer.index["category"].nunique()),
        images=int((scorer.index["split"] == "test").sum()),
        seeds=int(results["seed"].nunique()),
        headline=lines,
        verdicts={k: int(counts.get(k, 0)) for k in ("pass", "fail", "not comparable")},
        missing=_missing(scorer),
    )


def headline(row: dict) -> Headline:
    """One row of `comparison`, with None for unknown."""
    return Headline(
        ours=_number(row["ours_mean"]),
        ours_std=_number(row["ours_std"]),
        paper=_number(row["paper_mean"]),
        paper_std=_number(row["paper_std"]),
        difference=_number(row["difference"]),
        verdict=str(row["verdict"]),
        source=str(row["source"]),
    )


def _missing(scorer: Scorer) -> list[str]:
    found = ["Table 9's other backbones: only one backbone is run"]
    if not all(scorer.has_masks(category) for category in set(scorer.index["category"])):
        found.append("pixel metrics of categories without masks")
    return found


def _number(value: object) -> float | None:
    return None if pd.isna(value) else float(str(value))  # type: ignore[call-overload]


def provenance(scorer: Scorer, data: Path, parameters: Mapping[str, object]) -> dict[str, str]:
    """What made the page: hashes and versions, no time, no host."""
    return about_page(
        dataset=scorer.profile.dataset,
        images=len(scorer.index),
        data_hash=index_hash(scorer.index, data),
        backbone=scorer.backbone(scorer.among[0].config),
        parameters=parameters,
    )


def number_origins(scorer: Scorer, results: pd.DataFrame, facts: Mapping[str, str]) -> Html:
    """Where each headline number comes from: seeds, shards, data, licence, code, settings."""
    main = results[results["variant"] == MAIN]
    return origins(main, asdict(scorer.among[0].config), facts, CODE)
