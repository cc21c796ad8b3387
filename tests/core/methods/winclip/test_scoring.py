"""Scores against the printed equations, one for-loop each, and by their invariants."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from clipad_core import maps as scoring
from clipad_core.clip.vision import window_index
from clipad_core.errors import ClipadError
from clipad_core.learned.losses import dice_loss, focal_loss
from clipad_core.maps import (
    arithmetic_aggregation,
    association_scores,
    check_finite,
    check_not_constant,
    cover_matrix,
    harmonic_aggregation,
    harmonic_mean,
    text_scores,
    upsample_by_matrices,
)


@pytest.fixture
def unit() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 9, 5, generator=generator, dtype=torch.float64)
    return F.normalize(rows, dim=-1)


def naive_association_scores(patches: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """Eq. (4) as printed: one patch, one reference at a time."""
    found = torch.zeros(patches.shape[:2], dtype=patches.dtype)
    for image in range(patches.shape[0]):
        for patch in range(patches.shape[1]):
            found[image, patch] = min(
                0.5 * (1 - sum(a * b for a, b in zip(patches[image, patch], r, strict=True)))
                for r in memory
            )
    return found


def naive_aggregation(scores: torch.Tensor, grid: tuple[int, int], scale: int, harmonic: bool):
    """Eq. (3) as printed: for every patch, collect the windows that cover it."""
    height, width = grid
    found = torch.zeros(len(scores), height, width, dtype=scores.dtype)
    for i in range(height):
        for j in range(width):
            covering = [
                top * (width - scale + 1) + left
                for top in range(height - scale + 1)
                for left in range(width - scale + 1)
                if top <= i < top + scale and left <= j < left + scale
            ]
            values = scores[:, covering]
            found[:, i, j] = len(covering) / (1 / values).sum(1) if harmonic else values.mean(1)
    return found.flatten(1)


@pytest.mark.parametrize("k_shot", [1, 2])
def test_association_matches_the_equation(unit: torch.Tensor, k_shot: int) -> None:
    memory = unit.flatten(0, 1)[: 4 * k_shot]
    assert_close(association_scores(unit, memory), naive_association_scores(unit, memory))


def test_association_of_a_reference_with_itself_is_zero(unit: torch.Tensor) -> None:
    found = association_scores(unit, unit.flatten(0, 1))
    assert_close(found, torch.zeros_like(found), atol=1e-12, rtol=0)


def test_association_ignores_repeated_references_and_their_order(unit: torch.Tensor) -> None:
    memory = unit[0]
    twice = torch.cat([memory.flip(0), memory])
    assert_close(association_scores(unit, twice), association_scores(unit, memory))


def test_more_references_never_raise_a_score(unit: torch.Tensor) -> None:
    few, many = association_scores(unit, unit[0][:2]), association_scores(unit, unit[0])
    assert (many <= few + 1e-12).all() and (many < few - 1e-3).any()


@pytest.mark.parametrize("grid", [(3, 3), (5, 7), (4, 2)])
@pytest.mark.parametrize("scale", [1, 2])
def test_aggregations_match_the_equation(grid: tuple[int, int], scale: int) -> None:
    index = window_index(grid, scale)
    scores = torch.rand(2, len(index), dtype=torch.float64) * 0.9 + 0.05
    cover = cover_matrix(index, grid[0] * grid[1]).double()
    assert_close(harmonic_aggregation(scores, cover), naive_aggregation(scores, grid, scale, True))
    assert_close(
        arithmetic_aggregation(scores, cover), naive_aggregation(scores, grid, scale, False)
    )


def test_harmonic_aggregation_of_a_hand_worked_grid() -> None:
    """3 x 3 patches, windows of 2: the centre lies in all four, a corner in one."""
    cover = cover_matrix(window_index((3, 3), 2), 9)
    found = harmonic_aggregation(torch.tensor([[0.1, 0.2, 0.4, 0.8]]), cover)[0].reshape(3, 3)
    assert_close(found[0, 0], torch.tensor(0.1))
    assert_close(found[0, 1], torch.tensor(2 / (1 / 0.1 + 1 / 0.2)))
    assert_close(found[1, 1], torch.tensor(4 / (10 + 5 + 2.5 + 1.25)))
    assert_close(found[2, 2], torch.tensor(0.8))


def test_harmonic_is_at_most_arithmetic_and_equal_scores_stay() -> None:
    cover = cover_matrix(window_index((4, 4), 2), 16)
    scores = torch.rand(3, 9) * 0.9 + 0.05
    assert (
        harmonic_aggregation(scores, cover) <= arithmetic_aggregation(scores, cover) + 1e-6
    ).all()
    same = torch.full((1, 9), 0.3)
    assert_close(harmonic_aggregation(same, cover), torch.full((1, 16), 0.3))


def test_a_zero_score_makes_its_patches_zero_and_nothing_nan() -> None:
    cover = cover_matrix(window_index((3, 3), 2), 9)
    found = harmonic_aggregation(torch.tensor([[0.0, 0.5, 0.5, 0.5]]), cover)[0]
    assert_close(found[[0, 4, 8]], torch.tensor([0.0, 0.0, 0.5]), atol=1e-30, rtol=1e-6)
    assert harmonic_mean([torch.tensor([0.0]), torch.tensor([0.5])]) == 0


@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
def test_text_scores_are_the_softmax_of_equation_1(unit: torch.Tensor, temperature: float) -> None:
    text = unit[0, :2]
    expected = torch.softmax(unit @ text.T / temperature, dim=-1)[..., 1]
    assert_close(text_scores(unit, text, temperature), expected)


def test_temperature_never_changes_the_order_of_text_scores(unit: torch.Tensor) -> None:
    text, embeddings = unit[0, :2], unit[1]
    cold, warm = text_scores(embeddings, text, 0.05), text_scores(embeddings, text, 1.0)
    assert cold.argsort().equal(warm.argsort())


def test_a_single_prototype_scores_by_distance(unit: torch.Tensor) -> None:
    found = text_scores(unit, unit[0, :1], 0.07)
    assert_close(found[0, 0], torch.zeros((), dtype=torch.float64), atol=1e-12, rtol=0)
    assert (found >= 0).all() and (found <= 1).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ClipadError, match="temperature: found"):
        text_scores(torch.eye(2), torch.eye(2), temperature)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_stops_the_run(broken: float) -> None:
    with pytest.raises(ClipadError, match="NaN or infinite"):
        check_finite(torch.tensor([0.1, broken]), "anomaly map")


def test_constant_windows_stop_the_run_and_different_ones_do_not() -> None:
    same = torch.ones(2, 4, 3)
    with pytest.raises(ClipadError, match="map would be constant"):
        check_not_constant(same, "window embeddings of scale 2")
    same[1, 2, 0] = 0.9
    check_not_constant(same, "window embeddings of scale 2")
    assert same.shape == (2, 4, 3)


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_a_map_that_ranks_nothing_stops_the_run(value: float) -> None:
    scoring.check_maps([torch.tensor([[0.1, 0.2]])], "images")
    with pytest.raises(ClipadError, match=f"images: found a map with {value} everywhere"):
        scoring.check_maps([torch.tensor([[0.1, 0.2]]), torch.full((1, 2), value)], "images")


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(9, 9), (11, 4), (5, 7), (2, 3)])
def test_bilinear_by_matrices_is_that_of_torch_and_so_is_its_gradient(
    size: tuple[int, int], align_corners: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 3, 5, 7, generator=generator, dtype=torch.float64)
    weight = torch.rand(2, 3, *size, generator=generator, dtype=torch.float64)
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    found = upsample_by_matrices(ours, size, align_corners)
    expected = F.interpolate(theirs, size, mode="bilinear", align_corners=align_corners)
    assert_close(found, expected, rtol=0, atol=1e-6)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-6)


def test_losses_of_several_blocks_are_the_sum_of_each() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 2, 5, 4, generator=generator)
    target = (torch.rand(2, 5, 4, generator=generator) > 0.6).float()
    for together, apart in (
        (focal_loss(1 - maps, maps, target), [focal_loss(1 - m, m, target) for m in maps]),
        (dice_loss(maps, target), [dice_loss(m, target) for m in maps]),
    ):
        assert_close(together, torch.stack(apart).sum())
