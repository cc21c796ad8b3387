"""AnomalyCLIP: equations written out, invariants, presets, checkpoints, and what must be refused."""

import math
import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from micro import MICRO, add_config, run_tower
from PIL import Image
from recordings import GOLDENS

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.features import Features
from clipad_core.errors import ClipadError
from clipad_core.learned.checkpoint_files import to_safetensors
from clipad_core.methods.anomalyclip.checkpoint import (
    NAME,
    official_bytes,
    read_official,
    to_official,
)
from clipad_core.methods.anomalyclip.config import PRESETS, AnomalyCLIPConfig, find_preset
from clipad_core.methods.anomalyclip.detector import (
    METHOD,
    AnomalyCLIP,
    detect,
    encode,
    image_logits,
    know,
    loss,
    patch_probabilities,
    prepare_backbone,
    recipe,
)
from clipad_core.methods.anomalyclip.learner import (
    AnomalyCLIPLearner,
    make_learner,
    sample_order,
)
from clipad_core.methods.anomalyclip.text import (
    check_category,
    prompt_words,
    text_embeddings,
    with_words,
)
from clipad_core.methods.checkpoint import checkpoint_bytes, read_checkpoint
from clipad_core.methods.method import Category

SMALL = AnomalyCLIPConfig().changed(
    {"image_size": 48, "blocks": [1, 3], "dpam_from_layer": 2, "prompt_depth": 2, "sigma": 1.0}
)
DATA = "d" * 64


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    add_config(
        tmp_path_factory.mktemp("square"),
        "clipad-micro-ac",
        MICRO | {"embed_dim": 32, "text_cfg": MICRO["text_cfg"] | {"layers": 3}},
    )
    return load_backbone("clipad-micro-ac", "random:0")


@pytest.fixture(scope="module")
def prepared(loaded: Backbone) -> Backbone:
    return prepare_backbone(loaded, SMALL)


def features_of(prepared: Backbone, config: AnomalyCLIPConfig = SMALL) -> Features:
    drawn = torch.Generator().manual_seed(7)
    return encode(prepared, torch.randn(3, 3, 48, 48, generator=drawn), recipe(config))


def masks_of() -> torch.Tensor:
    masks = torch.zeros(3, 48, 48)
    masks[1:, 5:20, 10:30] = 1
    return masks


def test_probabilities_and_logits_are_the_two_way_softmax_of_the_paper() -> None:
    drawn = torch.Generator().manual_seed(0)
    patches = F.normalize(torch.randn(2, 5, 8, generator=drawn, dtype=torch.float64), dim=-1)
    text = F.normalize(torch.randn(1, 2, 8, generator=drawn, dtype=torch.float64), dim=-1)
    probabilities = patch_probabilities(patches, text, 0.07)
    for b in range(2):
        for p in range(5):
            normal = math.exp(float(patches[b, p] @ text[0, 0]) / 0.07)
            anomalous = math.exp(float(patches[b, p] @ text[0, 1]) / 0.07)
            assert probabilities[b, p].item() == pytest.approx(
                anomalous / (normal + anomalous), abs=1e-12
            )
    scaled = image_logits(3 * patches[:, 0], text, 0.07)
    assert torch.allclose(scaled, patches[:, 0] @ text[0].T / 0.07)


def test_the_total_is_the_global_loss_and_lambda_times_the_local_ones(prepared: Backbone) -> None:
    learner = make_learner(prepared, SMALL, 3)
    inputs = features_of(prepared), torch.tensor([0, 1, 1]), masks_of()
    parts = loss(learner, prepared, SMALL, *inputs, None)
    local = parts["focal"] + parts["dice_anomalous"] + parts["dice_normal"]
    assert torch.allclose(parts["total"], parts["global"] + 4 * local)
    for changes, missing in (
        ({"global_loss": False}, {"global"}),
        ({"local_loss": "none"}, {"focal", "dice_anomalous", "dice_normal"}),
        ({"local_loss": "dice"}, {"focal"}),
    ):
        fewer = loss(learner, prepared, SMALL.changed(changes), *inputs, None)
        assert set(parts) - set(fewer) == missing
        assert all(torch.allclose(fewer[name], parts[name]) for name in set(fewer) - {"total"})


