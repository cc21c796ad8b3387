"""The numbers, words and pictures of pages and figures, as pairs of both sides."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from bs4 import BeautifulSoup
from PIL import Image

from clipad_core.methods import find_method, rooms
from clipad_harness.site.explorer_data import read_explorer_data
from clipad_harness.verify.conditions import Allowance
from clipad_harness.verify.differences import DIFFERS, IDENTICAL, Pair, Part, judged
from clipad_harness.verify.result_tables import json_pairs

_NUMBER = re.compile(r"[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
# What is compared of the explorer where scores of trained methods follow the spread over seeds.
_UNTRAINED = "methods that learn nothing"


def page_parts(name: str, expected: Path, actual: Path, allowance: Allowance) -> list[Part]:
    """The numbers that a reader sees; what made the page stands below and is compared by its hashes."""
    if expected.read_bytes() == actual.read_bytes():
        return [Part("pages", name, 1, 0.0, IDENTICAL)]
    tolerance = allowance.of("pages", "number")
    return [judged("pages", name, _page_pairs(expected, actual, tolerance))]


def _page_pairs(expected: Path, actual: Path, tolerance: float | None) -> Iterator[Pair]:
    texts = []
    for path in (expected, actual):
        main = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").main
        texts.append(main.get_text(" ", strip=True) if main else "")
    numbers = [_NUMBER.findall(text) for text in texts]
    words = [_NUMBER.sub("#", text) for text in texts]
    if words[0] != words[1]:
        yield Pair("its words", tolerance, None, None)
        return
    for expected_number, actual_number in zip(*numbers, strict=True):
        values = [
            float(text.replace(",", "").replace("−", "-"))
            for text in (expected_number, actual_number)
        ]
        yield Pair(f"the number {expected_number}", tolerance, *values)


def explorer_parts(name: str, expected: Path, actual: Path, allowance: Allowance) -> list[Part]:
    """Image scores, thresholds and the range of every map.

    Below float64 a training moves the scores of its method, and nobody measured how far one score may
    go; then those of methods that learn nothing are compared alone, of all images of a category.
    """
    records: list[Any] = [
        read_explorer_data(path.read_text(encoding="utf-8")) for path in (expected, actual)
    ]
    if allowance.learned and not allowance.exact:
        records, name = [_untrained(record) for record in records], f"{name}, {_UNTRAINED}"
    tolerance = allowance.of("scores", "value")
    pairs = (
        Pair(place, tolerance, expected_value, actual_value)
        for place, expected_value, actual_value in json_pairs(*map(_scores_only, records))
    )
    return [judged("scores", name, pairs)]


def _untrained(record: Mapping[str, Any]) -> list[Any]:
    methods = [find_method(name) for name in rooms()]
    titles = tuple(method.title for method in methods if method.training is None)
    places = [i for i, label in enumerate(record["methods"]) if label.startswith(titles)]
    return [[category["methods"][i] for i in places] for category in record["categories"]]


def _scores_only(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _scores_only(v) for k, v in value.items() if k not in ("overlap", "marked")}
    if isinstance(value, list):
        return [_scores_only(item) for item in value]
    return "" if isinstance(value, str) and value.startswith("data:") else value


def notebook_parts(name: str, expected: Path, actual: Path, allowance: Allowance) -> list[Part]:
    """Hashes of data and weights, and the figures one by one."""
    books = [nbformat.read(path, as_version=4) for path in (expected, actual)]
    facts = [book.metadata.get("clipad", {}).get("provenance", {}) for book in books]
    parts = [
        _fact(level, f"{name}, {label}", facts[0].get(label), facts[1].get(label))
        for level, label in (("data", "data hash"), ("weights", "weights hash"))
    ]
    pictures = [list(_pictures(book)) for book in books]
    tolerance = allowance.of("figures", "pixel")
    count = max(len(figures) for figures in pictures)
    pairs = [
        picture_pair(f"figure {i + 1}", pictures[0][i], pictures[1][i], tolerance)
        if i < min(map(len, pictures)) else Pair(f"figure {i + 1}", tolerance, None, None)
        for i in range(count)
    ]  # fmt: skip
    return [*parts, judged("figures", f"{name}, figures", pairs)]


def _fact(level: str, name: str, expected: object, actual: object) -> Part:
    if expected == actual:
        return Part(level, name, 1, 0.0, IDENTICAL)
    return Part(level, name, 1, np.nan, DIFFERS, f"expected {expected}, found {actual}")


def _pictures(book: nbformat.NotebookNode) -> Iterator[bytes]:
    for cell in book.cells:
        for output in cell.get("outputs", []):
            for kind, data in sorted(output.get("data", {}).items()):
                if kind in ("image/png", "image/jpeg"):
                    yield base64.b64decode(data)


def picture_pair(where: str, expected: bytes, actual: bytes, tolerance: float | None) -> Pair:
    """The mean absolute difference of the pixels, from 0 to 1; None where the sizes differ."""
    if expected == actual:
        return Pair(where, tolerance, 0.0, 0.0)
    expected_pixels, actual_pixels = (
        np.asarray(Image.open(io.BytesIO(b), formats=["PNG", "JPEG"]).convert("RGB"), float)
        for b in (expected, actual)
    )
    if expected_pixels.shape != actual_pixels.shape:
        return Pair(where, tolerance, None, None)
    # Other bytes, though no pixel moved, are not identical.
    return Pair(
        where,
        tolerance,
        0.0,
        max(float(np.abs(expected_pixels - actual_pixels).mean()) / 255, 1e-12),
    )
