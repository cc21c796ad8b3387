"""A dataset folder, found and read as one index table.

Which layout a folder has says the card of the dataset (`data/cards/`); a folder without a card is
read in MVTec AD's::

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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from clipad_core.errors import ClipadError
from clipad_core.validation import listed
from clipad_harness.data.cards import CARDS, DatasetCard, card_names, read_card
from clipad_harness.data.images import file_hash
from clipad_harness.data.layouts import LAYOUTS, category_folder, expected
from clipad_harness.data.reading import Reading, entries, folders_of

INDEX_COLUMNS = ("dataset", "category", "split", "defect", "label", "image", "mask")
DATA_VARIABLE = "CLIPAD_DATA"

_SHOWN = 5


class MissingDataset(ClipadError):
    """A dataset that is not on this machine, or on no machine but its authors'."""


@dataclass(frozen=True)
class Survey:
    """What a folder holds and what is wrong with it.

    Attributes:
        index: as `read_index` gives it.
        problems: sentences.
        left_out: anomalous training images, which serve nobody as references.
        listed: every image and mask of the folders that the layout looks into.
        layout: the expected one, in words.
    """

    index: pd.DataFrame
    problems: tuple[str, ...]
    left_out: tuple[str, ...]
    listed: frozenset[Path]
    layout: str


def dataset_folder(name: str, data_root: Path | None) -> Path | None:
    """Where a dataset lies: ``data_root/<name>``, or else ``$CLIPAD_DATA/<name>``, or else None."""
    for folder in (root / name for root in _roots(data_root)):
        if folder.is_dir() and entries(folder):
            return folder
    return None


def find_dataset(name: str, data_root: Path | None, cards: Path = CARDS) -> Path:
    """The folder of a dataset, as `dataset_folder` finds it.

    Raises:
        MissingDataset: a dataset that nobody published; no such folder with something in it: then the
            message lists where it looked and how to get the dataset.
        ClipadError: an unknown name.
    """
    card = read_card(name, cards)
    if card.layout is None:
        raise unpublished(card)
    folder = dataset_folder(name, data_root)
    if folder is not None:
        return folder
    words = expected(card.layout, card.folders)
    raise MissingDataset(
        f"dataset {name}: found none in {places(name, data_root)}. Expected {words} in it. "
        f"{card.obtain.strip()} Then set data_root in params.yaml or {DATA_VARIABLE} to the folder "
        f"that holds {name}/."
    )


def unpublished(card: DatasetCard) -> MissingDataset:
    """The error about a dataset that nobody can have, with the reason."""
    return MissingDataset(
        f"dataset {card.name}: not published, so that nobody but its authors can have it. "
        f"{' '.join(card.obtain.split())}"
    )


def places(name: str, data_root: Path | None) -> str:
    """Where a dataset is looked for, and what is there, in words."""
    words = [f"{root / name} ({_state(root / name)})" for root in _roots(data_root)]
    words += [] if data_root is not None else ["data_root (not set)"]
    words += [] if os.environ.get(DATA_VARIABLE) else [f"{DATA_VARIABLE} (not set)"]
    return ", ".join(words)


def default_root() -> Path:
    """The folder of the datasets, ``$CLIPAD_DATA``.

    Raises:
        ClipadError: the variable is not set.
    """
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        raise ClipadError(
            f"{DATA_VARIABLE}: not set, expected the folder of the datasets; set it or say --data."
        )
    return Path(folder)


def _roots(data_root: Path | None) -> list[Path]:
    variable = os.environ.get(DATA_VARIABLE, "")
    return [
        *([data_root] if data_root is not None else []),
        *([Path(variable)] if variable else []),
    ]


