"""Score photos in a stream: what is finished is kept, and a bad photo is named and stops nothing."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from clipad_core.clip.image_file import Faint, Photo, Pixels, likely_range, read_photo
from clipad_core.detection import Detection
from clipad_core.errors import ClipadError
from clipad_core.refinement import RefinedDetection
from clipad_harness.base.files import write_text
from clipad_harness.base.sealed import hash_of, read_tensors, write_tensors
from clipad_harness.base.work import Advance, Worker
from clipad_harness.base.workers import run_all
from clipad_harness.photos.photos import line_text, path_text

Detect: TypeAlias = Callable[[Sequence[Pixels]], Detection]
# Scored together: photos of one shape, and not more pixels than fit into a few hundred megabytes.
PHOTOS_PER_BATCH = 8
PIXELS_PER_BATCH = 32_000_000
# What scores.csv prints; verdicts and the page go by it.
SCORE_DIGITS = 6


@dataclass(frozen=True)
class Scored:
    """One photo after scoring.

    Attributes:
        path: the photo.
        score: higher = more anomalous; None where it could not be scored.
        problem: why it could not, "" where it could.
        extent: the lowest and the highest value of its map.
        faint: see `clipad_core.clip.image_file.Photo`.
        reused: whether an interrupted run had scored it.
        kept: the file that holds its map, and the key that it is kept under.
        unrefined: whether its map should be refined and is not, since nothing was found in the photo.
    """

    path: Path
    score: float | None = None
    problem: str = ""
    extent: tuple[float, float] = (0.0, 0.0)
    faint: Faint | None = None
    reused: bool = False
    kept: tuple[Path, str] | None = None
    unrefined: bool = False

    def anomaly_map(self) -> NDArray[np.float32]:
        """Its map, (H, W), at the size the method evaluates.

        Raises:
            ClipadError: it was not scored, or the file that holds the map is gone or damaged.
        """
        tensors = None if self.kept is None else read_tensors(*self.kept, ["map"])
        if tensors is None:
            raise ClipadError(
                f"{path_text(self.path)}: found no whole map of it, expected the one that was made; run "
                "again."
            )
        return np.asarray(tensors["map"].numpy(), dtype=np.float32)


@dataclass(frozen=True)
class Threshold:
    """What good photos score at most, but for a share of them.

    Attributes:
        value: photos that score higher are bad.
        quantile: the share of the good photos that score not higher.
        photos: how many good photos were scored.
        above: how many of them score higher all the same.
    """

    value: float
    quantile: float
    photos: int
    above: int

    @property
    def is_highest(self) -> bool:
        """Whether so few good photos were scored that it is simply the highest of their scores."""
        return self.photos * (1 - self.quantile) < 1

    def verdict(self, score: float) -> str:
        """Whether a photo is good or bad."""
        return "bad" if round(score, SCORE_DIGITS) > self.value else "good"


def check_quantile(quantile: float) -> None:
    """Refuse what is no share of photos.

    Raises:
        ClipadError: it is not above 0 and at most 1.
    """
    if not 0 < quantile <= 1:
        raise ClipadError(f"quantile: found {quantile}, expected a share above 0 and at most 1.")


def threshold_of(scores: Sequence[float], quantile: float) -> Threshold:
    """The lowest score of a good photo that at least this share of the good photos does not exceed.

    Raises:
        ClipadError: a share that is none.

    >>> threshold_of([0.1, 0.2, 0.3, 0.4], 0.75)
    Threshold(value=0.3, quantile=0.75, photos=4, above=1)
    """
    check_quantile(quantile)
    value = round(float(np.quantile(scores, quantile, method="inverted_cdf")), SCORE_DIGITS)
    above = sum(round(score, SCORE_DIGITS) > value for score in scores)
    return Threshold(value, quantile, len(scores), above)


class PhotoScorer(Worker[Sequence[Path], list[Scored]]):
    """Scores photos and keeps every one that it has finished, so that a second run goes on.

    Args:
        open_detector: what is called once a process, and can be sent to another one.
        settings: hash of everything but the photos that scores depend on.
        folder: where finished photos are kept.
        value_range: see `clipad_core.read_image`.
        detector: one that is open already, for this process.
    """

    def __init__(
        self,
        open_detector: Callable[[], Detect],
        settings: str,
        folder: Path,
        value_range: tuple[int, int] | None = None,
        detector: Detect | None = None,
    ) -> None:
        self.open_detector, self.settings, self.folder = open_detector, settings, folder
        self.value_range, self._detector = value_range, detector
        # Two photos of one content share a file, so that being there now says nothing.
        self._earlier = {path.name for path in folder.glob("*")}

    def finish(self, item: Sequence[Path], advance: Advance) -> list[Scored]:
        """Score some photos, in their order, or read what an earlier run has scored."""
        scored: dict[Path, Scored] = {}
        fresh = []
        for path in item:
            if (earlier := self._finished(path)) is None:
                fresh.append(path)
            else:
                scored[path] = earlier
                advance(1)
        for batch in self._batches(fresh):
            results = [batch] if isinstance(batch, Scored) else self._score(batch)
            scored |= {result.path: result for result in results}
            advance(len(results))
        return [scored[path] for path in item]

    def _finished(self, path: Path) -> Scored | None:
        kept = self._place(path)
        tensors = None if kept is None else read_tensors(*kept)
        if kept is None or tensors is None:
            return None
        faint = None
        if "faint" in tensors:
            faint = Faint(*tensors["faint"].tolist())
            faint = faint._replace(is_grey=bool(faint.is_grey))
        return Scored(
            path,
            float(tensors["score"]),
            extent=_extent(tensors["map"]),
            faint=faint,
            reused=kept[0].name in self._earlier,
            kept=kept,
            unrefined="unrefined" in tensors,
        )

    def _place(self, path: Path) -> tuple[Path, str] | None:
        """The file of a finished photo and its key: settings and content; None: it cannot be read."""
        try:
            if not path.is_file():
                return None
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None
        key = hash_of({"settings": self.settings, "photo": content})
        return self.folder / f"{key[:32]}.safetensors", key

    def _batches(self, paths: Sequence[Path]) -> Iterator[list[tuple[Path, Photo]] | Scored]:
        """Neighbours of one shape together; a photo that cannot be read as what is to be said of it."""
        batch: list[tuple[Path, Photo]] = []
        for path in paths:
            try:
                photo = read_photo(path, self.value_range)
            except ClipadError as error:
                if batch:
                    yield batch
                batch = []
                yield Scored(path, problem=_reason(error, path))
                continue
            pixels = photo.pixels
            full = len(batch) * pixels.size // 3 >= PIXELS_PER_BATCH
            if batch and (full or batch[0][1].pixels.shape != pixels.shape):
                yield batch
                batch = []
            batch.append((path, photo))
        if batch:
            yield batch

    def _score(self, batch: list[tuple[Path, Photo]]) -> list[Scored]:
        if self._detector is None:
            self._detector = self.open_detector()
        try:
            detection = self._detector([photo.pixels for _, photo in batch])
        except ClipadError as error:
            if len(batch) == 1:
                return [Scored(batch[0][0], problem=_reason(error, batch[0][0]))]
            # One photo of the batch cannot be scored, for instance an empty one; the others can.
            return [scored for photo in batch for scored in self._score([photo])]
        unrefined = detection.unrefined if isinstance(detection, RefinedDetection) else ()
        maps = detection.anomaly_map.detach().cpu().float()
        return [
            self._keep(path, photo, float(score), anomaly_map, place in unrefined)
            for place, ((path, photo), score, anomaly_map) in enumerate(
                zip(batch, detection.image_score, maps, strict=True)
            )
        ]

    def _keep(
        self, path: Path, photo: Photo, score: float, anomaly_map: torch.Tensor, unrefined: bool
    ) -> Scored:
        if not np.isfinite(score) or not bool(anomaly_map.isfinite().all()):
            return Scored(path, problem="its score is not finite")
        kept = self._place(path)
        if kept is None:
            return Scored(path, problem="it went away while it was scored; put it back")
        tensors = {"map": anomaly_map, "score": torch.tensor(score, dtype=torch.float64)}
        if photo.faint is not None:
            tensors["faint"] = torch.tensor(photo.faint)
        if unrefined:
            tensors["unrefined"] = torch.tensor(True)
        write_tensors(*kept, tensors)
        return Scored(
            path,
            score,
            extent=_extent(anomaly_map),
            faint=photo.faint,
            kept=kept,
            unrefined=unrefined,
        )

    def __getstate__(self) -> dict[str, object]:
        """What another process needs; it opens a detector of its own."""
        return dict(self.__dict__) | {"_detector": None}


def _extent(anomaly_map: torch.Tensor) -> tuple[float, float]:
    return float(anomaly_map.min()), float(anomaly_map.max())


def score_photos(
    scorer: PhotoScorer,
    paths: Sequence[Path],
    *,
    workers: int = 1,
    quiet: bool = False,
    label: str = "score",
    write: Callable[[Sequence[Scored]], None] | None = None,
) -> list[Scored]:
    """Score photos of any shapes with bounded memory; what cannot be scored is named, not fatal.

    Args:
        scorer: with the detector.
        paths: the photos.
        workers: processes; each opens a detector and has one thread. One: this one, with all threads.
        quiet: no progress bar, which shows the time that is left, too.
        label: of the bar.
        write: takes the photos as they are finished: with one process in their order.

    Returns:
        The photos in their order.
    """
    groups = [
        paths[start : start + PHOTOS_PER_BATCH] for start in range(0, len(paths), PHOTOS_PER_BATCH)
    ]
    scored: dict[Path, Scored] = {}
    with tqdm(total=len(paths), desc=label, unit="photo", disable=quiet, smoothing=0.05) as bar:
        if workers == 1:  # `run_all` would leave it one thread
            finished = ((group, scorer.finish(group, bar.update)) for group in groups)
        else:
            finished = (
                (group, results[0])
                for (group,), results in run_all(scorer, [[g] for g in groups], workers, bar)
            )
        for _, results in finished:
            scored |= {result.path: result for result in results}
            if write is not None:
                write(results)
        bar.update(len(paths) - bar.n)
    return [scored[path] for path in paths]


def readable(paths: Iterable[Path]) -> Iterator[Pixels]:
    """The pixels of photos, one after the other, but for those that cannot be read."""
    for path in paths:
        try:
            yield read_photo(path).pixels
        except ClipadError:
            continue


def about_range(photos: Mapping[Path, Faint | None], option: str) -> list[str]:
    """What is to be said of photos that are read as dark: a line for all that one range scales.

    Args:
        photos: with what was found of each; None: nothing.
        option: how a range is said, with two places for its ends.

    >>> ten, twelve = Faint(3, 987, 0, True), Faint(0, 4000, 0, True)
    >>> for line in about_range({Path("1.png"): ten, Path("2.png"): twelve}, "--range {} {}"):
    ...     print(line.partition(",")[0])
    1.png: found values from 3 to 987 in 16 bits
    2.png: found values from 0 to 4000 in 16 bits
    a range holds for all photos of a run: say the widest where one camera took them
    """
    groups: dict[tuple[bool, tuple[int, int]], dict[Path, Faint]] = {}
    for path, faint in photos.items():
        if faint is not None:
            scale = likely_range(faint.highest) if faint.is_grey else (0, 0)
            groups.setdefault((not faint.is_grey, scale), {})[path] = faint
    notes = []
    for _, group in sorted(groups.items(), key=lambda item: item[0]):
        (path, faint), count = next(iter(group.items())), len(group)
        faint = faint._replace(
            lowest=min(faint.lowest for faint in group.values()),
            highest=max(faint.highest for faint in group.values()),
            outliers=sum(faint.outliers for faint in group.values()),
        )
        more = f" and {count - 1} more" if count > 1 else ""
        notes.append(f"{line_text(path)}{more}: {faint.text(option)}")
    if sum(not is_colour for is_colour, _ in groups) > 1:
        notes.append(
            "a range holds for all photos of a run: say the widest where one camera took them, and score "
            "those of cameras of other ranges apart."
        )
    return notes


def ranked(scored: Sequence[Scored]) -> list[Scored]:
    """The photos that have a score, the highest first.

    Raises:
        ClipadError: none has one; the message says why the first has none.
    """
    done = [(photo.score, photo) for photo in scored if photo.score is not None]
    if not done:
        raise ClipadError(
            "no photo could be scored, expected at least one; the first is "
            f"{path_text(scored[0].path)}: {scored[0].problem}"
        )
    return [photo for _, photo in sorted(done, key=lambda pair: -pair[0])]


def _reason(error: ClipadError, path: Path) -> str:
    """The message without the name that stands beside it."""
    text = str(error).removeprefix(f"{path}: ").removeprefix(f"{path_text(path)}: ")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class ScoreTable:
    """scores.csv: file, score, problem; with a threshold also a verdict. It is written as it goes.

    Args:
        path: the file; an older one is replaced.
        threshold: of good photos, where there are some.
    """

    def __init__(self, path: Path, threshold: Threshold | None) -> None:
        self.path, self.threshold = path, threshold
        write_text(path, self._text([], head=True))

    def add(self, scored: Sequence[Scored]) -> None:
        """Add photos at the end."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(self._text(scored))

    def finish(self, scored: Sequence[Scored]) -> None:
        """Write all photos again, in their order."""
        write_text(self.path, self._text(scored, head=True))

    def _text(self, scored: Sequence[Scored], head: bool = False) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        verdict = ["verdict"] if self.threshold else []
        if head:
            writer.writerow(["file", "score", *verdict, "problem"])
        for photo in scored:
            number = "" if photo.score is None else f"{photo.score:.{SCORE_DIGITS}f}"
            row = [path_text(photo.path), number]
            if self.threshold:
                row.append("" if photo.score is None else self.threshold.verdict(photo.score))
            writer.writerow([*row, photo.problem])
        return text.getvalue()


def without_score(photo: Scored, error: ClipadError) -> Scored:
    """A photo that could not be drawn after it was scored, for instance since it went away."""
    return replace(photo, score=None, problem=_reason(error, photo.path), kept=None)
