"""The card of a dataset: what it is, who made it, how to get it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from clipad_core.errors import ClipadError

CARDS = Path(__file__).resolve().parents[1] / "data" / "cards"


@dataclass(frozen=True)
class Card:
    """What a dataset is, who made it and how to get it; `data/cards/<name>.yaml`.

    Attributes:
        name: the folder's name, and the word in params.yaml.
        title: the name in print.
        task: one sentence on what is shown and asked.
        categories: of the complete dataset, in alphabetical order.
        licence: of the images.
        citation: what to cite.
        source_page: where the dataset is published.
        obtain: what to do to have it.
        layout: how its folder is read; ``mvtec`` is the only layout so far.
    """

    name: str
    title: str
    task: str
    categories: tuple[str, ...]
    licence: str
    citation: str
    source_page: str
    obtain: str
    layout: str


def read_card(name: str, folder: Path = CARDS) -> Card:
    """Read and check the card of a dataset.

    Raises:
        ClipadError: no such card, or one with other fields.

    >>> read_card("mvtec").categories[:3]
    ('bottle', 'cable', 'capsule')
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(card.stem for card in folder.glob("*.yaml"))) or "none"
        raise ClipadError(
            f"dataset: found {name!r}, expected one with a card ({known}); correct the name or "
            f"write {path}."
        )
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ClipadError(f"{path}: not valid YAML ({error}); correct it.") from error
    names = [field.name for field in fields(Card)]
    if not isinstance(found, dict) or set(found) != set(names):
        have = ", ".join(map(str, found)) if isinstance(found, dict) else repr(found)
        raise ClipadError(f"{path}: found {have}, expected exactly {', '.join(names)}.")
    if found["name"] != name or found["layout"] != "mvtec":
        raise ClipadError(
            f"{path}: found name {found['name']!r} and layout {found['layout']!r}, expected "
            f"{name!r} and 'mvtec'."
        )
    return Card(**{**found, "categories": tuple(found["categories"])})
