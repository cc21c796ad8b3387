"""The stages that write pages: one a method, essays over all methods, and the page that leads there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from html import escape
from pathlib import Path

from clipad_core.errors import ClipadError
from clipad_harness.base.files import write_text
from clipad_harness.base.parameters import parameters_of
from clipad_harness.base.settings import (
    read_essays,
    read_method,
    read_methods,
    read_pages,
    read_profile,
)
from clipad_harness.experiments.left_out import (
    MethodLeftOut,
    missing_datasets,
    with_datasets,
)
from clipad_harness.papers.card import read_paper
from clipad_harness.papers.citations import citations
from clipad_harness.report.glossary import glossary
from clipad_harness.report.summary import summary_path, summary_text
from clipad_harness.site.essays import description_path, write_description

# DVC does not see what is put into $CLIPAD_DATA.
_AGAIN = (
    "`./repro clipad data list` shows which datasets are here, `docs/data.md` says how to get one. Once "
    "it is there: `./repro dvc repro --single-item --force train@{name}`, then `./repro`. After a change "
    "of `params.yaml`, `./repro` alone."
)


def notebook(root: Path, name: str) -> Path:
    """Stages `notebook` and `essay`: run one notebook through Papermill and set its page.

    Of a method's notebook its metrics are written besides, of an essay what the index says of it.

    Raises:
        ClipadError: no such notebook, or a notebook that fails.
    """
    every, pages_of_methods, essays = read_methods(root), read_pages(root), read_essays(root)
    if name not in (*pages_of_methods, *essays):
        names = ", ".join((*pages_of_methods, *essays))
        raise ClipadError(f"notebook: found {name!r}, expected one of {names}.")
    from clipad_harness.site.notebook import describe, run_notebook
    from clipad_harness.site.plot_file import write_plot

    source = root / "notebooks" / f"{name}.ipynb"
    description = describe(source) if name in essays else None
    methods = every if name in essays else (name,)
    for method in methods:
        read_method(root, method)  # what is wrong there is a message about params.yaml
    if name in pages_of_methods and (reason := _reason_to_leave_out(root, name)):
        return _left_out_page(root, name, reason)
    values = parameters_of(root, None if name in essays else name)
    cited = [citation for method in methods for citation in citations(method, values["dataset"])]
    page = run_notebook(
        source,
        root / "reports" / f"{name}.ipynb",
        values,
        root=root,
        # Asked of the kernel, which has loaded the weights; loading them here as well takes 8 s.
        about=f"from clipad_harness.site.page_facts import tell\n\ntell({name!r}, {values!r})",
        citations=list(dict.fromkeys(cited)),
        command="./repro",
        glossary=glossary(methods),
    )
    if description:
        write_description(description_path(root, name), description)
    else:
        write_text(summary_path(root, name), page.about["summary"])
        write_plot(root, name)
    return page.html


def _reason_to_leave_out(root: Path, name: str) -> MethodLeftOut | None:
    from clipad_harness.experiments.variants import read_variants

    profile = read_profile(root)
    variants = read_variants(name, read_method(root, name), profile)
    try:
        with_datasets(name, variants, missing_datasets(root, profile, variants))
    except MethodLeftOut as reason:
        return reason
    return None


def _left_out_page(root: Path, name: str, reason: MethodLeftOut) -> Path:
    """The page of a method that is left out: why, and what to do; no notebook is run for it."""
    from clipad_harness.report.method import summary_of_left_out
    from clipad_harness.site.notebook import text_notebook, write_page
    from clipad_harness.site.plot_file import write_plot

    print(f"clipad: {reason}", file=sys.stderr)
    profile, title = read_profile(root), read_paper(name).page_title
    text = f"# {title}\n\n{escape(reason.about)}\n\n{_AGAIN.format(name=name)}"
    summary = summary_of_left_out(name, profile, reason.about)
    path = summary_path(root, name)
    page = write_page(
        text_notebook(text, title, command="./repro"), root / "reports" / f"{name}.ipynb"
    )
    write_text(path, summary_text(summary, path))
    write_plot(root, name)
    return page


def pages(root: Path, failed: Mapping[str, str] | None = None) -> Path:
    """Stage `pages`: the page that leads to all reports.

    Args:
        root: the project.
        failed: the stages that did not end well, each with the reason.
    """
    from clipad_harness.site.index import write_home

    return write_home(root, read_pages(root), read_essays(root), failed)
