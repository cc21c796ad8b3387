"""Original folder layouts, each in miniature, and the traps that the published scripts fall into."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dataset_folders import FOLDERS, SIZE, UNPUBLISHED, bmad, head_ct, pairs, write, write_mask
from PIL import Image

from clipad_core.errors import ClipadError
from clipad_harness.data.cards import CARDS, card_names, read_card
from clipad_harness.data.dataset_check import check
from clipad_harness.data.dataset_images import DatasetImages, choose_references
from clipad_harness.data.datasets import index_hash, read_index, survey
from clipad_harness.data.fetch import offered
from clipad_harness.data.images import file_hash, image_size, read_image, read_mask
from clipad_harness.experiments.shards import CategoryScores, measure

POLYPS = ["cvc_clinicdb", "cvc_colondb", "endotect", "kvasir_seg"]
PIXEL_ONLY = [*POLYPS, "isic2016", "tn3k", "rsdds_type1", "rsdds_type2"]
IMAGE_ONLY = ["br35h", "brain_mri", "covid19", "head_ct"]
BMAD_WITHOUT_MASKS = ["bmad_chest", "bmad_histopathology", "bmad_oct2017"]


@pytest.fixture
def make(tmp_path: Path):
    def build(name: str) -> Path:
        root = tmp_path / name
        root.mkdir()
        FOLDERS[name][0](root)
        return root

    return build


def problems(root: Path, name: str) -> str:
    with pytest.raises(ClipadError) as caught:
        read_index(root, name)
    return str(caught.value)


def test_every_published_dataset_has_a_card_and_a_miniature():
    drawn = {"hazelnut_toy", "synthetic_auxiliary", "synthetic_target"}
    assert set(card_names()) - drawn - set(UNPUBLISHED) == set(FOLDERS)
    # Of the AnomalyCLIP paper 17 and KolektorSDD as its authors cut it; six of BMAD; RSDDs twice,
    # KolektorSDD2, DAGM and RSDDs as Bayes-PFL cuts them.
    assert len(FOLDERS) == (17 + 1) + 6 + (2 + 1 + 3) + len(("mvtec_loco", "mvtec_ad2", "real_iad"))
    assert {name for name in card_names() if read_card(name).layout is None} == set(UNPUBLISHED)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_original_layout_is_read(make, name):
    root, card = make(name), read_card(name)
    index = read_index(root, name)
    train, test = index[index["split"] == "train"], index[index["split"] == "test"]
    counted = (len(train), int((test["label"] == 0).sum()), int((test["label"] == 1).sum()))
    assert counted == FOLDERS[name][1]
    assert set(index["category"]) <= set(card.categories)
    assert set(train["label"]) <= {0}
    normal, damaged = index[index["label"] == 0], index[index["label"] == 1]
    assert set(normal["defect"]) <= {"good"} and set(normal["mask"]) <= {""}
    assert (damaged["mask"] != "").all() if "pixel" in card.levels else set(damaged["mask"]) == {""}
    for row in damaged[damaged["mask"] != ""].to_dict("records"):
        size = image_size(root / row["image"])
        assert read_mask(root / row["mask"], size).any()
        assert np.asarray(read_image(root / row["image"])).shape == (*size, 3)
    order = list(zip(index["category"], index["split"], index["defect"], index["image"]))
    assert order == sorted(order)
    assert len(index_hash(index, root)) == 64


@pytest.mark.parametrize("name", FOLDERS)
def test_the_order_of_the_file_system_does_not_matter(make, name, monkeypatch):
    root = make(name)
    expected = read_index(root, name)
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: sorted(listing(path), reverse=True))
    pd.testing.assert_frame_equal(read_index(root, name), expected)


@pytest.mark.parametrize("name", FOLDERS)
def test_image_and_mask_pair_by_name_and_not_by_position(make, name):
    """The published scripts pair the n-th image with the n-th mask: a gap shifts all behind it."""
    root = make(name)
    index = read_index(root, name)
    masked = index[index["mask"] != ""]
    for row in masked.to_dict("records"):
        image, mask = Path(row["image"]), Path(row["mask"])
        assert re.sub(r"@.*", "", image.stem) in mask.stem
    if name == "kolektor_sdd" or masked.empty:
        return
    gap = root / masked.iloc[0]["mask"]
    shutil.rmtree(gap) if gap.is_dir() else gap.unlink()
    if name == "dagm":  # an image without a label is a normal one here
        gone = read_index(root, name)
        assert len(gone[gone["mask"] != ""]) == len(masked) - 1
        common = gone.merge(masked, on=["image", "mask"])
        assert len(common) == len(masked) - 1
        return
    assert Path(masked.iloc[0]["mask"]).stem in problems(root, name) or "no mask" in problems(
        root, name
    )


@pytest.mark.parametrize("name", PIXEL_ONLY + IMAGE_ONLY + BMAD_WITHOUT_MASKS)
def test_one_sided_datasets_say_so(name):
    card = read_card(name)
    assert card.levels == (("pixel",) if name in PIXEL_ONLY else ("image",))
    assert (card.counts.normal == 0) == (name in PIXEL_ONLY)


def test_every_category_is_known():
    """The official class table lacks `brain`, so that three datasets crash there."""
    words = {name: read_card(name).categories for name in card_names()}
    assert words["head_ct"] == words["brain_mri"] == words["br35h"] == ("brain",)
    assert words["covid19"] == ("chest",)
    assert words["isic2016"] == ("skin",)
    assert words["tn3k"] == ("thyroid",)
    assert words["kolektor_sdd"] == ("electrical commutators",)
    assert words["btad"] == ("01", "02", "03")
    assert words["dagm"][:3] == ("Class1", "Class10", "Class2")
    assert {words[name] for name in POLYPS} == {("colon",)}
    assert len(words["real_iad"]) == 30


def test_counts_are_those_of_the_papers_table_of_test_sets():
    printed = {
        "mvtec": (467, 1258),
        "visa": (962, 1200),
        "mpdd": (176, 282),
        "btad": (451, 290),
        "kolektor_sdd_anomalyclip": (181, 74),
        "dagm": (6996, 1054),
        "dtd_synthetic": (357, 947),
        "isic2016": (0, 379),
        "cvc_clinicdb": (0, 612),
        "cvc_colondb": (0, 380),
        "kvasir_seg": (0, 1000),
        "endotect": (0, 200),
        "tn3k": (0, 614),
        "head_ct": (100, 100),
        "brain_mri": (98, 155),
        "br35h": (1500, 1500),
        "covid19": (1341, 219),
    }
    for name, counts in printed.items():
        card = read_card(name)
        assert (card.counts.normal, card.counts.anomalous) == counts, name
    assert len(printed) == 17


def test_dagm_keys_are_lower_case_and_its_damaged_training_images_are_left_out(make):
    """The official json has `Train` and `Test` where its loader reads `test`, in a set's order."""
    index = read_index(make("dagm"), "dagm")
    assert set(index["split"]) == {"train", "test"}
    train = index[index["split"] == "train"]["image"]
    assert list(train)[:2] == ["Class1/Train/0576.PNG", "Class1/Train/0579.PNG"]
    marked = index[index["label"] == 1].iloc[0]
    assert marked["image"] == "Class1/Test/0002.PNG"
    assert marked["mask"] == "Class1/Test/Label/0002_label.PNG"


