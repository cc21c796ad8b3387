"""Work over Dask: the bytes of the process pool, whoever dies, and one message for what cannot work."""

import gc
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import dask
import pytest
from cluster_work import Backwards, Products, Variables
from dask_cluster import LIMIT, daemon, started, wait_for, write_certificates
from distributed import Client
from project import REPOSITORY, change, settings, write_settings
from tqdm import tqdm

from clipad_core.errors import ClipadError
from clipad_harness.base import cluster as cluster_module
from clipad_harness.base.cluster import gpu_names
from clipad_harness.base.settings import Cluster, read_cluster, read_engine
from clipad_harness.base.workers import run_all

pytestmark = pytest.mark.filterwarnings("ignore")
GROUPS = [[1, 2], [3, 4], [5], [6]]


@pytest.fixture(autouse=True)
def nothing_is_left_over() -> Iterator[None]:
    """A client that found nobody is closed where it is collected; inside the start of another, for ever."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def two_workers() -> Iterator[str]:
    """The address of a scheduler with two workers."""
    with started(2) as box:
        yield box.scheduler_address


def run(
    work: Products, place: str | int, wait: int = LIMIT, device: tuple[str, str] = ("cpu", "cpu")
) -> dict[int, str]:
    """The results by item."""
    workers = Cluster(place, wait, work.folder, *device) if isinstance(place, str) else place
    with tqdm(total=sum(map(len, GROUPS)), disable=True) as bar:
        finished = list(run_all(work, GROUPS, workers, bar))
    return {item: result for group, results in finished for item, result in zip(group, results)}


def message(
    work: Products, place: str, wait: int = LIMIT, device: tuple[str, str] = ("cpu", "cpu")
) -> str:
    """The one message that a run ends with."""
    with pytest.raises(ClipadError) as caught:
        run(work, place, wait, device)
    return str(caught.value)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.txt")}


def folder_of(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Do something in another thread while the block runs."""
    thread = threading.Thread(target=act)
    thread.start()
    yield
    thread.join()


def began(work: Products) -> int | None:
    """The process that began the slow item."""
    log = work.folder / "did.log"
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return next((int(pid) for item, pid, _ in lines if int(item) == work.slow), None)


def test_two_workers_give_the_bytes_of_the_process_pool(tmp_path: Path, two_workers: str) -> None:
    pool, dask_folder = folder_of(tmp_path, "pool"), folder_of(tmp_path, "dask")
    assert run(Products(dask_folder), two_workers) == run(Products(pool), 2)
    assert files(dask_folder) == files(pool) and len(files(pool)) == 6
    assert not list(dask_folder.rglob("clipad-*"))  # what workers looked for is removed


@pytest.mark.parametrize("workers", [1, 2, None])
def test_a_worker_does_its_groups_by_its_own_way_wherever_it_works(
    workers: int | None, tmp_path: Path, two_workers: str
) -> None:
    """In this process, in another one and on a cluster."""
    results = run(Backwards(tmp_path), workers or two_workers)
    done = [int(item) for item, _, _ in Backwards(tmp_path).done()]
    assert done.index(2) < done.index(1) and done.index(4) < done.index(3)
    assert [results[item] for item in range(1, 7)] == [
        (tmp_path / f"{item}.txt").read_text() for item in range(1, 7)
    ]


def test_a_group_goes_to_one_worker_and_both_work(tmp_path: Path, two_workers: str) -> None:
    work = Products(tmp_path, slow=1)  # until everything else is done, by the other
    with meanwhile(
        lambda: (wait_for(lambda: len(files(tmp_path)) == 4), (tmp_path / "go").touch())
    ):
        run(work, two_workers)
    process = {int(item): pid for item, pid, _ in work.done()}
    assert process[1] == process[2] != process[3] == process[4]
    assert os.getpid() not in map(int, process.values())


def test_the_bar_advances_with_the_items_of_the_workers(tmp_path: Path, two_workers: str) -> None:
    work = Products(tmp_path, slow=2)
    with open(os.devnull, "w") as nowhere, tqdm(total=6, disable=False, file=nowhere) as bar:
        steps = run_all(work, GROUPS[:1], Cluster(two_workers, LIMIT, tmp_path), bar)
        shown: list[float] = []
        with meanwhile(
            lambda: (
                wait_for(lambda: began(work)),
                time.sleep(1.2),
                shown.append(bar.n),
                (tmp_path / "go").touch(),
            )
        ):
            list(steps)
    assert shown == [1]  # of a group of two that is under way


def test_a_worker_killed_in_the_middle_of_a_shard_costs_that_shard(
    tmp_path: Path, two_workers: str
) -> None:
    work = Products(tmp_path, slow=4)

    def kill() -> None:
        wait_for(lambda: began(work))
        pid = began(work)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        (tmp_path / "go").touch()

    with meanwhile(kill):
        run(work, two_workers)
    items = [int(item) for item, _, _ in work.done()]
    assert sorted(items) == [1, 2, 3, 4, 4, 5, 6]  # item 3, of the same group, was a file already
    assert files(tmp_path) == files_of_pool(tmp_path)


