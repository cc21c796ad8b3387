"""The numbers and figures in each kind of result, as pairs of both sides."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
from bs4 import BeautifulSoup
from PIL import Image

from clipad_harness.differences import (
    CLOSE,
    DIFFERS,
    IDENTICAL,
    Pair,
    Part,
    compare_files,
    judged,
)
from clipad_harness.explorer import read_explorer_data
from clipad_harness.tables import METRIC_LABELS

_NUMBER = re.compile(r"[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
# What names a row of a results table, or of loss curves.
_HEAD = (
    *("method", "variant", "backbone", "dataset", "category", "k_shot", "seed", "metric"),
    *("epoch", "part"),
)


def file_parts(name: str, ours: Path, theirs: Path) -> list[Part]:
    """The parts of one result; what cannot be read as expected differs."""
    same = ours.read_bytes() == theirs.read_bytes()
    try:
        if name.endswith("explorer.html"):
            return [judged("scores", name, _explorer_pairs(ours, theirs))]
        if name.endswith(".html"):
            return [judged("pages", name, _page_pairs(ours, theirs, same))]
        if name.endswith(".ipynb"):
            return _notebook(name, ours, theirs)
        if name.endswith(".png"):
            return [
                judged("figures", name, [_picture_pair("", ours.read_bytes(), theirs.read_bytes())])
            ]
        if name.endswith(".json"):
            both = [json.loads(path.read_text(encoding="utf-8")) for path in (ours, theirs)]
            return [judged("metrics", name, _json_pairs(both[0], both[1]))]
    except (ValueError, KeyError, AttributeError) as error:
        return [Part("pages", name, 0, np.nan, DIFFERS, f"cannot be compared ({error})")]
    if name.startswith("data/") or name.endswith("references.csv"):
        return [compare_files("data", name, {name: ours}, {name: theirs})]
    return _table(name, pd.read_csv(ours), pd.read_csv(theirs))


def _table(name: str, ours: pd.DataFrame, theirs: pd.DataFrame) -> list[Part]:
    """A results table, loss curves, or a table with a column a metric in per cent."""
    if "epoch" in ours.columns:
        ours, theirs = (frame.assign(metric="loss") for frame in (ours, theirs))
    elif "metric" not in ours.columns:
        keys = [column for column in ours.columns if column not in METRIC_LABELS]
        ours, theirs = (
            frame.melt(keys, var_name="metric").assign(value=lambda f: f["value"] / 100)
            for frame in (ours, theirs)
        )
    head = [column for column in ours.columns if column in _HEAD]
    joined = ours.merge(theirs, on=head, how="outer", suffixes=("", "_found"), indicator=True)
    rows = joined.to_dict("records")
    parts = []
    if "key" in joined.columns:
        other = int((joined["key"] != joined["key_found"]).sum())
        where = (
            f"{other} of {len(joined)} rows were made from other data, weights, code or settings"
        )
        verdict = CLOSE if other else IDENTICAL
        parts.append(
            Part("scores", f"{name}, keys of shards", len(joined), np.nan if other else 0.0,
                 verdict, where if other else "")
        )  # fmt: skip
    pairs = [
        Pair(
            ", ".join(f"{column} {row[column]}" for column in head if joined[column].nunique() > 1),
            str(row["metric"]),
            _side(row["value"], row["_merge"] != "right_only"),
            _side(row["value_found"], row["_merge"] != "left_only"),
        )
        for row in rows
    ]
    return [*parts, judged("metrics", name, pairs)]


def _side(value: Any, is_there: bool) -> float | None:
    return float(value) if is_there else None


def _json_pairs(ours: Any, theirs: Any, where: str = "", metric: str = "value") -> Iterator[Pair]:
    """Every number of two JSON files; in a headline they are per cent."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            place = f"{where}.{key}" if where else str(key)
            name = key if key in METRIC_LABELS else metric
            yield from _json_pairs(ours.get(key), theirs.get(key), place, name)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, (one, other) in enumerate(zip(ours, theirs)):
            yield from _json_pairs(one, other, f"{where}[{i}]", metric)
    elif all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in (ours, theirs)):
        scale = 1 if metric == "value" else 100
        yield Pair(where, metric, ours / scale, theirs / scale)
    elif ours != theirs:
        yield Pair(where, metric, None, None)


