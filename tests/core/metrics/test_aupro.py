"""AUPRO: each definition against the code it is named after, a naive loop and cases by hand."""

import json
import math

import numpy as np
import pytest
import recordings
from metric_cases import (
    DEFINITIONS,
    EXACT,
    FLOAT32,
    HAND_MAP,
    HAND_MASK,
    PUBLISHED,
    naive_area,
    random_maps_and_masks,
)
from recordings import close

from clipad_core.metrics.metrics import aupro, aupro_curve, pixel_metrics

GOLDENS = recordings.GOLDENS / "metrics"
PEERS = json.loads((GOLDENS / "peers.json").read_text())


@PUBLISHED
@pytest.mark.parametrize("case", PEERS)
def test_every_aupro_definition_equals_the_code_it_is_named_after(case: str) -> None:
    with np.load(GOLDENS / f"peers_{case}.npz") as file:
        maps, masks = file["maps"], file["masks"]
    recorded = PEERS[case]
    exact = pixel_metrics(maps, masks)["aupro"]
    close(exact, recorded["anomalib_aupro_0.3"], FLOAT32["abs"], per="1")
    low_limit = aupro(maps, masks, "exact", fpr_limit=0.05)
    close(low_limit, recorded["anomalib_aupro_0.05"], FLOAT32["abs"], per="1")
    mvtec = pixel_metrics(maps, masks, aupro="mvtec")["aupro"]
    close(mvtec, recorded["mvtec_reference_aupro_0.3"], EXACT["abs"], per="1")
    cflow = pixel_metrics(maps, masks, aupro="cflow200")["aupro"]
    close(cflow, recorded["anomalyclip_aupro_200steps_0.3"], EXACT["abs"], per="1")


