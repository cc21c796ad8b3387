"""What is trained, scored and measured: params.yaml's presets, changes and ablations as a flat list.

A variant is a full config under a name ("main" or "group/row"). Beside the fields of the config a row
of an ablation may say `aupro` and `refine` (what its maps end with, see `clipad_core.refinement`); for a
method that learns also `at_test` (fields that change after training, though a training would read them),
`trained_on` and `tested_on` (datasets) and `train_categories` (how many of the auxiliary dataset). Values
are written as published and fitted to the profile's backbone.

Every row but the main one is trained as `ablation_changes` says; one of `aupro` alone counts the maps of
the main training in another way, with all its seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import pandas as pd

from clipad_core.config import fields_read
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_core.methods.method import Method
from clipad_core.metrics.aupro import AuproDefinition
from clipad_core.refinement import NO_REFINEMENT, Refinement, read_refinement
from clipad_harness.base.sections import mapping
from clipad_harness.base.settings import GROUPS, MethodSettings, Profile
from clipad_harness.experiments.shards import MAIN, measured_on
from clipad_harness.experiments.switch_steps import Steps, own_steps, steps, walk_group
from clipad_harness.experiments.translation import fit, fit_all

# Before the name of a group of `questions`, among those of ablations and walks.
_QUESTION = "question: "
# As `tested_on`: the dataset that the main variant is trained on, so that the two change places.
AUXILIARY = "auxiliary"


@dataclass(frozen=True)
class TrainingJob:
    """One training; variants that differ after it share it."""

    config: Any
    dataset: str
    categories: int | None

    def __str__(self) -> str:
        """What messages call it."""
        return f"the training of {type(self.config).__name__} on {self.dataset}, seed {self.config.seed}"


@dataclass(frozen=True)
class Variant:
    """One row of a table: a config, what it is trained and tested on, and how it is measured.

    Attributes:
        name: `main`, or `group/row`.
        config: what is trained; of a method that learns its seed is replaced by that of a shard.
        at_test: fields of the config that change after training.
        tested_on: name of a dataset.
        trained_on: likewise; None where nothing is learned.
        refine: what its maps end with; None: they stay as the method gives them.
        train_categories: how many categories of the auxiliary dataset, by name; None: all.
        k_shots: numbers of references.
        seeds: of references and trainings.
        by_image: whether pages compare it image by image, so that what they need of each is kept.
    """

    name: str
    config: Any
    tested_on: str
    k_shots: tuple[int, ...]
    seeds: tuple[int, ...]
    aupro: AuproDefinition
    fpr_limit: float
    at_test: Mapping[str, Any] = field(default_factory=dict)
    trained_on: str | None = None
    train_categories: int | None = None
    refine: Refinement | None = None
    by_image: bool = False

    @property
    def reads_references(self) -> bool:
        """Whether some of its numbers of references are above 0."""
        return any(self.k_shots)

    def training(self, seed: int) -> TrainingJob | None:
        """What must be trained for it; None where nothing is learned."""
        if self.trained_on is None:
            return None
        config = self.config.changed({"seed": seed})
        return TrainingJob(config, self.trained_on, self.train_categories)

    def tested_with(self, seed: int) -> Any:
        """The config that scores."""
        if self.trained_on is None:
            return self.config
        return self.config.changed({"seed": seed}).changed(dict(self.at_test))

    def drawn(self, k_shot: int) -> tuple[int, ...]:
        """The seeds that something is drawn with: one where there is nothing to draw."""
        return self.seeds if k_shot or self.trained_on is not None else self.seeds[:1]

    def __hash__(self) -> int:
        return hash((self.name, self.config))


@dataclass(frozen=True)
class Shard:
    """The unit of work: one category of one variant, with so many references and one seed."""

    variant: Variant
    category: str
    k_shot: int
    seed: int

    def __str__(self) -> str:
        """What messages call it."""
        name, tested = self.variant.name, self.variant.tested_on
        return f"shard {name}, {tested}/{self.category}, {self.k_shot} shots, seed {self.seed}"

    @property
    def config(self) -> Any:
        """What its images are scored with."""
        return self.variant.tested_with(self.seed)

    @property
    def training(self) -> TrainingJob | None:
        """What it needs trained, if anything."""
        return self.variant.training(self.seed)


def read_variants(name: str, settings: MethodSettings, profile: Profile) -> list[Variant]:
    """All variants of a method's section, the main one first.

    Raises:
        ClipadError: an unknown preset, field or value, naming where it stands; a dataset that would
            be trained on and tested.
    """
    method, fitted = find_method(name), profile.weights[name].changes
    base = fit(method.preset(settings.preset), fitted).changed(fit_all(settings.changes, fitted))
    reader = _Reader(method, settings, profile.dataset, fitted, base)
    main = reader.variant(MAIN, base, {}, settings.k_shots, settings.seeds)
    variants = [replace(main, by_image=True)]
    for kind in GROUPS:
        asked = kind == "questions"
        for group, ablation in getattr(settings, kind).items():
            title = question_group(group) if asked else group
            for row, changes in ablation.rows.items():
                try:
                    made = reader.row(f"{title}/{row}", changes, ablation.k_shots)
                except ClipadError as error:
                    where = f"params.yaml, {name}.{kind}.{group}.{row}"
                    raise ClipadError(f"{where}: {error}") from error
                variants.append(replace(made, by_image=asked))
    for preset in settings.walks:
        end = fit(method.preset(preset), fitted)
        if method.training is not None:  # what a run trains with is no difference between two codes
            end = end.changed(fit_all(settings.changes, fitted))
        fitted_already = replace(reader, fitted={})
        variants += fitted_already.steps(preset, steps(base, end))
    for title, written in settings.own_walks.items():
        variants += reader.steps(title, own_steps(written))
    return variants


def question_group(name: str) -> str:
    """What results call a group of `questions`."""
    return f"{_QUESTION}{name}"


@dataclass(frozen=True)
class _Reader:
    """Makes variants of the rows of one section.

    Attributes:
        dataset: that the profile tests.
        fitted: what stands for published values with the profile's backbone.
        base: config of the main variant.
    """

    method: Method
    settings: MethodSettings
    dataset: str
    fitted: Mapping[str, Any]
    base: Any

    def row(self, name: str, changes: Mapping[str, Any] | str, k_shots: tuple[int, ...]) -> Variant:
        """One row of an ablation: changed fields, or the name of a preset."""
        common, seeds = dict(self.settings.ablation_changes), self.settings.ablation_seeds
        if isinstance(changes, str):
            preset = fit(self.method.preset(changes), self.fitted)
            untrained = self.method.training is not None and not preset.epochs
            return self.variant(name, preset, {} if untrained else common, k_shots, seeds)
        if self.method.training is not None and set(changes) == {"aupro"}:
            return self.variant(name, self.base, changes, k_shots, self.settings.seeds)
        return self.variant(name, self.base, common | dict(changes), k_shots, seeds)

    def steps(self, title: str, taken: Steps) -> Iterator[Variant]:
        """The steps of a walk, trained shortly but for the fields that the walk is about."""
        settings, shortened = self.settings, self.settings.ablation_changes
        own = {name: getattr(self.base, name) for name in taken[-1][1] if name in shortened}
        for step, changes in taken:
            name, fields = f"{walk_group(title)}/{step}", {**shortened, **own, **changes}
            yield self.variant(
                name, self.base, fields, settings.walk_shots, settings.ablation_seeds
            )

    def variant(
        self,
        name: str,
        config: Any,
        row: Mapping[str, Any],
        k_shots: tuple[int, ...],
        seeds: tuple[int, ...],
    ) -> Variant:
        """A config with the fields of a row changed, and where and how it is measured."""
        changes = dict(row)
        aupro = changes.pop("aupro", self.settings.aupro)
        if aupro not in get_args(AuproDefinition):
            raise ClipadError(
                f"aupro: found {aupro!r}, expected one of {', '.join(get_args(AuproDefinition))}."
            )
        refine = read_refinement(changes.pop("refine", NO_REFINEMENT))
        fpr_limit = self.settings.fpr_limit
        if self.method.training is None:
            config = config.changed(fit_all(changes, self.fitted))
            measured = (self.dataset, k_shots, seeds, aupro, fpr_limit)
            return Variant(name, config, *measured, refine=refine)
        tested_on = str(changes.pop("tested_on", self.dataset))
        if tested_on == AUXILIARY:
            tested_on = self.settings.auxiliary_of(self.dataset)
        trained_on = str(changes.pop("trained_on", self.settings.auxiliary_of(tested_on)))
        if trained_on == tested_on and tested_on not in self.settings.allow_tested:
            raise ClipadError(
                f"auxiliary: found {trained_on}, which is also tested; expected another dataset, since "
                "a result on training images is no zero-shot result. To have it all the same, add its "
                "name to allow_tested; the report will say so."
            )
        categories = _categories(changes.pop("train_categories", None))
        at_test = fit_all(mapping(changes.pop("at_test", {}), "at_test"), self.fitted)
        config, late = self._apart(config.changed(fit_all(changes, self.fitted)))
        at_test = late | at_test
        config.changed(at_test)  # a wrong field is found here, not after an hour of training
        return Variant(
            name=name,
            config=config,
            tested_on=tested_on,
            k_shots=k_shots,
            seeds=seeds,
            aupro=aupro,
            fpr_limit=fpr_limit,
            at_test=at_test,
            trained_on=trained_on,
            train_categories=categories,
            refine=refine,
        )

    def _apart(self, config: Any) -> tuple[Any, dict[str, Any]]:
        """What is trained of a config, and what changes after it.

        What no training reads is trained as the main variant has it, so that rows which differ in that
        alone share one training; where it does not go with the rest, the row has one of its own.
        """
        kind = type(config)
        untrained = (*fields_read(kind, "after training"), *fields_read(kind, "references"))
        own = {name: getattr(self.base, name) for name in untrained}
        late = {n: getattr(config, n) for n in untrained if getattr(config, n) != own[n]}
        with suppress(ClipadError):
            return config.changed(own), late
        return config, {}


def _categories(value: Any) -> int | None:
    """`train_categories`: on how many of the auxiliary dataset's categories is trained; None: all."""
    if value is not None and (type(value) is not int or value < 1):
        raise ClipadError(
            f"train_categories: found {value!r}, expected a whole number from 1, or null for all."
        )
    return value


