"""What a method is trained on: frozen features, labels and masks of the auxiliary dataset.

The towers are frozen, so an image is encoded once and every further epoch reads its features. Only
an augmented image is new in every epoch, and is encoded when its turn comes; so are all images where their
features need more of the disk than is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from clipad_core.clip.device import CPU, moved
from clipad_core.clip.features import Features, Recipe, encode_views, join, views_of
from clipad_core.clip.preprocess import Views
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
    is_new_in_every_epoch,
    mosaic,
)
from clipad_harness.experiments.batches import BATCHES_AHEAD, read_ahead
from clipad_harness.experiments.features import Encodings, ImageFeatures

# Features, labels, masks at the size of the maps, and categories of some images.
Batch = tuple[Features, Tensor, Tensor, list[str]]


class TrainingData:
    """The images of an auxiliary dataset that are trained on, in the order of its index.

    Args:
        images: the dataset.
        rows: the images that are trained on.
        encodings: backbones and features; says how many bytes of features are kept in memory, and of
            masks or, where they are encoded anew in every epoch, images and masks. The rest stays on
            disk, as much as is given there.
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
        self.paths = images.files(self.rows)
        self._stored: ImageFeatures | None = None
        self._masks: dict[int, Tensor] = {}
        self._samples: dict[int, Sample] = {}
        self._bytes, self._counting = 0, Lock()
        # Config and augmentation, and the mosaics that they draw.
        self._drawn: tuple[object, Mapping[tuple[int, int], list[int]]] | None = None

    @property
    def recipe(self) -> Recipe:
        """What the training reads of an image."""
        return self.method.training_recipe(self.config)

    def __len__(self) -> int:
        return len(self.rows)

    def prepare(self, subject: str) -> None:
        """Encode what is missing and keep it, with a progress bar; else every epoch encodes anew."""
        if not self.augments:
            self._stored = self.encodings.images(self.config, self.recipe, self.paths, subject)

    @property
    def augments(self) -> bool:
        """Whether every image is another one in every epoch."""
        return is_new_in_every_epoch(self.augmentation)

    def batches(self, steps: Sequence[tuple[int, Sequence[int]]]) -> Iterator[Batch]:
        """Of every step its batch.

        While an accelerator computes a step, threads read, augment and resize for the next ones; on a
        CPU, whose cores all have a training of their own, each is read when its turn comes.

        Args:
            steps: epoch and places of each.
        """
        self._mosaics()  # drawn once, before threads look
        ahead = 0 if self.backbone.device == CPU else BATCHES_AHEAD
        for read in read_ahead(steps, self._read, ahead):
            yield self._batch(*read)

    def batch(self, epoch: int, places: Sequence[int]) -> Batch:
        """That of one step."""
        return next(self.batches([(epoch, places)]))

    def _read(
        self, step: tuple[int, Sequence[int]]
    ) -> tuple[Sequence[int], list[list[Views] | Features], Tensor]:
        """What a step needs of files: its places, masks, and features, or views where they are new.

        Views that follow each other are encoded together, and so stand together.
        """
        epoch, places = step
        mosaics, stored = self._mosaics(), self._stored
        if stored is None:
            samples = [self._sample_of(epoch, place) for place in places]
            views = self._views(samples)
            # On a CPU one by one, as what is kept was: beside others the last bits would move.
            apart = not self.augments and self.backbone.device == CPU
            parts: list[list[Views] | Features] = [[v] for v in views] if apart else [views]
            return places, parts, self._masks_of(samples)
        if all((epoch, place) not in mosaics for place in places):
            masks = [self._resized_mask(place) for place in places]
            features = join([stored.read(place, self.recipe) for place in places])
            return places, [features], torch.cat(masks)
        parts, masks = [], []
        for place in places:
            if (epoch, place) in mosaics:
                sample = self._sample_of(epoch, place)
                parts.append(self._views([sample]))
                masks.append(self._masks_of([sample]))
            else:
                parts.append(stored.read(place, self.recipe))
                masks.append(self._resized_mask(place))
        return places, parts, torch.cat(masks)

    def _batch(
        self, places: Sequence[int], parts: Sequence[list[Views] | Features], masks: Tensor
    ) -> Batch:
        """A batch where the backbone lies, its views encoded."""
        device = self.backbone.device
        encode = self.method.encode
        features = [
            moved(part, device)
            if isinstance(part, Features)
            else encode_views(encode, self.backbone, part, self.recipe)
            for part in parts
        ]
        labels = torch.tensor(self.rows["label"].to_numpy()[list(places)])
        names = [str(name) for name in self.rows["category"].to_numpy()[list(places)]]
        masks = masks.to(device, self.backbone.dtype)
        return join(features), labels.to(device), masks, names

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
        with self._counting:
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

    def _views(self, samples: Sequence[Sample]) -> list[Views]:
        return [views_of(self.backbone, sample.image, self.recipe) for sample in samples]

    def _masks_of(self, samples: Sequence[Sample]) -> Tensor:
        return torch.cat([self._resized(sample.mask) for sample in samples])

    def _sample_of(self, epoch: int, place: int) -> Sample:
        """What an epoch shows in the place of an image."""
        if self.augments:
            return self._augmented(epoch, place)
        tiles = self._mosaics().get((epoch, place))
        return mosaic([self._sample(tile) for tile in tiles]) if tiles else self._sample(place)

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
