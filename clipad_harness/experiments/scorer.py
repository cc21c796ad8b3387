"""The scoring stage: (variant, category, k, seed) shards into one tidy results table.

A shard's file is named by the hash of everything it depends on, so a finished one is never computed
again, a killed run resumes, and a changed setting recomputes only what it changes.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from clipad_core import maps as scoring
from clipad_core.clip import text
from clipad_core.clip.backbone import Backbone
from clipad_core.clip.preprocess import CROPS
from clipad_core.clip.text import Beginnings
from clipad_core.clip.transformer import chunks
from clipad_core.errors import ClipadError
from clipad_core.maps import text_scores
from clipad_core.methods.winclip import prompts
from clipad_core.methods.winclip import scoring as winclip_scoring
from clipad_core.methods.winclip.config import REFERENCE_FIELDS, WinCLIPConfig
from clipad_core.methods.winclip.detector import Recipe, prototypes, reference_recipe, stitch
from clipad_core.methods.winclip.scoring import ReferenceMemory, build_memory, score, temperature
from clipad_core.metrics import aupro, metrics, ranking
from clipad_harness.base.settings import Profile
from clipad_harness.base.weights import shared_backbone
from clipad_harness.base.workers import Advance
from clipad_harness.data import images
from clipad_harness.data.images import image_size
from clipad_harness.experiments import shards
from clipad_harness.experiments.feature_store import FeatureStore, code_digest
from clipad_harness.experiments.features import (
    Encoded,
    encoder_digest,
    feature_store_of,
    read_features,
)
from clipad_harness.experiments.shards import (
    CategoryScores,
    DatasetImages,
    Record,
    as_measured,
    hash_of,
    keep,
    measure,
)
from clipad_harness.experiments.variants import (
    WinCLIPShard,
    WinCLIPVariant,
    choose_references,
    named_alike,
    shared_recipe,
    shares_views,
)

PUBLISHED_TAGS = ("laion400m_e31", "laion400m_e32")
# Images scored together: bounds the queries-by-memory products of large categories.
IMAGES_PER_PART = 16


@cache
def _scoring_digest() -> str:
    core = [aupro, metrics, prompts, ranking, scoring, text, winclip_scoring]
    return code_digest([*core, images, shards, sys.modules[__name__]])


class Scorer(DatasetImages):
    """Scores shards of WinCLIP on one dataset; features and finished shards are read from the cache.

    Args:
        profile: dataset and weights.
        index: the index table of the dataset.
        data: the dataset's folder.
        cache_folder: where features and shards live.
        among: all variants that will be scored, so that they share one encoding.
    """

    method = "WinCLIP"

    def __init__(
        self,
        profile: Profile,
        index: pd.DataFrame,
        data: Path,
        cache_folder: Path,
        among: Sequence[WinCLIPVariant],
    ) -> None:
        super().__init__(index, data)
        self.profile, self.among, self.cache_folder = profile, among, cache_folder
        self._beginnings: dict[tuple[str, str, str], Beginnings] = {}
        self._texts: dict[tuple[object, ...], torch.Tensor] = {}
        self._latest: tuple[tuple[object, ...], Encoded] | None = None

    def backbone(self, config: WinCLIPConfig) -> Backbone:
        """The backbone of a config: its own epoch where the profile runs published weights."""
        given, own = self.profile.winclip, self.among[0].config.weights
        if given.weights in PUBLISHED_TAGS:
            if given.weights != own:
                raise ClipadError(
                    f"profiles.{self.profile.name}.winclip.weights: found {given.weights}, while the "
                    f"preset and its changes ask for {own}; write {own} there, or "
                    f"`changes: {{weights: {given.weights}}}` below `winclip`."
                )
            given = replace(given, weights=config.weights)
        return shared_backbone(given, config.precision)

    def label(self, shard: WinCLIPShard) -> str:
        """What the results call the weights."""
        return self.backbone(self.among[0].config).label

    def computed(self, shard: WinCLIPShard) -> tuple[str, str]:
        """Precision and kind of device."""
        backbone = self.backbone(shard.variant.config)
        return backbone.precision, backbone.device.type

    def dataset(self, shard: WinCLIPShard) -> str:
        """The dataset that is tested."""
        return self.profile.dataset

    def check(self, shard: WinCLIPShard) -> None:
        """Find what cannot work: weights that do not load, more shots than references."""
        self.label(shard)
        self.references(shard)

    def shares(self, shard: WinCLIPShard) -> Hashable:
        """Shards of a category that read the same encoded views."""
        return shares_views(shard)

    def config(self, shard: WinCLIPShard) -> WinCLIPConfig:
        """The config of a shard, with its category's own states where asked for."""
        test = self.rows(shard.category, "test")
        return shard.variant.for_category([d for d in test["defect"] if d != "good"])

    def references(self, shard: WinCLIPShard) -> list[Path]:
        """The reference images of a shard."""
        images = self.rows(shard.category, "train")["image"]
        rule = shard.variant.config.reference_choice
        paths = [self.data / image for image in images]
        return choose_references(paths, shard.k_shot, shard.seed, rule)

    def _store(self, backbone: Backbone, recipe: Recipe) -> FeatureStore:
        return feature_store_of(self.cache_folder / "features", backbone, recipe)

    def _encoded(self, shard: WinCLIPShard, config: WinCLIPConfig) -> Encoded:
        """Features of the test images; the latest are kept, since variants of a category share them."""
        backbone = self.backbone(config)
        paths = [self.data / image for image in self.rows(shard.category, "test")["image"]]
        recipe = shared_recipe(config, shard.k_shot, self.among, _are_square(tuple(paths)))
        key = (backbone.key, shard.category, recipe)
        if self._latest is None or self._latest[0] != key:
            self._latest = None
            plain = self._store(backbone, replace(recipe, multi_crop="none"))
            found = read_features(plain, paths, shard.category)
            if recipe.multi_crop != "none":
                found = self._with_crops(found, backbone, recipe, paths, shard.category)
            self._latest = (key, found)
        return self._latest[1]

    def _with_crops(
        self,
        plain: Encoded,
        backbone: Backbone,
        recipe: Recipe,
        paths: Sequence[Path],
        category: str,
    ) -> Encoded:
        """Add the crops: the views and their windows are those of the plain recipe.

        Five crops are the first five of ten, which are encoded once where some variant reads them.
        """
        read = {recipe.multi_crop, *(variant.config.multi_crop for variant in self.among)}
        widest = max(read & CROPS.keys(), key=CROPS.__getitem__)
        crops = replace(recipe, multi_crop=widest, scales=(), patch_tokens=False, tiles=False)
        extra = read_features(self._store(backbone, crops), paths, f"{category} crops")
        wanted = CROPS[recipe.multi_crop]
        some = extra.crops.unflatten(0, (-1, CROPS[widest]))[:, :wanted].flatten(0, 1)
        placements = tuple(replace(place, crops=wanted) for place in extra.placements)
        return Encoded(plain.features, some, placements)

    def _text(self, config: WinCLIPConfig, category: str) -> torch.Tensor:
        backbone = self.backbone(config)
        states, rule = config.extra_anomalous_states, config.class_name
        key = (backbone.key, config.prompts, states, rule, config.text_average, category)
        if key not in self._texts:
            kept = self._beginnings.setdefault(backbone.key, Beginnings())
            self._texts[key] = prototypes(backbone, config, category, kept)
        return self._texts[key]

    def _memory(self, shard: WinCLIPShard, config: WinCLIPConfig) -> ReferenceMemory | None:
        if not shard.k_shot:
            return None
        backbone = self.backbone(config)
        paths = self.references(shard)
        store = self._store(
            backbone, named_alike(reference_recipe(config), _are_square(tuple(paths)))
        )
        found = read_features(store, paths, f"{shard.category} references")
        return build_memory(backbone.vision, found.features, config)

    def detect(self, shard: WinCLIPShard) -> CategoryScores:
        """Score every test image of a shard's category."""
        config = self.config(shard)
        backbone, encoded = self.backbone(config), self._encoded(shard, config)
        tau, prototypes_ = temperature(backbone, config), self._text(config, shard.category)
        crops = text_scores(encoded.crops, prototypes_, tau)
        memory = self._memory(shard, config)
        image_scores, maps = [], []
        for part, views, extra in _parts(encoded):
            scores = score(backbone, encoded.features[views], prototypes_, config, memory)
            for image_score, anomaly_map in stitch(
                scores, encoded.placements[part], crops[extra], config, backbone.image_size
            ):
                image_scores.append(as_measured(image_score))
                maps.append(as_measured(anomaly_map))
        rows = self.rows(shard.category, "test")
        masks = self.masks(rows, maps, config.mask_rule)
        references = [path.relative_to(self.data).as_posix() for path in self.references(shard)]
        return CategoryScores(rows, np.array(image_scores), maps, masks, references)

    def measure(self, shard: WinCLIPShard) -> dict[str, float]:
        """All metrics of a shard; one that is undefined for its data is nan."""
        return measure(self.detect(shard), self.has_masks(shard.category), shard.variant)

    def key(self, shard: WinCLIPShard) -> str:
        """Everything a shard depends on, as one SHA-256."""
        config, variant = self.config(shard), shard.variant
        backbone = self.backbone(config)
        if not shard.k_shot:  # without references, their fields change nothing
            config = config.changed({n: getattr(WinCLIPConfig(), n) for n in REFERENCE_FIELDS})
        store = self._store(backbone, reference_recipe(config))
        parts = {
            "config": asdict(config),
            "metrics": [variant.aupro, variant.fpr_limit],
            "category": shard.category,
            "content": self.content(shard.category),
            "references": [store.key(path) for path in self.references(shard)],
            "backbone": backbone.key,
            "code": [_scoring_digest(), encoder_digest()],
        }
        return hash_of(parts)

    def finish(self, shard: WinCLIPShard, advance: Advance) -> Record:
        """Read a finished shard, or compute and keep it."""

        def compute() -> tuple[dict[str, float], list[str]]:
            values = self.measure(shard)
            references = [p.relative_to(self.data).as_posix() for p in self.references(shard)]
            return values, references

        record = keep(self.cache_folder, self.key(shard), compute)
        advance(1)
        return record

    def __getstate__(self) -> dict[str, object]:
        """What another process needs; it loads its own backbone and reads features from the cache."""
        return dict(self.__dict__) | {"_texts": {}, "_beginnings": {}, "_latest": None}


@lru_cache(maxsize=64)
def _are_square(paths: tuple[Path, ...]) -> bool:
    """Whether all images are square; kept, since every shard of a category asks."""
    sizes = [image_size(path) for path in paths]
    return all(height == width for height, width in sizes)


def _parts(encoded: Encoded) -> Iterator[tuple[slice, slice, slice]]:
    """Cut images into parts: slices of images, of their views and of their multi-crop views."""
    view, crop = 0, 0
    for part in chunks(len(encoded.placements), IMAGES_PER_PART):
        here = encoded.placements[part]
        views = slice(view, view + sum(len(place.corners) for place in here))
        extra = slice(crop, crop + sum(place.crops for place in here))
        view, crop = views.stop, extra.stop
        yield part, views, extra
