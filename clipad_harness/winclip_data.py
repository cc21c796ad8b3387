"""The WinCLIP page about its data and its results as a whole: counts, sheet, prompts, curves."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from matplotlib.figure import Figure
from PIL import Image

from clipad_core.prompts import PromptEnsemble
from clipad_harness.cards import read_card
from clipad_harness.comparison import MEAN
from clipad_harness.contact_sheet import contact_sheet
from clipad_harness.figures import PALETTE
from clipad_harness.pipeline import INDEX, SHEET, Run
from clipad_harness.tables import METRIC_LABELS, Html, percent, table
from clipad_harness.variants import MAIN


def counts(index: pd.DataFrame) -> pd.DataFrame:
    """A row a category: normal images to refer to, test images, kinds of defects."""
    test = index[index["split"] == "test"]
    grouped = test.groupby("category", sort=False)
    defects = test[test["label"] == 1].groupby("category", sort=False)["defect"].unique()
    frame = pd.DataFrame(
        {
            "train, normal": index[index["split"] == "train"].groupby("category").size(),
            "test, normal": grouped["label"].apply(lambda labels: int((labels == 0).sum())),
            "test, damaged": grouped["label"].sum(),
            "defects": defects.map(lambda names: ", ".join(sorted(names)).replace("_", " ")),
        }
    )
    frame.index = pd.Index([str(name).replace("_", " ") for name in frame.index], name="category")
    return frame


def sheet(run: Run) -> tuple[Figure, str]:
    """The contact sheet of the dataset and its alt text; read where the index stage has drawn it."""
    path, index = run.root / SHEET, run.root / INDEX
    drawn = path.is_file() and index.is_file()
    if drawn and set(pd.read_csv(index)["dataset"]) == {run.profile.dataset}:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    else:
        picture = contact_sheet(run.data.parent, run.data.name)
    width = 9.6
    figure = plt.figure(figsize=(width, width * picture.height / picture.width))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(np.asarray(picture))
    axes.set_axis_off()
    names = ", ".join(run.categories).replace("_", " ")
    alt = f"Contact sheet of {run.profile.dataset}: normal images and one of each kind of defect, "
    return figure, f"{alt}outlined, a row a category ({names})."


def prompt_table(ensemble: PromptEnsemble, words: str) -> Html:
    """States and templates side by side, and how many prompts they make."""
    normal, anomalous = ensemble.prompts(words)
    columns = {
        "normal states": [state.replace("{}", words) for state in ensemble.normal_states],
        "anomalous states": [state.replace("{}", words) for state in ensemble.anomalous_states],
        "templates": [template.replace("{}", "[state]") for template in ensemble.templates],
    }
    rows = max(len(cells) for cells in columns.values())
    padded = {name: [*cells, *[""] * (rows - len(cells))] for name, cells in columns.items()}
    frame = pd.DataFrame(padded, index=pd.Index(range(1, rows + 1), name=""))
    caption = (
        f"{len(ensemble.normal_states)} × {len(ensemble.templates)} = {len(normal)} normal and "
        f"{len(ensemble.anomalous_states)} × {len(ensemble.templates)} = {len(anomalous)} anomalous "
        f"prompts ({ensemble.source})"
    )
    return table(frame, caption)


def shots_figure(results: pd.DataFrame) -> tuple[Figure, str]:
    """Image and pixel AUROC by number of shots, a thin line a category, and the alt text."""
    main = results[results["variant"] == MAIN]
    metrics = ("image_auroc", "pixel_auroc")
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.8), sharex=True)
    alt = []
    for one, metric in zip(axes, metrics, strict=True):
        part = main[main["metric"] == metric].dropna(subset="value")
        values = 100 * part.pivot_table(index="k_shot", columns="category", values="value")
        shots = [str(k_shot) for k_shot in values.index]
        for category in values:
            one.plot(shots, values[category], color="#b6bdc6", linewidth=1, zorder=1)
        if not values.empty:
            mean = values.mean(axis=1).set_axis(shots)
            seaborn.lineplot(
                x=shots, y=mean.to_numpy(), marker="o", linewidth=2.5, color=PALETTE[0], ax=one
            )
            parts = [f"{percent(value)} with {shot}" for shot, value in mean.items()]
            alt.append(f"{METRIC_LABELS[metric]} {', '.join(parts)}")
        one.set(xlabel="normal reference images", ylabel="")
        one.set_title(f"{METRIC_LABELS[metric]}, per cent", fontsize=9.5)
    return figure, f"Mean over categories by number of shots: {'; '.join(alt)}."


def weakest(comparison: pd.DataFrame, k_shot: int) -> str:
    """The lowest categories at one number of shots, in words."""
    sentences = []
    for metric in ("image_auroc", "pixel_auroc"):
        wanted = (comparison["k_shot"] == k_shot) & (comparison["metric"] == metric)
        rows = comparison[wanted & (comparison["category"] != MEAN)].dropna(subset="ours_mean")
        if rows.empty:
            continue
        low, high = rows.loc[rows["ours_mean"].idxmin()], rows.loc[rows["ours_mean"].idxmax()]
        sentences.append(
            f"Lowest {METRIC_LABELS[metric]} at {k_shot}-shot: {low['category']} "
            f"({percent(low['ours_mean'])}); highest: {high['category']} "
            f"({percent(high['ours_mean'])})."
        )
    return " ".join(sentences)


def credit(run: Run) -> str:
    """What to cite for the data, and their licence."""
    card = read_card(run.profile.dataset)
    return f"{card.title}: {card.citation.strip()} Licence of the images: {card.licence}."
