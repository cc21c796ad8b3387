"""One image to the views a backbone takes, by every published rule.

The rules differ more than one would think: on an image of 1100 x 900 pixels a centre crop and a
stretch differ by 28 of 255 grey levels on average, and Pillow and a float tensor by up to 12.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from clipad_core.clip.image_file import Pixels
from clipad_core.clip.published import MEAN, STD
from clipad_core.errors import ClipadError

# Several images, each of a size of its own.
AnyPixels = UInt8[np.ndarray, "_ _ 3"]
# Side of a square in pixels, or height and width.
Size = int | tuple[int, int]
# Crop side of AlexNet's multi-crop prediction: 224 of 256 pixels (Krizhevsky et al., 2012).
CROP_FRACTION = 224 / 256
CROPS = {"five": 5, "ten": 10}  # views that `multi_crop` adds; the five are the first of the ten


@dataclass(frozen=True)
class Placement:
    """Where the views of an image lie, which is all that is needed to put its map together.

    Attributes:
        corners: left and top corner of every view on the canvas.
        canvas: height and width of the image after resizing, which is also the map's size.
        crops: number of extra views that only the text score of the image reads (multi-crop).
    """

    corners: tuple[tuple[int, int], ...]
    canvas: tuple[int, int]
    crops: int = 0


@dataclass(frozen=True)
class Views:
    """The normalised views of one image, all of one size, and its multi-crop views (often none)."""

    pixels: Float[Tensor, "v 3 H W"]
    crops: Float[Tensor, "m 3 H W"]
    placement: Placement


# These cut the same one view from a square image.
ALIKE_ON_SQUARES = ("stretch", "tiles", "centre_crop")


def height_and_width(size: Size) -> tuple[int, int]:
    """Height and width of a size.

    >>> height_and_width(240), height_and_width((240, 400))
    ((240, 240), (240, 400))
    """
    return (size, size) if isinstance(size, int) else size


def make_views(
    image: Pixels,
    size: Size,
    rule: str = "tiles",
    channels: str = "rgb",
    multi_crop: str = "none",
    dtype: torch.dtype = torch.float32,
) -> Views:
    """Cut one RGB image into normalised views of ``size`` pixels.

    Args:
        image: uint8 RGB.
        size: the backbone's input.
        rule: ``tiles`` (WinCLIP supplement A: as many views as cover it, in a row along the edge that
            is longer than theirs), ``stretch`` (Pillow bicubic), ``stretch_float`` (bicubic on floats,
            not clamped: anomalib), ``stretch_1024`` (bilinear to 1024 without antialiasing, then
            Pillow: caoyunkang), ``centre_crop`` (open_clip's default).
        channels: "bgr" swaps the channels, which is caoyunkang's fault on test images.
        multi_crop: "five" (corners and centre) or "ten" (with mirrors) extra views.
        dtype: of the views; what is not left to Pillow is computed in it.

    Raises:
        ClipadError: unknown rule, or an image that is not uint8 RGB or has no pixels.
    """
    if not is_rgb(image):
        raise ClipadError(
            f"image: found shape {image.shape} of {image.dtype}, expected (height, width, 3) of uint8, "
            "with pixels."
        )
    if channels == "bgr":
        image = np.ascontiguousarray(image[:, :, ::-1])
    high, wide = height_and_width(size)
    whole, corners = _resize(image, (high, wide), rule, dtype)
    views = torch.stack([whole[:, top : top + high, left : left + wide] for left, top in corners])
    crops = _multi_crop(whole, (high, wide), multi_crop)
    canvas = (int(whole.shape[1]), int(whole.shape[2]))
    placement = Placement(tuple(corners), canvas, len(crops))
    return Views(normalise(views), normalise(crops), placement)


def canvas(image: AnyPixels, size: Size, rule: str = "tiles") -> AnyPixels:
    """The part of an image that its views show, resized as they are: what a map of it lies over.

    Args:
        image: uint8 RGB.
        size: of a view.
        rule: as `make_views` takes it.

    Returns:
        uint8 RGB of the placement's ``canvas``.

    >>> canvas(np.full((50, 100, 3), 7, np.uint8), 10).shape
    (10, 20, 3)
    """
    whole, _ = _resize(image, height_and_width(size), rule, torch.float64)
    levels = (whole.clamp(0, 1) * 255).round().to(torch.uint8)
    return rearrange(levels, "c h w -> h w c").numpy()


def is_rgb(image: np.ndarray) -> bool:
    """Whether an array is an image that can be cut into views.

    >>> is_rgb(np.zeros((2, 3, 3), np.uint8)), is_rgb(np.zeros((0, 3, 3), np.uint8))
    (True, False)
    """
    return image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8 and image.size > 0


def views_of_normalised(image: Float[Tensor, "3 H W"], multi_crop: str = "none") -> Views:
    """The views of an image that is a backbone's input already: itself, and its multi-crop views."""
    canvas = (int(image.shape[1]), int(image.shape[2]))
    crops = _multi_crop(image, canvas, multi_crop)
    return Views(image[None], crops, Placement(((0, 0),), canvas, len(crops)))


def normalise(pixels: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n 3 H W"]:
    """Subtract CLIP's channel means and divide by its deviations."""
    mean, std = pixels.new_tensor(MEAN)[:, None, None], pixels.new_tensor(STD)[:, None, None]
    return (pixels - mean) / std


def _resize(
    image: Pixels, size: tuple[int, int], rule: str, dtype: torch.dtype
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Resize by the rule; return the canvas in [0, 1] and the (left, top) corners of its views."""
    height, width = image.shape[:2]
    high, wide = size
    if rule == "stretch":
        return _pillow(image, high, wide, dtype), [(0, 0)]
    if rule == "stretch_float":
        floats = _to_float(image, dtype)[None]
        resized = F.interpolate(floats, size, mode="bicubic", antialias=True)
        return resized[0], [(0, 0)]
    if rule == "stretch_1024":
        return _pillow(_enlarge(image, 1024), high, wide, dtype), [(0, 0)]
    # One side is that of a view, the other as long or longer: of a square view the shorter edge.
    if height * wide <= width * high:
        canvas = _pillow(image, high, max(wide, round(width * high / height)), dtype)
    else:
        canvas = _pillow(image, max(high, round(height * wide / width)), wide, dtype)
    if rule == "tiles":
        return canvas, tile_corners(canvas.shape[1], canvas.shape[2], size)
    if rule == "centre_crop":
        top, left = (canvas.shape[1] - high) // 2, (canvas.shape[2] - wide) // 2
        return canvas[:, top : top + high, left : left + wide], [(0, 0)]
    raise ClipadError(
        f"resize: found {rule!r}, expected tiles, stretch, stretch_float, stretch_1024 or centre_crop."
    )


def tile_corners(height: int, width: int, size: Size) -> list[tuple[int, int]]:
    """Corners (left, top) of tiles in a row along the edge that is longer, evenly spaced, both ends flush.

    WinCLIP supplement A: neighbours overlap by at least a fifth, so the stride is at most 0.8 size.

    Args:
        size: of a tile; one of its sides is that of the canvas.

    >>> tile_corners(100, 100, 100), tile_corners(100, 150, 100)
    ([(0, 0)], [(0, 0), (50, 0)])
    >>> tile_corners(300, 100, 100)
    [(0, 0), (0, 67), (0, 133), (0, 200)]
    >>> tile_corners(150, 150, (100, 150))
    [(0, 0), (0, 50)]
    """
    high, wide = height_and_width(size)
    along, extra = (wide, width - wide) if width > wide else (high, height - high)
    count = int(np.ceil(extra / (0.8 * along))) + 1
    offsets = [round(extra * i / max(1, count - 1)) for i in range(count)]
    return [(offset, 0) if width > wide else (0, offset) for offset in offsets]


def _multi_crop(canvas: Tensor, size: tuple[int, int], rule: str) -> Tensor:
    """Corner and centre crops of 7/8 of a view's sides, resized to the input size."""
    if rule == "none":
        return canvas.new_zeros(0, 3, *size)
    high, wide = (round(CROP_FRACTION * side) for side in size)
    down, right = int(canvas.shape[1]) - high, int(canvas.shape[2]) - wide
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    crops = torch.stack([canvas[:, top : top + high, left : left + wide] for top, left in corners])
    crops = F.interpolate(crops, size, mode="bicubic", antialias=True)
    return torch.cat([crops, crops.flip(-1)]) if rule == "ten" else crops


def _enlarge(image: Pixels, side: int) -> AnyPixels:
    """Bilinear without antialiasing; OpenCV's ``resize`` of bytes differs by at most one level.

    Where ``side`` is a power of two the weights are fractions of one, so that the sums are exact and a
    half is a half on every CPU; it is rounded up.
    """
    floats = rearrange(torch.from_numpy(image.copy()), "h w c -> 1 c h w").double()
    enlarged = F.interpolate(floats, (side, side), mode="bilinear")[0]
    return rearrange((enlarged + 0.5).floor().to(torch.uint8), "c h w -> h w c").numpy()


def _pillow(image: Pixels, height: int, width: int, dtype: torch.dtype) -> Float[Tensor, "3 h w"]:
    """Pillow's bicubic on bytes, which always antialiases."""
    if image.shape[:2] != (height, width):
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
        image = np.asarray(resized)
    return _to_float(image, dtype)


def _to_float(image: Pixels, dtype: torch.dtype) -> Float[Tensor, "3 h w"]:
    return rearrange(torch.from_numpy(image.copy()), "h w c -> c h w").to(dtype) / 255
