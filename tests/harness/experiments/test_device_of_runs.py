"""Runs on an accelerator: the CPU's numbers, batches that fit its memory, a note of how it computed."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch
from accelerator import NAME, accelerator
from project import LEARNED, change, draw_all, make_project

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.features import encode_all, join, split
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_harness.base import settings
from clipad_harness.base.run_record import leave_note, noted, recorded
from clipad_harness.base.settings import read_profile
from clipad_harness.cli.main import main
from clipad_harness.experiments import features, pipeline
from clipad_harness.experiments.batches import BatchSize, in_batches, read_ahead

__all__ = ["accelerator"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small project with the headline alone."""
    root = make_project(tmp_path_factory.mktemp("device"))
    draw_all(root)
    change(root, "ablations", value="none")
    return root


@pytest.fixture
def project(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "project"))


@pytest.mark.parametrize("method", ["winclip", *LEARNED])
def test_a_run_on_the_accelerator_gives_the_numbers_of_the_cpu(
    method: str, project: Path, accelerator: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = []
    encoded: list[int] = []
    encode = features.FeatureStore._encode
    for device in ("cpu", "auto"):
        change(project, "profiles", "demo", "device", value=device)
        pipeline.train(project, method)
        tables.append(pd.read_csv(pipeline.measure(project, method)))

        def counted(self: features.FeatureStore, stores: Sequence, views: Sequence) -> object:
            encoded.append(len(views))
            return encode(self, stores, views)

        monkeypatch.setattr(features.FeatureStore, "_encode", counted)
    here, there = tables
    assert set(here["device"]) == {"cpu"} and set(there["device"]) == {NAME}
    assert not set(here["key"]) & set(there["key"])
    pd.testing.assert_series_equal(there["value"], here["value"], rtol=0, atol=1e-4)
    assert max(encoded) > 1  # several together
    facts = noted(project / ".cache", since=0)
    assert facts["accelerator"] == f"{NAME}:0" and facts["precision"].startswith("float64")
    assert int(facts["images encoded together"].split("; ")[-1]) > 0


def test_a_profile_without_a_device_has_that_of_all(project: Path) -> None:
    change(project, "device", value="cuda:1")
    assert read_profile(project, "demo").device == "cpu"
    assert read_profile(project, "paper").device == "cuda:1"
    change(project, "profiles", "demo", "device", value="gpu")
    with pytest.raises(ClipadError, match="^device: found 'gpu', expected auto, cpu, cuda"):
        pipeline.measure(project, "winclip")


def test_two_processes_share_an_accelerator_unless_a_number_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "cores", lambda: 16)
    change(project, "workers", value=0)
    assert settings.read_workers(project, "cpu") == 16
    assert settings.read_workers(project, "cuda") == 2
    assert settings.read_engine(project, "auto", "mps") == 2
    change(project, "workers", value=5)
    assert settings.read_workers(project, "cuda") == 5


def test_features_are_split_into_those_of_each_image(micro: Backbone) -> None:
    method = find_method("winclip")
    config = method.config().changed({"multi_crop": "five"})
    recipe = method.recipe(config, 1)
    drawn = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (32, width, 3), generator=drawn, dtype=torch.uint8).numpy()
        for width in (32, 60, 40)
    ]
    together = encode_all(method.encode, micro, images, recipe)
    parts = split(together)
    assert [len(part) for part in parts] == [1, 3, 2]
    again = join(parts)
    assert again.placements == together.placements and again.crops is not None
    assert torch.equal(again.crops, together.crops)
    assert torch.equal(again.image_embedding, together.image_embedding)
    for scale, windows in together.window_embeddings.items():
        assert torch.equal(again.window_embeddings[scale], windows)


