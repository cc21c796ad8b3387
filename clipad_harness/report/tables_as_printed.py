"""Printed tables with this run's rows in their places, and apart from them what nothing is compared with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import safe_open

from clipad_core.errors import ClipadError
from clipad_core.metrics import METRIC_LABELS
from clipad_harness.base.settings import (
    MethodSettings,
    Profile,
    Weights,
    read_method,
    read_methods,
    read_profile,
)
from clipad_harness.data.cards import read_card
from clipad_harness.data.stages import INDEX
from clipad_harness.experiments.pipeline import measured_methods, read_results
from clipad_harness.experiments.results import COLUMNS
from clipad_harness.experiments.shards import MAIN
from clipad_harness.papers.card import read_paper
from clipad_harness.papers.numbers import Reported
from clipad_harness.papers.printed_tables import (
    CellName,
    PrintedRow,
    PrintedTable,
    all_tables,
    printed_in,
)
from clipad_harness.papers.verdicts import MEAN, beside, check_results, measured
from clipad_harness.report.method import missing_images
from clipad_harness.report.summary import Headline, headline, headline_cell
from clipad_harness.report.tables import (
    DASH,
    Cell,
    Html,
    Row,
    callout,
    facts,
    html_table,
    percent,
    source_list,
    with_spread,
)

# Columns of a table that is not split by metric.
_WIDEST = 8
# What `python -m benchmarks.few_shot` measures of rows that no method here runs; nobody has to run it.
BASELINES = Path("reports/results/few_shot_baselines.csv")


@dataclass(frozen=True)
class Measurements:
    """The results of a run, as its stages have written them; nothing is scored.

    Attributes:
        profile: of the run.
        settings: of every method of params.yaml, by name.
        results: of those that have any.
        index: all images of its dataset.
        baselines: results of rows that other libraries run, columns as of results.csv; may be empty.
        root: the project, where paths of weights begin.
    """

    profile: Profile
    settings: Mapping[str, MethodSettings]
    results: Mapping[str, pd.DataFrame]
    index: pd.DataFrame
    baselines: pd.DataFrame
    root: Path


def read_measurements(root: Path) -> Measurements:
    """Read settings, results and index of a project.

    Raises:
        ClipadError: no index, or results of another dataset than that of the profile.
    """
    path = root / INDEX
    if not path.is_file():
        raise ClipadError(f"{INDEX}: does not exist yet; run `./repro clipad index` first.")
    profile = read_profile(root)
    results = {name: read_results(root, name) for name in measured_methods(root)}
    for name, rows in results.items():
        found = set(rows.loc[rows["variant"] == MAIN, "dataset"])
        if found != {profile.dataset}:
            raise ClipadError(
                f"reports/results/{name}/results.csv: its dataset is {', '.join(sorted(found)) or 'none'}, "
                f"expected {profile.dataset}; run `./repro clipad measure {name}`."
            )
    return Measurements(
        profile,
        {name: read_method(root, name) for name in read_methods(root)},
        results,
        pd.read_csv(path, dtype=str, keep_default_na=False),
        _read_baselines(root, profile.dataset),
        root,
    )


def _read_baselines(root: Path, dataset: str) -> pd.DataFrame:
    if not (root / BASELINES).is_file():
        return pd.DataFrame(columns=COLUMNS)
    rows = pd.read_csv(root / BASELINES, dtype={"category": str})
    if list(rows.columns) != COLUMNS:
        raise ClipadError(
            f"{BASELINES}: found the columns {', '.join(map(str, rows))}, expected {', '.join(COLUMNS)}; run "
            "`./repro python -m benchmarks.few_shot` again, or remove it."
        )
    return rows[rows["dataset"] == dataset]


@dataclass(frozen=True)
class RowHere:
    """What a run has of one row of a printed table.

    Attributes:
        table, row: which row.
        variant: the rows of results.csv that show it; "" where none does.
        results: those rows, with the row's number of references.
        why_not: why they are not compared with what is printed; "" where they are.
    """

    table: PrintedTable
    row: PrintedRow
    variant: str
    results: pd.DataFrame
    why_not: str

    @property
    def categories(self) -> list[str]:
        """Those that it is measured on."""
        return list(dict.fromkeys(map(str, self.results["category"])))

    def means(self, categories: Collection[str]) -> dict[str, dict[str, Any]]:
        """By metric the mean over some categories, as `verdicts.measured` has it."""
        rows = self.results[self.results["category"].astype(str).isin(categories)]
        if rows.empty:
            return {}
        return {row["metric"]: row for row in measured(rows) if row["category"] == MEAN}


def rows_here(table: PrintedTable, run: Measurements) -> list[RowHere]:
    """Every row of a table that has a method here, from top to bottom."""
    return [_row_here(table, row, run) for row in table.rows if row.method]


def _row_here(table: PrintedTable, row: PrintedRow, run: Measurements) -> RowHere:
    none = pd.DataFrame(columns=["category"])
    if row.method not in run.settings:
        why = f"params.yaml does not name {row.method} below `methods`"
        return RowHere(table, row, "", none, why)
    if row.method not in run.results:
        return RowHere(table, row, "", none, "left out of this run; `clipad plan` says why")
    every = run.results[row.method]
    every = every[(every["k_shot"] == row.k_shot) & (every["dataset"] == run.profile.dataset)]
    for variant in _variants(row, run.settings[row.method]):
        results = every[every["variant"] == variant]
        if len(results):
            check_results(results)
            return RowHere(
                table, row, variant, results, _why_not(table, row, run, variant, results)
            )
    what = f"preset {row.preset}" if row.preset else f"{row.k_shot}-shot"
    return RowHere(table, row, "", none, f"{what} is not measured in this run")


def _variants(row: PrintedRow, settings: MethodSettings) -> list[str]:
    """The names that a row may have in results, the best first.

    That is the main variant where its preset is the row's, else an ablation of that preset, else the
    ablation that the table names.
    """
    named = [row.variant] if row.variant else []
    if not row.preset:
        return named or [MAIN]
    is_main = settings.preset == row.preset and not settings.changes
    presets = [
        f"{group}/{name}"
        for group, ablation in settings.ablations.items()
        for name, value in ablation.rows.items()
        if value == row.preset
    ]
    return [*([MAIN] if is_main else []), *presets, *named]


def _why_not(
    table: PrintedTable, row: PrintedRow, run: Measurements, variant: str, results: pd.DataFrame
) -> str:
    dataset, weights = run.profile.dataset, run.profile.weights[row.method]
    if kind := _unpublished(weights, run.root):
        return f"this run uses {kind} weights, not the published ones"
    expected = row.backbone or read_paper(row.method).backbone
    if weights.backbone != expected:
        return f"the printed row was made with {expected}, this run has {weights.backbone}"
    if dataset not in table.datasets.values():
        return f"the table has no column for this run's dataset {dataset}"
    if variant == row.variant:
        return "measured as a row of ablations, with other settings than the printed row"
    count, complete = results["category"].nunique(), len(read_card(dataset).categories)
    if count < complete:
        return f"measured on {count} of {complete} categories"
    return missing_images(dataset, run.index)


def _unpublished(weights: Weights, root: Path) -> str:
    """What weights say of themselves that no number of a paper was made with; "" where they say nothing.

    Their header alone is read: this page shows no map and needs no weights.
    """
    path = root / weights.weights
    if weights.weights.startswith("random:"):
        return "random"
    if path.suffix != ".safetensors" or not path.is_file():
        return ""
    with safe_open(path, framework="np") as opened:
        return str((opened.metadata() or {}).get("clipad", ""))


def compared_cells(run: Measurements) -> dict[tuple[str, str], dict[CellName, Headline]]:
    """Ours beside the printed number wherever the two can be compared, by paper and table."""
    return {(table.paper, table.table): _compared(table, run) for table in all_tables()}


def _compared(table: PrintedTable, run: Measurements) -> dict[CellName, Headline]:
    printed, cells = printed_in(table), {}
    own = [name for name, own in table.datasets.items() if own == run.profile.dataset]
    for here in rows_here(table, run):
        for metric, row in here.means(here.categories).items() if not here.why_not else ():
            for dataset in own:
                name = CellName(here.row.row, here.row.k_shot, dataset, metric)
                if name in printed:
                    line = row | beside(row, here.row.method, printed[name], comparable=True)
                    cells[name] = headline(line)
    return cells


def opening(run: Measurements, tables: Sequence[PrintedTable]) -> Html:
    """What the page shows, and whether anything of this run stands in the tables."""
    here = [row for table in tables for row in rows_here(table, run)]
    cells = [line for cells in compared_cells(run).values() for line in cells.values()]
    verdicts = [line.verdict for line in cells]
    lead = Html(
        '<p class="lead">The tables of the papers, row by row and dataset by dataset as they are '
        "printed: what "
        "this run measures in its place, and what cannot be run, with the reason.</p>"
    )
    card = read_card(run.profile.dataset)
    boxes = facts(
        {
            "this run's dataset": card.title,
            "printed numbers": f"{sum(len(printed_in(table)) for table in tables):,}",
            "of rows that are run here": f"{sum(_count(table) for table in tables):,}",
            "compared": len(cells),
            "pass, fail": f"{verdicts.count('pass')}, {verdicts.count('fail')}",
        }
    )
    if cells:
        how = Html(
            "<p>Where a cell has two numbers, ours stands above the printed one, with the difference in "
            "points. A verdict is given on a paper's own method in its own table; of rows that its authors "
            "quote or ran themselves, the difference alone.</p>"
        )
        return lead + boxes + how
    reasons = list(dict.fromkeys(row.why_not for row in here if row.variant))
    because = f" {reasons[0][0].upper()}{reasons[0][1:]}." if reasons else ""
    note = callout(
        f"No printed number has one of ours beside it.{because} What this run measures of the same rows "
        "stands "
        "below each table, set apart: it shows that every row runs, not how good a method is.",
        "warning",
    )
    return lead + note + boxes


def _count(table: PrintedTable) -> int:
    """How many of its numbers are of rows that have a method here, on datasets that one can have."""
    runs = {(row.row, row.k_shot) for row in table.rows if row.method}
    return sum(
        (cell.row, cell.k_shot) in runs and table.datasets[cell.dataset] is not None
        for cell in table.cells()
    )


def table_section(table: PrintedTable, run: Measurements) -> Html:
    """One printed table, why rows of it are quoted, and what this run has of its rows.

    A table of few columns stands as one, a wider one as a table a metric.
    """
    printed, ours = printed_in(table), _compared(table, run)
    columns = {
        metric: [(name, metric) for name in table.columns(metric)] for metric in table.metrics
    }
    if sum(map(len, columns.values())) <= _WIDEST:
        parts = [_whole_table(table, printed, ours)]
    else:
        parts = [
            html_table(
                f"{METRIC_LABELS[metric]}, per cent, as printed in {table.table}",
                [
                    [
                        Cell("row", "col"),
                        *(Cell(name, "col", "number") for name, _ in columns[metric]),
                    ]
                ],
                _printed_rows(table, columns[metric], printed, ours, is_first=not place),
            )
            for place, metric in enumerate(table.metrics)
        ]
    sources = source_list([_source(table, printed), *_quoted(table, printed)])
    return Html("").join(
        [*parts, sources, _reasons(table), _apart(table, run), _by_others(table, run)]
    )


def _whole_table(
    table: PrintedTable,
    printed: Mapping[CellName, Reported],
    ours: Mapping[CellName, Headline],
) -> Html:
    """All metrics of a dataset side by side, one dataset after the other."""
    columns = [(name, metric) for name in table.datasets for metric in table.metrics]
    wide = len(table.metrics)
    head = [
        [
            Cell("row", "col", rows=2),
            *(Cell(name, "colgroup", columns=wide) for name in table.datasets),
        ],
        [Cell(METRIC_LABELS[metric], "col", "number") for _, metric in columns],
    ]
    body = _printed_rows(table, columns, printed, ours, is_first=True)
    return html_table(f"Per cent, as printed in {table.table}", head, body)


def _source(table: PrintedTable, printed: Mapping[CellName, Reported]) -> str:
    own = [number for number in printed.values() if number.quality == "primary"]
    return (own or list(printed.values()))[0].source


def _quoted(table: PrintedTable, printed: Mapping[CellName, Reported]) -> list[str]:
    """How the numbers came into the table that are not of the paper's own method."""
    notes: dict[str, list[str]] = {}
    for cell, number in printed.items():
        if number.quality != "primary" and number.note:
            rows = notes.setdefault(number.note, [])
            rows += [cell.row] if cell.row not in rows else []
    return [f"{', '.join(rows)}: {note}" for note, rows in notes.items()]


