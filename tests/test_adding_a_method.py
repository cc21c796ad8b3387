"""A method is a room, a card, a notebook and what params.yaml says of it: no other file is edited.

`tests/toy` holds all of a method that is in no paper. It is put into a small project of its own, which
runs beside it the one method that is quickest, and of that no more than the comparison needs.
"""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from project import change, dvc, make_repository, python, write_settings

from clipad_harness.site.explorer_data import read_explorer_data

TOY = Path(__file__).with_name("toy")
# The toy's own stages, then those about all methods that show it.
STAGES = ("train@toy", "measure@toy", "notebook@toy", "essay@comparison", "explore")


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has measured WinCLIP, and then gets the toy's files."""
    project = make_repository(tmp_path_factory.mktemp("added"))
    for setting in ("methods", "pages"):
        change(project, setting, value=["winclip"])
    change(project, "winclip", "ablations", value={})
    change(project, "winclip", "walks", value=[])
    dvc(project, "repro", "measure@winclip")
    for path in sorted(TOY.glob("*/**/*")):
        if path.is_file() and path.suffix != ".pyc":
            target = project / path.relative_to(TOY)
            assert not target.exists()
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    toy = yaml.safe_load((TOY / "params.yaml").read_text(encoding="utf-8"))
    params["methods"].append("toy")
    params["pages"].append("toy")
    params["profiles"]["demo"]["toy"] = toy["weights"]
    write_settings(project, params | {"toy": toy["toy"]})
    return project


def test_nothing_that_is_measured_is_measured_again(added: Path) -> None:
    stale = set(json.loads(dvc(added, "status", "--json")))
    assert {*STAGES, "pages"} <= stale
    assert not stale & {"index", "train@winclip", "measure@winclip"}


@pytest.fixture(scope="module")
def measured(added: Path) -> Path:
    """The same after these stages, and with an index of the pages that are there."""
    dvc(added, "repro", "--single-item", *STAGES)
    python(added, "-m", "clipad_harness", "pages")
    return added


def test_it_is_trained_and_measured(measured: Path) -> None:
    folder = measured / "reports" / "results" / "toy"
    results = pd.read_csv(folder / "results.csv")
    assert set(results["method"]) == {"Toy"}
    assert set(results["variant"]) == {
        "main",
        "temperature/0.07",
        "temperature/0.01",
        "walk to sharp/0 start",
        "walk to sharp/1 temperature",
    }
    assert results["value"].between(0, 1).all()
    assert (folder / "training.csv").read_text(encoding="utf-8").count("\n") == 1  # no curve


def test_it_has_its_page_and_its_line_on_the_index(measured: Path) -> None:
    reports = measured / "reports"
    page = (reports / "toy.html").read_text(encoding="utf-8")
    assert "<title>A toy" in page and "<strong>temperature</strong>" in page
    summary = json.loads((reports / "summaries" / "toy.json").read_text(encoding="utf-8"))
    assert summary["method"] == "Toy" and set(summary["headline"]) == {"0-shot"}
    index = (reports / "index.html").read_text(encoding="utf-8")
    assert '<a href="toy.html">Toy</a>' in index and '<a href="toy.html">A toy</a>' in index


def test_it_stands_beside_the_others_in_the_comparison_and_in_the_explorer(measured: Path) -> None:
    reports = measured / "reports"
    comparison = (reports / "comparison.html").read_text(encoding="utf-8")
    for scope in ("row", "col"):
        assert f'scope="{scope}">Toy, zero-shot</th>' in comparison
    explorer = read_explorer_data((reports / "explorer.html").read_text(encoding="utf-8"))
    assert explorer["methods"] == ["WinCLIP, 0-shot", "WinCLIP+, 1-shot", "Toy, zero-shot"]


def test_it_scores_photos(measured: Path) -> None:
    photo = "data/synthetic/synthetic_target/hex_nut/test/good/000.png"
    words = ("score", photo, "--method", "toy", "--class-name", "hex nut", "--out", "scored")
    python(measured, "-m", "clipad_harness", *words)
    scores = pd.read_csv(measured / "scored" / "scores.csv")
    assert len(scores) == 1 and scores["score"].between(0, 1).all()
