"""Work over the cores of a machine or a cluster: a worker a process, a thread each, one progress bar.

The number of processes does not change a bit of a result, which the number of threads of a matrix
product would. What a worker finishes it writes atomically, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from typing import Any

import torch
from tqdm.auto import tqdm

from clipad_core.errors import ClipadError
from clipad_harness.base.processes import on_processes
from clipad_harness.base.settings import Cluster
from clipad_harness.base.work import Engine, Item, Result, Worker

SECONDS_BETWEEN_LOOKS = 0.5


def run_all(
    worker: Worker[Item, Result],
    groups: Sequence[Sequence[Item]],
    workers: int | Cluster,
    bar: tqdm,
) -> Iterator[tuple[Sequence[Item], list[Result]]]:
    """Finish all items; yield every group with its results, in the order they are finished.

    Args:
        worker: does one item.
        groups: items that one process should do one after the other, since they share something.
        workers: processes, where 1 works in this one; or a cluster.
        bar: advances by the steps that the items report.

    Raises:
        ClipadError: what an item raised, a process that was killed, a cluster that is not there.
    """
    if not isinstance(workers, Cluster):
        workers = min(workers, len(groups))
    if not groups or workers == 1:
        torch.set_num_threads(1)
        for group in groups:
            yield group, worker.finish_all(group, bar.update)
        return
    with _engine(worker, workers, len(groups)) as engine:
        yield from _in_turn(engine, groups, bar)


def _engine(
    worker: Worker[Any, Any], workers: int | Cluster, groups: int
) -> AbstractContextManager[Engine]:
    if not isinstance(workers, Cluster):
        return on_processes(worker, workers, groups)
    try:
        from clipad_harness.base.cluster import on_cluster
    except ModuleNotFoundError as error:
        raise ClipadError(
            f"cluster: found {workers.place!r} in params.yaml, but no {error.name}, which it needs; "
            'install it with `./repro uv pip install -c constraints.txt ".[cluster]"`, or write '
            "`cluster: null`."
        ) from error
    return on_cluster(worker, workers)


def _in_turn(
    engine: Engine, groups: Sequence[Sequence[Item]], bar: tqdm
) -> Iterator[tuple[Sequence[Item], list[Any]]]:
    """Hand over as many groups as there is room for, then another for each that is finished."""
    waiting = deque(groups)
    tasks: dict[Future[list[Any]], Sequence[Item]] = {}
    while waiting or tasks:
        room = engine.room()
        while waiting and len(tasks) < room:
            group = waiting.popleft()
            tasks[engine.submit(group)] = group
        if not tasks:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            continue
        done, _ = wait(tasks, SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED)
        bar.update(engine.steps() - bar.n)
        for task in done:
            yield tasks.pop(task), task.result()