def test_gradients_reach_what_is_learned_and_nothing_else(prepared: Backbone) -> None:
    learner = make_learner(prepared, SMALL, 3)
    inputs = features_of(prepared), torch.tensor([0, 1, 1]), masks_of()
    loss(learner, prepared, SMALL, *inputs, None)["total"].backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for parameter in learner.parameters()
    )
    tower = prepared.text
    assert tower.token_embedding.grad is None and not tower.token_embedding.requires_grad


def test_the_map_adds_up_the_blocks_and_an_image_alone_scores_like_in_a_batch(
    prepared: Backbone,
) -> None:
    text = know(prepared, SMALL, Category(), None, make_learner(prepared, SMALL, 3))
    features = features_of(prepared)
    whole = detect(prepared, SMALL, text, features)
    blocks = [
        detect(prepared, SMALL.changed({"blocks": [block]}), text, features).anomaly_map
        for block in SMALL.blocks
    ]
    assert torch.allclose(whole.anomaly_map, sum(blocks), atol=1e-6)
    alone = detect(prepared, SMALL, text, features[1:2])
    assert torch.allclose(alone.anomaly_map, whole.anomaly_map[1:2], atol=1e-6)
    assert torch.allclose(alone.image_score, whole.image_score[1:2], atol=1e-6)


def test_the_branch_leaves_the_class_token_of_the_tower_alone(prepared: Backbone) -> None:
    with_branch = features_of(prepared)
    without = features_of(prepared, SMALL.changed({"branch": "none"}))
    assert torch.allclose(with_branch.image_embedding, without.image_embedding, atol=1e-6)
    assert torch.allclose(with_branch.patch_tokens[1], without.patch_tokens[1], atol=1e-6)
    assert not torch.allclose(with_branch.patch_tokens[3], without.patch_tokens[3], atol=1e-3)


def test_the_class_token_passes_the_last_norm_only_where_asked(prepared: Backbone) -> None:
    plain = features_of(prepared)
    normed = features_of(prepared, SMALL.changed({"class_ln_post": True}))
    images = torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(7))
    own, _ = run_tower(prepared.vision, images)  # CLIP's, unit norm
    assert torch.allclose(F.normalize(normed.image_embedding, dim=-1), own, atol=1e-6)
    assert not torch.allclose(F.normalize(plain.image_embedding, dim=-1), own, atol=1e-3)
    for block, tokens in plain.patch_tokens.items():
        assert torch.equal(tokens, normed.patch_tokens[block])


def test_an_ensemble_is_the_mean_of_its_members(prepared: Backbone) -> None:
    members = [features_of(prepared, SMALL.changed({"branch": b})) for b in ("qq", "kk", "vv")]
    mean = torch.stack([features.patch_tokens[3] for features in members]).mean(dim=0)
    ensemble = features_of(prepared, SMALL.changed({"branch": "ensemble"}))
    assert torch.allclose(ensemble.patch_tokens[3], mean, atol=1e-6)


def test_object_aware_prompts_differ_by_category_and_need_one(prepared: Backbone) -> None:
    aware = SMALL.changed({"object_word": "category"})
    learner = make_learner(prepared, aware, 3)
    embeddings = text_embeddings(learner, prepared, aware, ["nut", "bolt", "nut"])
    assert torch.equal(embeddings[0], embeddings[2]) and not torch.allclose(
        embeddings[0], embeddings[1]
    )
    with pytest.raises(ClipadError, match="categories: found none"):
        text_embeddings(learner, prepared, aware)
    assert prompt_words(SMALL, "nut") == ("object.", "damaged object.")


