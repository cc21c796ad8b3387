"""VCP-CLIP against its equations as printed, one image, state and patch at a time."""

from dataclasses import fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from vcpclip_cases import SMALL, features_of, learner_of, masks_of, pictures, square

from clipad_core.clip.backbone import Backbone, digest_tensors
from clipad_core.clip.transformer import run_block
from clipad_core.errors import ClipadError
from clipad_core.methods.vcpclip.config import (
    CATEGORY,
    PRESETS,
    VCPCLIPConfig,
    find_preset,
    prompts,
)
from clipad_core.methods.vcpclip.detector import (
    VCPCLIP,
    branch_maps,
    detect,
    encode,
    loss,
    parameter_groups,
    prepare_backbone,
    recipe,
)
from clipad_core.methods.vcpclip.initial import make_learner
from clipad_core.methods.vcpclip.learner import PostVCP, VCPCLIPLearner
from clipad_core.methods.vcpclip.text import text_embeddings

__all__ = ["square"]  # the fixture


def naive_text_embeddings(
    learner: VCPCLIPLearner, backbone: Backbone, config: VCPCLIPConfig, images: torch.Tensor
) -> torch.Tensor:
    """The tower over all 77 tokens, one prompt of one image at a time, as the official loop has it."""
    tower, embeddings = backbone.text, []
    deep, n = learner.deep_prompts, config.deep_length
    for category in learner.pre_vcp(images):
        for group in prompts(config):
            states = []
            for prompt in group:
                marked = backbone.tokenizer([prompt.replace(CATEGORY, "thing")])[0]
                place = int((marked == backbone.tokenizer(["thing"])[0, 1]).nonzero()[0])
                words = tower.token_embedding[marked]
                x = torch.cat([words[:place], category, words[place + 1 :]])[:77]
                x = (x + tower.positional_embedding)[None]
                if config.deep_prompts:
                    first = deep.project(deep.first)
                    x = torch.cat([x[:, :1], first, x[:, 1:-n]], dim=1)
                for index in range(len(tower.transformer.blocks)):
                    if index and config.deep_prompts:
                        later = deep.project(deep.later[index - 1 : index])
                        x = torch.cat([x[:, :1], later, x[:, 1 + n :]], dim=1)
                    x = run_block(tower.transformer, index, x, causal=True)
                if config.deep_prompts:
                    x = deep.norm(torch.cat([x[:, :1], x[:, 1 + n :]], dim=1))
                end = int(marked.argmax()) + config.category_length - 1
                states.append(F.normalize(tower.ln_final(x)[0, end] @ tower.projection, dim=-1))
            embeddings.append(F.normalize(torch.stack(states).mean(dim=0), dim=-1))
    return torch.stack(embeddings).unflatten(0, (len(images), 2))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"category_length": 3, "deep_length": 2},
        {"deep_prompts": False},
        {"pre_vcp": False},
        {
            "templates": ["this is a {state} photo of {category}", "a {category}, {state}"],
            "normal_states": ["good", "perfect and pristine"],
        },
    ],
)
def test_batched_text_equals_the_image_by_image_loop(square: Backbone, changes: dict) -> None:
    config = SMALL.changed(changes)
    learner, images = learner_of(square, config), features_of(square, config).image_embedding
    embeddings = text_embeddings(learner, square, config, images)
    torch.testing.assert_close(embeddings, naive_text_embeddings(learner, square, config, images))


