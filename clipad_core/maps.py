"""Similarities to scores and maps: the equations of WinCLIP, one function each.

Scores are in [0, 1] and higher is more anomalous. Inputs are unit norm; device and dtype come from
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter
from torch import Tensor

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
        text: unit-norm prototypes, row 0 normal, row 1 anomalous.
        temperature: greater than 0; small values push scores towards 0 and 1.

    Returns:
        Scores in [0, 1]; 0.5: as close to one prototype as to the other.

    >>> text_scores(torch.eye(2), torch.eye(2), temperature=1.0)
    tensor([0.2689, 0.7311])
    """
    if not temperature > 0:
        raise ClipadError(f"temperature: found {temperature}, expected a number above 0.")
    similarity = embeddings @ text.T
    if len(text) == 1:
        return (1 - similarity[..., 0]) / 2
    return torch.sigmoid((similarity[..., 1] - similarity[..., 0]) / temperature)


def association_scores(
    patches: Float[Tensor, "*b p d"], memory: Float[Tensor, "r d"]
) -> Float[Tensor, "*b p"]:
    r"""Score every patch (or window) by its distance to the nearest normal reference.

    WinCLIP (Jeong et al., CVPR 2023), Eq. (4):

    .. math:: M_{ij} = \min_{r \in R} \tfrac12 \left(1 - \langle F_{ij}, r \rangle\right)

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
    return (1 - einsum(patches, memory, "... p d, r d -> ... p r").amax(dim=-1)) / 2


def cover_matrix(index: Int[Tensor, "n a"], patches: int) -> Float[Tensor, "p n"]:
    """Which window covers which patch: entry (p, n) is 1 where window n holds patch p.

    >>> cover_matrix(torch.tensor([[0, 1], [1, 2]]), patches=3)
    tensor([[1., 0.],
            [1., 1.],
            [0., 1.]])
    """
    matrix = torch.zeros(patches, len(index))
    matrix[index, torch.arange(len(index))[:, None]] = 1
    return matrix


def harmonic_aggregation(
    scores: Float[Tensor, "b n"], cover: Float[Tensor, "p n"]
) -> Float[Tensor, "b p"]:
    r"""Spread window scores over their patches by the harmonic mean, which listens to the lowest.

    WinCLIP (Jeong et al., CVPR 2023), Eq. (3), :math:`C_p` the windows that cover patch p:

    .. math:: M_p = |C_p| \Big/ \sum_{u \in C_p} \frac{1}{s_u}

    A score of zero makes its patches zero, which is the limit of the formula.

    >>> cover = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> harmonic_aggregation(torch.tensor([[0.2, 0.8]]), cover)
    tensor([[0.2000, 0.3200, 0.8000]])
    """
    # 1/0 times a window that does not cover the patch would be NaN; the smallest number is not.
    safe = torch.where(scores == 0, torch.finfo(scores.dtype).tiny, scores)
    return cover.sum(dim=1) / ((1 / safe) @ cover.T)


def arithmetic_aggregation(
    scores: Float[Tensor, "b n"], cover: Float[Tensor, "p n"]
) -> Float[Tensor, "b p"]:
    """The plain mean over the windows of a patch (the "no harmonic" row of Table 8).

    >>> cover = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> arithmetic_aggregation(torch.tensor([[0.2, 0.8]]), cover)
    tensor([[0.2000, 0.5000, 0.8000]])
    """
    return (scores @ cover.T) / cover.sum(dim=1)


def harmonic_mean(maps: Sequence[Tensor]) -> Tensor:
    """Harmonic mean of maps, element by element; 0 where one of them is 0.

    >>> harmonic_mean([torch.tensor([0.2]), torch.tensor([0.8])])
    tensor([0.3200])
    """
    stack = torch.stack(torch.broadcast_tensors(*maps))
    return len(stack) / (1 / stack).sum(dim=0)


def upsample(maps: Float[Tensor, "b h w"], size: tuple[int, int]) -> Float[Tensor, "b H W"]:
    """Bilinear, ``align_corners=False``: what all published WinCLIP code does.

    >>> upsample(torch.tensor([[[0.0, 1.0]]]), (1, 4))
    tensor([[[0.0000, 0.2500, 0.7500, 1.0000]]])
    """
    one = rearrange(maps, "b h w -> b 1 h w")
    return F.interpolate(one, size=size, mode="bilinear", align_corners=False)[:, 0]


def upsample_by_matrices(
    maps: Float[Tensor, "*b h w"], size: tuple[int, int], align_corners: bool
) -> Float[Tensor, "*b H W"]:
    r"""Bilinear as :math:`R M C^\top`: equal up to rounding, the gradient in a fifth of the time.

    What is learned goes through here in every step; there ``upsample`` would take the longest.

    >>> upsample_by_matrices(torch.tensor([[0.0, 1.0]]), (1, 3), align_corners=True)
    tensor([[0.0000, 0.5000, 1.0000]])
    """
    rows, columns = (
        _weights(inside, outside, align_corners).to(maps)
        for inside, outside in zip(maps.shape[-2:], size, strict=True)
    )
    return rows @ maps @ columns.T


@cache
def _weights(inside: int, outside: int, align_corners: bool) -> Float[Tensor, "o i"]:
    """Weights of linear interpolation along one side: what PyTorch makes of every unit vector.

    In float64, so that rounding them gives the same on every CPU.
    """
    units = torch.eye(inside, dtype=torch.float64)[None]
    return F.interpolate(units, outside, mode="linear", align_corners=align_corners)[0].T


def smoothed(maps: Float[Tensor, "b H W"], sigma: float) -> Float[Tensor, "b H W"]:
    """Gaussian filter over the pixels of each map, mirrored at the border, cut at 4 sigma."""
    if sigma == 0:
        return maps
    found = gaussian_filter(maps.cpu().numpy(), sigma=sigma, axes=(1, 2))
    return torch.from_numpy(found).to(maps.device)


def check_finite(scores: Tensor, what: str) -> Tensor:
    """Pass scores through; a NaN or an infinite score stops the run here, not in a table.

    Raises:
        ClipadError: a score is NaN or infinite.
    """
    if not torch.isfinite(scores).all():
        raise ClipadError(
            f"{what}: found NaN or infinite scores, expected finite ones; the weights or the input "
            "images are broken. Check the weights' SHA-256 and run again with precision float32."
        )
    return scores


def check_not_constant(embeddings: Float[Tensor, "b n d"], what: str) -> None:
    """Stop where all windows of an image say the same.

    anomalib 2.7.0 beside open_clip 2.26.1 or newer gives this (its issue 2571): every window's class
    token attends to class tokens only, the map is constant and pixel AUROC is 0.5.

    Raises:
        ClipadError: the embeddings of different windows are identical in every image.
    """
    if embeddings.shape[1] > 1 and float((embeddings - embeddings[:, :1]).abs().max()) < 1e-6:
        raise ClipadError(
            f"{what}: all windows of every image have the same embedding, so the anomaly map would be "
            "constant. Expected different ones; the weights or the images are blank, or broken."
        )


def check_maps(maps: Iterable[Tensor], what: str) -> None:
    """Stop at a map that ranks nothing: its AUROC is 0.5 whatever the image shows.

    Raises:
        ClipadError: every pixel of a map has the same score, or one is no number.
    """
    for one in maps:
        low, high = float(one.min()), float(one.max())
        if not low < high:
            raise ClipadError(
                f"{what}: found a map with {low} everywhere, expected scores that differ. To this "
                "backbone both prompts mean the same, the temperature is too low or too high, or the "
                "image is a reference; choose words it knows, or another temperature."
            )
