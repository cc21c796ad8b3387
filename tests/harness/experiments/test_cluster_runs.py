"""Stages on clusters: a real SLURM, two hosts with TLS between them; the bytes of one process each time."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dask
import pytest
import yaml
from dask_cluster import LIMIT, as_variables, daemon, slurm, started, write_certificates
from project import REPOSITORY, change, draw_all, make_project

from clipad_harness.data.stages import write_index
from clipad_harness.experiments import pipeline

RESULTS = Path("reports/results/winclip/results.csv")
MEASURE = ("-m", "clipad_harness", "measure", "winclip")
# Two hosts, each with one end of a cable.
HOSTS = {"clipad-login": "10.213.7.1", "clipad-node": "10.213.7.2"}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose headline was measured, and one method trained, by this process."""
    project = make_project(tmp_path_factory.mktemp("measured"))
    for method in ("winclip", "anomalyclip"):
        change(project, method, "ablations", value={})
        change(project, method, "walks", value=[])
    change(project, "winclip", "k_shots", value=[0])
    draw_all(project)
    write_index(project)
    pipeline.measure(project, "winclip")
    pipeline.train(project, "anomalyclip")
    return project


@pytest.fixture
def project(measured: Path, tmp_path: Path) -> Path:
    """A copy in which nothing has been measured yet."""
    copy = Path(shutil.copytree(measured, tmp_path / "project"))
    for name in (".cache", "reports", "data/trained"):
        shutil.rmtree(copy / name)
    change(copy, "cluster_wait", value=2 * LIMIT)
    return copy


def test_two_workers_train_the_bytes_of_one_process(measured: Path, project: Path) -> None:
    """Whoever trains encodes as well: this process does nothing of it."""
    with started(2) as box:
        change(project, "cluster", value=box.scheduler_address)
        pipeline.train(project, "anomalyclip")
    folders = [folder / "data/trained/anomalyclip" for folder in (project, measured)]
    own, expected = [{p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders]
    assert own == expected and len(own) == 2


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def slurm_variables() -> Iterator[dict[str, str]]:
    """A real SLURM, in a folder whose name is short enough for a socket."""
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as folder,
        slurm(Path(folder), free_port()) as variables,
    ):
        yield variables


