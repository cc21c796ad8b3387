"""Do the results come out again? A clean clone is run and compared, or two results are compared.

A verification starts from the committed files alone: no cache, no earlier result, the same Python
environment. What comes out is held against what lies in this folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from clipad_core.errors import ClipadError
from clipad_harness.differences import Part
from clipad_harness.files import read_yaml
from clipad_harness.result_files import Side, compare_sides, open_side

# Of a folder without git: what is no part of the project's files.
_OWN = (".venv", ".cache", ".dvc/tmp", ".dvc/cache", "data/synthetic", "reports/run.js")


def verify(root: Path, part: str = "", keep: Path | None = None) -> list[Part]:
    """Run the pipeline in a clean clone and compare what comes out with this folder's results.

    Args:
        root: the project.
        part: a stage of dvc.yaml, or a method (all stages that name it); "" is everything. What a
            stage needs is made again with it.
        keep: where to put the clone, so that it stays; None uses a temporary folder.

    Raises:
        ClipadError: an unknown part, a folder that is there already, or a stage that fails.
    """
    targets = find_targets(root, part)
    with _folder(keep) as folder:
        _copy_committed(root, folder)
        for place in _outputs(folder):
            shutil.rmtree(folder / place, ignore_errors=True)
            (folder / place).unlink(missing_ok=True)
        _reproduce(folder, targets)
        made = tuple(place for place in _outputs(folder) if (folder / place).exists())
        return compare_sides(open_side(root), open_side(folder), made)


def compare(root: Path, one: str, other: str) -> list[Part]:
    """Compare two results, each a folder or a commit of this repository.

    Raises:
        ClipadError: neither a folder with results nor a commit.
    """
    with _opened(root, one) as expected, _opened(root, other) as found:
        return compare_sides(expected, found)


def find_targets(root: Path, part: str) -> list[str]:
    """The stages of a part, in the order of dvc.yaml; [] for everything.

    Raises:
        ClipadError: a word that is no stage and in no stage's command.
    """
    if not part:
        return []
    stages = _stages(root)
    words = {
        name if item is None else f"{name}@{item}": [
            word.replace("${item}", str(item))
            for word in str(stage.get("do", stage).get("cmd", "")).split()
        ]
        for name, stage in stages.items()
        for item in stage.get("foreach", [None])
    }
    named = [name for name in stages if name == part.partition("@")[0]]
    if named:
        return [part]
    found = [name for name, command in words.items() if part in command[3:]]
    if not found:
        methods = {word for command in words.values() for word in command[4:]}
        known = ", ".join([*stages, *sorted(methods)])
        raise ClipadError(f"verify: found the part {part!r}, expected one of {known}.")
    return found


def _stages(root: Path) -> dict[str, Any]:
    try:
        found = read_yaml(root / "dvc.yaml")
    except OSError as error:
        raise ClipadError(
            f"{root / 'dvc.yaml'}: cannot be read ({error.strerror}), expected the project's "
            "pipeline; run this in the project's folder."
        ) from error
    return dict(found["stages"])


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        if keep.exists():
            raise ClipadError(f"{keep}: is there already, expected a new folder; name another one.")
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="clipad-verify-") as folder:
        yield Path(folder) / "clipad"


def _copy_committed(root: Path, folder: Path) -> None:
    """Clone the committed state; of a folder without git, copy its files but for results."""
    if (root / ".git").exists():
        head = _git(root, "rev-parse", "HEAD").decode().strip()
        _git(root, "clone", "--quiet", str(root), str(folder))
        _git(folder, "checkout", "--quiet", "--detach", head)
        return

    def own(place: str, names: list[str]) -> list[str]:
        inside = [(name, (Path(place) / name).relative_to(root).as_posix()) for name in names]
        return [name for name, path in inside if path in _OWN or name == "__pycache__"]

    shutil.copytree(root, folder, ignore=own)


def _git(root: Path, *words: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, check=True)
    except OSError as error:
        raise ClipadError("git: is not installed, expected it for clones and commits.") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines() or [
            f"exit {error.returncode}"
        ]
        raise ClipadError(f"git {words[0]}: {said[-1]}") from error
    return done.stdout


def _outputs(folder: Path) -> list[str]:
    """What the stages that are not frozen write, by dvc.lock."""
    path = folder / "dvc.lock"
    if not path.is_file():
        return []
    frozen = {name for name, stage in _stages(folder).items() if stage.get("frozen")}
    locked = read_yaml(path).get("stages", {})
    return [
        str(entry["path"])
        for name, stage in locked.items()
        if name.partition("@")[0] not in frozen
        for entry in stage.get("outs", [])
    ]


def _reproduce(folder: Path, targets: list[str]) -> None:
    """`dvc repro` in the clone, with this interpreter and the clone's own code."""
    own = ("CLIPAD_ROOT", "DVC_ROOT", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    path = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    environment |= {"PATH": path, "PYTHONPATH": str(folder)}
    # The stages' own words and bars go to standard error; the table alone is the result.
    command = [sys.executable, "-m", "dvc", "repro", "--force", *targets]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=2, check=False)
    if done.returncode:
        raise ClipadError(
            f"verify: a stage stopped in the clean clone (exit {done.returncode}, see above); what "
            "is committed does not run by itself. Run `./repro` and `git status` here to see why."
        )


@contextmanager
def _opened(root: Path, name: str) -> Iterator[Side]:
    """A folder as it is, or the tracked files of a commit in a temporary one."""
    if Path(name).is_dir():
        yield open_side(Path(name))
        return
    if not (root / ".git").exists():
        raise ClipadError(
            f"compare: found {name!r}, expected a folder with results; there is no git repository "
            "here that could hold it as a commit."
        )
    try:
        archive = _git(root, "archive", "--format=tar", f"{name}^{{commit}}")
    except ClipadError as error:
        raise ClipadError(
            f"compare: found {name!r}, expected a folder with results or a commit ({error})."
        ) from error
    with tempfile.TemporaryDirectory(prefix="clipad-compare-") as folder:
        with tarfile.open(fileobj=BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        yield open_side(Path(folder))
