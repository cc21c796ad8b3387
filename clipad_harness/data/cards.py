"""The card of a dataset: what it is, who made it, how to get it, what a complete copy holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from clipad_core.errors import ClipadError
from clipad_harness.base.files import read_yaml
from clipad_harness.data.layouts import LAYOUTS

CARDS = Path(__file__).resolve().parents[2] / "data" / "cards"
LEVELS = ("image", "pixel")


@dataclass(frozen=True)
class Counts:
    """Images of a complete copy, as its card's reader counts them; None where nobody printed it.

    Attributes:
        normal, anomalous: test images.
        train: normal training images.
        categories: category -> its test images.
        source: where the numbers were read.
    """

    normal: int | None
    anomalous: int | None
    train: int | None
    categories: Mapping[str, int]
    source: str

    @property
    def test(self) -> int | None:
        """All test images, or None."""
        if self.normal is not None and self.anomalous is not None:
            return self.normal + self.anomalous
        return sum(self.categories.values()) or None


@dataclass(frozen=True)
class Archive:
    """A file that the publisher offers.

    Attributes:
        file: its name on disk.
        url: its address; None where a form, an account or a click stands before it.
        sha256, size: of the whole file; None where nobody printed them.
        folder: what the archive wraps around the dataset's own folders; "" for nothing.
    """

    file: str
    url: str | None
    sha256: str | None
    size: int | None
    folder: str


@dataclass(frozen=True)
class Card:
    """What a dataset is, who made it and how to get it; `data/cards/<name>.yaml`.

    Attributes:
        name: the folder's name, and the word in params.yaml.
        title: the name in print.
        printed_as: its names in the numbers of papers, the usual one first; none where no paper's
            numbers are taken for it.
        task: one sentence on what is shown and asked.
        categories: of the complete dataset, in alphabetical order.
        levels: of `image` and `pixel`, the ones at which metrics are defined: without masks only
            `image`, without normal images only `pixel`.
        counts: what a complete copy holds.
        split: who chose the test images, and what was decided here.
        licence: of the images; None where it is not known.
        citation: what to cite.
        source_page: where the dataset is published.
        obtain: what to do to have it.
        layout: how its folder is read, a function of `clipad_harness.data.layouts`.
        folders: names that the layout needs and that differ between datasets.
        archives: the files to download.
    """

    name: str
    title: str
    printed_as: tuple[str, ...]
    task: str
    categories: tuple[str, ...]
    levels: tuple[str, ...]
    counts: Counts
    split: str
    licence: str | None
    citation: str
    source_page: str
    obtain: str
    layout: str
    folders: Mapping[str, Any]
    archives: tuple[Archive, ...]


def card_names(folder: Path = CARDS) -> list[str]:
    """The names of all cards, sorted."""
    return sorted(card.stem for card in folder.glob("*.yaml"))


def read_card(name: str, folder: Path = CARDS) -> Card:
    """Read and check the card of a dataset.

    Raises:
        ClipadError: no such card, or one with other fields.

    >>> read_card("mvtec").categories[:3]
    ('bottle', 'cable', 'capsule')
    >>> read_card("mvtec").counts.test
    1725
    """
    path = folder / f"{name}.yaml"
    if name not in card_names(folder):
        known = ", ".join(card_names(folder)) or "none"
        raise ClipadError(
            f"dataset: found {name!r}, expected one with a card ({known}); correct the name or "
            f"write {path}."
        )
    try:
        found = read_yaml(path)
    except yaml.YAMLError as error:
        raise ClipadError(f"{path}: not valid YAML ({error}); correct it.") from error
    card: Card = _fill(Card, found, str(path))
    if card.name != name:
        raise ClipadError(f"{path}: found name {card.name!r}, expected {name!r}; correct it.")
    _check(card, path)
    return card


def _fill(kind: type, found: object, where: str) -> Any:
    names = [field.name for field in fields(kind)]
    if not isinstance(found, dict) or set(found) != set(names):
        have = ", ".join(map(str, found)) if isinstance(found, dict) else repr(found)
        raise ClipadError(f"{where}: found {have}, expected exactly {', '.join(names)}.")
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in found.items()}
    if kind is Card:
        values["counts"] = _fill(Counts, values["counts"], f"{where}: counts")
        values["archives"] = tuple(
            _fill(Archive, one, f"{where}: archives") for one in values["archives"] or ()
        )
    return kind(**values)


def _check(card: Card, path: Path) -> None:
    """What a YAML file can say and a card must not."""
    names = [*card.categories]
    for name in card.folders.values():
        names += name if isinstance(name, list) else [name]
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong or not card.categories:
        raise ClipadError(
            f"{path}: found the categories or folders {wrong}, expected words; put quotes around them."
        )
    if card.layout not in LAYOUTS:
        raise ClipadError(
            f"{path}: found layout {card.layout!r}, expected one of {', '.join(LAYOUTS)}."
        )
    if not card.levels or set(card.levels) - set(LEVELS):
        raise ClipadError(
            f"{path}: found levels {', '.join(map(str, card.levels)) or 'none'}, expected "
            f"{' or '.join(LEVELS)} or both."
        )
    unknown = sorted(set(card.counts.categories) - set(card.categories))
    if unknown:
        raise ClipadError(f"{path}: counts {', '.join(unknown)}, which are no categories of it.")
    for archive in card.archives:
        if PurePosixPath(archive.file).name != archive.file:
            raise ClipadError(f"{path}: found the file {archive.file!r}, expected a plain name.")