def _explorer_pairs(ours: Path, theirs: Path) -> Iterator[Pair]:
    """Image scores, thresholds and the range of every map."""
    both = [read_explorer_data(path.read_text(encoding="utf-8")) for path in (ours, theirs)]
    yield from _json_pairs(*(_scores_only(one) for one in both))


def _scores_only(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _scores_only(v) for k, v in value.items() if k not in ("overlap", "marked")}
    if isinstance(value, list):
        return [_scores_only(one) for one in value]
    return "" if isinstance(value, str) and value.startswith("data:") else value


def _notebook(name: str, ours: Path, theirs: Path) -> list[Part]:
    books = [nbformat.read(path, as_version=4) for path in (ours, theirs)]
    facts = [book.metadata.get("clipad", {}).get("provenance", {}) for book in books]
    parts = [
        _fact(level, f"{name}, {label}", facts[0].get(label), facts[1].get(label))
        for level, label in (("data", "data hash"), ("weights", "weights hash"))
    ]
    pictures = [list(_pictures(book)) for book in books]
    count = max(len(some) for some in pictures)
    pairs = [
        _picture_pair(f"figure {i + 1}", pictures[0][i], pictures[1][i])
        if i < min(map(len, pictures)) else Pair(f"figure {i + 1}", "pixel", None, None)
        for i in range(count)
    ]  # fmt: skip
    return [*parts, judged("figures", f"{name}, figures", pairs)]


def _fact(level: str, name: str, ours: object, theirs: object) -> Part:
    if ours == theirs:
        return Part(level, name, 1, 0.0, IDENTICAL)
    return Part(level, name, 1, np.nan, DIFFERS, f"expected {ours}, found {theirs}")


def _pictures(book: nbformat.NotebookNode) -> Iterator[bytes]:
    for cell in book.cells:
        for output in cell.get("outputs", []):
            for kind, data in sorted(output.get("data", {}).items()):
                if kind in ("image/png", "image/jpeg"):
                    yield base64.b64decode(data)


def _picture_pair(where: str, ours: bytes, theirs: bytes) -> Pair:
    """The mean absolute difference of the pixels, from 0 to 1; None where the sizes differ."""
    if ours == theirs:
        return Pair(where, "pixel", 0.0, 0.0)
    one, other = (
        np.asarray(Image.open(io.BytesIO(b)).convert("RGB"), float) for b in (ours, theirs)
    )
    if one.shape != other.shape:
        return Pair(where, "pixel", None, None)
    # Other bytes, though no pixel moved, are not identical.
    return Pair(where, "pixel", 0.0, max(float(np.abs(one - other).mean()) / 255, 1e-12))


def _page_pairs(ours: Path, theirs: Path, same: bool) -> Iterator[Pair]:
    """The numbers that a reader sees; what made the page stands below and is compared by its hashes."""
    if same:
        yield Pair("the page", "number", 0.0, 0.0)
        return
    texts = []
    for path in (ours, theirs):
        main = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").main
        texts.append(main.get_text(" ", strip=True) if main else "")
    numbers = [_NUMBER.findall(text) for text in texts]
    if len(numbers[0]) != len(numbers[1]) or _NUMBER.sub("#", texts[0]) != _NUMBER.sub(
        "#", texts[1]
    ):
        yield Pair("its words", "number", None, None)
        return
    for one, other in zip(*numbers, strict=True):
        values = [float(text.replace(",", "").replace("−", "-")) for text in (one, other)]
        yield Pair(f"the number {one}", "number", *values)
