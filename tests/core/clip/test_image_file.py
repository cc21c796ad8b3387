"""One rule for photos: every format and orientation, the range of 16 bits, and damage by name."""

import os
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from deep_files import jpeg2000, pgm, tiff
from PIL import Image

from clipad_core import ClipadError, read_image
from clipad_core.clip import image_file
from clipad_core.clip.image_file import Faint, is_image, read_photo

LEFT, RIGHT = (250, 10, 10), (10, 10, 250)
FORMATS = {
    "photo.avif": "AVIF",
    "photo.bmp": "BMP",
    "photo.gif": "GIF",
    "photo.jfif": "JPEG",
    "photo.jp2": "JPEG2000",
    "photo.png": "PNG",
    "photo.ppm": "PPM",
    "photo.tif": "TIFF",
    "photo.webp": "WEBP",
    "no suffix": "JPEG",
    "a tiff.jpg": "TIFF",
}


def two_halves() -> Image.Image:
    image = Image.new("RGB", (32, 16), RIGHT)
    image.paste(LEFT, (0, 0, 16, 16))
    return image


def grey_of_16_bits(path: Path, highest: int) -> Path:
    values = np.linspace(0, highest, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(values).save(path)
    return path


def chunk(kind: bytes, data: bytes) -> bytes:
    """A piece of a PNG."""
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def bare_png(path: Path, width: int, height: int) -> Path:
    """A PNG whose header promises pixels that are not there."""

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
    return path


def jpeg_with_exif(path: Path, orientation: int = 6, dpi=None) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    two_halves().save(path, format="JPEG", exif=exif, quality=95, **({"dpi": dpi} if dpi else {}))
    return path.read_bytes()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_of_photos_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    two_halves().save(tmp_path / name, format=FORMATS[name])
    pixels = read_image(str(tmp_path / name))
    assert pixels.shape == (16, 32, 3) and pixels.dtype == np.uint8
    assert abs(pixels[8, 4].astype(int) - LEFT).max() < 12
    assert abs(pixels[8, 28].astype(int) - RIGHT).max() < 12
    assert is_image(tmp_path / name)


def test_a_heic_photo_is_read_where_its_package_is(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    two_halves().save(tmp_path / "photo.heic")
    assert read_image(tmp_path / "photo.heic").shape == (16, 32, 3)


def test_without_its_package_a_heic_photo_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(image_file, "photo_formats", lambda: tuple(image_file.FORMATS))
    (tmp_path / "photo.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    with pytest.raises(ClipadError, match="needs one more package.*pillow-heif"):
        read_image(tmp_path / "photo.HEIC")


def test_a_format_that_starts_another_program_is_not_opened(tmp_path: Path) -> None:
    two_halves().save(tmp_path / "photo.png", format="EPS")
    with pytest.raises(ClipadError, match="found no readable image"):
        read_image(tmp_path / "photo.png")
    assert not is_image(tmp_path / "photo.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "16.png"])
def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path, suffix, orientation) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    # What the camera stored, so that the scene has its bright corner above on the left.
    scene = np.zeros((20, 30), np.uint8)
    scene[:10, :10] = 255
    undo = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    stored = Image.fromarray(scene)
    if undo != 1:
        stored = stored.transpose(Image.Transpose(turn[undo]))
    if suffix == "16.png":
        stored = Image.fromarray(np.asarray(stored).astype(np.uint16) * 257)
    else:
        stored = stored.convert("RGB")
    stored.save(tmp_path / f"photo.{suffix}", exif=exif)
    pixels = read_image(tmp_path / f"photo.{suffix}")
    assert pixels.shape == (20, 30, 3)
    assert pixels[:8, :8].min() > 200 and pixels[12:].max() < 60 and pixels[:, 12:].max() < 60


@pytest.mark.parametrize("highest", [255, 1000, 4095, 16000])
def test_values_of_a_camera_in_16_bits_are_told_and_scaled_on_demand(tmp_path, highest) -> None:
    path = grey_of_16_bits(tmp_path / "photo.png", highest)
    with pytest.warns(UserWarning, match=f"from 0 to {highest} in 16 bits.*value_range=") as found:
        dark = read_image(path)
    assert dark.max() <= 63 and len(found) == 1
    assert read_photo(path).faint == Faint(0, highest, 0, is_grey=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bright = read_image(path, value_range=(0, highest))
    assert bright.min() == 0 and bright.max() == 255 and 120 < bright.mean() < 136


def test_a_range_cuts_off_what_lies_outside_and_leaves_8_bits_alone(tmp_path: Path) -> None:
    Image.fromarray(np.array([[90, 100, 150, 200, 300]], np.uint16)).save(tmp_path / "16.png")
    row = read_image(tmp_path / "16.png", (100, 200))[0, :, 0]
    assert row.tolist() == [0, 0, 128, 255, 255]
    two_halves().save(tmp_path / "8.png")
    assert np.array_equal(read_image(tmp_path / "8.png", (100, 200)), np.asarray(two_halves()))


def test_the_whole_range_of_16_bits_and_a_black_photo_are_read_without_a_word(tmp_path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        full = read_image(grey_of_16_bits(tmp_path / "full.png", 65535))
        black = read_image(grey_of_16_bits(tmp_path / "black.png", 0))
    assert full.max() == 255 and full.min() == 0 and black.max() == 0


def colours_of_16_bits(path: Path, value: int) -> Path:
    """A PNG of 16 bits a channel, which Pillow does not write."""
    lines = (b"\0" + struct.pack(">H", value) * 3 * 4) * 4
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    end = chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end)
    return path


def test_colours_of_16_bits_with_the_values_of_10_are_told(tmp_path: Path) -> None:
    path = colours_of_16_bits(tmp_path / "photo.png", 1000)
    with pytest.warns(
        UserWarning, match="from 768 to 1023 in 16 bits.*no range scales them"
    ) as told:
        assert read_image(path).max() == 3
    assert "value_range" not in str(told[0].message)
    with pytest.raises(ClipadError, match="of which the upper 8 are read"):
        read_image(path, (0, 1023))


TWELVE_BITS = np.array([[0, 1000, 1500, 2000], [2048, 3000, 4000, 4095]])
DEEP_GREYS = {
    "binary.pgm": lambda path: pgm(path, TWELVE_BITS, 4095),
    "text.pgm": lambda path: pgm(path, TWELVE_BITS, 4095, plain=True),
    "12.tif": lambda path: tiff(path, TWELVE_BITS, 12),
    "12.jp2": lambda path: jpeg2000(path, TWELVE_BITS, 12),
}


@pytest.mark.parametrize("name", DEEP_GREYS)
def test_a_range_is_of_the_values_of_the_file_and_the_header_says_white(tmp_path, name) -> None:
    path = DEEP_GREYS[name](tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = read_image(path)[..., 0]
    assert np.array_equal(whole, np.round(TWELVE_BITS * 255 / 4095))
    assert np.array_equal(read_image(path, (0, 4095))[..., 0], whole)
    scaled = (TWELVE_BITS.clip(1000, 2000) - 1000) * 255 / 1000
    assert np.array_equal(read_image(path, (1000, 2000))[..., 0], np.floor(scaled + 0.5))


@pytest.mark.parametrize("name", ["12.ppm", "12.jp2"])
def test_colours_of_12_bits_are_read_by_what_the_header_says_and_have_no_range(
    tmp_path, name
) -> None:
    values = np.full((4, 4, 3), 2050)
    if name == "12.ppm":
        pgm(tmp_path / name, values, 4095)
    else:
        jpeg2000(tmp_path / name, values, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert abs(read_image(tmp_path / name).astype(int) - 128).max() <= 1
    with pytest.raises(ClipadError, match=f"{name}: found several channels of more than 8 bits"):
        read_image(tmp_path / name, (0, 4095))


def test_a_ppm_of_16_bits_with_the_values_of_10_is_told(tmp_path: Path) -> None:
    path = pgm(tmp_path / "photo.ppm", np.full((4, 4, 3), 1000), 65535)
    assert read_photo(path).faint == Faint(1024, 1279, 0, is_grey=False)


def test_single_hot_pixels_do_not_hide_the_values_of_a_camera(tmp_path: Path) -> None:
    values = np.full((50, 50), 900, np.uint16)
    values[0, :2] = 65535
    Image.fromarray(values).save(tmp_path / "hot.png")
    with pytest.warns(UserWarning, match=r"to 900 in 16 bits \(but for 2 pixels\).*\(0, 1023\)"):
        read_image(tmp_path / "hot.png")
    values[0, :3] = 65535
    Image.fromarray(values).save(tmp_path / "bright.png")
    assert read_photo(tmp_path / "bright.png").faint is None


def test_a_deep_tiff_in_which_0_is_white_is_not_read_as_a_negative(tmp_path: Path) -> None:
    path = tiff(tmp_path / "negative.tif", TWELVE_BITS, 16, photometric=0)
    with pytest.raises(ClipadError, match="negative.tif: found a TIFF .* in which 0 is white"):
        read_image(path)


def palette_with_transparency() -> Image.Image:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 30, 30])
    image.info["transparency"] = 1
    return image


FRAMES = {"save_all": True, "append_images": [Image.new("RGB", (8, 8), (30, 30, 200))]}
RED = Image.new("RGB", (8, 8), (200, 30, 30))
MODES = {
    "ink.jpg": (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), {}, (255, 0, 0)),
    "ink.tif": (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), {}, (255, 0, 0)),
    "alpha.png": (Image.new("LA", (8, 8), (77, 0)), {}, (77, 77, 77)),
    "palette.png": (palette_with_transparency(), {}, (200, 30, 30)),
    "bits.tif": (Image.new("1", (8, 8), 1), {}, (255, 255, 255)),
    "frames.gif": (RED, FRAMES, (200, 30, 30)),
    "frames.webp": (RED, FRAMES | {"lossless": True}, (200, 30, 30)),
    "frames.png": (RED, FRAMES, (200, 30, 30)),
    "default.png": (RED, FRAMES | {"default_image": True}, (200, 30, 30)),
    "pages.tif": (RED, FRAMES, (200, 30, 30)),
}


@pytest.mark.parametrize("name", MODES)
def test_colour_modes_frames_and_pages_follow_one_rule(tmp_path: Path, name: str) -> None:
    image, options, colour = MODES[name]
    image.save(tmp_path / name, **options)
    pixels = read_image(tmp_path / name)
    assert pixels.shape == (8, 8, 3) and abs(pixels.astype(int) - colour).max() <= 1


@pytest.mark.parametrize(
    "suffix", ["jpg", "png", "tif", "webp", "gif", "jp2", "avif", "bmp", "ppm"]
)
def test_a_truncated_file_of_any_format_is_one_message(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    Image.effect_noise((64, 64), 80).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ClipadError, match=f"photo.{suffix}: found") as told:
        read_image(path)
    assert str(told.value).count(str(path)) == 1 and "\n" not in str(told.value)


@pytest.mark.parametrize("value_range", [(5, 5), (-1, 10), (0, 65536), (10, 2)])
def test_a_range_that_is_none_is_refused(tmp_path: Path, value_range) -> None:
    path = grey_of_16_bits(tmp_path / "photo.png", 1000)
    with pytest.raises(ClipadError, match="expected a lower and a higher value of 0 to 65535"):
        read_image(path, value_range)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    "value_range", [(0,), (0, 4095, 5), (), "04", "ab", (0, 4095.0), (None, 9), 4095, {}, b"\x00"]
)
def test_what_is_no_pair_of_whole_numbers_is_no_range(tmp_path: Path, value_range) -> None:
    path = grey_of_16_bits(tmp_path / "photo.png", 1000)
    with pytest.raises(ClipadError, match="^value_range: found .*expected a lower and a higher"):
        read_image(path, value_range)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("kind", [np.array, list, np.uint16])
def test_a_range_of_any_whole_numbers_is_one(tmp_path: Path, kind) -> None:
    path = grey_of_16_bits(tmp_path / "photo.png", 1000)
    value_range = kind([0, 1000])
    assert np.array_equal(read_image(path, value_range), read_image(path, (0, 1000)))


@pytest.mark.parametrize(
    ("highest", "said", "expected"),
    [
        (1000, (0, 4095), Faint(0, 1000, 0, True, 0, 4095)),
        (1000, (0, 65535), Faint(0, 1000, 0, True)),
        (200, (512, 1023), Faint(0, 200, 0, True, 512, 1023)),
        (1000, (0, 1023), None),
        (4000, (0, 4095), None),
        (60000, (60000, 65535), None),
        (0, (0, 1023), None),
    ],
)
def test_a_file_that_stays_dark_under_a_range_is_told(tmp_path, highest, said, expected) -> None:
    path = grey_of_16_bits(tmp_path / "photo.png", highest)
    assert read_photo(path, said).faint == expected
    if expected == Faint(0, 1000, 0, True, 0, 4095):
        with pytest.warns(
            UserWarning,
            match=r"under value_range=\(0, 4095\), which.*value_range=\(0, 1023\) scales",
        ):
            read_image(path, said)


def test_a_file_whose_header_says_white_is_compared_with_a_range_by_its_own_values(tmp_path):
    path = pgm(tmp_path / "photo.pgm", np.array([[5, 900], [600, 1000]]), 4095)
    assert read_photo(path, (0, 4095)).faint == Faint(5, 1000, 0, True, 0, 4095)
    assert read_photo(path, (0, 1023)).faint is None


@pytest.mark.parametrize("value_range", [None, (0, 1023)])
def test_memory_of_a_deep_photo_is_a_few_times_its_pixels(tmp_path: Path, value_range) -> None:
    side = 2048
    Image.fromarray(np.full((side, side), 900, np.uint16)).save(tmp_path / "large.png")
    tracemalloc.start()
    try:
        read_photo(tmp_path / "large.png", value_range)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Of arrays, beside Pillow's own images: RGB twice while it is copied, and bands in wider numbers.
    assert peak < 2 * 3 * side**2 + 32 * image_file._BAND


@pytest.mark.parametrize("dpi", [None, (72, 72)])
@pytest.mark.parametrize("place", range(12))
def test_a_changed_byte_of_the_exif_header_never_gives_a_photo_on_its_side(tmp_path, dpi, place):
    path = tmp_path / "photo.jpg"
    whole = jpeg_with_exif(path, dpi=dpi)
    start = whole.index(b"Exif\0\0") + 6
    path.write_bytes(whole[: start + place] + b"\xff" + whole[start + place + 1 :])
    try:
        assert read_image(path).shape == (32, 16, 3) or place > 8  # the tag, its name or its type
    except ClipadError as error:
        assert str(error).startswith(f"{path}: found da")


def test_any_changed_byte_is_read_or_named(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    whole = bytearray(jpeg_with_exif(path))
    names = 0
    for place in range(min(120, len(whole))):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            assert read_image(path).ndim == 3
        except ClipadError as error:
            names += str(error).startswith(f"{path}: ")
    assert names


def test_raw_files_of_cameras_are_named_and_not_read_by_their_preview(tmp_path: Path) -> None:
    two_halves().save(tmp_path / "photo.nef", format="TIFF")
    two_halves().save(tmp_path / "reduced.tif", tiffinfo={254: 1})
    two_halves().save(tmp_path / "dng.tif", tiffinfo={50706: b"\1\4\0\0"})
    for name in ("photo.nef", "reduced.tif", "dng.tif"):
        with pytest.raises(ClipadError, match=f"{name}: found TIFF data as cameras write raw"):
            read_image(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_and_a_folder_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        with pytest.raises(ClipadError, match=f"{name}: found no regular file"):
            read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (20000, 20000, "more pixels than an image may have"),
        (10000, 9500, "more than 89 million pixels"),
        (1_000_000, 40, "expected one side at most 20 times the other"),
    ],
)
def test_a_huge_photo_is_refused_before_it_is_decoded(tmp_path, width, height, message) -> None:
    with pytest.raises(ClipadError, match=message):
        read_image(bare_png(tmp_path / "huge.png", width, height))
