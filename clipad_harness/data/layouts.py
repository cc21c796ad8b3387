"""The original folder layouts of the datasets, one short function each.

A layout reads one category of a dataset into a `Reading`: where its images and masks lie, and which
image belongs to which split. Pairing goes by name and never by position in a listing: the
published preparation scripts sort images and masks apart and pair the n-th with the n-th, which
shifts all pairs behind one missing file.

A new dataset in MVTec's layout needs a card and no code; any other needs a card and a function here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from clipad_core.errors import ClipadError
from clipad_core.validation import validate
from clipad_harness.base.files import check_regular
from clipad_harness.data.images import image_size, part_of, read_mask, read_mask_file
from clipad_harness.data.reading import Reading, folders_of

_MASK_NAMES = ("{}", "{}_mask")  # MVTec AD's own is NNN_mask; anomalib's toy set has NNN
# What people call a folder of normal images, the usual names first; as `_plain` gives them.
_NORMAL = (
    "good",
    "ok",
    "normal",
    "no",
    "negative",
    "healthy",
    "non_defective",
    "clean",
    "okay",
    "goods",
    "normals",
    "normal_*",
    "perfect",
    "intact",
    "sound",
    "spotless",
    "unbroken",
    "undamaged",
    "undefective",
    "passed",
    "pass",
    *(
        pattern.format(damage)
        for damage in ("defect*", "anomal*", "damage*", "fault*", "flaw*", "crack*", "disease*")
        for pattern in ("no_{}", "non_{}", "non{}", "not_{}", "without_{}", "{}_free", "{}less")
    ),
)
# Words in the names of folders that may be meant so, but need not: `no_screw` lacks one.
_PERHAPS_NORMAL = frozenset(
    ("good", "goods", "ok", "okay", "normal", "normals", "healthy", "clean", "perfect", "intact")
    + ("sound", "pass", "passed", "fine", "standard", "no", "non", "not", "without", "free")
    + ("negative", "negatives", "reference", "references", "golden", "undamaged", "benign")
)
VISA_COLUMNS = ("object", "split", "label", "image", "mask")


def mvtec(reading: Reading, category: str) -> None:
    """MVTec AD, MVTec AD 2, MPDD, BTAD, DTD-Synthetic: a folder for every split and every defect.

    The card may name another folder for normal images (``good: ok`` for BTAD), for test images and for
    masks; a folder that is called like normal ones beside theirs is a problem, since its images would
    count as anomalous. Anomalous images stand alone in a category that has no mask at all, and with a
    card of level ``image`` alone. Masks of normal images are ignored where they mark nothing.
    """
    _by_defect(reading, category, reading.images)


def mvtec_loco(reading: Reading, category: str) -> None:
    """MVTec LOCO AD: as MVTec AD, but the masks of an image are the files of a folder of its name."""
    _by_defect(reading, category, reading.image_folders)


def _by_defect(reading: Reading, category: str, masks_of: Callable[[Path], list[Path]]) -> None:
    """A folder for every split and every defect; ``masks_of`` lists the masks of one defect."""
    folder, good = category_folder(reading.root, reading.folders) / category, _name(reading, "good")
    test, ground_truth = (folder / _name(reading, name) for name in ("test", "ground_truth"))
    tests = {
        subfolder.name: reading.images(subfolder)
        for subfolder in folders_of(test)
        if subfolder != ground_truth
    }
    truth = {subfolder.name: masks_of(subfolder) for subfolder in folders_of(ground_truth)}
    if not any(tests.values()):
        reading.problem(test, "no test images")
    for subfolder in folders_of(folder / "train"):
        for image in reading.images(subfolder):
            name = "good" if subfolder.name == good else subfolder.name
            reading.row(category, "train", name, image)
    for subfolder in [*folders_of(folder / "train"), *folders_of(test)]:
        if subfolder.name != good and normal_names([subfolder.name]):
            reading.problem(subfolder, f"called like normal images, which are in {good}; rename it")
    masked = reading.masked and any(masks for defect, masks in truth.items() if defect != good)
    for defect, images in tests.items():
        masks = {}
        if defect != good and masked:
            place = ground_truth / defect
            masks = reading.pair(images, truth.get(defect, []), _MASK_NAMES, place)
        for image in images:
            name = "good" if defect == good else defect
            reading.row(category, "test", name, image, masks.get(image))
    for defect, unpaired in truth.items():
        for mask in unpaired:
            if defect == good:
                _check_blank(reading, mask)
            elif defect not in tests:
                reading.problem(mask, "mask without an image")


def _name(reading: Reading, name: str) -> str:
    """The folder that a card of MVTec AD's layout gives a name to, else the usual one."""
    return str(reading.folders.get(name, name))


