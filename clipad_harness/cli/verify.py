"""The commands that check results: `clipad verify [PART]` and `clipad compare A B`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from clipad_core.errors import ClipadError

if TYPE_CHECKING:
    from clipad_harness.verify.differences import Comparison


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add both commands to the command line."""
    verify = commands.add_parser(
        "verify", help="run the pipeline in a clean clone and compare what comes out"
    )
    verify.add_argument(
        "part", nargs="?", default="", metavar="PART", help="a stage or a method; none: everything"
    )
    verify.add_argument("--keep", type=Path, metavar="FOLDER", help="put the clone there, keep it")
    verify.add_argument(
        "--settings",
        action="store_true",
        help="run it once for every setting of the CPU libraries and compare one hash of each",
    )
    verify.set_defaults(run=_verify)
    compare = commands.add_parser("compare", help="compare two results: folders or commits")
    compare.add_argument("expected", metavar="A", help="what should come out: a folder or a commit")
    compare.add_argument("actual", metavar="B", help="what came out: a folder or a commit")
    compare.set_defaults(run=_compare)


def _verify(arguments: argparse.Namespace) -> None:
    from clipad_harness.base.settings import find_root
    from clipad_harness.verify.promise import promise, warning
    from clipad_harness.verify.verify import verify

    if arguments.settings and arguments.keep:
        raise ClipadError("verify: found --settings with --keep, expected one of them.")
    root, doubt = find_root(), warning()
    if doubt:
        print(f"verify: {doubt}", file=sys.stderr, flush=True)
    if arguments.settings:
        _conclude_settings(root, arguments.part, promise())
    else:
        _conclude(verify(root, arguments.part, arguments.keep), promise())


def _conclude_settings(root: Path, part: str, promised: str) -> None:
    """Print the table of settings; one that gives other outputs is an error."""
    from clipad_harness.verify.cpu_settings import settings_table, verify_settings

    outcomes = verify_settings(root, part)
    print(f"{settings_table(outcomes)}\n\n{promised}")
    wrong = [outcome.setting.name for outcome in outcomes if outcome.mismatches]
    if wrong:
        raise ClipadError(
            f"{len(wrong)} of {len(outcomes)} settings give other outputs than dvc.lock says: "
            f"{', '.join(wrong)}; see the table above."
        )


def _compare(arguments: argparse.Namespace) -> None:
    from clipad_harness.base.settings import find_root
    from clipad_harness.verify.verify import compare

    _conclude(compare(find_root(), arguments.expected, arguments.actual))


def _conclude(comparison: Comparison, below: str = "") -> None:
    """Print the table; a part that is neither identical nor within its tolerance is an error."""
    from clipad_harness.verify.differences import as_text

    print(as_text(comparison) + (f"\n\n{below}" if below else ""))
    parts, wrong = comparison.parts, comparison.wrong
    if wrong or not parts:
        counts: dict[str, int] = {}
        for part in wrong:
            counts[part.verdict] = counts.get(part.verdict, 0) + 1
        verdicts = ", ".join(f"{verdict}: {count}" for verdict, count in counts.items())
        counted = f"{len(wrong)} of {len(parts)} parts are not verified ({verdicts})"
        raise ClipadError(f"{counted if parts else 'nothing to compare'}; see the table above.")
