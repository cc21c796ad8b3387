"""VCP-CLIP with references: a memory in plain loops, and prompts that references speak into."""

import pytest
import torch
import torch.nn.functional as F
from vcpclip_cases import SMALL, features_of, learner_of, pictures, square

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.features import Features
from clipad_core.errors import ClipadError
from clipad_core.learned.token_memory import reference_map
from clipad_core.maps import smoothed
from clipad_core.methods.method import Category
from clipad_core.methods.vcpclip.config import VCPCLIPConfig
from clipad_core.methods.vcpclip.detector import (
    METHOD,
    VCPCLIP,
    Knowledge,
    detect,
    know,
    prepare_backbone,
)
from clipad_core.methods.vcpclip.maps import branch_map, mean_of_top, new_logits, raw_logits
from clipad_core.methods.vcpclip.text import text_embeddings

__all__ = ["square"]  # the fixture
QUERY, SHOTS = slice(0, 2), slice(2, 5)


@pytest.fixture(scope="module")
def features(square: Backbone) -> Features:
    """Two test images, then three references."""
    return features_of(square, images=5)


def detected(square: Backbone, features: Features, changes: dict, shots: bool = True):  # noqa: ANN201
    config = SMALL.changed(changes)
    prepared, learner = prepare_backbone(square, config), learner_of(square)
    references = features[SHOTS] if shots else None
    knowledge = know(prepared, config, Category(), references, learner)
    return detect(prepared, config, knowledge, features[QUERY])


def naive_distances(features: Features) -> torch.Tensor:
    """The nearest patch of all references, one block and patch at a time; upsampled."""
    total = torch.zeros(2, 36)
    for image in range(2):
        for place in range(36):
            for block in SMALL.blocks:
                patch = F.normalize(features.patch_tokens[block][image, place], dim=0)
                memory = features.patch_tokens[block][SHOTS].flatten(0, 1)
                cosines = [float(patch @ F.normalize(other, dim=0)) for other in memory]
                total[image, place] += min((1 - cosine) / 2 for cosine in cosines) / 2
    grid = total.unflatten(1, (1, 6, 6))
    return F.interpolate(grid, (48, 48), mode="bilinear", align_corners=True)[:, 0]


