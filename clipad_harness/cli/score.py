"""`clipad score`: a score, a heat map and one page for your own photos."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clipad_core.errors import ClipadError

if TYPE_CHECKING:
    from clipad_core.clip.backbone import Backbone
    from clipad_core.clip.image_file import Faint
    from clipad_harness.photos.detectors import DetectorRequest
    from clipad_harness.photos.photos import PhotoFiles
    from clipad_harness.photos.scoring import PhotoScorer, Scored, Threshold

_EXAMPLES = """examples:
  clipad score photos/ --class-name bottle --out scored
  clipad score 'line 3/*.jpg' extra.png --class-name "hex nut" --reference good/ --out scored
  clipad score photos/ --class-name bottle --good more-good/ --quantile 0.99 --out scored
  clipad score photos/ --method vcpclip --out scored                 # as stage `train` has trained it
  clipad score photos/ --method vcpclip --checkpoint train_visa.pth --out scored
  clipad score photos/ --class-name bottle --out scored \\
      --backbone ViT-B-16-plus-240 --weights laion400m_e31

Writes OUT/index.html (open it in a browser), OUT/scores.csv, OUT/overlays/ and, with --raw-maps,
OUT/maps/ (npy, float32, the method's own resolution). Higher score = more anomalous. A photo that
cannot be scored, one of --good as well, is named in scores.csv and at the end; the others are written
all the same.

JPEG, PNG, TIFF, WebP, BMP, GIF, JPEG 2000, AVIF, PGM and PPM are read, HEIC where pillow-heif is
installed; of several frames or pages the first. Files of a folder that are no images are named once, and
so are results of an earlier run, which are no photos. Those of an earlier run below OUT are removed
when new ones are written. A run that was stopped goes on where it was: a photo is not scored again
where its content and all that scores depend on (method, settings, weights, class name, references,
code) are the same.

Without --backbone and --weights, the profile of params.yaml is used; as delivered it is a stand-in
whose scores mean nothing for real photos.

Exit code 0: all scored (and with --good: all good); 1: some or all could not be, or something was
wrong; 2: a mistyped command; 3: all scored, and some are bad by --good; 130: stopped."""
# How many names stand in a message; the page has all of them.
_NAMES_TOLD = 5
# Below --out, while a run goes on: what is finished.
_KEPT = ".scored"


class BadPhotos(ClipadError):
    """All photos were scored, and some score higher than good ones do."""


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
    score.add_argument(
        "--method",
        default="",
        help="default: the first of params.yaml, else the one that learns nothing and takes --reference",
    )
    score.add_argument(
        "--reference", nargs="+", default=[], metavar="GOOD", help="photos of good ones (few-shot)"
    )
    score.add_argument(
        "--good",
        nargs="+",
        default=[],
        metavar="GOOD",
        help="other photos of good ones, which give the threshold between good and bad",
    )
    score.add_argument(
        "--quantile",
        type=float,
        default=0.95,
        help="share of the photos of --good that are not above the threshold (default: 0.95)",
    )
    score.add_argument(
        "--checkpoint",
        default="",
        metavar="NAME|FILE",
        help="what a learned method learned: a file, or a variant that stage `train` has trained, "
        "such as group/row or main@1 (default: main)",
    )
    score.add_argument("--backbone", help="architecture, with --weights instead of params.yaml")
    score.add_argument("--weights", help="published tag, file or registered name")
    score.add_argument(
        "--device",
        default="",
        help="auto, cpu, cuda, cuda:N or mps (default: that of params.yaml, else auto)",
    )
    score.add_argument("--sha256", help="expected digest of a weights file")
    score.add_argument(
        "--range",
        nargs=2,
        type=int,
        metavar=("LOW", "HIGH"),
        help="which values of greyscale of more than 8 bits, as the file holds them, are black and white, "
        "such as 0 1023 for 10 bits",
    )
    score.add_argument(
        "--workers", type=int, default=1, help="processes; each loads the weights (default: 1)"
    )
    score.add_argument(
        "--refine",
        default="none",
        metavar="NAME",
        help="what refines the maps by the photo's own edges: guided, slic, felzenszwalb or sam, or its "
        "settings as YAML, such as '{slic: {count: 400}}'; scores stay (default: none)",
    )
    score.add_argument("--raw-maps", action="store_true", help="keep the anomaly maps as npy")
    score.add_argument(
        "--quiet", action="store_true", help="no progress, only what is wrong or left out"
    )
    score.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Path:
    """Find everything that can be wrong before the weights are loaded, then score."""
    from clipad_core.refinement import read_refinement
    from clipad_harness.base.files import alone, parse_yaml
    from clipad_harness.photos.detectors import (
        DetectorRequest,
        about_weights,
        brings_config,
        check_request,
        choose_device,
        choose_method,
        choose_weights,
        find_learner,
    )
    from clipad_harness.photos.photos import TABLE, check_output, find_photos, path_text
    from clipad_harness.photos.scoring import PhotoScorer

    _check_arguments(arguments)
    refine = read_refinement(parse_yaml(arguments.refine, "--refine"), "--refine")
    if refine is not None:
        refine.check()
    out: Path = arguments.out
    check_output(out)
    method = arguments.method = choose_method(arguments.method)
    weights, config = choose_weights(
        method, arguments.backbone, arguments.weights, arguments.sha256
    )
    checkpoint, at_test = find_learner(method, arguments.checkpoint)
    own = None if brings_config(checkpoint) else config
    check_request(method, own, arguments.class_name, checkpoint, bool(arguments.reference))
    files = find_photos(arguments.photos, skip=out)
    reference_files = _all_photos(arguments.reference, "--reference")
    good_files = _all_photos(arguments.good, "--good")
    references = reference_files.photos
    good = _without_references(good_files.photos, references)
    others = reference_files.others | good_files.others | files.others
    files = replace(files, others=others)
    request = DetectorRequest(
        method=method,
        weights=weights,
        config=config,
        class_name=arguments.class_name,
        references=tuple(references),
        checkpoint=checkpoint,
        at_test=at_test,
        value_range=None if arguments.range is None else tuple(arguments.range),
        device=choose_device(arguments.device),
        refine=refine,
    )
    # One that cannot be read is told before weights are loaded.
    faint = [photo.faint for photo in request.read_references()]

    _make_folder(out)
    with alone(out / TABLE) as is_alone:
        if not is_alone:
            raise ClipadError(
                f"--out: found another run that writes into {path_text(out)} now, expected none; wait "
                "for its end or choose another folder."
            )
        backbone = request.backbone()
        warning = about_weights(backbone, method)
        if warning:
            print(f"clipad: {warning}", file=sys.stderr)
        detector = request.open(backbone)
        scorer = PhotoScorer(
            request.open, request.key(backbone), out / _KEPT, request.value_range, detector
        )
        return _score(
            arguments,
            scorer,
            files,
            good,
            dict(zip(references, faint, strict=True)),
            _provenance(request, backbone),
            warning,
        )


def _check_arguments(arguments: argparse.Namespace) -> None:
    """Refuse numbers that are none before anything is loaded."""
    from clipad_core.clip.image_file import check_range
    from clipad_harness.photos.scoring import check_quantile

    check_quantile(arguments.quantile)
    if arguments.workers < 1:
        raise ClipadError(f"--workers: found {arguments.workers}, expected a number from 1.")
    if arguments.range is not None:
        check_range(arguments.range, "--range")


def _all_photos(words: Sequence[str], name: str) -> PhotoFiles:
    """What some words name, where none of the photos may be missing."""
    from clipad_harness.photos.photos import find_photos, path_text

    files = find_photos(words, name=name)
    for folder, problem in files.unlisted.items():
        raise ClipadError(f"{name}: {path_text(folder)}: {problem}")
    return files


def _without_references(paths: Sequence[Path], references: Sequence[Path]) -> list[Path]:
    """The photos of --good without those that are references too, which score lower than others."""
    from clipad_harness.data.images import file_hash

    digests = {file_hash(path) for path in references}
    good = [path for path in paths if not (path.is_file() and file_hash(path) in digests)]
    if paths and not good:
        raise ClipadError(
            f"--good: found {len(paths)} photos, all of them references, which score lower than other good "
            "ones; expected others."
        )
    return good


def _score(
    arguments: argparse.Namespace,
    scorer: PhotoScorer,
    files: PhotoFiles,
    good: list[Path],
    references: dict[Path, Faint | None],
    provenance: dict[str, str],
    warning: str,
) -> Path:
    """Score, then write the overlays, the maps if asked for, and the page.

    Args:
        references: with what is to be said of the values of each.
    """
    import shutil

    from clipad_harness.photos.page import draw_overlays, write_maps, write_page
    from clipad_harness.photos.photos import MAPS, OVERLAYS, PAGE, TABLE, clear_results, path_text
    from clipad_harness.photos.scoring import (
        Scored,
        ScoreTable,
        about_range,
        ranked,
        score_photos,
        threshold_of,
    )

    out, quiet, workers = arguments.out, arguments.quiet, arguments.workers
    good_scored = score_photos(scorer, good, workers=workers, quiet=quiet, label="good")
    scores = [photo.score for photo in good_scored if photo.score is not None]
    if good and not scores:
        raise ClipadError(
            f"--good: found {len(good)} photos of which none could be scored ({_first(good_scored)}), "
            "expected some of good ones."
        )
    threshold = threshold_of(scores, arguments.quantile) if good else None
    clear_results(out, [*files.photos, *good, *references])
    table = ScoreTable(out / TABLE, threshold)
    scored = score_photos(scorer, files.photos, workers=workers, quiet=quiet, write=table.add)
    scored += [Scored(path, problem=problem) for path, problem in files.unlisted.items()]
    # A photo may be among both.
    paths = {photo.path for photo in scored}
    failed_good = [
        replace(photo, problem=f"--good: {photo.problem}")
        for photo in good_scored
        if photo.score is None and photo.path not in paths
    ]
    table.finish(scored + failed_good)
    faint = references | {photo.path: photo.faint for photo in scored + good_scored}
    notes = [*about_range(faint, "--range {} {}"), *_about_good(files.photos, good)]
    notes += _about_unrefined(scored)
    for note in [*notes, *_about_others(files)]:
        print(f"clipad: {note}", file=sys.stderr)
    ranked(scored)  # where there is none, scores.csv says why
    cards, undrawn = draw_overlays(scored, out / OVERLAYS, scorer.value_range, quiet)
    if undrawn:
        scored = [undrawn.get(photo.path, photo) for photo in scored]
        table.finish(scored + failed_good)
    if arguments.raw_maps:
        write_maps(scored, out / MAPS)
    failed = [photo for photo in scored + failed_good if photo.score is None]
    page = write_page(
        out / PAGE,
        cards,
        scored,
        failed=failed,
        threshold=threshold,
        notes=notes,
        others={path_text(path): why for path, why in files.others.items()},
        subject=arguments.class_name,
        warning=warning,
        provenance=provenance,
        command=_command(arguments),
    )
    shutil.rmtree(scorer.folder, ignore_errors=True)
    reused = sum(photo.reused for photo in scored)
    if reused and not quiet:
        print(
            f"clipad: {reused} of {len(scored)} photos were scored by a run that was stopped.",
            file=sys.stderr,
        )
    _conclude(page, scored, failed, len(paths.union(good)), threshold)
    return page


def _conclude(
    page: Path,
    scored: Sequence[Scored],
    failed: Sequence[Scored],
    total: int,
    threshold: Threshold | None,
) -> None:
    """Whatever is not as it should be ends in a message, and so in another exit code than 0."""
    scores = [photo.score for photo in scored if photo.score is not None]
    bad = sum(threshold is not None and threshold.verdict(score) == "bad" for score in scores)
    above = f"{bad} of {len(scores)} photos {'is' if bad == 1 else 'are'} bad"
    if failed:
        raise ClipadError(
            f"{len(failed)} of {total} photos could not be scored ({page} says why: {_first(failed)}"
            f"{_also(failed[1:])}); the others are there, too{f', where {above}' if bad else ''}."
        )
    if bad and threshold is not None:
        few = ", of so few the highest" if threshold.is_highest else ""
        raise BadPhotos(
            f"{above}: they score more than {threshold.value}, the {threshold.quantile:g} quantile of "
            f"{threshold.photos} good photo{'s' if threshold.photos > 1 else ''}{few}; {page} shows them."
        )


def _about_good(photos: Sequence[Path], good: Sequence[Path]) -> list[str]:
    """One warning of photos that are judged by a threshold of their own."""
    places = {os.path.realpath(path) for path in good}
    both = [path for path in photos if os.path.realpath(path) in places]
    if not both:
        return []
    return [
        f"{len(both)} of {len(photos)} photos are among those of --good too, which give the threshold that "
        f"these are judged by: {_names(both)}."
    ]


def _about_unrefined(scored: Sequence[Scored]) -> list[str]:
    """One line about photos that nothing was found in, by which their maps could be refined."""
    names = [photo.path for photo in scored if photo.unrefined]
    if not names:
        return []
    return [
        f"--refine: found no regions in {len(names)} of {len(scored)} photos, whose maps stay as they are: "
        f"{_names(names)}."
    ]


def _about_others(files: PhotoFiles) -> list[str]:
    """One line about what lies beside the photos and is none."""
    if not files.others:
        return []
    return [f"left out, since they are no photos: {_names(list(files.others))}."]


def _names(paths: Sequence[Path]) -> str:
    """The first names, and how many more there are."""
    from clipad_harness.photos.photos import line_text

    more = len(paths) - _NAMES_TOLD
    names = ", ".join(map(line_text, paths[:_NAMES_TOLD]))
    return names + (f" and {more} more" if more > 0 else "")


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClipadError(
            f"--out: {out} cannot be made ({error.strerror or error}); choose another folder."
        ) from error


def _first(scored: Sequence[Scored]) -> str:
    from clipad_harness.photos.photos import line_text

    photo = next(photo for photo in scored if photo.score is None)
    return f"{line_text(photo.path)}: {photo.problem}"


def _also(photos: Sequence[Scored]) -> str:
    """What follows the first photo that could not be scored."""
    return f"; also {_names([photo.path for photo in photos])}" if photos else ""


def _provenance(request: DetectorRequest, backbone: Backbone) -> dict[str, str]:
    from clipad_core import __version__

    count = len(request.references)
    facts = {
        "method": f"{request.method}, {count} reference{'' if count == 1 else 's'}",
        "class name": request.class_name or "not used",
        "checkpoint": str(request.checkpoint or "none"),
        "weights": f"{backbone.label}, {backbone.kind}, {backbone.digest[:12]}",
        "computed": f"{backbone.precision} on {backbone.device.type}",
    }
    if request.refine is not None:
        facts["maps refined by"] = str(request.refine)
    if request.value_range is not None:
        facts["values of 16 bits"] = "black at {}, white at {}".format(*request.value_range)
    return facts | {"clipad": __version__}


def _command(arguments: argparse.Namespace) -> str:
    """The command that makes the page again, as a shell takes it."""
    from clipad_harness.photos.photos import path_text

    words = ["clipad", "score", *(path_text(Path(photo)) for photo in arguments.photos)]
    for name in (
        "class_name",
        "method",
        "backbone",
        "weights",
        "sha256",
        "device",
        "checkpoint",
        "out",
    ):
        if value := getattr(arguments, name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    for name in ("reference", "good"):
        if paths := getattr(arguments, name):
            words += [f"--{name}", *(path_text(Path(photo)) for photo in paths)]
    if arguments.good:
        words += ["--quantile", f"{arguments.quantile:g}"]
    if arguments.refine != "none":
        words += ["--refine", arguments.refine]
    if arguments.range is not None:
        words += ["--range", *map(str, arguments.range)]
    return shlex.join(words + ["--raw-maps"] * arguments.raw_maps)
