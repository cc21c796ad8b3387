"""Refinements against naive versions, by hand, and what must hold of every one of them."""

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from clipad_core import WinCLIP, WinCLIPConfig
from clipad_core.clip.backbone import Backbone
from clipad_core.clip.features import canvas_of
from clipad_core.clip.preprocess import canvas, make_views, normalise
from clipad_core.errors import ClipadError
from clipad_core.refinement import (
    Felzenszwalb,
    GuidedFilter,
    RefinedDetector,
    Refinement,
    Slic,
    read_refinement,
    refine_maps,
)
from clipad_core.refinement.guided import guided_filter
from clipad_core.refinement.regions import RegionMeans, region_means

REGIONS = [Slic(count=12), Felzenszwalb(scale=50.0, sigma=0.0, min_size=5)]
REFINEMENTS = [GuidedFilter(), GuidedFilter(guide="grey"), *REGIONS]


@pytest.fixture
def image() -> np.ndarray:
    """Two halves of different colours, with noise that keeps them apart."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 20, (24, 32, 3))
    pixels[:, 16:] += 200
    return pixels.astype(np.uint8)


@pytest.fixture
def blurred() -> np.ndarray:
    """A map whose edge lies where the image's does, blurred over the whole width."""
    return np.tile(np.linspace(0, 1, 32), (24, 1)) + np.random.default_rng(1).random((24, 32)) / 50


def naive_guided_filter(guide, values, radius, epsilon):
    """He et al., Eqs. (14) to (16): one window at a time, then one pixel at a time."""
    height, width, channels = guide.shape
    slopes, offsets = np.zeros(guide.shape), np.zeros(values.shape)

    def window(row, column):
        return (
            slice(max(0, row - radius), row + radius + 1),
            slice(max(0, column - radius), column + radius + 1),
        )

    for row in range(height):
        for column in range(width):
            colours = guide[window(row, column)].reshape(-1, channels)
            inside = values[window(row, column)].ravel()
            covariance = np.cov(colours.T, bias=True).reshape(channels, channels)
            together = (colours * inside[:, None]).mean(0) - colours.mean(0) * inside.mean()
            slope = np.linalg.inv(covariance + epsilon * np.eye(channels)) @ together
            slopes[row, column] = slope
            offsets[row, column] = inside.mean() - slope @ colours.mean(0)
    output = np.zeros(values.shape)
    for row in range(height):
        for column in range(width):
            mean_slope = slopes[window(row, column)].reshape(-1, channels).mean(0)
            mean_offset = offsets[window(row, column)].mean()
            output[row, column] = mean_slope @ guide[row, column] + mean_offset
    return output


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("radius", [1, 3, 20])
def test_the_guided_filter_is_that_of_its_paper(channels: int, radius: int) -> None:
    generator = np.random.default_rng(channels)
    guide, values = generator.random((9, 11, channels)), generator.random((9, 11))
    expected = naive_guided_filter(guide, values, radius, 0.01)
    assert_allclose(guided_filter(guide, values, radius, 0.01), expected, rtol=0, atol=1e-10)


def test_the_grey_guide_is_the_brightness_and_the_radius_a_share_of_the_shorter_side(
    image: np.ndarray, blurred: np.ndarray
) -> None:
    grey = image.astype(np.float64) @ [0.299, 0.587, 0.114] / 255
    refined = GuidedFilter(radius=0.125, epsilon=0.02, guide="grey")(image, blurred)
    assert_allclose(refined, naive_guided_filter(grey[..., None], blurred, 3, 0.02), atol=1e-10)
    colour = GuidedFilter(radius=0.001, epsilon=0.02)(image, blurred)
    assert_allclose(colour, naive_guided_filter(image / 255, blurred, 1, 0.02), atol=1e-10)


def test_without_edges_the_guided_filter_is_two_box_filters() -> None:
    flat, values = np.full((8, 8, 3), 9, np.uint8), np.zeros((8, 8))
    values[4, 4] = 81.0
    refined = GuidedFilter(radius=0.125)(flat, values)
    assert_allclose(refined[4, 2:7], [3, 6, 9, 6, 3], atol=1e-9)


def test_region_means_by_hand_keep_what_is_in_no_region() -> None:
    values = np.array([[1.0, 3.0, 5.0, 6.0], [2.0, 7.0, 9.0, 4.0]])
    regions = np.array([[0, 0, -1, -1], [0, 2, 2, -1]])
    assert_array_equal(region_means(values, regions), [[2, 2, 5, 6], [2, 8, 8, 4]])


