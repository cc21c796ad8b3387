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

from clipad_core.backbone import Backbone
from clipad_core.errors import ClipadError
from clipad_core.preprocess import Pixels, Views, make_views
from clipad_core.prompts import class_words, find_ensemble
from clipad_core.scoring import check_not_constant, text_scores, upsample
from clipad_core.text import text_embeddings
from clipad_core.vision import Features, encode_images, encode_tiles
from clipad_core.winclip_config import WinCLIPConfig
from clipad_core.winclip_scoring import TILE, TILE_STRIDE, Scores, build_memory, score, temperature


@dataclass(frozen=True)
class Detection:
    """Scores of b images; higher = more anomalous."""

    image_score: Float[Tensor, " b"]
    anomaly_map: Float[Tensor, "b H W"]


def encode(
    backbone: Backbone, views: Sequence[Views], config: WinCLIPConfig, k_shot: int
) -> tuple[Features, Tensor]:
    """Encode the views of some images: what ``config`` reads of them, and nothing else.

    Returns:
        Features of all views, image after image, and the embeddings of the multi-crop views.
    """
    tower = backbone.vision
    scales = set(config.scales) if config.map_source == "windows" else set()
    blocks = {tower.depth} if config.map_source == "patch_tokens" else set()
    if k_shot:
        scales |= set(config.memory_scales)
        blocks |= {tower.depth} if config.patch_feature != "none" else set()
    pixels = torch.cat([view.pixels for view in views])
    features = encode_images(tower, pixels, sorted(scales), sorted(blocks))
    if config.map_source == "tiles":
        features.window_embeddings[-TILE] = encode_tiles(tower, pixels, TILE, TILE_STRIDE)
    for scale, windows in features.window_embeddings.items():
        check_not_constant(windows, f"window embeddings of scale {scale}")
    crops = torch.cat([view.crops for view in views])
    return features, encode_images(tower, crops).image_embedding if len(crops) else crops


def prototypes(backbone: Backbone, config: WinCLIPConfig, category: str) -> Tensor:
    """The two text prototypes of a category (section 4.1), (2, d), unit norm."""
    ensemble = find_ensemble(config.prompts).with_states(config.extra_anomalous_states)
    words = class_words(category, config.class_name)
    return text_embeddings(backbone.text, backbone.tokenizer, ensemble, words, config.text_average)


def stitch(
    scores: Scores, views: Sequence[Views], crops: Tensor | None, config: WinCLIPConfig, size: int
) -> list[tuple[Tensor, Tensor]]:
    """Put the views of every image together: a map on its canvas and one image score.

    Overlapping tiles are averaged, for the score and for the map (supplement A). ``crops`` are the
    text scores of the multi-crop views, which replace the single view's text score by their mean.
    """
    found, start, first = [], 0, 0
    for view in views:
        part = slice(start, start + len(view.pixels))
        start = part.stop
        tiles = upsample(scores.patch_scores[part], (size, size))
        total, weight = tiles.new_zeros(view.canvas), tiles.new_zeros(view.canvas)
        for tile, (left, top) in zip(tiles, view.lefts_tops, strict=True):
            total[top : top + size, left : left + size] += tile
            weight[top : top + size, left : left + size] += 1
        anomaly_map = total / weight
        if config.map_size is not None:
            anomaly_map = _resize_from_grid(scores.patch_scores[part], anomaly_map, config.map_size)
        image_score = scores.image_score[part].mean()
        if crops is not None and len(view.crops):
            share = crops[first : first + len(view.crops)].mean() - scores.text_score[part].mean()
            first += len(view.crops)
            with_text = {"both": 0.5, "visual": 0.0}.get(config.few_shot_image_score, 1.0)
            image_score = image_score + share * (
                with_text if scores.visual_map is not None else 1.0
            )
        found.append((_or_maximum(image_score, anomaly_map, scores, config), anomaly_map))
    return found


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
        self.memory = None
        if references:
            # References are read as RGB even where test images are not (caoyunkang's fault).
            views = [self._views(image, "rgb") for image in references]
            features, _ = encode(backbone, views, config, self.k_shot)
            self.memory = build_memory(backbone.vision, features, config)

    def _views(self, image: Pixels, channels: str) -> Views:
        config = self.config
        return make_views(
            image, self.backbone.image_size, config.resize, channels, config.multi_crop
        )

    def __call__(self, images: Sequence[Pixels]) -> Detection:
        """Score RGB images of one shape after resizing.

        Raises:
            ClipadError: no image, or maps of different shapes (call once a shape).
        """
        if not images:
            raise ClipadError("images: found none, expected at least one RGB image.")
        views = [self._views(image, self.config.test_channels) for image in images]
        features, crops = encode(self.backbone, views, self.config, self.k_shot)
        scores = score(self.backbone, features, self.text, self.config, self.memory)
        tau = temperature(self.backbone, self.config)
        crop_scores = text_scores(crops, self.text, tau) if len(crops) else None
        found = stitch(scores, views, crop_scores, self.config, self.backbone.image_size)
        shapes = {tuple(anomaly_map.shape) for _, anomaly_map in found}
        if len(shapes) > 1:
            raise ClipadError(
                f"images: their maps have the shapes {sorted(shapes)}, expected one; call once each."
            )
        return Detection(
            torch.stack([one for one, _ in found]), torch.stack([one for _, one in found])
        )
