"""The stages of dvc.yaml as functions, and the run they and the notebooks share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from clipad_core.errors import ClipadError
from clipad_harness.base.files import replacing, write_text
from clipad_harness.base.settings import (
    Profile,
    WinCLIPSettings,
    read_profile,
    read_winclip,
)
from clipad_harness.data.datasets import find_dataset, index_hash, read_index

if TYPE_CHECKING:
    from clipad_harness.experiments.scorer import Scorer
    from clipad_harness.experiments.variants import WinCLIPVariant

# torch, open_clip and Papermill take seconds to import, so every stage imports its own.
INDEX = Path("data/index/index.csv")
SHEET = Path("data/index/contact_sheet.png")
# Of the index and all bytes that it names: what DVC looks at, since a real dataset lies outside.
CONTENT = Path("data/index/content.txt")
RESULTS = Path("reports/winclip/results.csv")
REFERENCES = Path("reports/winclip/references.csv")
BY_CATEGORY = Path("reports/winclip/by_category.csv")
CACHE = Path(".cache")


@dataclass(frozen=True)
class Run:
    """One profile on one dataset: everything the WinCLIP stages and notebook need."""

    root: Path
    profile: Profile
    settings: WinCLIPSettings
    variants: list[WinCLIPVariant]
    index: pd.DataFrame
    data: Path

    @property
    def categories(self) -> list[str]:
        """The categories that are run."""
        return list(dict.fromkeys(self.index["category"]))

    def scorer(self) -> Scorer:
        """A scorer that shares its encodings between all variants of this run."""
        from clipad_harness.experiments.scorer import Scorer

        return Scorer(self.profile, self.index, self.data, self.root / CACHE, self.variants)


def open_data(root: Path, profile: Profile) -> tuple[Path, pd.DataFrame]:
    """Find and index the dataset of a profile.

    Raises:
        ClipadError: a dataset that is missing, empty or damaged.
    """
    data_root = root / profile.data_root if profile.data_root else None
    data = find_dataset(profile.dataset, data_root)
    return data, read_index(data, profile.dataset, profile.categories)


def open_run(root: Path, profile: str = "", dataset: str = "") -> Run:
    """Read the settings and index the dataset of a profile.

    Raises:
        ClipadError: wrong settings, or a dataset that is missing, empty or damaged.
    """
    from clipad_harness.base.weights import resolve
    from clipad_harness.experiments.variants import variants

    chosen = read_profile(root, profile, dataset)
    chosen = replace(chosen, winclip=resolve(root, chosen.winclip))
    settings = read_winclip(root)
    data, index = open_data(root, chosen)
    return Run(root, chosen, settings, variants(settings, chosen.winclip.changes), index, data)


def draw(root: Path, name: str) -> Path:
    """Stage `draw`: one drawn dataset, a number of images a category from params.yaml."""
    from clipad_harness.base.settings import read_synthetic
    from clipad_harness.standin.datasets import draw_dataset

    size = read_synthetic(root)
    return draw_dataset(
        root / "data" / "synthetic",
        name,
        seed=size.seed,
        image_size=size.image_size,
        train_good=size.train_good,
        test_good=size.test_good,
        test_damaged=size.test_damaged,
    )


def write_index(root: Path) -> Path:
    """Stage `index`: the chosen dataset's index table, the hash of its content, a contact sheet."""
    from clipad_harness.data.contact_sheet import contact_sheet

    profile = read_profile(root)
    data, index = open_data(root, profile)
    sheet = contact_sheet(data.parent, data.name, categories=profile.categories)
    with replacing(root / SHEET) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
    write_text(root / CONTENT, f"{index_hash(index, data)}\n")
    return write_text(root / INDEX, index.to_csv(index=False, lineterminator="\n"))


def score_winclip(root: Path) -> Path:
    """Stage `score`: every variant, category, number of shots and seed into one tidy table."""
    from clipad_harness.base.settings import read_workers
    from clipad_harness.experiments.grid import run_plan
    from clipad_harness.experiments.variants import plan

    run = open_run(root)
    scorer = run.scorer()
    shards = plan(
        run.categories,
        run.variants,
        run.settings.seeds,
        run.settings.ablation_seeds,
        run.profile.ablation_categories,
    )
    results, references = run_plan(scorer, shards, read_workers(root))
    write_text(root / REFERENCES, references.to_csv(index=False, lineterminator="\n"))
    write_text(root / BY_CATEGORY, by_category(results).to_csv(index=False, lineterminator="\n"))
    text = results.to_csv(index=False, lineterminator="\n", float_format="%.6f")
    return write_text(root / RESULTS, text)


def by_category(results: pd.DataFrame) -> pd.DataFrame:
    """Main variant, per cent, a row a category and number of shots: what `dvc plots` draws."""
    main = results[results["variant"] == "main"]
    table = main.pivot_table(
        index=["category", "k_shot"], columns="metric", values="value", aggfunc="mean"
    )
    return (100 * table).round(2).reset_index()


def read_results(root: Path) -> pd.DataFrame:
    """The results table of the last scoring."""
    path = root / RESULTS
    if not path.is_file():
        raise ClipadError(
            f"{RESULTS}: does not exist yet; run `./repro clipad measure winclip` first."
        )
    return pd.read_csv(path)
