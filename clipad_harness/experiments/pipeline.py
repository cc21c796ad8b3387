"""A method's run, its stages `train` and `measure`, and the tables that they write."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from clipad_core.errors import ClipadError
from clipad_core.metrics import METRIC_LABELS
from clipad_harness.base.files import check_place, write_text
from clipad_harness.base.parameters import OF_PROFILE, check_names, read_parameterised
from clipad_harness.base.run_record import CACHE
from clipad_harness.base.settings import (
    Cluster,
    MethodSettings,
    Profile,
    read_engine,
    read_feature_disk,
    read_feature_memory,
    read_method,
    read_methods,
    read_profile,
)
from clipad_harness.data.stages import open_data
from clipad_harness.experiments.left_out import (
    MethodLeftOut,
    fewest_training_images,
    missing_datasets,
    with_datasets,
    with_references,
    with_test_images,
    with_words,
)

if TYPE_CHECKING:
    from clipad_core.methods.method import Method
    from clipad_harness.data.dataset_images import DatasetImages
    from clipad_harness.experiments.features import Asked, Encodings
    from clipad_harness.experiments.scorer import Scorer
    from clipad_harness.experiments.trainer import Trainer
    from clipad_harness.experiments.variants import Shard, TrainingJob, Variant

# torch and open_clip take seconds to import, so every stage imports its own.
TRAINED = Path("data/trained")
# What all pages read: a folder a method, so that a stage can depend on all of them.
RESULTS = Path("reports/results")
RESULT_DIGITS, CURVE_DIGITS = "%.6f", "%.6g"
# Columns that may look like numbers and are none: BTAD's category 01 is not 1.
_TEXTS = {"category": str, "key": str}


@dataclass(frozen=True)
class Run:
    """One method of one profile: everything its stages and its notebook need.

    Attributes:
        name: of the method's room.
        variants: the main one first.
        datasets: every dataset that some variant is trained or tested on, by name.
        left_out: what params.yaml asks for and this machine or the dataset cannot give, a sentence each.
    """

    root: Path
    name: str
    profile: Profile
    settings: MethodSettings
    variants: list[Variant]
    datasets: Mapping[str, DatasetImages]
    left_out: tuple[str, ...] = ()

    @property
    def method(self) -> Method:
        """What the core knows of it."""
        from clipad_core.methods import find_method

        return find_method(self.name)

    @property
    def tested(self) -> DatasetImages:
        """The profile's own dataset."""
        return self.datasets[self.profile.dataset]

    @property
    def index(self) -> pd.DataFrame:
        """The index table of the profile's own dataset."""
        return self.tested.index

    @property
    def data(self) -> Path:
        """The folder of the profile's own dataset."""
        return self.tested.data

    @property
    def categories(self) -> list[str]:
        """The categories that are tested."""
        return self.tested.categories

    @property
    def most_references(self) -> int:
        """How many normal images every tested category has to refer to."""
        return fewest_training_images(self.index)[1]

    @property
    def as_in_params(self) -> bool:
        """Whether its settings are those of params.yaml, which the stages have trained and measured."""
        of_params = read_profile(self.root), read_method(self.root, self.name)
        return (self.profile, self.settings) == of_params

    @property
    def shards(self) -> list[Shard]:
        """Everything that is measured, in the order in which it is."""
        from clipad_harness.experiments.variants import plan_shards

        tested = dict.fromkeys(variant.tested_on for variant in self.variants)
        categories = {dataset: self.datasets[dataset].categories for dataset in tested}
        limit = self.profile.ablation_categories
        return plan_shards(self.method, categories, self.variants, limit)

    @cached_property
    def _tested_with(self) -> dict[tuple[Variant, int], Asked]:
        """What each variant reads of a test image, by its number of references."""
        from clipad_harness.experiments.features import Asked

        configs = {variant: variant.tested_with(variant.seeds[0]) for variant in self.variants}
        return {
            (variant, k_shot): Asked(config, self.method.recipe(config, k_shot))
            for variant, config in configs.items()
            for k_shot in variant.k_shots
        }

    def _asked(self) -> dict[Path, list[Asked]]:
        """All that is read of test images, also of those that are trained on."""
        from clipad_harness.experiments.variants import trainings

        asked: dict[tuple[str, str], dict[Asked, None]] = defaultdict(dict)
        for shard in self.shards:
            own = self._tested_with[shard.variant, shard.k_shot]
            asked[shard.variant.tested_on, shard.category][own] = None
        for job in trainings(self.variants):
            for place, own in self._trained_with(job):
                asked[place][own] = None
        return {
            path: reads
            for (dataset, category), own in asked.items()
            for reads in [list(own)]
            for path in self.datasets[dataset].paths(category, "test")
        }

    def _trained_with(self, job: TrainingJob) -> list[tuple[tuple[str, str], Asked]]:
        """What a training reads of its images, by dataset and category; nothing where all are augmented."""
        from clipad_harness.experiments.augment import is_new_in_every_epoch
        from clipad_harness.experiments.features import Asked
        from clipad_harness.experiments.variants import training_rows

        training = self.method.training
        if training is None or is_new_in_every_epoch(training.augmentation(job.config)):
            return []
        rows = training_rows(self.datasets[job.dataset].index, job)
        own = Asked(job.config, self.method.training_recipe(job.config), len(rows))
        return [((job.dataset, str(name)), own) for name in dict.fromkeys(rows["category"])]

    def encodings(self, siblings: Sequence[Encodings] = ()) -> Encodings:
        """Backbones and features, encoded once for all variants.

        Args:
            siblings: those of other methods, whose images are encoded by the way.
        """
        from clipad_harness.base.weights import resolve
        from clipad_harness.experiments.features import Encodings

        main = self.variants[0]
        recipes = [asked.recipe for asked in self._tested_with.values()]
        return Encodings(
            self.name,
            self.profile.name,
            resolve(self.root, self.profile.weights[self.name]),
            main.tested_with(main.seeds[0]),
            recipes,
            self._asked(),
            self.root / CACHE,
            read_feature_memory(self.root),
            read_feature_disk(self.root),
            self.profile.device,
            siblings,
        )

    def trainer(self, siblings: Sequence[Encodings] = ()) -> Trainer:
        """What trains, or reads what is trained; see `encodings`."""
        return self._trainer(self.encodings(siblings))

    def _trainer(self, encodings: Encodings) -> Trainer:
        from clipad_harness.experiments.trainer import Trainer

        finished = self.root / TRAINED / self.name
        # What stage `train` has made is a function of params.yaml, so that nothing is added to it.
        own = finished if self.as_in_params else self.root / CACHE / "trained" / self.name
        return Trainer(self.name, self.datasets, encodings, own, finished)

    def scorer(self, siblings: Sequence[Encodings] = ()) -> Scorer:
        """A scorer that shares its encodings between all variants of this run; see `encodings`."""
        from clipad_harness.experiments.scorer import Scorer

        encodings = self.encodings(siblings)
        trainer = None if self.method.training is None else self._trainer(encodings)
        return Scorer(
            self.name,
            self.profile,
            self.datasets,
            encodings,
            trainer,
            self.variants,
            self.left_out,
        )


