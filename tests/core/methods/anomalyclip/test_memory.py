"""AnomalyCLIP with references: distances written out, fusions, and what stays the paper's."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from micro import MICRO, add_config
from torch.testing import assert_close
from vcpclip_cases import pictures

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.features import Features, encode_all
from clipad_core.errors import ClipadError
from clipad_core.learned.token_memory import build_memory
from clipad_core.maps import smoothed, upsample
from clipad_core.methods.anomalyclip.config import AnomalyCLIPConfig, compared_blocks
from clipad_core.methods.anomalyclip.detector import (
    METHOD,
    AnomalyCLIP,
    encode,
    prepare_backbone,
    recipe,
    reference_recipe,
)
from clipad_core.methods.anomalyclip.learner import make_learner
from clipad_core.methods.anomalyclip.memory import visual_map

# Reads block 1 for the text, blocks 2 and 3 for the memory.
SMALL = AnomalyCLIPConfig().changed(
    {
        "image_size": 48,
        "blocks": [1, 2],
        "memory_blocks": [3, 2],
        "dpam_from_layer": 2,
        "prompt_depth": 2,
        "sigma": 1.0,
        "precision": "float64",
    }
)
TESTED = pictures([(40, 40), (50, 50)])
FIRST, SECOND = pictures([(48, 48), (60, 60)])


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    add_config(tmp_path_factory.mktemp("memory"), "clipad-micro-memory", MICRO | {"embed_dim": 32})
    loaded = load_backbone("clipad-micro-memory", "random:0", precision="float64")
    return prepare_backbone(loaded, SMALL)


def detector(backbone: Backbone, references: list, **changes: object) -> AnomalyCLIP:
    config = SMALL.changed(changes)
    return AnomalyCLIP(backbone, config, make_learner(backbone, config, 3), "", references)


def naive_visual(tested: Features, references: Features, blocks: list[int]) -> torch.Tensor:
    """Image by image, patch by patch, the mean over blocks of half of one minus the largest cosine."""
    images, patches = tested.patch_tokens[blocks[0]].shape[:2]
    distances = torch.zeros(images, patches, dtype=torch.float64)
    for block in blocks:
        memory = references.patch_tokens[block].flatten(0, 1)
        for image in range(images):
            for place in range(patches):
                patch = tested.patch_tokens[block][image, place]
                cosines = [F.cosine_similarity(patch, other, dim=0) for other in memory]
                distances[image, place] += (1 - max(cosines)) / 2 / len(blocks)
    return distances.unflatten(1, (6, 6))


@pytest.mark.parametrize("branch", ["vv", "ensemble_qk"])
def test_the_map_of_references_is_the_distance_to_the_nearest_patch_of_any_of_them(
    backbone: Backbone, branch: str
) -> None:
    found = detector(
        backbone, [FIRST, SECOND], map_fusion="visual", few_shot_image_score="visual", branch=branch
    )(TESTED)
    config = SMALL.changed({"branch": branch})
    tested = encode_all(encode, backbone, TESTED, recipe(config, 2))
    references = encode_all(encode, backbone, [FIRST, SECOND], reference_recipe(config))
    grid = naive_visual(tested, references, [2, 3])
    assert_close(found.anomaly_map, smoothed(upsample(grid, (48, 48)), 1.0), atol=1e-9, rtol=0)
    assert_close(found.image_score, grid.amax(dim=(1, 2)), atol=1e-9, rtol=0)


def test_maps_and_scores_are_fused_as_named(backbone: Backbone) -> None:
    unsmoothed = {
        rule: detector(backbone, [FIRST], map_fusion=rule, sigma=0)(TESTED).anomaly_map
        for rule in ("language", "visual", "mean", "harmonic")
    }
    language, visual = unsmoothed["language"], unsmoothed["visual"]
    assert_close(unsmoothed["mean"], (language + visual) / 2)
    assert_close(unsmoothed["harmonic"], 2 / (1 / language + 1 / visual))
    scores = {
        rule: detector(backbone, [FIRST], few_shot_image_score=rule)(TESTED).image_score
        for rule in ("text", "visual", "both")
    }
    assert_close(scores["both"], (scores["text"] + scores["visual"]) / 2)


def test_the_language_parts_with_references_are_those_without(backbone: Backbone) -> None:
    alone = detector(backbone, [])(TESTED)
    beside = detector(backbone, [FIRST], map_fusion="language", few_shot_image_score="text")(TESTED)
    assert torch.equal(beside.image_score, alone.image_score)
    # The paper adds blocks up; beside a map in [0, 1] it is their mean.
    assert_close(2 * beside.anomaly_map, alone.anomaly_map)


def test_without_references_no_field_of_theirs_moves_a_bit(backbone: Backbone) -> None:
    plain = detector(backbone, [], memory_blocks=[])(TESTED)
    other = detector(backbone, [], map_fusion="visual", few_shot_image_score="visual")(TESTED)
    assert torch.equal(plain.anomaly_map, other.anomaly_map)
    assert torch.equal(plain.image_score, other.image_score)
    assert recipe(SMALL, 0) == recipe(SMALL.changed({"memory_blocks": []}), 0)


def test_more_references_never_move_a_patch_further_away(backbone: Backbone) -> None:
    one = detector(backbone, [FIRST], map_fusion="visual")(TESTED).anomaly_map
    two = detector(backbone, [FIRST, SECOND], map_fusion="visual")(TESTED).anomaly_map
    assert bool((two <= one + 1e-12).all()) and bool((two < one - 1e-6).any())


def test_an_image_that_is_its_own_reference_is_near_zero_and_never_below(
    backbone: Backbone,
) -> None:
    for rule in ("visual", "harmonic"):  # reciprocals of both signs would cancel
        maps = detector(backbone, [FIRST], map_fusion=rule, sigma=0)([FIRST]).anomaly_map
        assert bool((maps >= 0).all()) and float(maps.max()) < 1e-12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_blocks": [3, 3]}, r"memory_blocks: found \(3, 3\), expected different"),
        ({"map_fusion": "sum"}, "map_fusion: found 'sum'"),
        ({"few_shot_image_score": "stretched"}, "few_shot_image_score: found 'stretched'"),
        ({"reference_choice": "last"}, "reference_choice: found 'last'"),
    ],
)
def test_what_no_code_path_knows_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ClipadError, match=message):
        SMALL.changed(changes)


def test_a_block_that_the_tower_does_not_have_is_refused_before_a_run(backbone: Backbone) -> None:
    with pytest.raises(ClipadError, match=r"memory_blocks: found 9, expected at most 3"):
        METHOD.prepare(backbone, SMALL.changed({"memory_blocks": [9]}))


def test_in_half_precision_distances_are_those_of_float32(backbone: Backbone) -> None:
    tested = encode_all(encode, backbone, TESTED, recipe(SMALL, 1))
    half = replace(tested, patch_tokens={b: t.half() for b, t in tested.patch_tokens.items()})
    single = replace(half, patch_tokens={b: t.float() for b, t in half.patch_tokens.items()})
    with torch.autocast("cpu", torch.float16):
        found = visual_map(half, build_memory(half, compared_blocks(SMALL)), (6, 6))
    expected = visual_map(single, build_memory(single, compared_blocks(SMALL)), (6, 6))
    assert found.dtype == torch.float32 and torch.equal(found, expected)
