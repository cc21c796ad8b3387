"""Images to embeddings: the whole image, its patch tokens, and windows of patches (WinCLIP).

Everything is functional: the tower is a frozen bundle of tensors, read once from open_clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipad_core.clip.transformer import (
    LayerNorm,
    Transformer,
    chunks,
    finish_block,
    prepare,
    project_qkv,
    read_layer_norm,
    read_transformer,
    run_block,
    run_class_token,
)
from clipad_core.errors import ClipadError

# Rows that go through the blocks together. GELU and the matrix products then stay in cache, and
# peak memory does not grow with the batch (measured: 0.5 ns an element instead of 2.3 ns).
TOKENS_PER_CHUNK = 1024


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
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.transformer.blocks)


@dataclass(frozen=True)
class Features:
    """What the frozen tower says about b images: all that WinCLIP ever needs of them.

    Attributes:
        image_embedding: projected class token, unit norm.
        window_embeddings: scale s in patches -> one unit-norm embedding a window, row-major.
        patch_tokens: block number (1-based) -> its raw output without the class token.
    """

    image_embedding: Float[Tensor, "b d"]
    window_embeddings: dict[int, Tensor]
    patch_tokens: dict[int, Tensor]

    def __getitem__(self, index: slice) -> Features:
        """The features of some of the images."""
        return Features(
            self.image_embedding[index],
            {scale: windows[index] for scale, windows in self.window_embeddings.items()},
            {block: tokens[index] for block, tokens in self.patch_tokens.items()},
        )


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


def optimise(tower: VisionTower, dtype: torch.dtype) -> VisionTower:
    """Return the tower in ``dtype`` with its weights packed for this CPU.

    float64 and float32 stay exact up to the order of additions. bfloat16 halves the time on CPUs that
    have it; its error is printed by ``benchmarks/winclip.py``.
    """
    packable = torch.backends.mkldnn.is_available() and tower.proj.device.type == "cpu"
    rows = TOKENS_PER_CHUNK if packable else None
    return replace(tower, transformer=prepare(tower.transformer, dtype, rows))


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
    grid = (images.shape[-2] // tower.patch_size, images.shape[-1] // tower.patch_size)
    expected = tuple(side * tower.patch_size for side in tower.grid)
    if tuple(images.shape[-2:]) != expected:
        raise ClipadError(
            f"images: found {tuple(images.shape[-2:])} pixels, expected {expected} for this backbone; "
            "resize them as the backbone's preprocessing does."
        )
    patches = F.conv2d(
        images.to(tower.patch_weight.dtype), tower.patch_weight, stride=tower.patch_size
    )
    patches = rearrange(patches, "b c h w -> b (h w) c")
    first = repeat(tower.class_embedding, "c -> b 1 c", b=len(images))
    return torch.cat([first, patches], dim=1) + tower.positional_embedding, grid


def window_index(grid: tuple[int, int], scale: int, stride: int = 1) -> Int[Tensor, "n a"]:
    """Patches of every window of ``scale`` x ``scale`` patches, both in row-major order.

    WinCLIP (Jeong et al., CVPR 2023), section 4.2: windows slide by one patch. The last window of a
    row or column lies flush with the border whatever the stride.

    >>> window_index((2, 3), scale=2)
    tensor([[0, 1, 3, 4],
            [1, 2, 4, 5]])
    """
    height, width = grid
    if not 1 <= scale <= min(grid):
        raise ClipadError(
            f"scales: found a window of {scale} patches, expected 1 to {min(grid)} on a grid of "
            f"{height} x {width}; choose smaller scales."
        )
    tops = sorted({*range(0, height - scale + 1, stride), height - scale})
    lefts = sorted({*range(0, width - scale + 1, stride), width - scale})
    corner = torch.tensor([[top * width + left] for top in tops for left in lefts])
    inside = torch.tensor([[a * width + b for a in range(scale) for b in range(scale)]])
    return corner + inside


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
    kept = {}
    last = tower.depth - 1
    for index in range(last):
        x = run_block(tower.transformer, index, x)
        if index + 1 in blocks:
            kept[index + 1] = x[:, 1:].clone()
    if tower.depth in blocks:
        x = run_block(tower.transformer, last, x)
        kept[tower.depth] = x[:, 1:].clone()
        return x[:, 0], kept
    return run_class_token(tower.transformer, x), kept


def _encode_windows(tower: VisionTower, x: Tensor, grid: tuple[int, int], scale: int) -> Tensor:
    """Class-token output of every window of b images, (b, n, c), a bounded number at a time."""
    inside = window_index(grid, scale).to(x.device) + 1
    sequence = F.pad(inside, (1, 0))
    offsets = torch.arange(len(x), device=x.device)[:, None, None] * x.shape[1]
    flat = (sequence + offsets).flatten(0, 1)
    # ln_pre, ln_1 and the first block's qkv see one token at a time, so they are computed once a
    # patch here and gathered, not once a window.
    table, qkv = x.flatten(0, 1), project_qkv(tower.transformer, 0, x).flatten(0, 1)
    found = []
    for part in chunks(len(flat), max(1, TOKENS_PER_CHUNK // flat.shape[1])):
        y = table[flat[part]]
        if tower.depth > 1:
            y = finish_block(tower.transformer, 0, y, qkv[flat[part]])
        for index in range(1, tower.depth - 1):
            y = run_block(tower.transformer, index, y)
        found.append(run_class_token(tower.transformer, y))
    return torch.cat(found).unflatten(0, (len(x), len(inside)))


@torch.inference_mode()
def encode_images(
    tower: VisionTower,
    images: Float[Tensor, "b 3 H W"],
    scales: Sequence[int] = (),
    blocks: Sequence[int] = (),
) -> Features:
    """Encode images once: class token, windows of each scale, raw patch tokens of some blocks.

    A window is the class token and its own patches alone, taken after the positional embedding and
    before ``ln_pre``; the other patches are dropped, not zeroed (WinCLIP, section 4.2 and Eq. (2)).

    Args:
        images: normalised images at the tower's own size.
        scales: window sides in patches; their embeddings are ``f(x * w_ij)`` of Eq. (2).
        blocks: 1-based block numbers whose raw patch tokens are kept.

    Raises:
        ClipadError: wrong image size, a scale larger than the grid, a block that does not exist.
    """
    unknown = [block for block in blocks if not 1 <= block <= tower.depth]
    if unknown:
        raise ClipadError(f"blocks: found {unknown}, expected numbers from 1 to {tower.depth}.")
    classes: list[Tensor] = []
    windows: dict[int, list[Tensor]] = {scale: [] for scale in scales}
    tokens: dict[int, list[Tensor]] = {block: [] for block in sorted(set(blocks))}
    length = tower.grid[0] * tower.grid[1] + 1
    for part in chunks(len(images), max(1, TOKENS_PER_CHUNK // length)):
        x, grid = embed_patches(tower, images[part])
        x = pre_norm(tower, x)
        for scale in scales:
            windows[scale].append(project(tower, _encode_windows(tower, x, grid, scale)))
        last, kept = encode_whole(tower, x, blocks)
        classes.append(project(tower, last))
        for block, value in kept.items():
            tokens[block].append(value)
    return Features(
        torch.cat(classes),
        {scale: torch.cat(found) for scale, found in windows.items()},
        {block: torch.cat(found) for block, found in tokens.items()},
    )


@torch.inference_mode()
def encode_tiles(
    tower: VisionTower, images: Float[Tensor, "b 3 H W"], tile: int, stride: int
) -> Float[Tensor, "b n d"]:
    """Encode dense tiles, each resized to the full input (Table 8, "tiling"): slow by design.

    Args:
        images: normalised images at the tower's own size.
        tile: side of a tile in patches; stride: its step in patches.

    Returns:
        One unit-norm embedding a tile, in the order of ``window_index(grid, tile, stride)``.
    """
    corners = window_index(tower.grid, tile, stride)[:, 0]
    side, size = tile * tower.patch_size, images.shape[-2:]
    tops, lefts = corners // tower.grid[1], corners % tower.grid[1]
    places = (torch.stack([tops, lefts], dim=1) * tower.patch_size).tolist()
    found = []
    for image in images:  # all tiles of one image go together: the tower is faster on several
        tiles = torch.stack([image[:, y : y + side, x : x + side] for y, x in places])
        resized = F.interpolate(tiles, size, mode="bicubic", antialias=True)
        found.append(encode_images(tower, resized).image_embedding)
    return torch.stack(found)
