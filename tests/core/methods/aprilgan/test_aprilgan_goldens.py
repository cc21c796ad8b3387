"""APRIL-GAN against recordings of ByChelsea/VAND-APRIL-GAN@f13b8a6 (tolerances: its specification)."""

import json
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from recordings import (
    GOLDENS,
    PRECISIONS,
    VIT_L_336,
    close,
    equal,
    part,
    read_recording,
    recorded_backbone,
)

from clipad_core.clip.features import Features, encode_all
from clipad_core.clip.one_pass import encode
from clipad_core.clip.prepare import prepare
from clipad_core.clip.preprocess import make_views
from clipad_core.clip.prompt_ensemble import raw_text_embeddings
from clipad_core.clip.text import encode_prompts
from clipad_core.detection import Detection
from clipad_core.learned.losses import dice_loss, focal_loss
from clipad_core.learned.token_memory import build_memory, patch_distances, reference_map
from clipad_core.maps import upsampled_difference
from clipad_core.methods.aprilgan import METHOD, learner
from clipad_core.methods.aprilgan.checkpoint import from_official, official_name
from clipad_core.methods.aprilgan.config import MVTEC, APRILGANConfig, compared_blocks
from clipad_core.methods.aprilgan.detector import (
    APRILGAN,
    loss,
    parameter_groups,
    prepare_backbone,
    recipe,
    reference_recipe,
)
from clipad_core.methods.aprilgan.learner import (
    APRILGANLearner,
    make_learner,
    official_references,
    sample_order,
)
from clipad_core.methods.aprilgan.maps import block_logits
from clipad_core.methods.aprilgan.text import class_text, ensemble_of
from clipad_core.metrics.metrics import image_metrics, pixel_metrics
from clipad_harness.data.dataset_images import DatasetImages
from clipad_harness.data.images import resize_mask
from clipad_harness.experiments.augment import drawn_mosaics
from clipad_harness.experiments.features import FeatureStore, ImageFeatures
from clipad_harness.experiments.train import train
from clipad_harness.experiments.training_data import TrainingData

pytestmark = pytest.mark.official("APRIL-GAN", "ByChelsea/VAND-APRIL-GAN@f13b8a6")
SHOTS = (0, 1, 2, 4)
TEST_SEED, TRAINING_SEED = 42, 111
GRID = (5, 5)


class Recorded:
    """A recording with its backbone and config."""

    def __init__(self, name: str, folder: Path, precision: str) -> None:
        weights = read_recording(GOLDENS / "aprilgan" / "A.npz")
        self.values = (
            weights if name == "A" else read_recording(GOLDENS / "aprilgan" / f"{name}.npz")
        )
        settings = json.loads(str(self.values["config_json"]))
        self.classes: list[str] = settings["classes"]
        self.config = APRILGANConfig().changed(
            {
                "image_size": settings["image_size"],
                "blocks": settings["features_list"],
                "memory_blocks": settings["few_shot_features"],
                "epochs": settings["epochs"],
                "batch_size": settings["batch"],
                "mosaic_rate": settings.get("aug_rate", 0.0),
                "batch_text": "own",
                "precision": precision,
            }
        )
        self.loaded = recorded_backbone(weights, f"aprilgan-golden-{name}", folder, precision)
        self.backbone = prepare_backbone(self.loaded, self.config)

    def tensor(self, key: str) -> torch.Tensor:
        """A recorded array in the backbone's precision."""
        return torch.tensor(self.values[key]).to(self.backbone.dtype)

    def learner(self, prefix: str) -> APRILGANLearner:
        return from_official(
            part(self.values, prefix), self.backbone, self.config, Path("recording")
        )

    def test_images(self) -> list[np.ndarray]:
        if "test/images" in self.values:
            return list(self.values["test/images"])
        return [as_rgb(self.values[f"image/{path}"]) for path in self.values["test/paths"]]

    def test_classes(self) -> np.ndarray:
        if "test/class" in self.values:
            return self.values["test/class"]
        return np.array([path.split("/")[0] for path in self.values["test/paths"]])

    def reference_images(self) -> dict[str, list[np.ndarray]]:
        """The training images of every class."""
        if "reference/images" in self.values:
            classes = self.values["reference/class"]
            return {
                name: list(self.values["reference/images"][classes == name]) for name in classes
            }
        paths = self.values["reference/paths"]
        return {
            name: [
                as_rgb(self.values[f"image/{path}"])
                for path in paths
                if path.startswith(f"{name}/")
            ]
            for name in self.classes
        }

    def references(self, k_shot: int) -> dict[str, list[int]]:
        """The recorded references of every class, counted within it; all classes lie in one list."""
        counts = [len(images) for images in self.reference_images().values()]
        starts = np.cumsum([0, *counts[:-1]])
        recorded = self.values[f"few{k_shot}/references"] - starts[:, None]
        return dict(zip(self.classes, recorded.tolist(), strict=True))

    def detections(self, learned: APRILGANLearner, k_shot: int) -> Detection:
        """All test images, a category at a time, as the official test scores them."""
        classes, images = self.test_classes(), self.test_images()
        scores = torch.zeros(len(images), dtype=torch.float64)
        size = self.config.image_size
        maps = torch.zeros(len(images), size, size, dtype=torch.float64)
        for name in self.classes:
            places = np.flatnonzero(classes == name)
            chosen = self.references(k_shot)[name] if k_shot else []
            references = [self.reference_images()[name][place] for place in chosen]
            detector = APRILGAN(self.loaded, self.config, learned, name, references)
            detection = detector([images[place] for place in places])
            scores[places] = detection.image_score.double()
            maps[places] = detection.anomaly_map.double()
        return Detection(scores, maps)


