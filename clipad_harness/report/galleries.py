"""Image by image: which test images a method gets right, which it misses, and what they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from clipad_core.metrics.metrics import auroc
from clipad_harness.data.images import read_image
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.shards import CategoryScores
from clipad_harness.experiments.variants import Shard
from clipad_harness.report.figures import PALETTE, UNDEFINED, GalleryItem, gallery
from clipad_harness.report.tables import DASH

# A damaged image counts as found where at most one normal image in ten scores higher.
FOUND = 0.9


@dataclass(frozen=True)
class Scored:
    """Every test image of a run at one number of shots.

    Attributes:
        images: a row an image: ``category, defect, label, image, image_score``, ``ranked``: the
            share of the other class's images of its category that it stands on the right side of
            (its part of the image AUROC, ties half), ``pixel_auroc`` of its own map, ``area``: the
            defect's share of the image in per cent, ``found``: 1 where it scores above nine tenths
            of the other class's images, as a threshold with one false alarm in ten would find it,
            else 0. All but the score are NaN where they are undefined.
        maps, masks: one a row, in the same order.
        seed: which of the run's seeds this is, in words, as in ``seed 0, one of 3``; "" where nothing
            is drawn or trained more than once, so that tables show the same numbers.
    """

    images: pd.DataFrame
    maps: list[NDArray[np.float32]]
    masks: list[NDArray[np.bool_]]
    seed: str = ""


def score_images(scorer: Scorer, k_shot: int, seed: int) -> Scored:
    """Score every test image with the main variant."""
    frames, maps, masks = [], [], []
    categories = list(dict.fromkeys(scorer.tested.index["category"]))
    for category in tqdm(
        categories, desc=f"{scorer.method}, {k_shot}-shot", unit="category", delay=2
    ):
        scores = scorer.detect(Shard(scorer.variants[0], category, k_shot, seed))
        has_masks = scorer.tested.has_masks(category)
        frames.append(_images(scores, has_masks))
        maps += scores.maps
        masks += scores.masks
    seeds = scorer.variants[0].drawn(k_shot)
    words = f"seed {seed}, one of {len(seeds)}" if len(seeds) > 1 else ""
    return Scored(pd.concat(frames, ignore_index=True), maps, masks, words)


def _images(category_scores: CategoryScores, has_masks: bool) -> pd.DataFrame:
    frame = category_scores.images[["category", "defect", "label", "image"]].reset_index(drop=True)
    labels, scores = frame["label"].to_numpy(), category_scores.image_scores
    ranked = ranked_right(labels, scores)
    pairs = list(zip(category_scores.maps, category_scores.masks, strict=True))
    own = [
        _pixel_auroc(anomaly_map, mask) if has_masks else float("nan")
        for anomaly_map, mask in pairs
    ]
    shares = [float(mask.mean()) if has_masks and mask.any() else float("nan") for _, mask in pairs]
    return frame.assign(
        image_score=scores,
        ranked=ranked,
        pixel_auroc=own,
        area=100 * np.array(shares),
        found=np.where(np.isnan(ranked), np.nan, ranked >= FOUND),
    )


def _pixel_auroc(anomaly_map: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    return auroc(mask.ravel().astype(int), anomaly_map.ravel()) if mask.any() else float("nan")


def ranked_right(labels: NDArray[np.int64], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """For every image the share of the other class on its right side; ties count half.

    The mean over the anomalous images is the image AUROC. NaN where the other class is missing.

    >>> ranked_right(np.array([0, 0, 1, 1]), np.array([0.1, 0.5, 0.4, 0.9])).tolist()
    [1.0, 0.5, 0.5, 1.0]
    """
    above = (scores[:, None] > scores[None, :]) + 0.5 * (scores[:, None] == scores[None, :])
    shares = np.full(len(labels), np.nan)
    for label, wins in ((1, above), (0, above.T)):
        same_class, other_class = labels == label, labels != label
        if other_class.any():
            shares[same_class] = wins[same_class][:, other_class].mean(axis=1)
    return shares


def damaged(scored: Scored) -> pd.DataFrame:
    """The anomalous images from worst to best: by `ranked`, then by the map, then by name.

    Where `ranked` is undefined in some categories alone, their images are no part of the order.
    """
    anomalous = scored.images[scored.images["label"] == 1]
    for defined in ("ranked", "pixel_auroc"):
        if anomalous[defined].notna().any():
            anomalous = anomalous.dropna(subset=defined)
            break
    return anomalous.sort_values(["ranked", "pixel_auroc", "image"], kind="stable")


def pick(ordered: pd.DataFrame, count: int) -> list[int]:
    """The first rows, each category once as long as there are others; their positions."""
    once = ordered.drop_duplicates("category").index
    repeated = ordered.index.difference(once, sort=False)
    return [int(row) for row in [*once, *repeated][:count]]


def best(scored: Scored, count: int = 3) -> list[int]:
    """Positions of the damaged images that score and map get most right."""
    return pick(damaged(scored)[::-1], count)


def median(scored: Scored, count: int = 3) -> list[int]:
    """Positions of the damaged images nearest to the middle of the order, in that order."""
    ordered = damaged(scored)
    middle = (len(ordered) - 1) / 2
    nearest = sorted(range(len(ordered)), key=lambda place: abs(place - middle))
    chosen = pick(ordered.iloc[nearest], count)
    return [int(row) for row in ordered.index if row in chosen]


def worst(scored: Scored, count: int = 3) -> list[int]:
    """Positions of the damaged images that are missed most."""
    return pick(damaged(scored), count)


def false_alarms(scored: Scored, count: int = 3) -> list[int]:
    """Positions of the normal images that stand above the most damaged ones."""
    normal = scored.images[scored.images["label"] == 0]
    return pick(normal.sort_values(["ranked", "image"], kind="stable"), count)


def followed(scored: Scored, count: int = 3) -> list[int]:
    """Positions of the images that a page follows through a method: the best, else normal ones."""
    return best(scored, count) or false_alarms(scored, count)


def items(scorer: Scorer, scored: Scored, positions: Sequence[int]) -> list[GalleryItem]:
    """Gallery items: image and map at the map's size, mask, caption and score."""
    gallery_items = []
    for position in positions:
        row, anomaly_map = scored.images.loc[position], scored.maps[position]
        image = read_image(scorer.tested.data / str(row["image"]))
        if image.size != anomaly_map.shape[::-1]:
            image = image.resize(anomaly_map.shape[::-1], Image.Resampling.BICUBIC)
        name = str(row["image"]).rsplit("/", maxsplit=1)[-1].split(".")[0]
        caption = f"{row['category']}/{row['defect']}/{name}"
        mask = scored.masks[position] if row["label"] else None
        gallery_items.append(
            GalleryItem(
                np.asarray(image), anomaly_map, mask, caption, float(str(row["image_score"]))
            )
        )
    return gallery_items


