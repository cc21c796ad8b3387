"""Your own photos: find them, read them, score them in a stream, and keep going past a bad one."""

from __future__ import annotations

import csv
import glob
import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from clipad_core.clip.preprocess import Pixels
from clipad_core.detection import Detection
from clipad_core.errors import ClipadError
from clipad_harness.base.files import write_text
from clipad_harness.data.images import LONGEST_SIDE_RATIO, image_size, read_image
from clipad_harness.data.litter import is_litter
from clipad_harness.data.reading import SUFFIXES

Detector = Callable[[Sequence[Pixels]], Detection]
# Scored together: photos of one shape, and not more pixels than fit into a few hundred megabytes.
PHOTOS_PER_BATCH = 8
PIXELS_PER_BATCH = 32_000_000


@dataclass(frozen=True)
class Scored:
    """One photo after scoring.

    Attributes:
        path: the photo.
        score: higher = more anomalous; None where it could not be scored.
        problem: why it could not, "" where it could.
        map_file: where its anomaly map is kept (npy), at the size the method evaluates.
    """

    path: Path
    score: float | None = None
    problem: str = ""
    map_file: Path | None = None


def find_photos(words: Sequence[str], skip: Path | None = None) -> list[Path]:
    """The photos that files, folders (with all below them) and patterns name; each once, in order.

    Args:
        words: as on the command line; a file is taken whatever its suffix.
        skip: a folder that is never searched: what is written there is no input.

    Raises:
        ClipadError: a word that names nothing, or a folder without photos.
    """
    unique_photos: dict[Path, None] = {}
    for word in words:
        path = Path(word)
        matches = (
            [path] if path.exists() else [Path(name) for name in glob.glob(word, recursive=True)]
        )
        photos = [photo for match in _sorted(matches) for photo in _below(match, skip)]
        if not photos:
            problem = (
                "a folder without photos" if path.is_dir() else "no such file, folder or match"
            )
            raise ClipadError(
                f"photos: found {problem} at {path_text(path)}, expected images "
                f"({', '.join(sorted(SUFFIXES))}); correct the path."
            )
        unique_photos |= dict.fromkeys(photos)
    return list(unique_photos)


def _below(path: Path, skip: Path | None) -> list[Path]:
    if not path.is_dir():
        return [path]
    photos = []
    for folder, inner, names in os.walk(path):
        inner[:] = [
            name
            for name in inner
            if not is_litter(name)
            and (skip is None or (Path(folder) / name).resolve() != skip.resolve())
        ]
        files = [Path(folder) / name for name in names if not is_litter(name)]
        photos += [file for file in files if file.suffix.lower() in SUFFIXES]
    return _sorted(photos)


def _sorted(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=os.fsencode)


def path_text(path: Path) -> str:
    r"""A path as text that every file and page can hold: bytes that are no UTF-8 become \xNN.

    >>> shown(Path("caf\udce9.png"))
    'caf\\xe9.png'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read_photo(path: Path) -> Pixels:
    """Read a photo as RGB, turned as its camera says (unlike a dataset's image: it has no mask).

    Raises:
        ClipadError: unreadable, too many pixels, or far too long for its height.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            height, width = image_size(path)
        except Image.DecompressionBombWarning as error:
            limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
            raise ClipadError(
                f"{path_text(path)}: found more than {limit} million pixels, expected fewer; scale it down."
            ) from error
    if max(height, width) > LONGEST_SIDE_RATIO * min(height, width):
        raise ClipadError(
            f"{path_text(path)}: found {width} x {height} pixels, expected one side at most "
            f"{LONGEST_SIDE_RATIO} times the other; cut it into parts."
        )
    return np.asarray(read_image(path, upright=True))


def score_photos(
    detector: Detector, paths: Sequence[Path], keep: Path, quiet: bool = False
) -> list[Scored]:
    """Score photos of any shapes with bounded memory; what cannot be scored is named, not fatal.

    Args:
        detector: see `clipad_harness.photos.detectors.open_detector`.
        paths: the photos.
        keep: a folder for the maps.
        quiet: no progress bar.
    """
    scored: list[Scored] = []
    with tqdm(total=len(paths), desc="score", unit="photo", disable=quiet) as bar:
        for batch in _batches(paths):
            if isinstance(batch, Scored):
                scored.append(batch)
            else:
                scored += _score(detector, batch, keep, len(scored))
            bar.update(len(scored) - bar.n)
    return scored


def _batches(paths: Sequence[Path]) -> Iterator[list[tuple[Path, Pixels]] | Scored]:
    """Neighbours of one shape together; a photo that cannot be read as what is to be said of it."""
    batch: list[tuple[Path, Pixels]] = []
    for path in paths:
        try:
            pixels = read_photo(path)
        except ClipadError as error:
            if batch:
                yield batch
            batch = []
            yield Scored(path, problem=_reason(error, path))
            continue
        full = len(batch) * pixels.size // 3 >= PIXELS_PER_BATCH or len(batch) == PHOTOS_PER_BATCH
        if batch and (full or batch[0][1].shape != pixels.shape):
            yield batch
            batch = []
        batch.append((path, pixels))
    if batch:
        yield batch


def _score(
    detector: Detector, batch: list[tuple[Path, Pixels]], keep: Path, start: int
) -> list[Scored]:
    try:
        detection = detector([pixels for _, pixels in batch])
    except ClipadError as error:
        if len(batch) == 1:
            return [Scored(batch[0][0], problem=_reason(error, batch[0][0]))]
        # One photo of the batch cannot be scored, for instance an empty one; the others can.
        parts = [_score(detector, [photo], keep, start + i) for i, photo in enumerate(batch)]
        return [scored for part in parts for scored in part]
    results = []
    for i, (path, _) in enumerate(batch):
        score, anomaly_map = float(detection.image_score[i]), detection.anomaly_map[i].detach()
        if not np.isfinite(score) or not bool(anomaly_map.isfinite().all()):
            results.append(Scored(path, problem="its score is not finite"))
            continue
        file = keep / f"{start + i:06}.npy"
        np.save(file, anomaly_map.cpu().numpy().astype(np.float32))
        results.append(Scored(path, score, map_file=file))
    return results


def _reason(error: ClipadError, path: Path) -> str:
    """The message without the name that stands beside it."""
    text = str(error).removeprefix(f"{path}: ").removeprefix(f"{path_text(path)}: ")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_scores(path: Path, scored: Sequence[Scored]) -> Path:
    """Write scores.csv: file, score, problem, in the order of the photos."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "score", "problem"])
    for photo in scored:
        score = "" if photo.score is None else f"{photo.score:.6f}"
        writer.writerow([path_text(photo.path), score, photo.problem])
    return write_text(path, text.getvalue())


def place_below(folder: Path, paths: Sequence[Path], suffix: str) -> list[Path]:
    """A file in ``folder`` for every photo: the photo's own path below what all have in common.

    >>> place_below(Path("out"), [Path("p/a/1.jpg"), Path("p/b/1.jpg")], ".npy")
    [PosixPath('out/a/1.jpg.npy'), PosixPath('out/b/1.jpg.npy')]
    """
    whole = [path.absolute() for path in paths]
    base = os.path.commonpath([path.parent for path in whole])
    relative = [os.path.relpath(path, base) for path in whole]
    return [folder / f"{path}{suffix}" for path in relative]
