"""AnomalyCLIP against recordings of zqhang/AnomalyCLIP@45ed4dd (tolerances: its specification)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_clip import golden_backbone
from recordings import GOLDENS, PRECISIONS, VIT_L_336, close, equal, part, read_recording

from clipad_core.clip.features import Features
from clipad_core.clip.preprocess import make_views
from clipad_core.learned.losses import dice_loss, focal_loss
from clipad_core.methods.anomalyclip.checkpoint import from_official
from clipad_core.methods.anomalyclip.config import AnomalyCLIPConfig
from clipad_core.methods.anomalyclip.detector import (
    AnomalyCLIP,
    block_maps,
    detect,
    encode,
    know,
    loss,
    parameter_groups,
    patch_probabilities,
    prepare_backbone,
    recipe,
)
from clipad_core.methods.anomalyclip.learner import (
    AnomalyCLIPLearner,
    draw_values,
    make_learner,
    sample_order,
)
from clipad_core.methods.anomalyclip.text import text_embeddings
from clipad_core.methods.method import Category
from clipad_core.metrics.metrics import image_metrics, pixel_metrics
from clipad_harness.data.images import resize_mask

pytestmark = pytest.mark.official("AnomalyCLIP", "zqhang/AnomalyCLIP@45ed4dd")
# Prefix of the recording -> what it changes.
BRANCHES = {
    "": {},
    "nodpam/": {"branch": "none"},
    "lastonly/": {"blocks": [6]},
    "ffn/": {"local_stream": "mlp"},
    "preclone/": {"local_stream": "aliased"},
    "derived_qq/": {"branch": "qq"},
    "derived_kk/": {"branch": "kk"},
    "derived_vv/": {"branch": "vv"},
}
SCORED = [prefix for prefix in BRANCHES if prefix != "ffn/"]


class Recorded:
    """A recording with its backbone, config, and a fresh learner at every call."""

    def __init__(self, name: str, folder: Path, config: AnomalyCLIPConfig, precision: str) -> None:
        self.values = read_recording(GOLDENS / "anomalyclip" / f"{name}.npz")
        self.settings = json.loads(str(self.values["config_json"]))
        weights, sizes = part(self.values, "clip_kept/"), self.settings["clip"]
        self.loaded = golden_backbone(
            folder, f"anomalyclip-golden-{name}", sizes, weights, precision
        )
        self.config = config
        self.backbone = prepare_backbone(self.loaded, config)

    def learner(self, prefix: str = "prompt_learner/") -> AnomalyCLIPLearner:
        unused = ("tokenized", "compound_prompt_proj")
        learned = part(self.values, prefix)
        named = {k: v for k, v in learned.items() if not k.startswith(unused)}
        return from_official(named, self.backbone, self.config, Path("recording"))

    def tensor(self, key: str) -> torch.Tensor:
        """A recorded array in the backbone's precision."""
        return torch.tensor(self.values[key]).to(self.backbone.dtype)

    def features(self, changes: dict[str, Any]) -> Features:
        changed = self.config.changed(changes)
        return encode(self.backbone, torch.tensor(self.values["image"]), recipe(changed))


@pytest.fixture(scope="module", params=PRECISIONS)
def batch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    config = AnomalyCLIPConfig().changed(
        {"image_size": 84, "blocks": [2, 4, 5, 6], "dpam_from_layer": 4, "prompt_depth": 3}
    )
    return Recorded("A", tmp_path_factory.mktemp("A"), config, request.param)


