"""The parts of one result that both sides have, by the kind of its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clipad_harness.verify.conditions import Allowance
from clipad_harness.verify.differences import (
    DIFFERS,
    IDENTICAL,
    NOT_COMPARABLE,
    Part,
    compare_files,
    judged,
)
from clipad_harness.verify.result_pages import (
    explorer_parts,
    notebook_parts,
    page_parts,
    picture_pair,
)
from clipad_harness.verify.result_tables import json_parts, table_parts

_LEVELS = {".csv": "metrics", ".json": "metrics", ".png": "figures"}


def file_parts(name: str, expected: Path, actual: Path, allowance: Allowance) -> list[Part]:
    """The parts of one result; what cannot be read as expected differs.

    Where nothing may differ, other bytes differ even if no number does.
    """
    if name.endswith(("data/index/index.csv", "references.csv")):
        return [compare_files("data", name, {name: expected}, {name: actual})]
    try:
        parts = _by_kind(name, expected, actual, allowance)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [Part("pages", name, 0, np.nan, DIFFERS, f"cannot be compared ({error})")]
    alike = all(part.verdict == IDENTICAL for part in parts)
    if allowance.exact and alike and expected.read_bytes() != actual.read_bytes():
        where = "other bytes, though its numbers and pictures are the same"
        parts.append(Part(_level(name), f"{name}, bytes", 1, np.nan, DIFFERS, where))
    return parts


def _by_kind(name: str, expected: Path, actual: Path, allowance: Allowance) -> list[Part]:
    if name.endswith("explorer.html"):
        return explorer_parts(name, expected, actual, allowance)
    if name.endswith(".html"):
        return page_parts(name, expected, actual, allowance)
    if name.endswith(".ipynb"):
        return notebook_parts(name, expected, actual, allowance)
    if name.endswith(".png"):
        tolerance = allowance.of("figures", "pixel")
        pair = picture_pair("", expected.read_bytes(), actual.read_bytes(), tolerance)
        return [judged("figures", name, [pair])]
    if name.endswith(".json"):
        return json_parts(name, expected, actual, allowance)
    return table_parts(name, expected, actual, allowance)


def not_comparable(name: str, expected: Path, actual: Path) -> Part:
    """A result of other weights: only whether it is the same by chance is said of it."""
    same = expected.read_bytes() == actual.read_bytes()
    return Part(_level(name), name, 1, 0.0, IDENTICAL) if same else Part(
        _level(name), name, 1, np.nan, NOT_COMPARABLE
    )  # fmt: skip


def _level(name: str) -> str:
    return _LEVELS.get(Path(name).suffix, "pages")
