"""The functional image tower against open_clip's own modules."""

from dataclasses import replace

import pytest
import torch
from micro import run_tower
from torch.testing import assert_close

from clipad_core.clip import transformer
from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.vision import embed_patches, read_vision_tower
from clipad_core.errors import ClipadError


@torch.no_grad()
def test_image_embeddings_equal_open_clip(micro: Backbone, model, images: torch.Tensor) -> None:
    embeddings, _ = run_tower(micro.vision, images)
    assert_close(embeddings, model.encode_image(images, normalize=True), atol=2e-6, rtol=0)


@torch.no_grad()
def test_patch_tokens_of_every_block_equal_open_clip(micro: Backbone, model, images) -> None:
    _, tokens = run_tower(micro.vision, images, blocks=[1, 2, 3])
    x = model.visual._embeds(images)
    for number, block in enumerate(model.visual.transformer.resblocks, start=1):
        x = block(x)
        assert_close(tokens[number], x[:, 1:], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-6), (torch.bfloat16, 3e-2)])
def test_the_class_token_equals_its_row_of_the_whole_last_block(
    model, dtype: torch.dtype, error: float
) -> None:
    draws = torch.Generator().manual_seed(2)
    frozen = read_vision_tower(model.visual).transformer
    last = frozen.blocks[-1]
    biased = replace(last.qkv, bias=torch.randn(96, generator=draws))  # open_clip starts at zero
    tower = replace(frozen, blocks=(*frozen.blocks[:-1], replace(last, qkv=biased)))
    tower, x = transformer.prepare(tower, dtype, rows=None), torch.randn(5, 7, 32, generator=draws)
    whole = transformer.run_block(tower, 2, x)[:, 0]
    assert_close(transformer.run_class_token(tower, x), whole, atol=error, rtol=0)


def test_encoding_leaves_the_model_as_it_was(model, images: torch.Tensor) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    tower = read_vision_tower(model.visual)
    run_tower(tower, images, blocks=[1])
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_bfloat16_stays_near_float32(micro: Backbone, images: torch.Tensor) -> None:
    half = load_backbone("clipad-micro", "random:0", precision="bfloat16")
    (exact, _), (rough, _) = run_tower(micro.vision, images), run_tower(half.vision, images)
    assert rough.dtype == torch.float32
    assert_close(rough, exact, atol=3e-2, rtol=0)
    assert not rough.equal(exact)


def test_another_image_size_is_refused(micro: Backbone) -> None:
    with pytest.raises(ClipadError, match=r"found \(32, 40\) pixels, expected \(32, 32\)"):
        embed_patches(micro.vision, torch.zeros(1, 3, 32, 40))


def test_a_tower_that_is_no_plain_vit_is_refused() -> None:
    with pytest.raises(ClipadError, match="choose a ViT backbone"):
        read_vision_tower(torch.nn.Linear(2, 2))
