"""Some kinds of damage apart from the others: the same images and rows, counted for these alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pandas as pd

from clipad_harness.report.side_by_side import Drawn, SideBySide, aurocs

LEVELS = ("image", "pixel")


def categories_with(index: pd.DataFrame, kinds: Collection[str]) -> list[str]:
    """The categories that show some kinds of damage, in the order of the index.

    >>> index = pd.DataFrame({"category": ["nut", "nut", "key"], "defect": ["good", "bent", "good"]})
    >>> categories_with(index, ["bent"])
    ['nut']
    """
    return list(dict.fromkeys(index.loc[index["defect"].isin(kinds), "category"]))


def of_kinds(measured: SideBySide, kinds: Collection[str]) -> SideBySide:
    """Normal images, and of the damaged ones those of some kinds alone.

    Of the metrics the two AUROC are left: what is kept of an image says no more of its pixels. A category
    that shows none of the kinds is left out.
    """
    drawn, frames, rows = {}, [], []
    for (contender, category), whole in measured.drawn.items():
        named = measured.images["contender"] == contender
        images = measured.images[named & (measured.images["category"] == category)]
        own = ((images["label"] == 0) | images["defect"].isin(kinds)).to_numpy()
        if not images["label"][own].any():
            continue
        part = replace(
            whole,
            labels=whole.labels[own],
            scores=whole.scores[:, own],
            pixels=[None if counts is None else counts[:, own] for counts in whole.pixels],
        )
        drawn[contender, category] = part
        frames.append(images[own])
        seeds = measured.metrics.loc[
            (measured.metrics["contender"] == contender)
            & (measured.metrics["category"] == category),
            "seed",
        ].unique()
        for place, seed in enumerate(seeds):
            rows += [
                (contender, category, seed, f"{level}_auroc", _auroc(part, place, level))
                for level in LEVELS
            ]
    metrics = pd.DataFrame(rows, columns=measured.metrics.columns)
    images = pd.concat([measured.images[:0], *frames], ignore_index=True)
    return replace(measured, metrics=metrics, images=images, drawn=drawn)


def _auroc(drawn: Drawn, seed: int, level: str) -> float:
    """Of the images as they are, each once."""
    return float(aurocs(drawn, seed, np.ones((1, len(drawn.labels))), level)[0])
