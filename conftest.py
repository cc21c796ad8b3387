"""Fixtures of all tests, what they share between processes, and where the notebooks run cell by cell."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import matplotlib
import pytest
import torch
from filelock import FileLock
from micro import MICRO, add_config
from project import dvc, make_repository

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_harness.base.settings import ROOT_VARIABLE

NOTEBOOKS = Path(__file__).resolve().parent / "notebooks"
MAKER = "test_dvc.py"
# A method to add, which has its place in a copy of the project alone.
collect_ignore = ["tests/toy"]
SHARED = "CLIPAD_TESTS"
if SHARED not in os.environ:  # the first process; those that it starts inherit the name
    os.environ[SHARED] = tempfile.mkdtemp(prefix="clipad-tests-")
    atexit.register(shutil.rmtree, os.environ[SHARED], ignore_errors=True)
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the other cores have their own process
    os.environ["OMP_NUM_THREADS"] = "1"  # the same for kernels and commands that tests start


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A random CLIP of 32 px on a 4 x 4 grid: small enough for every test."""
    add_config(tmp_path_factory.mktemp("config"), "clipad-micro", MICRO)
    return load_backbone("clipad-micro", "random:0")


@cache
def _reproduced() -> Path:
    """The small project after one `dvc repro`: made once, for the tests and for the notebooks.

    What fails is not tried again, by no process: each of 200 cells would take its minutes.
    """
    shared = Path(os.environ[SHARED])
    project, failure = shared / "clipad", shared / "failure.txt"
    with FileLock(shared / "lock"):
        if not project.exists() and not failure.exists():
            try:
                draft = make_repository(shared / "draft")
                dvc(draft, "repro")
                draft.rename(project)
            except Exception as error:
                failure.write_text(str(error))
                raise
    if failure.exists():
        pytest.fail(f"the small project was not made:\n{failure.read_text()}", pytrace=False)
    return project


@pytest.fixture(scope="session")
def reproduced() -> Path:
    """A copy of the repository's files with the small settings, after one `dvc repro`."""
    return _reproduced()


def _is_here(item: pytest.Item | None) -> bool:
    return item is not None and item.path.parent == NOTEBOOKS


def _turn(item: pytest.Item) -> int:
    """The file that makes the small project first, what needs none next, then who finds it made."""
    if item.path.name == MAKER:
        return 0
    return 2 if _is_here(item) or "reproduced" in getattr(item, "fixturenames", ()) else 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One file a process (`--dist loadfile`): while one makes the small project, none waits for it."""
    turns: dict[Path, int] = {}
    for item in items:
        turns[item.path] = max(turns.get(item.path, 0), _turn(item))
    items.sort(key=lambda item: turns[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """A page's style of figures ends with its test and its fixtures: it moves the titles of others."""
    with matplotlib.rc_context():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Before the first kernel starts: kernels inherit the environment."""
    if _is_here(item):
        os.environ[ROOT_VARIABLE] = str(_reproduced())
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """After the last notebook: other tests find the repository again."""
    try:
        return (yield)
    finally:
        if _is_here(item) and not _is_here(nextitem):
            os.environ.pop(ROOT_VARIABLE, None)
