"""A few images as a method's backbone sees them, to follow the method step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.device import CPU
from clipad_core.clip.features import Features, Recipe, join, views_of
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


def load_examples(
    scorer: Scorer, rows: pd.DataFrame, k_shot: int = 0, data: Path | None = None
) -> list[Example]:
    """The images of some index rows, encoded as the main variant asks.

    Args:
        k_shot: number of references that the recipe is of.
        data: folder of the dataset that the rows are of; None: the tested one's.
    """
    config = scorer.variants[0].config
    recipe, folder = find_method(scorer.name).recipe(config, k_shot), data or scorer.tested.data
    backbone = scorer.backbone(config).to(CPU)
    return [_example(scorer, backbone, row, recipe, folder) for row in rows.to_dict("records")]


def as_batch(examples: Sequence[Example]) -> tuple[Tensor, Features, Tensor]:
    """Pixels (b, 3, S, S), features and masks (b, S, S) of some images; a mask of zeros for none."""
    pixels = torch.cat([example.pixels for example in examples])
    masks = pixels.new_zeros(len(pixels), *pixels.shape[-2:])
    for place, example in enumerate(examples):
        if example.mask is not None:
            masks[place] = torch.from_numpy(example.mask)
    return pixels, join([example.features for example in examples]), masks


def pick_lessons(index: pd.DataFrame, count: int = 2) -> pd.DataFrame:
    """A few test images to show a step of training with: of each label one of the first categories.

    >>> rows = [(c, s, l) for c in "ab" for s in ("train", "test") for l in (0, 1, 1)]
    >>> pick_lessons(pd.DataFrame(rows, columns=["category", "split", "label"]), 1).index.tolist()
    [3, 4]
    """
    test = index[index["split"] == "test"]
    firsts = test.groupby(["category", "label"], sort=False).head(1)
    return firsts.groupby("label", sort=False).head(count)


def _example(
    scorer: Scorer, backbone: Backbone, row: dict, recipe: Recipe, folder: Path
) -> Example:
    method = find_method(scorer.name)
    recipe = recipe.without_crops()
    path = folder / str(row["image"])
    views = views_of(backbone, np.asarray(read_image(path)), recipe)
    size, mask, best = views.pixels.shape[-1], None, 0
    if row["mask"]:
        full = _to_canvas(read_mask(folder / str(row["mask"]), image_size(path)), views)
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
    picture = ((pixels * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    return picture.permute(1, 2, 0).numpy()


def load_references(scorer: Scorer, category: str, k_shot: int, seed: int) -> list[Example]:
    """The k reference images of a category as the main variant chooses and encodes them.

    Raises:
        ClipadError: k is 0, or the method reads no references.
    """
    references, main = find_method(scorer.name).references, scorer.variants[0]
    if k_shot < 1 or references is None:
        raise ClipadError(f"{scorer.name}.k_shots: found only 0, expected a number above 0; add 1.")
    recipe, backbone = references.recipe(main.config), scorer.backbone(main.config).to(CPU)
    return [
        _example(
            scorer,
            backbone,
            {
                "category": category,
                "defect": "good",
                "image": path.relative_to(scorer.tested.data).as_posix(),
                "mask": "",
            },
            recipe,
            scorer.tested.data,
        )
        for path in scorer.references(Shard(main, category, k_shot, seed))
    ]