def _printed_rows(
    table: PrintedTable,
    columns: Sequence[tuple[str, str]],
    printed: Mapping[CellName, Reported],
    ours: Mapping[CellName, Headline],
    is_first: bool,
) -> list[Row]:
    """The rows of a table, its printed number in every column, with ours where the two are compared."""
    body, shots = [], 0
    for row in table.rows:
        cells = [_row_head(table, row, with_method=is_first)]
        for dataset, metric in columns:
            name = CellName(row.row, row.k_shot, dataset, metric)
            if name in ours:
                cells.append(replace(headline_cell(ours[name]), kind="number"))
            elif name in printed:
                text = with_spread(printed[name].mean, printed[name].std)
                cells.append(Cell(text, kind="number"))
            else:
                cells.append(Cell(DASH, kind="number"))
        body.append(Row(cells, "group" if row.k_shot != shots else ""))
        shots = row.k_shot
    return body


def _row_head(table: PrintedTable, row: PrintedRow, with_method: bool) -> Cell:
    """A row's name with its references, and below it what runs it, or that it is quoted."""
    below = Html("")
    if row.quoted:
        below = Html('<a href="#{}-{}">quoted</a>').format(table.anchor, row.quoted)
    elif with_method:
        named = row.preset and row.preset != row.method
        below += f"{row.method}, preset {row.preset}" if named else row.method
    name = Html('{}<span class="cell-paper">{}</span>') if below else Html("{}")
    return Cell(name.format(_name(row), below), "row")