@pytest.fixture(scope="module", params=PRECISIONS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    config = AnomalyCLIPConfig().changed({"image_size": 84, "batch_size": 6, "epochs": 2})
    return Recorded("e2e", tmp_path_factory.mktemp("e2e"), config, request.param)


def test_positional_embedding_is_resized_like_theirs(batch: Recorded) -> None:
    close(batch.backbone.vision.positional_embedding, batch.values["pos_embed_after"], 1e-6)


@pytest.mark.parametrize("prefix", BRANCHES)
def test_features_of_every_branch_equal_theirs(batch: Recorded, prefix: str) -> None:
    features = batch.features(BRANCHES[prefix])
    if f"{prefix}image_features" in batch.values:
        close(features.image_embedding, batch.values[f"{prefix}image_features"], 2e-5)
    for i, block in enumerate(sorted(features.patch_tokens)):
        key = f"{prefix}patch_features_{i}"
        if key in batch.values:
            official = F.normalize(torch.tensor(batch.values[key][:, 1:]), dim=-1)
            close(features.patch_tokens[block], official.numpy(), 2e-5)
    unit = F.normalize(features.image_embedding, dim=-1)
    if f"{prefix}image_features_norm" in batch.values:
        close(unit, batch.values[f"{prefix}image_features_norm"], 2e-5)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("text_features", {}),
        ("text_features_nohalf", {"half_prompts": False}),
        ("t3off/text_features", {"prompt_depth": 1}),
    ],
)
def test_text_embeddings_equal_theirs(batch: Recorded, key: str, changes: dict) -> None:
    embeddings = text_embeddings(batch.learner(), batch.backbone, batch.config.changed(changes))
    close(embeddings, batch.values[key], 3e-6)


def test_rounding_to_half_precision_is_seen(batch: Recorded) -> None:
    exact = batch.config.changed({"half_prompts": False})
    embeddings = text_embeddings(batch.learner(), batch.backbone, exact)
    assert np.abs(embeddings.detach().numpy() - batch.values["text_features"]).max() > 1e-5


@pytest.mark.parametrize("prefix", SCORED)
def test_scores_and_maps_of_every_branch_equal_theirs(batch: Recorded, prefix: str) -> None:
    config = batch.config.changed(BRANCHES[prefix])
    features = batch.features(BRANCHES[prefix])
    knowledge = know(batch.backbone, config, Category(), None, batch.learner())
    detection = detect(batch.backbone, config, knowledge, features)
    close(detection.image_score, batch.values[f"{prefix}image_score"], 2e-5)
    close(detection.anomaly_map, batch.values[f"{prefix}anomaly_map"], 2e-5)
    text = batch.tensor("text_features")
    for i, block in enumerate(sorted(features.patch_tokens)):
        scores = patch_probabilities(features.patch_tokens[block], text, config.temperature)
        close(scores, batch.values[f"{prefix}similarity_{i}"][:, 1:, 1], 2e-5)


def test_probabilities_are_upsampled_like_theirs(batch: Recorded) -> None:
    text = batch.tensor("text_features")
    maps = block_maps(batch.backbone, batch.config, batch.features({}), text)
    for i in (0, 3):
        close(maps[i], batch.values[f"similarity_map_{i}"][..., 1], 2e-5)


def loss_of(batch: Recorded, learner: AnomalyCLIPLearner) -> dict[str, torch.Tensor]:
    masks = batch.tensor("mask")[:, 0]
    labels = torch.tensor(batch.values["label"])
    return loss(learner, batch.backbone, batch.config, batch.features({}), labels, masks, None)


def test_losses_and_gradients_equal_theirs(batch: Recorded) -> None:
    learner = batch.learner()
    parts = loss_of(batch, learner)
    focal, anomalous, normal = batch.values["train/parts_focal_diceA_diceN"].sum(axis=0)
    close(parts["focal"], focal, 2e-5, per="|x|")
    close(parts["dice_anomalous"], anomalous, 2e-5, per="|x|")
    close(parts["dice_normal"], normal, 2e-5, per="|x|")
    close(parts["global"], float(batch.values["train/ce"]), 2e-5, per="|x|")
    local = float(batch.values["train/local_loss_times_lam"])
    close(parts["total"] - parts["global"], local, 2e-5, per="|x|")
    parts["total"].backward()
    grads = part(batch.values, "grad/")
    assert learner.context_tokens.grad is not None and learner.compound_prompts.grad is not None
    context, deeper = learner.context_tokens.grad, learner.compound_prompts.grad
    gradients = {f"ctx_{n}": context[row][None, None] for row, n in enumerate(("pos", "neg"))}
    gradients |= {
        f"compound_prompts_text.{i}": prompt_gradient for i, prompt_gradient in enumerate(deeper)
    }
    assert set(gradients) == set(grads)
    for name, gradient in gradients.items():
        close(gradient, grads[name], 5e-3, per="largest |x|")


