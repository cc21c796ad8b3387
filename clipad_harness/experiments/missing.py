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
    found = []
    wanted = {profile.dataset: "all methods"}
    for name in profile.weights:
        method = find_method(name)
        if method.training is not None:
            auxiliary = read_method(root, name).auxiliary_of(profile.dataset)
            wanted.setdefault(auxiliary, f"training {method.title}")
    for name, why in wanted.items():
        chosen = profile if name == profile.dataset else profile.on(name)
        try:
            _, index = open_data(root, chosen)
        except ClipadError as error:
            found.append(f"{name}, for {why}: {error}")
            continue
        problems = miscounts(index, read_card(name)) if not chosen.categories else []
        if problems:
            found.append(
                f"{name}, a part of it: {len(problems)} differences from its card, the first: "
                f"{problems[0]}. It runs, and the report says so; see `clipad data check {name}`"
            )
    for name in profile.weights:
        found += _missing_weights(root, profile, name)
    return list(dict.fromkeys(found))


def _missing_weights(root: Path, profile: Profile, name: str) -> list[str]:
    given, title = resolve(root, profile.weights[name]), find_method(name).title
    if given.weights.startswith("random:") or Path(given.weights).suffix:
        here = given.weights.startswith("random:") or (root / given.weights).is_file()
        return [] if here else [f"weights of {title}: {given.weights} does not exist"]
    if locate(find_published(given.backbone, given.weights)) is None:
        return [
            f"weights {given.backbone}, {given.weights} for {title}: not on this machine; "
            "open_clip fetches them at the first run, or see `clipad weights add`"
        ]
    return []