def _name(row: PrintedRow) -> str:
    return f"{row.row}, {row.k_shot}-shot" if row.k_shot else row.row


def _reasons(table: PrintedTable) -> Html:
    """Why rows are quoted and datasets not to be had."""
    item = Html('<li id="{}-{}">{}: {}</li>')
    rows: dict[str, list[str]] = {}
    for row in table.rows:
        if row.quoted and row.row not in rows.setdefault(row.quoted, []):
            rows[row.quoted].append(row.row)
    items = [item.format(table.anchor, n, ", ".join(rows[n]), table.reasons[n]) for n in rows]
    absent = [name for name, own in table.datasets.items() if own is None]
    if absent:
        items.append(item.format(table.anchor, "data", ", ".join(absent), table.unavailable))
    if not items:
        return Html("")
    return Html("<h3>What cannot be run</h3><ul>{}</ul>").format(Html("").join(items))


def _apart(table: PrintedTable, run: Measurements) -> Html:
    """The same rows on this run's dataset, of which nothing is compared."""
    rows = [here for here in rows_here(table, run) if here.why_not]
    if not rows:
        return Html("")
    with_values = [here for here in rows if here.variant]
    if not with_values:
        return Html("<h3>Rows of which this run has no number</h3>") + source_list(_notes(rows))
    shared = set.intersection(*(set(here.categories) for here in with_values))
    head = [Cell("row", "col"), Cell("categories", "col", "number")]
    head += [Cell(METRIC_LABELS[metric], "col", "number") for metric in table.metrics]
    body = [_apart_row(table, here, shared) for here in rows]
    title = read_card(run.profile.dataset).title
    about = (
        f"{title}: the rows of {table.table} as this run measures them, per cent. Not comparable with "
        "the table above"
    )
    if any(set(here.categories) != shared for here in with_values):
        names = ", ".join(sorted(shared)).replace("_", " ")
        about += (
            f". Some rows are measured on {len(shared)} categories alone ({names}); below the mean over "
            "all, small, that over the same ones"
        )
    heading = Html("<h3>The same rows on {}</h3>").format(title)
    return heading + html_table(about, [head], body) + source_list(_notes(rows))


