"""Every dataset's original layout in miniature, drawn to disk for tests."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (6, 8)


def write(path: Path, size: tuple[int, int] = SIZE, value: int = 90) -> Path:
    """A grey picture whose bytes differ from those of every other path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(size, value, dtype=np.uint8)
    digest = hashlib.sha256(os.fsencode(path)).digest()
    pixels[0] = np.frombuffer(digest[: size[1]], dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_mask(
    path: Path, rows: slice = slice(2, 4), size: tuple[int, int] = SIZE, value: int = 255
) -> Path:
    """A mask that marks these rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(size, dtype=np.uint8)
    pixels[rows] = value
    Image.fromarray(pixels).save(path)
    return path


def mvtec(root: Path, category: str, good: str = "good", image: str = "png") -> None:
    for number in range(2):
        write(root / category / "train" / good / f"00{number}.{image}")
        write(root / category / "test" / good / f"00{number}.{image}")
        write(root / category / "test" / "crack" / f"00{number}.{image}")
        write_mask(root / category / "ground_truth" / "crack" / f"00{number}_mask.png")


def visa(root: Path) -> None:
    lines = ["object,split,label,image,mask"]
    for category in ("candle", "pcb1"):
        data = f"{category}/Data"
        for number, split in enumerate(("train", "train", "test", "test")):
            image = f"{data}/Images/Normal/{number:04d}.JPG"
            write(root / image)
            lines.append(f"{category},{split},normal,{image},")
        for number in range(3):
            image = f"{data}/Images/Anomaly/{number:03d}.JPG"
            mask = f"{data}/Masks/Anomaly/{number:03d}.png"
            write(root / image)
            write_mask(root / mask, value=number + 1)
            lines.append(f"{category},test,anomaly,{image},{mask}")
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(lines) + "\n")


def dagm(root: Path) -> None:
    for category in ("Class1", "Class10"):
        for split, numbers in (("Train", range(576, 580)), ("Test", range(1, 6))):
            folder = root / category / split
            for number in numbers:
                write(folder / f"{number:04d}.PNG")
            for number in numbers[1:3]:
                write_mask(folder / "Label" / f"{number:04d}_label.PNG")
            (folder / "Label" / "Labels.txt").write_text("1\n")


def kolektor(root: Path) -> None:
    """Seven rows, so that the upper half has three and the lower half four."""
    for item, marked in (("kos01", slice(0, 2)), ("kos02", slice(2, 4)), ("kos10", slice(0, 0))):
        for number in range(2):
            write(root / item / f"Part{number}.jpg", (7, 8))
            label = np.zeros((7, 8), dtype=np.uint8)
            label[marked if number else slice(0, 0)] = 1
            image = Image.fromarray(label).convert("P")
            image.putpalette([0, 0, 0, 255, 255, 255] + [0, 0, 0] * 254)
            image.save(root / item / f"Part{number}_label.bmp")


def kolektor2(root: Path) -> None:
    """Every image has a label, most of them blank; one pair of train lies there twice."""
    for split, numbers in (("train", range(10300, 10303)), ("test", range(20000, 20003))):
        for number in numbers:
            write(root / split / f"{number}.png")
            write_mask(root / split / f"{number}_GT.png", slice(2, 4 if number % 10 == 2 else 2))
    for name in ("10301", "10301_GT"):
        copy = root / "train" / f"{name} (copy).png"
        copy.write_bytes((root / "train" / f"{name}.png").read_bytes())


def mvtec_loco(root: Path) -> None:
    """The second logical anomaly has two masks."""
    for number in range(2):
        for folder in ("train/good", "validation/good", "test/good"):
            write(root / "pushpins" / folder / f"00{number}.png")
        for defect in ("logical_anomalies", "structural_anomalies"):
            write(root / "pushpins" / "test" / defect / f"00{number}.png")
            masks = root / "pushpins" / "ground_truth" / defect / f"00{number}"
            write_mask(masks / "000.png", value=254)
    write_mask(root / "pushpins/ground_truth/logical_anomalies/001/001.png", slice(4, 5))
    (root / "pushpins" / "defects_config.json").write_text("[]")


def mvtec_ad2(root: Path) -> None:
    vial = root / "vial"
    for light in ("regular", "shift_1"):
        write(vial / "test_private" / f"000_{light}.png")
        for folder in ("train/good", "validation/good", "test_public/good", "test_public/bad"):
            write(vial / folder / f"000_{light}.png")
        write_mask(vial / "test_public" / "ground_truth" / "bad" / f"000_{light}_mask.png")


def real_iad(root: Path) -> None:
    """An object a split and class, two views each; on one view the defect cannot be seen."""
    splits: dict[str, list[dict[str, str | None]]] = {"train": [], "test": []}
    samples = (("train", "OK/S0001"), ("test", "OK/S0002"), ("test", "NG/AK/S0003"))
    for split, sample in samples:
        for view in ("C1", "C2"):
            seen = sample.startswith("NG") and view == "C1"
            image, mask = f"{sample}/usb_{view}.jpg", f"{sample}/usb_{view}_mask.png"
            write(root / "realiad_1024" / "usb" / image)
            if seen:
                write_mask(root / "realiad_1024" / "usb" / mask)
            line = {"image_path": image, "mask_path": mask if seen else None}
            splits[split].append(
                {"category": "usb", "anomaly_class": "AK" if seen else "OK"} | line
            )
    path = root / "realiad_jsons" / "realiad_jsons" / "usb.json"
    path.parent.mkdir(parents=True)
    meta = {"normal_class": "OK", "prefix": "usb/"}
    path.write_text(json.dumps({"meta": meta, **splits}))


def bmad(root: Path, train: str, normal: str, anomalous: str, masks: str = "") -> None:
    for number in range(2):
        for folder in (train, normal, anomalous):
            write(root / folder / f"0000{number}_60.png")
        if masks:
            write_mask(root / masks / f"0000{number}_60.png")


def pairs(root: Path, images: str, masks: str, mask: str = "{}.png", image: str = "png") -> None:
    for stem in ("1", "2", "10"):
        write(root / images / f"{stem}.{image}")
        write_mask(root / masks / mask.format(stem))


def classes(root: Path, normal: str, anomalous: str) -> None:
    for number in (1, 2, 10):
        write(root / normal / f"{number} no.jpeg")
        write(root / anomalous / f"Y{number}.JPG")


def head_ct(root: Path) -> None:
    """As on Kaggle: numbers without zeros, a space before the second column's name."""
    lines = ["id, hemorrhage"]
    for number in range(4):
        write(root / "head_ct" / "head_ct" / f"{number:03d}.png")
        lines.append(f"{number},{int(number < 2)}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")


# Every card of a published dataset: what its folder looks like, and what is in it as (normal training,
# normal test, anomalous test).
FOLDERS: dict[str, tuple[Callable[[Path], None], tuple[int, int, int]]] = {
    "mvtec": (lambda root: mvtec(root, "bottle"), (2, 2, 2)),
    "visa": (visa, (4, 4, 6)),
    "mpdd": (lambda root: mvtec(root, "metal_plate"), (2, 2, 2)),
    "btad": (lambda root: mvtec(root, "03", "ok", "bmp"), (2, 2, 2)),
    "kolektor_sdd": (kolektor, (0, 9, 3)),
    "kolektor_sdd_anomalyclip": (lambda root: mvtec(root, "electrical commutators"), (2, 2, 2)),
    "dagm": (dagm, (4, 6, 4)),
    "dtd_synthetic": (lambda root: mvtec(root, "Woven_001"), (2, 2, 2)),
    "isic2016": (
        lambda root: pairs(
            root,
            "ISBI2016_ISIC_Part1_Test_Data",
            "ISBI2016_ISIC_Part1_Test_GroundTruth",
            "{}_Segmentation.png",
            "jpg",
        ),
        (0, 0, 3),
    ),
    "cvc_clinicdb": (
        lambda root: pairs(root, "Original", "Ground Truth", "{}.tif", "tif"),
        (0, 0, 3),
    ),
    "cvc_colondb": (lambda root: pairs(root, "images", "masks"), (0, 0, 3)),
    "kvasir_seg": (lambda root: pairs(root, "images", "masks", "{}.jpg", "jpg"), (0, 0, 3)),
    "endotect": (lambda root: pairs(root, "images", "masks", "{}.jpg", "jpg"), (0, 0, 3)),
    "tn3k": (lambda root: pairs(root, "test-image", "test-mask", "{}.jpg", "jpg"), (0, 0, 3)),
    "head_ct": (head_ct, (0, 2, 2)),
    "brain_mri": (lambda root: classes(root, "no", "yes"), (0, 3, 3)),
    "br35h": (lambda root: classes(root, "no", "yes"), (0, 3, 3)),
    "covid19": (lambda root: classes(root, "NORMAL", "COVID-19"), (0, 3, 3)),
    "kolektor_sdd2": (kolektor2, (2, 2, 1)),
    "kolektor_sdd2_bayespfl": (lambda root: mvtec(root, "Metal", image="bmp"), (2, 2, 2)),
    "rsdds_type1": (
        lambda root: pairs(root, "Rail surface images", "GroundTruth", "{}.jpg", "jpg"),
        (0, 0, 3),
    ),
    "rsdds_type2": (
        lambda root: pairs(root, "Rail surface images", "GroundTruth", "{}.jpg", "jpg"),
        (0, 0, 3),
    ),
    "rsdds_bayespfl": (lambda root: mvtec(root, "Metal15", image="bmp"), (2, 2, 2)),
    "dagm_bayespfl": (lambda root: mvtec(root, "Fabric1", image="bmp"), (2, 2, 2)),
    "mvtec_loco": (mvtec_loco, (2, 2, 4)),
    "mvtec_ad2": (mvtec_ad2, (2, 2, 2)),
    "real_iad": (real_iad, (2, 3, 1)),
    "bmad_brain": (
        lambda root: bmad(
            root, "train/good", "test/good/img", "test/Ungood/img", "test/Ungood/label"
        ),
        (2, 2, 2),
    ),
    "bmad_liver": (
        lambda root: bmad(
            root, "train/good", "test/img/good", "test/img/Ungood", "test/label/Ungood"
        ),
        (2, 2, 2),
    ),
    "bmad_resc": (
        lambda root: bmad(
            root, "Train/train/good", "Test/test/good", "Test/test/Ungood", "Test/test_label/Ungood"
        ),
        (2, 2, 2),
    ),
    "bmad_oct2017": (
        lambda root: bmad(root, "train/good", "test/good/img", "test/Ungood/img"),
        (2, 2, 2),
    ),
    "bmad_chest": (
        lambda root: bmad(root, "train/good", "test/good/img", "test/Ungood/img"),
        (2, 2, 2),
    ),
    "bmad_histopathology": (
        lambda root: bmad(root, "train/good", "test/good", "test/Ungood"),
        (2, 2, 2),
    ),
}
# Cards of datasets that nobody published.
UNPUBLISHED = (
    *("bsd_vcpclip", "btad_vcpclip", "dagm_vcpclip", "gc_vcpclip"),
    *("kolektor_sdd2_vcpclip", "msd_vcpclip", "road_vcpclip", "rsdds_vcpclip"),
)
