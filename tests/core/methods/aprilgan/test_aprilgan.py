"""APRIL-GAN: naive formulas, what depends on what, its files, and one message for what cannot work."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from aprilgan_cases import SMALL
from micro import MICRO, add_config
from torch.testing import assert_close
from vcpclip_cases import pictures

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.features import encode_all
from clipad_core.clip.one_pass import encode
from clipad_core.clip.prepare import prepare
from clipad_core.clip.text import encode_prompts
from clipad_core.detection import Detection
from clipad_core.errors import ClipadError
from clipad_core.methods.aprilgan import METHOD
from clipad_core.methods.aprilgan.checkpoint import (
    NAME,
    official_bytes,
    read_official,
    to_official,
)
from clipad_core.methods.aprilgan.config import APRILGANConfig, find_preset
from clipad_core.methods.aprilgan.detector import (
    APRILGAN,
    epochs,
    prepare_backbone,
    recipe,
    stretched,
)
from clipad_core.methods.aprilgan.learner import make_learner
from clipad_core.methods.aprilgan.text import batch_text, check_category, class_text
from clipad_core.methods.checkpoint import checkpoint_bytes, read_checkpoint
from clipad_core.methods.method import Category

IMAGES = pictures([(40, 52), (48, 48), (60, 30), (33, 33)])
SHOTS = pictures([(50, 50), (64, 40)])


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    add_config(tmp_path_factory.mktemp("april"), "clipad-micro-april", MICRO | {"embed_dim": 24})
    return load_backbone("clipad-micro-april", "random:0", precision="float64")


def detection_of(backbone: Backbone, shots: int, **changes: Any) -> Detection:
    config = SMALL.changed(changes)
    learner = make_learner(backbone, config, 3)
    return APRILGAN(backbone, config, learner, "metal_nut", SHOTS[:shots])(IMAGES)


def naive_detection(backbone: Backbone, shots: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Text scores and maps by the plain formulas: one image, one block, one class at a time."""
    prepared, learner = prepare_backbone(backbone, SMALL), make_learner(backbone, SMALL, 3)
    sentences = [
        [t.replace("{}", s.replace("{}", "metal_nut")) for s in states for t in SMALL.templates]
        for states in (SMALL.normal_states, SMALL.anomalous_states)
    ]
    text = torch.stack(
        [
            F.normalize(
                F.normalize(encode_prompts(prepared.text, prepared.tokenizer, group), dim=-1).mean(
                    0
                ),
                dim=-1,
            )
            for group in sentences
        ]
    )
    features = encode_all(encode, prepared, IMAGES, recipe(SMALL, shots))
    scores, maps = [], []
    for image in range(len(IMAGES)):
        unit = F.normalize(features.image_embedding[image], dim=-1)
        scores.append((100 * unit @ text.T).softmax(dim=-1)[1])
        total = torch.zeros(48, 48, dtype=torch.float64)
        for head, block in zip(learner.heads, SMALL.blocks, strict=True):
            mapped = F.normalize(head(features.patch_tokens[block][image]), dim=-1)
            grid = (100 * mapped @ text.T).T.reshape(1, 2, 6, 6)
            large = F.interpolate(grid, (48, 48), mode="bilinear", align_corners=True)
            total = total + large.softmax(dim=1)[0, 1]
        for block in SMALL.memory_blocks if shots else ():
            memory = encode_all(encode, prepared, SHOTS[:shots], recipe(SMALL, shots))
            rows = memory.patch_tokens[block].flatten(0, 1)
            nearest = [
                min(1 - F.cosine_similarity(row, patch, dim=0) for row in rows)
                for patch in features.patch_tokens[block][image]
            ]
            grid = torch.stack(nearest).reshape(1, 1, 6, 6)
            large = F.interpolate(grid, (48, 48), mode="bilinear", align_corners=True)
            total = total + large[0, 0]
        maps.append(total.detach())
    return torch.stack(scores), torch.stack(maps)


@pytest.mark.parametrize("shots", [0, 2])
def test_detection_is_the_plain_formulas(backbone: Backbone, shots: int) -> None:
    scores, maps = naive_detection(backbone, shots)
    detection = detection_of(backbone, shots, few_shot_image_score="text")
    assert_close(detection.image_score, scores, atol=1e-9, rtol=0)
    assert_close(detection.anomaly_map, maps, atol=1e-9, rtol=0)