def test_anomalous_training_images_of_visas_table_are_no_references(make):
    """As in the tables of its two-class splits: ``train,anomaly``."""
    root = make("visa")
    table = root / "split_csv" / "1cls.csv"
    table.write_text(table.read_text().replace("pcb1,test,anomaly", "pcb1,train,anomaly", 2))
    index = read_index(root, "visa")
    assert set(index[index["split"] == "train"]["label"]) == {0}
    references = DatasetImages(index, root).references("pcb1", 2, 0, "seeded")
    assert {path.parent.name for path in references} == {"Normal"}
    damaged = index[(index["category"] == "pcb1") & (index["label"] == 1)]
    assert damaged["image"].tolist() == ["pcb1/Data/Images/Anomaly/002.JPG"]


def test_kolektor_images_are_cut_into_an_upper_and_a_lower_half(make):
    root = make("kolektor_sdd")
    index = read_index(root, "kolektor_sdd").set_index("image")
    labels = index["label"].to_dict()
    assert len(labels) == 12
    assert labels["kos01/Part1.jpg@1of2"] == 1  # rows 0 and 1
    assert labels["kos01/Part1.jpg@2of2"] == 0
    # Rows 2 and 3 of 7: the defect crosses the cut and marks both halves.
    assert labels["kos02/Part1.jpg@1of2"] == labels["kos02/Part1.jpg@2of2"] == 1
    upper, lower = root / "kos02/Part1.jpg@1of2", root / "kos02/Part1.jpg@2of2"
    assert (image_size(upper), image_size(lower)) == ((3, 8), (4, 8))
    whole = np.asarray(read_image(root / "kos02/Part1.jpg"))
    halves = [np.asarray(read_image(half)) for half in (upper, lower)]
    assert np.array_equal(np.concatenate(halves), whole)
    mask = read_mask(root / index["mask"]["kos02/Part1.jpg@2of2"], (4, 8))
    assert mask.sum(axis=1).tolist() == [8, 0, 0, 0]
    assert len({file_hash(path) for path in (upper, lower, root / "kos02/Part1.jpg")}) == 3


