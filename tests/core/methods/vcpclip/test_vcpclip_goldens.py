"""VCP-CLIP against recordings of xiaozhen228/VCP-CLIP@4dd96ec (tolerances: its specification)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import (
    GOLDENS,
    PRECISIONS,
    Recording,
    close,
    equal,
    part,
    read_recording,
    recorded_backbone,
)

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.features import Features
from clipad_core.clip.one_pass import encode
from clipad_core.clip.preprocess import make_views
from clipad_core.maps import probabilities, upsampled_difference
from clipad_core.methods.vcpclip.checkpoint import from_official, official_name
from clipad_core.methods.vcpclip.config import VCPCLIPConfig
from clipad_core.methods.vcpclip.detector import (
    VCPCLIP,
    branch_maps,
    detect,
    loss,
    parameter_groups,
    prepare_backbone,
    recipe,
)
from clipad_core.methods.vcpclip.learner import VCPCLIPLearner
from clipad_core.methods.vcpclip.maps import new_logits, raw_logits
from clipad_core.methods.vcpclip.text import text_embeddings
from clipad_core.metrics.metrics import image_metrics, pixel_metrics
from clipad_harness.data.images import resize_mask

pytestmark = pytest.mark.official("VCP-CLIP", "xiaozhen228/VCP-CLIP@4dd96ec")
# Their gradients are zero but for rounding, which Adam turns into steps (specification, 3.6).
NO_GRADIENT = ("pre_vcp.mini_net.bias", "post_vcp.key.bias")


def recorded_config(recording: Recording) -> VCPCLIPConfig:
    settings = json.loads(str(recording["config_json"]))
    return VCPCLIPConfig().changed(
        {
            "image_size": settings["image_size"],
            "blocks": settings["features_list"],
            "category_length": settings["prompt_len"],
            "deep_length": settings["deep_prompt_len"],
            "deep_prompts": settings["total_d_layer_len"] > 0,
        }
    )


class Recorded:
    """A recording with its backbone, config, and a fresh learner at every call."""

    def __init__(self, name: str, folder: Path, precision: str) -> None:
        self.values = read_recording(GOLDENS / "vcpclip" / f"{name}.npz")
        self.config = recorded_config(self.values)
        self.loaded = recorded_backbone(self.values, f"vcpclip-golden-{name}", folder, precision)
        self.backbone = prepare_backbone(self.loaded, self.config)

    def learner(self) -> VCPCLIPLearner:
        learnables = part(self.values, "learn/")
        return from_official(learnables, self.backbone, self.config, Path("recording"))

    def tensor(self, key: str) -> torch.Tensor:
        """A recorded array in the backbone's precision."""
        return torch.tensor(self.values[key]).to(self.backbone.dtype)

    def features(self) -> Features:
        tokens = {
            block: self.tensor(f"patch_tokens_{i}")[:, 1:]
            for i, block in enumerate(self.config.blocks)
        }
        return Features(self.tensor("image_features"), tokens)


@pytest.fixture(scope="module", params=PRECISIONS)
def batch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded("A", tmp_path_factory.mktemp("A"), request.param)


