"""Work over processes: what successful runs print of themselves."""

import os
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from clipad_harness.base.workers import Advance, run_all

REPOSITORY = Path(__file__).resolve().parents[3]


class Squares:
    """Takes tqdm's lock, which the processes share, as all workers do."""

    def finish(self, item: int, advance: Advance) -> int:
        with tqdm(total=1, disable=False, file=open(os.devnull, "w")) as bar:  # noqa: SIM115
            bar.update(1)
        advance(1)
        return item**2


def work() -> None:
    with tqdm(total=3, disable=True) as bar:
        groups = run_all(Squares(), [[1], [2], [3]], 2, bar)
        print(sorted(result for _, results in groups for result in results))


def test_processes_that_did_their_work_leave_nothing_behind() -> None:
    paths = [str(REPOSITORY), str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", "import test_workers; test_workers.work()"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("[1, 4, 9]\n", "")
