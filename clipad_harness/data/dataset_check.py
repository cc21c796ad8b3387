"""Whether a dataset on disk is the one its card describes: counts, unreadable files, duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from clipad_core.errors import ClipadError
from clipad_harness.data.cards import CARDS, Card, read_card
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
    found = survey(root, name, cards=cards)
    problems = [*found.problems]
    problems += foreign(root, card)
    problems += miscounts(found.index, card)
    problems += _contents(root, found.index)
    return found.index, list(dict.fromkeys(problems))


def completeness(root: Path, card: Card, cards: Path = CARDS) -> str:
    """How much of a dataset a folder holds, in a few words; only names are read."""
    try:
        found: Survey = survey(root, card.name, cards=cards, headers=False)
    except ClipadError:
        return "something else"
    if found.problems:
        return f"{len(found.problems)} problems" if len(found.problems) > 1 else "1 problem"
    test = int((found.index["split"] == "test").sum())
    if card.counts.test is None:
        return f"{test} test images"
    if miscounts(found.index, card):
        return f"{test} of {card.counts.test} test images"
    return "complete"


def miscounts(index: pd.DataFrame, card: Card) -> list[str]:
    """Where the counts differ from the card's, in sentences; unknown counts differ from nothing."""
    test = index[index["split"] == "test"]
    by_category = test.groupby("category").size()
    missing = [name for name in card.categories if name not in set(index["category"])]
    problems = [f"{name}: no such category on disk" for name in missing]
    for name, wanted in card.counts.categories.items():
        count = int(by_category.get(name, 0))
        if count != wanted and name not in missing:
            problems.append(f"{name}: {count} test images, the card says {wanted}")
    wholes: Mapping[str, tuple[int, int | None]] = {
        "normal test images": (int((test["label"] == 0).sum()), card.counts.normal),
        "anomalous test images": (int((test["label"] == 1).sum()), card.counts.anomalous),
        "training images": (int((index["split"] == "train").sum()), card.counts.train),
    }
    for what, (count, total) in wholes.items():
        if total is not None and count != total:
            problems.append(f"{count} {what}, the card says {total}")
    return problems


def foreign(root: Path, card: Card) -> list[str]:
    """Folders beside the categories that do not belong to the dataset."""
    if not LAYOUTS[card.layout].by_category:
        return []
    known = {*card.categories, *(Path(str(name)).parts[0] for name in card.folders.values())}
    names = [folder.name for folder in folders_of(root)]
    return [f"{name}: a folder that is no category" for name in names if name not in known]


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
