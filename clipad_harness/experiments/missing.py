"""What a run lacks on this machine, before it starts: datasets and weights."""

from __future__ import annotations

from pathlib import Path

from clipad_core.clip.published import find_published
from clipad_core.errors import ClipadError
from clipad_harness.base.settings import LEARNED, Profile, read_learned
from clipad_harness.base.weights import locate, resolve
from clipad_harness.data.cards import read_card
from clipad_harness.data.dataset_check import miscounts
from clipad_harness.experiments.methods import TITLES
from clipad_harness.experiments.pipeline import open_data
from clipad_harness.site.stages import METHODS


def find_missing(root: Path, profile: Profile) -> list[str]:
    """Everything that a run of this profile lacks, in sentences: datasets and weights."""
    found = []
    wanted = {profile.dataset: "all methods"}
    for method in LEARNED:
        settings = read_learned(root, method)
        wanted.setdefault(settings.auxiliary_of(profile.dataset), f"training {TITLES[method]}")
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
    for method in METHODS:
        found += _missing_weights(root, profile, method)
    return list(dict.fromkeys(found))


def _missing_weights(root: Path, profile: Profile, method: str) -> list[str]:
    given = resolve(root, profile.weights_of(method))
    if given.weights.startswith("random:") or Path(given.weights).suffix:
        here = given.weights.startswith("random:") or (root / given.weights).is_file()
        return [] if here else [f"weights of {TITLES[method]}: {given.weights} does not exist"]
    if locate(find_published(given.backbone, given.weights)) is None:
        return [
            f"weights {given.backbone}, {given.weights} for {TITLES[method]}: not on this machine; "
            "open_clip fetches them at the first run, or see `clipad weights add`"
        ]
    return []
