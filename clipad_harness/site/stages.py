"""The stages that write pages: one a method, essays over all methods, and the page that leads there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from clipad_core.errors import ClipadError
from clipad_harness.base.files import write_text
from clipad_harness.base.settings import LEARNED, read_profile
from clipad_harness.experiments import learned_pipeline, pipeline
from clipad_harness.papers.citations import citations

if TYPE_CHECKING:
    from clipad_harness.experiments.learned_pipeline import LearnedRun
    from clipad_harness.experiments.pipeline import Run

METHODS = ("winclip", *LEARNED)
# Notebooks about all methods together; they have no numbers of their own.
ESSAYS = ("comparison", "why_numbers_differ")


def open_method(root: Path, name: str, profile: str = "", dataset: str = "") -> Run | LearnedRun:
    """The run of any method."""
    if name in LEARNED:
        return learned_pipeline.open_learned(root, name, profile, dataset)
    return pipeline.open_run(root, profile, dataset)


def read_method(root: Path, name: str) -> pd.DataFrame:
    """The results table of any method."""
    if name in LEARNED:
        return learned_pipeline.read_results(root, name)
    return pipeline.read_results(root)


def notebook(root: Path, name: str) -> Path:
    """Stage `notebook`: run one notebook through Papermill; write its page and its metrics.

    Raises:
        ClipadError: no such notebook, or a notebook that fails.
    """
    if name not in (*METHODS, *ESSAYS):
        raise ClipadError(
            f"notebook: found {name!r}, expected one of {', '.join((*METHODS, *ESSAYS))}."
        )
    from clipad_harness.site.notebook import run_notebook

    profile = read_profile(root)
    methods = METHODS if name in ESSAYS else (name,)
    cited = [one for method in methods for one in citations(method, profile.dataset)]
    page = run_notebook(
        root / "notebooks" / f"{name}.ipynb",
        root / "reports" / f"{name}.ipynb",
        {"profile": profile.name, "dataset": profile.dataset},
        root=root,
        # Asked of the kernel, which has loaded the weights; loading them here as well takes 8 s.
        about=f"from clipad_harness.site.page_facts import tell\n\ntell({name!r})",
        citations=list(dict.fromkeys(cited)),
        command="./repro",
    )
    if name in METHODS:
        write_text(root / "reports" / f"{name}.json", page.about["summary"])
    return page.html


def pages(root: Path) -> Path:
    """Stage `pages`: the page that leads to all reports."""
    from clipad_harness.site.index import write_home

    return write_home(root, METHODS, ESSAYS)
