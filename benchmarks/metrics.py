"""Speed and memory of the metrics beside anomalib, scikit-learn and the 200-pass AUPRO loop.

    python -m benchmarks.metrics

Every measurement is a process of its own with one thread; the sides take turns; the medians of
the CPU seconds are compared. Writes benchmarks/results/metrics.json and prints a Markdown table.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environment import PEER_PINS, REPOSITORY, peer_python
from clipad_core.errors import ClipadError
from clipad_harness.base.files import write_text

SIZES = (240, 518)
RESULTS = REPOSITORY / "benchmarks/results/metrics.json"
MAPS = REPOSITORY / ".cache/benchmarks/maps"
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Comparison:
    """Two sides that compute the same values; `target` is the least ratio of seconds wanted."""

    label: str
    clipad: str
    peer: str
    in_peer_environment: bool
    target: float | None = None
    compare_memory: bool = False


COMPARISONS = (
    Comparison("four pixel metrics / anomalib", "clipad_four", "anomalib_four", True, 3.5),
    Comparison(
        "four pixel metrics / scikit-learn's three",
        "clipad_four",
        "sklearn_three",
        False,
        compare_memory=True,
    ),
    Comparison("200-threshold AUPRO / loop", "clipad_cflow200", "loop_cflow200", True, 40.0),
    Comparison(
        "200-threshold AUPRO / loop, regions labelled once",
        "clipad_cflow200",
        "loop_cflow200_labelled_once",
        True,
    ),
)


def run_side(python: Path, side: str, size: int) -> dict:
    """Measure one side in a new process; `draw` makes the maps of that size instead."""
    command = [str(python), "-m", "benchmarks.metrics_sides", side, str(MAPS / str(size))]
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ClipadError(
            f"benchmark side {side}: found exit code {done.returncode}, expected a measurement; "
            f"last lines:\n{done.stderr.strip()[-600:]}"
        )
    return json.loads(done.stdout.splitlines()[-1]) if side != "draw" else {}


def compare(comparison: Comparison, size: int, rounds: int, peer: Path) -> dict:
    """Let both sides take turns and keep the medians."""
    pythons = {
        comparison.clipad: Path(sys.executable),
        comparison.peer: peer if comparison.in_peer_environment else Path(sys.executable),
    }
    runs: dict[str, list[dict]] = {side: [] for side in pythons}
    for number in range(rounds):
        for side, python in pythons.items():
            print(f"{size} px, round {number + 1} of {rounds}: {side}", file=sys.stderr)
            runs[side].append(run_side(python, side, size))
    median = {
        side: {
            key: statistics.median(run[key] for run in of_side)
            for key in ("seconds", "megabytes", "megabytes_before")
        }
        for side, of_side in runs.items()
    }
    clipad_median, peer_median = median[comparison.clipad], median[comparison.peer]
    clipad_values, peer_values = (
        runs[s][0]["values"] for s in (comparison.clipad, comparison.peer)
    )
    ratio = peer_median["seconds"] / clipad_median["seconds"]
    reached = comparison.target is None or ratio >= comparison.target
    if comparison.compare_memory:
        reached = reached and clipad_median["megabytes"] <= peer_median["megabytes"]
    return {
        "what": comparison.label,
        "size": size,
        "ours": clipad_median,
        "peer": peer_median,
        "ratio": ratio,
        "target": comparison.target,
        "reached": reached,
        "largest_difference": max(
            abs(clipad_values[name] - peer_values[name]) for name in peer_values
        ),
        "values": clipad_values,
    }


def as_markdown(rows: list[dict]) -> str:
    """One line a comparison and size; memory is the peak of the whole process."""
    lines = [
        "| 83 maps, CPU seconds of one thread | px | peer | clipad | ratio | target "
        "| peer MB | clipad MB | largest difference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        target = f">= {row['target']:g}x" if row["target"] else "-"
        if row["what"].endswith("three"):
            target = "memory not above"
        lines.append(
            f"| {row['what']} | {row['size']} | {row['peer']['seconds']:.2f} "
            f"| {row['ours']['seconds']:.2f} | {row['ratio']:.1f}x "
            f"| {target}: {'reached' if row['reached'] else 'MISSED'} "
            f"| {row['peer']['megabytes']:.0f} | {row['ours']['megabytes']:.0f} "
            f"| {row['largest_difference']:.0e} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, write the result, print the table; exit code 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of every side (default 3)")
    rounds = parser.parse_args().rounds
    peer = peer_python()
    rows = []
    for size in SIZES:
        run_side(Path(sys.executable), "draw", size)
        rows += [compare(comparison, size, rounds, peer) for comparison in COMPARISONS]
    shutil.rmtree(MAPS)
    result = {
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "peer": list(PEER_PINS),
        "rounds": rounds,
        "threads": 1,
        "comparisons": rows,
    }
    write_text(RESULTS, json.dumps(result, indent=1) + "\n")
    print(as_markdown(rows))
    sys.exit(0 if all(row["reached"] for row in rows) else 1)


def cpu_name() -> str:
    """The processor's name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    try:
        main()
    except ClipadError as error:
        sys.exit(str(error))
