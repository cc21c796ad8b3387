"""Image files to pixels: the one rule for photos, and the steps that readers of datasets share with it.

Whatever a file does to its decoder ends in one message that names the file.
"""

from __future__ import annotations

import operator
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageFile, ImageOps

from clipad_core.errors import ClipadError

Pixels = UInt8[np.ndarray, "H W 3"]

# What is read, by Pillow's names, with the suffixes of such files. A file is told by its content,
# whatever its name; Pillow tries nothing else, so that no file starts another program (PostScript
# starts Ghostscript) or reaches a decoder that nobody uses. AVIF is last: Pillow has it since 11.3.
FORMATS: Mapping[str, tuple[str, ...]] = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "JPEG2000": (".jp2",),
    "PPM": (".ppm", ".pgm"),
    "AVIF": (".avif",),
}
# Read where pillow-heif is installed.
HEIF = "HEIF"
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# WinCLIP's tiles run along the longer edge; a panorama of this shape is 25 of them.
LONGEST_SIDE_RATIO = 20

_SIXTEEN_BITS = 65535
# Computed at once in wider numbers: about a million pixels, whatever the size of a photo.
_BAND = 2**20
# What cameras of 8, 10, 12 and 14 bits write at most.
_CAMERA_MAXIMA = (255, 1023, 4095, 16383)
# A camera marks single hot or dead pixels with the highest value there is: they say nothing of its range.
_OUTLIERS = 0.001
# Tags of TIFF: the kind of picture (1: a small one of another), what every DNG has, and what 0 means.
_SUBFILE, _DNG, _BITS, _PHOTOMETRIC = 254, 50706, 258, 262
# Of JPEG 2000: how its codestream begins, and where behind that the bits of the first channel stand.
_CODESTREAM, _PRECISION_AT = b"\xff\x4f\xff\x51", 38


class Depth(NamedTuple):
    """What stands for white.

    Attributes:
        white: in the file, as its header says: 65535 of 16 bits, 4095 of 12, the maximum of a PGM.
        decoded: in what Pillow gives of greyscale of more than 8 bits, which it may have scaled.
    """

    white: int
    decoded: int


_EIGHT, _SIXTEEN = Depth(255, 255), Depth(_SIXTEEN_BITS, _SIXTEEN_BITS)


class Faint(NamedTuple):
    """A file whose values lie in the lowest quarter of 16 bits, or of the range that somebody said.

    Attributes:
        lowest: of its values.
        highest: of its values, but for the outliers.
        outliers: pixels that lie far above all others, at most one in a thousand.
        is_grey: whether a range scales it: of several channels only the upper 8 bits are read.
        black, white: the range that it was read by; 16 bits where nobody said one.
    """

    lowest: int
    highest: int
    outliers: int
    is_grey: bool
    black: int = 0
    white: int = _SIXTEEN_BITS

    def text(self, option: str) -> str:
        """What is to be said of such a file.

        Args:
            option: how a range is said, with two places for its ends.

        >>> Faint(3, 987, 0, True).text("--range {} {}")
        'found values from 3 to 987 in 16 bits, which are read as a dark photo; --range 0 1023 scales them.'
        """
        plural = "s" if self.outliers > 1 else ""
        others = f" (but for {self.outliers} pixel{plural})" if self.outliers else ""
        is_said = (self.black, self.white) != (0, _SIXTEEN_BITS)
        read_by = f"under {option.format(self.black, self.white)}" if is_said else "in 16 bits"
        found = f"found values from {self.lowest} to {self.highest} {read_by}{others}, which are read as"
        if self.is_grey:
            return (
                f"{found} a dark photo; {option.format(*likely_range(self.highest))} scales them."
            )
        return (
            f"{found} a dark photo of few steps: of several channels only the upper 8 bits can be read here, "
            "and no range scales them; scale the values and save them with 8 bits a channel."
        )


@dataclass(frozen=True)
class Photo:
    """A photo that was read.

    Attributes:
        pixels: uint8 RGB, (H, W, 3), the way it was held.
        faint: what is to be said of values that are read as a dark photo; None of every other file.
    """

    pixels: Pixels
    faint: Faint | None = None


