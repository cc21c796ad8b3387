"""`clipad export`: what it writes where, and what it says of wrong names."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from made_up_results import make_measured, write_results

from clipad_harness.cli.main import main
from clipad_harness.experiments.results import COLUMNS


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_measured(tmp_path_factory.mktemp("measured"))


@pytest.fixture
def project(measured: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIPAD_ROOT", str(measured))
    return measured


def test_the_files_name_says_the_format_and_a_file_is_replaced_only_when_asked(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    starts = {"a.tex": "% clipad", "a.md": "<!-- clipad", "a.csv": "# clipad"}
    for name, start in starts.items():
        assert main(["export", "headline", "--out", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)
    file = tmp_path / "a.tex"
    file.write_text("mine")
    words = ["export", "headline", "--out", str(file)]
    assert main(words) == 1 and file.read_text() == "mine"
    assert "add --force to replace it" in capsys.readouterr().err
    assert main([*words, "--force", "--format", "csv"]) == 0
    assert file.read_text().startswith("# clipad")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(starts)
    assert main(["export", "headline", "--out", str(tmp_path)]) == 1
    assert "found a folder, expected a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("nothing", "found no table 'nothing', expected one of headline, categories, ablation"),
        ("headline --metrics auroc", "--metrics: found auroc, expected some of image_auroc, "),
        ("headline --methods nobody", "--methods: found nobody, expected some of winclip, anomal"),
        ("headline --methods vcpclip", "--methods: found vcpclip, expected some of winclip, ano"),
        ("headline --datasets visa", "--datasets: found visa, expected some of synthetic_target"),
        ("headline --categories nut", "--categories: found nut, expected some of hex_nut, leath"),
        ("headline --shots 8", "--shots: found no result of 8"),
        ("headline --decimals 9", "--decimals: found 9, expected 0 to 4"),
        ("headline --profile paper", "expected mvtec of the profile paper"),
        ("headline --profile x", "--profile"),
        ("headline --from no.json", "no.json: found no readable JSON"),
        ("headline --format json", "--format: found json for headline, expected latex, markdown"),
        ("results --format latex", "--format: found latex for results, expected csv or json"),
        ("results --format json --shots 0", "--shots: found it with --format json"),
        ("ablation --methods winclip --group x", "found 'x', expected one of prompts"),
    ],
)
def test_a_wrong_word_is_one_line_that_says_what_there_is(
    project: Path, words: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *words.split()]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("clipad: ") and shown.err.count("\n") == 1 and not shown.out
    assert told in shown.err


def test_the_command_alone_says_what_there_is(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export"]) == 0
    shown = capsys.readouterr().out
    for part in ("headline ", "image_auroc, ", "winclip: profile demo", "groups: prompts"):
        assert part in shown
    assert main(["export", "headline", "--method", "WinCLIP+", "--format", "markdown"]) == 0
    assert "AnomalyCLIP, 0-shot" not in capsys.readouterr().out


def test_json_files_of_several_runs_become_one_table(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = tmp_path / "demo.json", tmp_path / "paper.json"
    assert main(["export", "results", "--methods", "winclip", "--out", str(first)]) == 0
    other = tmp_path / "other"
    shutil.copytree(project, other)
    write_results(other, "winclip", "paper", "mvtec")
    monkeypatch.setenv("CLIPAD_ROOT", str(other))
    words = ["results", "--methods", "winclip", "--profile", "paper", "--out", str(second)]
    assert main(["export", *words]) == 0
    assert json.loads(second.read_text())["methods"][0]["weights"]["kind"] == "published"
    monkeypatch.setenv("CLIPAD_ROOT", str(tmp_path))  # no project is needed for files
    capsys.readouterr()
    files = ["--from", str(first), str(second)]
    assert main(["export", "headline", "--metrics", "aupro", "--format", "csv", *files]) == 0
    shown = capsys.readouterr().out
    assert "synthetic_target, pixel AUPRO," in shown and "MVTec AD, pixel AUPRO," in shown
    assert main(["export", "headline", "--methods", "anomalyclip", *files]) == 1
    assert "expected some of winclip, those of the files" in capsys.readouterr().err
    assert main(["export", "headline", "--profile", "demo", *files]) == 1
    assert "a file says its own" in capsys.readouterr().err


def test_what_has_no_results_is_left_out_and_told(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other"
    shutil.copytree(project, other)
    shutil.rmtree(other / "reports" / "results" / "winclip")
    monkeypatch.setenv("CLIPAD_ROOT", str(other))
    assert main(["export", "headline", "--format", "markdown"]) == 0
    shown = capsys.readouterr()
    assert "WinCLIP" not in shown.out and "left out: winclip" in shown.err
    assert main(["export", "headline", "--methods", "winclip"]) == 1
    assert "run `./repro clipad measure winclip` first" in capsys.readouterr().err
    for name in ("winclip", "anomalyclip"):  # as of methods that a run leaves out
        write_results(other, name, table=pd.DataFrame(columns=COLUMNS))
    assert main(["export", "headline"]) == 1
    assert "found no row of the variant main" in capsys.readouterr().err
