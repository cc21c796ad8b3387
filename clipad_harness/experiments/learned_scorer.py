"""Scores of a learned method: (variant, category, seed) shards into one tidy results table.

As for WinCLIP, a shard's file is named by the hash of everything it depends on: the training behind
it, what changes after it, the test images and the code.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from clipad_core import maps as scoring
from clipad_core.clip.backbone import Backbone
from clipad_core.clip.transformer import chunks
from clipad_core.learned.features import FrozenFeatures, join
from clipad_core.metrics import aupro, metrics, ranking
from clipad_harness.base.settings import Profile
from clipad_harness.base.workers import Advance
from clipad_harness.data import images as images_module
from clipad_harness.experiments import shards, training_data
from clipad_harness.experiments.feature_store import FeatureStore, code_digest
from clipad_harness.experiments.learned_variants import LearnedShard, LearnedVariant, Training
from clipad_harness.experiments.methods import TITLES, find_method, method_digest
from clipad_harness.experiments.shards import (
    CategoryScores,
    DatasetImages,
    Record,
    as_measured,
    hash_of,
    keep,
    measure,
)
from clipad_harness.experiments.trainer import Trainer
from clipad_harness.experiments.training_data import MASK_RULE, read_features

# Pixels scored together: eight images as published, or many small ones. Prompts that serve all images
# are embedded once a part.
PIXELS_PER_PART = 8 * 518**2
# Learners that stay loaded: neighbouring shards share theirs.
LEARNERS_KEPT = 64


@cache
def _metrics_digest() -> str:
    own = sys.modules[__name__]
    return code_digest([aupro, metrics, ranking, images_module, shards, training_data, own])


class _Features:
    """Stored features of some images: read when their turn comes, kept as far as memory is given."""

    def __init__(
        self, store: FeatureStore, entries: list[Path], paths: list[Path], blocks: Sequence[int]
    ) -> None:
        self.store, self.entries, self.paths, self.blocks = store, entries, paths, blocks
        self._kept: dict[int, FrozenFeatures] = {}
        self._bytes = 0

    def read(self, places: Iterable[int], memory: int) -> list[FrozenFeatures]:
        """Those of some images; ``memory``: bytes that may be kept in all."""
        return [self._one(place, memory) for place in places]

    def _one(self, place: int, memory: int) -> FrozenFeatures:
        if place in self._kept:
            return self._kept[place]
        found = read_features(self.store, self.entries[place], self.paths[place], self.blocks)
        if self._bytes + found.nbytes <= memory:
            self._kept[place] = found
            self._bytes += found.nbytes
        return found


class LearnedScorer(DatasetImages):
    """Scores shards of a learned method; features and finished shards are read from the cache.

    Args:
        profile: dataset and weights.
        tested: the profile's dataset, whose images the reports show.
        trainer: where learners come from.
        among: all variants that will be scored.
    """

    def __init__(
        self,
        profile: Profile,
        tested: DatasetImages,
        trainer: Trainer,
        among: Sequence[LearnedVariant],
    ) -> None:
        super().__init__(tested.index, tested.data)
        self.profile, self.trainer, self.among = profile, trainer, among
        self.method = TITLES[trainer.name]
        self._learners: OrderedDict[Training, nn.Module] = OrderedDict()
        self._latest: tuple[Hashable, _Features] | None = None

    def backbone(self, config: Any) -> Backbone:
        """The backbone as a config runs it."""
        return self.trainer.backbone(config)

    def label(self, shard: LearnedShard) -> str:
        """What the results call the weights."""
        return self.backbone(shard.variant.config).label

    def computed(self, shard: LearnedShard) -> tuple[str, str]:
        """Precision and kind of device."""
        backbone = self.backbone(shard.variant.tested_with(shard.seed))
        return backbone.precision, backbone.device.type

    def dataset(self, shard: LearnedShard) -> str:
        """The dataset that is tested."""
        return shard.variant.tested_on

    def check(self, shard: LearnedShard) -> None:
        """Find what cannot work before anything is scored: a training that is missing."""
        self.trainer.require(shard.variant.training(shard.seed))

    def shares(self, shard: LearnedShard) -> Hashable:
        """Shards of a category that read the same features."""
        recipe = find_method(self.trainer.name).recipe(shard.variant.tested_with(shard.seed))
        return (shard.variant.tested_on, shard.category, recipe)

    def learner(self, training: Training) -> nn.Module:
        """A trained learner; the latest stay loaded."""
        if training not in self._learners:
            self._learners[training] = self.trainer.learner(training)
            if len(self._learners) > LEARNERS_KEPT:
                self._learners.popitem(last=False)
        return self._learners[training]

    def _features(self, shard: LearnedShard) -> _Features:
        """Features of the test images of a shard's category; the latest stay."""
        key = self.shares(shard)
        if self._latest is None or self._latest[0] != key:
            self._latest = None
            images = self.trainer.datasets[shard.variant.tested_on]
            names = images.rows(shard.category, "test")["image"]
            paths = [images.data / name for name in names]
            config = shard.variant.tested_with(shard.seed)
            store = self.trainer.store(config)
            found = _Features(store, store.fill(paths, shard.category), paths, config.blocks)
            self._latest = (key, found)
        return self._latest[1]

    def detect(self, shard: LearnedShard) -> CategoryScores:
        """Score every test image of a shard's category."""
        config = shard.variant.tested_with(shard.seed)
        learner = self.learner(shard.variant.training(shard.seed))
        method, backbone = find_method(self.trainer.name), self.backbone(config)
        features = self._features(shard)
        scores: list[NDArray[np.float32]] = []
        maps: list[NDArray[np.float32]] = []
        for part in chunks(len(features.paths), max(1, PIXELS_PER_PART // config.image_size**2)):
            some = join(features.read(range(part.start, part.stop), self.trainer.memory))
            found = method.detect(learner, backbone, config, some, (shard.category,))
            scores.append(as_measured(found.image_score))
            scoring.check_maps(found.anomaly_map, f"{shard.variant.name}, {shard.category}")
            maps += list(as_measured(found.anomaly_map))
        images = self.trainer.datasets[shard.variant.tested_on]
        rows = images.rows(shard.category, "test")
        masks = images.masks(rows, maps, MASK_RULE)
        return CategoryScores(rows, np.concatenate(scores), maps, masks, [])

    def measure(self, shard: LearnedShard) -> dict[str, float]:
        """All metrics of a shard; one that is undefined for its data is nan."""
        images = self.trainer.datasets[shard.variant.tested_on]
        return measure(self.detect(shard), images.has_masks(shard.category), shard.variant)

    def key(self, shard: LearnedShard) -> str:
        """Everything a shard depends on, as one SHA-256."""
        variant = shard.variant
        parts = {
            "training": self.trainer.key(variant.training(shard.seed)),
            "at_test": dict(variant.at_test),
            "metrics": [variant.aupro, variant.fpr_limit],
            "category": shard.category,
            "content": self.trainer.datasets[variant.tested_on].content(shard.category),
            "backbone": self.backbone(variant.tested_with(shard.seed)).key,
            "code": [method_digest(self.trainer.name), _metrics_digest()],
        }
        return hash_of(parts)

    def finish(self, shard: LearnedShard, advance: Advance) -> Record:
        """Read a finished shard, or compute and keep it."""
        folder = self.trainer.cache_folder
        record = keep(folder, self.key(shard), lambda: (self.measure(shard), []))
        advance(1)
        return record

    def __getstate__(self) -> dict[str, object]:
        """What another process needs; it reads learners and features itself."""
        return dict(self.__dict__) | {"_learners": OrderedDict(), "_latest": None}
