"""A card for a folder of one's own: what the folder tells is filled in, comments say the rest.

The layout is guessed from the names of folders; the result is an ordinary card of `data/cards/`, to be
corrected by hand and checked by `clipad data check NAME`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pandas as pd

from clipad_core.errors import ClipadError
from clipad_harness.base.files import write_text, yaml_line
from clipad_harness.data.cards import CARDS, card_names, read_card
from clipad_harness.data.datasets import dataset_folder, places, survey
from clipad_harness.data.images import SUFFIXES
from clipad_harness.data.layouts import LAYOUTS, VISA_COLUMNS, expected, normal_names
from clipad_harness.data.reading import entries, folders_of, read_table

# What people call a folder of images beside masks, and of masks; in lower case.
_IMAGES = ("images", "image", "imgs", "img", "original", "photos", "data")
_MASKS = ("masks", "mask", "ground_truth", "ground truth", "gt", "labels", "annotations")
_PAIRS_LOOKED_AT = 50
# Of a table the bytes of its first line that are looked at.
_LONGEST_HEADER = 10_000
# The folders of a category in MVTec AD's layout.
_MVTEC_FOLDERS = ("train", "test", "ground_truth")
_SHOWN = 5
# What a folder may look like, for the message about one that looks like nothing.
_EXAMPLES: Mapping[str, Mapping[str, str]] = {
    "mvtec": {},
    "visa": {"split_file": "split_csv/1cls.csv"},
    "pairs": {"images": "images", "masks": "masks", "mask": "NAME"},
    "classes": {"normal": "good", "anomalous": "defective"},
}

_TEXT = """\
# The card of a dataset of your own, made by `clipad data new {name}` from its folder. Correct it by
# hand; `clipad data check {name}` compares the folder with it.

# The name of the folder and of this file, and the word for the dataset in params.yaml.
name: {name_}
# Its name in print.
title: {title}
# Its names in the tables of papers; empty where no paper prints numbers for it.
printed_as: []
# One sentence: what the images show and what is asked.
task: {task}
# Prompts name them ("a photo of a damaged hex nut"): English nouns, _ for a space{folders_are}.
categories: {categories}
# Where metrics are defined: `image` needs normal and anomalous test images, `pixel` needs masks.
levels: {levels}
# Images of the complete dataset; null is not compared. Counted in the folder.
counts:
  normal: {normal}
  anomalous: {anomalous}
  train: {train}
  categories: {by_category}
  source: Counted in the folder.
# Who chose the test images, and how.
split: Our own.
# Of the images; null where it is not known. Pages print it.
licence: null
# What to cite, and where the dataset is published. Pages print both.
citation: Not published.
source_page: not published
# What somebody who lacks the dataset has to do.
obtain: {obtain}
# How the folder is read: {words}.
layout: {layout}
# The names in it that differ between datasets.
folders: {folders}
# Files to download, each with file, url, sha256, size and folder (data/cards/btad.yaml has one).
archives: []
# What pages shall say that its own evaluation has and a run here never; a sentence each.
missing: []
# Beginnings of the source of printed numbers, where other papers mean another dataset by the name.
printed_in: []
# Kinds of damage, as the folders call them, in which a part is missing or in the wrong place.
logical_anomalies: []
# Below its name, how an engineer would describe the damage of a category: [a bent lead, a cut lead].
phrases: {{}}
"""


class _Guess(NamedTuple):
    """A layout, the names that it needs, the categories, and whether there are masks."""

    layout: str
    folders: Mapping[str, str | list[str]]
    categories: list[str]
    masked: bool


def new_card(name: str, data_root: Path | None, cards: Path = CARDS) -> tuple[Path, pd.DataFrame]:
    """Write the card of the dataset in ``data_root/<name>`` (or in ``$CLIPAD_DATA/<name>``).

    Returns:
        The card's file, and the index of what it describes.

    Raises:
        ClipadError: a name that is no plain word or has a card, no such folder, a layout that is not
            known, folders that have to be renamed, or no test images.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ClipadError(
            f"name: found {name!r}, expected a word of letters, digits, _, - and . that names the "
            "folder; rename the folder."
        )
    path = cards / f"{name}.yaml"
    if name in card_names(cards):
        raise ClipadError(
            f"{path}: is there already, expected no card; `clipad data check {name}` compares the "
            "folder with it. Remove it to write it anew."
        )
    root = dataset_folder(name, data_root)
    if root is None:
        raise ClipadError(
            f"dataset {name}: found none in {places(name, data_root)}. Expected a folder of this "
            "name; put it there, or say --data and the folder that holds it."
        )
    guess = _guess(root)
    levels = ["image", "pixel"] if guess.masked else ["image"]
    with TemporaryDirectory() as folder:
        draft = Path(folder)
        write_text(draft / path.name, _text(name, guess, levels, None))
        contents = survey(root, name, cards=draft)
        index = contents.index
        labels = set(index.loc[index["split"] == "test", "label"])
        levels = ["image"] if labels == {0, 1} else []
        levels += ["pixel"] if guess.masked and labels else []
        if not levels:
            problems = "".join(f"\n  {problem}" for problem in contents.problems[:_SHOWN])
            raise ClipadError(
                f"{root}: found {'no' if not labels else 'normal' if labels == {0} else 'anomalous'} "
                f"test images{' only and no masks' if labels else ''}, expected normal and anomalous "
                f"ones or masks, so that something can be measured; add them.{problems}"
            )
        text = _text(name, guess, levels, index)
        write_text(draft / path.name, text)
        read_card(name, draft)
    return write_text(path, text), index