def files_of_pool(tmp_path: Path) -> dict[str, bytes]:
    run(Products(folder_of(tmp_path, "of_pool")), 1)
    return files(tmp_path / "of_pool")


def test_an_error_of_an_item_is_its_message(tmp_path: Path, two_workers: str) -> None:
    assert message(Products(tmp_path, wrong=5), two_workers) == "item 5: found it wrong."


def test_a_second_run_computes_nothing(tmp_path: Path, two_workers: str) -> None:
    results = run(Products(tmp_path), two_workers)
    (tmp_path / "did.log").unlink()
    assert run(Products(tmp_path), two_workers) == results
    assert not (tmp_path / "did.log").exists()


def test_workers_of_another_torch_are_one_message_before_anything_runs(
    tmp_path: Path, two_workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = cluster_module.software() | {"torch": "1.0"}
    monkeypatch.setattr(cluster_module, "software", lambda: other)
    error = message(Products(tmp_path), two_workers)
    assert (
        "found torch 2." in error and "expected 1.0 as in the process that hands out work" in error
    )
    assert not files(tmp_path)


def test_workers_that_do_not_see_the_folder_are_one_message(
    tmp_path: Path, two_workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module.Conditions, "__reduce__", elsewhere)
    error = message(Products(tmp_path), two_workers)
    assert "found no /nowhere/clipad-" in error and "that all machines mount" in error


def test_workers_of_another_kind_of_device_are_one_message(
    tmp_path: Path, two_workers: str
) -> None:
    error = message(Products(tmp_path), two_workers, device=("auto", "cuda"))
    assert "found cpu for `device: auto`, expected cuda as in the process" in error
    assert not files(tmp_path)


def elsewhere(conditions: cluster_module.Conditions) -> tuple[object, ...]:
    """Arrives at a worker as it would look there, if the folder were another one."""
    sign, device = Path("/nowhere") / conditions.sign.name, (conditions.device, conditions.kind)
    return cluster_module.Conditions, (conditions.facts, sign, conditions.content, *device, 0)


def test_what_kills_every_worker_is_named_and_the_rest_is_kept(
    tmp_path: Path, two_workers: str
) -> None:
    error = message(Products(tmp_path, deadly=3), two_workers)
    assert error.startswith("cluster: 3 and 1 more killed 2 workers") and "is kept" in error
    assert "3.txt" not in files(tmp_path) and "1.txt" in files(tmp_path)


def test_a_worker_with_many_threads_is_one_message(tmp_path: Path) -> None:
    with (
        started(0) as box,
        daemon("worker", box.scheduler_address, "--nthreads", "3", "--no-nanny"),
    ):
        assert "found 3 threads, expected one" in message(Products(tmp_path), box.scheduler_address)


def test_a_worker_of_another_code_version_is_one_message(tmp_path: Path) -> None:
    code, folder = tmp_path / "code", folder_of(tmp_path, "work")
    for package in ("clipad_core", "clipad_harness"):
        shutil.copytree(REPOSITORY / package, code / package)
    with (code / "clipad_core/maps.py").open("a") as module:
        module.write("# older\n")
    with started(0) as box:
        worker = ("worker", box.scheduler_address, "--nthreads", "1", "--no-nanny")
        with daemon(*worker, code=code):
            error = message(Products(folder), box.scheduler_address)
    assert (
        "found clipad's code (digest) " in error and "start workers from the same folder" in error
    )
    assert not files(folder)


def test_no_worker_at_all_is_one_message_after_the_limit(tmp_path: Path) -> None:
    with started(0) as box:
        error = message(Products(tmp_path), box.scheduler_address, wait=1)
    assert "found no worker" in error and "for 1 seconds" in error and "`cluster_wait`" in error


def test_a_scheduler_that_vanishes_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    work = Products(tmp_path, slow=3)
    file = tmp_path / "scheduler.json"
    local = ("--host", "127.0.0.1", "--port", "0")
    with daemon("scheduler", *local, "--scheduler-file", str(file)) as scheduler:
        worker = (
            "--scheduler-file",
            str(file),
            "--nthreads",
            "1",
            "--death-timeout",
            "5",
            "--no-nanny",
        )
        with (
            daemon("worker", *worker),
            meanwhile(lambda: (wait_for(lambda: began(work)), scheduler.kill())),
        ):
            error = message(work, str(file))
    assert error.startswith("cluster: lost the scheduler") and "is kept" in error
    assert set(files(tmp_path)) == {"1.txt", "2.txt"}


def test_a_scheduler_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    error = message(Products(tmp_path), "tcp://127.0.0.1:9", wait=1)
    assert "found nobody to work with at tcp://127.0.0.1:9" in error
    assert "traceback" not in error.lower()
    error = message(Products(tmp_path), "none.json", wait=1)
    assert "none.json: found no address of a scheduler within 1 seconds" in error


def test_a_scheduler_without_tls_is_one_message(
    tmp_path: Path, two_workers: str, certificates: None
) -> None:
    error = message(Products(tmp_path), two_workers.replace("tcp", "tls"), wait=2)
    assert "found nobody to work with at tls://" in error and "over TLS" in error


def test_tls_without_certificates_is_one_message(tmp_path: Path) -> None:
    error = message(Products(tmp_path), "tls://127.0.0.1:9", wait=1)
    assert "certificates that DASK_DISTRIBUTED__COMM__TLS__... name" in error


@pytest.fixture
def certificates(tmp_path: Path) -> Iterator[None]:
    """Names a certificate and its key for all sides, as the variables of docs/cluster.md do."""
    with dask.config.set(write_certificates(tmp_path)):
        yield


@pytest.mark.parametrize("address", ["tcp://192.0.2.1:8786", "tcp://login.example.org:8786"])
def test_a_scheduler_that_anybody_could_use_is_refused(tmp_path: Path, address: str) -> None:
    assert "whoever reaches a scheduler without TLS" in message(Products(tmp_path), address)
    (tmp_path / "scheduler.json").write_text(json.dumps({"address": address}))
    error = message(Products(tmp_path), "scheduler.json")
    assert f"scheduler.json: found {address}, expected tls://" in error


def test_ctrl_c_leaves_at_once_and_what_is_under_way_stops(
    tmp_path: Path, two_workers: str
) -> None:
    work = Products(tmp_path, slow=1)

    def interrupt() -> None:
        wait_for(lambda: began(work))
        os.kill(os.getpid(), signal.SIGINT)

    # A shell starts what runs in the background with this signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with meanwhile(interrupt), pytest.raises(KeyboardInterrupt):
            run(work, two_workers)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "1.txt" not in files(tmp_path)  # nobody waited for it
    (tmp_path / "go").touch()
    wait_for(lambda: "1.txt" in files(tmp_path))
    with Client(two_workers, set_as_default=False) as client:
        wait_for(lambda: not any(client.processing().values()))
    assert "2.txt" not in files(tmp_path)  # of the same group


def test_a_worker_a_gpu_each_sees_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5ac")
    before = dict(os.environ)
    work = Products(tmp_path, slow=1)
    with meanwhile(
        lambda: (wait_for(lambda: len(files(tmp_path)) == 4), (tmp_path / "go").touch())
    ):
        run(work, "local-gpus")
    assert {gpu for _, _, gpu in work.done()} == {"3", "GPU-5ac"}
    assert dict(os.environ) == before


def test_a_worker_of_local_gpus_keeps_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask's own setting takes a new page for every large array."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    assert set(run(Variables(tmp_path), "local-gpus").values()) == {"not set"}


def test_gpus_are_counted_without_waking_cuda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClipadError, match="found local-gpus and no GPU by `nvidia-smi -L`"):
        gpu_names()
    lines = [
        "GPU 0: H200 (UUID: GPU-1)",
        "  MIG 1g.18gb Device 0: (UUID: MIG-1)",
        "GPU 1: H200 (UUID: GPU-2)",
    ]
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    tool.chmod(0o755)
    assert gpu_names() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ClipadError, match="no GPU by CUDA_VISIBLE_DEVICES="):
        gpu_names()


