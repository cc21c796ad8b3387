"""`clipad export`: a table of the results as LaTeX, CSV or Markdown, or all results as one JSON file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clipad_core.errors import ClipadError

if TYPE_CHECKING:
    from clipad_harness.report.paper_tables import Source

_SUFFIXES = {".tex": "latex", ".md": "markdown", ".csv": "csv", ".json": "json"}

_EXAMPLES = """examples:
  clipad export                                        # what there is
  clipad export headline --paper --out headline.tex
  clipad export categories --methods winclip --metrics image_auroc --shots 0 4
  clipad export ablation --methods winclip --group prompts --format markdown
  clipad export results --out mvtec.json               # all results, docs/results.schema.json
  clipad export headline --from mvtec.json visa.json   # several runs in one table

A table is of what `clipad measure` has written below reports/results; where it has written nothing, as
in a fresh clone, headline is read from the metrics files of the pages. Weights and data are not needed.
docs/export.md says more, and how to cite a number."""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add `export`."""
    export = commands.add_parser(
        "export",
        help="write a table for a paper, or all results as JSON",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = export.add_argument
    add("table", nargs="?", default="", metavar="TABLE", help="none: say what there is")
    add("--format", choices=sorted(_SUFFIXES.values()), help="default: by --out, else latex")
    add("--out", type=Path, metavar="FILE", help="default: standard output")
    add("--force", action="store_true", help="replace the file")
    add("--methods", "--method", nargs="+", default=[], metavar="NAME", help="default: all")
    add("--metrics", "--metric", nargs="+", default=[], metavar="NAME", help="in this order")
    add("--datasets", "--dataset", nargs="+", default=[], metavar="NAME", help="default: all")
    add(
        "--categories",
        "--category",
        nargs="+",
        default=[],
        metavar="NAME",
        help="default: all; a mean is over these",
    )
    add("--shots", nargs="+", type=int, default=[], metavar="K", help="numbers of references")
    add("--group", default="", metavar="NAME", help="of an ablation, as params.yaml calls it")
    add("--paper", action="store_true", help="the printed number beside ours")
    add("--decimals", type=int, default=1, metavar="N", help="of per cent (default: 1)")
    add("--profile", default="", help="that made the results; default: that of params.yaml")
    add(
        "--from",
        dest="files",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="read these JSON files in place of this project's results",
    )
    export.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> Path | None:
    from clipad_harness.base.files import check_place, write_text
    from clipad_harness.report.paper_tables import TABLES

    if arguments.table not in ("", *TABLES):
        raise ClipadError(
            f"export: found no table {arguments.table!r}, expected one of {', '.join(TABLES)}; `clipad "
            "export` alone says what is in them."
        )
    if not 0 <= arguments.decimals <= 4:
        raise ClipadError(
            f"decimals: found {arguments.decimals}, expected 0 to 4: results hold six digits of 1."
        )
    if arguments.out is None:
        print(_text(arguments), end="")
        return None
    check_place(arguments.out)
    if arguments.out.exists() and not arguments.force:
        raise ClipadError(
            f"{arguments.out}: found a file, expected none; name another one, or add --force to replace it."
        )
    return write_text(arguments.out, _text(arguments))


def _text(arguments: argparse.Namespace) -> str:
    from clipad_harness.report import paper_tables, table_texts
    from clipad_harness.report.results_file import results_file, results_text

    table, output = arguments.table, _format(arguments)
    sources = _sources(arguments)
    if not table:
        return paper_tables.contents(sources)
    if output == "json":
        return results_text(results_file(_whole(arguments, sources)))
    selection = paper_tables.Selection(
        metrics=arguments.metrics,
        datasets=arguments.datasets,
        categories=arguments.categories,
        shots=arguments.shots,
        group=arguments.group,
        paper=arguments.paper,
        decimals=arguments.decimals,
    )
    if table == paper_tables.RESULTS:
        return table_texts.commented(*paper_tables.result_rows(sources, selection))
    make = {
        paper_tables.HEADLINE: paper_tables.headline,
        paper_tables.CATEGORIES: paper_tables.categories,
        paper_tables.ABLATION: paper_tables.ablation_rows,
    }[table]
    write = {
        "latex": table_texts.latex,
        "markdown": table_texts.markdown,
        "csv": table_texts.csv,
    }[output]
    return write(make(sources, selection))


def _format(arguments: argparse.Namespace) -> str:
    """What is written: as asked for, else by the file's name, else what the table is for."""
    is_results = arguments.table == "results"
    suffix = arguments.out.suffix if arguments.out else ""
    output = arguments.format or _SUFFIXES.get(suffix, "csv" if is_results else "latex")
    if is_results is not (output in ("json", "csv")) and (is_results or output == "json"):
        expected = "csv or json" if is_results else "latex, markdown or csv; json is for results"
        raise ClipadError(f"format: found {output} for {arguments.table}, expected {expected}.")
    return str(output)


def _whole(arguments: argparse.Namespace, sources: Sequence[Source]) -> list:
    """The results of a JSON file, which holds all that there is of a method."""
    parts = ("metrics", "datasets", "categories", "shots", "group")
    if asked := [name for name in parts if getattr(arguments, name)]:
        raise ClipadError(
            f"{asked[0]}: found it with --format json, expected --methods alone: the file holds all results "
            "of a method."
        )
    return [source.results for source in sources]


def _sources(arguments: argparse.Namespace) -> list[Source]:
    """The methods that are asked for, of the files or of this project."""
    from clipad_core.validation import listed
    from clipad_harness.base.settings import find_root, read_methods
    from clipad_harness.papers.card import find_paper
    from clipad_harness.report.paper_tables import HEADLINE, run_sources, source_of
    from clipad_harness.report.results_file import read_results_file

    names = [paper.name if (paper := find_paper(n)) else n for n in arguments.methods]
    if not arguments.files:
        root, pages = find_root(), arguments.table in ("", HEADLINE)
        sources = run_sources(root, names, arguments.profile, pages)
        absent = [name for name in read_methods(root) if name not in {s.name for s in sources}]
        if absent and not names:
            print(f"clipad: without results, so left out: {listed(absent)}", file=sys.stderr)
        return sources
    if arguments.profile:
        raise ClipadError(
            "profile: found it with --from, expected one of them: a file says its own."
        )
    whole = [method for file in arguments.files for method in read_results_file(file).methods]
    known = list(dict.fromkeys(method.name for method in whole))
    if unknown := [name for name in names if name not in known]:
        raise ClipadError(
            f"methods: found {listed(unknown)}, expected some of {listed(known)}, those of the files."
        )
    return [source_of(method) for name in names or known for method in whole if method.name == name]
