"""VCP-CLIP (Qu et al., ECCV 2024): the image speaks into the prompt, the prompt looks back at it.

Read top to bottom: `loss` and `detect` turn what the frozen tower says (`clip.raw_tokens`) into a training
signal and into maps, `VCPCLIP` is the detector that ties them together. The text side is in `text`, the maps
are in `maps`, what is learned is in `learner`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.device import precise
from clipad_core.clip.features import Features, Images
from clipad_core.clip.one_pass import encode
from clipad_core.clip.prepare import prepare
from clipad_core.clip.raw_tokens import TokensRecipe
from clipad_core.detection import Detection
from clipad_core.errors import ClipadError
from clipad_core.learned.losses import check_masks, dice_loss, focal_loss
from clipad_core.learned.token_memory import Memory, build_memory, reference_map
from clipad_core.maps import (
    check_finite,
    check_maps,
    fuse_maps,
    probabilities,
    smoothed,
    upsampled_difference,
)
from clipad_core.methods.method import (
    Augmentation,
    Category,
    Detector,
    Method,
    References,
    Training,
)
from clipad_core.methods.vcpclip.checkpoint import (
    read_official,
)
from clipad_core.methods.vcpclip.config import MVTEC, PRESETS, VCPCLIPConfig
from clipad_core.methods.vcpclip.initial import make_learner, sample_order
from clipad_core.methods.vcpclip.learner import (
    VCPCLIPLearner,
    check_learner,
    empty_learner,
    sizes_of,
)
from clipad_core.methods.vcpclip.maps import (
    block_tokens,
    branch_map,
    fuse,
    mean_of_top,
    new_logits,
    raw_logits,
)
from clipad_core.methods.vcpclip.text import check_templates, text_embeddings


def recipe(config: VCPCLIPConfig, k_shot: int = 0) -> TokensRecipe:
    """What ``config`` reads of an image, a reference as well."""
    return TokensRecipe(image_size=config.image_size, blocks=tuple(sorted(config.blocks)))


def prepare_backbone(backbone: Backbone, config: VCPCLIPConfig) -> Backbone:
    """The backbone as VCP-CLIP runs it: another input size, another GELU, another digest.

    Raises:
        ClipadError: blocks, heads or an input size that do not fit this backbone.
    """
    sizes_of(backbone, config)
    return prepare(backbone, config.image_size, config.positional, config.activation)


def decoded(
    learner: VCPCLIPLearner,
    config: VCPCLIPConfig,
    features: Features,
    text: Float[Tensor, "b 2 d"],
) -> tuple[Float[Tensor, "b p 2"], Float[Tensor, " b"]]:
    """What the decoder says: two logits a patch, and the anomalous logit of an image minus the other.

    Raises:
        ClipadError: a learner without one.
    """
    check_learner(learner, config)
    assert learner.decoder is not None
    logits, shown = learner.decoder(text, block_tokens(config, features))
    return logits, precise(shown[:, 1] - shown[:, 0])


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
        labels: 1 where an image is anomalous; read by the decoder alone, the paper learns from masks.
        masks: 1 where a pixel is anomalous, as large as the backbone's input.
        generator: draws the dropout of the deep prompts; none: no dropout.
        categories: part of the shared signature; the image itself takes the place of its name.

    Returns:
        ``raw_focal``, ``raw_dice``, with Post-VCP ``new_focal``, ``new_dice``, and ``total``; of the
        decoder ``map_focal`` and ``map_dice`` of its one map, and ``image_focal`` of its image score.
    """
    check_masks(masks, len(features), backbone.input_size)
    text = text_embeddings(learner, backbone, config, features.image_embedding, generator)
    parts: dict[str, Tensor] = {}
    if config.head == "decoder":
        logits_of_map, shown = decoded(learner, config, features, text)
        branches = {"map": [logits_of_map]}
        pixel = rearrange(shown, "b -> b 1 1")  # an image is a map of one pixel
        target = rearrange(labels.to(shown.dtype), "b -> b 1 1")
        parts["image_focal"] = focal_loss(*probabilities(pixel), target)
    else:
        branches = {
            "raw": raw_logits(learner, config, features, text),
            "new": new_logits(learner, config, features, text),
        }
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
    """Groups for ``torch.optim.Adam``: temperatures and the decoder have rates of their own.

    Args:
        trained_on: name of the auxiliary dataset; MVTec AD has another learning rate.
    """
    parts: dict[str, list[nn.Parameter]] = {"prompts": [], "temperatures": [], "decoder": []}
    for name, parameter in learner.named_parameters():
        part = "temperatures" if "logit_scale" in name else "prompts"
        parts["decoder" if name.startswith("decoder.") else part].append(parameter)
    rates = {
        "prompts": config.learning_rate_mvtec if trained_on == MVTEC else config.learning_rate,
        "temperatures": config.learning_rate_temperature,
        "decoder": config.learning_rate_decoder,
    }
    return [{"params": part, "lr": rates[name]} for name, part in parts.items() if part]


@torch.no_grad()
def branch_maps(
    learner: VCPCLIPLearner, backbone: Backbone, config: VCPCLIPConfig, features: Features
) -> tuple[Float[Tensor, "b H W"], Float[Tensor, "b H W"] | None]:
    """The map of the raw branch and, with Post-VCP, the new one, before fusion and smoothing."""
    return _branch_maps(
        learner, backbone, config, features, _text(learner, backbone, config, features)
    )


