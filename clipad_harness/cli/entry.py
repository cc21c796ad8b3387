"""The `clipad` command: says what is missing where the core alone was installed, and its last resort."""

from __future__ import annotations

import sys
import traceback
from tempfile import NamedTemporaryFile


def main() -> int:
    """Run the command line; return the exit code."""
    try:
        from clipad_harness.cli.main import main as run

        return run()  # commands import what they need only when they run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("clipad"):
            return report_unexpected(error)
        print(
            f"clipad: found no {error.name}, which the commands need beside the core; install them with "
            '`pip install ".[harness]"`.',
            file=sys.stderr,
        )
        return 1


def report_unexpected(error: Exception) -> int:
    """One line about an error that no message was written for, its traceback in a file; the exit code.

    Needs nothing beside the standard library: whatever is broken, this works.
    """
    first = (str(error).strip().splitlines() or [""])[0][:200]
    print(
        f"clipad: stopped by an error that it has no message for ({type(error).__name__}: {first}); "
        f"{_write_traceback(error)} What was finished is kept.",
        file=sys.stderr,
    )
    return 1


def _write_traceback(error: Exception) -> str:
    """Where it lies, in words."""
    text = "".join(traceback.format_exception(error))
    try:
        with NamedTemporaryFile(
            "w", encoding="utf-8", prefix="clipad-", suffix=".txt", delete=False
        ) as file:
            file.write(text.encode(errors="backslashreplace").decode())
    except OSError as full:
        return f"the traceback could not be written ({full.strerror})."
    return f"the traceback is in {file.name}: please report it, with what was run."
