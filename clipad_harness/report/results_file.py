"""All results of a run in one JSON file, and back to the table: `docs/results.schema.json` says its fields.

The file holds what a number needs to be cited and checked: the method and the settings it ran with, the
weights, seeds, and for every shard the key, which is the hash of all that the shard depends on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
from safetensors import safe_open

import clipad_core
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_core.metrics import METRIC_LABELS, METRICS
from clipad_core.validation import listed, validate, wrong
from clipad_harness.base.files import check_regular
from clipad_harness.base.settings import Profile, Weights, read_method
from clipad_harness.base.weights import resolve
from clipad_harness.experiments.pipeline import read_results, results_csv
from clipad_harness.experiments.results import COLUMNS
from clipad_harness.experiments.shards import MAIN
from clipad_harness.papers.card import read_paper
from clipad_harness.report.provenance import code_hash
from clipad_harness.report.summary import Summary, read_summary, summary_path

# A file of another first number cannot be read; the second one counts fields that were added.
SCHEMA_VERSION = "1.0"
STAND_IN = "stand-in"
Kind = Literal["published", "file", "stand-in", "random", "unknown"]
_SHARD = ["variant", "dataset", "category", "k_shot", "seed", "precision", "device", "key"]


@dataclass(frozen=True)
class WeightsFacts:
    """The frozen CLIP that scored.

    Attributes:
        label: as in the results table.
        kind: published (by tag), file, stand-in or random, of which the last two are never comparable
            with a paper; unknown where their file is not here any more.
        sha256: over every tensor and the architecture, as the method's page says; "" where none does.
    """

    label: str
    kind: Kind
    sha256: str


@dataclass(frozen=True)
class Protocol:
    """How the main variant was run: its settings in params.yaml.

    Attributes:
        preset: whose settings, as a published code's or the paper's.
        changes: fields of the preset that are changed.
        trained_on: the auxiliary dataset; "" where nothing is learned.
        seeds: of references and trainings.
        aupro, fpr_limit: which AUPRO, up to which false-positive rate.
    """

    preset: str
    changes: Mapping[str, Any]
    trained_on: str
    seeds: tuple[int, ...]
    aupro: str
    fpr_limit: float


@dataclass(frozen=True)
class ShardResult:
    """One category of one variant with so many references and one seed.

    Attributes:
        key: hash of all that it depends on: images, weights, settings, code.
        metrics: by name, from 0 to 1; None where the data do not define it.
    """

    variant: str
    dataset: str
    category: str
    k_shot: int
    seed: int
    precision: str
    device: str
    key: str
    metrics: Mapping[str, float | None]


@dataclass(frozen=True)
class MethodResults:
    """All results of one method in one run.

    Attributes:
        name: of its section in params.yaml; title: as tables call it.
        title_with_references: as they call it with normal images; "" where it reads none.
        profile: of params.yaml.
        dataset: that its main variant is tested on.
        comparable: whether a paper's numbers can be compared with these; reason: why not.
        results_sha256: of the bytes of results.csv.
        code_sha256: of the code that wrote this; a shard's key holds that of the code that measured it.
        clipad_version: of that code.
    """

    name: str
    title: str
    title_with_references: str
    profile: str
    dataset: str
    weights: WeightsFacts
    protocol: Protocol
    comparable: bool
    reason: str
    results_sha256: str
    code_sha256: str
    clipad_version: str
    shards: tuple[ShardResult, ...]

    def table(self) -> pd.DataFrame:
        """The results table, equal to the one of `results.csv`: a row a shard and metric."""
        rows = [
            (self.title, shard.variant, self.weights.label, shard.precision, shard.device,
             shard.dataset, shard.category, shard.k_shot, shard.seed, metric, value, shard.key)
            for shard in self.shards
            for metric, value in shard.metrics.items()
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=COLUMNS).astype({"value": float})


@dataclass(frozen=True)
class MetricFacts:
    """How tables call a metric, and its direction."""

    label: str
    higher_is_better: bool


@dataclass(frozen=True)
class ResultsFile:
    """The whole file; the classes above say what is in it."""

    schema_version: str
    metrics: Mapping[str, MetricFacts]
    methods: tuple[MethodResults, ...]


def method_results(root: Path, name: str, profile: Profile) -> MethodResults:
    """What a run has measured of a method, with what is known of how.

    Args:
        root: the project's folder.
        name: of the method.
        profile: that it was measured with.

    Raises:
        ClipadError: no results, or those of another dataset or backbone than the profile's.
    """
    results, method = read_results(root, name), find_method(name)
    main = results[results["variant"] == MAIN]
    if main.empty:
        raise ClipadError(
            f"reports/results/{name}/results.csv: found no row of the variant {MAIN}, expected some; the "
            "method was left out of the run, and `clipad plan` says why."
        )
    label, dataset = str(main["backbone"].iloc[0]), str(main["dataset"].iloc[0])
    weights, settings = profile.weights[name], read_method(root, name)
    _check_profile(name, profile, dataset, label)
    page = page_of(root, name, dataset, label)
    return MethodResults(
        name=name,
        title=str(main["method"].iloc[0]),
        title_with_references=method.references.title if method.references else "",
        profile=profile.name,
        dataset=dataset,
        weights=WeightsFacts(label, _kind(root, weights), page.weights_hash if page else ""),
        protocol=Protocol(
            preset=settings.preset,
            changes=settings.changes,
            trained_on=settings.auxiliary_of(dataset) if method.training else "",
            seeds=tuple(sorted({int(seed) for seed in main["seed"]})),
            aupro=settings.aupro,
            fpr_limit=settings.fpr_limit,
        ),
        comparable=page.comparable if page else False,
        reason=page.reason if page else "no page of this run says whether they can be compared",
        results_sha256=_sha256(results),
        code_sha256=code_hash([name]),
        clipad_version=clipad_core.__version__,
        shards=tuple(_shards(results)),
    )


def page_of(root: Path, name: str, dataset: str, label: str = "") -> Summary | None:
    """The metrics file of a method's page, where it is of this dataset and these weights.

    Args:
        label: of the weights; "" for any.
    """
    path = summary_path(root, name)
    summary = read_summary(path) if path.is_file() else None
    is_same = summary and summary.dataset == dataset and label in ("", summary.backbone)
    return summary if is_same else None


def results_file(methods: Sequence[MethodResults]) -> ResultsFile:
    """The results of some methods as one file holds them."""
    metrics = {
        name: MetricFacts(metric.label, metric.higher_is_better) for name, metric in METRICS.items()
    }
    return ResultsFile(SCHEMA_VERSION, metrics, tuple(methods))


def results_text(file: ResultsFile) -> str:
    """The file's text; the same results give the same bytes."""
    return json.dumps(asdict(file), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_results_file(path: Path) -> ResultsFile:
    """Read and check a file that `clipad export results --format json` wrote.

    Args:
        path: the file.

    Returns:
        The file; ``file.methods[0].table()`` is the table of `results.csv` again.

    Raises:
        ClipadError: no such file or no JSON, another version of the schema, other fields, a value out
            of range, or results that are not those that were written.
    """
    check_regular(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ClipadError(
            f"{path}: found no readable JSON ({error}), expected what `clipad export results --format "
            "json` writes; write it again."
        ) from error
    version = record.get("schema_version") if isinstance(record, dict) else None
    if (
        not isinstance(version, str)
        or version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]
    ):
        raise ClipadError(
            f"{path}: found schema_version {version!r}, expected {SCHEMA_VERSION}; write it again with "
            "this version of clipad."
        )
    file: ResultsFile = validate(ResultsFile, record, path)
    for place, method in enumerate(file.methods):
        _check_shards(method, path, f"methods[{place}]")
    return file


def _check_profile(name: str, profile: Profile, dataset: str, label: str) -> None:
    """Refuse results that the profile cannot have made: its name would stand beside them."""
    expected = {"dataset": profile.dataset, "backbone": profile.weights[name].backbone}
    measured = {"dataset": dataset, "backbone": label.partition(" ")[0]}
    for what, value in measured.items():
        if value != expected[what]:
            raise ClipadError(
                f"reports/results/{name}/results.csv: its {what} is {value}, expected {expected[what]} of "
                f"the profile {profile.name}; name the profile that made it with --profile, or run "
                f"`./repro clipad measure {name}`."
            )


def _kind(root: Path, weights: Weights) -> Kind:
    """What `Backbone.kind` is with some weights, by the header of their file alone."""
    if weights.weights.startswith("random:"):
        return "random"
    if Path(weights.weights).suffix and not (root / weights.weights).is_file():
        return "unknown"
    file = Path(resolve(root, weights).weights)
    if not file.is_file():
        return "published"
    if file.suffix != ".safetensors":
        return "file"
    with safe_open(file, "numpy") as opened:
        kind = (opened.metadata() or {}).get("clipad", "file")
    return kind if kind in get_args(Kind) else "unknown"


def _shards(results: pd.DataFrame) -> Iterator[ShardResult]:
    """Rows of the results table that belong to one shard, in their order."""
    rows = results.to_dict("records")
    for head, block in groupby(rows, lambda row: tuple(row[name] for name in _SHARD)):
        values = {
            str(row["metric"]): None if pd.isna(row["value"]) else float(row["value"])
            for row in block
        }
        yield ShardResult(**dict(zip(_SHARD, head, strict=True)), metrics=values)


def _check_shards(method: MethodResults, path: Path, where: str) -> None:
    """What types cannot say."""
    read_paper(method.name)
    for place, shard in enumerate(method.shards):
        for metric, value in shard.metrics.items():
            at = f"{where}.shards[{place}].metrics"
            if metric not in METRIC_LABELS:
                raise wrong(path, at, metric, f"some of {listed(METRIC_LABELS)}")
            if value is not None and not 0 <= value <= 1:
                raise wrong(path, f"{at}.{metric}", value, "a value from 0 to 1, or null")
    if (digest := _sha256(method.table())) != method.results_sha256:
        raise ClipadError(
            f"{path}: {where}: found results with the SHA-256 {digest[:12]}…, expected "
            f"{method.results_sha256[:12]}… as written; the file was changed, write it again."
        )


def _sha256(results: pd.DataFrame) -> str:
    return hashlib.sha256(results_csv(results).encode()).hexdigest()
