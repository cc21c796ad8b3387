"""Tables, badges and boxes of the reports, as HTML in which text from data is escaped.

HTML is written in two ways only, and both escape: templates, and `Html("<p>{}</p>").format(text)`,
whose constant part is all that is trusted. No f-string holds a tag (a test reads them all).
"""

import hashlib
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jinja2
import pandas as pd
from markupsafe import Markup

from clipad_core.errors import ClipadError
from clipad_core.metrics import METRIC_LABELS
from clipad_harness.papers.verdicts import COMPARISON_COLUMNS

TEMPLATES = Path(__file__).parent / "templates"
VERDICTS = {"pass": ("pass", "✓"), "fail": ("fail", "✗"), "not comparable": ("none", "–")}
_TOTALS = {"mean", "average", "all"}
DASH = "–"


class Html(Markup):
    """HTML that a notebook cell shows when it is the cell's last line, and that no table escapes.

    What is put into it, by `format`, `join` or `+`, is escaped unless it is `Html` itself.

    >>> print(Html("<b>{}</b>").format("<i>") + Html("<hr>") + "&")
    <b>&lt;i&gt;</b><hr>&amp;
    """

    def _repr_html_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"Html of {len(self)} characters"


def percent(value: float | None, *, signed: bool = False, decimals: int = 1) -> str:
    """So many decimals, one unless said otherwise; a dash for what is unknown or undefined.

    >>> percent(91.84), percent(-0.04, signed=True), percent(-2.31, signed=True), percent(None)
    ('91.8', '0.0', '−2.3', '–')
    """
    if value is None or math.isnan(value):
        return DASH
    text = f"{abs(value):.{decimals}f}"
    sign = "" if float(text) == 0 else "−" if value < 0 else "+" if signed else ""
    return sign + text


def with_spread(mean: float | None, std: float | None) -> Html:
    """Mean and standard deviation as HTML, the second small; no spread where none is known."""
    text = percent(mean)
    has_std = text != DASH and std is not None and not math.isnan(std)
    spread = Html('{} <span class="spread">± {}</span>')
    return spread.format(text, percent(std)) if has_std else Html("{}").format(text)


def badge(verdict: str | None, *, count: int | None = None) -> Html:
    """A verdict in colour, sign and words, with how often it was reached; a dash for none.

    Raises:
        ClipadError: a verdict other than pass, fail and not comparable.
    """
    if verdict is None or verdict == "" or verdict != verdict:
        return Html(DASH)
    if verdict not in VERDICTS:
        raise ClipadError(
            f"verdict: found {verdict!r}, expected one of {', '.join(VERDICTS)} or nothing."
        )
    kind, sign = VERDICTS[verdict]
    words = verdict if count is None else f"{count} {verdict}"
    box = Html('<span class="badge {}"><span aria-hidden="true">{}</span> {}</span>')
    return box.format(kind, sign, words)


def callout(text: str, kind: Literal["note", "warning", "pass", "fail"] = "note") -> Html:
    """A box for the one sentence that must not be missed; `text` is plain."""
    return Html('<div class="callout {}" role="note"><p>{}</p></div>').format(kind, text)