def read_image(path: str | Path, value_range: tuple[int, int] | None = None) -> Pixels:
    """Read a photo as RGB, turned as its camera says.

    An alpha channel is dropped, not blended; of several frames or pages the first is read. Greyscale of
    more than 8 bits is scaled so that what its header calls white becomes 255: 65535 of 16 bits, 4095
    of a TIFF or JPEG 2000 of 12, the maximum of a PGM. Cameras of 10 and 12 bits that write files of 16
    leave the upper bits empty, which gives a dark photo and a warning that says the values found: say
    their range then. Of colours of more than 8 bits the upper 8 are read.

    Args:
        path: of one of `FORMATS`; HEIC where pillow-heif is installed.
        value_range: which values of greyscale of more than 8 bits, as the file holds them, become black
            and white, such as (0, 1023); what lies outside is cut off. Files of 8 bits do not have it
            applied. None: 0 to what the header calls white.

    Returns:
        uint8, (H, W, 3): what a detector takes.

    Raises:
        ClipadError: no file, another format, damaged data or EXIF, too many pixels, far too long for
            its height, pixels without a defined range (floating point), or a range for colours.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (3, 2), 7).save(Path(folder, "photo.png"))
    ...     read_image(Path(folder, "photo.png")).shape
    (2, 3, 3)
    """
    photo = read_photo(Path(path), value_range)
    if photo.faint is not None:
        warnings.warn(f"{path}: {photo.faint.text('value_range=({}, {})')}", stacklevel=2)
    return photo.pixels


def likely_range(highest: int) -> tuple[int, int]:
    """The range of the camera that a highest value speaks for.

    >>> likely_range(987)
    (0, 1023)
    """
    return 0, next(maximum for maximum in _CAMERA_MAXIMA if highest <= maximum)


def check_range(value_range: Iterable[int], name: str = "value_range") -> tuple[int, int]:
    """Refuse what is no range of values.

    Args:
        value_range: which values become black and white: two whole numbers of any kind.
        name: what the message calls it.

    Returns:
        The two as plain numbers.

    Raises:
        ClipadError: not a lower and a higher value of 16 bits.

    >>> check_range([0, 1023])
    (0, 1023)
    """
    expected = f"expected a lower and a higher value of 0 to {_SIXTEEN_BITS}"
    try:
        low, high = map(operator.index, value_range)
    except (TypeError, ValueError) as error:
        raise ClipadError(f"{name}: found {value_range!r}, {expected}, both whole.") from error
    if not 0 <= low < high <= _SIXTEEN_BITS:
        raise ClipadError(f"{name}: found {low} to {high}, {expected}.")
    return low, high


def read_photo(path: Path, value_range: tuple[int, int] | None = None) -> Photo:
    """As `read_image`, which warns of what is returned here.

    Raises:
        ClipadError: as `read_image`.
    """
    if value_range is not None:
        value_range = check_range(value_range)
    with _guarded(path), open_image(path, photo_formats()) as image:
        _check_shape(image, path)
        _refuse_preview(image, path)
        depth, is_grey = stored_depth(image, path), _is_wide(image)
        has_channels = len(image.getbands()) > 1
        if value_range is not None and depth.white > _EIGHT.white and has_channels:
            raise ClipadError(
                f"{path}: found several channels of more than 8 bits, of which the upper 8 are read, "
                "expected greyscale where a range is said; save it with 8 bits a channel."
            )
        load_pixels(image, path)
        _check_exif(image, path)
        ImageOps.exif_transpose(image, in_place=True)  # a copy would be as large as the photo
        pixels = np.asarray(to_rgb(image, path, depth, value_range))
        if is_grey and (value_range is not None or depth.white == _SIXTEEN_BITS):
            values = _stored(np.arange(_SIXTEEN_BITS + 1), depth)
            return Photo(pixels, _faint(np.asarray(image), values, value_range))
        if has_channels and depth.white == _SIXTEEN_BITS:
            return Photo(pixels, _faint(pixels, 256 * np.arange(256), None))
        return Photo(pixels)


