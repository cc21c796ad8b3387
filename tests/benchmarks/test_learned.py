"""The benchmark of the methods that learn, on a random CLIP of 32 px instead of ViT-L/14."""

import pytest
import torch
from aprilgan_cases import SMALL

from benchmarks import learned
from clipad_core.clip.backbone import Backbone
from clipad_core.methods.method import Category


@pytest.fixture(autouse=True)
def small(micro: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "ARCHITECTURE", ("clipad-micro", "random:0"))
    monkeypatch.setitem(learned.METHODS, "aprilgan", (learned.aprilgan, SMALL))


def test_a_training_on_streamed_tokens_is_measured_against_the_official_loop() -> None:
    measured = learned.measure_aprilgan(rounds=1)
    names = ("encoding", "reading", "step", "official")
    encode, read, step, official = (measured["seconds"][name] for name in names)
    part = step / SMALL.batch_size
    streamed, anew, steps, reading = measured["ratios"].values()
    every = encode + official / SMALL.batch_size
    trained = encode + SMALL.epochs * (read + part)
    assert streamed == pytest.approx(trained / (SMALL.epochs * every))
    assert anew == pytest.approx((encode + part) / every)
    assert steps == pytest.approx(step / official) and reading == pytest.approx(read / part)
    assert "| aprilgan: 15 epochs, streamed /" in learned.as_markdown(
        {"aprilgan": {**measured, "memory": {}}}
    )


def test_the_official_loop_that_is_timed_learns_what_the_method_learns() -> None:
    module, config, backbone, learner = learned.opened("aprilgan")
    size = config.image_size
    features = module.encode(backbone, learned.pictures(2, size), module.recipe(config))
    masks = torch.zeros(2, size, size)
    masks[0, 4:20, 6:30] = 1
    own = module.loss(
        learner, backbone, config, features, torch.tensor([1, 0]), masks, None, ["bottle"] * 2
    )
    text = module.know(backbone, config, Category("bottle"), None, learner).text.T
    peer = learned.official_loss(learner.heads, features.patch_tokens.values(), text, masks)
    weights = list(learner.heads.parameters())
    torch.testing.assert_close(own["total"], peer)
    gradients = zip(
        torch.autograd.grad(own["total"], weights), torch.autograd.grad(peer, weights), strict=True
    )
    for one, other in gradients:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
