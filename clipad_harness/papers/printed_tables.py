"""Printed tables that a run sets its own rows beside: `data/papers/<method>/tables.yaml`.

The file says what a table is: its rows, datasets and metrics as printed, which row is which method and
preset here, and why some rows are only quoted. The numbers stand in `numbers.csv`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from clipad_core.metrics import METRIC_LABELS
from clipad_core.validation import allowed, listed, validate, wrong
from clipad_harness.base.files import read_yaml
from clipad_harness.data.cards import card_names
from clipad_harness.papers.card import PAPERS, paper_names
from clipad_harness.papers.numbers import Reported, as_reported, numbers_of

TABLES = "tables.yaml"


@dataclass(frozen=True)
class PrintedRow:
    """One row of a printed table.

    Attributes:
        row: its name as printed.
        k_shot: number of references.
        method: the room that runs it here; "" for none.
        preset: of the method, where the row is not its main variant.
        backbone: where it is not that of the method's card.
        variant: a row of the method's ablations that shows it where nothing is compared.
        quoted: the name of the reason why it is not run here.
    """

    row: str
    k_shot: int = 0
    method: str = ""
    preset: str = ""
    backbone: str = ""
    variant: str = ""
    quoted: str = ""


@dataclass(frozen=True)
class EmptyCells:
    """Cells that the paper prints as a dash: all metrics of a row on a dataset."""

    row: str
    dataset: str
    k_shot: int = 0


class CellName(NamedTuple):
    """What a printed number is of: row, number of references, dataset as printed, metric."""

    row: str
    k_shot: int
    dataset: str
    metric: str


@dataclass(frozen=True)
class PrintedTable:
    """One table of a paper, rows, datasets and metrics in the paper's order.

    Attributes:
        table: as numbers.csv names it.
        title: what it shows.
        metrics: its columns.
        datasets: the printed name -> ours; None where nobody else can have its images.
        rows: from top to bottom.
        unavailable: why there are datasets that nobody can have.
        image_alone: printed datasets without pixel metrics.
        pixel_alone: printed datasets without image metrics.
        dashes: cells that it leaves empty.
        reasons: why rows are quoted, by name.
        paper: the folder of its paper, which no file says.
    """

    table: str
    title: str
    metrics: tuple[str, ...]
    datasets: Mapping[str, str | None]
    rows: tuple[PrintedRow, ...]
    unavailable: str = ""
    image_alone: tuple[str, ...] = ()
    pixel_alone: tuple[str, ...] = ()
    dashes: tuple[EmptyCells, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    paper: str = ""

    @property
    def anchor(self) -> str:
        """What links on a page lead to.

        >>> read_tables("winclip")[0].anchor
        'winclip-table-1'
        """
        return f"{self.paper}-{self.table.lower().replace(' ', '-')}"

    def columns(self, metric: str) -> list[str]:
        """The printed datasets that have a metric.

        >>> read_tables("anomalyclip")[1].columns("aupro")[:2]
        ['ISIC', 'CVC-ColonDB']
        """
        without = self.pixel_alone if metric.startswith("image_") else self.image_alone
        return [name for name in self.datasets if name not in without]

    def cells(self) -> Iterator[CellName]:
        """Every cell that has a number."""
        empty = {(dash.row, dash.k_shot, dash.dataset) for dash in self.dashes}
        for row in self.rows:
            for metric in self.metrics:
                for dataset in self.columns(metric):
                    if (row.row, row.k_shot, dataset) not in empty:
                        yield CellName(row.row, row.k_shot, dataset, metric)


def all_tables(folder: Path = PAPERS) -> list[PrintedTable]:
    """The tables of all papers that have a file of them, by the papers' names."""
    return [
        table
        for name in paper_names(folder)
        if (folder / name / TABLES).is_file()
        for table in read_tables(name, folder)
    ]


