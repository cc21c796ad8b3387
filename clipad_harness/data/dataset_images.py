"""The images and masks of one dataset, by category and split."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from clipad_core.errors import ClipadError
from clipad_core.methods.method import Category
from clipad_harness.data.images import MaskRule, file_hash, image_size, read_mask, resize_mask

# zqhang/Accurate-WinCLIP-pytorch draws its references after torch.manual_seed(10).
ZQHANG_SEED = 10


class DatasetImages:
    """The images and masks of one dataset.

    Args:
        index: the index table.
        data: the dataset's folder.
        phrases: by category, how an engineer would describe its damage; of the dataset's card.
    """

    def __init__(
        self, index: pd.DataFrame, data: Path, phrases: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        self.index, self.data, self._phrases = index, data, phrases or {}
        self._contents: dict[str, str] = {}
        self._described: dict[str, Category] = {}
        self._rows: dict[tuple[str, str], pd.DataFrame] = {}
        self._latest_masks: tuple[Hashable, list[NDArray[np.bool_]]] = (None, [])

    @property
    def categories(self) -> list[str]:
        """All categories, in the order of the index."""
        return list(dict.fromkeys(self.index["category"]))

    def paths(self, category: str, split: str) -> list[Path]:
        """The files of one category and split."""
        return self.files(self.rows(category, split))

    def files(self, rows: pd.DataFrame) -> list[Path]:
        """The files of some rows of the index."""
        return [self.data / name for name in rows["image"]]

    def defects(self, category: str) -> tuple[str, ...]:
        """How the dataset calls the kinds of damage of a category."""
        kinds = self.rows(category, "test")["defect"]
        return tuple(dict.fromkeys(kind for kind in kinds if kind != "good"))

    def described(self, category: str) -> Category:
        """A category with all words that prompts can name of it.

        Its `other_defects` are the first kinds of damage of the categories behind it, in a circle,
        that it does not show, no more than its own; its `other_phrases` those of the next category
        that has some.
        """
        if category not in self._described:
            self._described[category] = self._describe(category)
        return self._described[category]

    def _describe(self, category: str) -> Category:
        names, own = self.categories, self.defects(category)
        place = names.index(category)
        behind = (*names[place + 1 :], *names[:place])
        foreign = dict.fromkeys(k for name in behind for k in self.defects(name) if k not in own)
        described = list(self._phrases)
        later = [name for name in (*behind, *described) if name in described and name != category]
        return Category(
            category,
            defects=own,
            other_defects=tuple(foreign)[: len(own)],
            phrases=self._phrases.get(category, ()),
            other_phrases=self._phrases[later[0]] if later else (),
        )

    def references(self, category: str, k_shot: int, seed: int, rule: str) -> list[Path]:
        """The k normal training images that a seed chooses; see `choose_references`."""
        return choose_references(self.paths(category, "train"), k_shot, seed, rule)

    def rows(self, category: str, split: str) -> pd.DataFrame:
        """The index rows of one category and split."""
        key = (category, split)
        if key not in self._rows:
            selection = (self.index["category"] == category) & (self.index["split"] == split)
            self._rows[key] = self.index[selection]
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
        sizes = [(anomaly_map.shape[0], anomaly_map.shape[1]) for anomaly_map in maps]
        key = (tuple(rows["image"]), tuple(sizes), rule)
        if self._latest_masks[0] != key:
            parts = zip(rows["image"], rows["mask"], sizes, strict=True)
            masks = [self.mask(image, mask, size, rule) for image, mask, size in parts]
            self._latest_masks = (key, masks)
        return self._latest_masks[1]

    def content(self, category: str) -> str:
        """SHA-256 over all that the index says of a category and the bytes of its test files."""
        if category not in self._contents:
            digest = hashlib.sha256()
            for row in self.rows(category, "test").to_dict("records"):
                digest.update(f"{row['image']}|{row['label']}|{row['defect']}".encode())
                for name in (str(row["image"]), str(row["mask"])):
                    digest.update(file_hash(self.data / name).encode() if name else b"-")
            self._contents[category] = digest.hexdigest()
        return self._contents[category]


def choose_references(paths: Sequence[Path], k_shot: int, seed: int, rule: str) -> list[Path]:
    """Choose k normal references, the same on every machine.

    - ``seeded``: without replacement; the same seed's 1-shot reference is among its 4-shot ones.
    - ``first``: the first k in name order (anomalib with a folder).
    - ``with_replacement``: zqhang's rule, which may choose an image twice.

    Raises:
        ClipadError: fewer references than k.

    >>> [path.name for path in choose_references([Path("a"), Path("b"), Path("c")], 2, 0, "first")]
    ['a', 'b']
    """
    if k_shot > len(paths):
        raise ClipadError(
            f"k_shots: found {k_shot}, expected at most {len(paths)} (the normal training images of "
            "this category); lower k_shots or add images to train/good."
        )
    if rule == "first":
        return list(paths[:k_shot])
    generator = torch.Generator()
    if rule == "with_replacement":
        generator.manual_seed(ZQHANG_SEED + seed)
        chosen = torch.randint(0, len(paths), (k_shot,), generator=generator)
    else:
        generator.manual_seed(seed)
        chosen = torch.randperm(len(paths), generator=generator)[:k_shot]
    return [paths[i] for i in chosen.tolist()]
