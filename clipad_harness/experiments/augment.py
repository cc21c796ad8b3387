"""The training augmentations of released codes, every draw a function of seed and place.

"code" is that of VCP-CLIP (xiaozhen228/VCP-CLIP@4dd96ec, utils/dataset.py), which names operations of
albumentations without a version and leaves their ranges to its defaults, which have changed since
(noise became several times stronger, hue shifts two and a half times wider). Meant here are those of
1.4.0, current when the paper was written. albumentations itself is no longer maintained; what it calls is
OpenCV, and so do we: given the same draws, the operations below give its pixels (rotated ones within two
grey levels, since OpenCV 5 interpolates more finely than 4).

An image and its mask always go through the same geometric operations.

"mosaic" is that of APRIL-GAN (ByChelsea/VAND-APRIL-GAN@f13b8a6, dataset.py): mosaics alone, with the very
draws of the official training, which come one after the other in the order of its samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import cv2
import numpy as np
import numpy.typing as npt

from clipad_core.errors import ClipadError
from clipad_core.methods.method import Augmentation
from clipad_harness.data.images import Mask

Pixels = npt.NDArray[np.uint8]

AUGMENTATIONS = ("code", "none")
MOSAIC = "mosaic"
CHANCE = 0.5  # of each step; the last step takes one of three
ROTATION = 30.0  # degrees either way
CHANGE = 0.2  # of brightness, contrast, saturation and hue, either way; hue in turns
NOISE_VARIANCE = (10.0, 50.0)  # in squared grey levels
BOX = 3  # pixels a side
GAUSSIAN_SIDES = (3, 5, 5, 7, 7)  # an even side is made odd, so the larger two come twice
TILES = 4


@dataclass(frozen=True)
class Sample:
    """An RGB image (H, W, 3) and its mask (H, W), True where anomalous."""

    image: Pixels
    mask: Mask


def is_new_in_every_epoch(augmentation: Augmentation | None) -> bool:
    """Whether a training sees every image changed; mosaics take the place of some alone."""
    return augmentation is not None and augmentation.name != MOSAIC


def augmented(
    read: Callable[[int], Sample],
    place: int,
    partners: Sequence[int],
    *,
    name: str,
    mosaic_rate: float,
    seed: int,
    epoch: int,
) -> Sample:
    """The image that is trained on when ``place`` comes in an epoch.

    Args:
        read: gives the image of a place, as stored.
        partners: places of the anomalous images of its category, which a mosaic draws from; the
            official code makes mosaics of MVTec AD alone, so give none for another dataset.
        name: "code", or "none" for the image as it is.
        mosaic_rate: how often four partners replace the image.

    Raises:
        ClipadError: an unknown name.
    """
    if name not in AUGMENTATIONS:
        raise ClipadError(
            f"augmentation: found {name!r}, expected one of {', '.join(AUGMENTATIONS)}."
        )
    if name == "none":
        return read(place)
    draws = np.random.default_rng([seed, epoch, place])
    if draws.random() < mosaic_rate and len(partners):
        return augment(
            mosaic([read(int(partner)) for partner in draws.choice(partners, TILES)]), draws
        )
    return augment(read(place), draws)


def drawn_mosaics(
    folders: Sequence[Sequence[Sequence[int]]],
    orders: Sequence[Sequence[int]],
    mosaic_rate: float,
    seed: int,
) -> dict[tuple[int, int], list[int]]:
    """Which images a training replaces by mosaics, and by which four, as the official code draws them.

    For every sample a number decides whether it is replaced; then each tile is of a folder of the
    sample's category, all equally likely whatever they hold, and one of its images. Normal images have
    a folder too, and the sample itself need not be among its tiles.

    Args:
        folders: of every image the folders of its category, each the places of its images.
        orders: which image comes when, an epoch a list.

    Returns:
        By epoch and place the places of four tiles, row by row.

    >>> drawn_mosaics([[[0], [1]]] * 2, [[1, 0]], mosaic_rate=1.0, seed=0)
    {(0, 1): [1, 1, 1, 1], (0, 0): [0, 1, 0, 0]}
    """
    draws, tiles = Random(seed), {}
    for epoch, order in enumerate(orders):
        for place in order:
            if draws.random() < mosaic_rate:
                chosen = [draws.choice(draws.choice(folders[place])) for _ in range(TILES)]
                tiles[epoch, place] = chosen
    return tiles


def mosaic(tiles: Sequence[Sample]) -> Sample:
    """Two by two images at their own size; the first one's size is the raster.

    A larger image reaches into the cells behind it until they are filled, a smaller one leaves black.

    >>> tiles = [Sample(np.full((1, 1, 3), i, np.uint8), np.array([[i > 1]])) for i in range(4)]
    >>> mosaic(tiles).image[..., 0].tolist()
    [[0, 1], [2, 3]]
    """
    height, width = tiles[0].mask.shape
    image = np.zeros((2 * height, 2 * width, 3), np.uint8)
    mask = np.zeros((2 * height, 2 * width), bool)
    for i, tile in enumerate(tiles):
        for canvas, part in ((image, tile.image), (mask, tile.mask)):
            cell = canvas[i // 2 * height :, i % 2 * width :][: part.shape[0], : part.shape[1]]
            cell[:] = part[: cell.shape[0], : cell.shape[1]]
    return Sample(image, mask)


def augment(sample: Sample, draws: np.random.Generator) -> Sample:
    """Rotate, turn, brighten, add noise, then blur or change colours, each by chance."""
    image, mask = sample.image, sample.mask
    if draws.random() < CHANCE:
        angle = draws.uniform(-ROTATION, ROTATION)
        image, mask = rotate(image, angle), rotate_mask(mask, angle)
    if draws.random() < CHANCE:
        quarters = int(draws.integers(4))
        image, mask = np.rot90(image, quarters), np.rot90(mask, quarters)
    image = np.ascontiguousarray(image)
    if draws.random() < CHANCE:
        contrast, brightness = draws.uniform(-CHANGE, CHANGE, 2)
        image = brighten(image, 1 + contrast, brightness)
    if draws.random() < CHANCE:
        deviation = draws.uniform(*NOISE_VARIANCE) ** 0.5
        image = _to_bytes(image + draws.normal(0, deviation, image.shape))
    if draws.random() < CHANCE:
        image = _blur_or_colour(image, draws)
    return Sample(image, np.ascontiguousarray(mask))


def _blur_or_colour(image: Pixels, draws: np.random.Generator) -> Pixels:
    chosen = draws.integers(3)
    if chosen == 0:
        return _bytes_of(cv2.blur(image, (BOX, BOX)))
    if chosen == 1:
        brightness, contrast, saturation = draws.uniform(1 - CHANGE, 1 + CHANGE, 3)
        hue, order = draws.uniform(-CHANGE, CHANGE), draws.permutation(4)
        return change_colours(image, (brightness, contrast, saturation, hue), order.tolist())
    side = int(draws.choice(GAUSSIAN_SIDES))
    return _bytes_of(cv2.GaussianBlur(image, (side, side), sigmaX=0))


def rotate(image: Pixels, angle: float) -> Pixels:
    """Rotate about the middle by degrees, bilinear, mirrored where nothing is left."""
    return _bytes_of(_warp(image, angle, cv2.INTER_LINEAR))


def rotate_mask(mask: Mask, angle: float) -> Mask:
    """The same for a mask, nearest neighbour."""
    return _warp(mask.astype(np.uint8), angle, cv2.INTER_NEAREST).astype(bool)


def _warp(pixels: Pixels, angle: float, interpolation: int) -> npt.NDArray[np.generic]:
    height, width = pixels.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), angle, 1.0)
    border = cv2.BORDER_REFLECT_101
    return np.asarray(
        cv2.warpAffine(pixels, turn, (width, height), flags=interpolation, borderMode=border)
    )


def brighten(image: Pixels, contrast: float, brightness: float) -> Pixels:
    """``contrast * grey + 255 * brightness``, cut off at black and white.

    >>> brighten(np.full((1, 1, 3), 100, np.uint8), 1.2, -0.1).tolist()
    [[[94, 94, 94]]]
    """
    levels = np.arange(256, dtype=np.float32) * np.float32(contrast)
    return _bytes_of(_to_bytes(levels + np.float32(brightness * 255))[image])


def change_colours(
    image: Pixels, factors: tuple[float, float, float, float], order: Sequence[int]
) -> Pixels:
    """Multiply brightness, contrast and saturation and shift the hue, in the given order.

    Args:
        factors: three factors about 1, and a shift of the hue in turns.
        order: which of the four comes first, second, ...
    """
    for index in order:
        factor = factors[index]
        if index == 0:
            image = brighten(image, factor, 0.0)
        elif index == 1:
            grey = float(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean())
            image = brighten(image, factor, grey * (1 - factor) / 255)
        elif index == 2:
            grey_image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            image = _bytes_of(cv2.addWeighted(image, factor, grey_image, 1 - factor, gamma=0))
        else:
            image = _shift_hue(image, factor)
    return image


def _shift_hue(image: Pixels, turns: float) -> Pixels:
    """OpenCV keeps a hue in two degrees a step, 180 steps a turn."""
    coloured = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    shifted = np.mod(np.arange(256) + 180 * turns, 180).astype(np.uint8)
    coloured[..., 0] = shifted[coloured[..., 0]]
    return _bytes_of(cv2.cvtColor(coloured, cv2.COLOR_HSV2RGB))


def _to_bytes(levels: npt.NDArray[np.floating]) -> Pixels:
    return np.clip(levels, 0, 255).astype(np.uint8)


def _bytes_of(image: npt.NDArray[np.generic]) -> Pixels:
    return np.asarray(image, dtype=np.uint8)
