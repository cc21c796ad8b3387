"""`clipad plan`: counts of what runs, and what is missing, without running or fetching anything."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from micro import MICRO
from PIL import Image
from project import (
    DATASETS,
    LEARNED,
    REPOSITORY,
    change,
    draw_all,
    make_project,
    settings,
    tracked_params,
    write_settings,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clipad_core.clip.packed import packed_operations
from clipad_core.clip.vision import embed_patches, encode_whole, pre_norm
from clipad_core.methods.winclip.windows import window_index
from clipad_harness.base.settings import read_profile
from clipad_harness.cli.main import main
from clipad_harness.data.cards import read_card
from clipad_harness.data.dataset_images import DatasetImages
from clipad_harness.experiments import pipeline, plan, train
from clipad_harness.experiments.scorer import Scorer

UNAUGMENTED = {"anomalyclip": {}, "vcpclip": {"augmentation": "none"}}
# A training of its own, one that is shared, one on the other dataset, maps counted in another way.
ABLATIONS = {
    "anomalyclip": {
        "context": {"rows": {"own": {}, "shared": {"shared_context": True}}},
        "training set": {"rows": {"target to auxiliary": {"tested_on": "auxiliary"}}},
        "AUPRO": {"rows": {"exact": {"aupro": "exact"}}},
    },
    "vcpclip": {"alpha": {"rows": {"one": {}, "raw": {"at_test": {"alpha": 1}}}}},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("plan"))
    draw_all(folder)
    for method in LEARNED:  # few of each, so that a run takes seconds
        change(folder, method, "walks", value=[])
        change(folder, method, "ablations", value=ABLATIONS[method])
        change(folder, method, "questions", value={})
        change(folder, method, "changes", value={"epochs": 1} | UNAUGMENTED[method])
    change(folder, "winclip", "walks", value=["malalab"])
    return folder


@pytest.fixture
def changeable(project: Path) -> Iterator[Path]:
    """The same, whose settings are put back."""
    before = (project / "params.yaml").read_text()
    yield project
    (project / "params.yaml").write_text(before)


@pytest.mark.parametrize("method", ["winclip", *LEARNED])
def test_a_forecast_counts_what_the_run_then_does(
    project: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job] = [candidate for candidate in plan.make_plan(plan.open_runs(project, read_profile(project)))
             if candidate.method == method]  # fmt: skip
    done = {"trainings": 0, "steps": 0, "shards": 0}
    step, detect = train._take_step, Scorer.detect

    def count_step(*arguments: object) -> dict[str, float]:
        done["steps"] += 1
        return step(*arguments)

    def count_shard(self: Scorer, *arguments: object) -> object:
        done["shards"] += 1
        return detect(self, *arguments)

    monkeypatch.setattr(train, "_take_step", count_step)
    monkeypatch.setattr(Scorer, "detect", count_shard)
    pipeline.train(project, method)
    done["trainings"] = len(list((project / "data/trained" / method).glob("*.safetensors")))
    pipeline.measure(project, method)
    forecast = {"trainings": job.trainings, "steps": job.steps, "shards": job.shards}
    assert forecast == done
    results = pd.read_csv(pipeline.results_path(project, method))
    assert results["key"].nunique() == job.shards
    run = pipeline.open_run(project, method)
    assert job.images == sum(
        (dataset.index["split"] == "test").sum() for dataset in run.datasets.values()
    )


def test_towers_take_time_by_the_speed_of_the_machine_and_metrics_do_not(project: Path) -> None:
    for job in plan.make_plan(plan.open_runs(project, read_profile(project))):
        slow, fast, idle = (plan.Machine(rate, 1).seconds(job) for rate in (1e9, 2e9, 1e30))
        assert idle == pytest.approx(job.beside) and job.beside > 0
        assert slow - idle > 0 and fast - idle == pytest.approx((slow - idle) / 2)
        assert plan.Machine(1e9, 4).seconds(job) == pytest.approx(slow / 4)
        on_a_gpu = plan.Machine(1e9, 4, accelerators=1).seconds(job)
        assert on_a_gpu == pytest.approx(job.operations / 1e9 + job.beside / 4)


def test_more_processes_and_a_gpu_are_forecast_beside_this_machine(project: Path) -> None:
    jobs = plan.make_plan(plan.open_runs(project, read_profile(project)))
    lines = plan.elsewhere(jobs, plan.Machine(1e6, 2))
    assert [line.split("  ")[-1].split(",")[0] for line in lines] == [
        "8 processes like these",
        "64 processes like these",
        "a GPU that multiplies float32 at 10 TFLOP/s",
    ]
    assert len(plan.elsewhere(jobs, plan.Machine(1e6, 64))) == 1
    assert plan.elsewhere(jobs, plan.Machine(1e12, 2, accelerators=1)) == []


def test_a_forecast_is_within_a_factor_of_two_of_a_measured_run(tmp_path: Path) -> None:
    """The demo as it was measured: CPU seconds of its stages, all processes together."""
    measured = json.loads((REPOSITORY / "benchmarks/results/demo_run.json").read_text())
    project, params = make_project(tmp_path), tracked_params()
    write_settings(project, params)
    for dataset in DATASETS:
        _empty_images(project / "data/synthetic" / dataset, read_card(dataset).categories, params)
    machine = plan.Machine(measured["operations_a_second"], processes=1)
    for job in plan.make_plan(plan.open_runs(project, read_profile(project))):
        ratio = machine.seconds(job) / measured["cpu_seconds"][job.method]
        assert 0.5 < ratio < 2, (job.method, ratio)


def _empty_images(folder: Path, categories: Sequence[str], params: dict) -> None:
    """A dataset of the demo's size whose images hold nothing: a plan counts them."""
    sizes = params["synthetic"]
    counts = {"train/good": sizes["train_good"], "test/good": sizes["test_good"]}
    counts |= {"test/hole": sizes["test_damaged"], "ground_truth/hole": sizes["test_damaged"]}
    picture = folder.parent / "picture.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(picture)
    for category in categories:
        for part, count in counts.items():
            place = folder / category / part
            place.mkdir(parents=True)
            end = "_mask" if part.startswith("ground_truth") else ""
            for number in range(count):
                os.link(picture, place / f"{number:03}{end}.png")


