"""AnomalyCLIP (Zhou et al., ICLR 2024): prompts about any object, patches that speak for themselves.

Read top to bottom: `loss` and `detect` compare what `branch` reads of the frozen tower, its class token and
a local branch, with two learned prompts; `AnomalyCLIP` is the detector that ties them together. The prompts
are in `text`, what is learned is in `learner`, and what references add, which the paper has none of, is in
`memory`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.device import precise
from clipad_core.clip.features import Features, Images
from clipad_core.clip.one_pass import encode
from clipad_core.clip.prepare import check_has_blocks, prepare
from clipad_core.detection import Detection
from clipad_core.learned.losses import check_masks, dice_loss, focal_loss
from clipad_core.learned.token_memory import Memory, build_memory
from clipad_core.maps import (
    check_finite,
    check_maps,
    fuse_maps,
    smoothed,
    upsample_by_matrices,
)
from clipad_core.methods.anomalyclip.branch import BranchRecipe
from clipad_core.methods.anomalyclip.checkpoint import (
    read_official,
)
from clipad_core.methods.anomalyclip.config import (
    PRESETS,
    AnomalyCLIPConfig,
    compared_blocks,
    members,
)
from clipad_core.methods.anomalyclip.dense import READ_OUTS
from clipad_core.methods.anomalyclip.learner import (
    AnomalyCLIPLearner,
    empty_learner,
    make_learner,
    sample_order,
    sizes_of,
)
from clipad_core.methods.anomalyclip.memory import fused_image_score, visual_map
from clipad_core.methods.anomalyclip.text import (
    category_words,
    check_category,
    embeddings_of,
    text_embeddings,
)
from clipad_core.methods.method import Category, Detector, Method, References, Training


def recipe(config: AnomalyCLIPConfig, k_shot: int = 0) -> BranchRecipe:
    """What ``config`` reads of a test image: with references their blocks as well."""
    blocks = {*config.blocks, *(compared_blocks(config) if k_shot else ())}
    return _recipe(config, tuple(sorted(blocks)))


def reference_recipe(config: AnomalyCLIPConfig) -> BranchRecipe:
    """What ``config`` reads of a reference."""
    return _recipe(config, compared_blocks(config))


def _recipe(config: AnomalyCLIPConfig, blocks: tuple[int, ...]) -> BranchRecipe:
    bare = config.branch in ("none", *READ_OUTS)
    return BranchRecipe(
        image_size=config.image_size,
        blocks=blocks,
        kinds=members(config.branch),
        from_layer=0 if bare else config.dpam_from_layer,
        stream="sum" if bare else config.local_stream,
        class_ln_post=config.class_ln_post,
    )


def prepare_backbone(backbone: Backbone, config: AnomalyCLIPConfig) -> Backbone:
    """The backbone as AnomalyCLIP runs it: another input size, another digest.

    Raises:
        ClipadError: blocks, depths or an input size that do not fit this backbone.
    """
    sizes_of(backbone, config)
    check_has_blocks(backbone, compared_blocks(config), "memory_blocks")
    return prepare(backbone, config.image_size, config.positional, config.activation)


def image_logits(
    image_embedding: Float[Tensor, "b d"], text: Float[Tensor, "n 2 d"], temperature: float
) -> Float[Tensor, "b 2"]:
    r"""Logits of a whole image, normal and anomalous (Eq. (1)): :math:`\langle n(f), t \rangle / \tau`.

    >>> axes = torch.eye(2)
    >>> image_logits(2 * axes, axes[None], temperature=0.5)
    tensor([[2., 0.],
            [0., 2.]])
    """
    unit = F.normalize(image_embedding, dim=-1)
    return precise((rearrange(unit, "b d -> b 1 d") * text).sum(dim=-1)) / temperature


def patch_probabilities(
    patches: Float[Tensor, "b p d"], text: Float[Tensor, "n 2 d"], temperature: float
) -> Float[Tensor, "b p"]:
    r"""Probability that a patch is anomalous (Eq. (1)); a softmax of two is a sigmoid.

    .. math:: S_a = \mathrm{softmax}(\langle p, t_n \rangle/\tau, \langle p, t_a \rangle/\tau)_a

    >>> axes = torch.eye(2)
    >>> patch_probabilities(axes[None], axes[None], temperature=1.0)
    tensor([[0.2689, 0.7311]])
    """
    direction = (text[:, 1] - text[:, 0]) / temperature
    return torch.sigmoid(precise(patches @ rearrange(direction, "n d -> n d 1")))[..., 0]


def block_maps(
    backbone: Backbone,
    config: AnomalyCLIPConfig,
    features: Features,
    text: Float[Tensor, "n 2 d"],
) -> Float[Tensor, "l b H W"]:
    """Map of every block, ascending: probabilities first, then bilinear to the input size."""
    scores = torch.stack(
        [
            patch_probabilities(features.patch_tokens[block], text, config.temperature)
            for block in sorted(config.blocks)
        ]
    )
    grids = rearrange(scores, "l b (h w) -> l b h w", h=backbone.vision.grid[0])
    return upsample_by_matrices(grids, backbone.input_size, align_corners=False)


def loss(
    learner: AnomalyCLIPLearner,
    backbone: Backbone,
    config: AnomalyCLIPConfig,
    features: Features,
    labels: Shaped[Tensor, " b"],
    masks: Float[Tensor, "b H W"],
    generator: torch.Generator | None,
    categories: Sequence[str] = (),
) -> dict[str, Tensor]:
    r"""The glocal loss of Eq. (2) and its parts, those of the blocks summed and unweighted.

    .. math:: L = \mathrm{CE} + \lambda \sum_l \left[ \mathrm{Focal}([S_n, S_a], S)
        + \mathrm{Dice}(S_n, 1 - S) + \mathrm{Dice}(S_a, S) \right]

    Args:
        labels: 1 where an image is anomalous.
        masks: 1 where a pixel is anomalous, as large as the backbone's input.
        generator: part of the shared signature; AnomalyCLIP draws nothing.
        categories: of every image, where ``object_word`` asks for it.

    Returns:
        ``global``, ``focal``, ``dice_anomalous``, ``dice_normal``, as far as they are switched on,
        and ``total``.
    """
    check_masks(masks, len(features), backbone.input_size)
    text = text_embeddings(learner, backbone, config, categories)
    parts: dict[str, Tensor] = {}
    if config.local_loss != "none":
        parts = _local_parts(block_maps(backbone, config, features, text), masks, config.local_loss)
    total = config.local_weight * torch.stack([*parts.values(), masks.new_zeros(())]).sum()
    if config.global_loss:
        logits = image_logits(features.image_embedding, text, config.temperature)
        parts["global"] = F.cross_entropy(logits, labels.long())
        total = total + parts["global"]
    return parts | {"total": total}


def _local_parts(
    maps: Float[Tensor, "l b H W"], masks: Float[Tensor, "b H W"], which: str
) -> dict[str, Tensor]:
    """Focal and dice losses, each the sum over the blocks."""
    parts: dict[str, Tensor] = {}
    if which in ("both", "focal"):
        parts["focal"] = focal_loss(1 - maps, maps, masks)
    if which in ("both", "dice"):
        parts["dice_anomalous"] = dice_loss(maps, masks)
        parts["dice_normal"] = dice_loss(1 - maps, 1 - masks)
    return parts


def parameter_groups(
    learner: AnomalyCLIPLearner, config: AnomalyCLIPConfig, trained_on: str
) -> list[dict[str, Any]]:
    """One group for ``torch.optim.Adam``: everything, at one rate whatever it is trained on."""
    return [{"params": list(learner.parameters()), "lr": config.learning_rate}]


@dataclass(frozen=True)
class Knowledge:
    """What AnomalyCLIP knows of a category: its two prompts, and with references a memory.

    Attributes:
        text: the embedded prompts, row 0 normal, row 1 anomalous, unit norm; a pair an image or one for
            all.
        memory: of normal patches; None: zero-shot, as the paper has it.
    """

    text: Float[Tensor, "n 2 d"]
    memory: Memory | None


@torch.no_grad()
def know(
    backbone: Backbone,
    config: AnomalyCLIPConfig,
    category: Category,
    references: Features | None,
    learner: AnomalyCLIPLearner,
) -> Knowledge:
    """The two learned prompts of a category, embedded, and references as a memory.

    Args:
        category: read only where ``object_word`` or the state word asks for it.
        references: as `encode` gives them with `reference_recipe`; None: zero-shot, the paper's way.
        learner: from `make_learner` or a checkpoint; the same with and without references.
    """
    memory = None if references is None else build_memory(references, compared_blocks(config))
    return Knowledge(embeddings_of(learner, backbone, config, category), memory)


@torch.no_grad()
def detect(
    backbone: Backbone,
    config: AnomalyCLIPConfig,
    knowledge: Knowledge,
    features: Features,
) -> Detection:
    r"""Score images from their frozen features.

    Section 3.3: the image score is the probability of the class token alone; the map adds up the
    blocks, :math:`G_\sigma(\sum_l \frac12 (1 - S_n) + \frac12 S_a) = G_\sigma(\sum_l S_a)`.

    With references, which are not the paper's, the map of the text is the mean over its blocks, so that
    it and the map of the references are both in [0, 1]; they are fused as large as the input, before they
    are smoothed. For both image scores see `fused_image_score`.

    Returns:
        Image scores in [0, 1] and maps in [0, number of blocks], with references in [0, 1], as large as
        the backbone's input.

    Raises:
        ClipadError: scores that are not finite, or a map that ranks nothing.
    """
    logits = image_logits(features.image_embedding, knowledge.text, config.temperature)
    score = logits.softmax(dim=-1)[:, 1]
    total = block_maps(backbone, config, features, knowledge.text).sum(dim=0)
    if knowledge.memory is not None:
        visual = visual_map(features, knowledge.memory, backbone.vision.grid)
        score = fused_image_score(score, visual, config.few_shot_image_score)
        pixels = upsample_by_matrices(visual, backbone.input_size, align_corners=False)
        total = fuse_maps(total / len(config.blocks), pixels, config.map_fusion)
    maps = smoothed(total, config.sigma)
    check_maps(check_finite(maps, "anomaly map"), "anomaly map")
    return Detection(check_finite(score, "image score"), maps)


METHOD = Method(
    title="AnomalyCLIP",
    config=AnomalyCLIPConfig,
    presets=PRESETS,
    names_category=lambda config: config.object_word == "category",
    prepare=prepare_backbone,
    recipe=recipe,
    encode=encode,
    know=know,
    detect=detect,
    mask_rule=lambda config: "bilinear_half",
    texts=lambda config: [config.template, config.normal_state, config.anomalous_state],
    published_weights=[("ViT-L-14-336-quickgelu", "openai")],
    references=References(
        title="AnomalyCLIP with a patch memory",
        recipe=reference_recipe,
        choice=lambda config: config.reference_choice,
    ),
    training=Training(
        make_learner=make_learner,
        loss=loss,
        parameter_groups=parameter_groups,
        sample_order=sample_order,
        empty_learner=empty_learner,
        read_official=read_official,
    ),
    check_prompts=check_category,
    normal_prompt=lambda knowledge: knowledge.text[0, 0],
    category_words=category_words,
)


class AnomalyCLIP(Detector):
    """The detector: ``AnomalyCLIP(backbone, config, learner)(images)``.

    With references it is not the paper's method any more: see `memory`.

    Args:
        backbone: a frozen CLIP as it was loaded; it is prepared here.
        config: the one the learner was made with, or a change of what is not learned.
        learner: from `make_learner` or a checkpoint.
        category: what the images show, where ``object_word`` asks for it; a `Category` where the state
            word asks for its words.
        references: k normal images; none for zero-shot, as the paper has it.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: AnomalyCLIPConfig,
        learner: AnomalyCLIPLearner,
        category: str | Category = "",
        references: Images = (),
    ) -> None:
        super().__init__(METHOD, backbone, config, category, references, learner)
