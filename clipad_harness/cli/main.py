"""The command line: `clipad ...` or `python -m clipad_harness ...`.

Whatever a user can get wrong ends in one message on standard error and exit code 1, photos that `score`
finds bad with 3; Ctrl-C ends with 130 and keeps what was finished.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from clipad_core.errors import ClipadError
from clipad_harness.cli import data, export, plan, score, verify, weights
from clipad_harness.cli.last_resort import report_unexpected


def parser() -> argparse.ArgumentParser:
    """The commands; each sets `run`, which takes the arguments and returns what it wrote, or None."""
    top = argparse.ArgumentParser(prog="clipad", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_stages(commands)
    plan.add_commands(commands)
    data.add_commands(commands)
    weights.add_commands(commands)
    score.add_commands(commands)
    verify.add_commands(commands)
    export.add_commands(commands)
    return top


def _add_stages(commands: argparse._SubParsersAction) -> None:
    """One command a stage of dvc.yaml."""
    draw = commands.add_parser("draw", help="draw one procedural dataset")
    draw.add_argument("name", help="synthetic_target or synthetic_auxiliary")
    index = commands.add_parser("index", help="index the chosen dataset, draw its contact sheet")
    train = commands.add_parser("train", help="train all variants of a method that learns; resumes")
    train.add_argument("name", metavar="METHOD", help="one of `methods` in params.yaml")
    measure = commands.add_parser("measure", help="measure all variants of a method; resumes")
    measure.add_argument("name", metavar="METHOD", help="one of `methods` in params.yaml")
    notebook = commands.add_parser("notebook", help="run one notebook and write its page")
    notebook.add_argument("name", metavar="NAME", help="as in notebooks/NAME.ipynb")
    explore = commands.add_parser(
        "explore", help="write reports/explorer.html and docs/methods.png, the README's picture"
    )
    tables = commands.add_parser(
        "tables", help="write reports/tables.html, the papers' tables beside this run"
    )
    conflicts = commands.add_parser(
        "conflicts", help="write reports/conflicts.html, rows with more than one value in print"
    )
    pages = commands.add_parser("pages", help="write reports/index.html")
    pages.add_argument(
        "--unfinished",
        action="store_true",
        help="after a run that failed: say on the page which stages did not end well, and why",
    )
    for stage in (draw, index, train, measure, notebook, explore, tables, conflicts, pages):
        stage.set_defaults(run=_run_stage)


def _run_stage(arguments: argparse.Namespace) -> Path:
    """Run a stage and record how it went, beside its results and outside of them."""
    from clipad_harness.base.run_record import recorded
    from clipad_harness.base.settings import find_root

    root = find_root()
    words = [arguments.command, *([arguments.name] if "name" in arguments else [])]
    return recorded(root, " ".join(words), lambda: _stage(root, arguments))


def _stage(root: Path, arguments: argparse.Namespace) -> Path:
    """The work of a stage; the slow libraries are imported only now, so that --help is quick."""
    if arguments.command == "draw":
        from clipad_harness.standin.datasets import draw

        return draw(root, arguments.name)
    if arguments.command == "index":
        from clipad_harness.data.stages import write_index

        return write_index(root)
    if arguments.command == "train":
        from clipad_harness.experiments.pipeline import train

        return train(root, arguments.name)
    if arguments.command == "measure":
        from clipad_harness.experiments.pipeline import measure

        return measure(root, arguments.name)
    if arguments.command == "notebook":
        from clipad_harness.site.stages import notebook

        return notebook(root, arguments.name)
    if arguments.command == "explore":
        from clipad_harness.site.explorer import explore

        return explore(root)
    if arguments.command == "tables":
        from clipad_harness.site.printed_pages import tables

        return tables(root)
    if arguments.command == "conflicts":
        from clipad_harness.site.printed_pages import conflicts_page

        return conflicts_page(root)
    from clipad_harness.base.run_record import unfinished
    from clipad_harness.site.stages import pages

    failed = unfinished(root) if arguments.unfinished else {}
    failed.pop(arguments.command, None)  # this one is at work
    return pages(root, failed)


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    words = sys.argv[1:] if words is None else words
    arguments = parser().parse_args(words)
    try:
        written = arguments.run(arguments)
        if written is not None:
            print(os.path.relpath(written))
    except ClipadError as error:
        print(f"clipad: {as_typed(str(error), words)}", file=sys.stderr)
        return 3 if isinstance(error, score.BadPhotos) else 1
    except BrokenPipeError:  # the reader of a list has seen enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"clipad: {_about(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("clipad: stopped; what was finished is kept, run again to go on.", file=sys.stderr)
        return 130
    except ModuleNotFoundError:
        raise  # `clipad_harness.cli.entry` says what to install
    except RuntimeError as error:
        from clipad_harness.experiments.batches import out_of_memory

        reason = out_of_memory(error)
        if not reason:
            return report_unexpected(error)
        print(f"clipad: {_about_memory(reason)}", file=sys.stderr)
        return 1
    except Exception as error:
        return report_unexpected(error)
    return 0


def _about_memory(reason: str) -> str:
    """What to do where the memory of a device ran out, as torch says it."""
    return (
        f"device: its memory ran out ({reason}), expected more; what was finished is kept. Run again with "
        "fewer `workers`, a smaller batch_size or bfloat16, or with `device: cpu`."
    )


def _about(error: OSError) -> str:
    """What to do about a file or folder that the system refuses."""
    from clipad_harness.base.files import check_place

    if isinstance(error.filename, (str, Path)):
        place = Path(error.filename)
        try:
            # What exists where a folder was to be made is in the way of all files in it.
            check_place(place / "file" if isinstance(error, FileExistsError) else place)
        except ClipadError as obstacle:
            return str(obstacle)
    where = f"{error.filename}: " if error.filename else ""
    return (
        f"{where}cannot be read or written ({error.strerror or error}). Make the place writable or free "
        "some space, then run again; what was finished is kept."
    )


def as_typed(message: str, words: Sequence[str]) -> str:
    """A message about a parameter, which names the option that the user typed it with.

    >>> as_typed("weights: found 'x'; set `weights` to a file.", ["score", "--weights", "x"])
    "--weights: found 'x'; set `--weights` to a file."
    >>> as_typed("class_name: found 'x'", ["score", "--class-name=x"])
    "--class-name: found 'x'"
    >>> as_typed("profiles: found no 'x'", ["plan", "--profile", "x"])
    "--profile: found no 'x'"
    """
    for word in words:
        option = word.partition("=")[0]
        name = option.removeprefix("--").replace("-", "_")
        if option != name and name.isidentifier():
            message = re.sub(rf"^{name}s?(?=[: ])", option, message)
            message = re.sub(rf"`{name}`", f"`{option}`", message)
            message = re.sub(rf"`{name}: ", f"`{option} ", message)
    return message
