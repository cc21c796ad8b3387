"""CoOp against recordings of KaiyangZhou/CoOp@ff61507 with Dassl.pytorch@c61a1b5."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from recordings import GOLDENS, PRECISIONS, close, equal, read_recording, recorded_backbone

from clipad_core.clip.features import Features
from clipad_core.methods.coop.config import CoOpConfig
from clipad_core.methods.coop.detector import (
    class_logits,
    detect,
    encode,
    know,
    loss,
    prepare_backbone,
    recipe,
)
from clipad_core.methods.coop.learner import (
    CoOpLearner,
    make_learner,
    make_optimizer,
    parameter_groups,
    rate_factor,
)
from clipad_core.methods.coop.text import (
    class_texts,
    embed_prompts,
    encode_context,
    name_lengths,
)
from clipad_core.methods.method import Category

pytestmark = pytest.mark.official(
    "CoOp", "KaiyangZhou/CoOp@ff61507, KaiyangZhou/Dassl.pytorch@c61a1b5"
)
FOLDER = GOLDENS / "baselines"
CONFIG = CoOpConfig().changed({"image_size": 56})


@pytest.fixture(scope="module", params=PRECISIONS)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The recording, its backbone, and the embeddings of its images."""
    weights, values = read_recording(FOLDER / "A.npz"), read_recording(FOLDER / "coop.npz")
    folder = tmp_path_factory.mktemp("coop")
    loaded = recorded_backbone(weights, "coop-golden", folder, request.param, quick_gelu=True)
    backbone = prepare_backbone(loaded, CONFIG)
    image = torch.tensor(values["image"]).to(backbone.dtype)
    objects = json.loads(str(values["config_json"]))["objects"]
    return SimpleNamespace(
        values=values,
        loaded=loaded,
        backbone=backbone,
        objects=objects,
        features=encode(backbone, image, recipe(CONFIG)),
        labels=torch.tensor(values["label"]),
        names=[objects[place] for place in values["object"]],
        scored=torch.tensor(weights["image"]).to(backbone.dtype),
    )


def learner_of(recorded: Any, context: np.ndarray | None = None) -> CoOpLearner:
    learner = make_learner(recorded.backbone, CONFIG, 1)
    values = recorded.values["coop/ctx"] if context is None else context
    learner.context_tokens.data = torch.tensor(values).to(recorded.backbone.dtype)
    return learner


def config_of(recorded: Any, reading: str, **changes: Any) -> CoOpConfig:
    joint = recorded.objects if reading == "joint" else ()
    return CONFIG.changed({"joint_categories": list(joint), **changes})


def loss_of(
    recorded: Any, learner: CoOpLearner, config: CoOpConfig, places: np.ndarray
) -> torch.Tensor:
    chosen = torch.tensor(places)
    names = [recorded.names[place] for place in places]
    features: Features = recorded.features[chosen]
    masks = torch.zeros(len(places), 56, 56)
    inputs = features, recorded.labels[chosen], masks
    return loss(learner, recorded.backbone, config, *inputs, None, names)["total"]


def test_prompts_are_theirs_token_by_token(recorded: Any) -> None:
    texts = class_texts(CONFIG, recorded.objects)
    ids = recorded.backbone.tokenizer([f"{'X ' * 16}{text}." for text in texts])
    equal(ids, recorded.values["coop/tokens"])
    lengths = name_lengths(recorded.backbone, CONFIG, recorded.objects)
    equal(lengths, recorded.values["coop/name_lens"])
    context = learner_of(recorded).context_tokens
    tokens, ends = embed_prompts(context, recorded.backbone, CONFIG, recorded.objects)
    assert ends.tolist() == ids.argmax(dim=-1).tolist()
    close(tokens[:2], recorded.values["coop/prompts"][:, : tokens.shape[1]], 1e-6)


def test_text_and_image_embeddings_and_logits_are_theirs(recorded: Any) -> None:
    learner, values = learner_of(recorded), recorded.values
    text = encode_context(learner.context_tokens, recorded.backbone, CONFIG, recorded.objects)
    close(text.flatten(0, 1), values["coop/text_features"], 1e-5)
    unit = torch.nn.functional.normalize(torch.tensor(values["coop/image_features"]), dim=-1)
    close(recorded.features.image_embedding, unit.numpy(), 2e-5)
    inputs = recorded.features.image_embedding, recorded.objects
    logits = class_logits(learner, recorded.backbone, CONFIG, *inputs)
    close(logits.flatten(1), values["coop/logits"], 5e-5)


