"""`clipad weights`: what is known of the papers' weights, what is here, and what is wrong with a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from clipad_core.errors import ClipadError

STAND_IN = Path("data") / "weights" / "clipad-tiny.safetensors"

# What a line of a check begins with, by whether it is in order; None: the file does not tell.
_MARKS = {True: "ok", False: "WRONG", None: "?"}

_EXAMPLES = """examples:
  clipad weights list
  clipad weights check ViT-B-16-plus-240/laion400m_e31
  clipad weights check ViT-L-14-336px.pt
  clipad weights check my_clip.safetensors --backbone ViT-B-16 --sha256 1f3a90c2
  clipad weights add ViT-L-14-336px.pt --name openai-336

After `add`, `weights: openai-336` in params.yaml means that file. Nothing is downloaded here, and
nothing in a file is run. A folder means the one file of weights in it. A line that begins with ? is
of what the file does not tell. Exit code 0: in order; 1: something is wrong; 2: a mistyped command."""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add `weights` and its three subcommands."""
    top = commands.add_parser(
        "weights",
        help="list, check and register CLIP weights",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = top.add_subparsers(dest="part", required=True, metavar="list|check|add")
    parts.add_parser("list", help="the papers' weights and the registered ones").set_defaults(
        run=_list
    )
    check = parts.add_parser("check", help="find everything that is wrong with a file")
    check.add_argument("weights", metavar="NAME_OR_FILE", help="see the examples of `weights -h`")
    check.set_defaults(run=_check)
    add = parts.add_parser("add", help="register a file under a name")
    add.add_argument("weights", metavar="FILE")
    add.add_argument("--name", required=True, help="what params.yaml will call it")
    add.add_argument("--link", action="store_true", help="link to the file instead of copying it")
    add.set_defaults(run=_add)
    for part in (check, add):
        part.add_argument("--backbone", help="architecture; known for published files")
        part.add_argument("--sha256", help="expected digest, at least its first 8 digits")


def _list(_arguments: argparse.Namespace) -> None:
    from clipad_core.clip.published import find_published
    from clipad_core.methods import find_method, rooms
    from clipad_harness.base.weights import FOLDER, locate, read_registered

    rows = [("backbone", "weights", "SHA-256", "known from", "on this machine")]
    published = [pair for room in rooms() for pair in find_method(room).published_weights]
    for name, tag in dict.fromkeys(published):
        weights = find_published(name, tag)
        source = "OpenAI's address" if len(weights.sha256) == 64 else "open_clip's file name"
        rows.append((name, tag, f"{weights.sha256[:12]}…", source, _place(locate(weights))))
    root = _root()
    if root is not None:
        for record in read_registered(root):
            file = root / FOLDER / record.file
            rows.append(
                (record.backbone, record.name, f"{record.sha256[:12]}…", "its record", _place(file))
            )
        rows.append(("clipad-tiny", "stand-in", "in params.yaml", "", _place(root / STAND_IN)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )


def _place(file: Path | None) -> str:
    return str(file) if file is not None and file.is_file() else "no"


def _root() -> Path | None:
    """The project's folder; the papers' weights can be looked at without one."""
    from clipad_harness.base.settings import find_root

    try:
        return find_root()
    except ClipadError:
        return None


def _check(arguments: argparse.Namespace) -> None:
    from clipad_harness.base.weights import inspect

    file, backbone, sha256 = _find(arguments)
    print(file)
    findings = inspect(file, backbone, sha256)
    for finding in findings:
        print(f"  {_MARKS[finding.ok]:5}  {finding.check:13} {finding.result}")
    wrong = [finding.check for finding in findings if finding.ok is False]
    if wrong:
        raise ClipadError(f"{file}: {', '.join(wrong)} wrong, see above; not usable as it is.")


def _find(arguments: argparse.Namespace) -> tuple[Path, str | None, str | None]:
    """The file that a name means, its architecture and its expected digest."""
    from clipad_core.clip.published import find_published
    from clipad_core.clip.state_dict import weights_file
    from clipad_harness.base.weights import FOLDER, locate, read_registered

    word, root = arguments.weights, _root()
    if Path(word).is_file():
        return Path(word), arguments.backbone, arguments.sha256
    for record in read_registered(root) if root else []:
        if root and record.name == word:
            return root / FOLDER / record.file, record.backbone, arguments.sha256 or record.sha256
    if Path(word).is_dir():
        return weights_file(Path(word)), arguments.backbone, arguments.sha256
    name, slash, tag = word.partition("/")
    if not slash or Path(word).suffix:
        raise ClipadError(
            f"weights: found {word!r}, expected a file, a registered name, or BACKBONE/TAG such as "
            "ViT-B-16-plus-240/laion400m_e31; `clipad weights list` shows them."
        )
    published = find_published(name, tag)
    file = locate(published)
    if file is None:
        raise ClipadError(
            f"weights: {published.label} is not on this machine. Get {published.url}, or run once "
            "with a network; then check the file."
        )
    # A copy from the hub is another file than the published one, with a digest of its own.
    is_original = file.name == published.url.rpartition("/")[2]
    return file, name, arguments.sha256 or (published.sha256 if is_original else None)


def _add(arguments: argparse.Namespace) -> Path:
    from clipad_core.clip.published import recognise
    from clipad_core.clip.state_dict import weights_file
    from clipad_core.clip.weights import file_sha256
    from clipad_harness.base.files import yaml_line
    from clipad_harness.base.settings import find_root
    from clipad_harness.base.weights import register

    root, file = find_root(), weights_file(Path(arguments.weights))
    published = recognise(file, file_sha256(file, arguments.sha256))
    backbone = arguments.backbone or (published.name if published else None)
    if backbone is None:
        raise ClipadError(
            "--backbone: found none, and the file is not in open_clip's list; name its architecture."
        )
    record = register(root, file, backbone, arguments.name, arguments.sha256, arguments.link)
    names = {"backbone": backbone, "weights": arguments.name}
    print("in params.yaml:", ", ".join(f"{key}: {yaml_line(name)}" for key, name in names.items()))
    return record
