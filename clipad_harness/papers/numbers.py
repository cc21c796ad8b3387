"""Numbers that papers print, each with its source.

`data/papers/<method>/numbers.csv` holds one row a printed number, in per cent, `data/papers/reruns.csv`
what others report of several methods. Where sources contradict each other all rows are kept; which one
a table shows is decided here: the paper's own before a quotation, the main text before the supplement.
Runs by others never stand for the paper.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from clipad_core.errors import ClipadError
from clipad_core.metrics import METRIC_LABELS
from clipad_harness.data.cards import card_names, read_card
from clipad_harness.papers.card import PAPERS, find_paper, read_paper

_KEY = [
    *("method", "variant", "table", "backbone", "resolution", "trained_on"),
    *("dataset", "category", "k_shot", "metric"),
]
_COLUMNS = [*_KEY, "mean", "std", "source", "quality", "note"]
_QUALITIES = ("primary", "secondary", "rerun")


@dataclass(frozen=True)
class Reported:
    """One printed number in per cent; `std` is None where none is printed."""

    mean: float
    std: float | None
    table: str
    source: str
    quality: str
    note: str


def load_reported(folder: Path = PAPERS) -> pd.DataFrame:
    """All printed numbers: the columns of the files, `""` for an empty text, NaN for no `std`.

    `category` is `""` for a mean over categories. `k_shot` and `resolution` are text: some papers
    print `full` or a range.

    Raises:
        ClipadError: a file with other columns, a row without a source, an unknown quality, a number
            that is missing or out of range, or the same row twice; file and line are named.
    """
    return _reported(folder).copy()


@cache
def _reported(folder: Path) -> pd.DataFrame:
    paths = sorted([*folder.glob("*/numbers.csv"), *folder.glob("reruns.csv")])
    if not paths:
        raise ClipadError(
            f"{folder}: found no numbers.csv in it, expected the printed numbers; restore it."
        )
    rows = pd.concat([_read_numbers(path) for path in paths], ignore_index=True)
    twice = rows.duplicated([*_KEY, "source"])
    if twice.any():
        row = rows[twice].iloc[0]
        raise ClipadError(
            f"{folder}: found {row['method']} {row['variant']} {row['dataset']} "
            f"{row['category'] or 'mean'} {row['metric']} twice from {row['source']}; remove one."
        )
    return rows


@cache
def numbers_of(paper: str, folder: Path = PAPERS) -> pd.DataFrame:
    """What one paper prints, columns as of `load_reported`; no row where it has no numbers.csv.

    Args:
        paper: the folder of its method, or "" for what others report, reruns.csv.
        folder: of all papers.

    >>> sorted(set(numbers_of("aprilgan")["method"]))
    ['APRIL-GAN']
    """
    path = folder / paper / "numbers.csv" if paper else folder / "reruns.csv"
    return _read_numbers(path) if path.is_file() else pd.DataFrame(columns=_COLUMNS)


def _read_numbers(path: Path) -> pd.DataFrame:
    rows = read_numbers(path, _COLUMNS, ("mean",), ("std",))
    refuse(path, rows["source"].str.strip() == "", rows["source"], "source: expected one")
    expected = f"quality: expected one of {', '.join(_QUALITIES)}"
    refuse(path, ~rows["quality"].isin(_QUALITIES), rows["quality"], expected)
    outside = rows["metric"].isin(METRIC_LABELS) & ~rows["mean"].between(0, 100)
    refuse(path, outside, rows["mean"], "mean: expected per cent, 0 to 100")
    refuse(path, rows["std"] < 0, rows["std"], "std: expected 0 or more")
    return rows


def read_numbers(
    path: Path, columns: list[str], numbers: tuple[str, ...], optional: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Read a CSV file of text columns and number columns; an empty optional number is NaN.

    Raises:
        ClipadError: other columns, or no number where one is expected.
    """
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    if list(rows.columns) != columns:
        header = ", ".join(map(str, rows))
        raise ClipadError(f"{path}: found {header}, expected {', '.join(columns)}.")
    for name in (*numbers, *optional):
        text = rows[name]
        rows[name] = pd.to_numeric(text, errors="coerce")
        wrong = rows[name].isna() | rows[name].isin([math.inf, -math.inf])
        wrong &= (text != "") | (name in numbers)
        refuse(path, wrong, text, f"{name}: expected a number")
    return rows


def refuse(path: Path, wrong: pd.Series, values: pd.Series, problem: str) -> None:
    """Raise a ClipadError that names the line of the first wrong row, if any."""
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise ClipadError(f"{path}, line {row + 2}: {problem}, found {values.iloc[row]!r}.")


@cache
def dataset_titles(dataset: str) -> tuple[str, ...]:
    """A dataset's printed names, the usual one first; its own name where no paper prints it.

    >>> dataset_titles("kolektor_sdd"), dataset_titles("synthetic_target")
    (('SDD', 'KSDD (SDD)'), ('synthetic_target',))
    """
    printed = read_card(dataset).printed_as if dataset in card_names() else ()
    return printed or (dataset,)


