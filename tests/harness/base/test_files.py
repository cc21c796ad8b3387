"""Files are written where a file can be; what stands in the way is named, with what to do."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from clipad_core.errors import ClipadError
from clipad_harness.base import sealed
from clipad_harness.base.files import alone, check_place, write_text
from clipad_harness.cli.main import main


def make_folder(path: Path) -> None:
    path.mkdir(parents=True)


def make_pipe(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)


def make_file_above(path: Path) -> None:
    path.parent.write_text("a file")


def make_dangling_link_above(path: Path) -> None:
    path.parent.symlink_to("nowhere")


def make_circle_of_links_above(path: Path) -> None:
    path.parent.symlink_to(path.parent)


# What stands in the way, where, and what the message calls it.
OBSTACLES = [
    (make_folder, "folder/file", "a folder, expected a file"),
    (make_pipe, "folder/file", "a pipe or a device, expected a file"),
    (make_file_above, "folder", "something that is no folder, expected a folder"),
    (make_dangling_link_above, "folder", "a link that leads nowhere, expected a folder"),
    (make_circle_of_links_above, "folder", "a link that leads nowhere, expected a folder"),
]
every_obstacle = pytest.mark.parametrize("make, place, words", OBSTACLES)


def lock(path: Path) -> None:
    with alone(path):
        pass


@every_obstacle
@pytest.mark.parametrize(
    "use",
    [
        lambda path: write_text(path, "text"),
        lock,
        lambda path: sealed.read_json(path, "key"),
        lambda path: sealed.read_state(path, "key"),
        lambda path: sealed.read_tensors(path, "key"),
    ],
    ids=["write_text", "alone", "read_json", "read_state", "read_tensors"],
)
def test_what_stands_in_the_place_of_a_file_is_named_and_stays(
    tmp_path: Path, use: Callable, make: Callable, place: str, words: str
) -> None:
    path = tmp_path / "folder" / "file"
    make(path)
    before = os.lstat(tmp_path / place)
    with pytest.raises(ClipadError) as error:
        use(path)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / place}: found {words}")
    assert "remove it" in message and "writable" not in message
    assert os.lstat(tmp_path / place).st_ino == before.st_ino


@pytest.mark.parametrize("target", ["nowhere", "file"])
def test_a_link_to_no_file_is_replaced_by_the_file(tmp_path: Path, target: str) -> None:
    path = tmp_path / "file"
    path.symlink_to(target)
    write_text(path, "text")
    assert not path.is_symlink() and path.read_text() == "text"


@pytest.mark.parametrize(
    "make, words",
    [
        (Path.mkdir, "found a folder, expected a file"),
        (Path.touch, "found something that is no folder, expected a folder"),
    ],
)
def test_what_the_system_says_of_a_wrong_place_is_said_alike(
    tmp_path: Path, capsys, monkeypatch, make: Callable, words: str
) -> None:
    place = tmp_path / "place"
    make(place)

    def stage(*_: object) -> None:
        place.read_text() if place.is_dir() else place.mkdir()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("clipad_harness.cli.main._run_stage", stage)
    assert main(["index"]) == 1
    assert capsys.readouterr().err.startswith(f"clipad: {place}: {words}")


def test_a_file_that_comes_and_goes_meanwhile_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process makes a folder or removes its lock between two looks at the same place."""
    lock, folder = tmp_path / "entry.lock", tmp_path / "ab"
    look = os.stat

    def change(path: object, **options: bool) -> os.stat_result:
        try:
            return look(path, **options)
        finally:
            if str(path) == str(lock):
                lock.unlink(missing_ok=True)
            if str(path) == str(folder):
                with suppress(FileExistsError):
                    os.mkdir(folder)

    lock.touch()
    monkeypatch.setattr(os, "stat", change)
    check_place(lock)
    check_place(folder / "entry")
