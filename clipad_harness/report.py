"""What notebooks and stages use to report: tables, figures, and the index page.

A notebook needs one import, `from clipad_harness import report`: figures through `report.show`,
boxes and tables as the last line of a cell.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from clipad_harness.figures import PALETTE, GalleryItem, gallery, overlay, show, use_house_style
from clipad_harness.files import write_text
from clipad_harness.page import Heading, page, tidy_tables
from clipad_harness.summary import Headline, Summary, read_summary, write_summary
from clipad_harness.tables import (
    METRIC_LABELS,
    VERDICTS,
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
    "index_page",
    "overlay",
    "percent",
    "read_summary",
    "show",
    "table",
    "use_house_style",
    "write_summary",
]

HEADLINE_METRICS = ("image_auroc", "image_ap", "pixel_auroc", "aupro")


@dataclass(frozen=True)
class _Entry:
    summary: Summary
    link: str


def index_page(pages: Sequence[Path], output: Path, *, command: str | None = None) -> Path:
    """Write the page that leads to all others.

    Args:
        pages: metrics files `reports/<name>.json`, in the order of the reader's interest; each
            page's HTML lies beside its metrics file. A file that does not exist is listed as
            missing: an index of half a run is still useful.
        output: the HTML file to write.
        command: what makes the reports again; shown at the end.

    Returns:
        `output`.

    Raises:
        ClipadError: a metrics file that cannot be read.
    """
    entries, missing = [], []
    for path in pages:
        if not path.is_file():
            missing.append(f"{path.stem}: this report has not been made yet")
            continue
        summary, html = read_summary(path), path.with_suffix(".html")
        missing += [f"{summary.title}: {text}" for text in summary.missing]
        if not html.is_file():
            missing.append(f"{summary.title}: {html.name} has not been made yet")
        entries.append(_Entry(summary, Path(os.path.relpath(html, output.parent)).as_posix()))
    sections = [
        ("headline", "Headline", _headline_table(entries)),
        ("reports", "Reports", _reports_table(entries)),
        ("missing", "What is missing", _missing_list(missing)),
    ]
    body = _opening(entries) + "".join(
        f'<h2 id="{anchor}">{title}</h2>\n{content}\n' for anchor, title, content in sections
    )
    contents = [Heading(2, anchor, title) for anchor, title, _ in sections]
    html_text = page("Reports", tidy_tables(body), contents=contents, command=command, is_home=True)
    write_text(output, html_text)
    return output


def _opening(entries: list[_Entry]) -> str:
    lead = (
        '<p class="lead">Tables, ablations and figures of the CLIP anomaly-detection papers, made '
        "again: what we measure, what the papers print, and how far the two are apart.</p>"
    )
    stand_in = sorted({entry.summary.method for entry in entries if entry.summary.stand_in})
    banner = (
        callout(
            f"Stand-in weights: paper columns are not comparable ({', '.join(stand_in)}). The "
            "numbers show that the pipeline runs, not how good a method is.",
            "warning",
        )
        if stand_in
        else ""
    )
    counts = {v: sum(e.summary.verdicts.get(v, 0) for e in entries) for v in VERDICTS}
    values: dict[str, object] = {"reports": len(entries)}
    values["datasets"] = len({entry.summary.dataset for entry in entries})
    values |= {f"comparisons: {verdict}": count for verdict, count in counts.items()}
    return lead + banner + facts(values)


def _headline_table(entries: list[_Entry]) -> str:
    if not entries:
        return "<p>No report has been made yet.</p>"
    names = ["method", "dataset", "shots", *(METRIC_LABELS[m] for m in HEADLINE_METRICS)]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = []
    for entry in entries:
        about = entry.summary
        link = f'<a href="{escape(entry.link)}">{escape(about.method)}</a>'
        for shots, metrics in sorted(about.headline.items(), key=lambda item: _shots(item[0])):
            cells = "".join(headline_cell(metrics.get(name)) for name in HEADLINE_METRICS)
            rows.append(
                f'<tr><th scope="row">{link}</th><td>{escape(about.dataset)}</td>'
                f'<td class="short">{escape(shots)}</td>{cells}</tr>'
            )
    caption = (
        "Mean over categories in per cent. Below each number: what the paper prints and the "
        "difference in points."
    )
    return (
        f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _shots(label: str) -> tuple[int, str]:
    number = label.partition("-")[0]
    return (int(number), label) if number.isdigit() else (10**9, label)


def headline_cell(line: Headline | None, mark: str = "") -> str:
    """One table cell: ours, below it the paper's number, the difference and the verdict.

    Args:
        line: None gives a dash.
        mark: HTML after the paper's number, for example a note's number.
    """
    if line is None:
        return "<td>–</td>"
    paper = "no paper number"
    if line.paper is not None:
        source = escape(line.source)
        paper = f'<span title="{source}">paper {with_spread(line.paper, line.paper_std)}</span>'
        if line.difference is not None:
            paper += f" · {percent(line.difference, signed=True)}"
    return (
        f'<td><span class="cell-ours">{with_spread(line.ours, line.ours_std)}</span>'
        f'<span class="cell-paper">{paper}{mark}</span>{badge(line.verdict)}</td>'
    )


def _reports_table(entries: list[_Entry]) -> str:
    if not entries:
        return "<p>No report has been made yet.</p>"
    names = ["report", "weights", "dataset", "categories", "images", "seeds", "verdicts"]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = []
    for entry in entries:
        about = entry.summary
        verdicts = [badge(name, count=n) for name, n in about.verdicts.items() if n]
        reason = (
            "" if about.comparable else f'<span class="cell-paper">{escape(about.reason)}</span>'
        )
        texts = [about.backbone, about.dataset]
        numbers = [about.categories, about.images, about.seeds]
        rows.append(
            f'<tr><th scope="row"><a href="{escape(entry.link)}">{escape(about.title)}</a></th>'
            + "".join(f"<td>{escape(text)}</td>" for text in texts)
            + "".join(f"<td>{number}</td>" for number in numbers)
            + f"<td>{' '.join(verdicts) or '–'}{reason}</td></tr>"
        )
    return (
        "<table><caption>Every report, what it was run on, and how its comparisons ended."
        f"</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _missing_list(missing: list[str]) -> str:
    if not missing:
        return "<p>Nothing: every planned report is here and complete.</p>"
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in missing)}</ul>"
