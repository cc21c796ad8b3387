"""What is scored and measured of one category, and what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from clipad_core.metrics import METRICS
from clipad_core.metrics.aupro import AuproDefinition, Pixels, pool_pixels
from clipad_core.metrics.metrics import UNDEFINED, image_metrics, metrics_of_pixels
from clipad_harness.base.sealed import read_json, tell_damage, write_json

MAIN = "main"


def measured_on(name: str, categories: Sequence[str], limit: int | None) -> list[str]:
    """The categories that a variant is measured on: all, or evenly spread ones for an ablation.

    Args:
        name: of the variant.
        limit: how many an ablation is measured on; None: all.

    >>> measured_on("scales/small", list("abcdef"), 3)
    ['a', 'c', 'e']
    """
    if limit is None or limit >= len(categories) or name == MAIN:
        return list(categories)
    return [categories[place * len(categories) // limit] for place in range(limit)]


@dataclass(frozen=True)
class Record:
    """A finished shard as its file holds it; None is an undefined metric."""

    key: str
    values: dict[str, float | None]
    references: list[str]


@dataclass(frozen=True)
class CategoryScores:
    """Scores of all test images of a category, in the order of the index, as `as_measured` gives them."""

    images: pd.DataFrame
    image_scores: NDArray[np.float32]
    maps: list[NDArray[np.float32]]
    masks: list[NDArray[np.bool_]]
    references: list[str]

    @cached_property
    def pixels(self) -> Pixels:
        """All pixels, pooled and ranked once for whatever is measured of them."""
        return pool_pixels(self.maps, self.masks)


def as_measured(values: Tensor) -> NDArray[np.float32]:
    """Scores or a map as every metric, table and picture sees them: rounded to 24 bits.

    The published codes measure in float32 as well. Of float64 it takes the last bits away, in which one
    CPU differs from another: what is equal but for the order of additions becomes equal, and no
    threshold falls between the two.

    >>> import torch
    >>> one, other = as_measured(torch.tensor([0.1 + 0.2, 0.3], dtype=torch.float64))
    >>> 0.1 + 0.2 == 0.3, bool(one == other)
    (False, True)
    """
    return np.asarray(values.float().cpu().numpy())


def measure(
    scored: CategoryScores, has_masks: bool, aupro: AuproDefinition, fpr_limit: float
) -> dict[str, float]:
    """All metrics of a category; one that is undefined for its data is nan."""
    values = dict.fromkeys(METRICS, UNDEFINED)
    values |= image_metrics(scored.images["label"].to_numpy(), scored.image_scores)
    if has_masks:
        values |= metrics_of_pixels(scored.pixels, aupro=aupro, fpr_limit=fpr_limit)
    return values


def read_record(folder: Path, key: str) -> Record | None:
    """A finished shard; None where its file is missing, or damaged, which is told.

    A file that a disk that filled up, a copy cut short or a changed digit damaged, or that is in the
    place of another, is made again.
    """
    path = _path(folder, key)
    record: Record | None = read_json(path, key, Record)
    if record is None:
        tell_damage(path)
    return record


def keep_record(
    folder: Path, key: str, values: Mapping[str, float], references: list[str]
) -> Record:
    """Keep the metrics of a shard, where nan is undefined, and its references."""
    numbers = {name: None if np.isnan(value) else value for name, value in values.items()}
    record = Record(key, numbers, references)
    write_json(_path(folder, key), key, asdict(record))
    return record


def _path(folder: Path, key: str) -> Path:
    return folder / "shards" / key[:2] / f"{key}.json"
