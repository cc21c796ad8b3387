"""How far a run scales: what the engine costs a group, two workers beside one, and up to 512 simulated.

    python -m benchmarks.scaling             # measures, then simulates and draws
    python -m benchmarks.scaling --simulate  # from what was measured last

Measured here: groups of nothing through the process pool and through Dask, which is what the engine
costs; all shards of WinCLIP on two drawn categories from nothing, with one worker and with two; CPU
seconds of every shard and bytes of every group's features. Simulated: the same shards on the 27
categories of MVTec AD and VisA, handed out in their order as `run_all` does. Writes
benchmarks/results/scaling.json and docs/scaling.png, and prints a Markdown table.
"""

import argparse
import heapq
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import matplotlib.pyplot as plt
import yaml
from distributed import LocalCluster
from matplotlib.ticker import ScalarFormatter
from tqdm.auto import tqdm

from benchmarks.environment import REPOSITORY
from benchmarks.metrics import cpu_name
from clipad_core.errors import ClipadError
from clipad_harness.base.cluster import PAGES_KEPT, environment_kept
from clipad_harness.base.files import write_text
from clipad_harness.base.settings import Cluster
from clipad_harness.base.work import Advance, Worker
from clipad_harness.base.workers import run_all
from clipad_harness.data.stages import write_index
from clipad_harness.experiments.pipeline import Run, open_run
from clipad_harness.experiments.results import groups_of
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.variants import Shard
from clipad_harness.report.figures import save, use_house_style
from clipad_harness.standin.datasets import draw

