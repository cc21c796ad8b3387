"""Work over the workers of a Dask cluster: one GPU or core each, on this machine or others.

Dask hands out names of work and nothing else: what a worker finishes lies in files of the project's
folder, which all machines share, so that a worker that is killed, a scheduler that is lost or a second
run costs the groups that were under way. docs/cluster.md says how a cluster is started.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import platform
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import dask
import torch
from distributed import Client, Nanny, Scheduler, Security, SpecCluster, WorkerPlugin, get_worker
from distributed.scheduler import KilledWorker

from clipad_core.clip.device import find_device
from clipad_core.errors import ClipadError
from clipad_harness.base.files import write_text
from clipad_harness.base.machine import package_versions
from clipad_harness.base.settings import LOCAL_GPUS, Cluster
from clipad_harness.base.work import Worker

PACKAGES = Path(__file__).resolve().parents[2]
SIGNS = Path(".cache/cluster")
# A scheduler that is there answers within these; a shared disk shows a new file to other machines, too.
SECONDS_TO_CONNECT, SECONDS_TO_SEE = 20, 10
SECONDS_BETWEEN_QUESTIONS = 1.0
SECONDS_TO_LEAVE = 2
LOGGERS = ("distributed", "distributed.client", "tornado.application", "asyncio")
# Dask's nanny has workers give memory back to the system at once: every large array then comes from new
# pages, and shards take 1.4 times as long. None leaves it to the C library.
PAGES_KEPT = {"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}
# Variables of a worker, set before its process starts and so before CUDA wakes.
GPUS_SEEN, QUIET = "CUDA_VISIBLE_DEVICES", {"TQDM_DISABLE": "1"}


@dataclass(frozen=True)
class Conditions:
    """What a worker must share with the process that hands out work: software, and a folder.

    Attributes:
        facts: versions and digest of code, by name.
        sign: a file of the shared folder, made for this run.
        content: of that file.
        device: what the profile names; ``kind`` is what that is in the process that hands out work.
        patience: seconds until a shared disk shows it to another machine.
    """

    facts: Mapping[str, str]
    sign: Path
    content: str
    device: str
    kind: str
    patience: float

    def problem(self, dask_worker: Any) -> str | None:
        """What a worker does not share, asked in its process; None where it shares all."""
        threads = dask_worker.state.nthreads
        if threads != 1:
            return f"found {threads} threads, expected one a worker; start it with `--nthreads 1`"
        own = software()
        for name, expected in self.facts.items():
            if own.get(name) != expected:
                return (
                    f"found {name} {own.get(name, 'none')}, expected {expected} as in the process that "
                    "hands out work; start workers from the same folder and environment"
                )
        try:
            kind = find_device(self.device).type
        except ClipadError as error:
            return str(error)
        if kind != self.kind:
            return (
                f"found {kind} for `device: {self.device}`, expected {self.kind} as in the process that "
                "hands out work, since results say where they were computed; start that process on a machine "
                "like the workers'"
            )
        deadline = time.monotonic() + self.patience
        while not self._is_seen():
            if time.monotonic() > deadline:
                return (
                    f"found no {self.sign}, which was just written there, expected the project's folder "
                    "on a disk that all machines mount at the same path"
                )
            time.sleep(0.1)
        return None

    def _is_seen(self) -> bool:
        try:
            return self.sign.read_text(encoding="utf-8") == self.content
        except OSError:
            return False


@cache
def software() -> dict[str, str]:
    """Python, packages and clipad's own code, by name: equal where the same work gives the same bytes."""
    code = sha256()
    for package in ("clipad_core", "clipad_harness"):
        for path in sorted((PACKAGES / package).rglob("*.py")):
            code.update(path.relative_to(PACKAGES).as_posix().encode() + b"\0")
            code.update(path.read_bytes() + b"\0")
    return {
        "Python": platform.python_version(),
        **package_versions(),
        "clipad's code (digest)": code.hexdigest()[:12],
    }


class Loaded(WorkerPlugin):
    """One worker of a run in every process of the cluster, those that join later included.

    It is unpickled with the first group, after the conditions are checked, and what it loads serves all.
    """

    def __init__(self, name: str, conditions: Conditions, pickled: bytes) -> None:
        self.name, self.conditions, self.pickled = name, conditions, pickled
        self.is_over = False
        self._worker: Worker[Any, Any] | None = None

    def teardown(self, worker: Any) -> None:
        """The run has ended: what is under way stops after its item."""
        self.is_over = True

    def finish(self, number: int, group: Sequence[Any]) -> list[Any]:
        """Finish a group, in a thread of a worker process."""
        torch.set_num_threads(1)
        worker, done = self._ready(), 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            # The sum, not the step: a group that a killed worker began is counted once.
            get_worker().log_event(self.name, [number, done])

        return worker.finish_all(self._while_it_lasts(group), advance)

    def _while_it_lasts(self, group: Sequence[Any]) -> Iterator[Any]:
        for item in group:
            if self.is_over:
                raise CancelledError
            yield item

    def _ready(self) -> Worker[Any, Any]:
        if self._worker is None:
            worker = get_worker()
            if problem := self.conditions.problem(worker):
                raise _unlike(worker.address, problem)
            self._worker = pickle.loads(self.pickled)
        return self._worker


