"""Backbones whose grid is no square: every method runs on one, and its maps lie where they should."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from aprilgan_cases import SMALL as APRILGAN_SMALL
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.testing import assert_close
from vcpclip_cases import SMALL as VCPCLIP_SMALL
from vcpclip_cases import pictures

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.features import encode_all
from clipad_core.clip.preprocess import make_views
from clipad_core.clip.vision import embed_patches, encode_whole, pre_norm, project
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_core.methods.anomalyclip.config import AnomalyCLIPConfig
from clipad_core.methods.method import Category, Detector
from clipad_core.methods.vcpclip.detector import branch_maps
from clipad_core.methods.vcpclip.maps import raw_logits
from clipad_core.methods.vcpclip.text import text_embeddings
from clipad_core.methods.winclip.config import WinCLIPConfig
from clipad_core.methods.winclip.detector import WinCLIP, prototypes

GRID, SIZE = (3, 5), (24, 40)
WINCLIP = WinCLIPConfig().changed({"prompts": "two_class", "memory_scales": [2]})
LEARNED: dict[str, Any] = {
    "anomalyclip": AnomalyCLIPConfig().changed(
        {"image_size": 48, "blocks": [1, 3], "dpam_from_layer": 2, "prompt_depth": 2, "sigma": 1.0}
    ),
    "aprilgan": APRILGAN_SMALL,
    "vcpclip": VCPCLIP_SMALL,
}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(0))


def test_a_rectangle_says_what_it_takes(rectangle: Backbone) -> None:
    assert (rectangle.vision.grid, rectangle.input_size) == (GRID, SIZE)
    assert rectangle.image_size == 24


def covering(scale: int, row: int, column: int) -> list[tuple[int, int]]:
    """Top left patches of the windows that cover a patch."""
    return [
        (top, left)
        for top in range(GRID[0] - scale + 1)
        for left in range(GRID[1] - scale + 1)
        if top <= row < top + scale and left <= column < left + scale
    ]


def naive_window(backbone: Backbone, image: Tensor, scale: int, top: int, left: int) -> Tensor:
    """The class token of a window: its patches alone go through the tower."""
    embedded, _ = embed_patches(backbone.vision, image[None])
    rows, columns = range(top, top + scale), range(left, left + scale)
    inside = [0, *(1 + row * GRID[1] + column for row in rows for column in columns)]
    last, _ = encode_whole(backbone.vision, pre_norm(backbone.vision, embedded[:, inside]), ())
    return project(backbone.vision, last)[0]


def naive_patches(backbone: Backbone, image: Tensor) -> Tensor:
    embedded, _ = embed_patches(backbone.vision, image[None])
    depth = backbone.vision.depth
    _, tokens = encode_whole(backbone.vision, pre_norm(backbone.vision, embedded), [depth])
    return F.normalize(backbone.vision.ln_post(tokens[depth][0]), dim=-1)


def anomalous(embedding: Tensor, text: Tensor) -> float:
    """Eq. (1) of WinCLIP."""
    return float((embedding @ text.T / 0.07).softmax(dim=-1)[1])


def spread(scores: dict[tuple[int, int], float], scale: int) -> Tensor:
    """Eq. (3) of WinCLIP: the harmonic mean over the windows of every patch."""
    patch_scores = torch.zeros(GRID)
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            values = [scores[window] for window in covering(scale, row, column)]
            patch_scores[row, column] = len(values) / sum(1 / value for value in values)
    return patch_scores


def naive_winclip(
    backbone: Backbone, image: Tensor, shot: Tensor | None, text: Tensor
) -> tuple[float, Tensor]:
    """Image score and map of one image, window by window."""
    windows = {
        scale: {
            (top, left): naive_window(backbone, image, scale, top, left)
            for top in range(GRID[0] - scale + 1)
            for left in range(GRID[1] - scale + 1)
        }
        for scale in (2, 3)
    }
    embedded, _ = embed_patches(backbone.vision, image[None])
    last, _ = encode_whole(backbone.vision, pre_norm(backbone.vision, embedded), ())
    score = anomalous(project(backbone.vision, last)[0], text)
    maps = [torch.full(GRID, score)]
    for scale, embeddings in windows.items():
        maps.append(spread({place: anomalous(e, text) for place, e in embeddings.items()}, scale))
    grid = len(maps) / sum(1 / scores for scores in maps)
    if shot is not None:
        memory = [naive_window(backbone, shot, 2, top, left) for top, left in windows[2]]
        far = {
            place: min(float(1 - window @ reference) / 2 for reference in memory)
            for place, window in windows[2].items()
        }
        patches, references = naive_patches(backbone, image), naive_patches(backbone, shot)
        nearest = ((1 - patches @ references.T) / 2).amin(dim=1).reshape(GRID)
        visual = (nearest + spread(far, 2)) / 2
        score, grid = (score + float(visual.max())) / 2, (grid + visual) / 2
    large = F.interpolate(grid[None, None], SIZE, mode="bilinear", align_corners=False)
    return score, large[0, 0]


@torch.no_grad()
@pytest.mark.parametrize("k_shot", [0, 1])
def test_winclip_on_a_rectangle_equals_the_equations(
    rectangle: Backbone, images: Tensor, k_shot: int
) -> None:
    detection = WinCLIP(rectangle, WINCLIP, "nut", images[:k_shot])(images[1:])
    text = prototypes(rectangle, WINCLIP, Category("nut"))
    shot = images[0] if k_shot else None
    for place, image in enumerate(images[1:]):
        score, anomaly_map = naive_winclip(rectangle, image, shot, text)
        assert detection.image_score[place].item() == pytest.approx(score, abs=2e-6)
        assert_close(detection.anomaly_map[place], anomaly_map, atol=5e-6, rtol=0)


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (40, 40)),
        ({"multi_crop": "ten"}, (40, 40)),
        ({"resize": "stretch"}, SIZE),
        ({"resize": "stretch_float"}, SIZE),
        ({"resize": "stretch_1024"}, SIZE),
        ({"resize": "centre_crop"}, SIZE),
        ({"map_size": 30}, (30, 30)),
        ({"map_source": "patch_tokens"}, (40, 40)),
    ],
)
def test_winclip_on_a_rectangle_takes_images_of_any_size(
    rectangle: Backbone, changes: dict, shape: tuple[int, int]
) -> None:
    shots, images = pictures([(20, 90)]), pictures([(50, 50), (72, 72)])
    detector = WinCLIP(rectangle, WINCLIP.changed(changes), "nut", shots)
    detection = detector(images)
    assert detection.anomaly_map.shape == (2, *shape) and detection.image_score.shape == (2,)
    assert detection.anomaly_map.std(dim=(1, 2)).min() > 0


def test_views_in_a_row_are_put_together_where_they_lie(rectangle: Backbone) -> None:
    (image,) = pictures([(40, 40)])
    views = make_views(image, SIZE, "tiles")
    assert views.placement.corners == ((0, 0), (0, 16)) and views.placement.canvas == (40, 40)
    detector = WinCLIP(rectangle, WINCLIP, "nut")
    upper, lower = detector(views.pixels).anomaly_map
    whole = detector([image])
    assert_close(whole.anomaly_map[0, :16], upper[:16])
    assert_close(whole.anomaly_map[0, 16:24], (upper[16:] + lower[:8]) / 2)
    assert_close(whole.anomaly_map[0, 24:], lower[8:])
    assert_close(whole.image_score, detector(views.pixels).image_score.mean(dim=0, keepdim=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"scales": [4]},
            "scales: found a window of 4 patches, expected 1 to 3 on a grid of 3 x 5",
        ),
        ({"memory_scales": [5]}, "scales: found a window of 5 patches, expected 1 to 3 on a grid"),
        (
            {"map_source": "tiles"},
            "map_source: found tiles of 4 patches, expected at most 3 on a gri",
        ),
    ],
)
def test_windows_that_exceed_the_shorter_side_are_refused(
    rectangle: Backbone, images: Tensor, changes: dict, message: str
) -> None:
    with pytest.raises(ClipadError, match=message):
        WinCLIP(rectangle, WINCLIP.changed(changes), "nut", images[:1])(images[1:])


@pytest.mark.parametrize("name", LEARNED)
def test_a_learned_method_keeps_the_proportions(rectangle: Backbone, name: str) -> None:
    method, config = find_method(name), LEARNED[name]
    assert method.training is not None
    learner = method.training.make_learner(rectangle, config, 3)
    detector = Detector(method, rectangle, config, learner=learner)
    assert detector.backbone.vision.grid == (6, 10)
    assert (detector.backbone.input_size, detector.backbone.image_size) == ((48, 80), 24)
    images = pictures([(30, 40), (64, 20)])
    detection = detector(images)
    assert detection.anomaly_map.shape == (2, 48, 80)
    pixels = torch.cat([make_views(image, (48, 80), "stretch").pixels for image in images])
    assert_close(detector(pixels).anomaly_map, detection.anomaly_map)
    features = encode_all(method.encode, detector.backbone, images, detector.recipe)
    masks, labels = torch.zeros(2, 48, 80), torch.tensor([0, 1])
    masks[1, 10:20, 60:75] = 1
    learn = (learner, detector.backbone, config, features, labels)
    assert method.training.loss(*learn, masks, None, ["nut"] * 2)["total"] > 0
    with pytest.raises(ClipadError, match=r"masks: found \(2, 48, 48\), expected \(2, 48, 80\)"):
        method.training.loss(*learn, masks[..., :48], None, ["nut"] * 2)
    with pytest.raises(
        ClipadError, match="image_size: found 32, expected a multiple of 24, so that"
    ):
        Detector(method, rectangle, config.changed({"image_size": 32}), learner=learner)


@torch.no_grad()
def test_maps_of_anomalyclip_lie_on_the_rectangle(rectangle: Backbone) -> None:
    method, config = find_method("anomalyclip"), LEARNED["anomalyclip"]
    assert method.training is not None
    backbone = method.prepare(rectangle, config)
    learner = method.training.make_learner(rectangle, config, 3)
    features = encode_all(method.encode, backbone, pictures([(48, 80)]), method.recipe(config, 0))
    knowledge = method.know(backbone, config, Category(), None, learner)
    expected = torch.zeros(48, 80)
    for block in config.blocks:
        tokens = features.patch_tokens[block][0].reshape(6, 10, -1)
        grid = torch.zeros(6, 10)
        for row in range(6):
            for column in range(10):
                grid[row, column] = anomalous(tokens[row, column], knowledge.text[0])
        expected += F.interpolate(grid[None, None], (48, 80), mode="bilinear")[0, 0]
    smooth = gaussian_filter(expected.numpy(), sigma=1.0)
    anomaly_map = method.detect(backbone, config, knowledge, features).anomaly_map[0]
    np.testing.assert_allclose(anomaly_map.numpy(), smooth, atol=5e-6)


@torch.no_grad()
def test_maps_of_vcpclip_lie_on_the_rectangle(rectangle: Backbone) -> None:
    method, config = find_method("vcpclip"), LEARNED["vcpclip"]
    assert method.training is not None
    backbone = method.prepare(rectangle, config)
    learner: Any = method.training.make_learner(rectangle, config, 3)
    features = encode_all(method.encode, backbone, pictures([(48, 80)]), method.recipe(config, 0))
    text = text_embeddings(learner, backbone, config, features.image_embedding)
    expected = torch.zeros(48, 80)
    for logits in raw_logits(learner, config, features, text):
        channels = logits[0].reshape(6, 10, 2).permute(2, 0, 1)[None]
        large = F.interpolate(channels, (48, 80), mode="bilinear", align_corners=True)
        expected += large.softmax(dim=1)[0, 1] / len(config.blocks)
    raw, _ = branch_maps(learner, backbone, config, features)
    assert_close(raw[0], expected, atol=5e-6, rtol=0)


def test_more_top_pixels_than_a_rectangle_has_are_refused(rectangle: Backbone) -> None:
    method = find_method("vcpclip")
    config = LEARNED["vcpclip"].changed({"top_pixels": 3841})
    assert method.training is not None
    learner = method.training.make_learner(rectangle, config, 3)
    with pytest.raises(ClipadError, match="top_pixels: found 3841, expected at most 3840"):
        Detector(method, rectangle, config, learner=learner)(pictures([(48, 80)]))
