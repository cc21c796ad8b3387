"""The spread between settings of the CPU libraries: numbers of a small project, differences by hand."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from project import make_project

from benchmarks import rerun_spread
from clipad_core.errors import ClipadError
from clipad_core.metrics import METRICS
from clipad_harness.base.settings import ROOT_VARIABLE
from clipad_harness.data.stages import write_index
from clipad_harness.standin.datasets import draw
from clipad_harness.verify.cpu_settings import Setting

ONE = Setting("one", "one thread", {"OMP_NUM_THREADS": "1"})
OTHER = Setting("other", "", {})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("spread"))
    draw(folder, "synthetic_target")
    write_index(folder)
    return folder


@pytest.fixture(autouse=True)
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project is the one that the benchmark runs on."""
    monkeypatch.setenv(ROOT_VARIABLE, str(project))


def test_numbers_of_a_setting_are_near_those_of_another_precision(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(words: list[str | Path], env: dict[str, str], **_options: object) -> object:
        """What the process does, without the seconds until it has its libraries."""
        assert words[:3] == [sys.executable, "-m", "benchmarks.rerun_spread"]
        assert env["OMP_NUM_THREADS"] == "1"
        rerun_spread.main([str(word) for word in words[3:]])
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(subprocess, "run", run)
    exact, single = (
        rerun_spread.score_apart(precision, ONE, 1) for precision in ("float64", "float32")
    )
    places = {"hex_nut, 0-shot", "hex_nut, 1-shot"}
    quantities = {"scores/image", "scores/maps", *(f"metrics/{name}" for name in METRICS)}
    features = {name for name in single if name.startswith("features/value/")}
    assert single.keys() - features == {
        f"{name}/{place}" for name in quantities for place in places
    }
    # An image has a feature of either precision, of another key.
    assert len(features) == len(exact.keys() - single.keys()) and any(
        "tokens" in n for n in features
    )
    gaps = rerun_spread.gaps(exact, single)
    assert gaps.keys() == quantities and 0 < gaps["scores/maps"] < 1e-4 and max(gaps.values()) < 0.1
    assert not (project / ".cache").exists()  # of the project: a feature that is there is not made


def test_differences_are_those_from_the_first_setting_and_from_float64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        ("float64", "one"): ([1.0, 2.0], 0.5),
        ("float64", "other"): ([1.0, 2.25], 0.5),
        ("float32", "one"): ([1.5, 2.0], 0.25),
        ("float32", "other"): ([1.0, 2.0], 0.5),
    }

    def scored(precision: str, setting: Setting, categories: int) -> dict[str, np.ndarray]:
        assert categories == 2
        maps, aupro = values[precision, setting.name]
        own = {f"features/value/{precision}/tokens": np.zeros(1)}
        return own | {"scores/maps/nut": np.array(maps), "metrics/aupro/nut": np.array(aupro)}

    monkeypatch.setattr(rerun_spread, "score_apart", scored)
    monkeypatch.setattr(rerun_spread, "all_settings", lambda: [ONE])
    monkeypatch.setattr(rerun_spread, "BELOW", OTHER)
    out = tmp_path / "spread.json"
    words = ["2", "--precisions", "float32", "--out", str(out)]
    rerun_spread.main(words)
    result = json.loads(out.read_text())
    found = [
        (row["precision"], row["setting"], row["from the first"], row["from float64"])
        for row in result["rows"]
    ]

    def of(features: float | None, aupro: float, maps: float) -> dict[str, float]:
        own = {} if features is None else {"features/value": features}
        return own | {"metrics/aupro": aupro, "scores/maps": maps}

    assert result["categories"] == 2
    assert found == [
        ("float64", "one", of(0, 0, 0), of(0, 0, 0)),
        ("float64", "other", of(0, 0, 0.25), of(0, 0, 0.25)),
        ("float32", "one", of(0, 0, 0), of(None, 0.25, 0.5)),
        ("float32", "other", of(0, 0.25, 0.5), of(None, 0, 0)),
    ]


def test_what_is_undefined_on_both_sides_does_not_differ() -> None:
    def of(*values: float) -> dict[str, np.ndarray]:
        return {f"metrics/aupro/{place}": np.array(value) for place, value in enumerate(values)}

    assert rerun_spread.gaps(of(np.nan, 0.5), of(np.nan, 0.25)) == {"metrics/aupro": 0.25}
    for one, other in (((np.nan, 0.5), (0.5, 0.5)), ((0.5, np.nan), (0.5, 0.5))):
        assert np.isnan(rerun_spread.gaps(of(*one), of(*other))["metrics/aupro"])


@pytest.mark.parametrize("number", ["0", "3"])
def test_a_number_of_categories_that_cannot_be_is_one_message(
    tmp_path: Path,
    number: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(rerun_spread, "spread", lambda *_: [])
    with pytest.raises(SystemExit, match="^2$"):
        rerun_spread.main([number, "--out", str(tmp_path / "spread.json")])
    assert f"found {number} categories, expected 1 to 2." in capsys.readouterr().err


def test_a_process_that_stops_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    if (stops := shutil.which("false")) is None:
        pytest.skip("no command that fails")
    monkeypatch.setattr(sys, "executable", stops)
    with pytest.raises(ClipadError, match="^float32, setting 'one': found exit code 1"):
        rerun_spread.score_apart("float32", ONE, 1)