@pytest.mark.parametrize("number", [-1, 0, 3])
def test_a_single_region_or_none_leaves_the_very_map(number: int) -> None:
    values = np.random.default_rng(0).random((4, 5))
    assert region_means(values, np.full((4, 5), number)) is values


@pytest.mark.parametrize("refinement", REGIONS, ids=lambda one: one.name)
def test_regions_are_scikit_image_s_and_their_means_the_map(
    refinement: RegionMeans, image: np.ndarray, blurred: np.ndarray
) -> None:
    segmentation = pytest.importorskip("skimage.segmentation")
    if isinstance(refinement, Slic):
        regions = segmentation.slic(image, n_segments=12, compactness=10)
    else:
        regions = segmentation.felzenszwalb(image, scale=50, sigma=0, min_size=5)
    refined = refinement(image, blurred)
    assert len(np.unique(regions)) > 1
    for number in np.unique(regions):
        inside = regions == number
        assert_allclose(refined[inside], blurred[inside].mean())


@pytest.mark.parametrize("refinement", REGIONS, ids=lambda one: one.name)
def test_no_region_crosses_an_edge_of_the_image(refinement: RegionMeans, image: np.ndarray) -> None:
    pytest.importorskip("skimage")
    regions = refinement.regions(image)
    assert not set(regions[:, :16].ravel()) & set(regions[:, 16:].ravel())


def test_an_image_of_one_colour_has_nothing_to_refine_a_map_by(blurred: np.ndarray) -> None:
    pytest.importorskip("skimage")
    flat = np.full((*blurred.shape, 3), 7, np.uint8)
    assert Felzenszwalb()(flat, blurred) is blurred
    maps, unrefined = refine_maps(Felzenszwalb(), [flat, flat], [blurred, blurred])
    assert unrefined == [0, 1] and maps[0] is blurred


