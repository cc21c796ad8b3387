"""CLIP read for dense tasks, against the formulas written out head by head and patch by patch."""

import math

import pytest
import torch
import torch.nn.functional as F
from micro import MICRO, add_config
from torch import Tensor

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.transformer import project_qkv, run_block
from clipad_core.clip.vision import VisionTower, embed_patches, pre_norm
from clipad_core.methods.anomalyclip import METHOD
from clipad_core.methods.anomalyclip.config import AnomalyCLIPConfig
from clipad_core.methods.anomalyclip.dense import NEIGHBOURHOOD, READ_OUTS
from clipad_core.methods.anomalyclip.learner import sizes_of

CONFIG = AnomalyCLIPConfig(
    image_size=48, blocks=(3,), dpam_from_layer=2, prompt_depth=2, context_length=3, prompt_length=2
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    name = "clipad-micro-dense"
    text = MICRO["text_cfg"] | {"layers": 3}
    add_config(tmp_path_factory.mktemp("dense"), name, MICRO | {"text_cfg": text})
    return METHOD.prepare(load_backbone(name, "random:0"), CONFIG)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def weights_of(kind: str, query: Tensor, key: Tensor, grid: tuple[int, int]) -> Tensor:
    """How much each patch takes of the value of each token, one head of one image."""
    tokens, scale = len(query), 1 / math.sqrt(query.shape[1])
    rows = []
    for i in range(1, tokens):
        own = torch.zeros(tokens)
        if kind == "maskclip":
            own[i] = 1
        if kind in ("sclip", "clearclip"):
            own += F.softmax(scale * query @ query[i], dim=0)
        if kind == "sclip":
            own += F.softmax(scale * key @ key[i], dim=0)
        if kind == "naclip":
            logits = scale * key @ key[i]
            for j in range(1, tokens):
                down = (i - 1) // grid[1] - (j - 1) // grid[1]
                across = (i - 1) % grid[1] - (j - 1) % grid[1]
                logits[j] += math.exp(-(down**2 + across**2) / (2 * NEIGHBOURHOOD**2))
            own += F.softmax(logits, dim=0)
        rows.append(own)
    return torch.stack(rows)


def naive(tower: VisionTower, images: Tensor, kind: str) -> Tensor:
    """Unit patch embeddings of the last block."""
    transformer, last = tower.transformer, tower.depth - 1
    x = pre_norm(tower, embed_patches(tower, images)[0])
    for index in range(last):
        x = run_block(transformer, index, x)
    block, width = transformer.blocks[last], x.shape[-1]
    side = width // transformer.heads
    outputs = []
    for image, qkv in zip(x, project_qkv(transformer, last, x), strict=True):
        heads = []
        for head in range(transformer.heads):
            part = slice(head * side, (head + 1) * side)
            query, key, value = (
                qkv[:, n * width : (n + 1) * width][:, part].float() for n in range(3)
            )
            heads.append(weights_of(kind, query, key, tower.grid) @ value)
        tokens = block.out(torch.cat(heads, dim=1))
        if kind in ("maskclip", "sclip"):
            tokens = image[1:] + tokens
            hidden = block.expand(block.ln_2(tokens))
            gate = hidden * torch.sigmoid(1.702 * hidden)
            tokens = tokens + block.project(gate if transformer.quick_gelu else F.gelu(hidden))
        outputs.append(F.normalize(tower.ln_post(tokens) @ tower.proj, dim=-1))
    return torch.stack(outputs)


@pytest.mark.parametrize("kind", READ_OUTS)
def test_a_reading_is_its_formula(prepared: Backbone, images: Tensor, kind: str) -> None:
    config = CONFIG.changed({"branch": kind})
    features = METHOD.encode(prepared, images, METHOD.recipe(config, 0))
    expected = naive(prepared.vision, images, kind)
    assert torch.allclose(features.patch_tokens[3], expected, atol=1e-5)


@pytest.mark.parametrize("kind", READ_OUTS)
def test_a_reading_leaves_the_class_token_and_differs_from_all_others(
    prepared: Backbone, images: Tensor, kind: str
) -> None:
    bare = METHOD.encode(prepared, images, METHOD.recipe(CONFIG.changed({"branch": "none"}), 0))
    own = METHOD.encode(prepared, images, METHOD.recipe(CONFIG.changed({"branch": kind}), 0))
    assert torch.allclose(own.image_embedding, bare.image_embedding, atol=1e-5)
    for other in ("none", "vv", *READ_OUTS.keys() - {kind}):
        config = CONFIG.changed({"branch": other})
        features = METHOD.encode(prepared, images, METHOD.recipe(config, 0))
        assert not torch.allclose(features.patch_tokens[3], own.patch_tokens[3], atol=1e-3)


def test_every_block_can_be_read_so_whatever_block_the_branch_begins_in(prepared: Backbone) -> None:
    config = CONFIG.changed({"branch": "sclip", "blocks": (1, 3), "dpam_from_layer": 24})
    assert sizes_of(prepared, config).vision_depth == 3
    images = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    both = METHOD.encode(prepared, images, METHOD.recipe(config, 0))
    last = METHOD.encode(prepared, images, METHOD.recipe(config.changed({"blocks": (3,)}), 0))
    assert set(both.patch_tokens) == {1, 3}
    assert torch.equal(both.patch_tokens[3], last.patch_tokens[3])