@pytest.mark.parametrize("position", ["middle", "front"])
def test_the_class_name_may_stand_elsewhere_as_theirs(recorded: Any, position: str) -> None:
    config = CONFIG.changed({"context_position": position})
    inputs = learner_of(recorded).context_tokens, recorded.backbone, config, recorded.objects
    text = encode_context(*inputs).flatten(0, 1)
    close(text, recorded.values[f"coop/{position}/text_features"], 1e-5)
    if position == "middle":
        tokens, _ = embed_prompts(*inputs)
        expected = recorded.values["coop/middle/prompt_3"]
        close(tokens[3], expected[: tokens.shape[1]], 1e-6)


def test_a_context_a_class_is_theirs(recorded: Any) -> None:
    factors = 1 + torch.arange(6)[:, None, None] / 4
    contexts = learner_of(recorded).context_tokens * factors
    text = encode_context(contexts, recorded.backbone, CONFIG, recorded.objects)
    close(text.flatten(0, 1), recorded.values["coop/csc/text_features"], 1e-5)


def test_initial_words_and_initial_values_are_theirs(recorded: Any) -> None:
    config = CONFIG.changed({"context_words": "a photo of a"})
    learner = make_learner(recorded.backbone, config, 1)
    close(learner.context_tokens, recorded.values["coop/words/ctx"], 1e-7)
    inputs = learner.context_tokens, recorded.backbone, config, recorded.objects
    text = encode_context(*inputs).flatten(0, 1)
    close(text, recorded.values["coop/words/text_features"], 1e-5)
    for seed in (1, 2):
        drawn = make_learner(recorded.backbone, CONFIG, seed).context_tokens.float()
        expected = torch.tensor(recorded.values[f"coop/official_init/seed{seed}"])
        equal(drawn, expected)


@pytest.mark.parametrize("epochs", [2, 3, 10, 15, 50, 100, 200])
def test_learning_rates_are_theirs_in_every_epoch(epochs: int) -> None:
    with np.load(FOLDER / "coop.npz") as opened:
        expected = opened[f"lr/{epochs}"]
    config = CoOpConfig(epochs=epochs)
    rates = [config.learning_rate * rate_factor(config, epoch) for epoch in range(epochs)]
    close(rates, expected, 1e-12)


@pytest.mark.parametrize("reading", ["pairs", "joint"])
def test_losses_and_gradients_are_theirs(recorded: Any, reading: str) -> None:
    learner = learner_of(recorded)
    total = loss_of(recorded, learner, config_of(recorded, reading), np.arange(6))
    close(total, recorded.values[f"coop/{reading}/loss"], 3e-5)
    total.backward()
    gradient, expected = learner.context_tokens.grad, recorded.values[f"coop/{reading}/grad"]
    assert gradient is not None
    close(gradient, expected, 1e-4, per="largest |x|")


@pytest.mark.parametrize(("reading", "rate"), [("pairs", 2e-3), ("joint", 2e-3), ("warm", 1e-5)])
def test_three_steps_of_sgd_are_theirs(recorded: Any, reading: str, rate: float) -> None:
    learner, config = learner_of(recorded), config_of(recorded, reading, learning_rate=rate)
    optimizer = make_optimizer(parameter_groups(learner, config, "visa"), config)
    key = "coop/pairswarm" if reading == "warm" else f"coop/{reading}"
    for step, places in enumerate(recorded.values["coop/steps"]):
        total = loss_of(recorded, learner, config, places)
        close(total, recorded.values[f"{key}/step_losses"][step], 3e-5)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if step != 1:
            expected = recorded.values[f"{key}/after_step{step + 1}"]
            close(learner.context_tokens, expected, 2e-6)


def test_three_epochs_of_their_schedule_and_what_the_context_then_detects(recorded: Any) -> None:
    values, learner, steps = recorded.values, learner_of(recorded), 0
    config = config_of(recorded, "pairs", epochs=3)
    optimizer = make_optimizer(parameter_groups(learner, config, "visa"), config)
    for epoch, order in enumerate(values["coop/run/order"]):
        [group] = optimizer.param_groups
        group["lr"] = config.learning_rate * rate_factor(config, epoch)
        for places in np.split(order, 2):
            close(group["lr"], values["coop/run/lr"][steps], 1e-12, per="|x|")
            total = loss_of(recorded, learner, config, places)
            close(total, values["coop/run/losses"][steps], 3e-5)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            steps += 1
        close(learner.context_tokens, values[f"coop/run/ctx_epoch{epoch + 1}"], 5e-6)
    trained, at_test = learner_of(recorded, values["coop/run/ctx_epoch3"]), {"image_size": 84}
    config = config.changed(at_test)
    backbone = prepare_backbone(recorded.loaded, config)
    text = know(backbone, config, Category(recorded.objects[1]), None, trained)
    close(text, values["coop/detect/text_features"], 1e-5)
    features = encode(backbone, recorded.scored, recipe(config))
    detection = detect(backbone, config, text, features)
    close(detection.image_score, values["coop/detect/image_score"], 1e-5)
    close(detection.anomaly_map[:1], values["coop/detect/anomaly_map"], 1e-5)
