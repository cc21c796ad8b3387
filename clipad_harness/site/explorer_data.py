"""What the explorer shows of a category: pictures, maps of every method, thresholds, overlaps.

Scores of different methods have different scales, so one slider cannot set one threshold. What they
share is how many normal pixels they mark: at every stop of the slider each method gets the threshold
that marks the same share of its category's normal pixels. Thresholds and overlaps are computed here
from the whole maps; the small 8-bit maps of the page only draw them.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from clipad_core.errors import ClipadError
from clipad_harness.data.images import read_image

# Shares of normal pixels that are marked, from one in two thousand to one in two.
RATES = np.geomspace(0.0005, 0.5, 61)
# Above one image in four of the chosen ones is normal.
NORMAL_SHARE = 0.25


class CategoryMaps(Protocol):
    """What a method says about the test images of a category, in the order of the index.

    Attributes:
        images: the index rows.
        image_scores: one an image.
        maps: the anomaly map of each image, (H, W).
        masks: the true defects, same shapes as the maps; all False where there is none.
    """

    @property
    def images(self) -> pd.DataFrame: ...  # noqa: D102
    @property
    def image_scores(self) -> NDArray[np.float32]: ...  # noqa: D102
    @property
    def maps(self) -> list[NDArray[np.float32]]: ...  # noqa: D102
    @property
    def masks(self) -> list[NDArray[np.bool_]]: ...  # noqa: D102


@dataclass(frozen=True)
class Sizes:
    """Longest sides in pixels of what the page holds, and how many images a category."""

    images_per_category: int
    picture_size: int
    map_size: int


def category_record(
    name: str, layers: Mapping[str, CategoryMaps], data: Path, sizes: Sizes
) -> dict[str, object]:
    """One category of the page, ready for JSON.

    Args:
        name: the category.
        layers: by label, what each method found; all on the same images.
        data: the dataset's folder.
        sizes: how much of it the page holds.

    Raises:
        ClipadError: methods that looked at different images.
    """
    found = list(layers.values())
    rows = found[0].images.to_dict("records")
    for label, layer in layers.items():
        if list(layer.images["image"]) != [row["image"] for row in rows]:
            raise ClipadError(
                f"explorer: {label} has other test images of {name} than {next(iter(layers))}, "
                "expected the same in the same order; score both on one dataset."
            )
    labels = found[0].images["label"].to_numpy()
    cuts = [thresholds(layer) for layer in found]
    chosen = choose(labels, [layer.image_scores for layer in found], sizes.images_per_category)
    return {
        "name": name,
        "layers": [_layer(labels, one, cut) for one, cut in zip(found, cuts, strict=True)],
        "images": [_image(rows[place], place, found, cuts, data, sizes) for place in chosen],
    }


def thresholds(found: CategoryMaps) -> NDArray[np.float64]:
    """For each of `RATES` the score above which that share of the normal pixels lies, falling.

    Normal pixels are those outside the masks; of damaged images without a mask none is known.
    """
    known = [
        one[~mask]
        for one, mask, row in zip(found.maps, found.masks, found.images.to_dict("records"))
        if not row["label"] or row["mask"]
    ]
    normal = np.concatenate(known or [one.ravel() for one in found.maps])
    return np.quantile(normal.astype(np.float64), 1 - RATES)


def overlaps(
    one: NDArray[np.float32], mask: NDArray[np.bool_], cuts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Intersection over union of the mask and the pixels above each threshold.

    >>> one, mask = np.array([[0.1, 0.6, 0.9]], np.float32), np.array([[False, True, True]])
    >>> overlaps(one, mask, np.array([0.95, 0.8, 0.5, 0.0])).round(2).tolist()
    [0.0, 0.5, 1.0, 0.67]
    """
    inside = _share_above(one[mask], cuts) * mask.sum()
    marked = _share_above(one.ravel(), cuts) * one.size
    return inside / (mask.sum() + marked - inside)


def _share_above(values: NDArray[np.float32], cuts: NDArray[np.float64]) -> NDArray[np.float64]:
    ordered = np.sort(values.astype(np.float64))
    return 1 - np.searchsorted(ordered, cuts, side="right") / len(ordered)


