"""CLIP and CLIP-AC against recordings of plain CLIP by zqhang/AnomalyCLIP@45ed4dd and open_clip 3.3.0."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from recordings import GOLDENS, PRECISIONS, close, equal, part, read_recording, recorded_backbone
from safetensors.torch import save_file

from clipad_core.clip.backbone import load_backbone
from clipad_core.clip.text import encode_prompts
from clipad_core.maps import smoothed, text_scores
from clipad_core.methods.clip.config import PRESETS, CLIPConfig
from clipad_core.methods.clip.detector import (
    CLIP,
    detect,
    encode,
    know,
    prepare_backbone,
    recipe,
)
from clipad_core.methods.clip.text import TEXT_MEANS, prompts, text_embeddings
from clipad_core.methods.method import Category
from clipad_core.metrics.metrics import image_metrics, pixel_metrics
from clipad_harness.data.images import resize_mask

pytestmark = pytest.mark.official("CLIP, CLIP-AC", "zqhang/AnomalyCLIP@45ed4dd")
open_clips = pytest.mark.official("CLIP-AC of WinCLIP", "open_clip 3.3.0")
FOLDER = GOLDENS / "baselines"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Hundreds of small products, which threads only slow down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SMALL = CLIPConfig().changed({"image_size": 84})
AC = PRESETS["clip_ac_anomalyclip"].changed({"image_size": 84})
TEMPLATES = {"t80": "openai80", "t7": "simple7"}


@pytest.fixture(scope="module", params=PRECISIONS)
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The recording of AnomalyCLIP's plain CLIP and its backbone, prepared and as it was loaded."""
    values = read_recording(FOLDER / "A.npz")
    folder = tmp_path_factory.mktemp("plain")
    loaded = recorded_backbone(values, "baselines-golden", folder, request.param, quick_gelu=True)
    return SimpleNamespace(
        values=values,
        settings=json.loads(str(values["config_json"])),
        loaded=loaded,
        backbone=prepare_backbone(loaded, SMALL),
        image=torch.tensor(values["image"]).to(loaded.dtype),
    )


