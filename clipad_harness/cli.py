"""The command line: `clipad ...` or `python -m clipad_harness ...`.

Whatever a user can get wrong ends in one message on standard error and exit code 1; Ctrl-C ends with
130 and keeps what was finished.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from clipad_core.errors import ClipadError


def parser() -> argparse.ArgumentParser:
    """The commands; each is one stage of dvc.yaml."""
    top = argparse.ArgumentParser(prog="clipad", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    draw = commands.add_parser("draw", help="draw one procedural dataset")
    draw.add_argument("name", help="synthetic_target or synthetic_auxiliary")
    commands.add_parser("index", help="index the chosen dataset and draw its contact sheet")
    score = commands.add_parser("score", help="score all variants of a method; resumes")
    score.add_argument("method", choices=["winclip"])
    notebook = commands.add_parser("notebook", help="run one notebook and write its page")
    notebook.add_argument("name", help="winclip")
    commands.add_parser("pages", help="write reports/index.html")
    return top


def run(arguments: argparse.Namespace) -> Path:
    """Do what was asked; the slow libraries are imported only now, so that --help is quick."""
    from clipad_harness import pipeline
    from clipad_harness.settings import find_root

    root = find_root()
    if arguments.command == "draw":
        return pipeline.draw(root, arguments.name)
    if arguments.command == "index":
        return pipeline.write_index(root)
    if arguments.command == "score":
        return pipeline.score_winclip(root)
    if arguments.command == "notebook":
        return pipeline.notebook(root, arguments.name)
    return pipeline.pages(root)


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = parser().parse_args(words)
    try:
        path = run(arguments)
    except ClipadError as error:
        print(f"clipad: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("clipad: stopped; what was finished is kept, run again to go on.", file=sys.stderr)
        return 130
    print(os.path.relpath(path))
    return 0
