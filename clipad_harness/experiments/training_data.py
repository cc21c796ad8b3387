"""What a method is trained on: frozen features, labels and masks of the auxiliary dataset.

The towers are frozen, so an image is encoded once and every further epoch reads its features. Only
an augmented image is new in every epoch, and is encoded when its turn comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from clipad_core.clip.features import Features, Recipe, encode_all, join
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_core.methods.checkpoint import find_training
from clipad_core.methods.method import Augmentation
from clipad_harness.data.dataset_images import DatasetImages
from clipad_harness.data.images import image_size, read_image, read_mask, resize_mask
from clipad_harness.experiments.augment import (
    MOSAIC,
    Sample,
    augmented,
    drawn_mosaics,
    mosaic,
)
from clipad_harness.experiments.features import Encodings, ImageFeatures, features_of


class TrainingData:
    """The images of an auxiliary dataset that are trained on, in the order of its index.

    Args:
        images: the dataset.
        rows: the images that are trained on.
        encodings: backbones and features; says how many bytes of features are kept in memory, and of
            masks or, where they are augmented anew in every epoch, images and masks. The rest stays on
            disk.
        config: what encodes and trains.
        augmentation: what is done to every image in every epoch; None: nothing.

    Raises:
        ClipadError: no image, no mask for an anomalous image, or images of one label alone.
    """

    def __init__(
        self,
        images: DatasetImages,
        rows: pd.DataFrame,
        encodings: Encodings,
        config: Any,
        augmentation: Augmentation | None,
    ) -> None:
        check_trainable(rows)
        self.images, self.rows = images, rows.reset_index(drop=True)
        self.encodings, self.config, self.augmentation = encodings, config, augmentation
        self.backbone, self.method = encodings.backbone(config), find_method(encodings.name)
        self.paths = [images.data / name for name in self.rows["image"]]
        self._stored: ImageFeatures | None = None
        self._masks: dict[int, Tensor] = {}
        self._samples: dict[int, Sample] = {}
        self._bytes = 0
        # Config and augmentation, and the mosaics that they draw.
        self._drawn: tuple[object, Mapping[tuple[int, int], list[int]]] | None = None

    @property
    def recipe(self) -> Recipe:
        """What the training reads of an image."""
        return self.method.training_recipe(self.config)

    def __len__(self) -> int:
        return len(self.rows)

    def prepare(self, subject: str) -> None:
        """Encode what is missing, with a progress bar."""
        if self.augmentation is None or self.augmentation.name == MOSAIC:
            self._stored = self.encodings.images(self.config, self.recipe, self.paths, subject)

    def batch(
        self, epoch: int, places: Sequence[int]
    ) -> tuple[Features, Tensor, Tensor, list[str]]:
        """Features, labels, masks at the size of the maps, and categories of some images."""
        labels = torch.tensor(self.rows["label"].to_numpy()[list(places)])
        names = [str(name) for name in self.rows["category"].to_numpy()[list(places)]]
        mosaics = self._mosaics()
        if self._stored is None:
            features, masks = self._encoded([self._augmented(epoch, place) for place in places])
        elif all((epoch, place) not in mosaics for place in places):
            features = features_of(self._stored, self.recipe, places)
            masks = torch.cat([self._resized_mask(place) for place in places])
        else:
            parts = [
                self._encoded([mosaic([self._sample(tile) for tile in mosaics[epoch, place]])])
                if (epoch, place) in mosaics
                else (features_of(self._stored, self.recipe, [place]), self._resized_mask(place))
                for place in places
            ]
            features = join([part for part, _ in parts])
            masks = torch.cat([mask for _, mask in parts])
        device = self.backbone.device
        return features, labels.to(device), masks.to(device, self.backbone.dtype), names

    def _resized_mask(self, place: int) -> Tensor:
        """The mask of one image as it is."""
        if place in self._masks:
            return self._masks[place]
        mask = self._resized(self._mask(place))
        if self._fits(mask.nbytes):
            self._masks[place] = mask
        return mask

    def _fits(self, size: int) -> bool:
        """Whether so many more bytes may be kept; if so, they are counted."""
        fits = self._bytes + size <= self.encodings.memory
        self._bytes += size if fits else 0
        return fits

    def _mask(self, place: int) -> np.ndarray:
        row = self.rows.loc[place]
        size = image_size(self.paths[place])
        if not row["mask"]:
            return np.zeros(size, dtype=bool)
        return read_mask(self.images.data / str(row["mask"]), size)

    def _resized(self, mask: np.ndarray) -> Tensor:
        side, rule = self.config.image_size, self.method.mask_rule(self.config)
        return torch.from_numpy(resize_mask(mask, (side, side), rule))[None]

    def _mosaics(self) -> Mapping[tuple[int, int], list[int]]:
        """By epoch and place the tiles of every mosaic that replaces an image whole."""
        augmentation, rows = self.augmentation, self.rows
        if augmentation is None or augmentation.name != MOSAIC:
            return {}
        if not (rows["dataset"] == augmentation.mosaics_of).all():
            return {}
        key = (self.config, augmentation)
        if self._drawn is None or self._drawn[0] != key:
            training = find_training(self.encodings.name)
            epochs = training.epochs(self.config, augmentation.mosaics_of)
            orders = training.sample_order(self.config, self.backbone, len(rows), epochs)
            rate, seed = augmentation.mosaic_rate, self.config.seed
            self._drawn = (key, drawn_mosaics(self._folders, orders, rate, seed))
        return self._drawn[1]

    @cached_property
    def _folders(self) -> list[list[list[int]]]:
        """Of every image the folders of its category, in the order of their names."""
        folders: dict[str, list[list[int]]] = {}
        for (category, _), group in self.rows.groupby(["category", "defect"], sort=True):
            folders.setdefault(str(category), []).append(list(group.index))
        return [folders[str(category)] for category in self.rows["category"]]

    def _encoded(self, samples: Sequence[Sample]) -> tuple[Features, Tensor]:
        images = [sample.image for sample in samples]
        features = encode_all(self.method.encode, self.backbone, images, self.recipe)
        return features, torch.cat([self._resized(sample.mask) for sample in samples])

    def _augmented(self, epoch: int, place: int) -> Sample:
        assert self.augmentation is not None
        return augmented(
            self._sample,
            place,
            self._partners.get(str(self.rows["category"][place]), []),
            name=self.augmentation.name,
            mosaic_rate=self.augmentation.mosaic_rate,
            seed=self.config.seed,
            epoch=epoch,
        )

    def _sample(self, place: int) -> Sample:
        if place in self._samples:
            return self._samples[place]
        sample = Sample(np.asarray(read_image(self.paths[place])), self._mask(place))
        if self._fits(sample.image.nbytes + sample.mask.nbytes):
            self._samples[place] = sample
        return sample

    @cached_property
    def _partners(self) -> Mapping[str, list[int]]:
        """What a mosaic draws from: anomalous images of one dataset alone."""
        rows, dataset = self.rows, self.augmentation and self.augmentation.mosaics_of
        anomalous = rows[(rows["label"] == 1) & (rows["dataset"] == dataset)]
        return {str(name): list(group.index) for name, group in anomalous.groupby("category")}


def check_trainable(rows: pd.DataFrame) -> None:
    """Refuse what nothing can be learned from.

    Raises:
        ClipadError: no image, anomalous images without masks, or images of one label alone.
    """
    labels = set(rows["label"])
    if labels != {0, 1}:
        kinds = {frozenset({0}): "only normal", frozenset({1}): "only anomalous"}
        kind = kinds.get(frozenset(labels), "no")
        raise ClipadError(
            f"auxiliary dataset: found {kind} test images, expected normal and anomalous ones; "
            "choose another auxiliary dataset or other categories."
        )
    without = rows[(rows["label"] == 1) & (rows["mask"] == "")]
    if len(without):
        raise ClipadError(
            f"auxiliary dataset: found {len(without)} anomalous images without a mask (the first: "
            f"{without['image'].iloc[0]}), expected one each; choose a dataset with masks."
        )
