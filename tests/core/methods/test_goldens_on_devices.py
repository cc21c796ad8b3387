"""The recordings of the official codes on an accelerator: `./repro test -m gpu` asks the one that is here.

Without that word the accelerator needs no hardware, so that these tests are known to work where a GPU is.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerator import accelerator
from golden_clip import golden_backbone
from recordings import GOLDENS, Recording, close, part, read_recording, recorded_backbone
from safetensors.torch import save_file

from clipad_core.clip.backbone import AUTOCAST, load_backbone
from clipad_core.clip.features import encode_all
from clipad_core.clip.one_pass import encode
from clipad_core.methods.anomalyclip.checkpoint import from_official as anomalyclip_learner
from clipad_core.methods.anomalyclip.config import AnomalyCLIPConfig
from clipad_core.methods.anomalyclip.detector import AnomalyCLIP
from clipad_core.methods.vcpclip.checkpoint import from_official as vcpclip_learner
from clipad_core.methods.vcpclip.config import VCPCLIPConfig
from clipad_core.methods.vcpclip.detector import branch_maps, prepare_backbone, recipe
from clipad_core.methods.winclip.config import find_preset
from clipad_core.methods.winclip.detector import WinCLIP

__all__ = ["accelerator"]
# Error of a score or map, relative to max(1, |x|), by precision: the recordings are of float32 on a CPU.
TOLERANCES = {"float64": 2e-5, "float32": 2e-4, AUTOCAST: 5e-2, "bfloat16": 2e-1}
ON_A_GPU = [pytest.param(("auto", name), marks=pytest.mark.gpu) for name in TOLERANCES]
PLACES = [("pretend", "float64"), ("pretend", "float32"), *ON_A_GPU]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[tuple[Any, str]]:
    """A device and a precision."""
    name, precision = request.param
    if name == "pretend":
        yield request.getfixturevalue("accelerator"), precision
        return
    if not torch.accelerator.is_available():
        pytest.skip("no accelerator is here")
    yield name, precision


def near(values: torch.Tensor, expected: np.ndarray, precision: str) -> None:
    close(values.cpu(), expected, TOLERANCES[precision])


def images_of(values: Recording) -> list[np.ndarray]:
    keys = sorted(key for key in values if key.startswith("image/"))
    return [values[key].astype(np.uint8) for key in keys]


@pytest.mark.parametrize("shots", [0, 2])
def test_winclip_is_anomalibs(shots: int, place: tuple[Any, str], tmp_path: Path) -> None:
    device, precision = place
    folder, recorded = GOLDENS / "winclip", {}
    for name in ("weights", "inputs", "anomalib"):
        with np.load(folder / f"share_tiny6x6.{name}.npz") as opened:
            recorded[name] = dict(opened)
    config = (folder / "share_tiny6x6.config.json").read_text()
    (tmp_path / "golden-device.json").write_text(config)
    weights = {key: torch.tensor(value) for key, value in recorded["weights"].items()}
    save_file(weights, tmp_path / "golden-device.safetensors")
    backbone = load_backbone(
        "golden-device", tmp_path / "golden-device.safetensors", None, precision, device
    )
    inputs = recorded["inputs"]
    references = torch.tensor(inputs["refs"][:shots]) if shots else ()
    detector = WinCLIP(backbone, find_preset("anomalib"), str(inputs["cls"]), references)
    detection = detector(torch.tensor(inputs["images"]))
    near(detection.image_score, recorded["anomalib"][f"pred_score_k{shots}"], precision)
    near(detection.anomaly_map, recorded["anomalib"][f"anomaly_map_k{shots}"], precision)


def test_anomalyclip_is_the_official_test_run(place: tuple[Any, str], tmp_path: Path) -> None:
    device, precision = place
    values = read_recording(GOLDENS / "anomalyclip" / "e2e.npz")
    config = AnomalyCLIPConfig().changed({"image_size": 84, "batch_size": 6, "epochs": 2})
    sizes = json.loads(str(values["config_json"]))["clip"]
    kept = part(values, "clip_kept/")
    backbone = golden_backbone(tmp_path, "anomalyclip-device", sizes, kept, precision).to(device)
    learner = anomalyclip_learner(part(values, "epoch2/"), backbone, config, Path("recording"))
    detection = AnomalyCLIP(backbone, config, learner)(images_of(values))
    for category in np.unique(values["category"]):
        chosen = torch.tensor(np.flatnonzero(values["category"] == category))
        scores, maps = detection.image_score.cpu()[chosen], detection.anomaly_map.cpu()[chosen]
        near(scores, values[f"raw/{category}/pr_sp"], precision)
        near(maps, values[f"raw/{category}/anomaly_maps"], precision)


def test_vcpclip_is_the_official_test_run(place: tuple[Any, str], tmp_path: Path) -> None:
    device, precision = place
    values = read_recording(GOLDENS / "vcpclip" / "e2e.npz")
    settings = json.loads(str(values["config_json"]))
    config = VCPCLIPConfig().changed(
        {
            "image_size": settings["image_size"],
            "blocks": settings["features_list"],
            "category_length": settings["prompt_len"],
            "deep_length": settings["deep_prompt_len"],
        }
    )
    backbone = recorded_backbone(values, "vcpclip-device", tmp_path, precision).to(device)
    learner = vcpclip_learner(part(values, "learn/"), backbone, config, Path("recording"))
    prepared = prepare_backbone(backbone, config)
    features = encode_all(encode, prepared, images_of(values), recipe(config))
    with prepared.computing():
        raw, new = branch_maps(learner, prepared, config, features)
    assert new is not None
    near(raw, values["out/raw"], precision)
    near(new, values["out/new"], precision)
