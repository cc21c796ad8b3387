"""The scoring stage: (variant, category, k, seed) shards into one tidy results table.

A shard's file is named by the hash of everything it depends on, so a finished one is never computed
again, a killed run resumes, and a changed setting recomputes only what it changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from clipad_core import aupro, metrics, prompts, ranking, scoring, text, winclip_scoring
from clipad_core.backbone import Backbone, load_backbone
from clipad_core.metrics import image_metrics, pixel_metrics
from clipad_core.scoring import text_scores
from clipad_core.text import Beginnings
from clipad_core.transformer import chunks
from clipad_core.winclip import prototypes, reference_recipe, stitch
from clipad_core.winclip_config import WinCLIPConfig
from clipad_core.winclip_scoring import ReferenceMemory, build_memory, score, temperature
from clipad_harness.features import Encoded, FeatureCache, code_digest
from clipad_harness.files import write_text
from clipad_harness.images import file_hash, image_size, read_mask, resize_mask
from clipad_harness.settings import Profile
from clipad_harness.variants import Shard, Variant, choose_references, shared_recipe

PUBLISHED_TAGS = ("laion400m_e31", "laion400m_e32")
# Images scored together: bounds the queries-by-memory products of large categories.
IMAGES_PER_PART = 16


@dataclass(frozen=True)
class CategoryScores:
    """Scores of all test images of a category, in the order of the index."""

    images: pd.DataFrame
    image_scores: NDArray[np.float64]
    maps: list[NDArray[np.float32]]
    masks: list[NDArray[np.bool_]]
    references: list[str]


class Record(TypedDict):
    """A finished shard as its file holds it; None is an undefined metric."""

    key: str
    values: dict[str, float | None]
    references: list[str]


@cache
def _scoring_digest() -> str:
    return code_digest([aupro, metrics, prompts, ranking, scoring, text, winclip_scoring])


class Scorer:
    """Scores shards of one dataset; features and finished shards are read from the cache.

    Args:
        profile: dataset and weights.
        index: the index table of the dataset.
        data: the dataset's folder.
        cache_folder: where features and shards live.
        among: all variants that will be scored, so that they share one encoding.
    """

    def __init__(
        self,
        profile: Profile,
        index: pd.DataFrame,
        data: Path,
        cache_folder: Path,
        among: Sequence[Variant],
    ) -> None:
        self.profile, self.index, self.data, self.among = profile, index, data, among
        self.cache_folder = cache_folder
        self._backbones: dict[tuple[str, str], Backbone] = {}
        self._beginnings: dict[str, Beginnings] = {}
        self._texts: dict[tuple[object, ...], torch.Tensor] = {}
        self._contents: dict[str, str] = {}
        self._latest: tuple[tuple[object, ...], Encoded] | None = None

    def backbone(self, config: WinCLIPConfig) -> Backbone:
        """The backbone of a config: its own epoch where the profile runs published weights."""
        published = self.profile.weights in PUBLISHED_TAGS
        weights = config.weights if published else self.profile.weights
        key = (weights, config.precision)
        if key not in self._backbones:
            self._backbones[key] = load_backbone(
                self.profile.backbone, weights, self.profile.sha256, config.precision
            )
        return self._backbones[key]

    def rows(self, category: str, split: str) -> pd.DataFrame:
        """The index rows of one category and split."""
        wanted = (self.index["category"] == category) & (self.index["split"] == split)
        return self.index[wanted]

    def config(self, shard: Shard) -> WinCLIPConfig:
        """The config of a shard, with its category's own states where asked for."""
        test = self.rows(shard.category, "test")
        return shard.variant.for_category([d for d in test["defect"] if d != "good"])

    def references(self, shard: Shard) -> list[Path]:
        """The reference images of a shard."""
        images = self.rows(shard.category, "train")["image"]
        rule = shard.variant.config.reference_choice
        paths = [self.data / image for image in images]
        return choose_references(paths, shard.k_shot, shard.seed, rule)

    def _encoded(self, shard: Shard, config: WinCLIPConfig) -> Encoded:
        """Features of the test images; the latest are kept, since variants of a category share them."""
        backbone = self.backbone(config)
        recipe = shared_recipe(config, shard.k_shot, self.among)
        key = (backbone.digest, config.precision, shard.category, recipe)
        if self._latest is None or self._latest[0] != key:
            self._latest = None
            cached = FeatureCache(self.cache_folder / "features", backbone)
            paths = [self.data / image for image in self.rows(shard.category, "test")["image"]]
            found = cached.get(paths, replace(recipe, multi_crop="none"), shard.category)
            if recipe.multi_crop != "none":
                # The crops alone: the views and their windows are those of the plain recipe.
                crops = replace(recipe, scales=(), patch_tokens=False, tiles=False)
                extra = cached.get(paths, crops, f"{shard.category} crops")
                found = Encoded(found.features, extra.crops, extra.placements)
            self._latest = (key, found)
        return self._latest[1]

    def _text(self, config: WinCLIPConfig, category: str) -> torch.Tensor:
        backbone = self.backbone(config)
        states, rule = config.extra_anomalous_states, config.class_name
        key = (backbone.digest, config.prompts, states, rule, config.text_average, category)
        if key not in self._texts:
            kept = self._beginnings.setdefault(backbone.digest, Beginnings())
            self._texts[key] = prototypes(backbone, config, category, kept)
        return self._texts[key]

    def _memory(self, shard: Shard, config: WinCLIPConfig) -> ReferenceMemory | None:
        if not shard.k_shot:
            return None
        backbone = self.backbone(config)
        cached = FeatureCache(self.cache_folder / "features", backbone)
        recipe = reference_recipe(config)
        found = cached.get(self.references(shard), recipe, f"{shard.category} references")
        return build_memory(backbone.vision, found.features, config)

    def detect(self, shard: Shard) -> CategoryScores:
        """Score every test image of a shard's category."""
        config = self.config(shard)
        backbone, encoded = self.backbone(config), self._encoded(shard, config)
        tau, prototypes_ = temperature(backbone, config), self._text(config, shard.category)
        crops = text_scores(encoded.crops, prototypes_, tau)
        memory = self._memory(shard, config)
        found = []
        for part, views, extra in _parts(encoded):
            scores = score(backbone, encoded.features[views], prototypes_, config, memory)
            found += stitch(
                scores, encoded.placements[part], crops[extra], config, backbone.image_size
            )
        rows = self.rows(shard.category, "test")
        maps = [one.numpy().astype(np.float32) for _, one in found]
        masks = [
            self._mask(image, mask, one.shape, config)
            for image, mask, one in zip(rows["image"], rows["mask"], maps, strict=True)
        ]
        references = [path.relative_to(self.data).as_posix() for path in self.references(shard)]
        image_scores = np.array([float(value) for value, _ in found])
        return CategoryScores(rows, image_scores, maps, masks, references)

    def _mask(
        self, image: str, mask: str, size: tuple[int, ...], config: WinCLIPConfig
    ) -> NDArray[np.bool_]:
        wanted = (size[0], size[1])
        if not mask:
            return np.zeros(wanted, dtype=bool)
        full = read_mask(self.data / mask, image_size(self.data / image))
        return resize_mask(full, wanted, config.mask_rule)

    def has_masks(self, category: str) -> bool:
        """Whether every anomalous test image has a mask; without, pixel metrics are undefined."""
        test = self.rows(category, "test")
        return bool((test.loc[test["label"] == 1, "mask"] != "").all())

    def measure(self, shard: Shard) -> dict[str, float]:
        """All metrics of a shard; one that is undefined for its data is nan."""
        found = self.detect(shard)
        labels = found.images["label"].to_numpy()
        values = image_metrics(labels, found.image_scores)
        if self.has_masks(shard.category):
            variant = shard.variant
            values |= pixel_metrics(
                found.maps, found.masks, aupro=variant.aupro, fpr_limit=variant.fpr_limit
            )
        return values

    def _content(self, category: str) -> str:
        """SHA-256 over all that the index says of a category and the bytes of its test files."""
        if category not in self._contents:
            found = hashlib.sha256()
            for row in self.rows(category, "test").to_dict("records"):
                found.update(f"{row['image']}|{row['label']}|{row['defect']}".encode())
                for name in (str(row["image"]), str(row["mask"])):
                    found.update(file_hash(self.data / name).encode() if name else b"-")
            self._contents[category] = found.hexdigest()
        return self._contents[category]

    def key(self, shard: Shard) -> str:
        """Everything a shard depends on, as one SHA-256."""
        config, variant = self.config(shard), shard.variant
        backbone = self.backbone(config)
        cached = FeatureCache(self.cache_folder, backbone)
        recipe = reference_recipe(config)
        parts = {
            "config": asdict(config),
            "metrics": [variant.aupro, variant.fpr_limit],
            "category": shard.category,
            "content": self._content(shard.category),
            "references": [cached.key(path, recipe) for path in self.references(shard)],
            "backbone": [backbone.digest, str(backbone.vision.transformer.dtype)],
            "code": [_scoring_digest(), cached.code],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def finish(self, shard: Shard) -> Record:
        """Read a finished shard, or compute and keep it."""
        key = self.key(shard)
        path = self.cache_folder / "shards" / key[:2] / f"{key}.json"
        if path.is_file():
            record: Record = json.loads(path.read_text())
            return record
        values = {name: None if np.isnan(v) else v for name, v in self.measure(shard).items()}
        references = [p.relative_to(self.data).as_posix() for p in self.references(shard)]
        record = {"key": key, "values": values, "references": references}
        write_text(path, json.dumps(record, sort_keys=True))
        return record

    def __getstate__(self) -> dict[str, object]:
        """What another process needs; it loads its own backbone and reads features from the cache."""
        kept = dict(self.__dict__)
        return kept | {"_backbones": {}, "_texts": {}, "_beginnings": {}, "_latest": None}


def _parts(encoded: Encoded) -> Iterator[tuple[slice, slice, slice]]:
    """Cut images into parts: slices of images, of their views and of their multi-crop views."""
    view, crop = 0, 0
    for part in chunks(len(encoded.placements), IMAGES_PER_PART):
        here = encoded.placements[part]
        views = slice(view, view + sum(len(place.corners) for place in here))
        extra = slice(crop, crop + sum(place.crops for place in here))
        view, crop = views.stop, extra.stop
        yield part, views, extra