def as_rgb(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


@pytest.fixture(scope="module", params=PRECISIONS)
def batch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded("A", tmp_path_factory.mktemp("A"), request.param)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded("e2e", tmp_path_factory.mktemp("e2e"), "float32")


@pytest.fixture(scope="module")
def features(batch: Recorded) -> Features:
    return encode_all(encode, batch.backbone, batch.test_images(), recipe(batch.config, 1))


def test_the_tower_says_what_theirs_says(batch: Recorded, features: Features) -> None:
    tower, values = batch.backbone.vision, batch.values
    close(tower.positional_embedding, values["vision/positional_embedding_resized"], 1e-6)
    close(features.image_embedding, values["zero/image_features"], 2e-5)
    for i, block in enumerate(batch.config.blocks):
        tokens = features.patch_tokens[block][values["zero/detail_images"]]
        close(tokens, values[f"zero/patch_tokens_{i}"][:, 1:], 2e-5)
    assert not tower.transformer.quick_gelu


def test_at_the_size_of_the_weights_the_tower_runs_as_they_say(
    batch: Recorded,
) -> None:
    """With QuickGELU, as OpenAI's do; as a file of one's own the recorded ones say GELU."""
    values, config = batch.values, batch.config.changed({"image_size": 56})
    openai = prepare(batch.loaded, config.image_size, config.positional, "quick_gelu")
    native = prepare_backbone(openai, config)
    image = values["test/images"][int(values["zero/detail_images"][0])]
    encoded = encode_all(encode, native, [image], recipe(config))
    close(encoded.image_embedding, values["native_size/image_features"], 2e-5)
    tokens = encoded.patch_tokens[config.blocks[-1]]
    close(tokens, values["native_size/patch_tokens_last"][:, 1:], 2e-5)
    prompts = ensemble_of(config).prompts(batch.classes[0])[0][:4]
    text = encode_prompts(native.text, native.tokenizer, prompts)
    close(text, values["native_size/text_embeddings"], 2e-5)


def test_text_equals_theirs(batch: Recorded) -> None:
    for name in batch.classes:
        close(class_text(batch.backbone, batch.config, name), batch.values[f"text/{name}"].T, 3e-6)
    ensemble, first = ensemble_of(batch.config), batch.classes[0]
    prompts = [prompt for state in ensemble.prompts(first) for prompt in state]
    recorded = batch.values["text/first_class_token_ids"]
    ids = batch.backbone.tokenizer(prompts)
    equal(ids[:, : recorded.shape[1]], recorded)
    tower = batch.backbone.text
    states = raw_text_embeddings(tower, batch.backbone.tokenizer, ensemble, first)
    raw = torch.cat([state.embeddings[:8] for state in states])
    close(raw, batch.values["text/first_class_embeddings"], 2e-5)


def test_the_prompts_are_theirs() -> None:
    config = APRILGANConfig()
    counts = [len(config.normal_states), len(config.anomalous_states), len(config.templates)]
    assert counts == [7, 5, 35]
    for texts in (config.normal_states, config.anomalous_states, config.templates):
        assert len(set(texts)) == len(texts)
    assert [len(state) for state in ensemble_of(config).prompts("nut")] == [245, 175]


def test_initial_values_and_order_equal_theirs(batch: Recorded, run: Recorded) -> None:
    for recorded in (batch, run):
        initial = make_learner(recorded.loaded, recorded.config, TRAINING_SEED)
        for name, value in initial.state_dict().items():
            expected = recorded.values[f"init/{official_name(name)}"]
            equal(value.float(), expected)
        expected = recorded.values["train/order"]
        order = sample_order(recorded.config, recorded.backbone, expected.shape[1], len(expected))
        equal(order, expected)


def test_references_equal_theirs(batch: Recorded, run: Recorded) -> None:
    for recorded in (batch, run):
        counts = [len(images) for images in recorded.reference_images().values()]
        for k_shot in SHOTS[1:]:
            drawn = official_references(recorded.config, recorded.loaded, TEST_SEED, k_shot, counts)
            equal(drawn, list(recorded.references(k_shot).values()))


@pytest.mark.parametrize(("text", "prefix"), [("own", ""), ("first", "first_class/")])
def test_three_steps_of_adam_equal_theirs(
    batch: Recorded, features: Features, text: str, prefix: str
) -> None:
    config, values = batch.config.changed({"batch_text": text}), batch.values
    learned = make_learner(batch.loaded, config, TRAINING_SEED)
    optimiser = torch.optim.Adam(parameter_groups(learned, config, "visa"), betas=config.betas)
    masks, labels = batch.tensor("test/masks_resized"), torch.tensor(values["test/label"])
    recorded_losses = values[f"{prefix}loss" if prefix else "train/loss"]
    for step, order in enumerate(values["train/order"]):
        at = torch.tensor(order).long()
        names = [str(name) for name in values["test/class"][order]]
        arguments = (batch.backbone, config, features[at], labels[at], masks[at], None, names)
        parts = loss(learned, *arguments)
        close(parts["total"], recorded_losses[step], 2e-5, per="|x|")
        if not prefix:
            focal, dice = values["train/parts_focal_dice"][step].sum(axis=0)
            close(parts["focal"], focal, 2e-5, per="|x|")
            close(parts["dice"], dice, 2e-5, per="|x|")
        optimiser.zero_grad()
        parts["total"].backward()
        if step == 0:
            for name, parameter in learned.named_parameters():
                expected = torch.tensor(values[f"{prefix}grad/{official_name(name)}"])
                assert parameter.grad is not None
                close(parameter.grad, expected, 5e-3, per="largest |x|")
        optimiser.step()
        after = part(values, f"{prefix}after_step{step + 1}/")
        for name, parameter in learned.named_parameters():
            if after:
                close(parameter, after[official_name(name)].numpy(), 1e-4)


def test_losses_of_small_probabilities_equal_theirs(batch: Recorded) -> None:
    prob, target = batch.tensor("unit/prob"), batch.tensor("unit/target")
    focal = focal_loss(prob[:, 0], prob[:, 1], target)
    close(focal, float(batch.values["unit/focal"]), 2e-5, per="|x|")
    dice = dice_loss(prob[:, 1], target)
    close(dice, float(batch.values["unit/dice"]), 2e-5, per="|x|")
    empty = dice_loss(prob[:, 1], torch.zeros_like(target))
    close(empty, float(batch.values["unit/dice_empty_target"]), 2e-5, per="|x|")


def test_logits_and_maps_of_every_block_equal_theirs(batch: Recorded, features: Features) -> None:
    learned, values = batch.learner("after_step3/"), batch.values
    names = [str(name) for name in values["test/class"]]
    text = torch.stack([class_text(batch.backbone, batch.config, name) for name in names])
    logits = block_logits(learned, batch.config, features, text)
    size = batch.backbone.input_size
    for i, block in enumerate(logits):
        close(block, values[f"zero/logits_{i}"], 1e-4)
        shown = block[values["zero/detail_images"][:2]]
        anomalous = torch.sigmoid(upsampled_difference(shown, GRID, size))
        close(anomalous, values[f"zero/layer_map_{i}"], 2e-5)


def test_memories_and_distances_equal_theirs(batch: Recorded, features: Features) -> None:
    values, classes = batch.values, batch.test_classes()
    for k_shot in SHOTS[1:]:
        for name, chosen in batch.references(k_shot).items():
            images = [batch.reference_images()[name][place] for place in chosen]
            encoded = encode_all(encode, batch.backbone, images, reference_recipe(batch.config))
            memory = build_memory(encoded, compared_blocks(batch.config))
            of_class = np.flatnonzero(classes == name)
            for i, block in enumerate(compared_blocks(batch.config)):
                tokens = features.patch_tokens[block][of_class]
                distances = patch_distances(tokens, memory[block]).reshape(-1, *GRID)
                close(distances, values[f"few{k_shot}/distance_{i}"][of_class], 5e-6)
                if k_shot == SHOTS[-1]:
                    rows = values[f"few{k_shot}/memory_{i}"].reshape(len(batch.classes), -1, 64)
                    raw = encoded.patch_tokens[block].flatten(0, 1)
                    close(raw, rows[batch.classes.index(name)], 2e-5)
            if k_shot == 1 and 0 in of_class:
                first = features[torch.tensor([0])]
                summed = reference_map(first, memory, GRID, batch.backbone.input_size)
                close(summed, values["few1/few_map_first"], 5e-5)


@pytest.mark.parametrize("k_shot", SHOTS)
def test_maps_scores_and_table_equal_theirs(batch: Recorded, k_shot: int) -> None:
    detection = batch.detections(batch.learner("after_step3/"), k_shot)
    values, prefix = batch.values, f"few{k_shot}" if k_shot else "zero"
    whole = range(len(detection.anomaly_map)) if k_shot == 0 else values[f"{prefix}/map_images"]
    close(detection.anomaly_map[list(whole)], values[f"{prefix}/map"], 5e-5)
    close(detection.anomaly_map.amax(dim=(1, 2)), values[f"{prefix}/map_max"], 5e-5)
    close(detection.image_score, values[f"{prefix}/image_score"], 1e-4 if k_shot else 1e-5)
    check_table(batch, detection, f"{prefix}/metrics", values["test/masks_resized"])


def check_table(recorded: Recorded, detection: Detection, key: str, masks: np.ndarray) -> None:
    """Metrics of every class as the official test prints them, before rounding."""
    names = [str(name) for name in recorded.values["metric_names"]]
    labels, classes = recorded.values["test/label"], recorded.test_classes()
    maps = detection.anomaly_map.float().numpy()
    for row, name in zip(recorded.values[key], recorded.classes, strict=True):
        chosen = classes == name
        measured = pixel_metrics(maps[chosen], masks[chosen], aupro="cflow200")
        measured |= image_metrics(labels[chosen], detection.image_score.numpy()[chosen])
        for metric, value in zip(names, row, strict=True):
            tolerance = 2e-3 if METRIC_OF[metric] == "aupro" else 5e-4
            close(measured[METRIC_OF[metric]], value, tolerance, per="1")


METRIC_OF = {
    "auroc_px": "pixel_auroc",
    "f1_px": "pixel_f1max",
    "ap_px": "pixel_ap",
    "aupro": "aupro",
    "auroc_sp": "image_auroc",
    "f1_sp": "image_f1max",
    "ap_sp": "image_ap",
}


def test_preprocessing_equals_theirs(batch: Recorded, run: Recorded) -> None:
    first = batch.values["test/images"][int(batch.values["zero/detail_images"][0])]
    pixels = make_views(first, batch.config.image_size, "stretch").pixels
    close(pixels, batch.values["zero/image"], 1e-6)
    size = run.config.image_size
    pixels = make_views(run.test_images()[0], size, "stretch").pixels[0]
    close(pixels, run.values["test/image_0"], 1e-6)
    for path, expected in zip(
        run.values["test/paths"], run.values["test/masks_resized"], strict=True
    ):
        if (key := f"mask/{path}") in run.values:
            mask = run.values[key] > 0
            equal(resize_mask(mask, (size, size), "bilinear_half"), expected)
    for mask, expected in zip(
        batch.values["test/masks"], batch.values["test/masks_resized"], strict=True
    ):
        resized = resize_mask(mask > 0, (70, 70), "bilinear_half")
        equal(resized, expected)


@pytest.mark.parametrize("k_shot", SHOTS)
def test_the_official_test_run_from_images_to_its_table(run: Recorded, k_shot: int) -> None:
    detection = run.detections(run.learner("epoch2/"), k_shot)
    prefix = f"few{k_shot}" if k_shot else "zero"
    close(detection.anomaly_map, run.values[f"{prefix}/map"], 5e-5)
    close(detection.image_score, run.values[f"{prefix}/image_score"], 1e-4 if k_shot else 1e-5)
    check_table(run, detection, f"{prefix}/metrics", run.values["test/masks_resized"])


def training_data(run: Recorded, folder: Path, dataset: str = MVTEC) -> TrainingData:
    """The recorded folder as the harness trains on it."""
    rows = []
    for path in run.values["test/paths"]:
        name, _, defect, _ = path.split("/")
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(run.values[f"image/{path}"]).save(file)
        mask = ""
        if f"mask/{path}" in run.values:
            mask = path.replace("/test/", "/ground_truth/")
            (folder / mask).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(run.values[f"mask/{path}"]).save(folder / mask)
        rows.append((dataset, name, "test", defect, int(bool(mask)), path, mask))
    columns = ["dataset", "category", "split", "defect", "label", "image", "mask"]
    index = pd.DataFrame(rows, columns=columns)

    def images(config: Any, recipe: Any, paths: list[Path], subject: str) -> ImageFeatures:
        store = FeatureStore(folder / "features", run.backbone, recipe, encode, "code")
        return ImageFeatures(store, paths, subject, 10**9)

    encodings: Any = SimpleNamespace(
        name="aprilgan", memory=10**9, backbone=lambda _: run.backbone, images=images
    )
    assert METHOD.training is not None
    augmentation = METHOD.training.augmentation(run.config)
    return TrainingData(DatasetImages(index, folder), index, encodings, run.config, augmentation)


@pytest.fixture(scope="module")
def data(run: Recorded, tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    prepared = training_data(run, tmp_path_factory.mktemp("training"))
    prepared.prepare("golden")
    return prepared


def test_the_official_training_run_with_its_mosaics(
    run: Recorded, data: TrainingData, tmp_path: Path
) -> None:
    """From image files to the parameters of both epochs: order, mosaics, encodings, losses, Adam."""
    values = run.values
    assert METHOD.training is not None
    learned = make_learner(run.loaded, run.config, TRAINING_SEED)
    curve = train(METHOD.training, learned, data, MVTEC, tmp_path / "state.pt", lambda steps: None)
    losses, sizes = values["train/loss"].reshape(2, 5), [4, 4, 4, 4, 2]
    means = [np.average(epoch, weights=sizes) for epoch in losses]
    close([row["total"] for row in curve], means, 2e-5, per="|x|")
    for name, parameter in learned.named_parameters():
        close(parameter, values[f"epoch2/{official_name(name)}"], 1e-3)
    expected = {}
    for place, tiles in zip(
        values["train/mosaic_position"], values["train/mosaic_tiles"], strict=True
    ):
        epoch, position = divmod(int(place), 18)
        sample = int(values["train/order"][epoch][position])
        expected[epoch, sample] = [str(tile) for tile in tiles]
    paths = [str(path).split("/", 1)[1].removeprefix("test/") for path in values["test/paths"]]
    drawn = {key: [paths[tile] for tile in tiles] for key, tiles in data._mosaics().items()}
    assert drawn == expected


def test_mosaics_look_as_theirs(run: Recorded, data: TrainingData) -> None:
    values = run.values
    for number in range(4):
        epoch, position = divmod(int(values["train/mosaic_position"][number]), 18)
        sample = int(values["train/order"][epoch][position])
        encoded, _, masks, _ = data.batch(epoch, [sample])
        mosaic = encode_all(
            encode, run.backbone, [values[f"mosaic/{number}/image"]], recipe(run.config)
        )
        torch.testing.assert_close(
            encoded.image_embedding, mosaic.image_embedding, rtol=1e-6, atol=1e-6
        )
        equal(masks[0], values[f"mosaic/{number}/mask_preprocessed"] > 0.5)
        size = run.config.image_size
        pixels = make_views(values[f"mosaic/{number}/image"], size, "stretch").pixels[0]
        close(pixels, values[f"mosaic/{number}/image_preprocessed"], 1e-6)


def test_no_other_dataset_than_mvtec_is_mixed(run: Recorded, tmp_path: Path) -> None:
    data = training_data(run, tmp_path, "visa")
    data.prepare("golden")
    assert data._mosaics() == {}
    encoded, _, masks, _ = data.batch(0, [0, 17])
    alone = [data.batch(1, [place]) for place in (0, 17)]
    for place, (features, _, mask, _) in enumerate(alone):
        assert torch.equal(encoded.image_embedding[place], features.image_embedding[0])
        assert torch.equal(masks[place], mask[0])


def test_the_full_size_run_starts_draws_and_mixes_as_theirs(
    run: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Initial layers, sample orders, mosaics of MVTec AD, and the references of two test runs."""
    values = read_recording(GOLDENS / "aprilgan" / "official_seed.npz")
    facts = json.loads(str(values["facts_json"]))
    states: dict[bytes, tuple[dict[str, torch.Tensor], torch.Tensor]] = {}

    def draw_once(*arguments: Any) -> dict[str, torch.Tensor]:
        """The full-size draw; the second time from where the first left the generator."""
        before = torch.get_rng_state().numpy().tobytes()
        if before not in states:
            states[before] = (draw(*arguments), torch.get_rng_state())
        drawn, after = states[before]
        torch.set_rng_state(after)
        return drawn

    draw = learner.draw_values
    monkeypatch.setattr(learner, "draw_values", lambda _, __, c: draw_once(VIT_L_336, 336, c))
    config, backbone = APRILGANConfig(), run.loaded
    orders = sample_order(config, backbone, 1725, 3)
    equal(orders, values["mvtec/order"])
    visa = sample_order(config, backbone, 2162, 15)
    equal(visa, values["visa/order"])
    ((drawn, _),) = states.values()
    for name, value in drawn.items():
        recorded = facts[official_name(name)]
        assert sha256(value.numpy().tobytes()).hexdigest() == recorded["sha256"]
        first = values[f"init/{official_name(name)}/first16"]
        equal(value.flatten()[:16], first)

    folders, start = [], 0
    for counts in facts["test_folders_mvtec"].values():
        own = []
        for _, count in sorted(counts.items()):
            own.append(list(range(start, start + count)))
            start += count
        folders += [own] * sum(counts.values())
    mosaics = drawn_mosaics(folders, orders, config.mosaic_rate, TRAINING_SEED)
    at = [(e, place) for e, order in enumerate(orders) for place in order]
    expected = values["mvtec/mosaic"].reshape(-1)
    equal([key in mosaics for key in at], expected)
    tiles = values["mvtec/mosaic_tiles"].reshape(-1, 4, 2)
    replaced = [key for key in at if key in mosaics]
    recorded_tiles = [
        [folders[place][folder][file] for folder, file in four]
        for (_, place), four in zip(replaced, tiles, strict=True)
    ]
    equal([mosaics[key] for key in replaced], recorded_tiles)

    for key, recorded in facts["references"].items():
        dataset, seed, shots = key.split("/")
        if seed == "seed111":  # the seed that is drawn already; the others differ in nothing else
            known = facts["train_counts"][dataset.split("_")[0]]
            counts = [known[name] for name in recorded]
            own = official_references(config, backbone, 111, int(shots[1:]), counts)
            equal(own, list(recorded.values()))


def test_the_layout_is_that_of_the_released_files() -> None:
    with torch.device("meta"):
        released = APRILGANLearner(VIT_L_336, 4)
    lines = (GOLDENS / "aprilgan" / "official_layout.txt").read_text().splitlines()
    expected = dict(line.split(" ", 1) for line in lines)
    shapes = {
        f"trainable_linearlayer/{official_name(name)}": f"{tuple(value.shape)} float32"
        for name, value in released.state_dict().items()
    }
    assert shapes == expected