def test_a_memory_is_a_map_beside_that_of_the_text(square: Backbone, features: Features) -> None:
    text = detected(square, features, {}, shots=False)
    distances = naive_distances(features)
    own, top = smoothed(distances, SMALL.sigma), mean_of_top(distances, SMALL.top_pixels)
    harmonic = 2 / (1 / text.anomaly_map + 1 / own)
    expected = {
        "mean": ((text.anomaly_map + own) / 2, text.image_score + top),
        "harmonic": (harmonic, text.image_score + top),
        "visual": (own, top),
    }
    for rule, (anomaly_map, score) in expected.items():
        detection = detected(square, features, {"map_fusion": rule})
        torch.testing.assert_close(detection.anomaly_map, anomaly_map, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(detection.image_score, score, rtol=1e-4, atol=1e-5)
    alone = detected(square, features, {"map_fusion": "language"})
    assert torch.equal(alone.anomaly_map, text.anomaly_map)
    assert torch.equal(alone.image_score, text.image_score)
    largest = detected(square, features, {"image_score": "map_maximum"})
    assert torch.equal(largest.image_score, largest.anomaly_map.amax(dim=(1, 2)))


def test_a_reference_is_at_no_distance_from_itself(square: Backbone, features: Features) -> None:
    knowledge = know(square, SMALL, Category(), features[SHOTS], learner_of(square))
    assert isinstance(knowledge, Knowledge)
    own = reference_map(features[SHOTS], knowledge.memory, (6, 6), (48, 48))
    assert own.abs().max() < 1e-5
    assert reference_map(features[QUERY], knowledge.memory, (6, 6), (48, 48)).min() > 1e-3


def score_by_hand(square: Backbone, features: Features, text: torch.Tensor) -> torch.Tensor:
    """The fused map before smoothing, of text embeddings that are given."""
    learner = learner_of(square)
    raw, new = (
        branch_map(logits(learner, SMALL, features, text), (6, 6), (48, 48))
        for logits in (raw_logits, new_logits)
    )
    return (0.2 * raw + 0.8 * new).detach()


def test_references_stand_for_the_state_of_the_normal_prompt_alone(
    square: Backbone, features: Features
) -> None:
    learner, images = learner_of(square), features[QUERY].image_embedding
    vectors = torch.stack([learner.pre_vcp(e[None])[0] for e in features[SHOTS].image_embedding])
    zero_shot = text_embeddings(learner, square, SMALL, images)
    # The same vectors as two learned states of one prompt each: what stands there is all that differs.
    learned = SMALL.changed({"state_length": 2, "state_init": "random"})
    by_hand = learner_of(square, learned)
    with torch.no_grad():
        by_hand.states[0] = vectors.mean(dim=0)  # type: ignore[index]
    normal = text_embeddings(by_hand, square, learned, images)[:, 0]
    text = torch.stack([normal, zero_shot[:, 1]], dim=1)
    expected = score_by_hand(square, features[QUERY], text)
    detection = detected(square, features, {"reference_use": "state", "sigma": 0.0})
    torch.testing.assert_close(detection.anomaly_map, expected)
    assert (expected - score_by_hand(square, features[QUERY], zero_shot)).abs().max() > 1e-4


def test_references_stand_for_the_normal_prompt(square: Backbone, features: Features) -> None:
    text = text_embeddings(learner_of(square), square, SMALL, features[QUERY].image_embedding)
    units = [embedding / embedding.norm() for embedding in features[SHOTS].image_embedding]
    mean = sum(units) / 3
    text = torch.stack([(mean / mean.norm()).expand(2, -1), text[:, 1]], dim=1)
    expected = score_by_hand(square, features[QUERY], text)
    detection = detected(square, features, {"reference_use": "normal_prompt", "sigma": 0.0})
    torch.testing.assert_close(detection.anomaly_map, expected)


@pytest.mark.parametrize("use", ["memory", "state", "normal_prompt"])
def test_the_order_of_references_moves_nothing(
    square: Backbone, features: Features, use: str
) -> None:
    turned = features[torch.tensor([0, 1, 4, 2, 3])]
    first, second = (detected(square, each, {"reference_use": use}) for each in (features, turned))
    torch.testing.assert_close(first.anomaly_map, second.anomaly_map)
    torch.testing.assert_close(first.image_score, second.image_score)


@pytest.mark.parametrize("use", ["memory", "state", "normal_prompt"])
def test_the_decoder_takes_references_too(square: Backbone, features: Features, use: str) -> None:
    config = SMALL.changed({"head": "decoder", "reference_use": use, "image_score": "decoder"})
    prepared, learner = prepare_backbone(square, config), learner_of(square, config)
    text_alone = detect(prepared, config, learner, features[QUERY])
    knowledge = know(prepared, config, Category(), features[SHOTS], learner)
    detection = detect(prepared, config, knowledge, features[QUERY])
    assert (detection.anomaly_map - text_alone.anomaly_map).abs().max() > 1e-6
    assert not torch.equal(detection.image_score, text_alone.image_score)


def test_without_references_nothing_of_them_is_read(square: Backbone) -> None:
    images = pictures([(48, 48)] * 2)
    expected = VCPCLIP(square, SMALL, learner_of(square))(images)
    for changes in ({"reference_use": "state"}, {"map_fusion": "visual"}):
        config: VCPCLIPConfig = SMALL.changed(changes)
        detection = VCPCLIP(square, config, learner_of(square))(images)
        assert torch.equal(detection.anomaly_map, expected.anomaly_map)
        assert torch.equal(detection.image_score, expected.image_score)


def test_references_are_not_the_paper_s_and_what_they_cannot_be_is_refused(
    square: Backbone,
) -> None:
    assert METHOD.references is not None
    assert METHOD.references.title == "VCP-CLIP with references (not the paper's)"
    for change in ({"pre_vcp": False}, {"use_global": False}):
        with pytest.raises(ClipadError, match="reference_use: found state, expected pre_vcp and"):
            SMALL.changed({"reference_use": "state", **change})
    with pytest.raises(ClipadError, match="reference_use: found 'prompt'"):
        SMALL.changed({"reference_use": "prompt"})
    with pytest.raises(ClipadError, match="map_fusion: found 'max'"):
        SMALL.changed({"map_fusion": "max"})
    long = SMALL.changed({"templates": [" ".join(["very"] * 69) + " {state} {category}"]})
    METHOD.check_prompts(square, long, Category())
    with pytest.raises(ClipadError, match="takes 78 tokens, expected at most 77"):
        longer = {"reference_use": "state", "category_length": 3}
        METHOD.check_prompts(square, long.changed(longer), Category())
