"""A few images and their maps side by side: what every page draws when it follows a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from torch import Tensor

from clipad_core.maps import upsample
from clipad_core.metrics.metrics import auroc
from clipad_harness.report.figures import outline, overlay

LEAST_SHOWN = 1e-6


# Inches: a column that is narrower has what stands above and below it in two lines.
NARROW = 1.4


@dataclass(frozen=True)
class Pictured:
    """A test image as the backbone sees it.

    Attributes:
        picture: (S, S, 3).
        mask: the labelled defect, (S, S); None where the image is normal or none is known.
    """

    category: str
    defect: str
    picture: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None

    @property
    def name(self) -> str:
        """Category and defect in words."""
        return f"{self.category}, {self.defect}".replace("_", " ")


def map_grid(
    examples: Sequence[Pictured],
    columns: Mapping[str, Sequence[Tensor]],
    unrated: Sequence[str] = (),
) -> tuple[Figure, str]:
    """Every example in a row: the image, then one map a column; and the alt text.

    Colours run from the lowest to the highest score of each map. Below a map stand that range and,
    where there is a mask, the map's own pixel AUROC.

    Args:
        examples: the rows.
        columns: title -> one map (h, w) an example, on any grid.
        unrated: columns that are no scores and get no AUROC.
    """
    wide = len(columns) + 1
    side = min(1.75, 9.6 / wide)
    gap = "\n" if side < NARROW else " "  # words that stand side by side, or below each other
    figure, axes = plt.subplots(
        len(examples),
        wide,
        figsize=(side * wide, (side + 0.2) * len(examples)),
        squeeze=False,
        layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.02, wspace=0.01, hspace=0.01),
    )
    for row, (example, line) in enumerate(zip(examples, axes, strict=True)):
        draw_picture(line[0], example.picture, example.mask)
        line[0].set_ylabel(example.name.replace(", ", "\n"), fontsize=8)
        for panel, (title, maps) in zip(line[1:], columns.items(), strict=True):
            _draw_map(panel, example, maps[row], rated=title not in unrated, gap=gap)
            if row == 0:
                words = title.replace(", ", f",{gap}")
                panel.set_title(words, fontsize=8.5, fontweight="normal")
    rated = {title: maps for title, maps in columns.items() if title not in unrated}
    return figure, _maps_alt(examples, rated)


def draw_picture(
    axes: Axes, picture: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None
) -> None:
    """An image without ticks, its defect outlined."""
    axes.imshow(picture)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if mask is not None and mask.any():
        outline(axes, mask)


def _draw_map(axes: Axes, example: Pictured, grid: Tensor, *, rated: bool, gap: str) -> None:
    full = _full(example, grid)
    draw_picture(axes, overlay(example.picture, full), example.mask)
    about = f"{_short(grid.min())} to {_short(grid.max())}"
    own = _own_auroc(example, full) if rated else None
    about += "" if own is None else f";{gap}AUROC {own:.0f}"
    axes.set_xlabel(about, fontsize=7.5, loc="left", labelpad=2)


def _short(score: Tensor) -> str:
    """Two digits; what a column cannot tell from 0, as 0."""
    return f"{score:.2g}" if abs(score) >= LEAST_SHOWN else "0"


def _full(example: Pictured, grid: Tensor) -> NDArray[np.float32]:
    side = example.picture.shape[0]
    return np.asarray(upsample(grid[None], (side, side))[0].numpy())


def _own_auroc(example: Pictured, full: NDArray[np.float32]) -> float | None:
    if example.mask is None or not example.mask.any():
        return None
    return 100 * auroc(example.mask.ravel().astype(int), full.ravel())


def _maps_alt(examples: Sequence[Pictured], columns: Mapping[str, Sequence[Tensor]]) -> str:
    """A map grid in words: what is shown, and the pixel AUROC of every map."""
    parts = []
    for row, example in enumerate(examples):
        aurocs = [
            f"{title} {value:.0f}"
            for title, maps in columns.items()
            if (value := _own_auroc(example, _full(example, maps[row]))) is not None
        ]
        parts.append(f"{example.name} ({', '.join(aurocs) or 'no mask'})")
    return f"Maps over {len(examples)} images, in brackets their pixel AUROC: {'; '.join(parts)}."