def test_the_state_word_takes_the_words_of_the_category(prepared: Backbone) -> None:
    learner = make_learner(prepared, SMALL, 3)
    category = Category(
        "nut", ("bent", "bad_paint"), ("tear",), ("worn thread",), ("moth hole", "cut")
    )
    for slot, kind, states in (
        ("{defects}", "defects", ["bad paint", "bent"]),
        ("damaged {defects}", "defects", ["damaged bad paint", "damaged bent"]),
        ("{other_defects}", "other_defects", ["tear"]),
        ("{phrases}", "phrases", ["worn thread"]),
        ("{other_phrases}", "other_phrases", ["cut", "moth hole"]),
    ):
        named = SMALL.changed({"anomalous_state": slot})
        written = [SMALL.changed({"anomalous_state": state}) for state in states]
        pairs = [know(prepared, one, Category(), None, learner).text[0] for one in written]
        normal, anomalous = know(prepared, named, category, None, learner).text[0]
        assert torch.allclose(normal, pairs[0][0], atol=1e-6)
        mean = sum(pair[1] for pair in pairs) / len(pairs)
        assert torch.allclose(anomalous, mean / mean.norm(), atol=1e-6)
        assert [prompt_words(one)[1] for one in with_words(named, category)] == [
            f"{state} object." for state in states
        ]
        assert METHOD.category_words(named) == (kind,)
    assert METHOD.category_words(SMALL) == () and with_words(SMALL, category) == (SMALL,)


def test_words_of_a_category_are_refused_where_there_are_none(prepared: Backbone) -> None:
    named = SMALL.changed({"anomalous_state": "{phrases}"})
    learner = make_learner(prepared, named, 3)
    nut = Category("nut", ("bent",))
    for ask in (
        lambda: know(prepared, named, nut, None, learner),
        lambda: check_category(prepared, named, nut),
    ):
        with pytest.raises(ClipadError, match="found '{phrases}', of which nut has none"):
            ask()
    inputs = features_of(prepared), torch.tensor([0, 1, 1]), masks_of()
    with pytest.raises(ClipadError, match="as in a training; expected plain words"):
        loss(learner, prepared, named, *inputs, None)
    for state, found in (
        ("{defect}", "{defect}"),
        ("{defects} {phrases}", "{defects} and {phrases}"),
    ):
        with pytest.raises(ClipadError, match=f"anomalous_state: found {found}, expected at most"):
            SMALL.changed({"anomalous_state": state})


def test_the_presets_differ_from_the_published_setting_as_their_sources_say() -> None:
    published = PRESETS["published"]
    assert (published.blocks, published.local_weight, published.sigma) == ((24,), 4.0, 4.0)
    different = {
        name: {
            f.name for f in fields(preset) if getattr(preset, f.name) != getattr(published, f.name)
        }
        for name, preset in PRESETS.items()
    }
    assert different == {
        "published": set(),
        "code_default": {"blocks"},
        "first_release": {"blocks", "local_stream", "local_weight"},
        "paper": {"template", "half_prompts"},
        "untrained": {"context", "prompt_depth", "epochs"},
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": []}, "blocks: found ()"),
        ({"temperature": 0}, "temperature: found 0"),
        ({"prompt_length": 13}, "prompt_length: found 13, expected at most context_length"),
        ({"context": "none", "epochs": 0}, "prompt_depth: found 2 without a context"),
        ({"global_loss": False, "local_loss": "none"}, "expected 0"),
        ({"template": "{object}"}, "template: found '{object}'"),
        ({"branch": "v-v"}, "branch: found 'v-v', expected one of 'vv'"),
    ],
)
def test_a_setting_that_no_code_path_knows_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ClipadError) as raised:
        SMALL.changed(changes)
    assert message in str(raised.value)


