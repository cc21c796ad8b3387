"""A frozen CLIP at another input size or with another activation."""

import pytest
import torch
import torch.nn.functional as F
from micro import run_tower

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.prepare import prepare, resize_grid
from clipad_core.errors import ClipadError


@pytest.mark.parametrize("rule", ["bilinear", "bicubic_antialias"])
@pytest.mark.parametrize("grid", [(6, 6), (3, 5)])
def test_every_channel_of_the_grid_is_resized_as_an_image(
    micro: Backbone, rule: str, grid: tuple[int, int]
) -> None:
    stored = micro.vision.positional_embedding
    tower = resize_grid(micro.vision, grid, rule)
    assert tower.grid == grid
    assert torch.equal(tower.positional_embedding[0], stored[0])
    for channel in (0, 7):
        image = stored[1:, channel].reshape(1, 1, 4, 4)
        if rule == "bilinear":
            expected = F.interpolate(image, grid, mode="bilinear", align_corners=False)
        else:
            expected = F.interpolate(image, grid, mode="bicubic", antialias=True)
        torch.testing.assert_close(
            tower.positional_embedding[1:, channel], expected.flatten(), atol=1e-6, rtol=0
        )


def test_the_original_is_untouched_and_nothing_is_resized_twice(micro: Backbone) -> None:
    before = micro.vision.positional_embedding.clone()
    larger = resize_grid(micro.vision, (6, 6), "bilinear")
    assert torch.equal(micro.vision.positional_embedding, before)
    assert resize_grid(micro.vision, (4, 4), "bilinear") is micro.vision
    assert resize_grid(larger, (6, 6), "bicubic_antialias") is larger


def test_a_prepared_backbone_runs_at_its_new_size_and_says_so(micro: Backbone) -> None:
    prepared = prepare(micro, 48, "bilinear", "quick_gelu")
    embedding, _ = run_tower(prepared.vision, torch.zeros(1, 3, 48, 48))
    assert embedding.shape == (1, 16)
    assert prepared.digest == f"{micro.digest}+48bilinear+quick_gelu"
    assert prepared.image_size == micro.image_size == 32
    towers = (prepared.vision, prepared.text)
    assert all(tower.transformer.quick_gelu for tower in towers)
    assert not micro.vision.transformer.quick_gelu


def test_what_changes_nothing_keeps_the_digest(micro: Backbone) -> None:
    for activation in ("backbone", "gelu"):
        assert prepare(micro, 32, "bilinear", activation).digest == micro.digest
    quick = prepare(micro, 32, "bilinear", "quick_gelu")
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    embedding, quick_embedding = (run_tower(b.vision, image)[0] for b in (micro, quick))
    assert (embedding - quick_embedding).abs().max() > 1e-4
    back = prepare(quick, 32, "bilinear", "gelu")
    assert torch.equal(run_tower(back.vision, image)[0], embedding)


def test_the_longer_side_of_a_rectangle_follows_the_shorter_one(rectangle: Backbone) -> None:
    prepared = prepare(rectangle, 48, "bilinear", "gelu")
    assert (prepared.vision.grid, prepared.input_size) == ((6, 10), (48, 80))
    assert prepared.image_size == 24
    assert prepare(rectangle, 24, "bilinear", "gelu").vision is rectangle.vision
    for size in (32, 16):
        message = (
            f"image_size: found {size}, expected a multiple of 24, so that a grid like the 3 x 5"
        )
        with pytest.raises(ClipadError, match=message):
            prepare(rectangle, size, "bilinear", "gelu")


def test_sizes_and_rules_that_do_not_fit_are_refused(micro: Backbone) -> None:
    with pytest.raises(ClipadError, match="image_size: found 50, expected a multiple of 8"):
        prepare(micro, 50, "bilinear", "gelu")
    with pytest.raises(ClipadError, match="positional: found 'nearest', expected one of bilinear"):
        prepare(micro, 48, "nearest", "gelu")
