"""A dataset folder, found and read as one index table.

The layout is MVTec AD's::

    <root>/<category>/train/good/NNN.png
    <root>/<category>/test/good/NNN.png
    <root>/<category>/test/<defect>/NNN.png
    <root>/<category>/ground_truth/<defect>/NNN_mask.png

A mask may also carry its image's own name (``NNN.png``), as in anomalib's toy set. Both rules hold
side by side; an image that finds two masks is an error, and so is everything else that does not
pair: a folder is read completely or not at all, and all its problems come in one message.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from clipad_core.errors import ClipadError
from clipad_harness.cards import CARDS, read_card
from clipad_harness.images import file_hash, image_size

INDEX_COLUMNS = ("dataset", "category", "split", "defect", "label", "image", "mask")
DATA_VARIABLE = "CLIPAD_DATA"

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
_LITTER = {"thumbs.db", "desktop.ini"}
_SHOWN = 5
_LAYOUT = (
    "<category>/train/good, <category>/test/<good or a defect>, <category>/ground_truth/<defect>"
)


def find_dataset(name: str, data_root: Path | None, cards: Path = CARDS) -> Path:
    """The folder of a dataset: ``data_root/<name>``, or else ``$CLIPAD_DATA/<name>``.

    Raises:
        ClipadError: an unknown name, or no such folder with something in it; the message lists
            where it looked and how to get the dataset.
    """
    card = read_card(name, cards)
    variable = os.environ.get(DATA_VARIABLE, "")
    roots = [data_root] if data_root is not None else []
    roots += [Path(variable)] if variable else []
    for folder in (root / name for root in roots):
        if folder.is_dir() and _entries(folder):
            return folder
    places = [f"{root / name} ({_state(root / name)})" for root in roots]
    places += [] if data_root is not None else ["data_root (not set)"]
    places += [] if variable else [f"{DATA_VARIABLE} (not set)"]
    raise ClipadError(
        f"dataset {name}: found none in {', '.join(places)}. Expected {_LAYOUT} in "
        f"it. {card.obtain.strip()} Then set data_root in params.yaml or {DATA_VARIABLE} to the "
        f"folder that holds {name}/."
    )


def read_index(root: Path, dataset: str, categories: Sequence[str] = ()) -> pd.DataFrame:
    """Index a folder in MVTec's layout: a row an image, sorted, the same on every file system.

    Headers are read to check that files are images and that masks fit; pixels are not.

    Args:
        root: the dataset's folder.
        dataset: its name, the first column.
        categories: only these; all where empty.

    Returns:
        Columns ``dataset, category, split ("train" or "test"), defect ("good" for normal), label
        (0 or 1), image, mask``; paths are POSIX and relative to ``root``; no mask is ``""``. Sorted
        by category, split, defect and image, by code point.

    Raises:
        ClipadError: one message with all problems of the folder (the first five and their number):
            missing or empty, an unknown category, a category with no test images, an unreadable or
            empty file, a defect image with no mask or with two, a mask without a defect image or
            for a normal one, a mask of another size than its image.
    """
    found = _folders(root) if root.is_dir() else []
    if not found:
        raise ClipadError(
            f"{root}: {_state(root)}, expected {_LAYOUT}; correct the path or unpack the dataset."
        )
    unknown = sorted(set(categories) - {folder.name for folder in found})
    if unknown:
        raise ClipadError(
            f"categories: found {', '.join(unknown)}, expected some of "
            f"{', '.join(folder.name for folder in found)} (the folders of {root})."
        )
    rows: list[dict[str, object]] = []
    problems: list[str] = []
    for folder in found:
        if not categories or folder.name in categories:
            rows += _Category(root, folder, problems).rows()
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:_SHOWN])
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ClipadError(
            f"{root}: found {len(problems)} problem{'s' if len(problems) > 1 else ''}, expected "
            f"{_LAYOUT} with a mask for every defect image:\n{shown}{more}\nCorrect the folder or "
            "get the dataset again."
        )
    index = pd.DataFrame([{"dataset": dataset, **row} for row in rows], columns=[*INDEX_COLUMNS])
    order = ["category", "split", "defect", "image"]
    return index.sort_values(order, kind="stable", ignore_index=True)


def index_hash(index: pd.DataFrame, root: Path) -> str:
    """SHA-256 over the rows of an index and the bytes of every file in it.

    Raises:
        ClipadError: a file that is gone or cannot be read.
    """
    paths = sorted({str(path) for name in ("image", "mask") for path in index[name] if path})
    with ThreadPoolExecutor(max_workers=4) as pool:
        hashes = pool.map(file_hash, [root / path for path in paths])
        label = "hash dataset"
        bar = tqdm(hashes, label, total=len(paths), unit="file", delay=2)
        lines = [f"{digest} {path}\n" for digest, path in zip(bar, paths, strict=True)]
    table = index[[*INDEX_COLUMNS]].to_csv(index=False, lineterminator="\n")
    return hashlib.sha256((table + "".join(lines)).encode()).hexdigest()


class _Category:
    """Reads one category folder; what is wrong with it goes to `problems`."""

    def __init__(self, root: Path, folder: Path, problems: list[str]) -> None:
        self.root = root
        self.folder = folder
        self.problems = problems
        self.sizes: dict[Path, tuple[int, int]] = {}

    def rows(self) -> list[dict[str, object]]:
        tests = {
            folder.name: list(self._images(folder)) for folder in _folders(self.folder / "test")
        }
        masks = {
            folder.name: list(self._images(folder))
            for folder in _folders(self.folder / "ground_truth")
        }
        if not any(tests.values()):
            self._problem(self.folder / "test", "no test images")
        rows = [row for folder in _folders(self.folder / "train") for row in self._train(folder)]
        for defect, images in tests.items():
            found = {} if defect == "good" else self._pairs(images, masks.get(defect, []))
            rows += [self._row("test", defect, image, found.get(image)) for image in images]
        for defect, unpaired in masks.items():
            if defect == "good" or defect not in tests:
                what = "mask for a normal image" if defect == "good" else "mask without an image"
                for mask in unpaired:
                    self._problem(mask, what)
        return rows

    def _train(self, folder: Path) -> Iterator[dict[str, object]]:
        for image in self._images(folder):
            if folder.name != "good":
                self._problem(image, "training image outside train/good")
            yield self._row("train", "good", image, None)

    def _pairs(self, images: list[Path], masks: list[Path]) -> dict[Path, Path]:
        """The mask of every image, by ``<stem>_mask`` or ``<stem>``; reports what is left over."""
        pairs: dict[Path, Path] = {}
        owners: dict[Path, Path] = {}
        for image in images:
            fitting = [m for m in masks if m.stem in (image.stem, f"{image.stem}_mask")]
            for mask in fitting:
                if mask in owners:
                    what = f"mask of two images, {owners[mask].name} and {image.name}"
                    self._problem(mask, what)
                owners[mask] = image
            if len(fitting) == 1:
                pairs[image] = fitting[0]
                self._compare(image, fitting[0])
            elif fitting:
                self._problem(image, f"two masks, {' and '.join(mask.name for mask in fitting)}")
            else:
                place = self._name(self.folder / "ground_truth" / image.parent.name)
                self._problem(image, f"no mask in {place}")
        for mask in masks:
            if mask not in owners:
                self._problem(mask, "mask without an image")
        return pairs

    def _compare(self, image: Path, mask: Path) -> None:
        if image not in self.sizes or mask not in self.sizes:
            return
        (height, width), (rows, columns) = self.sizes[image], self.sizes[mask]
        if (height, width) != (rows, columns):
            what = f"mask of {rows} x {columns} pixels for an image of {height} x {width}"
            self._problem(mask, what)

    def _images(self, folder: Path) -> Iterator[Path]:
        for path in _entries(folder):
            if path.is_dir() or path.suffix.lower() not in _SUFFIXES:
                self._problem(path, "a folder" if path.is_dir() else "no image by its name")
                continue
            try:
                self.sizes[path] = image_size(path)
            except ClipadError as error:
                what = str(error).removeprefix(f"{path}: ").split(", expected")[0]
                self._problem(path, what)
            yield path

    def _row(self, split: str, defect: str, image: Path, mask: Path | None) -> dict[str, object]:
        return {
            "category": self.folder.name,
            "split": split,
            "defect": defect,
            "label": int(defect != "good"),
            "image": self._name(image),
            "mask": self._name(mask) if mask is not None else "",
        }

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _problem(self, path: Path, what: str) -> None:
        self.problems.append(f"{self._name(path)}: {what}")


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted by code point, without the litter of file managers."""
    try:
        paths = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise ClipadError(
            f"{folder}: cannot be listed ({error.strerror or error}), expected a readable folder; "
            "correct its permissions."
        ) from error
    return [path for path in paths if path.name[0] != "." and path.name.lower() not in _LITTER]


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in _entries(folder) if path.is_dir() and path.name != "__MACOSX"]


def _state(folder: Path) -> str:
    if not folder.exists():
        return "does not exist"
    return "is no folder" if not folder.is_dir() else "has no folder with images"
