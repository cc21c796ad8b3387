"""VCP-CLIP on a few images: the drawings of its page, whose cells compute what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
import torch
from einops import rearrange
from matplotlib.figure import Figure
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_harness.report.map_grid import Pictured, draw_picture
from clipad_harness.report.tables import DASH

# The colours of an attention reach at least this far from an even weight, in multiples of it.
LEAST_REACH = 0.1
STATES = ("good", "damaged")


def strips_figure(strips: Mapping[str, Tensor]) -> tuple[Figure, str]:
    """Vectors as strips of their channels, each with its length; the alt text.

    Args:
        strips: name -> (c,); each strip has its own colours, from its lowest to its highest value.
    """
    figure, axes = plt.subplots(len(strips), 1, figsize=(8.6, 0.42 * len(strips) + 0.5))
    parts = []
    for panel, (name, strip) in zip(np.atleast_1d(axes), strips.items(), strict=True):
        reach = float(strip.abs().max()) or 1.0
        panel.imshow(strip[None].numpy(), cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto")
        panel.set_yticks([0], [name], fontsize=8)
        panel.set_xticks([])
        panel.grid(visible=False)
        length = f"{float(strip.norm()):.2f}"
        panel.annotate(
            length,
            (1.01, 0.5),
            xycoords="axes fraction",
            va="center",
            fontsize=8,
            annotation_clip=False,
        )
        parts.append(f"{name} {length}")
    np.atleast_1d(axes)[-1].set_xlabel(
        f"{len(strip)} channels; at the right the length of the vector", fontsize=8
    )
    return figure, f"Vectors of {len(strip)} channels and their lengths: {'; '.join(parts)}."


def context_figure(text: Tensor, rows: pd.DataFrame) -> tuple[Figure, str]:
    """Text embeddings of one prompt pair, made for many images, in their two main directions.

    Args:
        text: (b, 2, d).
        rows: an index row an image, in the same order.
    """
    points = rearrange(text, "b s d -> (b s) d")
    centred = points - points.mean(dim=0)
    _, lengths, directions = torch.linalg.svd(centred, full_matrices=False)
    # The sign of a singular vector is arbitrary; its largest entry decides it here.
    signs = torch.stack(
        [torch.sign(direction[direction.abs().argmax()]) for direction in directions[:2]]
    )
    places = (centred @ directions[:2].T * signs).numpy()
    states = np.tile(STATES, len(rows))
    names = np.repeat(rows["category"].str.replace("_", " ").to_numpy(), 2)
    figure, axes = plt.subplots(figsize=(6.6, 3.9))
    seaborn.scatterplot(
        x=places[:, 0], y=places[:, 1], hue=names, style=states, s=34, alpha=0.8, ax=axes
    )
    axes.set(xlabel="first direction", ylabel="second direction")
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    share = float((lengths[:2] ** 2).sum() / (lengths**2).sum())
    between, within = _spreads(text, list(rows["category"]))
    distances = [DASH if np.isnan(value) else f"{value:.4f}" for value in (within, between)]
    return figure, (
        f"Text embeddings of {len(rows)} images, {100 * share:.0f} % of their variance shown. Cosine "
        f"distance between images of one category {distances[0]}, of different ones {distances[1]}."
    )


def _spreads(text: Tensor, names: list[str]) -> tuple[float, float]:
    """Mean cosine distance of anomalous prompts between images of different and of one category."""
    cosine = 1 - text[:, 1] @ text[:, 1].T
    same = torch.tensor([[a == b for b in names] for a in names])
    different = ~same
    same.fill_diagonal_(False)
    return float(cosine[different].mean()), float(cosine[same].mean())


def attention_figure(
    backbone: Backbone, examples: Sequence[Pictured], attention: Tensor
) -> tuple[Figure, str]:
    """What the normal and the anomalous text embedding look at, heads averaged; the alt text.

    Args:
        attention: (b, m, 2, p).
    """
    grid = backbone.vision.grid
    figure, axes = plt.subplots(
        len(examples), 4, figsize=(8.4, 2.05 * len(examples)), squeeze=False
    )
    peaks = []
    for line, example, weights in zip(axes, examples, attention.mean(dim=1), strict=True):
        draw_picture(line[0], example.picture, example.mask)
        line[0].set_ylabel(example.name.replace(", ", "\n"), fontsize=8)
        pictures = {f"“{state}” looks at": row for state, row in zip(STATES, weights, strict=True)}
        pictures["damaged − good"] = weights[1] - weights[0]
        for panel, (title, row) in zip(line[1:], pictures.items(), strict=True):
            # What hardly differs from even attention must not look as if it did.
            multiples = (len(row) * row).reshape(grid).numpy()
            even = 0.0 if "−" in title else 1.0
            reach = max(LEAST_REACH, float(np.abs(multiples - even).max()))
            drawn = panel.imshow(multiples, cmap="RdBu_r", vmin=even - reach, vmax=even + reach)
            figure.colorbar(drawn, ax=panel, fraction=0.046, pad=0.04).ax.tick_params(labelsize=6)
            panel.set_xticks([])
            panel.set_yticks([])
            panel.set_title(title, fontsize=8.5, fontweight="normal")
        peaks.append(f"{float(weights[1].max()) * weights.shape[1]:.1f}")
    return figure, (
        "Attention of both text embeddings to the patches; highest weight of “damaged”, as a multiple "
        f"of an even one: {', '.join(peaks)}."
    )


def heads_figure(backbone: Backbone, example: Pictured, attention: Tensor) -> tuple[Figure, str]:
    """The attention of every head of both text embeddings over one image; the alt text.

    Args:
        attention: (m, 2, p).
    """
    grid = backbone.vision.grid
    multiples = (attention * attention.shape[-1]).numpy()
    wide = 1 + len(multiples)
    side = min(1.5, 9.8 / wide)
    figure, axes = plt.subplots(2, wide, figsize=(side * wide + 0.5, 2 * side + 0.4))
    reach = max(LEAST_REACH, float(np.abs(multiples - 1).max()))
    for row, state in enumerate(STATES):
        draw_picture(axes[row, 0], example.picture, example.mask)
        axes[row, 0].set_ylabel(f"“{state}”", fontsize=8)
        for head, panel in enumerate(axes[row, 1:]):
            picture = multiples[head, row].reshape(grid)
            drawn = panel.imshow(picture, cmap="RdBu_r", vmin=1 - reach, vmax=1 + reach)
            panel.set_xticks([])
            panel.set_yticks([])
            if row == 0:
                panel.set_title(f"head {head + 1}", fontsize=8, fontweight="normal")
    bar = figure.colorbar(drawn, ax=list(axes.ravel()), fraction=0.02, pad=0.01)
    bar.ax.tick_params(labelsize=7)
    bar.set_label("times an even weight", fontsize=8)
    apart = np.abs(multiples[:, 1] - multiples[:, 0]).max(axis=1)
    words = ", ".join(f"{head + 1}: {value:.2f}" for head, value in enumerate(apart))
    return figure, (
        f"{example.name}: attention of {len(multiples)} heads. Largest difference between the two states, "
        f"in even weights, by head: {words}."
    )
