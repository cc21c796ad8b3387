"""What a page asks to cite, as BibTeX: the paper, the dataset, and this project."""

from __future__ import annotations

import re
from pathlib import Path

from clipad_core.errors import ClipadError
from clipad_harness.base.files import read_yaml
from clipad_harness.data.cards import DatasetCard, read_card
from clipad_harness.papers.card import PAPERS

BIBLIOGRAPHY = PAPERS / "citations.bib"
CITATION = Path(__file__).resolve().parents[2] / "CITATION.cff"
_ENTRY = re.compile(r"^@\w+\{([\w-]+),\n.*?^\}", re.M | re.S)


def read_bibliography(path: Path = BIBLIOGRAPHY) -> dict[str, str]:
    """The entries of a BibTeX file by key.

    Raises:
        ClipadError: a key that stands there twice, or an entry that is not closed.

    >>> print(read_bibliography()["winclip"].splitlines()[0])
    @inproceedings{winclip,
    """
    entries: dict[str, str] = {}
    for entry in _ENTRY.finditer(path.read_text(encoding="utf-8")):
        if entry[1] in entries:
            raise ClipadError(f"{path}: found the key {entry[1]!r} twice, expected it once.")
        if "\n@" in entry[0]:
            raise ClipadError(
                f"{path}: found no end of the entry {entry[1]!r}, expected a line }} before the next entry."
            )
        entries[entry[1]] = entry[0]
    return entries


def citations(method: str, dataset: str) -> list[tuple[str, str]]:
    """Label and BibTeX of a method's paper, of a dataset, and of clipad.

    Args:
        method: its key in `data/papers/citations.bib`, as in `winclip`; one without an entry there, as
            one that nobody has published, is not cited.
        dataset: its name; a dataset without an entry is cited by its card.
    """
    entries = read_bibliography()
    references = [("The method", entries[method])] if method in entries else []
    card = read_card(dataset)
    references.append((f"The dataset: {card.title}", entries.get(dataset) or _of_card(card)))
    # A checkout that is only a part of the repository has no citation of its own to give.
    return references + ([("clipad", of_project())] if CITATION.is_file() else [])


def _of_card(card: DatasetCard) -> str:
    fields = {
        "title": f"{{{card.title}}}",
        "howpublished": card.source_page,
        "note": " ".join(card.citation.split()),
    }
    return _entry("misc", card.name, fields)


def of_project(path: Path = CITATION) -> str:
    """Clipad's own entry, from CITATION.cff."""
    cff = read_yaml(path)
    names = [
        f"{who['family-names']}, {who['given-names']}"
        if "family-names" in who
        else f"{{{who['name']}}}"
        for who in cff["authors"]
    ]
    fields = {
        "title": f"{{{cff['title']}}}",
        "author": " and ".join(names),
        "version": str(cff["version"]),
        "note": f"{cff['license']} licence",
    }
    if "repository-code" in cff:
        fields["url"] = str(cff["repository-code"])
    return _entry("software", "clipad", fields)


def _entry(kind: str, key: str, fields: dict[str, str]) -> str:
    width = max(map(len, fields))
    lines = ",\n".join(f"  {name:{width}} = {{{value}}}" for name, value in fields.items())
    return f"@{kind}{{{key},\n{lines}\n}}"
