"""A few images as a learned method sees them, to follow it step by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from clipad_core.learned.features import FrozenFeatures
from clipad_harness.data.images import image_size, read_image, read_mask, resize_mask
from clipad_harness.experiments.learned_scorer import LearnedScorer
from clipad_harness.experiments.methods import find_method
from clipad_harness.experiments.training_data import as_input
from clipad_harness.report.map_grid import Pictured
from clipad_harness.report.steps.winclip_examples import to_picture


@dataclass(frozen=True)
class Example(Pictured):
    """One test image and what the frozen tower says of it.

    Attributes:
        pixels: normalised, (1, 3, S, S).
    """

    pixels: Tensor
    features: FrozenFeatures


def load_examples(scorer: LearnedScorer, rows: pd.DataFrame) -> list[Example]:
    """The images of some index rows of the tested dataset, encoded as the main variant asks."""
    config, method = scorer.among[0].config, find_method(scorer.trainer.name)
    backbone, found = scorer.backbone(config), []
    for row in rows.to_dict("records"):
        path = scorer.data / str(row["image"])
        pixels = as_input(np.asarray(read_image(path)), config.image_size, backbone.dtype)
        mask: NDArray[np.bool_] | None = None
        if row["mask"]:
            full = read_mask(scorer.data / str(row["mask"]), image_size(path))
            mask = resize_mask(full, (config.image_size, config.image_size), "bilinear_half")
        features = method.encode(backbone, pixels, method.recipe(config))
        names = str(row["category"]), str(row["defect"])
        found.append(Example(*names, to_picture(pixels[0]), mask, pixels, features))
    return found
