"""The losses of the methods that learn."""

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