def open_run(
    root: Path,
    name: str,
    parameters: Mapping[str, Any] | None = None,
    opened: dict[str, DatasetImages] | None = None,
) -> Run:
    """Read the settings of a method and index its datasets.

    Args:
        root: the project's folder.
        name: of the method.
        parameters: settings in place of those of params.yaml, as `read_parameterised` takes them.
        opened: datasets of the same profile that are indexed already, by name; those that are opened now
            are added.

    Raises:
        MethodLeftOut: the dataset that the method is trained on is missing.
        ClipadError: wrong settings, the tested dataset is missing, or one is empty or damaged.
    """
    from clipad_core.methods import find_method
    from clipad_harness.data.cards import read_card
    from clipad_harness.data.dataset_images import DatasetImages
    from clipad_harness.experiments.variants import datasets_of, read_variants

    chosen, settings = read_parameterised(root, name, parameters or {})
    if name not in chosen.weights:
        raise ClipadError(
            f"method: found {name!r}, expected one of {', '.join(chosen.weights)}, the methods of "
            "params.yaml."
        )
    variants = read_variants(name, settings, chosen)
    variants, rows = with_datasets(name, variants, missing_datasets(root, chosen, variants))
    opened = {} if opened is None else opened
    dataset_names = datasets_of(variants, chosen.dataset)
    for dataset_name in dataset_names:
        if dataset_name not in opened:
            own = dataset_name == chosen.dataset
            data, index = open_data(root, chosen if own else chosen.on(dataset_name))
            opened[dataset_name] = DatasetImages(index, data, read_card(dataset_name).phrases)
    datasets = {dataset_name: opened[dataset_name] for dataset_name in dataset_names}
    indexes = {dataset: images.index for dataset, images in datasets.items()}
    variants, shots = with_references(name, variants, indexes)
    variants, scores = with_test_images(name, find_method(name), variants, indexes)
    variants, words = with_words(find_method(name), variants, datasets, chosen.ablation_categories)
    return Run(root, name, chosen, settings, variants, datasets, (*shots, *scores, *words, *rows))


