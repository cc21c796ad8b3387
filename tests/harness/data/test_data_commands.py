"""`clipad data list`, `check` and `show` on miniatures, whole and broken."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from dataset_folders import FOLDERS, mvtec, pairs, write, write_mask
from PIL import Image

from clipad_core.clip.image_file import read_image as read_photo
from clipad_core.errors import ClipadError
from clipad_harness.cli.main import main
from clipad_harness.data import cards as cards_module
from clipad_harness.data.cards import CARDS, card_names, read_card
from clipad_harness.data.dataset_check import check, completeness
from clipad_harness.data.datasets import read_index
from clipad_harness.data.images import file_hash, read_image, read_mask_file


@pytest.fixture
def data(tmp_path: Path, monkeypatch) -> Path:
    """An empty folder of datasets, and no project around it."""
    monkeypatch.delenv("CLIPAD_DATA", raising=False)
    monkeypatch.delenv("CLIPAD_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def whole(data: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A dataset of two images and a folder of cards whose counts it fulfils."""
    cards = tmp_path / "cards"
    cards.mkdir()
    text = yaml.safe_load((CARDS / "cvc_colondb.yaml").read_text())
    text["counts"]["anomalous"] = 3
    (cards / "cvc_colondb.yaml").write_text(yaml.safe_dump(text))
    pairs(data / "cvc_colondb", "images", "masks")
    return data / "cvc_colondb", cards


def test_a_whole_dataset_has_no_problem(data, tmp_path):
    root, cards = whole(data, tmp_path)
    index, problems, remarks = check(root, "cvc_colondb", cards)
    assert (len(index), problems, remarks) == (3, [], [])
    assert completeness(root, read_card("cvc_colondb", cards), cards) == "complete"


def truncated(root: Path) -> str:
    path = root / "images" / "2.png"
    path.write_bytes(path.read_bytes()[:-30])
    return "images/2.png: found a damaged or truncated image"


def empty(root: Path) -> str:
    (root / "images" / "2.png").write_bytes(b"")
    return "images/2.png: found an empty file"


def truncated_mask(root: Path) -> str:
    path = root / "masks" / "2.png"
    path.write_bytes(path.read_bytes()[:-30])
    return "masks/2.png: found a damaged or truncated image"


def unpaired(root: Path) -> str:
    write(root / "images" / "3.png")
    return "images/3.png: no mask in masks"


def other_size(root: Path) -> str:
    write_mask(root / "masks" / "2.png", size=(8, 6))
    return "masks/2.png: mask of 8 x 6 pixels for an image of 6 x 8"


def twice(root: Path) -> str:
    shutil.copy(root / "images" / "1.png", root / "images" / "2.png")
    return "images/2.png: the same bytes as images/1.png"


def black_mask(root: Path) -> str:
    write_mask(root / "masks" / "2.png", rows=slice(0, 0))
    return "masks/2.png: marks no pixel of an anomalous image"


def half_copied(root: Path) -> str:
    (root / "images" / "2.png").unlink()
    (root / "masks" / "2.png").unlink()
    return "2 anomalous test images, the card says 3"


FAULTS = [truncated, empty, truncated_mask, unpaired, other_size, twice, black_mask, half_copied]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_check_names_every_problem_once(data, tmp_path, fault):
    root, cards = whole(data, tmp_path)
    expected = fault(root)
    problems = check(root, "cvc_colondb", cards)[1]
    named = [problem for problem in problems if problem.startswith(expected)]
    assert len(named) == 1, problems
    extra = 1 if fault is unpaired else 0  # an image more than the card has
    assert len(problems) == 1 + extra


# Each of 24 x 32 pixels; the square of 7 x 8 = 56 pixels is meant.
MEANT = np.zeros((24, 32), dtype=np.uint8)
MEANT[6:13, 8:16] = 255
LARGE = np.zeros((24, 32), dtype=np.uint8)
LARGE[:, 4:] = 255
FRAME = np.where(MEANT > 0, 255, np.where(np.arange(32) < 4, 11, 0)).astype(np.uint8)
ABOVE = "every value above 0 counts (rule above_zero"


