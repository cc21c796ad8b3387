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


def choose_places(
    masks: Bool[np.ndarray, "b s s"], chance: Random, smallest: float
) -> Float[Tensor, "b 2 3"]:
    """For each pair a crop, mirrored and turned by quarter turns at random, as an affine map."""
    places = torch.zeros(len(masks), 2, 3)
    for row, mask in enumerate(masks):
        left, top, side = choose_crop(mask, chance, smallest)
        centre = (2 * left + side - 1, 2 * top + side - 1)
        swap = chance.random() < 0.5
        for out in (0, 1):
            places[row, out, (1 - out) if swap else out] = side * chance.choice((-1, 1))
            places[row, out, 2] = centre[out]
    return places


def place(
    images: Int[Tensor, "b 2 S S 3"],
    masks: Bool[Tensor, "b S S"],
    places: Float[Tensor, "b 2 3"],
    size: int,
) -> tuple[Float[Tensor, "b 2 3 s s"], Bool[Tensor, "b s s"]]:
    """Each pair at its place (`choose_places`), scaled to the model's input.

    Args:
        images: bytes, sound then damaged.
    """
    stacked = torch.cat([images[:, 0], images[:, 1], masks[..., None].byte() * 255], dim=-1)
    pixels = stacked.permute(0, 3, 1, 2).float() / 255
    grid = F.affine_grid(places, [len(images), 7, size, size], align_corners=False)
    samples = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    return samples[:, :6].unflatten(1, (2, 3)), samples[:, 6] > 0.5


def choose_channels(chance: Random) -> list[int]:
    """The order of the colour channels: mostly their own, else any."""
    return chance.sample(range(3), 3) if chance.random() < 0.3 else [0, 1, 2]


def relight(
    pairs: Float[Tensor, "b 2 3 s s"], channels: Int[Tensor, "b 3"], noise: torch.Generator
) -> Float[Tensor, "b 2 3 s s"]:
    """New channel order, brightness, contrast, tint, blur and grain, the same for both of a pair."""
    order = channels[:, None, :, None, None].expand_as(pairs)
    pairs = pairs.gather(2, order)
    count, device = len(pairs), noise.device
    draw = torch.rand(count, 6, generator=noise, device=device)
    gain = 0.75 + 0.5 * draw[:, :1]
    tint = gain * (0.95 + 0.1 * draw[:, 1:4])
    offset = 0.2 * (draw[:, 4:5] - 0.5)
    pairs = (pairs - 0.5) * tint[:, None, :, None, None] + 0.5 + offset[:, :, None, None, None]
    blurred = F.avg_pool2d(F.pad(pairs.flatten(0, 2)[:, None], (1, 1, 1, 1), "replicate"), 3, 1)
    soft = 0.7 * (draw[:, 5] < 0.3) * draw[:, 4]
    pairs = torch.lerp(pairs, blurred.view_as(pairs), soft[:, None, None, None, None])
    grain = torch.randn(count, 1, *pairs.shape[2:], generator=noise, device=device)
    amount = 0.03 * torch.rand(count, 1, 1, 1, 1, generator=noise, device=device) ** 2
    return (pairs + amount * grain).clamp(0, 1)


def visible(
    pairs: Float[Tensor, "b 2 3 s s"], masks: Bool[Tensor, "b s s"], patch: int
) -> Float[Tensor, "b h w"]:
    """Pixels of each patch on which the defect can be seen."""
    seen = masks & ((pairs[:, 0] - pairs[:, 1]).abs().amax(dim=1) > VISIBLE_STEP)
    return F.avg_pool2d(seen.float()[:, None], patch)[:, 0] * patch**2


def visible_threshold(pixels: int) -> float:
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
        return torch.arange(flat.shape[1], device=flat.device).expand(len(flat), -1)
    score, luck = torch.rand((2, *flat.shape), generator=noise, device=flat.device)
    score += (flat >= VISIBLE_PIXELS) * (luck < 0.5)
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
    fits = (inside >= visible_threshold((side * patch) ** 2)).float().flatten(1)
    has_block = fits.amax(dim=1) > 0
    fits = torch.where(has_block[:, None], fits, 1.0)
    corner = torch.multinomial(fits, 1, generator=noise)[:, 0]
    return block_patches(corner, side, seen.shape[2]), has_block


def any_blocks(count: int, grid: int, side: int, noise: torch.Generator) -> Int[Tensor, "count a"]:
    """Blocks anywhere, one an image."""
    places = (grid - side + 1) ** 2
    corner = torch.randint(places, (count,), generator=noise, device=noise.device)
    return block_patches(corner, side, grid)


def block_patches(corner: Int[Tensor, " b"], side: int, grid: int) -> Int[Tensor, "b a"]:
    """Patch numbers, row-major, of blocks given by the number of their place.

    >>> block_patches(torch.tensor([0, 3]), side=2, grid=3)
    tensor([[0, 1, 3, 4],
            [4, 5, 7, 8]])
    """
    places = grid - side + 1
    first = (corner // places) * grid + corner % places
    steps = torch.arange(side, device=corner.device)
    return first[:, None] + (steps[:, None] * grid + steps).flatten()
