"""What a run lacks on this machine, before it starts: datasets and weights."""

from __future__ import annotations

from pathlib import Path

from clipad_core.clip.published import find_published
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_harness.base.settings import Profile, read_method
from clipad_harness.base.weights import locate, resolve
from clipad_harness.data.cards import read_card
from clipad_harness.data.dataset_check import miscounts
from clipad_harness.data.stages import open_data


def find_missing(root: Path, profile: Profile) -> list[str]:
    """Everything that a run of this profile lacks, in sentences: datasets and weights."""
    sentences = []
    reasons = {profile.dataset: "all methods"}
    for name in profile.weights:
        method = find_method(name)
        if method.training is not None:
            auxiliary = read_method(root, name).auxiliary_of(profile.dataset)
            reasons.setdefault(auxiliary, f"training {method.title}")
    for name, reason in reasons.items():
        chosen = profile if name == profile.dataset else profile.on(name)
        try:
            _, index = open_data(root, chosen)
        except ClipadError as error:
            sentences.append(f"{name}, for {reason}: {error}")
            continue
        problems = miscounts(index, read_card(name)) if not chosen.categories else []
        if problems:
            sentences.append(
                f"{name}, a part of it: {len(problems)} differences from its card, the first: "
                f"{problems[0]}. It runs, and the report says so; see `clipad data check {name}`"
            )
    for name in profile.weights:
        sentences += _missing_weights(root, profile, name)
    return list(dict.fromkeys(sentences))


def _missing_weights(root: Path, profile: Profile, name: str) -> list[str]:
    weights, title = resolve(root, profile.weights[name]), find_method(name).title
    if weights.weights.startswith("random:") or Path(weights.weights).suffix:
        exists = weights.weights.startswith("random:") or (root / weights.weights).is_file()
        return [] if exists else [f"weights of {title}: {weights.weights} does not exist"]
    if locate(find_published(weights.backbone, weights.weights)) is None:
        return [
            f"weights {weights.backbone}, {weights.weights} for {title}: not on this machine; "
            "open_clip fetches them at the first run, or see `clipad weights add`"
        ]
    return []