def datasets_of(variants: Sequence[Variant], tested: str) -> list[str]:
    """Every dataset that some variant is trained or tested on, the profile's own first.

    Args:
        tested: the profile's own.
    """
    used = [name for v in variants for name in (v.trained_on, v.tested_on) if name is not None]
    return list(dict.fromkeys([tested, *used]))


def plan_shards(
    method: Method,
    categories: Mapping[str, Sequence[str]],
    variants: Sequence[Variant],
    ablation_categories: int | None,
) -> list[Shard]:
    """All shards, category by category, so that one category's features serve all its variants.

    Args:
        categories: those of every dataset that is tested.
        ablation_categories: how many of them every variant but the main one is measured on.
    """
    # One that is kept image by image comes before one of equal key that is not: it is scored once.
    together = sorted(variants, key=lambda one: (encoded_alike(method, one), not one.by_image))
    return [
        Shard(variant, category, k_shot, seed)
        for dataset, names in categories.items()
        for category in names
        for variant in together
        if variant.tested_on == dataset
        and category in measured_on(variant.name, names, ablation_categories)
        for k_shot in variant.k_shots
        for seed in variant.drawn(k_shot)
    ]


def encoded_alike(method: Method, variant: Variant) -> tuple[str, ...]:
    """Equal for variants that read the same encoded views; neighbours in a plan where they are."""
    config = variant.tested_with(variant.seeds[0])
    weights = str(getattr(config, method.weights)) if method.weights else ""
    return weights, repr(method.recipe(config, 0).cut())


def trainings(variants: Sequence[Variant]) -> list[TrainingJob]:
    """All trainings, each once."""
    jobs = [variant.training(seed) for variant in variants for seed in variant.seeds]
    return list(dict.fromkeys(job for job in jobs if job is not None))


def training_rows(index: pd.DataFrame, job: TrainingJob) -> pd.DataFrame:
    """The images that are trained on: the test split of the auxiliary dataset, as both papers do."""
    names = sorted(set(index["category"]))[: job.categories]
    return index[(index["split"] == "test") & index["category"].isin(names)]
