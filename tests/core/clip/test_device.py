"""Devices: their names, what is set there, and every method on an accelerator that needs no hardware."""

import os
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import pytest
import torch
from accelerator import NAME, OnDevice, Stray, accelerator
from aprilgan_cases import SMALL as APRILGAN_SMALL
from micro import MICRO, add_config
from torch import nn
from torch.testing import assert_close
from vcpclip_cases import SMALL as VCPCLIP_SMALL
from vcpclip_cases import pictures

from clipad_core.clip.backbone import AUTOCAST, Backbone, load_backbone
from clipad_core.clip.device import CUBLAS, WORKSPACES, chunk_sizes, find_device
from clipad_core.clip.features import encode_all
from clipad_core.clip.text import TextTower
from clipad_core.errors import ClipadError
from clipad_core.maps import upsample_by_matrices
from clipad_core.methods import find_method, rooms
from clipad_core.methods.anomalyclip.config import AnomalyCLIPConfig
from clipad_core.methods.clip.config import PRESETS as CLIP_PRESETS
from clipad_core.methods.coop.config import PRESETS as COOP_PRESETS
from clipad_core.methods.method import Detector
from clipad_core.methods.winclip.config import PRESETS as WINCLIP_PRESETS
from clipad_core.methods.winclip.config import WinCLIPConfig

