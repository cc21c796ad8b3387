"""WinCLIP against recordings of anomalib 2.7.0, zqhang and caoyunkang (spec, section 15).

The recordings were made with the unmodified codes on a small random model: 96 px, a 6 x 6 grid.
"""

import numpy as np
import pytest
import recordings
import torch
from recordings import PRECISIONS, close, equal
from safetensors.torch import save_file

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.text import encode_prompts
from clipad_core.detection import Detection
from clipad_core.maps import association_scores, text_scores
from clipad_core.methods.method import Category
from clipad_core.methods.winclip.config import WinCLIPConfig, find_preset
from clipad_core.methods.winclip.detector import (
    detect,
    encode,
    image_recipe,
    know,
    prototypes,
    reference_recipe,
)
from clipad_core.methods.winclip.prompts import find_ensemble
from clipad_core.methods.winclip.scoring import (
    Scores,
    build_memory,
    language_scores,
    patch_embeddings,
    score,
    visual_scores,
)

FOLDER = recordings.GOLDENS / "winclip"
SIZE = 96
BOTTLE = Category("bottle")
ANOMALIB = pytest.mark.official("WinCLIP", "open-edge-platform/anomalib@v2.7.0")
ZQHANG = pytest.mark.official("WinCLIP", "zqhang/Accurate-WinCLIP-pytorch@eef4f8c")
CAOYUNKANG = pytest.mark.official("WinCLIP", "caoyunkang/WinClip@0818c9d")


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"share_tiny6x6.{name}.npz") as opened:
        return dict(opened)


@pytest.fixture(scope="module", params=PRECISIONS)
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """The recorded model, through the same loader a user's file goes through."""
    folder = tmp_path_factory.mktemp("weights")
    config = (FOLDER / "share_tiny6x6.config.json").read_text()
    (folder / "golden-tiny.json").write_text(config)
    weights = {key: torch.tensor(value) for key, value in golden("weights").items()}
    save_file(weights, folder / "golden-tiny.safetensors")
    return load_backbone("golden-tiny", folder / "golden-tiny.safetensors", precision=request.param)


def run(backbone: Backbone, config: WinCLIPConfig, k_shot: int) -> tuple[Scores, Detection]:
    """Run the whole method on the recorded images with the first k recorded references."""
    inputs = golden("inputs")
    features = encode(backbone, torch.tensor(inputs["images"]), image_recipe(config, k_shot))
    references = None
    if k_shot:
        shots = torch.tensor(inputs["refs"][:k_shot])
        references = encode(backbone, shots, reference_recipe(config))
    knowledge = know(backbone, config, Category(str(inputs["cls"])), references)
    scores = score(backbone, features, knowledge.text, config, knowledge.memory)
    return scores, detect(backbone, config, knowledge, features)


@ANOMALIB
def test_prompts_and_tokens_equal_anomalibs(backbone: Backbone) -> None:
    recorded = golden("anomalib")
    groups = find_ensemble("zq21_dot").prompts("bottle")
    for group, key in zip(groups, ("tokens_normal", "tokens_anom"), strict=True):
        tokens = sorted(map(tuple, backbone.tokenizer(list(group)).tolist()))
        equal(tokens, sorted(map(tuple, recorded[key].tolist())))


@ANOMALIB
def test_prompt_embeddings_equal_anomalibs(backbone: Backbone) -> None:
    recorded = golden("anomalib")
    for key in ("normal", "anom"):
        prompts = [
            backbone.tokenizer.decode([t for t in row if 0 < t < 49406])
            for row in recorded[f"tokens_{key}"].tolist()
        ]
        close(
            encode_prompts(backbone.text, backbone.tokenizer, prompts),
            recorded[f"prompt_emb_{key}"],
            2e-5,
        )


@pytest.mark.parametrize(
    "peer", [pytest.param("anomalib", marks=ANOMALIB), pytest.param("zqhang", marks=ZQHANG)]
)
def test_embeddings_equal_the_peers(backbone: Backbone, peer: str) -> None:
    inputs, recorded = golden("inputs"), golden(peer)
    config = find_preset("anomalib")
    features = encode(backbone, torch.tensor(inputs["images"]), image_recipe(config, 1))
    raw = features.patch_tokens[backbone.vision.depth]
    close(features.image_embedding, _unit(recorded["image_embeddings"]), 2e-5)
    for scale in (2, 3):
        unit = _unit(recorded[f"window_embeddings_s{scale}"])
        close(features.window_embeddings[scale], unit, 2e-5)
    if peer == "zqhang":
        close(raw, recorded["patch_embeddings"], 1e-4)
    else:
        close(backbone.vision.ln_post(raw), recorded["patch_embeddings"], 2e-5)
    assert (
        patch_embeddings(backbone.vision, raw, "raw").norm(dim=-1).allclose(torch.ones(()).to(raw))
    )


