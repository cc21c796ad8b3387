"""AnomalyCLIP on a few images: the drawings of its page, whose cells compute what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_harness.report.figures import PALETTE, overlay
from clipad_harness.report.map_grid import draw_picture
from clipad_harness.report.steps.examples import Example
from clipad_harness.report.tables import Html, callout, table

# What a matrix of attention shows at most and at least, as a multiple of an even weight.
SHOWN_WEIGHTS = (0.1, 10.0)
BINS = 30
# A word that is the nearest to a larger share of all vectors is near to anything.
MOST = 0.5


def matrix_figure(attention: Mapping[str, Tensor]) -> tuple[Figure, str]:
    """Attention of every patch (a row) to every patch, as a multiple of an even weight; the alt text.

    Args:
        attention: kind of attention -> (p, p).
    """
    figure, axes = plt.subplots(
        1, len(attention), figsize=(3.4 * len(attention) + 0.8, 3.5), squeeze=False
    )
    shares = {}
    for panel, (name, matrix) in zip(axes[0], attention.items(), strict=True):
        shares[name] = 100 * float(matrix.diagonal().mean())
        weights = (matrix * len(matrix)).numpy()
        drawn = panel.imshow(weights, cmap="magma", norm=LogNorm(*SHOWN_WEIGHTS))
        panel.set_title(f"{name}: {shares[name]:.1f} % on the diagonal", fontsize=9)
        panel.set_xlabel("patch looked at", fontsize=8)
        panel.grid(visible=False)
        panel.tick_params(labelsize=7)
    axes[0, 0].set_ylabel("patch that looks", fontsize=8)
    bar = figure.colorbar(drawn, ax=list(axes[0]), fraction=0.03, pad=0.02, extend="both")
    bar.set_ticks(ticks=[0.1, 1, 10], labels=["0.1", "1", "10"])
    bar.ax.tick_params(labelsize=7)
    bar.set_label("weight, times an even one", fontsize=8)
    words = ", ".join(f"{name} {share:.1f} %" for name, share in shares.items())
    return figure, (
        f"Attention of {len(matrix)} patches to each other. Mean weight of a patch on itself: {words}; "
        f"even would be {100 / len(matrix):.1f} %."
    )


def attention_figure(
    backbone: Backbone,
    examples: Sequence[Example],
    patches: Sequence[int],
    attention: Mapping[str, Tensor],
) -> tuple[Figure, str]:
    """What one patch of every image looks at, a map a kind of attention; the alt text.

    Args:
        patches: the patch of each image whose attention is shown.
        attention: kind of attention -> (b, p, p).
    """
    grid, side = backbone.vision.grid, backbone.vision.patch_size
    wide = 1 + len(attention)
    figure, axes = plt.subplots(
        len(examples), wide, figsize=(1.8 * wide, 1.9 * len(examples)), squeeze=False
    )
    selves: dict[str, list[float]] = {}
    for row, (line, example, patch) in enumerate(zip(axes, examples, patches, strict=True)):
        draw_picture(line[0], example.picture, example.mask)
        top, left = divmod(patch, grid[1])
        line[0].plot((left + 0.5) * side, (top + 0.5) * side, "+", color="white", markersize=9)
        line[0].set_ylabel(example.name.replace(", ", "\n"), fontsize=8)
        for panel, (name, matrices) in zip(line[1:], attention.items(), strict=True):
            weights = matrices[row, patch]
            panel.imshow(weights.reshape(grid).numpy(), cmap="magma")
            panel.set_xticks([])
            panel.set_yticks([])
            panel.set_title(f"{name}: {100 * weights[patch]:.0f} % on itself", fontsize=8)
            selves.setdefault(name, []).append(100 * float(weights[patch]))
    words = ", ".join(f"{name} {np.mean(values):.0f} %" for name, values in selves.items())
    return figure, f"What a patch of each image looks at; share on itself, mean: {words}."


def lesson_figure(lessons: Sequence[Example], maps: Tensor) -> tuple[Figure, str]:
    """Images that are learned from with their masks, and below each its map; the alt text.

    Args:
        maps: (b, S, S), in the colours of their common range.
    """
    limits = float(maps.min()), float(maps.max())
    wide = len(lessons)
    figure, axes = plt.subplots(2, wide, figsize=(1.9 * wide, 4.1), squeeze=False)
    for above, below, lesson, anomaly_map in zip(*axes, lessons, maps.numpy(), strict=True):
        draw_picture(above, lesson.picture, lesson.mask)
        above.set_title(lesson.name.replace(", ", "\n"), fontsize=8, fontweight="normal")
        draw_picture(below, overlay(lesson.picture, anomaly_map, limits=limits), lesson.mask)
    ranges = [
        f"{lesson.name} {float(anomaly_map.min()):.2f} to {float(anomaly_map.max()):.2f}"
        for lesson, anomaly_map in zip(lessons, maps, strict=True)
    ]
    return (
        figure,
        f"Images that are learned from, and the range of their maps: {'; '.join(ranges)}.",
    )


def step_figure(parts: Mapping[str, float], gradients: Mapping[str, float]) -> tuple[Figure, str]:
    """The parts of one loss and the gradient that reaches every learned tensor; the alt text."""
    tall = max(len(parts), len(gradients))
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 0.34 * tall + 0.9))
    titles = ("loss", "length of the gradient")
    for panel, title, values, colour in zip(
        axes, titles, (parts, gradients), PALETTE, strict=False
    ):
        bars = panel.barh(list(values), list(values.values()), height=0.6, color=colour)
        panel.bar_label(bars, fmt="%.3f", fontsize=8, padding=3)
        panel.set_title(title, fontsize=9.5)
        panel.margins(x=0.18)
        panel.invert_yaxis()
        panel.grid(visible=False, axis="y")
        panel.tick_params(labelsize=8)
    texts = [
        ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        for values in (parts, gradients)
    ]
    return figure, f"Parts of the loss: {texts[0]}. Length of the gradient: {texts[1]}."


def word_table(
    nearest: Mapping[str, tuple[Tensor, Tensor]], token_ids: Tensor, states: Sequence[str]
) -> pd.DataFrame:
    """Nearest words of every context vector with their distance, a column a state and time.

    Args:
        nearest: when -> distance to the nearest word, and its place in ``token_ids``, both (s, E).
        token_ids: token ids of the words that were compared.
        states: what each row of the context stands for.
    """
    from clipad_core.clip.open_clip import open_clip

    columns = {}
    for row, state in enumerate(states):
        for when, (distance, place) in nearest.items():
            words = [open_clip.decode(token[None]).strip() for token in token_ids[place[row]]]
            pairs = zip(words, distance[row].tolist(), strict=True)
            columns[f"{state}, {when}"] = [f"{word} ({length:.2f})" for word, length in pairs]
    count = next(iter(nearest.values()))[0].shape[1]
    return pd.DataFrame(columns, index=pd.Index(range(1, count + 1), name="vector"))


def nearest_words(
    nearest: Mapping[str, tuple[Tensor, Tensor]], token_ids: Tensor, states: Sequence[str]
) -> Html:
    """`word_table`, and above it a warning where one word is the nearest to most vectors.

    Such a word lies where vectors of words are few or short, as in a stand-in's vocabulary, and is then
    near to everything: it says nothing of what was learned.
    """
    from clipad_core.clip.open_clip import open_clip

    places = torch.cat([place.flatten() for _, place in nearest.values()])
    values, counts = places.unique(return_counts=True)
    count = int(counts.max())
    word = open_clip.decode(token_ids[values[counts.argmax()]][None]).strip()
    shown = table(word_table(nearest, token_ids, states), "Nearest words of the context vectors")
    if count <= len(places) * MOST:
        return shown
    note = (
        f"“{word}” is the nearest word of {count} of {len(places)} vectors, trained or not: among the "
        f"{len(token_ids):,} known tokens it is near to all of them, so here words say nothing of what "
        "was learned."
    )
    return callout(note, "warning") + shown


def lean_figure(lean: Mapping[str, Tensor], inside: Tensor) -> tuple[Figure, str]:
    """Patches between the two prompts, defect and the rest apart, a panel a learner; the alt text.

    Args:
        lean: title -> cosine with the anomalous minus cosine with the normal prompt, (b, p).
        inside: which patches are mostly defect, (b, p).
    """
    figure, axes = plt.subplots(1, len(lean), figsize=(4.4 * len(lean), 2.8), squeeze=False)
    alt = []
    for panel, (title, values) in zip(axes[0], lean.items(), strict=True):
        groups = {"normal patches": values[~inside], "defect patches": values[inside]}
        edges = np.linspace(float(values.min()), float(values.max()), BINS + 1)
        for name, chosen in groups.items():
            if len(chosen):
                share = np.full(len(chosen), 100 / len(chosen))
                panel.hist(chosen.numpy(), bins=edges, weights=share, alpha=0.6, label=name)
        panel.axvline(0, color="#8a929c", linewidth=1, linestyle="--")
        panel.set_title(title, fontsize=9.5)
        panel.set(xlabel="from “normal” to “damaged”", ylabel="% of the patches of a kind")
        panel.tick_params(labelsize=8)
        if all(len(chosen) for chosen in groups.values()):
            gap = float(groups["defect patches"].mean() - groups["normal patches"].mean())
            alt.append(f"{title}, defect patches lean {gap:+.3f} further to damaged")
    axes[0, -1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure, f"Patches between the two prompts: {'; '.join(alt) or 'no patch is defect'}."
