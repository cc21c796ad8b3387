"""What a run leaves out by name, while the rest runs: shots, rows and methods that cannot be had here."""

from pathlib import Path

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from project import change, make_project, variants_of

from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_harness.base.settings import read_profile
from clipad_harness.cli.main import main
from clipad_harness.data.dataset_images import DatasetImages
from clipad_harness.data.stages import find_data
from clipad_harness.experiments import pipeline
from clipad_harness.experiments.left_out import (
    MethodLeftOut,
    with_datasets,
    with_references,
    with_test_images,
    with_words,
)
from clipad_harness.report.summary import read_summary
from clipad_harness.site.index import write_home


def index_of(counts: dict[str, int]) -> dict[str, pd.DataFrame]:
    """A dataset of so many training images a category, and a test image each."""
    rows = [(name, "train") for name, count in counts.items() for _ in range(count)]
    rows += [(name, "test") for name in counts]
    return {"synthetic_target": pd.DataFrame(rows, columns=["category", "split"])}


@pytest.mark.parametrize(
    ("counts", "shots", "sentences"),
    [
        ({"a": 4, "b": 9}, (0, 1, 4), []),
        ({"a": 9, "b": 1}, (0, 1), ["4-shot: left out, since b has 1 normal training image"]),
        ({"a": 0}, (0,), ["1-shot, 4-shot: left out, since a has no normal training images"]),
    ],
)
def test_references_that_a_category_does_not_have_are_left_out_with_one_sentence(
    counts: dict[str, int], shots: tuple[int, ...], sentences: list[str]
) -> None:
    among = variants_of("winclip", k_shots=[0, 1, 4])
    possible, said = with_references("winclip", among, index_of(counts))
    assert (possible[0].k_shots, said) == (shots, sentences)
    groups = {variant.name.partition("/")[0] for variant in possible}
    assert ("memories" in groups) == (1 in shots)  # its rows are measured with one reference


def test_where_no_number_of_references_remains_the_message_says_what_to_add() -> None:
    among = variants_of("winclip", k_shots=[1, 4])
    with pytest.raises(
        ClipadError, match=r"winclip.k_shots: found 1, 4, expected at most 0, .*add 0"
    ):
        with_references("winclip", among, index_of({"a": 0}))


def test_a_method_without_references_loses_nothing() -> None:
    among = variants_of("vcpclip")
    assert with_references("vcpclip", among, index_of({"a": 0}) | {"synthetic_auxiliary": index_of(
        {"a": 0})["synthetic_target"]}) == (among, [])  # fmt: skip


def test_scores_of_a_whole_category_are_left_out_where_one_has_a_single_test_image() -> None:
    room, index = find_method("aprilgan"), index_of({"a": 4})
    index["synthetic_auxiliary"] = index["synthetic_target"]
    among = variants_of("aprilgan", k_shots=[0, 1, 4])
    possible, said = with_test_images("aprilgan", room, among, index)
    assert possible[0].k_shots == (0,)
    assert said == [
        "1-shot, 4-shot: left out, since a has one test image, and APRIL-GAN compares those of a category"
    ]
    alone = variants_of("aprilgan", k_shots=[1], changes={"few_shot_image_score": "added"})
    assert with_test_images("aprilgan", room, alone[:1], index) == (alone[:1], [])
    few = variants_of("aprilgan", k_shots=[1])
    with pytest.raises(
        ClipadError, match=r"aprilgan.k_shots: found 1, .* leave a out of categories"
    ):
        with_test_images("aprilgan", room, few, index)
    whole = {name: pd.concat([rows, rows]) for name, rows in index.items()}
    assert with_test_images("aprilgan", room, among, whole) == (among, [])


def test_a_row_of_a_missing_dataset_is_left_out_and_the_others_run() -> None:
    rows = {"own": {}, "visa": {"trained_on": "visa"}}
    among = variants_of("vcpclip", ablations={"training set": {"rows": rows}}, walks=[])
    present, said = with_datasets("vcpclip", among, {"visa": "dataset visa: found none."})
    assert [variant.name for variant in present] == ["main", "training set/own"]
    assert said == ["training set/visa: not measured, since visa is not here"]


