"""A method that learns, takes references and scores a category at once goes the way of all others."""

from pathlib import Path

import numpy as np
import pytest
import torch
from aprilgan_cases import SMALL
from project import change, draw_all, make_project

from clipad_core.detection import Detection
from clipad_core.errors import ClipadError
from clipad_harness.data.stages import write_index
from clipad_harness.experiments import pipeline, scorer
from clipad_harness.experiments.contenders import Contender, contenders
from clipad_harness.experiments.pipeline import open_run
from clipad_harness.experiments.variants import Shard
from clipad_harness.photos.detectors import check_request
from clipad_harness.report.side_by_side import measure_all


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for no step and measured: two categories, without and with a reference."""
    folder = make_project(tmp_path_factory.mktemp("whole"))
    change(folder, "methods", value=["aprilgan"])
    for name, value in {"changes": {"epochs": 0}, "ablations": {}, "walks": []}.items():
        change(folder, "aprilgan", name, value=value)
    draw_all(folder)
    write_index(folder)
    pipeline.train(folder, "aprilgan")
    pipeline.measure(folder, "aprilgan")
    return folder


def test_it_is_measured_without_and_with_references(project: Path) -> None:
    results = pipeline.read_results(project, "aprilgan")
    assert set(results["k_shot"]) == {0, 1} and set(results["method"]) == {"APRIL-GAN"}
    assert results["value"].between(0, 1).all()
    few, zero = (results[results["k_shot"] == k].set_index(["category", "metric"]) for k in (1, 0))
    assert not few["value"].equals(zero["value"])


def test_image_scores_are_those_of_the_whole_category(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few images are scored together: they are put together before their scores are made."""
    run = open_run(project, "aprilgan")
    main, category = run.variants[0], "hex_nut"
    alone = run.scorer().detect(Shard(main, category, 0, 111))
    whole = run.scorer().detect(Shard(main, category, 1, 111))
    maxima = np.array([score_map.max() for score_map in whole.maps])
    share = (maxima - maxima.min()) / (maxima.max() - maxima.min())
    expected = (alone.image_scores + share) / 2
    assert whole.image_scores == pytest.approx(expected, abs=1e-6)
    chunks = scorer.chunks
    monkeypatch.setattr(scorer, "chunks", lambda total, size: chunks(total, 2))
    in_pairs = run.scorer().detect(Shard(main, category, 1, 111))
    assert np.array_equal(in_pairs.image_scores, whole.image_scores)


def test_a_category_whose_maps_have_one_maximum_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(project, "aprilgan")
    monkeypatch.setattr(
        scorer, "joined", lambda parts: Detection(torch.zeros(3), torch.ones(3, 2, 2))
    )
    shard = Shard(run.variants[0], "hex_nut", 1, 111)
    with pytest.raises(ClipadError, match="^hex_nut: few_shot_image_score: found 3 maps of one"):
        run.scorer().detect(shard)


def test_the_operations_of_one_image_are_counted_where_scores_are_a_category_s(
    project: Path,
) -> None:
    run = open_run(project, "aprilgan")
    few, zero = (Contender(run, run.scorer(), k_shot).operations for k_shot in (1, 0))
    assert few > zero > 0


def test_a_step_of_a_walk_that_references_alone_read_trains_nothing_again(project: Path) -> None:
    run = open_run(project, "aprilgan", {"walks": ["paper"]})
    steps = {variant.name: variant for variant in run.variants}
    start = steps["walk to paper/0 start"]
    thrown = steps["walk to paper/1 few_shot_image_score"]
    assert thrown.training(111) == start.training(111)
    assert (start.tested_with(111).few_shot_image_score, thrown.at_test) == (
        "stretched",
        {"few_shot_image_score": "added"},
    )
    assert steps["walk to paper/2 batch_text"].training(111) != start.training(111)


def test_photos_are_scored_one_by_one_and_say_so_where_a_category_is_needed(tmp_path: Path) -> None:
    checkpoint = tmp_path / "learner.pth"
    checkpoint.touch()
    with pytest.raises(ClipadError, match="--reference: found some for aprilgan, whose image sc"):
        check_request("aprilgan", SMALL, "nut", checkpoint, True)
    check_request("aprilgan", SMALL, "nut", checkpoint, False)
    one_by_one = SMALL.changed({"few_shot_image_score": "added"})
    check_request("aprilgan", one_by_one, "nut", checkpoint, True)


def test_maps_of_some_images_are_those_of_the_whole_category(project: Path) -> None:
    run = open_run(project, "aprilgan")
    shard = Shard(run.variants[0], "hex_nut", 1, 111)
    whole = run.scorer().detect(shard)
    names = list(whole.images["image"])
    mapped = run.scorer().maps(shard, [names[3], names[0]])
    assert list(mapped) == [names[0], names[3]]
    for place in (0, 3):
        assert np.array_equal(mapped[names[place]].anomaly_map, whole.maps[place])
        assert np.array_equal(mapped[names[place]].mask, whole.masks[place])


def test_what_is_measured_is_compared_without_scoring_it_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    among = contenders(project)
    assert [contender.k_shot for contender in among] == [0, 1]
    monkeypatch.setattr(scorer.Scorer, "detect", lambda *_: pytest.fail("scored again"))
    compared = measure_all(among, among[0].run.categories).metrics
    results = pipeline.read_results(project, "aprilgan")
    ours = compared.set_index(["contender", "category", "metric"])["value"]
    for row in results[results["metric"] != "aupro"].to_dict("records"):
        label = among[int(row["k_shot"] == 1)].label
        assert ours[label, row["category"], row["metric"]] == pytest.approx(row["value"], abs=1e-6)
