"""What is kept of a shard image by image: the counts of its pixels, and that nothing is scored again."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from foreseen import category_scores
from project import variants_of

from clipad_core.metrics.metrics import aupro, auroc
from clipad_harness.base.sealed import hash_of
from clipad_harness.experiments.by_image import (
    BINS,
    ByImage,
    by_image,
    keep_by_image,
    read_by_image,
)
from clipad_harness.experiments.shards import CategoryScores, measure

KEY = hash_of({"a": "shard"})


def kept_of(scored: CategoryScores, masks: bool = True) -> ByImage:
    return by_image(scored, measure(scored, masks, "cflow200", 0.3), masks, "cflow200", 0.3)


def test_pixels_are_counted_by_image_and_bin() -> None:
    """Four pixels of two images in bins of equal shares: each lies in a bin of its own."""
    images = pd.DataFrame({"label": [0, 1]})
    maps = [np.array([[0.1, 0.4]], np.float32), np.array([[0.2, 0.9]], np.float32)]
    masks = [np.zeros((1, 2), bool), np.array([[False, True]])]
    kept = kept_of(CategoryScores(images, np.array([0.4, 0.9], np.float32), maps, masks, []))
    assert kept.pixels is not None and kept.pixels.shape == (2, 2, BINS)
    assert kept.pixels.sum(axis=2).tolist() == [[2, 1], [0, 1]]
    places = [[np.flatnonzero(kept.pixels[kind, image]) for image in (0, 1)] for kind in (0, 1)]
    (low, high), [middle], [top] = places[0][0], places[0][1], places[1][1]
    assert low < middle < high < top and kept.map_size == (1, 2)


def test_the_auroc_of_the_bins_is_that_of_the_maps_and_aupro_is_exact() -> None:
    scored = category_scores(0.4, 3)
    kept = kept_of(scored)
    assert kept.pixels is not None
    normal, damaged = kept.pixels.sum(axis=1)
    below = np.cumsum(normal) - normal / 2
    truth = np.concatenate([mask.ravel() for mask in scored.masks]).astype(int)
    values = np.concatenate([one.ravel() for one in scored.maps])
    share = (damaged * below).sum() / (damaged.sum() * normal.sum())
    assert share == pytest.approx(auroc(truth, values), abs=1e-3)
    assert kept.values["aupro"] == aupro(scored.maps, scored.masks, "exact", 0.3)
    assert kept.values["aupro"] != aupro(scored.maps, scored.masks, "cflow200", 0.3)


@pytest.mark.parametrize("masks", [True, False])
def test_what_is_kept_is_read_as_it_was(tmp_path: Path, masks: bool) -> None:
    kept = kept_of(category_scores(0.4, 3), masks)
    keep_by_image(tmp_path, KEY, kept)
    read = read_by_image(tmp_path, KEY)
    assert read is not None
    assert np.array_equal(list(read.values.values()), list(kept.values.values()), equal_nan=True)
    assert list(read.values) == list(kept.values) and read.map_size == kept.map_size == (16, 16)
    assert np.array_equal(read.image_scores, kept.image_scores)
    if masks:
        assert read.pixels is not None and np.array_equal(read.pixels, kept.pixels)
    else:
        assert read.pixels is None and kept.pixels is None


def test_a_damaged_file_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep_by_image(tmp_path, KEY, kept_of(category_scores(0.4, 3)))
    [path] = tmp_path.rglob("*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert read_by_image(tmp_path, KEY) is None and "made again" in capsys.readouterr().err
    keep_by_image(tmp_path, KEY, kept_of(category_scores(0.4, 3)))
    assert path.read_bytes() == whole


def test_of_the_headline_and_of_questions_more_is_kept_than_of_ablations() -> None:
    rows = {"words": {"class_name": "spaces"}, "folder name": {"class_name": "raw"}}
    variants = variants_of(
        "winclip",
        ablations={"names": {"rows": rows}},
        questions={"names": {"k_shots": [0], "rows": rows}},
        walks=[],
    )
    kept = {variant.name: variant.by_image for variant in variants}
    assert kept == {
        "main": True,
        "names/words": False,
        "names/folder name": False,
        "question: names/words": True,
        "question: names/folder name": True,
    }
    assert variants[3].k_shots == (0,) and variants[4].config.class_name == "raw"
