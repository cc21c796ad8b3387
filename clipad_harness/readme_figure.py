"""The picture of the README: a few test images under the maps of every method."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import torch

from clipad_harness import comparison_page, gallery
from clipad_harness.contenders import contenders
from clipad_harness.figures import use_house_style
from clipad_harness.files import replacing
from clipad_harness.pipeline import open_run

FIGURE = Path("docs/methods.png")
IMAGES = 3


def write_readme_figure(root: Path) -> Path:
    """Stage `figure`: images that WinCLIP+ finds best, a category each, with everybody's maps."""
    torch.set_num_threads(1)
    use_house_style()
    run = open_run(root)
    k_shot = max(run.settings.k_shots)
    scored = gallery.score_images(run.scorer(), k_shot, run.settings.seeds[0])
    chosen = scored.images.loc[gallery.best(scored, IMAGES)]
    figure, _ = comparison_page.pictures(run.data, chosen, contenders(root))
    with replacing(root / FIGURE) as temporary:
        # Without the library's name and version, so that the bytes depend on the picture alone.
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
    return root / FIGURE
