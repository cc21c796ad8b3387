"""How far two sets of results are apart: file by file, number by number, figure by figure.

Results come in the order of the pipeline: data, weights, features, scores, metrics, figures, pages.
What diverges first explains what diverges later, so differences are listed in that order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LEVELS = ("data", "weights", "features", "scores", "metrics", "figures", "pages")
IDENTICAL, CLOSE, DIFFERS, MISSING = "identical", "within tolerance", "differs", "missing"
# Numbers that nothing measured says how far they may move, and numbers of other weights.
UNKNOWN, NOT_COMPARABLE = "not judged", "not comparable"
PASSED = (IDENTICAL, CLOSE)
_SEVERITY = (IDENTICAL, CLOSE, UNKNOWN, DIFFERS)


@dataclass(frozen=True)
class Part:
    """What was compared and how it ended.

    Attributes:
        level: one of `LEVELS`.
        name: the file, or the part of it.
        numbers: how many numbers, pictures or files were compared.
        worst: the largest difference; NaN where there is no number to subtract.
        verdict: identical, within tolerance, differs, missing, not judged or not comparable.
        where: the place of the worst difference, with both values; "" where there is none.
    """

    level: str
    name: str
    numbers: int
    worst: float
    verdict: str
    where: str = ""


@dataclass(frozen=True)
class Pair:
    """One number of both sides: where it stands, how far it may move (None: nothing tells), both values.

    Texts that differ are a pair too: of None and None.
    """

    where: str
    tolerance: float | None
    expected: float | None
    actual: float | None


def judged(level: str, name: str, pairs: Iterable[Pair]) -> Part:
    """Compare pairs of numbers, each under its own tolerance.

    The worst place is the one that exceeds its tolerance most; without one, the largest difference. One
    number that moved and has no tolerance leaves the part not judged, unless another one differs.
    """
    pairs = list(pairs)
    worst, place, excess, verdict = 0.0, "", -math.inf, IDENTICAL
    for pair in pairs:
        gap = _gap(pair)
        if gap == 0:
            continue
        beyond = gap - (pair.tolerance or 0.0) if gap == gap else math.inf
        unknown = pair.tolerance is None and gap == gap
        own = UNKNOWN if unknown else DIFFERS if beyond > 0 else CLOSE
        verdict = max(verdict, own, key=_SEVERITY.index)
        if beyond > excess:
            worst, excess = gap, beyond
            place = f"{pair.where}: expected {_number_text(pair.expected)}, found {_number_text(pair.actual)}"
    return Part(level, name, len(pairs), worst, verdict, place)


def _gap(pair: Pair) -> float:
    """The absolute difference; NaN where one side has no number, 0 where both have none alike."""
    expected, actual = pair.expected, pair.actual
    if expected is None or actual is None:
        return math.nan
    if math.isnan(expected) and math.isnan(actual):
        return 0.0
    return abs(expected - actual)


def _number_text(value: float | None) -> str:
    return "another text" if value is None else f"{value:.6g}"


def compare_files(
    level: str, name: str, expected: Mapping[str, Path], actual: Mapping[str, Path]
) -> Part:
    """Compare files by content: a file that differs or is on one side only is named.

    Args:
        level: of the part.
        name: of the part.
        expected, actual: path by name.
    """
    changed = [
        key for key in sorted(expected.keys() & actual.keys())
        if _digest(expected[key]) != _digest(actual[key])
    ]  # fmt: skip
    alone = sorted(expected.keys() ^ actual.keys())
    if not changed and not alone:
        return Part(level, name, len(expected), 0.0, IDENTICAL)
    first = changed[0] if changed else alone[0]
    counts = f"{len(changed)} of {len(expected.keys() | actual.keys())} files differ"
    counts += f", {len(alone)} are on one side only" if alone else ""
    return Part(level, name, len(expected), math.nan, DIFFERS, f"{first} ({counts})")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def in_order(parts: Iterable[Part]) -> list[Part]:
    """By the order of the pipeline, then by name."""
    return sorted(parts, key=lambda part: (LEVELS.index(part.level), part.name))


def first_divergence(parts: Iterable[Part]) -> Part | None:
    """The first part in the order of the pipeline that is not identical."""
    return next((part for part in in_order(parts) if part.verdict != IDENTICAL), None)


@dataclass(frozen=True)
class Comparison:
    """Two sets of results side by side.

    Attributes:
        parts: what was compared.
        notes: a sentence each, on how both sides were computed and what follows for tolerances.
    """

    parts: Sequence[Part]
    notes: Sequence[str] = ()

    @property
    def wrong(self) -> list[Part]:
        """The parts that did not come out again, or of which nobody can say it."""
        return [part for part in self.parts if part.verdict not in PASSED]


def as_text(comparison: Comparison) -> str:
    """How both sides were computed, the table of all parts, and where things first diverge."""
    parts = in_order(comparison.parts)
    lines = [["level", "part", "compared", "worst", "verdict"]]
    lines += [
        [part.level, part.name, str(part.numbers), _worst(part), part.verdict] for part in parts
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)) for line in lines]
    table = "\n".join(row.rstrip() for row in rows)
    text = "\n".join([*comparison.notes, *([""] if comparison.notes else []), table])
    first = first_divergence(parts)
    if first is None:
        return f"{text}\n\nIdentical bytes: nothing diverges."
    later = [f"  {part.level}, {part.name}: {part.where}" for part in parts if part.where]
    return (
        f"{text}\n\nFirst divergence: {first.level}, in {first.name} ({first.verdict})\n"
        + "\n".join(later)
    ).rstrip("\n")


def _worst(part: Part) -> str:
    return "-" if math.isnan(part.worst) else "0" if part.worst == 0 else f"{part.worst:.2g}"
