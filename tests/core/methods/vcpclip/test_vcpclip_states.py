"""VCP-CLIP's states as learned vectors: against one prompt of one image at a time, and what is refused."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from vcpclip_cases import SMALL, features_of, learner_of, masks_of, square

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.transformer import run_block
from clipad_core.errors import ClipadError
from clipad_core.methods.checkpoint import checkpoint_bytes, read_checkpoint
from clipad_core.methods.method import Category
from clipad_core.methods.vcpclip.checkpoint import official_bytes
from clipad_core.methods.vcpclip.config import VCPCLIPConfig, prompts
from clipad_core.methods.vcpclip.detector import METHOD, know, loss, prepare_backbone
from clipad_core.methods.vcpclip.initial import make_learner
from clipad_core.methods.vcpclip.learner import VCPCLIPLearner
from clipad_core.methods.vcpclip.text import text_embeddings

__all__ = ["square"]  # the fixture
LEARNED = SMALL.changed({"state_length": 1})


def naive_embedding(
    learner: VCPCLIPLearner,
    backbone: Backbone,
    template: str,
    state: torch.Tensor,
    category: torch.Tensor,
) -> torch.Tensor:
    """One prompt over all 77 tokens: a marker for every vector, then its vector in the marker's place."""
    tower, deep = backbone.text, learner.deep_prompts
    marked = template.replace("{state}", " ".join(["red"] * len(state)))
    marked = marked.replace("{category}", " ".join(["blue"] * len(category)))
    ids = backbone.tokenizer([marked])[0]
    x = tower.token_embedding[ids].clone()
    for word, vectors in (("red", state), ("blue", category)):
        x[ids == backbone.tokenizer([word])[0, 1]] = vectors
    x = (x + tower.positional_embedding)[None]
    x = torch.cat([x[:, :1], deep.project(deep.first), x[:, 1:-1]], dim=1)
    for index in range(len(tower.transformer.blocks)):
        if index:
            x = torch.cat([x[:, :1], deep.project(deep.later[index - 1 : index]), x[:, 2:]], dim=1)
        x = run_block(tower.transformer, index, x, causal=True)
    end = tower.ln_final(deep.norm(x[0, int(ids.argmax()) + 1]))
    return F.normalize(end @ tower.projection, dim=-1)


@pytest.mark.parametrize(
    "changes",
    [
        {"state_length": 2, "state_init": "random"},
        {"state_length": 1, "anomalous_states": ["damaged", "flawed"]},
        {
            "state_length": 3,
            "state_init": "random",
            "templates": ["a {category} in a {state} photo", "a {state} {category}, there"],
            "normal_states": ["good", "perfect", "whole"],
        },
    ],
)
def test_learned_states_stand_where_their_words_stood(square: Backbone, changes: dict) -> None:
    config = SMALL.changed(changes)
    learner, images = learner_of(square, config), features_of(square, config).image_embedding
    assert learner.states is not None
    count = len(config.normal_states)
    expected = []
    for category in learner.pre_vcp(images):
        for states in (learner.states[:count], learner.states[count:]):
            each = [
                naive_embedding(learner, square, template, state, category)
                for template in config.templates
                for state in states
            ]
            expected.append(F.normalize(torch.stack(each).mean(dim=0), dim=-1))
    embeddings = text_embeddings(learner, square, config, images)
    torch.testing.assert_close(embeddings, torch.stack(expected).unflatten(0, (len(images), 2)))


def test_states_that_begin_as_the_words_say_at_first_what_the_words_say(square: Backbone) -> None:
    images = features_of(square).image_embedding
    words, vectors = (make_learner(square, config, 5) for config in (SMALL, LEARNED))
    assert torch.equal(
        text_embeddings(words, square, SMALL, images),
        text_embeddings(vectors, square, LEARNED, images),
    )
    drawn = make_learner(square, LEARNED.changed({"state_init": "random"}), 5)
    assert drawn.states is not None and 0.01 < float(drawn.states.detach().std()) < 0.04
    assert not torch.equal(drawn.states[0], drawn.states[1])


