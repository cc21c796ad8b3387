"""What a method's page says in numbers: ours beside the paper's, verdicts, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from inspect import getfile
from pathlib import Path

import pandas as pd

from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_harness.base.settings import Profile
from clipad_harness.data.cards import read_card
from clipad_harness.data.datasets import index_hash
from clipad_harness.experiments.digests import PACKAGES
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.shards import MAIN
from clipad_harness.papers.card import read_paper
from clipad_harness.papers.numbers import is_printed, load_reported, printed_dataset
from clipad_harness.papers.verdicts import compare
from clipad_harness.report.provenance import about_page, origins
from clipad_harness.report.summary import Summary, headlines
from clipad_harness.report.tables import VERDICTS, Html


def matching(scorer: Scorer, results: pd.DataFrame) -> pd.DataFrame:
    """The results table, after a check that this run's data and weights made it.

    Raises:
        ClipadError: another dataset, other categories or other weights.
    """
    configured = {
        "dataset": {scorer.profile.dataset},
        "categories": set(scorer.tested.index["category"]),
        "weights": {scorer.backbone(scorer.variants[0].config).label},
    }
    main, name = results[results["variant"] == MAIN], read_paper(scorer.method).name
    measured = {
        "dataset": set(main["dataset"]),
        "categories": set(main["category"]),
        "weights": set(main["backbone"]),
    }
    for label, expected in configured.items():
        if measured[label] != expected:
            raise ClipadError(
                f"reports/results/{name}/results.csv: its {label} are {', '.join(sorted(measured[label]))}, "
                f"expected {', '.join(sorted(expected))}; set profile and dataset in params.yaml and "
                f"run `./repro clipad measure {name}`."
            )
    return results


def comparable(scorer: Scorer) -> tuple[bool, str]:
    """Whether the paper's columns mean something beside this run, and if not, why."""
    dataset = scorer.profile.dataset
    if reason := other_weights(scorer, read_paper(scorer.method).backbone):
        return False, reason
    if not is_printed(scorer.method, dataset):
        return False, f"the paper prints no number for the dataset {dataset}"
    if reason := missing_images(dataset, scorer.tested.index):
        return False, reason
    return True, ""


def other_weights(scorer: Scorer, backbone: str) -> str:
    """Why numbers that were made with a published backbone cannot be compared; "" where they can."""
    kind = scorer.backbone(scorer.variants[0].config).kind
    if kind in ("stand-in", "random"):
        return f"this run uses {kind} weights, not the published ones"
    if scorer.profile.weights[scorer.name].backbone != backbone:
        return f"the paper's numbers were made with {backbone}"
    return ""


def missing_images(dataset: str, index: pd.DataFrame) -> str:
    """Which images of a dataset are not tested, where its card says how many there are; "" for none.

    Args:
        dataset: its name.
        index: of all its images that are here.
    """
    counts, test = read_card(dataset).counts, index[index["split"] == "test"]
    for category, complete in counts.categories.items():
        count = int((test["category"] == category).sum())
        if count not in (0, complete):
            return f"{category} has {count} of its {complete} test images"
    if not counts.categories and counts.test not in (None, len(test)):
        return f"{dataset} has {len(test)} of its {counts.test} test images"
    return ""


def comparison(scorer: Scorer, results: pd.DataFrame) -> pd.DataFrame:
    """Ours, paper, difference and verdict for every category, number of shots and metric."""
    main = results[results["variant"] == MAIN]
    return compare(main, load_reported(), comparable(scorer)[0], shown_dataset(scorer))


def shown_dataset(scorer: Scorer) -> str:
    """Whose printed numbers stand beside ours: its own where the paper has it."""
    return printed_dataset(scorer.method, scorer.profile.dataset)


