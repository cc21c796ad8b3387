"""Packed weights and plain ones say the same, and a torch without the operators for them loses nothing."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from micro import encode_windows
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from clipad_core.clip import transformer
from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.features import Features
from clipad_core.clip.packed import can_pack, packed_operations
from clipad_core.clip.vision import VisionTower
from clipad_core.errors import ClipadError

needs_operators = pytest.mark.skipif(not can_pack(), reason="a torch without packed products")


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CPU that would have packed weights, and a torch that lacks the operators."""
    monkeypatch.setattr(transformer, "has_avx512", lambda: True)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    can_pack.cache_clear()
    yield
    can_pack.cache_clear()


def load(has_avx512: bool, monkeypatch: pytest.MonkeyPatch, precision: str) -> VisionTower:
    with monkeypatch.context() as cpu:
        cpu.setattr(transformer, "has_avx512", lambda: has_avx512)
        return load_backbone("clipad-micro", "random:0", precision=precision).vision


def encode(tower: VisionTower) -> Features:
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return encode_windows(tower, images, scales=[2], blocks=[1, 3])


def assert_same(measured: Features, expected: Features, **tolerance: float) -> None:
    assert_close(measured.image_embedding, expected.image_embedding, **tolerance)
    assert_close(measured.window_embeddings, expected.window_embeddings, **tolerance)
    assert_close(measured.patch_tokens, expected.patch_tokens, **tolerance)


@needs_operators
@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [
        ("float32", {}),
        pytest.param(
            "bfloat16",
            {"atol": 3e-2, "rtol": 3e-2},
            marks=pytest.mark.skipif(
                not transformer.has_avx512(), reason="bfloat16 has no packed order without AVX-512"
            ),
        ),
    ],
)
def test_packed_and_plain_weights_say_the_same(
    micro: Backbone, precision: str, tolerance: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, plain = (load(has, monkeypatch, precision) for has in (True, False))
    for tower, is_packed in ((packed, True), (plain, False)):
        assert tower.transformer.blocks[0].qkv.packed is is_packed
        assert tower.transformer.blocks[-1].expand.packed is is_packed
    assert_same(encode(packed), encode(plain), **tolerance)


@needs_operators
def test_a_packed_tower_is_prepared_again_in_its_own_precision_alone(
    micro: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = load(True, monkeypatch, "float32").transformer
    again = transformer.prepare(packed, torch.float32, rows=64)
    assert again.blocks[0].qkv.weight is packed.blocks[0].qkv.weight
    with pytest.raises(ClipadError, match="found weights packed in torch.float32"):
        transformer.prepare(packed, torch.bfloat16, rows=None)


@needs_operators
def test_the_operations_of_packed_layers_are_counted(
    micro: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [load(has, monkeypatch, "float32").transformer.blocks[0] for has in (True, False)]
    counts = []
    for block in layers:
        counter = FlopCounterMode(display=False, custom_mapping=packed_operations())
        with counter:
            block.expand(torch.zeros(2, 5, 32), gelu=True)
        counts.append(counter.get_total_flops())
    assert counts == [2 * 2 * 5 * 32 * 128] * 2


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
def test_a_torch_without_the_operators_encodes_by_plain_products(
    micro: Backbone, precision: str, monkeypatch: pytest.MonkeyPatch, lacking: None
) -> None:
    tower = load_backbone("clipad-micro", "random:0", precision=precision).vision
    assert not any(block.qkv.packed or block.expand.packed for block in tower.transformer.blocks)
    assert packed_operations() == {}
    assert_same(encode(tower), encode(load(False, monkeypatch, precision)), atol=0, rtol=0)
