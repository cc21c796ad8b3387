"""The benchmark of a GPU, which is not at hand: the program runs, small and on a CPU."""

import json
import subprocess
import sys
from pathlib import Path

from project import REPOSITORY


def test_the_benchmark_of_a_gpu_runs_whole_on_a_cpu(tmp_path: Path) -> None:
    words = ["--small", "--device", "cpu", "--batch", "1", "--rounds", "1", "--side", "64"]
    words += ["--precisions", "float32", "bfloat16"]
    command = [sys.executable, "-m", "benchmarks.gpu", *words, "--out", tmp_path / "gpu.json"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "gpu.json").read_text())
    measured = {(rate["label"], rate["precision"]): rate for rate in result["rates"]}
    assert len(measured) == 6 and result["device"] == "cpu"
    for (label, precision), rate in measured.items():
        assert rate["rate"] > 0 and rate["share"] > 0 and rate["peer"] is None
        assert (rate["error"] == 0) == (precision == "float32"), label
    assert result["training"]["kept"] > 0
    assert done.stdout.count("| - | - |") == 6  # anomalib was not asked
    message = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--device", "gpu"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert message.returncode == 1
    assert message.stderr.startswith("device: found 'gpu', expected auto, cpu")
