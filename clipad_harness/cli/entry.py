"""The `clipad` command of an installation: says what is missing where the core alone was installed."""

import sys


def main() -> int:
    """Run the command line; return the exit code."""
    try:
        from clipad_harness.cli.main import main as run
    except ModuleNotFoundError as error:
        print(
            f"clipad: found no {error.name}, which the commands need beside the core; install them with "
            '`pip install ".[harness]"`.',
            file=sys.stderr,
        )
        return 1
    return run()
