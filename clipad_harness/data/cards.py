"""The card of a dataset: what it is, who made it, how to get it, what a complete copy holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from clipad_core.errors import ClipadError
from clipad_core.validation import listed, validate, wrong
from clipad_harness.base.files import read_yaml
from clipad_harness.data.layouts import LAYOUTS

CARDS = Path(__file__).resolve().parents[2] / "data" / "cards"
Level = Literal["image", "pixel"]


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
class DatasetCard:
    """What a dataset is, who made it and how to get it; `data/cards/<name>.yaml`.

    Attributes:
        name: the folder's name, and the word in params.yaml.
        title: the name in print.
        printed_as: its names in the numbers of papers, the usual one first; none where no paper's
            numbers are taken for it.
        printed_in: beginnings of the `source` of printed numbers. Under its `printed_as` these sources
            mean this dataset and no other; empty where all sources do that no other card names.
        task: one sentence on what is shown and asked.
        categories: of the complete dataset, in alphabetical order; none where nobody published them.
        levels: of `image` and `pixel`, the ones at which metrics are defined: without masks only
            `image`, without normal images only `pixel`.
        counts: what a complete copy holds.
        split: who chose the test images, and what was decided here.
        licence: of the images; None where it is not known.
        citation: what to cite.
        source_page: where the dataset is published.
        obtain: what to do to have it, or why nobody can.
        layout: how its folder is read, a name of `clipad_harness.data.layouts`; None of a dataset that
            nobody published, of which there is no folder.
        folders: names that the layout needs and that differ between datasets.
        archives: the files to download.
        logical_anomalies: kinds of damage, as its folders call them, that no look of a surface shows: a
            part that must be there is not, or one stands where it must not (Bergmann et al., MVTec LOCO AD,
            IJCV 2022).
        missing: what its publisher's own evaluation has and a run here never; every page says it.
        phrases: how an engineer would describe the damage of a category, for prompts that ask for it;
            written for clipad from the thing's use and parts, not from the images that are tested.
    """

    name: str
    title: str
    printed_as: tuple[str, ...]
    task: str
    categories: tuple[str, ...]
    levels: tuple[Level, ...]
    counts: Counts
    split: str
    licence: str | None
    citation: str
    source_page: str
    obtain: str
    layout: str | None
    folders: Mapping[str, str | list[str]]
    archives: tuple[Archive, ...]
    missing: tuple[str, ...] = ()
    printed_in: tuple[str, ...] = ()
    logical_anomalies: tuple[str, ...] = ()
    phrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def card_names(folder: Path = CARDS) -> list[str]:
    """The names of all cards, sorted."""
    return sorted(card.stem for card in folder.glob("*.yaml"))


def read_card(name: str, folder: Path = CARDS) -> DatasetCard:
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
        names = ", ".join(card_names(folder)) or "none"
        raise ClipadError(
            f"dataset: found {name!r}, expected one with a card ({names}); correct the name or "
            f"write {path}."
        )
    card: DatasetCard = validate(DatasetCard, read_yaml(path), path)
    if card.name != name:
        raise wrong(path, "name", card.name, f"{name!r}, that of the file")
    _check(card, path)
    return card


def _check(card: DatasetCard, path: Path) -> None:
    """What a YAML file can say and a card must not."""
    for part in ("categories", "levels") if card.layout is not None else ("levels",):
        if not getattr(card, part):
            raise wrong(path, part, [], "at least one")
    if card.layout is not None and card.layout not in LAYOUTS:
        raise wrong(path, "layout", card.layout, f"one of {', '.join(LAYOUTS)}")
    if card.layout is None and (card.folders or card.archives):
        raise wrong(path, "layout", None, "a name, since the card has folders or archives")
    unknown = sorted(set(card.counts.categories) - set(card.categories))
    if unknown:
        raise ClipadError(f"{path}: counts {listed(unknown)}, which are no categories of it.")
    if unknown := sorted(set(card.phrases) - set(card.categories)):
        raise ClipadError(f"{path}: phrases for {listed(unknown)}, which are no categories of it.")
    for archive in card.archives:
        if PurePosixPath(archive.file).name != archive.file:
            raise wrong(path, "archives", archive.file, "a plain name of a file")
