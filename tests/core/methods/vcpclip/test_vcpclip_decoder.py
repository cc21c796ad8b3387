"""VCP-CLIP with a decoder of two text queries: against plain loops, one image and head at a time."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from vcpclip_cases import SMALL, features_of, learner_of, masks_of, square

from clipad_core.clip.backbone import Backbone
from clipad_core.errors import ClipadError
from clipad_core.maps import smoothed
from clipad_core.methods.checkpoint import checkpoint_bytes, read_checkpoint
from clipad_core.methods.method import Category
from clipad_core.methods.vcpclip.checkpoint import official_bytes, read_official
from clipad_core.methods.vcpclip.detector import (
    decoded,
    detect,
    know,
    loss,
    parameter_groups,
    prepare_backbone,
)
from clipad_core.methods.vcpclip.initial import make_learner, sample_order
from clipad_core.methods.vcpclip.learner import QueryDecoder
from clipad_core.methods.vcpclip.maps import block_tokens, raw_logits
from clipad_core.methods.vcpclip.text import text_embeddings

__all__ = ["square"]  # the fixture
DECODER = SMALL.changed({"head": "decoder"})


def naive_attention(
    attention: nn.MultiheadAttention, queries: torch.Tensor, patches: torch.Tensor
) -> torch.Tensor:
    """Scaled dot-product attention of some queries, a head at a time."""
    wq, wk, wv = attention.in_proj_weight.chunk(3)
    bq, bk, bv = attention.in_proj_bias.chunk(3)
    heads = []
    for q, k, v in zip(
        (queries @ wq.T + bq).chunk(attention.num_heads, dim=1),
        (patches @ wk.T + bk).chunk(attention.num_heads, dim=1),
        (patches @ wv.T + bv).chunk(attention.num_heads, dim=1),
        strict=True,
    ):
        heads.append((q @ k.T / math.sqrt(q.shape[1])).softmax(dim=1) @ v)
    return attention.out_proj(torch.cat(heads, dim=1))


def naive_decoder(
    decoder: QueryDecoder, text: torch.Tensor, tokens: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of one image: DETR's decoder layer as printed (its appendix A.3), without dropout."""
    patches = torch.zeros(len(tokens[0]), text.shape[1])
    for layer, block in zip(decoder.project, tokens, strict=True):
        patches = patches + layer(block)
    patches, queries = decoder.norm(patches), text
    for layer in decoder.layers:
        queries = layer.norm1(queries + naive_attention(layer.self_attn, queries, queries))
        queries = layer.norm2(queries + naive_attention(layer.multihead_attn, queries, patches))
        queries = layer.norm3(queries + layer.linear2(layer.linear1(queries).relu()))
    masks = [[p @ decoder.mask(o) / math.sqrt(len(o)) for o in queries] for p in patches]
    shown = [decoder.shown(o)[0] for o in queries]
    return torch.stack([torch.stack(row) for row in masks]), torch.stack(shown)


@pytest.mark.parametrize("layers", [1, 3])
def test_the_decoder_equals_its_steps(square: Backbone, layers: int) -> None:
    config = DECODER.changed({"decoder_layers": layers})
    learner, features = learner_of(square, config), features_of(square)
    assert learner.decoder is not None and len(learner.decoder.layers) == layers
    text = text_embeddings(learner, square, config, features.image_embedding)
    logits, shown = learner.decoder(text, block_tokens(config, features))
    for image in range(3):
        tokens = [features.patch_tokens[block][image] for block in (1, 3)]
        masks, answers = naive_decoder(learner.decoder, text[image], tokens)
        torch.testing.assert_close(logits[image], masks)
        torch.testing.assert_close(shown[image], answers)
    difference = decoded(learner, config, features, text)[1]
    torch.testing.assert_close(difference, shown[:, 1] - shown[:, 0])


def test_map_and_image_score_come_from_the_decoder_alone(square: Backbone) -> None:
    prepared, learner = prepare_backbone(square, DECODER), learner_of(square, DECODER)
    features = features_of(square)
    text = text_embeddings(learner, prepared, DECODER, features.image_embedding)
    logits, difference = decoded(learner, DECODER, features, text)
    grids = logits.transpose(1, 2).unflatten(2, (6, 6))
    large = F.interpolate(grids, (48, 48), mode="bilinear", align_corners=True)
    probability = large.softmax(dim=1)[:, 1].detach()
    own = DECODER.changed({"image_score": "decoder"})
    detection = detect(prepared, own, learner, features)
    torch.testing.assert_close(detection.anomaly_map, smoothed(probability, 1.5))
    torch.testing.assert_close(detection.image_score, difference.sigmoid().detach())
    top = detect(prepared, DECODER, learner, features).image_score
    torch.testing.assert_close(top, probability.flatten(1).sort().values[:, -50:].mean(dim=1))
    highest = detect(prepared, DECODER.changed({"image_score": "map_maximum"}), learner, features)
    assert torch.equal(highest.image_score, highest.anomaly_map.amax(dim=(1, 2)))