def test_the_templates_of_slurm_give_the_bytes_of_one_process(
    measured: Path, project: Path, slurm_variables: dict[str, str]
) -> None:
    shutil.copytree(REPOSITORY / "docs/cluster", project / "docs/cluster")
    (project / ".venv").symlink_to(sys.prefix)
    change(project, "cluster", value=".cache/cluster/scheduler.json")
    script = (
        ". docs/cluster/tls.sh; sbatch docs/cluster/scheduler.sbatch >&2; "
        "sbatch --array=1-2 docs/cluster/workers.sbatch >&2; env -0"
    )
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=project,
        env={**slurm_variables, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    exported = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    variables = dask.config.collect_env(exported)["distributed"]
    with dask.config.set(distributed=dask.config.merge(dask.config.get("distributed"), variables)):
        pipeline.measure(project, "winclip")
    assert (project / RESULTS).read_bytes() == (measured / RESULTS).read_bytes()
    written = json.loads((project / ".cache/cluster/scheduler.json").read_text())
    assert written["address"].startswith("tls://")
    assert (project / ".cache/cluster/key.pem").stat().st_mode & 0o77 == 0
    assert len(list((project / ".cache/cluster").glob("*.log"))) == 3


def manifests() -> list[dict[str, Any]]:
    """Everything that the templates of Kubernetes make."""
    return [
        manifest
        for path in sorted((REPOSITORY / "docs/cluster").glob("*.yaml"))
        for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]


def test_the_manifests_of_kubernetes_fit_each_other_and_the_commands_exist() -> None:
    service, *deployments = sorted(manifests(), key=lambda manifest: manifest["kind"] != "Service")
    pods = {d["metadata"]["name"]: d["spec"]["template"] for d in deployments}
    assert set(pods) == {"clipad-scheduler", "clipad-workers"}
    containers = {name: pod["spec"]["containers"][0] for name, pod in pods.items()}
    for deployment in deployments:
        selector, pod = (
            deployment["spec"]["selector"]["matchLabels"],
            deployment["spec"]["template"],
        )
        assert selector == pod["metadata"]["labels"]
        [container], [volume] = pod["spec"]["containers"], pod["spec"]["volumes"]
        [mount] = container["volumeMounts"]
        assert mount["name"] == volume["name"]
        assert mount["mountPath"] == container["workingDir"] == "/clipad"
        assert volume["persistentVolumeClaim"] == {"claimName": "clipad"}
        assert container["image"] == "clipad:latest"
        [script] = container["args"]
        assert script.startswith(". docs/cluster/tls.sh; exec dask ")
        program, *words = script.partition("exec dask ")[2].split()
        known = subprocess.run(
            [sys.executable, "-m", "dask", program, "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert all(word in known for word in words if word.startswith("--"))
    assert service["spec"]["selector"] == pods["clipad-scheduler"]["metadata"]["labels"]
    [port] = service["spec"]["ports"]
    assert f"--port {port['port']} " in containers["clipad-scheduler"]["args"][0]
    address = f"tls://{service['metadata']['name']}:{port['port']} "
    assert address in containers["clipad-workers"]["args"][0]


@contextmanager
def two_hosts() -> Iterator[None]:
    """Two network namespaces with a cable between them; skips where they cannot be had."""
    login, node = HOSTS
    commands = [f"netns add {host}" for host in HOSTS]
    commands += [f"link add {login} netns {login} type veth peer name {node} netns {node}"]
    for host, address in HOSTS.items():
        commands += [f"-n {host} addr add {address}/24 dev {host}", f"-n {host} link set {host} up"]
        commands += [f"-n {host} link set lo up"]
    if not shutil.which("ip") or os.geteuid():
        pytest.skip("two hosts are made by root with iproute2")
    with ExitStack() as ends:
        for host in HOSTS:
            ends.callback(subprocess.run, ["ip", "netns", "delete", host], check=False)
        for command in commands:
            made = subprocess.run(
                ["ip", *command.split()], check=False, capture_output=True, text=True
            )
            if made.returncode:
                pytest.skip(f"no network namespaces here: {made.stderr}")
        yield


def on(host: str) -> tuple[str, ...]:
    return "ip", "netns", "exec", host


def test_two_hosts_with_tls_between_them_give_the_bytes_of_one_process(
    measured: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login, node = HOSTS
    change(project, "cluster", value="scheduler.json")
    change(project, "profiles", "demo", "categories", value=["hex_nut"])
    for name, value in as_variables(write_certificates(tmp_path)).items():
        monkeypatch.setenv(name, value)
    file = ("--scheduler-file", str(project / "scheduler.json"))
    own_address = ("--protocol", "tls", "--host", HOSTS[login], "--port", "0")
    worker = ("--nthreads", "1", "--memory-limit", "0", "--death-timeout", "30", "--no-nanny")
    with (
        two_hosts(),
        daemon("scheduler", *file, *own_address, before=on(login)),
        daemon("worker", *file, *worker, before=on(node)),
    ):
        done = subprocess.run(
            [*on(login), sys.executable, *MEASURE],
            cwd=REPOSITORY,
            env={**os.environ, "CLIPAD_ROOT": str(project)},
            capture_output=True,
            text=True,
            check=False,
            timeout=4 * LIMIT,
        )
    assert done.returncode == 0, done.stderr
    expected = (measured / RESULTS).read_text().splitlines()
    assert (project / RESULTS).read_text().splitlines() == [
        expected[0],
        *(line for line in expected if ",hex_nut," in line),
    ]