@pytest.fixture(scope="module", params=PRECISIONS)
def winclips(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The recording of open_clip, whose weights have its names."""
    values, folder = read_recording(FOLDER / "winclip_ac.npz"), tmp_path_factory.mktemp("open")
    settings = json.loads(str(values["config_json"]))
    (folder / "open-golden.json").write_text(json.dumps(settings["model"]))
    save_file(part(values, "weights/"), folder / "open-golden.safetensors")
    backbone = load_backbone(
        "open-golden", folder / "open-golden.safetensors", precision=request.param
    )
    return SimpleNamespace(values=values, names=settings["names"], backbone=backbone)


def test_all_tokens_equal_theirs_at_another_grid_and_at_the_trained_one(plain: Any) -> None:
    close(plain.backbone.vision.positional_embedding, plain.values["pos_embed_after"], 1e-6)
    for prefix, backbone, image in (
        ("", plain.backbone, plain.image),
        ("native/", plain.loaded, torch.tensor(plain.values["native/image"])),
    ):
        features = encode(backbone, image.to(backbone.dtype), recipe(SMALL))
        tokens = F.normalize(torch.tensor(plain.values[f"{prefix}tokens"]), dim=-1).numpy()
        close(features.image_embedding, tokens[:, 0], 2e-5)
        close(features.patch_tokens[3], tokens[:, 1:], 2e-5)


def test_a_backbone_that_was_prepared_for_another_size_is_not_prepared_from_that(
    plain: Any,
) -> None:
    trap = torch.tensor(plain.values["trap/pos_embed_after_going_back"])
    own = plain.loaded.vision.positional_embedding
    assert (own - trap).abs().max() > 1e-3  # theirs is written back in place
    again = prepare_backbone(plain.loaded, SMALL.changed({"image_size": 56}))
    assert torch.equal(again.vision.positional_embedding, own)


def test_the_class_token_without_its_norm_is_that_of_their_other_class(plain: Any) -> None:
    config = SMALL.changed({"class_ln_post": False, "period": False})
    features = encode(plain.backbone, plain.image, recipe(config))
    expected = F.normalize(torch.tensor(plain.values["no_ln_post/image_features"]), dim=-1)
    close(features.image_embedding, expected.numpy(), 2e-5)
    text = know(plain.backbone, config, Category(plain.settings["scored"]))
    scores = detect(plain.backbone, config, text, features).image_score
    close(scores, plain.values["no_ln_post/image_score"], 1e-5)


@pytest.mark.parametrize("period", [False, True])
def test_single_prompts_equal_theirs_for_every_name(plain: Any, period: bool) -> None:
    prefix, config = "period" if period else "plain", SMALL.changed({"period": period})
    texts = [
        prompt
        for name in plain.settings["names"]
        for group in prompts(config, name)
        for prompt in group
    ]
    ids = plain.backbone.tokenizer(texts)
    equal(ids, plain.values[f"text/{prefix}/tokens"])
    raw = encode_prompts(plain.backbone.text, plain.backbone.tokenizer, texts)
    close(raw.unflatten(0, (-1, 2)), plain.values[f"text/{prefix}/features"], 1e-5)


@pytest.mark.parametrize("reading", TEXT_MEANS)
@pytest.mark.parametrize("templates", TEMPLATES)
def test_ensembles_equal_theirs_in_every_reading_of_their_mean(
    plain: Any, templates: str, reading: str
) -> None:
    config = AC.changed({"templates": TEMPLATES[templates], "text_mean": reading})
    names = plain.settings["ensemble_names"]
    texts = torch.stack([text_embeddings(plain.backbone, config, Category(name)) for name in names])
    close(texts, plain.values[f"ensemble/{templates}/{reading}"], 1e-5)
    features = encode(plain.backbone, plain.image, recipe(config))
    key, tolerance = f"clip_ac/{templates}/{reading}", 1e-4 if reading == "mean" else 1e-5
    detection = detect(plain.backbone, config, texts[0], features)
    close(detection.image_score, plain.values[f"{key}/image_score"], tolerance)
    scores = text_scores(features.patch_tokens[3], texts[0], config.temperature)
    close(scores, plain.values[f"{key}/probabilities"][:, 1:], tolerance)
    if f"{key}/anomaly_map" in plain.values:
        close(detection.anomaly_map[:1], plain.values[f"{key}/anomaly_map"], 1e-5)


def test_the_prompts_of_an_ensemble_are_theirs_one_by_one_and_an_article_may_agree(
    plain: Any,
) -> None:
    name = plain.settings["ensemble_names"][0]
    normal, anomalous = prompts(AC, name)
    ids = plain.backbone.tokenizer(list(anomalous))
    equal(ids, plain.values["ensemble/t80/tokens_first_name_anomalous"])
    texts = [*normal, *anomalous]
    raw = encode_prompts(plain.backbone.text, plain.backbone.tokenizer, texts)
    expected = plain.values["ensemble/t80/features_first_name"]
    close(raw.unflatten(0, (2, 80)), expected, 1e-5)
    assert sum("a anomalous" in prompt for prompt in anomalous) == 24
    agreeing = AC.changed({"article": "agree"})
    assert not any("a anomalous" in prompt for prompt in prompts(agreeing, name)[1])
    text = text_embeddings(plain.backbone, agreeing, Category(name))
    close(text[None], plain.values["ensemble/t80_an/unit_mean_unit"], 1e-5)
    features = encode(plain.backbone, plain.image, recipe(agreeing))
    scores = detect(plain.backbone, agreeing, text, features).image_score
    close(scores, plain.values["clip_ac/t80_an/unit_mean_unit/image_score"], 1e-5)


@pytest.mark.parametrize("period", [False, True])
def test_scores_and_maps_of_the_single_prompts_equal_theirs(plain: Any, period: bool) -> None:
    config, key = SMALL.changed({"period": period}), f"clip_row/{'period' if period else 'plain'}"
    text = know(plain.backbone, config, Category(plain.settings["scored"]))
    features = encode(plain.backbone, plain.image, recipe(config))
    detection = detect(plain.backbone, config, text, features)
    close(detection.image_score, plain.values[f"{key}/image_score"], 1e-5)
    expected = plain.values[f"{key}/anomaly_map"]
    close(detection.anomaly_map[: len(expected)], expected, 1e-5)
    scores = text_scores(features.patch_tokens[3], text, config.temperature)
    close(scores, plain.values[f"{key}/probabilities"][:, 1:, 1], 1e-5)
    rough = detect(plain.backbone, config.changed({"sigma": 0}), text, features).anomaly_map
    if not period:
        close(rough[:2], plain.values[f"{key}/map_before_smoothing"], 1e-5)
    assert torch.allclose(smoothed(rough, 4.0), detection.anomaly_map)


@pytest.mark.parametrize(("row", "config"), [("clip_row", SMALL), ("clip_ac", AC)])
def test_both_rows_on_a_folder_of_images_are_theirs_to_the_metrics(
    plain: Any, row: str, config: CLIPConfig
) -> None:
    values = read_recording(FOLDER / "e2e.npz")
    with np.load(GOLDENS / "anomalyclip" / "e2e.npz") as opened:
        data = {key: opened[key] for key in opened if key.startswith(("image/", "mask/", "categ"))}
    config = config.changed({"period": False})
    for name in np.unique(data["category"]):
        places = np.flatnonzero(data["category"] == name)
        detector = CLIP(plain.loaded, config, str(name))
        detection = detector([data[f"image/{place:02d}"] for place in places])
        close(detection.image_score, values[f"{row}/{name}/image_score"], 1e-5)
        if f"{row}/{name}/anomaly_maps" in values:
            close(detection.anomaly_map, values[f"{row}/{name}/anomaly_maps"], 1e-5)
        masks = [
            resize_mask((data[key] > 0).astype(np.uint8), (84, 84), "bilinear_half")
            if (key := f"mask/{place:02d}") in data
            else np.zeros((84, 84), dtype=bool)
            for place in places
        ]
        maps, scores = detection.anomaly_map.numpy(), detection.image_score.numpy()
        measured = pixel_metrics(maps, np.stack(masks), aupro="cflow200")
        measured |= image_metrics(values[f"{name}/label"], scores)
        for metric, tolerance in (
            ("image_auroc", 1e-9),
            ("image_ap", 1e-9),
            ("pixel_auroc", 1e-5),
            ("aupro", 2e-3),
        ):
            key = metric.replace("image_", "image-").replace("pixel_", "pixel-")
            key = "pixel-aupro" if metric == "aupro" else key
            expected = float(values[f"{row}/{name}/{key}"])
            close(measured[metric], expected, tolerance, per="1")


def winclips_config(prefix: str, changes: dict) -> CLIPConfig:
    preset = "clip_ac_winclip" if prefix == "bare" else "clip_ac_winclip_ensemble"
    own = {} if prefix == "bare" else {"templates": TEMPLATES[prefix]}
    return PRESETS[preset].changed({"image_size": 96, **own, **changes})


@open_clips
@pytest.mark.parametrize("prefix", ["bare", "t80", "t7"])
def test_winclips_clip_ac_is_open_clips_classifier(winclips: Any, prefix: str) -> None:
    values, backbone = winclips.values, winclips.backbone
    config = winclips_config(prefix, {"resize": "stretch"})
    image = torch.tensor(values["image"]).to(backbone.dtype)
    features = encode(backbone, image, recipe(config))
    unit = F.normalize(torch.tensor(values["image_features"]), dim=-1)
    close(features.image_embedding, unit.numpy(), 2e-5)
    texts = [text_embeddings(backbone, config, Category(name)) for name in winclips.names]
    expected = torch.tensor(values[f"{prefix}/text_features"])
    expected = F.normalize(expected, dim=-1) if prefix == "bare" else expected
    close(torch.stack(texts), expected.numpy(), 1e-5)
    for row, text in enumerate(texts):
        close(features.image_embedding @ text.T, values[f"{prefix}/cosine"][row], 1e-5)
        for key, temperature in (("score_tau007", 0.07), ("score_own_scale", backbone.temperature)):
            changed = config.changed({"temperature": temperature})
            scores = detect(backbone, changed, text, features).image_score
            close(scores, values[f"{prefix}/{key}"][row], 1e-5)
    if prefix != "bare":
        raw = config.changed({"text_mean": "mean_unit"})
        means = [text_embeddings(backbone, raw, Category(name)) for name in winclips.names]
        close(torch.stack(means), values[f"{prefix}/mean_unit/text_features"], 1e-5)


@open_clips
def test_winclips_one_class_row_is_the_distance_to_the_normal_prompt(winclips: Any) -> None:
    config = winclips_config("bare", {"one_class": True, "resize": "stretch"})
    image = torch.tensor(winclips.values["image"]).to(winclips.backbone.dtype)
    features = encode(winclips.backbone, image, recipe(config))
    for row, name in enumerate(winclips.names):
        text = know(winclips.backbone, config, Category(name))
        scores = detect(winclips.backbone, config, text, features).image_score
        close(2 * scores - 1, winclips.values["one_class/score"][row], 1e-5)  # theirs: -cosine
    ids = winclips.backbone.tokenizer(
        [group[0] for name in winclips.names for group in prompts(PRESETS["clip_ac_winclip"], name)]
    )
    equal(ids, winclips.values["bare/tokens"])
