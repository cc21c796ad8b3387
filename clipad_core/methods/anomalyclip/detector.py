"""AnomalyCLIP (Zhou et al., ICLR 2024): prompts about any object, patches that speak for themselves.

Read top to bottom: `encode` runs the frozen tower once for its class token and the local branch,
`loss` and `detect` compare both with two learned prompts, `AnomalyCLIP` is the detector that ties
them together. The branch is in `local_branch`, the prompts are in `anomalyclip_text`, what is
learned is in `anomalyclip_learner`.
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
from clipad_core.clip.prepare import prepare
from clipad_core.clip.preprocess import AnyPixels, stretch_all
from clipad_core.detection import Detection
from clipad_core.learned.features import FrozenFeatures, check_masks
from clipad_core.learned.losses import dice_loss, focal_loss
from clipad_core.maps import check_finite, smoothed, upsample_by_matrices
from clipad_core.methods.anomalyclip.branch import Branch, encode_branch
from clipad_core.methods.anomalyclip.config import AnomalyCLIPConfig, members
from clipad_core.methods.anomalyclip.learner import (
    AnomalyCLIPLearner,
    make_learner,
    sample_order,
    sizes_of,
)
from clipad_core.methods.anomalyclip.text import text_embeddings

__all__ = [
    "AnomalyCLIP",
    "AnomalyCLIPLearner",
    "Recipe",
    "detect",
    "encode",
    "loss",
    "make_learner",
    "parameter_groups",
    "prepare_backbone",
    "recipe",
    "sample_order",
]


@dataclass(frozen=True)
class Recipe:
    """What must be encoded of an image; equal recipes share their features, whatever is trained.

    Attributes:
        image_size: side of the square input in pixels.
        branch: what is computed beside the tower, and which blocks are kept.
    """

    image_size: int
    branch: Branch


def recipe(config: AnomalyCLIPConfig, also: Sequence[int] = ()) -> Recipe:
    """What ``config`` reads of an image, and ``also`` blocks that others read of the same pass."""
    kinds, blocks = members(config.branch), tuple(sorted({*config.blocks, *also}))
    first, stream = config.dpam_from_layer, config.local_stream
    if config.branch == "none":
        first, stream = 0, "sum"
    branch = Branch(kinds, first, blocks, stream, config.class_ln_post)
    return Recipe(config.image_size, branch)


def prepare_backbone(backbone: Backbone, config: AnomalyCLIPConfig) -> Backbone:
    """The backbone as AnomalyCLIP runs it: another input size, another digest.

    Raises:
        ClipadError: blocks, depths or an input size that do not fit this backbone.
    """
    sizes_of(backbone, config)
    return prepare(backbone, config.image_size, config.positional, config.activation)


@torch.no_grad()
def encode(backbone: Backbone, pixels: Float[Tensor, "b 3 H W"], recipe: Recipe) -> FrozenFeatures:
    """Run the frozen tower and its local branch on normalised images, a bounded number at a time.

    Args:
        backbone: the one that ``prepare_backbone`` gave.

    Returns:
        The projected class token, not normalised, by default without ``ln_post``; and patch embeddings of
        the recipe's blocks, unit norm. Those of an ensemble are means of unit vectors: the mean of
        their logits is the logit of their mean.
    """
    classes, found = encode_branch(backbone.vision, pixels, recipe.branch)
    patches = {}
    for block in recipe.branch.blocks:
        units = [F.normalize(tokens[block], dim=-1) for tokens in found.values()]
        patches[block] = units[0] if len(units) == 1 else torch.stack(units).mean(dim=0)
    return FrozenFeatures(classes, patches)


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
    return (rearrange(unit, "b d -> b 1 d") * text).sum(dim=-1) / temperature


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
    return torch.sigmoid(patches @ rearrange(direction, "n d -> n d 1"))[..., 0]


def block_maps(
    backbone: Backbone,
    config: AnomalyCLIPConfig,
    features: FrozenFeatures,
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
    size = (config.image_size, config.image_size)
    return upsample_by_matrices(grids, size, align_corners=False)


def loss(
    learner: AnomalyCLIPLearner,
    backbone: Backbone,
    config: AnomalyCLIPConfig,
    features: FrozenFeatures,
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
        masks: 1 where a pixel is anomalous, at ``config.image_size``.
        generator: part of the shared signature; AnomalyCLIP draws nothing.
        categories: of every image, where ``object_word`` asks for it.

    Returns:
        ``global``, ``focal``, ``dice_anomalous``, ``dice_normal``, as far as they are switched on,
        and ``total``.
    """
    check_masks(masks, len(features), config.image_size)
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
    found: dict[str, Tensor] = {}
    if which in ("both", "focal"):
        found["focal"] = focal_loss(1 - maps, maps, masks)
    if which in ("both", "dice"):
        found["dice_anomalous"] = dice_loss(maps, masks)
        found["dice_normal"] = dice_loss(1 - maps, 1 - masks)
    return found


def parameter_groups(
    learner: AnomalyCLIPLearner, config: AnomalyCLIPConfig, trained_on: str
) -> list[dict[str, Any]]:
    """One group for ``torch.optim.Adam``: everything, at one rate whatever it is trained on."""
    return [{"params": list(learner.parameters()), "lr": config.learning_rate}]


@torch.no_grad()
def detect(
    learner: AnomalyCLIPLearner,
    backbone: Backbone,
    config: AnomalyCLIPConfig,
    features: FrozenFeatures,
    categories: Sequence[str] = (),
) -> Detection:
    r"""Score images from their frozen features.

    Section 3.3: the image score is the probability of the class token alone; the map adds up the
    blocks, :math:`G_\sigma(\sum_l \frac12 (1 - S_n) + \frac12 S_a) = G_\sigma(\sum_l S_a)`.

    Args:
        categories: of every image (or one for all), where ``object_word`` asks for it.

    Returns:
        Image scores in [0, 1] and maps of ``image_size`` pixels in [0, number of blocks].

    Raises:
        ClipadError: scores that are not finite.
    """
    text = text_embeddings(learner, backbone, config, categories)
    logits = image_logits(features.image_embedding, text, config.temperature)
    maps = block_maps(backbone, config, features, text).sum(dim=0)
    return Detection(
        check_finite(logits.softmax(dim=-1)[:, 1], "image score"),
        check_finite(smoothed(maps, config.sigma), "anomaly map"),
    )


class AnomalyCLIP:
    """The detector: ``AnomalyCLIP(backbone, config, learner)(images)``.

    Args:
        backbone: a frozen CLIP as it was loaded; it is prepared here.
        config: the one the learner was made with, or a change of what is not learned.
        learner: from `make_learner` or a checkpoint.
        category: what the images show, where ``object_word`` asks for it.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: AnomalyCLIPConfig,
        learner: AnomalyCLIPLearner,
        category: str = "",
    ) -> None:
        self.backbone, self.config = prepare_backbone(backbone, config), config
        self.learner, self.recipe = learner, recipe(config)
        self.categories = (category,) if category else ()

    def __call__(self, images: Sequence[AnyPixels]) -> Detection:
        """Score RGB images of any size; each is stretched to ``image_size``.

        Raises:
            ClipadError: no image, or one that is not uint8 RGB.
        """
        pixels = stretch_all(images, self.config.image_size, self.backbone.dtype)
        features = encode(self.backbone, pixels.to(self.backbone.device), self.recipe)
        return detect(self.learner, self.backbone, self.config, features, self.categories)
