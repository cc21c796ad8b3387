"""A question put to a method: the rows of one group of `questions`, and what their numbers answer.

Rows see the same images. Each is set against one of them, its base, with the interval of the comparison
page over images and seeds; a prediction is made before, and an answer is read off the interval alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import pandas as pd

from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_core.metrics import METRIC_LABELS
from clipad_harness.experiments.contenders import Contender
from clipad_harness.experiments.pipeline import open_measured, train_missing
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.shards import measured_on
from clipad_harness.experiments.variants import question_group
from clipad_harness.report.ablations import UNMEASURED
from clipad_harness.report.comparison import seed_means
from clipad_harness.report.defect_kinds import of_kinds
from clipad_harness.report.figures import Interval, draw_intervals, show
from clipad_harness.report.side_by_side import SideBySide, differences, measure_all
from clipad_harness.report.tables import Cell, Html, Row, callout, html_table, percent

Word = Literal["yes", "no", "undecided"]
LEVELS = ("image", "pixel")
# Beside the two AUROC, whose differences have intervals.
FURTHER_METRICS = ("image_ap", "pixel_ap", "aupro")


@dataclass(frozen=True)
class Effect:
    """What a row changes against its base on the mean over categories, in points, with the interval."""

    difference: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    @property
    def interval(self) -> Interval:
        """As it is drawn."""
        return self.difference, self.low, self.high

    def __str__(self) -> str:
        """As tables print it.

        >>> print(Effect(1.25, -0.5, 3.0))
        +1.2 [−0.5, +3.0]
        """
        difference, low, high = (
            percent(value, signed=True) for value in (self.difference, self.low, self.high)
        )
        return f"{difference} [{low}, {high}]"


@dataclass(frozen=True)
class Verdict:
    """Whether a row exceeds its base by so many points: what an interval says of a prediction.

    Attributes:
        word: ``yes``: the whole interval lies above; ``no``: below; else ``undecided``.
        sentence: the numbers behind it.
    """

    word: Word
    sentence: str


def verdict_word(low: float, high: float, points: float = 0.0) -> Word:
    """What an interval says of the prediction that it lies above so many points.

    >>> verdict_word(1, 3), verdict_word(-3, -1), verdict_word(-1, 1)
    ('yes', 'no', 'undecided')
    """
    return "yes" if low > points else "no" if high < points else "undecided"


def judged(effect: Effect, points: float, subject: str) -> Verdict:
    """What an effect says of the prediction that it is above so many points.

    Args:
        subject: what the effect is of, for the sentence.

    >>> judged(Effect(2.0, 1.0, 3.0), 0.0, "a minus b").word
    'yes'
    """
    word = verdict_word(effect.low, effect.high, points)
    return Verdict(word, f"{subject}: {effect} points")


class Questions:
    """Every measured method, to be asked.

    Args:
        root: the project's folder.
        parameters: profile, dataset and categories in place of those of params.yaml.
    """

    def __init__(self, root: Path, parameters: Mapping[str, Any] | None = None) -> None:
        self.runs = {run.name: run for run in open_measured(root, parameters)}
        self._scorers: dict[str, Scorer] = {}

    def scorer(self, method: str) -> Scorer:
        """Of a method that is measured; one for all of its questions."""
        if method not in self._scorers:
            self._scorers[method] = self.runs[method].scorer()
        return self._scorers[method]

    def ask(self, method: str, group: str) -> Asked:
        """The rows of one group of a method's `questions`; none where this run leaves them out."""
        if method not in self.runs:
            return Asked(method, group, (), ())
        run, scorer, name = self.runs[method], self.scorer(method), question_group(group)
        variants = [one for one in run.variants if one.name.startswith(f"{name}/")]
        train_missing(run, scorer, variants)
        among = [Contender(run, scorer, k, one) for one in variants for k in one.k_shots]
        categories = measured_on(name, run.categories, run.profile.ablation_categories)
        return Asked(method, group, among, categories)


