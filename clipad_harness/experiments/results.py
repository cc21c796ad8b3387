"""All shards of a method, over the cores of the machine or a cluster, into one tidy results table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import pandas as pd
from tqdm.auto import tqdm

from clipad_core.metrics import METRIC_LABELS
from clipad_harness.base.settings import Cluster
from clipad_harness.base.workers import run_all
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.shards import MAIN, Record
from clipad_harness.experiments.variants import Shard

COLUMNS = [
    *("method", "variant", "backbone", "precision", "device", "dataset", "category", "k_shot"),
    *("seed", "metric", "value", "key"),
]
REFERENCE_COLUMNS = ["dataset", "category", "k_shot", "seed", "image"]


def measure_all(
    scorer: Scorer, shards: Sequence[Shard], workers: int | Cluster
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Finish all shards with a progress bar; return the results and the recorded references."""
    for shard in shards:
        scorer.check(shard)
        scorer.require(shard)
    records: dict[Shard, Record] = {}
    with tqdm(total=len(shards), desc="score", unit="shard", smoothing=0.05) as bar:
        for group, finished in run_all(scorer, groups_of(scorer, shards), workers, bar):
            records |= dict(zip(group, finished, strict=True))
        bar.update(len(shards) - bar.n)
    return _tables(scorer, shards, records)


def groups_of(scorer: Scorer, shards: Sequence[Shard]) -> list[list[Shard]]:
    """Neighbours that read the same encoded views, those of the largest categories first.

    The ablations' categories have many times the shards of the others; begun last, one of them would keep
    one process busy while the others have nothing left to do.
    """
    sizes = Counter((shard.variant.tested_on, shard.category) for shard in shards)

    def size(group: Sequence[Shard]) -> int:
        return sizes[group[0].variant.tested_on, group[0].category]

    groups = [list(group) for _, group in groupby(shards, scorer.shares)]
    return sorted(groups, key=size, reverse=True)


def _tables(
    scorer: Scorer, shards: Sequence[Shard], records: dict[Shard, Record]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tidy results, variants in the order of params.yaml, and the references of the main one."""
    order = {variant.name: place for place, variant in enumerate(scorer.variants)}
    rows, chosen, label = [], [], scorer.label()
    for shard in sorted(
        shards, key=lambda s: (order[s.variant.name], s.category, s.k_shot, s.seed)
    ):
        record, values = records[shard], records[shard].values
        place = (shard.variant.tested_on, shard.category, shard.k_shot, shard.seed)
        head = (scorer.method, shard.variant.name, label, *scorer.computed(shard), *place)
        rows += [(*head, m, values[m], record.key[:16]) for m in METRIC_LABELS if m in values]
        if shard.variant.name == MAIN:
            chosen += [(*place, image) for image in record.references]
    results = pd.DataFrame(rows, columns=COLUMNS).astype({"value": float})  # undefined: NaN
    return results, pd.DataFrame(chosen, columns=REFERENCE_COLUMNS)
