"""Do the results come out again? A clean clone is run and compared, or two results are compared.

A verification starts from the committed files alone: no cache, no earlier result, the same Python
environment. What comes out is held against what lies in this folder.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from clipad_core.errors import ClipadError
from clipad_harness.base.sections import PARAMS, get
from clipad_harness.base.settings import read_params
from clipad_harness.verify.clean_clone import (
    clean_clone,
    git,
    present_outputs,
    read_stages,
    reproduce,
)
from clipad_harness.verify.differences import Comparison
from clipad_harness.verify.result_files import Side, compare_sides, open_side


def verify(root: Path, part: str = "", keep: Path | None = None) -> Comparison:
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
    with clean_clone(root, keep) as folder:
        reproduce(folder, targets)
        return compare_sides(open_side(root), open_side(folder), tuple(present_outputs(folder)))


def compare(root: Path, expected: str, actual: str) -> Comparison:
    """Compare two results, each a folder or a commit of this repository.

    Raises:
        ClipadError: neither a folder with results nor a commit.
    """
    with _opened(root, expected) as expected_side, _opened(root, actual) as actual_side:
        return compare_sides(expected_side, actual_side)


def find_targets(root: Path, part: str) -> list[str]:
    """The stages of a part, in the order of dvc.yaml; [] for everything.

    Raises:
        ClipadError: a word that is no stage and in no stage's command.
    """
    if not part:
        return []
    stages = read_stages(root)
    if part.partition("@")[0] in stages:
        return [part]
    words = {
        name if item is None else f"{name}@{item}": [
            word.replace("${item}", str(item))
            for word in str(stage.get("do", stage).get("cmd", "")).split()
        ]
        for name, stage in stages.items()
        for item in _items(root, stage)
    }
    targets = [name for name, command in words.items() if part in command[3:]]
    if not targets:
        methods = {word for command in words.values() for word in command[4:]}
        choices = ", ".join([*stages, *sorted(methods)])
        raise ClipadError(f"verify: found the part {part!r}, expected one of {choices}.")
    return targets


def _items(root: Path, stage: Mapping[str, Any]) -> Sequence[str | None]:
    """What a stage is repeated for, written out or named as a list of params.yaml; None for once."""
    items = stage.get("foreach", [None])
    if isinstance(items, str):
        name = items.removeprefix("${").removesuffix("}")
        return [str(item) for item in get(read_params(root), name, PARAMS)]
    return list(items)


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
        archive = git(root, "archive", "--format=tar", f"{name}^{{commit}}")
    except ClipadError as error:
        raise ClipadError(
            f"compare: found {name!r}, expected a folder with results or a commit ({error})."
        ) from error
    with tempfile.TemporaryDirectory(prefix="clipad-compare-") as folder:
        with tarfile.open(fileobj=BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        yield open_side(Path(folder))
