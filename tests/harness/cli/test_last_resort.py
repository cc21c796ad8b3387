"""The last resort of the command line: one line, and the traceback in a file."""

import re
import sys
from pathlib import Path

import pytest
from project import change, make_project

from clipad_harness.cli import entry, last_resort
from clipad_harness.cli.main import main
from clipad_harness.data import stages


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A project whose stage `index` raises what a test wants."""
    (tmp_path / "params.yaml").write_text("{}")
    monkeypatch.setenv("CLIPAD_ROOT", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def raising(error: BaseException) -> None:
        def fail(_root: Path) -> Path:
            raise error

        monkeypatch.setattr(stages, "write_index", fail)

    return raising


@pytest.mark.parametrize(
    "error", [TypeError("no\nsuch thing"), KeyError("x"), RecursionError(), MemoryError()]
)
def test_an_error_without_a_message_is_one_line_and_its_traceback_lies_in_a_file(
    failing, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(error)
    assert main(["index"]) == 1
    line = capsys.readouterr().err
    assert line.startswith("clipad: stopped by an error") and line.count("\n") == 1
    [path] = re.findall(r"traceback is in (\S+):", line)
    assert type(error).__name__ in line
    assert "write_index" in Path(path).read_text() and "Traceback" in Path(path).read_text()


def test_where_no_traceback_can_be_written_the_line_says_so(
    failing, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    failing(TypeError("x"))
    monkeypatch.setattr(last_resort, "NamedTemporaryFile", full)
    assert main(["index"]) == 1
    line = capsys.readouterr().err
    assert "could not be written (No space left on device)" in line and line.count("\n") == 1


def test_a_part_of_clipad_that_is_missing_is_one_line_too(
    failing, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(ModuleNotFoundError("No module named 'clipad_core.x'", name="clipad_core.x"))
    monkeypatch.setattr(sys, "argv", ["clipad", "index"])
    assert entry.main() == 1
    line = capsys.readouterr().err
    assert "No module named 'clipad_core.x'" in line and line.count("\n") == 1


def test_a_message_names_the_option_that_was_typed_and_else_the_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path)
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    assert main(["plan", "--profile=papr"]) == 1
    assert capsys.readouterr().err.startswith("clipad: --profile: found no 'papr', only demo")
    change(project, "profile", value="papr")
    assert main(["plan"]) == 1
    assert capsys.readouterr().err.startswith("clipad: profiles: found no 'papr', only demo")