@pytest.mark.parametrize(
    ("peer", "keys"),
    [
        pytest.param("anomalib", ["text_embeddings"], marks=ANOMALIB),
        pytest.param("zqhang", ["text_normal_mean", "text_anom_mean"], marks=ZQHANG),
        pytest.param("caoyunkang", ["s23.text_features"], marks=CAOYUNKANG),
    ],
)
def test_text_prototypes_equal_the_peers(backbone: Backbone, peer: str, keys: list[str]) -> None:
    recorded = golden(peer)
    stacked = np.concatenate([recorded[key] for key in keys])
    close(prototypes(backbone, find_preset(peer), BOTTLE), _unit(stacked), 2e-5)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def assert_references_and_result(
    scores: Scores, detection: Detection, recorded: dict[str, np.ndarray], k_shot: int
) -> None:
    """Association maps, where there are references, and what comes out, by the names of the recordings."""
    if k_shot:
        close(scores.association_maps["patch"], recorded[f"fs_map_patch_k{k_shot}"], 2e-6)
        for scale in (2, 3):
            close(
                scores.association_maps[f"window {scale}"],
                recorded[f"fs_map_s{scale}_k{k_shot}"],
                2e-6,
            )
        close(scores.visual_map, recorded[f"fs_map_multi_k{k_shot}"], 2e-6)
    close(detection.image_score, recorded[f"pred_score_k{k_shot}"], 2e-6)
    close(detection.anomaly_map, recorded[f"anomaly_map_k{k_shot}"], 2e-6)


@ANOMALIB
@pytest.mark.parametrize("k_shot", [0, 1, 2, 4])
def test_anomalib_scores_and_maps(backbone: Backbone, k_shot: int) -> None:
    recorded = golden("anomalib")
    scores, detection = run(backbone, find_preset("anomalib"), k_shot)
    close(scores.text_score, recorded["zs_image_score"], 2e-6)
    close(scores.language_map, recorded["zs_map_multi"], 2e-6)
    for scale in (2, 3):
        close(scores.language_maps[scale], recorded[f"zs_map_s{scale}"], 2e-6)
    assert_references_and_result(scores, detection, recorded, k_shot)


@ZQHANG
@pytest.mark.parametrize("k_shot", [0, 1, 2, 4])
def test_zqhang_scores_and_maps(backbone: Backbone, k_shot: int) -> None:
    recorded = golden("zqhang")
    scores, detection = run(backbone, find_preset("zqhang"), k_shot)
    close(scores.language_map, recorded["zs_map_multi"], 2e-6)
    assert_references_and_result(scores, detection, recorded, k_shot)


@CAOYUNKANG
@pytest.mark.parametrize("k_shot", [0, 1, 2, 4])
@pytest.mark.parametrize(("prefix", "scales"), [("s23", (2, 3)), ("s23g", (2, 3, 6))])
def test_caoyunkang_scores_and_maps(
    backbone: Backbone, prefix: str, scales: tuple[int, ...], k_shot: int
) -> None:
    recorded = golden("caoyunkang")
    config = find_preset("caoyunkang").changed(
        {"scales": scales, "memory_scales": scales, "map_size": SIZE}
    )
    scores, detection = run(backbone, config, k_shot)
    close(scores.language_map, recorded[f"{prefix}.textual_map"], 2e-6)
    if k_shot:
        close(scores.visual_map, recorded[f"{prefix}.visual_map_k{k_shot}"], 2e-6)
    close(detection.anomaly_map, recorded[f"{prefix}.anomaly_map_k{k_shot}"], 2e-6)
    close(detection.image_score, recorded[f"{prefix}.image_score_k{k_shot}"], 2e-6)


def test_the_off_by_one_gallery_is_what_makes_caoyunkang_equal(backbone: Backbone) -> None:
    config = find_preset("caoyunkang").changed({"gallery_off_by_one": False, "map_size": SIZE})
    inputs = golden("inputs")
    features = encode(backbone, torch.tensor(inputs["images"]), image_recipe(config, 1))
    references = encode(backbone, torch.tensor(inputs["refs"][:1]), reference_recipe(config))
    memory = build_memory(backbone.vision, references, config)
    _, visual = visual_scores(backbone.vision, features, memory, config)
    assert (visual - torch.tensor(golden("caoyunkang")["s23.visual_map_k1"])).abs().max() > 1e-4


@ANOMALIB
def test_window_scores_equal_anomalibs(backbone: Backbone) -> None:
    """The recorded scores of single windows, before any aggregation."""
    recorded, inputs = golden("anomalib"), golden("inputs")
    config = find_preset("anomalib")
    features = encode(backbone, torch.tensor(inputs["images"]), image_recipe(config, 4))
    text = prototypes(backbone, config, BOTTLE)
    references = encode(backbone, torch.tensor(inputs["refs"]), reference_recipe(config))
    memory = build_memory(backbone.vision, references, config)
    for scale in (2, 3):
        windows = features.window_embeddings[scale]
        close(text_scores(windows, text, 0.07), recorded[f"zs_window_score_s{scale}"], 2e-6)
        close(
            association_scores(windows, memory.windows[scale]),
            recorded[f"fs_window_score_s{scale}_k4"],
            2e-6,
        )
    image, maps, fused = language_scores(backbone, features, text, config)
    assert image.shape == (3,) and fused.shape == (3, 6, 6) and sorted(maps) == [2, 3]