def draw(
    scorer: Scorer, scored: Scored, positions: Sequence[int], subject: str
) -> tuple[Figure, str, str]:
    """A gallery of some images, its alt text and its caption."""
    figure = gallery(items(scorer, scored, positions))
    return figure, _gallery_alt(scored, positions, subject), subject


def _gallery_alt(scored: Scored, positions: Sequence[int], subject: str) -> str:
    """The gallery in words: which images, and how right score and map are."""
    parts = []
    for row in scored.images.loc[list(positions)].to_dict("records"):
        text = str(row["image"])
        if row["ranked"] == row["ranked"]:
            text += f", on the right side of {100 * row['ranked']:.0f} % of the others"
        if row["pixel_auroc"] == row["pixel_auroc"]:
            text += f", pixel AUROC {100 * row['pixel_auroc']:.0f}"
        parts.append(text)
    return f"{subject}: {'; '.join(parts)}."


def by_defect(scored: Scored) -> pd.DataFrame:
    """A row a defect type, from most missed to best found; per cent."""
    anomalous = scored.images[scored.images["label"] == 1]
    grouped = anomalous.groupby("defect")
    frame = pd.DataFrame(
        {
            "images": grouped.size(),
            "categories": grouped["category"].nunique(),
            "image AUROC": 100 * grouped["ranked"].mean(),
            "found": 100 * grouped["found"].mean(),
            "pixel AUROC": 100 * grouped["pixel_auroc"].mean(),
            "median area": grouped["area"].median(),
        }
    )
    frame.index = pd.Index([str(name).replace("_", " ") for name in frame.index], name="defect")
    return frame.sort_values(["image AUROC", "images"], kind="stable")


