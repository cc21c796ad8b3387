"""What the WinCLIP page says about open choices and departures."""

from __future__ import annotations

import pandas as pd

from clipad_core.methods.winclip.config import OPEN_CHOICES, PRESETS
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.shards import MAIN
from clipad_harness.papers.ablation_groups import IMAGES_ALONE
from clipad_harness.papers.method_facts import FACTS
from clipad_harness.report.ablations import FEWER
from clipad_harness.report.claims import worth
from clipad_harness.report.tables import Html, table

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


# The open choices that are about maps.
OF_MAPS = ("map_fusion", "scale_fusion", "map_size", "mask_rule")


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
    """What the published codes chose, those that agree together; of maps, those that give one."""
    chosen: dict[str, list[str]] = {}
    for name, preset in PRESETS.items():
        if name != "paper" and not (field in OF_MAPS and name in IMAGES_ALONE):
            chosen.setdefault(str(getattr(preset, field)), []).append(name)
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in chosen.items())


def departures(scorer: Scorer, results: pd.DataFrame) -> Html:
    """Where this run differs from the paper: what, why, and what it is worth where measured."""
    config = scorer.among[0].config
    backbone = scorer.backbone(config)
    seeds = results.loc[results["variant"] == MAIN, "seed"].nunique()
    rows = []
    if (
        backbone.kind != "published"
        or scorer.profile.weights[scorer.name].backbone != FACTS["WinCLIP"].backbone
    ):
        why = "the published weights cannot be bundled"
        rows.append((f"{backbone.kind} weights: {backbone.label}", why, "no number is comparable"))
    crops = worth(results, "prompts", "states and templates, five crops", "states and templates")
    if config.multi_crop == "none":
        why = "the paper does not describe its crops; five and ten crops are ablated"
        rows.append(("no multi-crop in the image score", why, crops))
    tokens = worth(results, "patch feature", "residual stream", "after ln_post")
    rows += [
        (
            f"patch memory: {config.patch_feature}",
            "the norm of the last map is not printed; anomalib's choice",
            tokens,
        ),
        (
            f"map fusion: {config.map_fusion}",
            "the operator is not printed; anomalib's choice",
            worth(results, "map fusion", "harmonic", "mean"),
        ),
        (
            f"temperature {config.temperature}",
            "no value is printed; anomalib's and zqhang's",
            worth(results, "temperature", "0.01", "0.07"),
        ),
        (
            f"AUPRO: {scorer.among[0].aupro}, FPR up to {scorer.among[0].fpr_limit:g}",
            "the paper names no implementation; every distinct threshold counts here",
            worth(results, "AUPRO", "cflow200", "exact"),
        ),
        (
            f"{seeds} reference seed{'s' if seeds > 1 else ''}, drawn by torch.randperm",
            "the paper's 5 seeds and images are not listed",
            "see the ± of the tables",
        ),
    ]
    limit = scorer.profile.ablation_categories
    if limit is not None:
        rows.append((f"ablations are measured on {limit} categories", FEWER, "see each table"))
    index = pd.Index([row[0] for row in rows], name="what")
    frame = pd.DataFrame([row[1:] for row in rows], columns=["why", "effect here"], index=index)
    return table(frame, "Departures from the paper and open choices that move numbers")
