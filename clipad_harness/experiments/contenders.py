"""The methods that the comparison sets side by side: how each scores, what it learns, what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clipad_core.clip.preprocess import Pixels
from clipad_core.methods.winclip.detector import WinCLIP
from clipad_harness.data.images import read_image
from clipad_harness.experiments.layers import Layer, compared_shots, learned_layer, winclip_layer
from clipad_harness.experiments.learned_pipeline import LearnedRun, open_measured
from clipad_harness.experiments.methods import detector_class
from clipad_harness.experiments.pipeline import Run, open_run
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.shards import Shard


@dataclass(frozen=True)
class Contender(Layer):
    """One method as it is compared.

    Attributes:
        reads: what of the tested category it reads before testing.
        learned: how many numbers are trained.
        operations: floating-point operations of one call with one test image; prompts that the
            method embeds at every call are part of it.
    """

    reads: str
    learned: int
    operations: float


def contenders(root: Path, profile: str = "", dataset: str = "") -> list[Contender]:
    """WinCLIP without and with the most references, and every learned method that is measured."""
    run = open_run(root, profile, dataset)
    scorer = run.scorer()
    found = [_winclip(run, scorer, k_shot) for k_shot in compared_shots(run)]
    return found + [_learned(one) for one in open_measured(root, profile, dataset)]


def _winclip(run: Run, scorer: Scorer, k_shot: int) -> Contender:
    main, category = run.variants[0], run.categories[0]
    shard = Shard(main, category, k_shot, run.settings.seeds[0])
    config = scorer.config(shard)
    references = [np.asarray(read_image(path)) for path in scorer.references(shard)]
    detector = WinCLIP(scorer.backbone(config), config, category, references)
    layer = winclip_layer(run, scorer, k_shot)
    return Contender(
        layer.label,
        layer.detect,
        layer.seeds,
        f"its name and {k_shot} normal images" if k_shot else "its name",
        0,
        operations(detector, _first_image(run)),
    )


def _learned(run: LearnedRun) -> Contender:
    scorer, main = run.scorer(), run.variants[0]
    training = main.training(main.seeds[0])
    learner, config = scorer.learner(training), main.tested_with(main.seeds[0])
    detector = detector_class(run.method)(scorer.backbone(config), config, learner)
    layer = learned_layer(run, scorer)
    return Contender(
        layer.label,
        layer.detect,
        layer.seeds,
        f"nothing; trained on {main.trained_on}",
        sum(one.numel() for one in learner.parameters() if one.requires_grad),
        operations(detector, _first_image(run)),
    )


def _first_image(run: Run | LearnedRun) -> Pixels:
    test = run.index[run.index["split"] == "test"]
    return np.asarray(read_image(run.data / str(test["image"].iloc[0])))


def _linear_operations(x: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    """Of a packed linear layer, which the counter does not know."""
    return 2 * math.prod(x) * weight[0]


# What a counter must be told: layers whose weights are laid out for the CPU.
_PACKED = {torch.ops.mkldnn._linear_pointwise: _linear_operations}


def operations(detector: Callable[[Sequence[Pixels]], Any], image: Pixels) -> float:
    """Floating-point operations of scoring one image: counted, so the same on every machine."""
    counter = FlopCounterMode(display=False, custom_mapping=_PACKED)
    # Fused attention has no count; its plain form has the same number of operations.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        detector([image])
    return float(counter.get_total_flops())