def summarise(scorer: Scorer, results: pd.DataFrame) -> Summary:
    """The page's metrics file: headline means, verdict counts, what is missing."""
    frame = comparison(scorer, matching(scorer, results))
    means, reason = comparable(scorer)
    backbone = scorer.backbone(scorer.variants[0].config)
    references = find_method(scorer.name).references
    counts = frame["verdict"].value_counts()
    return Summary(
        title=read_paper(scorer.method).page_title,
        method=scorer.method,
        method_with_references=references.title if references else "",
        dataset=scorer.profile.dataset,
        backbone=backbone.label,
        weights_hash=backbone.digest,
        precision=backbone.precision,
        device=backbone.device.type,
        stand_in=backbone.kind == "stand-in",
        comparable=means,
        reason=reason,
        categories=int(scorer.tested.index["category"].nunique()),
        images=int((scorer.tested.index["split"] == "test").sum()),
        seeds=int(results.loc[results["variant"] == MAIN, "seed"].nunique()),
        headline=headlines(frame),
        verdicts={k: int(counts.get(k, 0)) for k in VERDICTS},
        missing=[*read_paper(scorer.method).missing, *incomplete(scorer)],
    )


def summary_of_left_out(method: str, profile: Profile, about: str) -> Summary:
    """The metrics file of a method that is left out: no number, and why.

    Args:
        method: its name.
        profile: of the run.
        about: why it is left out.
    """
    paper, weights = read_paper(method), profile.weights[method]
    references = find_method(method).references
    return Summary(
        title=paper.page_title,
        method=paper.title,
        method_with_references=references.title if references else "",
        dataset=profile.dataset,
        backbone=f"{weights.backbone} / {weights.weights}",
        weights_hash="",
        precision="",
        device="",
        stand_in=False,
        comparable=False,
        reason="left out",
        categories=0,
        images=0,
        seeds=0,
        headline={},
        verdicts={},
        missing=[about.rstrip(".")],
    )


def incomplete(scorer: Scorer) -> list[str]:
    """What a complete run of the dataset would have and this one has not, a sentence each."""
    images, card = scorer.tested, read_card(scorer.profile.dataset)
    missing = [*scorer.left_out, *card.missing]
    if absent := [name for name in card.categories if name not in images.categories]:
        names = f"{len(absent)} of the {len(card.categories)} categories are not run"
        missing.append(f"{names}: {', '.join(absent)}")
    count = int((images.index["split"] == "test").sum())
    if card.counts.test is not None and count < card.counts.test:
        missing.append(f"{count:,} of {card.counts.test:,} test images are here")
    one_label = {
        name: "no normal" if images.rows(name, "test")["label"].all() else "no damaged"
        for name in images.categories
        if images.rows(name, "test")["label"].nunique() == 1
    }
    for lack in dict.fromkeys(one_label.values()):
        names = ", ".join(name for name, own in one_label.items() if own == lack)
        missing.append(f"image metrics are undefined where {lack} images are tested: {names}")
    if unmasked := [name for name in images.categories if not images.has_masks(name)]:
        missing.append(f"pixel metrics are undefined without masks: {', '.join(unmasked)}")
    return missing


def provenance(scorer: Scorer, data: Path, parameters: Mapping[str, object]) -> dict[str, str]:
    """What made the page: hashes, precision and kind of device; no time, no host, no version."""
    return about_page(
        dataset=scorer.profile.dataset,
        images=len(scorer.tested.index),
        data_hash=index_hash(scorer.tested.index, data),
        backbones=[scorer.backbone(scorer.variants[0].config)],
        methods=[scorer.name],
        parameters=parameters,
    )


def number_origins(scorer: Scorer, results: pd.DataFrame, facts: Mapping[str, str]) -> Html:
    """Where each headline number comes from: seeds, shards, data, licence, code, settings."""
    main = results[results["variant"] == MAIN]
    return origins(main, asdict(scorer.variants[0].config), facts, code_of(scorer))


def code_of(scorer: Scorer) -> list[str]:
    """The files that say how an image is scored: the method's room, and the scorer that asks it."""
    room = Path(getfile(type(scorer.variants[0].config))).parent
    files = [path for path in sorted(room.glob("*.py")) if path.stem != "__init__"]
    return [path.relative_to(PACKAGES).as_posix() for path in (*files, Path(getfile(type(scorer))))]
