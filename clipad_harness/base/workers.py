"""Work over the cores of a machine or a cluster: a worker a process, a thread each, one progress bar.

The number of processes does not change a bit of a result, which the number of threads of a matrix
product would. What a worker finishes it writes atomically, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import resource
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from tqdm import tqdm as plain_tqdm
from tqdm.auto import tqdm

from clipad_core.errors import ClipadError
from clipad_harness.base.run_record import count_processes
from clipad_harness.base.settings import Cluster

Item = TypeVar("Item")
Result = TypeVar("Result")
# Called with the number of steps done since the last call.
Advance = Callable[[int], object]
SECONDS_BETWEEN_LOOKS = 0.5
# What is slow to import: torch and open_clip, of which the one module is the place.
IMPORTED_ONCE = ["clipad_core.clip.open_clip", "pandas"]
# Elsewhere a fork may end badly: system libraries of macOS are not made for it.
_START = "forkserver" if sys.platform == "linux" else "spawn"
_CONTEXT = multiprocessing.get_context(_START)


class Worker(ABC, Generic[Item, Result]):
    """What can do an item of work; it is sent to every process once."""

    @abstractmethod
    def finish(self, item: Item, advance: Advance) -> Result:
        """Do an item, or read what an earlier run has done of it."""

    def finish_all(self, group: Iterable[Item], advance: Advance) -> list[Result]:
        """Do the items of a group, one after the other unless the worker knows better.

        Args:
            group: asked for the next item when there is time for it.
            advance: called by the thread that calls this.
        """
        return [self.finish(item, advance) for item in group]


class Engine(Protocol):
    """What finishes groups of items beside this process, each in one place from first to last."""

    def submit(self, group: Sequence[Any]) -> Future[list[Any]]:
        """Have a group finished."""

    def room(self) -> int:
        """How many groups may be under way now.

        Raises:
            ClipadError: nobody will finish any.
        """

    def steps(self) -> int:
        """Steps that the items under way and finished have reported."""


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
        return _process_pool(worker, workers, groups)
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


@dataclass(frozen=True)
class _Told:
    """What processes tell the one that started them.

    Attributes:
        steps: that their items have reported.
        cpu_seconds: of all of them.
        peak: memory of the largest, as `ru_maxrss` counts it.
    """

    steps: Any
    cpu_seconds: Any
    peak: Any


@dataclass(frozen=True)
class _ProcessPool:
    """Processes of this machine, which take the next group by themselves."""

    pool: ProcessPoolExecutor
    groups: int
    told: _Told

    def submit(self, group: Sequence[Any]) -> Future[list[Any]]:
        return self.pool.submit(_finish_all, group)

    def room(self) -> int:
        return self.groups

    def steps(self) -> int:
        return int(self.told.steps.value)


def warm_up() -> None:
    """Have processes ready sooner: what they are forked from imports beside what this process does.

    It imports for all of them what takes seconds, and computes nothing.
    """
    if _START == "forkserver":
        _CONTEXT.set_forkserver_preload(IMPORTED_ONCE)
        with _quiet_workers():
            multiprocessing.forkserver.ensure_running()


@contextmanager
def _process_pool(worker: Worker[Any, Any], processes: int, groups: int) -> Iterator[Engine]:
    warm_up()
    told = _Told(_CONTEXT.Value("q", 0), _CONTEXT.Value("d", 0.0), _CONTEXT.Value("q", 0))
    with _quiet_workers():
        start = (worker, told, dict(os.environ))
        pool = ProcessPoolExecutor(processes, _CONTEXT, _start_worker, start)
        ended = False
        try:
            yield _ProcessPool(pool, groups, told)
            pool.shutdown()  # by themselves: who is terminated leaks what it shares with the others
            ended = True
        except BrokenProcessPool as error:
            raise ClipadError(
                "workers: a process was killed, most likely because memory ran out; what was "
                "finished is kept. Run again, with one worker (params.yaml: `workers: 1`; score: `--workers "
                "1`) if it recurs."
            ) from error
        finally:
            # After an error or Ctrl-C nobody waits for the rest: files are written atomically.
            if not ended:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in multiprocessing.active_children():
                    process.terminate()
            if _START == "forkserver":  # whose children they are
                count_processes(told.cpu_seconds.value, told.peak.value)


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


_process_worker: list[tuple[Worker[Any, Any], _Told]] = []
_spent = [0.0]  # CPU seconds of this process that it has told


def _start_worker(worker: Worker[Any, Any], told: _Told, environment: dict[str, str]) -> None:
    """Keep one worker a process, so that what it has loaded serves all its items."""
    os.environ.clear()  # it is that of the parent when the first pool was started
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    torch.set_num_threads(1)
    # Bars of this process alone: the lock over processes that tqdm makes unless it is given one would
    # leak where the process is terminated.
    plain_tqdm.set_lock(threading.RLock())
    _process_worker.append((worker, told))
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """A killed parent cannot stop its workers; without this they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _finish_all(group: Sequence[Any]) -> list[Any]:
    """One group, in a process of its own."""
    worker, told = _process_worker[0]

    def advance(done: int) -> None:
        with told.steps.get_lock():
            told.steps.value += done

    results = worker.finish_all(group, advance)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    before, _spent[0] = _spent[0], usage.ru_utime + usage.ru_stime
    with told.cpu_seconds.get_lock():
        told.cpu_seconds.value += _spent[0] - before
        told.peak.value = max(told.peak.value, usage.ru_maxrss)
    return results