def test_a_batch_is_halved_until_the_memory_holds_it(accelerator: torch.device) -> None:
    size, seen = BatchSize(accelerator), []

    def encode(items: Sequence[int]) -> list[int]:
        if len(items) > 5:
            raise torch.OutOfMemoryError("out of memory")
        seen.append(len(items))
        return list(items)

    batches = list(in_batches(range(30), size, lambda item: item, encode))
    assert [number for batch, _ in batches for number in batch] == list(range(30))
    assert [encoded for _, encoded in batches] == [list(batch) for batch, _ in batches]
    assert size.images == 3 and max(seen) == 3 and sum(seen) == 30


def test_a_device_that_holds_one_image_but_not_two_takes_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a GPU says it: memory is measured with one image and with two."""
    for name in ("reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    for name in ("memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: 10)

    def encode(items: Sequence[int]) -> int:
        if len(items) > 1:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)")
        return items[0]

    size = BatchSize(torch.device("cuda"))
    found = [encoded for _, encoded in in_batches(range(3), size, lambda item: item, encode)]
    assert found == [0, 1, 2] and size.images == 1
    free = {1: 10, 2: 30}
    monkeypatch.setattr(size, "_peak", lambda encode, items: free[len(items)])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (200, 200))
    size.images = None
    assert size.measure(encode, 0) == 7  # 160 usable bytes, 10 of the first, 20 of each


def test_memory_that_runs_out_elsewhere_is_one_message(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nGPU 0 has ...")

    monkeypatch.setattr(pipeline, "train", full)
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    assert main(["train", "anomalyclip"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("clipad: device: its memory ran out (CUDA out of memory. Tried to")
    assert len(error.splitlines()) == 1


def test_a_device_that_holds_not_one_image_is_one_message(accelerator: torch.device) -> None:
    def encode(items: Sequence[int]) -> None:
        raise torch.OutOfMemoryError("out of memory\nTried to allocate 2 GiB")

    with pytest.raises(
        ClipadError, match="^device: the memory of pretend:0 does not hold one image"
    ):
        list(in_batches(range(3), BatchSize(accelerator), lambda item: item, encode))


def test_on_a_cpu_images_are_read_and_encoded_one_by_one() -> None:
    order: list[str] = []

    def read(item: int) -> int:
        order.append(f"read {item}")
        return item

    def encode(items: Sequence[int]) -> None:
        order.append(f"encode {list(items)}")

    list(in_batches(range(2), BatchSize(torch.device("cpu")), read, encode))
    assert order == ["read 0", "encode [0]", "read 1", "encode [1]"]


def test_what_is_read_ahead_is_bounded_and_comes_in_its_order() -> None:
    started: list[int] = []

    def read(item: int) -> int:
        started.append(item)
        return item

    results = read_ahead(range(100), read, ahead=3)
    assert next(results) == 0 and len(started) <= 4
    assert list(results) == list(range(1, 100))

    def broken(item: int) -> int:
        raise ClipadError(f"photo {item}: damaged")

    with pytest.raises(ClipadError, match="photo 0"):
        list(read_ahead(range(9), broken, ahead=3))


def test_the_run_record_holds_what_the_processes_of_this_run_noted(tmp_path: Path) -> None:
    leave_note(tmp_path / ".cache", {"accelerator": "of an earlier run"})
    for path in (tmp_path / ".cache").rglob("*.json"):
        path.rename(path.with_stem("earlier"))
    earlier = tmp_path / ".cache/computed/earlier.json"
    assert noted(tmp_path / ".cache", since=0) == {"accelerator": "of an earlier run"}
    os.utime(earlier, (1, 1))

    def work() -> Path:
        leave_note(tmp_path / ".cache", {"accelerator": "H200", "images encoded together": "32"})
        (tmp_path / "results.csv").write_text("")
        return tmp_path / "results.csv"

    recorded(tmp_path, "measure winclip", work)
    text = (tmp_path / "reports/run.js").read_text().removeprefix("var clipadRun = ").rstrip(";\n")
    environment = json.loads(text)["measure winclip"]["environment"]
    assert environment["accelerator"] == "H200"
    assert environment["images encoded together"] == "32"
