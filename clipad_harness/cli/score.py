"""`clipad score`: a score, a heat map and one page for your own photos."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from clipad_core.errors import ClipadError

if TYPE_CHECKING:
    from clipad_core.clip.backbone import Backbone
    from clipad_harness.photos.photos import Detector, Scored

_EXAMPLES = """examples:
  clipad score photos/ --class-name bottle --out scored
  clipad score 'line 3/*.jpg' extra.png --class-name "hex nut" --reference good/ --out scored
  clipad score photos/ --method vcpclip --checkpoint train_visa.pth --out scored
  clipad score photos/ --class-name bottle --out scored \\
      --backbone ViT-B-16-plus-240 --weights laion400m_e31

Writes OUT/index.html (open it in a browser), OUT/scores.csv, OUT/overlays/ and, with --raw-maps,
OUT/maps/ (npy, float32, the method's own resolution). Higher score = more anomalous. A photo that
cannot be scored is named in scores.csv and at the end; the others are written all the same.

Without --backbone and --weights, the profile of params.yaml is used; as delivered it is a stand-in
whose scores mean nothing for real photos.

Exit code 0: all scored; 1: some or all could not be, or something was wrong; 2: a mistyped command;
130: stopped."""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add `score`."""
    score = commands.add_parser(
        "score",
        help="score your own photos: csv, heat maps, a page",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    score.add_argument("photos", nargs="+", metavar="PHOTO", help="files, folders or patterns")
    score.add_argument("--out", required=True, type=Path, help="folder to write into")
    score.add_argument("--class-name", default="", help='what the photos show, such as "bottle"')
    score.add_argument("--method", default="", help="default: the first of params.yaml")
    score.add_argument(
        "--reference", nargs="+", default=[], metavar="GOOD", help="photos of good ones (few-shot)"
    )
    score.add_argument("--checkpoint", type=Path, help="what a learned method learned")
    score.add_argument("--backbone", help="architecture, with --weights instead of params.yaml")
    score.add_argument("--weights", help="published tag, file or registered name")
    score.add_argument("--sha256", help="expected digest of a weights file")
    score.add_argument("--raw-maps", action="store_true", help="keep the anomaly maps as npy")
    score.add_argument("--quiet", action="store_true", help="no progress, only what is wrong")
    score.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Path:
    """Find everything that can be wrong before the weights are loaded, then score."""
    from clipad_harness.photos.detectors import (
        about_weights,
        brings_config,
        check_request,
        choose_method,
        choose_weights,
    )
    from clipad_harness.photos.photos import find_photos, read_photo

    out: Path = arguments.out
    if out.exists() and not out.is_dir():
        raise ClipadError(f"--out: found a file at {out}, expected a folder; choose another name.")
    method = arguments.method = choose_method(arguments.method)
    checkpoint = arguments.checkpoint
    weights, config = choose_weights(
        method, arguments.backbone, arguments.weights, arguments.sha256
    )
    own = None if brings_config(checkpoint) else config
    check_request(method, own, arguments.class_name, checkpoint, bool(arguments.reference))
    paths = find_photos(arguments.photos, skip=out)
    references = find_photos(arguments.reference) if arguments.reference else []
    good = [read_photo(path) for path in references]

    from clipad_core.clip.backbone import load_backbone
    from clipad_harness.photos.detectors import open_detector

    backbone = load_backbone(weights.backbone, weights.weights, weights.sha256, config.precision)
    warning = about_weights(backbone, method)
    if warning:
        print(f"clipad: {warning}", file=sys.stderr)
    detector = open_detector(
        method,
        backbone,
        config=config,
        class_name=arguments.class_name,
        references=good,
        checkpoint=checkpoint,
    )
    return _write(arguments, detector, paths, backbone, len(good), warning)


def _write(
    arguments: argparse.Namespace,
    detector: Detector,
    paths: list[Path],
    backbone: Backbone,
    k_shot: int,
    warning: str,
) -> Path:
    """Score, then write the csv, the overlays, the maps if asked for, and the page."""
    import shutil
    from tempfile import TemporaryDirectory

    from clipad_core import __version__
    from clipad_harness.photos.page import draw_overlays, write_page
    from clipad_harness.photos.photos import place_below, score_photos, write_scores

    out, quiet = arguments.out, arguments.quiet
    table, page = out / "scores.csv", out / "index.html"
    _make_folder(out)
    with TemporaryDirectory(dir=out, prefix=".maps-") as folder:
        scored = score_photos(detector, paths, Path(folder), quiet)
        write_scores(table, scored)
        done = [photo for photo in scored if photo.score is not None]
        if not done:
            raise ClipadError(f"no photo could be scored; {table} says why: {_first(scored)}")
        cards = list(draw_overlays(done, out / "overlays", quiet))
        if arguments.raw_maps:
            names = place_below(out / "maps", [photo.path for photo in done], ".npy")
            for photo, target in zip(done, names, strict=True):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(str(photo.map_file), target)
    provenance = {
        "method": f"{arguments.method}, {k_shot} reference{'' if k_shot == 1 else 's'}",
        "class name": arguments.class_name or "not used",
        "checkpoint": str(arguments.checkpoint or "none"),
        "weights": f"{backbone.label}, {backbone.kind}, {backbone.digest[:12]}",
        "clipad": __version__,
    }
    write_page(
        page,
        cards,
        scored,
        subject=arguments.class_name,
        warning=warning,
        provenance=provenance,
        command=_command(arguments),
    )
    failed = len(scored) - len(done)
    if failed:
        raise ClipadError(
            f"{failed} of {len(scored)} photos could not be scored ({table} says why: "
            f"{_first(scored)}); the others are in {page}."
        )
    return page


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClipadError(
            f"--out: {out} cannot be made ({error.strerror or error}); choose another folder."
        ) from error


def _first(scored: list[Scored]) -> str:
    from clipad_harness.photos.photos import path_text

    photo = next(photo for photo in scored if photo.score is None)
    return f"{path_text(photo.path)}: {photo.problem}"


def _command(arguments: argparse.Namespace) -> str:
    """The command that makes the page again, as a shell takes it."""
    from clipad_harness.photos.photos import path_text

    words = ["clipad", "score", *(path_text(Path(photo)) for photo in arguments.photos)]
    for name in ("class_name", "method", "backbone", "weights", "sha256", "checkpoint", "out"):
        if value := getattr(arguments, name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    if arguments.reference:
        words += ["--reference", *(path_text(Path(photo)) for photo in arguments.reference)]
    return shlex.join(words + ["--raw-maps"] * arguments.raw_maps)
