"""The stages that write pages: one a method, essays over all methods, and the page that leads there."""

from __future__ import annotations

from pathlib import Path

from clipad_core.errors import ClipadError
from clipad_harness.base.files import write_text
from clipad_harness.base.parameters import parameters_of
from clipad_harness.base.settings import read_method, read_methods
from clipad_harness.papers.citations import citations
from clipad_harness.report.glossary import glossary
from clipad_harness.report.summary import summary_path

# Notebooks about all methods together; they have no numbers of their own.
ESSAYS = ("comparison", "why_numbers_differ")


def notebook(root: Path, name: str) -> Path:
    """Stage `notebook`: run one notebook through Papermill; write its page and its metrics.

    Raises:
        ClipadError: no such notebook, or a notebook that fails.
    """
    every = read_methods(root)
    if name not in (*every, *ESSAYS):
        raise ClipadError(
            f"notebook: found {name!r}, expected one of {', '.join((*every, *ESSAYS))}."
        )
    from clipad_harness.site.notebook import run_notebook

    methods = every if name in ESSAYS else (name,)
    for method in methods:
        read_method(root, method)  # what is wrong there is a message about params.yaml
    values = parameters_of(root, None if name in ESSAYS else name)
    cited = [citation for method in methods for citation in citations(method, values["dataset"])]
    page = run_notebook(
        root / "notebooks" / f"{name}.ipynb",
        root / "reports" / f"{name}.ipynb",
        values,
        root=root,
        # Asked of the kernel, which has loaded the weights; loading them here as well takes 8 s.
        about=f"from clipad_harness.site.page_facts import tell\n\ntell({name!r}, {values!r})",
        citations=list(dict.fromkeys(cited)),
        command="./repro",
        glossary=glossary(methods),
    )
    if name in every:
        write_text(summary_path(root, name), page.about["summary"])
    return page.html


def pages(root: Path) -> Path:
    """Stage `pages`: the page that leads to all reports."""
    from clipad_harness.site.index import write_home

    return write_home(root, read_methods(root), ESSAYS)
