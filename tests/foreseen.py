"""Contenders whose scores a test knows, in place of methods."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from clipad_harness.experiments.by_image import ByImage, by_image
from clipad_harness.experiments.scorer import Mapped
from clipad_harness.experiments.shards import CategoryScores, measure

LABELS = np.array([0] * 10 + [1] * 10)


def category_scores(strength: float, seed: int, masks: bool = True) -> CategoryScores:
    """Twenty images of 16 pixels a side; the higher the strength, the clearer the defects."""
    rng = np.random.default_rng(seed)
    rows = [
        {"category": "nut", "image": f"{i}.png", "defect": "hole" if label else "good",
         "label": label, "mask": "m.png" if label and masks else ""}
        for i, label in enumerate(LABELS)
    ]  # fmt: skip
    truth = [np.zeros((16, 16), dtype=bool) for _ in LABELS]
    for label, mask in zip(LABELS, truth):
        mask[4:8, 4:10] = bool(label)
    maps = [(rng.random((16, 16)) + strength * mask).astype(np.float32) for mask in truth]
    scores = (rng.random(len(LABELS)) + strength * LABELS).astype(np.float32)
    return CategoryScores(pd.DataFrame(rows), scores, maps, truth, [])


@dataclass(frozen=True)
class Foreseen:
    """A contender whose scores a test knows."""

    label: str
    strength: float
    seeds: tuple[int, ...] = (0,)
    masks: bool = True
    reads: str = "x"
    learned: int = 5
    operations: float = 2e9

    def scores(self, seed: int) -> CategoryScores:
        return category_scores(self.strength, 100 * int(10 * self.strength) + seed, self.masks)

    def test_images(self, _category: str) -> pd.DataFrame:
        return self.scores(0).images

    def by_image(self, _category: str, seed: int) -> ByImage:
        scores = self.scores(seed)
        values = measure(scores, self.masks, "cflow200", 0.3)
        return by_image(scores, values, self.masks, "cflow200", 0.3)

    def maps(self, _category: str, images: list[str]) -> dict[str, Mapped]:
        scores = self.scores(self.seeds[0])
        places = [list(scores.images["image"]).index(name) for name in images]
        return {name: Mapped(scores.maps[i], scores.masks[i]) for name, i in zip(images, places)}
