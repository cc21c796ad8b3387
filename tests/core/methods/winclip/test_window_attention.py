"""Windows of one pass, against an explicit mask and a plain softmax, head by head and token by token."""

import math

import pytest
import torch
import torch.nn.functional as F
from micro import encode_windows, run_tower
from torch import Tensor
from torch.testing import assert_close

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.features import LAST_BLOCK
from clipad_core.clip.vision import VisionTower, embed_patches, pre_norm, project
from clipad_core.errors import ClipadError
from clipad_core.methods.winclip import METHOD
from clipad_core.methods.winclip.config import PRESETS, WinCLIPConfig
from clipad_core.methods.winclip.detector import WinCLIP, image_recipe, reference_recipe
from clipad_core.methods.winclip.scoring import score
from clipad_core.methods.winclip.windows import home_windows, window_index

LOCAL = ["plain", "shifted", "neighbourhood"]
IN_ONE_PASS = [*LOCAL, "global"]


def naive_corner(patch: int, side: int, scale: int, attention: str, block: int) -> int:
    """First row (or column) of the window that a patch in this row attends in; blocks count from 0."""
    if attention == "neighbourhood":
        corner = patch - scale // 2
    else:
        borders = [scale * number for number in range(-1, side)]
        if attention == "shifted" and block % 2 == 1:
            borders = [border - scale // 2 for border in borders]
        corner = max(border for border in borders if border <= patch)
    return min(max(corner, 0), side - scale)


def naive_mask(grid: tuple[int, int], scale: int, attention: str, block: int) -> Tensor:
    """Whether token i sees token j: class tokens of all windows, that of the image, then the patches."""
    high, wide = grid
    corners = [(y, x) for y in range(high - scale + 1) for x in range(wide - scale + 1)]
    count = len(corners)
    mask = torch.eye(count + 1 + high * wide, dtype=torch.bool)

    def see(token: int, corner: tuple[int, int]) -> None:
        mask[token, corners.index(corner)] = True
        for y in range(corner[0], corner[0] + scale):
            for x in range(corner[1], corner[1] + scale):
                mask[token, count + 1 + y * wide + x] = True

    for window, corner in enumerate(corners):
        see(window, corner)
    if attention == "global":
        mask[count:, count:] = True
        return mask
    for y in range(high):
        for x in range(wide):
            home = tuple(
                naive_corner(place, side, scale, attention, block)
                for place, side in ((y, high), (x, wide))
            )
            see(count + 1 + y * wide + x, home)
    return mask


def naive_windows(tower: VisionTower, images: Tensor, scale: int, attention: str) -> Tensor:
    """Unit embeddings of all windows, from a sequence of all tokens and a mask a block."""
    transformer = tower.transformer
    tokens = pre_norm(tower, embed_patches(tower, images)[0])
    count = len(window_index(tower.grid, scale))
    outputs = []
    for image in tokens:
        x = torch.cat([image[:1].expand(count, -1), image])
        width = x.shape[1]
        side = width // transformer.heads
        for index, block in enumerate(transformer.blocks):
            mask = naive_mask(tower.grid, scale, attention, index)
            qkv = F.linear(block.ln_1(x), block.qkv.weight, block.qkv.bias)
            heads = []
            for head in range(transformer.heads):
                part = slice(head * side, (head + 1) * side)
                query, key, value = (qkv[:, n * width : (n + 1) * width][:, part] for n in range(3))
                logits = (query @ key.T / math.sqrt(side)).masked_fill(~mask, -math.inf)
                heads.append(F.softmax(logits, dim=1) @ value)
            x = x + F.linear(torch.cat(heads, dim=1), block.out.weight, block.out.bias)
            hidden = F.linear(block.ln_2(x), block.expand.weight, block.expand.bias)
            x = x + F.linear(F.gelu(hidden), block.project.weight, block.project.bias)
        outputs.append(project(tower, x[:count]))
    return torch.stack(outputs)


@pytest.fixture(scope="module")
def exact(micro: Backbone) -> Backbone:
    return load_backbone("clipad-micro", "random:0", precision="float64")


@pytest.mark.parametrize("attention", IN_ONE_PASS)
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_one_pass_equals_the_explicit_mask(
    exact: Backbone, images: Tensor, attention: str, scale: int
) -> None:
    tower, pixels = exact.vision, images.double()
    windows = encode_windows(tower, pixels, [scale], attention=attention).window_embeddings[scale]
    assert_close(windows, naive_windows(tower, pixels, scale, attention), atol=1e-10, rtol=0)


@pytest.mark.parametrize("attention", LOCAL)
@pytest.mark.parametrize("grid", [(3, 5), (7, 4)])
def test_every_patch_attends_in_the_window_that_the_words_say(
    grid: tuple[int, int], attention: str
) -> None:
    for scale in (1, 2, 3):
        inside = window_index(grid, scale)
        for block in (0, 1, 2):
            mask = naive_mask(grid, scale, attention, block)[len(inside) + 1 :, len(inside) + 1 :]
            homes = home_windows(grid, scale, attention, block)
            for patch, home in enumerate(homes):
                assert mask[patch].nonzero().flatten().tolist() == inside[home].tolist()
                assert patch in inside[home]


@pytest.mark.parametrize("attention", ["alone", "disjoint", *IN_ONE_PASS])
def test_a_window_of_the_whole_image_is_the_plain_pass(
    exact: Backbone, images: Tensor, attention: str
) -> None:
    tower, pixels = exact.vision, images.double()
    windows = encode_windows(tower, pixels, [4], attention=attention).window_embeddings[4]
    assert_close(windows[:, 0], run_tower(tower, pixels)[0], atol=1e-10, rtol=0)


def test_blocks_side_by_side_are_windows_alone_and_others_are_not(
    exact: Backbone, images: Tensor
) -> None:
    """On a grid of 4 x 4 the blocks of 2 x 2 are the windows 0, 2, 6 and 8 of nine."""
    tower, pixels = exact.vision, images.double()
    alone, disjoint, plain, shifted = (
        encode_windows(tower, pixels, [2], attention=attention).window_embeddings[2]
        for attention in ("alone", "disjoint", "plain", "shifted")
    )
    blocks, others = [0, 2, 6, 8], [1, 3, 4, 5, 7]
    assert_close(disjoint, alone[:, blocks], atol=1e-10, rtol=0)
    assert_close(plain[:, blocks], alone[:, blocks], atol=1e-10, rtol=0)
    assert (plain[:, others] - alone[:, others]).norm(dim=-1).min() > 1e-3
    assert (shifted - alone).norm(dim=-1).min() > 1e-3


@pytest.mark.parametrize("attention", ["disjoint", *IN_ONE_PASS])
def test_windows_do_not_depend_on_the_batch(
    micro: Backbone, images: Tensor, attention: str
) -> None:
    batch = encode_windows(micro.vision, images.repeat(9, 1, 1, 1), [2], attention=attention)
    alone = encode_windows(micro.vision, images[1:2], [2], attention=attention)
    expected = alone.window_embeddings[2].expand(9, -1, -1)
    assert_close(batch.window_embeddings[2][1::3], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("attention", IN_ONE_PASS)
def test_one_pass_in_bfloat16_stays_near_float32(
    micro: Backbone, images: Tensor, attention: str
) -> None:
    half = load_backbone("clipad-micro", "random:0", precision="bfloat16")
    exact, rough = (
        encode_windows(backbone.vision, images, [2], attention=attention).window_embeddings[2]
        for backbone in (micro, half)
    )
    assert rough.dtype == torch.float32 and not rough.equal(exact)
    assert_close(rough, exact, atol=3e-2, rtol=0)


@pytest.mark.parametrize("attention", ["disjoint", *IN_ONE_PASS])
@pytest.mark.parametrize("k_shot", [0, 1])
def test_a_detector_scores_with_every_attention_and_references_follow(
    rectangle: Backbone, attention: str, k_shot: int
) -> None:
    pixels = torch.randn(3, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    config = PRESETS["paper"].changed({"window_attention": attention, "resize": "stretch"})
    detection = WinCLIP(rectangle, config, "bottle", pixels[:k_shot])(pixels)
    assert detection.anomaly_map.shape == (3, 24, 40)
    assert detection.anomaly_map.std(dim=(1, 2)).min() > 0
    if k_shot:
        visual = WinCLIP(rectangle, config.changed({"map_fusion": "visual"}), "bottle", pixels[:1])(
            pixels
        )
        assert visual.anomaly_map[0].max() < 1e-5 < visual.anomaly_map[1].max()


def test_windows_side_by_side_give_their_patches_one_score_each(
    micro: Backbone, images: Tensor
) -> None:
    config = WinCLIPConfig(window_attention="disjoint", scales=(2,), image_scale=False)
    features = METHOD.encode(micro, images, image_recipe(config, 0))
    assert features.window_embeddings[2].shape == (3, 4, 16)
    text = F.normalize(torch.randn(2, 16, generator=torch.Generator().manual_seed(2)), dim=-1)
    patches = score(micro, features, text, config).patch_scores
    logits = features.window_embeddings[2] @ text.T / config.temperature
    expected = logits.softmax(dim=-1)[..., 1].reshape(3, 2, 1, 2, 1).expand(3, 2, 2, 2, 2)
    assert_close(patches, expected.reshape(3, 4, 4))


def test_every_attention_is_a_recipe_of_its_own_where_windows_are_read() -> None:
    def recipes(attention: str, **changes: object) -> tuple[object, object, object]:
        config = WinCLIPConfig().changed({"window_attention": attention, **changes})
        return image_recipe(config, 0), image_recipe(config, 1), reference_recipe(config)

    for first, second in zip(recipes("alone"), recipes("shifted"), strict=True):
        assert first != second and first.cut() != second.cut()
        assert first.shared([second]) == first
    tokens = {"map_source": "patch_tokens", "memory_scales": []}
    assert recipes("alone", **tokens) == recipes("shifted", **tokens)
    assert recipes("alone", **tokens)[0].blocks == (LAST_BLOCK,)


def test_an_attention_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ClipadError, match="window_attention"):
        WinCLIPConfig().changed({"window_attention": "swin"})