__all__ = ["accelerator"]
*PICTURES, FIRST, SECOND = pictures([(40, 40), (32, 32), (70, 70), (50, 50), (60, 60)])
ANOMALYCLIP_SMALL = AnomalyCLIPConfig().changed(
    {"image_size": 48, "blocks": [1, 3], "dpam_from_layer": 2, "prompt_depth": 2, "sigma": 1.0}
)
# What each method reads and computes in some setting, so that every line runs on the device.
SETTINGS: dict[str, dict[str, Any]] = {
    "winclip": WINCLIP_PRESETS
    | {
        "tiles": WinCLIPConfig(map_source="tiles"),
        "tokens, ten crops": WinCLIPConfig(map_source="patch_tokens", multi_crop="ten"),
        "projected": WinCLIPConfig(patch_feature="projected", map_size=20),
    },
    "anomalyclip": {
        "published": ANOMALYCLIP_SMALL,
        "categories": ANOMALYCLIP_SMALL.changed({"object_word": "category"}),
        "ensemble": ANOMALYCLIP_SMALL.changed({"branch": "ensemble_qk", "shared_context": True}),
        "tower": ANOMALYCLIP_SMALL.changed({"branch": "none"}),
    },
    "aprilgan": {
        "first release": APRILGAN_SMALL,
        "one by one": APRILGAN_SMALL.changed(
            {"few_shot_image_score": "added", "batch_text": "own"}
        ),
        "native size": APRILGAN_SMALL.changed({"image_size": 40, "class_name": "object"}),
    },
    "clip": {
        name: preset.changed({"image_size": 48, "sigma": 1.0})
        for name, preset in CLIP_PRESETS.items()
        if name != "clip_ac_winclip_ensemble"
    }
    | {"one class": CLIP_PRESETS["clip"].changed({"image_size": 48, "one_class": True})},
    "coop": {
        name: preset.changed({"image_size": 48, "sigma": 1.0, "blocks": [1, 3]})
        for name, preset in COOP_PRESETS.items()
    }
    | {
        "joint, in the middle": COOP_PRESETS["reading"].changed(
            {"image_size": 48, "joint_categories": ["nut", "bolt"], "context_position": "middle"}
        ),
        "words": COOP_PRESETS["reading"].changed(
            {"image_size": 48, "context_words": "a photo of a"}
        ),
    },
    "vcpclip": {
        "code": VCPCLIP_SMALL,
        "no deep prompts": VCPCLIP_SMALL.changed({"deep_prompts": False, "post_vcp": False}),
        "map's maximum": VCPCLIP_SMALL.changed({"image_score": "map_maximum", "pre_vcp": False}),
    },
}
CASES = [(name, setting) for name in SETTINGS for setting in SETTINGS[name]]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A random CLIP of 40 px in float64, where the order of additions does not show."""
    vision = MICRO["vision_cfg"] | {"image_size": 40}
    config = MICRO | {"embed_dim": 32, "vision_cfg": vision}
    add_config(tmp_path_factory.mktemp("device"), "clipad-micro-device", config)
    return load_backbone("clipad-micro-device", "random:0", precision="float64")


def learner_of(name: str, backbone: Backbone, config: Any) -> nn.Module | None:
    method = find_method(name)
    return method.training and method.training.make_learner(backbone, config, 3)


def detectors(name: str, setting: str, backbone: Backbone, shots: int) -> Detector:
    method, config = find_method(name), SETTINGS[name][setting]
    category = "metal_nut" if method.names_category(config) else ""
    learner = learner_of(name, backbone, config)
    return Detector(method, backbone, config, category, [FIRST, SECOND][:shots], learner)


def on_cpu(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.detach().cpu() for key, value in values.items()}


def test_every_room_is_tried() -> None:
    assert set(SETTINGS) == set(rooms())


def test_a_device_is_found_by_its_name_and_what_is_not_here_is_one_message() -> None:
    assert find_device("cpu") == find_device(torch.device("cpu")) == torch.device("cpu")
    for name in ("gpu", "cuda:", "cuda:x", "CUDA", "", "cpu:1", "cuda:0:0", "x" * 500):
        with pytest.raises(ClipadError, match=r"^device: found '.{0,80}', expected auto, cpu"):
            find_device(name)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")
def test_without_an_accelerator_auto_is_the_cpu_and_a_gpu_is_refused() -> None:
    assert find_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:3", "mps"):
        with pytest.raises(
            ClipadError, match=f"^device: found '{name}', while torch .* sees no acc"
        ):
            find_device(name)
    with pytest.raises(ClipadError, match="^device: found 'cuda', while"):
        load_backbone("clipad-tiny", "no/such/file.pt", device="cuda")


def test_auto_is_the_accelerator_where_there_is_one(accelerator: torch.device) -> None:
    assert find_device("auto") == find_device(NAME) == accelerator
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(ClipadError, match=f"sees {NAME} alone on this machine"):
        find_device("cuda")
    with pytest.raises(ClipadError, match=f"^device: found '{NAME}:4', expected at most {NAME}:0"):
        find_device(f"{NAME}:4")


def test_a_tensor_that_is_left_on_the_cpu_is_an_error_there(
    backbone: Backbone, accelerator: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = backbone.to(accelerator)
    with pytest.raises(Stray, match="of the CPU"):
        moved.vision.proj @ torch.ones(32, 32, dtype=torch.float64)
    embed = TextTower.embed
    monkeypatch.setattr(TextTower, "embed", lambda tower, ids: embed(tower, ids).cpu())
    with pytest.raises(Stray):
        detectors("winclip", "paper", moved, 0)


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize(("name", "setting"), CASES)
def test_a_method_runs_whole_on_the_accelerator_and_says_what_the_cpu_says(
    name: str, setting: str, shots: int, backbone: Backbone, accelerator: torch.device
) -> None:
    if shots and find_method(name).references is None:
        pytest.skip("reads no references")
    here = detectors(name, setting, backbone, shots)
    expected = here(PICTURES)
    there = detectors(name, setting, backbone.to(accelerator), shots)(PICTURES)
    followed = here.to(accelerator)
    assert isinstance(there.anomaly_map, OnDevice) and isinstance(there.image_score, OnDevice)
    for detection in (there, followed(PICTURES), followed.to("cpu")(PICTURES)):
        assert_close(detection.image_score.cpu(), expected.image_score, rtol=0, atol=1e-9)
        assert_close(detection.anomaly_map.cpu(), expected.anomaly_map, rtol=0, atol=1e-9)
    assert here.backbone.device.type == "cpu"


@pytest.mark.parametrize(
    ("name", "setting"), [case for case in CASES if find_method(case[0]).training is not None]
)
def test_a_training_step_runs_on_the_accelerator_and_moves_what_the_cpu_moves(
    name: str, setting: str, backbone: Backbone, accelerator: torch.device
) -> None:
    method, config = find_method(name), SETTINGS[name][setting]
    assert method.training is not None
    masks = torch.zeros(3, config.image_size, config.image_size, dtype=torch.float64)
    masks[1:, 5:20, 10:30] = 1
    results = []
    for device in ("cpu", accelerator):
        prepared = method.prepare(backbone.to(device), config)
        learner = learner_of(name, prepared, config)
        groups = method.training.parameter_groups(learner, config, "visa")
        optimizer = method.training.make_optimizer(groups, config)
        features = encode_all(method.encode, prepared, PICTURES, method.recipe(config, 0))
        labels, drawn = torch.tensor([0, 1, 1]), torch.Generator().manual_seed(0)
        given = (features, labels.to(prepared.device), masks.to(prepared.device), drawn)
        parts = method.training.loss(learner, prepared, config, *given, ["nut"] * 3)
        if parts["total"].requires_grad:  # without context there is nothing to learn
            parts["total"].backward()
            optimizer.step()
        assert learner is not None
        results.append(on_cpu(parts) | on_cpu(learner.state_dict()))
    assert_close(results[1], results[0], rtol=0, atol=1e-9)


def test_autocast_is_a_precision_of_its_own_that_changes_the_third_digit(
    tmp_path: Any, backbone: Backbone
) -> None:
    exact = load_backbone("clipad-micro-device", "random:0")
    cast = load_backbone("clipad-micro-device", "random:0", precision=AUTOCAST)
    assert cast.precision == AUTOCAST and cast.dtype == torch.float32
    assert cast.key != exact.key and cast.digest == exact.digest
    cases = [(name, next(iter(settings)), 0) for name, settings in SETTINGS.items()]
    for name, setting, shots in [*cases, ("winclip", "anomalib", 2)]:
        expected = detectors(name, setting, exact, shots)(PICTURES)
        found = detectors(name, setting, cast, shots)(PICTURES)
        assert found.anomaly_map.dtype == torch.float32
        difference = (found.anomaly_map - expected.anomaly_map).abs().max()
        assert 0 < float(difference) < 0.1


def test_the_gradient_of_a_training_under_autocast_is_that_of_float32() -> None:
    """Of large maps a pixel's share is too small for float16, where it would be 0."""
    maps = torch.rand(32, 37, 37, generator=torch.Generator().manual_seed(0)) * 1e-3
    gradients = []
    for enabled in (False, True):
        leaf = maps.clone().requires_grad_()
        with torch.autocast("cpu", torch.float16, enabled=enabled):
            large = upsample_by_matrices(leaf, (518, 518), align_corners=True)
            (large.sigmoid().sum() / large.numel()).backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    assert_close(gradients[1], gradients[0])


