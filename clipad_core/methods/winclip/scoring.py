"""Features to scores: the language-guided map, the reference memory, and their fusion.

WinCLIP (Jeong et al., CVPR 2023), sections 4.1 to 4.3. Nothing here sees an image: every ablation of
prompts, scales, aggregation or fusion reads the same encoded features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.backbone import Backbone, check_has_float64
from clipad_core.clip.features import Features
from clipad_core.clip.vision import VisionTower, project
from clipad_core.maps import (
    association_scores,
    check_finite,
    check_maps,
    fuse_maps,
    harmonic_mean,
    text_scores,
)
from clipad_core.methods.winclip.config import WinCLIPConfig
from clipad_core.methods.winclip.equations import (
    arithmetic_aggregation,
    cover_matrix,
    harmonic_aggregation,
)
from clipad_core.methods.winclip.windows import window_index, window_stride

# Image tiling of Table 8: the paper prints no tile size; a tile of 4 x 4 patches every 2 patches
# is about the mid window's reach at a quarter of the dense cost.
TILE = 4
TILE_STRIDE = TILE // 2  # as `Recipe.tiles` says


@dataclass(frozen=True)
class ReferenceMemory:
    """Unit-norm embeddings of all k normal shots, by window scale and for patches (4.3)."""

    windows: dict[int, Tensor]
    patches: Tensor | None


@dataclass(frozen=True)
class Scores:
    """Everything between the features and the output of v views, for reading and for drawing.

    All maps are (v, h, w) on the patch grid, in [0, 1], higher = more anomalous.
    """

    image_score: Float[Tensor, " v"]
    patch_scores: Float[Tensor, "v h w"]
    text_score: Float[Tensor, " v"]
    language_maps: dict[int, Tensor]
    language_map: Tensor
    association_maps: dict[str, Tensor]
    visual_map: Tensor | None


def temperature(backbone: Backbone, config: WinCLIPConfig) -> float:
    """The temperature of Eq. (1): a number, or the backbone's own learned one."""
    return backbone.temperature if config.temperature == "clip" else float(config.temperature)


def patch_embeddings(
    tower: VisionTower, tokens: Float[Tensor, "v p c"], feature: str
) -> Float[Tensor, "v p e"]:
    """Patch tokens as the memory compares them, unit norm.

    "ln_post": after the final layer norm (anomalib); "raw": the residual stream (zqhang, mala-lab);
    "projected": in the joint space, where text can be compared too (Table 8, patch token).
    """
    if feature == "projected":
        return project(tower, tokens)
    return F.normalize(tower.ln_post(tokens) if feature == "ln_post" else tokens, dim=-1)


def build_memory(
    tower: VisionTower, references: Features, config: WinCLIPConfig
) -> ReferenceMemory:
    """Stack the windows and patches of the k references (section 4.3)."""
    windows = {s: references.window_embeddings[s].flatten(0, 1) for s in config.memory_scales}
    if config.patch_feature == "none":
        return ReferenceMemory(windows, None)
    tokens = references.patch_tokens[tower.depth]
    patches = patch_embeddings(tower, tokens, config.patch_feature).flatten(0, 1)
    return ReferenceMemory(windows, patches)


@lru_cache(maxsize=16)
def _cover(grid: tuple[int, int], scale: int, stride: int) -> Tensor:
    return cover_matrix(window_index(grid, scale, stride), grid[0] * grid[1])


def _aggregate(scores: Tensor, cover: Tensor, rule: str) -> Tensor:
    """Window scores to patches; "harmonic_normal" is one minus the harmonic mean of normality."""
    cover = cover.to(scores)
    if rule == "harmonic":
        return harmonic_aggregation(scores, cover)
    if rule == "harmonic_normal":
        return 1 - harmonic_aggregation(1 - scores, cover)
    return arithmetic_aggregation(scores, cover)


def _fuse_scales(maps: list[Tensor], rule: str) -> Tensor:
    if rule == "harmonic":
        return harmonic_mean(maps)
    if rule == "harmonic_normal":
        return 1 - harmonic_mean([1 - scale_map for scale_map in maps])
    stack = torch.stack(torch.broadcast_tensors(*maps))
    return stack.amax(dim=0) if rule == "max" else stack.mean(dim=0)


def _precision(features: Features, config: WinCLIPConfig) -> torch.dtype:
    """Of the aggregation: what the config asks for, never less than the features have."""
    dtype: torch.dtype = getattr(torch, config.aggregation_precision)
    if dtype == torch.float64:
        check_has_float64(features.image_embedding.device)
    return torch.promote_types(dtype, features.image_embedding.dtype)


