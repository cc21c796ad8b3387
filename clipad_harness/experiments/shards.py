"""One cell of the grid, what is recorded of it, and the test images it is measured on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypedDict, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from clipad_core.metrics.aupro import AuproDefinition
from clipad_core.metrics.metrics import image_metrics, pixel_metrics
from clipad_harness.base.sealed import read_json, tell_damage, write_json
from clipad_harness.data.images import MaskRule, file_hash, image_size, read_mask, resize_mask

MAIN = "main"


class VariantOf(Protocol):
    """One row of a table: a config under a name, and how it is measured."""

    @property
    def name(self) -> str:
        """`main`, or `group/row` of an ablation."""

    @property
    def aupro(self) -> AuproDefinition:
        """Which published definition of AUPRO."""

    @property
    def fpr_limit(self) -> float:
        """Up to which false-positive rate AUPRO integrates."""


VariantT = TypeVar("VariantT", bound=VariantOf)


@dataclass(frozen=True)
class Shard(Generic[VariantT]):
    """One cell of the grid; a learned method has no references, and its seed is the training's."""

    variant: VariantT
    category: str
    k_shot: int
    seed: int


def measured_on(variant: VariantOf, categories: Sequence[str], limit: int | None) -> list[str]:
    """The categories that a variant is measured on: all, or evenly spread ones for an ablation.

    Args:
        limit: how many an ablation is measured on; None: all.

    >>> from types import SimpleNamespace
    >>> measured_on(SimpleNamespace(name="scales/small"), list("abcdef"), 3)
    ['a', 'c', 'e']
    """
    if limit is None or limit >= len(categories) or variant.name == MAIN:
        return list(categories)
    return [categories[place * len(categories) // limit] for place in range(limit)]


class Record(TypedDict):
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


class DatasetImages:
    """The images and masks of one dataset.

    Args:
        index: the index table.
        data: the dataset's folder.
    """

    def __init__(self, index: pd.DataFrame, data: Path) -> None:
        self.index, self.data = index, data
        self._contents: dict[str, str] = {}
        self._rows: dict[tuple[str, str], pd.DataFrame] = {}
        self._latest_masks: tuple[Hashable, list[NDArray[np.bool_]]] = (None, [])

    def rows(self, category: str, split: str) -> pd.DataFrame:
        """The index rows of one category and split."""
        key = (category, split)
        if key not in self._rows:
            wanted = (self.index["category"] == category) & (self.index["split"] == split)
            self._rows[key] = self.index[wanted]
        return self._rows[key]

    def has_masks(self, category: str) -> bool:
        """Whether every anomalous test image has a mask; without, pixel metrics are undefined."""
        test = self.rows(category, "test")
        return bool((test.loc[test["label"] == 1, "mask"] != "").all())

    def mask(
        self, image: str, mask: str, size: tuple[int, int], rule: MaskRule
    ) -> NDArray[np.bool_]:
        """The mask of an image at the size of its map; a normal image's is empty."""
        if not mask:
            return np.zeros(size, dtype=bool)
        return resize_mask(read_mask(self.data / mask, image_size(self.data / image)), size, rule)

    def masks(
        self, rows: pd.DataFrame, maps: list[NDArray[np.float32]], rule: MaskRule
    ) -> list[NDArray[np.bool_]]:
        """The masks of some rows, each at the size of its map.

        The latest are kept: one shard after the other asks for those of its category.
        """
        sizes = [(one.shape[0], one.shape[1]) for one in maps]
        key = (tuple(rows["image"]), tuple(sizes), rule)
        if self._latest_masks[0] != key:
            parts = zip(rows["image"], rows["mask"], sizes, strict=True)
            found = [self.mask(image, mask, size, rule) for image, mask, size in parts]
            self._latest_masks = (key, found)
        return self._latest_masks[1]

    def content(self, category: str) -> str:
        """SHA-256 over all that the index says of a category and the bytes of its test files."""
        if category not in self._contents:
            found = hashlib.sha256()
            for row in self.rows(category, "test").to_dict("records"):
                found.update(f"{row['image']}|{row['label']}|{row['defect']}".encode())
                for name in (str(row["image"]), str(row["mask"])):
                    found.update(file_hash(self.data / name).encode() if name else b"-")
            self._contents[category] = found.hexdigest()
        return self._contents[category]


def measure(found: CategoryScores, has_masks: bool, variant: VariantOf) -> dict[str, float]:
    """All metrics of a category; one that is undefined for its data is nan."""
    values = image_metrics(found.images["label"].to_numpy(), found.image_scores)
    if has_masks:
        values |= pixel_metrics(
            found.maps, found.masks, aupro=variant.aupro, fpr_limit=variant.fpr_limit
        )
    return values


def hash_of(parts: Mapping[str, Any]) -> str:
    """SHA-256 of everything a result depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def keep(
    folder: Path, key: str, compute: Callable[[], tuple[dict[str, float], list[str]]]
) -> Record:
    """Read a finished shard, or compute its values and references and keep them.

    A file that a disk that filled up, a copy cut short or a changed digit damaged, or that is in the
    place of another, is made again.
    """
    path = folder / "shards" / key[:2] / f"{key}.json"
    record: Record | None = read_json(path, key)
    if record is None:
        tell_damage(path)
        values, references = compute()
        known = {name: None if np.isnan(value) else value for name, value in values.items()}
        record = {"key": key, "values": known, "references": references}
        write_json(path, key, record)
    return record
