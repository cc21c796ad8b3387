"""One pass of the tower serves all recipes that are read of it, and none changes another's by a bit."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.features import LAST_BLOCK, Features
from clipad_core.clip.joint import JointRecipe
from clipad_core.clip.one_pass import PassRecipe, encode, encode_together
from clipad_core.clip.raw_tokens import TokensRecipe
from clipad_core.clip.transformer import Transformer, project_qkv
from clipad_core.clip.vision import PatchTokens, embed_patches, pre_norm, run_tower
from clipad_core.methods.anomalyclip.branch import BranchRecipe
from clipad_core.methods.winclip.windows import WindowRecipe

RECIPES: list[PassRecipe] = [
    BranchRecipe(blocks=(2, 3), from_layer=2),
    BranchRecipe(blocks=(3,), kinds=("vv", "qk"), from_layer=1, class_ln_post=True),
    BranchRecipe(blocks=(1, 3), from_layer=2, stream="aliased"),
    BranchRecipe(blocks=(3,), kinds=("naclip",), from_layer=0),
    JointRecipe(blocks=(3,)),
    JointRecipe(blocks=(2,), class_ln_post=False),
    JointRecipe(class_alone=True),
    TokensRecipe(blocks=(1, 2, 3)),
    TokensRecipe(blocks=(1,)),
    WindowRecipe(blocks=(3,), scales=(2, 3)),
    WindowRecipe(scales=(2,), window_attention="disjoint"),
    WindowRecipe(blocks=(2,), scales=(2,), window_attention="shifted"),
    WindowRecipe(scales=(3,), window_attention="global"),
    WindowRecipe(blocks=(LAST_BLOCK,)),
]


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def equal(ours: Features, theirs: Features) -> bool:
    pairs = [(ours.image_embedding, theirs.image_embedding)]
    for own, others in (
        (ours.patch_tokens, theirs.patch_tokens),
        (ours.window_embeddings, theirs.window_embeddings),
    ):
        if own.keys() != others.keys():
            return False
        pairs += [(tensor, others[name]) for name, tensor in own.items()]
    return all(torch.equal(*pair) for pair in pairs)


def test_recipes_are_encoded_together_as_each_is_alone(micro: Backbone, pixels: Tensor) -> None:
    assert micro.vision.depth == 3
    together = encode_together(micro.vision, pixels, RECIPES)
    for recipe, features in zip(RECIPES, together, strict=True):
        assert equal(features, encode(micro, pixels, recipe)), recipe
        assert len(features) == len(pixels)
    # In another company too.
    backwards = encode_together(micro.vision, pixels, RECIPES[::-1])[::-1]
    assert all(equal(*pair) for pair in zip(together, backwards, strict=True))


def test_the_tower_runs_once_for_all_who_read_it(
    micro: Backbone, pixels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[int] = []

    def counted(transformer: Transformer, index: int, x: Tensor) -> Tensor:
        passed.append(index)
        return project_qkv(transformer, index, x)

    monkeypatch.setattr("clipad_core.clip.vision.project_qkv", counted)
    encode_together(micro.vision, pixels, RECIPES)
    assert passed == [0, 1, 2]
    # Where nobody sees the last block, its class token alone is computed.
    passed.clear()
    encode_together(micro.vision, pixels, [JointRecipe(blocks=(2,)), JointRecipe()])
    assert passed == [0, 1]


def test_a_reader_sees_the_input_and_the_output_of_its_blocks(
    micro: Backbone, pixels: Tensor
) -> None:
    tower = micro.vision
    x = pre_norm(tower, embed_patches(tower, pixels)[0])
    seen: dict[int, tuple[Tensor, Tensor | None]] = {}

    class All(PatchTokens):
        def see(self, number: int, x: Tensor, qkv: Tensor, after: Tensor | None) -> None:
            seen[number] = x, after

    everything = All(tower.depth, [1, 2, 3])
    [class_token] = run_tower(tower, x, [everything])
    assert list(seen) == [1, 2, 3]
    assert torch.equal(seen[1][0], x)
    assert all(torch.equal(seen[n + 1][0], seen[n][1]) for n in (1, 2))
    last = seen[3][1]
    assert last is not None
    assert torch.equal(class_token, last[:, 0])

    everything.reads_last = False
    [row] = run_tower(tower, x, [everything])
    assert seen[3][1] is None
    [alone] = run_tower(tower, x, [PatchTokens(tower.depth, [])])
    for token in (row, alone):
        torch.testing.assert_close(token, class_token)


def test_only_recipes_of_one_cut_of_an_image_share_a_pass() -> None:
    joint, tokens = JointRecipe(image_size=518), TokensRecipe(blocks=(1,))
    assert joint.same_views(tokens)
    assert not joint.same_views(replace(tokens, resize="tiles"))
    assert not joint.same_views(replace(tokens, channels="bgr"))
    assert not joint.same_views(replace(tokens, multi_crop="five"))
    assert not joint.same_views(replace(tokens, tiles=4))


def test_windows_are_encoded_for_those_alone_who_read_windows() -> None:
    alone, shifted = WindowRecipe(scales=(2,)), WindowRecipe(window_attention="shifted")
    assert shifted.same_views(alone)
    assert alone.same_views(shifted)
    assert JointRecipe().same_views(alone)
    assert not alone.same_views(JointRecipe())
