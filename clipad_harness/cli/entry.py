"""The `clipad` command: says what is missing where the core alone was installed."""

from __future__ import annotations

import sys

from clipad_harness.cli.last_resort import report_unexpected


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
