"""The page that leads to all others: headline numbers, reports, costs, and what is missing."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clipad_core.metrics import METRIC_LABELS
from clipad_harness.base.files import write_text
from clipad_harness.data.images import file_hash
from clipad_harness.papers import citations as bibliography
from clipad_harness.report.glossary import glossary
from clipad_harness.report.provenance import code_hash, origin_anchor
from clipad_harness.report.summary import (
    COSTS,
    Headline,
    Summary,
    headline_cell,
    read_summary,
    summary_path,
)
from clipad_harness.report.tables import (
    DASH,
    VERDICTS,
    Cell,
    Html,
    Row,
    badge,
    callout,
    facts,
    html_table,
)
from clipad_harness.site.essays import Description, description_path, read_description
from clipad_harness.site.page import Heading, page, tidy_tables

HEADLINE_METRICS = ("image_auroc", "image_ap", "pixel_auroc", "aupro")

# The pages about all methods that no notebook makes.
_FURTHER = {
    "explorer": Description(
        "Explorer",
        "for any test image the maps of all methods side by side, under one threshold.",
    ),
    "tables": Description(
        "The papers' tables",
        "row by row as printed, with what this run measures in their places, and what cannot be run.",
    ),
    "conflicts": Description(
        "Contradictions in print",
        "one method, dataset and metric with several values in print: how far apart, and why.",
    ),
}


@dataclass(frozen=True)
class _Entry:
    summary: Summary
    link: str


def write_home(
    root: Path,
    names: Sequence[str],
    essays: Sequence[str] = (),
    failed: Mapping[str, str] | None = None,
) -> Path:
    """Stage `pages`: the page that leads to the reports of these names and to those about all.

    Args:
        root: the project.
        names: of the methods.
        essays: names of the notebooks about several methods.
        failed: the stages that did not end well, each with the reason.
    """
    reports = root / "reports"
    summaries = [summary_path(root, name) for name in names]
    facts_ = {
        f"reports/summaries/{path.name}": file_hash(path) for path in summaries if path.is_file()
    }
    cited = [
        citation
        for path in summaries
        if path.is_file()
        for citation in bibliography.citations(path.stem, read_summary(path).dataset)
    ]
    descriptions = {name: description_path(root, name) for name in essays}
    further = {
        name: read_description(path) if path.is_file() else None
        for name, path in descriptions.items()
    }
    return index_page(
        summaries,
        reports / "index.html",
        further={reports / f"{name}.html": about for name, about in (further | _FURTHER).items()},
        provenance={"code hash": code_hash(names), **facts_},
        citations=list(dict.fromkeys(cited)),
        command="./repro",
        failed=failed,
    )


def index_page(
    pages: Sequence[Path],
    output: Path,
    *,
    further: Mapping[Path, Description | None] | None = None,
    provenance: Mapping[str, str] | None = None,
    citations: Sequence[tuple[str, str]] = (),
    command: str | None = None,
    failed: Mapping[str, str] | None = None,
) -> Path:
    """Write the page that leads to all others.

    Args:
        pages: metrics files `reports/summaries/<name>.json`, in the order of the reader's interest; each
            page's HTML lies beside their folder. A file that does not exist is listed as
            missing: an index of half a run is still useful.
        output: the HTML file to write.
        further: pages about all methods, each with what it is called and is for; one that is not there,
            or has None, is listed as missing.
        provenance: what made the page, as label and value.
        citations: label and BibTeX of what to cite.
        command: what makes the reports again; shown at the end.
        failed: the stages that did not end well, each with the reason.

    Returns:
        `output`.

    Raises:
        ClipadError: a metrics file that cannot be read.
    """
    entries = []
    missing = [
        f"clipad {stage}: did not end well, so that what depends on it is missing, or of an earlier run. "
        f"{reason}"
        for stage, reason in (failed or {}).items()
    ]
    for path in pages:
        if not path.is_file():
            missing.append(f"{path.stem}: this report has not been made yet")
            continue
        summary, html = read_summary(path), path.parents[1] / f"{path.stem}.html"
        missing += [f"{summary.title}: {text}" for text in summary.missing]
        if not html.is_file():
            missing.append(f"{summary.title}: {html.name} has not been made yet")
        entries.append(_Entry(summary, _link(html, output)))
    links = {path: about for path, about in (further or {}).items() if about and path.is_file()}
    missing += [
        f"{path.name}: has not been made yet" for path in further or {} if path not in links
    ]
    sections = [
        ("headline", "Headline", _headline_table(entries)),
        ("reports", "Reports", _reports_table(entries)),
        ("costs", "Run time and memory", COSTS),
        ("missing", "What is missing", _missing_list(missing)),
    ]
    section = Html('<h2 id="{}">{}</h2>\n{}\n')
    body = _opening(entries, _further_links(links, output))
    body += Html("").join(section.format(*parts) for parts in sections)
    contents = [Heading(2, anchor, title) for anchor, title, _ in sections]
    text = page(
        "Reports",
        tidy_tables(body),
        contents=contents,
        provenance=provenance,
        citations=citations,
        command=command,
        is_home=True,
        glossary=glossary(),
    )
    return write_text(output, text)


def _further_links(links: Mapping[Path, Description], output: Path) -> Html:
    """The pages about all methods, each with what it is for."""
    item = Html('<li><a href="{}">{}</a>: {}</li>')
    items = Html("").join(
        item.format(_link(path, output), about.title, about.purpose)
        for path, about in links.items()
    )
    return Html("<ul>{}</ul>").format(items) if items else items


def _link(path: Path, output: Path) -> str:
    return Path(os.path.relpath(path, output.parent)).as_posix()


def _opening(entries: list[_Entry], links: Html) -> Html:
    lead = Html(
        '<p class="lead">Tables, ablations and figures of the CLIP anomaly-detection papers, made '
        "again: what we measure, what the papers print, and, where the two can be compared, how far they are "
        "apart.</p>"
    )
    stand_in = sorted({entry.summary.method for entry in entries if entry.summary.stand_in})
    banner = (
        callout(
            f"Stand-in weights: paper columns are not comparable ({', '.join(stand_in)}). The "
            "numbers show that the pipeline runs, not how good a method is.",
            "warning",
        )
        if stand_in
        else Html("")
    )
    counts = {v: sum(e.summary.verdicts.get(v, 0) for e in entries) for v in VERDICTS}
    values: dict[str, object] = {"reports": len(entries)}
    values["datasets"] = len({entry.summary.dataset for entry in entries})
    values |= {f"comparisons: {verdict}": count for verdict, count in counts.items()}
    return lead + banner + facts(values) + links


def _headline_table(entries: list[_Entry]) -> Html:
    if not entries:
        return Html("<p>No report has been made yet.</p>")
    names = ["method", "dataset", "shots", *(METRIC_LABELS[m] for m in HEADLINE_METRICS)]
    rows = []
    for entry in entries:
        about = entry.summary
        for shots, metrics in sorted(about.headline.items(), key=lambda item: _shots(item[0])):
            origin = f"{entry.link}#{origin_anchor(shots)}"
            name = about.method_with_references if _shots(shots)[0] else about.method
            link = Html('<a href="{}">{}</a>').format(entry.link, name)
            cells = [Cell(link, "row"), Cell(about.dataset), Cell(shots, kind="short")]
            for metric in HEADLINE_METRICS:
                cells.append(headline_cell(_plain(metrics.get(metric)), link=origin))
            rows.append(Row(cells))
    caption = (
        "Mean over categories in per cent, ± standard deviation over seeds; each number leads to its "
        "seeds, data, code and settings. Below it: what the paper prints and, where the two can be "
        "compared, the difference in points."
    )
    return html_table(caption, [[Cell(name, "col") for name in names]], rows)


def _plain(line: Headline | None) -> Headline | None:
    """Without the verdict that nothing can be compared: the banner says it once for all."""
    return replace(line, verdict="") if line and line.verdict == "not comparable" else line


def _shots(label: str) -> tuple[int, str]:
    number = label.partition("-")[0]
    return (int(number), label) if number.isdigit() else (10**9, label)


def _reports_table(entries: list[_Entry]) -> Html:
    if not entries:
        return Html("<p>No report has been made yet.</p>")
    names = ["report", "weights", "dataset", "categories", "images", "seeds", "verdicts"]
    rows = []
    for entry in entries:
        about = entry.summary
        verdicts = [badge(name, count=n) for name, n in about.verdicts.items() if n]
        below = Html('<span class="cell-paper">{}</span>').format(about.reason)
        link = Html('<a href="{}">{}</a>').format(entry.link, about.title)
        values = [about.backbone, about.dataset, about.categories, about.images, about.seeds]
        ended = Html(" ").join(verdicts or [DASH]) + (Html("") if about.comparable else below)
        rows.append(Row([Cell(link, "row"), *map(Cell, values), Cell(ended)]))
    caption = "Every report, what it was run on, and how its comparisons ended."
    return html_table(caption, [[Cell(name, "col") for name in names]], rows)


def _missing_list(missing: list[str]) -> Html:
    if not missing:
        return Html("<p>Nothing: every planned report is here and complete.</p>")
    items = Html("").join(Html("<li>{}</li>").format(text) for text in missing)
    return Html("<ul>{}</ul>").format(items)