def category_folder(root: Path, folders: Mapping[str, Any]) -> Path:
    """The folder that holds those of the categories: the first of the card's ``inside``, or the root."""
    places = [root / name for name in folders.get("inside", ())]
    return next((place for place in places if place.is_dir()), root)


def normal_names(names: Iterable[str]) -> list[str]:
    """Those of these names that people give to folders of normal images, the most usual first.

    >>> normal_names(["crack", "No-Defect", "Normal parts", "good"])
    ['good', 'Normal parts', 'No-Defect']
    """
    plain = {name: _plain(name) for name in names}
    matches = (name for word in _NORMAL for name in plain if fnmatchcase(plain[name], word))
    return list(dict.fromkeys(matches))


def sounds_normal(name: str) -> bool:
    """Whether the name of a defect may be meant for normal images.

    >>> sounds_normal("parts ok"), sounds_normal("no_screw"), sounds_normal("abnormal")
    (True, True, False)
    """
    return bool(normal_names([name])) or not _PERHAPS_NORMAL.isdisjoint(_plain(name).split("_"))


def _plain(name: str) -> str:
    """A name in lower case, its words parted by single _."""
    return re.sub(r"[\W_]+", "_", name.lower()).strip("_")


def _check_blank(reading: Reading, mask: Path) -> None:
    """Some tools write a mask for every image: that of a normal one has to mark nothing."""
    if not reading.headers:
        return
    try:
        marked = int(read_mask_file(mask).marked.sum())
    except ClipadError as error:
        reading.problem(mask, str(error).removeprefix(f"{mask}: ").split(", expected")[0])
        return
    if marked:
        reading.problem(mask, f"mask for a normal image that marks {marked:,} pixels")


def visa(reading: Reading, category: str) -> None:
    """VisA: a table with split, label, image and mask of every image, ``split_csv/1cls.csv``.

    Images of the table that are not there are left out, as in a part of the dataset; masks only where
    the category has none at all, or with a card of level ``image`` alone. Masks of normal images are
    ignored where they mark nothing. Backslashes in the table are slashes.
    """
    name = str(reading.folders["split_file"])
    table = reading.table(name, VISA_COLUMNS)
    kinds = [reading.root / category / "Data" / kind for kind in ("Images", "Masks")]
    on_disk = {
        path for kind in kinds for folder in folders_of(kind) for path in reading.images(folder)
    }
    unmasked = not reading.masked or all(kinds[1] not in path.parents for path in on_disk)
    unlisted = set(on_disk)
    for row in table[table["object"] == category].to_dict("records"):
        image = reading.root / row["image"].replace("\\", "/")
        mask = reading.root / row["mask"].replace("\\", "/") if row["mask"] else None
        unlisted -= {image, mask}
        normal = row["label"] == "normal"
        if normal and mask is not None and mask in on_disk:
            _check_blank(reading, mask)
            mask = None
        if image.parent.parent != kinds[0]:
            reading.problem(image, f"named in {name}, but outside {reading.name(kinds[0])}")
        elif image not in on_disk:
            continue
        elif mask is not None and mask not in on_disk and not unmasked:
            reading.problem(mask, f"named in {name}, but not there")
        elif (
            (normal and mask is not None)
            or (not normal and mask is None and not unmasked)
            or row["split"] not in ("train", "test")
        ):
            reading.problem(image, f"{row['split']}, {row['label']}, {row['mask']!r} in {name}")
        elif mask is not None and mask.stem != image.stem:
            reading.problem(mask, f"mask of another name than its image {image.name}")
        else:
            defect, mask = "good" if normal else "anomaly", None if unmasked else mask
            if mask is not None:
                reading.compare(image, mask)
            reading.row(category, row["split"], defect, image, mask)
    for path in sorted(unlisted):
        reading.problem(path, f"not in {name}")
    if not on_disk:
        reading.problem(kinds[0], "no images")


def dagm(reading: Reading, category: str) -> None:
    """DAGM: ``Train`` and ``Test`` with capitals; ``Label/NNNN_label.PNG`` marks an anomalous image.

    Normal is what has no label. There may be no training images.
    """
    for split in ("Train", "Test"):
        folder = reading.root / category / split
        images = reading.images(folder, beside=("Label",))
        if not images and split == "Test":
            reading.problem(folder, "no images")
        masks = reading.pair(images, reading.images(folder / "Label"), ("{}_label",), None)
        for image in images:
            defect = "defect" if image in masks else "good"
            reading.row(category, split.lower(), defect, image, masks.get(image))