class Asked:
    """The rows of a question on the same images.

    Args:
        method: its name.
        group: below `questions` of the method's section.
        among: the rows, in the order of params.yaml; none where they are not measured.
        categories: on which they are.
        kinds: of damage that count beside the normal images; None: all.
    """

    def __init__(
        self,
        method: str,
        group: str,
        among: Sequence[Contender],
        categories: Sequence[str],
        kinds: Collection[str] | None = None,
    ) -> None:
        self.method, self.group, self.among, self.categories = method, group, among, categories
        self.kinds = kinds
        self.title = find_method(method).title
        self._effects: dict[tuple[str, str, str], Effect] = {}

    @cached_property
    def measured(self) -> SideBySide:
        """All rows on the same images."""
        whole = measure_all(self.among, self.categories)
        return whole if self.kinds is None else of_kinds(whole, self.kinds)

    @property
    def labels(self) -> list[str]:
        """Of every row, in the order of params.yaml."""
        return [contender.label for contender in self.among]

    def row(self, label: str) -> Contender:
        """A row by its label.

        Raises:
            ClipadError: there is none; the message lists them.
        """
        for contender in self.among:
            if contender.label == label:
                return contender
        raise ClipadError(
            f"{self.method}.questions.{self.group}: found no row {label!r}, expected one of "
            f"{', '.join(self.labels) or 'none'}."
        )

    def values(self, metric: str) -> pd.Series:
        """A metric of every row, per cent, mean over categories and seeds; nan where undefined."""
        means = seed_means(self.measured, metric).groupby("contender")["value"].mean()
        return means.reindex(self.labels)

    def effect(self, label: str, base: str, level: str) -> Effect:
        """A row minus another by the AUROC of a level, ``image`` or ``pixel``."""
        key = (self.row(label).label, self.row(base).label, level)
        if key not in self._effects:
            frame = differences(self.measured, *key)
            difference, low, high = (
                float(frame[name].iloc[-1]) for name in ("difference", "low", "high")
            )
            self._effects[key] = Effect(difference, low, high)
        return self._effects[key]

    def table(self, base: str) -> Html:
        """The rows with their metrics, and what each changes against its base."""
        if not self.among:
            return self._absent()
        aurocs = {level: self.values(f"{level}_auroc") for level in LEVELS}
        further = {metric: self.values(metric) for metric in FURTHER_METRICS}
        body = []
        for label in self.labels:
            cells = [Cell(label, "row")]
            for level, values in aurocs.items():
                effect = "base" if label == base else str(self.effect(label, base, level))
                cells += [Cell(percent(values[label]), kind="number"), Cell(effect, kind="number")]
            cells += [Cell(percent(values[label]), kind="number") for values in further.values()]
            body.append(Row(cells))
        heads = [Cell(self.title, "col")]
        for level in LEVELS:
            name = METRIC_LABELS[f"{level}_auroc"]
            heads += [Cell(name, "col", "number"), Cell("to base", "col", "number")]
        heads += [Cell(METRIC_LABELS[metric], "col", "number") for metric in FURTHER_METRICS]
        caption = (
            f"Mean over categories, per cent; beside it the points to {base} with the 95 % interval over "
            "images and seeds. AUPRO at every distinct threshold"
        )
        return html_table(caption, [heads], body)

    def figure(self, base: str) -> None:
        """Display what every row changes against its base, with intervals; nothing without rows."""
        if not self.among:
            return
        names = [label for label in self.labels if label != base]
        figure, axes = plt.subplots(1, 2, figsize=(9.0, 0.9 + 0.26 * len(names)), sharey=True)
        said = []
        for panel, level in zip(axes, LEVELS, strict=True):
            effects = {name: self.effect(name, base, level) for name in names}
            draw_intervals(panel, names, (effect.interval for effect in effects.values()))
            panel.set_title(f"{level} AUROC, points", fontsize=9.5)
            said += [f"{name} {effect} by {level} AUROC" for name, effect in effects.items()]
        about = f"{self.title}: each row minus {base}, 95 % intervals over images and seeds."
        show(figure, f"{about} {'; '.join(said)}.", caption=about)

    def verdict(self, label: str, base: str, level: str, points: float = 0.0) -> Verdict | None:
        """Whether a row exceeds another by more than so many points of AUROC; None without rows.

        Args:
            level: `image` or `pixel`.
            points: 0: is it better; -1: does it cost less than a point.
        """
        if not self.among:
            return None
        subject = f"{label} minus {base} by {level} AUROC"
        return judged(self.effect(label, base, level), points, subject)

    def answer(self, verdict: Verdict | None, yes: str, no: str) -> Html:
        """The answer: what the verdict means, the numbers behind it, and what they rest on.

        Args:
            verdict: of the prediction; None: not measured.
            yes: what it means that the prediction holds, a sentence.
            no: what it means that it fails.
        """
        if verdict is None:
            return self._absent()
        meaning = {
            "yes": f"Yes. {yes}",
            "no": f"No. {no}",
            "undecided": "Undecided on these weights: the interval holds what was predicted and its "
            "contrary.",
        }[verdict.word]
        first = self.among[0]
        images = sum(len(self.measured.drawn[first.label, name].labels) for name in self.categories)
        kind = first.scorer.backbone(first.variant.config).kind
        basis = f"{images} images of {len(self.categories)} categories, {kind} weights"
        return callout(f"{meaning} {verdict.sentence}; {basis}.")

    def _absent(self) -> Html:
        return callout(f"{self.title}, {self.group}: {UNMEASURED}.")
