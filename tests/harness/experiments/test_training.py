"""The training loop: the same bytes after a kill, frozen features read once, one message for bad input."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from project import (
    DATASETS,
    LEARNED,
    change,
    make_project,
    with_one_bit_changed,
)
from safetensors.torch import load_file

from clipad_core.errors import ClipadError
from clipad_core.learned.checkpoint_files import read_safetensors, to_safetensors
from clipad_core.methods.method import Augmentation
from clipad_core.methods.vcpclip import METHOD
from clipad_harness.base import sealed
from clipad_harness.experiments import pipeline, train, trainer, training_data
from clipad_harness.experiments.features import FeatureStore
from clipad_harness.experiments.pipeline import Run, open_run
from clipad_harness.experiments.training_data import TrainingData, check_trainable
from clipad_harness.experiments.variants import Shard, trainings

CATEGORIES = {
    "synthetic_target": ["hex_nut", "leather_hide"],
    "synthetic_auxiliary": ["brick_wall", "coat_button"],
}
# As few steps as show an epoch's end, a batch of one image, and a kill between.
SHORT = {"epochs": 2, "batch_size": 4}
UNAUGMENTED = {"anomalyclip": {}, "vcpclip": {"augmentation": "none"}, "coop": {}}
# 18 images in batches of 4; CoOp, by SGD and at another rate in every epoch, leaves out the last two.
STEPS = {"anomalyclip": 10, "vcpclip": 10, "coop": 8}


def draw(folder: Path, dataset: str) -> None:
    """Nine images a category: five normal, four with a bright square."""
    random = np.random.default_rng(len(dataset))
    for category in CATEGORIES[dataset]:
        for number in range(9):
            damaged = number >= 5
            kind = "square" if damaged else "good"
            image = random.integers(60, 120, (48, 48, 3), dtype=np.uint8)
            mask = np.zeros((48, 48), dtype=np.uint8)
            if damaged:
                image[10:22, 8:24], mask[10:22, 8:24] = 250, 255
            place = folder / dataset / category / "test" / kind / f"{number:03}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place)
            if damaged:
                truth = (
                    folder / dataset / category / "ground_truth" / kind / f"{number:03}_mask.png"
                )
                truth.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(truth)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_project(tmp_path_factory.mktemp("training"))
    for dataset in DATASETS:
        draw(project / "data" / "synthetic", dataset)
    for method in STEPS:
        change(project, method, "seeds", value=[1])
        change(project, method, "walks", value=[])
        change(project, method, "ablations", value={})
        change(project, method, "questions", value={})
        change(project, method, "changes", value=SHORT | UNAUGMENTED[method])
    return project


@pytest.fixture
def project(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "project"))


def set_all(project: Path, method: str, **values: object) -> None:
    """Set some parameters of a method."""
    for name, value in values.items():
        change(project, method, name, value=value)


def learned(run: Run) -> dict[str, torch.Tensor]:
    job = trainings(run.variants)[0]
    return load_file(run.trainer().path(job))


@pytest.mark.parametrize("method", STEPS)
def test_a_training_that_is_killed_ends_as_one_that_is_not(
    project: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(project, "methods", value=[method])
    pipeline.train(project, method)
    run = open_run(project, method)
    whole = learned(run)
    curve = (project / "reports/results" / method / "training.csv").read_bytes()
    shutil.rmtree(project / "data" / "trained")
    steps = iter(range(10**6))
    step = train._take_step

    def killed(*arguments: object) -> dict[str, float]:
        if next(steps) == 6:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(train, "SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(train, "_take_step", killed)
    with pytest.raises(KeyboardInterrupt):
        pipeline.train(project, method)
    assert list((project / ".cache" / "training").glob("*.pt"))
    pipeline.train(project, method)
    # 6 before the kill, the one that was killed, and what was left.
    assert next(steps) == STEPS[method] + 1
    again = learned(run)
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert (project / "reports/results" / method / "training.csv").read_bytes() == curve
    assert not list((project / ".cache" / "training").glob("*"))


@pytest.mark.parametrize(
    ("method", "expected"),
    [("coop", [1e-5] * 4 + [2e-3] * 4), ("anomalyclip", [1e-3] * 10)],
)
def test_every_step_is_made_at_the_rate_of_its_epoch(
    project: Path, method: str, expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(project, "methods", value=[method])
    rates: list[float] = []
    step = train._take_step

    def noted(*arguments: Any) -> dict[str, float]:
        rates.append(arguments[2].param_groups[0]["lr"])
        return step(*arguments)

    monkeypatch.setattr(train, "_take_step", noted)
    pipeline.train(project, method)
    assert rates == pytest.approx(expected, rel=1e-12)


def test_a_method_that_trains_on_class_tokens_keeps_no_patches_of_its_images(
    project: Path,
) -> None:
    change(project, "methods", value=["coop"])
    pipeline.train(project, "coop")
    entries = list((project / ".cache" / "features").rglob("*.safetensors"))
    assert len(entries) == 18
    assert all(
        set(load_file(entry)) == {"image_embedding", "corners", "canvas"} for entry in entries
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_training_and_measuring_say_the_same_of_a_folder_in_the_place_of_a_file(
    project: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    run = open_run(project, "vcpclip")
    folder = run.trainer().path(trainings(run.variants)[0]).with_suffix(suffix)
    folder.mkdir(parents=True)
    monkeypatch.setattr(FeatureStore, "fill", pytest.fail)  # it is said before any work is done
    message = f"^{folder}: found a folder, expected a file"
    with pytest.raises(ClipadError, match=message):
        pipeline.train(project, "vcpclip")
    if suffix == ".safetensors":
        with pytest.raises(ClipadError, match=message):
            run.trainer().require(trainings(run.variants)[0])


@pytest.mark.parametrize("method", LEARNED)
def test_training_lowers_the_loss_and_changes_every_seed(project: Path, method: str) -> None:
    changes = {"epochs": 4, "batch_size": 4, **UNAUGMENTED[method]}
    set_all(project, method, seeds=[1, 2], changes=changes)
    pipeline.train(project, method)
    curves = pd.read_csv(project / "reports/results" / method / "training.csv")
    total = curves[curves["part"] == "total"].pivot(index="epoch", columns="seed", values="value")
    assert list(total.index) == [1, 2, 3, 4]
    assert (total.loc[4] < total.loc[1]).all()
    assert total[1].iloc[0] != total[2].iloc[0]


@pytest.mark.parametrize("method", LEARNED)
def test_an_image_is_encoded_once_whatever_is_trained(
    project: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    write = FeatureStore._write

    def count(self: FeatureStore, images: Sequence[Path], entries: Mapping[Path, Path]) -> None:
        encoded.extend(images)
        write(self, images, entries)

    monkeypatch.setattr(FeatureStore, "_write", count)
    rates = {"twice": {"learning_rate": 2e-3}, "thrice": {"learning_rate": 3e-3}}
    blocks = {"one": {"blocks": [6]}, "other": {"blocks": [24]}, "two": {"blocks": [12, 18]}}
    ablations = {"learning rate": {"rows": rates}, "blocks": {"rows": blocks}}
    set_all(project, method, ablations=ablations, ablation_changes=UNAUGMENTED[method])
    pipeline.train(project, method)
    assert len(encoded) == len(set(encoded)) == 18
    encoded.clear()
    pipeline.train(project, method)
    assert encoded == []


@pytest.mark.parametrize("method", LEARNED)
def test_two_processes_train_what_one_does(project: Path, method: str) -> None:
    set_all(project, method, seeds=[1, 2])
    pipeline.train(project, method)
    folder = project / "data" / "trained" / method
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    change(project, "workers", value=2)
    pipeline.train(project, method)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_is_trained_is_not_encoded_again_and_a_foreign_folder_stays(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.train(project, "anomalyclip")
    folder = project / "data" / "trained" / "anomalyclip"
    (folder / ".ipynb_checkpoints").mkdir()
    shutil.rmtree(project / ".cache")
    monkeypatch.setattr(FeatureStore, "_write", lambda *_: pytest.fail("encoded again"))
    pipeline.train(project, "anomalyclip")
    assert (folder / ".ipynb_checkpoints").is_dir()


def test_what_is_trained_for_other_settings_is_removed(project: Path) -> None:
    pipeline.train(project, "vcpclip")
    before = set((project / "data" / "trained" / "vcpclip").iterdir())
    set_all(project, "vcpclip", seeds=[5])
    pipeline.train(project, "vcpclip")
    after = set((project / "data" / "trained" / "vcpclip").iterdir())
    assert len(after) == len(before) == 2 and not after & before


def test_what_is_trained_on_is_encoded_by_all_processes_before_any_trains(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "IMAGES_TOGETHER", 4)
    rows = {"layers": {"rows": {"later": {"dpam_from_layer": 12}}}}
    run = open_run(project, "anomalyclip", {"ablations": rows})
    own, jobs = run.trainer(), trainings(run.variants)
    reading = {own.reads(job): job for job in jobs if own.keeps(job)}.values()
    assert len(reading) > 1
    started = []

    def counted(*arguments: Any) -> object:
        started.append((type(arguments[0]), arguments[1], arguments[3].total))
        return run_all(*arguments)

    run_all = trainer.run_all
    monkeypatch.setattr(trainer, "run_all", counted)
    trainer.train_all(own, run.variants, 2)
    assert not any(own.features(job).lacks(own.paths(job)) for job in reading)
    # Every image once, whatever reads it, in groups of four.
    [(_, groups, images), (second, *_)] = started
    assert (second, images) == (trainer.Trainer, 18)
    assert [part for [(_, part)] in groups] == [slice(n, min(n + 4, 18)) for n in range(0, 18, 4)]
    assert all(len(together) == len(reading) for [(together, _)] in groups)
    trainer._encode(own, jobs, 2)
    assert started[2][1:] == ([], 0)


@pytest.mark.parametrize("memory", [0, 2**30])
def test_features_are_read_once_where_memory_is_given(
    project: Path, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(project, "feature_memory_mb", value=memory // 2**20)
    run = open_run(project, "vcpclip")
    data = run.trainer().data(trainings(run.variants)[0])
    data.prepare("images")
    reads, read = [], FeatureStore.read

    def counted(self: FeatureStore, entry: Path, *arguments: object) -> dict[str, torch.Tensor]:
        reads.append(entry)
        return read(self, entry, *arguments)

    monkeypatch.setattr(FeatureStore, "read", counted)
    rounds = [[data.batch(0, [place]) for place in range(len(data))] for _ in range(2)]
    once = len(set(reads))
    assert once == len(data)
    assert (len(reads) == once) == bool(memory)
    for first, second in zip(*rounds, strict=True):
        assert torch.equal(first[0].image_embedding, second[0].image_embedding)
        assert torch.equal(first[2], second[2])


def test_a_training_without_room_on_disk_encodes_in_every_epoch_and_ends_alike(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = "coop"
    change(project, "methods", value=[method])
    pipeline.train(project, method)
    kept = learned(open_run(project, method))
    curve = (project / "reports/results" / method / "training.csv").read_bytes()
    shutil.rmtree(project / "data" / "trained")
    shutil.rmtree(project / ".cache")
    change(project, "feature_disk_gb", value=0)
    images, encode = [], training_data.encode_views

    def counted(*arguments: Any) -> object:
        images.append(len(arguments[2]))
        return encode(*arguments)

    monkeypatch.setattr(training_data, "encode_views", counted)
    pipeline.train(project, method)
    assert images == [1] * 2 * 16  # two epochs, each without the last two of 18
    # The first image alone, which told how large they are.
    assert len(list((project / ".cache/features").rglob("*.safetensors"))) == 1
    assert (project / "reports/results" / method / "training.csv").read_bytes() == curve
    anew = learned(open_run(project, method))
    assert all(torch.equal(anew[name], tensor) for name, tensor in kept.items())


def test_without_room_on_disk_mosaics_and_images_are_those_that_are_kept(project: Path) -> None:
    run = open_run(project, "aprilgan", {"ablations": {}, "seeds": [1], "k_shots": [0]})
    job, trained = trainings(run.variants)[0], run.trainer()

    def read(augmentation: Augmentation | None, keeps: bool) -> TrainingData:
        images, rows = run.datasets[job.dataset], trained.rows(job)
        data = TrainingData(images, rows, trained.encodings, job.config, augmentation)
        if keeps:
            data.prepare("images")
        return data

    mosaics = Augmentation("mosaic", 0.5, job.dataset)
    kept, anew, plain = read(mosaics, True), read(mosaics, False), read(None, True)
    for place in range(len(kept)):
        one, other, image = (data.batch(0, [place]) for data in (kept, anew, plain))
        for block, tokens in one[0].patch_tokens.items():
            assert torch.equal(tokens, other[0].patch_tokens[block])
            is_image = torch.equal(tokens, image[0].patch_tokens[block])
            assert is_image == ((0, place) not in kept._mosaics())
        assert torch.equal(one[2], other[2])
    assert {epoch for epoch, _ in kept._mosaics()} >= {0}


def test_a_training_that_scores_leads_to_results(project: Path) -> None:
    rows = {"alpha": {"rows": {"raw": {"alpha": 1.0}}}}
    set_all(project, "vcpclip", ablations=rows, ablation_seeds=[1], ablation_changes={})
    pipeline.train(project, "vcpclip")
    # What no training reads costs no training.
    assert len(list((project / "data" / "trained" / "vcpclip").glob("*.safetensors"))) == 1
    pipeline.measure(project, "vcpclip")
    results = pipeline.read_results(project, "vcpclip")
    assert set(results["category"]) == set(CATEGORIES["synthetic_target"])
    assert set(results["variant"]) == {"main", "alpha/raw"}
    assert results["value"].between(0, 1).all()


def test_rows_that_differ_in_what_no_training_reads_share_their_training(project: Path) -> None:
    rows = {"plain": {}, "raw": {"alpha": 1.0}, "at test": {"at_test": {"alpha": 0.5}}}
    other = {"paper": "paper", "paper's width": {"sigma": 0, "post_width": "joint"}}
    groups = {"a": {"rows": rows | other}}
    set_all(project, "vcpclip", ablations=groups, ablation_seeds=[1], ablation_changes={})
    main, plain, raw, at_test, paper, width = open_run(project, "vcpclip").variants
    jobs = [variant.training(1) for variant in (main, plain, raw, at_test)]
    assert jobs == [jobs[0]] * 4
    assert len({jobs[0], paper.training(1), width.training(1)}) == 3
    read = [(v.tested_with(1).alpha, v.tested_with(1).sigma) for v in (plain, raw, at_test)]
    alpha, sigma = main.config.alpha, main.config.sigma
    assert read == [(alpha, sigma), (1.0, sigma), (0.5, sigma)]
    assert paper.tested_with(1).image_score == "map_maximum"
    assert (width.tested_with(1).sigma, width.config.sigma) == (0, sigma)


def test_a_row_whose_training_does_not_go_with_the_main_variant_has_its_own(project: Path) -> None:
    decoder = {"head": "decoder", "image_score": "decoder"}
    rows = {"a": {"rows": {"other": {"head": "contrastive", "image_score": "top_pixels"}}}}
    settings = {"changes": decoder, "ablations": rows, "ablation_changes": {}}
    set_all(project, "vcpclip", ablation_seeds=[1], **settings)
    main, other = open_run(project, "vcpclip").variants
    assert other.training(1) != main.training(1)
    assert (other.config.head, other.config.image_score) == ("contrastive", "top_pixels")


@pytest.mark.parametrize("method", LEARNED)
def test_a_row_has_the_values_that_it_has_when_measured_alone(project: Path, method: str) -> None:
    rows = {"rows": {"other GELU": {"activation": "quick_gelu"}}}
    set_all(project, method, ablations={"a": rows}, ablation_seeds=[1], ablation_changes={})
    pipeline.train(project, method)
    run = open_run(project, method)
    scorer = run.scorer()
    shards = [Shard(variant, "hex_nut", 0, 1) for variant in run.variants]
    together = [np.stack(scorer.detect(shard).maps) for shard in shards]
    for shard, maps in zip(shards, together, strict=True):
        assert np.array_equal(np.stack(run.scorer().detect(shard).maps), maps)
    assert not np.array_equal(*together)


def test_other_settings_than_those_of_params_are_trained_aside_and_give_equal_tables(
    project: Path,
) -> None:
    pipeline.train(project, "vcpclip")
    pipeline.measure(project, "vcpclip")
    run = open_run(project, "vcpclip")
    before = files_of(project, "vcpclip")
    parameters = {"seeds": [1, 2], "changes": run.settings.changes}
    curves = pipeline.curves_of(run, run.scorer())
    results = pipeline.results_of(run, run.scorer())

    # The same settings as parameters, while params.yaml says others.
    set_all(project, "vcpclip", seeds=[2])
    same = open_run(project, "vcpclip", {"seeds": [1]})
    with torch.no_grad():  # as a page that trains nothing says it
        pd.testing.assert_frame_equal(pipeline.results_of(same, same.scorer()), results)
        pd.testing.assert_frame_equal(pipeline.curves_of(same, same.scorer()), curves)
    assert not (project / ".cache" / "trained").exists()

    more = open_run(project, "vcpclip", parameters)
    with torch.no_grad():
        wide = pipeline.results_of(more, more.scorer())
    pd.testing.assert_frame_equal(wide[wide["seed"] == 1].reset_index(drop=True), results)
    assert set(pipeline.curves_of(more, more.scorer())["seed"]) == {1, 2}
    assert len(list((project / ".cache" / "trained" / "vcpclip").glob("*.safetensors"))) == 1
    assert files_of(project, "vcpclip") == before


def test_curves_of_nothing_say_what_to_run(project: Path) -> None:
    run = open_run(project, "vcpclip")
    with pytest.raises(ClipadError, match="run `./repro clipad train vcpclip` first"):
        pipeline.curves_of(run, run.scorer())


def test_scoring_without_training_says_what_to_run(project: Path) -> None:
    with pytest.raises(ClipadError, match="run `./repro clipad train vcpclip` first"):
        pipeline.measure(project, "vcpclip")


@pytest.mark.parametrize("method", LEARNED)
def test_training_on_the_tested_dataset_must_be_asked_for_by_name(
    project: Path, method: str
) -> None:
    own = {"synthetic_target": "synthetic_target"}
    set_all(project, method, auxiliary=own)
    with pytest.raises(ClipadError, match="found synthetic_target, which is also tested"):
        open_run(project, method)
    set_all(project, method, allow_tested=["synthetic_target"])
    assert open_run(project, method).variants[0].trained_on == "synthetic_target"


def test_a_wrong_field_names_the_row_it_stands_in(project: Path) -> None:
    rows = {"b": {"at_test": {"alpa": 1}}}
    change(project, "vcpclip", "ablations", value={"a": {"rows": rows}})
    with pytest.raises(ClipadError, match=r"vcpclip.ablations.a.b: .*found an unknown alpa"):
        open_run(project, "vcpclip")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_categories": -1}, "train_categories: found -1, expected a whole number from 1"),
        ({"train_categories": "x"}, "train_categories: found 'x'"),
        ({"at_test": None}, "at_test: found None"),
        ({"learning_rate_temperature": -1}, "learning_rate_temperature: found -1.0"),
        ({"betas": [2, 3]}, r"betas: found \(2.0, 3.0\)"),
    ],
)
def test_a_value_that_cannot_be_trained_with_is_refused(
    project: Path, changes: dict, message: str
) -> None:
    change(project, "vcpclip", "ablations", value={"a": {"rows": {"b": changes}}})
    with pytest.raises(ClipadError, match=message):
        open_run(project, "vcpclip")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda rows: rows[rows["label"] == 0], "found only normal test images"),
        (lambda rows: rows[rows["label"] == 1], "found only anomalous test images"),
        (lambda rows: rows.assign(mask=""), "8 anomalous images without a mask"),
        (lambda rows: rows[:0], "found no test images"),
    ],
)
def test_what_nothing_can_be_learned_from_is_refused(project: Path, broken, message: str) -> None:
    index = open_run(project, "vcpclip").index
    with pytest.raises(ClipadError, match=message):
        check_trainable(broken(index))


def test_a_loss_that_is_not_finite_stops_the_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> dict[str, torch.Tensor]:
        parts = METHOD.training.loss(*arguments)
        return parts | {"total": parts["total"] * float("nan")}

    training = property(lambda self: replace(METHOD.training, loss=broken))
    monkeypatch.setattr(trainer.Trainer, "training", training)
    with pytest.raises(ClipadError, match="the loss is nan at step 0"):
        pipeline.train(project, "vcpclip")


def test_a_saved_state_that_was_cut_short_is_started_afresh(project: Path) -> None:
    run = open_run(project, "vcpclip")
    job = trainings(run.variants)[0]
    saved = project / ".cache" / "training" / f"{run.trainer().key(job)}.pt"
    saved.parent.mkdir(parents=True)
    saved.write_bytes(b"PK\x03\x04 half a file")
    pipeline.train(project, "vcpclip")
    assert trainer.Trainer.path(run.trainer(), job).is_file()


def exchange(first: Path, second: Path) -> None:
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])


def files_of(project: Path, method: str) -> dict[Path, bytes]:
    """Learners, then loss curves."""
    paths = (project / "data" / "trained" / method).iterdir()
    return {
        path: path.read_bytes() for path in sorted(paths, key=lambda p: (p.suffix[1] != "s", p))
    }


@pytest.mark.parametrize("method", LEARNED)
def test_learners_that_changed_places_are_refused_or_trained_again(
    project: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_all(project, method, seeds=[1, 2])
    pipeline.train(project, method)
    before = files_of(project, method)
    learner, other_learner, curve, other_curve = before
    exchange(learner, other_learner)
    with pytest.raises(ClipadError) as refused:
        pipeline.measure(project, method)
    message = str(refused.value)
    assert str(learner) in message or str(other_learner) in message
    assert "is of the training" in message and f"`./repro clipad train {method}`" in message
    exchange(curve, other_curve)
    capsys.readouterr()
    pipeline.train(project, method)
    assert files_of(project, method) == before
    errors = capsys.readouterr().err
    assert all(f"clipad: {path}: damaged, or another's; made again." in errors for path in before)


@pytest.mark.parametrize("method", LEARNED)
def test_a_learner_or_curve_with_a_changed_bit_is_trained_again(project: Path, method: str) -> None:
    pipeline.train(project, method)
    before = files_of(project, method)
    table = project / "reports/results" / method / "training.csv"
    written = table.read_bytes()
    learner, curve = before
    for path in (learner, curve):
        for _ in with_one_bit_changed(path, every=1, samples=2):
            if path == learner:
                with pytest.raises(
                    ClipadError, match=f"{learner} .*`./repro clipad train {method}`"
                ):
                    pipeline.measure(project, method)
            pipeline.train(project, method)
            assert files_of(project, method) == before and table.read_bytes() == written
    curve.unlink()
    pipeline.train(project, method)
    assert files_of(project, method) == before


def killed_after(steps: int, monkeypatch: pytest.MonkeyPatch, project: Path) -> Path:
    """Kill a training of VCP-CLIP after some steps; its resume point."""
    numbers, step = iter(range(10**6)), train._take_step

    def killed(*arguments: object) -> dict[str, float]:
        if next(numbers) == steps:
            raise KeyboardInterrupt
        return step(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(train, "SECONDS_BETWEEN_SAVES", 0.0)
        patched.setattr(train, "_take_step", killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline.train(project, "vcpclip")
    [saved] = (project / ".cache" / "training").glob("*.pt")
    return saved


def test_from_a_resume_point_with_a_changed_bit_comes_the_learner_of_a_whole_run(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.train(project, "vcpclip")
    before = files_of(project, "vcpclip")
    shutil.rmtree(project / "data" / "trained")
    saved = killed_after(6, monkeypatch, project)
    resume, points = train._resume, []

    def noted(*arguments: object) -> train.Progress:
        points.append(resume(*arguments))
        return points[-1]

    monkeypatch.setattr(train, "_resume", noted)
    for _ in with_one_bit_changed(saved, every=1, samples=5):
        capsys.readouterr()
        pipeline.train(project, "vcpclip")
        assert files_of(project, "vcpclip") == before
        assert f"clipad: {saved}: damaged, or another's" in capsys.readouterr().err
        shutil.rmtree(project / "data" / "trained")
    assert len(points) == 6
    pipeline.train(project, "vcpclip")
    assert files_of(project, "vcpclip") == before and points[-1].step > 0


def test_a_resume_point_of_another_training_is_not_gone_on_from(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = killed_after(6, monkeypatch, project)
    set_all(project, "vcpclip", seeds=[2])
    run = open_run(project, "vcpclip")
    [job] = trainings(run.variants)
    saved.rename(saved.with_name(f"{run.trainer().key(job)}.pt"))
    pipeline.train(project, "vcpclip")
    again = files_of(project, "vcpclip")
    shutil.rmtree(project / "data" / "trained")
    pipeline.train(project, "vcpclip")
    assert files_of(project, "vcpclip") == again


@pytest.mark.parametrize("method", LEARNED)
def test_weights_with_a_changed_bit_are_trained_on_and_measured_by_nobody(
    project: Path, method: str
) -> None:
    weights = project / "data" / "weights" / "clipad-tiny.safetensors"
    for _ in with_one_bit_changed(weights, every=1, samples=1):
        for stage in (pipeline.train, pipeline.measure):
            with pytest.raises(ClipadError, match=f"weights: {weights} has SHA-256 .* is damaged"):
                stage(project, method)


def as_sealed(path: Path, change_state: Callable[[dict[str, Any]], Any]) -> None:
    """Change a resume point and seal it anew: its digest is right, its content is not."""
    state = sealed.read_state(path, path.stem)
    assert state is not None
    sealed.write_state(path, path.stem, change_state(state))


def with_nan(state: dict[str, Any]) -> dict[str, Any]:
    next(iter(state["learner"].values())).view(-1)[0] = float("nan")
    return state


def with_other_moments(state: dict[str, Any]) -> dict[str, Any]:
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(2, 2, 2)
    return state


@pytest.mark.parametrize(
    "broken",
    [
        lambda state: [1, 2],
        lambda state: {},
        with_nan,
        with_other_moments,
        lambda state: state | {"learner": {"other": torch.zeros(1)}},
        lambda state: state | {"optimizer": {"state": {}, "param_groups": []}},
        lambda state: state | {"progress": {"step": 10**9, "curve": []}},
        lambda state: state | {"progress": {"step": 6, "curve": [[]]}},
    ],
)
def test_a_resume_point_that_does_not_fit_is_started_afresh_and_fills_nothing(
    tmp_path: Path, broken: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    def fresh() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        learner = torch.nn.Linear(3, 2)
        return learner, torch.optim.Adam(learner.parameters(), fused=True)

    learner, optimizer = fresh()
    learner(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    path, epochs = tmp_path / "key.pt", [0, 0, 1, 1]
    train._save(path, learner, optimizer, train.Progress(3, [{"total": 1.0}, {"total": 0.5}]))
    assert train._resume(path, *fresh(), epochs).step == 3
    as_sealed(path, broken)
    again, initial = fresh(), fresh()[0].state_dict()
    assert train._resume(path, *again, epochs) == train.Progress(0, [])
    assert all(torch.equal(value, initial[name]) for name, value in again[0].state_dict().items())
    assert not again[1].state
    assert f"clipad: {path}: damaged" in capsys.readouterr().err


def test_what_measuring_refuses_of_a_learner_or_curve_is_trained_again(project: Path) -> None:
    pipeline.train(project, "vcpclip")
    before = files_of(project, "vcpclip")
    learner, curve = before
    run = open_run(project, "vcpclip")
    job = trainings(run.variants)[0]
    tensors, header = read_safetensors(learner, "vcpclip")
    name = next(iter(tensors))
    for other, about in (
        ({"other": tensors[name]}, header),
        (tensors | {name: tensors[name] * float("nan")}, header),
        (tensors, header | {"config": []}),
        (tensors, header | {"config": {"no_field": 1}}),
        (tensors, header | {"backbone": None}),
    ):
        learner.write_bytes(to_safetensors(other, about))
        assert run.trainer().unusable(job) == [learner]
        with pytest.raises(ClipadError, match="`./repro clipad train vcpclip` makes it again"):
            run.trainer().learner(job)
    for content in ({}, [{"total": "none"}], [[]], None):
        sealed.write_json(curve, run.trainer().key(job), content)
        assert run.trainer().unusable(job) == [learner, curve]
    pipeline.train(project, "vcpclip")
    assert files_of(project, "vcpclip") == before


@pytest.mark.parametrize("text", ["", "[{", "variant,seed\n", b"\xff\xfe", "CUT"])
def test_a_damaged_table_of_curves_names_the_file_to_delete(
    project: Path, text: str | bytes
) -> None:
    run, path = open_run(project, "vcpclip"), pipeline.curves_path(project, "vcpclip")
    path.parent.mkdir(parents=True)
    whole = "variant,seed,epoch,part,value\nmain,1,1,total,0.25\n"
    path.write_text(whole)
    assert pipeline.curves_of(run, run.scorer())["value"].tolist() == [0.25]
    path.write_bytes(text if isinstance(text, bytes) else text.replace("CUT", whole[:-2]).encode())
    message = (
        "training.csv: found no whole table .* delete it and run `./repro clipad train vcpclip`"
    )
    with pytest.raises(ClipadError, match=message):
        pipeline.curves_of(run, run.scorer())
