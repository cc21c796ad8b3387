"""The card of a paper: what it prints, claims and leaves open, and where a run departs from it.

`data/papers/<method>/card.yaml` holds it as data, the printed numbers stand beside it. Whoever adds a
method writes a card; no code names one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

from clipad_core.errors import ClipadError
from clipad_core.metrics import METRIC_LABELS
from clipad_core.validation import allowed, validate, wrong
from clipad_harness.base.files import read_yaml
from clipad_harness.data.cards import card_names

PAPERS = Path(__file__).resolve().parents[2] / "data" / "papers"
CARD = "card.yaml"


@dataclass(frozen=True)
class AblationFacts:
    """One ablation of params.yaml and what the paper says about it.

    Attributes:
        metrics: what its table shows; the first one is drawn.
        table, dataset: where its numbers are printed; no table where the paper has none, and the
            paper's own dataset where none is named.
        rows: our row -> the printed variant in numbers.csv.
        claims: (better row, worse row) as the paper reports them, in the first metric.
    """

    metrics: tuple[str, ...]
    table: str = ""
    dataset: str = ""
    rows: Mapping[str, str] = field(default_factory=dict)
    claims: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Effect:
    """Two rows of one ablation, or steps of a walk, whose difference is what a choice is worth."""

    group: str
    row: str
    base: str


@dataclass(frozen=True)
class Departure:
    """Where a run differs from the paper, or chose what the paper leaves open.

    Attributes:
        what: with {names} of what this run has: fields of its config, `preset`, `aupro`, `fpr_limit`,
            `seeds`.
        why: what the paper and the published code say; nothing of this run, which may have any value.
        effect: the rows that measure it.
        noted: what stands where no rows do; "" for not measured.
        when: names as in braces and the values with which it is one; none: always.
        unless: the same, with which it is none: the paper's own.
        choice: the field whose value published codes share or not, which the page finds out.
    """

    what: str
    why: str
    effect: Effect | None = None
    noted: str = ""
    when: Mapping[str, Any] = field(default_factory=dict)
    unless: Mapping[str, Any] = field(default_factory=dict)
    choice: str = ""

    def asks(self) -> tuple[str, ...]:
        """All that it must know of a run."""
        chosen = (self.choice,) if self.choice else ()
        return (*self.names(), *self.when, *self.unless, *chosen)

    def names(self) -> tuple[str, ...]:
        """What the braces of `what` ask for.

        Raises:
            ValueError: braces that do not close.

        >>> Departure("FPR up to {fpr_limit:g}", "the paper names none").names()
        ('fpr_limit',)
        """
        return tuple(name for _, name, _, _ in Formatter().parse(self.what) if name is not None)


@dataclass(frozen=True)
class OpenChoice:
    """What a paper says of a field that it leaves open; some are about maps alone."""

    says: str
    of_maps: bool = False


@dataclass(frozen=True)
class PublishedCode:
    """A preset that is somebody's code.

    Attributes:
        reported: the printed variant in the numbers that is reported of it; "" where nobody does.
        images_alone: whether it scores images and gives no map; what its preset maps is nobody's.
    """

    reported: str = ""
    images_alone: bool = False


@dataclass(frozen=True)
class Unmeasured:
    """A known cause of a difference that no run can show: what, why not, and where it is told."""

    what: str
    why: str
    source: str


@dataclass(frozen=True)
class Paper:
    """All that a method's paper says, and what a page about it must say.

    Attributes:
        name: of the folder, and in params.yaml.
        title: as results and tables call the method.
        page_title: of its page.
        reported_as: its names in the printed numbers, the zero-shot one first.
        backbone, weights: what its numbers were made with.
        dataset: whose printed means stand beside a dataset that the paper does not have, never
            compared.
        metrics: of the first screen.
        missing: what its page should show and never can.
        departures: of a run from the paper.
        ablations: by group of params.yaml.
        codes: published codes by preset.
        open_choices: fields of the config that the paper leaves open.
        not_measured: causes of a difference that no run can show.
        unpublished: what is said of the stand-in.
        symbols: what the paper's letters and names mean on the method's page.
    """

    name: str
    title: str
    page_title: str
    reported_as: tuple[str, ...]
    backbone: str
    weights: str
    dataset: str
    metrics: tuple[str, ...]
    missing: tuple[str, ...]
    departures: tuple[Departure, ...]
    ablations: Mapping[str, AblationFacts]
    codes: Mapping[str, PublishedCode] = field(default_factory=dict)
    open_choices: Mapping[str, OpenChoice] = field(default_factory=dict)
    not_measured: tuple[Unmeasured, ...] = ()
    unpublished: str = ""
    symbols: Mapping[str, str] = field(default_factory=dict)

    def ablation(self, group: str) -> AblationFacts:
        """What is known of a group; plain columns for one that params.yaml alone has."""
        return self.ablations.get(group, AblationFacts(("image_auroc", "pixel_auroc", "aupro")))

    def code(self, preset: str) -> PublishedCode:
        """What is known of a preset as published code."""
        return self.codes.get(preset, PublishedCode())

    def gives(self, preset: str, metric: str) -> bool:
        """Whether a published code gives what a metric measures.

        >>> paper = read_paper("winclip")
        >>> [paper.gives("malalab", metric) for metric in ("image_ap", "aupro")]
        [True, False]
        """
        return metric.startswith("image_") or not self.code(preset).images_alone


def paper_names(folder: Path = PAPERS) -> list[str]:
    """The names of all methods with a card, sorted."""
    return sorted(path.parent.name for path in folder.glob(f"*/{CARD}"))


def find_paper(method: str) -> Paper | None:
    """The paper of a method by any of its names, None for a method without a card.

    Args:
        method: as in params.yaml, in results, or in the numbers of papers; case and dashes are free.

    >>> find_paper("WinCLIP+").name, find_paper("vcp-clip").title, find_paper("SPADE")
    ('winclip', 'VCP-CLIP', None)
    """
    name = _names(PAPERS).get(_plain(method))
    return None if name is None else _read(PAPERS, name)


def read_paper(method: str, folder: Path = PAPERS) -> Paper:
    """The card of a method's paper; see `find_paper` for the names that it goes by.

    Raises:
        ClipadError: no such card, or one that says something else than a card does.

    >>> read_paper("WinCLIP").page_title
    'WinCLIP and WinCLIP+'
    """
    name = _names(folder).get(_plain(method), method)
    if name not in paper_names(folder):
        names = ", ".join(paper_names(folder)) or "none"
        raise ClipadError(
            f"method: found {method!r}, expected one with a card ({names}); correct the name or write "
            f"{folder / name / CARD}."
        )
    return _read(folder, name)


@cache
def _names(folder: Path) -> dict[str, str]:
    """Every name of every method, written plainly -> its folder's."""
    names: dict[str, str] = {}
    for paper in (_read(folder, name) for name in paper_names(folder)):
        for alias in (paper.name, paper.title, *paper.reported_as):
            if names.setdefault(_plain(alias), paper.name) != paper.name:
                path = folder / paper.name / CARD
                raise wrong(
                    path, "reported_as", alias, f"a name that {names[_plain(alias)]} has not"
                )
    return names