def _branch_maps(
    learner: VCPCLIPLearner,
    backbone: Backbone,
    config: VCPCLIPConfig,
    features: Features,
    text: Float[Tensor, "b 2 d"],
) -> tuple[Float[Tensor, "b H W"], Float[Tensor, "b H W"] | None]:
    grid, size = backbone.vision.grid, backbone.input_size
    raw = branch_map(raw_logits(learner, config, features, text), grid, size)
    logits = new_logits(learner, config, features, text)
    return raw, branch_map(logits, grid, size) if logits else None


@dataclass(frozen=True)
class Knowledge:
    """What VCP-CLIP knows where it is given references, which the paper does not.

    Attributes:
        learner: trained without references.
        state: what Pre-VCP makes of the references, their mean.
        embedding: mean of their unit-norm embeddings, unit norm.
        memory: their patch tokens.
    """

    learner: VCPCLIPLearner
    state: Float[Tensor, "r c"]
    embedding: Float[Tensor, " d"]
    memory: Memory


def _text(
    learner: VCPCLIPLearner,
    backbone: Backbone,
    config: VCPCLIPConfig,
    features: Features,
    references: Knowledge | None = None,
) -> Float[Tensor, "b 2 d"]:
    """The text embeddings of every image; references speak into the normal one where they shall."""
    use = None if references is None else config.reference_use
    state = references.state if references is not None and use == "state" else None
    embedding = features.image_embedding
    text = text_embeddings(learner, backbone, config, embedding, normal_state=state)
    if references is None or use != "normal_prompt":
        return text
    return torch.stack([references.embedding.expand(len(text), -1), text[:, 1]], dim=1)


@torch.no_grad()
def know(
    backbone: Backbone,
    config: VCPCLIPConfig,
    category: Category,
    references: Features | None,
    learner: VCPCLIPLearner,
) -> VCPCLIPLearner | Knowledge:
    """What was learned: the prompts are made for every image, which takes the place of its name.

    Args:
        category: part of the shared signature; VCP-CLIP does not read it.
        references: as `encode` gives them; None: zero-shot, as in the paper.
        learner: from `make_learner` or a checkpoint.

    Raises:
        ClipadError: see `check_learner`.
    """
    check_learner(learner, config)
    if references is None:
        return learner
    units = F.normalize(references.image_embedding, dim=-1)
    return Knowledge(
        learner,
        state=learner.pre_vcp(references.image_embedding).mean(dim=0),
        embedding=F.normalize(units.mean(dim=0), dim=-1),
        memory=build_memory(references, sorted(config.blocks)),
    )


@torch.no_grad()
def detect(
    backbone: Backbone,
    config: VCPCLIPConfig,
    knowledge: VCPCLIPLearner | Knowledge,
    features: Features,
) -> Detection:
    """Score images from their frozen features.

    Args:
        knowledge: see `know`.

    Returns:
        Maps as large as the backbone's input and image scores: for each branch the mean of its
        ``top_pixels`` largest pixels before smoothing, added up (up to 2), or the map's maximum. A
        memory is one branch more; the score that the decoder gives itself, in [0, 1], stands for its map's.

    Raises:
        ClipadError: scores that are not finite, a map that ranks nothing, more ``top_pixels`` than a map
            has.
    """
    references = knowledge if isinstance(knowledge, Knowledge) else None
    learner = knowledge.learner if isinstance(knowledge, Knowledge) else knowledge
    grid, size = backbone.vision.grid, backbone.input_size
    text = _text(learner, backbone, config, features, references)
    scores: list[Tensor] = []
    if config.head == "decoder":
        logits, shown = decoded(learner, config, features, text)
        raw, new = branch_map([logits], grid, size), None
        if config.image_score == "decoder":
            scores = [torch.sigmoid(shown)]
    else:
        raw, new = _branch_maps(learner, backbone, config, features, text)
    branches = [] if scores else [raw] if new is None else [raw, new]
    anomaly_map = fuse(raw, new, config)
    if references is not None and config.reference_use == "memory":
        # In [0, 1], as the map of the text is; a patch that is its own reference is at -1e-7.
        distances = reference_map(features, references.memory, grid, size).clamp(min=0)
        distances = distances / (2 * len(references.memory))
        if config.map_fusion == "visual":
            branches, scores = [], []
        if config.map_fusion != "language":
            branches.append(distances)
        anomaly_map = fuse_maps(anomaly_map, smoothed(distances, config.sigma), config.map_fusion)
    check_maps(check_finite(anomaly_map, "anomaly map"), "anomaly map")
    if config.image_score == "map_maximum":
        return Detection(anomaly_map.amax(dim=(1, 2)), anomaly_map)
    if branches and config.top_pixels > prod(size):
        raise ClipadError(
            f"top_pixels: found {config.top_pixels}, expected at most {prod(size)}, the pixels of a map; "
            "lower it."
        )
    scores += [mean_of_top(branch, config.top_pixels) for branch in branches]
    return Detection(torch.stack(scores).sum(dim=0), anomaly_map)


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
    references=References(
        title="VCP-CLIP with references (not the paper's)",
        recipe=recipe,
        choice=lambda config: "seeded",
    ),
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
        references: k normal images; none for zero-shot, as in the paper.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: VCPCLIPConfig,
        learner: VCPCLIPLearner,
        references: Images = (),
    ) -> None:
        super().__init__(METHOD, backbone, config, references=references, learner=learner)
