"""Views of a drawn pair: a crop with new light, tokens to keep, blocks of patches to look at.

Everything is done to the sound and the damaged image alike, so a pair never differs in anything but
the defect. The mask of a drawing is used here for one thing: to know whether the caption of a view
is true. A view in which the defect cannot be seen is left out; no mask reaches a loss.
"""

from __future__ import annotations

from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

# A defect counts as seen where it changes a pixel by this much (of 1) ...
VISIBLE_STEP = 0.04
# ... on at least this share of a view, and on no fewer pixels than this.
VISIBLE_SHARE, VISIBLE_PIXELS = 0.03, 8


def choose_crop(mask: Bool[np.ndarray, "s s"], chance: Random, smallest: float) -> list[float]:
    """A square that holds the defect where it can: (left, top, side) as shares of the image."""
    size = len(mask)
    side = 1.0 if chance.random() < 0.35 else chance.uniform(smallest, 1.0)
    corner = []
    for axis in (0, 1):
        hit = np.flatnonzero(mask.any(axis=axis)) / size
        low, high = (hit[0], hit[-1] + 1 / size) if len(hit) else (0.0, 1.0)
        start, stop = max(0.0, high - side), min(low, 1 - side)
        if start > stop:  # larger than the crop: any place that meets its middle half
            middle = low + (high - low) * chance.uniform(0.25, 0.75)
            start = stop = min(max(middle - side / 2, 0.0), 1 - side)
        corner.append(chance.uniform(start, stop))
    return [corner[0], corner[1], side]


def place(
    images: np.ndarray, masks: np.ndarray, chance: Random, size: int, smallest: float
) -> tuple[Float[Tensor, "b 2 3 s s"], Bool[Tensor, "b s s"]]:
    """Crop, mirror and turn each pair by quarter turns, and scale it to the model's input.

    Args:
        images: (b, 2, S, S, 3) bytes. masks: (b, S, S) bool.
        smallest: side of the closest crop as a share of the image.
    """
    theta = torch.zeros(len(images), 2, 3)
    for row, mask in enumerate(masks):
        left, top, side = choose_crop(mask, chance, smallest)
        centre = (2 * left + side - 1, 2 * top + side - 1)
        swap = chance.random() < 0.5
        for out in (0, 1):
            theta[row, out, (1 - out) if swap else out] = side * chance.choice((-1, 1))
            theta[row, out, 2] = centre[out]
    stacked = np.concatenate(
        [images[:, 0], images[:, 1], masks[..., None] * np.uint8(255)], axis=-1
    )
    pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255
    grid = F.affine_grid(theta, [len(images), 7, size, size], align_corners=False)
    found = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    return found[:, :6].unflatten(1, (2, 3)), found[:, 6] > 0.5


def relight(
    pairs: Float[Tensor, "b 2 3 s s"], chance: Random, noise: torch.Generator
) -> tuple[Float[Tensor, "b 2 3 s s"], list[bool]]:
    """New brightness, contrast, tint, channel order, blur and grain, the same for both of a pair.

    Returns:
        The pairs and which of them no longer have the colour that they were drawn in.
    """
    count = len(pairs)
    recoloured = [chance.random() < 0.3 for _ in range(count)]
    order = torch.tensor(
        [chance.sample(range(3), 3) if changed else [0, 1, 2] for changed in recoloured]
    )
    pairs = torch.stack([pair[:, axes] for pair, axes in zip(pairs, order, strict=True)])
    draw = torch.rand(count, 6, generator=noise)
    gain = 0.75 + 0.5 * draw[:, :1]
    tint = gain * (0.95 + 0.1 * draw[:, 1:4])
    offset = 0.2 * (draw[:, 4:5] - 0.5)
    pairs = (pairs - 0.5) * tint[:, None, :, None, None] + 0.5 + offset[:, :, None, None, None]
    blurred = F.avg_pool2d(F.pad(pairs.flatten(0, 2)[:, None], (1, 1, 1, 1), "replicate"), 3, 1)
    soft = 0.7 * (draw[:, 5] < 0.3) * draw[:, 4]
    pairs = torch.lerp(pairs, blurred.view_as(pairs), soft[:, None, None, None, None])
    grain = torch.randn(count, 1, *pairs.shape[2:], generator=noise)
    amount = 0.03 * torch.rand(count, 1, 1, 1, 1, generator=noise) ** 2
    return (pairs + amount * grain).clamp(0, 1), recoloured


def visible(
    pairs: Float[Tensor, "b 2 3 s s"], masks: Bool[Tensor, "b s s"], patch: int
) -> Float[Tensor, "b h w"]:
    """Pixels of each patch on which the defect can be seen."""
    seen = masks & ((pairs[:, 0] - pairs[:, 1]).abs().amax(dim=1) > VISIBLE_STEP)
    return F.avg_pool2d(seen.float()[:, None], patch)[:, 0] * patch**2


def needed(pixels: int) -> float:
    """Visible pixels that make "damaged" true of a view of this many pixels."""
    return max(VISIBLE_PIXELS, VISIBLE_SHARE * pixels)


def keep_tokens(
    seen: Float[Tensor, "b h w"], keep: int, noise: torch.Generator
) -> Int[Tensor, "b keep"]:
    """Random patches to keep (FLIP, Li et al., CVPR 2023), among them some of the defect's.

    The patch that shows most of the defect always stays and each other one with a chance of a half
    on top, or the damaged caption would be untrue of what is left.
    """
    flat = seen.flatten(1)
    if keep >= flat.shape[1]:
        return torch.arange(flat.shape[1]).expand(len(flat), -1)
    score = torch.rand(flat.shape, generator=noise)
    score += (flat >= VISIBLE_PIXELS) * (torch.rand(flat.shape, generator=noise) < 0.5)
    score.scatter_(1, flat.argmax(dim=1, keepdim=True), 3.0)
    return score.topk(keep, dim=1).indices.sort(dim=1).values


def damaged_blocks(
    seen: Float[Tensor, "b h w"], side: int, patch: int, noise: torch.Generator
) -> tuple[Int[Tensor, "b a"], Bool[Tensor, " b"]]:
    """For each pair a block of ``side`` x ``side`` patches in which the defect is seen.

    Returns:
        Patch numbers of the blocks, and which pairs have such a block (the others are to be left out).
    """
    inside = F.avg_pool2d(seen[:, None], side, 1)[:, 0] * side**2
    fits = (inside >= needed((side * patch) ** 2)).float().flatten(1)
    found = fits.amax(dim=1) > 0
    fits[~found] = 1.0
    corner = torch.multinomial(fits, 1, generator=noise)[:, 0]
    return block_patches(corner, side, seen.shape[2]), found


def any_blocks(count: int, grid: int, side: int, noise: torch.Generator) -> Int[Tensor, "count a"]:
    """Blocks anywhere, one an image."""
    corner = torch.randint((grid - side + 1) ** 2, (count,), generator=noise)
    return block_patches(corner, side, grid)


def block_patches(corner: Int[Tensor, " b"], side: int, grid: int) -> Int[Tensor, "b a"]:
    """Patch numbers, row-major, of blocks given by the number of their place.

    >>> block_patches(torch.tensor([0, 3]), side=2, grid=3)
    tensor([[0, 1, 3, 4],
            [4, 5, 7, 8]])
    """
    places = grid - side + 1
    first = (corner // places) * grid + corner % places
    steps = torch.arange(side)
    return first[:, None] + (steps[:, None] * grid + steps).flatten()
