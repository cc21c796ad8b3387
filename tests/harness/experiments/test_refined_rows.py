"""Rows whose maps end with a refinement: read, scored, named, and told where nothing was found."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from project import change, make_project, variants_of

from clipad_core.clip.features import canvas_of
from clipad_core.errors import ClipadError
from clipad_core.methods.winclip import METHOD
from clipad_core.refinement import GuidedFilter, Refinement, SegmentAnything, Slic
from clipad_harness.data.images import read_image
from clipad_harness.data.stages import write_index
from clipad_harness.experiments import pipeline
from clipad_harness.experiments.features import FeatureStore
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.variants import Shard, Variant
from clipad_harness.standin.datasets import draw

NOWHERE = {"felzenszwalb": {"scale": 1e9}}  # all of an image is one region
ROWS = {
    "none": {},
    "guided filter": {"refine": "guided"},
    "wider": {"refine": {"guided": {"radius": 0.1}}},
    "one region": {"refine": NOWHERE},
}
QUESTIONS = {"refinement": {"k_shots": [0], "rows": ROWS}}


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    project = make_project(tmp_path_factory.mktemp("refined"))
    alone = {"ablations": {}, "walks": [], "own_walks": {}, "k_shots": [0], "questions": QUESTIONS}
    for name, value in alone.items():
        change(project, "winclip", name, value=value)
    change(project, "profiles", "demo", "categories", value=["hex_nut"])
    draw(project, "synthetic_target")
    write_index(project)
    return pipeline.open_run(project, "winclip").scorer()


def shard(scorer: Scorer, row: str) -> Shard:
    [variant] = [one for one in scorer.variants if one.name.endswith(f"refinement/{row}")]
    return Shard(variant, "hex_nut", 0, 0)


def by_row(variants: list[Variant], group: str) -> dict[str, Variant]:
    parts = (one.name.rpartition("/") for one in variants)
    named = zip(parts, variants, strict=True)
    return {row: one for (place, _, row), one in named if place.endswith(group)}


def test_any_group_may_hold_rows_that_end_with_a_refinement() -> None:
    rows = by_row(variants_of("winclip", questions=QUESTIONS), "refinement")
    expected: dict[str, Refinement | None] = {
        "none": None,
        "guided filter": GuidedFilter(),
        "wider": GuidedFilter(radius=0.1),
    }
    assert {name: rows[name].refine for name in expected} == expected
    assert len({one.config for one in rows.values()}) == 1
    ablations = {"maps": {"k_shots": [0], "rows": {"slic": {"refine": "slic"}}}}
    [row] = by_row(variants_of("winclip", ablations=ablations), "maps").values()
    assert row.refine == Slic()


def test_rows_of_a_method_that_learns_share_one_training_whatever_their_maps_end_with() -> None:
    asked = {"refinement": {"rows": {"none": {}, "guided": {"refine": "guided"}}}}
    rows = by_row(variants_of("anomalyclip", questions=asked), "refinement")
    assert rows["none"].refine is None and rows["guided"].refine == GuidedFilter()
    assert rows["none"].training(111) == rows["guided"].training(111)


@pytest.mark.parametrize("kind", ["questions", "ablations"])
def test_a_wrong_refinement_is_told_with_its_row(kind: str) -> None:
    groups = {"a": {"k_shots": [0], "rows": {"b": {"refine": "slick"}}}}
    message = rf"params\.yaml, winclip\.{kind}\.a\.b: refine: found 'slick', expected one of none"
    with pytest.raises(ClipadError, match=message):
        variants_of("winclip", **{kind: groups})


def test_a_refined_row_has_the_scores_of_the_plain_one_and_maps_that_keep_to_the_image(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = scorer.detect(shard(scorer, "none"))
    encoded: list[object] = []
    monkeypatch.setattr(FeatureStore, "_write", lambda *words: encoded.append(words))
    refined = scorer.detect(shard(scorer, "guided filter"))
    assert not encoded  # features are those of every other row
    assert_array_equal(refined.image_scores, plain.image_scores)
    config = scorer.variants[0].config
    backbone, recipe = scorer.backbone(config), METHOD.recipe(config, 0)
    assert len(refined.maps) == len(plain.maps) > 1
    for path, own, map_before in zip(
        scorer.tested.paths("hex_nut", "test"), refined.maps, plain.maps, strict=True
    ):
        seen = canvas_of(backbone, np.asarray(read_image(path)), recipe)
        assert_array_equal(own, GuidedFilter()(seen, map_before))
        assert not np.array_equal(own, map_before)


def test_pictures_of_some_images_show_the_refined_maps(scorer: Scorer) -> None:
    whole = scorer.detect(shard(scorer, "wider"))
    names = whole.images["image"].tolist()[1::2]
    shown = scorer.maps(shard(scorer, "wider"), names)
    assert list(shown) == names
    for name, expected in zip(names, whole.maps[1::2], strict=True):
        assert_array_equal(shown[name].anomaly_map, expected)


def test_results_are_named_by_their_refinement_too(scorer: Scorer) -> None:
    shards = [shard(scorer, row) for row in ROWS]
    assert len({scorer.key(one) for one in shards}) == len(ROWS)
    assert len({scorer.alike(one) for one in shards}) == len(ROWS)


def test_images_without_regions_keep_their_maps_and_are_counted(
    scorer: Scorer, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skimage")
    plain = scorer.detect(shard(scorer, "none"))
    assert capsys.readouterr().err == ""
    same = scorer.detect(shard(scorer, "one region"))
    for before, after in zip(plain.maps, same.maps, strict=True):
        assert_array_equal(before, after)
    count = len(plain.maps)
    message = f"felzenszwalb found no regions in {count} of {count} images, whose maps stay"
    assert message in capsys.readouterr().err


def test_what_a_refinement_lacks_is_told_before_anything_is_scored(scorer: Scorer) -> None:
    lacking = replace(scorer.variants[0], refine=SegmentAnything(checkpoint="gone.pth"))
    with pytest.raises(ClipadError, match="refine: sam"):
        scorer.check(Shard(lacking, "hex_nut", 0, 0))