def test_kolektor2_labels_say_what_is_anomalous_and_copies_are_not_read(make):
    root = make("kolektor_sdd2")
    contents = survey(root, "kolektor_sdd2")
    assert (contents.problems, contents.left_out) == ((), ("train/10302.png",))
    assert contents.index["image"].tolist() == [
        *("test/20002.png", "test/20000.png", "test/20001.png"),
        *("train/10300.png", "train/10301.png"),
    ]
    assert contents.index["mask"].tolist() == ["test/20002_GT.png", "", "", "", ""]


def test_the_masks_of_an_image_of_loco_are_one_mask(make):
    root = make("mvtec_loco")
    index = read_index(root, "mvtec_loco").set_index("image")
    mask = index["mask"]["pushpins/test/logical_anomalies/001.png"]
    assert mask == "pushpins/ground_truth/logical_anomalies/001"
    assert read_mask(root / mask, SIZE).any(axis=1).tolist() == [False, False, *[True] * 3, False]
    assert "pushpins/validation/good/000.png" not in index.index
    before = file_hash(root / mask), index_hash(index.reset_index(), root)
    write_mask(root / mask / "001.png", slice(5, 6))
    after = file_hash(root / mask), index_hash(index.reset_index(), root)
    assert before[0] != after[0] and before[1] != after[1]
    (root / mask / "._001.png").write_bytes(b"of a file manager")
    assert file_hash(root / mask) == after[0]
    write_mask(root / mask / "002.png", size=(3, 3))
    with pytest.raises(ClipadError, match="logical_anomalies/001: found masks of different sizes"):
        read_mask(root / mask, SIZE)


def test_of_mvtec_ad2_the_public_test_images_are_measured(make):
    root = make("mvtec_ad2")
    index, problems, remarks = check(root, "mvtec_ad2")
    test = index[index["split"] == "test"]
    assert {Path(image).parts[1] for image in test["image"]} == {"test_public"}
    assert set(test["defect"]) == {"good", "bad"}
    assert not any("test_p" in problem for problem in problems)
    (remark,) = remarks
    assert "4 images (vial/test_private/000_regular.png, " in remark
    assert "vial/validation/good/000_regular.png" in remark


def test_a_view_of_real_iad_without_the_defect_is_normal(make):
    root = make("real_iad")
    index = read_index(root, "real_iad").set_index("image")
    views = index["label"][[f"realiad_1024/usb/NG/AK/S0003/usb_C{view}.jpg" for view in (1, 2)]]
    assert views.tolist() == [1, 0]
    assert index["defect"][views.index[0]] == "AK"


@pytest.mark.parametrize("size", ["512", "256"])
def test_smaller_images_of_real_iad_are_read_where_the_large_ones_are_not_there(make, size):
    root = make("real_iad")
    expected = read_index(root, "real_iad")
    (root / "realiad_1024").rename(root / f"realiad_{size}")
    index = read_index(root, "real_iad")
    assert index["image"].str.replace(size, "1024", 1).equals(expected["image"])


def test_a_part_of_real_iad_is_read_and_nothing_outside_of_it(make):
    root = make("real_iad")
    write(root.parent / "secret.jpg")
    (root / "realiad_1024/usb/OK/S0002/usb_C2.jpg").unlink()
    outside = {"image_path": "../../../secret.jpg", "mask_path": None, "anomaly_class": "OK"}
    change_real_iad(root, lambda content: content["test"].append(outside))
    index = read_index(root, "real_iad")
    assert len(index) == 5 and not index["image"].str.contains("secret").any()
    with pytest.raises(ClipadError, match="categories: found toy, expected some of usb"):
        read_index(root, "real_iad", ["toy"])


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("bmad_brain", ["train/good", "test/good/img", "test/Ungood/img", "test/Ungood/label"]),
        ("bmad_liver", ["train/good", "test/good/img", "test/ungood/img", "test/ungood/label"]),
        ("bmad_resc", ["train/good", "test/good/img", "test/ungood/img", "test/ungood/label"]),
        ("bmad_chest", ["train/good/img", "test/good", "test/Ungood"]),
    ],
)
def test_bmad_is_read_as_its_archives_and_its_readme_have_it(make, tmp_path, name, inner):
    other = tmp_path / "other" / name
    bmad(other, *inner)
    expected, index = read_index(make(name), name), read_index(other, name)
    columns = ["category", "split", "defect", "label"]
    assert index[columns].equals(expected[columns])
    assert (index["mask"] != "").equals(expected["mask"] != "")


