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
from clipad_harness.shards import MAIN
from clipad_harness.tables import METRIC_LABELS, Html, percent, table


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
        picture = contact_sheet(run.data.parent, run.data.name, categories=run.profile.categories)
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
    }
    templates = [template.replace("{}", "[state]") for template in ensemble.templates]
    half = -(-len(templates) // 2)
    columns |= {"templates": templates[:half], "more templates": templates[half:]}
    rows = max(len(cells) for cells in columns.values())
    padded = {name: [*cells, *[""] * (rows - len(cells))] for name, cells in columns.items()}
    frame = pd.DataFrame(padded, index=pd.Index(range(1, rows + 1), name=""))
    caption = (
        f"{len(ensemble.normal_states)} × {len(ensemble.templates)} = {len(normal)} normal and "
        f"{len(ensemble.anomalous_states)} × {len(ensemble.templates)} = {len(anomalous)} anomalous "
        f"prompts ({ensemble.source})"
    )
    return table(frame, caption)


def shots_figure(results: pd.DataFrame, comparison: pd.DataFrame) -> tuple[Figure, str]:
    """Image and pixel AUROC by number of shots, and the alt text.

    A thin line a category; the thick one is their mean, its band the deviation over the reference
    seeds. The paper's line is drawn only where it is comparable.
    """
    main = results[results["variant"] == MAIN]
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.8))
    alt = []
    for one, metric in zip(axes, ("image_auroc", "pixel_auroc"), strict=True):
        part = main[main["metric"] == metric].dropna(subset="value")
        shown = part.assign(value=100 * part["value"], k_shot=part["k_shot"].astype(str))
        means = shown.groupby(["k_shot", "seed"])["value"].mean().reset_index()
        x, y = "k_shot", "value"
        seaborn.lineplot(
            data=shown.groupby([x, "category"])[y].mean().reset_index(),
            x=x,
            y=y,
            units="category",
            estimator=None,
            color="#c3c9d0",
            linewidth=1,
            ax=one,
        )
        seaborn.lineplot(
            data=means, x=x, y=y, errorbar="sd", marker="o", linewidth=2.5, label="mean", ax=one
        )
        rows = comparison[(comparison["category"] == MEAN) & (comparison["metric"] == metric)]
        rows = rows.dropna(subset="difference")
        if not rows.empty:
            shots = rows["k_shot"].astype(str)
            one.plot(shots, rows["paper_mean"], "s--", color=PALETTE[1], label="paper")
        parts = [
            f"{percent(v)} with {k}" for k, v in means.groupby("k_shot")["value"].mean().items()
        ]
        alt.append(f"{METRIC_LABELS[metric]} {', '.join(parts)}")
        one.set(xlabel="normal reference images", ylabel="")
        one.set_title(f"{METRIC_LABELS[metric]}, per cent", fontsize=9.5)
        one.legend(frameon=False, fontsize=8, loc="lower right")
    return figure, f"Mean over categories by number of shots: {'; '.join(alt)}."


def weakest(comparison: pd.DataFrame, k_shot: int) -> str:
    """The lowest categories at one number of shots, in words."""
    sentences = []
    for metric in ("image_auroc", "pixel_auroc"):
        wanted = (comparison["k_shot"] == k_shot) & (comparison["metric"] == metric)
        rows = comparison[wanted & (comparison["category"] != MEAN)].dropna(subset="ours_mean")
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
    return f"{card.title}: {card.citation.strip()} Licence of the images: {card.licence}."
