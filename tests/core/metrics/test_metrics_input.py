"""Undefined metrics are nan, bad input is refused with one message."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from metric_cases import DEFINITIONS, HAND_MAP, HAND_MASK, SCALARS

from clipad_core.errors import ClipadError
from clipad_core.metrics.metrics import (
    aupr_trapezoid,
    aupro,
    image_metrics,
    pixel_metrics,
)


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_alone_leaves_every_image_metric_undefined(only: int) -> None:
    labels, scores = np.full(3, only), np.array([0.1, 0.2, 0.2])
    assert all(math.isnan(value) for value in image_metrics(labels, scores).values())
    assert math.isnan(aupr_trapezoid(labels, scores))


def test_a_single_image_leaves_image_metrics_undefined_and_pixel_metrics_defined() -> None:
    single = image_metrics(np.array([1]), np.array([0.3]))
    assert all(math.isnan(value) for value in single.values())
    assert not any(math.isnan(value) for value in pixel_metrics(HAND_MAP, HAND_MASK).values())


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("mask", [np.zeros((1, 3, 3)), np.ones((1, 3, 3))])
def test_empty_or_full_masks_leave_pixel_metrics_undefined(
    mask: np.ndarray, definition: str
) -> None:
    measured = pixel_metrics(HAND_MAP, mask, aupro=definition)
    assert all(math.isnan(value) for value in measured.values())


@pytest.mark.parametrize(
    "maps",
    [
        pytest.param(np.ones((1, 3, 3)), id="a constant map"),
        pytest.param(1 - HAND_MAP, id="a single kept FPR"),
        pytest.param(HAND_MASK * np.float32(1e-45), id="a range below 200 steps"),
    ],
)
def test_cflow200_without_two_kept_rates_is_undefined_not_an_error(maps: np.ndarray) -> None:
    assert math.isnan(aupro(maps, HAND_MASK, "cflow200"))
    assert 0 <= aupro(maps, HAND_MASK, "exact") <= 1


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [0.1, math.nan], r"scores: found nan at \(1,\), expected finite"),
        ([0, 1], [math.inf, 0.1], r"scores: found inf at \(0,\), expected finite"),
        ([0, 1, 1], [0.1, 0.2], r"labels: found shape \(3,\), expected \(2,\)"),
        ([], [], r"scores: found shape \(0,\), expected 1 axes"),
        ([[0, 1]], [[0.1, 0.2]], r"scores: found shape \(1, 2\), expected 1 axes"),
        ([0, 2], [0.1, 0.2], r"labels: found the value 2, expected 0 \(normal\) and 1"),
        ([-1, 1], [0.1, 0.2], r"labels: found the value -1, expected 0 \(normal\) and 1"),
        ([0, math.nan], [0.1, 0.2], r"labels: found the value nan, expected 0 \(normal\) and 1"),
        (["0", "1"], [0.1, 0.2], r"labels: found dtype <U1"),
        ([0, 1], ["a", "b"], r"scores: found dtype <U1, expected real numbers"),
        ([0, 1], [True, False], r"scores: found dtype bool, expected real numbers"),
    ],
)
@pytest.mark.parametrize("metric", [*SCALARS, image_metrics])
def test_bad_labels_and_scores_are_refused_by_name(
    metric: Callable, labels: list, scores: list, message: str
) -> None:
    with pytest.raises(ClipadError, match=message):
        metric(np.array(labels), np.array(scores))


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (HAND_MAP[:0], HAND_MASK[:0], "found 0 maps and 0 masks, expected at least one map"),
        (HAND_MAP, HAND_MASK[:0], "found 1 maps and 0 masks"),
        (HAND_MAP, HAND_MASK[:, :2], r"masks\[0\]: found shape \(2, 3\), expected \(3, 3\)"),
        (HAND_MAP[0], HAND_MASK[0], r"maps\[0\]: found shape \(3,\), expected 2 axes"),
        (HAND_MAP[..., :0], HAND_MASK[..., :0], r"maps\[0\]: found shape \(3, 0\)"),
        (HAND_MAP, HAND_MASK * 255, r"masks\[0\]: found the value 255, expected 0 .* mask > 127"),
        (
            np.where(HAND_MAP > 0.1, HAND_MAP, -np.inf),
            HAND_MASK,
            r"maps\[0\]: found -inf at \(0, 2\)",
        ),
    ],
)
@pytest.mark.parametrize("metric", [aupro, pixel_metrics])
def test_bad_maps_and_masks_are_refused_by_name(
    metric: Callable, maps: np.ndarray, masks: np.ndarray, message: str
) -> None:
    with pytest.raises(ClipadError, match=message):
        metric(maps, masks)


@pytest.mark.usefixtures("without_shape_checks")
def test_an_unknown_aupro_definition_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ClipadError, match="definition: found 'anomalib', expected one of exact"):
        aupro(HAND_MAP, HAND_MASK, "anomalib")  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [0.0, -0.3, 1.5, 30.0, math.nan])
def test_an_fpr_limit_outside_the_unit_interval_is_refused(limit: float) -> None:
    with pytest.raises(ClipadError, match="fpr_limit: found .* expected a rate in"):
        pixel_metrics(HAND_MAP, HAND_MASK, fpr_limit=limit)