def sized(scored: Scored) -> pd.DataFrame:
    """The anomalous images whose defect has a known size, and that are known to be found or missed."""
    anomalous = scored.images[scored.images["label"] == 1]
    return anomalous.dropna(subset=["area", "found"])


def size_figure(scored: Scored) -> Figure:
    """The size of a defect against how well score and map find it."""
    anomalous = sized(scored)
    words = anomalous["found"].map({1.0: "found", 0.0: "missed"})
    figure, axes = plt.subplots(1, 2, figsize=(8.8, 3.6), sharex=True)
    for panel, value, label in zip(
        axes,
        ("ranked", "pixel_auroc"),
        ("share of normal images below it", "pixel AUROC of its map"),
    ):
        seaborn.scatterplot(
            data=anomalous.assign(shown=100 * anomalous[value], found=words),
            x="area",
            y="shown",
            hue="found",
            hue_order=["found", "missed"],
            palette=list(PALETTE[:2]),
            style="found",
            style_order=["found", "missed"],
            alpha=0.7,
            s=30,
            legend=value == "pixel_auroc",
            ax=panel,
        )
        panel.set(xscale="log", xlabel="area of the defect, per cent of the image", ylabel="")
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_title(f"{label}, per cent", fontsize=9.5)
    axes[1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def size_sentence(scored: Scored) -> str:
    """Median defect size of what was missed and of what was found."""
    anomalous = sized(scored)
    halves = {bool(flag): part["area"].median() for flag, part in anomalous.groupby("found")}
    if not halves:
        return f"The size of a defect against what is found: {UNDEFINED}."
    if len(halves) < 2:
        kind = "All" if True in halves else "None"
        return f"{kind} of the {len(anomalous)} damaged images with a mask are found."
    missed = int((anomalous["found"] == 0).sum())
    return (
        f"{missed} of {len(anomalous)} damaged images are missed. The median defect covers "
        f"{halves[False]:.2f} % of a missed image and {halves[True]:.2f} % of a found one."
    )


def scores_figure(scored: Scored, subject: str) -> tuple[Figure, str]:
    """Image scores of normal and damaged test images by category, and the alt text."""
    frame = scored.images
    names = list(dict.fromkeys(frame["category"]))
    # Spread by the golden ratio instead of at random: the same picture every time.
    offset = 0.3 * ((frame.groupby(["category", "label"]).cumcount() * 0.618034) % 1 - 0.5)
    place = frame["category"].map({name: i for i, name in enumerate(names)})
    figure, axes = plt.subplots(figsize=(max(5.0, min(10.0, 1.2 + 0.72 * len(names))), 3.6))
    seaborn.scatterplot(
        x=place + 0.4 * (frame["label"] - 0.5) + offset,
        y=frame["image_score"],
        hue=frame["label"].map({0: "normal", 1: "damaged"}),
        hue_order=["normal", "damaged"],
        palette=list(PALETTE[:2]),
        s=18,
        alpha=0.75,
        ax=axes,
    )
    turned = len(names) > 5
    axes.set_xticks(
        range(len(names)),
        [name.replace("_", " ") for name in names],
        rotation=45 if turned else 0,
        ha="right" if turned else "center",
    )
    axes.set(xlabel="", ylabel="image score")
    axes.grid(visible=False, axis="x")
    axes.legend(frameon=False, fontsize=8, title="", loc="upper left", bbox_to_anchor=(1, 1))
    return figure, _scores_alt(scored, subject)


def curves_of(
    labels: NDArray[np.int64], scores: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], int]:
    """ROC and precision-recall curve of one category: a point a distinct score, highest first.

    Returns:
        The share of normal images at or above each score (false positives), that of damaged ones
        (recall), the share of damaged among those above (precision), and the place of the highest F1.

    >>> false_positives, recall, precision, place = curves_of(
    ...     np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.4, 0.8])
    ... )
    >>> false_positives.tolist(), recall.tolist(), precision.round(2).tolist(), place
    ([0.0, 0.5, 1.0], [0.5, 1.0, 1.0], [1.0, 0.67, 0.5], 1)
    """
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    above, damaged = last + 1, np.cumsum(labels[order])[last]
    recall, precision = damaged / labels.sum(), damaged / above
    false_positives = (above - damaged) / (len(labels) - labels.sum())
    return false_positives, recall, precision, int((damaged / (above + labels.sum())).argmax())


