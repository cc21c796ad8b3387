"""Images to tokens: patches with their positions, the class token, patch tokens of some blocks.

Everything is functional: the tower is a frozen bundle of tensors, read once from open_clip.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from clipad_core.clip.device import chunk_sizes
from clipad_core.clip.transformer import (
    LayerNorm,
    Transformer,
    chunks,
    prepare,
    read_layer_norm,
    read_transformer,
    run_block,
    run_class_token,
    unpack,
)
from clipad_core.errors import ClipadError


@dataclass(frozen=True)
class VisionTower:
    """The frozen image tower of one CLIP model."""

    patch_weight: Tensor
    class_embedding: Tensor
    positional_embedding: Tensor
    ln_pre: LayerNorm | None
    transformer: Transformer
    ln_post: LayerNorm
    proj: Tensor
    grid: tuple[int, int]

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.patch_weight.shape[-1]

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width in pixels of the images it takes."""
        return self.grid[0] * self.patch_size, self.grid[1] * self.patch_size

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.transformer.blocks)

    def chunks(self, sequences: int, length: int) -> Iterable[slice]:
        """Cut so many sequences of one length into as many as its device takes at once."""
        return chunks(sequences, max(1, chunk_sizes(self.proj.device).tokens // length))

    def image_chunks(self, images: int) -> Iterable[slice]:
        """Cut so many whole images into as many as its device takes at once."""
        return self.chunks(images, self.grid[0] * self.grid[1] + 1)


def read_vision_tower(visual: Any) -> VisionTower:
    """Read the tensors of an open_clip ``VisionTransformer``.

    Raises:
        ClipadError: the tower is no plain ViT with a class token (ResNets, SigLIP, CoCa pooling).
    """
    plain = getattr(visual, "pool_type", "") == "tok" and getattr(visual, "attn_pool", None) is None
    if not hasattr(visual, "class_embedding") or not plain:
        raise ClipadError(
            f"backbone: its image tower is {type(visual).__name__} without a plain class token, "
            "expected a CLIP vision transformer; choose a ViT backbone such as ViT-B-16-plus-240."
        )
    identity = isinstance(visual.ln_pre, nn.Identity)
    return VisionTower(
        patch_weight=visual.conv1.weight.detach(),
        class_embedding=visual.class_embedding.detach(),
        positional_embedding=visual.positional_embedding.detach(),
        ln_pre=None if identity else read_layer_norm(visual.ln_pre),
        transformer=read_transformer(visual.transformer),
        ln_post=read_layer_norm(visual.ln_post),
        proj=visual.proj.detach(),
        grid=tuple(visual.grid_size),
    )


def optimise(tower: VisionTower, dtype: torch.dtype, packs: bool = True) -> VisionTower:
    """Return the tower in ``dtype`` with its weights packed where it lies on a CPU.

    float64 and float32 stay exact up to the order of additions. bfloat16 halves the time on CPUs that
    have it; its error is printed by ``benchmarks/winclip.py``.

    Args:
        packs: whether weights are packed at all; autocast casts plain ones alone.
    """
    device = tower.proj.device
    rows = chunk_sizes(device).tokens if packs and device.type == "cpu" else None
    return replace(tower, transformer=prepare(tower.transformer, dtype, rows))


def plain(tower: VisionTower) -> VisionTower:
    """Return the tower with its weights as they were before they were packed."""
    return replace(tower, transformer=unpack(tower.transformer))


def embed_patches(
    tower: VisionTower, images: Float[Tensor, "b 3 H W"]
) -> tuple[Float[Tensor, "b t c"], tuple[int, int]]:
    """Class token and patches with their positional embeddings, before ``ln_pre``.

    Args:
        images: normalised images whose sides are multiples of the patch size, in any precision. Another
            grid than the tower's own is an error: nothing is interpolated behind your back.

    Returns:
        Tokens (row 0 is the class token, then patches row-major) and the grid (h, w).
    """
    if tuple(images.shape[-2:]) != tower.input_size:
        raise ClipadError(
            f"images: found {tuple(images.shape[-2:])} pixels, expected {tower.input_size} for this "
            "backbone; resize them as the backbone's preprocessing does."
        )
    # Patches do not overlap, so the convolution is a product, and no device does it in TF32.
    pixels = rearrange(
        images.to(tower.patch_weight.dtype),
        "b c (h p) (w q) -> b (h w) (c p q)",
        p=tower.patch_size,
        q=tower.patch_size,
    )
    patches = F.linear(pixels, tower.patch_weight.flatten(1))
    first = repeat(tower.class_embedding, "c -> b 1 c", b=len(images)).to(patches.dtype)
    tokens = torch.cat([first, patches], dim=1)
    return tokens + tower.positional_embedding.to(tokens.dtype), tower.grid


def pre_norm(tower: VisionTower, tokens: Tensor) -> Tensor:
    """``ln_pre`` where the tower has one."""
    return tokens if tower.ln_pre is None else tower.ln_pre(tokens)


def project(tower: VisionTower, tokens: Float[Tensor, "... c"]) -> Float[Tensor, "... d"]:
    """``ln_post`` and projection into the joint space, unit norm."""
    return F.normalize(tower.ln_post(tokens) @ tower.proj, dim=-1)


def encode_whole(
    tower: VisionTower, x: Tensor, blocks: Sequence[int]
) -> tuple[Tensor, dict[int, Tensor]]:
    """Class token and raw patch tokens of some blocks; the last block only as far as wanted."""
    patch_tokens = {}
    last = tower.depth - 1
    for index in range(last):
        x = run_block(tower.transformer, index, x)
        if index + 1 in blocks:
            patch_tokens[index + 1] = x[:, 1:].clone()
    if tower.depth in blocks:
        x = run_block(tower.transformer, last, x)
        patch_tokens[tower.depth] = x[:, 1:].clone()
        return x[:, 0], patch_tokens
    return run_class_token(tower.transformer, x), patch_tokens
