"""What is trained and scored of a learned method: params.yaml as a flat list of variants.

Beside the fields of the method's config, a row of an ablation may say `at_test` (fields that change
after training, so that nothing is trained again), `trained_on` and `tested_on` (datasets),
`train_categories` (how many of the auxiliary dataset) and `aupro`. Values are written as published
and fitted to the profile's backbone. A row of `aupro` alone counts the maps of the main training in
another way, with all its seeds; every other row is trained as `ablation_changes` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import pandas as pd

from clipad_core.errors import ClipadError
from clipad_core.metrics.aupro import AuproDefinition
from clipad_harness.base.sections import mapping
from clipad_harness.base.settings import LearnedSettings, Profile
from clipad_harness.experiments.methods import LearnedConfig, find_presets
from clipad_harness.experiments.shards import MAIN, Shard, measured_on
from clipad_harness.experiments.switch_steps import Steps, own_steps, steps, walk_group
from clipad_harness.experiments.translation import fit, fit_all

# As `tested_on`: the dataset that the main variant is trained on, so that the two change places.
AUXILIARY = "auxiliary"
# Fields that no training reads.
AFTER_TRAINING = ("alpha", "sigma", "image_score", "top_pixels")


@dataclass(frozen=True)
class Training:
    """One training; variants that differ after it share it."""

    config: Any
    dataset: str
    categories: int | None


@dataclass(frozen=True)
class LearnedVariant:
    """One row of a table: a config, what it is trained and tested on, and how it is measured.

    Attributes:
        name: `main`, or `group/row`.
        config: what is trained; its seed is replaced by that of a shard.
        at_test: fields of the config that change after training.
        trained_on, tested_on: names of datasets.
        train_categories: how many categories of the auxiliary dataset, by name; None: all.
        seeds: of the trainings.
    """

    name: str
    config: Any
    at_test: Mapping[str, Any]
    trained_on: str
    tested_on: str
    train_categories: int | None
    seeds: tuple[int, ...]
    aupro: AuproDefinition
    fpr_limit: float

    def training(self, seed: int) -> Training:
        """What must be trained for it."""
        config = self.config.changed({"seed": seed})
        return Training(config, self.trained_on, self.train_categories)

    def tested_with(self, seed: int) -> Any:
        """The config that scores."""
        return self.config.changed({"seed": seed}).changed(dict(self.at_test))

    def __hash__(self) -> int:
        return hash((self.name, self.config))


LearnedShard = Shard[LearnedVariant]


def learned_variants(
    method: str, settings: LearnedSettings, profile: Profile
) -> list[LearnedVariant]:
    """All variants of a method's section, the main one first.

    Raises:
        ClipadError: an unknown preset, field or value, naming where it stands; a dataset that would
            be trained on and tested.
    """
    presets = find_presets(method)
    fitted = profile.weights_of(method).changes
    base = fit(presets(settings.preset), fitted).changed(fit_all(settings.changes, fitted))
    common = (settings, profile.dataset, fitted)
    found = [_variant(MAIN, base, {}, settings.seeds, *common)]
    for group, ablation in settings.ablations.items():
        for row, changes in ablation.items():
            try:
                config, own, seeds = base, {**settings.ablation_changes}, settings.ablation_seeds
                if isinstance(changes, str):
                    config = fit(presets(changes), fitted)
                    own = own if config.epochs else {}
                elif set(changes) == {"aupro"}:
                    own, seeds = dict(changes), settings.seeds
                else:
                    own |= changes
                name = f"{group}/{row}"
                found.append(_variant(name, config, own, seeds, *common))
            except ClipadError as error:
                raise ClipadError(
                    f"params.yaml, {method}.ablations.{group}.{row}: {error}"
                ) from error
    for preset in settings.walks:
        end = fit(presets(preset), fitted).changed(fit_all(settings.changes, fitted))
        for name, own in _walk(base, preset, steps(base, end), settings):
            found.append(
                _variant(name, base, own, settings.ablation_seeds, settings, profile.dataset, {})
            )
    for title, written in settings.own_walks.items():
        for name, own in _walk(base, title, own_steps(written), settings):
            found.append(_variant(name, base, own, settings.ablation_seeds, *common))
    return found


def _walk(
    base: LearnedConfig, title: str, taken: Steps, settings: LearnedSettings
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and changes of a walk's steps, shortened but for the fields that the walk is about."""
    names = [name for name in taken[-1][1] if name in settings.ablation_changes]
    common = {**settings.ablation_changes, **{name: getattr(base, name) for name in names}}
    for step, changes in taken:
        own = common | changes
        at_test = {name: own.pop(name) for name in AFTER_TRAINING if name in own}
        yield f"{walk_group(title)}/{step}", {**own, "at_test": at_test}