def test_float64_takes_twice_the_room_of_float32_and_more_time(project: Path) -> None:
    wide = plan.make_plan(plan.open_runs(project, read_profile(project)))
    before = (project / "params.yaml").read_text()
    for method in settings()["methods"]:
        change(project, "profiles", "demo", method, "changes", "precision", value="float32")
    narrow = plan.make_plan(plan.open_runs(project, read_profile(project)))
    (project / "params.yaml").write_text(before)
    for wide_job, narrow_job in zip(wide, narrow, strict=True):
        assert wide_job.gigabytes == pytest.approx(2 * narrow_job.gigabytes)
        assert wide_job.memory > narrow_job.memory and wide_job.wider > narrow_job.wider


def test_features_without_room_on_disk_are_forecast_as_encoded_in_every_epoch(
    project: Path,
) -> None:
    before = (project / "params.yaml").read_text()
    change(project, "methods", value=["vcpclip"])
    change(project, "vcpclip", "ablations", value={})
    change(project, "vcpclip", "changes", "epochs", value=3)
    [opened] = plan.open_runs(project, read_profile(project))
    kept, sentences = plan._jobs([opened])[0], plan._too_large(opened)
    change(project, "feature_disk_gb", value=0)
    anew, [sentence] = plan._jobs([opened])[0], plan._too_large(opened)
    (project / "params.yaml").write_text(before)
    # One training, which is encoded for once: two epochs more of the same images.
    images = opened.datasets["synthetic_auxiliary"].index
    recipe = opened.method.training_recipe(opened.variants[0].config)
    operations, _, numbers = plan._tower(plan._architecture(opened), recipe)
    count = int((images["split"] == "test").sum())
    assert anew.operations - kept.operations == pytest.approx(2 * count * operations)
    assert kept.gigabytes - anew.gigabytes == pytest.approx(8e-9 * count * numbers)
    assert sentences == [] and sentence.startswith("VCP-CLIP: the features of what it trains on")


