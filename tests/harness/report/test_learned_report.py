"""The pages of the methods that learn: what they print of the papers, and what they draw."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from bs4 import BeautifulSoup
from matplotlib import pyplot as plt
from project import draw_all, make_project
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_core.methods.coop.config import CoOpConfig
from clipad_harness.experiments.pipeline import Run, open_run
from clipad_harness.papers.card import read_paper
from clipad_harness.report import ablations, departures, training
from clipad_harness.report.steps import anomalyclip, tokens, vcpclip
from clipad_harness.report.steps.examples import as_batch, load_examples, pick_lessons


def test_a_printed_number_stands_below_ours() -> None:
    head = {"method": "AnomalyCLIP", "backbone": "x", "dataset": "mvtec", "category": "a"}
    rows = [
        {**head, "variant": f"modules/{row}", "k_shot": 0, "seed": 0, "metric": m, "value": 0.5}
        for row in ("base", "T1")
        for m in ("pixel_auroc", "aupro", "image_auroc", "image_ap")
    ]
    page = ablations.ablation_table(pd.DataFrame(rows), "modules")
    assert "paper 46.8" in page and "paper 68.4" in page and "Table 4" in page
    assert read_paper("VCP-CLIP").ablation("components").table == "Table 2"


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ((2.0, 1.0), "falls from 2 to 1"),
        ((1.0, 1.5), "rises from 1 to 1.5"),
        ((1, 1), "stays at 1"),
    ],
)
def test_curves_say_in_words_whether_a_part_of_the_loss_falls(
    ends: tuple[float, float], words: str
) -> None:
    rows = [("main", seed, 1 + epoch, "total", ends[epoch]) for seed in (1, 2) for epoch in (0, 1)]
    curves = pd.DataFrame(rows, columns=["variant", "seed", "epoch", "part", "value"])
    figure, alt = training.curves_figure(curves)
    plt.close(figure)
    assert alt == f"Loss by epoch, mean over the seeds: total {words}."
    with pytest.raises(ClipadError, match="found no curve of 'other'"):
        training.curves_figure(curves, "other")


@pytest.mark.parametrize(("is_dropped", "steps"), [(True, 4), (False, 6)])
def test_steps_are_those_that_the_method_takes_of_what_fills_no_batch(
    micro: Backbone, is_dropped: bool, steps: int
) -> None:
    config = CoOpConfig(batch_size=32, drop_last=is_dropped, epochs=2)
    job = SimpleNamespace(config=config)
    main = SimpleNamespace(seeds=(1,), training=lambda seed: job, trained_on="mvtec")
    trainer = SimpleNamespace(
        learner=lambda job: torch.nn.Linear(2, 3),
        rows=lambda job: range(70),
        epochs=lambda job: 2,
        encodings=SimpleNamespace(backbone=lambda config: micro),
    )
    method = find_method("coop")
    run = SimpleNamespace(name="coop", variants=[main], trainer=lambda: trainer, method=method)
    page = BeautifulSoup(training.training_facts(run), "html.parser")  # type: ignore[arg-type]
    values = [box.get_text() for box in page.find_all("dd")]
    assert values == ["mvtec", "70", "2", str(steps), "9 numbers"]


@pytest.mark.parametrize("is_tested", [True, False])
def test_training_on_what_is_tested_is_said_first(is_tested: bool) -> None:
    main = SimpleNamespace(name="main", trained_on="a", tested_on="a" if is_tested else "b")
    run = SimpleNamespace(variants=[main], name="vcpclip")
    page = departures.trained_on_tested(run)  # type: ignore[arg-type]
    assert ("no zero-shot results" in page) is is_tested
    assert ("has seen no image of b" in page) is not is_tested


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("walks"))
    draw_all(root)
    return root


def damaged(run: Run) -> pd.DataFrame:
    test = run.index[(run.index["split"] == "test") & (run.index["label"] == 1)]
    return test.groupby("category", sort=False).head(1)


def weights_of(*shape: int) -> Tensor:
    """Attention of some patches, no two alike: positive, its last axis sums to one."""
    random = torch.Generator().manual_seed(0)
    drawn = torch.randn(*shape, generator=random, dtype=torch.float64)
    return (3 * drawn).softmax(dim=-1)


def numbers_in(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[+-]?\d+\.?\d*", text)]


def test_departures_tell_what_profile_and_ablations_shorten_before_what_is_fewer(
    project: Path,
) -> None:
    row = {"method": "AnomalyCLIP", "k_shot": 0, "seed": 111, "metric": "aupro", "value": 0.5}
    measured = [("main", "hex_nut"), ("main", "light_bulb"), ("object/object-aware", "hex_nut")]
    results = pd.DataFrame([{**row, "variant": v, "category": name} for v, name in measured])
    page = departures.departures(open_run(project, "anomalyclip"), results)
    order = [
        "weights: clipad-tiny",
        "stands in their card",
        "settings, here for as published: image_size 96 for 518",
        "the published setting, not the code",
        "ablations are trained with epochs 1",
        "ablations are measured on 1 of 2 categories (hex nut)",
        "see each table",
    ]
    places = [page.index(text) for text in order]
    assert places == sorted(places)


def test_a_run_without_ablations_does_not_tell_how_they_were_trained(project: Path) -> None:
    row = {"method": "AnomalyCLIP", "k_shot": 0, "seed": 111, "metric": "aupro", "value": 0.5}
    results = pd.DataFrame([{**row, "variant": "main", "category": "hex_nut"}])
    run = open_run(project, "anomalyclip")
    assert "ablations are" not in departures.departures(run, results)
    alone = replace(run, variants=run.variants[:1])
    assert "They are trained with" not in departures.rows_as_run(alone)


@pytest.mark.parametrize(
    ("method", "preset", "other", "text"),
    [
        (
            "anomalyclip",
            "published",
            "code_default",
            "the published setting, not the code's default",
        ),
        ("anomalyclip", "published", "paper", "rounded to half precision"),
        ("vcpclip", "code", "paper", "raw map weighs 0.2"),
        ("vcpclip", "code", "paper", "map smoothed"),
        ("vcpclip", "code", "paper", "means of the largest pixels"),
        ("vcpclip", "code", "paper", "with biases, on unit tokens"),
        ("vcpclip", "code", "paper", "training augmentation"),
    ],
)
def test_a_departure_is_told_at_the_presets_that_depart_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch, method: str, preset: str, other: str, text: str
) -> None:
    row = {"method": method, "variant": "main", "category": "hex_nut", "k_shot": 0, "seed": 1}
    results = pd.DataFrame([{**row, "metric": "aupro", "value": 0.5}])
    run = open_run(project, method)
    backbone = SimpleNamespace(kind="stand-in", label="tiny")
    scorer = SimpleNamespace(method=method, backbone=lambda config: backbone)
    monkeypatch.setattr(Run, "scorer", lambda self: scorer)
    pages = []
    for name in (preset, other):
        main = replace(run.variants[0], config=find_method(method).preset(name))
        own = replace(run, settings=replace(run.settings, preset=name), variants=[main])
        pages.append(departures.departures(own, results))
    told = [BeautifulSoup(page, "html.parser").get_text() for page in pages]
    assert text in told[0] and text not in told[1]


def test_lessons_are_few_and_of_both_labels_and_a_normal_one_has_an_empty_mask(
    project: Path,
) -> None:
    run = open_run(project, "anomalyclip")
    auxiliary = run.datasets[run.variants[0].trained_on]
    rows = pick_lessons(auxiliary.index)
    assert (rows["split"] == "test").all() and sorted(rows["label"]) == [0, 0, 1, 1]
    lessons = load_examples(run.scorer(), rows, data=auxiliary.data)
    pixels, features, masks = as_batch(lessons)
    assert len(pixels) == len(features) == len(masks) == len(rows)
    assert masks.shape[1:] == pixels.shape[2:]
    assert (masks.flatten(1).sum(dim=1) > 0).tolist() == (rows["label"] == 1).tolist()
    figure, alt = anomalyclip.lesson_figure(lessons, masks)
    plt.close(figure)
    assert alt.count("0.00 to 1.00") == 2 and alt.count("0.00 to 0.00") == 2


def test_boxes_of_a_prompt_frame_what_is_learned() -> None:
    ids = torch.tensor([[49406, 14115, 49407, 0], [49406, 13568, 14115, 49407]])
    places = torch.arange(1, 3).expand(2, -1)
    sequence = torch.ones(2, 6, 4)
    sequence[:, 1:3] *= 3
    sequence[1, 3] = 0  # a word without a vector
    figure, alt = tokens.prompt_figure(sequence, ids, places, "VW", ["normal", "anomalous"])
    names = [text.get_text() for text in figure.axes[0].texts]
    plt.close(figure)
    assert names[:5] == ["start", "V1", "V2", "object", "end"]
    assert names[5:] == ["start", "W1", "W2", "damaged", "object", "end"]
    assert "learned vectors 6 to 6 long; other vectors 0 to 2 long" in alt


@pytest.mark.parametrize("inserted", [0, 1])
def test_boxes_of_blocks_tell_new_vectors_from_those_below(inserted: int) -> None:
    names = ["start", "V1", "V2", "object", "end"]
    inputs = [torch.ones(5 + inserted, 4), torch.ones(5 + inserted, 4)]
    fresh = [inserted, 1]
    figure, _ = tokens.block_figure(inputs, names, [1, 2], fresh)
    boxes, frames = figure.axes[0].texts, figure.axes[0].patches
    plt.close(figure)
    first = ["start", *["q1"] * inserted, "V1", "V2", "object", "end"]
    assert [text.get_text() for text in boxes[: len(first)]] == first
    second = (
        ["start", "q1", "V1", "V2", "object", "end"] if inserted else ["start", "q1", *names[2:]]
    )
    assert [text.get_text() for text in boxes[len(first) :]] == second
    assert len(frames) == 2 + inserted + 1


def test_the_drawings_of_anomalyclip_say_what_they_show(project: Path) -> None:
    run = open_run(project, "anomalyclip")
    scorer = run.scorer()
    backbone = scorer.backbone(run.variants[0].config)
    examples = load_examples(scorer, damaged(run))
    p = backbone.vision.grid[0] * backbone.vision.grid[1]
    kinds = {"Q-K": torch.full((p, p), 1 / p), "V-V": torch.eye(p)}
    figure, alt = anomalyclip.matrix_figure(kinds)
    plt.close(figure)
    assert f"Q-K {100 / p:.1f} %, V-V 100.0 %" in alt
    stacked = {name: matrix.expand(len(examples), -1, -1) for name, matrix in kinds.items()}
    stacked["Q-Q"] = weights_of(len(examples), p, p)
    patches = [3, 7]
    figure, alt = anomalyclip.attention_figure(backbone, examples, patches, stacked)
    plt.close(figure)
    own = [float(stacked["Q-Q"][row, patch, patch]) for row, patch in enumerate(patches)]
    assert f"Q-K {100 / p:.0f} %, V-V 100 %, Q-Q " in alt
    assert numbers_in(alt)[-1] == pytest.approx(100 * sum(own) / 2, abs=0.5)
    figure, alt = anomalyclip.step_figure({"CE": 0.5}, {"a": 1.0, "b": 2.0})
    plt.close(figure)
    assert "CE 0.500" in alt and "b 2.000" in alt
    token_ids = torch.tensor([13568, 14115])
    nearest = {"before": (torch.ones(1, 3), torch.tensor([[0, 1, 1]]))}
    words = anomalyclip.word_table(nearest, token_ids, ["both"])
    assert list(words["both, before"]) == ["damaged (1.00)", "object (1.00)", "object (1.00)"]
    page = anomalyclip.nearest_words(nearest, token_ids, ["both"])
    assert "“object” is the nearest word of 2 of 3 vectors" in page and "object (1.00)" in page
    even = {"before": (torch.ones(1, 2), torch.tensor([[0, 1]]))}
    assert "nearest word of" not in anomalyclip.nearest_words(even, token_ids, ["both"])
    lean, inside = torch.tensor([[-1.0, 0.0, 1.0]]), torch.tensor([[False, False, True]])
    figure, alt = anomalyclip.lean_figure({"a": lean}, inside)
    plt.close(figure)
    assert "a, defect patches lean +1.500 further to damaged" in alt
    figure, alt = anomalyclip.lean_figure({"a": lean}, torch.zeros_like(inside))
    plt.close(figure)
    assert "no patch is defect" in alt


def test_the_texts_of_images_are_told_apart_by_their_categories() -> None:
    """Anomalous embeddings: two equal ones of `a`, one of `b` at a right angle to them."""
    normal, first, second = torch.eye(3)
    text = torch.stack([torch.stack([normal, row]) for row in (first, first, second)])
    figure, alt = vcpclip.context_figure(text, pd.DataFrame({"category": ["a", "a", "b"]}))
    plt.close(figure)
    assert alt == (
        "Text embeddings of 3 images, 100 % of their variance shown. Cosine distance between images "
        "of one category 0.0000, of different ones 1.0000."
    )


def test_the_drawings_of_vcpclip_say_what_they_show(project: Path) -> None:
    run = open_run(project, "vcpclip")
    scorer, config = run.scorer(), run.variants[0].config
    backbone = scorer.backbone(config)
    rows = damaged(run)
    examples = load_examples(scorer, rows)
    figure, alt = vcpclip.strips_figure({"x": torch.tensor([3.0, 4.0]), "z": torch.zeros(2)})
    plt.close(figure)
    assert "x 5.00; z 0.00" in alt
    text = torch.nn.functional.normalize(torch.arange(1.0, 1 + 2 * 2 * 4).reshape(2, 2, 4), dim=-1)
    figure, alt = vcpclip.context_figure(text, rows)
    plt.close(figure)
    assert "of their variance" in alt
    p = backbone.vision.grid[0] * backbone.vision.grid[1]
    attention = torch.full((len(examples), config.heads, 2, p), 1 / p)
    attention[:, :, 1, 0] = 2 / p
    figure, alt = vcpclip.attention_figure(backbone, examples, attention)
    plt.close(figure)
    assert "2.0, 2.0" in alt
    figure, alt = vcpclip.heads_figure(backbone, examples[0], attention[0])
    plt.close(figure)
    assert f"{config.heads}: 1.00" in alt
    attention = weights_of(len(examples), config.heads, 2, p)
    figure, alt = vcpclip.attention_figure(backbone, examples, attention)
    plt.close(figure)
    peaks = [p * float(weights[:, 1].mean(dim=0).max()) for weights in attention]
    assert numbers_in(alt) == pytest.approx(peaks, abs=0.05)
    figure, alt = vcpclip.heads_figure(backbone, examples[0], attention[0])
    plt.close(figure)
    apart = [p * float((head[1] - head[0]).abs().max()) for head in attention[0]]
    assert numbers_in(alt)[-2 * len(apart) + 1 :: 2] == pytest.approx(apart, abs=5e-3)
