"""What must not change the metrics, and the range they lie in."""

import tracemalloc

import numpy as np
import pytest
from metric_cases import (
    DEFINITIONS,
    EXACT,
    HAND_MAP,
    HAND_MASK,
    SCALARS,
    random_labels_and_scores,
    random_maps_and_masks,
)

from clipad_core.metrics.metrics import (
    aupro,
    auroc,
    average_precision,
    f1_max,
    image_metrics,
    pixel_metrics,
)


@pytest.mark.parametrize("seed", range(3))
def test_rank_metrics_ignore_a_monotone_transform(seed: int) -> None:
    maps, masks = random_maps_and_masks(seed, levels=16)
    expected = pixel_metrics(maps, masks)
    assert pixel_metrics(np.exp(maps.astype(np.float64)), masks) == pytest.approx(expected, **EXACT)
    assert pixel_metrics(maps * 1e-30 - 1e-31, masks) == pytest.approx(expected, **EXACT)
    stretched = aupro(maps * 4 - 2, masks, "cflow200")
    assert stretched == pytest.approx(aupro(maps, masks, "cflow200"), **EXACT)


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_the_order_of_images_does_not_matter(definition: str) -> None:
    maps, masks = random_maps_and_masks(1, levels=16)
    expected = pixel_metrics(maps, masks, aupro=definition)
    assert pixel_metrics(maps[::-1], masks[::-1], aupro=definition) == pytest.approx(
        expected, **EXACT
    )


def test_tied_scores_count_alike_in_any_order() -> None:
    labels, scores = random_labels_and_scores(0, levels=1)
    order = np.lexsort((labels, scores))
    for metric in SCALARS:
        expected = metric(labels, scores)
        assert metric(labels[order], scores[order]) == pytest.approx(expected, **EXACT)
        assert metric(labels[order[::-1]], scores[order[::-1]]) == pytest.approx(expected, **EXACT)


def test_negative_and_positive_zero_tie() -> None:
    assert auroc(np.array([0, 1]), np.array([-0.0, 0.0])) == 0.5


def test_a_constant_score_is_worth_nothing() -> None:
    labels = np.array([0, 0, 0, 1])
    flat = np.ones(4)
    assert image_metrics(labels, flat) == {
        "image_auroc": 0.5,
        "image_ap": 0.25,
        "image_f1max": 0.4,
    }
    # The curve is the diagonal: 0.3^2 / 2 / 0.3.
    assert aupro(np.ones((1, 3, 3)), HAND_MASK) == pytest.approx(0.15, **EXACT)


@pytest.mark.parametrize("seed", range(3))
def test_float64_scores_give_the_float32_values(seed: int) -> None:
    maps, masks = random_maps_and_masks(seed)
    expected = pixel_metrics(maps, masks)
    assert pixel_metrics(maps.astype(np.float64), masks) == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.float16, np.float64])
@pytest.mark.parametrize("definition", DEFINITIONS)
def test_scores_of_any_numeric_type_give_the_float32_values(definition: str, dtype: type) -> None:
    maps, masks = random_maps_and_masks(2)
    levels = np.round(maps * 140) - (100 if dtype is np.int8 else 0)  # 8 bits from end to end
    expected = pixel_metrics(levels, masks, aupro=definition)
    measured = pixel_metrics(levels.astype(dtype), masks, aupro=definition)
    assert measured == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_masks_may_have_any_type_that_holds_zero_and_one(dtype: type) -> None:
    maps, masks = random_maps_and_masks(2)
    assert pixel_metrics(maps, masks.astype(dtype)) == pixel_metrics(maps, masks)


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_a_list_of_maps_equals_the_stack(definition: str) -> None:
    maps, masks = random_maps_and_masks(2)
    as_list = pixel_metrics(list(maps), list(masks), aupro=definition)
    assert as_list == pixel_metrics(maps, masks, aupro=definition)


def test_images_of_different_sizes_are_pooled() -> None:
    small, large = random_maps_and_masks(1, size=6), random_maps_and_masks(2, size=11)
    maps, masks = [*small[0], *large[0]], [*small[1], *large[1]]
    measured = pixel_metrics(maps, masks)
    scores = np.concatenate([anomaly_map.ravel() for anomaly_map in maps])
    labels = np.concatenate([mask.ravel() for mask in masks])
    assert measured["pixel_auroc"] == auroc(labels, scores)
    assert measured["pixel_ap"] == average_precision(labels, scores)
    assert measured["pixel_f1max"] == f1_max(labels, scores)


def test_normal_images_count_as_background_only() -> None:
    # Three normal images without any response: their 27 pixels join the six of background.
    maps = np.concatenate([HAND_MAP, np.zeros((3, 3, 3))])
    masks = np.concatenate([HAND_MASK, np.zeros((3, 3, 3), dtype=int)])
    # (0, 1/4), (1/33, 1/4), (1/33, 1)
    expected = (1 / 33 * 1 / 4 + (0.3 - 1 / 33)) / 0.3
    assert aupro(maps, masks) == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("seed", range(10))
def test_all_values_lie_between_zero_and_one(seed: int) -> None:
    maps, masks = random_maps_and_masks(seed, levels=[None, 2, 30][seed % 3])
    worst = np.where(masks == 1, -maps, maps)
    for scores in (maps, worst, masks.astype(np.float32)):
        values = [*pixel_metrics(scores, masks).values(), aupro(scores, masks, "mvtec")]
        values += [metric(masks.ravel(), scores.ravel()) for metric in SCALARS]
        assert all(0 <= value <= 1 for value in values), values


def test_a_map_equal_to_the_mask_is_perfect_and_its_opposite_is_not() -> None:
    _, masks = random_maps_and_masks(0)
    perfect = masks.astype(np.float32)
    assert set(pixel_metrics(perfect, masks).values()) == {1.0}
    opposite = pixel_metrics(-perfect, masks)
    assert opposite["pixel_auroc"] == opposite["aupro"] == 0


def test_the_values_are_plain_floats() -> None:
    measured = pixel_metrics(HAND_MAP, HAND_MASK) | image_metrics(
        np.array([0, 1]), np.array([0, 1])
    )
    assert {type(value) for value in measured.values()} == {float}
    assert {type(aupro(HAND_MAP, HAND_MASK, definition)) for definition in DEFINITIONS} == {float}


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_the_given_arrays_are_left_as_they_were(definition: str) -> None:
    maps, masks = random_maps_and_masks(4)
    maps.flags.writeable = masks.flags.writeable = False
    before = maps.copy(), masks.copy()
    pixel_metrics(maps, masks, aupro=definition)
    scores, labels = maps[1].ravel(), masks[1].ravel()
    image_metrics(labels, scores)
    np.testing.assert_array_equal((maps, masks), before)


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_the_pixels_of_a_data_set_are_held_only_once_more(definition: str) -> None:
    random = np.random.default_rng(0)
    maps = random.random((32, 128, 128), dtype=np.float32)
    masks = np.zeros(maps.shape, dtype=np.uint8)
    masks[::2, 40:56, 40:56] = 1
    tracemalloc.start()
    pixel_metrics(maps, masks, aupro=definition)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * maps.nbytes
