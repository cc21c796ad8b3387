"""A shard image by image: what intervals and comparisons need beside the metrics of the category.

It is kept beside the shard's metrics, under the same key, so that no page scores an image again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clipad_core.metrics import METRICS
from clipad_core.metrics.aupro import AuproDefinition, aupro_of_pixels
from clipad_harness.base.sealed import read_tensors, tell_damage, write_tensors
from clipad_harness.experiments.shards import CategoryScores

# Pixel scores are counted in so many bins; the AUROC of bins is within 1e-3 of that of the scores.
BINS = 512


@dataclass(frozen=True)
class ByImage:
    """What is kept of a shard for each of its test images, in the order of the index.

    Attributes:
        values: metrics of the category by name, AUPRO at every distinct threshold, whatever the shard's
            own definition; nan where undefined.
        image_scores: (b,).
        pixels: normal and damaged pixels by bin of their score (2, b, BINS), whole numbers; bins hold equal
            shares of the category's pixels. None without masks.
        map_size: height and width of the first map.
    """

    values: dict[str, float]
    image_scores: NDArray[np.float32]
    pixels: NDArray[np.int32] | None
    map_size: tuple[int, int]


def by_image(
    scored: CategoryScores,
    values: Mapping[str, float],
    has_masks: bool,
    definition: AuproDefinition,
    fpr_limit: float,
) -> ByImage:
    """What is kept of a category's scores and maps.

    Args:
        scored: the category.
        values: its metrics, with AUPRO by this ``definition`` up to ``fpr_limit``.
        has_masks: whether every damaged image has one.
    """
    height, width = scored.maps[0].shape
    exact, pixels = values["aupro"], None
    if has_masks:
        if definition != "exact":
            exact = aupro_of_pixels(scored.pixels, "exact", fpr_limit)
        pixels = _counts(scored.maps, scored.masks)
    return ByImage({**values, "aupro": exact}, scored.image_scores, pixels, (height, width))


def _counts(
    maps: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]
) -> NDArray[np.int32]:
    """Normal and damaged pixels in bins of equal shares."""
    values = np.sort(np.concatenate([anomaly_map.ravel() for anomaly_map in maps]))
    edges = np.unique(values[np.arange(1, BINS) * len(values) // BINS])
    return pixel_counts(maps, masks, edges, BINS)


def pixel_counts(
    maps: Sequence[NDArray[np.float32]],
    masks: Sequence[NDArray[np.bool_]],
    edges: NDArray[np.float32],
    bins: int,
) -> NDArray[np.int32]:
    """Normal and damaged pixels of every image by bin of their score (2, b, bins).

    Args:
        edges: ascending; a score that equals one lies in the bin above it.
        bins: at least one more than there are edges.
    """
    counts = np.zeros((2, len(maps), bins), dtype=np.int32)
    for place, (anomaly_map, mask) in enumerate(zip(maps, masks, strict=True)):
        # One count for both kinds: those of damaged pixels lie behind those of normal ones.
        kinds = np.searchsorted(edges, anomaly_map, side="right") + bins * mask
        counts[:, place] = np.bincount(kinds.ravel(), minlength=2 * bins).reshape(2, bins)
    return counts


def read_by_image(folder: Path, key: str) -> ByImage | None:
    """What is kept of a shard; None where its file is missing, or damaged, which is told.

    Args:
        folder: of the cache.
        key: of the shard.
    """
    path = _path(folder, key)
    tensors = read_tensors(path, key)
    if tensors is None:
        tell_damage(path)
        return None
    pixels = tensors.get("pixels")
    height, width = tensors["map_size"].tolist()
    return ByImage(
        dict(zip(METRICS, tensors["values"].tolist(), strict=True)),
        tensors["image_scores"].numpy(),
        None if pixels is None else pixels.numpy(),
        (height, width),
    )


def keep_by_image(folder: Path, key: str, kept: ByImage) -> None:
    """Keep it, for `read_by_image`."""
    tensors = {
        "values": torch.tensor([kept.values[name] for name in METRICS], dtype=torch.float64),
        "image_scores": torch.from_numpy(kept.image_scores),
        "map_size": torch.tensor(kept.map_size),
    }
    if kept.pixels is not None:
        tensors["pixels"] = torch.from_numpy(kept.pixels)
    write_tensors(_path(folder, key), key, tensors)


def _path(folder: Path, key: str) -> Path:
    return folder / "shards" / key[:2] / f"{key}.safetensors"
