"""What the command line does with an error that nobody wrote a message for.

Needs nothing beside the standard library: whatever is broken, this works.
"""

from __future__ import annotations

import sys
import traceback
from tempfile import NamedTemporaryFile


def report_unexpected(error: Exception) -> int:
    """One line about an error that no message was written for, its traceback in a file; the exit code."""
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
