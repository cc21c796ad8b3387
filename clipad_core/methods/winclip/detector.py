"""WinCLIP and WinCLIP+ (Jeong et al., CVPR 2023): windows of a frozen CLIP, prompts, references.

Read top to bottom: images are encoded once (`encode`), prompts become `prototypes`, `score` (in
`winclip_scoring`) turns features into maps by the equations of the paper, and `stitch` puts the
tiles of an image together. `WinCLIP` is the detector that ties them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.preprocess import AnyPixels, Pixels, Placement, Views, make_views
from clipad_core.clip.text import Beginnings, text_embeddings
from clipad_core.clip.vision import Features, encode_images, encode_tiles
from clipad_core.detection import Detection
from clipad_core.errors import ClipadError
from clipad_core.maps import check_not_constant, text_scores, upsample
from clipad_core.methods.winclip.config import WinCLIPConfig
from clipad_core.methods.winclip.prompts import class_words, find_ensemble
from clipad_core.methods.winclip.scoring import (
    TILE,
    TILE_STRIDE,
    Scores,
    build_memory,
    score,
    temperature,
)

# How much of the few-shot image score is the text score, Eq. (6).
TEXT_WEIGHT = {"both": 0.5, "visual": 0.0, "text": 1.0, "map_maximum": 0.0}


@dataclass(frozen=True)
class Recipe:
    """What must be encoded of an image; equal recipes share their features, whatever is scored.

    Attributes:
        resize, channels, multi_crop: how the image becomes views (`make_views`).
        scales: window sides in patches.
        patch_tokens: keep the raw patch tokens of the last block.
        tiles: encode the dense tiles of Table 8 as well.
    """

    resize: str
    channels: str
    multi_crop: str
    scales: tuple[int, ...]
    patch_tokens: bool
    tiles: bool


def image_recipe(config: WinCLIPConfig, k_shot: int) -> Recipe:
    """What ``config`` reads of a test image."""
    scales = set(config.scales) if config.map_source == "windows" else set()
    tokens = config.map_source == "patch_tokens"
    if k_shot:
        scales |= set(config.memory_scales)
        tokens |= config.patch_feature != "none"
    return Recipe(
        resize=config.resize,
        channels=config.test_channels,
        multi_crop=config.multi_crop,
        scales=tuple(sorted(scales)),
        patch_tokens=tokens,
        tiles=config.map_source == "tiles",
    )


def reference_recipe(config: WinCLIPConfig) -> Recipe:
    """What ``config`` reads of a reference: always RGB, even where test images are not."""
    scales, tokens = tuple(sorted(config.memory_scales)), config.patch_feature != "none"
    return Recipe(config.resize, "rgb", "none", scales, tokens, tiles=False)


def views_of(backbone: Backbone, image: Pixels, recipe: Recipe) -> Views:
    """Cut one image into the views of a recipe."""
    rules = (recipe.resize, recipe.channels, recipe.multi_crop)
    return make_views(image, backbone.image_size, *rules, dtype=backbone.dtype)


def encode(
    backbone: Backbone, views: Sequence[Views], recipe: Recipe
) -> tuple[Features, Float[Tensor, "m d"]]:
    """Encode the views of some images.

    Returns:
        Features of all views, image after image, and the embeddings of the multi-crop views.

    Raises:
        ClipadError: all windows of every image say the same.
    """
    tower = backbone.vision
    pixels = torch.cat([view.pixels for view in views])
    blocks = (tower.depth,) if recipe.patch_tokens else ()
    features = encode_images(tower, pixels, recipe.scales, blocks)
    if recipe.tiles:
        features.window_embeddings[-TILE] = encode_tiles(tower, pixels, TILE, TILE_STRIDE)
    for scale, windows in features.window_embeddings.items():
        check_not_constant(windows, f"window embeddings of scale {scale}")
    crops = torch.cat([view.crops for view in views])
    if not len(crops):
        return features, features.image_embedding[:0]
    return features, encode_images(tower, crops).image_embedding


def prototypes(
    backbone: Backbone, config: WinCLIPConfig, category: str, beginnings: Beginnings | None = None
) -> Float[Tensor, "s d"]:
    """The text prototypes of a category (section 4.1), unit norm; see `text_embeddings`."""
    ensemble = find_ensemble(config.prompts).with_states(config.extra_anomalous_states)
    words = class_words(category, config.class_name)
    return text_embeddings(
        backbone.text, backbone.tokenizer, ensemble, words, config.text_average, beginnings
    )


def stitch(
    scores: Scores,
    placements: Sequence[Placement],
    crops: Float[Tensor, " m"],
    config: WinCLIPConfig,
    size: int,
) -> list[tuple[Tensor, Tensor]]:
    """Put the views of every image together: one image score and a map on its canvas.

    Overlapping tiles are averaged, for the score and for the map (supplement A). ``crops`` are the
    text scores of the multi-crop views; their mean replaces the text score of the views.
    """
    found, start, first = [], 0, 0
    for placement in placements:
        part = slice(start, start + len(placement.corners))
        mine = crops[first : first + placement.crops]
        start, first = part.stop, first + placement.crops
        anomaly_map = _assemble(scores.patch_scores[part], placement, size)
        if config.map_size is not None:
            anomaly_map = _resize_from_grid(scores.patch_scores[part], anomaly_map, config.map_size)
        image_score = scores.image_score[part].mean()
        if len(mine):
            zero_shot = scores.visual_map is None
            weight = 1.0 if zero_shot else TEXT_WEIGHT[config.few_shot_image_score]
            image_score = image_score + weight * (mine.mean() - scores.text_score[part].mean())
        found.append((_or_maximum(image_score, anomaly_map, scores, config), anomaly_map))
    return found


def _assemble(patch_scores: Tensor, placement: Placement, size: int) -> Tensor:
    """Upsample every view and average where they overlap."""
    tiles = upsample(patch_scores, (size, size))
    if len(tiles) == 1:  # it is the canvas
        return tiles[0]
    total, weight = tiles.new_zeros(placement.canvas), tiles.new_zeros(placement.canvas)
    for tile, (left, top) in zip(tiles, placement.corners, strict=True):
        total[top : top + size, left : left + size] += tile
        weight[top : top + size, left : left + size] += 1
    return total / weight


def _resize_from_grid(patch_scores: Tensor, stitched: Tensor, side: int) -> Tensor:
    """A fixed output side: straight from the grid for one view, from the canvas for several."""
    source = patch_scores if len(patch_scores) == 1 else stitched[None]
    return upsample(source, (side, side))[0]


def _or_maximum(
    image_score: Tensor, anomaly_map: Tensor, scores: Scores, config: WinCLIPConfig
) -> Tensor:
    rule = (
        config.zero_shot_image_score if scores.visual_map is None else config.few_shot_image_score
    )
    return anomaly_map.amax() if rule == "map_maximum" else image_score


class WinCLIP:
    """The detector: ``WinCLIP(backbone, config, "bottle", references)(images)``.

    Args:
        backbone: a frozen CLIP.
        config: a preset or a change of one.
        category: the class name, as the data set's folder spells it.
        references: k normal RGB images; none for zero-shot WinCLIP.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: WinCLIPConfig,
        category: str,
        references: Sequence[Pixels] = (),
    ) -> None:
        self.backbone, self.config, self.k_shot = backbone, config, len(references)
        self.text = prototypes(backbone, config, category)
        self.recipe = image_recipe(config, self.k_shot)
        self.memory = None
        if references:
            recipe = reference_recipe(config)
            views = [views_of(backbone, image, recipe) for image in references]
            features, _ = encode(backbone, views, recipe)
            self.memory = build_memory(backbone.vision, features, config)

    def __call__(self, images: Sequence[AnyPixels]) -> Detection:
        """Score RGB images of one shape after resizing.

        Raises:
            ClipadError: no image, or maps of different shapes (call once a shape).
        """
        if not images:
            raise ClipadError("images: found none, expected at least one RGB image.")
        views = [views_of(self.backbone, image, self.recipe) for image in images]
        features, crops = encode(self.backbone, views, self.recipe)
        scores = score(self.backbone, features, self.text, self.config, self.memory)
        tau = temperature(self.backbone, self.config)
        crop_scores = text_scores(crops, self.text, tau)
        placements = [view.placement for view in views]
        found = stitch(scores, placements, crop_scores, self.config, self.backbone.image_size)
        shapes = {tuple(anomaly_map.shape) for _, anomaly_map in found}
        if len(shapes) > 1:
            raise ClipadError(
                f"images: their maps have the shapes {sorted(shapes)}, expected one; call once each."
            )
        return Detection(
            torch.stack([one for one, _ in found]), torch.stack([one for _, one in found])
        )
