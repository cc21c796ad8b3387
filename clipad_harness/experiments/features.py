"""Frozen features of WinCLIP: what its recipe asks for, image after image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from clipad_core.clip import backbone as backbone_module
from clipad_core.clip import preprocess, transformer, vision
from clipad_core.clip.backbone import Backbone
from clipad_core.clip.preprocess import Pixels, Placement
from clipad_core.clip.vision import Features
from clipad_core.methods.winclip import detector
from clipad_core.methods.winclip.detector import Recipe, encode, views_of
from clipad_harness.data import images
from clipad_harness.experiments import feature_store
from clipad_harness.experiments.feature_store import Entry, FeatureStore, code_digest


@dataclass(frozen=True)
class Encoded:
    """Features of some images, image after image, with where their views lie."""

    features: Features
    crops: Tensor
    placements: tuple[Placement, ...]


@cache
def encoder_digest() -> str:
    """Digest of the code that turns an image into these features."""
    code = [backbone_module, images, preprocess, transformer, vision, detector]
    return code_digest([*code, feature_store])


def feature_store_of(folder: Path, backbone: Backbone, recipe: Recipe) -> FeatureStore:
    """The store of one recipe."""

    def encode_one(image: Pixels) -> Entry:
        view = views_of(backbone, image, recipe)
        return _to_tensors(*encode(backbone, [view], recipe), view.placement)

    return FeatureStore(folder, backbone, recipe, encode_one, encoder_digest())


def read_features(store: FeatureStore, paths: Sequence[Path], what: str = "images") -> Encoded:
    """Features of images in the order of ``paths``; what is missing is encoded.

    Raises:
        ClipadError: an image cannot be read, or the cache folder cannot be written.
    """
    entries = zip(store.fill(paths, what), paths, strict=True)
    return _join([store.read(entry, path) for entry, path in entries])


def _to_tensors(features: Features, crops: Tensor, place: Placement) -> Entry:
    tensors = {
        "image_embedding": features.image_embedding,
        "crops": crops,
        "corners": torch.tensor(place.corners),
        "canvas": torch.tensor(place.canvas),
    }
    tensors |= {f"windows.{scale}": value for scale, value in features.window_embeddings.items()}
    return tensors | {f"tokens.{block}": value for block, value in features.patch_tokens.items()}


def _join(entries: Sequence[Entry]) -> Encoded:
    def stack(key: str) -> Tensor:
        return torch.cat([entry[key] for entry in entries])

    keys = list(entries[0])
    windows = {int(k.split(".")[1]): stack(k) for k in keys if k.startswith("windows.")}
    tokens = {int(k.split(".")[1]): stack(k) for k in keys if k.startswith("tokens.")}
    placements = tuple(
        Placement(
            corners=tuple((left, top) for left, top in entry["corners"].tolist()),
            canvas=(int(entry["canvas"][0]), int(entry["canvas"][1])),
            crops=len(entry["crops"]),
        )
        for entry in entries
    )
    features = Features(stack("image_embedding"), windows, tokens)
    return Encoded(features, stack("crops"), placements)
