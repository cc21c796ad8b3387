"""What all methods share between similarities and maps: scores, fusion, upsampling, smoothing, checks.

Scores are in [0, 1] and higher is more anomalous. Inputs are unit norm; device and dtype come from
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.device import precise
from clipad_core.clip.features import Features
from clipad_core.clip.joint import block_numbers
from clipad_core.clip.preprocess import Placement
from clipad_core.detection import Detection
from clipad_core.errors import ClipadError


def text_scores(
    embeddings: Float[Tensor, "*b d"], text: Float[Tensor, "s d"], temperature: float
) -> Float[Tensor, "*b"]:
    r"""Probability that an embedding is anomalous, from its similarity to the two prototypes.

    WinCLIP (Jeong et al., CVPR 2023), Eq. (1), with :math:`\tau` the temperature:

    .. math:: s_1(e) = \mathrm{softmax}(\langle e, t_0 \rangle/\tau, \langle e, t_1 \rangle/\tau)_1

    With a single prototype (Table 3, one-class) it is :math:`(1 - \langle e, t_0 \rangle)/2`.

    Args:
        embeddings: unit-norm image, window or patch embeddings.
        text: prototypes, row 0 normal, row 1 anomalous; of unit norm, unless a reading says otherwise.
        temperature: greater than 0; small values push scores towards 0 and 1.

    Returns:
        Scores in [0, 1]; 0.5: as close to one prototype as to the other.

    >>> text_scores(torch.eye(2), torch.eye(2), temperature=1.0)
    tensor([0.2689, 0.7311])
    """
    if not temperature > 0:
        raise ClipadError(f"temperature: found {temperature}, expected a number above 0.")
    similarity = precise(embeddings @ text.T)
    if len(text) == 1:
        return (1 - similarity[..., 0]) / 2
    return torch.sigmoid((similarity[..., 1] - similarity[..., 0]) / temperature)


def association_scores(
    patches: Float[Tensor, "*b p d"], memory: Float[Tensor, "r d"]
) -> Float[Tensor, "*b p"]:
    r"""Score every patch (or window) by its distance to the nearest normal reference.

    WinCLIP (Jeong et al., CVPR 2023), Eq. (4):

    .. math:: M_{ij} = \min_{r \in R} \tfrac12 \left(1 - \langle F_{ij}, r \rangle\right)

    Never in half precision.

    Args:
        patches: unit-norm embeddings of the query images.
        memory: unit-norm reference memory, the embeddings of all k shots stacked.

    Returns:
        Scores in [0, 1] up to rounding; 0: in the memory, 1: opposite to it.

    >>> axes = torch.eye(2)
    >>> association_scores(patches=torch.stack([axes, -axes]), memory=axes[:1])
    tensor([[0.0000, 0.5000],
            [1.0000, 0.5000]])
    """
    with torch.autocast(patches.device.type, enabled=False):
        return (1 - einsum(patches, memory, "... p d, r d -> ... p r").amax(dim=-1)) / 2


def harmonic_mean(maps: Sequence[Tensor]) -> Tensor:
    """Harmonic mean of maps, element by element; 0 where one of them is 0.

    >>> harmonic_mean([torch.tensor([0.2]), torch.tensor([0.8])])
    tensor([0.3200])
    """
    stack = torch.stack(torch.broadcast_tensors(*maps))
    return len(stack) / (1 / stack).sum(dim=0)


def fuse_maps(language: Tensor, visual: Tensor, rule: str) -> Tensor:
    """A map of text and a map of references as one.

    WinCLIP (Jeong et al., CVPR 2023), section 4.3, says "fused" and prints no operator.

    Args:
        rule: "mean", "sum", "harmonic" (the harmonic mean), "parallel" (half of it), or the name of the
            one map that is taken alone, "language" or "visual".

    >>> maps = torch.tensor([0.2]), torch.tensor([0.8])
    >>> [round(float(fuse_maps(*maps, rule)), 2) for rule in ("mean", "harmonic", "visual")]
    [0.5, 0.32, 0.8]
    """
    if rule in ("visual", "language"):
        return visual if rule == "visual" else language
    if rule == "sum":
        return language + visual
    if rule == "mean":
        return (language + visual) / 2
    halves = harmonic_mean([language, visual])
    return halves if rule == "harmonic" else halves / 2


def upsample(maps: Float[Tensor, "b h w"], size: tuple[int, int]) -> Float[Tensor, "b H W"]:
    """Bilinear, ``align_corners=False``: what all published WinCLIP code does.

    >>> upsample(torch.tensor([[[0.0, 1.0]]]), (1, 4))
    tensor([[[0.0000, 0.2500, 0.7500, 1.0000]]])
    """
    with_channel = rearrange(maps, "b h w -> b 1 h w")
    return F.interpolate(with_channel, size=size, mode="bilinear", align_corners=False)[:, 0]


def upsample_by_matrices(
    maps: Float[Tensor, "*b h w"], size: tuple[int, int], align_corners: bool
) -> Float[Tensor, "*b H W"]:
    r"""Bilinear as :math:`R M C^\top`: equal up to rounding, the gradient in a fifth of the time.

    What is learned goes through here in every step; there ``upsample`` would take the longest.

    >>> upsample_by_matrices(torch.tensor([[0.0, 1.0]]), (1, 3), align_corners=True)
    tensor([[0.0000, 0.5000, 1.0000]])
    """
    maps = precise(maps)
    rows, columns = (
        _weights(inside, outside, align_corners).to(maps)
        for inside, outside in zip(maps.shape[-2:], size, strict=True)
    )
    with torch.autocast(maps.device.type, enabled=False):  # half a map's gradient would vanish
        return rows @ maps @ columns.T


@lru_cache(maxsize=64)  # not more: photos come in any sizes
def _weights(inside: int, outside: int, align_corners: bool) -> Float[Tensor, "o i"]:
    """Weights of linear interpolation along one side: what PyTorch makes of every unit vector.

    In float64, so that rounding them gives the same on every CPU.
    """
    units = torch.eye(inside, dtype=torch.float64)[None]
    return F.interpolate(units, outside, mode="linear", align_corners=align_corners)[0].T


def upsampled_difference(
    logits: Float[Tensor, "*l b p 2"], grid: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "*l b H W"]:
    """Anomalous minus normal logit of every pixel, bilinear with ``align_corners=True``.

    A softmax of two is the sigmoid of their difference, and upsampling is linear, so one map does.

    >>> corner = torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])
    >>> upsampled_difference(corner, (1, 2), (2, 3))
    tensor([[[0.0000, 0.5000, 1.0000],
             [0.0000, 0.5000, 1.0000]]])
    """
    difference = rearrange(logits[..., 1] - logits[..., 0], "... (h w) -> ... h w", h=grid[0])
    return upsample_by_matrices(difference, size, align_corners=True)


def probabilities(
    difference: Float[Tensor, "*l b H W"],
) -> tuple[Float[Tensor, "*l b H W"], Float[Tensor, "*l b H W"]]:
    """Softmax of the two upsampled logits: normal and anomalous.

    >>> probabilities(torch.zeros(1, 1, 1))
    (tensor([[[0.5000]]]), tensor([[[0.5000]]]))
    """
    return torch.sigmoid(-difference), torch.sigmoid(difference)


def smoothed(maps: Float[Tensor, "b H W"], sigma: float) -> Float[Tensor, "b H W"]:
    r"""Gaussian filter over the pixels of each map, mirrored at the border, cut at 4 sigma.

    As :math:`R M C^\top`: scipy's ``gaussian_filter`` up to rounding, on any device.

    >>> smoothed(torch.tensor([[[0.0, 0.0, 1.0]]]), sigma=0.5).round(decimals=2)
    tensor([[[0.0000, 0.1100, 0.8900]]])
    """
    if sigma == 0:
        return maps
    rows, columns = (_blur(side, sigma).to(maps) for side in maps.shape[1:])
    with torch.autocast(maps.device.type, enabled=False):
        return rows @ maps @ columns.T


@lru_cache(maxsize=64)
def _blur(side: int, sigma: float) -> Float[Tensor, "i i"]:
    """Weights of the filter along one side: what scipy makes of every unit vector."""
    return torch.from_numpy(gaussian_filter1d(np.eye(side), sigma, axis=0))


def placements_of(features: Features, size: tuple[int, int]) -> Sequence[Placement]:
    """Where the views of every image lie; of images of one view each, that view is the canvas.

    Args:
        size: height and width of a view.
    """
    return features.placements or [Placement(((0, 0),), size)] * len(features)


def average_views(views: Float[Tensor, "v H W"], placement: Placement) -> Float[Tensor, "h w"]:
    """The map of an image from those of its views: averaged where they overlap.

    >>> average_views(torch.tensor([[[0.0, 1.0]], [[3.0, 4.0]]]), Placement(((0, 0), (1, 0)), (1, 3)))
    tensor([[0., 2., 4.]])
    """
    if len(views) == 1:  # it is the canvas
        return views[0]
    high, wide = views.shape[1:]
    total, weight = views.new_zeros(placement.canvas), views.new_zeros(placement.canvas)
    for view, (left, top) in zip(views, placement.corners, strict=True):
        total[top : top + high, left : left + wide] += view
        weight[top : top + high, left : left + wide] += 1
    return total / weight


def stack_maps(maps: Sequence[Tensor]) -> Float[Tensor, "b H W"]:
    """The maps of some images as one tensor.

    Raises:
        ClipadError: they have different shapes.
    """
    shapes = {tuple(anomaly_map.shape) for anomaly_map in maps}
    if len(shapes) > 1:
        raise ClipadError(
            f"images: their maps have the shapes {sorted(shapes)}, expected one; call once each."
        )
    return torch.stack(list(maps))


def detect_between_prompts(
    backbone: Backbone,
    features: Features,
    text: Float[Tensor, "s d"],
    blocks: tuple[int, ...],
    temperature: float,
    sigma: float,
) -> Detection:
    r"""Plain CLIP between a normal and an anomalous prompt: of the image, and of every patch.

    With :math:`p` the patches of a block, upsampled after the softmax, and :math:`G_\sigma` a Gaussian
    filter; several views of an image are averaged, its score over them, its map where they overlap:

    .. math:: s = P_a(f), \quad M = G_\sigma\left(\sum_l \mathrm{up}(P_a(p_l))\right), \quad
        P_a(e) = \mathrm{softmax}(\langle e, t_n \rangle/\tau, \langle e, t_a \rangle/\tau)_a

    Args:
        features: of the joint space; see `JointRecipe`.
        text: of both prompts, row 0 normal, row 1 anomalous; it is taken as it is, of unit norm or not.
        blocks: that are read, as `block_numbers` takes them.

    Returns:
        Image scores in [0, 1] and maps in [0, number of blocks], as large as the image after resizing.

    Raises:
        ClipadError: scores that are not finite, a map that ranks nothing, or maps of different shapes.
    """
    size, numbers = backbone.input_size, block_numbers(backbone.vision.depth, blocks)
    views = text_scores(features.image_embedding, text, temperature)
    scores = torch.stack(
        [text_scores(features.patch_tokens[number], text, temperature) for number in numbers]
    )
    grids = rearrange(scores, "l v (h w) -> l v h w", h=backbone.vision.grid[0])
    view_maps = precise(upsample_by_matrices(grids, size, align_corners=False)).sum(dim=0)
    image_scores, maps, start = [], [], 0
    for placement in placements_of(features, size):
        part = slice(start, start + len(placement.corners))
        image_scores.append(views[part].mean())
        maps.append(average_views(view_maps[part], placement))
        start = part.stop
    anomaly_maps = smoothed(stack_maps(maps), sigma)
    check_maps(check_finite(anomaly_maps, "anomaly map"), "anomaly map")
    return Detection(check_finite(torch.stack(image_scores), "image score"), anomaly_maps)


def check_finite(scores: Tensor, label: str) -> Tensor:
    """Pass scores through; a NaN or an infinite score stops the run here, not in a table.

    Raises:
        ClipadError: a score is NaN or infinite.
    """
    if not torch.isfinite(scores).all():
        raise ClipadError(
            f"{label}: found NaN or infinite scores, expected finite ones; the weights or the input "
            "images are broken. Check the weights' SHA-256 and run again with precision float32."
        )
    return scores


def check_maps(maps: Iterable[Tensor], label: str) -> None:
    """Stop at a map that ranks nothing: its AUROC is 0.5 whatever the image shows.

    Raises:
        ClipadError: every pixel of a map has the same score, or one is no number.
    """
    for score_map in maps:
        low, high = float(score_map.min()), float(score_map.max())
        if not low < high:
            raise ClipadError(
                f"{label}: found a map with {low} everywhere, expected scores that differ. To this "
                "backbone both prompts mean the same, the temperature is too low or too high, or the "
                "image is a reference; choose words it knows, or another temperature."
            )