def test_the_decoder_learns_by_the_same_losses_from_masks_and_labels(square: Backbone) -> None:
    prepared, learner = prepare_backbone(square, DECODER), learner_of(square, DECODER)
    features, labels, masks = features_of(square), torch.tensor([0, 1, 1]), masks_of()
    parts = loss(learner, prepared, DECODER, features, labels, masks, None)
    text = text_embeddings(learner, prepared, DECODER, features.image_embedding)
    logits, difference = decoded(learner, DECODER, features, text)
    grids = logits.transpose(1, 2).unflatten(2, (6, 6))
    large = F.interpolate(grids, (48, 48), mode="bilinear", align_corners=True)
    probability = large.softmax(dim=1)[:, 1]

    def focal(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        right = torch.where(y == 1, p, 1 - p)
        return (-((1 - right) ** 2) * right.log()).mean()

    dice = [
        1 - (2 * (p * g).sum() + 1) / (p.sum() + g.sum() + 1)
        for p, g in zip(probability, masks, strict=True)
    ]
    expected = {
        "image_focal": focal(difference.sigmoid(), labels),
        "map_focal": focal(probability, masks),
        "map_dice": torch.stack(dice).mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(parts.pop("total"), sum(parts.values()))
    assert set(parts) == set(expected)


def test_training_the_decoder_reaches_all_that_is_counted_at_its_own_rate(square: Backbone) -> None:
    prepared, learner = prepare_backbone(square, DECODER), learner_of(square, DECODER)
    assert not [name for name in learner.state_dict() if name.startswith(("raw_", "post_vcp"))]
    groups = parameter_groups(learner, DECODER, "visa")
    assert [group["lr"] for group in groups] == [4e-5, 1e-4]
    numbers = {id(p) for p in learner.decoder.parameters()}  # type: ignore[union-attr]
    assert {id(p) for p in groups[1]["params"]} == numbers
    assert sum(len(group["params"]) for group in groups) == len(list(learner.parameters()))
    optimiser, losses = torch.optim.Adam(groups, betas=SMALL.betas), []
    features, masks = features_of(square), masks_of()
    for _ in range(5):
        total = loss(learner, prepared, DECODER, features, torch.tensor([0, 1, 1]), masks, None)[
            "total"
        ]
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(float(total.detach()))
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    gradients = {name: p.grad for name, p in learner.named_parameters()}
    # The last one is added to both queries alike, and their difference does not see it.
    del gradients["decoder.layers.1.norm3.bias"]
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())


def test_the_decoder_is_drawn_behind_what_the_paper_has_and_its_layers_apart(
    square: Backbone,
) -> None:
    plain = make_learner(square, SMALL, 5).state_dict()
    drawn = make_learner(square, DECODER, 5).state_dict()
    shared = [name for name in drawn if not name.startswith("decoder.")]
    assert shared and all(torch.equal(drawn[name], plain[name]) for name in shared)
    assert sample_order(DECODER, square, 9, 2) == sample_order(SMALL, square, 9, 2)
    first, second = (drawn[f"decoder.layers.{i}.linear1.weight"] for i in (0, 1))
    assert not torch.equal(first, second)
    again = make_learner(square, DECODER, 5).state_dict()
    assert all(torch.equal(drawn[name], again[name]) for name in drawn)


def test_our_checkpoint_keeps_the_decoder_and_the_official_layout_refuses_it(
    square: Backbone, tmp_path: Path
) -> None:
    learner, path = learner_of(square, DECODER), tmp_path / "learner.safetensors"
    path.write_bytes(checkpoint_bytes("vcpclip", learner, DECODER, square, "d" * 64))
    again, config, _ = read_checkpoint("vcpclip", path, square)
    assert config == DECODER
    detections = [
        detect(prepare_backbone(square, DECODER), DECODER, each, features_of(square))
        for each in (learner, again)
    ]
    assert torch.equal(detections[0].anomaly_map, detections[1].anomaly_map)
    with pytest.raises(ClipadError, match="found the tensor decoder.* no place"):
        official_bytes(learner)
    official = tmp_path / "official.pth"
    official.write_bytes(official_bytes(learner_of(square)))
    with pytest.raises(ClipadError, match="found the tensor decoder.* no place"):
        read_official(official, square, DECODER)


def test_a_decoder_that_does_not_fit_is_one_message_each(square: Backbone) -> None:
    with pytest.raises(ClipadError, match=r"heads: found 5, .* divisor of 32, .* the decoder"):
        prepare_backbone(square, DECODER.changed({"heads": 5}))
    with pytest.raises(ClipadError, match="decoder_layers: found 0, expected at least 1"):
        DECODER.changed({"decoder_layers": 0})
    with pytest.raises(ClipadError, match="learning_rate_decoder: found 0.0, expected a number"):
        DECODER.changed({"learning_rate_decoder": 0.0})
    with pytest.raises(ClipadError, match="image_score: found decoder, expected head: decoder"):
        SMALL.changed({"image_score": "decoder"})
    with pytest.raises(ClipadError, match="head: found 'mlp'"):
        SMALL.changed({"head": "mlp"})
    for trained, tested in ((SMALL, DECODER), (DECODER, SMALL)):
        learner = learner_of(square, trained)
        with pytest.raises(ClipadError, match=f"found {tested.head}, expected {trained.head}"):
            know(square, tested, Category(), None, learner)
    features, learner = features_of(square), learner_of(square, DECODER)
    text = text_embeddings(learner, square, DECODER, features.image_embedding)
    with pytest.raises(ClipadError, match="head: found decoder, expected contrastive: a decoder"):
        raw_logits(learner, DECODER, features, text)
    with pytest.raises(ClipadError, match="head: found decoder, expected contrastive, which the"):
        decoded(learner_of(square), DECODER, features, text)