def test_image_scores_of_a_category_are_half_text_and_half_stretched_maximum(
    backbone: Backbone,
) -> None:
    text = detection_of(backbone, 2, few_shot_image_score="text")
    maxima = text.anomaly_map.amax(dim=(1, 2))
    share = (maxima - maxima.min()) / (maxima.max() - maxima.min())
    expected = (text.image_score + share) / 2
    assert_close(detection_of(backbone, 2).image_score, expected)
    added = detection_of(backbone, 2, few_shot_image_score="added")
    assert_close(added.image_score, text.image_score + maxima)
    without = detection_of(backbone, 0)
    assert_close(without.image_score, text.image_score)  # references never change the text score


def test_an_image_score_of_a_whole_category_depends_on_its_other_images(
    backbone: Backbone,
) -> None:
    learner = make_learner(backbone, SMALL, 3)
    for shots, alone in ((0, True), (1, False)):
        detector = APRILGAN(backbone, SMALL, learner, "nut", SHOTS[:shots])
        whole, some = detector(IMAGES), detector(IMAGES[:2])
        assert torch.allclose(whole.image_score[:2], some.image_score) is alone
        assert torch.allclose(whole.anomaly_map[:2], some.anomaly_map)


def test_a_category_of_one_image_or_of_equal_maxima_is_one_message(backbone: Backbone) -> None:
    detector = APRILGAN(backbone, SMALL, make_learner(backbone, SMALL, 3), "nut", SHOTS)
    with pytest.raises(ClipadError, match="few_shot_image_score: found one test image, expected"):
        detector(IMAGES[:1])
    equal = Detection(torch.zeros(2), torch.ones(2, 3, 3))
    with pytest.raises(ClipadError, match="found 2 maps of one maximum, expected two images"):
        stretched(equal)


def test_what_is_learned_changes_maps_and_no_image_score(backbone: Backbone) -> None:
    detections = []
    for seed in (3, 4):
        learner = make_learner(backbone, SMALL, seed)
        detections.append(APRILGAN(backbone, SMALL, learner, "nut")(IMAGES))
    first, second = detections
    assert torch.equal(first.image_score, second.image_score)
    assert not torch.allclose(first.anomaly_map, second.anomaly_map)


def test_a_batch_is_trained_against_its_first_class_or_each_image_against_its_own(
    backbone: Backbone,
) -> None:
    prepared, names = prepare_backbone(backbone, SMALL), ["metal_nut", "cable", "metal_nut"]
    first = batch_text(prepared, SMALL, names)
    assert torch.equal(first, class_text(prepared, SMALL, "metal_nut")[None])
    own = batch_text(prepared, SMALL.changed({"batch_text": "own"}), names)
    assert own.shape == (3, 2, 24) and torch.equal(own[0], own[2])
    assert torch.equal(own[1], class_text(prepared, SMALL, "cable"))
    assert not torch.equal(
        own[0], class_text(prepared, SMALL.changed({"class_name": "spaces"}), "metal_nut")
    )


def test_the_activation_depends_on_the_size_unless_it_is_named(backbone: Backbone) -> None:
    size = backbone.image_size
    openai = prepare(backbone, size, SMALL.positional, "quick_gelu")  # as OpenAI's weights say

    def quick(changes: dict[str, Any]) -> bool:
        prepared = prepare_backbone(openai, SMALL.changed(changes))
        towers = (prepared.vision.transformer, prepared.text.transformer)
        assert towers[0].quick_gelu is towers[1].quick_gelu
        return towers[0].quick_gelu

    assert not quick({}) and quick({"image_size": size})
    assert quick({"activation": "backbone"}) and not quick({"activation": "gelu"})