def test_a_jpeg_mask_counts_from_half_brightness(tmp_path):
    """Kvasir-SEG, EndoTect and TN3K: compression leaves grey beside every edge."""
    rows = np.zeros((32, 32), dtype=np.uint8)
    rows[9:21, 7:23] = 255
    Image.fromarray(rows).save(tmp_path / "mask.jpg", quality=60)
    stored = np.asarray(Image.open(tmp_path / "mask.jpg"))
    assert ((stored > 0) & (stored < 128)).any()
    assert np.array_equal(read_mask(tmp_path / "mask.jpg", (32, 32)), rows > 0)
    Image.fromarray(rows // 255 * 60).save(tmp_path / "dark.jpg")
    with pytest.raises(ClipadError, match="nowhere brighter than"):
        read_mask(tmp_path / "dark.jpg", (32, 32))


def test_btad_pairs_images_and_masks_of_different_kinds(make):
    index = read_index(make("btad"), "btad")
    damaged = index[index["label"] == 1].iloc[0]
    assert damaged["image"] == "03/test/crack/000.bmp"
    assert damaged["mask"] == "03/ground_truth/crack/000_mask.png"


def test_later_releases_of_the_covid_database_are_read(tmp_path):
    for place, stem in (("Normal", "Normal"), ("COVID", "COVID")):
        write(tmp_path / place / "images" / f"{stem}-1.png")
        write(tmp_path / place / "masks" / f"{stem}-1.png")  # of lungs, not of the disease
    index = read_index(tmp_path, "covid19")
    assert index["image"].tolist() == ["COVID/images/COVID-1.png", "Normal/images/Normal-1.png"]
    assert set(index["mask"]) == {""}


def visa_row_without_mask(root: Path) -> str:
    (root / "pcb1/Data/Masks/Anomaly/000.png").unlink()
    return "pcb1/Data/Masks/Anomaly/000.png: named in split_csv/1cls.csv, but not there"


def visa_file_without_row(root: Path) -> str:
    write(root / "pcb1/Data/Images/Normal/0999.JPG")
    return "pcb1/Data/Images/Normal/0999.JPG: not in split_csv/1cls.csv"


def visa_row_outside(root: Path) -> str:
    table = root / "split_csv" / "1cls.csv"
    write(root.parent / "secret.png")
    table.write_text(table.read_text() + "pcb1,test,normal,../secret.png,\n")
    return "../secret.png: named in split_csv/1cls.csv, but outside pcb1/Data/Images"


def visa_other_mask(root: Path) -> str:
    table = root / "split_csv" / "1cls.csv"
    text = table.read_text().replace("pcb1/Data/Masks/Anomaly/001.png", "SWAP")
    text = text.replace("pcb1/Data/Masks/Anomaly/002.png", "pcb1/Data/Masks/Anomaly/001.png")
    table.write_text(text.replace("SWAP", "pcb1/Data/Masks/Anomaly/002.png"))
    return "pcb1/Data/Masks/Anomaly/002.png: mask of another name than its image 001.JPG"


def visa_semicolons(root: Path) -> str:
    table = root / "split_csv" / "1cls.csv"
    table.write_text(table.read_text().replace(",", ";"))
    return "split_csv/1cls.csv: semicolons between its columns instead of commas"


def visa_long_line(root: Path) -> str:
    table = root / "split_csv" / "1cls.csv"
    table.write_text(table.read_text() + "pcb1,test,normal,a,b,c\n")
    return "split_csv/1cls.csv: no readable table (Expected 5 fields in line 16, saw 6)"


def visa_table_is_a_pipe(root: Path) -> str:
    (root / "split_csv" / "1cls.csv").unlink()
    os.mkfifo(root / "split_csv" / "1cls.csv")
    return "split_csv/1cls.csv: found a pipe or a device"


def visa_other_table(root: Path) -> str:
    (root / "split_csv" / "1cls.csv").write_text("a,b\n1,2\n")
    return "split_csv/1cls.csv: columns a, b instead of object, split, label, image, mask"


def dagm_half_copied(root: Path) -> str:
    for path in (root / "Class10" / "Test").glob("*.PNG"):
        path.unlink()
    return "Class10/Test: no images"


def kolektor_without_label(root: Path) -> str:
    (root / "kos01" / "Part0_label.bmp").unlink()
    return "kos01/Part0.jpg: no mask in kos01"


def kolektor_damaged_label(root: Path) -> str:
    path = root / "kos01" / "Part0_label.bmp"
    path.write_bytes(path.read_bytes()[:-60])
    return "kos01/Part0_label.bmp: found a damaged or truncated image"


def isic2016_without_masks(root: Path) -> str:
    for path in (root / "ISBI2016_ISIC_Part1_Test_GroundTruth").iterdir():
        path.unlink()
    (root / "ISBI2016_ISIC_Part1_Test_GroundTruth").rmdir()
    return "ISBI2016_ISIC_Part1_Test_GroundTruth: no such folder"


def head_ct_without_line(root: Path) -> str:
    write(root / "head_ct" / "head_ct" / "009.png")
    return "head_ct/head_ct/009.png: no line in labels.csv"


def head_ct_without_images(root: Path) -> str:
    for path in (root / "head_ct" / "head_ct").iterdir():
        path.unlink()
    return "head_ct/head_ct: no images"


def head_ct_other_label(root: Path) -> str:
    (root / "labels.csv").write_text("id, hemorrhage\n0,yes\n1,1\n2,0\n3,0\n")
    return "head_ct/head_ct/000.png: label 'yes', neither 0 nor 1, in labels.csv"


def brain_mri_half_copied(root: Path) -> str:
    for path in (root / "no").iterdir():
        path.unlink()
    return "no: no images"


def cvc_colondb_extra_mask(root: Path) -> str:
    write_mask(root / "masks" / "11.png")
    return "masks/11.png: mask without an image"


def visa_line_twice(root: Path) -> str:
    table = root / "split_csv" / "1cls.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[-1]]) + "\n")
    return "pcb1/Data/Images/Anomaly/002.JPG: listed twice"


def visa_line_in_both_splits(root: Path) -> str:
    table = root / "split_csv" / "1cls.csv"
    table.write_text(table.read_text() + "pcb1,test,normal,pcb1/Data/Images/Normal/0000.JPG,\n")
    return "pcb1/Data/Images/Normal/0000.JPG: listed twice"


def head_ct_line_twice(root: Path) -> str:
    table = root / "labels.csv"
    table.write_text(table.read_text() + "000,1\n")
    return "labels.csv: names image 000 twice"


def head_ct_image_twice(root: Path) -> str:
    write(root / "head_ct" / "head_ct" / "001.jpg")
    return "head_ct/head_ct/001.png: a second image 001 beside 001.jpg"


def visa_mask_of_a_normal_image(root: Path) -> str:
    visa_masks_of_normal_images(root, slice(2, 4))
    return "pcb1/Data/Masks/Normal/0003.png: mask for a normal image that marks 16 pixels"


def kolektor_sdd2_without_label(root: Path) -> str:
    (root / "test" / "20000_GT.png").unlink()
    return "test/20000.png: no mask in test"


def kolektor_sdd2_damaged_label(root: Path) -> str:
    path = root / "train" / "10300_GT.png"
    path.write_bytes(path.read_bytes()[:-24])
    return "train/10300_GT.png: found a damaged or truncated image"


def kolektor_sdd2_half_copied(root: Path) -> str:
    shutil.rmtree(root / "test")
    return "test: no images"


def mvtec_loco_without_masks(root: Path) -> str:
    (root / "pushpins/ground_truth/structural_anomalies/001/000.png").unlink()
    return "pushpins/ground_truth/structural_anomalies/001: no masks in it"


def mvtec_loco_mask_of_another_size(root: Path) -> str:
    write_mask(root / "pushpins/ground_truth/logical_anomalies/001/002.png", size=(8, 8))
    return "pushpins/ground_truth/logical_anomalies/001: masks of different sizes"


def mvtec_loco_image_of_another_size(root: Path) -> str:
    write(root / "pushpins/test/logical_anomalies/001.png", (8, 8))
    return "pushpins/ground_truth/logical_anomalies/001: mask of 6 x 8 pixels for an image of 8 x 8"


def mvtec_loco_mask_without_its_folder(root: Path) -> str:
    write_mask(root / "pushpins/ground_truth/logical_anomalies/000.png")
    return "pushpins/ground_truth/logical_anomalies/000.png: no folder of masks"


def mvtec_ad2_without_mask(root: Path) -> str:
    (root / "vial/test_public/ground_truth/bad/000_shift_1_mask.png").unlink()
    return "vial/test_public/bad/000_shift_1.png: no mask in vial/test_public/ground_truth/bad"


def bmad_brain_without_mask(root: Path) -> str:
    (root / "test/Ungood/label/00001_60.png").unlink()
    return "test/Ungood/img/00001_60.png: no mask in test/Ungood/label"


def bmad_chest_half_copied(root: Path) -> str:
    shutil.rmtree(root / "train")
    return "train/good/img: no such folder"


REAL_IAD = "realiad_jsons/realiad_jsons/usb.json"
REAL_IAD_NG = "realiad_1024/usb/NG/AK/S0003/usb_C1"


def change_real_iad(root: Path, change) -> None:
    path = root / REAL_IAD
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def real_iad_without_splits(root: Path) -> str:
    (root / REAL_IAD).unlink()
    return f"{REAL_IAD}: no such file"


def real_iad_cut_splits(root: Path) -> str:
    (root / REAL_IAD).write_text("{")
    return f"{REAL_IAD}: no lists of the images of train and test (JSONDecodeError)"


def real_iad_other_json(root: Path) -> str:
    change_real_iad(root, lambda content: content.pop("test"))
    return f"{REAL_IAD}: no lists of the images of train and test (KeyError)"


def real_iad_line_without_image(root: Path) -> str:
    change_real_iad(root, lambda content: content["test"][0].pop("image_path"))
    return f"{REAL_IAD}: test[0].image_path: found None"


def real_iad_image_without_line(root: Path) -> str:
    write(root / "realiad_1024/usb/OK/S0001/usb_C9.jpg")
    return f"realiad_1024/usb/OK/S0001/usb_C9.jpg: not in {REAL_IAD}"


def real_iad_without_mask(root: Path) -> str:
    (root / f"{REAL_IAD_NG}_mask.png").unlink()
    return f"{REAL_IAD_NG}_mask.png: named in {REAL_IAD}, but not there"


def real_iad_line_without_mask(root: Path) -> str:
    change_real_iad(root, lambda content: content["test"][2].update(mask_path=None))
    return f"{REAL_IAD_NG}.jpg: no mask in {REAL_IAD}"


def real_iad_without_images(root: Path) -> str:
    shutil.rmtree(root / "realiad_1024" / "usb")
    (root / "realiad_1024" / "usb" / "OK").mkdir(parents=True)
    return "realiad_1024/usb: no images"


FAULTS = [
    kolektor_sdd2_without_label,
    kolektor_sdd2_damaged_label,
    kolektor_sdd2_half_copied,
    mvtec_loco_without_masks,
    mvtec_loco_mask_of_another_size,
    mvtec_loco_image_of_another_size,
    mvtec_loco_mask_without_its_folder,
    mvtec_ad2_without_mask,
    bmad_brain_without_mask,
    bmad_chest_half_copied,
    real_iad_without_splits,
    real_iad_cut_splits,
    real_iad_other_json,
    real_iad_line_without_image,
    real_iad_image_without_line,
    real_iad_without_mask,
    real_iad_line_without_mask,
    real_iad_without_images,
    visa_row_without_mask,
    visa_mask_of_a_normal_image,
    head_ct_image_twice,
    visa_line_twice,
    visa_line_in_both_splits,
    head_ct_line_twice,
    visa_file_without_row,
    visa_row_outside,
    visa_other_mask,
    visa_other_table,
    visa_semicolons,
    visa_long_line,
    visa_table_is_a_pipe,
    dagm_half_copied,
    kolektor_without_label,
    kolektor_damaged_label,
    isic2016_without_masks,
    head_ct_without_line,
    head_ct_without_images,
    head_ct_other_label,
    brain_mri_half_copied,
    cvc_colondb_extra_mask,
]


def visa_masks_of_normal_images(root: Path, last: slice) -> None:
    """Masks that mark nothing for all normal images of a category but the last one's."""
    table = root / "split_csv" / "1cls.csv"
    lines = table.read_text().splitlines()
    for number, line in enumerate(lines):
        category, _, label, image, _ = line.split(",")
        if (category, label) == ("pcb1", "normal"):
            mask = image.replace("Images", "Masks").replace("JPG", "png")
            write_mask(root / mask, last if "0003" in mask else slice(0, 0))
            lines[number] += mask
    table.write_text("\n".join(lines) + "\n")


def mvtec_masks_of_normal_images(root: Path) -> None:
    for number in range(2):
        mask = root / "bottle" / "ground_truth" / "good" / f"00{number}_mask.png"
        write_mask(mask, slice(0, 0))


@pytest.mark.parametrize("name", ["visa", "mvtec"])
def test_masks_of_normal_images_that_mark_nothing_are_ignored(make, name):
    root = make(name)
    expected = read_index(root, name)
    if name == "visa":
        visa_masks_of_normal_images(root, slice(0, 0))
    else:
        mvtec_masks_of_normal_images(root)
    pd.testing.assert_frame_equal(read_index(root, name), expected)


def test_dagm_without_training_images_is_read(make):
    root = make("dagm")
    for category in ("Class1", "Class10"):
        shutil.rmtree(root / category / "Train")
    assert set(read_index(root, "dagm")["split"]) == {"test"}


@pytest.mark.parametrize("folder", ["none", "empty"])
def test_visa_without_masks_has_anomalous_images_alone(make, folder):
    root = make("visa")
    table = root / "split_csv" / "1cls.csv"
    expected = read_index(root, "visa")
    text = table.read_text()
    for mask in sorted(root.glob("pcb1/Data/Masks/Anomaly/*")):
        text = text.replace(mask.relative_to(root).as_posix(), "")
        mask.unlink()
    if folder == "none":
        shutil.rmtree(root / "pcb1/Data/Masks")
    table.write_text(text)
    index = read_index(root, "visa")
    assert index["image"].equals(expected["image"]) and index["label"].equals(expected["label"])
    assert set(index.loc[index["category"] == "pcb1", "mask"]) == {""}
    assert (index.loc[index["category"] == "candle", "mask"] != "").sum() == 3


@pytest.mark.parametrize("change", [
    lambda text: text.replace("/", "\\"),
    lambda text: f"\ufeff{text}",
    lambda text: text.replace(",label,", ", label ,", 1),
], ids=["backslashes", "byte order mark", "spaces"])  # fmt: skip
def test_tables_as_windows_writes_them_are_read(make, change):
    root = make("visa")
    expected, table = read_index(root, "visa"), root / "split_csv" / "1cls.csv"
    table.write_text(change(table.read_text()), encoding="utf-8")
    pd.testing.assert_frame_equal(read_index(root, "visa"), expected)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_one_fault_of_a_layout_is_named(make, fault):
    name = next(name for name in sorted(FOLDERS, key=len, reverse=True)
                if fault.__name__.startswith((name, name.removesuffix("_sdd"))))  # fmt: skip
    root = make(name)
    assert f"\n  {fault(root)}" in problems(root, name)


@pytest.mark.parametrize(
    ("name", "part", "count"),
    [
        ("visa", "pcb1/Data/Images/Anomaly/000.JPG", 13),
        ("visa", "pcb1/Data/Masks", 14),
        ("head_ct", "head_ct/head_ct/003.png", 3),
    ],
)
def test_a_part_of_what_a_table_names_is_read(make, name, part, count):
    root = make(name)
    shutil.rmtree(root / part) if (root / part).is_dir() else (root / part).unlink()
    index = read_index(root, name)
    assert len(index) == count
    unmasked = index[(index["label"] == 1) & (index["mask"] == "")]
    assert set(unmasked["category"]) == ({"pcb1"} if "Masks" in part else set(unmasked["category"]))


def test_a_message_about_a_dataset_without_masks_expects_none(make):
    root = make("head_ct")
    head_ct_without_line(root)
    assert "mask" not in problems(root, "head_ct")


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_something_else_is_refused(tmp_path, name):
    (tmp_path / "Documents" / "Taxes").mkdir(parents=True)
    (tmp_path / "Documents" / "letter.docx").write_text("x")
    message = problems(tmp_path, name)
    assert "expected" in message and str(tmp_path) in message


def test_names_with_spaces_and_any_script_are_read(tmp_path):
    for stem in ("10 no", "Ångström", "画像 1"):
        write(tmp_path / "images" / f"{stem}.png")
        write_mask(tmp_path / "masks" / f"{stem}.png")
    index = read_index(tmp_path, "cvc_colondb")
    assert [Path(image).stem for image in index["image"]] == ["10 no", "Ångström", "画像 1"]
    assert len(index_hash(index, tmp_path)) == 64


def test_a_name_that_is_no_utf8_is_a_problem_and_no_traceback(tmp_path):
    pairs(tmp_path, "images", "masks")
    raw = os.fsencode(tmp_path / "images") + b"/caf\xe9.png"
    try:
        os.rename(os.fsencode(write(tmp_path / "images" / "new.png")), raw)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    message = problems(tmp_path, "cvc_colondb")
    assert "images/caf\\udce9.png: its name is not UTF-8" in message
    message.encode()


def header(width: int, height: int) -> bytes:
    """A PNG file that says its size and has no pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_a_million_pixel_wide_image_is_measured_and_not_decoded(tmp_path):
    (tmp_path / "wide.png").write_bytes(header(1_000_000, 30))
    assert image_size(tmp_path / "wide.png") == (30, 1_000_000)
    head_ct(tmp_path)
    (tmp_path / "head_ct" / "head_ct" / "000.png").write_bytes(header(1_000_000, 1_000_000))
    message = problems(tmp_path, "head_ct")
    assert "head_ct/head_ct/000.png: found more pixels than an image may have" in message


@pytest.mark.parametrize("name", ["cvc_colondb", "brain_mri", "mvtec"])
def test_undefined_metrics_are_nan_and_the_others_are_measured(make, name):
    root, card = make(name), read_card(name)
    index = read_index(root, name)
    images = DatasetImages(index, root)
    category = index["category"][0]
    rows = images.rows(category, "test")
    random = np.random.default_rng(0)
    maps = [random.random(SIZE, dtype=np.float32) for _ in range(len(rows))]
    masks = images.masks(rows, maps, "nearest")
    scores = random.random(len(rows), dtype=np.float32)
    category_scores = CategoryScores(rows, scores, maps, masks, [])
    values = measure(category_scores, images.has_masks(category), "exact", 0.3)
    defined = {key for key, value in values.items() if not np.isnan(value)}
    levels = {"pixel" if key.startswith(("pixel", "aupro")) else "image" for key in defined}
    assert levels == set(card.levels)


@pytest.mark.parametrize("name", [*PIXEL_ONLY, *IMAGE_ONLY, "kolektor_sdd"])
def test_without_training_images_few_shot_is_refused_and_zero_shot_is_not(make, name):
    index = read_index(make(name), name)
    paths = [Path(image) for image in index[index["split"] == "train"]["image"]]
    assert choose_references(paths, 0, 0, "seeded") == []
    with pytest.raises(ClipadError, match="found 1, expected at most 0"):
        choose_references(paths, 1, 0, "seeded")


SAMPLES = {
    "mvtec": (8, 5, 15),
    "hazelnut_toy": (10, 6, 17),
    "kolektor_sdd": (0, 29, 3),
    "cvc_clinicdb": (0, 0, 20),
    "brain_mri": (0, 15, 15),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_real_sample_is_read(name):
    data = os.environ.get("CLIPAD_DATA")
    if not data or not Path(data, name).is_dir():
        pytest.skip(f"CLIPAD_DATA has no {name}")
    root = Path(data, name)
    index = read_index(root, name)
    test = index[index["split"] == "test"]
    counted = (
        len(index) - len(test),
        int((test["label"] == 0).sum()),
        int((test["label"] == 1).sum()),
    )
    assert counted == SAMPLES[name]
    for row in index[index["mask"] != ""].to_dict("records"):
        assert read_mask(root / row["mask"], image_size(root / row["image"])).any()


@pytest.mark.parametrize("name", card_names())
def test_the_page_of_datasets_has_a_line_for_every_card(name):
    card = read_card(name)
    counts = [card.counts.normal, card.counts.anomalous]
    if counts == [None, None] and card.counts.test:
        counts = [f"{card.counts.test} together", None]
    cells = [
        f"`{name}`",
        card.title,
        str(len(card.categories)),
        *("-" if count is None else str(count) for count in counts),
        ", ".join(card.levels),
        card.licence or "not known",
        "yes" if offered(card) else "no",
    ]
    if card.layout is None:
        cells[2], cells[-1] = "-", "not published"
    page = (CARDS.parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    assert f"| {' | '.join(cells)} |" in page


def test_cards_that_yaml_would_misread_are_refused(tmp_path):
    """Unquoted, YAML reads 01 as a number and `no` as false."""
    text = (CARDS / "btad.yaml").read_text()
    (tmp_path / "btad.yaml").write_text(text.replace('"01", "02"', "01, 02"))
    with pytest.raises(ClipadError, match=r"categories\[0\]: found 1, expected str; put quotes"):
        read_card("btad", tmp_path)
    text = (CARDS / "br35h.yaml").read_text()
    (tmp_path / "br35h.yaml").write_text(text.replace('"no"', "no"))
    with pytest.raises(ClipadError, match=r"folders\.normal: found \[False.*; put quotes"):
        read_card("br35h", tmp_path)
    (tmp_path / "btad.yaml").write_text((CARDS / "btad.yaml").read_text() + "more: 1\n")
    with pytest.raises(ClipadError, match="found an unknown more, expected fields of name, title"):
        read_card("btad", tmp_path)