def test_with_learned_states_everything_else_starts_alike(square: Backbone) -> None:
    plain = make_learner(square, SMALL, 5).state_dict()
    for init in ("words", "random"):
        config = LEARNED.changed({"state_init": init})
        learned = make_learner(square, config, 5).state_dict()
        assert set(learned) == {*plain, "states"}
        assert all(torch.equal(learned[name], value) for name, value in plain.items())
        again = make_learner(square, config, 5).state_dict()["states"]
        assert torch.equal(again, learned["states"])


def test_states_learn_and_the_words_can_be_read_instead_after_training(square: Backbone) -> None:
    prepared, learner, features = (
        prepare_backbone(square, LEARNED),
        learner_of(square, LEARNED),
        features_of(square),
    )
    loss(learner, prepared, LEARNED, features, torch.ones(3), masks_of(), None)["total"].backward()
    assert learner.states is not None and learner.states.grad is not None
    assert (learner.states.grad.abs().amax(dim=2) > 0).all()
    with torch.no_grad():
        learner.states[:, :, :5] += 1
    images = features.image_embedding
    assert torch.equal(
        text_embeddings(learner, square, SMALL, images),
        text_embeddings(learner_of(square), square, SMALL, images),
    )
    more = SMALL.changed({"normal_states": ["good", "perfect"]})
    assert torch.equal(
        text_embeddings(learner, square, more, images),
        text_embeddings(learner_of(square), square, more, images),
    )
    changed = text_embeddings(learner, square, LEARNED, images)
    assert (changed - text_embeddings(learner, square, SMALL, images)).abs().max() > 1e-3


def test_a_state_without_words_is_the_bare_category(square: Backbone) -> None:
    images = features_of(square).image_embedding
    bare = SMALL.changed({"normal_states": [""]})
    assert prompts(bare)[0] == ["a photo of a  {category}"]
    written = SMALL.changed(
        {"normal_states": ["of a"], "templates": ["a photo {state} {category}"]}
    )
    learner = learner_of(square)
    torch.testing.assert_close(
        text_embeddings(learner, square, bare, images)[:, 0],
        text_embeddings(learner, square, written, images)[:, 0],
    )


def test_our_checkpoint_keeps_learned_states_and_the_official_layout_refuses_them(
    square: Backbone, tmp_path: Path
) -> None:
    learner, path = learner_of(square, LEARNED), tmp_path / "learner.safetensors"
    path.write_bytes(checkpoint_bytes("vcpclip", learner, LEARNED, square, "d" * 64))
    again, config, _ = read_checkpoint("vcpclip", path, square)
    assert config == LEARNED
    assert torch.equal(again.state_dict()["states"], learner.state_dict()["states"])
    with pytest.raises(ClipadError, match="found the tensor states, .* expected head: contrastive"):
        official_bytes(learner)


@pytest.mark.parametrize(
    ("trained", "tested", "message"),
    [
        ({}, {"state_length": 1}, "state_length: found 1 for 2 states, .* has, none; set 0"),
        (
            {"state_length": 1},
            {"normal_states": ["good", "perfect"]},
            "found 1 for 3 states, expected what the learner has, 2 of length 1",
        ),
        ({"state_length": 1}, {"state_length": 2, "state_init": "random"}, "2 of length 1"),
    ],
)
def test_states_that_were_not_learned_are_refused_at_test(
    square: Backbone, trained: dict, tested: dict, message: str
) -> None:
    config: VCPCLIPConfig = SMALL.changed(trained)
    learner = learner_of(square, config)
    with pytest.raises(ClipadError, match=message):
        know(square, config.changed(tested), Category(), None, learner)


def test_words_that_no_state_can_begin_as_are_refused_before_a_run(square: Backbone) -> None:
    long = LEARNED.changed({"normal_states": ["perfect and pristine"]})
    with pytest.raises(ClipadError, match="found 1, but 'perfect and pristine' is 3 tokens"):
        METHOD.check_prompts(square, long, Category())
    METHOD.check_prompts(square, long.changed({"state_init": "random"}), Category())
    full = {"state_length": 80, "state_init": "random"}
    with pytest.raises(ClipadError, match="takes .* tokens, expected at most 77; .* state_length"):
        METHOD.check_prompts(square, SMALL.changed(full), Category())
    with pytest.raises(ClipadError, match="state_length: found -1, expected at least 0"):
        SMALL.changed({"state_length": -1})
    with pytest.raises(ClipadError, match="state_init: found 'zeros'"):
        SMALL.changed({"state_init": "zeros"})
