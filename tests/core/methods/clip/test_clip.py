"""CLIP and CLIP-AC: presets, prompts, equations written out, and what must be refused."""

import re
from dataclasses import fields

import numpy as np
import pytest
import torch
from micro import MICRO, add_config, run_tower

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.joint import JointRecipe
from clipad_core.clip.one_pass import encode
from clipad_core.clip.preprocess import make_views
from clipad_core.errors import ClipadError
from clipad_core.methods.clip.config import PRESETS, CLIPConfig
from clipad_core.methods.clip.detector import CLIP, detect, know, prepare_backbone, recipe
from clipad_core.methods.clip.text import check_category, prompts, templates
from clipad_core.methods.method import Category

SMALL = CLIPConfig().changed({"image_size": 32, "sigma": 0})


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    add_config(tmp_path_factory.mktemp("clip"), "clipad-micro-clip", MICRO)
    return load_backbone("clipad-micro-clip", "random:0", precision="float64")


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def test_the_presets_differ_from_the_row_clip_as_their_papers_say() -> None:
    different = {
        name: {
            field.name
            for field in fields(preset)
            if getattr(preset, field.name) != getattr(CLIPConfig(), field.name)
        }
        for name, preset in PRESETS.items()
    }
    winclip = {"image_size", "resize", "templates", "class_name", "sigma"}
    assert different == {
        "clip": set(),
        "clip_ac_anomalyclip": {"templates", "article"},
        "clip_ac_winclip": winclip,
        "clip_ac_winclip_ensemble": winclip | {"article"},
    }


def test_the_templates_are_the_80_and_the_7_of_imagenet() -> None:
    many, few = (templates(SMALL.changed({"templates": t})) for t in ("openai80", "simple7"))
    assert (len(set(many)), len(set(few))) == (80, 7) and set(few) < set(many)
    assert all(template.count("{}") == 1 and template.endswith(".") for template in many)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("A photo of a normal metal_nut.", "A photo of an anomalous metal_nut.")),
        ({"period": False}, ("A photo of a normal metal_nut", "A photo of an anomalous metal_nut")),
        (
            {"article": "a", "class_name": "spaces"},
            ("a normal metal nut.", "a anomalous metal nut"),
        ),
        ({"templates": "bare", "class_name": "object"}, ("normal object", "anomalous object")),
        ({"anomalous_state": "damaged"}, ("normal metal_nut.", "a damaged metal_nut.")),
        ({"one_class": True}, ("A photo of a normal metal_nut.",)),
    ],
)
def test_prompts_say_what_the_fields_say(changes: dict, expected: tuple[str, ...]) -> None:
    groups = prompts(SMALL.changed(changes), "metal_nut")
    assert len(groups) == len(expected)
    assert all(text in group[0] for group, text in zip(groups, expected, strict=True))


def test_braces_in_the_name_of_a_category_stay_as_they_are() -> None:
    for name in ("{}", "a {} b", "{0}"):
        for group in prompts(PRESETS["clip_ac_anomalyclip"], name):
            assert all(prompt.count(name) == 1 for prompt in group)


def test_a_score_is_the_two_way_softmax_and_a_map_that_of_every_patch(backbone: Backbone) -> None:
    config = SMALL.changed({"blocks": [2, -1]})
    [image] = pictures((32, 32))
    text = know(backbone, config, Category("nut"))
    pixels = make_views(image, 32, "stretch", dtype=torch.float64).pixels
    embedding, tokens = run_tower(backbone.vision, pixels, [2, 3])
    expected = float((embedding[0] @ text.T / 0.07).softmax(dim=-1)[1])
    detection = CLIP(backbone, config, "nut")([image])
    assert float(detection.image_score[0]) == pytest.approx(expected, abs=1e-12)
    # In the middle of a map of 4 x 4 patches of 8 pixels lies the mean of the four around it.
    sums = torch.zeros(16, dtype=torch.float64)
    for block in (2, 3):
        projected = backbone.vision.ln_post(tokens[block][0]) @ backbone.vision.proj
        unit = projected / projected.norm(dim=-1, keepdim=True)
        sums += (unit @ text.T / 0.07).softmax(dim=-1)[:, 1]
    corners = detection.anomaly_map[0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert torch.allclose(corners, sums[[0, 3, 12, 15]], atol=1e-12)


def test_the_tiles_of_a_long_image_are_averaged(backbone: Backbone) -> None:
    config = SMALL.changed({"resize": "tiles"})
    [image] = pictures((32, 80))
    views = make_views(image, 32, "tiles", dtype=torch.float64)
    assert len(views.placement.corners) > 1
    text = know(backbone, config, Category("nut"))
    prepared = prepare_backbone(backbone, config)
    each = detect(prepared, config, text, encode(prepared, views.pixels, recipe(config)))
    whole = CLIP(backbone, config, "nut")([image])
    assert float(whole.image_score[0]) == pytest.approx(float(each.image_score.mean()), abs=1e-12)
    assert whole.anomaly_map.shape[1:] == views.placement.canvas
    assert torch.allclose(whole.anomaly_map[0, :, 0], each.anomaly_map[0, :, 0])
    assert torch.allclose(whole.anomaly_map[0, :, -1], each.anomaly_map[-1, :, -1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": []}, "blocks: found ()"),
        ({"blocks": [2, 2]}, "blocks: found (2, 2)"),
        ({"temperature": 0}, "temperature: found 0"),
        ({"sigma": -1}, "sigma: found -1"),
        ({"image_size": 0}, "image_size: found 0"),
        ({"anomalous_state": "normal"}, "anomalous_state: found 'normal', which normal_state is"),
        ({"templates": "openai"}, "templates: found 'openai', expected one of 'single'"),
    ],
)
def test_a_setting_that_no_code_path_knows_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ClipadError, match=re.escape(message)):
        SMALL.changed(changes)


@pytest.mark.parametrize("block", [0, 4, -2])
def test_a_block_that_does_not_exist_is_refused_before_anything_is_encoded(
    backbone: Backbone, block: int
) -> None:
    message = rf"blocks: found \[{block}\], expected numbers from 1 to 3"
    with pytest.raises(ClipadError, match=message):
        prepare_backbone(backbone, SMALL.changed({"blocks": [block]}))
    with pytest.raises(ClipadError, match=message):
        encode(backbone, torch.zeros(1, 3, 32, 32), JointRecipe(blocks=(block,)))


def test_a_name_that_fills_the_context_is_refused(backbone: Backbone) -> None:
    with pytest.raises(ClipadError, match="prompt: found one of 77 tokens or more"):
        check_category(backbone, SMALL, Category("nut " * 80))
