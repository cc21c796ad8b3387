"""CoOp (Zhou et al., IJCV 2022) between two states: a learned context, trained on image labels alone.

Read top to bottom: `loss` compares the class token, which is encoded once, with the prompts of its
category; `know` and `detect` use them like CLIP's. The prompts are in `text`, what is learned, and by
which steps, in `learner`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Float, Shaped
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.device import precise
from clipad_core.clip.features import Features
from clipad_core.clip.joint import JointRecipe, block_numbers
from clipad_core.clip.one_pass import encode
from clipad_core.clip.prepare import prepare
from clipad_core.detection import Detection
from clipad_core.errors import ClipadError
from clipad_core.maps import detect_between_prompts
from clipad_core.methods.coop.checkpoint import read_official
from clipad_core.methods.coop.config import PRESETS, CoOpConfig
from clipad_core.methods.coop.learner import (
    CoOpLearner,
    empty_learner,
    make_learner,
    make_optimizer,
    parameter_groups,
    rate_factor,
    sample_order,
)
from clipad_core.methods.coop.text import check_category, text_embeddings
from clipad_core.methods.method import Category, Detector, Method, Training


def recipe(config: CoOpConfig, k_shot: int = 0) -> JointRecipe:
    """What ``config`` reads of an image; there are no references."""
    return JointRecipe(
        image_size=config.image_size,
        blocks=tuple(sorted(config.blocks)),
        class_ln_post=config.class_ln_post,
    )


def training_recipe(config: CoOpConfig) -> JointRecipe:
    """What is read of an image that is trained on: its class token alone."""
    return replace(recipe(config), blocks=(), class_alone=True)


def prepare_backbone(backbone: Backbone, config: CoOpConfig) -> Backbone:
    """The backbone for the config's size; its activation is that of the weights.

    Raises:
        ClipadError: blocks or a size that do not fit this backbone.
    """
    block_numbers(backbone.vision.depth, config.blocks)
    return prepare(backbone, config.image_size, config.positional, "backbone")


def class_logits(
    learner: CoOpLearner,
    backbone: Backbone,
    config: CoOpConfig,
    image_embedding: Float[Tensor, "b d"],
    categories: Sequence[str],
) -> Float[Tensor, "b u 2"]:
    r"""Logits of images with both prompts of some categories: :math:`\langle f, t \rangle / \tau`.

    Args:
        image_embedding: of unit norm.
    """
    scale = config.training_temperature
    temperature = backbone.temperature if isinstance(scale, str) else scale
    text = text_embeddings(learner, backbone, config, categories)
    return precise(einsum(image_embedding, text, "b d, u s d -> b u s")) / temperature


def loss(
    learner: CoOpLearner,
    backbone: Backbone,
    config: CoOpConfig,
    features: Features,
    labels: Shaped[Tensor, " b"],
    masks: Float[Tensor, "b H W"],
    generator: torch.Generator | None,
    categories: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Mean cross-entropy of the images' labels.

    Each image is compared with the two prompts of its own category; with ``joint_categories`` with
    those of all of them, where class 2c + y is category c in state y.

    Args:
        labels: 1 where an image is anomalous.
        masks: part of the shared signature; CoOp looks at no pixel. So is ``generator``.
        categories: of every image.

    Returns:
        ``total``, and the same as ``global``: it has no other part.

    Raises:
        ClipadError: an image without a category, or of one that ``joint_categories`` does not name.
    """
    if len(categories) != len(features) or not all(categories):
        raise ClipadError(
            f"categories: found {len(categories)} for {len(features)} images, expected that of every "
            "image: CoOp's prompts name it."
        )
    names = config.joint_categories or tuple(dict.fromkeys(categories))
    if unknown := sorted(set(categories) - set(names)):
        raise ClipadError(
            f"joint_categories: found none called {unknown[0]!r}, expected all that are trained on; add it."
        )
    logits = class_logits(learner, backbone, config, features.image_embedding, names)
    rows = torch.tensor([names.index(category) for category in categories]).to(logits.device)
    if config.joint_categories:
        total = F.cross_entropy(logits.flatten(1), 2 * rows + labels.long())
    else:
        own = logits[torch.arange(len(rows), device=rows.device), rows]
        total = F.cross_entropy(own, labels.long())
    return {"global": total, "total": total}


@torch.no_grad()
def know(
    backbone: Backbone,
    config: CoOpConfig,
    category: Category,
    references: Features | None,
    learner: CoOpLearner,
) -> Float[Tensor, "2 d"]:
    """The two prompts of a category, embedded: row 0 normal, row 1 anomalous, unit norm.

    Args:
        references: part of the shared signature; CoOp reads none.
        learner: from `make_learner` or a checkpoint.
    """
    return text_embeddings(learner, backbone, config, [category.name])[0]


@torch.no_grad()
def detect(
    backbone: Backbone, config: CoOpConfig, knowledge: Float[Tensor, "2 d"], features: Features
) -> Detection:
    """Score images from their frozen features; see `detect_between_prompts`.

    Raises:
        ClipadError: scores that are not finite, or a map that ranks nothing.
    """
    return detect_between_prompts(
        backbone, features, knowledge, config.blocks, config.temperature, config.sigma
    )


METHOD = Method(
    title="CoOp",
    config=CoOpConfig,
    presets=PRESETS,
    names_category=lambda config: config.class_name != "object",
    prepare=prepare_backbone,
    recipe=recipe,
    encode=encode,
    know=know,
    detect=detect,
    mask_rule=lambda config: "bilinear_half",
    texts=lambda config: [config.context_words, config.normal_state, config.anomalous_state],
    published_weights=[("ViT-L-14-336-quickgelu", "openai")],
    training=Training(
        make_learner=make_learner,
        loss=loss,
        parameter_groups=parameter_groups,
        sample_order=sample_order,
        empty_learner=empty_learner,
        read_official=read_official,
        recipe=training_recipe,
        make_optimizer=make_optimizer,
        rate_factor=rate_factor,
    ),
    check_prompts=check_category,
    normal_prompt=lambda knowledge: knowledge[0],
)


class CoOp(Detector):
    """The detector: ``CoOp(backbone, config, learner, "bottle")(images)``.

    Args:
        backbone: a frozen CLIP as it was loaded; it is prepared here.
        config: the one the learner was made with, or a change of what is not learned.
        learner: from `make_learner` or a checkpoint.
        category: the class name, as the data set's folder spells it.
    """

    def __init__(
        self, backbone: Backbone, config: CoOpConfig, learner: CoOpLearner, category: str
    ) -> None:
        super().__init__(METHOD, backbone, config, category, learner=learner)
