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
    name: str, methods: Mapping[str, CategoryMaps], data: Path, sizes: Sizes
) -> dict[str, object]:
    """One category of the page, ready for JSON.

    Args:
        name: the category.
        methods: by label, what each one found; all on the same images.
        data: the dataset's folder.
        sizes: how much of it the page holds.

    Raises:
        ClipadError: methods that looked at different images.
    """
    results = list(methods.values())
    rows = results[0].images.to_dict("records")
    for label, method in methods.items():
        if list(method.images["image"]) != [row["image"] for row in rows]:
            raise ClipadError(
                f"explorer: {label} has other test images of {name} than {next(iter(methods))}, "
                "expected the same in the same order; score both on one dataset."
            )
    labels = results[0].images["label"].to_numpy()
    cuts = [thresholds(method) for method in results]
    chosen = choose(labels, [method.image_scores for method in results], sizes.images_per_category)
    return {
        "name": name,
        "methods": [
            _method(labels, method, cut) for method, cut in zip(results, cuts, strict=True)
        ],
        "images": [_image(rows[place], place, results, cuts, data, sizes) for place in chosen],
    }


def thresholds(method: CategoryMaps) -> NDArray[np.float64]:
    """For each of `RATES` the score above which that share of the normal pixels lies, falling.

    Normal pixels are those outside the masks; of damaged images without a mask none is known.
    """
    samples = [
        anomaly_map[~mask]
        for anomaly_map, mask, row in zip(
            method.maps, method.masks, method.images.to_dict("records")
        )
        if not row["label"] or row["mask"]
    ]
    normal = np.concatenate(samples or [anomaly_map.ravel() for anomaly_map in method.maps])
    return np.quantile(normal.astype(np.float64), 1 - RATES)


def overlaps(
    anomaly_map: NDArray[np.float32], mask: NDArray[np.bool_], cuts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Intersection over union of the mask and the pixels above each threshold.

    >>> anomaly_map, mask = np.array([[0.1, 0.6, 0.9]], np.float32), np.array([[False, True, True]])
    >>> overlaps(anomaly_map, mask, np.array([0.95, 0.8, 0.5, 0.0])).round(2).tolist()
    [0.0, 0.5, 1.0, 0.67]
    """
    inside = _share_above(anomaly_map[mask], cuts) * mask.sum()
    marked = _share_above(anomaly_map.ravel(), cuts) * anomaly_map.size
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
    ranks = np.mean(
        [pd.Series(method_scores).rank().to_numpy() for method_scores in scores], axis=0
    )
    normal, damaged = (
        sorted(np.flatnonzero(labels == label).tolist(), key=lambda place: (-ranks[place], place))
        for label in (0, 1)
    )
    normal_count = max(round(NORMAL_SHARE * count), count - len(damaged))
    normal_count = min(normal_count, len(normal))
    return sorted(_evenly(normal, normal_count) + _evenly(damaged, count - normal_count))


def _evenly(ordered: list[int], count: int) -> list[int]:
    places = np.linspace(0, len(ordered) - 1, count).round().astype(int)
    return [ordered[place] for place in places]


def _method(
    labels: NDArray[np.int64], method: CategoryMaps, cuts: NDArray[np.float64]
) -> dict[str, object]:
    """Thresholds and the image scores of the whole category, for the histogram."""
    scores = {
        name: method.image_scores[labels == i] for i, name in enumerate(("normal", "damaged"))
    }
    highest = max(float(anomaly_map.max()) for anomaly_map in method.maps)
    return {
        "thresholds": _numbers(cuts),
        "highest": _numbers([highest])[0],
        **{name: _numbers(values) for name, values in scores.items()},
    }


def _image(
    row: Mapping[Hashable, object],
    place: int,
    methods: Sequence[CategoryMaps],
    cuts: Sequence[NDArray[np.float64]],
    data: Path,
    sizes: Sizes,
) -> dict[str, object]:
    mask = methods[0].masks[place]
    picture = read_image(data / str(row["image"]))
    picture.thumbnail((sizes.picture_size, sizes.picture_size), Image.Resampling.LANCZOS)
    return {
        "name": str(row["image"]),
        "defect": str(row["defect"]),
        "label": int(bool(row["label"])),
        "picture": _data_uri(picture, "JPEG", quality=82),
        "mask": _mask_uri(mask, sizes.picture_size) if row["mask"] else None,
        "methods": [
            _map(method, place, cut, bool(row["mask"]), sizes.map_size)
            for method, cut in zip(methods, cuts, strict=True)
        ],
    }


def _map(
    method: CategoryMaps, place: int, cuts: NDArray[np.float64], has_mask: bool, size: int
) -> dict[str, object]:
    anomaly_map, mask = method.maps[place], method.masks[place]
    low, high, uri = quantised(anomaly_map, size)
    return {
        "score": _numbers([method.image_scores[place]])[0],
        "low": low,
        "high": high,
        "map": uri,
        "marked": [round(float(v), 4) for v in _share_above(anomaly_map.ravel(), cuts)],
        "overlap": [round(float(v), 3) for v in overlaps(anomaly_map, mask, cuts)]
        if has_mask
        else None,
    }


def quantised(anomaly_map: NDArray[np.float32], size: int) -> tuple[float, float, str]:
    """A map as a small 8-bit picture: the scores of black and of white, and its data URI."""
    small = Image.fromarray(anomaly_map.astype(np.float32), mode="F")
    small = small.resize(_fitting(anomaly_map.shape, size), Image.Resampling.BOX)
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
    record: dict[str, object] = json.loads(html[start : html.index("</script>", start)])
    return record
