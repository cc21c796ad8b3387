"""A copy of what is committed, in which the pipeline runs from nothing: no cache, no earlier result."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clipad_core.errors import ClipadError
from clipad_harness.base.files import read_yaml

# Of a folder without git: what is no part of the project's files.
_OWN = (
    *(".venv", ".cache", ".dvc/tmp", ".dvc/cache"),
    *("data/synthetic", "data/trained", "reports/run.js"),
)


@contextmanager
def clean_clone(root: Path, keep: Path | None = None) -> Iterator[Path]:
    """The committed files of a project in a new folder, without anything that its stages write.

    Args:
        root: the project.
        keep: where to put the clone, so that it stays; None uses a temporary folder.

    Raises:
        ClipadError: a folder that is there already.
    """
    if keep is not None:
        if keep.exists():
            raise ClipadError(f"{keep}: is there already, expected a new folder; name another one.")
        _clear(_copied(root, keep))
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="clipad-verify-") as folder:
        clone = _copied(root, Path(folder) / "clipad")
        _clear(clone)
        yield clone


def _copied(root: Path, folder: Path) -> Path:
    """Clone the committed state; of a folder without git, copy its files but for results."""
    if (root / ".git").exists():
        head = git(root, "rev-parse", "HEAD").decode().strip()
        git(root, "clone", "--quiet", str(root), str(folder))
        git(folder, "checkout", "--quiet", "--detach", head)
        return folder

    def own(place: str, names: list[str]) -> list[str]:
        inside = [(name, (Path(place) / name).relative_to(root).as_posix()) for name in names]
        return [name for name, path in inside if path in _OWN or name == "__pycache__"]

    return Path(shutil.copytree(root, folder, ignore=own))


def _clear(folder: Path) -> None:
    for place in outputs(folder):
        shutil.rmtree(folder / place, ignore_errors=True)
        (folder / place).unlink(missing_ok=True)


def git(root: Path, *words: str) -> bytes:
    """What a git command says.

    Raises:
        ClipadError: git is not installed, or the command failed.
    """
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, check=True)
    except OSError as error:
        raise ClipadError("git: is not installed, expected it for clones and commits.") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or [
            f"exit {error.returncode}"
        ]
        raise ClipadError(f"git {words[0]}: {lines[-1]}") from error
    return done.stdout


def read_stages(root: Path) -> dict[str, Any]:
    """The stages of dvc.yaml, by name."""
    try:
        pipeline = read_yaml(root / "dvc.yaml")
    except OSError as error:
        raise ClipadError(
            f"{root / 'dvc.yaml'}: cannot be read ({error.strerror}), expected the project's "
            "pipeline; run this in the project's folder."
        ) from error
    return dict(pipeline["stages"])


def locked(folder: Path, frozen: bool = True) -> dict[str, str]:
    """What the stages wrote, by dvc.lock: hash by place; ``frozen``: also those that are not run."""
    path = folder / "dvc.lock"
    if not path.is_file():
        return {}
    stages = {} if frozen else read_stages(folder)
    frozen_stages = {name for name, stage in stages.items() if stage.get("frozen")}
    return {
        str(entry["path"]): str(entry.get("md5", ""))
        for name, stage in read_yaml(path).get("stages", {}).items()
        if name.partition("@")[0] not in frozen_stages
        for entry in stage.get("outs", [])
    }


def outputs(folder: Path) -> dict[str, str]:
    """What the stages that are not frozen write, by dvc.lock: hash by place."""
    return locked(folder, frozen=False)


def present_outputs(folder: Path) -> dict[str, str]:
    """Those of `outputs` that are there."""
    return {place: digest for place, digest in outputs(folder).items() if (folder / place).exists()}


def reproduce(
    folder: Path, targets: Sequence[str], environment: Mapping[str, str] | None = None
) -> None:
    """`dvc repro` in a clone, with this interpreter and the clone's own code.

    Args:
        folder: the clone.
        targets: stages; none: all.
        environment: variables beside those of this process; stages, their workers and the kernels of
            notebooks inherit them.

    Raises:
        ClipadError: a stage that fails.
    """
    own = ("CLIPAD_ROOT", "DVC_ROOT", "PYTHONPATH")
    inherited = {name: value for name, value in os.environ.items() if name not in own}
    path = os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)])
    inherited |= {**(environment or {}), "PATH": path, "PYTHONPATH": str(folder)}
    # The stages' own words and bars go to standard error; the table alone is the result.
    command = [sys.executable, "-m", "dvc", "repro", "--force", *targets]
    done = subprocess.run(command, cwd=folder, env=inherited, stdout=2, check=False)
    if done.returncode:
        raise ClipadError(
            f"verify: a stage stopped in the clean clone (exit {done.returncode}, see above); what "
            "is committed does not run by itself. Run `./repro` and `git status` here to see why."
        )
