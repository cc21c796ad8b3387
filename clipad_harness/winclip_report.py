"""What the WinCLIP page says in numbers: ours beside the paper's, ablations, provenance."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from clipad_core.winclip_config import OPEN_CHOICES
from clipad_harness.comparison import compare
from clipad_harness.datasets import index_hash
from clipad_harness.paper_numbers import load_reported, reported
from clipad_harness.score import Scorer
from clipad_harness.summary import Headline, Summary
from clipad_harness.variants import MAIN

TITLE = "WinCLIP and WinCLIP+"
PAPER_BACKBONE = "ViT-B-16-plus-240"
MEAN = "Mean"

# Which printed row stands beside which of ours: group -> (table, data set, row -> printed variant).
PRINTED: dict[str, tuple[str, str, dict[str, str]]] = {
    "prompts": (
        "Table 3",
        "mvtec",
        {
            "one class": "AC ablation: one-class (normal prompt only)",
            "two class": "AC ablation: two-class prompts",
            "states": "AC ablation: + state ensemble",
            "states and templates": "AC ablation: + prompt (template) ensemble",
            "states and templates, five crops": "AC ablation: + multi-crop (= full WinCLIP)",
            "states and templates, ten crops": "AC ablation: + multi-crop (= full WinCLIP)",
        },
    ),
    "image score": (
        "Table 5",
        "mvtec",
        {
            "max M^W only": "AC ablation: max M^W only (vision)",
            "text score only": "AC ablation: ascore0 only (language)",
            "both": "AC ablation: max M^W + ascore0 (full)",
        },
    ),
    "memories": (
        "Table 6",
        "mvtec",
        {
            "M^P": "AS ablation: M^P only",
            "M^P and mid windows": "AS ablation: M^P + M^W_m",
            "full, with the language map": "AS ablation: M^P + M^W_m + M^W_s (full)",
        },
    ),
    "task states": (
        "Table 7",
        "visa",
        {
            "general states": "generic states",
            "states of the category's defects": "+ task-specific states",
        },
    ),
    "language map": (
        "Table 8",
        "mvtec",
        {
            "patch tokens": "AS ablation: patch tokens",
            "image tiling": "AS ablation: image tiling",
            "windows, full": "AS ablation: full WinCLIP",
            "no image scale": "AS ablation: w/o image scale",
            "no mid scale": "AS ablation: w/o mid scale",
            "no small scale": "AS ablation: w/o small scale",
            "no harmonic": "AS ablation: w/o harmonic averaging",
        },
    ),
}


def ablation(results: pd.DataFrame, group: str, metrics: Sequence[str]) -> pd.DataFrame:
    """One ablation as a table: a row a variant and number of shots, per cent, mean over categories.

    Columns: ``row``, ``k_shot``, then per metric ``<metric>`` (ours), ``<metric> std`` (over the
    seeds' means) and ``<metric> paper`` (NaN where the paper prints none).
    """
    mine = results[results["variant"].str.startswith(f"{group}/")]
    _, dataset, printed = PRINTED.get(group, ("", "", {}))
    rows = []
    for (variant, k_shot), cell in mine.groupby(["variant", "k_shot"], sort=False):
        name = str(variant).removeprefix(f"{group}/")
        row: dict[str, object] = {"row": name, "k_shot": k_shot}
        for metric in metrics:
            by_seed = cell[cell["metric"] == metric].groupby("seed")["value"].mean() * 100
            row[metric] = by_seed.mean()
            row[f"{metric} std"] = by_seed.std() if len(by_seed) > 1 else float("nan")
            found = None
            if name in printed:
                found = reported(
                    "winclip", dataset, int(str(k_shot)), metric, variant=printed[name]
                )
            row[f"{metric} paper"] = found.mean if found else float("nan")
        rows.append(row)
    return pd.DataFrame(rows)


def backbones(results: pd.DataFrame) -> pd.DataFrame:
    """Table 9 of the supplement: other backbones, with ours where this run used one of them."""
    table = load_reported()
    printed = table[(table["method"] == "WinCLIP") & (table["table"] == "supplement Table 9")]
    wide = printed.pivot_table(index="backbone", columns="metric", values="mean", sort=False)
    main = results[(results["variant"] == MAIN) & (results["k_shot"] == 0)]
    label = str(main["backbone"].iloc[0])
    ours = main.groupby("metric")["value"].mean() * 100
    wide = wide.rename(columns={metric: f"{metric} paper" for metric in wide})
    for metric in ("image_auroc", "pixel_auroc"):
        here = [name.split(" ")[0] == label.split(" ", maxsplit=1)[0] for name in wide.index]
        wide[metric] = [ours[metric] if same else float("nan") for same in here]
    return wide.reset_index()


def comparable(scorer: Scorer) -> tuple[bool, str]:
    """Whether the paper's columns mean something beside this run, and if not, why."""
    backbone = scorer.backbone(scorer.among[0].config)
    if backbone.kind in ("stand-in", "random"):
        return False, f"{backbone.kind} weights were used, not the published ones"
    if scorer.profile.backbone != PAPER_BACKBONE:
        return False, f"the paper's numbers were made with {PAPER_BACKBONE}"
    if reported("winclip", scorer.profile.dataset, 0, "image_auroc") is None:
        return False, f"the paper prints no number for the dataset {scorer.profile.dataset}"
    return True, ""


def comparison(scorer: Scorer, results: pd.DataFrame) -> pd.DataFrame:
    """Ours, paper, difference and verdict for every category, number of shots and metric."""
    main = results[results["variant"] == MAIN]
    return compare(main, load_reported(), comparable(scorer)[0])


def open_choices(scorer: Scorer) -> dict[str, str]:
    """What the paper leaves open and this run chose, field by field."""
    config = scorer.among[0].config
    return {name: str(getattr(config, name)) for name in OPEN_CHOICES}


def summarise(scorer: Scorer, results: pd.DataFrame) -> Summary:
    """The page's metrics file: headline means, verdict counts, what is missing."""
    frame = comparison(scorer, results)
    headline: dict[str, dict[str, Headline]] = {}
    for row in frame[frame["category"] == MEAN].to_dict("records"):
        shots = headline.setdefault(f"{row['k_shot']}-shot", {})
        shots[str(row["metric"])] = Headline(
            ours=_number(row["ours_mean"]),
            ours_std=_number(row["ours_std"]),
            paper=_number(row["paper_mean"]),
            paper_std=_number(row["paper_std"]),
            difference=_number(row["difference"]),
            verdict=str(row["verdict"]),
            source=str(row["source"]),
        )
    means, reason = comparable(scorer)
    config = scorer.among[0].config
    backbone = scorer.backbone(config)
    images = int((scorer.index["split"] == "test").sum())
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
        images=images,
        seeds=int(results["seed"].nunique()),
        headline=headline,
        verdicts={k: int(counts.get(k, 0)) for k in ("pass", "fail", "not comparable")},
        missing=_missing(scorer),
    )


def _missing(scorer: Scorer) -> list[str]:
    found = ["Table 9's other backbones: only one backbone is run"]
    if not all(scorer.has_masks(category) for category in set(scorer.index["category"])):
        found.append("pixel metrics of categories without masks")
    return found


def _number(value: object) -> float | None:
    return None if pd.isna(value) else float(str(value))  # type: ignore[call-overload]


def provenance(scorer: Scorer, data: Path) -> dict[str, str]:
    """What made the page: hashes and versions, no time, no host."""
    config = scorer.among[0].config
    backbone = scorer.backbone(config)
    packages = ("torch", "open_clip_torch", "numpy", "scipy", "pillow")
    return {
        "dataset": f"{scorer.profile.dataset}, {len(scorer.index)} images",
        "data hash": index_hash(scorer.index, data),
        "weights": backbone.label,
        "weights hash": backbone.digest,
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in packages),
        "CPU features": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }
