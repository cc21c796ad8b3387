"""The picture of the README: a few test images under the maps of every method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib.pyplot as plt

from clipad_harness.base.files import replacing
from clipad_harness.experiments.pipeline import Run
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.shards import CategoryScores
from clipad_harness.report import comparison, galleries
from clipad_harness.report.figures import use_house_style

FIGURE = Path("docs/methods.png")
IMAGES = 3


def write_readme_figure(
    root: Path,
    run: Run,
    scorer: Scorer,
    methods: Mapping[str, Callable[[str], CategoryScores]],
) -> Path:
    """Draw images that WinCLIP+ finds best, a category each, under everybody's maps.

    Args:
        scorer: WinCLIP's.
        methods: label -> what a method found on a category's test images.
    """
    use_house_style()
    scored = galleries.score_images(scorer, max(run.settings.k_shots), run.settings.seeds[0])
    chosen = scored.images.loc[galleries.best(scored, IMAGES)]
    shown = comparison.under_maps(run.data, chosen, methods)
    figure, _ = comparison.pictures([shown[image] for image in chosen["image"]])
    with replacing(root / FIGURE) as temporary:
        # Without the library's name and version, so that the bytes depend on the picture alone.
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
    return root / FIGURE
