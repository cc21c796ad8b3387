"""The stages on a tiny grid: resume, reuse, same bytes, and one message for bad input."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from project import SIZE, change, make_project, run_stages, with_one_bit_changed

from clipad_core.errors import ClipadError
from clipad_core.methods.winclip.detector import METHOD, WinCLIP
from clipad_harness.base.files import alone
from clipad_harness.base.settings import read_workers
from clipad_harness.cli.main import main
from clipad_harness.data import dataset_images, stages
from clipad_harness.data.datasets import read_index
from clipad_harness.data.images import read_image
from clipad_harness.data.stages import CONTENT, write_index
from clipad_harness.experiments import pipeline
from clipad_harness.experiments.features import FeatureStore
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.variants import Shard
from clipad_harness.photos.detectors import open_weights

RESULTS = Path("reports/results/winclip/results.csv")


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_project(tmp_path_factory.mktemp("scored"))
    run_stages(project)
    return project


@pytest.fixture
def project(scored: Path, tmp_path: Path) -> Path:
    """A copy of the scored project that a test may break."""
    return Path(shutil.copytree(scored, tmp_path / "project"))


def abort(_shards: object) -> None:
    os.abort()


def counting(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count what is really computed."""
    counts = {"encoded": 0, "measured": 0}
    encode, detect = FeatureStore._write, Scorer.detect

    def count_encode(self, image, entry):
        counts["encoded"] += 1
        return encode(self, image, entry)

    def count_detect(self, shard):
        counts["measured"] += 1
        return detect(self, shard)

    monkeypatch.setattr(FeatureStore, "_write", count_encode)
    monkeypatch.setattr(Scorer, "detect", count_detect)
    return counts


def test_results_are_tidy_and_complete(scored: Path) -> None:
    results = pipeline.read_results(scored, "winclip")
    assert results["value"].between(0, 1).all()
    assert list(results.columns[:5]) == ["method", "variant", "backbone", "precision", "device"]
    assert set(results["precision"]) == {"float64"} and set(results["device"]) == {"cpu"}
    assert set(results["category"]) == {"hex_nut", "leather_hide"}
    key = ["variant", "category", "k_shot", "seed", "metric"]
    assert not results.duplicated(key).any()
    run = pipeline.open_run(scored, "winclip")
    assert list(dict.fromkeys(results["variant"])) == [v.name for v in run.variants]
    assert set(results["metric"]) == {
        *("image_auroc", "image_ap", "image_f1max"),
        *("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro"),
    }
    references = pd.read_csv(scored / "reports/results/winclip/references.csv")
    assert (references["k_shot"] == 1).all() and len(references) == 2
    assert all(name.split("/")[1] == "train" for name in references["image"])