@pytest.mark.parametrize("refinement", REFINEMENTS, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_refinement_keeps_type_and_finiteness_and_moves_with_the_scale_of_a_map(
    refinement: Refinement, dtype: type, image: np.ndarray, blurred: np.ndarray
) -> None:
    pytest.importorskip("skimage")
    values = blurred.astype(dtype)
    before = values.copy()
    refined = refinement(image, values)
    assert refined.dtype == dtype and refined.shape == values.shape
    assert np.isfinite(refined).all() and refined is not values
    assert_array_equal(values, before)  # the map that was given is not written into
    twice = refinement(image, (2 * values + 1).astype(dtype))
    assert_allclose(twice, 2 * refined + 1, atol=1e-5)


@pytest.mark.parametrize("refinement", REFINEMENTS, ids=repr)
def test_every_refinement_sharpens_an_edge_that_the_image_has(
    refinement: Refinement, image: np.ndarray, blurred: np.ndarray
) -> None:
    pytest.importorskip("skimage")
    steps = [np.diff(one.mean(axis=0))[15] for one in (blurred, refinement(image, blurred))]
    assert steps[1] > 1.5 * steps[0]


def test_an_image_of_another_size_than_its_map_is_refused(
    image: np.ndarray, blurred: np.ndarray
) -> None:
    for refinement in REFINEMENTS:
        with pytest.raises(ClipadError, match="found 24 x 32 pixels beside a map of 24 x 31"):
            refinement(image, blurred[:, 1:])


def test_maps_of_images_of_any_size_are_refined_at_their_own(image: np.ndarray) -> None:
    large = np.asarray(Image.fromarray(image).resize((64, 48), Image.Resampling.NEAREST))
    maps = [np.random.default_rng(2).random(shape) for shape in ((24, 32), (12, 16))]
    refined, unrefined = refine_maps(GuidedFilter(), [large, image], maps)
    assert [one.shape for one in refined] == [(24, 32), (12, 16)] and not unrefined
    small = np.asarray(Image.fromarray(large).resize((32, 24), Image.Resampling.BICUBIC))
    assert_array_equal(refined[0], GuidedFilter()(small, maps[0]))


@dataclass(frozen=True)
class Mirror(Refinement):
    """Of ones own: any subclass will do."""

    name: ClassVar[str] = "mirror"

    def __call__(self, image: np.ndarray, anomaly_map: np.ndarray) -> np.ndarray:
        return anomaly_map[:, ::-1].copy() if image.any() else anomaly_map


def test_a_detector_ends_with_a_refinement_and_its_scores_stay(micro: Backbone) -> None:
    detector = WinCLIP(micro, WinCLIPConfig(), "bottle")
    images = list(np.random.default_rng(3).integers(1, 255, (2, 40, 40, 3), dtype=np.uint8))
    plain, refined = detector(images), RefinedDetector(detector, Mirror())(images)
    assert torch.equal(refined.image_score, plain.image_score)
    assert torch.equal(refined.anomaly_map, plain.anomaly_map.flip(-1))
    assert refined.unrefined == ()
    guided = RefinedDetector(detector, GuidedFilter())(images).anomaly_map
    for image, anomaly_map, own in zip(images, plain.anomaly_map, guided):
        seen = canvas_of(detector.backbone, image, detector.recipe)
        assert_array_equal(own.numpy(), GuidedFilter()(seen, anomaly_map.numpy()))


def test_the_places_where_nothing_was_found_are_told(micro: Backbone) -> None:
    detector = WinCLIP(micro, WinCLIPConfig(), "bottle")
    images = list(np.random.default_rng(3).integers(1, 255, (3, 40, 40, 3), dtype=np.uint8))
    images[1][:] = 0
    detection = RefinedDetector(detector, Mirror())(images)
    assert detection.unrefined == (1,)
    expected = detector(images).anomaly_map
    assert torch.equal(detection.anomaly_map[1], expected[1])
    assert torch.equal(detection.anomaly_map[2], expected[2].flip(-1))


def test_a_tensor_shows_no_image_to_refine_by(micro: Backbone) -> None:
    detector = RefinedDetector(WinCLIP(micro, WinCLIPConfig(), "bottle"), GuidedFilter())
    with pytest.raises(ClipadError, match="found a tensor, expected RGB images"):
        detector(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    "rule", ["tiles", "stretch", "stretch_float", "stretch_1024", "centre_crop"]
)
def test_the_canvas_is_what_the_views_show(rule: str) -> None:
    image = np.random.default_rng(4).integers(0, 255, (40, 70, 3), dtype=np.uint8)
    shown, views = canvas(image, 32, rule), make_views(image, 32, rule)
    assert shown.shape[:2] == views.placement.canvas
    pixels = normalise(torch.from_numpy(shown).permute(2, 0, 1)[None].float() / 255)[0]
    for view, (left, top) in zip(views.pixels, views.placement.corners, strict=True):
        own = pixels[:, top : top + 32, left : left + 32]
        # Half a level of 255, divided by the deviations; floats that overshoot are cut.
        inside = (own > own.min() + 0.05) & (own < own.max() - 0.05)
        assert (own - view)[inside].abs().max() < 0.01


@pytest.mark.parametrize(
    "written, expected",
    [
        ("guided", GuidedFilter()),
        ({"guided": {"radius": 1, "guide": "grey"}}, GuidedFilter(radius=1.0, guide="grey")),
        ({"felzenszwalb": {}}, Felzenszwalb()),
        ({"slic": {"count": 50}}, Slic(count=50)),
        ("none", None),
    ],
)
def test_a_refinement_is_named_alone_or_with_settings(written: object, expected: object) -> None:
    assert read_refinement(written) == expected


@pytest.mark.parametrize(
    "written, message",
    [
        ("slick", "found 'slick', expected one of none, guided, slic, felzenszwalb, sam"),
        (None, "found None, expected one of none, guided"),
        ({"slic": {}, "guided": {}}, "expected one of none, guided"),
        ([], "expected one of none, guided"),
        ({"slic": {"regions": 3}}, "slic: found an unknown regions, expected fields of count"),
        ({"slic": {"count": 1}}, "count: found 1, expected at least 2"),
        ({"slic": None}, "slic: found None, expected names with values below them"),
        ({"guided": {"guide": "red"}}, "guide: found 'red', expected one of 'colour', 'grey'"),
        ({"guided": {"radius": 0}}, "radius: found 0.0, expected a number above 0"),
        ({"guided": {"epsilon": -1.0}}, "epsilon: found -1.0, expected a number above 0"),
        ({"felzenszwalb": {"sigma": -1.0}}, "sigma: found -1.0, expected a number from 0"),
        ({"felzenszwalb": {"min_size": 0}}, "min_size: found 0, expected at least 1"),
        ({"sam": {}}, "sam: found no checkpoint"),
    ],
)
def test_a_wrong_refinement_is_one_message_that_says_where(written: object, message: str) -> None:
    with pytest.raises(ClipadError, match=f"^here: .*{re.escape(message)}"):
        read_refinement(written, "here")


def test_equal_settings_have_equal_keys_and_others_others() -> None:
    keys = [str(one.key()) for one in (*REFINEMENTS, Slic(), Felzenszwalb(), Slic(count=201))]
    assert len(set(keys)) == len(keys)
    assert GuidedFilter().key() == GuidedFilter(radius=0.03).key()
