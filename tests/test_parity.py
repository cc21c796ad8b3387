"""The README's table of parity is what `parity.py` counts."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from parity import COLUMNS
from recordings import COMPARISONS, close, equal

ROOT = Path(__file__).resolve().parents[1]
# Those that take seconds; the whole table is what `python tests/parity.py` prints.
COUNTED = ("coop", "winclip")


def table_rows(text: str) -> dict[tuple[str, str], tuple[str, str]]:
    """Counts by method and code; the error depends on the machine."""
    table = text.partition(f"| {' | '.join(COLUMNS)} |\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[1:]]
    return {(method, code): (arrays, numbers) for method, code, arrays, numbers, _ in rows}


def test_the_readme_counts_what_the_tests_compare() -> None:
    folders = [str(ROOT / "tests/core/methods" / name) for name in COUNTED]
    command = [sys.executable, str(ROOT / "tests/parity.py"), *folders]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    counted, readme = table_rows(run.stdout), table_rows((ROOT / "README.md").read_text())
    assert len(counted) == 4
    assert {row: readme.get(row) for row in counted} == counted


def test_the_readme_has_a_row_for_every_official_code() -> None:
    marks = re.compile(r'mark\.official\(\s*"([^"]+)",\s*"([^"]+)"')
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]
    marked = {mark for text in texts for mark in marks.findall(text)}
    assert marked == set(table_rows((ROOT / "README.md").read_text()))


def test_a_comparison_is_counted_with_its_error_whether_it_holds_or_not() -> None:
    before = len(COMPARISONS)
    close([1.0, 4.0], [1.0, 2.0], 1.0)
    with pytest.raises(AssertionError):
        close([3.0], [2.0], 0.4, per="|x|")
    with pytest.raises(AssertionError):
        equal([1, 2], [1, 3])
    with pytest.raises(AssertionError):
        close([float("nan")], [1.0], 9.0)
    kept = [(each.numbers, each.error, each.tolerance) for each in COMPARISONS[before:]]
    assert kept[:3] == [(2, 1.0, 1.0), (1, 0.5, 0.4), (2, 1.0, 0)]
    shares = [each.share for each in COMPARISONS[before:]]
    assert shares == [1.0, math.inf, math.inf, math.inf]


def test_errors_are_relative_to_the_scale_that_is_named() -> None:
    before = len(COMPARISONS)
    for per in ("max(1, |x|)", "|x|", "largest |x|", "1"):
        close([0.75, 5.0], [0.5, 4.0], 9.0, per)
    assert [each.error for each in COMPARISONS[before:]] == [0.25, 0.5, 0.25, 1.0]
