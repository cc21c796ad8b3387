"""Image files to pixels: the one rule for photos, and the steps that readers of datasets share with it.

Whatever a file does to its decoder ends in one message that names the file.
"""

from __future__ import annotations

import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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

SIXTEEN_BITS = (0, 65535)
# What cameras of 8, 10, 12 and 14 bits write at most.
_CAMERA_MAXIMA = (255, 1023, 4095, 16383)
# Tags of TIFF: the kind of picture (1: a small one of another), and what every DNG has.
_SUBFILE, _DNG = 254, 50706


@dataclass(frozen=True)
class Photo:
    """A photo that was read.

    Attributes:
        pixels: uint8 RGB, (H, W, 3), the way it was held.
        faint: the lowest and the highest value of a file of 16 bits whose values lie in the lowest
            quarter of them, though nobody said their range; None of every other file.
    """

    pixels: Pixels
    faint: tuple[int, int] | None = None


def read_image(path: str | Path, value_range: tuple[int, int] | None = None) -> Pixels:
    """Read a photo as RGB, turned as its camera says.

    An alpha channel is dropped, not blended; of several frames the first is read. Greyscale of 16 bits
    is scaled so that 65535 becomes 255; cameras of 10 and 12 bits leave the upper bits empty, which
    gives a dark photo and a warning that says the values found: say their range then.

    Args:
        path: of one of `FORMATS`; HEIC where pillow-heif is installed.
        value_range: which values of 16-bit greyscale become black and white, such as (0, 1023); what
            lies outside is cut off. Files of 8 bits do not have it applied. None: 0 to 65535.

    Returns:
        uint8, (H, W, 3): what a detector takes.

    Raises:
        ClipadError: no file, another format, damaged data or EXIF, too many pixels, far too long for
            its height, or pixels without a defined range (floating point).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (3, 2), 7).save(Path(folder, "photo.png"))
    ...     read_image(Path(folder, "photo.png")).shape
    (2, 3, 3)
    """
    photo = read_photo(Path(path), value_range)
    if photo.faint is not None:
        advice = f"value_range={likely_range(photo.faint[1])}"
        warnings.warn(f"{path}: {faint_text(photo.faint)}; {advice} scales them.", stacklevel=2)
    return photo.pixels


def faint_text(values: tuple[int, int]) -> str:
    """What is to be said of values that lie in the lowest quarter of 16 bits."""
    return (
        f"found values from {values[0]} to {values[1]} in 16 bits, which are read as a dark photo"
    )


def likely_range(highest: int) -> tuple[int, int]:
    """The range of the camera that a highest value speaks for.

    >>> likely_range(987)
    (0, 1023)
    """
    return 0, next(maximum for maximum in _CAMERA_MAXIMA if highest <= maximum)


def read_photo(path: Path, value_range: tuple[int, int] | None = None) -> Photo:
    """As `read_image`, which warns of what is returned here.

    Raises:
        ClipadError: as `read_image`.
    """
    low, high = value_range or SIXTEEN_BITS
    if not 0 <= low < high <= SIXTEEN_BITS[1]:
        raise ClipadError(
            f"value_range: found {low} to {high}, expected a lower and a higher value of 0 to 65535."
        )
    with _guarded(path), open_image(path, photo_formats()) as image:
        _check_shape(image, path)
        _refuse_preview(image, path)
        deep_colours = _has_deep_colours(image)
        if deep_colours and value_range not in (None, SIXTEEN_BITS):
            raise ClipadError(
                f"{path}: found colours of 16 bits, of which the upper 8 are read, expected 16-bit "
                "greyscale where a range is said; save it with 8 bits a channel."
            )
        load_pixels(image, path)
        _check_exif(image, path)
        pixels = np.asarray(to_rgb(ImageOps.exif_transpose(image), path, (low, high)))
        if value_range is not None or not (deep_colours or _is_wide(image)):
            return Photo(pixels)
        stored = pixels if deep_colours else np.asarray(image)
        lowest, highest = int(stored.min()), int(stored.max())
        if deep_colours and highest:
            lowest, highest = 256 * lowest, 256 * highest + 255
        return Photo(pixels, (lowest, highest) if 0 < highest <= _CAMERA_MAXIMA[-1] else None)


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


def to_rgb(
    image: Image.Image, path: Path, value_range: tuple[int, int] = SIXTEEN_BITS
) -> Image.Image:
    """Any decoded image as 8-bit RGB, before anything is resized.

    Args:
        value_range: of 16-bit greyscale, which values become 0 and 255.

    Raises:
        ClipadError: pixels without a defined 8-bit range (floating point, or whole numbers above 16
            bits).
    """
    if _is_wide(image):
        return Image.fromarray(_sixteen_to_eight(np.asarray(image), path, value_range)).convert(
            "RGB"
        )
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


def _has_deep_colours(image: Image.Image) -> bool:
    """Whether a file holds colours of 16 bits, of which Pillow gives the upper 8."""
    if _is_wide(image) or not isinstance(image, ImageFile.ImageFile):
        return False
    return any(";16" in str(tile[3]) for tile in image.tile)


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


def _sixteen_to_eight(
    pixels: npt.NDArray[np.generic], path: Path, value_range: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    values = pixels.astype(np.int64)
    if values.min() < 0 or values.max() > SIXTEEN_BITS[1]:
        raise ClipadError(
            f"{path}: found values from {values.min()} to {values.max()}, expected 0 to 65535 (16 "
            "bits); save the image with 8 or 16 bits."
        )
    low, high = value_range
    span = high - low
    return (((values.clip(low, high) - low) * 255 + span // 2) // span).astype(np.uint8)
