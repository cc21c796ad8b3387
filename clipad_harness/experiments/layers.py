"""Every method with its main variant, by name: what the explorer and the comparison set side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clipad_harness.experiments.learned_pipeline import LearnedRun
from clipad_harness.experiments.learned_scorer import LearnedScorer
from clipad_harness.experiments.methods import TITLES
from clipad_harness.experiments.pipeline import Run
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.shards import CategoryScores, Shard


@dataclass(frozen=True)
class Layer:
    """A method with its variant, and how it scores a category.

    Attributes:
        label: what a reader sees, as in `WinCLIP+, 4-shot`.
        detect: category and seed -> scores and maps of its test images, in the order of the index.
        seeds: of its references or its trainings; one where nothing is drawn.
    """

    label: str
    detect: Callable[[str, int], CategoryScores]
    seeds: tuple[int, ...]

    def first(self, category: str) -> CategoryScores:
        """Scores and maps with the first seed, which pictures show."""
        return self.detect(category, self.seeds[0])


def compared_shots(run: Run) -> list[int]:
    """WinCLIP stands beside other methods without references and with the most of this run."""
    return sorted({0, max(run.settings.k_shots)})


def winclip_layer(run: Run, scorer: Scorer, k_shot: int) -> Layer:
    """WinCLIP's main variant with so many references."""
    main = run.variants[0]
    return Layer(
        f"WinCLIP{'+' if k_shot else ''}, {k_shot}-shot",
        lambda category, seed: scorer.detect(Shard(main, category, k_shot, seed)),
        run.settings.seeds if k_shot else run.settings.seeds[:1],
    )


def learned_layer(run: LearnedRun, scorer: LearnedScorer) -> Layer:
    """A learned method's main variant."""
    main = run.variants[0]
    return Layer(
        f"{TITLES[run.method]}, zero-shot",
        lambda category, seed: scorer.detect(Shard(main, category, 0, seed)),
        main.seeds,
    )