def language_scores(
    backbone: Backbone, features: Features, text: Tensor, config: WinCLIPConfig
) -> tuple[Tensor, dict[int, Tensor], Tensor]:
    """Text score of the image, one map a scale, and their fusion (sections 4.1 and 4.2)."""
    tau = temperature(backbone, config)
    grid = backbone.vision.grid
    precise = _precision(features, config)
    image = text_scores(features.image_embedding, text, tau)

    def spread(windows: Tensor, scale: int, stride: int) -> Tensor:
        scores = text_scores(windows, text, tau).to(precise)
        patches = _aggregate(scores, _cover(grid, scale, stride), config.window_aggregation)
        return patches.unflatten(1, grid)

    if config.map_source == "patch_tokens":
        tokens = features.patch_tokens[backbone.vision.depth]
        joint = patch_embeddings(backbone.vision, tokens, "projected")
        maps = {1: text_scores(joint, text, tau).unflatten(1, grid).to(precise)}
        return image, maps, maps[1]
    if config.map_source == "tiles":
        maps = {TILE: spread(features.window_embeddings[-TILE], TILE, TILE_STRIDE)}
    else:
        windows, attention = features.window_embeddings, config.window_attention
        maps = {s: spread(windows[s], s, window_stride(attention, s)) for s in config.scales}
    fused = list(maps.values())
    if config.image_scale:
        fused.insert(0, image.to(precise)[:, None, None].expand(-1, *grid))
    return image, maps, _fuse_scales(fused, config.scale_fusion)


def visual_scores(
    tower: VisionTower, features: Features, memory: ReferenceMemory, config: WinCLIPConfig
) -> tuple[dict[str, Tensor], Tensor]:
    """One association map a memory and their mean, Eqs. (4) and (5)."""
    precise = _precision(features, config)
    maps, previous = {}, None
    if memory.patches is not None:
        tokens = features.patch_tokens[tower.depth]
        patches = patch_embeddings(tower, tokens, config.patch_feature)
        association = _associate(patches, memory.patches, config)
        maps["patch"] = association.unflatten(1, tower.grid).to(precise)
    for scale in config.memory_scales:
        windows = features.window_embeddings[scale]
        association = _associate(windows, memory.windows[scale], config)
        if config.gallery_off_by_one and previous is not None:
            association = association.clone()
            association[:, :1] = _associate(windows[:, :1], previous, config)
        previous = memory.windows[scale]
        cover = _cover(tower.grid, scale, window_stride(config.window_attention, scale))
        spread = _aggregate(association.to(precise), cover, config.reference_aggregation)
        maps[f"window {scale}"] = spread.unflatten(1, tower.grid)
    return maps, torch.stack(list(maps.values())).mean(dim=0)


def _associate(queries: Tensor, memory: Tensor, config: WinCLIPConfig) -> Tensor:
    scores = association_scores(queries, memory)
    # A query that is its own reference scores about -1e-7, and reciprocals of both signs cancel.
    return scores.clamp(min=0) if config.clamp_association else scores


def _check_maps(maps: dict[str, Tensor]) -> None:
    """Stop where no map of any image ranks anything; that of one image may, by chance, not."""
    for name, score_maps in maps.items():
        flat = score_maps.flatten(1)
        if bool((flat.amax(dim=1) == flat.amin(dim=1)).all()):
            check_maps(score_maps, name)


@torch.inference_mode()
def score(
    backbone: Backbone,
    features: Features,
    text: Tensor,
    config: WinCLIPConfig,
    memory: ReferenceMemory | None = None,
) -> Scores:
    """Score v views on the patch grid.

    Zero-shot: the text score of the image and the language map. With a memory: Eq. (6),
    ``(text score + max M^W) / 2``, and the fusion of both maps.

    Raises:
        ClipadError: a score is NaN or infinite, or all windows of a scale have one score.
    """
    with torch.autocast(
        text.device.type, enabled=False
    ):  # reciprocals of half a number are infinite
        return _score(backbone, features, text, config, memory)


def _score(
    backbone: Backbone,
    features: Features,
    text: Tensor,
    config: WinCLIPConfig,
    memory: ReferenceMemory | None,
) -> Scores:
    image, language, fused = language_scores(backbone, features, text, config)
    if memory is None:
        # caoyunkang's parallel fusion meets the language map twice where there is no reference.
        patch = fuse_maps(fused, fused, "parallel") if config.map_fusion == "parallel" else fused
        maps: dict[str, Tensor] = {}
        visual, chosen = None, image
    else:
        maps, visual = visual_scores(backbone.vision, features, memory, config)
        patch = fuse_maps(fused, visual, config.map_fusion)
        highest = visual.flatten(1).amax(dim=1)
        rule = config.few_shot_image_score
        combined = (image + highest) / 2
        chosen = {"both": combined, "visual": highest, "text": image, "map_maximum": combined}[rule]
    # A window as large as the grid has no other; of scales' maximum, the image's may be all.
    side = max(backbone.vision.grid)
    _check_maps(
        {
            f"windows of {s} patches": language_map
            for s, language_map in language.items()
            if s < side
        }
    )
    if config.scale_fusion != "max":
        _check_maps({"anomaly map": patch})
    check_finite(chosen, "image score")
    check_finite(patch, "anomaly map")
    return Scores(chosen, patch, image, language, fused, maps, visual)
