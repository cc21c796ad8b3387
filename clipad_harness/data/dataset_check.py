"""Whether a dataset on disk is the one its card describes, and what is odd about its files.

A problem is what no complete copy has: files that are damaged or twice there, other counts, ground
truth that cannot be meant. A remark is what a published dataset may have and a reader of its numbers
should know: grey masks, large ones, images that their cameras turned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from clipad_core.errors import ClipadError
from clipad_harness.data.cards import CARDS, DatasetCard, read_card
from clipad_harness.data.datasets import Survey, survey
from clipad_harness.data.images import (
    HALF_BRIGHTNESS,
    SUFFIXES,
    CountingRule,
    MaskFile,
    file_hash,
    read_mask_file,
    read_oriented,
)
from clipad_harness.data.layouts import LAYOUTS, category_folder, sounds_normal
from clipad_harness.data.reading import entries, folders_of, printable

_THREADS = 4
_EXAMPLES = 5


def check(root: Path, name: str, cards: Path = CARDS) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Compare a folder with its card, read every file, and look for files that are there twice.

    Returns:
        The index of what was found. Then a sentence for every problem: files that do not pair, are
        no image or are damaged, masks that mark nothing or everything, look inverted, hold values
        that are no number or below 0 or another picture in their alpha channel, images
        whose EXIF orientation is not their mask's, missing or foreign categories, counts that
        differ from the card's, images with the same bytes. Then a sentence for every kind of
        remark: grey masks, masks of more than half an image, other images with an EXIF orientation,
        anomalous training images, images in folders that nobody reads, names of defects that may be
        meant for normal images.

    Raises:
        ClipadError: an unknown dataset, or a folder that holds nothing of it.
    """
    card = read_card(name, cards)
    contents = survey(root, name, cards=cards)
    problems = [*contents.problems]
    problems += foreign(root, card)
    problems += miscounts(contents.index, card)
    remarks = _Remarks(
        left_out=contents.left_out,
        unread=_unread(root, contents.listed),
        normal_sounding=normal_sounding(contents.index),
    )
    problems += _contents(root, contents.index, remarks)
    return contents.index, list(dict.fromkeys(problems)), remarks.sentences()


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
    if card.layout is None or not LAYOUTS[card.layout].by_category:
        return []
    expected_names = {
        *card.categories,
        *(Path(str(name)).parts[0] for name in card.folders.values()),
    }
    names = [folder.name for folder in folders_of(category_folder(root, card.folders))]
    return [f"{name}: a folder that is no category" for name in names if name not in expected_names]


class _Grey(NamedTuple):
    """The lowest and the highest value above 0 of a mask, the pixels by its rule and by the other."""

    low: float
    high: float
    counted: int
    other: int


@dataclass
class _Remarks:
    """What is remarkable in single files, gathered over a dataset: a sentence a kind."""

    left_out: Sequence[str]
    unread: Sequence[str]
    normal_sounding: Sequence[str]
    grey: dict[CountingRule, list[tuple[str, _Grey]]] = field(default_factory=dict)
    large: list[str] = field(default_factory=list)
    turned: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        sentences = []
        for rule, masks in self.grey.items():
            names, greys = zip(*masks, strict=True)
            lows, highs, counts, others = zip(*greys, strict=True)
            other = (
                "above 0" if rule is HALF_BRIGHTNESS else "at least half as bright as the brightest"
            )
            sentences.append(
                f"{_files('grey mask', names)}: values from {min(lows):g} to {max(highs):g} where "
                f"full white alone is usual; {sum(counts):,} pixels count, {sum(others):,} are {other}; "
                f"{rule.words}"
            )
        if self.large:
            sentences.append(f"{_files('mask', self.large)}: more than half of the image is marked")
        if self.turned:
            sentences.append(
                f"{_files('image', self.turned)}: an EXIF orientation, which is not applied: images "
                "and masks are read as stored"
            )
        if self.left_out:
            sentences.append(
                f"{_files('anomalous training image', self.left_out)}: left out; references are normal "
                "images"
            )
        if self.unread:
            sentences.append(
                f"{_files('image', self.unread)}: in no folder that is read, so neither measured nor a "
                "reference"
            )
        return sentences + [*self.normal_sounding]


def normal_sounding(index: pd.DataFrame) -> list[str]:
    """A sentence for every folder of anomalous test images whose name may be meant for normal ones."""
    test = index[(index["split"] == "test") & (index["label"] == 1)]
    return [
        f"{category}: {len(rows)} test image{'s' if len(rows) > 1 else ''} in {defect}, which sounds like "
        "normal images, count as anomalous"
        for (category, defect), rows in test.groupby(["category", "defect"])
        if sounds_normal(str(defect))
    ]


