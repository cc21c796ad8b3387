"""How each side of a comparison was computed, and how much of a difference follows from that.

Weights, precision and kind of device are part of every result. Where they are the same float64 on a
CPU, nothing may differ; where they are not, the figure of the lower precision holds; numbers of other
weights are not comparable at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from clipad_core.methods import find_method, rooms
from clipad_harness.verify.spread import Spread, spread_of
from clipad_harness.verify.tolerances import PRECISIONS, declared

# Results of a time when only this was computed say nothing.
UNRECORDED = ("float32", "cpu")


@dataclass(frozen=True)
class Computed:
    """How one side's results of one method were computed.

    Attributes:
        weights: as a report calls them.
        digest: of the weights; "" where only `weights` is known.
        precision: the lowest of all variants.
        device: kind of device.
    """

    weights: str
    digest: str
    precision: str
    device: str

    def __str__(self) -> str:
        return f"{self.precision} on {self.device}"


@dataclass(frozen=True)
class Allowance:
    """What may differ in one file.

    Attributes:
        precision: whose declared tolerance holds; float64 allows nothing.
        learned: whether a trained method is in it, whose numbers follow the spread over its seeds.
        spread: that spread; None where it was not measured.
    """

    precision: str
    learned: bool = False
    spread: Spread | None = None

    @property
    def exact(self) -> bool:
        """Whether bytes decide."""
        return self.precision == "float64"

    def of(self, level: str, metric: str, categories: int = 1, seeds: int = 1) -> float | None:
        """The tolerance of a value, of one shard or of a mean; None: nothing tells.

        Args:
            level: of the part.
            metric: name of the metric, `value`, `pixel`, `number`, or a part of the loss.
            categories: over how many the mean is taken.
            seeds: over how many the mean is taken.

        >>> Allowance("float64").of("metrics", "aupro")
        0.0
        >>> Allowance("float32", learned=True).of("metrics", "aupro") is None
        True
        """
        if not self.exact and self.learned and level in ("metrics", "pages"):
            return self.spread.tolerance(metric, categories, seeds) if self.spread else None
        return declared(level, metric, self.precision)

    def of_deviation(self, metric: str, seeds: int) -> float | None:
        """The tolerance of a metric's standard deviation over seeds."""
        if not self.exact and self.learned:
            return self.spread.tolerance_of_deviation(metric, seeds) if self.spread else None
        return declared("metrics", metric, self.precision)

    def at(self, expected: tuple[str, str], actual: tuple[str, str]) -> Allowance:
        """The one for a row whose precision and device each side names."""
        return replace(self, precision=lower(expected, actual))


@dataclass(frozen=True)
class Condition:
    """Both sides of one method; one that has no results is None."""

    method: str
    expected: Computed | None
    actual: Computed | None
    spread: Spread | None = None

    @property
    def comparable(self) -> bool:
        """Whether both sides have the same weights, as far as they say."""
        expected, actual = self.expected, self.actual
        if expected is None or actual is None:
            return True
        have_digests = bool(expected.digest and actual.digest)
        return (
            expected.digest == actual.digest if have_digests else expected.weights == actual.weights
        )

    @property
    def allowance(self) -> Allowance:
        """What may differ in files of this method alone."""
        sides = [(s.precision, s.device) for s in (self.expected, self.actual) if s is not None]
        return Allowance(lower(*sides), _learns(self.method), self.spread)

    def sentence(self) -> str:
        """What follows for the comparison, without the method's name."""
        expected, actual = self.expected, self.actual
        if expected is None or actual is None:
            return f"only the {'found' if expected is None else 'expected'} side has results"
        if not self.comparable:
            return f"other weights, {_weights(expected)} against {_weights(actual)}: not comparable"
        how = (
            f"{expected} on both sides"
            if str(expected) == str(actual)
            else f"{expected} against {actual}"
        )
        allowance = self.allowance
        if allowance.exact:
            return f"{how}: nothing may differ"
        if not allowance.learned:
            return f"{how}: tolerance of {allowance.precision}"
        if self.spread is None:
            return f"{how}: no spread measured, at least two seeds needed: numbers are not judged"
        return f"{how}: tolerance from the spread over {self.spread.seeds} seeds"


