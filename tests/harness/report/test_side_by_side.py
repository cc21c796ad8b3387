"""Methods side by side: the bootstrap against the metrics it stands for, and counted operations."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from foreseen import LABELS, Foreseen, category_scores
from matplotlib import pyplot as plt
from PIL import Image
from project import variants_of

from clipad_core.methods import find_method
from clipad_core.metrics.metrics import auroc
from clipad_harness.experiments.contenders import Contender, operations
from clipad_harness.report import comparison
from clipad_harness.report.side_by_side import (
    RESAMPLES,
    SideBySide,
    aurocs,
    differences,
    image_weights,
    measure_all,
    resampled,
)


@pytest.fixture
def measurement() -> tuple[list[Foreseen], SideBySide]:
    among = [Foreseen("weak", 0.0), Foreseen("strong <b>", 1.5, (1, 2, 3))]
    return among, measure_all(among, ["nut", "bolt"])


def test_without_resampling_the_aurocs_are_those_of_the_metrics(measurement) -> None:
    _, measured = measurement
    drawn, scores = measured.drawn["strong <b>", "nut"], category_scores(1.5, 1501)
    weights = np.ones((1, len(LABELS)))
    assert aurocs(drawn, 0, weights, "image")[0] == pytest.approx(
        auroc(LABELS, scores.image_scores)
    )
    pixels = np.concatenate([anomaly_map.ravel() for anomaly_map in scores.maps])
    truth = np.concatenate([mask.ravel() for mask in scores.masks]).astype(int)
    assert aurocs(drawn, 0, weights, "pixel")[0] == pytest.approx(auroc(truth, pixels), abs=1e-3)


def test_a_method_against_itself_is_never_different_with_one_seed(measurement) -> None:
    _, measured = measurement
    weak = measured.drawn["weak", "nut"]
    for level in ("image", "pixel"):
        samples = resampled(weak, weak, level, 0)
        assert len(samples) == RESAMPLES and np.abs(samples).max() < 1e-12


@pytest.mark.parametrize("level", ["image", "pixel"])
def test_a_clear_difference_leaves_zero_out_and_changes_sign_with_the_order(
    measurement, level
) -> None:
    _, measured = measurement
    forward = differences(measured, "strong <b>", "weak", level)
    backward = differences(measured, "weak", "strong <b>", level)
    assert list(forward.index) == ["nut", "bolt", "mean"]
    assert forward["clear"].all() and (forward["low"] > 0).all() and (backward["high"] < 0).all()
    assert forward["difference"].to_numpy() == pytest.approx(-backward["difference"].to_numpy())
    inside = (forward["low"] <= forward["difference"]) & (forward["difference"] <= forward["high"])
    assert inside.all()


@pytest.mark.parametrize(("damaged", "is_few"), [(5, False), (4, True), (1, True)])
def test_a_handful_of_images_decides_nothing(measurement, damaged: int, is_few: bool) -> None:
    _, measured = measurement
    few = {
        key: replace(drawn, labels=LABELS[: 10 + damaged], scores=drawn.scores[:, : 10 + damaged])
        for key, drawn in measured.drawn.items()
    }
    frame = differences(replace(measured, drawn=few), "strong <b>", "weak", "image")
    assert frame["low"].isna().tolist()[:2] == [is_few] * 2
    assert not (is_few and frame["clear"][["nut", "bolt"]].any())
    assert np.isnan(frame["low"].iloc[2]) == (2 * damaged < 5)


def test_two_runs_give_the_same_intervals(measurement) -> None:
    _, measured = measurement
    first, second = (differences(measured, "weak", "strong <b>", "image") for _ in range(2))
    assert first.equals(second)


def test_categories_of_equal_labels_are_drawn_apart_and_each_alike_for_all_pairs() -> None:
    first = image_weights(LABELS, 0)
    assert np.array_equal(first, image_weights(LABELS.copy(), 0))
    assert not np.array_equal(first, image_weights(LABELS, 1))
    assert not np.array_equal(first, image_weights(LABELS, 0, seed=1))
    for label in (0, 1):
        assert (first[:, label == LABELS].sum(axis=1) == (label == LABELS).sum()).all()
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 9


def test_without_masks_pixel_numbers_are_unknown() -> None:
    measured = measure_all([Foreseen("bare", 0.5, masks=False)], ["nut"])
    values = measured.metrics.set_index("metric")["value"]
    assert np.isnan(values["pixel_auroc"]) and values["image_auroc"] > 0
    frame = differences(measured, "bare", "bare", "pixel")
    assert frame[["difference", "low", "high"]].isna().all().all() and not frame["clear"].any()


def test_tables_mark_the_best_and_escape_names(measurement) -> None:
    among, measured = measurement
    page = comparison.headline(measured, among)
    row = page[page.index("strong &lt;b&gt;") :]
    assert "<strong>" in row and "<b>" not in page
    assert "2.00" in comparison.costs(measured, among)
    assert "nut" in comparison.by_category(measured, among, "image_auroc")


def test_figures_say_in_words_what_they_show(measurement) -> None:
    among, measured = measurement
    figure, alt = comparison.cost_figure(measured, among)
    plt.close(figure)
    assert "strong <b> 100.0 image AUROC at 2.00" in alt
    figure, alt, frame = comparison.difference_figure(measured, "strong <b>", "weak")
    plt.close(figure)
    assert alt.startswith("strong <b> minus weak: image AUROC on the mean +")
    words = comparison.verdict_sentence("A", "B", frame)
    assert "by image AUROC better in 2 (nut, bolt), worse in none, undecided in 0" in words


def test_pictures_stand_under_the_maps_of_the_methods_that_are_compared(
    measurement, tmp_path: Path
) -> None:
    among, measured = measurement
    for i in range(len(LABELS)):
        Image.fromarray(np.full((20, 30, 3), 90, dtype=np.uint8)).save(tmp_path / f"{i}.png")
    chosen = comparison.apart(measured, "strong <b>", "weak", 1)
    assert len(chosen) == 1 and chosen["gain"].iloc[0] > 0
    figure, alt = comparison.pictures(tmp_path, chosen, among[:1])
    assert len(figure.axes) == 2
    plt.close(figure)
    assert "weak" in alt and "strong" not in alt and "pixel AUROC" in alt


def test_more_methods_than_colours_have_markers_of_their_own(measurement, monkeypatch) -> None:
    among, measured = measurement
    monkeypatch.setattr(comparison, "PALETTE", comparison.PALETTE[:1])
    figure, _ = comparison.cost_figure(measured, among)
    markers = {str(dots.get_paths()[0].vertices.shape) for dots in figure.axes[0].collections}
    plt.close(figure)
    assert len(markers) == len(among) > 1


def test_a_row_of_an_ablation_is_compared_under_its_own_name_and_settings() -> None:
    variants = variants_of("anomalyclip")
    row = next(variant for variant in variants if variant.name == "attention/Q-Q")
    run = SimpleNamespace(method=find_method("anomalyclip"), variants=variants)
    contender = Contender(run, None, 0, row)  # type: ignore[arg-type]
    assert (contender.label, contender.variant.config.branch) == ("Q-Q", "qq")
    assert Contender(run, None, 0).label == "AnomalyCLIP, zero-shot"  # type: ignore[arg-type]


def test_operations_of_a_product_are_counted() -> None:
    def detector(images) -> torch.Tensor:
        return torch.ones(3, 4) @ torch.ones(4, 5)

    assert operations(detector, np.zeros((2, 2, 3), dtype=np.uint8)) == 2 * 3 * 4 * 5


@pytest.mark.parametrize(
    ("method", "k_shot", "label", "reads"),
    [
        ("winclip", 0, "WinCLIP, 0-shot", "its name"),
        ("winclip", 1, "WinCLIP+, 1-shot", "its name and 1 normal images"),
        ("anomalyclip", 0, "AnomalyCLIP, zero-shot", "nothing; trained on synthetic_auxiliary"),
        ("vcpclip", 0, "VCP-CLIP, zero-shot", "nothing; trained on synthetic_auxiliary"),
    ],
)
def test_a_contender_says_what_it_reads(method: str, k_shot: int, label: str, reads: str) -> None:
    run = SimpleNamespace(method=find_method(method), variants=variants_of(method))
    contender = Contender(run, None, k_shot)  # type: ignore[arg-type]
    assert (contender.label, contender.reads) == (label, reads)
    assert contender.seeds == (
        contender.variant.seeds
        if k_shot or contender.variant.trained_on
        else contender.variant.seeds[:1]
    )
