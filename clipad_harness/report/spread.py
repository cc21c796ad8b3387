"""How much the rows of a question differ among each other, before and after a change.

Rows that differ in one word should be equal where the word does not matter. Images are drawn again with
replacement, the same for all rows, as in `side_by_side`.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from clipad_harness.report.figures import PALETTE, show
from clipad_harness.report.questions import LEVELS, Asked, Verdict, verdict_word
from clipad_harness.report.side_by_side import LEAST_IMAGES, middle, resampled
from clipad_harness.report.tables import DASH, percent


def deviations(asked: Asked, level: str, seed: int = 0) -> NDArray[np.float64]:
    """The standard deviation over rows of the mean AUROC, in points, in every resample of the images.

    Args:
        level: `image` or `pixel`.
        seed: of the resamples: the same images are drawn for all rows, and for two questions on the
            same categories.

    Returns:
        Nan where undefined, and where there are too few images (`LEAST_IMAGES`).
    """
    first, drawn = asked.labels[0], asked.measured.drawn
    images = sum(np.bincount(drawn[first, name].labels, minlength=2) for name in asked.categories)
    rows = []
    for label in asked.labels:
        differences = [
            resampled(drawn[label, name], drawn[first, name], level, place, seed)
            for place, name in enumerate(asked.categories)
        ]
        rows.append(np.mean(differences, axis=0))
    spread: NDArray[np.float64] = 100 * np.std(rows, axis=0)
    return spread if np.min(images) >= LEAST_IMAGES else np.full_like(spread, np.nan)


def shrinks(before: Asked, after: Asked, level: str, share: float) -> Verdict | None:
    """Whether the rows of one question differ by less than a share of what those of another do.

    Returns:
        None where one of them has no rows; undecided where no interval is defined.
    """
    if not before.among or not after.among:
        return None
    first, second = (deviations(asked, level) for asked in (before, after))
    word = verdict_word(*middle(share * first - second))
    said = []
    for asked, samples in ((before, first), (after, second)):
        own = percent(float(np.std(asked.values(f"{level}_auroc"))))
        ends = ", ".join(percent(end) for end in middle(samples))
        said.append(f"{own} [{ends}] points in {asked.group}")
    return Verdict(word, f"the deviation over rows by {level} AUROC is {' and '.join(said)}")


def slopes(before: Asked, after: Asked, kinds: Mapping[str, str]) -> None:
    """Display every row's AUROC in two questions, joined by a line; nothing where one has no rows.

    Args:
        kinds: of the rows, by label: what they are coloured by.
    """
    if not before.among or not after.among:
        return
    colours = dict(zip(dict.fromkeys(kinds.values()), PALETTE, strict=False))
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 4.2))
    said = []
    for panel, level in zip(axes, LEVELS, strict=True):
        ends = [asked.values(f"{level}_auroc") for asked in (before, after)]
        for label in before.labels:
            values = [float(end[label]) for end in ends]
            panel.plot(values, marker="o", markersize=4, linewidth=1, color=colours[kinds[label]])
        spans = [" to ".join(_named(end, place) for place in (0, -1)) for end in ends]
        said.append(f"{level} AUROC before {spans[0]}, after {spans[1]}")
        panel.set_xticks([0, 1], [fill(asked.group, 14) for asked in (before, after)])
        panel.set(xlim=(-0.25, 1.25), title=f"{level} AUROC, per cent")
        seaborn.despine(ax=panel)
    handles = [Line2D([], [], color=colour, marker="o") for colour in colours.values()]
    figure.legend(handles, list(colours), loc="outside lower center", ncols=2, frameon=False)
    about = f"{before.title}, every line a row; {'; '.join(said)}"
    show(figure, f"{about}.", caption=about)


def _named(values: pd.Series, place: int) -> str:
    """The lowest or the highest value and the row that has it; a dash where none is defined."""
    ranked = values.dropna().sort_values(kind="stable")
    return f"{percent(ranked.iloc[place])} ({ranked.index[place]})" if len(ranked) else DASH
