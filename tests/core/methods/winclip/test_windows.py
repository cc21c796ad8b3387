"""Windows and tiles through the tower, against a naive loop over open_clip's own modules."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from micro import MICRO, add_config, encode_windows, run_tower
from torch.testing import assert_close

from clipad_core.clip import transformer
from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.open_clip import open_clip
from clipad_core.clip.vision import read_vision_tower
from clipad_core.errors import ClipadError
from clipad_core.methods.winclip.windows import (
    check_not_constant,
    encode_tiles,
    window_index,
)


def naive_window(model, image: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Section 4.2 with open_clip's modules: keep the class token and the window, drop the rest."""
    visual = model.visual
    x = visual.conv1(image[None]).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding[None, None], x], dim=1) + visual.positional_embedding
    x = torch.cat([x[:, :1], x[:, 1 + inside]], dim=1)
    x = visual.transformer(visual.ln_pre(x))
    return F.normalize(visual.ln_post(x[:, 0]) @ visual.proj, dim=-1)[0]


def test_images_and_patches_are_those_of_the_tower_alone(micro: Backbone, images) -> None:
    features = encode_windows(micro.vision, images, scales=[2], blocks=[1, 3])
    embedding, tokens = run_tower(micro.vision, images, blocks=[1, 3])
    assert_close(features.image_embedding, embedding, atol=1e-6, rtol=0)
    assert list(features.patch_tokens) == [1, 3]
    for block in (1, 3):
        assert_close(features.patch_tokens[block], tokens[block], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_windows_equal_the_naive_loop(micro: Backbone, model, images, scale: int) -> None:
    windows = encode_windows(micro.vision, images, scales=[scale]).window_embeddings[scale]
    for number, inside in enumerate(window_index(micro.vision.grid, scale)):
        for image, window in zip(images, windows[:, number], strict=True):
            assert_close(window, naive_window(model, image, inside), atol=2e-6, rtol=0)


def test_encoding_does_not_depend_on_the_batch(micro: Backbone, images: torch.Tensor) -> None:
    batch = encode_windows(micro.vision, images.repeat(30, 1, 1, 1), scales=[2], blocks=[3])
    alone = encode_windows(micro.vision, images[1:2], scales=[2], blocks=[3])
    assert_close(
        batch.image_embedding[1::3], alone.image_embedding.expand(30, -1), atol=1e-6, rtol=0
    )
    assert_close(batch.window_embeddings[2][1], alone.window_embeddings[2][0], atol=1e-6, rtol=0)
    assert_close(batch.patch_tokens[3][88], alone.patch_tokens[3][0], atol=1e-5, rtol=0)


def test_encoding_leaves_the_model_as_it_was(model, images: torch.Tensor) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    tower = read_vision_tower(model.visual)
    encode_windows(tower, images, scales=[2], blocks=[1])
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_windows_of_a_rectangular_grid(tmp_path: Path) -> None:
    config = MICRO | {"vision_cfg": MICRO["vision_cfg"] | {"image_size": [24, 40]}}
    add_config(tmp_path, "clipad-rectangle", config)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = open_clip.create_model("clipad-rectangle", pretrained=None).eval()
    tower, drawn = read_vision_tower(model.visual), torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, 24, 40, generator=drawn)
    assert tower.grid == (3, 5)
    windows = encode_windows(tower, image, scales=[2]).window_embeddings[2]
    assert windows.shape == (1, 8, 16)
    with torch.no_grad():
        for number, inside in enumerate(window_index((3, 5), 2)):
            assert_close(
                windows[0, number], naive_window(model, image[0], inside), atol=2e-6, rtol=0
            )


def test_windows_in_bfloat16_stay_near_float32(micro: Backbone, images: torch.Tensor) -> None:
    half = load_backbone("clipad-micro", "random:0", precision="bfloat16")
    exact = encode_windows(micro.vision, images, scales=[2])
    rough = encode_windows(half.vision, images, scales=[2])
    assert rough.window_embeddings[2].dtype == torch.float32
    assert_close(rough.window_embeddings[2], exact.window_embeddings[2], atol=3e-2, rtol=0)
    assert not rough.window_embeddings[2].equal(exact.window_embeddings[2])


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize("has", [True, False])
def test_windows_through_packed_weights_are_the_same(
    micro: Backbone, images: torch.Tensor, has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformer, "has_avx512", lambda: has)
    tower = load_backbone("clipad-micro", "random:0").vision
    assert tower.transformer.blocks[0].qkv.packed is has
    assert tower.transformer.blocks[-1].expand.packed is has
    features, same = (
        encode_windows(vision, images, scales=[2]) for vision in (tower, micro.vision)
    )
    assert_close(features.image_embedding, same.image_embedding)
    assert_close(features.window_embeddings[2], same.window_embeddings[2])


def test_tiles_cover_the_image_and_each_is_encoded_alone(micro: Backbone, images) -> None:
    embeddings = encode_tiles(micro.vision, images, tile=2, stride=2)
    assert embeddings.shape == (3, 4, 16)
    corner = F.interpolate(images[:, :, 16:, 16:], (32, 32), mode="bicubic", antialias=True)
    assert_close(embeddings[:, 3], encode_windows(micro.vision, corner).image_embedding)


def test_window_index_of_a_stride_ends_flush_with_the_border() -> None:
    assert window_index((5, 5), 2, stride=2)[:, 0].tolist() == [0, 2, 3, 10, 12, 13, 15, 17, 18]


@pytest.mark.parametrize("scale", [0, 5])
def test_a_scale_that_does_not_fit_is_refused(micro: Backbone, images, scale: int) -> None:
    with pytest.raises(ClipadError, match="scales: found a window of"):
        encode_windows(micro.vision, images, scales=[scale])


def test_another_image_size_is_refused(micro: Backbone) -> None:
    with pytest.raises(ClipadError, match=r"found \(32, 40\) pixels, expected \(32, 32\)"):
        encode_windows(micro.vision, torch.zeros(1, 3, 32, 40))


def test_a_block_that_does_not_exist_is_refused(micro: Backbone, images) -> None:
    with pytest.raises(ClipadError, match=r"blocks: found \[4\]"):
        encode_windows(micro.vision, images, blocks=[4])


def test_constant_windows_stop_the_run_and_different_ones_do_not() -> None:
    same = torch.ones(2, 4, 3)
    with pytest.raises(ClipadError, match="map would be constant"):
        check_not_constant(same, "window embeddings of scale 2")
    same[1, 2, 0] = 0.9
    check_not_constant(same, "window embeddings of scale 2")
    assert same.shape == (2, 4, 3)
