"""VCP-CLIP (Qu et al., ECCV 2024): the image speaks into the prompt, the prompt looks back at it.

Read top to bottom: `encode` runs the frozen tower once (`clip.raw_tokens`), `loss` and `detect` turn
what it said into a training signal and into maps, `VCPCLIP` is the detector that ties them together.
The text side is in `text`, the maps are in `maps`, what is learned is in `learner`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.features import Features, Recipe
from clipad_core.clip.prepare import prepare
from clipad_core.clip.raw_tokens import encode
from clipad_core.detection import Detection
from clipad_core.errors import ClipadError
from clipad_core.learned.losses import check_masks, dice_loss, focal_loss
from clipad_core.maps import check_finite, check_maps, probabilities, upsampled_difference
from clipad_core.methods.method import Augmentation, Category, Detector, Method, Training
from clipad_core.methods.vcpclip.checkpoint import (
    read_official,
)
from clipad_core.methods.vcpclip.config import MVTEC, PRESETS, VCPCLIPConfig
from clipad_core.methods.vcpclip.initial import make_learner, sample_order
from clipad_core.methods.vcpclip.learner import VCPCLIPLearner, empty_learner, sizes_of
from clipad_core.methods.vcpclip.maps import (
    branch_map,
    fuse,
    mean_of_top,
    new_logits,
    raw_logits,
)
from clipad_core.methods.vcpclip.text import check_templates, text_embeddings


def recipe(config: VCPCLIPConfig, k_shot: int = 0) -> Recipe:
    """What ``config`` reads of an image; there are no references."""
    return Recipe(image_size=config.image_size, blocks=tuple(sorted(config.blocks)))


def prepare_backbone(backbone: Backbone, config: VCPCLIPConfig) -> Backbone:
    """The backbone as VCP-CLIP runs it: another input size, another GELU, another digest.

    Raises:
        ClipadError: blocks, heads or an input size that do not fit this backbone.
    """
    sizes_of(backbone, config)
    return prepare(backbone, config.image_size, config.positional, config.activation)


def loss(
    learner: VCPCLIPLearner,
    backbone: Backbone,
    config: VCPCLIPConfig,
    features: Features,
    labels: Shaped[Tensor, " b"],
    masks: Float[Tensor, "b H W"],
    generator: torch.Generator | None,
    categories: Sequence[str] = (),
) -> dict[str, Tensor]:
    """The loss of Eq. (10) and its parts, each the sum over the blocks, unweighted.

    Args:
        labels: part of the shared signature; VCP-CLIP learns from masks alone.
        masks: 1 where a pixel is anomalous, as large as the backbone's input.
        generator: draws the dropout of the deep prompts; none: no dropout.
        categories: part of the shared signature; the image itself takes the place of its name.

    Returns:
        ``raw_focal``, ``raw_dice``, with Post-VCP ``new_focal``, ``new_dice``, and ``total``.
    """
    check_masks(masks, len(features), backbone.input_size)
    text = text_embeddings(learner, backbone, config, features.image_embedding, generator)
    branches = {
        "raw": raw_logits(learner, config, features, text),
        "new": new_logits(learner, config, features, text),
    }
    parts: dict[str, Tensor] = {}
    for name, logits in branches.items():
        if logits:
            blocks = torch.stack(logits)
            difference = upsampled_difference(blocks, backbone.vision.grid, backbone.input_size)
            normal, anomalous = probabilities(difference)
            parts[f"{name}_focal"] = focal_loss(normal, anomalous, masks)
            parts[f"{name}_dice"] = dice_loss(anomalous, masks)
    return parts | {"total": torch.stack(list(parts.values())).sum()}


def parameter_groups(
    learner: VCPCLIPLearner, config: VCPCLIPConfig, trained_on: str
) -> list[dict[str, Any]]:
    """Groups for ``torch.optim.Adam``: everything, and the two temperatures with a rate of their own.

    Args:
        trained_on: name of the auxiliary dataset; MVTec AD has another learning rate.
    """
    named = list(learner.named_parameters())
    rate = config.learning_rate_mvtec if trained_on == MVTEC else config.learning_rate
    return [
        {"params": [p for name, p in named if "logit_scale" not in name], "lr": rate},
        {
            "params": [p for name, p in named if "logit_scale" in name],
            "lr": config.learning_rate_temperature,
        },
    ]


@torch.no_grad()
def branch_maps(
    learner: VCPCLIPLearner, backbone: Backbone, config: VCPCLIPConfig, features: Features
) -> tuple[Float[Tensor, "b H W"], Float[Tensor, "b H W"] | None]:
    """The map of the raw branch and, with Post-VCP, the new one, before fusion and smoothing."""
    text = text_embeddings(learner, backbone, config, features.image_embedding)
    grid, size = backbone.vision.grid, backbone.input_size
    raw = branch_map(raw_logits(learner, config, features, text), grid, size)
    logits = new_logits(learner, config, features, text)
    return raw, branch_map(logits, grid, size) if logits else None


def know(
    backbone: Backbone,
    config: VCPCLIPConfig,
    category: Category,
    references: Features | None,
    learner: VCPCLIPLearner,
) -> VCPCLIPLearner:
    """What was learned: the prompts are made for every image, which takes the place of its name.

    Args:
        category, references: part of the shared signature; VCP-CLIP reads neither.
        learner: from `make_learner` or a checkpoint.
    """
    return learner


@torch.no_grad()
def detect(
    backbone: Backbone, config: VCPCLIPConfig, knowledge: VCPCLIPLearner, features: Features
) -> Detection:
    """Score images from their frozen features.

    Args:
        knowledge: the learner; see `know`.

    Returns:
        Maps as large as the backbone's input and image scores: for each branch the mean of its
        ``top_pixels`` largest pixels before smoothing, added up (up to 2), or the map's maximum.

    Raises:
        ClipadError: scores that are not finite, a map that ranks nothing, more ``top_pixels`` than a map
            has.
    """
    pixels = prod(backbone.input_size)
    if config.image_score == "top_pixels" and config.top_pixels > pixels:
        raise ClipadError(
            f"top_pixels: found {config.top_pixels}, expected at most {pixels}, the pixels of a map; "
            "lower it."
        )
    raw, new = branch_maps(knowledge, backbone, config, features)
    anomaly_map = check_finite(fuse(raw, new, config), "anomaly map")
    check_maps(anomaly_map, "anomaly map")
    if config.image_score == "map_maximum":
        return Detection(anomaly_map.amax(dim=(1, 2)), anomaly_map)
    score = mean_of_top(raw, config.top_pixels)
    if new is not None:
        score = score + mean_of_top(new, config.top_pixels)
    return Detection(score, anomaly_map)


def augmentation(config: VCPCLIPConfig) -> Augmentation | None:
    """What the training does to every image; the released code mixes images of MVTec AD alone."""
    if config.augmentation == "none":
        return None
    return Augmentation(config.augmentation, config.mosaic_rate, MVTEC)


METHOD = Method(
    title="VCP-CLIP",
    config=VCPCLIPConfig,
    presets=PRESETS,
    names_category=lambda config: False,
    prepare=prepare_backbone,
    recipe=recipe,
    encode=encode,
    know=know,
    detect=detect,
    mask_rule=lambda config: "bilinear_half",
    texts=lambda config: [*config.templates, *config.normal_states, *config.anomalous_states],
    published_weights=[("ViT-L-14-336-quickgelu", "openai")],
    training=Training(
        make_learner=make_learner,
        loss=loss,
        parameter_groups=parameter_groups,
        sample_order=sample_order,
        empty_learner=empty_learner,
        read_official=read_official,
        augmentation=augmentation,
        prompts_of_images=True,
    ),
    check_prompts=check_templates,
)


class VCPCLIP(Detector):
    """The detector: ``VCPCLIP(backbone, config, learner)(images)``.

    Args:
        backbone: a frozen CLIP as it was loaded; it is prepared here.
        config: the one the learner was made with, or a change of what is not learned.
        learner: from `make_learner` or a checkpoint.
    """

    def __init__(self, backbone: Backbone, config: VCPCLIPConfig, learner: VCPCLIPLearner) -> None:
        super().__init__(METHOD, backbone, config, learner=learner)
