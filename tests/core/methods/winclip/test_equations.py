"""The equations of WinCLIP as printed, one for-loop each, and their invariants."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from clipad_core.maps import association_scores, harmonic_mean
from clipad_core.methods.winclip.equations import (
    arithmetic_aggregation,
    cover_matrix,
    harmonic_aggregation,
)
from clipad_core.methods.winclip.windows import window_index


@pytest.fixture
def unit() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 9, 5, generator=generator, dtype=torch.float64)
    return F.normalize(rows, dim=-1)


def naive_association_scores(patches: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """Eq. (4) as printed: one patch, one reference at a time."""
    scores = torch.zeros(patches.shape[:2], dtype=patches.dtype)
    for image in range(patches.shape[0]):
        for patch in range(patches.shape[1]):
            scores[image, patch] = min(
                0.5 * (1 - sum(a * b for a, b in zip(patches[image, patch], r, strict=True)))
                for r in memory
            )
    return scores


def naive_aggregation(scores: torch.Tensor, grid: tuple[int, int], scale: int, harmonic: bool):
    """Eq. (3) as printed: for every patch, collect the windows that cover it."""
    height, width = grid
    aggregated = torch.zeros(len(scores), height, width, dtype=scores.dtype)
    for i in range(height):
        for j in range(width):
            covering = [
                top * (width - scale + 1) + left
                for top in range(height - scale + 1)
                for left in range(width - scale + 1)
                if top <= i < top + scale and left <= j < left + scale
            ]
            values = scores[:, covering]
            aggregated[:, i, j] = (
                len(covering) / (1 / values).sum(1) if harmonic else values.mean(1)
            )
    return aggregated.flatten(1)


@pytest.mark.parametrize("k_shot", [1, 2])
def test_association_matches_the_equation(unit: torch.Tensor, k_shot: int) -> None:
    memory = unit.flatten(0, 1)[: 4 * k_shot]
    assert_close(association_scores(unit, memory), naive_association_scores(unit, memory))


def test_association_of_a_reference_with_itself_is_zero(unit: torch.Tensor) -> None:
    scores = association_scores(unit, unit.flatten(0, 1))
    assert_close(scores, torch.zeros_like(scores), atol=1e-12, rtol=0)


def test_association_ignores_repeated_references_and_their_order(unit: torch.Tensor) -> None:
    memory = unit[0]
    twice = torch.cat([memory.flip(0), memory])
    assert_close(association_scores(unit, twice), association_scores(unit, memory))


def test_more_references_never_raise_a_score(unit: torch.Tensor) -> None:
    few_scores = association_scores(unit, unit[0][:2])
    many_scores = association_scores(unit, unit[0])
    assert (many_scores <= few_scores + 1e-12).all() and (many_scores < few_scores - 1e-3).any()


@pytest.mark.parametrize("grid", [(3, 3), (5, 7), (4, 2)])
@pytest.mark.parametrize("scale", [1, 2])
def test_aggregations_match_the_equation(grid: tuple[int, int], scale: int) -> None:
    index = window_index(grid, scale)
    drawn = torch.Generator().manual_seed(0)
    scores = torch.rand(2, len(index), generator=drawn, dtype=torch.float64) * 0.9 + 0.05
    cover = cover_matrix(index, grid[0] * grid[1]).double()
    assert_close(harmonic_aggregation(scores, cover), naive_aggregation(scores, grid, scale, True))
    assert_close(
        arithmetic_aggregation(scores, cover), naive_aggregation(scores, grid, scale, False)
    )


def test_harmonic_aggregation_of_a_hand_worked_grid() -> None:
    """3 x 3 patches, windows of 2: the centre lies in all four, a corner in one."""
    cover = cover_matrix(window_index((3, 3), 2), 9)
    scores = harmonic_aggregation(torch.tensor([[0.1, 0.2, 0.4, 0.8]]), cover)[0].reshape(3, 3)
    assert_close(scores[0, 0], torch.tensor(0.1))
    assert_close(scores[0, 1], torch.tensor(2 / (1 / 0.1 + 1 / 0.2)))
    assert_close(scores[1, 1], torch.tensor(4 / (10 + 5 + 2.5 + 1.25)))
    assert_close(scores[2, 2], torch.tensor(0.8))


def test_harmonic_is_at_most_arithmetic_and_equal_scores_stay() -> None:
    cover = cover_matrix(window_index((4, 4), 2), 16)
    scores = torch.rand(3, 9, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    assert (
        harmonic_aggregation(scores, cover) <= arithmetic_aggregation(scores, cover) + 1e-6
    ).all()
    same = torch.full((1, 9), 0.3)
    assert_close(harmonic_aggregation(same, cover), torch.full((1, 16), 0.3))


def test_a_zero_score_makes_its_patches_zero_and_nothing_nan() -> None:
    cover = cover_matrix(window_index((3, 3), 2), 9)
    scores = harmonic_aggregation(torch.tensor([[0.0, 0.5, 0.5, 0.5]]), cover)[0]
    assert_close(scores[[0, 4, 8]], torch.tensor([0.0, 0.0, 0.5]), atol=1e-30, rtol=1e-6)
    assert harmonic_mean([torch.tensor([0.0]), torch.tensor([0.5])]) == 0