def test_an_environment_in_which_products_differ_is_one_message(
    accelerator: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert os.environ[CUBLAS] in WORKSPACES
    monkeypatch.setenv(CUBLAS, ":0:0")
    with pytest.raises(ClipadError, match=f"^{CUBLAS}: found ':0:0', expected :4096:8 or :16:8"):
        load_backbone("clipad-micro-device", "random:0", device=accelerator)


def test_a_packed_backbone_goes_to_the_accelerator_and_back(
    tmp_path_factory: pytest.TempPathFactory, accelerator: torch.device
) -> None:
    add_config(tmp_path_factory.mktemp("packed"), "clipad-micro-packed", MICRO)
    for precision in ("float32", "bfloat16"):
        packed = load_backbone("clipad-micro-packed", "random:0", precision=precision)
        moved = packed.to(accelerator)
        assert not any(block.out.packed for block in moved.vision.transformer.blocks)
        assert moved.precision == precision and moved.key[2] == NAME
        back = moved.to("cpu")
        assert back.key == packed.key
        pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        encode = find_method("winclip").encode
        recipe = find_method("winclip").recipe(WinCLIPConfig(), 0)
        first = encode(packed, pixels, recipe).image_embedding
        assert torch.equal(encode(back, pixels, recipe).image_embedding, first)


def test_more_goes_through_an_accelerator_at_once(accelerator: torch.device) -> None:
    few, many = chunk_sizes(torch.device("cpu")), chunk_sizes(accelerator)
    assert few.images == 1  # beside others the last bits of a product differ
    assert all(a < b for a, b in zip(astuple(few), astuple(many), strict=True))