@pytest.fixture(scope="module", params=PRECISIONS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded("e2e", tmp_path_factory.mktemp("e2e"), request.param)


def text_of(batch: Recorded, backbone: Backbone, key: str) -> torch.Tensor:
    return text_embeddings(batch.learner(), backbone, batch.config, batch.tensor(key))


def test_positional_embedding_is_resized_like_theirs(batch: Recorded) -> None:
    expected = batch.values["visual_positional_embedding_resized"]
    close(batch.backbone.vision.positional_embedding, expected, 1e-6)


def test_category_vectors_equal_theirs_with_and_without_the_image(batch: Recorded) -> None:
    learner, image = batch.learner(), batch.features().image_embedding
    close(learner.pre_vcp(image), batch.values["class_token"], 2e-5)
    learner.pre_vcp.use_global = False
    close(learner.pre_vcp(image), batch.values["noglobal/class_token"], 0)


def test_text_embeddings_equal_theirs(batch: Recorded) -> None:
    close(text_of(batch, batch.backbone, "image_features"), batch.values["text_embeddings"], 3e-6)
    alone = batch.learner()
    alone.pre_vcp.use_global = False
    embeddings = text_embeddings(
        alone, batch.backbone, batch.config, batch.tensor("image_features")
    )
    close(embeddings, batch.values["noglobal/text_embeddings"], 3e-6)


def test_text_embeddings_with_quick_gelu_equal_those_of_the_changed_code(batch: Recorded) -> None:
    quick = prepare_backbone(batch.loaded, batch.config.changed({"activation": "quick_gelu"}))
    image = "quickgelu_not_official/image_features"
    expected = batch.values["quickgelu_not_official/text_embeddings"]
    close(text_of(batch, quick, image), expected, 3e-6)
    assert np.abs(text_of(batch, batch.backbone, image).detach().numpy() - expected).max() > 1e-3


def test_both_branches_equal_theirs_at_every_block(batch: Recorded) -> None:
    learner, features = batch.learner(), batch.features()
    text = batch.tensor("text_embeddings")
    grid, size = batch.backbone.vision.grid, batch.backbone.input_size
    assert learner.post_vcp is not None
    for i, block in enumerate(batch.config.blocks):
        unit = torch.nn.functional.normalize(features.patch_tokens[block], dim=-1)
        close(
            learner.post_vcp(learner.post_vcp.ask(text), unit), batch.values[f"post_text_{i}"], 2e-5
        )
    raw = raw_logits(learner, batch.config, features, text)
    new = new_logits(learner, batch.config, features, text)
    for i in range(len(raw)):
        close(raw[i], batch.values[f"raw_{i}_logits"], 2e-5)
        close(new[i], batch.values[f"new_{i}_logits"], 2e-5)
    for logits, key in ((raw[3], "raw_3_prob"), (new[0], "new_0_prob")):
        normal, anomalous = probabilities(upsampled_difference(logits, grid, size))
        close(anomalous, batch.values[key], 2e-5)
        assert (normal + anomalous - 1).abs().max() <= 1e-6


def test_map_and_image_score_equal_theirs(batch: Recorded) -> None:
    detection = detect(batch.backbone, batch.config, batch.learner(), batch.features())
    close(detection.anomaly_map, batch.values["fused_smoothed_notnormalised"], 2e-5)
    close(detection.image_score, batch.values["image_score_top2000_sum"], 2e-5)
    lowest, highest = detection.anomaly_map.min(), detection.anomaly_map.max()
    stretched = (detection.anomaly_map - lowest) / (highest - lowest)
    close(stretched, batch.values["fused_normalised"], 5e-4)


def loss_of(batch: Recorded, learner: VCPCLIPLearner) -> dict[str, torch.Tensor]:
    masks = batch.tensor("mask")[:, 0]
    labels = torch.tensor(batch.values["label"])
    return loss(learner, batch.backbone, batch.config, batch.features(), labels, masks, None)


def test_losses_and_gradients_equal_theirs(batch: Recorded) -> None:
    learner = batch.learner()
    parts = loss_of(batch, learner)
    for branch, key in (("raw", "base"), ("new", "new")):
        focal, dice = batch.values[f"train/parts_{key}_focal_dice"].sum(axis=0)
        close(parts[f"{branch}_focal"], focal, 2e-5, per="|x|")
        close(parts[f"{branch}_dice"], dice, 2e-5, per="|x|")
    parts["total"].backward()
    recorded = part(batch.values, "grad/")
    checked = 0
    for name, parameter in learner.named_parameters():
        assert parameter.grad is not None
        if name not in NO_GRADIENT:
            expected = recorded[_recorded_name(name)].reshape(parameter.shape)
            close(parameter.grad, expected, 5e-3, per="largest |x|")
            checked += 1
    assert checked == len(recorded) - len(NO_GRADIENT)


def _recorded_name(name: str) -> str:
    """Where the recording keeps a tensor: the prompts of CLIP are under "model" there."""
    official = official_name(name)
    return official if "/" in official else f"model/{official}"


def test_three_steps_of_adam_equal_theirs(batch: Recorded) -> None:
    learner = batch.learner()
    groups = parameter_groups(learner, batch.config, "visa")
    optimiser = torch.optim.Adam(groups, betas=batch.config.betas)
    for step, (new, raw) in enumerate(batch.values["train/trajectory_new_base"]):
        parts = loss_of(batch, learner)
        close(parts["new_focal"] + parts["new_dice"], new, 2e-5, per="|x|")
        close(parts["raw_focal"] + parts["raw_dice"], raw, 2e-5, per="|x|")
        optimiser.zero_grad()
        parts["total"].backward()
        optimiser.step()
        after = part(batch.values, f"after_step{step + 1}/")
        for name, parameter in learner.named_parameters():
            if name not in NO_GRADIENT and _recorded_name(name) in after:
                expected = after[_recorded_name(name)].reshape(parameter.shape)
                close(parameter, expected.numpy(), 1e-4)


def test_maps_of_the_official_test_run(run: Recorded) -> None:
    """From image files to both branches' maps: the whole vision tower, 24 blocks."""
    size = run.config.image_size
    images = [run.values[key] for key in sorted(run.values) if key.startswith("image/")]
    pixels = torch.cat([make_views(image, size, "stretch").pixels for image in images])
    features = encode(run.backbone, pixels, recipe(run.config))
    raw, new = branch_maps(run.learner(), run.backbone, run.config, features)
    assert new is not None
    close(raw, run.values["out/raw"], 2e-5)
    close(new, run.values["out/new"], 2e-5)


def test_table_of_the_official_test_run(run: Recorded) -> None:
    images = [run.values[key] for key in sorted(run.values) if key.startswith("image/")]
    detection = VCPCLIP(run.loaded, run.config, run.learner())(images)
    lines = [line.split("|")[1:-1] for line in str(run.values["log"]).splitlines()]
    printed = {cells[0].strip(): [float(cell) for cell in cells[1:]] for cells in lines[2:5]}
    for category in ("part_a", "part_b"):
        chosen = run.values["out/cls"] == category
        maps, masks = detection.anomaly_map.numpy()[chosen], run.values["out/masks"][chosen]
        pixel = pixel_metrics(maps, masks, aupro="cflow200", iou=True)
        image = image_metrics(
            run.values["out/gt_sp"][chosen], detection.image_score.numpy()[chosen]
        )
        measured = [
            *(pixel[key] for key in ("pixel_auroc", "aupro", "pixel_ap", "pixel_f1max")),
            pixel["pixel_iou"],
            image["image_auroc"],
            *(image[key] for key in ("image_ap", "image_f1max")),
        ]
        official = printed[category][:6] + printed[category][7:9]
        # Two decimals of a per cent; 200 thresholds of AUPRO fall on other roundings of the map.
        close(100 * np.array(measured), official, 0.016, per="1")


def test_masks_are_resized_like_theirs(run: Recorded) -> None:
    keys = sorted(key for key in run.values if key.startswith("mask/"))
    size = (run.config.image_size, run.config.image_size)
    for key, expected in zip(keys, run.values["out/masks"], strict=True):
        mask = (run.values[key] > 0).astype(np.uint8)
        equal(resize_mask(mask, size, "bilinear_half"), expected)
