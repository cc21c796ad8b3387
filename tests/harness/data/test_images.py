"""Images and masks of every kind that datasets hold, written here and read back."""

import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from deep_files import tiff
from PIL import Image

from clipad_core.clip.image_file import FORMATS, read_photo
from clipad_core.errors import ClipadError
from clipad_harness.data.images import (
    ABOVE_ZERO,
    HALF_BRIGHTNESS,
    MASK_RULES,
    file_hash,
    image_size,
    read_image,
    read_mask,
    read_mask_file,
    read_oriented,
    resize_mask,
)

RAMP = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
COLOUR = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=-1)


def pixels(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.fixture
def save(tmp_path: Path):
    def write(image: Image.Image, name: str = "image.png", **options: object) -> Path:
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return write


def test_an_rgb_image_keeps_its_pixels(save):
    assert np.array_equal(pixels(save(Image.fromarray(COLOUR))), COLOUR)


def test_greyscale_is_repeated_over_the_three_channels(save):
    assert np.array_equal(
        pixels(save(Image.fromarray(RAMP))), np.repeat(RAMP[..., None], 3, axis=-1)
    )


def test_a_palette_image_shows_its_colours_and_not_its_indices(save):
    palette = Image.fromarray(COLOUR).quantize(24)
    assert palette.mode == "P"
    expected = np.asarray(palette.convert("RGB"))
    assert np.array_equal(pixels(save(palette)), expected)
    assert not np.array_equal(expected[..., 0], np.asarray(palette))


def test_alpha_is_dropped_and_not_blended(save):
    alpha = np.full((4, 6, 1), 7, dtype=np.uint8)
    path = save(Image.fromarray(np.concatenate([COLOUR, alpha], axis=-1)))
    assert np.array_equal(pixels(path), COLOUR)


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(save, name):
    values = np.array([[0, 128, 129, 257, 32896, 65535]], dtype=np.uint16)
    assert pixels(save(Image.fromarray(values), name))[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_an_eight_bit_image_stored_with_sixteen_bits_is_the_same_image(save):
    assert np.array_equal(pixels(save(Image.fromarray(RAMP.astype(np.uint16) * 257)))[..., 0], RAMP)


def test_values_above_sixteen_bits_are_refused(save):
    path = save(Image.fromarray(np.array([[0, 70000]], dtype=np.int32)), "deep.tif")
    with pytest.raises(ClipadError, match=r"deep\.tif: found values from 0 to 70000"):
        read_image(path)


def test_floating_point_pixels_are_refused(save):
    path = save(Image.fromarray(np.array([[0.0, 0.5]], dtype=np.float32)), "float.tif")
    with pytest.raises(ClipadError, match=r"float\.tif: found floating-point pixels"):
        read_image(path)


def test_cmyk_is_converted(save):
    ink = np.zeros((8, 8, 4), dtype=np.uint8)
    ink[..., 0] = 255
    colours = pixels(save(Image.fromarray(ink, mode="CMYK"), "ink.tif"))
    assert np.array_equal(colours, np.broadcast_to([0, 255, 255], colours.shape))


def test_one_bit_images_become_black_and_white(save):
    bits = Image.fromarray(RAMP > 100)
    assert bits.mode == "1"
    assert np.array_equal(pixels(save(bits))[..., 1], np.where(RAMP > 100, 255, 0))


def test_exif_orientation_is_ignored(save):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(Image.fromarray(COLOUR), "turned.png", exif=exif)
    assert Image.open(path).getexif()[0x0112] == 6
    assert image_size(path) == (4, 6)
    assert np.array_equal(pixels(path), COLOUR)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("raw", [COLOUR, RAMP], ids=["colour", "grey"])
@pytest.mark.parametrize("name", ["turned.png", "turned.webp", "turned.tif", "raw.tif"])
def test_every_format_is_read_as_stored_and_upright_where_that_is_asked_for(
    save, name, raw, orientation
):
    """Pillow turns TIFF files by itself, and no others; grey ones that are not packed wrongly."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"turned.webp": {"lossless": True}, "turned.tif": {"compression": "tiff_lzw"}}
    path = save(Image.fromarray(raw), name, exif=exif, **options.get(name, {}))
    expected = np.asarray(Image.fromarray(raw).convert("RGB"))
    assert image_size(path) == (4, 6)
    stored, stored_orientation = read_oriented(path)
    assert np.array_equal(np.asarray(stored), expected)
    assert stored_orientation == orientation
    assert np.array_equal(pixels(path), expected)
    upright = expected.transpose(1, 0, 2) if orientation > 4 else expected
    upright = upright[::-1] if orientation in (3, 4, 7, 8) else upright
    upright = upright[:, ::-1] if orientation in (2, 3, 6, 7) else upright
    assert np.array_equal(read_photo(path).pixels, upright)


def test_greyscale_of_12_bits_is_scaled_by_what_its_header_calls_white(tmp_path):
    path = tiff(tmp_path / "deep.tif", np.array([[0, 2048], [4000, 4095]]), 12)
    assert pixels(path)[..., 0].tolist() == [[0, 128], [249, 255]]


def test_a_mask_stored_as_tiff_is_read_as_stored(save):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(Image.fromarray(SPOT.astype(np.uint8)), "mask.tif", exif=exif)
    assert np.array_equal(read_mask(path, (4, 6)), SPOT)


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.webp"])
def test_an_exif_header_that_is_damaged_says_nothing_of_the_pixels(save, name):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = bytearray(exif.tobytes())
    data[8] ^= 0xFF  # byte 2 of its TIFF header
    path = save(Image.fromarray(COLOUR), name, exif=bytes(data))
    image, orientation = read_oriented(path)
    assert (image.size, orientation) == ((6, 4), 1)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n%%EndComments\nshowpage\n%%EOF\n"
BITMAP_TEXT = b"#define i_width 8\n#define i_height 1\nstatic char i_bits[] = {\n0x01};\n"


def paintbrush() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, "PCX")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content", [POSTSCRIPT, BITMAP_TEXT, paintbrush()], ids=["EPS", "XBM", "PCX"]
)
@pytest.mark.parametrize("read", [read_image, image_size, read_mask_file])
def test_only_the_formats_of_the_documentation_are_opened_whatever_the_name(
    tmp_path, content, read
):
    """Of PostScript, Pillow would start Ghostscript."""
    (tmp_path / "image.png").write_bytes(content)
    with pytest.raises(ClipadError, match=r"image\.png: found no readable image, .*PNG, JPEG, BMP"):
        read(tmp_path / "image.png")


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_of_the_list_is_told_by_its_content_and_not_by_its_name(save, format_):
    path = save(Image.fromarray(COLOUR), "image.dat", format=format_)
    assert read_image(path).size == (6, 4)


def test_the_page_of_datasets_names_the_formats():
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    assert f"**Formats.** {', '.join(FORMATS)}" in page


@pytest.mark.parametrize("read", [read_image, image_size, lambda path: read_mask(path, (4, 6))])
def test_a_file_that_is_empty_missing_or_no_image_is_named(tmp_path, read):
    empty, text, missing = (tmp_path / name for name in ("empty.png", "text.png", "missing.png"))
    empty.touch()
    text.write_text("not an image")
    for path, problem in [
        (empty, "an empty file"),
        (text, "no readable image"),
        (missing, "no file"),
    ]:
        with pytest.raises(ClipadError, match=re.escape(f"{path}: found {problem}")):
            read(path)


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg", "cut.bmp", "cut.tif"])
@pytest.mark.parametrize("read", [read_image, lambda path: read_mask(path, (64, 64))])
def test_a_truncated_file_is_named(save, name, read):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(Image.fromarray(noise), name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ClipadError, match=re.escape(name)):
        read(path)


SPOT = np.zeros((4, 6), dtype=bool)
SPOT[1:3, 2:5] = True


def masks() -> dict[str, tuple[Image.Image, str]]:
    palette = Image.fromarray(SPOT.astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    long = palette.copy()
    long.putpalette([0, 0, 0] + [255, 255, 255] * 255)
    dark = Image.fromarray(SPOT.astype(np.uint8), mode="P")
    dark.putpalette([0, 0, 0, 0, 0, 0])
    opaque = np.full((4, 6, 4), 255, dtype=np.uint8)
    opaque[..., :3] = SPOT[..., None] * 255
    red = np.zeros((4, 6, 3), dtype=np.uint8)
    red[..., 0] = SPOT * 200
    return {
        "zero_one": (Image.fromarray(SPOT.astype(np.uint8)), "mask.png"),
        "zero_255": (Image.fromarray(SPOT.astype(np.uint8) * 255), "mask.png"),
        "one_bit": (Image.fromarray(SPOT), "mask.png"),
        "one_bit_bmp": (Image.fromarray(SPOT), "mask.bmp"),
        "palette_bmp": (long, "mask.bmp"),
        "palette_png": (palette, "mask.png"),
        "palette_all_black": (dark, "mask.png"),
        "sixteen_bit_tiff": (Image.fromarray(SPOT.astype(np.uint16) * 300), "mask.tif"),
        "rgba": (Image.fromarray(opaque), "mask.png"),
        "red_only": (Image.fromarray(red), "mask.png"),
    }


@pytest.mark.parametrize("kind", masks())
def test_a_mask_of_any_kind_marks_what_is_not_zero(save, kind):
    image, name = masks()[kind]
    mask = read_mask(save(image, name), (4, 6))
    assert mask.dtype == bool
    assert np.array_equal(mask, SPOT)


def test_a_mask_says_which_rule_counts(save):
    grey = np.array([[0, 1, 11, 127], [128, 200, 255, 0]], dtype=np.uint8)
    lossless = read_mask_file(save(Image.fromarray(grey), "mask.png"))
    assert (lossless.rule, int(lossless.marked.sum())) == (ABOVE_ZERO, 6)
    white = Image.fromarray(SPOT.astype(np.uint8) * 255).resize((60, 40), 0)
    assert read_mask_file(save(white, "mask.jpg")).rule is HALF_BRIGHTNESS
    several = save(white, "several.jpg", format="MPO", save_all=True, append_images=[white])
    assert read_mask_file(several).rule is HALF_BRIGHTNESS
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    assert all(f"`{rule.name}`" in page for rule in (ABOVE_ZERO, HALF_BRIGHTNESS))


@pytest.mark.parametrize("colour", [0, 255])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_mask_that_lies_in_the_alpha_channel_alone_is_refused(save, colour, mode):
    bands = [np.full((4, 6), colour, dtype=np.uint8)] * (len(mode) - 1)
    layers = np.dstack([*bands, SPOT.astype(np.uint8) * 255])
    path = save(Image.fromarray(layers, mode), "alpha.png")
    with pytest.raises(ClipadError, match=r"alpha\.png: found a mask whose alpha channel alone"):
        read_mask(path, (4, 6))


def test_a_palette_mask_with_a_white_zero_is_refused(save):
    palette = Image.fromarray(SPOT.astype(np.uint8), mode="P")
    palette.putpalette([255, 255, 255, 0, 0, 0])
    with pytest.raises(ClipadError, match=r"inverted\.png: the palette's index 0"):
        read_mask(save(palette, "inverted.png"), (4, 6))


def test_an_8_bit_bitmap_of_two_colours_is_refused_rather_than_read_as_empty(save):
    palette = Image.fromarray(SPOT.astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    path = save(palette, "two.bmp")
    for read in (read_image, lambda path: read_mask(path, (4, 6))):
        with pytest.raises(
            ClipadError, match=r"two\.bmp: found an 8-bit BMP with a palette of two"
        ):
            read(path)


def test_a_mask_of_another_size_than_its_image_is_refused(save):
    path = save(Image.fromarray(SPOT), "small.png")
    with pytest.raises(
        ClipadError, match=r"small\.png: found a mask of 4 x 6 .* expected .* 6 x 4"
    ):
        read_mask(path, (6, 4))


def random_mask(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(1).random(shape) > 0.6


@pytest.mark.parametrize("shape", [(900, 900), (37, 53), (12, 40)])
@pytest.mark.parametrize("rule", MASK_RULES)
def test_masks_are_resized_as_the_named_implementation_does(shape, rule):
    """Anomalib: torchvision's Resize of a Mask; zqhang: Pillow, ToTensor, above one half."""
    mask = random_mask(shape)
    if rule == "nearest":
        pixels = torch.from_numpy(mask.astype(np.uint8))[None, None]
        expected = F.interpolate(pixels, size=(24, 30), mode="nearest")[0, 0].numpy().astype(bool)
    else:
        small = Image.fromarray(mask.astype(np.uint8) * 255).resize((30, 24), Image.BILINEAR)
        expected = (torch.from_numpy(np.array(small)).float() / 255 > 0.5).numpy()
    resized = resize_mask(mask, (24, 30), rule)
    assert resized.shape == (24, 30)
    assert np.array_equal(resized, expected)


@pytest.mark.parametrize("rule", MASK_RULES)
def test_resizing_to_the_same_size_changes_nothing(rule):
    mask = random_mask((17, 23))
    assert np.array_equal(resize_mask(mask, mask.shape, rule), mask)


def test_an_unknown_mask_rule_is_refused():
    with pytest.raises(ClipadError, match="found 'cubic', expected one of nearest, bilinear_half"):
        resize_mask(SPOT, (2, 3), "cubic")


def test_the_hash_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_hash(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")
    with pytest.raises(ClipadError, match="missing: cannot be read"):
        file_hash(tmp_path / "missing")


def sample(*parts: str) -> Path:
    path = Path(os.environ.get("CLIPAD_DATA") or "no-data-folder").joinpath(*parts)
    if not path.exists():
        pytest.skip(f"CLIPAD_DATA has no {'/'.join(parts)}")
    return path


def test_a_real_palette_bitmap_mask_is_read():
    mask = read_mask(sample("kolektor_sdd", "kos01", "Part5_label.bmp"), (1270, 500))
    assert 0 < mask.sum() < 0.1 * mask.size


def test_a_real_image_and_its_mask_are_read():
    image = read_image(sample("mvtec", "bottle", "test", "broken_large", "000.png"))
    path = sample("mvtec", "bottle", "ground_truth", "broken_large", "000_mask.png")
    assert image.size == (900, 900)
    assert 0 < read_mask(path, (900, 900)).mean() < 0.5