@cache
def read_tables(paper: str, folder: Path = PAPERS) -> tuple[PrintedTable, ...]:
    """The tables of a paper, checked against its numbers.

    Raises:
        ClipadError: a field that is wrong or missing, a row twice, a row that is neither run nor quoted, an
            unknown method, dataset, metric or reason, or a cell of which numbers.csv has no number or two.
    """
    path = folder / paper / TABLES
    content: Any = read_yaml(path)
    if not isinstance(content, list):
        raise wrong(path, "", content, allowed(tuple[PrintedTable, ...]))
    read: tuple[PrintedTable, ...] = validate(tuple[PrintedTable, ...], content, path)
    tables = tuple(replace(table, paper=paper) for table in read)
    for place, table in enumerate(tables):
        _check(table, path, f"[{place}]", folder)
        printed_in(table, folder)
    return tables


def _check(table: PrintedTable, path: Path, where: str, folder: Path) -> None:
    for metric in table.metrics:
        if metric not in METRIC_LABELS:
            raise wrong(path, f"{where}.metrics", metric, f"one of {', '.join(METRIC_LABELS)}")
    for name, own in table.datasets.items():
        if own is not None and own not in card_names():
            raise wrong(path, f"{where}.datasets.{name}", own, "a dataset with a card, or null")
        if own is None and not table.unavailable:
            raise wrong(path, f"{where}.unavailable", "", f"why nobody can have {name}")
    for key, names in (("image_alone", table.image_alone), ("pixel_alone", table.pixel_alone)):
        if unknown := [name for name in names if name not in table.datasets]:
            raise wrong(path, f"{where}.{key}", unknown[0], f"some of {listed(table.datasets)}")
    seen: set[tuple[str, int]] = set()
    for place, row in enumerate(table.rows):
        here = f"{where}.rows[{place}]"
        if (row.row, row.k_shot) in seen:
            raise wrong(path, f"{here}.row", row.row, "each row once")
        seen.add((row.row, row.k_shot))
        if bool(row.method) == bool(row.quoted):
            raise wrong(path, here, row.row, "a method that runs the row, or a reason to quote it")
        if row.method and row.method not in paper_names(folder):
            raise wrong(path, f"{here}.method", row.method, f"one of {listed(paper_names(folder))}")
        if row.quoted and row.quoted not in table.reasons:
            raise wrong(path, f"{here}.quoted", row.quoted, f"one of {listed(table.reasons)}")
    for place, dash in enumerate(table.dashes):
        if (dash.row, dash.k_shot) not in seen or dash.dataset not in table.datasets:
            where_ = f"{where}.dashes[{place}]"
            raise wrong(path, where_, f"{dash.row}, {dash.dataset}", "a row and dataset of it")


def printed_in(table: PrintedTable, folder: Path = PAPERS) -> dict[CellName, Reported]:
    """The number of every cell of a table.

    Raises:
        ClipadError: a cell without a number in numbers.csv, or with two.

    >>> table = read_tables("winclip")[0]
    >>> printed_in(table)["WinCLIP", 0, "MVTec AD", "image_auroc"].mean
    91.8
    """
    rows = numbers_of(table.paper, folder)
    rows = rows[(rows["table"] == table.table) & (rows["category"] == "")]
    shots = rows["k_shot"].where(rows["k_shot"] != "0", "zero")
    rows = rows[rows["variant"] == shots + "-shot"]
    found: dict[CellName, Reported] = {}
    twice: list[CellName] = []
    for record in rows.to_dict("records"):
        shot = int(record["k_shot"])
        name = CellName(record["method"], shot, record["dataset"], record["metric"])
        twice += [name] if name in found else []
        found[name] = as_reported(record)
    path = folder / table.paper / TABLES
    for cell in table.cells():
        if cell in twice or cell not in found:
            count = "two numbers" if cell in twice else "none"
            about = f"{cell.row}, {cell.k_shot}-shot, {cell.dataset}, {cell.metric}"
            raise wrong(path, table.table, about, f"its number in numbers.csv, which has {count}")
    return {cell: found[cell] for cell in table.cells()}