def choose(
    labels: NDArray[np.int64], scores: Sequence[NDArray[np.floating]], count: int
) -> list[int]:
    """Positions of the images to show: all, or an even walk from the lowest to the highest score.

    Images are ordered by their rank, averaged over the methods, among those of their label; a
    quarter of the chosen ones is normal where both labels have enough.

    >>> labels, scores = np.array([0, 0, 1, 1, 1, 1]), np.array([1.0, 2, 3, 4, 5, 6])
    >>> choose(labels, [scores], 4)
    [1, 2, 3, 5]
    """
    if count >= len(labels):
        return list(range(len(labels)))
    ranks = np.mean([pd.Series(one).rank().to_numpy() for one in scores], axis=0)
    normal, damaged = (
        sorted(np.flatnonzero(labels == label).tolist(), key=lambda place: (-ranks[place], place))
        for label in (0, 1)
    )
    some = max(round(NORMAL_SHARE * count), count - len(damaged))
    some = min(some, len(normal))
    return sorted(_evenly(normal, some) + _evenly(damaged, count - some))


def _evenly(ordered: list[int], count: int) -> list[int]:
    places = np.linspace(0, len(ordered) - 1, count).round().astype(int)
    return [ordered[place] for place in places]


def _layer(
    labels: NDArray[np.int64], found: CategoryMaps, cuts: NDArray[np.float64]
) -> dict[str, object]:
    """Thresholds and the image scores of the whole category, for the histogram."""
    scores = {name: found.image_scores[labels == i] for i, name in enumerate(("normal", "damaged"))}
    highest = max(float(one.max()) for one in found.maps)
    return {
        "thresholds": _numbers(cuts),
        "highest": _numbers([highest])[0],
        **{name: _numbers(values) for name, values in scores.items()},
    }


def _image(
    row: Mapping[Hashable, object],
    place: int,
    layers: Sequence[CategoryMaps],
    cuts: Sequence[NDArray[np.float64]],
    data: Path,
    sizes: Sizes,
) -> dict[str, object]:
    mask = layers[0].masks[place]
    picture = read_image(data / str(row["image"]))
    picture.thumbnail((sizes.picture_size, sizes.picture_size), Image.Resampling.LANCZOS)
    return {
        "name": str(row["image"]),
        "defect": str(row["defect"]),
        "label": int(bool(row["label"])),
        "picture": _data_uri(picture, "JPEG", quality=82),
        "mask": _mask_uri(mask, sizes.picture_size) if row["mask"] else None,
        "layers": [
            _map(layer, place, cut, bool(row["mask"]), sizes.map_size)
            for layer, cut in zip(layers, cuts, strict=True)
        ],
    }


def _map(
    layer: CategoryMaps, place: int, cuts: NDArray[np.float64], has_mask: bool, size: int
) -> dict[str, object]:
    one, mask = layer.maps[place], layer.masks[place]
    low, high, uri = quantised(one, size)
    return {
        "score": _numbers([layer.image_scores[place]])[0],
        "low": low,
        "high": high,
        "map": uri,
        "marked": [round(float(v), 4) for v in _share_above(one.ravel(), cuts)],
        "overlap": [round(float(v), 3) for v in overlaps(one, mask, cuts)] if has_mask else None,
    }


def quantised(one: NDArray[np.float32], size: int) -> tuple[float, float, str]:
    """A map as a small 8-bit picture: the scores of black and of white, and its data URI."""
    small = Image.fromarray(one.astype(np.float32), mode="F")
    small = small.resize(_fitting(one.shape, size), Image.Resampling.BOX)
    values = np.asarray(small, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    share = (values - low) / (high - low) if high > low else np.zeros_like(values)
    grey = Image.fromarray(np.rint(255 * share).astype(np.uint8))
    return float(f"{low:.6g}"), float(f"{high:.6g}"), _data_uri(grey, "PNG", optimize=True)


def _mask_uri(mask: NDArray[np.bool_], size: int) -> str:
    small = Image.fromarray(mask).resize(_fitting(mask.shape, size), Image.Resampling.NEAREST)
    return _data_uri(small, "PNG", optimize=True)


def _fitting(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """Width and height with the longest side at most `size`."""
    scale = min(1.0, size / max(shape))
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def _data_uri(picture: Image.Image, kind: str, **options: int | bool) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _numbers(values: Sequence[float] | NDArray[np.float64]) -> list[float]:
    """Six digits say more than a picture can show, and keep the page small."""
    return [float(f"{value:.6g}") for value in values]


def read_explorer_data(html: str) -> dict[str, object]:
    """What a page of the explorer shows, as plain data."""
    start = html.index(">", html.index('<script type="application/json" id="explorer-data"')) + 1
    found: dict[str, object] = json.loads(html[start : html.index("</script>", start)])
    return found
