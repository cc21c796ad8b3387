"""CoOp: the loss written out, what is learned and how, official files, and what must be refused."""

import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from micro import MICRO, add_config

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.features import Features
from clipad_core.errors import ClipadError
from clipad_core.methods.checkpoint import checkpoint_bytes, read_checkpoint
from clipad_core.methods.coop.checkpoint import NAME, read_official
from clipad_core.methods.coop.config import PRESETS, CoOpConfig
from clipad_core.methods.coop.detector import encode, loss, recipe, training_recipe
from clipad_core.methods.coop.learner import (
    CoOpLearner,
    make_learner,
    make_optimizer,
    parameter_groups,
    rate_factor,
    sample_order,
)
from clipad_core.methods.coop.text import check_category, text_embeddings
from clipad_core.methods.method import Category

SMALL = CoOpConfig().changed({"image_size": 32, "context_length": 5})
NAMES = ["nut", "metal_bolt", "nut"]
LABELS = torch.tensor([0, 1, 1])


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    add_config(tmp_path_factory.mktemp("coop"), "clipad-micro-coop", MICRO)
    return load_backbone("clipad-micro-coop", "random:0", precision="float64")


def features_of(backbone: Backbone, config: CoOpConfig = SMALL) -> Features:
    drawn = torch.Generator().manual_seed(7)
    pixels = torch.randn(3, 3, 32, 32, generator=drawn, dtype=torch.float64)
    return encode(backbone, pixels, training_recipe(config))


def loss_of(
    backbone: Backbone, learner: CoOpLearner, config: CoOpConfig, names: list[str]
) -> torch.Tensor:
    inputs = features_of(backbone), LABELS, torch.zeros(3, 32, 32)
    return loss(learner, backbone, config, *inputs, None, names)["total"]


@pytest.mark.parametrize("joint", [(), ("metal_bolt", "nut", "screw")])
@pytest.mark.parametrize("temperature", ["clip", 0.07])
def test_the_loss_is_the_cross_entropy_over_two_prompts_or_over_those_of_all(
    backbone: Backbone, joint: tuple[str, ...], temperature: Any
) -> None:
    config = SMALL.changed({"joint_categories": joint, "training_temperature": temperature})
    learner = make_learner(backbone, config, 3)
    scale = backbone.temperature if temperature == "clip" else temperature
    embeddings, total = features_of(backbone).image_embedding, 0.0
    for image, (name, label) in enumerate(zip(NAMES, LABELS.tolist(), strict=True)):
        compared = joint or (name,)
        text = text_embeddings(learner, backbone, config, compared).flatten(0, 1)
        logits = [float(embeddings[image] @ row) / scale for row in text.detach()]
        own = logits[2 * compared.index(name) + label]
        total += math.log(sum(math.exp(logit) for logit in logits)) - own
    assert loss_of(backbone, learner, config, NAMES).item() == pytest.approx(total / 3, abs=1e-9)


def test_gradients_reach_the_context_and_nothing_else(backbone: Backbone) -> None:
    learner = make_learner(backbone, SMALL, 3)
    loss_of(backbone, learner, SMALL, NAMES).backward()
    [context] = learner.parameters()
    assert context.grad is not None and bool((context.grad.abs().sum(dim=-1) > 0).all())
    assert not backbone.text.token_embedding.requires_grad


def test_what_is_trained_on_is_the_class_token_that_is_scored(backbone: Backbone) -> None:
    alone = features_of(backbone)
    drawn = torch.Generator().manual_seed(7)
    pixels = torch.randn(3, 3, 32, 32, generator=drawn, dtype=torch.float64)
    whole = encode(backbone, pixels, recipe(SMALL))
    assert torch.allclose(alone.image_embedding, whole.image_embedding, atol=1e-12)
    assert not alone.patch_tokens and list(whole.patch_tokens) == [3]
    # Never taken together with a pass that keeps patches.
    assert training_recipe(SMALL).shared([recipe(SMALL)]) == training_recipe(SMALL)


def test_an_epoch_leaves_out_what_fills_no_batch_but_a_small_set_is_one(backbone: Backbone) -> None:
    config = SMALL.changed({"batch_size": 8})
    first, second = sample_order(config, backbone, 20, 2)
    assert len(first) == len(set(first)) == 16 and first != second
    assert sorted(sample_order(config, backbone, 5, 1)[0]) == list(range(5))
    kept = sample_order(config.changed({"drop_last": False}), backbone, 20, 1)[0]
    assert sorted(kept) == list(range(20))
    other = sample_order(config.changed({"seed": 2}), backbone, 20, 1)[0]
    assert other != first