RESULTS, FIGURE = REPOSITORY / "benchmarks/results/scaling.json", REPOSITORY / "docs/scaling.png"
CATEGORIES = ["hex_nut", "leather_hide"]
IMAGES = {"train_good": 5, "test_good": 6, "test_damaged": 6}  # a third of the demo's
GROUPS_OF_NOTHING, ROUNDS, TURNS = 200, 3, 1
SIMULATED_CATEGORIES, SIMULATED_WORKERS = 27, (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
# What is assumed, not measured: a shared disk of a small cluster, and ViT-B/16+ in float32.
DISK, PUBLISHED_WEIGHTS = 1e9, 8.3e8
WORK = "work"


@dataclass(frozen=True)
class Group:
    """What one worker does in one go: seconds of it, and bytes of features that it writes."""

    seconds: float
    written: float


@dataclass(frozen=True)
class Costs:
    """What comes on top of the work.

    Attributes:
        start: seconds until a worker has its libraries and its encoder.
        engine: seconds a group that the process which hands out work is busy with.
        weights: bytes that every worker reads first.
        disk: bytes a second of the shared disk, all workers together.
    """

    start: float
    engine: float
    weights: float = 0
    disk: float = DISK


def bounds(groups: Sequence[Group], workers: int, costs: Costs) -> dict[str, float]:
    """What a run cannot be faster than, in seconds, by what holds it up."""
    start = costs.start + workers * costs.weights / costs.disk
    written = sum(group.written for group in groups)
    return {
        WORK: sum(group.seconds for group in groups) / workers,
        "longest group": max(group.seconds for group in groups),
        "encoder load": start,
        "engine": (len(groups) - 1) * costs.engine,
        "file system": (workers * costs.weights + written) / costs.disk,
    }


def simulate(groups: Sequence[Group], workers: int, costs: Costs) -> float:
    """Seconds of a run: each group in its order to the worker that is free first.

    >>> groups = [Group(2, 0), Group(1, 0), Group(1, 0), Group(3, 0)]
    >>> simulate(groups, 1, Costs(1, 0)), simulate(groups, 2, Costs(1, 0))
    (8.0, 6.0)
    """
    limits = bounds(groups, workers, costs)
    free = [limits["encoder load"]] * workers
    for place, group in enumerate(groups):
        begin = max(heapq.heappop(free), limits["encoder load"] + place * costs.engine)
        heapq.heappush(free, begin + group.seconds)
    return float(max(*free, limits["file system"]))


class Nothing(Worker[int, int]):
    """An item that costs nothing: what is left is the engine."""

    def finish(self, item: int, advance: Advance) -> int:
        """Say that it is done."""
        advance(1)
        return item


class Timed(Worker[Shard, float]):
    """A scorer whose shards say how many CPU seconds they took."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def finish(self, item: Shard, advance: Advance) -> float:
        """Score and measure a shard, or read it."""
        start = time.process_time()
        self.scorer.finish(item, advance)
        return time.process_time() - start


@contextmanager
def engine(name: str, workers: int, root: Path) -> Iterator[int | Cluster]:
    """What `run_all` takes for the process pool or for Dask, with so many workers."""
    if name == "process pool":
        yield workers
        return
    options = {"n_workers": workers, "threads_per_worker": 1, "memory_limit": 0}
    with (
        environment_kept(),  # or the next process pool would inherit what Dask sets for its workers
        dask.config.set(PAGES_KEPT),
        LocalCluster(**options, dashboard_address=None, silence_logs=50) as box,
    ):
        yield Cluster(box.scheduler_address, 60, root)


def seconds_a_group(name: str) -> float:
    """What the engine takes for a group of nothing, on two workers, once they run."""
    groups = [[number] for number in range(GROUPS_OF_NOTHING)]
    rounds = []
    with tempfile.TemporaryDirectory() as folder, engine(name, 2, Path(folder)) as workers:
        for _ in range(ROUNDS):
            with tqdm(total=len(groups), disable=True) as bar:
                finished = run_all(Nothing(), groups, workers, bar)
                next(finished)
                start = time.perf_counter()
                rest = sum(1 for _ in finished)
                rounds.append((time.perf_counter() - start) / rest)
    return statistics.median(rounds)


def project(folder: Path) -> Run:
    """The demo on two categories, with fewer images, drawn and indexed, of which nothing is measured."""
    weights = folder / "data/weights"
    weights.mkdir(parents=True)
    for name in ("clipad-tiny.json", "clipad-tiny.safetensors"):
        shutil.copy(REPOSITORY / "data/weights" / name, weights)
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    params["profiles"]["demo"]["categories"] = CATEGORIES
    params["synthetic"] |= IMAGES
    write_text(folder / "params.yaml", yaml.safe_dump(params, sort_keys=False))
    draw(folder, "synthetic_target")
    write_index(folder)
    return open_run(folder, "winclip")


def seconds_from_nothing(run: Run, name: str, workers: int) -> tuple[float, list[list[float]]]:
    """Wall seconds of all shards with an empty cache, and CPU seconds of each.

    Workers import clipad and load the encoder within that time, but for one of the process pool, which
    is this process.
    """
    shutil.rmtree(run.root / ".cache", ignore_errors=True)
    scorer = run.scorer()
    groups = groups_of(scorer, run.shards)
    with engine(name, workers, run.root) as place, tqdm(total=0, disable=True) as bar:
        start = time.perf_counter()
        finished = list(run_all(Timed(scorer), groups, place, bar))
        total = time.perf_counter() - start
    return total, [
        seconds for _, seconds in sorted(finished, key=lambda pair: groups.index(list(pair[0])))
    ]


def start_seconds(run: Run) -> float:
    """CPU seconds of a new process until it has imported everything and loaded its encoder."""
    script = (
        "import os, time; from pathlib import Path; from clipad_harness.experiments.pipeline import "
        f"open_run; run = open_run(Path({str(run.root)!r}), 'winclip'); "
        "run.scorer().backbone(run.variants[0].config); print(time.process_time())"
    )
    words = [sys.executable, "-c", script]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return min(
        float(subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE).stdout)
        for _ in range(ROUNDS)
    )


def measure() -> dict[str, Any]:
    """Everything that is measured on this machine."""
    engines = ("process pool", "Dask")
    costs = {name: seconds_a_group(name) for name in engines}
    with tempfile.TemporaryDirectory() as folder:
        run = project(Path(folder))
        start = start_seconds(run)
        turns: dict[str, list[float]] = {}
        for _ in range(TURNS):
            for name in engines:
                for workers in (1, 2):
                    seconds, shards = seconds_from_nothing(run, name, workers)
                    turns.setdefault(f"{name}, {workers}", []).append(seconds)
                    if name == engines[0] and workers == 1:
                        recorded = shards
        written = sum(
            path.stat().st_size for path in Path(folder).glob(".cache/features/**/*.safetensors")
        )
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "engine, seconds a group": costs,
        "worker, CPU seconds to start": start,
        "seconds from nothing": {name: min(values) for name, values in turns.items()},
        "features, bytes": written,
        "shards, CPU seconds": recorded,
    }


def simulated_groups(measured: dict[str, Any]) -> list[Group]:
    """The recorded groups of two categories, over and over, in the order of a run."""
    recorded = measured["shards, CPU seconds"]
    written, size = measured["features, bytes"] / len(recorded), len(recorded) // len(CATEGORIES)
    places = [category % len(CATEGORIES) for category in range(SIMULATED_CATEGORIES)]
    return [
        Group(sum(group), written)
        for place in places
        for group in recorded[place * size : (place + 1) * size]
    ]


def curves(measured: dict[str, Any]) -> dict[str, list[tuple[int, float, str]]]:
    """Workers, speed-up over one, and what holds the run up, by what the encoder weighs."""
    groups = simulated_groups(measured)
    start, hand_out = measured["worker, CPU seconds to start"], measured["engine, seconds a group"]
    light = Costs(start, hand_out["Dask"])
    heavy = Costs(start, hand_out["Dask"], PUBLISHED_WEIGHTS)
    table = {}
    for name, costs in {"stand-in": light, "published weights": heavy}.items():
        alone = simulate(groups, 1, costs)
        table[name] = [
            (workers, alone / simulate(groups, workers, costs), _limit(groups, workers, costs))
            for workers in SIMULATED_WORKERS
        ]
    return table


def _limit(groups: Sequence[Group], workers: int, costs: Costs) -> str:
    limits = bounds(groups, workers, costs)
    return max(limits, key=lambda name: limits[name])


def draw_curves(table: dict[str, list[tuple[int, float, str]]]) -> None:
    """Speed-up by workers, beside the ideal."""
    use_house_style()
    figure, axes = plt.subplots(figsize=(6.4, 4))
    axes.plot(SIMULATED_WORKERS, SIMULATED_WORKERS, color="0.6", linestyle=":", label="ideal")
    for marker, (name, curve) in zip("os", table.items(), strict=True):
        workers, speedups, _ = zip(*curve, strict=True)
        axes.plot(workers, speedups, marker=marker, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel="workers", ylabel="times as fast as one")
    axes.legend(frameon=False)
    save(figure, FIGURE)
    plt.close(figure)


def main() -> None:
    """Measure or read, simulate, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--simulate", action="store_true", help="from what was measured last")
    if not parser.parse_args().simulate:
        write_text(RESULTS, json.dumps(measure(), indent=1) + "\n")
    measured = json.loads(RESULTS.read_text(encoding="utf-8"))
    for name, seconds in measured["engine, seconds a group"].items():
        print(f"{name}: {1000 * seconds:.2f} ms a group")
        one, two = (measured["seconds from nothing"][f"{name}, {n}"] for n in (1, 2))
        print(f"{name}: {one:.0f} s with one worker, {two:.0f} with two ({one / two / 2:.0%})")
    print(f"a worker starts in {measured['worker, CPU seconds to start']:.1f} CPU seconds")
    table = curves(measured)
    draw_curves(table)
    print("| workers | " + " | ".join(f"{name} | held up by" for name in table) + " |")
    print("|---|" + "---|---|" * len(table))
    for rows in zip(*table.values(), strict=True):
        cells = [f"{speedup:.1f}x | {limit}" for _, speedup, limit in rows]
        print(f"| {rows[0][0]} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    try:
        main()
    except ClipadError as error:
        sys.exit(str(error))
