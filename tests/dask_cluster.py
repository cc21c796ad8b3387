"""Schedulers and workers for tests: in this process, as commands, and as jobs of a real SLURM."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import dask
import pytest
from distributed import Nanny, Scheduler, Security, SpecCluster
from project import REPOSITORY

from clipad_harness.base.cluster import environment_kept

LIMIT = 30  # seconds for what takes one
SLURM_CONF = """\
ClusterName=tests
SlurmctldHost={host}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={port}
SlurmdPort={next_port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdParameters=config_overrides
MpiDefault=none
KillWait=2
GresTypes=gpu
NodeName={host} CPUs=16 RealMemory=200000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# Devices that every machine has stand for two GPUs.
GRES_CONF = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"
SLURM_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue")


def wait_for(condition: Callable[[], object], limit: float = LIMIT) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@contextmanager
def started(workers: int, allowed_failures: int = 1) -> Iterator[SpecCluster]:
    """A scheduler and workers of this machine, without TLS, in this process and its children."""
    options = {"nthreads": 1, "memory_limit": 0, "dashboard": False, "silence_logs": 60}
    spec = {number: {"cls": Nanny, "options": options} for number in range(workers)}
    local = {"host": "127.0.0.1", "port": 0, "dashboard": False}
    scheduler = {"cls": Scheduler, "options": local}
    with (
        environment_kept(),
        dask.config.set({"distributed.scheduler.allowed-failures": allowed_failures}),
        SpecCluster(workers=spec, scheduler=scheduler, silence_logs=60) as box,
    ):
        yield box


@contextmanager
def daemon(
    *words: str, code: Path = REPOSITORY, before: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen]:
    """A `dask scheduler` or `dask worker` of its own.

    Args:
        words: of the command.
        code: the folder of the packages that it imports.
        before: a command that starts it, as one that enters a network.
    """
    path = os.pathsep.join([str(code), str(REPOSITORY / "tests")])
    process = subprocess.Popen(
        [*before, sys.executable, "-m", "dask", *words, "--no-dashboard"],
        cwd=code,  # which Python looks through before all else
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def write_certificates(folder: Path) -> dict[str, str]:
    """Write a certificate and its key; the settings of Dask that name them, for all sides."""
    own = Security.temporary()
    (folder / "cert.pem").write_text(own.tls_ca_file)
    (folder / "key.pem").write_text(own.tls_client_key)
    names = {"ca-file": "cert.pem"}
    for side in ("scheduler", "worker", "client"):
        names |= {f"{side}.cert": "cert.pem", f"{side}.key": "key.pem"}
    return {f"distributed.comm.tls.{name}": str(folder / file) for name, file in names.items()}


def as_variables(settings: dict[str, str]) -> dict[str, str]:
    """Settings of Dask as variables of the environment."""
    return {
        f"DASK_{name.upper().replace('.', '__').replace('-', '_')}": value
        for name, value in settings.items()
    }


@contextmanager
def slurm(folder: Path, ports: int) -> Iterator[dict[str, str]]:
    """A real SLURM of one node with two GPUs that are none; the variables that lead to it.

    Args:
        folder: of its files; a path that sockets can have.
        ports: the first of two that are free.
    """
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    if missing := [name for name in SLURM_PROGRAMS if not shutil.which(name, path=path)]:
        pytest.skip(f"no {', '.join(missing)} here: apt-get install slurm-wlm munge")
    if os.geteuid():
        pytest.skip("only root may start SLURM's daemons")
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
    places = {"host": os.uname().nodename, "folder": folder, "port": ports, "next_port": ports + 1}
    (folder / "slurm.conf").write_text(SLURM_CONF.format(**places))
    (folder / "gres.conf").write_text(GRES_CONF)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    munge = ["munged", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munge += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    commands = {"munge": munge, "slurmctld": ["slurmctld"], "slurmd": ["slurmd"]}
    with ExitStack() as ends:
        for name, command in commands.items():
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT
            )
            assert done.returncode == 0, done.stderr
            ends.callback(_end, folder / f"{name}.pid")
            wait_for((folder / f"{name}.pid").exists)
        ends.callback(_cancel_jobs, environment)
        yield environment


def _cancel_jobs(environment: dict[str, str]) -> None:
    """End all jobs, and wait until they have: they would outlive the daemons."""

    def output(*command: str) -> str:
        done = subprocess.run(
            command, env=environment, check=False, capture_output=True, text=True, timeout=LIMIT
        )
        return done.stdout

    output("scancel", "--me")
    wait_for(lambda: not output("squeue", "--noheader"))


def _end(pid_file: Path) -> None:
    """End a daemon; what it would save nobody reads."""
    with suppress(OSError, ValueError):
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