def _text(name: str, guess: _Guess, levels: list[str], index: pd.DataFrame | None) -> str:
    counts: dict[str, Any] = {"normal": None, "anomalous": None, "train": None, "by_category": {}}
    if index is not None:
        test = index[index["split"] == "test"]
        counts["train"] = len(index) - len(test)
        counts["anomalous"] = int(test["label"].sum())
        counts["normal"] = len(test) - counts["anomalous"]
        counts["by_category"] = {str(key): len(rows) for key, rows in test.groupby("category")}
    which = "which pixels are anomalous" if levels == ["pixel"] else "which are anomalous"
    folders_are = "; each is a folder" if LAYOUTS[guess.layout].by_category else ""
    values = {
        "name_": name,
        "title": name.replace("_", " ").capitalize(),
        "task": f"Images of {', '.join(guess.categories).replace('_', ' ')}; tell {which}.",
        "categories": guess.categories,
        "levels": levels,
        "obtain": f"Put it into a folder named {name}.",
        "layout": guess.layout,
        "folders": dict(guess.folders),
        **counts,
    }
    fields = {key: yaml_line(value) for key, value in values.items()}
    words = expected(guess.layout, guess.folders)
    text = _TEXT.format(name=name, folders_are=folders_are, words=words, **fields)
    return re.sub(r" +$", "", text, flags=re.MULTILINE)


def _guess(root: Path) -> _Guess:
    _refuse_capitals(root)
    for guess in (_visa, _mvtec, _dagm, _pairs, _classes):
        if (result := guess(root)) is not None:
            return result
    names = [folder.name for folder in folders_of(root)]
    if tests := [name for name in names if name.lower() == "test"]:
        raise ClipadError(
            f"{root}: found {tests[0]} in it, expected a folder for every category with test in that; "
            f"move {', '.join(names)} into {root / 'CATEGORY'}, CATEGORY being what the images show."
        )
    layouts = "\n".join(f"  {expected(layout, names)}" for layout, names in _EXAMPLES.items())
    raise ClipadError(
        f"{root}: found {', '.join(names) or 'no folders'}, expected one of these layouts:\n{layouts}\n"
        "Arrange it so, or write a reader for it (docs/adding.md)."
    )


def _refuse_capitals(root: Path) -> None:
    """`Test/Good` is neither MVTec AD's, in small letters, nor DAGM's, without folders of defects."""
    renamed = [
        (inner, name)
        for folder in folders_of(root)
        for inner in folders_of(folder)
        if (name := inner.name.lower().replace(" ", "_")) in _MVTEC_FOLDERS
        and name != inner.name
        and any(subfolder.lower() != "label" for subfolder in _names(inner))
    ]
    if renamed:
        names = ", ".join(dict.fromkeys(name for _, name in renamed))
        raise ClipadError(
            f"{root}: found {_below(root, [inner for inner, _ in renamed])}, expected {names} in small "
            "letters for folders that hold a folder for every defect; rename them."
        )


def _below(root: Path, folders: list[Path]) -> str:
    """The first folders as a person would name them."""
    more = ", ..." if len(folders) > _SHOWN else ""
    return ", ".join(folder.relative_to(root).as_posix() for folder in folders[:_SHOWN]) + more


