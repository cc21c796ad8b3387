"""Data that do not define every metric: without masks, normal images, training images, or all at once."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from project import change, make_project, run_cells

from clipad_core.metrics import METRICS
from clipad_harness.data.stages import write_index
from clipad_harness.experiments import pipeline
from clipad_harness.experiments.left_out import fewest_training_images
from clipad_harness.experiments.shards import CategoryScores, measure
from clipad_harness.report import ablations, dataset_tables, galleries, sections, switch_effects
from clipad_harness.report.comparison import verdict_sentence
from clipad_harness.report.figures import UNDEFINED
from clipad_harness.report.method import incomplete
from clipad_harness.site.explorer import explore
from clipad_harness.site.page_facts import about_essay, about_method

PARTS = ("train/good", "test/good", "test/crack", "ground_truth/crack")


def fill(folder: Path, parts: tuple[str, ...], images: int = 3) -> None:
    """A category in MVTec's layout with some of its folders."""
    random = np.random.default_rng(len(parts))
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[10:22, 10:24] = 255
    for part in parts:
        (folder / part).mkdir(parents=True)
        for place in range(images):
            coarse = random.integers(0, 255, (6, 8, 3)).astype(np.uint8)
            picture = np.kron(coarse, np.ones((8, 8, 1), dtype=np.uint8))
            name = f"{place:03}_mask.png" if part.startswith("ground") else f"{place:03}.png"
            Image.fromarray(mask if part.startswith("ground") else picture).save(
                folder / part / name
            )


@pytest.fixture
def make_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A project that has measured WinCLIP on hazelnuts of some folders; the others are left out."""

    def make(parts: tuple[str, ...]) -> Path:
        project = make_project(tmp_path)
        fill(tmp_path / "data" / "hazelnut_toy" / "hazelnut", parts)
        monkeypatch.setenv("CLIPAD_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("CLIPAD_ROOT", str(project))
        change(project, "profiles", "demo", "dataset", value="hazelnut_toy")
        change(project, "profiles", "demo", "data_root", value=None)
        change(project, "profiles", "demo", "categories", value=[])
        change(project, "winclip", "changes", value={"prompts": "two_class"})  # quick
        change(project, "winclip", "walks", value=[])
        rows = {"exact": {"aupro": "exact"}, "cflow200": {"aupro": "cflow200"}}
        change(project, "winclip", "ablations", value={"AUPRO": {"rows": rows}})
        write_index(project)
        change(project, "methods", value=["winclip", "anomalyclip", "vcpclip", "clip"])
        for method in ("winclip", "anomalyclip", "vcpclip", "clip"):
            pipeline.train(project, method)
            pipeline.measure(project, method)
        return project

    return make


@pytest.mark.parametrize(
    ("parts", "sentences"),
    [
        (
            ("test/good", "test/crack"),
            [
                "1-shot: left out, since hazelnut has no normal training images",
                "pixel metrics are undefined without masks: hazelnut",
            ],
        ),
        (
            ("train/good", "test/crack", "ground_truth/crack"),
            ["image metrics are undefined where no normal images are tested: hazelnut"],
        ),
    ],
    ids=["no masks, no training images", "no normal test images"],
)
def test_every_page_of_data_that_do_not_define_all_metrics_is_made_and_says_so(
    make_measured: Callable[[tuple[str, ...]], Path],
    capsys: pytest.CaptureFixture[str],
    parts: tuple[str, ...],
    sentences: list[str],
) -> None:
    project = make_measured(parts)
    assert incomplete(pipeline.open_run(project, "winclip").scorer()) == sentences
    for name in ("winclip", "comparison", "baselines", "why_numbers_differ"):
        run_cells(project, name)
    text = re.sub(r"'image/\w+': '[^']*'", "", capsys.readouterr().out)
    assert not re.search(r"\bnan\b", text) and "–" in text
    assert "Left out, as their pages say: AnomalyCLIP, VCP-CLIP." in text
    assert all(
        sentence in about_method(project, "winclip", {})["summary"] for sentence in sentences
    )
    assert about_essay(project, {})["provenance"]["dataset"].startswith("hazelnut_toy")
    assert "hazelnut" in explore(project).read_text()


def scores(labels: list[int], masked: bool) -> CategoryScores:
    """A category of 4 x 4 maps; damaged images are right half defect."""
    mask = np.zeros((4, 4), dtype=bool)
    mask[:, 2:] = True
    maps = [np.arange(16, dtype=np.float32).reshape(4, 4) + label for label in labels]
    images = pd.DataFrame({"label": labels, "category": "nut", "defect": "hole"})
    images["image"] = [f"{place}.png" for place in range(len(labels))]
    images["mask"] = "m" if masked else ""
    masks = [mask & bool(label) for label in labels]
    return CategoryScores(images, np.array(labels, dtype=np.float32), maps, masks, [])


@pytest.mark.parametrize(("labels", "masked"), [([0, 1], False), ([1, 1], True), ([0, 0], True)])
def test_a_shard_has_every_metric_and_what_is_undefined_is_nan(
    labels: list[int], masked: bool
) -> None:
    values = measure(scores(labels, masked), masked, "exact", 0.3)
    assert list(values) == list(METRICS)
    defined = {name for name, value in values.items() if not np.isnan(value)}
    kinds = {name.startswith("image") for name in defined}
    assert kinds == {(0, 1): {True}, (1, 1): {False}, (0, 0): set()}[tuple(labels)]


def scored(labels: list[int], masked: bool) -> galleries.Scored:
    """The same as a gallery reads it."""
    found = scores(labels, masked)
    return galleries.Scored(galleries._images(found, masked), found.maps, found.masks)


def test_what_cannot_be_said_to_be_found_is_no_miss() -> None:
    lone = scored([1, 1], masked=True)
    assert np.isnan(galleries.by_defect(lone)["found"]).all()
    assert (
        galleries.size_sentence(lone) == f"The size of a defect against what is found: {UNDEFINED}."
    )
    _, alt = galleries.scores_figure(lone, "Scores")
    assert alt == "Scores by category, normal beside damaged; image AUROC: nut –."


def test_images_of_a_category_without_a_rank_are_neither_best_nor_worst() -> None:
    images = pd.concat([scored([0, 1], True).images, scored([1, 1], True).images])
    both = galleries.Scored(images.reset_index(drop=True), [], [])
    assert galleries.best(both) == galleries.worst(both) == [1]
    assert galleries.best(scored([1, 1], True), 1) == [1]  # by the map alone
    assert galleries.followed(scored([0, 0], True), 1) == galleries.false_alarms(
        scored([0, 0], True), 1
    )


def results_of(values: dict[str, float]) -> pd.DataFrame:
    """The main variant's pixel AUROC by category, in two numbers of references."""
    rows = [
        ("WinCLIP", "main", "mvtec", category, k_shot, 0, "pixel_auroc", value)
        for category, value in values.items()
        for k_shot in (0, 1)
    ]
    columns = ["method", "variant", "dataset", "category", "k_shot", "seed", "metric", "value"]
    return pd.DataFrame(rows, columns=columns)