def _finish_group(name: str, number: int, group: Sequence[Any]) -> list[Any]:
    plugin = get_worker().plugins[name]
    assert isinstance(plugin, Loaded)
    return plugin.finish(number, group)


@dataclass
class _Dask:
    """Groups on a cluster, as many as it has workers: who joins later finds some left.

    Attributes:
        name: of the run, on the cluster.
        groups: those handed over, by number.
        done: steps, by number of the group.
    """

    client: Client
    cluster: Cluster
    name: str
    groups: list[Sequence[Any]] = field(default_factory=list)
    done: dict[int, int] = field(default_factory=dict)
    _workers: int = 0
    _asked: float = float("-inf")
    _alive: float = field(default_factory=time.monotonic)

    def submit(self, group: Sequence[Any]) -> Future[list[Any]]:
        number = len(self.groups)
        self.groups.append(group)
        executor = self.client.get_executor(pure=False)
        key = f"{self.name}-{number}"
        task: Future[list[Any]] = executor.submit(_finish_group, self.name, number, group, key=key)
        return task

    def room(self) -> int:
        now = time.monotonic()
        if now - self._asked > SECONDS_BETWEEN_QUESTIONS:
            if self.client.status != "running":
                raise _lost(self.cluster)
            self._workers = int(self.client.scheduler_info(n_workers=0)["n_workers"])
            self._asked = now
        if self._workers:
            self._alive = now
        elif now - self._alive > self.cluster.wait:
            raise _without_workers(self.cluster)
        return self._workers

    def steps(self) -> int:
        return sum(list(self.done.values()))

    def count(self, event: tuple[float, Any]) -> None:
        """Take in what a worker reports."""
        _, (number, steps) = event
        self.done[number] = steps

    def name_of(self, key: str) -> str:
        """What messages call a group, by the key of its task."""
        group = self.groups[int(key.rpartition("-")[2])]
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        return f"{group[0]}{more}"


@contextmanager
def on_cluster(worker: Worker[Any, Any], cluster: Cluster) -> Iterator[_Dask]:
    """Have a worker on every process of a cluster.

    Args:
        worker: does an item; pickled, it holds what another machine needs.
        cluster: local GPUs, an address, or a scheduler file.

    Raises:
        ClipadError: nobody there, no workers within the time limit, workers that differ or do not see
            the folder, work that kills whoever takes it, a scheduler that is lost.
    """
    name = f"clipad-{token_hex(8)}"
    sign = cluster.root / SIGNS / name
    device = cluster.device, cluster.kind
    conditions = Conditions(software(), sign, name, *device, SECONDS_TO_SEE)
    with _connected(cluster) as client:
        engine = _Dask(client, cluster, name)
        try:
            write_text(sign, name)
            _wait_for_a_worker(engine)
            _check_workers(client, conditions)
            client.subscribe_topic(name, engine.count)
            client.register_plugin(Loaded(name, conditions, pickle.dumps(worker)), name=name)
            yield engine
        except KilledWorker as error:
            raise ClipadError(
                f"cluster: {engine.name_of(str(error.task))} killed {error.allowed_failures + 1} workers "
                "one after the other, most likely because memory ran out; what was finished is kept. See the "
                "logs of the workers, give them more memory, then run again."
            ) from error
        except (CancelledError, OSError) as error:
            if isinstance(error, OSError) and client.status == "running":
                raise  # a file's, not the connection's
            raise _lost(cluster) from error
        finally:
            sign.unlink(missing_ok=True)
            if client.status == "running":  # what is under way stops after its item
                with suppress(Exception):
                    client.sync(
                        client.unregister_worker_plugin, name, callback_timeout=SECONDS_TO_LEAVE
                    )


def _wait_for_a_worker(engine: _Dask) -> None:
    while not engine.room():
        time.sleep(0.1)


def _check_workers(client: Client, conditions: Conditions) -> None:
    """Find a worker that would give other bytes, before anything runs.

    Raises:
        ClipadError: there is one.
    """
    for address, problem in client.run(conditions.problem, on_error="return").items():
        if isinstance(problem, Exception):
            raise _unlike(
                address,
                f"found other code or packages ({type(problem).__name__}: {problem}), expected those of "
                "the process that hands out work; start workers from the same folder and environment",
            )
        if problem:
            raise _unlike(address, problem)


@contextmanager
def _connected(cluster: Cluster) -> Iterator[Client]:
    for logger in LOGGERS:  # each problem is told once, by a message
        logging.getLogger(logger).setLevel(logging.CRITICAL + 1)
    if cluster.place == LOCAL_GPUS:
        with environment_kept(), _local_gpus() as spec:
            yield from _client(spec, spec.security, cluster)
    else:
        yield from _client(_address(cluster), None, cluster)