def test_blocks_and_depths_must_exist_in_the_backbone(loaded: Backbone) -> None:
    for changes in ({"blocks": [4]}, {"dpam_from_layer": 9}, {"prompt_depth": 9}):
        with pytest.raises(ClipadError, match="expected at most"):
            prepare_backbone(loaded, SMALL.changed(changes))


def test_a_seed_decides_everything_and_touches_no_other_draw(loaded: Backbone) -> None:
    state = torch.get_rng_state()
    context, same, different = (
        make_learner(loaded, SMALL, seed).context_tokens for seed in (5, 5, 6)
    )
    orders = sample_order(SMALL, loaded, 20, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(context, same) and not torch.equal(context, different)
    assert sorted(orders[0]) == list(range(20)) and orders[0] != orders[1]


def equal(first: AnomalyCLIPLearner, second: AnomalyCLIPLearner) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def stored(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_official_layout_is_that_of_the_released_files(loaded: Backbone) -> None:
    published = AnomalyCLIPConfig()
    learner = AnomalyCLIPLearner(768, published)
    with torch.no_grad():
        for tensor in learner.state_dict().values():
            tensor.zero_()
    text = replace(loaded.text, token_embedding=torch.zeros(49408, 768))
    tensors = to_official(learner, replace(loaded, text=text), published)["prompt_learner"]
    lines = (GOLDENS / "anomalyclip" / "official_layout.txt").read_text().splitlines()
    expected = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in lines}
    assert {
        name: f"{tuple(tensor.shape)} {tensor.dtype}" for name, tensor in tensors.items()
    } == expected


@pytest.mark.parametrize("changes", [{}, {"prompt_depth": 1}, {"context_length": 8}])
def test_official_file_there_and_back_is_exact(
    loaded: Backbone, tmp_path: Path, changes: dict
) -> None:
    config = SMALL.changed(changes)
    learner = make_learner(loaded, config, 3)
    path = tmp_path / "learner.pth"
    path.write_bytes(official_bytes(learner, loaded, config))
    again = read_official(path, loaded, config)
    assert equal(learner, again) and all(
        parameter.requires_grad for parameter in again.parameters()
    )
    assert official_bytes(again, loaded, config) == path.read_bytes()


def test_layers_that_are_not_equal_are_kept_one_by_one(loaded: Backbone, tmp_path: Path) -> None:
    config = SMALL.changed({"prompt_depth": 3})
    saved = to_official(make_learner(loaded, config, 3), loaded, config)
    saved["prompt_learner"]["compound_prompt_projections.1.bias"] += 1
    again = read_official(stored(tmp_path / "a.pth", saved), loaded, config)
    assert len(again.unused_bias) == 2
    written = to_official(again, loaded, config)["prompt_learner"]
    assert all(
        torch.equal(tensor, written[name]) for name, tensor in saved["prompt_learner"].items()
    )


def test_files_of_forks_are_read(loaded: Backbone, tmp_path: Path) -> None:
    learner = make_learner(loaded, SMALL, 3)
    inner = to_official(learner, loaded, SMALL)["prompt_learner"]
    bare = read_official(stored(tmp_path / "bare.pth", inner), loaded, SMALL)
    assert equal(learner, bare)
    short = {k: v for k, v in inner.items() if "projections" not in k and "token_" not in k}
    restored = read_official(
        stored(tmp_path / "short.pth", {"prompt_learner": short}), loaded, SMALL
    )
    assert torch.equal(restored.context_tokens, learner.context_tokens)
    assert len(restored.unused_weight) == 0
    prepared = prepare_backbone(loaded, SMALL)
    detection, restored_detection = (
        detect(
            prepared, SMALL, know(prepared, SMALL, Category(), None, each), features_of(prepared)
        )
        for each in (learner, restored)
    )
    assert torch.equal(detection.anomaly_map, restored_detection.anomaly_map)


def test_our_file_there_and_back_is_exact(loaded: Backbone, tmp_path: Path) -> None:
    learner = make_learner(loaded, SMALL, 3)
    path = tmp_path / "learner.safetensors"
    path.write_bytes(checkpoint_bytes(NAME, learner, SMALL, loaded, DATA))
    for backbone in (loaded, prepare_backbone(loaded, SMALL)):
        again, config, data = read_checkpoint(NAME, path, backbone)
        assert equal(learner, again) and config == SMALL and data == DATA
        assert checkpoint_bytes(NAME, again, config, backbone, data) == path.read_bytes()


def refused(path: Path, loaded: Backbone) -> str:
    with pytest.raises(ClipadError) as raised:
        if path.suffix == ".pth":
            read_official(path, loaded, SMALL)
        else:
            read_checkpoint(NAME, path, loaded)
    assert str(path) in str(raised.value)
    return str(raised.value)


class Attack:
    """What an unsafe unpickler would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_what_is_no_checkpoint_of_this_method_is_refused(loaded: Backbone, tmp_path: Path) -> None:
    inner = to_official(make_learner(loaded, SMALL, 3), loaded, SMALL)["prompt_learner"]
    misshapen = stored(tmp_path / "shape.pth", inner | {"ctx_neg": torch.zeros(1, 1, 4, 32)})
    assert "tensor ctx_neg is (1, 1, 4, 32), expected (1, 1, 12, 32)" in refused(misshapen, loaded)
    less = {k: v for k, v in inner.items() if k != "compound_prompts_text.0"}
    message = refused(stored(tmp_path / "less.pth", less), loaded)
    assert "tensor compound_prompts_text.0 is nothing" in message
    vcpclip = stored(tmp_path / "vcp.pth", {"New_Lan_Embed": {"prompt_query": torch.zeros(2)}})
    assert "does not fit anomalyclip" in refused(vcpclip, loaded)
    trace, path = tmp_path / "trace", tmp_path / "attack.pth"
    path.write_bytes(pickle.dumps(inner | {"attack": Attack(trace)}, protocol=2))
    refused(path, loaded)
    assert not trace.exists()
    cut = tmp_path / "cut.pth"
    cut.write_bytes((tmp_path / "less.pth").read_bytes()[:1000])
    assert "could not be read" in refused(cut, loaded)
    foreign = tmp_path / "ours.safetensors"
    header = {"method": "vcpclip", "config": {}, "backbone": "", "data": ""}
    foreign.write_bytes(to_safetensors({"x": torch.zeros(1)}, header))
    assert "is of the method 'vcpclip', expected 'anomalyclip'" in refused(foreign, loaded)


def test_what_the_official_layout_has_no_place_for_is_named(loaded: Backbone) -> None:
    shared = SMALL.changed({"shared_context": True})
    with pytest.raises(ClipadError, match="shared_context: found True, expected False"):
        official_bytes(make_learner(loaded, shared, 3), loaded, shared)


def test_the_detector_takes_images_of_any_size(loaded: Backbone) -> None:
    drawn = np.random.default_rng(0)
    images = [drawn.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((30, 40), (64, 20))]
    detector = AnomalyCLIP(loaded, SMALL, make_learner(loaded, SMALL, 3))
    detection = detector(images)
    assert detection.anomaly_map.shape == (2, 48, 48)
    for place, image in enumerate(images):
        square = np.asarray(Image.fromarray(image).resize((48, 48), Image.Resampling.BICUBIC))
        alone = detector([square])
        torch.testing.assert_close(
            detection.anomaly_map[place], alone.anomaly_map[0], atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            detection.image_score[place], alone.image_score[0], atol=1e-5, rtol=0
        )
    assert not torch.allclose(detection.anomaly_map[0], detection.anomaly_map[1], atol=1e-5)
    with pytest.raises(ClipadError, match="images: found none"):
        detector([])


def test_published_is_the_default() -> None:
    assert find_preset("published") == AnomalyCLIPConfig()
