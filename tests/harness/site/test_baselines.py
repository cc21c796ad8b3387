"""The essay about CLIP and CoOp, cell by cell, whichever of them a run has measured."""

import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from project import change, draw_all, make_project, run_cells

from clipad_harness.data.stages import write_index
from clipad_harness.experiments import pipeline


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A category on which CLIP and CoOp are measured, and WinCLIP is said to be."""
    root = make_project(tmp_path_factory.mktemp("baselines"))
    draw_all(root)
    change(root, "methods", value=["winclip", "clip", "coop"])
    change(root, "profiles", "demo", "categories", value=["hex_nut"])
    write_index(root)
    words = {"normal, anomalous": {}, "normal, damaged": {"anomalous_state": "damaged"}}
    groups = {"state words": {"rows": words}, "preset": {"rows": {"clip": "clip"}}}
    change(root, "clip", "ablations", value=groups)
    change(root, "coop", "ablations", value={"preset": {"rows": {"reading": "reading"}}})
    for name in ("clip", "coop"):
        change(root, name, "walks", value=[])
    for name in ("clip", "coop"):
        pipeline.train(root, name)
        pipeline.measure(root, name)
    results = pipeline.results_path(root, "winclip")
    results.parent.mkdir(parents=True)
    results.write_text("method\nWinCLIP\n")  # only that there are some is asked
    return root


@pytest.mark.parametrize(
    ("methods", "absent"),
    [(["winclip"], "clip, coop"), (["winclip", "clip"], "coop"), (["coop"], "clip")],
)
def test_a_row_that_is_not_measured_is_a_sentence_and_the_rest_is_made(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    methods: list[str],
    absent: str,
) -> None:
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    change(project, "methods", value=methods)
    run_cells(project, "baselines")
    text = shown(capsys.readouterr().out)
    assert f"Not measured in this run: {absent}." in text
    assert "zipper −24.0" in text  # what is in print needs no run
    for method, words in {"clip": "equals the core's", "coop": "Cosine of the two"}.items():
        assert (words in text or method not in methods) and not re.search(r"\bnan\b", text)


def test_both_rows_stand_on_the_page_with_what_the_cores_say_themselves(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    change(project, "methods", value=["winclip", "clip", "coop"])
    run_cells(project, "baselines")
    text = shown(capsys.readouterr().out)
    assert "Not measured" not in text and "A reading, not a reproduction" in text
    assert re.findall(r"equals the core's\W+(\w+)", text) == ["True", "True"]
    assert "no distance, since this run uses stand-in weights" in text
    assert "“normal, damaged” against “normal, anomalous”" in text
    assert "published codes" not in text  # presets are readings here


def shown(printed: str) -> str:
    """What cells display, without tags and pictures."""
    plain = re.sub(r"'image/\w+': '[^']*'", "", printed)
    return " ".join(BeautifulSoup(plain, "html.parser").get_text(" ").split())
