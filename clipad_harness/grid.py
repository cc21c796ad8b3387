"""The grid: all shards, over the cores of the machine, into one tidy results table."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import groupby

import pandas as pd
import torch
from tqdm.auto import tqdm

from clipad_core.errors import ClipadError
from clipad_harness.score import Record, Scorer
from clipad_harness.tables import METRIC_LABELS
from clipad_harness.variants import MAIN, Shard, shares_views

METHOD = "WinCLIP"
COLUMNS = [
    *("method", "variant", "backbone", "dataset", "category", "k_shot", "seed", "metric", "value"),
    "key",
]


def run_plan(
    scorer: Scorer, shards: Sequence[Shard], workers: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Finish all shards with a progress bar; return the results and the recorded references.

    Categories are spread over ``workers`` processes of one thread each. The number of processes does
    not change a bit of the result, which the number of threads of a matrix product would.
    """
    # What cannot work is found here, before any process starts and any image is encoded.
    label = scorer.backbone(shards[0].variant.config).label
    for shard in shards:
        scorer.references(shard)
    records: dict[Shard, Record] = {}
    with tqdm(total=len(shards), desc="score", unit="shard", smoothing=0.05) as bar:
        if workers == 1:
            torch.set_num_threads(1)
            for shard in shards:
                records[shard] = scorer.finish(shard)
                bar.update()
        else:
            for group, found in _in_processes(scorer, shards, workers):
                records |= dict(zip(group, found, strict=True))
                bar.update(len(group))
    return _tables(scorer, label, shards, records)


def _in_processes(
    scorer: Scorer, shards: Sequence[Shard], workers: int
) -> Iterator[tuple[list[Shard], list[Record]]]:
    """Groups of shards with their records, as they are finished."""
    groups = [list(group) for _, group in groupby(shards, shares_views)]
    spawn = multiprocessing.get_context("spawn")
    with _quiet_workers():
        pool = ProcessPoolExecutor(workers, spawn, _start_worker, (scorer,))
        try:
            tasks = {pool.submit(_finish_all, group): group for group in groups}
            for task in as_completed(tasks):
                yield tasks[task], task.result()
        except BrokenProcessPool as error:
            raise ClipadError(
                "workers: a scoring process was killed, most likely because memory ran out; what "
                "was finished is kept. Run again, with `workers: 1` in params.yaml if it recurs."
            ) from error
        finally:
            # After an error or Ctrl-C nobody waits for the rest: shards are written atomically.
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()


@contextmanager
def _quiet_workers() -> Iterator[None]:
    """One bar is enough: workers inherit the environment, and tqdm reads it when they import it."""
    before = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        del os.environ["TQDM_DISABLE"]
        if before is not None:
            os.environ["TQDM_DISABLE"] = before


_worker: list[Scorer] = []


def _start_worker(scorer: Scorer) -> None:
    """Keep one scorer a process, so that its backbone and prototypes serve all its tasks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    torch.set_num_threads(1)
    _worker.append(scorer)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """A killed parent cannot stop its workers; without this they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _finish_all(shards: Sequence[Shard]) -> list[Record]:
    """The shards of one category that share their views, in a process of its own."""
    return [_worker[0].finish(shard) for shard in shards]


def _tables(
    scorer: Scorer, label: str, shards: Sequence[Shard], records: dict[Shard, Record]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tidy results, variants in the order of params.yaml, and the references of the main one."""
    order = {variant.name: place for place, variant in enumerate(scorer.among)}
    rows, chosen = [], []
    for shard in sorted(
        shards, key=lambda s: (order[s.variant.name], s.category, s.k_shot, s.seed)
    ):
        record = records[shard]
        place = (scorer.profile.dataset, shard.category, shard.k_shot, shard.seed)
        head = (METHOD, shard.variant.name, label, *place)
        values = record["values"]
        rows += [(*head, m, values[m], record["key"][:16]) for m in METRIC_LABELS if m in values]
        if shard.variant.name == MAIN:
            chosen += [(*place, image) for image in record["references"]]
    names = ["dataset", "category", "k_shot", "seed", "image"]
    return pd.DataFrame(rows, columns=COLUMNS), pd.DataFrame(chosen, columns=names)
