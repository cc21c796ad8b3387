"""What a method is trained on: frozen features, labels and masks of the auxiliary dataset.

The towers are frozen, so an image is encoded once and every further epoch reads its features. Only
an augmented image is new in every epoch, and is encoded when its turn comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.preprocess import Pixels, make_views
from clipad_core.errors import ClipadError
from clipad_core.learned.features import FrozenFeatures, join
from clipad_core.methods.vcpclip.config import MVTEC
from clipad_harness.data.images import MaskRule, image_size, read_image, read_mask, resize_mask
from clipad_harness.experiments.augment import Sample, augmented
from clipad_harness.experiments.feature_store import Entry, FeatureStore
from clipad_harness.experiments.methods import LearnedMethod
from clipad_harness.experiments.shards import DatasetImages

MASK_RULE: MaskRule = "bilinear_half"


def feature_store_of(
    folder: Path, method: LearnedMethod, backbone: Backbone, recipe: Any, code: str
) -> FeatureStore:
    """The store of one recipe of a learned method; ``backbone`` is prepared."""

    def encode_one(image: Pixels) -> Entry:
        pixels = as_input(image, recipe.image_size, backbone.dtype)
        return _to_entry(method.encode(backbone, pixels, recipe))

    return FeatureStore(folder, backbone, recipe, encode_one, code)


def as_input(image: Pixels, size: int, dtype: torch.dtype) -> Tensor:
    """One RGB image, stretched and normalised as both methods do, (1, 3, S, S)."""
    return make_views(image, size, "stretch", dtype=dtype).pixels


def _to_entry(features: FrozenFeatures) -> Entry:
    entry = {"image_embedding": features.image_embedding}
    return entry | {f"tokens.{block}": found for block, found in features.patch_tokens.items()}


def read_features(
    store: FeatureStore, entry: Path, image: Path, blocks: Sequence[int]
) -> FrozenFeatures:
    """One stored image, of all that is stored the wanted blocks."""
    names = {block: f"tokens.{block}" for block in blocks}
    found = store.read(entry, image, ["image_embedding", *names.values()])
    return FrozenFeatures(
        found["image_embedding"], {block: found[name] for block, name in names.items()}
    )


class TrainingData:
    """The images of an auxiliary dataset that are trained on, in the order of its index.

    Args:
        images: the dataset.
        rows: the images that are trained on.
        store: where their features are.
        backbone, method, config: what encodes an augmented image.
        memory: bytes that are kept in memory, features and masks or, where they are augmented anew
            in every epoch, images and masks; the rest stays on disk.

    Raises:
        ClipadError: no image, no mask for an anomalous image, or images of one label alone.
    """

    def __init__(
        self,
        images: DatasetImages,
        rows: pd.DataFrame,
        store: FeatureStore,
        backbone: Backbone,
        method: LearnedMethod,
        config: Any,
        memory: int,
    ) -> None:
        check_trainable(rows)
        self.images, self.rows, self.store = images, rows.reset_index(drop=True), store
        self.backbone, self.method, self.config, self.memory = backbone, method, config, memory
        self.augmented = getattr(config, "augmentation", "none") != "none"
        self.paths = [images.data / name for name in self.rows["image"]]
        self.entries: list[Path] = []
        self._kept: dict[int, tuple[FrozenFeatures, Tensor]] = {}
        self._samples: dict[int, Sample] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.rows)

    def prepare(self, what: str) -> None:
        """Encode what is missing, with a progress bar."""
        if not self.augmented:
            self.entries = self.store.fill(self.paths, what)

    def batch(
        self, epoch: int, places: Sequence[int]
    ) -> tuple[FrozenFeatures, Tensor, Tensor, list[str]]:
        """Features, labels, masks at the size of the maps, and categories of some images."""
        labels = torch.tensor(self.rows["label"].to_numpy()[list(places)])
        names = [str(name) for name in self.rows["category"].to_numpy()[list(places)]]
        if self.augmented:
            features, masks = self._augment(epoch, places)
        else:
            parts = [self._one(place) for place in places]
            features, masks = join([one for one, _ in parts]), torch.cat([m for _, m in parts])
        return features, labels, masks.to(features.image_embedding.dtype), names

    def _one(self, place: int) -> tuple[FrozenFeatures, Tensor]:
        if place in self._kept:
            return self._kept[place]
        blocks = self.config.blocks
        features = read_features(self.store, self.entries[place], self.paths[place], blocks)
        found = (features, self._resized(self._mask(place)))
        if self._fits(features.nbytes + found[1].nbytes):
            self._kept[place] = found
        return found

    def _fits(self, size: int) -> bool:
        """Whether so many more bytes may be kept; if so, they are counted."""
        fits = self._bytes + size <= self.memory
        self._bytes += size if fits else 0
        return fits

    def _mask(self, place: int) -> np.ndarray:
        row = self.rows.loc[place]
        size = image_size(self.paths[place])
        if not row["mask"]:
            return np.zeros(size, dtype=bool)
        return read_mask(self.images.data / str(row["mask"]), size)

    def _resized(self, mask: np.ndarray) -> Tensor:
        side = self.config.image_size
        return torch.from_numpy(resize_mask(mask, (side, side), MASK_RULE))[None]

    def _augment(self, epoch: int, places: Sequence[int]) -> tuple[FrozenFeatures, Tensor]:
        found = [self._augmented(epoch, place) for place in places]
        size, dtype = self.config.image_size, self.backbone.dtype
        pixels = torch.cat([as_input(one.image, size, dtype) for one in found])
        features = self.method.encode(self.backbone, pixels, self.method.recipe(self.config))
        return features, torch.cat([self._resized(one.mask) for one in found])

    def _augmented(self, epoch: int, place: int) -> Sample:
        return augmented(
            self._sample,
            place,
            self._partners.get(str(self.rows["category"][place]), []),
            name=self.config.augmentation,
            mosaic_rate=self.config.mosaic_rate,
            seed=self.config.seed,
            epoch=epoch,
        )

    def _sample(self, place: int) -> Sample:
        if place in self._samples:
            return self._samples[place]
        found = Sample(np.asarray(read_image(self.paths[place])), self._mask(place))
        if self._fits(found.image.nbytes + found.mask.nbytes):
            self._samples[place] = found
        return found

    @cached_property
    def _partners(self) -> Mapping[str, list[int]]:
        """What a mosaic draws from; the official code makes them of MVTec AD alone."""
        rows = self.rows
        anomalous = rows[(rows["label"] == 1) & (rows["dataset"] == MVTEC)]
        return {str(name): list(some.index) for name, some in anomalous.groupby("category")}


def check_trainable(rows: pd.DataFrame) -> None:
    """Refuse what nothing can be learned from.

    Raises:
        ClipadError: no image, anomalous images without masks, or images of one label alone.
    """
    labels = set(rows["label"])
    if labels != {0, 1}:
        what = {frozenset({0}): "only normal", frozenset({1}): "only anomalous"}
        found = what.get(frozenset(labels), "no")
        raise ClipadError(
            f"auxiliary dataset: found {found} test images, expected normal and anomalous ones; "
            "choose another auxiliary dataset or other categories."
        )
    without = rows[(rows["label"] == 1) & (rows["mask"] == "")]
    if len(without):
        raise ClipadError(
            f"auxiliary dataset: found {len(without)} anomalous images without a mask (the first: "
            f"{without['image'].iloc[0]}), expected one each; choose a dataset with masks."
        )
