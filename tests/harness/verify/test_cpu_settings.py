"""One command runs the pipeline under several settings of the CPU libraries and says whether they matter."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from project import dvc

from clipad_core.errors import ClipadError
from clipad_harness.cli.main import main
from clipad_harness.verify import cpu_settings
from clipad_harness.verify.cpu_settings import Setting, all_settings, verify_settings
from clipad_harness.verify.promise import is_covered, promise, warning

# A stage whose own child says what it inherited, and one that no setting reaches.
STAGES = {
    "settled": {"cmd": "python write.py settled", "deps": ["write.py"], "outs": ["settled.txt"]},
    "leaking": {"cmd": "python write.py leaking", "deps": ["write.py"], "outs": ["leaking.txt"]},
}
WRITE = """import os, subprocess, sys
own = "import os; print(os.environ.get('TOLD', 'nothing'))"
output = subprocess.run([sys.executable, "-c", own], capture_output=True, text=True).stdout
with open(os.environ["HEARD"], "a") as heard:
    heard.write(output)
with open(f"{sys.argv[1]}.txt", "w") as file:
    file.write(output if sys.argv[1] == "leaking" else "settled")
"""
TWO = [Setting("as it is", "nothing", {}), Setting("other", "a word", {"TOLD": "other"})]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a pipeline of two stages, run once; its settings are `TWO`."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    (root / "write.py").write_text(WRITE)
    (root / "params.yaml").touch()
    monkeypatch.setenv("HEARD", str(tmp_path / "heard"))
    monkeypatch.setenv("CLIPAD_ROOT", str(root))
    monkeypatch.setattr(cpu_settings, "all_settings", lambda: TWO)
    dvc(root, "init", "--no-scm", "--quiet")
    dvc(root, "repro")
    (tmp_path / "heard").unlink()
    return root


def test_a_setting_reaches_the_children_of_every_stage(project: Path) -> None:
    outcomes = verify_settings(project)
    assert (project.parent / "heard").read_text().split() == [*2 * ["nothing"], *2 * ["other"]]
    assert [(outcome.setting.name, outcome.count, outcome.mismatches) for outcome in outcomes] == [
        ("as it is", 2, []),
        ("other", 2, ["leaking.txt"]),
    ]
    assert outcomes[0].digest != outcomes[1].digest


def test_the_table_names_what_a_setting_changes_and_the_exit_code_tells(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--settings"]) == 1
    output = capsys.readouterr()
    rows = [line.split("|") for line in output.out.splitlines() if line.startswith("|")]
    assert [row[1].strip() for row in rows] == ["setting", "-" * 8, "as it is", "other"]
    assert [row[-2].strip() for row in rows[2:]] == ["yes", "no"]
    assert rows[2][-3].strip() != rows[3][-3].strip()
    assert "other: 1 of 2 outputs differ from dvc.lock: leaking.txt" in output.out
    assert "AVX2 or newer" in output.out
    assert "1 of 2 settings give other outputs than dvc.lock says: other" in output.err
    # A part alone: what the setting does not reach.
    assert main(["verify", "settled", "--settings"]) == 0
    output = capsys.readouterr()
    rows = [line.split("|") for line in output.out.splitlines() if line.startswith("|")]
    assert [row[-4].strip() for row in rows[2:]] == ["1", "1"]
    assert len({row[-3].strip() for row in rows[2:]}) == 1 and output.err.count("clipad: ") == 0


def test_what_cannot_be_verified_is_one_message(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--settings", "--keep", "x"]) == 1
    assert "found --settings with --keep, expected one of them" in capsys.readouterr().err
    (project / "write.py").write_text("raise SystemExit(3)")
    with pytest.raises(ClipadError, match="setting 'as it is': verify: a stage stopped"):
        verify_settings(project)
    (project / "dvc.lock").unlink()
    with pytest.raises(ClipadError, match=r"dvc.lock: is missing or empty, .* run `./repro` first"):
        verify_settings(project)
    with pytest.raises(
        ClipadError, match="found the part 'scores', expected one of leaking, settled"
    ):
        verify_settings(project, "scores")


PROBE = """
import json, warnings
warnings.simplefilter("error")
import numpy as np
import cv2, torch
from threadpoolctl import threadpool_info
blas = [library for library in threadpool_info() if library["internal_api"] == "openblas"]
print(json.dumps({
    "torch": torch.backends.cpu.get_cpu_capability(),
    "threads": torch.get_num_threads(),
    "numpy": np.show_config(mode="dicts")["SIMD Extensions"].get("found", []),
    "cv2": [w for w in cv2.getCPUFeaturesLine().split() if "AVX512" in w and not w.endswith("?")],
    "blas": [library["architecture"] for library in blas],
}))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the settings are of x86-64")
@pytest.mark.parametrize("setting", all_settings(), ids=lambda setting: setting.name)
def test_every_library_takes_its_setting_without_a_word(setting: Setting) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={**os.environ, **setting.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    settings = json.loads(done.stdout)
    assert str(settings["threads"]) == setting.environment["OMP_NUM_THREADS"]
    if setting.name != "as it is":
        assert settings["torch"] == "AVX2" and settings["cv2"] == []
        assert not any("512" in name or name == "X86_V4" for name in settings["numpy"])
    if setting.name == "SSE2 products":
        assert settings["numpy"] == [] and set(settings["blas"]) == {"Nehalem"}


def test_one_two_and_four_threads_occur() -> None:
    assert [setting.environment["OMP_NUM_THREADS"] for setting in all_settings()] == ["1", "2", "4"]


def test_a_machine_outside_the_promise_is_told_before_anything_runs(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert is_covered() and warning() == "" and "AVX512, inside the promise" in promise()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert not is_covered() and "x86_64, DEFAULT, outside the promise" in promise()
    assert main(["verify", "no-such-part"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("verify: this machine (x86_64, DEFAULT) is outside the promise")
    assert "found the part 'no-such-part'" in lines[1]
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert not is_covered()
