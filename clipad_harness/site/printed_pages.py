"""The pages about printed numbers: the papers' tables with this run's rows, and the contradictions.

They are made from results, cards and printed numbers; nothing is scored and no weights are loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipad_harness.base.files import write_text
from clipad_harness.data.images import file_hash
from clipad_harness.experiments.pipeline import results_path
from clipad_harness.papers.card import PAPERS, paper_names, read_paper
from clipad_harness.papers.citations import citations
from clipad_harness.papers.conflicts import conflicts, printed_values, progress
from clipad_harness.papers.printed_tables import PrintedTable, all_tables
from clipad_harness.report import printed_conflicts, tables_as_printed
from clipad_harness.report.figures import picture, use_house_style
from clipad_harness.report.glossary import glossary
from clipad_harness.report.provenance import code_hash
from clipad_harness.report.tables import Html
from clipad_harness.report.tables_as_printed import Measurements, compared_cells, read_measurements
from clipad_harness.site.page import TEMPLATES, Heading, page, tidy_tables

_SECTION = Html('<h2 id="{}">{}</h2>\n{}\n')


def tables(root: Path) -> Path:
    """Stage `tables`: reports/tables.html, the papers' tables row by row.

    Raises:
        ClipadError: no index or no whole results, or tables that do not fit their numbers.
    """
    run, printed = read_measurements(root), all_tables()
    sections = [
        (table.anchor, _title(table), tables_as_printed.table_section(table, run))
        for table in printed
    ]
    body = tables_as_printed.opening(run, printed) + _joined(sections)
    return _write(root, run, "tables", "The papers' tables", body, sections)


def _title(table: PrintedTable) -> str:
    return f"{read_paper(table.paper).title}, {table.table}: {table.title.lower()}"


def conflicts_page(root: Path) -> Path:
    """Stage `conflicts`: reports/conflicts.html, rows with more than one value in print.

    Raises:
        ClipadError: no index or no whole results, or causes that are of no printed value.
    """
    use_house_style()
    run = read_measurements(root)
    values = [*printed_values(), *printed_conflicts.measured_values(compared_cells(run))]
    found, steps = conflicts(values), progress(values)
    figure, alt = printed_conflicts.spans_figure(found)
    about = "The largest spans: a dot a printed value, the span in points behind it."
    largest = picture(figure, alt, about)
    figure, alt = printed_conflicts.steps_figure(found, steps)
    about = "Both as cumulative shares: where a line is higher, more of what it shows is small."
    against = picture(figure, alt, about)
    search = Html((TEMPLATES / "conflicts.html").read_text(encoding="utf-8"))
    sections = [
        ("largest", "The largest", largest),
        (
            "progress",
            "How large is a step beside that?",
            printed_conflicts.progress_section(found, steps) + against,
        ),
        ("list", "All of them", search + printed_conflicts.conflict_table(found)),
        ("causes", "Known causes", printed_conflicts.causes_table(found)),
    ]
    style = Html("<style>\n{}</style>\n").format(
        Html((TEMPLATES / "conflicts.css").read_text(encoding="utf-8"))
    )
    body = style + printed_conflicts.opening(found, values) + _joined(sections)
    script = (TEMPLATES / "conflicts.js").read_text(encoding="utf-8")
    return _write(root, run, "conflicts", "Contradictions in print", body, sections, script)


def _joined(sections: Sequence[tuple[str, str, Html]]) -> Html:
    return Html("").join(_SECTION.format(*section) for section in sections)


def _write(
    root: Path,
    run: Measurements,
    name: str,
    title: str,
    body: Html,
    sections: Sequence[tuple[str, str, Html]],
    script: str = "",
) -> Path:
    methods = paper_names()
    cited = [entry for method in methods for entry in citations(method, run.profile.dataset)]
    files = sorted([*PAPERS.glob("*/numbers.csv"), *PAPERS.glob("reruns.csv")])
    hashes = {f"data/papers/{path.relative_to(PAPERS).as_posix()}": path for path in files}
    hashes |= {f"reports/results/{m}/results.csv": results_path(root, m) for m in run.results}
    text = page(
        title,
        tidy_tables(body),
        contents=[Heading(2, anchor, heading) for anchor, heading, _ in sections],
        provenance={
            "code hash": code_hash(list(run.settings)),
            **{label: file_hash(path) for label, path in hashes.items()},
        },
        citations=list(dict.fromkeys(cited)),
        command="./repro",
        script=script,
        glossary=glossary(),
    )
    return write_text(root / "reports" / f"{name}.html", text)
