"""The metrics file of a report page, `reports/summaries/<name>.json`: what the index page reads.

Layout (per cent, null for unknown; nested by shots and metric so that `dvc metrics diff` can follow
every number)::

    {
      "title": "WinCLIP and WinCLIP+",
      "method": "WinCLIP",
      "method_with_references": "WinCLIP+",  // "" where it reads none
      "dataset": "mvtec",
      "backbone": "ViT-B-16-plus-240 / laion400m_e31",
      "weights_hash": "1f0c...",      // SHA-256 of the weights
      "precision": "float64",         // of the matrix products
      "device": "cpu",                // kind of device that computed
      "stand_in": false,              // bundled stand-in weights were used
      "comparable": true,             // the paper's columns mean something
      "reason": "",                   // why not, when comparable is false
      "categories": 15, "images": 1725, "seeds": 3,
      "headline": {
        "0-shot": {
          "image_auroc": {
            "ours": 91.8, "ours_std": null, "paper": 91.8, "paper_std": null,
            "difference": 0.0, "verdict": "pass", "source": "Jeong et al. 2023, Table 1"
          }
        }
      },
      "verdicts": {"fail": 0, "not comparable": 0, "pass": 12},
      "missing": ["visa: no dataset folder was given"]
    }
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from clipad_core.errors import ClipadError
from clipad_core.metrics import METRIC_LABELS
from clipad_core.validation import validate, wrong
from clipad_harness.papers.verdicts import MEAN
from clipad_harness.report.tables import DASH, VERDICTS, Cell, Html, badge, percent, with_spread

# Filled by the page's script, since what differs from run to run is no part of the page.
COSTS = Html(
    '<div data-run="stages"><p>Run time and memory of every stage stand in <code>run.js</code> '
    "beside this page, a file that is no part of the results. Where this text is seen, the file or "
    "the browser's scripts are missing.</p></div>"
)


@dataclass(frozen=True)
class Headline:
    """One metric at one number of shots, over all categories; per cent, None for unknown."""

    ours: float | None
    ours_std: float | None
    paper: float | None
    paper_std: float | None
    difference: float | None
    verdict: str
    source: str


@dataclass(frozen=True)
class Summary:
    """What a report page says, in numbers; the module's text shows the file.

    Attributes:
        headline: by number of shots (`0-shot`), then by metric.
        verdicts: how many comparisons of the page ended how.
        missing: what the page should show and does not, a sentence each.
    """

    title: str
    method: str
    method_with_references: str
    dataset: str
    backbone: str
    weights_hash: str
    precision: str
    device: str
    stand_in: bool
    comparable: bool
    reason: str
    categories: int
    images: int
    seeds: int
    headline: dict[str, dict[str, Headline]]
    verdicts: dict[str, int]
    missing: list[str]


def summary_text(summary: Summary, path: Path) -> str:
    """The metrics file that is to lie at ``path``; the same summary gives the same bytes.

    Raises:
        ClipadError: contents that `read_summary` would refuse.
    """
    record = dataclasses.asdict(summary)
    for shots in record["headline"].values():
        for line in shots.values():
            for name, value in line.items():
                if isinstance(value, float):
                    line[name] = None if math.isnan(value) else round(value, 4)
    _summary(record, path)
    return json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n"


def summary_path(root: Path, name: str) -> Path:
    """The metrics file of a method's page."""
    return root / "reports" / "summaries" / f"{name}.json"


def read_summary(path: Path) -> Summary:
    """Read and check a metrics file.

    Raises:
        ClipadError: a file that is unreadable, is no JSON, or has another layout.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClipadError(
            f"{path}: found no readable JSON ({error}); run the page's stage again."
        ) from error
    return _summary(record, path)


def _summary(record: object, path: Path) -> Summary:
    try:
        summary: Summary = validate(Summary, record, path)
        for name in summary.verdicts:
            if name not in VERDICTS:
                raise wrong(path, "verdicts", name, f"one of {', '.join(VERDICTS)}")
        for shots, metrics in summary.headline.items():
            for metric, line in metrics.items():
                where = f"headline.{shots}"
                if metric not in METRIC_LABELS:
                    raise wrong(path, where, metric, f"one of {', '.join(METRIC_LABELS)}")
                if line.verdict not in ("", *VERDICTS):
                    expected = f"one of {', '.join(VERDICTS)}, or nothing"
                    raise wrong(path, f"{where}.{metric}.verdict", line.verdict, expected)
    except ClipadError as error:
        raise ClipadError(f"{error} Run the page's stage again.") from error
    return summary


def headlines(frame: pd.DataFrame) -> dict[str, dict[str, Headline]]:
    """The means of a `compare`, by number of shots (`0-shot`), then by metric."""
    lines: dict[str, dict[str, Headline]] = {}
    for row in frame[frame["category"] == MEAN].to_dict("records"):
        shots = lines.setdefault(f"{row['k_shot']}-shot", {})
        shots[str(row["metric"])] = headline(row)
    return lines


def headline(row: Mapping[Any, Any]) -> Headline:
    """One row of a `compare`, with None for unknown."""
    return Headline(
        ours=_number(row["ours_mean"]),
        ours_std=_number(row["ours_std"]),
        paper=_number(row["paper_mean"]),
        paper_std=_number(row["paper_std"]),
        difference=_number(row["difference"]),
        verdict=str(row["verdict"]),
        source=str(row["source"]),
    )


def _number(value: object) -> float | None:
    return None if pd.isna(value) else float(str(value))  # type: ignore[call-overload]


def headline_cell(line: Headline | None, mark: str = "", link: str = "") -> Cell:
    """One table cell: ours, below it the paper's number, the difference and the verdict.

    Args:
        line: None gives a dash.
        mark: `Html` after the paper's number, for example a note's number.
        link: where our number comes from.
    """
    if line is None:
        return Cell(DASH)
    paper = Html("no paper number")
    if line.paper is not None:
        printed = with_spread(line.paper, line.paper_std)
        paper = Html('<span title="{}">paper {}</span>').format(line.source, printed)
        if line.difference is not None:
            paper += f" · {percent(line.difference, signed=True)}"
    measured = with_spread(line.ours, line.ours_std)
    if link:
        measured = Html('<a href="{}">{}</a>').format(link, measured)
    verdict = badge(line.verdict) if line.verdict else ""
    cell = Html('<span class="cell-ours">{}</span><span class="cell-paper">{}{}</span>{}')
    return Cell(cell.format(measured, paper, mark, verdict))