@pytest.mark.parametrize(
    "value", ["", "http://x:1", "tcp://x", "tls://:1", 8786, True, ["local-gpus"]]
)
def test_what_names_no_cluster_is_one_message(tmp_path: Path, value: object) -> None:
    write_settings(tmp_path, settings())
    change(tmp_path, "cluster", value=value)
    with pytest.raises(ClipadError, match="cluster: found .*, expected"):
        read_engine(tmp_path)


def test_a_run_is_on_processes_unless_a_cluster_is_named(tmp_path: Path) -> None:
    write_settings(tmp_path, settings())
    assert read_engine(tmp_path) == settings()["workers"]
    change(tmp_path, "cluster", value="jobs/scheduler.json")
    cluster = read_cluster(tmp_path)
    assert read_engine(tmp_path) == cluster == Cluster("jobs/scheduler.json", 600, tmp_path)
    assert cluster.scheduler_file == tmp_path / "jobs/scheduler.json"
    assert replace(cluster, place="local-gpus").scheduler_file is None
    change(tmp_path, "cluster_wait", value=0)
    with pytest.raises(ClipadError, match="cluster_wait: found 0, expected a whole number from 1"):
        read_engine(tmp_path)


def test_without_the_extra_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, cluster_module.__name__)
    error = message(Products(tmp_path), "local-gpus")
    assert "cluster: found 'local-gpus' in params.yaml, but no distributed" in error
    assert '".[cluster]"' in error