def _mvtec(root: Path) -> _Guess | None:
    folders = [folder for folder in folders_of(root) if "test" in _names(folder)]
    if not folders:
        return None
    train = {name for folder in folders for name in _names(folder / "train")}
    test = {name for folder in folders for name in _names(folder / "test")}
    good = _normal_name(root, train, test)
    masked = any(
        "ground_truth" in _names(folder) and _names(folder / "ground_truth") != [good]
        for folder in folders
    )
    names = {} if good == "good" else {"good": good}
    return _Guess("mvtec", names, [folder.name for folder in folders], masked)


def _normal_name(root: Path, train: set[str], test: set[str]) -> str:
    """What the folders of normal images are called; a card has one name for all categories."""
    names = normal_names(sorted(train | test, reverse=True))  # small letters first
    # Of training images alone in their folder nobody has to say that they are normal; where others
    # are called normal, a name that test images have too is a defect's.
    if len(train) == 1 and not (names and train <= test):
        names += sorted(train.difference(names))
    if len(names) == 1 or not (names or len(train) > 1):
        return names[0] if names else "good"
    name = names[0] if names else "good"
    folders = [
        subfolder
        for category in folders_of(root)
        for split in ("train", "test")
        for subfolder in folders_of(category / split)
        if subfolder.name in names[1:] or (split == "train" and not names)
    ]
    raise ClipadError(
        f"{root}: found {_below(root, folders)}, expected normal images of all categories in folders of "
        f"one name, {name}; rename these."
    )


def _visa(root: Path) -> _Guess | None:
    folders = {folder.name for folder in folders_of(root)}
    for path in sorted([*root.glob("*.csv"), *root.glob("*/*.csv")]):
        if not _names_columns(path, VISA_COLUMNS):
            continue
        categories = sorted({*read_table(path, VISA_COLUMNS)["object"]} & folders)
        if categories:
            table_name = path.relative_to(root).as_posix()
            masked = any(
                _images(kind)
                for category in categories
                for kind in folders_of(root / category / "Data" / "Masks")
            )
            return _Guess("visa", {"split_file": table_name}, categories, masked)
    return None


def _names_columns(path: Path, columns: Sequence[str]) -> bool:
    """Whether the first line of a file has these words, however they are parted and encoded."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST_HEADER).replace(b"\0", b"")
    except OSError:
        return False
    return set(columns) <= {*re.findall(r"\w+", line.decode("ascii", "replace").lower())}


def _dagm(root: Path) -> _Guess | None:
    folders = [folder for folder in folders_of(root) if _images(folder / "Test")]
    labels = [
        label
        for folder in folders
        for split in ("Train", "Test")
        for label in folders_of(folder / split)
        if label.name.lower() == "label"
    ]
    if renamed := [label for label in labels if label.name != "Label"]:
        raise ClipadError(
            f"{root}: found {_below(root, renamed)}, expected Label for the masks of images in Train and "
            "Test; rename them."
        )
    masked = any(label.parent.name == "Test" for label in labels)
    return _Guess("dagm", {}, [folder.name for folder in folders], masked) if folders else None


def _pairs(root: Path) -> _Guess | None:
    names = _names(root)
    images, masks = _called(_IMAGES, names), _called(_MASKS, names)
    if not images or not masks:
        return None
    stems = [path.stem for path in _images(root / masks[0])]
    patterns = Counter(
        mask.replace(image.stem, "{}", 1)
        for image in _images(root / images[0])[:_PAIRS_LOOKED_AT]
        for mask in stems
        if image.stem in mask and not set("{}") & set(mask)
    )
    mask = patterns.most_common(1)[0][0] if patterns else "{}"
    folders: dict[str, str | list[str]] = {
        "images": images[:1],
        "masks": masks[:1],
        "mask": mask,
        "defect": "anomaly",
    }
    return _Guess("pairs", folders, [root.name], True)


def _classes(root: Path) -> _Guess | None:
    names = {name for name in _names(root) if _images(root / name)}
    normal = normal_names(sorted(names))
    anomalous = sorted(names.difference(normal))
    if len(normal) != 1 or len(anomalous) != 1:
        return None
    folders: dict[str, str | list[str]] = {
        "normal": normal,
        "anomalous": anomalous,
        "defect": anomalous[0],
    }
    return _Guess("classes", folders, [root.name], False)


def _names(folder: Path) -> list[str]:
    return [inner.name for inner in folders_of(folder)]


def _called(words: tuple[str, ...], names: Iterable[str]) -> list[str]:
    """The names that are one of these words, in the order of the words."""
    return sorted((n for n in names if n.lower() in words), key=lambda n: words.index(n.lower()))


def _images(folder: Path) -> list[Path]:
    paths = entries(folder) if folder.is_dir() else []
    return [path for path in paths if path.suffix.lower() in SUFFIXES]
