"""The benchmark of the methods that learn, on a random CLIP of 32 px instead of ViT-L/14."""

import pytest
from aprilgan_cases import SMALL

from benchmarks import learned
from clipad_core.clip.backbone import Backbone


def test_a_training_on_streamed_tokens_is_measured_against_encoding_in_every_epoch(
    micro: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned, "ARCHITECTURE", ("clipad-micro", "random:0"))
    monkeypatch.setitem(learned.METHODS, "aprilgan", (learned.aprilgan, SMALL))
    measured = learned.measure_aprilgan(rounds=1)
    encode, read, step = (measured["seconds"][name] for name in ("encoding", "reading", "step"))
    part = step / SMALL.batch_size
    streamed, reading = measured["ratios"].values()
    every = SMALL.epochs * (encode + part)
    assert streamed == pytest.approx((encode + SMALL.epochs * (read + part)) / every)
    assert reading == pytest.approx(read / part)
    assert "| aprilgan: 15 epochs, streamed /" in learned.as_markdown(
        {"aprilgan": {**measured, "memory": {}}}
    )
