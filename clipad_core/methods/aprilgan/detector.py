"""APRIL-GAN (Chen et al., 2023): linear layers make raw patches comparable with text; references too.

Read top to bottom: `loss` and `detect` turn what the frozen tower says (`clip.raw_tokens`) into a
training signal and into maps, `stretched` makes the image scores of a whole category, `APRILGAN` is
the detector that ties them together. The text side is in `text`, the maps are in `maps`, what is
learned is in `learner`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.features import Features, Images
from clipad_core.clip.one_pass import encode
from clipad_core.clip.prepare import check_has_blocks, prepare
from clipad_core.clip.raw_tokens import TokensRecipe
from clipad_core.detection import Detection
from clipad_core.errors import ClipadError
from clipad_core.learned.losses import check_masks, dice_loss, focal_loss
from clipad_core.learned.token_memory import Memory, build_memory, reference_map
from clipad_core.maps import (
    check_finite,
    check_maps,
    probabilities,
    text_scores,
    upsampled_difference,
)
from clipad_core.methods.aprilgan.checkpoint import read_official
from clipad_core.methods.aprilgan.config import MVTEC, PRESETS, APRILGANConfig, compared_blocks
from clipad_core.methods.aprilgan.learner import (
    APRILGANLearner,
    empty_learner,
    make_learner,
    sample_order,
)
from clipad_core.methods.aprilgan.maps import (
    block_logits,
    text_map,
)
from clipad_core.methods.aprilgan.text import batch_text, check_category, class_text
from clipad_core.methods.method import (
    Augmentation,
    Category,
    Detector,
    Method,
    References,
    Rescore,
    Training,
)


def recipe(config: APRILGANConfig, k_shot: int = 0) -> TokensRecipe:
    """What ``config`` reads of a test image: with references their blocks as well."""
    blocks = {*config.blocks, *(compared_blocks(config) if k_shot else ())}
    return TokensRecipe(image_size=config.image_size, blocks=tuple(sorted(blocks)))


def reference_recipe(config: APRILGANConfig) -> TokensRecipe:
    """What ``config`` reads of a reference."""
    return TokensRecipe(image_size=config.image_size, blocks=compared_blocks(config))


def prepare_backbone(backbone: Backbone, config: APRILGANConfig) -> Backbone:
    """The backbone as APRIL-GAN runs it: another input size, another GELU, another digest.

    Raises:
        ClipadError: blocks or an input size that do not fit this backbone.
    """
    check_has_blocks(backbone, config.blocks)
    check_has_blocks(backbone, compared_blocks(config), "memory_blocks")
    activation = config.activation
    if activation == "by_size":
        activation = "backbone" if config.image_size == backbone.image_size else "gelu"
    return prepare(backbone, config.image_size, config.positional, activation)


def loss(
    learner: APRILGANLearner,
    backbone: Backbone,
    config: APRILGANConfig,
    features: Features,
    labels: Shaped[Tensor, " b"],
    masks: Float[Tensor, "b H W"],
    generator: torch.Generator | None,
    categories: Sequence[str],
) -> dict[str, Tensor]:
    """Focal loss, and dice loss of the anomalous channel, each the sum over the blocks, unweighted.

    Args:
        labels: part of the shared signature; APRIL-GAN learns from masks alone.
        masks: 1 where a pixel is anomalous, as large as the backbone's input.
        generator: part of the shared signature; APRIL-GAN draws nothing.
        categories: of every image.

    Returns:
        ``focal``, ``dice`` and ``total``.
    """
    check_masks(masks, len(features), backbone.input_size)
    text = batch_text(backbone, config, categories)
    logits = torch.stack(block_logits(learner, config, features, text))
    difference = upsampled_difference(logits, backbone.vision.grid, backbone.input_size)
    normal, anomalous = probabilities(difference)
    focal, dice = focal_loss(normal, anomalous, masks), dice_loss(anomalous, masks)
    return {"focal": focal, "dice": dice, "total": focal + dice}


def parameter_groups(
    learner: APRILGANLearner, config: APRILGANConfig, trained_on: str
) -> list[dict[str, Any]]:
    """One group for ``torch.optim.Adam``: everything, at one rate whatever it is trained on."""
    return [{"params": list(learner.parameters()), "lr": config.learning_rate}]


def epochs(config: APRILGANConfig, trained_on: str) -> int:
    """How long is trained: shorter on MVTec AD, since more makes it worse elsewhere.

    >>> epochs(APRILGANConfig(), "mvtec"), epochs(APRILGANConfig(), "visa")
    (3, 15)
    """
    return min(config.epochs, config.epochs_mvtec) if trained_on == MVTEC else config.epochs


@dataclass(frozen=True)
class Knowledge:
    """What APRIL-GAN knows of a category: its layers, two text embeddings, and with references a memory."""

    learner: APRILGANLearner
    text: Float[Tensor, "2 d"]
    memory: Memory | None


@torch.no_grad()
def know(
    backbone: Backbone,
    config: APRILGANConfig,
    category: Category,
    references: Features | None,
    learner: APRILGANLearner,
) -> Knowledge:
    """Prompts to text embeddings and references to a memory, before a test image is seen.

    Args:
        references: as `encode` gives them with `reference_recipe`; None: zero-shot.
        learner: from `make_learner` or a checkpoint; the same with and without references.
    """
    memory = None if references is None else build_memory(references, compared_blocks(config))
    return Knowledge(learner, class_text(backbone, config, category.name), memory)


@torch.no_grad()
def detect(
    backbone: Backbone, config: APRILGANConfig, knowledge: Knowledge, features: Features
) -> Detection:
    """Score images from their frozen features, each by itself.

    The score of an image without references is that of its class token against the text alone: what is
    learned takes no part in it.

    Returns:
        Maps as large as the backbone's input, up to the number of blocks, with references up to three
        times as much; and image scores in [0, 1], but with ``few_shot_image_score: added``. Those of
        ``stretched`` are made of them by `whole_category`.

    Raises:
        ClipadError: scores that are not finite, or a map that ranks nothing.
    """
    grid, size = backbone.vision.grid, backbone.input_size
    unit = F.normalize(features.image_embedding, dim=-1)
    score = check_finite(text_scores(unit, knowledge.text, config.temperature), "image score")
    logits = block_logits(knowledge.learner, config, features, knowledge.text[None])
    anomaly_map = text_map(logits, grid, size)
    if knowledge.memory is not None:
        anomaly_map = anomaly_map + reference_map(features, knowledge.memory, grid, size)
        if config.few_shot_image_score == "added":
            score = score + anomaly_map.amax(dim=(1, 2))
    check_maps(check_finite(anomaly_map, "anomaly map"), "anomaly map")
    return Detection(score, anomaly_map)


def stretched(detection: Detection) -> Detection:
    r"""Image scores of a whole category: each depends on all of its test images, which is transductive.

    Half the text score and half the largest pixel of the map, stretched over the images:

    .. math:: \tfrac12 \left(s_i + \frac{m_i - \min_j m_j}{\max_j m_j - \min_j m_j}\right)

    Args:
        detection: of `detect`, for all test images of the category.

    Returns:
        The same maps, and scores in [0, 1].

    Raises:
        ClipadError: one image, or maps whose largest pixels are all the same.

    >>> maps = torch.tensor([[[0.0, 2.0]], [[0.0, 4.0]], [[0.0, 3.0]]])
    >>> stretched(Detection(torch.tensor([0.5, 0.5, 1.0]), maps)).image_score
    tensor([0.2500, 0.7500, 0.7500])
    """
    maxima = detection.anomaly_map.amax(dim=(1, 2))
    low, high = maxima.min(), maxima.max()
    if not low < high:
        number = "one test image" if len(maxima) == 1 else f"{len(maxima)} maps of one maximum"
        raise ClipadError(
            f"few_shot_image_score: found {number}, expected two images or more whose maps differ: "
            "'stretched' compares all test images of a category. Set few_shot_image_score to 'added' or "
            "'text', which score each image by itself."
        )
    share = (maxima - low) / (high - low)
    return Detection((detection.image_score + share) / 2, detection.anomaly_map)


def whole_category(config: APRILGANConfig, k_shot: int) -> Rescore | None:
    """What makes image scores of a whole category; without references each image is scored alone."""
    return stretched if k_shot and config.few_shot_image_score == "stretched" else None


def augmentation(config: APRILGANConfig) -> Augmentation | None:
    """What the training does to images: mosaics of MVTec AD alone, of normal ones as well."""
    return Augmentation("mosaic", config.mosaic_rate, MVTEC) if config.mosaic_rate else None


METHOD = Method(
    title="APRIL-GAN",
    config=APRILGANConfig,
    presets=PRESETS,
    names_category=lambda config: config.class_name != "object",
    prepare=prepare_backbone,
    recipe=recipe,
    encode=encode,
    know=know,
    detect=detect,
    mask_rule=lambda config: "bilinear_half",
    texts=lambda config: [*config.templates, *config.normal_states, *config.anomalous_states],
    published_weights=[("ViT-L-14-336-quickgelu", "openai")],
    references=References(
        title="APRIL-GAN", recipe=reference_recipe, choice=lambda config: config.reference_choice
    ),
    training=Training(
        make_learner=make_learner,
        loss=loss,
        parameter_groups=parameter_groups,
        sample_order=sample_order,
        empty_learner=empty_learner,
        read_official=read_official,
        augmentation=augmentation,
        epochs=epochs,
    ),
    whole_category=whole_category,
    check_prompts=check_category,
    normal_prompt=lambda knowledge: knowledge.text[0],
)


class APRILGAN(Detector):
    """The detector: ``APRILGAN(backbone, config, learner, "bottle", references)(images)``.

    With references a call scores its images as one category: give it all of them.

    Args:
        backbone: a frozen CLIP as it was loaded; it is prepared here.
        config: the one the learner was made with, or a change of what is not learned.
        learner: from `make_learner` or a checkpoint.
        category: the class name, as the data set's folder spells it.
        references: k normal images; none for zero-shot.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: APRILGANConfig,
        learner: APRILGANLearner,
        category: str,
        references: Images = (),
    ) -> None:
        super().__init__(METHOD, backbone, config, category, references, learner)
