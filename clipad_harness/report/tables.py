"""Tables, badges and boxes of the reports, as HTML in which text from data is escaped."""

import hashlib
import math
from collections.abc import Hashable, Mapping, Sequence
from html import escape
from typing import Any, Literal

import pandas as pd

from clipad_core.errors import ClipadError
from clipad_core.metrics import METRIC_LABELS
from clipad_harness.papers.verdicts import COMPARISON_COLUMNS

VERDICTS = {"pass": ("pass", "✓"), "fail": ("fail", "✗"), "not comparable": ("none", "–")}
_TOTALS = {"mean", "average", "all"}
DASH = "–"


class Html(str):
    """HTML that a notebook cell shows when it is the cell's last line."""

    def _repr_html_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"Html of {len(self)} characters"


def percent(value: float | None, *, signed: bool = False) -> str:
    """One decimal, a dash for what is unknown or undefined.

    >>> percent(91.84), percent(-0.04, signed=True), percent(-2.31, signed=True), percent(None)
    ('91.8', '0.0', '−2.3', '–')
    """
    if value is None or math.isnan(value):
        return DASH
    text = f"{abs(value):.1f}"
    sign = "" if text == "0.0" else "−" if value < 0 else "+" if signed else ""
    return sign + text


def with_spread(mean: float | None, std: float | None) -> str:
    """Mean and standard deviation as HTML, the second small; no spread where none is known."""
    text = percent(mean)
    known = text != DASH and std is not None and not math.isnan(std)
    return f'{text} <span class="spread">± {percent(std)}</span>' if known else text


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
    return Html(f'<span class="badge {kind}"><span aria-hidden="true">{sign}</span> {words}</span>')


def callout(text: str, kind: Literal["note", "warning", "pass", "fail"] = "note") -> Html:
    """A box for the one sentence that must not be missed; `text` is plain."""
    return Html(f'<div class="callout {kind}" role="note"><p>{escape(text)}</p></div>')


def facts(values: Mapping[str, object]) -> Html:
    """Label and value side by side: what was run, on what, with which weights."""
    cells = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(str(value))}</dd></div>"
        for label, value in values.items()
    )
    return Html(f'<dl class="facts">{cells}</dl>')


def table(frame: pd.DataFrame, caption: str, *, decimals: int = 1) -> Html:
    """A plain table: the index names the rows, floats are rounded, unknown is a dash.

    Args:
        frame: any frame with one level of columns; `frame.index` becomes the row headings.
        caption: what the table shows; also what a screen reader announces.
        decimals: of floats.
    """
    number = {str(name): pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns}
    names = [str(name or "") for name in frame.index.names]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    head += "".join(
        _cell("th", escape(name), kind, ' scope="col"') for name, kind in number.items()
    )
    rows = []
    for key, values in zip(frame.index, frame.itertuples(index=False, name=None), strict=True):
        keys = key if isinstance(key, tuple) else (key,)
        cells = "".join(f'<th scope="row">{escape(str(part))}</th>' for part in keys)
        for value, kind in zip(values, number.values(), strict=True):
            cells += _cell("td", escape(_plain(value, decimals)), kind)
        rows.append(f"<tr>{cells}</tr>")
    return Html(_table(escape(caption), head, rows))


def _plain(value: object, decimals: int) -> str:
    if isinstance(value, float):
        return DASH if math.isnan(value) else f"{value:.{decimals}f}".replace("-", "−")
    return DASH if value is None or value is pd.NA else str(value)


def _cell(name: str, content: str, is_number: bool, attributes: str = "") -> str:
    style = ' class="number"' if is_number else ""
    return f"<{name}{style}{attributes}>{content}</{name}>"


def _table(caption: str, head: str, rows: list[str]) -> str:
    return (
        f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


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
    heads = [(_COLUMN_LABELS[name], name == "k_shot") for name in varying]
    heads += [("ours", True), ("paper", True), ("difference", True), ("verdict", False)]
    head = '<th scope="col">category</th>'
    head += "".join(_cell("th", label, kind, ' scope="col"') for label, kind in heads)
    parts = [_value_label(name, frame[name].iloc[0]) for name in constant]
    about = f"<strong>{escape(caption)}</strong>, {', '.join([*parts, 'per cent'])}"
    return Html(_table(about, head, rows) + source_list(sources, anchor))


def source_list(sources: Sequence[str], anchor: str = "") -> str:
    """The numbered sources below a table, each once; "" where there is none.

    Args:
        anchor: marks in the table lead to `anchor-1`, `anchor-2` and so on.

    >>> source_list(["P, Table 1"], "s")
    '<ol class="sources" aria-label="Sources"><li id="s-1">P, Table 1</li></ol>'
    """
    items = "".join(
        f'<li id="{anchor}-{number}">{escape(text)}</li>' if anchor else f"<li>{escape(text)}</li>"
        for number, text in enumerate(dict.fromkeys(sources), 1)
    )
    return f'<ol class="sources" aria-label="Sources">{items}</ol>' if items else ""


_COLUMN_LABELS = {"k_shot": "shots", "metric": "metric"}


def _value_label(name: str, value: object) -> str:
    return METRIC_LABELS[str(value)] if name == "metric" else f"{value}-shot"


def _check_comparison(frame: pd.DataFrame) -> None:
    missing = [name for name in COMPARISON_COLUMNS if name not in frame.columns]
    if missing or frame.empty:
        found = f"no column {', '.join(missing)}" if missing else "no rows"
        raise ClipadError(
            f"comparison: found {found}, expected rows with {', '.join(COMPARISON_COLUMNS)}."
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
) -> str:
    category = str(row["category"])
    cells = f'<th scope="row">{escape(category)}</th>'
    for name in varying:
        label = str(row[name]) if name == "k_shot" else METRIC_LABELS[str(row[name])]
        cells += _cell("td", label, name == "k_shot")
    cells += _cell("td", with_spread(_number(row["ours_mean"]), _number(row["ours_std"])), True)
    paper = with_spread(_number(row["paper_mean"]), _number(row["paper_std"]))
    source = row["source"]
    if isinstance(source, str) and source:
        number = sources.index(source) + 1
        link = f'<a href="#{anchor}-{number}" title="{escape(source)}">{number}</a>'
        paper += f"<sup>{link}</sup>"
    cells += _cell("td", paper, True)
    cells += _cell("td", percent(_number(row["difference"]), signed=True), True)
    verdict = row["verdict"]
    cells += _cell("td", badge(verdict if isinstance(verdict, str) else None), False)
    return f"<tr{' class=total' if category in _TOTALS else ''}>{cells}</tr>"


def _number(value: Any) -> float | None:
    """None where the frame holds nothing."""
    return None if pd.isna(value) else float(value)