def _by_others(table: PrintedTable, run: Measurements) -> Html:
    """Quoted rows as another library measures them, which is not what the printed ones were made with."""
    body, labels = [], []
    for row in table.rows:
        found = run.baselines[
            (run.baselines["method"] == row.row) & (run.baselines["k_shot"] == row.k_shot)
        ]
        if not row.quoted or found.empty:
            continue
        means = {m["metric"]: m for m in measured(found) if m["category"] == MEAN}
        cells = [Cell(_name(row), "row"), Cell(found["category"].nunique(), kind="number")]
        cells += [
            Cell(
                with_spread(means[metric]["ours_mean"], means[metric]["ours_std_of_mean"])
                if metric in means
                else DASH,
                kind="number",
            )
            for metric in table.metrics
        ]
        body.append(Row(cells))
        labels += [f"{row.row}: {label}" for label in found["backbone"].unique()]
    if not body:
        return Html("")
    head = [Cell("row", "col"), Cell("categories", "col", "number")]
    head += [Cell(METRIC_LABELS[metric], "col", "number") for metric in table.metrics]
    title = read_card(run.profile.dataset).title
    about = (
        f"{title}: quoted rows of {table.table} as another library measures them with the references of "
        "this run's seeds, per cent. Other code and settings than the printed rows, so without a verdict"
    )
    heading = Html("<h3>Quoted rows by another library</h3>")
    return heading + html_table(about, [head], body) + source_list(list(dict.fromkeys(labels)))


