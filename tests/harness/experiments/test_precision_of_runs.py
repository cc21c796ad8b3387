"""float64 in a run: every row of the demo, and nothing made in another precision is read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from clipad_harness.experiments.learned_pipeline import open_learned
from project import change, make_project

from clipad_core.methods.winclip.detector import reference_recipe
from clipad_harness.experiments import pipeline
from clipad_harness.experiments.shards import MAIN, Shard, as_measured

LEARNED = ("anomalyclip", "vcpclip")


def test_values_that_differ_by_the_order_of_additions_are_measured_as_equal() -> None:
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    forwards, backwards = values.cumsum(0)[-1:], values.flip(0).cumsum(0)[-1:]
    assert not torch.equal(forwards, backwards)
    assert np.array_equal(as_measured(forwards), as_measured(backwards))
    assert as_measured(values).dtype == np.float32


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_project(tmp_path_factory.mktemp("precision"))
    pipeline.draw(made, "synthetic_target")
    pipeline.draw(made, "synthetic_auxiliary")
    return made


def test_every_row_of_the_demo_is_computed_in_float64(project: Path) -> None:
    variants = list(pipeline.open_run(project).variants)
    for method in LEARNED:
        variants += open_learned(project, method).variants
    assert {variant.config.precision for variant in variants} == {"float64"}


def test_an_entry_a_shard_and_a_training_of_another_precision_have_other_keys(
    project: Path,
) -> None:
    scorer = pipeline.open_run(project).scorer()
    exact = scorer.among[0]
    single = replace(exact, config=exact.config.changed({"precision": "float32"}))
    for k_shot in (0, 1):
        shards = [Shard(variant, "hex_nut", k_shot, 0) for variant in (exact, single)]
        assert scorer.key(shards[0]) != scorer.key(shards[1])
    image, recipe = scorer.references(shards[0])[0], reference_recipe(exact.config)
    stores = [scorer._store(scorer.backbone(v.config), recipe) for v in (exact, single)]
    assert stores[0].key(image) != stores[1].key(image)
    for method in LEARNED:
        trainer = open_learned(project, method).trainer()
        main = next(variant for variant in trainer.among if variant.name == MAIN)
        other = replace(main, config=main.config.changed({"precision": "float32"}))
        assert trainer.key(main.training(111)) != trainer.key(other.training(111))
        assert trainer.store(main.config).key(image) != trainer.store(other.config).key(image)


def test_prompts_of_one_precision_are_not_used_in_another(project: Path) -> None:
    rows = {"single": {"precision": "float32"}, "double": {"precision": "float64"}}
    change(project, "winclip", "ablations", value={"precision": {"k_shots": [0], "rows": rows}})
    scorer = pipeline.open_run(project).scorer()
    for variant in scorer.among:
        text = scorer._text(variant.config, "hex_nut")
        assert text.dtype == scorer.backbone(variant.config).dtype, variant.name
