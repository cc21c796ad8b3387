"""The pages of the methods that learn: what they print of the papers, and what they draw."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from clipad_harness.experiments.learned_pipeline import open_learned
from clipad_harness.report.steps.learned_examples import load_examples
from matplotlib import pyplot as plt

from clipad_core.errors import ClipadError
from clipad_harness.report import ablations, departures, training
from clipad_harness.report.steps import anomalyclip, vcpclip


def test_a_printed_number_stands_below_ours() -> None:
    head = {"method": "AnomalyCLIP", "backbone": "x", "dataset": "mvtec", "category": "a"}
    rows = [
        {**head, "variant": f"modules/{row}", "k_shot": 0, "seed": 0, "metric": m, "value": 0.5}
        for row in ("base", "T1")
        for m in ("pixel_auroc", "aupro", "image_auroc", "image_ap")
    ]
    page = ablations.ablation_table(pd.DataFrame(rows), "modules")
    assert "paper 46.8" in page and "paper 68.4" in page and "Table 4" in page


def test_curves_end_in_words() -> None:
    rows = [("main", seed, epoch, "total", 2.0 / epoch) for seed in (1, 2) for epoch in (1, 2)]
    curves = pd.DataFrame(rows, columns=["variant", "seed", "epoch", "part", "value"])
    figure, alt = training.curves_figure(curves)
    plt.close(figure)
    assert alt == "Loss by epoch, mean over the seeds: total from 2 to 1."
    with pytest.raises(ClipadError, match="found no curve of 'other'"):
        training.curves_figure(curves, "other")


def test_results_that_were_never_trained_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ClipadError, match="run `./repro clipad train vcpclip` first"):
        training.read_curves(tmp_path, "vcpclip")


@pytest.mark.parametrize("same", [True, False])
def test_training_on_what_is_tested_is_said_first(same: bool) -> None:
    one = SimpleNamespace(name="main", trained_on="a", tested_on="a" if same else "b")
    run = SimpleNamespace(variants=[one], method="vcpclip")
    page = departures.trained_on_tested(run)  # type: ignore[arg-type]
    assert ("no zero-shot results" in page) is same
    assert ("has seen no image of b" in page) is not same


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from project import make_project

    from clipad_harness.experiments import pipeline

    found = make_project(tmp_path_factory.mktemp("walks"))
    for name in ("synthetic_target", "synthetic_auxiliary"):
        pipeline.draw(found, name)
    return found


def damaged(run) -> pd.DataFrame:
    test = run.index[(run.index["split"] == "test") & (run.index["label"] == 1)]
    return test.groupby("category", sort=False).head(1)


def test_departures_tell_what_profile_and_ablations_shorten_before_what_is_fewer(
    project: Path,
) -> None:
    row = {
        "method": "AnomalyCLIP",
        "variant": "main",
        "category": "hex_nut",
        "k_shot": 0,
        "seed": 111,
    }
    results = pd.DataFrame([{**row, "metric": "aupro", "value": 0.5}])
    page = departures.departures(open_learned(project, "anomalyclip"), results)
    order = [
        "weights: clipad-tiny",
        "stands in their card",
        "settings, here for as published: image_size 96 for 518",
        "the published setting, not the code",
        "ablations are trained with epochs 1",
        "ablations are measured on 1 categories",
        "see each table",
    ]
    places = [page.index(text) for text in order]
    assert places == sorted(places)


def test_the_walk_of_anomalyclip_draws_what_it_says(project: Path) -> None:
    from clipad_core.methods.anomalyclip.detector import make_learner

    run = open_learned(project, "anomalyclip")
    scorer, config = run.scorer(), run.variants[0].config
    backbone = scorer.backbone(config)
    examples = load_examples(scorer, damaged(run))
    learner = make_learner(backbone, config, 1)
    words = anomalyclip.word_table(backbone, learner, learner)
    assert (words["normal, before"] == words["normal, after"]).all() and len(words) == 12
    figure, alt = anomalyclip.attention_figure(backbone, examples, backbone.vision.depth)
    plt.close(figure)
    assert all(kind in alt for kind in ("Q-K", "Q-Q", "K-K", "V-V"))
    rows = anomalyclip.attention_rows(backbone, examples[0], 2, patch=3)
    assert all(0 < float(row.sum()) <= 1 for row in rows.values())
    kinds = {"tower": "none", "V-V": "vv"}
    columns = anomalyclip.maps_of_blocks(backbone, config, learner, examples, kinds)
    assert {len(maps) for maps in columns.values()} == {len(examples)}
    assert not torch.allclose(columns["tower"][0], columns["V-V"][0])
    figure, alt = anomalyclip.prompt_figure(backbone, config, {"a": learner}, examples)
    plt.close(figure)
    assert "defect patches lean" in alt


def test_the_walk_of_vcpclip_draws_what_it_says(project: Path) -> None:
    from clipad_core.methods.vcpclip.detector import make_learner

    run = open_learned(project, "vcpclip")
    scorer, config = run.scorer(), run.variants[0].config
    backbone = scorer.backbone(config)
    rows = damaged(run)
    examples = load_examples(scorer, rows)
    learner = make_learner(backbone, config, 1)
    features = [one.features for one in examples]
    text = vcpclip.embed_prompts(learner, backbone, config, features)
    assert text.shape[:2] == (len(rows), 2)
    figure, alt = vcpclip.context_figure(text, rows)
    plt.close(figure)
    assert "of their variance" in alt
    figure, alt = vcpclip.attention_figure(backbone, config, learner, examples)
    plt.close(figure)
    assert "damaged" in alt
    columns = vcpclip.maps(backbone, config, learner, examples)
    assert list(columns) == ["raw map", "new map", "fused", "smoothed"]
    mixed = config.alpha * columns["raw map"][0] + (1 - config.alpha) * columns["new map"][0]
    assert torch.allclose(columns["fused"][0], mixed, atol=1e-6)