def naive_regions(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """8-connected components by growing from pixel to pixel."""
    remaining = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    regions = []
    while remaining:
        region, front = set(), [remaining.pop()]
        while front:
            y, x = front.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & remaining
            remaining -= near
            front.extend(near)
        regions.append(region)
    return regions


def naive_fpr_and_pro(predicted: np.ndarray, masks: np.ndarray) -> tuple[float, float]:
    """Label the masks anew, look at one region after the other."""
    covered = [
        sum(bool(image[pixel]) for pixel in region) / len(region)
        for image, mask in zip(predicted, masks, strict=True)
        for region in naive_regions(mask)
    ]
    background = masks == 0
    return (predicted & background).sum() / background.sum(), sum(covered) / len(covered)


def naive_aupro(maps: np.ndarray, masks: np.ndarray, definition: str, limit: float) -> float:
    """The three definitions, one threshold at a time."""
    if definition == "exact":
        thresholds = sorted(set(maps.ravel()), reverse=True)
        points = [(0.0, 0.0)] + [naive_fpr_and_pro(maps >= t, masks) for t in thresholds]
        return naive_area(points, limit) / limit
    if definition == "mvtec":
        background = np.sort(maps[masks == 0])
        points = []
        for position in np.linspace(0, len(background) - 1, num=100, dtype=int)[::-1]:
            _, pro = naive_fpr_and_pro(maps > background[position], masks)
            points.append((1 - (position + 1) / len(background), pro))
        return naive_area([*points, (1.0, 1.0)], limit) / limit
    low, high = maps.min(), maps.max()
    thresholds = np.arange(low, high, (high - low) / 200)[::-1]
    points = [naive_fpr_and_pro(maps > t, masks) for t in thresholds]
    below_limit = [(fpr, pro) for fpr, pro in points if fpr < limit]
    first, last = below_limit[0][0], below_limit[-1][0]
    if first == last:
        return math.nan
    return naive_area([((fpr - first) / (last - first), pro) for fpr, pro in below_limit])


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("levels", [None, 7])
@pytest.mark.parametrize("definition", DEFINITIONS)
def test_aupro_equals_relabelling_at_every_threshold(
    definition: str, levels: int | None, limit: float
) -> None:
    maps, masks = random_maps_and_masks(3, levels)
    expected = naive_aupro(maps, masks, definition, limit)
    measured = aupro(maps, masks, definition, fpr_limit=limit)
    assert measured == pytest.approx(expected, **EXACT, nan_ok=True)


@pytest.mark.parametrize("levels", [None, 7])
@pytest.mark.parametrize("definition", DEFINITIONS)
def test_every_point_of_the_curve_is_what_its_threshold_predicts(
    definition: str, levels: int | None
) -> None:
    maps, masks = random_maps_and_masks(3, levels)
    curve = aupro_curve(maps, masks, definition)
    assert (np.diff(curve.fpr) >= 0).all() and (np.diff(curve.pro) >= 0).all()
    assert (np.diff(curve.thresholds) <= 0).all()
    for fpr, pro, threshold in zip(curve.fpr, curve.pro, curve.thresholds, strict=True):
        predicted = naive_fpr_and_pro(maps > threshold, masks)
        assert pro == pytest.approx(predicted[1], **EXACT)
        # The MVTec code takes it from the rank: tied background enters one pixel after the other.
        if definition != "mvtec" or levels is None:
            assert fpr == pytest.approx(predicted[0], **EXACT)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("definition", ["exact", "mvtec"])
def test_aupro_is_the_area_under_the_curve(definition: str, limit: float) -> None:
    maps, masks = random_maps_and_masks(5)
    curve = aupro_curve(maps, masks, definition)
    points = list(zip(curve.fpr.tolist(), curve.pro.tolist(), strict=True))
    assert (points[0][0], points[-1]) == (0.0, (1.0, 1.0))
    expected = naive_area(points, limit) / limit
    assert aupro(maps, masks, definition, fpr_limit=limit) == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("mask", [np.zeros((1, 3, 3)), np.ones((1, 3, 3))])
def test_without_regions_or_background_there_is_no_curve(mask: np.ndarray, definition: str) -> None:
    curve = aupro_curve(HAND_MAP, mask, definition)
    assert len(curve) == len(curve.pro) == len(curve.thresholds) == 0
    assert len(aupro_curve(np.ones((1, 3, 3)), HAND_MASK, "cflow200")) == 0


def test_exact_aupro_of_a_three_by_three_map() -> None:
    # Two regions {0.9, 0.7} and {0.6}, six background pixels 0.8 0.2 0.1 0.1 0.1 0.1. The curve
    # is (0, 1/4) (1/6, 1/4) (1/6, 1) (1, 1): (1/6 * 1/4 + (0.3 - 1/6) * 1) / 0.3.
    assert aupro(HAND_MAP, HAND_MASK, "exact") == pytest.approx(7 / 12, **EXACT)


def test_cflow200_aupro_of_a_three_by_three_map() -> None:
    # Kept are FPR 0 and 1/6, stretched to 0 and 1; PRO is 1/4 on both ends of that step.
    assert aupro(HAND_MAP, HAND_MASK, "cflow200") == pytest.approx(0.25, **EXACT)


def test_mvtec_aupro_of_a_three_by_three_map() -> None:
    # Above 0.8: (0, 1/4); above 0.2: (1/6, 1): (1/6 * 5/8 + (0.3 - 1/6) * 1) / 0.3.
    assert aupro(HAND_MAP, HAND_MASK, "mvtec") == pytest.approx(19 / 24, **EXACT)


def test_regions_that_touch_at_a_corner_are_one() -> None:
    maps = np.array([[[0.9, 0.0, 0.0], [0.0, 0.1, 0.0], [0.5, 0.5, 0.5]]])
    masks = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 0]]])
    # One region of two pixels: half covered up to FPR 3/7. Two regions would give the same mean,
    # so a third pixel region of its own tells them apart: 1/2 (1/2 + 0) against 1/3 (1 + 0 + 0).
    maps = np.concatenate([maps, np.zeros((1, 3, 3))])
    masks = np.concatenate([masks, np.eye(3, dtype=int)[None] * np.array([1, 0, 0])])
    assert aupro(maps, masks, fpr_limit=0.1) == pytest.approx(1 / 4, **EXACT)
