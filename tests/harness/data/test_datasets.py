"""Dataset folders built in miniature, whole and broken, and the cards."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clipad_core.errors import ClipadError
from clipad_harness.data.cards import CARDS, read_card
from clipad_harness.data.dataset_images import DatasetImages
from clipad_harness.data.datasets import (
    INDEX_COLUMNS,
    MissingDataset,
    find_dataset,
    index_hash,
    read_index,
)
from clipad_harness.data.layouts import expected
from clipad_harness.data.litter import is_litter
from clipad_harness.standin.drawing.catalogue import AUXILIARY, TARGET

SIZE = (6, 8)


def write(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, 90, dtype=np.uint8)).save(path)
    return path


def fill(root: Path, category: str, image: str = "png", mask: str = "{}_mask.png") -> None:
    for number in range(2):
        write(root / category / "train" / "good" / f"00{number}.{image}")
        write(root / category / "test" / "good" / f"00{number}.{image}")
        for defect in ("crack", "hole"):
            write(root / category / "test" / defect / f"00{number}.{image}")
            write(root / category / "ground_truth" / defect / mask.format(f"00{number}"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill(tmp_path / "set", "nut")
    fill(tmp_path / "set", "bolt")
    (tmp_path / "set" / "readme.txt").write_text("hello")
    (tmp_path / "set" / "nut" / "test" / "good" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "set" / "nut" / "test" / "good" / "Thumbs.db").write_bytes(b"x")
    return tmp_path / "set"


LITTER = [
    "Thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "DESKTOP.INI", "Picasa.ini", "._000.png",
    "000.png:Zone.Identifier", "000.png\uf03aZone.Identifier", "000.png:AFP_AfpInfo", "Icon\r",
    "SYNOINDEX_MEDIA_INFO", "@eaDir/", "#recycle/", "@Recycle/", ".@__thumb/", ".Trash-1000/",
    "$RECYCLE.BIN/", "System Volume Information/", "lost+found/", "__MACOSX/",
    "000.png~", "~$000.png", "000.png.bak", "#000.png#", "000.png:com.apple.quarantine",
    "000.png\uf022com.apple.quarantine", "000.png\uf03acom.apple.metadata_kMDItemWhereFroms",
    "000.png:$DATA", "000.png:Zone.Identifier:$DATA", "000.png:com.dropbox.attrs",
    "000.PNG.part", "000.png.crdownload", "Unconfirmed 1234.crdownload", "000.png.tmp",
    "000.png.download/", "~snapshot/", ".snapshot/", ".AppleDouble/", "found.000/",
    "000.png - Shortcut.lnk", "__pycache__/", "sync.ffs_db", "Thumbs (2).db",
    "Picasa.ini (1)", "Thumbs.db.enc", "Folder.ini", "000.png.import",
]  # fmt: skip


@pytest.mark.parametrize("name", LITTER)
def test_what_file_servers_and_browsers_leave_is_neither_read_nor_a_fault(root, name):
    places = ["", "nut", "nut/train", "nut/test", "nut/test/crack", "nut/ground_truth/crack"]
    expected_index = read_index(root, "mini")
    for place in places:
        path = root / place / name.rstrip("/")
        if name.endswith("/"):
            write(path / "000.png")
            write(path / "test" / "good" / "SYNOPHOTO_THUMB_M.jpg")
        else:
            path.write_bytes(b"[ZoneTransfer]")
    pd.testing.assert_frame_equal(read_index(root, "mini"), expected_index)


@pytest.mark.parametrize(
    "name",
    [
        "readme.md",
        "labels.XML",
        "classes.yaml",
        "list.lst",
        "sums.md5",
        "notes.docx",
        "log.log",
        "1.AAE",
        "1.png.xmp",
        "1.THM",
    ],
)
def test_what_is_written_about_images_may_lie_beside_them(root, name):
    expected_index = read_index(root, "mini")
    for place in ("nut/train/good", "nut/test/crack", "nut/ground_truth/crack"):
        (root / place / name).write_text("x")
    pd.testing.assert_frame_equal(read_index(root, "mini"), expected_index)


@pytest.mark.parametrize(
    "name",
    [
        "thumb.png", "recycle", "Identifier.png", "eaDir", "icon.png", "Re: photo.png", "~1.png",
        "12:30 com.apple.png", "part.png", "1.part.png", "snapshot", "$1.png", "#1.png", "tmp", "found.png",
        "my_db", "000", "000.npy", "000.dng", "000.zip", "init.png", "linked",
    ],
)  # fmt: skip
def test_names_that_only_resemble_litter_are_data(name):
    assert not is_litter(name)


def test_an_mvtec_folder_becomes_a_sorted_table_with_a_row_an_image(root):
    index = read_index(root, "mini")
    assert list(index.columns) == list(INDEX_COLUMNS)
    assert len(index) == 16
    assert list(index["category"].unique()) == ["bolt", "nut"]
    keys = list(zip(index["category"], index["split"], index["defect"], index["image"]))
    assert keys == sorted(keys)
    crack = index[(index["category"] == "nut") & (index["defect"] == "crack")].iloc[1]
    assert crack.to_dict() == {
        "dataset": "mini",
        "category": "nut",
        "split": "test",
        "defect": "crack",
        "label": 1,
        "image": "nut/test/crack/001.png",
        "mask": "nut/ground_truth/crack/001_mask.png",
    }
    normal = index[index["defect"] == "good"]
    assert set(normal["label"]) == {0}
    assert set(normal["mask"]) == {""}
    assert set(normal["split"]) == {"train", "test"}


def test_masks_may_carry_the_name_of_their_image(tmp_path):
    fill(tmp_path, "nut", image="JPG", mask="{}.png")
    index = read_index(tmp_path, "toy")
    damaged = index[index["label"] == 1]
    assert damaged.iloc[0]["image"] == "nut/test/crack/000.JPG"
    assert damaged.iloc[0]["mask"] == "nut/ground_truth/crack/000.png"
    assert [Path(m).stem for m in damaged["mask"]] == [Path(i).stem for i in damaged["image"]]


def test_the_order_of_the_file_system_does_not_matter(root, monkeypatch):
    expected = read_index(root, "mini")
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: reversed(list(listing(path))))
    pd.testing.assert_frame_equal(read_index(root, "mini"), expected)


def test_names_are_sorted_by_code_point_and_not_by_locale(root):
    for name in ("Z.png", "a.png", "ä.png", "10.png"):
        write(root / "nut" / "train" / "good" / name)
    index = read_index(root, "mini", ["nut"])
    names = [Path(image).name for image in index[index["split"] == "train"]["image"]]
    assert names == ["000.png", "001.png", "10.png", "Z.png", "a.png", "ä.png"]


def test_chosen_categories_are_read_alone(root):
    (root / "bolt" / "test" / "crack" / "000.png").write_bytes(b"")
    assert set(read_index(root, "mini", ["nut"])["category"]) == {"nut"}
    with pytest.raises(ClipadError, match="found screw, expected some of bolt, nut"):
        read_index(root, "mini", ["nut", "screw"])


def test_training_images_may_be_absent(root):
    for image in (root / "nut" / "train" / "good").iterdir():
        image.unlink()
    assert "train" not in set(read_index(root, "mini", ["nut"])["split"])


def no_test_images(nut: Path) -> str:
    for folder in ("test", "ground_truth"):
        for image in (nut / folder).rglob("*.*"):
            image.unlink()
    return "nut/test: no test images"


def missing_mask(nut: Path) -> str:
    (nut / "ground_truth" / "crack" / "001_mask.png").unlink()
    return "nut/test/crack/001.png: no mask in nut/ground_truth/crack"


def mask_for_a_normal_image(nut: Path) -> str:
    write(nut / "ground_truth" / "good" / "000_mask.png")
    return "nut/ground_truth/good/000_mask.png: mask for a normal image that marks 48 pixels"


def mask_without_an_image(nut: Path) -> str:
    write(nut / "ground_truth" / "crack" / "007_mask.png")
    return "nut/ground_truth/crack/007_mask.png: mask without an image"


def masks_of_an_unknown_defect(nut: Path) -> str:
    write(nut / "ground_truth" / "scratch" / "000_mask.png")
    return "nut/ground_truth/scratch/000_mask.png: mask without an image"


def mask_of_another_size(nut: Path) -> str:
    write(nut / "ground_truth" / "hole" / "000_mask.png", (8, 6))
    return "nut/ground_truth/hole/000_mask.png: mask of 8 x 6 pixels for an image of 6 x 8"


def two_masks(nut: Path) -> str:
    write(nut / "ground_truth" / "hole" / "000.png")
    return "nut/test/hole/000.png: two masks, 000.png and 000_mask.png"


def one_mask_for_two_images(nut: Path) -> str:
    write(nut / "test" / "hole" / "000.bmp")
    return "nut/ground_truth/hole/000_mask.png: mask of two images, 000.bmp and 000.png"


def zero_byte_image(nut: Path) -> str:
    (nut / "test" / "good" / "000.png").write_bytes(b"")
    return "nut/test/good/000.png: found an empty file"


def strip(nut: Path) -> str:
    write(nut / "train" / "good" / "000.png", (2, 50))
    return "nut/train/good/000.png: one side more than 20 times the other"


def text_as_image(nut: Path) -> str:
    (nut / "train" / "good" / "000.png").write_text("no image")
    return "nut/train/good/000.png: found no readable image"


def broken_header(nut: Path) -> str:
    path = nut / "ground_truth" / "crack" / "000_mask.png"
    path.write_bytes(path.read_bytes()[:12])
    return "nut/ground_truth/crack/000_mask.png: found no readable image"


def foreign_file(nut: Path) -> str:
    (nut / "test" / "good" / "000.npy").write_text("x")
    return "nut/test/good/000.npy: no image by its name"


def nested_folder(nut: Path) -> str:
    write(nut / "test" / "good" / "more" / "000.png")
    return "nut/test/good/more: a folder"


def training_images_called_normal(nut: Path) -> str:
    write(nut / "train" / "ok" / "000.png")
    return "nut/train/ok: called like normal images, which are in good; rename it"


def a_test_folder_called_normal(nut: Path) -> str:
    write(nut / "test" / "Good" / "000.png")
    write(nut / "ground_truth" / "Good" / "000.png")
    return "nut/test/Good: called like normal images, which are in good; rename it"


FAULTS: list[Callable[[Path], str]] = [
    no_test_images,
    missing_mask,
    mask_for_a_normal_image,
    mask_without_an_image,
    masks_of_an_unknown_defect,
    mask_of_another_size,
    two_masks,
    one_mask_for_two_images,
    zero_byte_image,
    strip,
    text_as_image,
    broken_header,
    foreign_file,
    nested_folder,
    training_images_called_normal,
    a_test_folder_called_normal,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_one_fault_is_one_message_that_names_the_file(root, fault):
    expected = fault(root / "nut")
    with pytest.raises(ClipadError) as caught:
        read_index(root, "mini")
    message = str(caught.value)
    assert message.startswith(f"{root}: found 1 problem, expected")
    assert f"\n  {expected}\n" in message
    assert "Correct the folder" in message


def test_all_faults_of_a_folder_come_in_one_message_the_first_five_and_a_count(root):
    for mask in sorted((root / "nut" / "ground_truth").rglob("*.png"))[1:]:
        mask.unlink()
    for image in (root / "bolt" / "train" / "good").iterdir():
        image.write_bytes(b"")
    zero_byte_image(root / "nut")
    with pytest.raises(ClipadError) as caught:
        read_index(root, "mini")
    message = str(caught.value)
    assert "found 6 problems" in message
    assert message.count("\n  bolt/") + message.count("\n  nut/") == 5
    assert "\n  and 1 more\n" in message


def test_masks_are_a_matter_of_the_category(root):
    for mask in (root / "nut" / "ground_truth").rglob("*.png"):
        mask.unlink()
    index = read_index(root, "mini")
    masked = index[index["mask"] != ""]
    assert set(masked["category"]) == {"bolt"} and len(index) == 16
    images = DatasetImages(index, root)
    assert (images.has_masks("nut"), images.has_masks("bolt")) == (False, True)


def test_a_category_is_described_by_its_words_and_those_of_the_others():
    kinds = {"a": ["burn", "good", "tear"], "b": ["burn", "good"], "c": ["dent", "cut", "hole"]}
    rows = [(name, "test", kind) for name, own in kinds.items() for kind in own]
    index = pd.DataFrame(rows, columns=["category", "split", "defect"])
    phrases = {"a": ("moth hole",), "c": ("bent blade", "rust")}
    images = DatasetImages(index, Path(), phrases)
    a, b, c = (images.described(name) for name in "abc")
    # No more words of others than of its own; those of the categories behind it, in a circle.
    assert (a.defects, a.other_defects) == (("burn", "tear"), ("dent", "cut"))
    assert (b.defects, b.other_defects) == (("burn",), ("dent",))
    assert c.other_defects == ("burn", "tear")
    assert (a.phrases, a.other_phrases) == (("moth hole",), ("bent blade", "rust"))
    assert (b.phrases, b.other_phrases) == ((), ("bent blade", "rust"))
    assert c.other_phrases == ("moth hole",)
    alone = DatasetImages(index[index["category"] == "a"], Path()).described("a")
    assert (alone.other_defects, alone.phrases, alone.other_phrases) == ((), (), ())


def test_a_missing_or_empty_folder_says_what_was_expected(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name, state in [
        ("missing", "does not exist"),
        ("empty", "has no folder with images"),
        ("file", "is no folder"),
    ]:
        message = re.escape(f"{tmp_path / name}: {state}, expected <category>/train/good")
        with pytest.raises(ClipadError, match=message):
            read_index(tmp_path / name, "mini")


def test_the_hash_is_the_same_for_a_copy_and_follows_every_byte(root, tmp_path):
    fill(tmp_path / "copy", "nut")
    fill(tmp_path / "copy", "bolt")

    def digest(folder: Path, name: str = "mini") -> str:
        return index_hash(read_index(folder, name), folder)

    whole = digest(root)
    assert len(whole) == 64
    assert digest(tmp_path / "copy") == whole
    assert digest(root, "other") != whole
    mask = root / "nut" / "ground_truth" / "hole" / "000_mask.png"
    mask.write_bytes(mask.read_bytes() + b"\0")
    changed = digest(root)
    assert changed != whole
    assert index_hash(read_index(root, "mini").iloc[:-1], root) != changed


def test_a_file_that_went_away_after_indexing_is_named(root):
    index = read_index(root, "mini")
    (root / "nut" / "test" / "hole" / "001.png").unlink()
    with pytest.raises(ClipadError, match=r"nut/test/hole/001\.png: cannot be read"):
        index_hash(index, root)


def test_a_dataset_is_found_in_data_root_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPAD_DATA", str(tmp_path / "variable"))
    fill(tmp_path / "variable" / "mvtec", "bottle")
    (tmp_path / "given" / "mvtec").mkdir(parents=True)
    assert find_dataset("mvtec", tmp_path / "given") == tmp_path / "variable" / "mvtec"
    fill(tmp_path / "given" / "mvtec", "bottle")
    assert find_dataset("mvtec", tmp_path / "given") == tmp_path / "given" / "mvtec"
    assert find_dataset("mvtec", None) == tmp_path / "variable" / "mvtec"


def test_a_dataset_that_is_nowhere_lists_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPAD_DATA", str(tmp_path / "variable"))
    (tmp_path / "given" / "mvtec").mkdir(parents=True)
    with pytest.raises(ClipadError) as caught:
        find_dataset("mvtec", tmp_path / "given")
    message = str(caught.value)
    assert f"{tmp_path / 'given' / 'mvtec'} (has no folder with images)" in message
    assert f"{tmp_path / 'variable' / 'mvtec'} (does not exist)" in message
    assert "Download MVTec AD from https://www.mvtec.com" in message
    monkeypatch.delenv("CLIPAD_DATA")
    with pytest.raises(ClipadError, match=r"data_root \(not set\), CLIPAD_DATA \(not set\)"):
        find_dataset("mvtec", None)


def test_an_unknown_dataset_lists_the_known_ones(tmp_path):
    names = "hazelnut_toy, .*mvtec, .*synthetic_auxiliary, synthetic_target"
    with pytest.raises(ClipadError, match=f"found 'mvtek', expected one with a card .*{names}"):
        find_dataset("mvtek", tmp_path)


def unpublished_message(name: str) -> str:
    with pytest.raises(MissingDataset) as caught:
        find_dataset(name, None)
    return str(caught.value)


@pytest.mark.parametrize("name", sorted(path.stem for path in CARDS.glob("*.yaml")))
def test_every_card_is_complete(name):
    card = read_card(name)
    optional = {"licence", "folders", "archives", "missing", "printed_as", "printed_in"}
    optional.add("logical_anomalies")
    optional |= {"phrases"}
    if card.layout is None:
        optional |= {"layout", "categories"}
        assert f"dataset {name}: not published, so that nobody" in unpublished_message(name)
    else:
        assert "{" not in expected(card.layout, card.folders)
    assert all(getattr(card, field) for field in set(vars(card)) - optional)
    assert card.counts.source
    if card.counts.categories and card.counts.normal is not None:
        assert sum(card.counts.categories.values()) == card.counts.test
    assert list(card.categories) == sorted(set(card.categories))


def test_the_cards_name_the_categories_that_exist():
    assert set(read_card("synthetic_target").categories) == set(TARGET)
    assert set(read_card("synthetic_auxiliary").categories) == set(AUXILIARY)
    assert len(read_card("mvtec").categories) == 15


@pytest.mark.parametrize("name", ["synthetic_target", "mvtec"])
def test_every_category_has_an_engineer_s_phrases_of_its_own(name):
    card = read_card(name)
    assert list(card.phrases) == list(card.categories)
    phrases = [(category, text) for category, own in card.phrases.items() for text in own]
    assert all(len(own) >= 3 and len(set(own)) == len(own) for own in card.phrases.values())
    # A phrase names no category: the prompt does.
    assert not [text for category, text in phrases if category.replace("_", " ") in text]


def test_phrases_of_a_category_that_is_none_are_refused(tmp_path):
    card = (CARDS / "hazelnut_toy.yaml").read_text(encoding="utf-8")
    (tmp_path / "hazelnut_toy.yaml").write_text(f"{card}phrases: {{almond: [a worm hole]}}\n")
    with pytest.raises(ClipadError, match="phrases for almond, which are no categories of it"):
        read_card("hazelnut_toy", tmp_path)


def test_a_card_with_other_fields_is_refused(tmp_path):
    (tmp_path / "mini.yaml").write_text("name: mini\nlicense: free\n")
    with pytest.raises(
        ClipadError,
        match=r"mini\.yaml: found no title, .*, archives and an unknown license, expected .* name, title",
    ):
        read_card("mini", tmp_path)


@pytest.mark.parametrize(("name", "normal", "damaged"), [("mvtec", 5, 15), ("hazelnut_toy", 6, 17)])
def test_a_real_sample_is_indexed(name, normal, damaged):
    data = os.environ.get("CLIPAD_DATA")
    if not data or not Path(data, name).is_dir():
        pytest.skip(f"CLIPAD_DATA has no {name}")
    folder = find_dataset(name, None)
    index = read_index(folder, name)
    test = index[index["split"] == "test"]
    assert test["label"].value_counts().to_dict() == {0: normal, 1: damaged}
    assert set(index["category"]) <= set(read_card(name).categories)
    assert all((folder / mask).is_file() for mask in test[test["label"] == 1]["mask"])
