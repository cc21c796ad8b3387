"""A random CLIP small enough for every test."""

import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from clipad_core.clip.features import Features
from clipad_core.clip.one_pass import encode_together
from clipad_core.clip.vision import VisionTower, embed_patches, encode_whole, pre_norm, project
from clipad_core.methods.winclip.config import WindowAttention
from clipad_core.methods.winclip.windows import WindowRecipe

MICRO = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32,
        "layers": 3,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 2,
    },
}


def add_config(folder: Path, name: str, config: dict) -> None:
    from clipad_core.clip.open_clip import open_clip

    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)


def run_tower(
    tower: VisionTower, images: Tensor, blocks: Sequence[int] = ()
) -> tuple[Tensor, dict[int, Tensor]]:
    """CLIP's image embedding, unit norm, and raw patch tokens of some blocks: no method, all at once."""
    embedded, _ = embed_patches(tower, images)
    last, tokens = encode_whole(tower, pre_norm(tower, embedded), blocks)
    return project(tower, last), tokens


def encode_windows(
    tower: VisionTower,
    images: Tensor,
    scales: Sequence[int] = (),
    blocks: Sequence[int] = (),
    attention: WindowAttention = "alone",
) -> Features:
    """What WinCLIP reads of images."""
    recipe = WindowRecipe(blocks=tuple(blocks), scales=tuple(scales), window_attention=attention)
    [features] = encode_together(tower, images, [recipe])
    return features