def kolektor(reading: Reading, category: str) -> None:
    """KolektorSDD: ``kosNN/PartN.jpg`` with ``PartN_label.bmp``, cut into upper and lower halves.

    A half is anomalous where its half of the label marks a pixel, so the labels are decoded.
    """
    items = [item for item in folders_of(reading.root) if item.name.startswith("kos")]
    if not items:
        reading.problem(reading.root / "kos01", "no such folder")
    for item in items:
        files = reading.images(item)
        images = [file for file in files if not file.stem.endswith("_label")]
        masks = [file for file in files if file.stem.endswith("_label")]
        for image, label in reading.pair(images, masks, ("{}_label",), item).items():
            for number in (1, 2):
                half, mask = part_of(image, number, 2), part_of(label, number, 2)
                if (marked := _marks(reading, mask, label)) is None:
                    break
                defect = "crack" if marked else "good"
                reading.row(category, "test", defect, half, mask if marked else None)


def kolektor2(reading: Reading, category: str) -> None:
    """KolektorSDD2: ``train`` and ``test``, each with ``NAME.png`` and its label ``NAME_GT.png``.

    Every image has a label, and is anomalous where it marks a pixel, so the labels are decoded. The
    publisher's archive holds one pair twice (``10301 (copy)``, ``10301_GT (copy)``): copies are not read.
    """
    for split in ("train", "test"):
        folder = reading.root / split
        files = [file for file in reading.images(folder) if not file.stem.endswith(" (copy)")]
        if not files and split == "test":
            reading.problem(folder, "no images")
        images = [file for file in files if not file.stem.endswith("_GT")]
        labels = [file for file in files if file.stem.endswith("_GT")]
        for image, label in reading.pair(images, labels, ("{}_GT",), folder).items():
            if (marked := _marks(reading, label, label)) is not None:
                defect = "defect" if marked else "good"
                reading.row(category, split, defect, image, label if marked else None)


def _marks(reading: Reading, mask: Path, label: Path) -> bool | None:
    """Whether a label, or a part of one, marks a pixel; one that cannot be read is a problem."""
    try:
        return bool(read_mask(mask, image_size(mask)).any())
    except ClipadError as error:
        reading.problem(label, str(error).removeprefix(f"{label}: "))
        return None


def real_iad(reading: Reading, category: str) -> None:
    """Real-IAD: a JSON file a category names image, mask and kind of defect, for each split.

    Every view of an object is an image of its own. Images that the file names and that are not there
    are left out, as in a part of the dataset; one that it does not name is a problem.
    """
    folder = category_folder(reading.root, reading.folders) / category
    splits = reading.place(reading.folders["splits"]) / f"{category}.json"
    name = reading.name(splits)
    kinds = [folder / "OK", *folders_of(folder / "NG")]
    samples = [sample for kind in kinds for sample in folders_of(kind)]
    on_disk = {path for sample in samples for path in reading.images(sample)}
    if not on_disk:
        reading.problem(folder, "no images")
    unlisted: set[Path | None] = {*on_disk}
    for split, lines in _real_iad_lines(reading, splits).items():
        for line in lines:
            image, normal = folder / line.image_path, line.anomaly_class == "OK"
            mask = folder / line.mask_path if line.mask_path else None
            unlisted -= {image, mask}
            mask = None if normal else mask
            if image not in on_disk:
                continue
            if mask is not None and mask not in on_disk:
                reading.problem(mask, f"named in {name}, but not there")
                continue
            if mask is None and not normal:
                reading.problem(image, f"no mask in {name}")
                continue
            if mask is not None:
                reading.compare(image, mask)
            reading.row(category, split, "good" if normal else line.anomaly_class, image, mask)
    for path in sorted(path for path in unlisted if path is not None):
        reading.problem(path, f"not in {name}")


@dataclass(frozen=True)
class _RealIadLine:
    """An image in a file of Real-IAD; ``OK`` is the class of normal ones."""

    image_path: str
    mask_path: str | None
    anomaly_class: str


def _real_iad_lines(reading: Reading, path: Path) -> dict[str, list[_RealIadLine]]:
    """The images of each split as a file of Real-IAD names them; none of one that is something else."""
    names = [field.name for field in fields(_RealIadLine)]
    try:
        check_regular(path)
        content = json.loads(path.read_bytes())
        lines = {
            split: [{name: line.get(name) for name in names} for line in content[split]]
            for split in ("train", "test")
        }
        valid: dict[str, list[_RealIadLine]] = validate(dict[str, list[_RealIadLine]], lines, path)
        return valid
    except FileNotFoundError:
        reading.problem(path, "no such file")
    except ClipadError as error:
        reading.problem(path, str(error).removeprefix(f"{path}: ").split(", expected")[0])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reading.problem(path, f"no lists of the images of train and test ({type(error).__name__})")
    return {}


def pairs(reading: Reading, category: str) -> None:
    """Polyps, nodules, lesions: a folder of images and one of masks; all images are anomalous."""
    names = reading.folders
    images, place = reading.images(reading.place(names["images"])), reading.place(names["masks"])
    masks = reading.pair(images, reading.images(place), (names["mask"],), place)
    for image in images:
        reading.row(category, "test", names["defect"], image, masks.get(image))


