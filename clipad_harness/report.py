"""What notebooks and stages use to report: tables, figures, numbers beside the paper's.

A notebook needs one import, `from clipad_harness import report`: figures through `report.show`,
boxes and tables as the last line of a cell.
"""

from html import escape

from clipad_harness.figures import PALETTE, GalleryItem, gallery, overlay, show, use_house_style
from clipad_harness.summary import Headline, Summary, read_summary, write_summary
from clipad_harness.tables import (
    METRIC_LABELS,
    Html,
    badge,
    callout,
    comparison_table,
    facts,
    percent,
    table,
    with_spread,
)

__all__ = [
    "METRIC_LABELS",
    "PALETTE",
    "GalleryItem",
    "Headline",
    "Html",
    "Summary",
    "badge",
    "callout",
    "comparison_table",
    "facts",
    "gallery",
    "headline_cell",
    "overlay",
    "percent",
    "read_summary",
    "show",
    "table",
    "use_house_style",
    "write_summary",
]


def headline_cell(line: Headline | None, mark: str = "", link: str = "") -> str:
    """One table cell: ours, below it the paper's number, the difference and the verdict.

    Args:
        line: None gives a dash.
        mark: HTML after the paper's number, for example a note's number.
        link: where our number comes from.
    """
    if line is None:
        return "<td>–</td>"
    paper = "no paper number"
    if line.paper is not None:
        source = escape(line.source)
        paper = f'<span title="{source}">paper {with_spread(line.paper, line.paper_std)}</span>'
        if line.difference is not None:
            paper += f" · {percent(line.difference, signed=True)}"
    ours = with_spread(line.ours, line.ours_std)
    if link:
        ours = f'<a href="{escape(link)}">{ours}</a>'
    return (
        f'<td><span class="cell-ours">{ours}</span>'
        f'<span class="cell-paper">{paper}{mark}</span>{badge(line.verdict)}</td>'
    )
