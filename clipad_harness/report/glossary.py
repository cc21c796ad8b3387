"""The glossary of a page: its metrics, the words of its tables, the symbols of its methods."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from clipad_core.metrics import METRICS
from clipad_core.validation import validate, wrong
from clipad_harness.base.files import read_yaml
from clipad_harness.papers.card import read_paper

GLOSSARY = Path(__file__).parent / "glossary.yaml"


@dataclass(frozen=True)
class Term:
    """One word of the glossary.

    Attributes:
        name: as tables write it.
        meaning: one or a few sentences.
        heads: further heads of tables that lead to it.
    """

    name: str
    meaning: str
    heads: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Glossary:
    metrics: dict[str, str]
    words: tuple[Term, ...]


def glossary(methods: Iterable[str] = ()) -> list[Term]:
    """All metrics in the order of tables, the words of tables, and the symbols of some methods.

    Raises:
        ClipadError: a file that holds something else.

    >>> [term.name for term in glossary(["winclip"])][:2]
    ['image AUROC', 'image AP']
    """
    terms = _read()
    metrics = [Term(metric.label, terms.metrics[name]) for name, metric in METRICS.items()]
    symbols = [
        Term(symbol, f"{paper.title}: {meaning}")
        for paper in map(read_paper, methods)
        for symbol, meaning in paper.symbols.items()
    ]
    return [*metrics, *terms.words, *symbols]


@cache
def _read() -> _Glossary:
    content: Any = read_yaml(GLOSSARY)
    terms: _Glossary = validate(_Glossary, content, GLOSSARY)
    if set(terms.metrics) != set(METRICS):
        raise wrong(GLOSSARY, "metrics", sorted(terms.metrics), f"{', '.join(METRICS)}, each once")
    return terms