def test_three_steps_of_adam_equal_theirs(batch: Recorded) -> None:
    learner = batch.learner()
    groups = parameter_groups(learner, batch.config, "visa")
    optimiser = torch.optim.Adam(groups, betas=batch.config.betas)
    for step, (ce, local) in enumerate(batch.values["train/trajectory_ce_local"]):
        parts = loss_of(batch, learner)
        close(parts["global"], ce, 2e-5, per="|x|")
        close(parts["total"] - parts["global"], local, 2e-5, per="|x|")
        optimiser.zero_grad()
        parts["total"].backward()
        optimiser.step()
        if f"after_step{step + 1}/ctx_pos" in batch.values:
            after = part(batch.values, f"after_step{step + 1}/")
            context = torch.stack([after["ctx_pos"][0, 0], after["ctx_neg"][0, 0]])
            close(learner.context_tokens, context.numpy(), 1e-4)
            for i, prompt in enumerate(learner.compound_prompts):
                close(prompt, after[f"compound_prompts_text.{i}"].numpy(), 1e-4)


def test_unit_losses_equal_theirs_at_saturation_too(batch: Recorded) -> None:
    target = torch.tensor(batch.values["unit/target"]).float()
    for key, expected in (("prob", "focal"), ("prob_saturated", "focal_saturated")):
        channels = torch.tensor(batch.values[f"unit/{key}"])
        measured = focal_loss(channels[:, 0], channels[:, 1], target).item()
        close(measured, float(batch.values[f"unit/{expected}"]), 1e-6, per="|x|")
    channels = torch.tensor(batch.values["unit/prob"])
    cases = {
        "dice_abnormal": (channels[:, 1], target),
        "dice_normal": (channels[:, 0], 1 - target),
        "dice_empty_target": (channels[:, 1], torch.zeros_like(target)),
    }
    for name, (probabilities, case_target) in cases.items():
        measured = dice_loss(probabilities, case_target).item()
        close(measured, float(batch.values[f"unit/{name}"]), 2e-5, per="|x|")


def test_initial_values_of_a_learner_alone_equal_theirs(batch: Recorded) -> None:
    recorded = part(batch.values, "official_init/")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(batch.settings["prompt_seed"])
        values = draw_values(128, batch.config)
    equal(values["context_tokens"][0], recorded["ctx_pos"][0, 0])
    equal(values["context_tokens"][1], recorded["ctx_neg"][0, 0])
    for i, prompt in enumerate(values["compound_prompts"]):
        equal(prompt, recorded[f"compound_prompts_text.{i}"])


def images_of(run: Recorded) -> list[np.ndarray]:
    keys = sorted(key for key in run.values if key.startswith("image/"))
    return [run.values[key].astype(np.uint8) for key in keys]


def masks_of(run: Recorded) -> list[np.ndarray]:
    size = (84, 84)
    return [
        resize_mask((run.values[key] > 0).astype(np.uint8), size, "bilinear_half")
        if (key := f"mask/{place:02d}") in run.values
        else np.zeros(size, dtype=bool)
        for place in range(len(run.values["label"]))
    ]


def test_images_are_prepared_like_theirs(run: Recorded) -> None:
    images = images_of(run)
    pixels = [
        make_views(images[place], 84, "stretch").pixels
        for place in run.values["preprocessed_places"]
    ]
    close(torch.cat(pixels), run.values["preprocessed"], 1e-6)