def curves_figure(scored: Scored, subject: str) -> tuple[Figure, str]:
    """How the image scores lie, and what every threshold on them gives; and the alt text.

    Left the histogram of all images; beside it the ROC and the precision-recall curve, a line a
    category, with a dot at the threshold of its highest F1 (F1-max).
    """
    frame = scored.images
    figure, (histogram, roc, precisions) = plt.subplots(1, 3, figsize=(9.6, 3.2))
    seaborn.histplot(
        x=frame["image_score"],
        hue=frame["label"].map({0: "normal", 1: "damaged"}),
        hue_order=["normal", "damaged"],
        palette=list(PALETTE[:2]),
        bins=30,
        stat="percent",
        common_norm=False,
        element="step",
        alpha=0.35,
        ax=histogram,
    )
    histogram.set(xlabel="image score", ylabel="% of the images of a kind")
    histogram.get_legend().set(title="", frame_on=False)
    parts = []
    for category, rows in frame.groupby("category", sort=False):
        labels = rows["label"].to_numpy()
        if labels.min() == labels.max():  # one kind of image alone has no curve
            continue
        false, recall, precision, best = curves_of(labels, rows["image_score"].to_numpy())
        line = {"color": "#8a929c", "linewidth": 1, "alpha": 0.7}
        roc.step(np.append(0, 100 * false), np.append(0, 100 * recall), where="post", **line)
        precisions.plot(100 * recall, 100 * precision, **line)
        dot = {"color": PALETTE[1], "s": 22, "zorder": 3}
        roc.scatter(100 * false[best], 100 * recall[best], **dot)
        precisions.scatter(100 * recall[best], 100 * precision[best], **dot)
        f1 = 200 * precision[best] * recall[best] / (precision[best] + recall[best])
        parts.append(f"{category} {f1:.0f}")
    roc.set(xlabel="false positives, %", ylabel="recall, %", title="ROC")
    precisions.set(xlabel="recall, %", ylabel="precision, %", title="precision and recall")
    for panel in (roc, precisions):
        panel.set(xlim=(-3, 103), ylim=(-3, 103))
        panel.title.set_size(9.5)
    words = f"highest F1 by category: {', '.join(parts)}" if parts else "undefined for this data"
    return (
        figure,
        f"{_of_seed(scored, subject)}, histogram, ROC and precision-recall curve; {words}.",
    )


def _of_seed(scored: Scored, subject: str) -> str:
    return f"{subject} ({scored.seed})" if scored.seed else subject


def seed_note(scored: Scored) -> str:
    """That numbers of one seed differ from the tables' means, where they do; ends a caption."""
    return f" Of {scored.seed}; tables have the mean over all." if scored.seed else ""


def _scores_alt(scored: Scored, subject: str) -> str:
    """The figure in words: how far normal and damaged images separate in every category."""
    anomalous = scored.images[scored.images["label"] == 1]
    shares = 100 * anomalous.groupby("category", sort=False)["ranked"].mean()
    parts = [f"{name} {DASH if np.isnan(v) else f'{v:.0f}'}" for name, v in shares.items()]
    about = f"{_of_seed(scored, subject)} by category, normal beside damaged"
    return f"{about}; image AUROC: {', '.join(parts) or UNDEFINED}."