def _about(table: pd.DataFrame, dataset: str) -> pd.Series:
    """Which rows are about a dataset: its name, and where papers mean several by it, the source.

    Args:
        table: as from `load_reported`.
        dataset: ours, or a printed name, whatever papers mean by that.
    """
    named = table["dataset"].isin(dataset_titles(dataset))
    if dataset not in card_names():
        return named
    sources = read_card(dataset).printed_in
    if sources:
        return named & table["source"].str.startswith(sources)
    for titles, others in _meant_by_some():
        named &= ~(table["dataset"].isin(titles) & table["source"].str.startswith(others))
    return named


@cache
def _meant_by_some() -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Printed names of datasets that only some sources mean by them, and those sources."""
    cards = [read_card(name) for name in card_names()]
    return [(card.printed_as, card.printed_in) for card in cards if card.printed_in]


def printed_methods(method: str) -> tuple[str, ...]:
    """A method's printed names, the zero-shot one first; the name itself for others.

    >>> printed_methods("winclip"), printed_methods("VCP-CLIP"), printed_methods("CLIP-AC")
    (('WinCLIP', 'WinCLIP+'), ('VCP-CLIP',), ('CLIP-AC',))
    """
    paper = find_paper(method)
    return paper.reported_as if paper else (method,)


def is_printed(method: str, dataset: str) -> bool:
    """Whether a method's paper, or a table that quotes it, has zero-shot means on a dataset.

    >>> is_printed("winclip", "mvtec"), is_printed("winclip", "synthetic_target")
    (True, False)
    """
    paper = read_paper(method)
    return any(reported(paper.name, dataset, 0, metric) for metric in paper.metrics)


def printed_dataset(method: str, dataset: str) -> str:
    """Whose printed numbers stand beside a dataset: its own where the paper has it, else the card's."""
    return dataset if is_printed(method, dataset) else read_paper(method).dataset


def select(
    table: pd.DataFrame, method: str, dataset: str, variant: str = "", reruns: bool = False
) -> pd.DataFrame:
    """The rows of one method on one dataset, the best source for every category and metric.

    Args:
        table: as from `load_reported`.
        method: ours (`winclip` covers WinCLIP and WinCLIP+) or the printed name.
        dataset: ours (`mvtec`) or the printed name.
        variant: a printed variant, for an ablation; the method as such where empty.
        reruns: let runs by others fill what the paper leaves empty.
    """
    qualities = _QUALITIES if reruns else _QUALITIES[:2]
    rows = table[table["method"].isin(printed_methods(method)) & _about(table, dataset)]
    rows = rows[rows["quality"].isin(qualities)]
    if variant:
        rows = rows[rows["variant"] == variant]
    else:
        main = [_main_variant(k_shot) for k_shot in rows["k_shot"]]
        quoted = [f"{name} (as quoted)" for name in main]
        rows = rows[(rows["variant"] == main) | (rows["variant"] == quoted)]
    ranks = [
        (_QUALITIES.index(quality), *_table_rank(name), position)
        for position, (quality, name) in enumerate(zip(rows["quality"], rows["table"]))
    ]
    order = sorted(range(len(rows)), key=ranks.__getitem__)
    return rows.iloc[order].drop_duplicates(["category", "k_shot", "metric"])


@cache
def reported(
    method: str,
    dataset: str,
    k_shot: int,
    metric: str,
    category: str | None = None,
    variant: str = "",
    reruns: bool = False,
) -> Reported | None:
    """One printed number, None where no source prints it; see `select`.

    Args:
        category: None for the mean over categories.

    >>> reported("winclip", "mvtec", 0, "image_auroc").mean
    91.8
    """
    return look_up(
        select(_reported(PAPERS), method, dataset, variant, reruns), category or "", k_shot, metric
    )


def look_up(chosen: pd.DataFrame, category: str, k_shot: int, metric: str) -> Reported | None:
    """One number out of `select`'s rows; the category of a mean is `""`."""
    rows = chosen[
        (chosen["category"] == category)
        & (chosen["k_shot"] == str(k_shot))
        & (chosen["metric"] == metric)
    ]
    if rows.empty:
        return None
    return as_reported(rows.iloc[0])


def as_reported(row: Mapping[Hashable, Any] | pd.Series) -> Reported:
    """One row of the files as a number."""
    texts = [str(row[name]) for name in ("table", "source", "quality", "note")]
    std = float(row["std"])
    return Reported(float(row["mean"]), None if math.isnan(std) else std, *texts)


def _main_variant(k_shot: str) -> str:
    return "zero-shot" if k_shot == "0" else f"{k_shot}-shot"


def _table_rank(table: str) -> tuple[int, int, int]:
    """Main text before supplement before anything else, then by number."""
    match = re.match(r"(supplement )?Table (\d+)", table)
    return (1 if match[1] else 0, int(match[2]), len(table)) if match else (2, 0, 0)
