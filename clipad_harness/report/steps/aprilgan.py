"""APRIL-GAN on a few images: the drawings of its page, whose cells compute what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from clipad_core.metrics.aupro import AuproCurve
from clipad_core.metrics.metrics import auroc
from clipad_harness.report.figures import PALETTE, UNDEFINED, say_undefined
from clipad_harness.report.map_grid import Pictured, draw_picture

BINS = 30
# A name of a class fits below a matrix of so many.
MOST_NAMED = 20
NORMAL, DAMAGED = PALETTE[:2]


def sentences_figure(lean: Mapping[str, Tensor], normal: int) -> tuple[Figure, str]:
    """How far every sentence leans to the anomalous embedding, a row a state; the alt text.

    Args:
        lean: state -> cosine with the anomalous minus cosine with the normal embedding, a template each.
        normal: how many of the states, the first ones, are normal.
    """
    figure, axes = plt.subplots(figsize=(7.2, 0.27 * len(lean) + 0.9))
    sides = {"normal": [0, 0], "anomalous": [0, 0]}
    for row, values in enumerate(lean.values()):
        side, colour = ("normal", NORMAL) if row < normal else ("anomalous", DAMAGED)
        axes.scatter(values.numpy(), np.full(len(values), row), s=16, alpha=0.55, color=colour)
        right = values < 0 if row < normal else values > 0
        sides[side][0] += int(right.sum())
        sides[side][1] += len(values)
    axes.axvline(0, color="#8a929c", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(lean)), lean, fontsize=8)
    axes.invert_yaxis()
    axes.set_title("Where every sentence stands", fontsize=9.5)
    axes.set_xlabel("from “normal” to “anomalous”, difference of cosines", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    words = ", ".join(f"{right} of {count} {side}" for side, (right, count) in sides.items())
    return figure, f"Sentences on their own side of the two embeddings they make: {words}."


def patches_figure(lean: Mapping[str, Mapping[int, Tensor]], inside: Tensor) -> tuple[Figure, str]:
    """Logits of defect patches and of the others, a row a learner and a column a block; the alt text.

    Args:
        lean: learner -> block -> anomalous minus normal logit, (b, p).
        inside: which patches are mostly defect, (b, p).
    """
    wide = len(next(iter(lean.values())))
    figure, axes = plt.subplots(
        len(lean), wide, figsize=(2.45 * wide, 2.0 * len(lean) + 0.5), squeeze=False
    )
    alt = []
    for line, (learner, blocks) in zip(axes, lean.items(), strict=True):
        aurocs = []
        for panel, (block, values) in zip(line, blocks.items(), strict=True):
            found = _histogram(panel, values, inside)
            panel.set_title(f"{learner}, block {block}: AUROC {found}", fontsize=8)
            aurocs.append(f"block {block} {found}")
        line[0].set_ylabel("% of the patches\nof a kind", fontsize=8)
        alt.append(f"{learner}: {', '.join(aurocs)}")
    for panel in axes[-1]:
        panel.set_xlabel("anomalous − normal logit", fontsize=8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return (
        figure,
        f"How well the logits tell defect patches from the others, AUROC: {'; '.join(alt)}.",
    )


def _histogram(panel: Axes, values: Tensor, inside: Tensor) -> str:
    """Draw both kinds of patches; return their AUROC in words."""
    edges = np.linspace(float(values.min()), float(values.max()), BINS + 1)
    kinds = {"other patches": values[~inside], "defect patches": values[inside]}
    for (name, chosen), colour in zip(kinds.items(), (NORMAL, DAMAGED), strict=True):
        share = np.full(len(chosen), 100 / max(1, len(chosen)))
        panel.hist(
            chosen.numpy(), bins=edges.tolist(), weights=share, alpha=0.6, label=name, color=colour
        )
    panel.axvline(0, color="#8a929c", linewidth=1, linestyle="--")
    panel.tick_params(labelsize=7)
    if inside.all() or not inside.any():
        return UNDEFINED
    return f"{100 * auroc(inside.flatten().int().numpy(), values.flatten().numpy()):.0f}"


def classes_figure(cosines: Tensor, names: Sequence[str]) -> tuple[Figure, str]:
    """How alike the way from normal to anomalous is between classes, as a matrix; the alt text.

    Args:
        cosines: (n, n).
        names: of the classes.
    """
    side = min(5.2, 0.2 * len(names) + 1.9)
    figure, axes = plt.subplots(figsize=(side + 0.9, side))
    drawn = axes.imshow(
        cosines.numpy(), cmap="viridis", vmin=min(0.0, float(cosines.min())), vmax=1
    )
    titles = [name.replace("_", " ") for name in names] if len(names) <= MOST_NAMED else []
    axes.set_xticks(range(len(titles)), titles, fontsize=7, rotation=90)
    axes.set_yticks(range(len(titles)), titles, fontsize=7)
    axes.grid(visible=False)
    axes.set_title("From normal to anomalous, class by class", fontsize=9.5)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.03)
    bar.ax.tick_params(labelsize=7)
    bar.set_label("cosine", fontsize=8)
    others = cosines[~torch.eye(len(names), dtype=torch.bool)]
    if not len(others):
        return figure, f"One class, {names[0]}: its own text is that of every batch."
    low, mean, high = (
        f"{float(value):.2f}" for value in (others.min(), others.mean(), others.max())
    )
    return figure, (
        f"Cosine of the ways from normal to anomalous of {len(names)} classes: between different ones "
        f"{low} to {high}, mean {mean}."
    )


def references_figure(
    examples: Sequence[Pictured], shots: Sequence[Sequence[Pictured]]
) -> tuple[Figure, str]:
    """Every image beside the references of its category, repeated ones said; the alt text.

    Args:
        examples: the rows.
        shots: the references of each, as many for all.
    """
    wide = 1 + len(shots[0])
    figure, axes = plt.subplots(
        len(examples), wide, figsize=(1.75 * wide, 1.95 * len(examples)), squeeze=False
    )
    alt = []
    for line, example, references in zip(axes, examples, shots, strict=True):
        draw_picture(line[0], example.picture, example.mask)
        line[0].set_ylabel(example.name.replace(", ", "\n"), fontsize=8)
        seen: dict[bytes, int] = {}
        for number, (panel, reference) in enumerate(zip(line[1:], references, strict=True), 1):
            draw_picture(panel, reference.picture)
            first = seen.setdefault(reference.picture.tobytes(), number)
            again = "" if first == number else f", again {first}"
            panel.set_title(f"reference {number}{again}", fontsize=8, fontweight="normal")
        alt.append(f"{example.name}: {len(seen)} different images")
    return figure, f"Test images and their {len(shots[0])} references: {'; '.join(alt)}."


def left_out_figure(scores: Tensor, labels: Sequence[int]) -> tuple[Figure, str]:
    """Image scores of one category as more and more of its test images are left out; the alt text.

    Args:
        scores: (left out, n); NaN where an image is left out itself.
        labels: 1 for a damaged image.
    """
    figure, axes = plt.subplots(figsize=(7.6, 3.9))
    named = set()
    for column, label in zip(scores.T, labels, strict=True):
        name, colour = ("damaged", DAMAGED) if label else ("normal", NORMAL)
        shown = name if name not in named else None
        named.add(name)
        axes.plot(column.numpy(), color=colour, linewidth=1.1, alpha=0.7, label=shown)
    axes.set_title("One category, fewer and fewer of its test images", fontsize=9.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("test images left out, highest maps first", fontsize=8.5)
    axes.set_ylabel("image score", fontsize=8.5)
    axes.tick_params(labelsize=8)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    stays = ~scores[-1].isnan()
    moved = (scores[-1] - scores[0])[stays].abs()
    first, last = (_swapped(row[stays]) for row in (scores[0], scores[-1]))
    pairs = int(stays.sum()) * (int(stays.sum()) - 1) // 2
    swapped = int((first != last).sum()) // 2
    return figure, (
        f"{len(scores) - 1} of {scores.shape[1]} test images left out, one after another: the scores of "
        f"the {int(stays.sum())} that stay move by up to {float(moved.max()):.2f}, mean "
        f"{float(moved.mean()):.2f}, and {swapped} of their {pairs} pairs change their order. The images "
        "and their maps are the same throughout."
    )


def _swapped(scores: Tensor) -> Tensor:
    """Which image of each pair scores higher, (n, n)."""
    return scores[:, None] > scores[None, :]


def sweep_figure(
    curves: Mapping[str, tuple[AuproCurve, AuproCurve]], fpr_limit: float
) -> tuple[Figure, str]:
    """Overlap curves at every threshold, and the points that evenly spread ones visit; the alt text.

    Args:
        curves: title -> the curve of all thresholds, and that of evenly spread ones.
        fpr_limit: up to which share of false positives they are counted.
    """
    figure, axes = plt.subplots(
        1, len(curves), figsize=(4.5 * len(curves), 3.4), squeeze=False, sharey=True
    )
    alt = []
    for panel, (title, (exact, sweep)) in zip(axes[0], curves.items(), strict=True):
        alt.append(f"{title}: {_sweep(panel, exact, sweep, fpr_limit)}")
        panel.set_title(title, fontsize=9.5)
        panel.set_xlabel("false positives, % of the background", fontsize=8.5)
        panel.tick_params(labelsize=8)
    axes[0, 0].set_ylabel("overlap with the regions, %", fontsize=8.5)
    shown = axes[0, -1].get_legend_handles_labels()
    axes[0, -1].legend(*shown, frameon=False, fontsize=8, loc="lower right")
    return figure, f"Evenly spread thresholds on the overlap curve. {'; '.join(alt)}."


def _sweep(panel: Axes, exact: AuproCurve, sweep: AuproCurve, fpr_limit: float) -> str:
    """Draw one curve and its points; return in words how far they reach."""
    below, kept = exact.fpr < fpr_limit, sweep.fpr < fpr_limit
    if not kept.any():
        say_undefined(panel)
        return UNDEFINED
    curve = 100 * exact.fpr[below], 100 * exact.pro[below]
    points = 100 * sweep.fpr[kept], 100 * sweep.pro[kept]
    panel.plot(*curve, color="#8a929c", label="every threshold")
    panel.scatter(*points, s=18, color=DAMAGED, zorder=3, label="evenly spread thresholds")
    panel.set_xlim(-2 * fpr_limit, 100 * fpr_limit)
    panel.set_ylim(0, 102)
    return (
        f"{len(points[0])} of {len(sweep)} are below {100 * fpr_limit:g} % false positives, the furthest at "
        f"{points[0].max():.1f} % with an overlap of {points[1].max():.0f} %, where the curve goes on to "
        f"{curve[1].max():.0f} %"
    )