def test_it_is_trained_longer_on_every_dataset_but_mvtec() -> None:
    config = APRILGANConfig()
    assert (epochs(config, "visa"), epochs(config, "mvtec")) == (15, 3)
    assert epochs(config.changed({"epochs": 0}), "mvtec") == 0
    assert METHOD.training is not None and METHOD.training.epochs is epochs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"templates": ["a photo"]}, "templates: found 'a photo', expected {} once, where the st"),
        ({"normal_states": ["{} {}"]}, "normal_states: found '{} {}', expected {} once, where the"),
        ({"anomalous_states": []}, "anomalous_states: found none, expected at least one"),
        ({"blocks": [6, 6]}, "blocks: found (6, 6), expected different block numbers"),
        ({"memory_blocks": []}, "memory_blocks: found (), expected different block numbers"),
        ({"temperature": 0}, "temperature: found 0.0, expected a number above 0"),
        ({"mosaic_rate": 1.5}, "mosaic_rate: found 1.5, expected 0 to 1"),
        ({"epochs": -1}, "epochs: found -1, expected at least 0"),
        ({"betas": [0.9]}, "betas: found (0.9,), expected two numbers"),
        (
            {"batch_text": "all"},
            "aprilgan: batch_text: found 'all', expected one of 'first', 'own'",
        ),
    ],
)
def test_a_field_that_no_code_path_knows_is_one_message(changes: dict, message: str) -> None:
    with pytest.raises(ClipadError) as raised:
        APRILGANConfig().changed(changes)
    assert message in str(raised.value)


def test_blocks_that_the_backbone_lacks_and_names_that_are_too_long_are_one_message(
    backbone: Backbone,
) -> None:
    for field in ("blocks", "memory_blocks"):
        with pytest.raises(ClipadError, match=f"^{field}: found 24, expected at most 3"):
            prepare_backbone(backbone, SMALL.changed({field: [1, 24]}))
    with pytest.raises(ClipadError, match="prompt: found one of 77 tokens or more"):
        check_category(backbone, SMALL, Category("nut " * 80))
    check_category(backbone, SMALL, Category("nut"))


def test_presets_differ_where_the_code_changed_and_where_the_paper_says_otherwise() -> None:
    release, head, paper = (find_preset(name) for name in ("first_release", "head", "paper"))
    assert (release.batch_text, head.batch_text) == ("first", "own")
    assert head.changed({"batch_size": 16, "few_shot_image_score": "added"}) == paper
    with pytest.raises(ClipadError, match="expected one of first_release, head, paper"):
        find_preset("code")


def test_an_official_file_there_and_back_is_exact(backbone: Backbone, tmp_path: Path) -> None:
    learner, path = make_learner(backbone, SMALL, 3), tmp_path / "visa_pretrained.pth"
    path.write_bytes(official_bytes(learner))
    again = read_official(path, backbone, SMALL)
    assert all(
        torch.equal(value, again.state_dict()[name]) for name, value in learner.state_dict().items()
    )
    assert all(parameter.requires_grad for parameter in again.parameters())
    assert official_bytes(again) == path.read_bytes()
    own = tmp_path / "ours.safetensors"
    own.write_bytes(checkpoint_bytes(NAME, learner, SMALL, backbone, "d" * 64))
    ours, config, _ = read_checkpoint(NAME, own, backbone)
    assert config == SMALL
    assert torch.equal(ours.state_dict()["heads.1.bias"], learner.heads[1].bias)


def test_an_official_file_of_other_blocks_or_widths_is_one_message(
    backbone: Backbone, tmp_path: Path
) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(official_bytes(make_learner(backbone, SMALL, 3)))
    for blocks, message in (
        ([1], "holds 2 linear layers, expected 1, one for each of the blocks 1; name"),
        ([1, 2, 3], "holds 2 linear layers, expected 3, one for each of the blocks 1, 2, 3; name"),
    ):
        with pytest.raises(ClipadError) as raised:
            read_official(path, backbone, SMALL.changed({"blocks": blocks}))
        assert str(path) in str(raised.value) and message in str(raised.value)
    groups = to_official(make_learner(backbone, SMALL, 3))
    groups["trainable_linearlayer"]["fc.0.weight"] = torch.zeros(768, 1024)
    torch.save(groups, path)
    with pytest.raises(ClipadError, match=r"fc.0.weight is \(768, 1024\), expected \(24, 32\)"):
        read_official(path, backbone, SMALL)
