"""Windows of patches and tiles of pixels through the frozen tower (WinCLIP, section 4.2; Table 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from clipad_core.clip.features import Features, Recipe
from clipad_core.clip.joint import JointRecipe, block_numbers
from clipad_core.clip.one_pass import FeatureReader, PassRecipe, encode_together
from clipad_core.clip.transformer import (
    finish_block,
    project_qkv,
    run_block,
    run_class_token,
)
from clipad_core.clip.vision import PatchTokens, VisionTower, project
from clipad_core.errors import ClipadError
from clipad_core.methods.winclip.config import WindowAttention


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


def window_stride(attention: WindowAttention, scale: int) -> int:
    """By how many patches windows slide: one, or side by side."""
    return scale if attention == "disjoint" else 1


def home_windows(
    grid: tuple[int, int], scale: int, attention: WindowAttention, block: int
) -> Int[Tensor, " p"]:
    """The window in which each patch attends in one block of `_encode_in_one_pass`.

    A window that would reach over the border lies flush with it, as in NAT; Swin cuts it. So every
    patch sees ``scale`` x ``scale`` patches, itself among them.

    Args:
        attention: "plain": blocks of patches side by side (Swin, Liu et al., ICCV 2021, section 3.2);
            "shifted": in every second block of the tower they lie half a side further up and left;
            "neighbourhood": the window around the patch (NAT, Hassani et al., CVPR 2023), of an even
            side one patch further up and left.
        block: of the tower, counted from 0.

    Returns:
        Rows of ``window_index(grid, scale)``.

    >>> [home_windows((1, 5), 1, "plain", 0).tolist(), home_windows((2, 5), 2, "plain", 0)[:5].tolist()]
    [[0, 1, 2, 3, 4], [0, 0, 2, 2, 3]]
    >>> home_windows((2, 5), 2, "shifted", 1)[:5].tolist()
    [0, 1, 1, 3, 3]
    >>> home_windows((3, 5), 3, "neighbourhood", 0)[:5].tolist()
    [0, 0, 1, 2, 2]
    """
    shift = scale // 2 if attention == "shifted" and block % 2 else 0

    def first(side: int) -> Tensor:
        patch = torch.arange(side)
        around = attention == "neighbourhood"
        start = patch - scale // 2 if around else (patch + shift) // scale * scale - shift
        return start.clamp(0, side - scale)

    return (first(grid[0])[:, None] * (grid[1] - scale + 1) + first(grid[1])).flatten()


def _encode_in_one_pass(
    tower: VisionTower,
    x: Tensor,
    grid: tuple[int, int],
    scale: int,
    attention: WindowAttention,
    inputs: Sequence[Tensor] = (),
) -> Tensor:
    """Class-token outputs as of `_encode_windows` with stride 1, but every patch goes through once.

    The sequence holds the n class tokens of all windows and the patches. A class token sees itself and
    the patches of its window. Local attention: a patch sees its home window (`home_windows`), the class
    token of it and its patches. Global: patches are those of the tower's ordinary pass, and see the
    image, as below Mask Class Tokens (Ding et al., MaskCLIP, ICML 2023).

    What differs from windows that are encoded alone: there a patch is one token in each window that
    covers it and sees that window; here it is one token, so its keys and values are the same for all
    windows, and come from its home window or the image. A window that is the home of exactly its own
    patches in every block is the same up to rounding; of a window as large as the grid that is the
    ordinary pass.

    Args:
        x: tokens after ``ln_pre``, class token first.
        inputs: global: the patches before each block of the ordinary pass, (b, p, c).
    """
    windows = window_index(grid, scale)
    count, patches = len(windows), x.shape[1] - 1
    members = torch.cat([torch.arange(count)[:, None], windows + count], dim=1).to(x.device)
    start = F.pad(torch.arange(patches, device=x.device) + 1, (count, 0))
    own, class_tokens = torch.arange(len(start), device=x.device), []
    for part in tower.chunks(len(x), len(start) * members.shape[1]):
        y = x[part][:, start]
        for index in range(tower.depth - 1):
            seen = members
            if attention != "global":
                home = home_windows(grid, scale, attention, index).to(x.device)
                seen = torch.cat([members, members[home]])
            place = (seen == own[: len(seen), None]).int().argmax(dim=1).repeat(len(y))
            qkv = project_qkv(tower.transformer, index, y)[:, seen].flatten(0, 1)
            alone = y[:, : len(seen)].flatten(0, 1)[:, None]
            finished = finish_block(tower.transformer, index, alone, qkv, rows=place)
            y = finished[:, 0].unflatten(0, (len(y), len(seen)))
            if attention == "global":
                y = torch.cat([y, inputs[index + 1][part]], dim=1)
        last = run_class_token(tower.transformer, y[:, members].flatten(0, 1))
        class_tokens.append(last.unflatten(0, (len(y), count)))
    return torch.cat(class_tokens)


def _encode_windows(
    tower: VisionTower, x: Tensor, qkv: Tensor, grid: tuple[int, int], scale: int, stride: int
) -> Tensor:
    """Class-token output of every window of b images, (b, n, c), a bounded number at a time.

    Args:
        x: tokens after ``ln_pre``, class token first.
        qkv: the first block's. Like ``ln_pre`` it sees one token at a time, so it is gathered here, not
            made once a window.
    """
    inside = window_index(grid, scale, stride).to(x.device) + 1
    sequence = F.pad(inside, (1, 0))
    offsets = torch.arange(len(x), device=x.device)[:, None, None] * x.shape[1]
    flat = (sequence + offsets).flatten(0, 1)
    table, qkv = x.flatten(0, 1), qkv.flatten(0, 1)
    class_tokens = []
    for part in tower.chunks(len(flat), flat.shape[1]):
        y = table[flat[part]]
        if tower.depth > 1:
            y = finish_block(tower.transformer, 0, y, qkv[flat[part]])
        for index in range(1, tower.depth - 1):
            y = run_block(tower.transformer, index, y)
        class_tokens.append(run_class_token(tower.transformer, y))
    return torch.cat(class_tokens).unflatten(0, (len(x), len(inside)))


@dataclass(frozen=True)
class WindowRecipe(PassRecipe):
    """What must be encoded of an image, and how its windows are.

    Attributes:
        window_attention: of the config; "alone" where there are no windows. "disjoint": those windows
            alone that lie side by side, the last of a row or column flush with the border; of others all
            windows go in one pass, which is another function: `_encode_in_one_pass` says what differs.
    """

    window_attention: WindowAttention = "alone"

    def reader(self, tower: VisionTower) -> WindowReader:
        """What reads one pass."""
        return WindowReader(tower, self)

    def numbers(self, tower: VisionTower) -> int:
        """How many numbers are kept of a view: tokens of the width, and the rest in the joint space."""
        windows = sum(len(window_index(tower.grid, scale)) for scale in self.scales)
        tokens = len(self.blocks) * tower.patches * len(tower.proj)
        return tokens + (1 + windows) * tower.proj.shape[1]

    def same_views(self, other: Recipe) -> bool:
        """As of any pass; but whoever reads no windows is not made to encode ten times as much."""
        return isinstance(other, WindowRecipe) and super().same_views(other)


class WindowReader(PatchTokens, FeatureReader):
    """Windows of each scale, and raw patch tokens of some blocks.

    A window is the class token and its own patches alone, taken after the positional embedding and
    before ``ln_pre``; the other patches are dropped, not zeroed (WinCLIP, section 4.2 and Eq. (2)). So
    windows go through the tower by themselves, and only where all in one pass see the whole image
    (`_encode_in_one_pass`) do they read its blocks.

    Raises:
        ClipadError: a block that does not exist; later a scale larger than the grid, and windows that
            say the same in every image.
    """

    def __init__(self, tower: VisionTower, recipe: WindowRecipe) -> None:
        self.tower, self.recipe = tower, recipe
        self.kept = block_numbers(tower.depth, recipe.blocks)
        is_global = bool(recipe.scales) and recipe.window_attention == "global"
        self.inputs = range(1, tower.depth) if is_global else range(0)
        super().__init__(tower.depth, {*self.kept, *self.inputs})
        self._of_patches = self.blocks
        self.blocks = self.blocks | ({1} if recipe.scales else set())
        self._start: tuple[Tensor, Tensor] | None = None

    def see(self, number: int, x: Tensor, qkv: Tensor, after: Tensor | None) -> None:
        """Keep what enters the tower, and the patches that are read of a block."""
        if number == 1:
            self._start = x, qkv
        if number in self._of_patches:
            super().see(number, x, qkv, after)

    def features(self, class_token: Float[Tensor, "b c"]) -> Features:
        """The projected class token and window embeddings, all of unit norm."""
        windows = {scale: project(self.tower, self._windows(scale)) for scale in self.recipe.scales}
        for scale, embeddings in windows.items():
            check_not_constant(embeddings, f"window embeddings of scale {scale}")
        tokens = {block: self.tokens[block] for block in self.kept}
        return Features(project(self.tower, class_token), tokens, windows)

    def _windows(self, scale: int) -> Float[Tensor, "b n c"]:
        """The class token of every window of one scale."""
        assert self._start is not None
        (x, qkv), attention, grid = self._start, self.recipe.window_attention, self.tower.grid
        if attention in ("alone", "disjoint"):
            stride = window_stride(attention, scale)
            return _encode_windows(self.tower, x, qkv, grid, scale, stride)
        inputs = [x[:, 1:], *(self.tokens[block] for block in self.inputs)]
        return _encode_in_one_pass(self.tower, x, grid, scale, attention, inputs)


@torch.no_grad()
def encode_tiles(
    tower: VisionTower, images: Float[Tensor, "b 3 H W"], tile: int, stride: int
) -> Float[Tensor, "b n d"]:
    """Encode dense tiles, each resized to the full input (Table 8, "tiling"): slow by design.

    Args:
        images: normalised images at the tower's own size.
        tile: side of a tile in patches; stride: its step in patches.

    Returns:
        One unit-norm embedding a tile, in the order of ``window_index(grid, tile, stride)``.

    Raises:
        ClipadError: tiles that are larger than the grid.
    """
    if tile > min(tower.grid):
        height, width = tower.grid
        raise ClipadError(
            f"map_source: found tiles of {tile} patches, expected at most {min(tower.grid)} on a grid of "
            f"{height} x {width}; choose windows."
        )
    corners = window_index(tower.grid, tile, stride)[:, 0]
    side, size = tile * tower.patch_size, images.shape[-2:]
    tops, lefts = corners // tower.grid[1], corners % tower.grid[1]
    places = (torch.stack([tops, lefts], dim=1) * tower.patch_size).tolist()
    embeddings = []
    for image in images:  # all tiles of one image go together: the tower is faster on several
        tiles = torch.stack([image[:, y : y + side, x : x + side] for y, x in places])
        resized = F.interpolate(tiles, size, mode="bicubic", antialias=True)
        [features] = encode_together(tower, resized, [JointRecipe()])
        embeddings.append(features.image_embedding)
    return torch.stack(embeddings)


def check_not_constant(embeddings: Float[Tensor, "b n d"], label: str) -> None:
    """Stop where all windows of an image say the same.

    anomalib 2.7.0 beside open_clip 2.26.1 or newer gives this (its issue 2571): every window's class
    token attends to class tokens only, the map is constant and pixel AUROC is 0.5.

    Raises:
        ClipadError: the embeddings of different windows are identical in every image.
    """
    if embeddings.shape[1] > 1 and float((embeddings - embeddings[:, :1]).abs().max()) < 1e-6:
        raise ClipadError(
            f"{label}: all windows of every image have the same embedding, so the anomaly map would be "
            "constant. Expected different ones; the weights or the images are blank, or broken."
        )
