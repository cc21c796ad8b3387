"""A content-addressed cache of frozen features: an image is encoded once, whatever is scored.

The key of an entry holds all it depends on: the image's bytes, the recipe, the backbone's tensors,
its precision, and the source of the code that encodes. So nothing has to be cleared by hand, a killed
run resumes at the image it stopped at, and a changed setting encodes only what it changes.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from clipad_core import backbone as backbone_module
from clipad_core import preprocess, transformer, vision, winclip
from clipad_core.backbone import Backbone
from clipad_core.preprocess import Placement
from clipad_core.vision import Features
from clipad_core.winclip import Recipe, encode, views_of
from clipad_harness import images
from clipad_harness.files import replacing
from clipad_harness.images import file_hash, read_image

# Images encoded together; the tower cuts them into cache-sized pieces itself.
IMAGES_PER_BATCH = 8


@dataclass(frozen=True)
class Encoded:
    """Features of some images, image after image, with where their views lie."""

    features: Features
    crops: Tensor
    placements: tuple[Placement, ...]


def code_digest(modules: Iterable[ModuleType]) -> str:
    """SHA-256 over the source of some modules: results are never reused across a code change."""
    found = hashlib.sha256()
    for module in modules:
        found.update(inspect.getsource(module).encode())
    return found.hexdigest()


@cache
def _encoder_digest() -> str:
    return code_digest([backbone_module, images, preprocess, transformer, vision, winclip])


class FeatureCache:
    """Features of images by content; ``get`` encodes what is missing and reads the rest.

    Args:
        folder: where entries live; safe to delete at any time.
        backbone: the frozen CLIP.
    """

    def __init__(self, folder: Path, backbone: Backbone) -> None:
        self.folder, self.backbone, self.code = folder, backbone, _encoder_digest()

    def key(self, image: Path, recipe: Recipe) -> str:
        """Everything an entry depends on, as one SHA-256."""
        parts = {
            "image": file_hash(image),
            "recipe": asdict(recipe),
            "backbone": self.backbone.digest,
            "precision": str(self.backbone.vision.transformer.dtype),
            "code": self.code,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def get(self, paths: Sequence[Path], recipe: Recipe, what: str = "images") -> Encoded:
        """Features of images in the order of ``paths``.

        Raises:
            ClipadError: an image cannot be read, or the cache folder cannot be written.
        """
        entries = {path: self._path(self.key(path, recipe)) for path in paths}
        missing = [path for path, entry in entries.items() if not entry.is_file()]
        # A short job needs no bar; one that is interrupted goes on from the last whole batch.
        with tqdm(
            total=len(missing), desc=f"encode {what}", unit="image", leave=False, delay=2
        ) as bar:
            for start in range(0, len(missing), IMAGES_PER_BATCH):
                batch = missing[start : start + IMAGES_PER_BATCH]
                self._encode(batch, [entries[path] for path in batch], recipe)
                bar.update(len(batch))
        return _join([self._read(entries[path], path, recipe) for path in paths])

    def _read(self, entry: Path, image: Path, recipe: Recipe) -> dict[str, Tensor]:
        try:
            return load_file(entry)
        except (SafetensorError, OSError):
            # A disk that filled up or a copy cut short: the entry is only a cache, so make it again.
            entry.unlink(missing_ok=True)
            self._encode([image], [entry], recipe)
            return load_file(entry)

    def _encode(self, batch: Sequence[Path], entries: Sequence[Path], recipe: Recipe) -> None:
        views = [views_of(self.backbone, np.asarray(read_image(path)), recipe) for path in batch]
        features, crops = encode(self.backbone, views, recipe)
        start, first = 0, 0
        for view, entry in zip(views, entries, strict=True):
            place = view.placement
            part = slice(start, start + len(place.corners))
            mine = crops[first : first + place.crops]
            start, first = part.stop, first + place.crops
            tensors = _to_tensors(features[part], mine, place)
            write_tensors(entry, tensors)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write safetensors atomically.

    Raises:
        ClipadError: the folder is read-only or the disk is full.
    """
    with replacing(path) as temporary:
        try:
            save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def _to_tensors(features: Features, crops: Tensor, place: Placement) -> dict[str, Tensor]:
    tensors = {
        "image_embedding": features.image_embedding,
        "crops": crops,
        "corners": torch.tensor(place.corners),
        "canvas": torch.tensor(place.canvas),
    }
    tensors |= {f"windows.{scale}": value for scale, value in features.window_embeddings.items()}
    return tensors | {f"tokens.{block}": value for block, value in features.patch_tokens.items()}


def _join(entries: Sequence[dict[str, Tensor]]) -> Encoded:
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
