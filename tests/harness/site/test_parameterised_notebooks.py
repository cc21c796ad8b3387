"""Notebooks by hand: `papermill NOTEBOOK OUT -p NAME VALUE`, with params.yaml left as it is."""

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

PRESETS = {
    "winclip": "anomalib",
    "anomalyclip": "code_default",
    "vcpclip": "paper",
    "aprilgan": "paper",
}
# What a person leaves out who wants the headline alone.
SHORT = ("-p", "ablations", "{}", "-p", "walks", "[]")


def papermill(project: Path, name: str, output: Path, *words: str) -> subprocess.CompletedProcess:
    """As a person types it in the project's folder."""
    environment = {k: v for k, v in os.environ.items() if k != "CLIPAD_ROOT"}
    environment |= {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "papermill", f"notebooks/{name}.ipynb", str(output), *words]
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def tracked(project: Path) -> dict[str, str]:
    """Hashes of what the stages have made, and of the settings that they made it with."""
    folders = ("reports", "data/trained", "data/index")
    files = [path for name in folders for path in (project / name).rglob("*") if path.is_file()]
    paths = [project / "params.yaml", *files]
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in paths}


def output_text(notebook: Path) -> str:
    """All that the cells of a notebook say, as text."""
    cells = nbformat.read(notebook, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    pages = [output.get("data", {}).get("text/html", "") for output in outputs]
    return BeautifulSoup(" ".join(pages), "html.parser").get_text(" ")


@pytest.mark.parametrize("method", PRESETS)
def test_a_method_s_notebook_runs_by_hand_with_other_settings(
    reproduced: Path, tmp_path: Path, method: str
) -> None:
    before, output = tracked(reproduced), tmp_path / "out.ipynb"
    options = ("-p", "preset", PRESETS[method], "-p", "categories", '["hex_nut"]', *SHORT)
    done = papermill(reproduced, method, output, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert tracked(reproduced) == before
    text = " ".join(output_text(output).split())
    assert "not measured in this run" in text and "leather hide" not in text


def test_a_parameter_that_there_is_not_ends_in_one_message(
    reproduced: Path, tmp_path: Path
) -> None:
    done = papermill(reproduced, "winclip", tmp_path / "out.ipynb", "-p", "k_shot", "4")
    assert done.returncode == 1
    assert "ClipadError: parameters: found k_shot, expected some of profile," in done.stderr