def _notes(rows: Sequence[RowHere]) -> list[str]:
    """Why rows are not compared, each reason once, and which rows other variants than the main one show."""
    reasons: dict[str, list[str]] = {}
    for here in rows:
        reasons.setdefault(here.why_not, []).append(_name(here.row))
    notes = [f"{', '.join(names)}: {why}" for why, names in reasons.items()]
    return notes + [
        f"{_name(here.row)}: measured as {here.variant}, an ablation of {here.row.method}"
        for here in rows
        if here.variant not in ("", MAIN)
    ]


def _apart_row(table: PrintedTable, here: RowHere, shared: Collection[str]) -> Row:
    cells = [_row_head(table, here.row, with_method=True)]
    cells.append(Cell(len(here.categories) or DASH, kind="number"))
    every, few = here.means(here.categories), {}
    if here.variant and set(here.categories) != set(shared):
        few = here.means(shared)
    for metric in table.metrics:
        if metric not in every:
            cells.append(Cell(DASH, kind="number"))
            continue
        text = with_spread(every[metric]["ours_mean"], every[metric]["ours_std_of_mean"])
        if metric in few:
            below = Html('{}<span class="cell-paper">on {}: {}</span>')
            text = below.format(text, len(shared), percent(few[metric]["ours_mean"]))
        cells.append(Cell(text, kind="number"))
    return Row(cells)