def test_the_end_of_the_longest_prompt_is_where_the_text_is_cut(
    square: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SOT, five words and a state, two vectors, EOT, and one deep vector: eleven of 77."""
    lengths = []

    def spy(tower, tokens, replaced, ends):
        lengths.append(tokens.shape[:2])
        return tokens[:, 0]

    monkeypatch.setattr("clipad_core.methods.vcpclip.text.run_text_blocks", spy)
    images = features_of(square).image_embedding
    text_embeddings(learner_of(square), square, SMALL, images)
    assert lengths == [(3 * 2, 10)]


def naive_post_vcp(post: PostVCP, text: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """Eqs. (5) to (8) as printed: one image, state and head at a time."""
    adapted = torch.empty(len(text), 2, patches.shape[2])
    for b in range(len(text)):
        for s in range(2):
            query = post.query(text[b, s]).chunk(post.heads)
            keys = post.key(patches[b]).chunk(post.heads, dim=1)
            values = post.value(patches[b]).chunk(post.heads, dim=1)
            heads = []
            for q, k, v in zip(query, keys, values, strict=True):
                heads.append((k @ q).softmax(dim=0) @ v)
            out = post.out(torch.cat(heads))
            adapted[b, s] = out / out.norm()
    return adapted


@pytest.mark.parametrize("preset", ["code", "paper"])
def test_post_vcp_equals_the_equations(square: Backbone, preset: str) -> None:
    config = find_preset(preset).changed({"image_size": 48, "blocks": [3], "heads": 4})
    post = learner_of(square, config).post_vcp
    assert post is not None
    patches = features_of(square, config).patch_tokens[3]
    text = F.normalize(torch.randn(3, 2, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    torch.testing.assert_close(post(post.ask(text), patches), naive_post_vcp(post, text, patches))
    attention = post.attention(post.ask(text), patches)
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(3, 4, 2))
    assert attention.std(dim=-1).min() > 1e-6


def naive_branch(
    logits: list[torch.Tensor], grid: tuple[int, int], size: int
) -> list[torch.Tensor]:
    """Upsample both logits, then softmax; channel 1 of every block."""
    probabilities = []
    for block_logits in logits:
        maps = block_logits.transpose(1, 2).unflatten(2, grid)
        large = F.interpolate(maps, (size, size), mode="bilinear", align_corners=True)
        probabilities.append(large.softmax(dim=1)[:, 1])
    return probabilities


def test_detection_equals_the_steps_of_the_official_test(square: Backbone) -> None:
    prepared, learner, features = (
        prepare_backbone(square, SMALL),
        learner_of(square),
        features_of(square),
    )
    assert learner.post_vcp is not None
    text = text_embeddings(learner, prepared, SMALL, features.image_embedding)
    raw, new = [], []
    for head, block in zip(learner.raw_heads, SMALL.blocks, strict=True):
        tokens = features.patch_tokens[block]
        raw.append(F.normalize(head(tokens), dim=-1) @ text.mT * learner.raw_logit_scale.exp())
        unit = F.normalize(tokens, dim=-1)
        adapted = naive_post_vcp(learner.post_vcp, text, unit)
        new.append(unit @ adapted.mT * learner.post_vcp.logit_scale.exp())
    raw_map, new_map = (
        torch.stack(naive_branch(logits, (6, 6), 48)).mean(dim=0).detach() for logits in (raw, new)
    )
    fused = 0.2 * raw_map + 0.8 * new_map
    smooth = np.stack([gaussian_filter(pixels, sigma=1.5) for pixels in fused.numpy()])
    score = sum(m.flatten(1).sort().values[:, -50:].mean(dim=1) for m in (raw_map, new_map))

    detection = detect(prepared, SMALL, learner, features)
    np.testing.assert_allclose(detection.anomaly_map, smooth, atol=2e-6)
    torch.testing.assert_close(detection.image_score, score)
    highest = detect(
        prepared, SMALL.changed({"image_score": "map_maximum", "sigma": 0.0}), learner, features
    )
    torch.testing.assert_close(highest.image_score, fused.amax(dim=(1, 2)))


def test_an_image_is_scored_alike_alone_and_among_others(square: Backbone) -> None:
    detector = VCPCLIP(square, SMALL, learner_of(square))
    images = pictures([(40, 60), (48, 48), (90, 30)])
    together = detector(images)
    for i, image in enumerate(images):
        alone = detector([image])
        torch.testing.assert_close(alone.anomaly_map[0], together.anomaly_map[i])
        torch.testing.assert_close(alone.image_score[0], together.image_score[i])
    assert together.image_score.std() > 0


def naive_loss(probability: torch.Tensor, mask: torch.Tensor) -> tuple[float, float]:
    """Focal and dice loss of one image as printed, with the official smoothing."""
    right = torch.where(mask == 1, probability, 1 - probability)
    pt = right * (1 - 1e-5) + (1 - right) * 1e-5 + 1e-5
    focal = (-((1 - pt) ** 2) * pt.log()).mean().item()
    overlap, each = (probability * mask).sum(), probability.sum() + mask.sum()
    return focal, (1 - (2 * overlap + 1) / (each + 1)).item()


def test_loss_is_the_sum_over_blocks_and_branches(square: Backbone) -> None:
    prepared, learner, features = (
        prepare_backbone(square, SMALL),
        learner_of(square),
        features_of(square),
    )
    expected = 0.0
    for block in SMALL.blocks:
        alone = SMALL.changed({"blocks": [block]})
        block_learner = learner_of(square, alone)
        block_learner.load_state_dict(
            {
                key.replace("raw_heads.1", "raw_heads.0") if block == 3 else key: value
                for key, value in learner.state_dict().items()
                if not key.startswith(f"raw_heads.{1 if block == 1 else 0}")
            }
        )
        for branch in branch_maps(block_learner, prepared, alone, features):
            assert branch is not None
            losses = [naive_loss(p, m) for p, m in zip(branch, masks_of(), strict=True)]
            expected += float(np.mean([focal + dice for focal, dice in losses]))
    parts = loss(learner, prepared, SMALL, features, torch.tensor([0, 1, 1]), masks_of(), None)
    assert parts["total"].item() == pytest.approx(expected, rel=1e-5)
    summed = sum(value.item() for name, value in parts.items() if name != "total")
    assert parts["total"].item() == pytest.approx(summed, rel=1e-6)


def test_a_batch_of_one_image_is_the_batch_of_its_twin(square: Backbone) -> None:
    prepared, learner = prepare_backbone(square, SMALL), learner_of(square)
    features, masks = features_of(square), masks_of()
    single = loss(learner, prepared, SMALL, features[1:2], torch.ones(1), masks[1:2], None)
    twice = torch.tensor([1, 1])
    double = loss(learner, prepared, SMALL, features[twice], torch.ones(2), masks[twice], None)
    assert single["total"].item() == pytest.approx(double["total"].item(), rel=1e-6)


def test_training_changes_the_learner_and_nothing_else(square: Backbone) -> None:
    prepared, learner, features = (
        prepare_backbone(square, SMALL),
        learner_of(square),
        features_of(square),
    )
    before = _tower_digest(prepared)
    optimiser = torch.optim.Adam(parameter_groups(learner, SMALL, "visa"), betas=SMALL.betas)
    losses = []
    for _ in range(5):
        parts = loss(learner, prepared, SMALL, features, torch.ones(3), masks_of(), None)
        optimiser.zero_grad()
        parts["total"].backward()
        optimiser.step()
        losses.append(parts["total"].item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    assert all(parameter.grad is not None for parameter in learner.parameters())
    assert _tower_digest(prepared) == before
    assert not any(tensor.requires_grad for tensor in _tower(prepared).values())


def _tower(backbone: Backbone) -> dict[str, torch.Tensor]:
    tensors = {}
    for tower in (backbone.text, backbone.vision):
        for field in fields(tower):
            value = getattr(tower, field.name)
            if isinstance(value, torch.Tensor):
                tensors[f"{type(tower).__name__}.{field.name}"] = value
        if tower is backbone.text:
            for i, block in enumerate(tower.transformer.blocks):
                for field in fields(block):
                    tensors[f"{i}.{field.name}"] = getattr(block, field.name).weight
    return tensors


def _tower_digest(backbone: Backbone) -> str:
    return digest_tensors(_tower(backbone))


def test_parameter_groups_hold_everything_once_and_know_the_training_set(square: Backbone) -> None:
    learner = learner_of(square)
    for trained_on, rate in (("visa", 4e-5), ("mvtec", 2e-5), ("mine", 4e-5)):
        groups = parameter_groups(learner, SMALL, trained_on)
        assert [group["lr"] for group in groups] == [rate, 0.01]
        assert {id(p) for group in groups for p in group["params"]} == {
            id(p) for p in learner.parameters()
        }
        assert [p.numel() for p in groups[1]["params"]] == [1, 1]


def dropped(square: Backbone, seed: int | None, changes: dict | None = None) -> torch.Tensor:
    config = SMALL.changed({"dropout": 0.5} | (changes or {}))
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    same = features_of(square).image_embedding[:1].expand(4, -1)
    return text_embeddings(learner_of(square, config), square, config, same, generator).detach()


def test_dropout_is_drawn_apart_for_every_image_from_its_generator_alone(square: Backbone) -> None:
    state = torch.get_rng_state()
    once, again, different = dropped(square, 1), dropped(square, 1), dropped(square, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(once, again)
    assert not torch.equal(once, different)
    assert torch.pdist(once.flatten(1)).min() > 1e-4
    without = dropped(square, None)
    assert torch.pdist(without.flatten(1)).max() < 1e-5
    torch.testing.assert_close(dropped(square, 1, {"dropout": 0.0}), without)


def test_dropout_keeps_the_mean_of_the_deep_prompts(square: Backbone) -> None:
    deep = learner_of(square).deep_prompts
    plain = deep.vectors(1, 0.1, None)
    drawn = deep.vectors(4000, 0.1, torch.Generator().manual_seed(0))
    assert ((drawn == 0).float().mean() - 0.1).abs() < 5e-3
    torch.testing.assert_close(drawn.mean(dim=1), plain[:, 0], atol=0.05, rtol=0)
    zeros = drawn[:, :50] == 0  # every block and every prompt has draws of its own
    assert len(zeros.unique(dim=0)) == len(zeros) and len(zeros.unique(dim=1)[0]) == 50


def test_the_baseline_is_a_model_of_its_own(square: Backbone) -> None:
    baseline = SMALL.changed({"pre_vcp": False, "post_vcp": False})
    prepared, features = prepare_backbone(square, baseline), features_of(square)
    learner = learner_of(square, baseline)
    names = dict(learner.named_parameters())
    assert not any(name.startswith(("post_vcp", "pre_vcp.mini_net")) for name in names)
    parts = loss(learner, prepared, baseline, features, torch.ones(3), masks_of(), None)
    assert sorted(parts) == ["raw_dice", "raw_focal", "total"]
    raw, new = branch_maps(learner, prepared, baseline, features)
    assert new is None
    detection = detect(prepared, baseline.changed({"sigma": 0.0}), learner, features)
    assert torch.equal(detection.anomaly_map, raw)
    assert [len(group["params"]) for group in parameter_groups(learner, baseline, "visa")][1] == 1


def test_without_visual_context_all_images_have_the_same_text(square: Backbone) -> None:
    images = features_of(square).image_embedding
    spoken = text_embeddings(learner_of(square), square, SMALL, images)
    assert (spoken[0] - spoken[1]).abs().max() > 1e-4
    for change in ({"use_global": False}, {"pre_vcp": False}):
        config = SMALL.changed(change)
        silent = text_embeddings(learner_of(square, config), square, config, images)
        torch.testing.assert_close(silent[0], silent[1])


def test_features_are_plain_tensors_of_the_wanted_blocks(square: Backbone) -> None:
    features = features_of(square, SMALL.changed({"blocks": [3, 1]}))
    assert list(features.patch_tokens) == [1, 3]
    assert not features.image_embedding.is_inference()
    assert not any(tokens.is_inference() for tokens in features.patch_tokens.values())
    assert features.patch_tokens[1].shape == (3, 36, 32)
    assert features.image_embedding.norm(dim=-1).sub(1).abs().min() > 1e-3  # not normalised


def test_only_the_recipe_decides_what_is_encoded() -> None:
    same = {"alpha": 0.5, "heads": 2, "deep_prompts": False, "normal_states": ["fine"]}
    assert recipe(SMALL.changed(same)) == recipe(SMALL)
    for change in ({"blocks": [1]}, {"image_size": 32}):
        assert recipe(SMALL.changed(change)) != recipe(SMALL)


def test_presets_differ_where_paper_and_code_do() -> None:
    paper, code = PRESETS["paper"], PRESETS["code"]
    different = {f.name for f in fields(code) if getattr(code, f.name) != getattr(paper, f.name)}
    assert different == {
        "post_width",
        "post_bias",
        "post_unit_tokens",
        "alpha",
        "sigma",
        "image_score",
        "learning_rate_mvtec",
        "learning_rate_temperature",
        "augmentation",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": [1, 9]}, "blocks: found 9, expected at most 3"),
        ({"blocks": [1, 1]}, "blocks: found"),
        ({"image_size": 50}, "image_size: found 50, expected a multiple of 8"),
        ({"image_size": 0}, "image_size: found 0"),
        ({"heads": 5}, "heads: found 5, expected a divisor of 32"),
        ({"templates": ["a photo of a {state} thing"]}, "templates: found"),
        ({"anomalous_states": []}, "anomalous_states: found none"),
        ({"alpha": 1.5}, "alpha: found 1.5"),
        ({"sigma": -1.0}, "sigma: found -1.0"),
        ({"betas": [0.9]}, "betas: found"),
        ({"learning_rate": "fast"}, "learning_rate: found 'fast'"),
        ({"learnig_rate": 1.0}, "vcpclip: found an unknown learnig_rate"),
    ],
)
def test_a_config_that_does_not_fit_is_one_message(
    square: Backbone, changes: dict, message: str
) -> None:
    with pytest.raises(ClipadError, match=message):
        prepare_backbone(square, SMALL.changed(changes))


def test_bad_input_is_one_message_each(square: Backbone, micro: Backbone) -> None:
    prepared, learner, features = (
        prepare_backbone(square, SMALL),
        learner_of(square),
        features_of(square),
    )
    with pytest.raises(ClipadError, match="text tower is 32 wide and the joint space 16"):
        make_learner(micro, SMALL, 0)
    with pytest.raises(ClipadError, match="masks: found"):
        loss(learner, prepared, SMALL, features, torch.ones(3), masks_of()[:, :40, :40], None)
    with pytest.raises(ClipadError, match="top_pixels: found 9999, expected at most 2304"):
        detect(prepared, SMALL.changed({"top_pixels": 9999}), learner, features)
    with pytest.raises(ClipadError, match="images: found none"):
        VCPCLIP(square, SMALL, learner)([])
    with pytest.raises(ClipadError, match="images: found"):
        encode(prepared, torch.zeros(1, 3, 32, 32), recipe(SMALL))
    long = SMALL.changed({"templates": [" ".join(["very"] * 80) + " {state} {category}"]})
    with pytest.raises(ClipadError, match="takes .* tokens, expected at most 77"):
        text_embeddings(learner, prepared, long, features.image_embedding)
    with torch.no_grad():
        learner.raw_logit_scale.fill_(torch.nan)
    with pytest.raises(ClipadError, match="anomaly map: found NaN"):
        detect(prepared, SMALL, learner, features)


def test_default_config_is_the_official_setting() -> None:
    config = VCPCLIPConfig()
    assert prompts(config) == (
        ["a photo of a good {category}"],
        ["a photo of a damaged {category}"],
    )