def masked(data: Path, mask: np.ndarray | Image.Image, name: str = "000_mask.png") -> str:
    """What `clipad data check` says of an own dataset of one anomalous image with this mask."""
    folder = data / "hazelnut_toy" / "hazelnut"
    write(folder / "train" / "good" / "000.png", (24, 32))
    write(folder / "test" / "good" / "000.png", (24, 32))
    write(folder / "test" / "crack" / "000.png", (24, 32))
    (folder / "ground_truth" / "crack").mkdir(parents=True)
    image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    image.save(folder / "ground_truth" / "crack" / name)
    return f"hazelnut/ground_truth/crack/{name}"


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        (np.full((24, 32), 255, np.uint8), f"marks every pixel (values 255 to 255); {ABOVE}"),
        (np.maximum(MEANT, 1), f"marks every pixel (values 1 to 255); {ABOVE}"),
        (255 - MEANT, f"marks 93% of its pixels and all of the border, as if inverted; {ABOVE}"),
        (
            np.dstack([np.full((24, 32, 3), 255, np.uint8), MEANT]),
            "found a mask whose alpha channel alone differs",
        ),
    ],
    ids=["full", "background_of_1", "inverted", "alpha_only"],
)
def test_check_names_masks_that_cannot_be_meant(data, capsys, mask, problem):
    name = masked(data, mask)
    assert main(["data", "check", "hazelnut_toy", "--data", str(data)]) == 1
    assert f"  {name}: {problem}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mask", "file", "remark"),
    [
        (FRAME, "000_mask.png", "152 pixels count, 56 are at least half as bright"),
        (FRAME.astype(np.uint16) * 257, "000_mask.tif", "152 pixels count, 56 are at least half"),
        (Image.fromarray(MEANT).convert("RGB"), "000_mask.webp", "pixels count, 56 are at least"),
        (MEANT, "000_mask.jpg", "56 pixels count, "),
        (LARGE, "000_mask.png", "more than half of the image is marked"),
    ],
    ids=["frame_as_in_cvc_clinicdb", "sixteen_bits", "lossy_webp", "jpeg", "more_than_half"],
)
def test_check_says_which_rule_counts_in_masks_that_published_datasets_have(
    data, capsys, mask, file, remark
):
    name = masked(data, mask, file)
    assert main(["data", "check", "hazelnut_toy", "--data", str(data)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  to know:")]
    assert len(lines) == 1 and name in lines[0] and remark in lines[0]
    rule = "rule half_brightness" if file.endswith("jpg") else "rule above_zero"
    assert "grey" not in lines[0] or rule in lines[0]


KINDS = np.where(MEANT > 0, np.where(np.arange(32) < 12, 1, 3), 0).astype(np.uint8)
FLOAT = MEANT.astype(np.float32) / 255


@pytest.mark.parametrize(
    ("mask", "file", "values", "pixels"),
    [
        (KINDS, "000_mask.png", "1 to 3", "56 pixels count, 28 are"),
        (
            np.where(KINDS == 3, 30, KINDS * 2).astype(np.uint8),
            "000_mask.png",
            "2 to 30",
            "56 pixels count, 28 are",
        ),
        (MEANT // 255, "000_mask.png", "1 to 1", "56 pixels count, 56 are"),
        (MEANT // 255 * 254, "000_mask.bmp", "254 to 254", "56 pixels count, 56 are"),
        (
            np.where(KINDS == 1, 200, MEANT).astype(np.uint8),
            "000_mask.png",
            "200 to 255",
            "56 pixels count, 56 are",
        ),
        (MEANT.astype(np.uint16), "000_mask.tif", "255 to 255", "56 pixels count, 56 are"),
        (MEANT.astype(np.uint16) * 16, "000_mask.png", "4080 to 4080", "56 pixels count, 56 are"),
        (FLOAT * np.float32(0.5), "000_mask.tif", "0.5 to 0.5", "56 pixels count, 56 are"),
        (FLOAT * 255, "000_mask.tif", "255 to 255", "56 pixels count, 56 are"),
        (
            np.where(KINDS == 1, np.float32(0.25), FLOAT),
            "000_mask.tif",
            "0.25 to 1",
            "56 pixels count, 28 are",
        ),
    ],
)
def test_check_says_which_rule_counts_in_masks_of_other_values_than_0_and_white(
    data, mask, file, values, pixels
):
    name = masked(data, mask, file)
    problems, remarks = check(data / "hazelnut_toy", "hazelnut_toy")[1:]
    assert problems == [] and len(remarks) == 1
    assert remarks[0].startswith(
        f"1 grey mask ({name}): values from {values} where full white alone"
    )
    assert pixels in remarks[0] and ABOVE in remarks[0]


PALETTE = Image.fromarray(MEANT // 255).convert("P")
PALETTE.putpalette([0, 0, 0, 255, 255, 255] + [0, 0, 0] * 254)


@pytest.mark.parametrize(
    ("mask", "file"),
    [
        (MEANT, "000_mask.png"),
        (Image.fromarray(MEANT).convert("1"), "000_mask.png"),
        (Image.fromarray(MEANT).convert("RGB"), "000_mask.png"),
        (MEANT.astype(np.uint16) * 257, "000_mask.png"),
        (MEANT.astype(np.uint16) * 257, "000_mask.tif"),
        (FLOAT, "000_mask.tif"),
        (PALETTE, "000_mask.bmp"),
    ],
    ids=["grey", "one bit", "colour", "16 bits of PNG", "16 bits of TIFF", "floats", "palette"],
)
def test_masks_of_0_and_the_full_white_of_their_kind_are_no_remark(data, mask, file):
    masked(data, mask, file)
    assert check(data / "hazelnut_toy", "hazelnut_toy")[1:] == ([], [])


def test_check_says_which_anomalous_training_images_are_left_out(data, tmp_path):
    mvtec(data / "hazelnut_toy", "hazelnut")
    write(data / "hazelnut_toy" / "hazelnut" / "train" / "bad" / "000.png")
    (data / "dagm").mkdir()
    FOLDERS["dagm"][0](data / "dagm")
    assert check(data / "hazelnut_toy", "hazelnut_toy")[1:] == (
        [],
        [
            "1 anomalous training image (hazelnut/train/bad/000.png): left out; references are normal "
            "images"
        ],
    )
    assert (
        "4 anomalous training images (Class1/Train/0577.PNG, "
        in check(data / "dagm", "dagm")[2][-1]
    )


def of_float(pixels: list[float]) -> np.ndarray:
    values = MEANT.astype(np.float32) / 255
    values[0, : len(pixels)] = pixels
    return values


def alpha_beside_one_pixel() -> np.ndarray:
    pixels = np.zeros((*MEANT.shape, 4), dtype=np.uint8)
    pixels[..., 3], pixels[0, 0, :3] = MEANT, 255
    return pixels


@pytest.mark.parametrize(
    ("pixels", "file", "problem"),
    [
        (of_float([np.nan]), "000_mask.tif", "holds no number (NaN or infinite) in 1 pixel"),
        (of_float([np.inf, 1]), "000_mask.tif", "holds no number (NaN or infinite) in 1 pixel"),
        (
            of_float([-1, -5]),
            "000_mask.tif",
            "is below 0 in 2 pixels, which count as normal (down to -5)",
        ),
        (
            alpha_beside_one_pixel(),
            "000_mask.png",
            "its alpha channel, which is not read, shows another",
        ),
    ],
    ids=["NaN", "infinite", "negative", "alpha"],
)
def test_check_names_values_and_channels_of_masks_that_cannot_be_meant(data, pixels, file, problem):
    masked(data, pixels, file)
    problems, remarks = check(data / "hazelnut_toy", "hazelnut_toy")[1:]
    assert len(problems) == 1 and f"{file}: {problem}" in problems[0]
    assert "nan" not in "".join(remarks)


@pytest.mark.parametrize("inverse", [False, True])
def test_an_alpha_channel_that_shows_the_masks_own_picture_is_no_problem(data, inverse):
    alpha = 255 - MEANT if inverse else MEANT
    masked(data, np.dstack([MEANT, MEANT, MEANT, alpha]), "000_mask.png")
    assert check(data / "hazelnut_toy", "hazelnut_toy")[1] == []


def test_check_names_images_in_folders_that_nobody_reads(data):
    root = data / "hazelnut_toy"
    mvtec(root, "hazelnut")
    places = ["", "hazelnut", "hazelnut/ground_truth", "hazelnut/test", "hazelnut/valid/good"]
    names = sorted(f"{place}/loose.jpg".lstrip("/") for place in places)
    for name in names:
        write(root / name)
    (root / "hazelnut" / "valid" / "loop").symlink_to("..")
    assert check(root, "hazelnut_toy")[1:] == (
        [],
        [
            f"5 images ({', '.join(names)}): in no folder that is read, so neither measured nor a "
            "reference"
        ],
    )


def test_folders_of_defects_that_sound_normal_are_named(data, monkeypatch, capsys):
    monkeypatch.setattr(cards_module, "CARDS", data / "cards")
    (data / "cards").mkdir()
    mvtec(data / "own_parts", "nut")
    write(data / "own_parts" / "nut" / "test" / "parts fine" / "000.png")
    write_mask(data / "own_parts" / "nut" / "ground_truth" / "parts fine" / "000_mask.png")
    remark = "nut: 1 test image in parts fine, which sounds like normal images, count as anomalous"
    assert main(["data", "new", "own_parts", "--data", str(data)]) == 0
    assert f"to know: {remark}" in capsys.readouterr().out
    assert check(data / "own_parts", "own_parts", data / "cards")[1:] == ([], [remark])


@pytest.mark.parametrize(
    "place", ["test/good/p.png", "test/crack/000.png", "ground_truth/crack/000_mask.png"]
)
def test_a_pipe_is_named_and_never_waited_for(data, capsys, place):
    path = data / "hazelnut_toy" / "hazelnut" / place
    mvtec(data / "hazelnut_toy", "hazelnut")
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    for verb in ("check", "show"):
        assert main(["data", verb, "hazelnut_toy", "--data", str(data)]) == 1
        captured = capsys.readouterr()
        assert (captured.out + captured.err).count(f"hazelnut/{place}: found no regular file") == 1


@pytest.mark.parametrize("read", [file_hash, read_image, read_mask_file, read_photo])
def test_no_reader_opens_a_pipe(tmp_path, read):
    os.mkfifo(tmp_path / "p.png")
    with pytest.raises(ClipadError, match=r"p\.png: found (no regular file|a pipe or a device)"):
        read(tmp_path / "p.png")


@pytest.mark.parametrize("orientation", [2, 3, 6])
@pytest.mark.parametrize("format_", ["JPEG", "TIFF"])
def test_check_names_images_that_are_not_turned_as_their_masks_are(
    data, capsys, orientation, format_
):
    masked(data, MEANT)
    exif = Image.Exif()
    exif[0x0112] = orientation
    folder = data / "hazelnut_toy" / "hazelnut"
    for path in (folder / "test" / "good" / "000.png", folder / "test" / "crack" / "000.png"):
        with Image.open(path) as image:
            image.copy().save(path, format_, exif=exif)
    assert main(["data", "check", "hazelnut_toy", "--data", str(data)]) == 1
    output = capsys.readouterr().out
    assert (
        f"  hazelnut/test/crack/000.png: EXIF orientation {orientation}, its mask's is 1" in output
    )
    assert (
        "to know: 1 image (hazelnut/test/good/000.png): an EXIF orientation, which is not" in output
    )
    mask = folder / "ground_truth" / "crack" / "000_mask.png"
    Image.fromarray(MEANT).save(mask, exif=exif)
    assert main(["data", "check", "hazelnut_toy", "--data", str(data)]) == 0
    assert "to know: 2 images (" in capsys.readouterr().out


def test_missing_and_foreign_categories_are_problems(data):
    mvtec(data / "mpdd", "tubes")
    mvtec(data / "mpdd", "tubs")
    problems = check(data / "mpdd", "mpdd")[1]
    assert "connector: no such category on disk" in problems
    assert "tubs: a folder that is no category" in problems
    assert "2 normal test images, the card says 176" in problems
    assert "2 training images, the card says 888" in problems


def test_list_has_a_line_a_dataset_and_says_what_is_whole(data, capsys):
    pairs(data / "cvc_colondb", "images", "masks")
    (data / "kvasir_seg" / "letters").mkdir(parents=True)
    (data / "mvtec" / "letters").mkdir(parents=True)
    mvtec(data / "hazelnut_toy", "hazelnut")
    assert main(["data", "list", "--data", str(data)]) == 0
    lines = {line.split()[0]: " ".join(line.split()) for line in capsys.readouterr().out.split("\n")
             if line}  # fmt: skip
    assert set(lines) == {"name", *card_names()}
    assert lines["cvc_colondb"] == "cvc_colondb yes 3 of 380 test images pixel not known"
    assert lines["kvasir_seg"].startswith("kvasir_seg yes 2 problems")
    assert lines["mvtec"].startswith("mvtec yes something else")
    assert lines["hazelnut_toy"].startswith("hazelnut_toy yes 4 test images")
    assert lines["visa"] == "visa no - image, pixel CC BY 4.0"


def test_check_ends_with_one_on_a_problem_and_with_zero_without(data, capsys, monkeypatch):
    mvtec(data / "hazelnut_toy", "hazelnut")
    monkeypatch.setenv("CLIPAD_DATA", str(data))
    assert main(["data", "check", "hazelnut_toy"]) == 0
    assert "2 normal and 2 anomalous test images, 2 masks\n  no problem found" in (
        capsys.readouterr().out
    )
    (data / "hazelnut_toy/hazelnut/test/good/000.png").write_text("no image")
    assert main(["data", "check", "hazelnut_toy"]) == 1
    output = capsys.readouterr()
    assert "hazelnut/test/good/000.png: found no readable image\n" in output.out
    assert "clipad: hazelnut_toy: found 1 problem" in output.err
    assert main(["data", "check", "hazelnut"]) == 1
    assert "expected one with a card" in capsys.readouterr().err
    assert main(["data", "check", "visa"]) == 1
    assert "clipad data fetch visa" in capsys.readouterr().err


def test_a_name_that_is_no_utf8_is_printed(data, capsys):
    pairs(data / "cvc_colondb", "images", "masks")
    try:
        os.rename(
            data / "cvc_colondb/images/1.png", os.fsencode(data) + b"/cvc_colondb/images/\xe9.png"
        )
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert main(["data", "check", "cvc_colondb", "--data", str(data)]) == 1
    output = capsys.readouterr().out
    output.encode()
    assert "images/\\udce9.png: its name is not UTF-8" in output


@pytest.mark.parametrize("name", FOLDERS)
def test_show_draws_every_layout(data, name, capsys):
    (data / name).mkdir()
    FOLDERS[name][0](data / name)
    out = data / "sheets" / "sheet.png"
    assert main(["data", "show", name, "--data", str(data), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == os.path.relpath(out)
    with Image.open(out) as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 20)}
    assert ((255, 0, 170) in colours) == ("pixel" in read_card(name).levels)


def test_a_dataset_that_nobody_published_says_so_in_one_sentence(data, capsys):
    """A folder of its name does not make it the dataset."""
    mvtec(data / "bsd_vcpclip", "nut")
    for verb in ("check", "show"):
        assert main(["data", verb, "bsd_vcpclip", "--data", str(data)]) == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("clipad: dataset bsd_vcpclip: not published, so that nobody")
        assert "asked (issue 16 of their repository)" in output.err
        assert output.err.count("\n") == 1
    with pytest.raises(ClipadError, match="bsd_vcpclip: not published"):
        read_index(data / "bsd_vcpclip", "bsd_vcpclip")
    assert main(["data", "list", "--data", str(data)]) == 0
    (line,) = [text for text in capsys.readouterr().out.splitlines() if "bsd" in text]
    assert line.split(maxsplit=2)[:2] == ["bsd_vcpclip", "no"] and "not published" in line


def test_a_card_without_a_layout_has_nothing_to_download(tmp_path):
    text = (CARDS / "bsd_vcpclip.yaml").read_text()
    changed = text.replace("folders: {}", "folders: {good: ok}")
    (tmp_path / "bsd_vcpclip.yaml").write_text(changed)
    with pytest.raises(ClipadError, match="layout: found None, expected a name, since the card"):
        read_card("bsd_vcpclip", tmp_path)


def test_every_command_has_an_example_in_its_help(capsys):
    for verb in ("list", "check", "show", "fetch", "new"):
        with pytest.raises(SystemExit) as ended:
            main(["data", verb, "--help"])
        assert ended.value.code == 0
        assert f"Example: clipad data {verb}" in capsys.readouterr().out


def test_a_real_sample_is_checked_and_misses_only_what_it_leaves_out():
    folder = os.environ.get("CLIPAD_DATA")
    if not folder or not Path(folder, "cvc_clinicdb").is_dir():
        pytest.skip("CLIPAD_DATA has no cvc_clinicdb")
    problems = check(Path(folder, "cvc_clinicdb"), "cvc_clinicdb")[1]
    assert problems == ["20 anomalous test images, the card says 612"]
