"""The numbers of tables and metrics files, as pairs of both sides with the tolerance of each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clipad_core.metrics import METRIC_LABELS
from clipad_harness.verify.conditions import UNRECORDED, Allowance
from clipad_harness.verify.differences import CLOSE, IDENTICAL, Pair, Part, judged

# What names a row of a results table, or of loss curves; how a row was computed is no part of it.
_HEAD = (
    *("method", "variant", "backbone", "dataset", "category", "k_shot", "seed", "metric"),
    *("epoch", "part"),
)
_HOW = ("precision", "device")
# Two values in per cent with two decimals, as a table by category has them.
_ROUNDING = 1e-4


def table_parts(name: str, expected: Path, actual: Path, allowance: Allowance) -> list[Part]:
    """A results table, loss curves, or a table with a column a metric in per cent."""
    frames = [_tidy(pd.read_csv(path)) for path in (expected, actual)]
    head = [column for column in frames[0].columns if column in _HEAD]
    joined = frames[0].merge(
        frames[1], on=head, how="outer", suffixes=("", "_actual"), indicator=True
    )
    parts = []
    if {"key", "key_actual"} <= set(joined.columns):
        parts.append(_keys(name, joined))
    varying = [column for column in head if joined[column].nunique() > 1]
    by_category = "key" not in joined.columns and "epoch" not in joined.columns
    pairs = [
        Pair(
            ", ".join(f"{column} {row[column]}" for column in varying),
            _row_tolerance(row, allowance, by_category),
            _side(row["value"], row["_merge"] != "right_only"),
            _side(row["value_actual"], row["_merge"] != "left_only"),
        )
        for row in joined.to_dict("records")
    ]
    return [*parts, judged("metrics", name, pairs)]


def _tidy(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a value, whatever the table."""
    if "epoch" in frame.columns:
        return frame
    if "metric" in frame.columns:
        unrecorded = dict(zip(_HOW, UNRECORDED, strict=True))
        return frame.assign(**{k: v for k, v in unrecorded.items() if k not in frame.columns})
    keys = [column for column in frame.columns if column not in METRIC_LABELS]
    return frame.melt(keys, var_name="metric").assign(value=lambda f: f["value"] / 100)


def _keys(name: str, joined: pd.DataFrame) -> Part:
    changed = int((joined["key"] != joined["key_actual"]).sum())
    where = f"{changed} of {len(joined)} rows were made from other data, weights, code or settings"
    gap, verdict = (np.nan, CLOSE) if changed else (0.0, IDENTICAL)
    label = f"{name}, keys of shards"
    return Part("scores", label, len(joined), gap, verdict, where if changed else "")


def _row_tolerance(row: dict, allowance: Allowance, by_category: bool) -> float | None:
    if "epoch" in row:
        return allowance.of("metrics", str(row["part"]))
    metric = str(row["metric"])
    if by_category:
        seeds = allowance.spread.seeds if allowance.spread else 1
        tolerance = allowance.of("metrics", metric, seeds=seeds)
        return tolerance if allowance.exact or tolerance is None else tolerance + _ROUNDING
    how = [(row[f"precision{end}"], row[f"device{end}"]) for end in ("", "_actual")]
    if any(precision != precision for precision, _ in how):  # one side lacks the row
        return allowance.of("metrics", metric)
    return allowance.at(*how).of("metrics", metric)


def _side(value: Any, is_there: bool) -> float | None:
    return float(value) if is_there else None


def json_parts(name: str, expected: Path, actual: Path, allowance: Allowance) -> list[Part]:
    """Every number of two metrics files; how they were computed stands above the table instead."""
    records = [
        _without(json.loads(path.read_text(encoding="utf-8")), (*_HOW, "weights_hash"))
        for path in (expected, actual)
    ]
    pairs = (_json_pair(*entry, allowance, records[0]) for entry in json_pairs(*records))
    return [judged("metrics", name, pairs)]


def _without(record: Any, names: tuple[str, ...]) -> Any:
    if not isinstance(record, dict):
        return record
    return {name: value for name, value in record.items() if name not in names}


def _json_pair(place: str, expected: Any, actual: Any, allowance: Allowance, record: Any) -> Pair:
    """In a headline numbers are per cent; what a paper prints does not move."""
    if expected is None or actual is None:
        return Pair(place, 0.0, None, None)
    *_, metric, field = ["", "", *place.split(".")]
    if metric not in METRIC_LABELS:
        return Pair(place, 0.0, expected, actual)
    categories, seeds = (int(record.get(name) or 1) for name in ("categories", "seeds"))
    tolerance: float | None = 0.0
    if field in ("ours", "difference"):
        tolerance = allowance.of("metrics", metric, categories, seeds)
    elif field == "ours_std":
        tolerance = allowance.of_deviation(metric, seeds)
    return Pair(place, tolerance, expected / 100, actual / 100)


def json_pairs(expected: Any, actual: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every number of both sides with its place; None and None for texts that differ."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted(expected.keys() | actual.keys()):
            place = f"{where}.{key}" if where else str(key)
            yield from json_pairs(expected.get(key), actual.get(key), place)
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for i, (expected_item, actual_item) in enumerate(zip(expected, actual)):
            yield from json_pairs(expected_item, actual_item, f"{where}[{i}]")
    elif all(
        isinstance(value, (int, float)) and not isinstance(value, bool)
        for value in (expected, actual)
    ):
        yield where, expected, actual
    elif expected != actual:
        yield where, None, None