def open_measured(root: Path, parameters: Mapping[str, Any] | None = None) -> list[Run]:
    """Every method that has results: what pages about all methods show.

    Args:
        root: the project's folder.
        parameters: profile, dataset and categories in place of those of params.yaml.

    Raises:
        ClipadError: see `open_run`; another parameter; no method has any results.
    """
    check_names(parameters or (), OF_PROFILE)
    runs, opened = [], dict[str, "DatasetImages"]()
    for name in measured_methods(root):
        try:
            runs.append(open_run(root, name, parameters, opened))
        except MethodLeftOut as left_out:
            reason = left_out
    if not runs and measured_methods(root):
        raise reason
    if not runs:
        first = read_methods(root)[0]
        raise ClipadError(
            f"reports: found results of no method; run `./repro clipad measure {first}` first."
        )
    return runs


def measured_methods(root: Path) -> list[str]:
    """The methods of params.yaml that have results; the table of one that is left out has no row."""
    tables = {name: results_path(root, name) for name in read_methods(root)}
    return [
        name for name, path in tables.items() if path.is_file() and len(pd.read_csv(path, nrows=1))
    ]


def train(root: Path, name: str) -> Path:
    """Stage `train`: every distinct training of a method, and its loss curves.

    Of a method that learns nothing, or that is left out, the table of curves has no row.
    """
    from clipad_harness.experiments.trainer import CURVE_COLUMNS, remove_others, train_all

    curves, run = pd.DataFrame(columns=CURVE_COLUMNS), _open_or_tell(root, name)
    if run is not None and run.method.training is not None:
        _warm_up(root)
        trainer = run.trainer(siblings_of(run))
        curves = train_all(trainer, run.variants, _engine(run))
        remove_others(trainer, run.variants)
    return write_text(curves_path(root, name), _csv(curves, CURVE_DIGITS))


def measure(root: Path, name: str) -> Path:
    """Stage `measure`: every variant, category, number of references and seed into one tidy table.

    Of a method that is left out no table has a row.
    """
    _warm_up(root)
    from clipad_harness.experiments.results import COLUMNS, REFERENCE_COLUMNS

    results, references = pd.DataFrame(columns=COLUMNS), pd.DataFrame(columns=REFERENCE_COLUMNS)
    if run := _open_or_tell(root, name):
        results, references = _measure_all(run, run.scorer(siblings_of(run)))
    own = results[results["dataset"] == run.profile.dataset] if run else results
    folder = root / RESULTS / name
    write_text(folder / "references.csv", _csv(references))
    write_text(by_category_path(root, name), _csv(by_category(own)))
    return write_text(results_path(root, name), results_csv(results))


def siblings_of(run: Run) -> list[Encodings]:
    """Those of the run's other methods, as far as they can be run, for what one pass can encode for all."""
    siblings, opened = [], dict(run.datasets)
    for name in read_methods(run.root):
        if name != run.name:
            with suppress(ClipadError):  # it is told by the stage of that method
                siblings.append(open_run(run.root, name, opened=opened).encodings())
    return siblings


def _engine(run: Run) -> int | Cluster:
    """What does the shards and trainings of a run."""
    from clipad_core.clip.device import find_device

    device = run.profile.device
    return read_engine(run.root, device, find_device(device).type)


def _warm_up(root: Path) -> None:
    """Have the processes of a stage start while its run is opened and checked."""
    from clipad_harness.base.processes import warm_up

    if not isinstance(engine := read_engine(root), Cluster) and engine > 1:
        warm_up()


def _open_or_tell(root: Path, name: str) -> Run | None:
    """The run of a stage; None where the method is left out, which is said and fails nothing."""
    try:
        return open_run(root, name)
    except MethodLeftOut as reason:
        print(f"clipad: {reason}", file=sys.stderr)
        return None