def test_a_mean_over_categories_is_drawn_where_all_define_it() -> None:
    empty = pd.DataFrame(columns=["category", "metric", "difference", "k_shot", "paper_mean"])
    for values, words in (
        ({"a": 0.5, "b": 0.7}, "pixel AUROC 60.0 with 0, 60.0 with 1"),
        ({"a": 0.5, "b": np.nan}, "pixel AUROC – with 0, – with 1"),
        ({"a": np.nan, "b": np.nan}, f"pixel AUROC {UNDEFINED}"),
    ):
        _, alt = sections.shots_figure(results_of(values), empty)
        assert alt.endswith(f"image AUROC {UNDEFINED}; {words}.")


def test_the_table_by_category_has_a_column_a_metric_whatever_is_defined() -> None:
    columns = ["category", "k_shot", *sorted(METRICS)]
    for table in (results_of({"a": np.nan}), results_of({"a": 0.5}), results_of({})):
        assert list(pipeline.by_category(table).columns) == columns


def test_a_category_without_training_images_counts_zero() -> None:
    rows = [("nut", "train", 0, "good"), ("nut", "test", 1, "hole"), ("bolt", "test", 0, "good")]
    index = pd.DataFrame(rows, columns=["category", "split", "label", "defect"])
    assert dataset_tables.counts(index)["train, normal"].to_dict() == {"bolt": 0, "nut": 1}
    assert fewest_training_images(index) == ("bolt", 0)


def test_a_difference_that_is_undefined_is_not_called_undecided() -> None:
    frame = pd.DataFrame(
        {"low": [np.nan, 1.0, np.nan], "high": [np.nan, 2.0, np.nan]}, index=["a", "b", "mean"]
    )
    none = frame.assign(low=np.nan, high=np.nan)
    words = verdict_sentence("one", "other", pd.concat({"image": frame, "pixel": none}, axis=1))
    assert "better in 1 (b), worse in none, undecided in 0, undefined in 1" in words
    assert f"by pixel AUROC {UNDEFINED}" in words


def test_groups_and_walks_that_a_run_leaves_out_are_a_sentence() -> None:
    results = results_of({"a": 0.5})
    assert "preset: not measured in this run." in ablations.ablation_table(results, "preset")
    assert "No walk is measured" in switch_effects.measured_on(results)
    assert switch_effects.walks(results) == {} == switch_effects.walks(results.iloc[:0])