def _faint(
    pixels: npt.NDArray[np.integer],
    values: npt.NDArray[np.int64],
    value_range: tuple[int, int] | None,
) -> Faint | None:
    """Whether the values of a file are those of fewer bits than their range has, but for outliers.

    Args:
        pixels: as they were decoded.
        values: what each of them stands for in the file: of colours the upper 8 bits.
        value_range: that somebody said.
    """
    is_grey = pixels.ndim == 2
    black, white = value_range or (0, _SIXTEEN_BITS)
    counts = np.zeros(values.size, np.int64)
    for band in _bands(pixels):
        counts += np.bincount(pixels[band].ravel(), minlength=values.size)
    is_dark = values <= min(black + (white - black) // 4, _CAMERA_MAXIMA[-1])
    outliers, dark = int(counts[~is_dark].sum()), values[is_dark & (counts > 0)]
    if outliers > _OUTLIERS * pixels.size or not dark.any():
        return None
    lowest, highest = int(dark.min()), int(dark.max()) + (0 if is_grey else 255)
    if likely_range(highest)[1] >= white:
        return None
    return Faint(lowest, highest, outliers, is_grey, black, white)


def _bands(pixels: npt.NDArray[np.generic]) -> Iterator[slice]:
    """The rows of an image, some at a time."""
    height, rows = len(pixels), max(1, _BAND // pixels[0].size)
    return (slice(start, start + rows) for start in range(0, height, rows))


@cache
def photo_formats() -> tuple[str, ...]:
    """The formats of photos that can be read here, by Pillow's names."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return tuple(FORMATS)
    register_heif_opener()
    return *FORMATS, HEIF


def is_image(path: Path) -> bool:
    """Whether a file begins as one of the formats of photos do, whatever its name."""
    try:
        with _guarded(path), open_image(path, photo_formats()):
            return True
    except ClipadError:
        return False


@contextmanager
def open_image(path: Path, formats: Iterable[str] = FORMATS) -> Iterator[Image.Image]:
    """Open a file, its pixels not decoded yet.

    Pillow gets an open file and no name: what it opens itself it may map into memory, and a raw TIFF
    file that is to be turned by a quarter it maps with exchanged sides (13.0).

    Args:
        path: of a regular file.
        formats: the only ones that are tried, by Pillow's names.

    Raises:
        ClipadError: no file, an empty one, another format, or more pixels than Pillow takes.
    """
    with ExitStack() as stack:
        try:
            image = stack.enter_context(_opened(path, stack, tuple(formats)))
        except (ClipadError, Warning):  # callers may have made Pillow's warnings errors
            raise
        except FileNotFoundError as error:
            raise ClipadError(f"{path}: found no file, expected an image; get it again.") from error
        except Image.DecompressionBombError as error:
            raise ClipadError(
                f"{path}: found more pixels than an image may have (scale it down), expected an image; "
                "get it again."
            ) from error
        except Exception as error:  # a damaged header makes a decoder raise anything
            raise ClipadError(f"{path}: {_unreadable(path, formats)}") from error
        yield image


def _opened(path: Path, stack: ExitStack, formats: tuple[str, ...]) -> Image.Image:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, for ever
        raise ClipadError(f"{path}: found no regular file, expected an image; correct it.")
    if status.st_size == 0:
        raise ClipadError(f"{path}: found an empty file, expected an image; get it again.")
    return Image.open(stack.enter_context(path.open("rb")), formats=formats)


def load_pixels(image: Image.Image, path: Path) -> None:
    """Decode the pixels of an opened image.

    Raises:
        ClipadError: damaged or truncated data, or such as Pillow decodes wrongly.
    """
    _refuse_two_colour_bmp(image, path)
    try:
        image.load()
    except Exception as error:  # a damaged file makes a decoder raise anything
        raise ClipadError(
            f"{path}: found a damaged or truncated image ({error}), expected a whole one; get it "
            "again."
        ) from error


def stored_depth(image: Image.Image, path: Path) -> Depth:
    """What stands for white in an opened file whose pixels are not decoded yet.

    Pillow gives a PGM scaled to 16 bits, JPEG 2000 shifted to them, and TIFF as it is stored.

    Raises:
        ClipadError: deep greyscale in which 0 is white, which Pillow gives as a negative.
    """
    if not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return _SIXTEEN if _is_wide(image) else _EIGHT
    arguments = image.tile[0][3]
    if image.format == "PPM" and image.tile[0][0] != "raw" and isinstance(arguments, tuple):
        return Depth(int(arguments[-1]), _SIXTEEN_BITS)
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        if _is_wide(image) and tags.get(_PHOTOMETRIC) == 0:
            raise ClipadError(
                f"{path}: found a TIFF of more than 8 bits in which 0 is white, which Pillow reads as a "
                "negative, expected one in which 0 is black; save it so."
            )
        white = 2 ** int(tags.get(_BITS, (1,))[0]) - 1
        return Depth(min(white, _SIXTEEN_BITS), min(white, _SIXTEEN_BITS))
    if image.format == "JPEG2000":
        precision = path.read_bytes().partition(_CODESTREAM)[2][_PRECISION_AT:][:1]
        if not precision:  # damaged, as whoever decodes it will say
            return _EIGHT
        bits = (precision[0] & 0x7F) + 1
        white = 2 ** min(bits, 16) - 1
        return Depth(white, white << max(16 - bits, 0))
    return _SIXTEEN if _is_wide(image) or ";16" in str(arguments) else _EIGHT


def to_rgb(
    image: Image.Image, path: Path, depth: Depth, value_range: tuple[int, int] | None = None
) -> Image.Image:
    """Any decoded image as 8-bit RGB, before anything is resized.

    Args:
        depth: see `stored_depth`.
        value_range: of greyscale of more than 8 bits, which values of the file become 0 and 255; None:
            0 and what its header calls white.

    Raises:
        ClipadError: pixels without a defined 8-bit range (floating point, or whole numbers above 16
            bits).
    """
    if _is_wide(image):
        pixels = _wide_to_eight(np.asarray(image), path, depth, value_range or (0, depth.white))
        return Image.fromarray(pixels).convert("RGB")
    if image.mode == "F":
        raise ClipadError(
            f"{path}: found floating-point pixels, expected 8 or 16 bits a channel; save the "
            "image as 8-bit PNG with a range that suits it."
        )
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ClipadError(
            f"{path}: found colour mode {image.mode}, expected one that converts to RGB; save "
            "the image as RGB PNG."
        ) from error


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """Everything that reads a photo happens in here; other warnings of Pillow say nothing of use."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except ClipadError:
        raise
    except Image.DecompressionBombWarning as error:
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise ClipadError(
            f"{path}: found more than {limit} million pixels, expected fewer; scale it down."
        ) from error
    except Exception as error:  # the EXIF data of a photo make Pillow raise anything as well
        raise ClipadError(
            f"{path}: found data that cannot be read ({error or type(error).__name__}), expected a whole "
            "photo and whole EXIF data; save it anew."
        ) from error


def _check_shape(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if max(height, width) > LONGEST_SIDE_RATIO * min(height, width):
        raise ClipadError(
            f"{path}: found {width} x {height} pixels, expected one side at most "
            f"{LONGEST_SIDE_RATIO} times the other; cut it into parts."
        )


def _check_exif(image: Image.Image, path: Path) -> None:
    """Pillow forgets damage that it met when it opened the file, and then turns nothing."""
    if not image.info.get("exif"):
        return
    exif = Image.Exif()
    with warnings.catch_warnings(record=True) as damage:
        warnings.simplefilter("always")
        exif.load(image.info["exif"])
    if damage and ExifTags.Base.Orientation not in exif:
        raise ClipadError(
            f"{path}: found damaged EXIF data that do not say how the photo was held, expected whole ones; "
            "turn the photo upright and save it anew."
        )


def _refuse_preview(image: Image.Image, path: Path) -> None:
    """Raw files of cameras look like TIFF, and what Pillow reads of them is a small preview."""
    if image.format != "TIFF":
        return
    tags = getattr(image, "tag_v2", {})
    unknown_name = path.suffix.lower() not in ("", *Image.registered_extensions())
    if unknown_name or _DNG in tags or int(tags.get(_SUBFILE, 0)) & 1:
        raise ClipadError(
            f"{path}: found TIFF data as cameras write raw files, of which only a preview could be "
            "read, expected a developed photo; export it as JPEG or TIFF."
        )


def _unreadable(path: Path, formats: Iterable[str]) -> str:
    """Why Pillow did not open a file."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        return f"cannot be read ({error.strerror or error}), expected an image; correct it."
    if head[4:8] == b"ftyp" and head[8:] in _HEIF_BRANDS and HEIF not in photo_formats():
        return (
            "found a HEIC photo, which needs one more package, expected an image that is read here; "
            "install pillow-heif, or save the photo as JPEG."
        )
    return f"found no readable image, expected an image ({', '.join(formats)}); get it again."


def _is_wide(image: Image.Image) -> bool:
    return image.mode == "I" or image.mode.startswith("I;16")


def _refuse_two_colour_bmp(image: Image.Image, path: Path) -> None:
    """Pillow (13.0) unpacks 8-bit BMP pixels of a black-and-white palette as single bits."""
    if image.format != "BMP" or image.mode != "1":
        return
    with path.open("rb") as file:
        bits = int.from_bytes(file.read(30)[28:30], "little")
    if bits == 8:
        raise ClipadError(
            f"{path}: found an 8-bit BMP with a palette of two colours, which Pillow decodes "
            "wrongly, expected 1 bit or a palette of 256; save the file as PNG."
        )


def _wide_to_eight(
    pixels: npt.NDArray[np.integer], path: Path, depth: Depth, value_range: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    lowest, highest = pixels.min(), pixels.max()
    if lowest < 0 or highest > _SIXTEEN_BITS:
        raise ClipadError(
            f"{path}: found values from {lowest} to {highest}, expected 0 to "
            f"{_SIXTEEN_BITS} (16 bits); save the image with 8 or 16 bits."
        )
    low, high = value_range
    span = high - low
    values = _stored(np.arange(_SIXTEEN_BITS + 1), depth).clip(low, high)
    eight = (((values - low) * 255 + span // 2) // span).astype(np.uint8)
    scaled = np.empty(pixels.shape, np.uint8)
    for band in _bands(pixels):
        scaled[band] = eight[pixels[band]]
    return scaled


def _stored(decoded: npt.NDArray[np.int64], depth: Depth) -> npt.NDArray[np.int64]:
    """What decoded values are in the file."""
    return (decoded * depth.white + depth.decoded // 2) // depth.decoded