def _client(place: Any, security: Security | None, cluster: Cluster) -> Iterator[Client]:
    limit = min(SECONDS_TO_CONNECT, cluster.wait)
    try:
        client = Client(place, security=security, timeout=limit, set_as_default=False)
    except (OSError, TypeError, ValueError, RuntimeError) as error:
        raise ClipadError(
            f"cluster: {cluster.place}: found nobody to work with at {place} ({_reason(error)}), expected a "
            "scheduler of Dask that answers, over TLS with the certificates that "
            "DASK_DISTRIBUTED__COMM__TLS__... name for both sides; start it as docs/cluster.md says."
        ) from error
    try:
        yield client
    finally:
        client.close(timeout=SECONDS_TO_LEAVE)


def _reason(error: BaseException) -> str:
    """The innermost cause, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _address(cluster: Cluster) -> str:
    """The scheduler's; of a scheduler file, once it is written.

    Raises:
        ClipadError: no file within the time limit or one that is none, or an address that anybody could
            connect to.
    """
    address, where = cluster.place, "cluster"
    if path := cluster.scheduler_file:
        address, where = _written_address(path, cluster), f"cluster: {path}"
    host = urlsplit(address).hostname or ""
    if not address.startswith("tls://") and not _is_loopback(host):
        raise ClipadError(
            f"{where}: found {address}, expected tls://, or tcp:// on this machine alone: whoever reaches a "
            "scheduler without TLS runs any code on it. Start scheduler and workers with certificates "
            "(docs/cluster.md), or reach it through `ssh -L`."
        )
    return address


def _written_address(path: Path, cluster: Cluster) -> str:
    deadline = time.monotonic() + cluster.wait
    while True:
        with suppress(OSError, ValueError, TypeError, KeyError):  # not there yet, or half of it
            return str(json.loads(path.read_text(encoding="utf-8"))["address"])
        if time.monotonic() > deadline:
            raise ClipadError(
                f"cluster: {path}: found no address of a scheduler within {cluster.wait} seconds "
                "(`cluster_wait`), expected the file that `dask scheduler --scheduler-file` writes; start "
                "the scheduler, or correct the path in params.yaml."
            )
        time.sleep(0.2)


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


@contextmanager
def environment_kept() -> Iterator[None]:
    """Dask sets the threads of its workers in this process's own environment; afterwards it is as before."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _local_gpus() -> Iterator[SpecCluster]:
    """One worker a GPU of this machine, over TLS: other users of it can reach a port as well."""
    security = Security.temporary()
    common = {
        "nthreads": 1,
        "memory_limit": 0,
        "dashboard": False,
        "silence_logs": logging.CRITICAL,
    }
    workers = {
        place: {
            "cls": Nanny,
            "options": {**common, "security": security, "env": {GPUS_SEEN: gpu, **QUIET}},
        }
        for place, gpu in enumerate(gpu_names())
    }
    options = {"host": "127.0.0.1", "port": 0, "dashboard": False, "security": security}
    scheduler = {"cls": Scheduler, "options": options}
    with dask.config.set({"distributed.scheduler.work-stealing": False, **PAGES_KEPT}):
        spec = SpecCluster(workers=workers, scheduler=scheduler, security=security, silence_logs=50)
    try:
        yield spec
    except BaseException:
        for nanny in spec.workers.values():  # nobody waits for what is under way
            if nanny.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(nanny.pid, signal.SIGKILL)
        raise
    finally:
        spec.close(timeout=SECONDS_TO_CONNECT)


def gpu_names() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls the GPUs of this machine; CUDA stays asleep in this process.

    Raises:
        ClipadError: there are none.
    """
    if GPUS_SEEN in os.environ:
        names = [name.strip() for name in os.environ[GPUS_SEEN].split(",") if name.strip()]
        source = f"{GPUS_SEEN}={os.environ[GPUS_SEEN]}"
    else:
        source = "`nvidia-smi -L`"
        try:
            listed = subprocess.run(
                ["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=60
            ).stdout
        except (OSError, subprocess.SubprocessError):
            listed = ""
        lines = [line for line in listed.splitlines() if line.startswith("GPU ")]
        names = [str(place) for place, _ in enumerate(lines)]
    if not names:
        raise ClipadError(
            f"cluster: found {LOCAL_GPUS} and no GPU by {source}, expected one at least; write "
            "`cluster: null`, where processes of this machine do the work."
        )
    return names


def _unlike(address: str, problem: str) -> ClipadError:
    return ClipadError(f"cluster: worker {address}: {problem}.")


def _without_workers(cluster: Cluster) -> ClipadError:
    return ClipadError(
        f"cluster: found no worker at {cluster.place} for {cluster.wait} seconds, expected one at least; "
        "start workers (docs/cluster.md), or wait longer with `cluster_wait` in params.yaml. What was "
        "finished is kept."
    )


def _lost(cluster: Cluster) -> ClipadError:
    return ClipadError(
        f"cluster: lost the scheduler at {cluster.place}, expected it to stay until the end; start it "
        "again, then run again: what was finished is kept."
    )