def _variant(
    name: str,
    config: LearnedConfig,
    row: Mapping[str, Any],
    seeds: tuple[int, ...],
    settings: LearnedSettings,
    dataset: str,
    fitted: Mapping[str, Any],
) -> LearnedVariant:
    changes = dict(row)
    aupro = changes.pop("aupro", settings.aupro)
    if aupro not in get_args(AuproDefinition):
        raise ClipadError(
            f"aupro: found {aupro!r}, expected one of {', '.join(get_args(AuproDefinition))}."
        )
    tested_on = str(changes.pop("tested_on", dataset))
    if tested_on == AUXILIARY:
        tested_on = settings.auxiliary_of(dataset)
    trained_on = str(changes.pop("trained_on", settings.auxiliary_of(tested_on)))
    categories = _categories(changes.pop("train_categories", None))
    at_test = mapping(changes.pop("at_test", {}), "at_test")
    config, at_test = config.changed(fit_all(changes, fitted)), fit_all(at_test, fitted)
    config.changed(at_test)  # a wrong field is found here, not after an hour of training
    if trained_on == tested_on and tested_on not in settings.allow_tested:
        raise ClipadError(
            f"auxiliary: found {trained_on}, which is also tested; expected another dataset, since a "
            "result on training images is no zero-shot result. To have it all the same, add its name "
            "to allow_tested; the report will say so."
        )
    return LearnedVariant(
        name=name,
        config=config,
        at_test=at_test,
        trained_on=trained_on,
        tested_on=tested_on,
        train_categories=categories,
        seeds=seeds,
        aupro=aupro,
        fpr_limit=settings.fpr_limit,
    )


def learned_plan(
    categories: Mapping[str, Sequence[str]],
    among: Sequence[LearnedVariant],
    ablation_categories: int | None,
) -> list[LearnedShard]:
    """All shards, category by category, so that one category's features serve all its variants.

    Args:
        categories: those of every dataset that is tested.
        ablation_categories: how many of them every variant but the main one is measured on.
    """
    return [
        Shard(variant, category, 0, seed)
        for dataset, names in categories.items()
        for category in names
        for variant in among
        if variant.tested_on == dataset
        and category in measured_on(variant, names, ablation_categories)
        for seed in variant.seeds
    ]


def trainings(among: Sequence[LearnedVariant]) -> list[Training]:
    """All trainings, each once."""
    return list(dict.fromkeys(v.training(seed) for v in among for seed in v.seeds))


def _categories(value: Any) -> int | None:
    """`train_categories`: on how many of the auxiliary dataset's categories is trained; None: all."""
    if value is not None and (type(value) is not int or value < 1):
        raise ClipadError(
            f"train_categories: found {value!r}, expected a whole number from 1, or null for all."
        )
    return value


def training_rows(index: pd.DataFrame, training: Training) -> pd.DataFrame:
    """The images that are trained on: the test split of the auxiliary dataset, as both papers do."""
    names = sorted(set(index["category"]))[: training.categories]
    return index[(index["split"] == "test") & index["category"].isin(names)]