def _unread(root: Path, listed: Set[Path]) -> list[str]:
    """Images below a folder, links followed, that no layout's folders hold; by name."""
    names, looked_at, folders = [], set(), [root]
    while folders:
        folder = folders.pop()
        if (place := folder.resolve()) in looked_at:  # a link may lead back
            continue
        looked_at.add(place)
        paths = entries(folder)
        folders += [path for path in paths if path.is_dir()]
        names += [
            printable(path.relative_to(root).as_posix())
            for path in paths
            if path.suffix.lower() in SUFFIXES and path not in listed and not path.is_dir()
        ]
    return sorted(names)


def _files(word: str, names: Sequence[str]) -> str:
    """Their number and the first of them.

    >>> _files("mask", ["a.png", "b.png"])
    '2 masks (a.png, b.png)'
    """
    more = ", ..." if len(names) > _EXAMPLES else ""
    return (
        f"{len(names)} {word}{'s' if len(names) > 1 else ''} ({', '.join(names[:_EXAMPLES])}{more})"
    )


def _contents(root: Path, index: pd.DataFrame, remarks: _Remarks) -> Iterator[str]:
    """Read every file once; yields what is wrong in the order of the index, and gathers remarks."""
    rows = [(str(image), str(mask)) for image, mask in zip(index["image"], index["mask"])]
    first: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        results = pool.map(lambda row: _content(root, *row), rows)
        bar = tqdm(results, "read", total=len(rows), unit="image", delay=2)
        for (image, mask), content in zip(rows, bar, strict=True):
            yield from content.problems
            if content.digest and content.digest in first:
                yield f"{image}: the same bytes as {first[content.digest]}"
            first.setdefault(content.digest, image)
            if content.grey is not None:
                rule, grey = content.grey
                remarks.grey.setdefault(rule, []).append((mask, grey))
            remarks.large += [mask] if content.large else []
            remarks.turned += [image] if content.turned else []


@dataclass
class _Content:
    """What is found in an image and its mask.

    Attributes:
        digest: the hash of the image; "" where it cannot be read.
        problems: sentences.
        grey: the rule that counts, and how grey the mask is, where it is.
        large: whether the mask marks more than half of the image, and is no problem.
        turned: whether the image has an EXIF orientation, and that is no problem.
    """

    digest: str = ""
    problems: list[str] = field(default_factory=list)
    grey: tuple[CountingRule, _Grey] | None = None
    large: bool = False
    turned: bool = False


def _content(root: Path, image: str, mask: str) -> _Content:
    content, path = _Content(), root / image
    try:
        orientation = read_oriented(path)[1]
        content.digest = file_hash(path)
        if not mask:
            content.turned = orientation != 1
            return content
        mask_file = read_mask_file(root / mask)
    except ClipadError as error:
        content.problems = [str(error).removeprefix(f"{root.as_posix()}/").split(", expected")[0]]
        return content
    if orientation != mask_file.orientation:
        content.problems.append(
            f"{image}: EXIF orientation {orientation}, its mask's is {mask_file.orientation} (1 is "
            "upright); both are read as stored, so the mask may lie the wrong way"
        )
    content.turned = orientation != 1 and not content.problems
    if problem := _shape(mask_file):
        content.problems.append(f"{mask}: {problem}; {mask_file.rule.words}")
    else:
        content.large = bool(mask_file.marked.mean() > 0.5)
    content.grey = _grey(mask_file)
    return content


def _shape(mask: MaskFile) -> str:
    """What a mask marks that cannot be meant; "" where it can."""
    marked = mask.marked
    if count := int((~np.isfinite(mask.values)).sum()):
        return f"holds no number (NaN or infinite) in {_pixels(count)}"
    if count := int((mask.values < 0).sum()):
        return (
            f"is below 0 in {_pixels(count)}, which count as normal (down to {mask.values.min():g})"
        )
    if not marked.any():
        return "marks no pixel of an anomalous image"
    if marked.all():
        return f"marks every pixel (values {mask.values.min()} to {mask.values.max()})"
    border = np.concatenate([marked[0], marked[-1], marked[:, 0], marked[:, -1]])
    if border.all() and marked.mean() > 0.5:
        return f"marks {marked.mean():.0%} of its pixels and all of the border, as if inverted"
    if mask.opaque is not None and (mask.opaque ^ marked).mean() not in (0, 1):
        return "its alpha channel, which is not read, shows another picture than its colours"
    return ""


def _pixels(count: int) -> str:
    return f"{count:,} pixel{'s' if count > 1 else ''}"


def _grey(mask: MaskFile) -> tuple[CountingRule, _Grey] | None:
    """How grey a mask is that has more values than 0 and the full white of its kind of file.

    Numbers of kinds of defects, as VisA's masks have them, look alike, and count as well.
    """
    values = mask.values[np.isfinite(mask.values) & (mask.values > 0)]
    if not values.size or (values == mask.white).all():
        return None
    low, high = float(values.min()), float(values.max())
    other = values > 0 if mask.rule is HALF_BRIGHTNESS else values >= high / 2
    return mask.rule, _Grey(low, high, int(mask.marked.sum()), int(other.sum()))
