"""The commands that check results: `clipad verify [PART]` and `clipad compare A B`."""

from __future__ import annotations

import argparse
from pathlib import Path

from clipad_core.errors import ClipadError


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add both commands to the command line."""
    verify = commands.add_parser(
        "verify", help="run the pipeline in a clean clone and compare what comes out"
    )
    verify.add_argument(
        "part", nargs="?", default="", metavar="PART", help="a stage or a method; none: everything"
    )
    verify.add_argument("--keep", type=Path, metavar="FOLDER", help="put the clone there, keep it")
    verify.set_defaults(run=_verify)
    compare = commands.add_parser("compare", help="compare two results: folders or commits")
    compare.add_argument("one", metavar="A", help="what should come out: a folder or a commit")
    compare.add_argument("other", metavar="B", help="what came out: a folder or a commit")
    compare.set_defaults(run=_compare)


def _verify(arguments: argparse.Namespace) -> None:
    from clipad_harness.settings import find_root
    from clipad_harness.verify import verify

    _conclude(verify(find_root(), arguments.part, arguments.keep))


def _compare(arguments: argparse.Namespace) -> None:
    from clipad_harness.settings import find_root
    from clipad_harness.verify import compare

    _conclude(compare(find_root(), arguments.one, arguments.other))


def _conclude(parts: list) -> None:
    """Print the table; a part beyond its tolerance is an error."""
    from clipad_harness.differences import DIFFERS, MISSING, as_text

    print(as_text(parts))
    wrong = [part for part in parts if part.verdict in (DIFFERS, MISSING)]
    if wrong or not parts:
        counted = f"{len(wrong)} of {len(parts)} parts differ" if parts else "nothing to compare"
        raise ClipadError(f"{counted}; see the table above.")
