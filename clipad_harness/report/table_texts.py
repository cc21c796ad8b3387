"""A table of numbers as LaTeX, Markdown or CSV, with what made it in comments above."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from clipad_harness.report.tables import DASH, percent

# As LaTeX writes what is special in it, and what its fonts may lack.
_LATEX = str.maketrans(
    {
        **{mark: f"\\{mark}" for mark in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "−": "$-$",
        "–": "--",
        "\n": " ",
    }
)


@dataclass(frozen=True)
class Cell:
    """One number of a table, per cent; NaN for unknown.

    Attributes:
        row, column: where it stands; a column has one head or two.
        contest: the best of those with the same one is in bold, where there are several.
        higher_is_better: what the best is.
    """

    row: str
    column: tuple[str, ...]
    contest: tuple[object, ...]
    higher_is_better: bool
    mean: float
    std: float = math.nan
    paper: float = math.nan


@dataclass(frozen=True)
class PaperTable:
    """A table with what stands around it.

    Attributes:
        corner: head of the first column.
        caption: what it shows; label: how a text refers to it.
        about: what made it, a line each.
        total: the row that a line stands above; "" for none.
        with_paper: whether the printed number stands in a cell, too.
        standing: what its numbers are worth in few words, at the corner of a Markdown table, which may be
            read without its caption; "" for the plain corner.
    """

    corner: str
    cells: Sequence[Cell]
    caption: str
    label: str
    about: Sequence[str]
    decimals: int
    total: str = ""
    with_paper: bool = False
    standing: str = ""

    @property
    def rows(self) -> list[str]:
        """Heads of the rows, in order."""
        return list(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def columns(self) -> list[tuple[str, ...]]:
        """Heads of the columns, in order."""
        return list(dict.fromkeys(cell.column for cell in self.cells))

    def frame(self, content: Callable[[Cell], Any], empty: object) -> pd.DataFrame:
        """What stands in the cells, rows and columns in order."""
        places = {(cell.row, cell.column): content(cell) for cell in self.cells}
        return pd.DataFrame(
            [[places.get((row, column), empty) for column in self.columns] for row in self.rows],
            index=pd.Index(self.rows),
            columns=pd.MultiIndex.from_tuples(self.columns),
        )

    def numbers(self, cell: Cell) -> list[str]:
        """What stands in a cell: mean and standard deviation, and the paper's number where it does."""
        ours = percent(cell.mean, decimals=self.decimals)
        if ours != DASH and not math.isnan(cell.std):
            ours += f" ± {percent(cell.std, decimals=self.decimals)}"
        return [ours, percent(cell.paper)] if self.with_paper else [ours]

    def text(self, cell: Cell) -> str:
        """A cell as it is printed."""
        return " / ".join(self.numbers(cell))

    def is_best(self, cell: Cell) -> bool:
        """Whether no other of its contest is better, by the digits that are printed."""
        among = [other.mean for other in self.cells if other.contest == cell.contest]
        values = [round(value, self.decimals) for value in among if not math.isnan(value)]
        best = max if cell.higher_is_better else min
        return len(values) > 1 and round(cell.mean, self.decimals) == best(values)


