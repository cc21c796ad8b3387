"""Fixtures of all tests, and the small project in which the notebooks run cell by cell."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from micro import MICRO, add_config
from project import dvc, make_repository

from clipad_core.backbone import Backbone, load_backbone
from clipad_harness.settings import ROOT_VARIABLE

NOTEBOOKS = Path(__file__).resolve().parent / "notebooks"


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A random CLIP of 32 px on a 4 x 4 grid: small enough for every test."""
    add_config(tmp_path_factory.mktemp("config"), "clipad-micro", MICRO)
    return load_backbone("clipad-micro", "random:0")


@cache
def _reproduced() -> Path:
    """The small project after one `dvc repro`: made once, for the tests and for the notebooks."""
    folder = Path(tempfile.mkdtemp(prefix="clipad-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    project = make_repository(folder)
    dvc(project, "repro")
    return project


@pytest.fixture(scope="session")
def reproduced() -> Path:
    """A copy of the repository's files with the small settings, after one `dvc repro`."""
    return _reproduced()


def _is_here(item: pytest.Item | None) -> bool:
    return item is not None and item.path.parent == NOTEBOOKS


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
