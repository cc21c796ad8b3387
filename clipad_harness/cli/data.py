"""`clipad data ...`: which datasets are here, whether they are whole, how to get or add others."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clipad_core.errors import ClipadError

_MAX_PROBLEMS = 50


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add `data` with `list`, `check`, `show`, `fetch` and `new`."""
    data = commands.add_parser("data", help="list, check, show or fetch datasets, or add your own")
    verbs = data.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    list_ = _verb(verbs, "list", "all datasets: on disk, complete, licence", "clipad data list")
    check = _verb(
        verbs,
        "check",
        "read every file of a dataset and compare it with its card; exit code 1 on a problem",
        "clipad data check mvtec",
    )
    show = _verb(
        verbs,
        "show",
        "draw a contact sheet of a dataset, masks outlined",
        "clipad data show mvtec --out mvtec.png",
    )
    fetch = _verb(
        verbs,
        "fetch",
        "show the licence of a dataset, ask, and download it; or say how to get it",
        "clipad data fetch visa --data /data",
    )
    new = _verb(
        verbs,
        "new",
        "write the card of a dataset of your own from its folder, with comments",
        "clipad data new my_parts --data /data",
    )
    for verb in (check, show, fetch):
        verb.add_argument("name", help="a dataset of `clipad data list`")
    new.add_argument("name", help="the folder's name")
    show.add_argument("--out", type=Path, metavar="FILE", help="default: <name>.png")
    fetch.add_argument("--yes", action="store_true", help="accept the licence without being asked")
    fetch.add_argument(
        "--from",
        dest="archives",
        nargs="+",
        type=Path,
        default=[],
        metavar="ARCHIVE",
        help="archives that you downloaded yourself; they are checked and unpacked",
    )
    list_.set_defaults(run=_list)
    check.set_defaults(run=_check)
    show.set_defaults(run=_show)
    fetch.set_defaults(run=_fetch)
    new.set_defaults(run=_new)


def _verb(
    verbs: argparse._SubParsersAction, name: str, help_text: str, example: str
) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}.",
        epilog=f"Example: {example}",
    )
    default = "data_root of the profile in params.yaml, then " if name != "fetch" else ""
    verb.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help=f"folder of the datasets; default: {default}$CLIPAD_DATA",
    )
    return verb


def _root(arguments: argparse.Namespace) -> Path | None:
    """``--data``, or the profile's data_root where there is a project."""
    from clipad_harness.base.settings import find_root, read_profile

    if arguments.data is not None:
        return Path(arguments.data)
    try:
        root = find_root()
    except ClipadError:
        return None
    data_root = read_profile(root).data_root
    return root / data_root if data_root else None


def _list(arguments: argparse.Namespace) -> None:
    from clipad_harness.data.cards import card_names, read_card
    from clipad_harness.data.dataset_check import completeness
    from clipad_harness.data.datasets import dataset_folder

    root = _root(arguments)
    rows = [("name", "on disk", "holds", "levels", "licence")]
    for name in card_names():
        card, folder = read_card(name), dataset_folder(name, root)
        on_disk = "yes" if folder else "no"
        holds = completeness(folder, card) if folder else "-"
        if card.layout is None:
            on_disk, holds = "no", "not published"
        licence = card.licence or "not known"
        rows.append((name, on_disk, holds, ", ".join(card.levels), licence))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip())


def _check(arguments: argparse.Namespace) -> None:
    from clipad_harness.data.dataset_check import check
    from clipad_harness.data.datasets import find_dataset

    folder = find_dataset(arguments.name, _root(arguments))
    index, problems, remarks = check(folder, arguments.name)
    test = index[index["split"] == "test"]
    normal = int((test["label"] == 0).sum())
    print(
        f"{folder}: categories {', '.join(index['category'].unique())}; {len(index) - len(test)} "
        f"training images, {normal} normal and {len(test) - normal} anomalous test images, "
        f"{int((index['mask'] != '').sum())} masks"
    )
    for problem in problems[:_MAX_PROBLEMS]:
        print(f"  {problem}")
    if len(problems) > _MAX_PROBLEMS:
        print(f"  and {len(problems) - _MAX_PROBLEMS} more")
    if not problems:
        print("  no problem found")
    for remark in remarks:
        print(f"  to know: {remark}")
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ClipadError(f"{arguments.name}: found {count}, expected the dataset of its card.")


def _show(arguments: argparse.Namespace) -> Path:
    from clipad_harness.base.files import replacing
    from clipad_harness.data.contact_sheet import contact_sheet
    from clipad_harness.data.datasets import find_dataset

    folder = find_dataset(arguments.name, _root(arguments))
    out = arguments.out or Path(f"{arguments.name}.png")
    sheet = contact_sheet(folder.parent, folder.name)
    with replacing(out) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
    return Path(out)


def _fetch(arguments: argparse.Namespace) -> Path:
    from clipad_harness.data.cards import read_card
    from clipad_harness.data.datasets import DATA_VARIABLE, default_root
    from clipad_harness.data.fetch import by_hand, fetch, offered, terms, unpack_archives

    card = read_card(arguments.name)
    print(terms(card))
    if not arguments.archives and not offered(card):
        print(by_hand(card, arguments.data or Path(f"${DATA_VARIABLE}")))
        reason = "its publisher offers no file that a program may get; do what stands above"
        if card.layout is None:
            reason = "it is not published"
        raise ClipadError(f"{card.name}: nothing was downloaded, because {reason}.")
    root = arguments.data or default_root()
    target = root / card.name
    if target.is_dir() and any(target.iterdir()):
        raise ClipadError(
            f"{target}: is there already, expected nothing; `clipad data check {card.name}` says "
            "whether it is whole. Move it away to fetch it again."
        )
    if not arguments.yes and not _agreed():
        raise ClipadError(f"{card.name}: nothing was downloaded, because you did not say yes.")
    if arguments.archives:
        folder, unchecked = unpack_archives(card, root, arguments.archives)
    else:
        folder, unchecked = fetch(card, root)
    for line in unchecked:
        print(f"  {line}")
    return folder


def _new(arguments: argparse.Namespace) -> Path:
    from clipad_harness.base.files import yaml_line
    from clipad_harness.data.cards import CARDS
    from clipad_harness.data.dataset_check import normal_sounding
    from clipad_harness.data.new_card import new_card

    card, index = new_card(arguments.name, _root(arguments), CARDS)
    test = index[index["split"] == "test"]
    print(
        f"Read the comments in the card of {arguments.name} ({len(index) - len(test)} training images, "
        f"{len(test)} test images), then `clipad data check {arguments.name}`, then write "
        f"`dataset: {yaml_line(arguments.name)}` into a profile in params.yaml."
    )
    for remark in normal_sounding(index):
        print(f"  to know: {remark}")
    return card


def _agreed() -> bool:
    try:
        return input("Go on under this licence? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print("\n(no answer can be given here; --yes says yes)", file=sys.stderr)
        return False