def latex(table: PaperTable) -> str:
    r"""The table as LaTeX with booktabs, the best of each contest in bold.

    >>> cells = [Cell("A_1", ("AUROC",), (), True, 91.84, 0.21), Cell("B", ("AUROC",), (), True, 90.0)]
    >>> print(latex(PaperTable("method", cells, "100 % ours", "tab:x", ["made by A"], 1)))
    % made by A
    % needs \usepackage{booktabs}
    \begin{table}[t]
    \centering
    \caption{100 \% ours}
    \label{tab:x}
    \begin{tabular}{lc}
    \toprule
    method & AUROC \\
    \midrule
    A\_1 & \textbf{91.8 $\pm$ 0.2} \\
    B & 90.0 \\
    \bottomrule
    \end{tabular}
    \end{table}
    """

    def content(cell: Cell) -> str:
        ours, *paper = map(escaped, table.numbers(cell))
        return " / ".join([f"\\textbf{{{ours}}}" if table.is_best(cell) else ours, *paper])

    shown = table.frame(content, escaped(DASH))
    shown.index = pd.Index([escaped(row) for row in table.rows])
    heads = [tuple(map(escaped, column)) for column in table.columns]
    levels = len(heads[0])
    names = [""] * (levels - 1) + [escaped(table.corner)]
    columns: pd.Index = pd.MultiIndex.from_tuples(heads, names=names)
    shown.columns = columns.get_level_values(0) if levels == 1 else columns
    text = shown.style.to_latex(
        hrules=True,
        caption=escaped(table.caption),
        label=table.label,
        position="t",
        position_float="centering",
        column_format="l" + "c" * len(heads),
        multicol_align="c",
    )
    lines = text.rstrip("\n").split("\n")
    if levels > 1:
        lines.insert(lines.index("\\toprule") + 2, _rules_below([head[0] for head in heads]))
    if table.total in table.rows[1:]:
        body = lines.index("\\midrule") + 1
        lines.insert(body + table.rows.index(table.total), "\\midrule")
    about = [f"% {line}" for line in (*table.about, "needs \\usepackage{booktabs}")]
    return "\n".join([*about, *lines]) + "\n"


def escaped(text: str) -> str:
    r"""A text as LaTeX prints it.

    >>> print(escaped("hex_nut & 5 % ± 1"))
    hex\_nut \& 5 \% $\pm$ 1
    """
    return text.translate(_LATEX)


def _rules_below(heads: Sequence[str]) -> str:
    """A rule below each head that spans columns."""
    rules, start = [], 2
    for head in dict.fromkeys(heads):
        end = start + heads.count(head) - 1
        rules.append(f"\\cmidrule(lr){{{start}-{end}}}")
        start = end + 1
    return " ".join(rules)


def markdown(table: PaperTable) -> str:
    r"""The table as Markdown, what made it in a comment above, the caption below.

    >>> cells = [Cell("a|b", ("AUROC", "0-shot"), (), True, 91.84)]
    >>> print(markdown(PaperTable("row", cells, "Ours.", "tab:x", ["made by A"], 1)))
    <!-- made by A -->
    <BLANKLINE>
    | row | AUROC, 0-shot |
    |---|---|
    | a\|b | 91.8 |
    <BLANKLINE>
    Ours.
    """
    shown = table.frame(table.text, DASH)
    lines = [[table.standing or table.corner, *(", ".join(column) for column in table.columns)]]
    lines += [[row, *map(str, shown.loc[row])] for row in table.rows]
    rows = ["| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines]
    rows.insert(1, "|" + "---|" * len(lines[0]))
    about = "\n".join(table.about).replace("--", "- -")
    return "\n".join([f"<!-- {about} -->", "", *rows, "", table.caption]) + "\n"


def csv(table: PaperTable) -> str:
    """The table as CSV: mean, standard deviation and the paper's number in columns of their own.

    Lines that begin with # say what made it, as `pandas.read_csv(file, comment="#")` skips them.
    """
    means = table.frame(lambda cell: round(cell.mean, table.decimals), math.nan)
    parts = {"": means, "std": table.frame(lambda c: round(c.std, table.decimals), math.nan)}
    if table.with_paper:
        parts["paper"] = table.frame(lambda cell: cell.paper, math.nan)
    wide = {
        ", ".join([*column, *([part] if part else [])]): frame[column]
        for column in table.columns
        for part, frame in parts.items()
        if part != "std" or frame[column].notna().any()
    }
    frame = pd.DataFrame(wide, index=pd.Index(table.rows, name=table.corner))
    return commented([*table.about, table.caption], frame.to_csv(lineterminator="\n"))


def commented(about: Sequence[str], text: str) -> str:
    """A text with lines above that say what made it."""
    return "".join(f"# {line}\n" for line in about) + text
