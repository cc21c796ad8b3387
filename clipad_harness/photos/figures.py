"""Two figures of the notebook on your own images: what was read, and how the scores lie."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from clipad_core.clip.image_file import Pixels
from clipad_core.errors import ClipadError
from clipad_harness.report.figures import PALETTE

_COLUMNS = 4
_NAMED = 12


def contact(images: Sequence[Pixels]) -> Figure:
    """Photos side by side, each as it was read, with its size.

    Raises:
        ClipadError: no photos.
    """
    if not images:
        raise ClipadError("images: found none, expected at least one photo.")
    rows = -(-len(images) // _COLUMNS)
    figure, grid = plt.subplots(rows, _COLUMNS, figsize=(7.2, 2.05 * rows), squeeze=False)
    for axes, image in zip(grid.ravel(), images, strict=False):
        axes.imshow(image)
        axes.set_title(f"{image.shape[1]} x {image.shape[0]}", fontsize=8, fontweight="normal")
    for axes in grid.ravel():
        axes.set_axis_off()
    return figure


def scores_figure(scores: Sequence[float], names: Sequence[str]) -> Figure:
    """A dot a photo, from high to low; the highest are named.

    Args:
        scores: sorted, the highest first.
        names: of the photos, in the same order.
    """
    figure, axes = plt.subplots(figsize=(7.2, 0.24 * min(len(scores), _NAMED) + 1.2))
    count = min(len(scores), _NAMED)
    axes.plot(scores[:count], range(count), "o", color=PALETTE[0])
    axes.plot(scores[count:], [count] * (len(scores) - count), "|", color=PALETTE[0])
    remainder = [f"{len(scores) - count} others"] if len(scores) > count else []
    axes.set_yticks(range(count + len(remainder)))
    axes.set_yticklabels([*names[:count], *remainder], fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel("score")
    return figure
