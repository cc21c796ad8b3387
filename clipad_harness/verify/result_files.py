"""Two sets of results side by side: which of their files belong together, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from clipad_core.errors import ClipadError
from clipad_harness.base.sealed import read_tensors
from clipad_harness.verify.clean_clone import locked
from clipad_harness.verify.conditions import (
    Condition,
    allowance_for,
    concerning,
    read_conditions,
)
from clipad_harness.verify.differences import (
    DIFFERS,
    IDENTICAL,
    MISSING,
    Comparison,
    Pair,
    Part,
    compare_files,
    judged,
)
from clipad_harness.verify.result_kinds import file_parts, not_comparable
from clipad_harness.verify.tolerances import PRECISIONS, declared

_PICTURE = "docs/methods.png"
_KINDS = (".csv", ".json", ".ipynb", ".html", ".png")


@dataclass(frozen=True)
class Side:
    """One set of results.

    Attributes:
        reports: the folder of pages and metrics.
        project: the folder with `data`, `.cache` and `dvc.lock`; None where only reports are given.
    """

    reports: Path
    project: Path | None

    def files(self) -> dict[str, Path]:
        """Every result by its name in the project."""
        found = {f"reports/{path.relative_to(self.reports).as_posix()}": path
                 for path in self.reports.rglob("*")}  # fmt: skip
        if self.project:
            found |= {f"data/index/{p.name}": p for p in (self.project / "data/index").glob("*")}
            found[_PICTURE] = self.project / _PICTURE
        kept = {n: p for n, p in found.items() if p.suffix in _KINDS and p.name[0] != "."}
        return {name: path for name, path in kept.items() if path.is_file()}


def open_side(folder: Path) -> Side:
    """A project, or a folder of reports alone.

    Raises:
        ClipadError: a folder with neither.
    """
    if (folder / "reports").is_dir():
        return Side(folder / "reports", folder)
    if folder.is_dir() and any(folder.glob("summaries/*.json")):
        return Side(folder, None)
    raise ClipadError(
        f"{folder}: found no reports/ and no metrics file summaries/*.json, expected a project or its "
        "reports folder; correct the path."
    )


def compare_sides(expected: Side, found: Side, only: tuple[str, ...] | None = None) -> Comparison:
    """All parts of two sets of results, and how each method of both was computed.

    Args:
        expected: what should come out.
        found: what came out.
        only: names of files and folders that were made again; None compares everything.
    """
    ours, theirs = expected.files(), found.files()
    conditions = read_conditions(ours, theirs)
    parts, concerned = _inputs(expected, found, only, conditions), set()
    for name in sorted(ours.keys() | theirs.keys()):
        if not _asked(name, only):
            continue
        methods = concerning(name, conditions)
        concerned |= {one.method for one in methods}
        if name in ours and name in theirs:
            both = ours[name], theirs[name]
            if all(one.comparable for one in methods):
                parts += file_parts(name, *both, allowance_for(name, conditions))
            else:
                parts.append(not_comparable(name, *both))
        elif not (by_hash := _by_hash(expected, found, name)):
            side = "expected" if name in ours else "found"
            parts.append(Part("pages", name, 0, np.nan, MISSING, f"only the {side} side has it"))
        else:
            parts += by_hash
    return Comparison(parts, _notes(conditions, concerned))


def _notes(conditions: Mapping[str, Condition], concerned: set[str]) -> list[str]:
    """A line for all methods of which the same is to be said."""
    said: dict[str, list[str]] = {}
    for method in conditions.keys() & concerned:
        said.setdefault(conditions[method].sentence(), []).append(method)
    lines = [f"{', '.join(sorted(methods))}: {sentence}" for sentence, methods in said.items()]
    return sorted(lines)


def _asked(name: str, only: tuple[str, ...] | None) -> bool:
    return only is None or any(name == one or name.startswith(f"{one}/") for one in only)


def _inputs(
    expected: Side,
    found: Side,
    only: tuple[str, ...] | None,
    conditions: Mapping[str, Condition],
) -> list[Part]:
    """Data, weights and features, where both sides have them; else their hashes in dvc.lock."""
    parts: list[Part] = []
    if expected.project is None or found.project is None:
        return parts
    locks = locked(expected.project), locked(found.project)
    for place in sorted(locks[0].keys() & locks[1].keys()):
        level = "weights" if place.startswith("data/weights") else "data"
        if not place.startswith(("data/synthetic/", "data/weights/")):
            continue
        if level == "data" and not _asked(place, only):
            continue
        trees = [_tree(side.project / place) for side in (expected, found) if side.project]
        if all(trees):
            parts.append(compare_files(level, place, trees[0], trees[1]))
        else:
            parts += _by_hash(expected, found, place, level)
    both = [side.project / ".cache" / "features" for side in (expected, found) if side.project]
    if all(folder.is_dir() for folder in both):
        sides = [one.allowance.precision for one in conditions.values()]
        lowest = max(sides, key=PRECISIONS.index, default=PRECISIONS[0])
        parts += _features(both[0], both[1], declared("features", "value", lowest))
    return parts


def _tree(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {path.name: path}
    return {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.is_file()}


def _by_hash(expected: Side, found: Side, place: str, level: str = "pages") -> list[Part]:
    """What is known of a file or folder that one side lacks: its hash in dvc.lock."""
    sides = [locked(side.project) if side.project else {} for side in (expected, found)]
    ours, theirs = (side.get(place) for side in sides)
    if not ours or not theirs:
        return []
    if ours == theirs:
        return [Part(level, f"{place} (hash)", 1, 0.0, IDENTICAL)]
    where = f"the hash in dvc.lock was {ours}, is {theirs}; the expected file is not here"
    return [Part(level, f"{place} (hash)", 1, np.nan, DIFFERS, where)]


def _features(ours: Path, theirs: Path, tolerance: float) -> list[Part]:
    """Cached features that both sides have under the same key, tensor by tensor."""
    names = {p.relative_to(ours) for p in ours.rglob("*.safetensors")}
    both = sorted(names & {p.relative_to(theirs) for p in theirs.rglob("*.safetensors")})

    def pairs() -> Iterator[Pair]:
        for name in both:
            one, other, gap = ours / name, theirs / name, 0.0
            if one.read_bytes() != other.read_bytes():
                tensors = [read_tensors(path, name.stem) for path in (one, other)]
                gap = _largest_difference(*tensors)
            damaged = " (damaged on a side)" if np.isnan(gap) else ""
            yield Pair(f"{name.stem[:16]}, largest difference{damaged}", tolerance, 0.0, gap)

    return [judged("features", ".cache/features, entries of both", pairs())] if both else []


def _largest_difference(
    ours: Mapping[str, Tensor] | None, theirs: Mapping[str, Tensor] | None
) -> float:
    """Between the tensors of two entries; NaN where one of them is damaged."""
    if ours is None or theirs is None:
        return np.nan
    return max(float((v - theirs[k]).abs().max()) for k, v in ours.items() if v.numel())
