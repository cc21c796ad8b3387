"""Metrics against recorded values, scikit-learn, a naive loop and a case worked by hand."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import recordings
from metric_cases import (
    EXACT,
    FLOAT32,
    HAND_MAP,
    HAND_MASK,
    PUBLISHED,
    naive_area,
    random_labels_and_scores,
    random_maps_and_masks,
)
from recordings import close
from scipy.ndimage import gaussian_filter
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from clipad_core.metrics import METRIC_LABELS, METRICS
from clipad_core.metrics.metrics import (
    aupr_trapezoid,
    auroc,
    average_precision,
    f1_max,
    f1_max_threshold,
    image_metrics,
    pixel_iou,
    pixel_metrics,
)

GOLDENS = recordings.GOLDENS / "metrics"
PEERS = json.loads((GOLDENS / "peers.json").read_text())


@PUBLISHED
@pytest.mark.parametrize("case", PEERS)
def test_pixel_metrics_equal_the_recorded_values_of_every_peer(case: str) -> None:
    with np.load(GOLDENS / f"peers_{case}.npz") as file:
        maps, masks = file["maps"], file["masks"]
    recorded = PEERS[case]
    measured = pixel_metrics(maps, masks)
    for metric, sklearn, anomalib in [
        ("pixel_auroc", "sklearn_auroc", "anomalib_auroc"),
        ("pixel_ap", "sklearn_ap", "anomalib_aupr"),
        ("pixel_f1max", "sklearn_f1max", "anomalib_f1max"),
    ]:
        close(measured[metric], recorded[f"pixel.{sklearn}"], EXACT["abs"], per="1")
        close(measured[metric], recorded[f"pixel.{anomalib}"], FLOAT32["abs"], per="1")
    trapezoid = aupr_trapezoid(masks.ravel(), maps.ravel())
    close(trapezoid, recorded["pixel.sklearn_aupr_trapezoid"], EXACT["abs"], per="1")


@PUBLISHED
@pytest.mark.parametrize("case", PEERS)
def test_image_metrics_equal_the_recorded_values_of_every_peer(case: str) -> None:
    recorded = PEERS[case]
    labels = np.array(recorded["image_labels"])
    scores = np.array(recorded["image_scores"])
    measured = image_metrics(labels, scores)
    for metric, sklearn, anomalib in [
        ("image_auroc", "sklearn_auroc", "anomalib_auroc"),
        ("image_ap", "sklearn_ap", "anomalib_aupr"),
        ("image_f1max", "sklearn_f1max", "anomalib_f1max"),
    ]:
        close(measured[metric], recorded[f"image.{sklearn}"], EXACT["abs"], per="1")
        close(measured[metric], recorded[f"image.{anomalib}"], FLOAT32["abs"], per="1")
    trapezoid = aupr_trapezoid(labels, scores)
    close(trapezoid, recorded["image.sklearn_aupr_trapezoid"], EXACT["abs"], per="1")


@PUBLISHED
@pytest.mark.parametrize("case", ["basic", "integer_levels", "ties"])
def test_metrics_equal_the_official_anomalyclip_evaluation(case: str) -> None:
    with np.load(GOLDENS / f"anomalyclip_{case}.npz") as file:
        golden = dict(file)
    pixel = pixel_metrics(golden["maps"], golden["masks"], aupro="cflow200")
    image = image_metrics(golden["gt_sp"], golden["pr_sp"])
    close(pixel["aupro"], float(golden["metric/pixel-aupro"]), EXACT["abs"], per="1")
    close(pixel["pixel_auroc"], float(golden["metric/pixel-auroc"]), EXACT["abs"], per="1")
    close(image["image_auroc"], float(golden["metric/image-auroc"]), EXACT["abs"], per="1")
    close(image["image_ap"], float(golden["metric/image-ap"]), EXACT["abs"], per="1")


@PUBLISHED
def test_metrics_equal_the_official_vcpclip_evaluation_of_its_fused_map() -> None:
    with np.load(GOLDENS / "vcpclip.npz") as file:
        golden = dict(file)
    recorded = json.loads(str(golden["values_json"]))
    pixel_aurocs = recorded["roc_auc_score (order: px, sp per class)"][::2]
    pixel_aps = recorded["average_precision_score (order: sp, px per class)"][1::2]
    printed_f1 = (0.0815, 0.0861)  # its table shows per cent with two decimals
    for i, name in enumerate(("cls0", "cls1")):
        chosen = golden["cls_names"] == name
        fused = 0.2 * golden["map_raw"][chosen] + 0.8 * golden["map_new"][chosen]
        smooth = np.stack([gaussian_filter(fused_map, sigma=8) for fused_map in fused])
        maps = (smooth - smooth.min()) / (smooth.max() - smooth.min())
        measured = pixel_metrics(maps, golden["masks"][chosen], aupro="cflow200", iou=True)
        close(measured["aupro"], recorded["cal_pro_score"][i], 1e-9, per="1")
        close(measured["pixel_iou"], recorded["cal_iou"][i], 1e-9, per="1")
        close(measured["pixel_auroc"], pixel_aurocs[i], 1e-9, per="1")
        close(measured["pixel_ap"], pixel_aps[i], 1e-9, per="1")
        close(measured["pixel_f1max"], printed_f1[i], 5e-5, per="1")


@pytest.mark.parametrize("levels", [None, 2, 8])
@pytest.mark.parametrize("seed", range(5))
def test_scalar_metrics_equal_scikit_learn(seed: int, levels: int | None) -> None:
    labels, scores = random_labels_and_scores(seed, levels)
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), **EXACT)
    expected = average_precision_score(labels, scores)
    assert average_precision(labels, scores) == pytest.approx(expected, **EXACT)
    assert aupr_trapezoid(labels, scores) == pytest.approx(auc(recall, precision), **EXACT)
    assert f1_max(labels, scores) == pytest.approx(f1.max(), **EXACT)


@pytest.mark.parametrize("levels", [None, 3, 8])
@pytest.mark.parametrize("seed", range(5))
def test_iou_equals_a_loop_over_the_thresholds_of_scikit_learn(
    seed: int, levels: int | None
) -> None:
    maps, masks = random_maps_and_masks(seed, levels)
    precision, recall, thresholds = precision_recall_curve(masks.ravel(), maps.ravel())
    f1 = (2 * precision * recall / (precision + recall + 1e-8))[:-1]
    best = min(t for t, value in zip(thresholds, f1, strict=True) if value > f1.max() - 1e-12)
    predicted = maps > best
    expected = (predicted & (masks == 1)).sum() / (predicted | (masks == 1)).sum()
    assert pixel_iou(maps, masks) == pytest.approx(expected, **EXACT)


def test_iou_of_several_best_thresholds_is_that_of_the_lowest() -> None:
    maps, masks = np.array([[[0.9, 0.8], [0.7, 0.6]]]), np.array([[[1, 0], [0, 1]]])
    assert pixel_iou(maps, masks) == 1 / 4  # F1 is 2/3 at 0.9 and at 0.6; above 0.9 is nothing


def test_iou_of_one_class_is_undefined() -> None:
    assert np.isnan(pixel_iou(np.zeros((1, 2, 2)), np.zeros((1, 2, 2))))


def naive_scalar_metrics(labels: np.ndarray, scores: np.ndarray) -> dict[Callable, float]:
    """One threshold at a time, from the highest to the lowest, as the definitions are printed."""
    roc, curve, best_f1, step_sum = [(0.0, 0.0)], [(0.0, 1.0)], 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        tp = sum(label for label, score in zip(labels, scores, strict=True) if score >= threshold)
        fp = sum(
            1 - label for label, score in zip(labels, scores, strict=True) if score >= threshold
        )
        recall, precision = tp / sum(labels), tp / (tp + fp)
        best_f1 = max(best_f1, 2 * tp / (tp + fp + sum(labels)))
        step_sum += (recall - curve[-1][0]) * precision
        roc.append((fp / sum(1 - labels), recall))
        if tp or not curve[-1][0]:
            curve.append((recall, precision))
    return {
        auroc: naive_area(roc),
        average_precision: step_sum,
        aupr_trapezoid: naive_area(curve),
        f1_max: best_f1,
    }


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("seed", range(3))
def test_scalar_metrics_equal_a_loop_over_thresholds(seed: int, levels: int | None) -> None:
    labels, scores = random_labels_and_scores(seed, levels)
    for metric, expected in naive_scalar_metrics(labels, scores).items():
        assert metric(labels, scores) == pytest.approx(expected, **EXACT), metric.__name__


def test_pixel_metrics_of_a_three_by_three_map() -> None:
    # Descending: 0.9 + | 0.8 - | 0.7 + | 0.6 + | the rest -. One pair of 3 * 6 is lost twice.
    measured = pixel_metrics(HAND_MAP, HAND_MASK)
    assert measured["pixel_auroc"] == pytest.approx(16 / 18, **EXACT)
    assert measured["pixel_ap"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3, **EXACT)
    assert measured["pixel_f1max"] == pytest.approx(6 / 7, **EXACT)


def naive_f1(labels: np.ndarray, scores: np.ndarray, threshold: float) -> float:
    """F1 as printed, of what scores at least the threshold."""
    predicted = scores >= threshold
    hits = int((predicted & (labels == 1)).sum())
    return 2 * hits / (int(predicted.sum()) + int(labels.sum()))


@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_of_the_largest_f1_is_the_lowest_best_one(
    seed: int, levels: int | None
) -> None:
    labels, scores = random_labels_and_scores(seed, levels)
    of = {float(score): naive_f1(labels, scores, score) for score in scores}
    best = max(of.values())
    threshold = f1_max_threshold(labels, scores)
    assert threshold == min(score for score, value in of.items() if value == best)
    assert of[threshold] == f1_max(labels, scores) == best


def test_of_several_best_thresholds_the_lowest_is_given() -> None:
    labels = np.array([1, 0, 0, 1, 0])
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.1])
    assert naive_f1(labels, scores, 0.9) == naive_f1(labels, scores, 0.6) == f1_max(labels, scores)
    assert f1_max_threshold(labels, scores) == 0.6


def test_the_threshold_of_pixels_is_an_own_score_and_that_of_the_iou() -> None:
    maps, masks = random_maps_and_masks(3, 7)
    threshold = f1_max_threshold(masks.ravel(), maps.ravel())
    assert threshold in maps[masks == 1].astype(float)
    predicted, anomalous = maps > threshold, masks == 1
    iou = (predicted & anomalous).sum() / (predicted | anomalous).sum()
    assert pixel_iou(maps, masks) == pytest.approx(iou, **EXACT)


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_alone_has_no_threshold(only: int) -> None:
    assert np.isnan(f1_max_threshold(np.full(3, only), np.array([0.1, 0.2, 0.3])))


def test_the_list_of_metrics_is_what_is_measured() -> None:
    labels, scores = random_labels_and_scores(0, None)
    measured = image_metrics(labels, scores) | pixel_metrics(*random_maps_and_masks(0))
    assert list(METRICS) == list(measured) == list(METRIC_LABELS)
    assert all(name == metric.name and metric.higher_is_better for name, metric in METRICS.items())
    assert len(set(METRIC_LABELS.values())) == len(METRICS)
    best = image_metrics(labels, labels.astype(float))
    worst = image_metrics(labels, 1.0 - labels)
    assert all(best[name] > worst[name] for name in best)
