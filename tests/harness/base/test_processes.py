"""Work over processes: what successful runs print of themselves."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tqdm import tqdm

from clipad_core.errors import ClipadError
from clipad_harness.base import run_record
from clipad_harness.base.work import Advance, Worker
from clipad_harness.base.workers import run_all

REPOSITORY = Path(__file__).resolve().parents[3]


class Squares(Worker[int, int]):
    """Takes tqdm's lock, which the processes share, as all workers do."""

    def finish(self, item: int, advance: Advance) -> int:
        with tqdm(total=1, disable=False, file=open(os.devnull, "w")) as bar:  # noqa: SIM115
            bar.update(1)
        advance(1)
        return item**2


class FailsAtTwo(Squares):
    """The other process is at work when the second item fails, and is terminated."""

    def finish(self, item: int, advance: Advance) -> int:
        square = super().finish(item, advance)
        if item == 2:
            raise ClipadError("item: found 2.")
        time.sleep(60)
        return square


class Busy(Worker[int, None]):
    """Takes so many MiB, and a fifth of a second of its process."""

    def finish(self, item: int, advance: Advance) -> None:
        start, taken = time.process_time(), bytes(range(256)) * 4096 * item
        while time.process_time() - start < 0.2:
            pass
        assert len(taken) == item * 2**20


class Names(Worker[str, tuple[str | None, bool]]):
    """A variable of the environment, and whether open_clip was there before anybody asked for it."""

    def finish(self, item: str, advance: Advance) -> tuple[str | None, bool]:
        return os.environ.get(item), "open_clip" in sys.modules


def work() -> None:
    with tqdm(total=3, disable=True) as bar:
        groups = run_all(Squares(), [[1], [2], [3]], 2, bar)
        print(sorted(result for _, results in groups for result in results))


def fail() -> None:
    with tqdm(total=3, disable=True) as bar:
        try:
            list(run_all(FailsAtTwo(), [[1], [2], [3]], 2, bar))
        except ClipadError as error:
            print(error)


def test_processes_have_the_environment_of_now_and_what_is_slow_to_import(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for value in ("first", "second"):
        monkeypatch.setenv("CLIPAD_TRIED", value)
        with tqdm(total=2, disable=True) as bar:
            finished = list(run_all(Names(), [["CLIPAD_TRIED"], ["TQDM_DISABLE"]], 2, bar))
        results = {group[0]: result for group, (result,) in finished}
        assert results == {"CLIPAD_TRIED": (value, True), "TQDM_DISABLE": ("1", True)}


def test_time_and_memory_of_the_processes_are_those_of_the_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_record, "_elsewhere", {"cpu_seconds": 0.0, "peak": 0.0})
    before, largest = run_record._cpu_seconds(), 1000
    with tqdm(total=4, disable=True) as bar:
        list(run_all(Busy(), [[1], [1], [1], [largest]], 2, bar))
    counted = run_record._elsewhere
    assert 0.8 <= counted["cpu_seconds"] < 60
    assert largest < counted["peak"] / 2**10 < largest + 2000
    assert run_record._cpu_seconds() - before >= counted["cpu_seconds"]
    assert run_record._peak_mib() >= counted["peak"] / 2**10


@pytest.mark.parametrize("call, printed", [("work", "[1, 4, 9]\n"), ("fail", "item: found 2.\n")])
def test_processes_that_worked_or_failed_leave_nothing_behind(call: str, printed: str) -> None:
    paths = [str(REPOSITORY), str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", f"import test_processes; test_processes.{call}()"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (printed, "")
