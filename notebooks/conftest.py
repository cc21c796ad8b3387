"""The notebooks run cell by cell in a small project of their own, drawn and scored once."""

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from project import make_project, run_stages  # noqa: E402

from clipad_harness.settings import ROOT_VARIABLE  # noqa: E402

_folders: list[tempfile.TemporaryDirectory[str]] = []


def _is_here(item: pytest.Item | None) -> bool:
    return item is not None and item.path.parent == HERE


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Before the first kernel starts: kernels inherit the environment."""
    if _is_here(item) and not _folders:
        _folders.append(tempfile.TemporaryDirectory(prefix="clipad-"))
        project = make_project(Path(_folders[0].name))
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars
            run_stages(project)
        os.environ[ROOT_VARIABLE] = str(project)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """After the last notebook: other tests find the repository again."""
    try:
        return (yield)
    finally:
        if _folders and not _is_here(nextitem):
            os.environ.pop(ROOT_VARIABLE, None)
            _folders.pop().cleanup()
