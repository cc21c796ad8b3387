"""Images and masks from disk, in one form each, or one message that names the file.

Every image becomes 8-bit RGB *before* anything is resized. The published implementations resize
first and convert then, which is the same for RGB and greyscale files and wrong for palette files
(Pillow resizes palette indices without interpolation). Further choices, as in Pillow's
``Image.open(path).convert("RGB")`` that anomalib, Accurate-WinCLIP-pytorch and AnomalyCLIP call:
an alpha channel is dropped, not blended, and an EXIF orientation is ignored, because the masks of
the datasets were drawn on the pixels as stored. That holds for images and masks of every format;
only photos of a user's own, which have no mask, are turned (``upright=True``).

A path may name a part of a file: ``Part0.jpg@1of2`` is the upper half of ``Part0.jpg``, as
KolektorSDD is cut; `part_of` makes such a path, and every function here reads it. A mask may be a
folder, as in MVTec LOCO AD: a pixel is anomalous where it is in any of the folder's files.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from clipad_core.clip.image_file import FORMATS, load_pixels, open_image, stored_depth, to_rgb
from clipad_core.errors import ClipadError
from clipad_harness.base.files import check_regular
from clipad_harness.data.litter import is_litter

Mask = npt.NDArray[np.bool_]
MaskRule = Literal["nearest", "bilinear_half"]
MASK_RULES: tuple[MaskRule, ...] = get_args(MaskRule)
# Of the names of images, in small letters.
SUFFIXES = {suffix for suffixes in FORMATS.values() for suffix in suffixes}


class CountingRule(NamedTuple):
    """Which pixels of a mask's file are anomalous.

    Attributes:
        name: what messages and docs/data.md call it.
        above: a pixel counts where the brightest of its channels is above this.
        words: the rule and where it comes from.
    """

    name: str
    above: int
    words: str


ABOVE_ZERO = CountingRule(
    "above_zero",
    0,
    "every value above 0 counts (rule above_zero, that of AnomalyCLIP, VCP-CLIP, APRIL-GAN and "
    "anomalib)",
)
HALF_BRIGHTNESS = CountingRule(
    "half_brightness",
    127,
    "of a JPEG mask a pixel counts from half brightness (rule half_brightness, our own)",
)


class MaskFile(NamedTuple):
    """What the file of a mask holds, before it is cut to two values.

    Attributes:
        values: (H, W), the brightest channel of every pixel; of a palette its index.
        rule: which values count.
        white: the value of full white in a file of this kind; in a palette, whose values are names,
            the largest.
        orientation: the file's own EXIF orientation, 1 to 8.
        opaque: (H, W), True where alpha is above its lowest value; None where it is the same all over.
    """

    values: npt.NDArray[Any]
    rule: CountingRule
    white: int
    orientation: int
    opaque: Mask | None = None

    @property
    def marked(self) -> Mask:
        """(H, W), True where a pixel is anomalous."""
        return self.values > self.rule.above


# Full white by the kind of a file's numbers; whole numbers of 32 bits are how Pillow gives some files
# of 16.
_WHITE = {"bool": 1, "uint8": 255, "uint16": 65535, "int32": 65535, "float32": 1}

# How an EXIF orientation says to turn the stored pixels; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The orientation whose turn takes another one's back.
_OPPOSITE = {6: 8, 8: 6}

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

    Of a folder of masks that of the names and hashes of its files.

    Raises:
        ClipadError: no regular file, one that is not there or cannot be read.
    """
    if path.is_dir():
        lines = [f"{file_hash(file)} {file.name}\n" for file in _mask_files(path)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    path, part = _split(path)
    check_regular(path)
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
    with open_image(file) as image:
        height, width = image.height, image.width
        if isinstance(image, TiffImageFile):  # Pillow exchanges the sides where it will turn it
            height, width = image.tag_v2[IMAGELENGTH], image.tag_v2[IMAGEWIDTH]
        top, bottom = _rows(height, part)
        return bottom - top, width


def read_image(path: Path) -> Image.Image:
    """Read any image as 8-bit RGB; the module's text states the choices.

    16-bit greyscale is divided by 257, so that 65535 becomes 255, and greyscale of 12 bits likewise by
    what its header calls white: no clipping, and no stretching that would make brightness depend on the
    image. Of a file with several frames the first is read.

    Args:
        path: a file of one of the formats of `image_file.FORMATS`, or a part of one.

    Raises:
        ClipadError: an empty, truncated or foreign file, or pixels without a defined 8-bit range
            (floating point, or whole numbers above 16 bits).
    """
    return read_oriented(path)[0]


def read_oriented(path: Path) -> tuple[Image.Image, int]:
    """An image as `read_image` gives it, as stored, and its EXIF orientation, 1 (upright) to 8.

    Raises:
        ClipadError: as `read_image` does.
    """
    path, part = _split(path)
    with open_image(path) as opened:
        depth = stored_depth(opened, path)
        image, orientation = _stored(opened, path)
        return to_rgb(_cut(image, part), path, depth), orientation


def read_mask(path: Path, size: tuple[int, int]) -> Mask:
    """Read a ground-truth mask: True where a pixel is anomalous; `read_mask_file` says which are.

    Args:
        path: the mask.
        size: height and width of its image.

    Returns:
        Shape ``size``.

    Raises:
        ClipadError: another size than the image's, or as `read_mask_file` does.
    """
    marked = read_mask_file(path).marked
    if marked.shape != tuple(size):
        raise ClipadError(
            f"{path}: found a mask of {marked.shape[0]} x {marked.shape[1]} pixels (height x "
            f"width), expected its image's {size[0]} x {size[1]}; correct the pairing or the mask."
        )
    return marked


def read_mask_file(path: Path) -> MaskFile:
    """Read the values of a ground-truth mask and the rule that says which of them count.

    Any mode will do (0/1, 0/255, palette, 16-bit, colour); an alpha channel is ignored. A palette
    file counts by its index, as numpy sees it; one whose colours say something else is refused.
    Every value above 0 counts, as in the published codes (`ABOVE_ZERO`). Of a JPEG file, whose
    compression leaves grey around every edge, a pixel counts from half brightness
    (`HALF_BRIGHTNESS`; AnomalyCLIP counts the grey as well). Of a folder every pixel has the largest
    value that counts in one of its files.

    Raises:
        ClipadError: an unreadable file, an ambiguous palette, a picture in the alpha channel beside
            colours that mark all or nothing, or a JPEG file that is dark all over; a folder without
            images, or with images of different sizes.
    """
    if path.is_dir():
        return _union(path)
    path, part = _split(path)
    with open_image(path) as opened:
        # A JPEG file with several frames, as some cameras write it, is an MPO to Pillow.
        rule = HALF_BRIGHTNESS if opened.format in ("JPEG", "MPO") else ABOVE_ZERO
        image, orientation = _stored(opened, path)
        image, opaque = _cut(image, part), None
        if image.mode in ("RGBA", "LA", "PA"):
            alpha = np.asarray(image.getchannel("A"))
            opaque = alpha > alpha.min() if alpha.min() < alpha.max() else None
        if image.mode in ("RGBA", "LA", "PA", "CMYK", "YCbCr"):
            image = image.convert("RGB")
        pixels = np.asarray(image)
    values = pixels.reshape(*pixels.shape[:2], -1).max(axis=-1)
    white = int(values.max()) if image.mode == "P" else _WHITE[pixels.dtype.name]
    mask = MaskFile(values, rule, white, orientation, opaque)
    marked = mask.marked
    if rule is HALF_BRIGHTNESS and not marked.any() and part == (1, 1) and pixels.max() > 0:
        raise ClipadError(
            f"{path}: found a JPEG mask that is nowhere brighter than {pixels.max()}, expected "
            "white for anomalous pixels; save the mask as PNG with 0 and 255."
        )
    if opaque is not None and (marked.all() or not marked.any()):
        raise ClipadError(
            f"{path}: found a mask whose alpha channel alone differs from pixel to pixel, and alpha "
            "is not read, expected 0 for normal pixels in its colours; save the alpha channel as a "
            "greyscale PNG."
        )
    if image.mode == "P":
        coloured = (np.asarray(image.convert("RGB")) != 0).any(axis=-1)
        if not np.array_equal(marked, coloured) and coloured.any():
            raise ClipadError(
                f"{path}: the palette's index 0 is not its only black colour, expected 0 = "
                "normal and black; save the mask as greyscale with 0 for normal pixels."
            )
    return mask


def _union(folder: Path) -> MaskFile:
    """The masks of a folder as one."""
    masks = [read_mask_file(file) for file in _mask_files(folder)]
    if len({mask.values.shape for mask in masks}) != 1:
        found = "masks of different sizes" if masks else "no images"
        raise ClipadError(f"{folder}: found {found}, expected the masks of one image; correct it.")
    values = np.maximum.reduce([np.where(mask.marked, mask.values, 0) for mask in masks])
    white = max(mask.white for mask in masks)
    return MaskFile(values, ABOVE_ZERO, white, masks[0].orientation)


def _mask_files(folder: Path) -> list[Path]:
    """The images of a folder by their names, sorted by code point."""
    paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    return sorted((path for path in paths if not is_litter(path.name)), key=lambda path: path.name)


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


def _stored(image: Image.Image, path: Path) -> tuple[Image.Image, int]:
    """The pixels as they are stored, and the EXIF orientation that says how to turn them.

    Pillow leaves that to others, but for TIFF files, which it turns while it decodes them.
    """
    tiff_orientation = _orientation(image) if isinstance(image, TiffImageFile) else 1
    load_pixels(image, path)
    if tiff_orientation == 1:
        return image, _orientation(image)
    return _turned(image, _OPPOSITE.get(tiff_orientation, tiff_orientation)), tiff_orientation


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1, upright, where there is none or the header is damaged."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged bytes raise whatever they lead a decoder to
        return 1
    return orientation if isinstance(orientation, int) and orientation in _TURNS else 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image
