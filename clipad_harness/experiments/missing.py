"""What a run lacks on this machine, before it starts: datasets and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clipad_core.clip.published import find_published
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_harness.base.settings import Profile, read_method
from clipad_harness.base.weights import locate, resolve
from clipad_harness.data.cards import read_card
from clipad_harness.data.dataset_check import miscounts
from clipad_harness.data.stages import open_data
from clipad_harness.experiments.variants import datasets_of, read_variants


@dataclass(frozen=True)
class Missing:
    """What a run lacks.

    Attributes:
        datasets: of every method the datasets that it reads and that cannot be read, by name.
        weights: methods whose weights are not here.
        sentences: all of it, and what is there in part, in words.
    """

    datasets: Mapping[str, list[str]]
    weights: frozenset[str]
    sentences: list[str]


def find_missing(root: Path, profile: Profile) -> Missing:
    """Everything that a run of this profile lacks: datasets and weights.

    Raises:
        ClipadError: settings that no dataset and no weights would make right.
    """
    reads = {
        name: datasets_of(read_variants(name, read_method(root, name), profile), profile.dataset)
        for name in profile.weights
    }
    reasons = {profile.dataset: "all methods"}
    for name, datasets in reads.items():
        for dataset in datasets:
            reasons.setdefault(dataset, f"training {find_method(name).title}")
    sentences, absent = [], set()
    for dataset, reason in reasons.items():
        card = read_card(dataset)
        chosen = profile if dataset == profile.dataset else profile.on(dataset)
        try:
            _, index = open_data(root, chosen)
        except ClipadError as error:
            absent.add(dataset)
            sentences.append(f"{dataset}, for {reason}: {error}")
            continue
        problems = miscounts(index, card) if not chosen.categories else []
        if problems:
            sentences.append(
                f"{dataset}, a part of it: {len(problems)} differences from its card, the first: "
                f"{problems[0]}. It runs, and the report says so; see `clipad data check {dataset}`"
            )
    lacking = {name: _missing_weights(root, profile, name) for name in profile.weights}
    sentences += dict.fromkeys(sentence for sentence in lacking.values() if sentence)
    return Missing(
        {name: [dataset for dataset in reads[name] if dataset in absent] for name in reads},
        frozenset(name for name, sentence in lacking.items() if sentence),
        sentences,
    )


def _missing_weights(root: Path, profile: Profile, name: str) -> str:
    weights, title = resolve(root, profile.weights[name]), find_method(name).title
    if weights.weights.startswith("random:"):
        return ""
    if Path(weights.weights).suffix:
        exists = (root / weights.weights).is_file()
        return "" if exists else f"weights of {title}: {weights.weights} does not exist"
    if locate(find_published(weights.backbone, weights.weights)) is None:
        return (
            f"weights {weights.backbone}, {weights.weights} for {title}: not on this machine; "
            "open_clip fetches them at the first run, or see `clipad weights add`"
        )
    return ""
