"""Images and masks from disk, in one form each, or one message that names the file.

Every image becomes 8-bit RGB *before* anything is resized. The published implementations resize
first and convert then, which is the same for RGB and greyscale files and wrong for palette files
(Pillow resizes palette indices without interpolation). Further choices, as in Pillow's
``Image.open(path).convert("RGB")`` that anomalib, Accurate-WinCLIP-pytorch and AnomalyCLIP call:
an alpha channel is dropped, not blended, and an EXIF orientation is ignored, because the masks of
the datasets were drawn on the pixels as stored.

A path may name a part of a file: ``Part0.jpg@1of2`` is the upper half of ``Part0.jpg``, as
KolektorSDD is cut; `part_of` makes such a path, and every function here reads it.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from clipad_core.clip.image_file import load_pixels, open_image, to_rgb
from clipad_core.errors import ClipadError

Mask = npt.NDArray[np.bool_]
MaskRule = Literal["nearest", "bilinear_half"]
MASK_RULES: tuple[MaskRule, ...] = get_args(MaskRule)

# The formats that docs/data.md names, by Pillow's names.
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")

_PART = re.compile(r"(?P<file>.+)@(?P<number>\d)of(?P<count>\d)")


def part_of(path: Path, number: int, count: int) -> Path:
    """The path of a horizontal strip of an image: strip ``number`` of ``count``, from the top.

    Strips are of equal height; the last one also has the rows that are left over.

    >>> part_of(Path("kos01/Part0.jpg"), 2, 2).as_posix()
    'kos01/Part0.jpg@2of2'
    """
    return path.with_name(f"{path.name}@{number}of{count}")


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; of a part, with its number and count.

    Raises:
        ClipadError: a file that is not there or cannot be read.
    """
    path, part = _split(path)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        if part != (1, 1):
            digest.update(f"@{part[0]}of{part[1]}".encode())
        return digest.hexdigest()
    except OSError as error:
        raise ClipadError(
            f"{path}: cannot be read ({error.strerror or error}), expected a file; put it back or "
            "make the index again."
        ) from error


def image_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels as stored, from the header alone.

    Raises:
        ClipadError: no image, an empty file, or a file that cannot be opened.
    """
    file, part = _split(path)
    with open_image(file, FORMATS) as image:
        top, bottom = _rows(image.height, part)
        return bottom - top, image.width


def read_image(path: Path) -> Image.Image:
    """Read any image as 8-bit RGB; the module's text states the choices.

    16-bit greyscale is divided by 257, so that 65535 becomes 255: no clipping, and no stretching
    that would make brightness depend on the image. Of a file with several frames the first is read.

    Raises:
        ClipadError: an empty, truncated or foreign file, or pixels without a defined 8-bit range
            (floating point, or whole numbers above 16 bits).
    """
    path, part = _split(path)
    with open_image(path, FORMATS) as image:
        load_pixels(image, path)
        return to_rgb(_cut(image, part), path)


def read_mask(path: Path, size: tuple[int, int]) -> Mask:
    """Read a ground-truth mask: True where a pixel is anomalous, that is, not zero.

    Any mode will do (0/1, 0/255, palette, 16-bit, colour); an alpha channel is ignored. A palette
    file counts by its index, as numpy sees it; one whose colours say something else is refused. Of
    a JPEG file, whose compression leaves grey around every edge, a pixel counts from half
    brightness (AnomalyCLIP counts the grey as well).

    Args:
        path: the mask.
        size: height and width of its image.

    Returns:
        Shape ``size``.

    Raises:
        ClipadError: an unreadable file, another size than the image's, an ambiguous palette, or a
            JPEG file that is dark all over.
    """
    path, part = _split(path)
    with open_image(path, FORMATS) as image:
        lossy = image.format == "JPEG"
        load_pixels(image, path)
        image = _cut(image, part)
        if image.mode in ("RGBA", "LA", "PA", "CMYK", "YCbCr"):
            image = image.convert("RGB")
        pixels = np.asarray(image)
        marked = (pixels.reshape(*pixels.shape[:2], -1) > (127 if lossy else 0)).any(axis=-1)
        if lossy and not marked.any() and part == (1, 1) and pixels.max() > 0:
            raise ClipadError(
                f"{path}: found a JPEG mask that is nowhere brighter than {pixels.max()}, expected "
                "white for anomalous pixels; save the mask as PNG with 0 and 255."
            )
        if image.mode == "P":
            coloured = (np.asarray(image.convert("RGB")) != 0).any(axis=-1)
            if not np.array_equal(marked, coloured) and coloured.any():
                raise ClipadError(
                    f"{path}: the palette's index 0 is not its only black colour, expected 0 = "
                    "normal and black; save the mask as greyscale with 0 for normal pixels."
                )
    if marked.shape != tuple(size):
        raise ClipadError(
            f"{path}: found a mask of {marked.shape[0]} x {marked.shape[1]} pixels (height x "
            f"width), expected its image's {size[0]} x {size[1]}; correct the pairing or the mask."
        )
    return cast(Mask, marked)


def resize_mask(mask: Mask, size: tuple[int, int], rule: MaskRule) -> Mask:
    """Resize a mask to the resolution of the evaluation.

    Args:
        mask: (H, W).
        size: height and width wanted.
        rule: ``nearest``: nearest neighbour as torch counts it (pixel ``floor(i * H / h)``), what
            anomalib evaluates with, and ours unless params.yaml says otherwise.
            ``bilinear_half``: Pillow's bilinear filter with antialiasing, then above one half, as
            in Accurate-WinCLIP-pytorch; it keeps areas, but loses regions thinner than half an
            output pixel.

    Returns:
        Shape ``size``.

    Raises:
        ClipadError: an unknown rule.

    >>> import numpy as np
    >>> mask = np.array([[True, False, False, False]] * 4)
    >>> resize_mask(mask, (2, 2), "nearest").tolist()
    [[True, False], [True, False]]
    >>> resize_mask(mask, (2, 2), "bilinear_half").tolist()
    [[False, False], [False, False]]
    """
    if rule not in MASK_RULES:
        raise ClipadError(f"mask rule: found {rule!r}, expected one of {', '.join(MASK_RULES)}.")
    if rule == "nearest":
        rows, columns = (_nearest(*lengths) for lengths in zip(mask.shape, size, strict=True))
        return mask[np.ix_(rows, columns)]
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(grey.resize((size[1], size[0]), Image.Resampling.BILINEAR)) > 127


def _nearest(length: int, new_length: int) -> npt.NDArray[np.int64]:
    """The source pixel of each new one; torch multiplies in single precision."""
    scale = np.float32(length) / np.float32(new_length)
    places = np.floor(np.arange(new_length, dtype=np.float32) * scale).astype(np.int64)
    return np.minimum(places, length - 1)


def _split(path: Path) -> tuple[Path, tuple[int, int]]:
    """The file behind a path, and its part as (number, count); (1, 1) is the whole file."""
    match = _PART.fullmatch(path.name)
    if match is None:
        return path, (1, 1)
    return path.with_name(match["file"]), (int(match["number"]), int(match["count"]))


def _rows(height: int, part: tuple[int, int]) -> tuple[int, int]:
    number, count = part
    strip = height // count
    return (number - 1) * strip, height if number == count else number * strip


def _cut(image: Image.Image, part: tuple[int, int]) -> Image.Image:
    if part == (1, 1):
        return image
    top, bottom = _rows(image.height, part)
    return image.crop((0, top, image.width, bottom))
