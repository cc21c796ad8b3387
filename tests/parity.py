"""How many recorded values of each official code clipad equals, and how closely: a Markdown table.

    python tests/parity.py [TEST ...] [--goldens FOLDER]

Runs the tests that are marked `official(method, code)` and counts what they compare, in float32 and in
float64: an array that is recorded once counts once. Of all errors the table shows the one that takes
most of its tolerance.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from operator import attrgetter, itemgetter
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
COLUMNS = ("method", "official code", "arrays", "numbers", "largest error / its tolerance")


class Ledger:
    """A plugin that keeps what marked tests have compared, by method and official code."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], list] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Empty the list before a test, and take what is in it afterwards."""
        from recordings import COMPARISONS

        COMPARISONS.clear()
        try:
            yield
        finally:
            marker = item.get_closest_marker("official")
            self.rows.setdefault(marker.args, []).extend(COMPARISONS)

    def markdown(self) -> str:
        """The table, a row a method and code."""
        lines = [f"| {' | '.join(COLUMNS)} |", "|---|---|---|---|---|"]
        for (method, code), comparisons in filter(itemgetter(1), self.rows.items()):
            arrays = {each.digest: each.numbers for each in comparisons}
            nearest = max(comparisons, key=attrgetter("share"))
            numbers = f"{len(arrays):,} | {sum(arrays.values()):,}"
            error = f"{nearest.error:.1e} / {nearest.tolerance:.0e}"
            lines.append(f"| {method} | {code} | {numbers} | {error} |")
        return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests", nargs="*", default=[str(TESTS / "core")], help="files or folders")
    parser.add_argument("--goldens", type=Path, help="other recordings, laid out as tests/goldens")
    options = parser.parse_args()
    if options.goldens:
        if not options.goldens.is_dir():
            parser.error(
                f"--goldens: found no folder {options.goldens}; it is laid out as tests/goldens"
            )
        os.environ["CLIPAD_GOLDENS"] = str(options.goldens.resolve())
    ledger, arguments = Ledger(), ["-q", "-m", "official", f"--rootdir={TESTS.parent}"]
    with redirect_stdout(sys.stderr):  # the table alone goes where it may be caught
        code = pytest.main([*arguments, *options.tests], plugins=[ledger])
    print(ledger.markdown())
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