def read_index(
    root: Path, dataset: str, categories: Sequence[str] = (), cards: Path = CARDS
) -> pd.DataFrame:
    """Index a folder in its dataset's layout: a row an image, the same on every file system.

    Headers are read to check that files are images and that masks fit; pixels are not, but for the
    labels of KolektorSDD and KolektorSDD2 and masks beside normal images.

    Args:
        root: the dataset's folder.
        dataset: its name, the first column; the name of its card where it has one.
        categories: only these; all where empty.
        cards: the folder of the cards.

    Returns:
        Columns ``dataset, category, split ("train" or "test"), defect ("good" for normal), label
        (0 or 1), image, mask``; paths are POSIX and relative to ``root`` and may name a part of a
        file (`clipad_harness.data.images.part_of`), a mask also a folder, whose files are one mask;
        no mask is ``""``. Training images are normal.
        Sorted by category, split, defect and image, by code point.

    Raises:
        ClipadError: one message with all problems of the folder (the first five and their number):
            missing or empty, an unknown category, a category with no test images, an unreadable or
            empty file, a defect image with no mask or with two, a mask without a defect image, one
            for a normal image that marks something, a mask of another size than its image.
    """
    contents = survey(root, dataset, categories, cards)
    if contents.problems:
        count = len(contents.problems)
        listing = "\n".join(f"  {problem}" for problem in contents.problems[:_SHOWN])
        more = f"\n  and {count - _SHOWN} more" if count > _SHOWN else ""
        raise ClipadError(
            f"{root}: found {count} problem{'s' if count > 1 else ''}, expected {contents.layout}:"
            f"\n{listing}{more}\nCorrect the folder or get the dataset "
            "again."
        )
    return contents.index


def survey(
    root: Path,
    dataset: str,
    categories: Sequence[str] = (),
    cards: Path = CARDS,
    *,
    headers: bool = True,
) -> Survey:
    """Read a folder as `read_index` does, and return its problems instead of raising them.

    Args:
        root, dataset, categories, cards: as for `read_index`.
        headers: whether to open the files; without, only their names are read.

    Raises:
        ClipadError: the folder is missing or holds no category of the dataset, or an unknown
            category; a dataset that nobody published.
    """
    card = read_card(dataset, cards) if dataset in card_names(cards) else None
    layout, folders = (card.layout, card.folders) if card else ("mvtec", {})
    if layout is None:
        raise unpublished(read_card(dataset, cards))
    words = expected(layout, folders)
    place = category_folder(root, folders)
    present = [folder.name for folder in folders_of(place)] if root.is_dir() else []
    if not present:
        raise ClipadError(
            f"{root}: {_state(root)}, expected {words}; correct the path or unpack the dataset."
        )
    if card is not None:
        own_categories = [name for name in card.categories if name in present]
        if LAYOUTS[layout].by_category and not own_categories:
            raise ClipadError(
                f"{place}: found the folders {', '.join(present[:_SHOWN])}, expected {words} for "
                f"{', '.join(card.categories)}; correct the path or get the dataset again."
            )
        present = own_categories if LAYOUTS[layout].by_category else list(card.categories)
    unknown = sorted(set(categories) - set(present))
    if unknown:
        raise ClipadError(
            f"categories: found {listed(unknown)}, expected some of {', '.join(present)} (the "
            f"folders of {place})."
        )
    reading = Reading(root, folders, card is None or "pixel" in card.levels, headers)
    for category in present:
        if not categories or category in categories:
            LAYOUTS[layout].read(reading, category)
    index = pd.DataFrame(
        [{"dataset": dataset, **row} for row in reading.rows], columns=[*INDEX_COLUMNS]
    )
    order = ["category", "split", "defect", "image"]
    index = index.sort_values(order, kind="stable", ignore_index=True)
    words += " with a mask for every defect image" if reading.masked else ""
    problems, left_out = tuple(reading.problems), tuple(reading.left_out)
    return Survey(index, problems, left_out, frozenset(reading.listed), words)


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


def _state(folder: Path) -> str:
    if not folder.exists():
        return "does not exist"
    return "is no folder" if not folder.is_dir() else "has no folder with images"
