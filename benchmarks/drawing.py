"""Speed of the drawing program, by size: pairs as pretraining draws them, and datasets.

    python -m benchmarks.drawing

One process, one thread, CPU seconds; the turns alternate and the medians count. Writes
benchmarks/results/drawing.json and prints a Markdown table. There is no peer to stand beside.
"""

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.environment import REPOSITORY
from benchmarks.metrics import cpu_name
from clipad_harness.base.files import write_text
from clipad_harness.standin.datasets import DATASETS, Parameters, draw_dataset, plan
from clipad_harness.standin.drawing import PRETRAINING, draw_pair, draw_sound

RESULTS = REPOSITORY / "benchmarks/results/drawing.json"
SIZES = (96, 112, 128, 192)
ROUNDS = 3
# As the demo shares them out: sound for training, sound and damaged for testing.
SHARES = {"train_good": 3, "test_good": 5, "test_damaged": 5}


def pairs(size: int) -> float:
    """Images a second of one pair of every pretraining category; a pair is two images."""
    start = time.process_time()
    for category in PRETRAINING:
        draw_pair(category, 0, size)
    return 2 * len(PRETRAINING) / (time.process_time() - start)


def datasets_in_memory(size: int) -> float:
    """Images a second of both datasets, without PNG and files."""
    start, images = time.process_time(), 0
    for name in DATASETS:
        parameters = Parameters(name, 1, size, **SHARES, drawing="")
        for shot in plan(parameters):
            where = (shot.category, shot.seed(parameters.seed), size)
            if shot.defect == "good":
                draw_sound(*where)
            else:
                draw_pair(*where, shot.defect)
            images += 1
    return images / (time.process_time() - start)


def datasets_to_disk(size: int) -> float:
    """Images a second of both datasets, masks and PNG files included."""
    with tempfile.TemporaryDirectory() as folder:
        start, images = time.process_time(), 0
        for name, categories in DATASETS.items():
            draw_dataset(Path(folder), name, seed=1, image_size=size, progress=False, **SHARES)
            images += sum(SHARES.values()) * len(categories)
        seconds = time.process_time() - start  # removing the files again is no drawing
    return images / seconds


def main() -> None:
    """Measure, write the result, print the table."""
    sides: dict[str, Callable[[int], float]] = {
        "pairs": pairs,
        "datasets": datasets_in_memory,
        "datasets, with PNG files": datasets_to_disk,
    }
    for size in SIZES:
        pairs(size)  # noise tables are made once a size
    rates = {
        name: {size: statistics.median(side(size) for _ in range(ROUNDS)) for size in SIZES}
        for name, side in sides.items()
    }
    about = {"cpu": cpu_name(), "python": platform.python_version(), "threads": 1, "rounds": ROUNDS}
    write_text(RESULTS, json.dumps(about | {"images per second": rates}, indent=1) + "\n")
    print("| pixels | " + " | ".join(sides) + " |\n|---|---|---|---|")
    for size in SIZES:
        print(f"| {size} | " + " | ".join(f"{rates[name][size]:.0f}" for name in sides) + " |")


if __name__ == "__main__":
    main()