def _measure_all(run: Run, scorer: Scorer) -> tuple[pd.DataFrame, pd.DataFrame]:
    from clipad_harness.experiments.results import measure_all

    return measure_all(scorer, run.shards, _engine(run))


def results_of(run: Run, scorer: Scorer) -> pd.DataFrame:
    """The results table of a run: read where the stages have made it, else made now.

    What is made now is kept in `.cache` alone, piece by piece, so that nothing is measured twice.

    Args:
        run: with settings of params.yaml, or others.
        scorer: of the run.

    Raises:
        ClipadError: the stages have not run yet, or what training and measuring find.
    """
    if run.as_in_params:
        return read_results(run.root, run.name)
    train_missing(run, scorer, run.variants)
    results, _ = _measure_all(run, scorer)
    return _as_read(results, RESULT_DIGITS)


def curves_of(run: Run, scorer: Scorer) -> pd.DataFrame:
    """The loss curves of a run: read where the stages have made them, else made now.

    Args:
        run: of a method that learns.
        scorer: of the run.

    Raises:
        ClipadError: as for `results_of`.
    """
    if not run.as_in_params:
        return _as_read(train_missing(run, scorer, run.variants), CURVE_DIGITS)
    from clipad_harness.experiments.trainer import CURVE_COLUMNS

    path = curves_path(run.root, run.name)
    return _read_table(run.root, path, CURVE_COLUMNS, f"./repro clipad train {run.name}")


def train_missing(run: Run, scorer: Scorer, variants: Sequence[Variant]) -> pd.DataFrame:
    """Train what some variants of a run need and nobody has trained; return their loss curves."""
    import torch

    from clipad_harness.experiments.trainer import train_all

    if scorer.trainer is None or run.as_in_params:
        return pd.DataFrame()
    with torch.enable_grad():  # a notebook may have switched gradients off
        return train_all(scorer.trainer, variants, _engine(run))


def _as_read(table: pd.DataFrame, digits: str) -> pd.DataFrame:
    """A table with the digits and types that it has when it is read from its file."""
    return pd.read_csv(StringIO(_csv(table, digits)), dtype=_TEXTS)


def results_csv(results: pd.DataFrame) -> str:
    """The text of `results.csv`: the same results give the same bytes."""
    return _csv(results, RESULT_DIGITS)


def _csv(table: pd.DataFrame, floats: str | None = None) -> str:
    return table.to_csv(index=False, lineterminator="\n", float_format=floats)


def by_category(results: pd.DataFrame) -> pd.DataFrame:
    """Main variant, per cent, a row a category and number of shots."""
    main = results[results["variant"] == "main"]
    table = main.pivot_table(
        index=["category", "k_shot"], columns="metric", values="value", aggfunc="mean"
    )
    table = table.reindex(columns=sorted(METRIC_LABELS)).astype(float)
    return (100 * table).round(2).reset_index()


def by_category_path(root: Path, name: str) -> Path:
    """Main variant by category, see `by_category`."""
    return root / RESULTS / name / "by_category.csv"


def results_path(root: Path, name: str) -> Path:
    """The results table of a method."""
    return root / RESULTS / name / "results.csv"


def curves_path(root: Path, name: str) -> Path:
    """The loss curves of a method's trainings: `variant, seed, epoch, part, value`."""
    return root / RESULTS / name / "training.csv"


def read_results(root: Path, name: str) -> pd.DataFrame:
    """The results table of the last measuring."""
    from clipad_harness.experiments.results import COLUMNS

    return _read_table(root, results_path(root, name), COLUMNS, f"./repro clipad measure {name}")


def _read_table(root: Path, path: Path, columns: Sequence[str], command: str) -> pd.DataFrame:
    """A table that a stage has written whole: its columns, numbers as values, a last line that ends."""
    place = path.relative_to(root)
    check_place(path)
    if not path.is_file():
        raise ClipadError(f"{place}: does not exist yet; run `{command}` first.")
    try:
        text = path.read_text(encoding="utf-8")
        table = pd.read_csv(StringIO(text), dtype=_TEXTS)
    except ValueError:
        text, table = "", pd.DataFrame()
    is_whole = text.endswith("\n") and list(table.columns) == list(columns)
    if not (is_whole and (table.empty or pd.api.types.is_numeric_dtype(table["value"]))):
        raise ClipadError(
            f"{place}: found no whole table of {', '.join(columns)}; delete it and run `{command}`."
        )
    return table
