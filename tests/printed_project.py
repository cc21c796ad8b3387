"""A project of which only results are there: written by hand, nothing drawn, trained or scored."""

from pathlib import Path

import pandas as pd
from project import settings, write_settings

from clipad_harness.data.cards import read_card
from clipad_harness.experiments.results import COLUMNS
from clipad_harness.papers.card import read_paper

METRICS = (
    "image_auroc",
    "image_ap",
    "image_f1max",
    "pixel_auroc",
    "aupro",
    "pixel_ap",
    "pixel_f1max",
)


def write_project(folder: Path, methods: list[str], profile: str = "demo") -> Path:
    """Settings and the index of a profile's dataset; of a real one every test image, by its card."""
    folder.mkdir(exist_ok=True)
    params = settings()
    params["methods"], params["profile"] = methods, profile
    write_settings(folder, params)
    dataset = params["profiles"][profile]["dataset"]
    counts = read_card(dataset).counts.categories or dict.fromkeys(("hex_nut", "leather_hide"), 4)
    rows = [
        (dataset, category, "test", "good", "0", f"{category}/{number}.png", "")
        for category, count in counts.items()
        for number in range(count)
    ]
    names = ["dataset", "category", "split", "defect", "label", "image", "mask"]
    (folder / "data" / "index").mkdir(parents=True)
    pd.DataFrame(rows, columns=names).to_csv(folder / "data" / "index" / "index.csv", index=False)
    return folder


def results_of(
    method: str, dataset: str, values: dict[str, float], variant: str = "main", k_shot: int = 0
) -> pd.DataFrame:
    """The same value of a metric in every category, a tenth of a point more in every second seed."""
    categories = list(read_card(dataset).counts.categories) or ["hex_nut", "leather_hide"]
    title = read_paper(method).title
    rows = [
        (
            title,
            variant,
            "weights",
            "float32",
            "cpu",
            dataset,
            category,
            k_shot,
            seed,
            metric,
            value,
            "k",
        )
        for category in categories
        for seed in (0, 1)
        for metric, mean in values.items()
        for value in [(mean + 0.1 * seed) / 100]
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def write_results(project: Path, method: str, *tables: pd.DataFrame) -> None:
    """As the stage `measure` leaves them."""
    path = project / "reports" / "results" / method / "results.csv"
    path.parent.mkdir(parents=True)
    pd.concat(tables).to_csv(path, index=False)