def test_the_official_initial_values_and_order_of_the_whole_run(run: Recorded) -> None:
    order = sample_order(run.config, run.loaded, 18, 2)
    equal(np.concatenate(order), run.values["train_sample_order"])
    learner = make_learner(run.loaded, run.config, run.config.seed)
    expected = run.learner("init/")
    equal(learner.context_tokens, expected.context_tokens)
    equal(learner.compound_prompts, expected.compound_prompts)


def test_two_epochs_of_the_official_training(run: Recorded) -> None:
    images, config = images_of(run), run.config
    pixels = torch.cat([make_views(image, 84, "stretch").pixels for image in images])
    features = encode(run.backbone, pixels, recipe(config))
    masks = torch.tensor(np.stack(masks_of(run))).to(run.backbone.dtype)
    labels = torch.tensor(run.values["label"])
    learner = make_learner(run.loaded, config, config.seed)
    groups = parameter_groups(learner, config, "btad")
    optimiser = torch.optim.Adam(groups, betas=config.betas)
    for epoch, order in enumerate(sample_order(config, run.loaded, 18, 2)):
        for start in range(0, 18, config.batch_size):
            places = torch.tensor(order[start : start + config.batch_size])
            inputs = features[places], labels[places], masks[places]
            parts = loss(learner, run.backbone, config, *inputs, None)
            optimiser.zero_grad()
            parts["total"].backward()
            optimiser.step()
        expected = run.learner(f"epoch{epoch + 1}/")
        close(learner.context_tokens, expected.context_tokens.detach().numpy(), 1e-3)
        close(learner.compound_prompts, expected.compound_prompts.detach().numpy(), 1e-3)


def test_maps_scores_and_table_of_the_official_test_run(run: Recorded) -> None:
    detection = AnomalyCLIP(run.loaded, run.config, run.learner("epoch2/"))(images_of(run))
    masks = np.stack(masks_of(run))
    for category in ("01", "02", "03"):
        chosen = run.values["category"] == category
        maps, scores = detection.anomaly_map.numpy()[chosen], detection.image_score.numpy()[chosen]
        close(torch.tensor(maps), run.values[f"raw/{category}/anomaly_maps"], 2e-5)
        close(torch.tensor(scores), run.values[f"raw/{category}/pr_sp"], 2e-5)
        measured = pixel_metrics(maps, masks[chosen], aupro="cflow200")
        measured |= image_metrics(run.values["label"][chosen], scores)
        for name, key in (
            ("image_auroc", "image-auroc"),
            ("image_ap", "image-ap"),
            ("pixel_auroc", "pixel-auroc"),
            ("aupro", "pixel-aupro"),
        ):
            official = float(run.values[f"metrics/{category}/{key}"])
            # AUPRO's 200 thresholds fall on other roundings of the map.
            close(measured[name], official, 2e-3 if name == "aupro" else 1e-5, per="1")


def test_initial_values_and_orders_at_full_size_equal_the_official_run(
    run: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipad_core.methods.anomalyclip import learner as anomalyclip_learner

    with np.load(GOLDENS / "anomalyclip" / "official_seed.npz") as opened:
        recorded = dict(opened)
    monkeypatch.setattr(anomalyclip_learner, "architecture_of", lambda backbone: VIT_L_336)
    config = AnomalyCLIPConfig()
    learner = make_learner(run.loaded, config, config.seed)
    for row, name in enumerate(("ctx_pos", "ctx_neg")):
        equal(learner.context_tokens[row], recorded[f"init/{name}"][0, 0])
    for i, prompt in enumerate(learner.compound_prompts):
        equal(prompt, recorded[f"init/compound_prompts_text.{i}"])
    for dataset in ("visa", "mvtec"):
        expected = recorded[f"order/{dataset}"]
        orders = sample_order(config, run.loaded, expected.shape[1], len(expected))
        equal(orders, expected)
