"""The explorer's numbers against the formulas written out, and what its page may not hold."""

import base64
import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clipad_core.errors import ClipadError
from clipad_harness.base.settings import Explorer
from clipad_harness.site.explorer import write_explorer
from clipad_harness.site.explorer_data import (
    RATES,
    choose,
    overlaps,
    quantised,
    read_explorer_data,
    thresholds,
)
from clipad_harness.site.page import network_loads

SETTINGS = Explorer(images_per_category=9, picture_size=16, map_size=8, max_megabytes=5)


@dataclass(frozen=True)
class MethodMaps:
    images: pd.DataFrame
    image_scores: np.ndarray
    maps: list
    masks: list


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for i in range(4):
        grey = np.full((16, 12, 3), 40 * i, dtype=np.uint8)
        Image.fromarray(grey).save(tmp_path / f"{i}.png")
    return tmp_path


def method_maps(seed: int = 0, labels: tuple[int, ...] = (0, 1, 0, 1)) -> MethodMaps:
    rng = np.random.default_rng(seed)
    rows = [
        {
            "image": f"{i}.png",
            "defect": "</script><b>" if label else "good",
            "label": label,
            "mask": "m.png" if label else "",
        }
        for i, label in enumerate(labels)
    ]
    maps = [rng.random((16, 12)).astype(np.float32) for _ in labels]
    masks = [anomaly_map > (0.8 if label else 2) for anomaly_map, label in zip(maps, labels)]
    maps = [
        (anomaly_map + rng.normal(0, 0.2, anomaly_map.shape)).astype(np.float32)
        for anomaly_map in maps
    ]
    return MethodMaps(pd.DataFrame(rows), rng.random(len(labels)), maps, masks)


def test_weights_that_are_not_the_published_ones_are_told_first(data: Path) -> None:
    methods = {"one": lambda _: method_maps()}
    output = data / "explorer.html"
    settings = {"provenance": {}, "warning": "Stand-in <weights>"}
    write_explorer(methods, ["nut"], data, output, SETTINGS, **settings)
    html = output.read_text(encoding="utf-8")
    assert html.index("Stand-in &lt;weights&gt;") < html.index('id="explorer"')
    write_explorer(methods, ["nut"], data, output, SETTINGS, provenance={})
    assert 'class="callout' not in output.read_text(encoding="utf-8")


def page(data: Path, *methods: MethodMaps, settings: Explorer = SETTINGS) -> str:
    method_by_label = {
        f"method {i}": lambda _, method=method: method for i, method in enumerate(methods)
    }
    output = data / "reports" / "explorer.html"
    write_explorer(
        method_by_label, ["nut"], data, output, settings, provenance={"data hash": "0" * 64}
    )
    return output.read_text(encoding="utf-8")


def naive_overlap(anomaly_map: np.ndarray, mask: np.ndarray, cut: float) -> float:
    """Pixel by pixel: how many are marked and defect, how many marked or defect."""
    intersection = union = 0
    for value, defect in zip(anomaly_map.ravel().tolist(), mask.ravel().tolist(), strict=True):
        marked = value > cut
        intersection += marked and defect
        union += marked or defect
    return intersection / union


def test_overlaps_are_intersection_over_union_at_every_threshold() -> None:
    method = method_maps()
    cuts = np.linspace(1.2, -0.2, 15)
    fast = overlaps(method.maps[1], method.masks[1], cuts)
    naive = [naive_overlap(method.maps[1], method.masks[1], cut) for cut in cuts]
    assert fast == pytest.approx(naive)


def test_a_threshold_marks_its_share_of_the_normal_pixels() -> None:
    method = method_maps()
    normal = np.concatenate([m[~k] for m, k in zip(method.maps, method.masks)])
    shares = [(normal > cut).mean() for cut in thresholds(method)]
    assert shares == pytest.approx(RATES, abs=1 / len(normal))


def test_a_damaged_image_without_a_mask_counts_no_pixel_as_normal() -> None:
    method = method_maps()
    method.images.loc[method.images["label"] == 1, "mask"] = ""
    unmasked = replace(method, masks=[np.zeros_like(mask) for mask in method.masks])
    normal_maps = [
        anomaly_map for anomaly_map, label in zip(method.maps, method.images["label"]) if not label
    ]
    expected = np.quantile(np.concatenate(normal_maps).astype(float), 1 - RATES)
    assert thresholds(unmasked) == pytest.approx(expected)


def test_images_are_chosen_from_both_ends_and_both_labels() -> None:
    labels = np.array([0] * 10 + [1] * 30)
    scores = np.random.default_rng(0).random(40)
    chosen = choose(labels, [scores], 8)
    assert len(set(chosen)) == 8 and labels[chosen].sum() == 6
    damaged = np.flatnonzero(labels == 1)
    assert {damaged[scores[damaged].argmax()], damaged[scores[damaged].argmin()]} <= set(chosen)
    assert choose(labels, [scores], 40) == list(range(40))
    assert labels[choose(np.ones(9, dtype=int), [scores[:9]], 4)].size == 4


def test_a_drawn_map_is_off_by_at_most_half_a_level() -> None:
    anomaly_map = method_maps().maps[0][:8, :8]
    low, high, uri = quantised(anomaly_map, 8)
    grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    assert (
        np.abs(low + grey / 255 * (high - low) - anomaly_map).max()
        <= 0.5 / 255 * (high - low) + 1e-5
    )
    low, high, _ = quantised(np.full((4, 4), 0.25, dtype=np.float32), 8)
    assert low == high == 0.25


def test_the_page_holds_every_method_and_nothing_from_outside(data: Path) -> None:
    html = page(data, method_maps(0), method_maps(1))
    assert network_loads(html) == []
    assert "</script><b>" not in html
    record = read_explorer_data(html)
    assert record["methods"] == ["method 0", "method 1"]
    [category] = record["categories"]
    assert [image["name"] for image in category["images"]] == [f"{i}.png" for i in range(4)]
    assert category["images"][0]["mask"] is None
    assert category["images"][0]["methods"][0]["overlap"] is None
    method = category["images"][1]["methods"][1]
    cuts = thresholds(method_maps(1))
    assert method["overlap"] == pytest.approx(
        overlaps(method_maps(1).maps[1], method_maps(1).masks[1], cuts), abs=6e-4
    )
    assert method["score"] == pytest.approx(method_maps(1).image_scores[1], rel=1e-5)
    assert len(category["methods"][0]["normal"]) == len(category["methods"][0]["damaged"]) == 2


def test_the_same_scores_give_the_same_bytes(data: Path) -> None:
    assert page(data, method_maps()) == page(data, method_maps())


def test_methods_that_saw_other_images_are_refused(data: Path) -> None:
    second = method_maps(1)
    with pytest.raises(ClipadError, match="method 1 has other test images of nut than method 0"):
        page(data, method_maps(), replace(second, images=second.images[::-1]))


def test_a_page_above_its_size_is_refused_and_not_written(data: Path) -> None:
    big = np.random.default_rng(0).integers(0, 255, (700, 700, 3), dtype=np.uint8)
    for i in range(4):
        Image.fromarray(big).save(data / f"{i}.png")
    settings = replace(SETTINGS, picture_size=700, max_megabytes=1)
    with pytest.raises(ClipadError, match=r"expected at most 1; lower explorer\.images_per"):
        page(data, method_maps(), settings=settings)
    assert not (data / "reports" / "explorer.html").exists()


def test_an_explorer_of_nothing_is_refused(data: Path) -> None:
    with pytest.raises(ClipadError, match="found no method or no category"):
        page(data)
