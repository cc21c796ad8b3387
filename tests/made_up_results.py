"""Results that nobody measured, written as `clipad measure` would: what exports are tested on."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
from project import settings, write_settings

from clipad_core.metrics import METRICS
from clipad_harness.base.files import write_text
from clipad_harness.experiments.pipeline import results_csv, results_path
from clipad_harness.experiments.results import COLUMNS
from clipad_harness.report.summary import Headline, Summary, summary_path, summary_text

CATEGORIES = {"synthetic_target": ("hex_nut", "leather_hide"), "mvtec": ("bottle", "cable")}
LABELS = {
    "winclip": {"demo": "clipad-tiny (stand-in.safetensors)",
                "paper": "ViT-B-16-plus-240 (laion400m_e31)"},
    "anomalyclip": {"demo": "clipad-tiny (stand-in.safetensors)",
                    "paper": "ViT-L-14-336-quickgelu (openai)"},
}  # fmt: skip
TITLES = {"winclip": "WinCLIP", "anomalyclip": "AnomalyCLIP"}
SEEDS = {"winclip": {0: (0,), 1: (0, 1)}, "anomalyclip": {0: (111, 112)}}


def value(method: str, category: str, k_shot: int, seed: int, metric: str) -> float:
    """Between 0 and 1, another for every argument, with six digits as results have."""
    text = f"{method} {category} {metric}"
    start = sum(place * ord(letter) for place, letter in enumerate(text, 1)) % 700
    return round((start + 100 + 3.5 * k_shot + 1.25 * seed) / 1000, 6)


def results(method: str, profile: str, dataset: str) -> pd.DataFrame:
    """Main variant, and of WinCLIP one group of two rows on the first category."""
    variants = [("main", CATEGORIES[dataset], SEEDS[method])]
    if method == "winclip":
        variants += [(f"prompts/{row}", CATEGORIES[dataset][:1], {0: (0,)})
                     for row in ("one class", "two class")]  # fmt: skip
    rows = []
    for variant, categories, seeds in variants:
        for category in categories:
            for k_shot, drawn in seeds.items():
                for seed in drawn:
                    key = f"{hash_of(method, variant, category, k_shot, seed):016x}"
                    head = (TITLES[method], variant, LABELS[method][profile], "float64", "cpu")
                    place = (dataset, category, k_shot, seed)
                    for metric in METRICS:
                        number = value(method + variant, category, k_shot, seed, metric)
                        rows.append((*head, *place, metric, number, key))
    return pd.DataFrame(rows, columns=COLUMNS)


def hash_of(*parts: object) -> int:
    return sum(ord(letter) * 31**place for place, letter in enumerate(repr(parts))) % 2**64


def write_results(project: Path, method: str, profile: str = "demo", dataset: str = "synthetic_target",
                  table: pd.DataFrame | None = None) -> Path:  # fmt: skip
    """Write results of a method; those of `results` where no table is given."""
    table = results(method, profile, dataset) if table is None else table
    return write_text(results_path(project, method), results_csv(table))


def write_page(project: Path, method: str, comparable: bool = False) -> Path:
    """Write the metrics file of a method's page, as of the demo, with one number of references."""
    line = Headline(77.3, math.nan, 91.8, 0.0, None, "not comparable", "a paper")
    summary = Summary(
        title=TITLES[method], method=TITLES[method],
        method_with_references="WinCLIP+" if method == "winclip" else "",
        dataset="synthetic_target", backbone=LABELS[method]["demo"], weights_hash="ab" * 32,
        precision="float64", device="cpu", stand_in=True, comparable=comparable,
        reason="" if comparable else "this run uses stand-in weights, not the published ones",
        categories=2, images=28, seeds=2, headline={"0-shot": {"image_auroc": line}},
        verdicts={}, missing=[],
    )  # fmt: skip
    path = summary_path(project, method)
    return write_text(path, summary_text(summary, path))


def make_measured(project: Path) -> Path:
    """A project with results of two methods, the demo's weights a file that says it is a stand-in."""
    import numpy as np
    from safetensors.numpy import save_file

    params = settings()
    params["methods"] = ["winclip", "anomalyclip"]
    file = "data/weights/stand-in.safetensors"
    for name in params["methods"]:
        params["profiles"]["demo"][name]["weights"] = file
    (project / file).parent.mkdir(parents=True)
    write_settings(project, params)
    save_file({"a": np.zeros(1)}, project / file, metadata={"clipad": "stand-in"})
    for name in params["methods"]:
        write_results(project, name)
    return project
