"""The set-up script, tried as a visitor does: in a fresh clone, in a ZIP, killed, without rights."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from runpy import run_path

import pytest

ROOT = Path(__file__).resolve().parent.parent
IS_CLONE = (ROOT / ".git").exists()
NOTHING_TO_INSTALL = "packages are neither in uv's cache nor within reach"
INTERRUPTED = "repro: interrupted; the next ./repro goes on\n"
FROM_CACHE = {"UV_OFFLINE": "1", "PIP_NO_INDEX": "1"}


def environment(**more: str) -> dict[str, str]:
    """A visitor's environment: the tests' own one is not to be seen, but for uv."""
    own = ("VIRTUAL_ENV", "PYTHONPATH", "CLIPAD_DATA", "DVC_ROOT")
    inherited = {name: value for name, value in os.environ.items() if name not in own}
    path = os.pathsep.join([str(Path(sys.executable).parent), inherited["PATH"]])
    return {**inherited, "PATH": path, **more}


def repro(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run ./repro of this folder to its end."""
    return subprocess.run(
        [folder / "repro", *words],
        env=environment(**more),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def interrupt(*command: str | Path) -> tuple[int, str, str]:
    """Press Ctrl-C once a command has printed "started"; its code, what it printed then, its errors."""
    process = subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A shell's background jobs ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    return process.returncode, output, errors


def unpack(folder: Path) -> Path:
    """The committed files without a repository, as a ZIP download leaves them."""
    if not IS_CLONE:
        ignore = shutil.ignore_patterns(
            ".venv", ".cache", ".dvc/tmp", "__pycache__", "config.local"
        )
        return Path(shutil.copytree(ROOT, folder, ignore=ignore))
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A fresh clone in a folder with a space, set up; and where its packages came from."""
    folder = tmp_path_factory.mktemp("a visitor's folder") / "clipad"
    if IS_CLONE:
        subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    else:
        unpack(folder)
    for source in (FROM_CACHE, {}):
        done = repro(folder, "python", "-c", "import clipad_core, clipad_harness", **source)
        if done.returncode == 0:
            yield folder, source
            break
    else:
        assert "could not be installed" in done.stderr, done.stderr
        pytest.skip(NOTHING_TO_INSTALL)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def unpacked(
    clone: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A folder without git whose first set-up was killed half-way and then started again."""
    folder = unpack(tmp_path_factory.mktemp("unpacked") / "clipad")
    command = [folder / "repro", "python", "-c", ""]
    first = subprocess.Popen(
        command,
        env=environment(**clone[1]),
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert first.stderr is not None
    assert "setting up .venv" in first.stderr.readline()
    while not (folder / ".venv" / "bin" / "python").exists():
        assert first.poll() is None
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    first.stderr.close()
    assert not (folder / ".venv" / "clipad.sha256").exists()
    done = repro(folder, "python", "-c", "import clipad_core, clipad_harness", **clone[1])
    assert done.returncode == 0, done.stderr
    yield folder
    shutil.rmtree(folder)


def test_modules_are_compiled_once_whatever_the_shell_says(
    clone: tuple[Path, dict[str, str]],
) -> None:
    [package] = (clone[0] / ".venv" / "lib").glob("python3*/site-packages/torch")
    shutil.rmtree(package / "__pycache__", ignore_errors=True)
    done = repro(clone[0], "python", "-c", "import torch", PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 0, done.stderr
    assert list(package.glob("__pycache__/__init__.*.pyc"))


def test_a_fresh_clone_sets_itself_up(clone: tuple[Path, dict[str, str]]) -> None:
    done = repro(clone[0], "python", "-c", "import clipad_core, sys; print(sys.prefix)")
    assert done.stdout.strip() == str(clone[0] / ".venv")
    assert done.stderr == ""


def test_a_fresh_clone_has_the_command_line_the_tools_and_the_kernel(
    clone: tuple[Path, dict[str, str]],
) -> None:
    for words in (["clipad", "--help"], ["dvc", "dag"], ["pytest", "--version"], ["mypy", "-V"]):
        done = repro(clone[0], *words)
        assert done.returncode == 0, done.stderr
    kernels = repro(clone[0], "jupyter", "kernelspec", "list").stdout
    assert str(clone[0] / ".venv" / "share" / "jupyter" / "kernels" / "python3") in kernels


def test_setting_up_leaves_the_clone_unmodified(clone: tuple[Path, dict[str, str]]) -> None:
    if not IS_CLONE:
        pytest.skip("this is no clone")
    status = ["git", "status", "--porcelain"]
    done = subprocess.run(status, cwd=clone[0], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_new_pins_renew_the_environment(tmp_path: Path) -> None:
    for name in ("repro", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    script = run_path(str(tmp_path / "repro"))
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    assert not script["is_ready"]()
    script["STAMP"].write_text(script["key"]())
    assert script["is_ready"]()
    (tmp_path / "constraints.txt").write_text("numpy==2.4.0\n")
    assert not script["is_ready"]()


def test_a_killed_set_up_is_repaired_and_a_zip_needs_no_git(unpacked: Path) -> None:
    done = repro(unpacked, "dvc", "dag")
    assert done.returncode == 0, done.stderr
    assert "no_scm = true" in (unpacked / ".dvc" / "config.local").read_text()


def test_the_exit_status_is_the_commands_own(unpacked: Path) -> None:
    assert repro(unpacked, "sh", "-c", "exit 7").returncode == 7
    assert repro(unpacked, "sh", "-c", "kill -KILL $$").returncode == 128 + signal.SIGKILL


def test_a_python_without_pip_gets_one_inside_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = run_path(str(ROOT / "repro"))
    monkeypatch.setattr(sys, "executable", shutil.which("true"))  # says yes to any question
    assert script["pip_for"]()[:4] == [shutil.which("true"), "-m", "pip", "--python"]
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    assert script["pip_for"]() == [script["BIN"] / "python", "-m", "pip"]


@pytest.fixture
def ready(tmp_path: Path) -> Callable[[str], Path]:
    """A folder that is set up, whose `dvc` and other programs are shell scripts."""

    def make(dvc: str, **programs: str) -> Path:
        for name in ("repro", "pyproject.toml", "constraints.txt", "dvc.yaml"):
            shutil.copy(ROOT / name, tmp_path)
        program = tmp_path / ".venv" / "bin" / "dvc"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{dvc}\n")
        program.chmod(0o755)
        for name, line in (("python", "exit 0"), ("clipad", 'echo "clipad $*"'), *programs.items()):
            program.with_name(name).write_text(f"#!/bin/sh\n{line}\n")
            program.with_name(name).chmod(0o755)
        script = run_path(str(tmp_path / "repro"))
        script["STAMP"].write_text(script["key"]())
        (tmp_path / ".dvc").mkdir(exist_ok=True)
        return tmp_path

    return make


def test_alone_it_is_dvc_repro_and_names_the_report(ready: Callable[[str], Path]) -> None:
    folder = ready('echo "dvc $*, in $(pwd)"')
    done = subprocess.run(
        [folder / "repro"], cwd="/", env=environment(), capture_output=True, text=True, check=False
    )
    output = f"dvc repro --keep-going, in {folder}\n"
    assert done.stdout == f"{output}Open the report: reports/index.html\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_what_dvc_refuses_is_not_called_done(ready: Callable[[str], Path]) -> None:
    done = repro(ready('echo "ERROR: failed to reproduce" >&2; exit 3'))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "ERROR: failed to reproduce\n"


def test_after_a_stage_that_failed_the_home_page_is_written_and_the_exit_code_stays(
    ready: Callable[[str], Path],
) -> None:
    note = ".cache/unfinished/measure.txt"
    folder = ready(f'ls {note}; mkdir -p .cache/unfinished; : > {note}; echo "dvc $*"; exit 3')
    for _ in range(2):  # notes of an earlier run are gone before the next one
        done = repro(folder)
        output = "dvc repro --keep-going\nclipad pages --unfinished\n"
        assert (done.returncode, done.stdout) == (3, output)


def planned(plan: str) -> str:
    """The line of a `python` that answers the question for the plan, and no other."""
    return f"case $2 in *networkx*) echo '{plan}';; esac"


SIDE_BY_SIDE = pytest.mark.skipif(
    (os.cpu_count() or 1) < 2, reason="one core: nothing is run beside"
)
PLAN = '{"explore": ["measure@a"], "notebook@a": ["measure@a"], "essay@b": []}'


@SIDE_BY_SIDE
def test_stages_of_one_core_run_two_at_a_time_between_what_they_need_and_what_is_left(
    ready: Callable[..., Path],
) -> None:
    """The first two wait for each other: one after the other they would never end."""
    both = "until [ -e at-explore ] && [ -e at-notebook@a ]; do sleep 0.05; done"
    work = f'echo "dvc $*"; case $3 in --single-item) : > at-$4; {both}; echo ended;; esac'
    done = repro(ready(work, python=planned(PLAN)))
    lines = done.stdout.splitlines()
    alone = [
        f"dvc --wait-for-lock repro --single-item {name}" for name in ("explore", "notebook@a")
    ]
    assert lines[0] == "dvc repro --keep-going measure@a" and set(lines[1:3]) == set(alone)
    assert lines[-2:] == ["dvc repro --keep-going", "Open the report: reports/index.html"]
    assert "dvc --wait-for-lock repro --single-item essay@b" in lines[3:-2]
    assert done.stderr == "repro: 2 at a time: explore, notebook@a, essay@b\n"


@SIDE_BY_SIDE
def test_of_stages_side_by_side_one_that_fails_stops_no_other_and_gives_the_exit_code(
    ready: Callable[..., Path],
) -> None:
    work = 'echo "dvc $*"; case $4 in explore) exit 3;; esac'
    done = repro(ready(work, python=planned(PLAN)))
    names = {line.rpartition(" ")[2] for line in done.stdout.splitlines()}
    assert (done.returncode, names) == (3, {"measure@a", "explore", "notebook@a", "essay@b"})


@SIDE_BY_SIDE
def test_what_waits_for_a_stage_that_failed_is_left_out(ready: Callable[..., Path]) -> None:
    work = 'echo "dvc $*"; case $3 in measure@a) exit 4;; esac'
    done = repro(ready(work, python=planned(PLAN)))
    lines = ["dvc repro --keep-going measure@a", "dvc --wait-for-lock repro --single-item essay@b"]
    assert (done.returncode, done.stdout.splitlines()) == (4, lines)


def test_where_nothing_is_out_of_date_nothing_is_run(ready: Callable[..., Path]) -> None:
    done = repro(ready("echo dvc", python=planned("{}")))
    report = "Open the report: reports/index.html"
    assert (done.returncode, done.stdout) == (0, f"Data and pipelines are up to date.\n{report}\n")


def test_settings_that_cannot_be_read_stop_before_dvc(ready: Callable[..., Path]) -> None:
    done = repro(ready("echo dvc", python="echo 'repro: params.yaml: no' >&2; exit 1"))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "repro: params.yaml: no\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "repro: params.yaml: not valid YAML at line"),
        ("[]", "repro: params.yaml"),
        ("profile: demo", "repro: params.yaml: found no 'profiles'"),
        ("profile: paper\nprofiles: {demo: {}}", "repro: profiles: found no 'paper', only demo"),
        (None, ""),
    ],
)
def test_what_dvc_needs_of_the_settings_is_checked_in_our_words(
    tmp_path: Path, text: str | None, message: str
) -> None:
    (tmp_path / "params.yaml").write_text(text or (ROOT / "tests" / "settings.yaml").read_text())
    check = run_path(str(ROOT / "repro"))["CHECK_SETTINGS"]
    environ = environment(PYTHONPATH=str(ROOT))
    command = [sys.executable, "-c", check]
    done = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == (1 if text else 0)
    assert done.stderr.startswith(message) and done.stderr.count("\n") == (1 if text else 0)


def test_ctrl_c_waits_for_dvc(ready: Callable[[str], Path]) -> None:
    # Short sleeps: a signal that comes between two commands waits for the end of the next one.
    work = "for i in $(seq 600); do sleep 0.1; done"
    folder = ready(f"trap 'echo put in order; exit 1' INT; echo started; {work}")
    assert interrupt(folder / "repro") == (130, "put in order\n", INTERRUPTED)


PIDS = '{"write": {"a": {"pid": %d, "cmd": "dvc repro"}}}'
GONE = 2**22 + 1  # above the largest number that Linux gives


@pytest.mark.parametrize(
    ("content", "is_kept"),
    [
        (b"", False),
        (b'{"write": {', False),
        (b"[]", False),
        (b"\xff", False),
        (b'{"writ": {}}', False),
        (b'{"read": {"a": [{"pid": "1", "cmd": ""}]}}', False),
        ((PIDS % GONE).encode(), False),
        (b'{"write": {}, "read": {}}', True),
        (b"{}", True),
    ],
)
def test_what_a_kill_leaves_in_the_list_of_dvc_is_removed(
    ready: Callable[[str], Path], content: bytes, is_kept: bool
) -> None:
    folder = ready("test -e .dvc/tmp/rwlock && echo kept; exit 0")
    state = folder / ".dvc" / "tmp"
    state.mkdir(parents=True)
    (state / "rwlock").write_bytes(content)
    for words in ([], ["dvc", "status"]):
        done = repro(folder, *words)
        assert done.returncode == 0 and done.stdout.startswith("kept") == is_kept, done.stderr
        (state / "rwlock").write_bytes(content)


def test_the_list_of_a_dvc_that_is_at_work_is_left_alone(ready: Callable[[str], Path]) -> None:
    folder = ready("test -e .dvc/tmp/rwlock && echo kept; exit 0")
    state = folder / ".dvc" / "tmp"
    state.mkdir(parents=True)
    (state / "rwlock").write_bytes(b"")
    with (state / "rwlock.lock").open("w") as guard:  # as DVC holds it while it writes
        fcntl.flock(guard, fcntl.LOCK_EX)
        assert repro(folder).stdout.startswith("kept")
    at_work = subprocess.Popen([sys.executable, "-c", "input()", "dvc"], stdin=subprocess.PIPE)
    (state / "rwlock").write_text(PIDS % at_work.pid)
    assert repro(folder).stdout.startswith("kept")
    at_work.communicate(b"\n")
    # Its number may be given to any program.
    other = subprocess.Popen([shutil.which("sleep") or "sleep", "60"])
    (state / "rwlock").write_text(PIDS % other.pid)
    assert not repro(folder).stdout.startswith("kept")
    other.kill()
    other.wait()


def test_an_empty_config_that_a_kill_left_is_written_again(ready: Callable[[str], Path]) -> None:
    folder = ready("exit 0")
    local = folder / ".dvc" / "config.local"
    local.write_text("")
    assert repro(folder).returncode == 0
    assert "no_scm = true" in local.read_text()


def test_a_dvc_lock_that_a_kill_cut_short_is_mended(unpacked: Path) -> None:
    lock, damaged = unpacked / "dvc.lock", unpacked / ".dvc" / "tmp" / "dvc.lock.damaged"
    whole = lock.read_bytes()
    script = run_path(str(unpacked / "repro"))
    instead = {"run": lambda *_, **__: 0, "run_stages": lambda _: 0}
    script["regenerate"].__globals__.update(instead)
    environ = environment() | {"PATH": f"{unpacked / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"}
    assert script["regenerate"](environ) == 0
    assert lock.read_bytes() == whole and not damaged.exists()
    for cut in (b"", b"schema: '2.0'\nstages:\n  draw", b"<<<<<<< ours\n" + whole):
        lock.write_bytes(cut)
        assert script["regenerate"](environ) == 0
        assert not lock.exists() and damaged.read_bytes() == cut  # a ZIP has no git to take it from
    lock.write_bytes(whole)
    assert script["regenerate"](environ) == 0
    assert lock.read_bytes() == whole


def test_a_second_run_waits_for_what_the_first_one_left(ready: Callable[[str], Path]) -> None:
    """The first is killed while DVC is at work; the second must not start before that ends."""
    first = "touch started; sleep 2; touch ended"
    folder = ready(f"if [ -e started ]; then ls ended; else {first}; fi")
    killed = subprocess.Popen([folder / "repro"], env=environment())
    while not (folder / "started").exists():
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    done = repro(folder)
    assert done.stdout.startswith("ended\n") and "another run is at work here" in done.stderr


def test_an_unknown_command_gets_a_message(unpacked: Path) -> None:
    done = repro(unpacked, "no-such-command")
    assert done.returncode == 127
    assert done.stderr.startswith("repro: found no command 'no-such-command'; expected")


def test_ctrl_c_ends_with_130_and_no_traceback(unpacked: Path) -> None:
    command = [unpacked / "repro", "sh", "-c", "echo started; exec sleep 60"]
    assert interrupt(*command) == (130, "", INTERRUPTED)


def test_git_in_an_unpacked_folder_is_told_to_dvc(unpacked: Path) -> None:
    subprocess.run(["git", "init", "--quiet", unpacked], check=True)
    assert repro(unpacked, "true").returncode == 0
    assert not (unpacked / ".dvc" / "config.local").exists()
    shutil.rmtree(unpacked / ".git")


def test_help_needs_no_set_up(tmp_path: Path) -> None:
    script = Path(shutil.copy(ROOT / "repro", tmp_path))
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert "./repro lab" in done.stdout
    assert list(tmp_path.iterdir()) == [script]


def test_an_old_python_gets_a_message(tmp_path: Path) -> None:
    lines = (ROOT / "repro").read_text().replace("(3, 11)", "(99, 0)", 1)
    script = tmp_path / "repro"
    script.write_text(lines)
    command = [sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("repro: found Python 3.")
    assert "expected 3.11 or newer" in done.stderr
    assert done.stderr.count("\n") == 1


def test_no_index_within_reach_gets_a_message(tmp_path: Path) -> None:
    folder = unpack(tmp_path / "clipad")
    empty = {"UV_CACHE_DIR": str(tmp_path / "uv"), "PIP_CACHE_DIR": str(tmp_path / "pip")}
    done = repro(folder, "test", **FROM_CACHE, **empty, PIP_FIND_LINKS=str(tmp_path))
    assert done.returncode == 1
    assert "repro: the packages could not be installed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_write_permission_gets_a_message(tmp_path: Path) -> None:
    python, user = sys.executable, None
    if os.geteuid() == 0:  # root may write everywhere, so somebody else tries
        python, user = "/usr/bin/python3", 65534
        if not os.access(python, os.X_OK):
            pytest.skip("no Python that another user can run")
    folder = unpack(tmp_path / "clipad")
    for parent in folder.parents:
        if Path(tempfile.gettempdir()) in parent.parents:
            parent.chmod(0o755)
    folder.chmod(0o555)
    (folder / "pyproject.toml").chmod(0o444)
    done = subprocess.run(
        [python, folder / "repro"], user=user, capture_output=True, text=True, check=False
    )
    folder.chmod(0o755)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr
    assert "expected a folder that can be written to" in done.stderr
    assert done.stderr.count("\n") == 1