def _weights(side: Computed) -> str:
    return f"{side.weights} {side.digest[:8]}".strip()


def lower(*sides: tuple[str, str]) -> str:
    """The precision whose figure holds between sides, each a precision and a kind of device.

    Another device than the CPU orders additions in its own way, and its float64 is not equal to the bit:
    the figure of float32, which is larger, holds there as well.

    >>> lower(("float64", "cpu"), ("float32", "cpu")), lower(("float64", "cuda"), ("float64", "cpu"))
    ('float32', 'float32')
    """
    precisions = [precision for precision, _ in sides] or [UNRECORDED[0]]
    lowest = max(precisions, key=PRECISIONS.index)
    on_cpu = all(device == "cpu" for _, device in sides)
    return lowest if on_cpu or lowest != "float64" else "float32"


def read_conditions(
    expected: Mapping[str, Path], actual: Mapping[str, Path]
) -> dict[str, Condition]:
    """Of every method that a side has results of; sides are files by name.

    The spread over seeds is the expected side's where that has one.
    """
    conditions = {}
    for method in rooms():
        expected_computed, actual_computed = _computed(expected, method), _computed(actual, method)
        if expected_computed or actual_computed:
            spread = None
            if _learns(method):
                spread = spread_of(expected, method) or spread_of(actual, method)
            conditions[method] = Condition(method, expected_computed, actual_computed, spread)
    return conditions


def _learns(method: str) -> bool:
    return find_method(method).training is not None


def allowance_for(name: str, conditions: Mapping[str, Condition]) -> Allowance:
    """What may differ in a file: by its method, or by all of them; nothing where there is none."""
    concerned = concerning(name, conditions)
    if name.startswith("data/"):
        return Allowance("float64")
    if not concerned:
        return Allowance(UNRECORDED[0])
    allowances = [condition.allowance for condition in concerned]
    moving = [allowance for allowance in allowances if allowance.learned and not allowance.exact]
    spreads = [allowance.spread for allowance in moving if allowance.spread]
    whole = len(spreads) == len(moving)
    return Allowance(
        max((allowance.precision for allowance in allowances), key=PRECISIONS.index),
        bool(moving),
        Spread.widest(spreads) if spreads and whole else None,
    )


def concerning(name: str, conditions: Mapping[str, Condition]) -> list[Condition]:
    """The methods whose results a file holds; one that names none holds all."""
    if name.startswith("data/"):
        return []
    own = [conditions[part] for part in re.split(r"[/.]", name) if part in conditions]
    return own or list(conditions.values())


def _computed(files: Mapping[str, Path], method: str) -> Computed | None:
    """From the results table, else from the metrics file, which alone knows the digest."""
    summary = _read_json(files.get(f"reports/summaries/{method}.json"))
    own = Computed(
        str(summary.get("backbone", "")),
        str(summary.get("weights_hash", "")),
        str(summary.get("precision", UNRECORDED[0])),
        str(summary.get("device", UNRECORDED[1])),
    )
    path = files.get(f"reports/results/{method}/results.csv")
    if path is None:
        return own if summary else None
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if table.empty or "backbone" not in table:
        return own if summary else None
    weights = str(table["backbone"].iloc[0])
    precision, device = own.precision, own.device
    if {"precision", "device"} <= set(table.columns):
        precision = max(table["precision"], key=_rank)
        device = next((kind for kind in table["device"] if kind != "cpu"), "cpu")
    elif not summary:
        precision, device = UNRECORDED
    # A metrics file of other weights is of an earlier run.
    return Computed(weights, own.digest if own.weights == weights else "", precision, device)


def _rank(precision: str) -> int:
    return PRECISIONS.index(precision) if precision in PRECISIONS else -1


def _read_json(path: Path | None) -> dict[str, object]:
    """A metrics file as it is; {} for what is none, which the comparison of files names."""
    if path is None:
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
