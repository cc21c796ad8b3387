"""A few images as the backbone sees them, to follow the method step by step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.preprocess import Placement, Views
from clipad_core.clip.published import MEAN, STD
from clipad_core.errors import ClipadError
from clipad_core.methods.winclip.detector import Recipe, reference_recipe, views_of
from clipad_harness.data.images import image_size, read_image, read_mask
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.shards import Shard
from clipad_harness.report.map_grid import Pictured


@dataclass(frozen=True)
class Example(Pictured):
    """One test image; of a long image the tile with most of the defect."""

    views: Views


def load_examples(
    data: Path, rows: pd.DataFrame, backbone: Backbone, recipe: Recipe
) -> list[Example]:
    """The images of some index rows, ready for `encode` and for drawing."""
    found = []
    for row in rows.to_dict("records"):
        path = data / str(row["image"])
        views = views_of(backbone, np.asarray(read_image(path)), recipe)
        size, mask, best = backbone.image_size, None, 0
        if row["mask"]:
            full = _to_canvas(read_mask(data / str(row["mask"]), image_size(path)), views)
            cuts = [
                full[top : top + size, left : left + size] for left, top in views.placement.corners
            ]
            best = int(np.argmax([cut.sum() for cut in cuts]))
            mask = cuts[best]
        place = Placement(((0, 0),), (size, size))
        one = Views(views.pixels[best : best + 1], views.crops[:0], place)
        picture = to_picture(one.pixels[0])
        found.append(Example(str(row["category"]), str(row["defect"]), picture, mask, one))
    return found


def _to_canvas(mask: NDArray[np.bool_], views: Views) -> NDArray[np.bool_]:
    # Area averages keep thin defects that the nearest rule of the metrics would break up.
    floats = torch.from_numpy(mask.astype(np.float32))[None, None]
    resized = torch.nn.functional.interpolate(floats, views.placement.canvas, mode="area")
    return np.asarray(resized[0, 0].numpy() > 0.3)


def to_picture(pixels: Tensor) -> NDArray[np.uint8]:
    """Normalised pixels (3, H, W) back to what a reader can look at."""
    mean, std = pixels.new_tensor(MEAN)[:, None, None], pixels.new_tensor(STD)[:, None, None]
    shown = ((pixels * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    return shown.permute(1, 2, 0).numpy()


def plain(recipe: Recipe) -> Recipe:
    """The recipe without multi-crop views, which no picture here shows."""
    return replace(recipe, multi_crop="none")


def load_references(scorer: Scorer, category: str, k_shot: int, seed: int) -> list[Example]:
    """The k reference images of a category as the main variant chooses them.

    Raises:
        ClipadError: k is 0.
    """
    if k_shot < 1:
        raise ClipadError("winclip.k_shots: found only 0, expected a number above 0; add 1.")
    shard = Shard(scorer.among[0], category, k_shot, seed)
    config = scorer.config(shard)
    names = [path.relative_to(scorer.data).as_posix() for path in scorer.references(shard)]
    rows = pd.DataFrame(
        [{"category": category, "defect": "good", "image": n, "mask": ""} for n in names]
    )
    return load_examples(scorer.data, rows, scorer.backbone(config), reference_recipe(config))
