"""The stages of a method that learns as functions, and the run they and its notebook share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from clipad_core.errors import ClipadError
from clipad_harness.base.files import write_text
from clipad_harness.base.settings import (
    LEARNED,
    LearnedSettings,
    Profile,
    read_feature_memory,
    read_learned,
    read_profile,
    read_workers,
)
from clipad_harness.experiments.pipeline import CACHE, by_category, open_data

if TYPE_CHECKING:
    from clipad_harness.experiments.learned_scorer import LearnedScorer
    from clipad_harness.experiments.learned_variants import LearnedVariant
    from clipad_harness.experiments.shards import DatasetImages
    from clipad_harness.experiments.trainer import Trainer

TRAINED = Path("data/trained")
REPORTS = Path("reports")


@dataclass(frozen=True)
class LearnedRun:
    """One method of one profile: everything its stages and its notebook need.

    Attributes:
        datasets: every dataset that some variant is trained or tested on, by name.
    """

    root: Path
    method: str
    profile: Profile
    settings: LearnedSettings
    variants: list[LearnedVariant]
    datasets: Mapping[str, DatasetImages]

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
        return list(dict.fromkeys(self.index["category"]))

    def trainer(self) -> Trainer:
        """What trains, or reads what is trained."""
        from clipad_harness.base.weights import resolve
        from clipad_harness.experiments.trainer import Trainer

        return Trainer(
            self.method,
            resolve(self.root, self.profile.weights_of(self.method)),
            self.datasets,
            self.root / TRAINED / self.method,
            self.root / CACHE,
            read_feature_memory(self.root),
            self.variants,
        )

    def scorer(self) -> LearnedScorer:
        """A scorer that shares its encodings between all variants of this run."""
        from clipad_harness.experiments.learned_scorer import LearnedScorer

        return LearnedScorer(self.profile, self.tested, self.trainer(), self.variants)


def open_learned(root: Path, method: str, profile: str = "", dataset: str = "") -> LearnedRun:
    """Read the settings and index the datasets of a method that learns.

    Raises:
        ClipadError: wrong settings, or a dataset that is missing, empty or damaged.
    """
    from clipad_harness.experiments.learned_variants import learned_variants
    from clipad_harness.experiments.shards import DatasetImages

    chosen = read_profile(root, profile, dataset)
    settings = read_learned(root, method)
    among = learned_variants(method, settings, chosen)
    names = dict.fromkeys(
        [chosen.dataset, *(n for v in among for n in (v.trained_on, v.tested_on))]
    )
    datasets = {}
    for name in names:
        one = chosen if name == chosen.dataset else chosen.on(name)
        data, index = open_data(root, one)
        datasets[name] = DatasetImages(index, data)
    return LearnedRun(root, method, chosen, settings, among, datasets)


def open_measured(root: Path, profile: str = "", dataset: str = "") -> list[LearnedRun]:
    """Every method that learns and has results: what pages about all methods show.

    Raises:
        ClipadError: see `open_learned`.
    """
    return [
        open_learned(root, name, profile, dataset) for name in LEARNED if is_measured(root, name)
    ]


def train(root: Path, method: str) -> Path:
    """Stage `train`: every distinct training of a method, and its loss curves."""
    from clipad_harness.experiments.trainer import train_all

    run = open_learned(root, method)
    curves = train_all(run.trainer(), run.variants, read_workers(root))
    text = curves.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    return write_text(root / REPORTS / method / "training.csv", text)


def measure(root: Path, method: str) -> Path:
    """Stage `measure`: every variant, category and seed into one tidy table."""
    from clipad_harness.experiments.grid import run_plan
    from clipad_harness.experiments.learned_variants import learned_plan

    run = open_learned(root, method)
    tested = dict.fromkeys(variant.tested_on for variant in run.variants)
    categories = {
        name: list(dict.fromkeys(run.datasets[name].index["category"])) for name in tested
    }
    shards = learned_plan(categories, run.variants, run.profile.ablation_categories)
    results, _ = run_plan(run.scorer(), shards, read_workers(root))
    folder = root / REPORTS / method
    own = results[results["dataset"] == run.profile.dataset]
    write_text(
        folder / "by_category.csv", by_category(own).to_csv(index=False, lineterminator="\n")
    )
    text = results.to_csv(index=False, lineterminator="\n", float_format="%.6f")
    return write_text(folder / "results.csv", text)


def is_measured(root: Path, method: str) -> bool:
    """Whether there are results of a method."""
    return (root / REPORTS / method / "results.csv").is_file()


def read_results(root: Path, method: str) -> pd.DataFrame:
    """The results table of the last scoring."""
    path = root / REPORTS / method / "results.csv"
    if not is_measured(root, method):
        raise ClipadError(
            f"{path.relative_to(root)}: does not exist yet; run `./repro clipad measure {method}` first."
        )
    return pd.read_csv(path)
