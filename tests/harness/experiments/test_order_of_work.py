"""What is long is begun first, and what reads the same encodings is done by one process."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from project import change, make_project

from clipad_harness.data.stages import write_index
from clipad_harness.experiments import pipeline
from clipad_harness.experiments import trainer as trainer_module
from clipad_harness.experiments.results import groups_of
from clipad_harness.experiments.variants import TrainingJob, trainings
from clipad_harness.standin.datasets import draw


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("order"))
    for dataset in ("synthetic_target", "synthetic_auxiliary"):
        draw(root, dataset)
    write_index(root)
    return root


def test_the_categories_with_most_shards_come_first(project: Path) -> None:
    rows = {"anomalib": "anomalib", "one": {"prompts": "one_class"}}
    change(project, "winclip", "ablations", value={"a": {"k_shots": [0], "rows": rows}})
    change(project, "profiles", "demo", "ablation_categories", value=1)
    run = pipeline.open_run(project, "winclip")
    scorer, sizes = run.scorer(), Counter(shard.category for shard in run.shards)
    smallest_first = sorted(run.shards, key=lambda shard: sizes[shard.category])
    groups = groups_of(scorer, smallest_first)
    assert all(len({scorer.shares(shard) for shard in group}) == 1 for group in groups)
    order = [sizes[group[0].category] for group in groups]
    assert order == sorted(order, reverse=True) and order[0] > order[-1]
    # Each category whole, as it was.
    flat = [shard for group in groups for shard in group]
    assert flat == sorted(smallest_first, key=lambda shard: -sizes[shard.category])


def test_the_longest_trainings_are_begun_first(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {name: {"epochs": int(name)} for name in ("2", "4", "3")}
    change(project, "vcpclip", "ablations", value={"epochs": {"rows": rows}})
    change(project, "vcpclip", "ablation_changes", value={"augmentation": "none"})
    run = pipeline.open_run(project, "vcpclip")
    begun: list[TrainingJob] = []

    def note(worker: Any, groups: Sequence[Sequence[Any]], *_: object) -> Iterator[Any]:
        begun.extend(item for [item] in groups if isinstance(item, TrainingJob))
        return iter(())

    monkeypatch.setattr(trainer_module, "run_all", note)
    monkeypatch.setattr(trainer_module.Trainer, "curve", lambda *_: [])
    trainer_module.train_all(run.trainer(), run.variants, 1)
    assert [job.config.epochs for job in begun[:3]] == [4, 3, 2]
    assert set(begun) == set(trainings(run.variants))
