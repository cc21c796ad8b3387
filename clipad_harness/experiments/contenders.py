"""The methods that are set side by side: how each scores, what it reads, learns and costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clipad_core.clip.image_file import Pixels
from clipad_core.clip.packed import packed_operations
from clipad_core.methods.method import Detector, image_by_image
from clipad_harness.data.images import read_image
from clipad_harness.experiments.by_image import ByImage
from clipad_harness.experiments.pipeline import Run, open_measured, train_missing
from clipad_harness.experiments.scorer import Mapped, Scorer
from clipad_harness.experiments.shards import MAIN, CategoryScores
from clipad_harness.experiments.variants import Shard, Variant


class Contender:
    """A variant of a method with a number of references, as it is compared.

    Args:
        run: of the method.
        scorer: of the run.
        k_shot: number of references.
        variant: a row of the method's ablations; None: its main variant.
    """

    def __init__(
        self, run: Run, scorer: Scorer, k_shot: int, variant: Variant | None = None
    ) -> None:
        self.run, self.scorer, self.k_shot = run, scorer, k_shot
        self.variant = variant or run.variants[0]

    @property
    def label(self) -> str:
        """What a reader sees, as in ``WinCLIP+, 4-shot``; of a row of a group its name."""
        if self.variant.name != MAIN:
            row = self.variant.name.partition("/")[2]
            return f"{row}, {self.k_shot}-shot" if len(self.variant.k_shots) > 1 else row
        references = self.run.method.references
        if references is None:
            return f"{self.run.method.title}, zero-shot"
        return f"{references.title if self.k_shot else self.run.method.title}, {self.k_shot}-shot"

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of its references or its trainings; one where nothing is drawn."""
        return self.variant.drawn(self.k_shot)

    def first(self, category: str) -> CategoryScores:
        """Scores and maps of a whole category with the first seed."""
        return self.scorer.detect(Shard(self.variant, category, self.k_shot, self.seeds[0]))

    def by_image(self, category: str, seed: int) -> ByImage:
        """What is kept of a category's test images, in the order of the index."""
        return self.scorer.by_image(Shard(self.variant, category, self.k_shot, seed))

    def maps(self, category: str, images: Sequence[str]) -> dict[str, Mapped]:
        """Maps and masks of some test images with the first seed, which pictures show."""
        return self.scorer.maps(Shard(self.variant, category, self.k_shot, self.seeds[0]), images)

    def test_images(self, category: str) -> pd.DataFrame:
        """The index rows of a category's test images."""
        return self.scorer.datasets[self.variant.tested_on].rows(category, "test")

    @property
    def reads(self) -> str:
        """What of the tested category it reads before testing."""
        config = self.variant.tested_with(self.seeds[0])
        parts = ["its name"] if self.run.method.names_category(config) else []
        parts += [f"{self.k_shot} normal images"] if self.k_shot else []
        trained = f"; trained on {self.variant.trained_on}" if self.variant.trained_on else ""
        return (" and ".join(parts) or "nothing") + trained

    @cached_property
    def learned(self) -> int:
        """How many numbers are trained."""
        learner = self.scorer.learner(self.variant.training(self.seeds[0]))
        parameters = () if learner is None else learner.parameters()
        return sum(tensor.numel() for tensor in parameters if tensor.requires_grad)

    @cached_property
    def operations(self) -> float:
        """Floating-point operations of one call with one test image.

        Prompts that the method embeds at every call are part of it; what compares an image's score with
        others of its category, some additions of numbers, is not.
        """
        category, seed = self.run.categories[0], self.seeds[0]
        shard = Shard(self.variant, category, self.k_shot, seed)
        detector = Detector(
            replace(self.run.method, whole_category=image_by_image),
            self.scorer.encodings.loaded(self.variant.tested_with(seed)),
            self.variant.tested_with(seed),
            category,
            [np.asarray(read_image(path)) for path in self.scorer.references(shard)],
            self.scorer.learner(self.variant.training(seed)),
        )
        test = self.run.index[self.run.index["split"] == "test"]
        image = np.asarray(read_image(self.run.data / str(test["image"].iloc[0])))
        return operations(detector, image)


def contenders(root: Path, parameters: Mapping[str, Any] | None = None) -> list[Contender]:
    """Every method that is measured: without references, and with the most of its run.

    Args:
        root: the project's folder.
        parameters: profile, dataset and categories in place of those of params.yaml.
    """
    among = []
    for run in open_measured(root, parameters):
        scorer = run.scorer()
        train_missing(run, scorer, run.variants[:1])
        shots = sorted({0, max(run.variants[0].k_shots)})
        among += [Contender(run, scorer, k_shot) for k_shot in shots]
    return among


def operations(detector: Callable[[Sequence[Pixels]], Any], image: Pixels) -> float:
    """Floating-point operations of scoring one image: counted, so the same on every machine."""
    counter = FlopCounterMode(display=False, custom_mapping=packed_operations())
    # Fused attention has no count; its plain form has the same number of operations.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        detector([image])
    return float(counter.get_total_flops())
