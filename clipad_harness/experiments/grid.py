"""The grid: all shards of a method, over the cores of the machine, into one tidy results table."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import groupby
from typing import Generic, Protocol, TypeVar

import pandas as pd
from tqdm.auto import tqdm

from clipad_harness.base.workers import Worker, run_all
from clipad_harness.experiments.shards import MAIN, Record, Shard, VariantOf
from clipad_harness.report.tables import METRIC_LABELS

COLUMNS = [
    *("method", "variant", "backbone", "precision", "device", "dataset", "category", "k_shot"),
    *("seed", "metric", "value", "key"),
]
VariantT = TypeVar("VariantT", bound=VariantOf)


class GridScorer(Worker[Shard[VariantT], Record], Protocol, Generic[VariantT]):
    """Scores the shards of one method."""

    method: str
    among: Sequence[VariantT]

    def label(self, shard: Shard[VariantT]) -> str:
        """What the results call the weights."""

    def computed(self, shard: Shard[VariantT]) -> tuple[str, str]:
        """Precision and kind of device."""

    def dataset(self, shard: Shard[VariantT]) -> str:
        """The dataset that is tested."""

    def check(self, shard: Shard[VariantT]) -> None:
        """Find what cannot work before any process starts and any image is encoded."""

    def shares(self, shard: Shard[VariantT]) -> Hashable:
        """Equal for neighbours that one process should do, since they share encodings."""


def run_plan(
    scorer: GridScorer[VariantT], shards: Sequence[Shard[VariantT]], workers: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Finish all shards with a progress bar; return the results and the recorded references."""
    for shard in shards:
        scorer.check(shard)
    records: dict[Shard[VariantT], Record] = {}
    groups = [list(group) for _, group in groupby(shards, scorer.shares)]
    with tqdm(total=len(shards), desc="score", unit="shard", smoothing=0.05) as bar:
        for group, found in run_all(scorer, groups, min(workers, len(groups)), bar):
            records |= dict(zip(group, found, strict=True))
        bar.update(len(shards) - bar.n)
    return _tables(scorer, shards, records)


def _tables(
    scorer: GridScorer[VariantT],
    shards: Sequence[Shard[VariantT]],
    records: dict[Shard[VariantT], Record],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tidy results, variants in the order of params.yaml, and the references of the main one."""
    order = {variant.name: place for place, variant in enumerate(scorer.among)}
    rows, chosen = [], []
    for shard in sorted(
        shards, key=lambda s: (order[s.variant.name], s.category, s.k_shot, s.seed)
    ):
        record = records[shard]
        place = (scorer.dataset(shard), shard.category, shard.k_shot, shard.seed)
        how = (scorer.label(shard), *scorer.computed(shard))
        head = (scorer.method, shard.variant.name, *how, *place)
        values = record["values"]
        rows += [(*head, m, values[m], record["key"][:16]) for m in METRIC_LABELS if m in values]
        if shard.variant.name == MAIN:
            chosen += [(*place, image) for image in record["references"]]
    names = ["dataset", "category", "k_shot", "seed", "image"]
    return pd.DataFrame(rows, columns=COLUMNS), pd.DataFrame(chosen, columns=names)
