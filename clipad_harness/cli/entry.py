"""The `clipad` command of an installation: says what is missing where the core alone was installed."""

import sys


def main() -> int:
    """Run the command line; return the exit code."""
    try:
        from clipad_harness.cli.main import main as run

        return run()  # commands import what they need only when they run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("clipad"):
            raise
        print(
            f"clipad: found no {error.name}, which the commands need beside the core; install them with "
            '`pip install ".[harness]"`.',
            file=sys.stderr,
        )
        return 1
