"""Work over the cores of the machine: one worker a process, one thread each, one progress bar.

The number of processes does not change a bit of a result, which the number of threads of a matrix
product would. What a worker finishes it writes atomically, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

import torch
from tqdm import tqdm as plain_tqdm
from tqdm.auto import tqdm

from clipad_core.errors import ClipadError

Item = TypeVar("Item")
Result = TypeVar("Result")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)
# Called with the number of steps done since the last call.
Advance = Callable[[int], object]
SECONDS_BETWEEN_LOOKS = 0.5


class Worker(Protocol, Generic[Item_contra, Result_co]):
    """What can do an item of work; it is sent to every process once."""

    def finish(self, item: Item_contra, advance: Advance) -> Result_co:
        """Do an item, or read what an earlier run has done of it."""


def run_all(
    worker: Worker[Item, Result],
    groups: Sequence[Sequence[Item]],
    workers: int,
    bar: tqdm,
) -> Iterator[tuple[Sequence[Item], list[Result]]]:
    """Finish all items; yield every group with its results, in the order they are finished.

    Args:
        worker: does one item.
        groups: items that one process should do one after the other, since they share something.
        workers: processes; 1 works in this one.
        bar: advances by the steps that the items report.

    Raises:
        ClipadError: what an item raised, or a process that was killed.
    """
    if workers == 1:
        torch.set_num_threads(1)
        for group in groups:
            yield group, [worker.finish(item, bar.update) for item in group]
    else:
        yield from _in_processes(worker, groups, workers, bar)


def _in_processes(
    worker: Worker[Item, Result],
    groups: Sequence[Sequence[Item]],
    workers: int,
    bar: tqdm,
) -> Iterator[tuple[Sequence[Item], list[Result]]]:
    spawn = multiprocessing.get_context("spawn")
    steps = spawn.Value("q", 0)
    with _quiet_workers():
        pool = ProcessPoolExecutor(workers, spawn, _start_worker, (worker, steps))
        ended = False
        try:
            tasks: dict[Future, Sequence[Item]] = {
                pool.submit(_finish_all, group): group for group in groups
            }
            waiting = set(tasks)
            while waiting:
                done, waiting = wait(waiting, SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED)
                bar.update(steps.value - bar.n)
                for task in done:
                    yield tasks[task], task.result()
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


_process_worker: list[tuple[Worker, Any]] = []


def _start_worker(worker: Worker, steps: Any) -> None:
    """Keep one worker a process, so that what it has loaded serves all its items."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    torch.set_num_threads(1)
    # Bars of this process alone: the lock over processes that tqdm makes unless it is given one would
    # leak where the process is terminated.
    plain_tqdm.set_lock(threading.RLock())
    _process_worker.append((worker, steps))
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """A killed parent cannot stop its workers; without this they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _finish_all(group: Sequence[Any]) -> list[Any]:
    """One group, in a process of its own."""
    worker, steps = _process_worker[0]

    def advance(done: int) -> None:
        with steps.get_lock():
            steps.value += done

    return [worker.finish(item, advance) for item in group]
