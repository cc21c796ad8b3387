"""The stages that write pages: one a method, essays over all methods, and the page that leads there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from clipad_core.errors import ClipadError
from clipad_harness import learned_pipeline, pipeline
from clipad_harness.citations import citations
from clipad_harness.settings import LEARNED, read_params

if TYPE_CHECKING:
    from clipad_harness.learned_pipeline import LearnedRun
    from clipad_harness.pipeline import Run

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
    import torch

    torch.set_num_threads(1)  # as the kernel has; the page says how many made it
    return _method_page(root, name) if name in METHODS else _essay(root, name)


def _method_page(root: Path, name: str) -> Path:
    from clipad_harness.method_report import number_origins, provenance, summarise
    from clipad_harness.notebook import run_notebook
    from clipad_harness.summary import write_summary

    run, params = open_method(root, name), read_params(root)
    scorer, results = run.scorer(), read_method(root, name)
    used = {section: params[section] for section in ("profile", "profiles", name)}
    facts = provenance(scorer, run.data, used)
    page = run_notebook(
        root / "notebooks" / f"{name}.ipynb",
        root / "reports" / f"{name}.ipynb",
        {"profile": run.profile.name, "dataset": run.profile.dataset},
        root=root,
        provenance=facts,
        origins=number_origins(scorer, results, facts),
        citations=citations(name, run.profile.dataset),
        command="./repro",
    )
    write_summary(summarise(scorer, results), root / "reports" / f"{name}.json")
    return page


def _essay(root: Path, name: str) -> Path:
    from clipad_harness.datasets import index_hash
    from clipad_harness.notebook import run_notebook
    from clipad_harness.provenance import about_page

    runs = {method: open_method(root, method) for method in METHODS}
    first, params = runs["winclip"], read_params(root)
    scorers = [run.scorer() for run in runs.values()]
    cited = [one for method in METHODS for one in citations(method, first.profile.dataset)]
    return run_notebook(
        root / "notebooks" / f"{name}.ipynb",
        root / "reports" / f"{name}.ipynb",
        {"profile": first.profile.name, "dataset": first.profile.dataset},
        root=root,
        provenance=about_page(
            dataset=first.profile.dataset,
            images=len(first.index),
            data_hash=index_hash(first.index, first.data),
            backbones=[scorer.backbone(scorer.among[0].config) for scorer in scorers],
            parameters={section: params[section] for section in ("profile", "profiles", *METHODS)},
        ),
        citations=list(dict.fromkeys(cited)),
        command="./repro",
    )


def pages(root: Path) -> Path:
    """Stage `pages`: the page that leads to all reports."""
    from clipad_harness.index_page import write_home

    return write_home(root, METHODS, ESSAYS)
