"""`clipad plan`: what a run would compute, how long it would take here, and what is missing."""

from __future__ import annotations

import argparse
import sys

_EXAMPLES = """examples:
  clipad plan
  clipad plan --profile paper
  clipad plan --profile paper --dataset visa

Nothing is run and nothing is fetched. Exit code 0: everything is here; 1: something is missing."""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add `plan`."""
    plan = commands.add_parser(
        "plan",
        help="say what a run would compute, how long it would take, what is missing",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    plan.add_argument("--profile", default="", help="of params.yaml; default: the one that is set")
    plan.add_argument("--dataset", default="", help="a card's name; default: the profile's")
    plan.set_defaults(run=_plan)


def _plan(arguments: argparse.Namespace) -> None:
    from clipad_harness.base.settings import find_root
    from clipad_harness.experiments.plan import report_plan

    text, missing = report_plan(find_root(), arguments.profile, arguments.dataset)
    print(text)
    if missing:
        sys.exit(1)