def _plain(method: str) -> str:
    return re.sub(r"[-_ ]", "", method.lower())


@cache
def _read(folder: Path, name: str) -> Paper:
    path = folder / name / CARD
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise wrong(path, "", content, allowed(Paper))
    paper: Paper = validate(Paper, {"name": name, **content}, path)
    if paper.name != name:
        raise wrong(path, "name", paper.name, f"none, or that of its folder, {name}")
    _check(paper, path)
    return paper


def _check(paper: Paper, path: Path) -> None:
    """What types cannot say: metrics and datasets that exist, claims of two rows, braces that close."""
    metrics = {"metrics": paper.metrics}
    metrics |= {
        f"ablations.{name}.metrics": ablation.metrics for name, ablation in paper.ablations.items()
    }
    for where, names in metrics.items():
        for name in names:
            if name not in METRIC_LABELS:
                raise wrong(path, where, name, f"one of {', '.join(METRIC_LABELS)}")
        if not names:
            raise wrong(path, where, [], "at least one metric")
    datasets = {"dataset": paper.dataset}
    datasets |= {
        f"ablations.{n}.dataset": a.dataset for n, a in paper.ablations.items() if a.dataset
    }
    for where, name in datasets.items():
        if name not in card_names():
            raise wrong(path, where, name, "a dataset with a card")
    for name, ablation in paper.ablations.items():
        for claim in ablation.claims:
            if len(claim) != 2:
                raise wrong(path, f"ablations.{name}.claims", list(claim), "[better, worse]")
    if not paper.reported_as:
        raise wrong(path, "reported_as", [], "at least one name")
    for place, departure in enumerate(paper.departures):
        try:
            departure.names()
        except ValueError as error:
            key = f"departures[{place}].what"
            raise wrong(path, key, departure.what, "braces around names") from error