def facts(values: Mapping[str, object]) -> Html:
    """Label and value side by side: what was run, on what, with which weights."""
    box = Html("<div><dt>{}</dt><dd>{}</dd></div>")
    cells = Html("").join(box.format(label, str(value)) for label, value in values.items())
    return Html('<dl class="facts">{}</dl>').format(cells)


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        content: text, which is escaped, or `Html`.
        scope: ``col``, ``row`` or ``colgroup`` for a heading; "" for a value.
        kind: its class, as ``number``; "" for none.
        rows, columns: how many it spans.
    """

    content: object
    scope: str = ""
    kind: str = ""
    rows: int = 1
    columns: int = 1

    @property
    def tag(self) -> str:
        """The HTML element."""
        return "th" if self.scope else "td"

    @property
    def attributes(self) -> dict[str, object]:
        """What the element says of itself."""
        spans = {"rowspan": self.rows, "colspan": self.columns}
        texts = {"class": self.kind, "scope": self.scope}
        return {k: v for k, v in texts.items() if v} | {k: n for k, n in spans.items() if n > 1}


@dataclass(frozen=True)
class Row:
    """One row of a table; ``kind`` is its class, ``anchor`` what a link leads to."""

    cells: Sequence[Cell]
    kind: str = ""
    anchor: str = ""

    @property
    def attributes(self) -> dict[str, object]:
        """What the element says of itself."""
        return {k: v for k, v in {"class": self.kind, "id": self.anchor}.items() if v}


def html_table(caption: object, head: Sequence[Sequence[Cell]], body: Sequence[Row]) -> Html:
    """A table of cells: the one place that writes the HTML of any.

    Args:
        caption: what it shows, text or `Html`; "" for none.
        head: the rows of headings above.
        body: the rows.

    >>> str(html_table("a < b", [], [Row([Cell(1.5, kind="number")])]))
    '<table><caption>a &lt; b</caption><tbody><tr><td class="number">1.5</td></tr></tbody></table>'
    """
    rows = [Row(cells) for cells in head]
    return Html(_template().render(caption=caption, head=rows, body=body))


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("table.html.j2")


def table(frame: pd.DataFrame, caption: str, *, decimals: int = 1) -> Html:
    """A plain table: the index names the rows, floats are rounded, unknown is a dash.

    Args:
        frame: any frame with one level of columns; `frame.index` becomes the row headings.
        caption: what the table shows; also what a screen reader announces.
        decimals: of floats.
    """
    kinds = [
        "number" if pd.api.types.is_numeric_dtype(frame[name]) else "" for name in frame.columns
    ]
    head = [Cell(name or "", "col") for name in frame.index.names]
    head += [Cell(str(name), "col", kind) for name, kind in zip(frame.columns, kinds, strict=True)]
    body = []
    for key, values in zip(frame.index, frame.itertuples(index=False, name=None), strict=True):
        cells = [Cell(str(part), "row") for part in (key if isinstance(key, tuple) else (key,))]
        pairs = zip(values, kinds, strict=True)
        body.append(
            Row([*cells, *(Cell(_plain(value, decimals), kind=kind) for value, kind in pairs)])
        )
    return html_table(caption, [head], body)


def _plain(value: object, decimals: int) -> str:
    if isinstance(value, float):
        return DASH if math.isnan(value) else f"{value:.{decimals}f}".replace("-", "−")
    return DASH if value is None or value is pd.NA else str(value)


def comparison_table(frame: pd.DataFrame, *, caption: str = "Ours against the paper") -> Html:
    """Ours, paper, difference and verdict, a row per category, shot number and metric.

    Args:
        frame: columns `category, k_shot, metric, ours_mean, ours_std, paper_mean, paper_std,
            difference, verdict, source`; values in per cent, NaN where unknown. A column `k_shot`
            or `metric` with one value moves into the caption. Rows keep their order.
        caption: what the table shows; plain text.

    Raises:
        ClipadError: a missing column, no rows, an unknown metric or verdict, or fractions where per
            cent are expected.
    """
    _check_comparison(frame)
    varying = [name for name in ("k_shot", "metric") if frame[name].nunique() > 1]
    constant = [name for name in ("k_shot", "metric") if name not in varying]
    sources = list(dict.fromkeys(text for text in frame["source"].fillna("") if text))
    anchor = "source-" + hashlib.sha256(frame.to_csv().encode()).hexdigest()[:8]
    rows = [_comparison_row(row, varying, sources, anchor) for row in frame.to_dict("records")]
    head = [Cell("category", "col")]
    head += [Cell(_COLUMN_LABELS[n], "col", "number" if n == "k_shot" else "") for n in varying]
    head += [Cell(label, "col", "number") for label in ("ours", "paper", "difference")]
    head.append(Cell("verdict", "col"))
    parts = [_value_label(name, frame[name].iloc[0]) for name in constant]
    about = Html("<strong>{}</strong>, {}").format(caption, ", ".join([*parts, "per cent"]))
    return html_table(about, [head], rows) + source_list(sources, anchor)


def source_list(sources: Sequence[str], anchor: str = "") -> Html:
    """The numbered sources below a table, each once; "" where there is none.

    Args:
        anchor: marks in the table lead to `anchor-1`, `anchor-2` and so on.

    >>> print(source_list(["P, Table 1"], "s"))
    <ol class="sources" aria-label="Sources"><li id="s-1">P, Table 1</li></ol>
    """
    plain, marked = Html("<li>{}</li>"), Html('<li id="{}-{}">{}</li>')
    items = Html("").join(
        marked.format(anchor, number, text) if anchor else plain.format(text)
        for number, text in enumerate(dict.fromkeys(sources), 1)
    )
    return (
        Html('<ol class="sources" aria-label="Sources">{}</ol>').format(items) if items else items
    )


_COLUMN_LABELS = {"k_shot": "shots", "metric": "metric"}


def _value_label(name: str, value: object) -> str:
    return METRIC_LABELS[str(value)] if name == "metric" else f"{value}-shot"


def _check_comparison(frame: pd.DataFrame) -> None:
    missing = [name for name in COMPARISON_COLUMNS if name not in frame.columns]
    if missing or frame.empty:
        problem = f"no column {', '.join(missing)}" if missing else "no rows"
        raise ClipadError(
            f"comparison: found {problem}, expected rows with {', '.join(COMPARISON_COLUMNS)}."
        )
    unknown = sorted(set(frame["metric"]) - set(METRIC_LABELS))
    if unknown:
        raise ClipadError(
            f"comparison: found metric {unknown[0]!r}, expected one of {', '.join(METRIC_LABELS)}."
        )
    if 0 < frame["ours_mean"].max() <= 1 and frame["paper_mean"].max() > 1:
        raise ClipadError(
            f"comparison: found ours up to {frame['ours_mean'].max():.3f} beside a paper's "
            f"{frame['paper_mean'].max():.1f}, expected both in per cent; multiply ours by 100."
        )


def _comparison_row(
    row: Mapping[Hashable, Any], varying: list[str], sources: list[str], anchor: str
) -> Row:
    category = str(row["category"])
    cells = [Cell(category, "row")]
    for name in varying:
        shots = name == "k_shot"
        label = str(row[name]) if shots else METRIC_LABELS[str(row[name])]
        cells.append(Cell(label, kind="number" if shots else ""))
    measured = with_spread(_number(row["ours_mean"]), _number(row["ours_std"]))
    paper = with_spread(_number(row["paper_mean"]), _number(row["paper_std"]))
    source = row["source"]
    if isinstance(source, str) and source:
        number = sources.index(source) + 1
        link = Html('{}<sup><a href="#{}-{}" title="{}">{}</a></sup>')
        paper = link.format(paper, anchor, number, source, number)
    difference = percent(_number(row["difference"]), signed=True)
    cells += [Cell(text, kind="number") for text in (measured, paper, difference)]
    verdict = row["verdict"]
    cells.append(Cell(badge(verdict if isinstance(verdict, str) else None)))
    return Row(cells, "total" if category in _TOTALS else "")


def _number(value: Any) -> float | None:
    """None where the frame holds nothing."""
    return None if pd.isna(value) else float(value)
