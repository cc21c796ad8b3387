"""Images to views: every published rule, and the tiles of the paper's supplement."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.testing import assert_close

from clipad_core.clip.preprocess import (
    ALIKE_ON_SQUARES,
    make_views,
    normalise,
    tile_corners,
    views_of_normalised,
)
from clipad_core.errors import ClipadError


@pytest.fixture
def photo() -> np.ndarray:
    """Sharp edges, so that resampling rules differ: 90 x 110."""
    rows, columns = np.mgrid[:90, :110]
    board = ((rows // 7 + columns // 5) % 2 * 255).astype(np.uint8)
    return np.stack([board, np.roll(board, 3, axis=1), 255 - board], axis=-1)


def test_stretch_is_pillow_bicubic_on_bytes(photo: np.ndarray) -> None:
    expected = np.asarray(Image.fromarray(photo).resize((32, 32), Image.Resampling.BICUBIC))
    view = make_views(photo, 32, "stretch").pixels[0]
    expected_tensor = torch.tensor(expected).permute(2, 0, 1).float() / 255
    assert_close(view, normalise(expected_tensor[None])[0])


def test_the_float_stretch_overshoots_and_differs_from_pillow(photo: np.ndarray) -> None:
    grey = np.repeat(photo[:, :, :1], 3, axis=2)
    floats, bytes_ = make_views(grey, 64, "stretch_float"), make_views(grey, 64, "stretch")
    white = normalise(torch.ones(1, 3, 1, 1))
    assert (floats.pixels > white).any() and not (bytes_.pixels > white + 1e-6).any()


def test_every_rule_gives_another_picture_of_a_non_square_image(photo: np.ndarray) -> None:
    rules = ["tiles", "stretch", "stretch_float", "stretch_1024", "centre_crop"]
    views = [make_views(photo, 32, rule).pixels[0] for rule in rules]
    for i, view in enumerate(views):
        for later_view in views[i + 1 :]:
            assert (view - later_view).abs().max() > 1e-3


def test_bgr_swaps_the_first_and_the_last_channel(photo: np.ndarray) -> None:
    swapped = make_views(photo[:, :, ::-1].copy(), 32, "stretch").pixels
    assert_close(make_views(photo, 32, "stretch", "bgr").pixels, swapped)


@pytest.mark.parametrize("shape", [(60, 100), (100, 60), (50, 400), (64, 64), (33, 100)])
def test_tiles_keep_the_aspect_cover_everything_and_overlap_by_a_fifth(shape) -> None:
    image = np.zeros((*shape, 3), dtype=np.uint8)
    views = make_views(image, 32, "tiles")
    height, width = views.placement.canvas
    assert min(height, width) == 32
    assert abs(max(height, width) / 32 - max(shape) / min(shape)) < 1 / 32
    covered = np.zeros((height, width), dtype=int)
    for left, top in views.placement.corners:
        covered[top : top + 32, left : left + 32] += 1
    assert (covered > 0).all()
    starts = sorted(max(corner) for corner in views.placement.corners)
    # Even spacing on whole pixels may exceed the paper's 0.8 by the rounding of one pixel.
    assert all(b - a <= 0.8 * 32 + 1 for a, b in zip(starts, starts[1:], strict=False))
    assert len(views.pixels) == len(views.placement.corners)


def test_a_square_image_is_one_tile() -> None:
    assert tile_corners(240, 240, 240) == [(0, 0)]


def test_an_image_of_one_and_a_half_is_two_flush_tiles() -> None:
    assert tile_corners(240, 360, 240) == [(0, 0), (120, 0)]
    assert tile_corners(360, 240, 240) == [(0, 0), (0, 120)]


@pytest.mark.parametrize(("rule", "count"), [("none", 0), ("five", 5), ("ten", 10)])
def test_multi_crop_adds_views_for_the_score_alone(photo, rule: str, count: int) -> None:
    views = make_views(photo, 32, "tiles", multi_crop=rule)
    assert len(views.crops) == count == views.placement.crops
    assert len(views.pixels) == len(views.placement.corners)
    if rule == "ten":
        assert_close(views.crops[5:], views.crops[:5].flip(-1))


def test_wrong_images_and_rules_are_refused() -> None:
    with pytest.raises(ClipadError, match="resize: found 'squash'"):
        make_views(np.zeros((8, 8, 3), dtype=np.uint8), 32, "squash")


@pytest.mark.parametrize("multi_crop", ["none", "ten"])
def test_three_rules_cut_the_same_from_a_square_image(photo: np.ndarray, multi_crop: str) -> None:
    square = np.ascontiguousarray(photo[:, :90])
    first, *alike = [make_views(square, 32, rule, "rgb", multi_crop) for rule in ALIKE_ON_SQUARES]
    for views in alike:
        assert torch.equal(first.pixels, views.pixels) and torch.equal(first.crops, views.crops)
        assert first.placement == views.placement


@pytest.mark.parametrize("shape", [(60, 100), (100, 60), (50, 400), (64, 64), (300, 100)])
@pytest.mark.parametrize("size", [(24, 40), (40, 24)])
def test_tiles_that_are_no_squares_keep_the_aspect_and_cover_everything(shape, size) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    views = make_views(image, size, "tiles")
    height, width = views.placement.canvas
    assert min(height - size[0], width - size[1]) == 0
    assert abs(height / width - shape[0] / shape[1]) < shape[0] / shape[1] / min(size)
    covered = np.zeros((height, width), dtype=int)
    for left, top in views.placement.corners:
        covered[top : top + size[0], left : left + size[1]] += 1
    assert (covered > 0).all() and views.pixels.shape[1:] == (3, *size)
    along = size[1] if width > size[1] else size[0]
    starts = sorted(max(corner) for corner in views.placement.corners)
    assert all(b - a <= 0.8 * along + 1 for a, b in zip(starts, starts[1:], strict=False))
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    whole = normalise(torch.tensor(np.asarray(resized)).permute(2, 0, 1)[None].float() / 255)[0]
    for view, (left, top) in zip(views.pixels, views.placement.corners, strict=True):
        assert_close(view, whole[:, top : top + size[0], left : left + size[1]])
    middle = make_views(image, size, "centre_crop").pixels[0]
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    assert_close(middle, whole[:, top : top + size[0], left : left + size[1]])


def test_crops_of_a_rectangle_have_its_proportions(photo: np.ndarray) -> None:
    """Seven eighths of 24 x 40 pixels are 21 x 35; the last of the five is the middle one."""
    whole = make_views(photo, (24, 40), "stretch").pixels[0]
    crops = make_views(photo, (24, 40), "stretch", multi_crop="five").crops
    assert crops.shape == (5, 3, 24, 40)
    for crop, (top, left) in zip(crops, ((0, 0), (0, 5), (3, 0), (3, 5), (1, 2)), strict=True):
        part = whole[None, :, top : top + 21, left : left + 35]
        enlarged = F.interpolate(part, (24, 40), mode="bicubic", antialias=True)[0]
        assert_close(crop, enlarged, atol=1e-5, rtol=0)


def test_a_square_may_be_said_in_two_numbers(photo: np.ndarray) -> None:
    for rule in ("tiles", "stretch"):
        number = make_views(photo, 32, rule, multi_crop="ten")
        pair = make_views(photo, (32, 32), rule, multi_crop="ten")
        assert torch.equal(number.pixels, pair.pixels) and torch.equal(number.crops, pair.crops)
        assert number.placement == pair.placement


@pytest.mark.parametrize("rule", ["none", "five", "ten"])
def test_a_normalised_image_is_its_own_view_and_its_crops_are_cut_from_it(photo, rule: str) -> None:
    views = make_views(photo, (24, 40), "stretch", multi_crop=rule)
    again = views_of_normalised(views.pixels[0], rule)
    assert torch.equal(again.pixels, views.pixels) and again.placement == views.placement
    assert_close(again.crops, views.crops, atol=1e-5, rtol=0)
