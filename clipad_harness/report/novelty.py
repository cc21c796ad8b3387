"""Novelty scores side by side: tasks of other fields, with intervals over the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import matplotlib.pyplot as plt
import numpy as np
import seaborn
from numpy.typing import NDArray

from clipad_harness.experiments.novelty import Novelty
from clipad_harness.report.figures import PALETTE, show
from clipad_harness.report.questions import Effect, Verdict, verdict_word
from clipad_harness.report.side_by_side import Drawn, aurocs, image_weights, middle
from clipad_harness.report.tables import DASH, Cell, Html, Row, html_table, percent

CHANCE = 50.0


class NoveltyTable:
    """What every method and score reaches on every kind of task.

    Args:
        found: by the method's title, what `measure_novelty` gives.
    """

    def __init__(self, found: Mapping[str, Sequence[Novelty]]) -> None:
        self.found = found

    @property
    def titles(self) -> list[str]:
        """The kinds of task."""
        return list(dict.fromkeys(one.task.title for all_ in self.found.values() for one in all_))

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Method and score, in order."""
        names = {
            (m, name): None for m, all_ in self.found.items() for one in all_ for name in one.scores
        }
        return list(names)

    @cached_property
    def samples(self) -> Mapping[tuple[str, str, str], tuple[float, NDArray[np.float64]]]:
        """AUROC and its resamples, per cent, by task, method and score: the mean over a title's tasks.

        The images of a task are drawn again alike for all methods and scores, so that differences between
        two of them have an interval.
        """
        kept = {}
        for method, all_ in self.found.items():
            for title in self.titles:
                own = [one for one in all_ if one.task.title == title]
                weights = [image_weights(one.labels, place) for place, one in enumerate(own)]
                for name in dict.fromkeys(name for one in own for name in one.scores):
                    values = [
                        _aurocs(one, name, resampled)
                        for one, resampled in zip(own, weights, strict=True)
                    ]
                    exact = float(np.mean([value for value, _ in values]))
                    kept[title, method, name] = (
                        exact,
                        np.mean([drawn for _, drawn in values], axis=0),
                    )
        return kept

    def effect(
        self, title: str, row: tuple[str, str], base: tuple[str, str] | None = None
    ) -> Effect | None:
        """AUROC of a row in points beyond chance, or beyond another row's; None where one is not asked."""
        first, second = self.samples.get((title, *row)), None
        if base is not None:
            second = self.samples.get((title, *base))
        if first is None or (base is not None and second is None):
            return None
        value, drawn = second if second is not None else (CHANCE, np.array(CHANCE))
        return Effect(first[0] - value, *middle(first[1] - drawn))

    def verdict(
        self, title: str, row: tuple[str, str], base: tuple[str, str] | None = None
    ) -> Verdict | None:
        """Whether a row does better than chance, or than another row; None where one is not asked."""
        effect = self.effect(title, row, base)
        if effect is None:
            return None
        beyond = "chance" if base is None else _words(base)
        sentence = f"{title}: {_words(row)} minus {beyond}, AUROC {effect} points"
        return Verdict(verdict_word(effect.low, effect.high), sentence)

    def table(self) -> Html:
        """A row a method and score, a column a kind of task, with the 95 % interval."""
        heads = [Cell(name, "col") for name in ("method", "score")]
        heads += [Cell(title, "col", "number") for title in self.titles]
        body = []
        for method, name in self.rows:
            cells = [Cell(method, "row"), Cell(name)]
            cells += [
                Cell(self._interval(title, method, name), kind="number") for title in self.titles
            ]
            body.append(Row(cells))
        caption = "AUROC of telling known from unknown images, per cent, with the 95 % interval over images"
        return html_table(caption, [heads], body)

    def figure(self) -> None:
        """Display every AUROC with its interval, a panel a kind of task; chance is the line."""
        names = [_words(row) for row in self.rows]
        figure, axes = plt.subplots(
            1, len(self.titles), figsize=(9.0, 0.9 + 0.26 * len(names)), sharey=True, squeeze=False
        )
        for panel, title in zip(axes[0], self.titles, strict=True):
            for place, row in enumerate(self.rows):
                if (effect := self.effect(title, row)) is None:
                    continue
                value = CHANCE + effect.difference
                sides = effect.difference - effect.low, effect.high - effect.difference
                around = [
                    [max(0.0, side)] for side in sides
                ]  # 100 of 100 may be a rounding outside
                panel.errorbar(value, place, xerr=around, fmt="o", color=PALETTE[0], capsize=2)
            panel.axvline(CHANCE, color="black", linewidth=1)
            panel.set(xlim=(0, 100), ylim=(len(names) - 0.5, -0.5))
            panel.set_yticks(range(len(names)), names)
            panel.set_title(title, fontsize=9)
            seaborn.despine(ax=panel, left=True)
        said = [
            f"{title}, {_words(row)} {self._interval(title, *row)}"
            for title in self.titles
            for row in self.rows
        ]
        about = "AUROC of telling known from unknown images; the line is chance, bars are 95 % intervals."
        show(figure, f"{about} {'; '.join(said)}.", caption=about)

    def answers(self, score: str, baseline: str) -> Html:
        """What the numbers say of a score, a line a method: against chance, and against a baseline.

        Args:
            score: as tables call it; ``baseline``: another one of the same method.
        """
        heads = [Cell(name, "col") for name in ("method", "task", "better than chance?")]
        heads.append(Cell(f"better than {baseline}?", "col"))
        body = []
        for method in self.found:
            for title in self.titles:
                row = (method, score)
                verdicts = [self.verdict(title, row), self.verdict(title, row, (method, baseline))]
                effects = [self.effect(title, row), self.effect(title, row, (method, baseline))]
                cells = [
                    Cell(f"{verdict.word}: {effect}" if verdict and effect else DASH)
                    for verdict, effect in zip(verdicts, effects, strict=True)
                ]
                body.append(Row([Cell(method, "row"), Cell(title), *cells]))
        caption = f"{score}: yes or no where the 95 % interval, in points of AUROC, leaves zero out"
        return html_table(caption, [heads], body)

    def _interval(self, title: str, method: str, name: str) -> str:
        if (kept := self.samples.get((title, method, name))) is None:
            return DASH
        low, high = middle(kept[1])
        return f"{percent(kept[0])} [{percent(low)}, {percent(high)}]"


def _words(row: tuple[str, str]) -> str:
    return ", ".join(row)


def _aurocs(
    one: Novelty, name: str, weights: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """AUROC of a score on a task, and of every resample, per cent."""
    drawn = Drawn(one.labels, one.scores[name][None], [None])
    exact = aurocs(drawn, 0, np.ones((1, len(one.labels))), "image")
    return 100 * float(exact[0]), 100 * aurocs(drawn, 0, weights, "image")
