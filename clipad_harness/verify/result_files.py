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
        files = {f"reports/{path.relative_to(self.reports).as_posix()}": path
                 for path in self.reports.rglob("*")}  # fmt: skip
        if self.project:
            files |= {f"data/index/{p.name}": p for p in (self.project / "data/index").glob("*")}
            files[_PICTURE] = self.project / _PICTURE
        results = {n: p for n, p in files.items() if p.suffix in _KINDS and p.name[0] != "."}
        return {name: path for name, path in results.items() if path.is_file()}


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


def compare_sides(expected: Side, actual: Side, only: tuple[str, ...] | None = None) -> Comparison:
    """All parts of two sets of results, and how each method of both was computed.

    Args:
        expected: what should come out.
        actual: what came out.
        only: names of files and folders that were made again; None compares everything.
    """
    expected_files, actual_files = expected.files(), actual.files()
    conditions = read_conditions(expected_files, actual_files)
    parts, concerned = _inputs(expected, actual, only, conditions), set()
    for name in sorted(expected_files.keys() | actual_files.keys()):
        if not _is_selected(name, only):
            continue
        methods = concerning(name, conditions)
        concerned |= {condition.method for condition in methods}
        if name in expected_files and name in actual_files:
            paths = expected_files[name], actual_files[name]
            if all(condition.comparable for condition in methods):
                parts += file_parts(name, *paths, allowance_for(name, conditions))
            else:
                parts.append(not_comparable(name, *paths))
        elif not (by_hash := _by_hash(expected, actual, name)):
            side = "expected" if name in expected_files else "found"
            parts.append(Part("pages", name, 0, np.nan, MISSING, f"only the {side} side has it"))
        else:
            parts += by_hash
    return Comparison(parts, _notes(conditions, concerned))


def _notes(conditions: Mapping[str, Condition], concerned: set[str]) -> list[str]:
    """A line for all methods of which the same is to be said."""
    methods_by_sentence: dict[str, list[str]] = {}
    for method in conditions.keys() & concerned:
        methods_by_sentence.setdefault(conditions[method].sentence(), []).append(method)
    lines = [
        f"{', '.join(sorted(methods))}: {sentence}"
        for sentence, methods in methods_by_sentence.items()
    ]
    return sorted(lines)


def _is_selected(name: str, only: tuple[str, ...] | None) -> bool:
    return only is None or any(name == path or name.startswith(f"{path}/") for path in only)


def _inputs(
    expected: Side,
    actual: Side,
    only: tuple[str, ...] | None,
    conditions: Mapping[str, Condition],
) -> list[Part]:
    """Data, weights and features, where both sides have them; else their hashes in dvc.lock."""
    parts: list[Part] = []
    if expected.project is None or actual.project is None:
        return parts
    locks = locked(expected.project), locked(actual.project)
    for place in sorted(locks[0].keys() & locks[1].keys()):
        level = "weights" if place.startswith("data/weights") else "data"
        if not place.startswith(("data/synthetic/", "data/weights/")):
            continue
        if level == "data" and not _is_selected(place, only):
            continue
        trees = [_tree(side.project / place) for side in (expected, actual) if side.project]
        if all(trees):
            parts.append(compare_files(level, place, trees[0], trees[1]))
        else:
            parts += _by_hash(expected, actual, place, level)
    caches = [side.project / ".cache" / "features" for side in (expected, actual) if side.project]
    if all(folder.is_dir() for folder in caches):
        precisions = [condition.allowance.precision for condition in conditions.values()]
        lowest = max(precisions, key=PRECISIONS.index, default=PRECISIONS[0])
        parts += _features(caches[0], caches[1], declared("features", "value", lowest))
    return parts


def _tree(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {path.name: path}
    return {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.is_file()}


def _by_hash(expected: Side, actual: Side, place: str, level: str = "pages") -> list[Part]:
    """What is known of a file or folder that one side lacks: its hash in dvc.lock."""
    sides = [locked(side.project) if side.project else {} for side in (expected, actual)]
    expected_hash, actual_hash = (side.get(place) for side in sides)
    if not expected_hash or not actual_hash:
        return []
    if expected_hash == actual_hash:
        return [Part(level, f"{place} (hash)", 1, 0.0, IDENTICAL)]
    where = (
        f"the hash in dvc.lock was {expected_hash}, is {actual_hash}; the expected file is not here"
    )
    return [Part(level, f"{place} (hash)", 1, np.nan, DIFFERS, where)]


def _features(expected: Path, actual: Path, tolerance: float) -> list[Part]:
    """Cached features that both sides have under the same key, tensor by tensor."""
    names = {p.relative_to(expected) for p in expected.rglob("*.safetensors")}
    shared = sorted(names & {p.relative_to(actual) for p in actual.rglob("*.safetensors")})

    def pairs() -> Iterator[Pair]:
        for name in shared:
            expected_entry, actual_entry, gap = expected / name, actual / name, 0.0
            if expected_entry.read_bytes() != actual_entry.read_bytes():
                tensors = [read_tensors(path, name.stem) for path in (expected_entry, actual_entry)]
                gap = _largest_difference(*tensors)
            damaged = " (damaged on a side)" if np.isnan(gap) else ""
            yield Pair(f"{name.stem[:16]}, largest difference{damaged}", tolerance, 0.0, gap)

    return [judged("features", ".cache/features, entries of both", pairs())] if shared else []


def _largest_difference(
    expected: Mapping[str, Tensor] | None, actual: Mapping[str, Tensor] | None
) -> float:
    """Between the tensors of two entries; NaN where one of them is damaged."""
    if expected is None or actual is None:
        return np.nan
    return max(float((v - actual[k]).abs().max()) for k, v in expected.items() if v.numel())
