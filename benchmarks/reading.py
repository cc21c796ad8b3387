"""How fast images are read, decoded and resized for a GPU: by threads of one process, and by processes.

    python -m benchmarks.reading FOLDER [--size 518]

Every image below the folder, 200 at least, becomes a normalised view, as the harness reads it ahead of
need (`clipad_harness.experiments.batches.read_ahead`); one turn warms up, the best of three counts. The
share of the time for which a thread holds Python's lock says how many threads gain something: a thread
beside it that does nothing but count counts that much less. Prints a Markdown table.
"""

import argparse
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipad_core.clip.preprocess import make_views
from clipad_harness.base.machine import cores
from clipad_harness.data.images import SUFFIXES, read_image

IMAGES, TURNS = 200, 3
SECONDS_TO_COUNT = 2.0
# Between two threads that both want the lock; a long one would hide who holds it.
SWITCH_SECONDS = 1e-4


def view_of(size: int, path: Path) -> Tensor:
    """One normalised view of a file."""
    pixels = np.asarray(read_image(path))
    return make_views(pixels, (size, size), "stretch", "rgb", "none", dtype=torch.float32).pixels


def images_a_second(pool: Executor, read: Callable[[Path], Tensor], files: list[Path]) -> float:
    """The best of some turns."""
    best = 0.0
    list(pool.map(read, files))
    for _ in range(TURNS):
        start = time.perf_counter()
        for _ in pool.map(read, files):
            pass
        best = max(best, len(files) / (time.perf_counter() - start))
    return best


def counted_beside(work: Callable[[], object]) -> float:
    """How far a thread counts in a second while this one works."""
    ended = threading.Event()
    counts = [0]

    def count() -> None:
        while not ended.is_set():
            counts[0] += 1

    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    thread = threading.Thread(target=count)
    try:
        start = time.perf_counter()
        thread.start()
        work()
        return counts[0] / (time.perf_counter() - start)
    finally:
        ended.set()
        thread.join()
        sys.setswitchinterval(before)


def lock_share(read: Callable[[Path], Tensor], files: list[Path]) -> float:
    """The share of its time for which a thread that reads holds Python's lock."""
    alone = counted_beside(lambda: time.sleep(SECONDS_TO_COUNT))
    return 1 - counted_beside(lambda: [read(file) for file in files]) / alone


def main(words: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="with images at any depth")
    parser.add_argument("--size", type=int, default=518, help="side of a view in pixels")
    arguments = parser.parse_args(words)
    found = sorted(p for p in arguments.folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        parser.error(f"{arguments.folder}: found no image, expected some of {sorted(SUFFIXES)}.")
    files = found * -(-IMAGES // len(found))
    torch.set_num_threads(1)
    read = partial(view_of, arguments.size)
    spawn = multiprocessing.get_context("spawn")
    print(f"{len(found)} images to {arguments.size} px, images a second\n")
    print("| side by side | threads | processes |\n|---|---|---|")
    for number in sorted({1, 2, cores()}):
        with ThreadPoolExecutor(number) as threads:
            by_threads = images_a_second(threads, read, files)
        with ProcessPoolExecutor(number, spawn) as processes:
            by_processes = images_a_second(processes, read, files)
        print(f"| {number} | {by_threads:.0f} | {by_processes:.0f} |")
    print(f"\nPython's lock is held for {100 * lock_share(read, files):.0f} % of a thread's time.")


if __name__ == "__main__":
    main()