def test_a_row_whose_words_a_category_lacks_is_left_out_and_the_main_one_stays() -> None:
    rows = [("a", "test", "burn"), ("a", "test", "good"), ("b", "test", "tear")]
    index = pd.DataFrame(rows, columns=["category", "split", "defect"])
    named = {kind: {"extra_anomalous_states": kind} for kind in ("defects", "phrases")}
    among = variants_of("winclip", questions={"words": {"rows": named}}, ablations={}, walks=[])
    room = find_method("winclip")
    datasets = {"synthetic_target": DatasetImages(index, Path(), {"a": ("ash",)})}
    present, said = with_words(room, among, datasets, None)
    assert [variant.name for variant in present] == ["main", "question: words/defects"]
    assert said == ["question: words/phrases: not measured, since a category has no such words"]
    # Measured on the first category alone, which has some.
    assert with_words(room, among, datasets, 1) == (among, [])
    asked = variants_of("winclip", changes=named["phrases"], ablations={}, walks=[])
    assert with_words(room, asked, datasets, None) == (asked, [])


@pytest.fixture
def without_visa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project = make_project(tmp_path)
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    monkeypatch.delenv("CLIPAD_DATA", raising=False)
    change(project, "vcpclip", "auxiliary", value={"synthetic_target": "visa", "others": "mvtec"})
    return project


def test_a_method_without_its_auxiliary_dataset_is_left_out_by_name_to_its_page(
    without_visa: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in ("train", "measure", "notebook"):
        assert main([stage, "vcpclip"]) == 0
        said = capsys.readouterr().err
        assert "clipad: vcpclip is left out: it is trained on visa for synthetic_target" in said
        assert "vcpclip.auxiliary.synthetic_target: synthetic_auxiliary" in said
        assert "dataset visa: found none in" in said
    folder = pipeline.results_path(without_visa, "vcpclip").parent
    tables = {path.name: len(pd.read_csv(path)) for path in folder.glob("*.csv")}
    assert tables == dict.fromkeys(
        ("training.csv", "results.csv", "references.csv", "by_category.csv"), 0
    )
    assert pipeline.measured_methods(without_visa) == []
    reports = without_visa / "reports"
    nbformat.validate(nbformat.read(reports / "vcpclip.ipynb", as_version=4))
    page = (reports / "vcpclip.html").read_text()
    assert "visa is not here" in page and "--force train@vcpclip" in page
    assert str(without_visa) not in page
    summary = read_summary(reports / "summaries" / "vcpclip.json")
    assert summary.headline == {} and "vcpclip is left out" in summary.missing[0]
    assert "vcpclip is left out" in write_home(without_visa, ["vcpclip"]).read_text()


def test_the_home_page_after_a_failure_says_which_stage_failed_and_why(
    without_visa: Path, monkeypatch
) -> None:
    monkeypatch.setenv("CLIPAD_ROOT", str(without_visa))
    monkeypatch.setattr(pipeline, "measure", stopped)
    assert main(["measure", "vcpclip"]) == 1
    page = without_visa / "reports" / "index.html"
    assert main(["pages", "--unfinished"]) == 0
    text = BeautifulSoup(page.read_text(), "html.parser").main.get_text()
    assert (
        "clipad measure vcpclip: did not end well" in text and "of an earlier run. no disk" in text
    )
    assert "vcpclip: this report has not been made yet" in text and "clipad pages" not in text
    assert main(["pages"]) == 0  # the page of the pipeline depends on what is there alone
    assert "did not end well" not in page.read_text()


def stopped(*_: object) -> Path:
    raise ClipadError("no disk <b>")


def test_pages_about_all_methods_say_why_where_each_is_left_out(without_visa: Path) -> None:
    path = pipeline.results_path(without_visa, "vcpclip")
    path.parent.mkdir(parents=True)
    path.write_text("method,variant\nVCP-CLIP,main\n")  # measured while the dataset was there
    with pytest.raises(MethodLeftOut, match="vcpclip is left out"):
        pipeline.open_measured(without_visa)


def test_what_the_project_has_drawn_is_found_without_data_root(without_visa: Path) -> None:
    drawn = without_visa / "data" / "synthetic" / "synthetic_auxiliary"
    (drawn / "hex_nut").mkdir(parents=True)
    change(without_visa, "profiles", "demo", "data_root", value=None)
    assert find_data(without_visa, read_profile(without_visa).on("synthetic_auxiliary")) == drawn
