"""The detector: tiles, multi-crop, references, presets and what it refuses."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.features import LAST_BLOCK, encode_all
from clipad_core.clip.preprocess import Placement
from clipad_core.clip.vision import VisionTower
from clipad_core.errors import ClipadError
from clipad_core.methods.method import Category
from clipad_core.methods.winclip import windows
from clipad_core.methods.winclip.config import PRESETS, WinCLIPConfig, find_preset
from clipad_core.methods.winclip.detector import (
    WinCLIP,
    encode,
    image_recipe,
    prototypes,
    stitch,
)
from clipad_core.methods.winclip.scoring import Scores, build_memory, score


def photos(count: int, height: int = 40, width: int = 40) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("k_shot", [0, 2])
def test_every_preset_scores_images(micro: Backbone, preset: str, k_shot: int) -> None:
    detector = WinCLIP(micro, find_preset(preset), "bottle", photos(4)[2:][:k_shot])
    detection = detector(photos(2))
    side = 400 if preset == "caoyunkang" else 32
    assert detection.image_score.shape == (2,) and detection.anomaly_map.shape == (2, side, side)
    assert detection.anomaly_map.std(dim=(1, 2)).min() > 0


def test_a_reference_scores_lower_than_another_image(micro: Backbone) -> None:
    first, second = photos(2)
    detection = WinCLIP(micro, find_preset("paper"), "bottle", [first])([first, second])
    assert detection.image_score[0] < detection.image_score[1]
    config = find_preset("paper").changed({"map_fusion": "visual"})
    detection = WinCLIP(micro, config, "bottle", [first])([first, second])
    assert detection.anomaly_map[0].max() < 1e-5 < detection.anomaly_map[1].max()


def test_the_few_shot_score_is_equation_6(micro: Backbone) -> None:
    config = find_preset("paper")
    features = encode_all(encode, micro, photos(3), image_recipe(config, 1))
    memory = build_memory(micro.vision, features[:1], config)
    text = prototypes(micro, config, Category("bottle"))
    scores = score(micro, features, text, config, memory)
    highest = scores.visual_map.flatten(1).amax(dim=1)
    assert_close(scores.image_score, (scores.text_score + highest) / 2)
    mean = torch.stack(list(scores.association_maps.values())).mean(dim=0)
    assert_close(scores.visual_map, mean)
    assert_close(scores.patch_scores, (scores.language_map + mean) / 2)


def test_tiles_average_where_they_overlap() -> None:
    """Two tiles of 4 on a canvas of 4 x 6: columns 2 and 3 lie in both."""
    maps = torch.stack([torch.zeros(2, 2), torch.ones(2, 2)])
    scores = Scores(torch.tensor([0.2, 0.8]), maps, torch.tensor([0.2, 0.8]), {}, maps, {}, None)
    place = Placement(((0, 0), (2, 0)), (4, 6))
    ((image_score, anomaly_map),) = stitch(scores, [place], torch.zeros(0), WinCLIPConfig(), (4, 4))
    assert_close(image_score, torch.tensor(0.5))
    assert_close(anomaly_map[0], torch.tensor([0.0, 0.0, 0.5, 0.5, 1.0, 1.0]))


def test_multi_crop_replaces_the_text_score_by_the_mean_of_the_crops() -> None:
    maps = torch.zeros(1, 2, 2)
    scores = Scores(torch.tensor([0.2]), maps, torch.tensor([0.2]), {}, maps, {}, None)
    place, crops = Placement(((0, 0),), (4, 4), crops=2), torch.tensor([0.4, 0.8])
    ((image_score, _),) = stitch(scores, [place], crops, WinCLIPConfig(), (4, 4))
    assert_close(image_score, torch.tensor(0.6))
    few_shot = Scores(torch.tensor([0.5]), maps, torch.tensor([0.2]), {}, maps, {}, maps)
    ((image_score, _),) = stitch(few_shot, [place], crops, WinCLIPConfig(), (4, 4))
    assert_close(image_score, torch.tensor(0.5 + 0.5 * (0.6 - 0.2)))


@pytest.mark.parametrize("rule", ["none", "five", "ten"])
def test_images_of_any_aspect_are_scored_whole(micro: Backbone, rule: str) -> None:
    config = find_preset("paper").changed({"multi_crop": rule})
    detection = WinCLIP(micro, config, "bottle")(photos(2, 40, 70))
    assert detection.anomaly_map.shape == (2, 32, 56)


def test_scores_do_not_depend_on_the_batch(micro: Backbone) -> None:
    detector = WinCLIP(micro, find_preset("paper"), "bottle", photos(1))
    images = photos(5)
    together, alone = detector(images), detector(images[3:4])
    assert_close(together.image_score[3:4], alone.image_score, atol=1e-6, rtol=0)
    assert_close(together.anomaly_map[3:4], alone.anomaly_map, atol=1e-6, rtol=0)


def test_more_scales_and_fewer_parts_are_encoded_only_where_read() -> None:
    paper = find_preset("paper")
    assert image_recipe(paper, 0).scales == (2, 3) and not image_recipe(paper, 0).blocks
    assert image_recipe(paper, 1).blocks == (LAST_BLOCK,)
    single = paper.changed({"scales": [2], "memory_scales": [3]})
    assert image_recipe(single, 0).scales == (2,) and image_recipe(single, 1).scales == (2, 3)
    tokens = paper.changed({"map_source": "patch_tokens"})
    assert image_recipe(tokens, 0).blocks and image_recipe(tokens, 0).scales == ()


def test_blank_windows_stop_the_run(micro: Backbone, monkeypatch) -> None:
    plain = windows._encode_windows

    def constant(tower: VisionTower, *arguments: Any) -> Tensor:
        *_, scale, _ = arguments
        embeddings = plain(tower, *arguments)
        return torch.ones_like(embeddings) if scale == 2 else embeddings

    monkeypatch.setattr(windows, "_encode_windows", constant)
    with pytest.raises(ClipadError, match="scale 2: all windows of every image"):
        WinCLIP(micro, find_preset("paper"), "bottle")(photos(2))


def test_a_temperature_that_leaves_one_score_stops_the_run(micro: Backbone) -> None:
    detector = WinCLIP(micro, find_preset("paper").changed({"temperature": 1e-9}), "bottle")
    with pytest.raises(ClipadError, match="found a map with .* everywhere"):
        detector(photos(2))


def test_nan_weights_stop_the_run(micro: Backbone) -> None:
    config = find_preset("paper")
    features = encode_all(encode, micro, photos(1), image_recipe(config, 0))
    features = replace(features, image_embedding=features.image_embedding * float("nan"))
    text = prototypes(micro, config, Category("bottle"))
    with pytest.raises(ClipadError, match="NaN or infinite"):
        score(micro, features, text, config)


def test_no_images_and_mixed_shapes_are_refused(micro: Backbone) -> None:
    detector = WinCLIP(micro, find_preset("paper"), "bottle")
    with pytest.raises(ClipadError, match="images: found none"):
        detector([])
    with pytest.raises(ClipadError, match="call once each"):
        detector([photos(1)[0], photos(1, 40, 80)[0]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temprature": 1}, "winclip: found an unknown temprature, expected fields of"),
        ({"temperature": 0}, "temperature: found 0"),
        ({"temperature": "warm"}, "temperature: found 'warm', expected float or one of 'clip'"),
        ({"scales": 2}, "scales: found 2, expected a list of int"),
        ({"image_scale": "no"}, "image_scale: found 'no', expected bool"),
        ({"map_fusion": "median"}, "map_fusion: found 'median'"),
        ({"prompts": "full"}, "prompts: found 'full'"),
        ({"scales": [], "image_scale": False}, "scales: found none"),
        ({"patch_feature": "none", "memory_scales": []}, "memory_scales: found none"),
    ],
)
def test_wrong_fields_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ClipadError, match=message):
        find_preset("paper").changed(changes)


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ClipadError, match="expected one of paper, anomalib, zqhang"):
        find_preset("best")


def test_presets_differ_and_the_default_is_the_paper() -> None:
    assert PRESETS["paper"] == WinCLIPConfig()
    assert len(set(PRESETS.values())) == len(PRESETS)


def test_the_published_setting_is_the_default() -> None:
    """The spec's table 10 and the paper's addendum, row by row."""
    paper = WinCLIPConfig()
    assert (paper.prompts, paper.scales, paper.image_scale) == ("full22_dot", (2, 3), True)
    assert (paper.window_aggregation, paper.scale_fusion) == ("harmonic", "harmonic")
    assert (paper.zero_shot_image_score, paper.few_shot_image_score) == ("text", "both")
    assert (paper.resize, paper.test_channels, paper.map_source) == ("tiles", "rgb", "windows")