@pytest.mark.parametrize(("side", "tile"), [(12, 4), (15, 4), (4, 3), (4, 4), (5, 2)])
def test_tiles_are_as_many_as_are_encoded(side: int, tile: int) -> None:
    assert plan._tiles(side, tile) == len(window_index((side, side), tile, tile // 2))


def test_every_tile_is_forecast_as_a_pass(changeable: Path) -> None:
    project = changeable
    change(project, "methods", value=["winclip"])
    for name, nothing in (("questions", {}), ("walks", []), ("own_walks", {}), ("ablations", {})):
        change(project, "winclip", name, value=nothing)
    [alone] = plan.make_plan(plan.open_runs(project, read_profile(project)))
    tiles = {"k_shots": [0], "rows": {"tiles": {"map_source": "tiles"}}}
    change(project, "winclip", "ablations", value={"a": tiles})
    [opened] = plan.open_runs(project, read_profile(project))
    [more], row = plan.make_plan([opened]), opened.variants[1]
    recipe, sizes = opened.method.recipe(row.config, 0), plan._architecture(opened)
    one_pass, _, _ = plan._tower(sizes, recipe)
    side = sizes["vision_cfg"]["image_size"] // sizes["vision_cfg"]["patch_size"]
    categories = [shard.category for shard in opened.shards if shard.variant == row]
    images = opened.index[opened.index["split"] == "test"]["category"].isin(categories).sum()
    passes = images * plan._tiles(side, recipe.tiles)
    assert passes and more.operations - alone.operations == pytest.approx(passes * one_pass)


def test_a_pass_that_serves_several_methods_is_forecast_for_the_first_of_them(
    changeable: Path,
) -> None:
    def operations(*methods: str, without: Sequence[str] = ()) -> dict[str, float]:
        change(changeable, "methods", value=list(methods))
        runs = {run.name: run for run in plan.open_runs(changeable, read_profile(changeable))}
        jobs = plan.make_plan([runs[name] for name in methods], without)
        return {job.method: job.operations for job in jobs}

    alone = operations("vcpclip") | operations("aprilgan")
    first, other = operations("vcpclip", "aprilgan"), operations("aprilgan", "vcpclip")
    assert first["vcpclip"] == alone["vcpclip"] and other["aprilgan"] == alone["aprilgan"]
    assert first["aprilgan"] < alone["aprilgan"] and other["vcpclip"] < alone["vcpclip"]
    assert sum(first.values()) == pytest.approx(sum(other.values()))
    # Nobody knows whether weights that are not here are those of another method.
    assert operations("vcpclip", "aprilgan", without=["aprilgan"]) == alone


def test_operations_of_the_towers_are_those_that_are_counted(micro) -> None:
    x = pre_norm(micro.vision, embed_patches(micro.vision, torch.zeros(1, 3, 32, 32))[0])
    counter = FlopCounterMode(display=False, custom_mapping=packed_operations())
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        encode_whole(micro.vision, x, (3,))
    assert plan.tower_operations(MICRO, 17) == pytest.approx(counter.get_total_flops(), rel=0.01)


def run(project: Path, monkeypatch, capsys, *words: str) -> tuple[int, str]:
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    monkeypatch.setattr(plan, "speed", lambda device: 1e10)
    try:
        code = main(["plan", *words])
    except SystemExit as stopped:
        code = int(str(stopped.code))
    return code, capsys.readouterr().out


def test_nothing_missing_is_said_and_ends_with_zero(project: Path, monkeypatch, capsys) -> None:
    code, text = run(project, monkeypatch, capsys)
    assert code == 0 and "Nothing is missing." in text and "VCP-CLIP" in text


def test_the_paper_profile_without_data_and_weights_names_both(
    project: Path, monkeypatch, capsys
) -> None:
    monkeypatch.delenv("CLIPAD_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(project / "none"))
    code, text = run(project, monkeypatch, capsys, "--profile", "paper")
    assert code == 1 and "No method can run" in text
    assert "dataset mvtec: found none in" in text and "dataset visa: found none in" in text
    assert "weights ViT-L-14-336-quickgelu, openai for VCP-CLIP" in text


WRONG = [
    (("winclip", "changes"), {"temprature": 0.01}, "unknown temprature"),
    (("winclip", "preset"), "papper", "preset: found 'papper'"),
    (("winclip", "aupro"), "Exact", "aupro: found 'Exact'"),
    (("winclip", "fpr_limit"), 30, "winclip.fpr_limit: found 30"),
    (("winclip", "k_shots"), [50], "k_shots: found 50, expected at most 2"),
    (("profiles", "demo", "winclip", "backbone"), "ViT-B-99", "found 'ViT-B-99'"),
    (("profiles", "demo", "winclip", "sha256"), "0" * 64, "expected 000000"),
    (("anomalyclip", "auxiliary"), {"others": "synthetic_target"}, "which is also tested"),
    (("anomalyclip", "auxiliary"), {"others": "no_card"}, "no_card"),
    (("vcpclip", "changes"), {"image_size": 17}, "image_size: found 17"),
    (("profiles", "demo", "vcpclip", "changes", "image_size"), {518: 97, 224: 97}, "multiple of 8"),
    (("ablations",), "some", "ablations: found 'some', expected all, or none"),
    (("methods",), ["winclip", "winclipp"], "methods: found 'winclipp'"),
    (("methods",), ["winclip", "winclip"], "each once"),
]


@pytest.mark.parametrize(("keys", "value", "message"), WRONG)
def test_a_plan_fails_where_the_run_would(
    project: Path, keys: tuple[str, ...], value: object, message: str, monkeypatch, capsys
) -> None:
    before = (project / "params.yaml").read_text()
    change(project, *keys, value=value)
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    monkeypatch.setattr(plan, "speed", lambda device: 1e10)
    try:
        assert main(["plan"]) == 1
    finally:
        (project / "params.yaml").write_text(before)
    printed = capsys.readouterr()
    assert message in printed.err and "Nothing is missing" not in printed.out


def test_a_method_whose_dataset_is_missing_is_named_and_the_others_are_planned(
    project: Path, monkeypatch, capsys
) -> None:
    before = (project / "params.yaml").read_text()
    change(project, "anomalyclip", "auxiliary", value={"visa": "mvtec", "others": "visa"})
    monkeypatch.delenv("CLIPAD_DATA", raising=False)
    code, text = run(project, monkeypatch, capsys)
    (project / "params.yaml").write_text(before)
    assert code == 1 and "AnomalyCLIP is not in the table, for want of visa, mvtec." in text
    assert "VCP-CLIP" in text and "Missing: visa, for training AnomalyCLIP" in text


def test_the_table_explains_its_words_and_offers_less(project: Path, monkeypatch, capsys) -> None:
    before = (project / "params.yaml").read_text()
    _, text = run(project, monkeypatch, capsys)
    columns = ("images", "shards", "trainings", "steps", "time", "disk")
    assert all(f"\n{word} " in text for word in columns)
    assert "ablations: none" in text and "categories: [" not in text  # two categories are few
    change(project, "ablations", value="none")
    jobs = plan.make_plan(plan.open_runs(project, read_profile(project)))
    _, less = run(project, monkeypatch, capsys)
    (project / "params.yaml").write_text(before)
    assert "ablations: none" not in less
    # Two categories, without and with a reference; one training of each method that learns.
    counted = {job.method: (job.shards, job.trainings) for job in jobs}
    assert counted.pop("winclip") == (4, 0) and counted.pop("aprilgan") == (4, 1)
    assert len(counted) == len(LEARNED) and set(counted.values()) == {(2, 1)}


def test_fewer_categories_take_less(project: Path, monkeypatch) -> None:
    monkeypatch.setattr(plan, "CATEGORIES_FEWER", 1)
    profile = read_profile(project)
    runs = plan.open_runs(project, profile)
    headline, few, both = plan.ways_down(runs, plan.Machine(1e6, 1))
    assert headline.endswith("ablations: none") and "categories: [hex_nut]" in few
    assert both.endswith("ablations: none and profiles.demo.categories: [hex_nut]")
    jobs, smaller = (
        plan._jobs(some) for some in (runs, [plan._on(run, ["hex_nut"]) for run in runs])
    )
    # Where another method's pass serves, fewer images take a method no less.
    pairs = [(less.operations, job.operations) for less, job in zip(smaller, jobs, strict=True)]
    assert all(less <= all_of_them for less, all_of_them in pairs) and pairs[0][0] < pairs[0][1]


def test_categories_are_offered_as_yaml_that_gives_them_back(project: Path, monkeypatch) -> None:
    monkeypatch.setattr(plan, "CATEGORIES_FEWER", 1)
    runs = []
    for run in plan.open_runs(project, read_profile(project)):
        images = run.datasets[run.profile.dataset]
        index = images.index.assign(category=images.index["category"].replace("hex_nut", "no: [1]"))
        renamed = DatasetImages(index, images.data)
        runs.append(replace(run, datasets={**run.datasets, run.profile.dataset: renamed}))
    line = plan.ways_down(runs, plan.Machine(1e6, 1))[1]
    assert yaml.safe_load(line.partition("categories: ")[2]) == ["no: [1]"]


def test_the_speed_is_that_of_the_product_which_nothing_slowed(monkeypatch) -> None:
    used = iter([*(number * 10.0 for number in range(20)), *([1000.0] * 1000)])
    clock = [0.0]

    def thread_time() -> float:
        clock[0] += next(used) if clock[0] < 500 else 7.0
        return clock[0]

    monkeypatch.setattr(plan.time, "thread_time", thread_time)
    assert plan.speed(torch.device("cpu"), 0) == pytest.approx(2 * 1024**3 / 7.0)


def test_an_unknown_profile_is_one_message(project: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    assert main(["plan", "--profile", "papr"]) == 1
    assert "--profile: found no 'papr', only demo, paper" in capsys.readouterr().err


def test_times_are_said_in_words() -> None:
    assert [plan._duration(s) for s in (30, 600, 86400, 1e6)] == [
        *("30 seconds", "10 minutes", "24 hours", "12 days"),
    ]
