"""What the process that runs a notebook says of the page it makes: hashes, origins, the metrics file.

It has loaded the weights and read the results, so nobody else needs to; see `page_stages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from IPython.display import JSON, display

from clipad_harness.base.settings import find_root, read_pages
from clipad_harness.data.datasets import index_hash
from clipad_harness.experiments.pipeline import open_measured, open_run, results_of
from clipad_harness.report.method import number_origins, provenance, summarise
from clipad_harness.report.provenance import about_page
from clipad_harness.report.summary import summary_path, summary_text


def tell(name: str, parameters: Mapping[str, Any]) -> None:
    """Display the facts of the page of this name, for `run_notebook`.

    Args:
        name: of a method, or of an essay over all methods.
        parameters: that the notebook was run with.
    """
    root = find_root()
    if name in read_pages(root):
        display(JSON(about_method(root, name, parameters)))
    else:
        display(JSON(about_essay(root, parameters)))


def about_method(root: Path, name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance, origins and summary of a method's page."""
    run = open_run(root, name, parameters)
    scorer = run.scorer()
    results = results_of(run, scorer)
    weights = {name: run.profile.weights[name]}
    used = {"profile": asdict(replace(run.profile, weights=weights)), name: asdict(run.settings)}
    facts = provenance(scorer, run.data, used)
    return {
        "provenance": facts,
        "origins": str(number_origins(scorer, results, facts)),
        "summary": summary_text(summarise(scorer, results), summary_path(root, name)),
    }


def about_essay(root: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance of a page about all methods; what their sections say is in their results."""
    runs = open_measured(root, parameters)
    names = [run.name for run in runs]
    scorers, first = [run.scorer() for run in runs], runs[0]
    return {
        "provenance": about_page(
            dataset=first.profile.dataset,
            images=len(first.index),
            data_hash=index_hash(first.index, first.data),
            backbones=[scorer.backbone(scorer.variants[0].config) for scorer in scorers],
            methods=names,
            parameters={"profile": asdict(first.profile), "methods": names},
        )
    }
