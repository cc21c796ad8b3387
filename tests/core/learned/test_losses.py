"""The losses of the methods that learn, against their formulas as printed."""

import math

import pytest
import torch
from torch.testing import assert_close

from clipad_core.learned.losses import dice_loss, focal_loss


def test_losses_of_several_blocks_are_the_sum_of_each() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 2, 5, 4, generator=generator)
    target = (torch.rand(2, 5, 4, generator=generator) > 0.6).float()
    for together, apart in (
        (focal_loss(1 - maps, maps, target), [focal_loss(1 - m, m, target) for m in maps]),
        (dice_loss(maps, target), [dice_loss(m, target) for m in maps]),
    ):
        assert_close(together, torch.stack(apart).sum())


def naive_focal_loss(normal: torch.Tensor, anomalous: torch.Tensor, target: torch.Tensor) -> float:
    """The official text, one pixel at a time in float64: one-hot, clamped, summed over the classes."""
    total = 0.0
    for n, a, y in zip(
        *(tensor.flatten().tolist() for tensor in (normal, anomalous, target)), strict=True
    ):
        hot = [min(max(value, 1e-5), 1 - 1e-5) for value in (1 - y, y)]
        right = hot[0] * n + hot[1] * a + 1e-5
        total -= (1 - right) ** 2 * math.log(right)
    return total / target.numel()


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 5e-7)])
@pytest.mark.parametrize("wrong", [0.0, 0.25, 1.0])
def test_focal_loss_is_the_literal_sum_where_a_map_is_saturated(
    dtype: torch.dtype, error: float, wrong: float
) -> None:
    """Sure pixels, a share of them wrong: the loss of a wrong one is the logarithm of about 2e-5."""
    draws = torch.Generator().manual_seed(0)
    target = (torch.rand(2, 6, 6, generator=draws) > 0.5).to(dtype)
    flipped = torch.rand(2, 6, 6, generator=draws) < wrong
    anomalous = torch.where(flipped, 1 - target, target)
    loss = focal_loss(1 - anomalous, anomalous, target)
    assert loss.dtype == dtype
    expected = naive_focal_loss(1 - anomalous, anomalous, target)
    assert loss.item() == pytest.approx(expected, rel=error, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_focal_loss_of_any_probabilities_is_the_literal_sum(dtype: torch.dtype) -> None:
    draws = torch.Generator().manual_seed(1)
    anomalous = torch.rand(2, 6, 6, generator=draws, dtype=dtype)
    target = (torch.rand(2, 6, 6, generator=draws) > 0.5).to(dtype)
    expected = naive_focal_loss(1 - anomalous, anomalous, target)
    assert focal_loss(1 - anomalous, anomalous, target).item() == pytest.approx(expected, rel=1e-6)
