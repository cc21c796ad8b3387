"""What every page says about its data: counts, contact sheet, weakest categories, credit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from clipad_core.methods.method import WordKind
from clipad_core.metrics import METRIC_LABELS
from clipad_harness.data.cards import read_card
from clipad_harness.data.contact_sheet import contact_sheet
from clipad_harness.data.dataset_images import DatasetImages
from clipad_harness.data.stages import INDEX, SHEET
from clipad_harness.experiments.pipeline import Run
from clipad_harness.papers.verdicts import MEAN
from clipad_harness.report.tables import DASH, Html, percent, table

WORD_KINDS: Mapping[WordKind, str] = {
    "defects": "own defects",
    "other_defects": "defects of other categories",
    "phrases": "expert phrases",
    "other_phrases": "phrases of another category",
}


def counts(index: pd.DataFrame) -> pd.DataFrame:
    """A row a category: normal images to refer to, test images, kinds of defects."""
    test = index[index["split"] == "test"]
    grouped = test.groupby("category", sort=False)
    defects = test[test["label"] == 1].groupby("category", sort=False)["defect"].unique()
    frame = pd.DataFrame(
        {
            "train, normal": (index["split"] == "train").groupby(index["category"]).sum(),
            "test, normal": grouped["label"].apply(lambda labels: int((labels == 0).sum())),
            "test, damaged": grouped["label"].sum(),
            "defects": defects.map(lambda names: ", ".join(sorted(names)).replace("_", " ")),
        }
    )
    frame.index = pd.Index([str(name).replace("_", " ") for name in frame.index], name="category")
    return frame


def words_table(images: DatasetImages, categories: Sequence[str]) -> Html:
    """What prompts can name of some categories beside their name; a dash where there is nothing."""
    described = [images.described(category) for category in categories]
    frame = pd.DataFrame(
        {
            heading: [", ".join(category.words(kind)) or DASH for category in described]
            for kind, heading in WORD_KINDS.items()
        },
        index=pd.Index([name.replace("_", " ") for name in categories], name="category"),
    )
    caption = "Words of the categories: kinds of damage as the dataset names them, and phrases of its card"
    return table(frame, caption)


def sheet(run: Run) -> tuple[Figure, str]:
    """The contact sheet of the dataset and its alt text; read where the index stage has drawn it."""
    path, index = run.root / SHEET, run.root / INDEX
    columns = ["dataset", "image"]
    try:
        drawn = pd.read_csv(index)[columns].equals(run.index[columns])
        with Image.open(path, formats=["PNG"]) as opened:
            picture = opened.convert("RGB") if drawn else None
    except (OSError, SyntaxError, ValueError, KeyError):  # not there, or damaged
        picture = None
    if picture is None:
        picture = contact_sheet(run.data.parent, run.data.name, categories=run.profile.categories)
    width = 9.6
    figure = plt.figure(figsize=(width, width * picture.height / picture.width))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(np.asarray(picture))
    axes.set_axis_off()
    names = ", ".join(run.categories).replace("_", " ")
    alt = f"Contact sheet of {run.profile.dataset}: normal images and one of each kind of defect, "
    return figure, f"{alt}outlined, a row a category ({names})."


def weakest(comparison: pd.DataFrame, k_shot: int) -> str:
    """The lowest categories at one number of shots, in words."""
    sentences = []
    for metric in ("image_auroc", "pixel_auroc"):
        selected = (comparison["k_shot"] == k_shot) & (comparison["metric"] == metric)
        rows = comparison[selected & (comparison["category"] != MEAN)].dropna(subset="ours_mean")
        if rows.empty:
            continue
        ordered = rows.sort_values("ours_mean", kind="stable")
        low, high = ordered.iloc[0], ordered.iloc[-1]
        sentences.append(
            f"Lowest {METRIC_LABELS[metric]} at {k_shot}-shot: {_words(low)} "
            f"({percent(low['ours_mean'])}); highest: {_words(high)} "
            f"({percent(high['ours_mean'])})."
        )
    return " ".join(sentences)


def _words(row: pd.Series) -> str:
    return str(row["category"]).replace("_", " ")


def credit(run: Run) -> str:
    """What to cite for the data, and their licence."""
    card = read_card(run.profile.dataset)
    licence = card.licence or "not known"
    return f"{card.title}: {card.citation.strip()} Licence of the images: {licence}."
