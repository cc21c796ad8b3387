"""The same row, dataset and metric with more than one printed value, and what is known of the reasons.

The values are found in the printed numbers (`numbers.csv` of every paper, `reruns.csv`); which names mean
the same, and the known causes, stand in `data/papers/conflicts.yaml`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from clipad_core.metrics import METRIC_LABELS, METRICS
from clipad_core.validation import validate, wrong
from clipad_harness.base.files import read_yaml
from clipad_harness.papers.card import PAPERS, paper_names, read_paper
from clipad_harness.papers.numbers import numbers_of

CONFLICTS = "conflicts.yaml"
# Printed values that are at most this far apart, in points, say the same.
SAME = 0.1
# A difference of two values of one decimal, as floats, is not exactly one.
_ROUNDING = 1e-6
_QUOTED = re.compile(r"zero-shot, as in (?:the )?(\S+)")
_BY_A_USER = "zero-shot, run by a user"
_OWN_TABLES = ("zero-shot", "zero-shot (concurrent methods)")
_AVERAGE = re.compile(r"(average|mean) of ")


class Value(NamedTuple):
    """One value of a row on a dataset, in per cent: who prints it, where, and the causes known of it."""

    row: str
    dataset: str
    metric: str
    mean: float
    by: str
    table: str
    source: str
    causes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Affected:
    """Values that a cause is known of; no dataset, metric or value named: all.

    Attributes:
        rows: as listed here.
        printed_by: the papers whose values they are.
        datasets: as listed here.
        metrics: their names.
        but: datasets that are not meant.
        values: in per cent, where the printer has several.
    """

    rows: tuple[str, ...]
    printed_by: tuple[str, ...]
    datasets: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    but: tuple[str, ...] = ()
    values: tuple[float, ...] = ()

    def holds(self, value: Value) -> bool:
        """Whether a value is one of them."""
        return (
            value.row in self.rows
            and value.by in self.printed_by
            and value.dataset not in self.but
            and (not self.datasets or value.dataset in self.datasets)
            and (not self.metrics or value.metric in self.metrics)
            and (not self.values or value.mean in self.values)
        )


@dataclass(frozen=True)
class Cause:
    """Why values differ.

    Attributes:
        says: what it is.
        kind: `stated`: somebody responsible says it, or a file shows it; `numbers`: it follows from
            comparing printed values; `likely`: neither contradicts it.
        source: where that is known from.
        cells: the values.
    """

    says: str
    kind: Literal["stated", "numbers", "likely"]
    source: str
    cells: tuple[Affected, ...]


@dataclass(frozen=True)
class _Known:
    same_rows: Mapping[str, str]
    same_datasets: Mapping[str, str]
    causes: Mapping[str, Cause]


@dataclass(frozen=True)
class Conflict:
    """All values of one row, dataset and metric, the lowest first."""

    values: tuple[Value, ...]

    @property
    def row(self) -> str:
        """The method, as listed here."""
        return self.values[0].row

    @property
    def dataset(self) -> str:
        """As listed here."""
        return self.values[0].dataset

    @property
    def metric(self) -> str:
        """Its name."""
        return self.values[0].metric

    @property
    def sources(self) -> int:
        """How many papers, repositories or users report a value."""
        return len({value.by for value in self.values})

    @property
    def span(self) -> float:
        """Highest minus lowest, in points."""
        return _span(self.values)

    @property
    def causes(self) -> tuple[str, ...]:
        """The causes that set a value apart, by more than `SAME`, from all values that they are not of."""
        names = dict.fromkeys(name for value in self.values for name in value.causes)
        return tuple(name for name in names if self._sets_apart(name))

    def _sets_apart(self, cause: str) -> bool:
        others = [value.mean for value in self.values if cause not in value.causes]
        own = [value.mean for value in self.values if cause in value.causes]
        return bool(others) and any(
            all(abs(mean - other) > SAME + _ROUNDING for other in others) for mean in own
        )

    @property
    def left(self) -> float:
        """The largest span among values of which the same causes are known, or none, in points.

        A cause sets some values apart from the others; between two values that share all their causes it
        explains nothing.
        """
        alike = defaultdict(list)
        for value in self.values:
            alike[frozenset(value.causes)].append(value)
        return max(map(_span, alike.values()))

    @property
    def explained(self) -> bool:
        """Whether nothing is left that counts as a difference."""
        return self.left <= SAME + _ROUNDING


def _span(values: Iterable[Value]) -> float:
    means = [value.mean for value in values]
    return round(max(means) - min(means), 6)


@cache
def causes(folder: Path = PAPERS) -> Mapping[str, Cause]:
    """The known causes by name, each with at least one value that it is known of.

    Raises:
        ClipadError: a file that says something else, a metric that does not exist, or a cause of no value.
    """
    known = _read(folder)
    path = folder / CONFLICTS
    values = _values(folder)
    for name, cause in known.causes.items():
        for place, affected in enumerate(cause.cells):
            where = f"causes.{name}.cells[{place}]"
            for metric in affected.metrics:
                if metric not in METRIC_LABELS:
                    raise wrong(path, f"{where}.metrics", metric, f"one of {', '.join(METRICS)}")
            if not any(map(affected.holds, values)):
                raise wrong(path, where, affected, "some printed value that it is about")
    return known.causes


@cache
def _read(folder: Path) -> _Known:
    content: Any = read_yaml(folder / CONFLICTS)
    known: _Known = validate(_Known, content, folder / CONFLICTS)
    return known


def printed_values(folder: Path = PAPERS) -> list[Value]:
    """Every zero-shot mean on a dataset that is in print, with who prints it and the known causes.

    Left out are ablations, averages over datasets and metrics that no run measures.

    >>> value = printed_values()[0]
    >>> value.row, value.dataset, value.metric, value.mean, value.by
    ('CLIP', 'MVTec AD', 'image_auroc', 74.1, 'AnomalyCLIP')
    """
    known = causes(folder)
    return [
        value._replace(causes=tuple(n for n, c in known.items() if _about(c, value)))
        for value in _values(folder)
    ]


def _about(cause: Cause, value: Value) -> bool:
    return any(affected.holds(value) for affected in cause.cells)


@cache
def _values(folder: Path) -> tuple[Value, ...]:
    own = [
        (read_paper(name, folder).title, numbers_of(name, folder)) for name in paper_names(folder)
    ]
    values = []
    for title, numbers in [*own, ("", numbers_of("", folder))]:
        rows = numbers[(numbers["category"] == "") & (numbers["k_shot"] == "0")]
        rows = rows[rows["metric"].isin(list(METRIC_LABELS))]
        for row in rows.to_dict("records"):
            by = _printed_by(row["variant"], title, row["source"])
            if by and not _AVERAGE.match(row["dataset"]):
                about = listed_by(row["method"], row["dataset"], folder)
                place = (row["table"], row["source"])
                values.append(Value(*about, row["metric"], float(row["mean"]), by, *place))
    return tuple(values)


def listed_by(row: str, dataset: str, folder: Path = PAPERS) -> tuple[str, str]:
    """The names by which a printed row and a printed dataset are listed.

    >>> listed_by("VAND (APRIL-GAN)", "BTech (BTAD)")
    ('APRIL-GAN', 'BTAD')
    """
    known = _read(folder)
    return known.same_rows.get(row, row), known.same_datasets.get(dataset, dataset)


def _printed_by(variant: str, title: str, source: str) -> str:
    """The paper that prints a number; "" for one that is no zero-shot row of a table of methods."""
    if quoted := _QUOTED.match(variant):
        return quoted[1]
    if variant == _BY_A_USER:
        return source
    return title if variant in _OWN_TABLES else ""


def conflicts(values: Iterable[Value]) -> list[Conflict]:
    """What two sources or more report, the largest span first.

    >>> first = conflicts(printed_values())[0]
    >>> first.row, first.dataset, first.metric, first.span, first.left
    ('APRIL-GAN', 'DAGM', 'aupro', 53.5, 53.5)
    """
    cells = defaultdict(list)
    for value in values:
        cells[value.row, value.dataset, value.metric].append(value)
    found = [Conflict(tuple(sorted(v, key=lambda one: (one.mean, one.by)))) for v in cells.values()]
    found = [conflict for conflict in found if conflict.sources > 1]
    return sorted(found, key=lambda c: (-c.span, c.row, c.dataset, c.metric))


def counts(found: Iterable[Conflict], points: Iterable[float]) -> list[int]:
    """How many spans reach each number of points; `SAME` itself still counts as the same.

    >>> counts(conflicts([]), [1, 5])
    [0, 0]
    """
    spans = [conflict.span for conflict in found]
    return [
        sum(
            span > least + _ROUNDING if least == SAME else span >= least - _ROUNDING
            for span in spans
        )
        for least in points
    ]


STEP_COLUMNS = (
    *("paper", "dataset", "metric", "own", "best", "best_row", "step"),
    *("span", "step_from_best"),
)


def progress(values: Iterable[Value]) -> pd.DataFrame:
    """How far each paper's own row is above the best other row of its own tables.

    A paper counts that prints a row of its own name and rows of others. Its own variants, whose names begin
    with it, are no other rows.

    Returns:
        A row a paper, dataset and metric: `paper, dataset, metric, own, best, best_row, step, span,
        step_from_best`; in per cent and points. `step` is negative where another row is better. `span` is
        that of all values of the row that it is measured from, `step_from_best` the step from the best of
        them; both are NaN where one source alone has it.
    """
    values = list(values)
    several = {(c.row, c.dataset, c.metric): c for c in conflicts(values)}
    tables = defaultdict(list)
    for value in values:
        tables[value.by, value.dataset, value.metric].append(value)
    rows = []
    for (paper, dataset, metric), printed in tables.items():
        own = [value for value in printed if value.row == paper]
        others = [value for value in printed if not value.row.startswith(paper)]
        if own and others:
            sign = 1 if METRICS[metric].higher_is_better else -1
            best = max(others, key=lambda value: sign * value.mean)
            step = round(sign * (own[0].mean - best.mean), 6)
            span = from_best = math.nan
            if conflict := several.get((best.row, dataset, metric)):
                highest = max(sign * value.mean for value in conflict.values)
                span, from_best = conflict.span, round(sign * own[0].mean - highest, 6)
            about = (paper, dataset, metric, own[0].mean, best.mean, best.row)
            rows.append((*about, step, span, from_best))
    return pd.DataFrame(rows, columns=list(STEP_COLUMNS))
