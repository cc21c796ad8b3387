"""float64 in a run: every row of the demo, and nothing made in another precision is read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from project import LEARNED, change, draw_all, make_project

from clipad_core.methods.winclip.detector import METHOD
from clipad_harness.experiments import pipeline
from clipad_harness.experiments.shards import as_measured
from clipad_harness.experiments.variants import Shard


def test_values_that_differ_by_the_order_of_additions_are_measured_as_equal() -> None:
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    forwards, backwards = values.cumsum(0)[-1:], values.flip(0).cumsum(0)[-1:]
    assert not torch.equal(forwards, backwards)
    assert np.array_equal(as_measured(forwards), as_measured(backwards))
    assert as_measured(values).dtype == np.float32


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("precision"))
    draw_all(folder)
    return folder


def test_every_row_of_the_demo_is_computed_in_float64(project: Path) -> None:
    for method in ("winclip", *LEARNED):
        variants = pipeline.open_run(project, method).variants
        assert {variant.config.precision for variant in variants} == {"float64"}, method
        assert {variant.tested_with(variant.seeds[0]).precision for variant in variants} == {
            "float64"
        }, method


def test_an_entry_a_shard_and_a_training_of_another_precision_have_other_keys(
    project: Path,
) -> None:
    scorer = pipeline.open_run(project, "winclip").scorer()
    exact = scorer.variants[0]
    single = replace(exact, config=exact.config.changed({"precision": "float32"}))
    for k_shot in (0, 1):
        shards = [Shard(variant, "hex_nut", k_shot, 0) for variant in (exact, single)]
        assert scorer.key(shards[0]) != scorer.key(shards[1])
    image, recipe = scorer.references(shards[0])[0], METHOD.references.recipe(exact.config)
    stores = [scorer.encodings.store(v.config, recipe) for v in (exact, single)]
    assert stores[0].key(image) != stores[1].key(image)
    for method in LEARNED:
        run = pipeline.open_run(project, method)
        trainer, main = run.trainer(), run.variants[0]
        narrow = replace(main, config=main.config.changed({"precision": "float32"}))
        assert trainer.key(main.training(111)) != trainer.key(narrow.training(111))
        recipe = run.method.recipe(main.config, 0)
        stores = [trainer.encodings.store(v.config, recipe) for v in (main, narrow)]
        assert stores[0].key(image) != stores[1].key(image)


def test_prompts_of_one_precision_are_not_used_in_another(project: Path) -> None:
    rows = {"single": {"precision": "float32"}, "double": {"precision": "float64"}}
    change(project, "winclip", "ablations", value={"precision": {"k_shots": [0], "rows": rows}})
    scorer = pipeline.open_run(project, "winclip").scorer()
    for variant in scorer.variants:
        text = scorer.know(Shard(variant, "hex_nut", 0, 0)).text
        assert text.dtype == scorer.backbone(variant.config).dtype, variant.name
