"""Fixtures of all tests, and the small project in which the notebooks run cell by cell."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from micro import MICRO, add_config
from project import dvc, make_project, make_repository, run_learned_stages, run_stages

from clipad_core.backbone import Backbone, load_backbone
from clipad_harness.settings import ROOT_VARIABLE

NOTEBOOKS = Path(__file__).resolve().parent / "notebooks"


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A random CLIP of 32 px on a 4 x 4 grid: small enough for every test."""
    add_config(tmp_path_factory.mktemp("config"), "clipad-micro", MICRO)
    return load_backbone("clipad-micro", "random:0")


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository's files with the small settings, after one `dvc repro`."""
    folder = make_repository(tmp_path_factory.mktemp("dvc"))
    dvc(folder, "repro")
    return folder


_folders: list[tempfile.TemporaryDirectory[str]] = []


def _is_here(item: pytest.Item | None) -> bool:
    return item is not None and item.path.parent == NOTEBOOKS


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Before the first kernel starts: kernels inherit the environment."""
    if _is_here(item) and not _folders:
        _folders.append(tempfile.TemporaryDirectory(prefix="clipad-"))
        project = make_project(Path(_folders[0].name))
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars
            run_stages(project)
            run_learned_stages(project)
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
