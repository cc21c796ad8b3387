"""The rows that anomalib measures: its answers become results like all others, its troubles a message."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks import few_shot
from clipad_core.errors import ClipadError
from clipad_harness.data.dataset_images import DatasetImages
from clipad_harness.experiments.results import COLUMNS


@pytest.fixture
def images(tmp_path: Path) -> DatasetImages:
    """Four test images of 8 x 8 pixels, of two damaged ones the left half; three normal ones to learn."""
    rows = []
    half = np.zeros((8, 8), np.uint8)
    half[:, :4] = 255
    for place in range(7):
        split, label = ("train", 0) if place < 3 else ("test", place % 2)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"{place}.png")
        Image.fromarray(half).save(tmp_path / f"{place}_mask.png")
        mask = f"{place}_mask.png" if label else ""
        rows.append(("small", "nut", split, label, "hole", f"{place}.png", mask))
    columns = ["dataset", "category", "split", "label", "defect", "image", "mask"]
    return DatasetImages(pd.DataFrame(rows, columns=columns), tmp_path)


class Perfect:
    """Scores what is damaged 1; of one model, with a single reference, nothing finite."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.requests.append(request)
        labels = np.array([int(Path(path).stem) % 2 for path in request["images"]], np.float32)
        maps = np.zeros((len(labels), 4, 4), np.float32)
        maps[:, :, :2] = labels[:, None, None]
        if request["model"] == "padim" and len(request["references"]) == 1:
            labels = labels * np.nan
        np.savez(request["file"], scores=labels, maps=maps)
        return {"backbone": "resnet18"}


def test_anomalibs_scores_and_maps_are_measured_like_all_others(
    images: DatasetImages, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, models = Perfect(), list(few_shot.TITLES)
    results = few_shot.measure_all(engine, images, "small", models, [1, 2], [0, 1], "random", "cpu")
    assert list(results.columns) == COLUMNS
    assert set(results["value"]) == {1.0}
    assert set(results["metric"]) >= {"image_auroc", "pixel_auroc", "aupro"}
    assert set(zip(results["method"], results["variant"], strict=True)) == {
        ("PaDiM", "2-shot"),
        ("PatchCore", "1-shot"),
        ("PatchCore", "2-shot"),
    }
    assert results["backbone"].str.startswith("resnet18 / random (anomalib==").all()
    assert "PaDiM, nut, 1-shot: not defined, left out" in capsys.readouterr().out
    assert "| PatchCore, 1-shot | 100.0 ± 0.0 |" in few_shot.table(results)
    first = [request["references"] for request in engine.requests if request["seed"] == 0]
    chosen = [str(path) for path in images.references("nut", 2, 0, "seeded")]
    assert first[0] == chosen[:1] and first[1] == chosen


def test_what_anomalib_cannot_do_is_one_message(tmp_path: Path, monkeypatch) -> None:
    script = tmp_path / "side.py"
    script.write_text(
        "import json\nprint(json.dumps({'ready': 1}), flush=True)\ninput()\n"
        "print(json.dumps({'error': 'LocalEntryNotFoundError: no weights'}), flush=True)\n"
    )
    monkeypatch.setattr(few_shot, "SIDE", script)
    with (
        few_shot.side(Path(sys.executable), "cpu") as engine,
        pytest.raises(ClipadError, match="^anomalib: found LocalEntryNotFoundError: no weights"),
    ):
        engine.ask({"model": "padim"})