def test_a_seed_decides_the_context_and_touches_no_other_draw(backbone: Backbone) -> None:
    state = torch.get_rng_state()
    first, same, other = (make_learner(backbone, SMALL, seed).context_tokens for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_the_other_reading_is_adam_at_one_rate(backbone: Backbone) -> None:
    config = PRESETS["anomalyclip_loop"]
    changed = {f.name for f in fields(config) if getattr(config, f.name) != f.default}
    assert changed == {
        *("epochs", "batch_size", "drop_last", "optimizer", "learning_rate"),
        *("schedule", "weight_decay"),
    }
    groups = parameter_groups(make_learner(backbone, config, 1), config, "visa")
    assert isinstance(make_optimizer(groups, config), torch.optim.Adam)
    assert {rate_factor(config, epoch) for epoch in range(config.epochs)} == {1.0}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_an_official_file_gives_its_context_whatever_stands_beside_it(
    backbone: Backbone, tmp_path: Path
) -> None:
    context = torch.randn(5, 32).half()
    state = {"ctx": context, "token_prefix": torch.zeros(2, 1, 32).half()}
    state["token_suffix"] = torch.zeros(2, 71, 32).half()
    moments = {"state": {0: {"momentum_buffer": torch.zeros(5, 32)}}, "param_groups": []}
    whole = {"state_dict": state, "epoch": 50, "optimizer": moments, "val_result": None}
    for content in (whole, state, {"ctx": context}):
        learner = read_official(saved(tmp_path / "model.pth.tar-50", content), backbone, SMALL)
        assert torch.equal(learner.context_tokens.data, context.double())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"ctx": torch.zeros(16, 32)}, "tensor ctx is (16, 32), expected (5, 32)"),
        ({"ctx": torch.zeros(2, 5, 32)}, "tensor ctx is (2, 5, 32), expected (5, 32)"),
        ({"ctx": torch.zeros(5, 32), "meta_net.linear1.bias": torch.zeros(2)}, "is (2,), expected"),
        ({"token_prefix": torch.zeros(2, 1, 32)}, "tensor ctx is nothing, expected (5, 32)"),
        ({"ctx": torch.full((5, 32), math.nan)}, "numbers in ctx that are not finite"),
    ],
)
def test_an_official_file_of_other_sizes_or_another_method_is_refused(
    backbone: Backbone, tmp_path: Path, content: dict, message: str
) -> None:
    path = saved(tmp_path / "model.pth.tar-50", {"state_dict": content})
    with pytest.raises(ClipadError, match=re.escape(message)) as raised:
        read_official(path, backbone, SMALL)
    assert str(path) in str(raised.value)


def test_our_file_there_and_back_is_exact(backbone: Backbone, tmp_path: Path) -> None:
    learner, path = make_learner(backbone, SMALL, 3), tmp_path / "learner.safetensors"
    path.write_bytes(checkpoint_bytes(NAME, learner, SMALL, backbone, "d" * 64))
    again, config, _ = read_checkpoint(NAME, path, backbone)
    assert config == SMALL
    assert torch.equal(again.state_dict()["context_tokens"], learner.context_tokens)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context_length": 0}, "context_length: found 0"),
        ({"momentum": 1}, "momentum: found 1"),
        ({"weight_decay": -1}, "weight_decay: found -1"),
        ({"learning_rate": 0}, "learning_rate: found 0"),
        ({"training_temperature": 0}, "training_temperature: found 0"),
        ({"betas": [0.5]}, "betas: found (0.5,)"),
        ({"blocks": []}, "blocks: found ()"),
        ({"normal_state": "anomalous"}, "anomalous_state: found 'anomalous', which normal_state"),
        ({"context_position": "begin"}, "context_position: found 'begin', expected one of 'end'"),
    ],
)
def test_a_setting_that_no_code_path_knows_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ClipadError, match=re.escape(message)):
        SMALL.changed(changes)


def test_a_context_longer_than_the_towers_is_one_message(backbone: Backbone) -> None:
    with pytest.raises(ClipadError, match="takes 7 tokens or more and the context 71, expected at"):
        check_category(backbone, SMALL.changed({"context_length": 71}), Category("nut"))
    check_category(backbone, SMALL.changed({"context_length": 70}), Category("nut"))


def test_initial_words_must_be_one_token_each(backbone: Backbone) -> None:
    words = SMALL.changed({"context_words": "an anomalous thing"})
    with pytest.raises(
        ClipadError, match="context_words: found 'an anomalous thing', 3 words of 5"
    ):
        make_learner(backbone, words, 1)
    with pytest.raises(
        ClipadError, match="context_words: found 'an anomalous thing', 3 words of 5"
    ):
        check_category(backbone, words, Category("nut"))  # before a run starts


def test_an_image_without_a_category_or_of_an_unnamed_one_is_refused(backbone: Backbone) -> None:
    learner = make_learner(backbone, SMALL, 1)
    for names in ([], ["nut", "", "nut"]):
        with pytest.raises(ClipadError, match="categories: found"):
            loss_of(backbone, learner, SMALL, names)
    joint = SMALL.changed({"joint_categories": ["nut"]})
    with pytest.raises(ClipadError, match="joint_categories: found none called 'metal_bolt'"):
        loss_of(backbone, learner, joint, NAMES)
