"""An engine of processes of this machine, a thread each.

On Linux all of them are forked from one process that has imported what is slow to import.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm as plain_tqdm

from clipad_core.errors import ClipadError
from clipad_harness.base.run_record import count_processes
from clipad_harness.base.work import Engine, Worker

# What is slow to import: torch and open_clip, of which the one module is the place.
IMPORTED_ONCE = ["clipad_core.clip.open_clip", "pandas"]
# Elsewhere a fork may end badly: system libraries of macOS are not made for it.
_START = "forkserver" if sys.platform == "linux" else "spawn"
_CONTEXT = multiprocessing.get_context(_START)


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
def on_processes(worker: Worker[Any, Any], processes: int, groups: int) -> Iterator[Engine]:
    """So many processes that finish groups of a worker's items.

    Args:
        groups: how many there will be.

    Raises:
        ClipadError: a process was killed.
    """
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
    import torch  # not at the head: `warm_up` is called so that nobody waits for it

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
