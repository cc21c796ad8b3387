"""CLIP and CLIP-AC: a frozen CLIP asked of an image, and of each of its patches, by two prompts.

Plain patch tokens are upside down: in the papers' tables their maps are worse than chance, which is
what AnomalyCLIP's V-V attention and WinCLIP's windows are for.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.features import Features
from clipad_core.clip.joint import JointRecipe, block_numbers
from clipad_core.clip.one_pass import encode
from clipad_core.clip.prepare import prepare
from clipad_core.detection import Detection
from clipad_core.maps import detect_between_prompts
from clipad_core.methods.clip.config import PRESETS, CLIPConfig
from clipad_core.methods.clip.text import check_category, templates, text_embeddings
from clipad_core.methods.method import Category, Detector, Method


def recipe(config: CLIPConfig, k_shot: int = 0) -> JointRecipe:
    """What ``config`` reads of an image; there are no references."""
    return JointRecipe(
        image_size=config.image_size,
        resize=config.resize,
        blocks=tuple(sorted(config.blocks)),
        class_ln_post=config.class_ln_post,
    )


def prepare_backbone(backbone: Backbone, config: CLIPConfig) -> Backbone:
    """The backbone for the config's size; its activation is that of the weights.

    Raises:
        ClipadError: blocks or a size that do not fit this backbone.
    """
    block_numbers(backbone.vision.depth, config.blocks)
    return prepare(backbone, config.image_size, config.positional, "backbone")


def know(
    backbone: Backbone,
    config: CLIPConfig,
    category: Category,
    references: Features | None = None,
    learner: object = None,
) -> Float[Tensor, "s d"]:
    """The prompts of a category, embedded; see `text_embeddings`. Nothing else is read."""
    return text_embeddings(backbone, config, category)


@torch.no_grad()
def detect(
    backbone: Backbone, config: CLIPConfig, knowledge: Float[Tensor, "s d"], features: Features
) -> Detection:
    """Score images from their frozen features; see `detect_between_prompts`.

    Raises:
        ClipadError: scores that are not finite, a map that ranks nothing, or maps of different shapes.
    """
    return detect_between_prompts(
        backbone, features, knowledge, config.blocks, config.temperature, config.sigma
    )


METHOD = Method(
    title="CLIP",
    config=CLIPConfig,
    presets=PRESETS,
    names_category=lambda config: config.class_name != "object",
    prepare=prepare_backbone,
    recipe=recipe,
    encode=encode,
    know=know,
    detect=detect,
    mask_rule=lambda config: "bilinear_half",
    texts=lambda config: [config.normal_state, config.anomalous_state, *templates(config)],
    published_weights=[
        ("ViT-L-14-336-quickgelu", "openai"),
        ("ViT-B-16-plus-240", "laion400m_e31"),
        ("ViT-B-16-plus-240", "laion400m_e32"),
    ],
    check_prompts=check_category,
    normal_prompt=lambda knowledge: knowledge[0],
)


class CLIP(Detector):
    """The detector: ``CLIP(backbone, config, "bottle")(images)``.

    Args:
        backbone: a frozen CLIP as it was loaded; it is prepared here.
        config: a preset or a change of one.
        category: the class name, as the data set's folder spells it.
    """

    def __init__(self, backbone: Backbone, config: CLIPConfig, category: str = "") -> None:
        super().__init__(METHOD, backbone, config, category)
