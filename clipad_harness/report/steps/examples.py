"""A few images as a method's backbone sees them, to follow the method step by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipad_core.clip.features import Features, Recipe, views_of
from clipad_core.clip.preprocess import Views
from clipad_core.clip.published import MEAN, STD
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_harness.data.images import image_size, read_image, read_mask
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.variants import Shard
from clipad_harness.report.map_grid import Pictured


@dataclass(frozen=True)
class Example(Pictured):
    """One test image and what the frozen tower says of it; of a long image the tile with most defect.

    Attributes:
        pixels: normalised, (1, 3, S, S).
        features: of the pixels, as the main variant's recipe asks.
    """

    pixels: Tensor
    features: Features


def load_examples(scorer: Scorer, rows: pd.DataFrame, k_shot: int = 0) -> list[Example]:
    """The images of some index rows of the tested dataset, encoded as the main variant asks."""
    config = scorer.among[0].config
    recipe = find_method(scorer.name).recipe(config, k_shot)
    return [_example(scorer, row, recipe) for row in rows.to_dict("records")]


def _example(scorer: Scorer, row: dict, recipe: Recipe) -> Example:
    method, backbone = find_method(scorer.name), scorer.backbone(scorer.among[0].config)
    recipe = recipe.without_crops()
    path = scorer.data / str(row["image"])
    views = views_of(backbone, np.asarray(read_image(path)), recipe)
    size, mask, best = views.pixels.shape[-1], None, 0
    if row["mask"]:
        full = _to_canvas(read_mask(scorer.data / str(row["mask"]), image_size(path)), views)
        cuts = [full[top : top + size, left : left + size] for left, top in views.placement.corners]
        best = int(np.argmax([cut.sum() for cut in cuts]))
        mask = cuts[best]
    pixels = views.pixels[best : best + 1]
    features = method.encode(backbone, pixels, recipe)
    names = str(row["category"]), str(row["defect"])
    return Example(*names, to_picture(pixels[0]), mask, pixels, features)


def _to_canvas(mask: NDArray[np.bool_], views: Views) -> NDArray[np.bool_]:
    # Area averages keep thin defects that the rules of the metrics would break up.
    floats = torch.from_numpy(mask.astype(np.float32))[None, None]
    resized = torch.nn.functional.interpolate(floats, views.placement.canvas, mode="area")
    return np.asarray(resized[0, 0].numpy() > 0.3)


def to_picture(pixels: Tensor) -> NDArray[np.uint8]:
    """Normalised pixels (3, H, W) back to what a reader can look at."""
    mean, std = pixels.new_tensor(MEAN)[:, None, None], pixels.new_tensor(STD)[:, None, None]
    shown = ((pixels * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    return shown.permute(1, 2, 0).numpy()


def load_references(scorer: Scorer, category: str, k_shot: int, seed: int) -> list[Example]:
    """The k reference images of a category as the main variant chooses and encodes them.

    Raises:
        ClipadError: k is 0, or the method reads no references.
    """
    references, main = find_method(scorer.name).references, scorer.among[0]
    if k_shot < 1 or references is None:
        raise ClipadError(f"{scorer.name}.k_shots: found only 0, expected a number above 0; add 1.")
    recipe = references.recipe(main.config)
    return [
        _example(
            scorer,
            {
                "category": category,
                "defect": "good",
                "image": path.relative_to(scorer.data).as_posix(),
                "mask": "",
            },
            recipe,
        )
        for path in scorer.references(Shard(main, category, k_shot, seed))
    ]
