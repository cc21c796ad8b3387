"""Images to tokens: patches with their positions, the class token, patch tokens of some blocks.

Everything is functional: the tower is a frozen bundle of tensors, read once from open_clip.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence, Set
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
    finish_block,
    prepare,
    project_qkv,
    read_layer_norm,
    read_transformer,
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
    def patches(self) -> int:
        """Number of patches of an image."""
        return self.grid[0] * self.grid[1]

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.transformer.blocks)

    def chunks(self, sequences: int, length: int) -> Iterable[slice]:
        """Cut so many sequences of one length into as many as its device takes at once."""
        return chunks(sequences, max(1, chunk_sizes(self.proj.device).tokens // length))

    def image_chunks(self, images: int) -> Iterable[slice]:
        """Cut so many whole images into as many as its device takes at once."""
        return self.chunks(images, self.patches + 1)


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


class Reader(ABC):
    """What is read of one pass of the tower; several may read the same pass, and none changes it.

    Attributes:
        blocks: 1-based numbers of the blocks that it sees.
        reads_last: whether the last block is one of them and it reads what that gives, which else may be
            missing.
    """

    blocks: Set[int]
    reads_last: bool

    @abstractmethod
    def see(
        self,
        number: int,
        x: Float[Tensor, "b t c"],
        qkv: Float[Tensor, "b t c3"],
        after: Float[Tensor, "b t c"] | None,
    ) -> None:
        """Read one of its blocks.

        Args:
            number: of the block, from 1.
            x: its input, class token first.
            qkv: query, key and value of every token, side by side, as `project_qkv` gives them.
            after: what it gives; None: of the last block, where nobody reads it.
        """


class PatchTokens(Reader):
    """The raw patch tokens that some blocks give."""

    def __init__(self, depth: int, blocks: Iterable[int]) -> None:
        self.blocks = set(blocks)
        self.reads_last = depth in self.blocks
        self.tokens: dict[int, Tensor] = {}

    def see(self, number: int, x: Tensor, qkv: Tensor, after: Tensor | None) -> None:
        """Keep the patches."""
        assert after is not None
        self.tokens[number] = after[:, 1:]


def run_tower(
    tower: VisionTower, x: Float[Tensor, "b t c"], readers: Sequence[Reader]
) -> list[Float[Tensor, "b c"]]:
    """One pass of the tower for all who read it; what one gets does not depend on the others by a bit.

    Args:
        x: tokens after ``ln_pre``.

    Returns:
        For each reader the last block's class token before ``ln_post``: its row where the reader reads
        what the whole block gives, else computed by itself.
    """
    transformer, last = tower.transformer, tower.depth
    for number in range(1, last):
        qkv = project_qkv(transformer, number - 1, x)
        after = finish_block(transformer, number - 1, x, qkv)
        for reader in readers:
            if number in reader.blocks:
                reader.see(number, x, qkv, after)
        x = after
    whole = alone = None
    if seeing := [reader for reader in readers if last in reader.blocks]:
        qkv = project_qkv(transformer, last - 1, x)
        if any(reader.reads_last for reader in seeing):
            whole = finish_block(transformer, last - 1, x, qkv)
        for reader in seeing:
            reader.see(last, x, qkv, whole)
    if not all(reader.reads_last for reader in readers):
        alone = run_class_token(transformer, x)
    class_tokens = []
    for reader in readers:
        token = whole[:, 0] if whole is not None and reader.reads_last else alone
        assert token is not None
        class_tokens.append(token)
    return class_tokens


def encode_whole(
    tower: VisionTower, x: Tensor, blocks: Sequence[int]
) -> tuple[Tensor, dict[int, Tensor]]:
    """Class token and raw patch tokens of some blocks; the last block only as far as wanted."""
    patches = PatchTokens(tower.depth, blocks)
    [class_token] = run_tower(tower, x, [patches])
    return class_token, patches.tokens