def test_a_second_run_computes_nothing_and_gives_the_same_bytes(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (project / RESULTS).read_bytes()
    counts = counting(monkeypatch)
    change(project, "workers", value=1)
    pipeline.measure(project, "winclip")
    assert counts == {"encoded": 0, "measured": 0}
    assert (project / RESULTS).read_bytes() == before


def test_results_measured_for_a_notebook_equal_those_of_the_stage(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pipeline.open_run(project, "winclip")
    of_stage = pipeline.results_of(run, run.scorer())
    change(project, "winclip", "preset", value="anomalib")
    (project / RESULTS).unlink()
    counts = counting(monkeypatch)
    same = pipeline.open_run(project, "winclip", {"preset": "paper"})
    pd.testing.assert_frame_equal(pipeline.results_of(same, same.scorer()), of_stage)
    assert counts == {"encoded": 0, "measured": 0}
    assert not (project / RESULTS).exists()


def test_from_nothing_two_processes_give_the_bytes_of_one(project: Path) -> None:
    before = (project / RESULTS).read_bytes()
    shutil.rmtree(project / ".cache")
    change(project, "workers", value=2)
    pipeline.measure(project, "winclip")
    assert (project / RESULTS).read_bytes() == before


def test_masks_of_a_category_are_read_once_for_all_shards(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, read = pipeline.open_run(project, "winclip").scorer().tested, []
    real = dataset_images.read_mask
    monkeypatch.setattr(dataset_images, "read_mask", lambda *a: read.append(a[0].name) or real(*a))

    def masks(category: str, side: int) -> list[np.ndarray]:
        rows = images.rows(category, "test")
        return images.masks(rows, [np.zeros((side, side), np.float32)] * len(rows), "nearest")

    first = masks("hex_nut", 24)
    assert masks("hex_nut", 24) is first and len(read) == SIZE["test_damaged"]
    assert {mask.shape for mask in masks("hex_nut", 48)} == {(48, 48)}
    leather = masks("leather_hide", 24)
    assert len(read) == 3 * SIZE["test_damaged"]
    assert not np.array_equal(np.stack(leather), np.stack(first))


def test_five_crops_are_read_from_ten_and_score_as_the_detector_does(project: Path) -> None:
    rows = {"five": {"multi_crop": "five"}, "ten": {"multi_crop": "ten"}}
    change(project, "winclip", "ablations", value={"crops": {"k_shots": [0], "rows": rows}})
    run = pipeline.open_run(project, "winclip")
    scorer, scores = run.scorer(), {}
    images = [
        np.asarray(read_image(run.data / name))
        for name in scorer.tested.rows("hex_nut", "test")["image"]
    ]
    for variant in run.variants:
        if variant.name.startswith("crops/"):
            scores[variant.name] = scorer.detect(Shard(variant, "hex_nut", 0, 0)).image_scores
            detector = WinCLIP(scorer.backbone(variant.config), variant.config, "hex nut", [])
            expected = detector(images).image_score.numpy()
            np.testing.assert_allclose(scores[variant.name], expected, rtol=0, atol=2e-6)
    assert np.abs(scores["crops/five"] - scores["crops/ten"]).max() > 1e-5


def test_a_changed_prompt_encodes_no_image_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(project, "workers", value=1)
    change(project, "winclip", "ablations", value={})
    change(project, "winclip", "walks", value=[])
    change(project, "winclip", "changes", value={"prompts": "single_pair"})
    counts = counting(monkeypatch)
    pipeline.measure(project, "winclip")
    assert counts["encoded"] == 0 and counts["measured"] == 4


def test_a_rule_that_cuts_alike_reads_what_another_asked_for(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zero-shot reads no patch tokens, with which the main variant's images are encoded."""
    change(project, "workers", value=1)
    rows = {"one": {"resize": "centre_crop"}}
    change(project, "winclip", "ablations", value={"resize": {"k_shots": [0], "rows": rows}})
    counts = counting(monkeypatch)
    pipeline.measure(project, "winclip")
    assert counts == {"encoded": 0, "measured": 1}


@pytest.mark.parametrize(("rule", "encoded"), [("centre_crop", 0), ("stretch_1024", 1)])
def test_a_rule_that_cuts_square_images_alike_encodes_none_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, rule: str, encoded: int
) -> None:
    rows = {"one": {"resize": rule}}
    change(project, "workers", value=1)
    change(project, "winclip", "ablations", value={"resize": {"k_shots": [0, 1], "rows": rows}})
    counts = counting(monkeypatch)
    pipeline.measure(project, "winclip")
    images = SIZE["test_good"] + SIZE["test_damaged"] + 1  # of one category, and its reference
    assert counts["encoded"] == encoded * images


def test_a_killed_run_goes_on_where_it_stopped(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (project / RESULTS).read_bytes()
    shards = sorted((project / ".cache" / "shards").rglob("*.json"))
    for path in shards[: len(shards) // 2]:
        path.unlink()
    half_written = shards[0].with_name(f".{shards[0].name}.abc.tmp")
    half_written.write_text('{"key": ')
    entry = next((project / ".cache" / "features").rglob("*.safetensors"))
    entry.write_bytes(entry.read_bytes()[:100])
    shards[-1].write_text("")  # the disk was full
    counts = counting(monkeypatch)
    change(project, "workers", value=1)
    pipeline.measure(project, "winclip")
    assert counts["measured"] == len(shards) // 2 + 1
    assert counts["encoded"] <= 1
    assert (project / RESULTS).read_bytes() == before


def test_features_do_not_depend_on_what_was_encoded_beside_them(project: Path) -> None:
    files = sorted((project / ".cache" / "features").rglob("*.safetensors"))
    before = {path: path.read_bytes() for path in files}
    for path in files[::2]:
        path.unlink()
    shutil.rmtree(project / ".cache" / "shards")
    pipeline.measure(project, "winclip")
    assert {path: path.read_bytes() for path in files} == before


def store_of_references(run: pipeline.Run) -> FeatureStore:
    """Where the references of the main variant are encoded."""
    config = run.variants[0].config
    return run.encodings().store(config, METHOD.references.recipe(config))


def stored(project: Path) -> tuple[FeatureStore, Path, Path]:
    """The store of references, an image, and the file of its features."""
    run = pipeline.open_run(project, "winclip")
    store = store_of_references(run)
    image = run.data / str(run.index["image"][0])
    [entry] = store.fill([image], "images")
    return store, image, entry


def test_features_with_a_changed_bit_are_encoded_again(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, image, entry = stored(project)
    whole, tensors = entry.read_bytes(), store.read(entry, image)
    capsys.readouterr()
    for _ in with_one_bit_changed(entry, every=8, samples=32):
        reread = store.read(entry, image)
        assert reread.keys() == tensors.keys()
        assert all(torch.equal(reread[name], tensors[name]) for name in tensors)
        assert entry.read_bytes() == whole
        assert capsys.readouterr().err == f"clipad: {entry}: damaged, or another's; made again.\n"
    assert store.read(entry, image, ["corners"])["corners"].equal(tensors["corners"])
    assert capsys.readouterr().err == ""


def test_features_that_a_disk_damages_at_once_are_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, image, entry = stored(project)
    monkeypatch.setattr(FeatureStore, "_write", lambda *_: entry.write_bytes(b"rot"))
    entry.unlink()
    with pytest.raises(ClipadError, match=f"{entry.name}: was just written and is damaged"):
        store.read(entry, image)


def test_features_that_changed_places_are_encoded_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (project / RESULTS).read_bytes()
    shutil.rmtree(project / ".cache" / "shards")
    entries = sorted((project / ".cache" / "features").rglob("*.safetensors"))
    contents = [entry.read_bytes() for entry in entries]
    for entry, content in zip(entries, [*contents[1:], contents[0]], strict=True):
        entry.write_bytes(content)
    counts = counting(monkeypatch)
    change(project, "workers", value=1)
    pipeline.measure(project, "winclip")
    assert counts["encoded"] == len(entries)
    assert (project / RESULTS).read_bytes() == before
    assert [entry.read_bytes() for entry in entries] == contents


def test_shards_with_a_changed_digit_or_bit_or_place_are_measured_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (project / RESULTS).read_bytes()
    first, second, third, fourth, *_ = sorted((project / ".cache" / "shards").rglob("*.json"))
    text = first.read_text()
    place = text.index("0.", text.index("image_auroc"))
    digit = str((int(text[place + 2]) + 1) % 10) if text[place + 2].isdigit() else "1"
    first.write_text(text[: place + 2] + digit + text[place + 3 :])
    contents = second.read_bytes(), third.read_bytes()
    second.write_bytes(contents[1])
    third.write_bytes(contents[0])
    counts = counting(monkeypatch)
    change(project, "workers", value=1)
    pipeline.measure(project, "winclip")
    assert counts == {"encoded": 0, "measured": 3}
    assert (project / RESULTS).read_bytes() == before
    errors = capsys.readouterr().err
    assert all(
        f"clipad: {path}: damaged, or another's" in errors for path in (first, second, third)
    )
    for _ in with_one_bit_changed(fourth, samples=5):
        pipeline.measure(project, "winclip")
        assert (project / RESULTS).read_bytes() == before
    assert counts["measured"] == 3 + 5


def test_weights_with_a_changed_bit_are_refused_by_name(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    weights = project / "data" / "weights" / "clipad-tiny.safetensors"
    photo = str(project / "data/synthetic/synthetic_target/hex_nut/test/good/000.png")
    commands = [
        ["measure", "winclip"],
        ["score", photo, "--class-name", "nut", "--quiet", "--out", str(project / "out")],
    ]
    for _ in with_one_bit_changed(weights, every=3, samples=4):
        for command in commands:
            assert main(command) == 1
            error = capsys.readouterr().err
            assert error.startswith(f"clipad: weights: {weights} has SHA-256 ")
            assert "is damaged or another one" in error and error.count("\n") == 1
        with pytest.raises(ClipadError, match="damaged"):
            open_weights("", "", "winclip")


def test_a_changed_image_is_scored_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(project, "workers", value=1)
    change(project, "winclip", "ablations", value={})
    change(project, "winclip", "walks", value=[])
    image = project / "data/synthetic/synthetic_target/hex_nut/test/good/000.png"
    Image.open(image).rotate(90).save(image)
    counts = counting(monkeypatch)
    pipeline.measure(project, "winclip")
    assert counts == {"encoded": 1, "measured": 2}


def test_what_lies_outside_of_dvc_is_known_by_its_content(project: Path) -> None:
    write_index(project)
    before = (project / CONTENT).read_text()
    image = project / "data/synthetic/synthetic_target/hex_nut/test/good/000.png"
    Image.open(image).rotate(90).save(image)
    write_index(project)
    assert len(before) == 65 and (project / CONTENT).read_text() != before


def test_an_image_that_another_process_encodes_is_left_to_it(project: Path) -> None:
    change(project, "winclip", "ablations", value={})
    change(project, "winclip", "walks", value=[])
    run = pipeline.open_run(project, "winclip")
    store = store_of_references(run)
    paths = [run.data / name for name in run.index["image"][:3]]
    entries = [store.entry(path) for path in paths]
    for entry in entries:
        entry.unlink(missing_ok=True)
    written = []
    with alone(entries[0]) as has_lock:
        assert has_lock
        thread = threading.Thread(target=lambda: written.extend(store.fill(paths, "images")))
        thread.start()
        while not (entries[1].is_file() and entries[2].is_file()):
            time.sleep(0.02)
        assert not entries[0].is_file()
    thread.join(60)
    assert written == entries and all(entry.is_file() for entry in entries)
    assert not list(entries[0].parent.glob("*.lock"))


def test_shots_alone_that_no_category_can_give_are_refused(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    change(project, "winclip", "k_shots", value=[9])
    assert main(["measure", "winclip"]) == 1
    message = capsys.readouterr().err
    assert "winclip.k_shots: found 9, expected at most 2" in message
    assert "Traceback" not in message


def test_a_name_that_is_too_long_is_told_before_anything_is_scored(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, long = project / "data/synthetic/synthetic_target", "x_" * 100
    (data / "leather_hide").rename(data / long)
    monkeypatch.setattr(pipeline, "open_data", lambda *_: (data, read_index(data, "no_card")))
    counts = counting(monkeypatch)
    with pytest.raises(ClipadError, match="prompt: found one of 77 tokens or more"):
        pipeline.measure(project, "winclip")
    assert counts == {"encoded": 0, "measured": 0}


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("profile",), "dmo", "profiles: found no 'dmo', only demo, paper"),
        (("profiles", "demo", "dataset"), "mvtecc", "mvtecc"),
        (("profiles", "demo", "categories"), ["hexnut"], "hexnut"),
        (
            ("profiles", "demo", "winclip", "backbone"),
            "ViT-X",
            "found 'ViT-X', expected an open_clip",
        ),
        (("profiles", "demo", "winclip", "sha256"), "0" * 64, "expected 000000"),
        (
            ("profiles", "demo", "winclip", "weights"),
            "data/weights/none.safetensors",
            "does not exist",
        ),
        (("winclip", "preset"), "papr", "preset: found 'papr', expected one of paper"),
        (("winclip", "changes"), {"scale": [2]}, "found an unknown scale"),
        (("winclip", "aupro"), "pro", "aupro: found 'pro', expected one of exact"),
        (("winclip", "k_shot"), [0], "winclip: found an unknown k_shot"),
        (("winclip", "k_shots"), [-1], "winclip.k_shots: found [-1], expected whole numbers"),
        (("winclip", "k_shots"), 4, "winclip.k_shots: found 4, expected a list of int"),
        (("winclip", "walk_shots"), [0, -2], "winclip.walk_shots: found [0, -2]"),
        (
            ("winclip", "ablations"),
            {"a": {"k_shots": [-1], "rows": {"b": {}}}},
            "winclip.ablations.a.k_shots: found [-1]",
        ),
        (("winclip", "seeds"), ["a"], "winclip.seeds[0]: found 'a', expected int"),
        (("winclip", "changes"), None, "winclip.changes: found None, expected names with values"),
        (("winclip", "own_walks"), None, "winclip.own_walks: found None"),
        (("winclip", "fpr_limit"), "0.3", "winclip.fpr_limit: found '0.3', expected float"),
        (("winclip", "fpr_limit"), 30, "winclip.fpr_limit: found 30, expected a share"),
        (("profiles", "demo", "categories"), "hex_nut", "categories: found 'hex_nut', expected a"),
        (("profiles", "demo", "winclip", "weights"), None, "winclip.weights: found None"),
        (("profiles", "demo", "winclip", "changes"), None, "winclip.changes: found None"),
        (("winclip", "seeds"), [], "winclip.seeds: found [], expected at least one"),
        (("winclip", "k_shots"), [], "winclip.k_shots: found [], expected at least one"),
        (
            ("winclip", "ablations"),
            {"a": {"k_shots": [], "rows": {"b": {}}}},
            "winclip.ablations.a.k_shots: found [], expected",
        ),
        (("profiles", "demo", "categories"), ["", " "], "categories: found '', ' ', expected"),
        (("winclip", ""), 1, "winclip: found an unknown '', expected"),
        (("profiles", "demo", "dataset"), "", "dataset: found '', expected"),
        (("profiles", "demo", "winclip", "weights"), "", "weights: found ''"),
        (("winclip", "seeds"), [1, 1], "winclip.seeds: found [1, 1], expected each once"),
        (("winclip", "walks"), ["anomalib", "anomalib"], "winclip.walks: found"),
        (("winclip", "changes"), {"map_size": 0}, "map_size: found 0, expected 1 to"),
        (("winclip", "changes"), {"temperature": float("inf")}, "is no finite number"),
        (("winclip", "changes"), {"extra_anomalous_states": ["{"]}, "expected one {} in each"),
        (("workers",), "many", "workers: found 'many'"),
        (
            ("winclip", "ablations"),
            {"a": {"k_shots": [0], "rows": {"b": {"x": 1}}}},
            "ablations.a.b",
        ),
    ],
)
def test_a_wrong_parameter_ends_in_one_message(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch, keys, value, message: str
) -> None:
    change(project, *keys, value=value)
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    before = (project / RESULTS).read_bytes()
    assert main(["measure", "winclip"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("clipad: ") and message in error
    assert (project / RESULTS).read_bytes() == before


def test_settings_that_are_no_yaml_name_the_line(project: Path, capsys, monkeypatch) -> None:
    (project / "params.yaml").write_text("profile: [demo\nwinclip: 3\n")
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    assert main(["index"]) == 1
    assert "params.yaml: not valid YAML at line 2" in capsys.readouterr().err


def test_settings_that_are_no_utf8_say_so(project: Path, capsys, monkeypatch) -> None:
    (project / "params.yaml").write_bytes("profile: d\xe9mo\n".encode("latin-1"))
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    assert main(["index"]) == 1
    assert "params.yaml: not in UTF-8" in capsys.readouterr().err


def test_outside_a_project_the_command_says_so(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("CLIPAD_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["index"]) == 1
    assert "params.yaml: found none in" in capsys.readouterr().err


def test_a_missing_dataset_names_where_it_looked(project: Path, capsys, monkeypatch) -> None:
    shutil.rmtree(project / "data" / "synthetic")
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    monkeypatch.delenv("CLIPAD_DATA", raising=False)
    assert main(["index"]) == 1
    error = capsys.readouterr().err
    assert "synthetic_target" in error and "does not exist" in error


def test_a_damaged_image_is_named_and_nothing_is_lost(project: Path, capsys, monkeypatch) -> None:
    image = project / "data/synthetic/synthetic_target/hex_nut/test/good/001.png"
    image.write_bytes(image.read_bytes()[:200])
    shards = len(list((project / ".cache" / "shards").rglob("*.json")))
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    change(project, "workers", value=1)
    assert main(["measure", "winclip"]) == 1
    error = capsys.readouterr().err
    assert "clipad: " in error and "hex_nut/test/good/001.png" in error
    assert len(list((project / ".cache" / "shards").rglob("*.json"))) >= shards


def test_an_error_in_a_worker_process_is_one_message_too(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    image = project / "data/synthetic/synthetic_target/hex_nut/test/good/001.png"
    image.write_bytes(image.read_bytes()[:200])
    change(project, "workers", value=2)
    assert main(["measure", "winclip"]) == 1
    message = capfd.readouterr().err  # what the other processes print as well
    assert "hex_nut/test/good/001.png" in message
    assert "Traceback" not in message


def test_a_killed_worker_is_one_message_and_loses_nothing(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipad_harness.base import processes

    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    shards = len(list((project / ".cache" / "shards").rglob("*.json")))
    # What a kernel does to a process that takes too much memory.
    monkeypatch.setattr(processes, "_finish_all", abort)
    change(project, "workers", value=2)
    assert main(["measure", "winclip"]) == 1
    assert "a process was killed" in capsys.readouterr().err
    assert len(list((project / ".cache" / "shards").rglob("*.json"))) == shards


def test_a_folder_that_cannot_be_written_is_named(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    monkeypatch.setattr(os, "replace", full)
    before = (project / RESULTS).read_bytes()
    change(project, "workers", value=1)
    assert main(["measure", "winclip"]) == 1
    error = capsys.readouterr().err
    assert "cannot be written (No space left on device)" in error and "is kept" in error
    assert (project / RESULTS).read_bytes() == before
    assert not list(project.rglob("*.tmp"))


def test_a_full_disk_is_one_message_whoever_finds_it(
    project: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_root: Path) -> Path:
        raise OSError(28, "No space left on device", "maps/one.npy")

    monkeypatch.setattr(stages, "write_index", full)
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    assert main(["index"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("clipad: maps/one.npy: cannot be read or written (No space left")


@pytest.mark.parametrize("words", [["index"], ["plan"], ["measure", "winclip"]])
def test_the_command_of_the_core_alone_says_what_to_install(words: list[str]) -> None:
    script = (
        f"import sys; sys.modules['yaml'] = None; sys.argv[1:] = {words}; "
        "from clipad_harness.cli.entry import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "clipad: found no yaml, which the commands need" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_epoch_than_the_presets_is_refused_not_replaced(project: Path) -> None:
    change(project, "profiles", "demo", "winclip", "weights", value="laion400m_e32")
    run = pipeline.open_run(project, "winclip")
    with pytest.raises(
        ClipadError, match="found 'laion400m_e32', while the preset .* laion400m_e31"
    ):
        run.scorer().backbone(run.variants[0].config)


def test_results_of_nothing_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ClipadError, match="run `./repro clipad measure winclip` first"):
        pipeline.read_results(tmp_path, "winclip")


def test_one_process_a_core_or_as_many_as_the_parameter_says(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(project, "workers", value=0)
    assert read_workers(project) == len(os.sched_getaffinity(0))
    with monkeypatch.context() as macos:
        macos.delattr(os, "sched_getaffinity")
        assert read_workers(project) == os.cpu_count()
    change(project, "workers", value=1)
    assert read_workers(project) == 1
    change(project, "workers", value=-1)
    with pytest.raises(ClipadError, match="workers: found -1, expected a whole number from 0"):
        read_workers(project)
