"""Whether a dataset on disk is the one its card describes: counts, unreadable files, duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from clipad_core.errors import ClipadError
from clipad_harness.data.cards import CARDS, DatasetCard, read_card
from clipad_harness.data.datasets import Survey, survey
from clipad_harness.data.images import file_hash, image_size, read_image, read_mask
from clipad_harness.data.layouts import LAYOUTS
from clipad_harness.data.reading import folders_of

_THREADS = 4


def check(root: Path, name: str, cards: Path = CARDS) -> tuple[pd.DataFrame, list[str]]:
    """Compare a folder with its card, read every file, and look for files that are there twice.

    Returns:
        The index of what was found, and a sentence for every problem: files that do not pair, are
        no image or are damaged, masks that mark nothing, missing or foreign categories, counts
        that differ from the card's, images with the same bytes.

    Raises:
        ClipadError: an unknown dataset, or a folder that holds nothing of it.
    """
    card = read_card(name, cards)
    contents = survey(root, name, cards=cards)
    problems = [*contents.problems]
    problems += foreign(root, card)
    problems += miscounts(contents.index, card)
    problems += _contents(root, contents.index)
    return contents.index, list(dict.fromkeys(problems))


def completeness(root: Path, card: DatasetCard, cards: Path = CARDS) -> str:
    """How much of a dataset a folder holds, in a few words; only names are read."""
    try:
        contents: Survey = survey(root, card.name, cards=cards, headers=False)
    except ClipadError:
        return "something else"
    if contents.problems:
        return f"{len(contents.problems)} problems" if len(contents.problems) > 1 else "1 problem"
    test = int((contents.index["split"] == "test").sum())
    if card.counts.test is None:
        return f"{test} test images"
    if miscounts(contents.index, card):
        return f"{test} of {card.counts.test} test images"
    return "complete"


def miscounts(index: pd.DataFrame, card: DatasetCard) -> list[str]:
    """Where the counts differ from the card's, in sentences; unknown counts differ from nothing."""
    test = index[index["split"] == "test"]
    by_category = test.groupby("category").size()
    missing = [name for name in card.categories if name not in set(index["category"])]
    problems = [f"{name}: no such category on disk" for name in missing]
    for name, expected_count in card.counts.categories.items():
        count = int(by_category.get(name, 0))
        if count != expected_count and name not in missing:
            problems.append(f"{name}: {count} test images, the card says {expected_count}")
    wholes: Mapping[str, tuple[int, int | None]] = {
        "normal test images": (int((test["label"] == 0).sum()), card.counts.normal),
        "anomalous test images": (int((test["label"] == 1).sum()), card.counts.anomalous),
        "training images": (int((index["split"] == "train").sum()), card.counts.train),
    }
    for label, (count, total) in wholes.items():
        if total is not None and count != total:
            problems.append(f"{count} {label}, the card says {total}")
    return problems


def foreign(root: Path, card: DatasetCard) -> list[str]:
    """Folders beside the categories that do not belong to the dataset."""
    if not LAYOUTS[card.layout].by_category:
        return []
    expected_names = {
        *card.categories,
        *(Path(str(name)).parts[0] for name in card.folders.values()),
    }
    names = [folder.name for folder in folders_of(root)]
    return [f"{name}: a folder that is no category" for name in names if name not in expected_names]


def _contents(root: Path, index: pd.DataFrame) -> Iterator[str]:
    """Read every file once; yields what is wrong in the order of the index."""
    rows = [(str(image), str(mask)) for image, mask in zip(index["image"], index["mask"])]
    first: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        results = pool.map(lambda row: _content(root, *row), rows)
        bar = tqdm(results, "read", total=len(rows), unit="image", delay=2)
        for (image, _), (digest, problems) in zip(rows, bar, strict=True):
            yield from problems
            if digest and digest in first:
                yield f"{image}: the same bytes as {first[digest]}"
            first.setdefault(digest, image)


def _content(root: Path, image: str, mask: str) -> tuple[str, list[str]]:
    """The hash of an image and what is wrong with it and its mask."""
    problems = []
    path, digest = root / image, ""
    try:
        digest = file_hash(path)
        read_image(path)
        if mask and not read_mask(root / mask, image_size(root / mask)).any():
            problems.append(f"{mask}: marks no pixel of an anomalous image")
    except ClipadError as error:
        problems.append(str(error).removeprefix(f"{root.as_posix()}/").split(", expected")[0])
    return digest, problems