def classes(reading: Reading, category: str) -> None:
    """BrainMRI, Br35H, COVID-19: a folder of normal and one of anomalous images, all for testing.

    The card may name folders of normal images for training and of masks as well, as those of BMAD do.
    """
    names = reading.folders
    kinds = [("test", "normal", "good"), ("test", "anomalous", names["defect"])]
    kinds += [("train", "train", "good")] if "train" in names else []
    for split, kind, defect in kinds:
        folder, masks = reading.place(names[kind]), dict[Path, Path]()
        images = reading.images(folder, beside=("images", "masks"))
        if folder.is_dir() and not images:
            reading.problem(folder, "no images")
        if kind == "anomalous" and "masks" in names and reading.masked:
            place = reading.place(names["masks"])
            masks = reading.pair(images, reading.images(place), ("{}",), place)
        for image in images:
            reading.row(category, split, defect, image, masks.get(image))


def labels(reading: Reading, category: str) -> None:
    """HeadCT: images by number, and a table with a label for each, no masks.

    Images of the table that are not there are left out, as in a part of the dataset.
    """
    names = reading.folders
    folder = reading.place(names["images"])
    table = reading.table(names["labels"], ("id", "hemorrhage"))
    label_by_stem: dict[str, str] = {}
    for key, label in zip(table["id"].str.strip(), table["hemorrhage"].str.strip(), strict=True):
        stem = f"{int(key):03d}" if key.isdecimal() else key
        if stem in label_by_stem:
            reading.problem(reading.root / names["labels"], f"names image {stem} twice")
        label_by_stem[stem] = label
    images = reading.images(folder)
    if folder.is_dir() and not images:
        reading.problem(folder, "no images")
    by_stem: dict[str, Path] = {}
    for image in images:
        if by_stem.setdefault(image.stem, image) != image:
            reading.problem(image, f"a second image {image.stem} beside {by_stem[image.stem].name}")
            continue
        value = label_by_stem.get(image.stem)
        if value not in ("0", "1"):
            problem = "no line" if value is None else f"label {value!r}, neither 0 nor 1,"
            reading.problem(image, f"{problem} in {names['labels']}")
            continue
        reading.row(category, "test", "good" if value == "0" else names["defect"], image)


class Layout(NamedTuple):
    """How to read a category, whether each has a folder of its own, and the layout in words."""

    read: Callable[[Reading, str], None]
    by_category: bool
    words: str


LAYOUTS = {
    "mvtec": Layout(
        mvtec,
        True,
        "<category>/train/{good}, <category>/{test}/<{good} or a defect>, "
        "<category>/{ground_truth}/<defect>",
    ),
    "mvtec_loco": Layout(
        mvtec_loco,
        True,
        "<category>/train/{good}, <category>/{test}/<{good} or a defect>/NNN.png, "
        "<category>/{ground_truth}/<defect>/NNN/*.png",
    ),
    "visa": Layout(
        visa,
        True,
        "{split_file}, <category>/Data/Images/<Normal or Anomaly>, <category>/Data/Masks/Anomaly",
    ),
    "dagm": Layout(dagm, True, "<category>/<Train or Test>/NNNN.PNG, .../Label/NNNN_label.PNG"),
    "kolektor": Layout(kolektor, False, "kosNN/PartN.jpg, kosNN/PartN_label.bmp"),
    "kolektor2": Layout(kolektor2, False, "<train or test>/NNNNN.png, .../NNNNN_GT.png"),
    "real_iad": Layout(
        real_iad,
        True,
        "{inside}/<category>/OK/<sample>/*.jpg, {inside}/<category>/NG/<defect>/<sample>/*.jpg and "
        "*.png, {splits}/<category>.json",
    ),
    "pairs": Layout(pairs, False, "{images}/NAME, {masks}/{mask}"),
    "classes": Layout(classes, False, "{normal}/*, {anomalous}/*"),
    "split_classes": Layout(classes, False, "{train}/*, {normal}/*, {anomalous}/*"),
    "masked_classes": Layout(
        classes, False, "{train}/*, {normal}/*, {anomalous}/NAME, {masks}/NAME"
    ),
    "labels": Layout(labels, False, "{images}/NNN.png, {labels}"),
}


def expected(layout: str, folders: Mapping[str, object]) -> str:
    """A layout in words, with the names that a card gives.

    >>> expected("mvtec", {"good": "ok"}).split(", ")[0]
    '<category>/train/ok'
    """
    names = {name: name for name in ("good", "test", "ground_truth")} | dict(folders)
    first = {key: name[0] if isinstance(name, list) else name for key, name in names.items()}
    return LAYOUTS[layout].words.format_map(first).replace("{}", "NAME")
