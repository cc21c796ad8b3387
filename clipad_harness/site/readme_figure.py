"""The picture of the README: a few test images under the maps of every method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipad_harness.experiments.contenders import Contender
from clipad_harness.report import comparison, galleries
from clipad_harness.report.figures import save, use_house_style

FIGURE = Path("docs/methods.png")
IMAGES = 3


def write_readme_figure(root: Path, among: Sequence[Contender]) -> Path:
    """Draw images that are found best with the most references, a category each, under all maps."""
    use_house_style()
    best = max(among, key=lambda contender: contender.k_shot)
    scored = galleries.score_images(best.scorer, best.k_shot, best.seeds[0])
    chosen = scored.images.loc[galleries.followed(scored, IMAGES)]
    figure, _ = comparison.pictures(best.run.data, chosen, among)
    return save(figure, root / FIGURE)
