"""CLIP read for dense tasks: what one block gives its patches when it is changed at the end alone.

Where V-V attention adds up over many blocks (CLIP Surgery, AnomalyCLIP's DPAM; `branch`), these change
nothing but the block that is read, mostly the last one. Each takes the block's own weights; nothing is
learned. The class token goes its old way.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.transformer import Transformer, feed_forward

# sinahmr/NACLIP@defb7c9 runs all its configurations with this deviation, in patches.
NEIGHBOURHOOD = 5.0
Heads = tuple[Float[Tensor, "b h t e"], Float[Tensor, "b h t e"], Float[Tensor, "b h t e"]]
Seen = Float[Tensor, "b h p e"]


def value_path(heads: Heads, grid: tuple[int, int]) -> Seen:
    r"""A patch sees its own value alone: :math:`V`.

    MaskCLIP (Zhou et al., ECCV 2022), section 3.1.
    """
    return heads[2][:, :, 1:]


def query_and_key(heads: Heads, grid: tuple[int, int]) -> Seen:
    r"""Correlative self-attention.

    SCLIP (Wang et al., ECCV 2024), Eq. (3); wangf3014/SCLIP@961a11a, clip/model.py:

    .. math:: \left(\mathrm{softmax}(Q Q^\top / \sqrt d) + \mathrm{softmax}(K K^\top / \sqrt d)\right) V
    """
    query, key, value = heads
    return _attend(query, query, value) + _attend(key, key, value)


def query_alone(heads: Heads, grid: tuple[int, int]) -> Seen:
    r"""Queries compared with queries: :math:`\mathrm{softmax}(Q Q^\top / \sqrt d) V`.

    ClearCLIP (Lan et al., ECCV 2024), Eq. (8); mc-lan/ClearCLIP@afe06b8, open_clip/transformer.py.
    """
    query, _, value = heads
    return _attend(query, query, value)


def neighbourhood(heads: Heads, grid: tuple[int, int]) -> Seen:
    r"""Keys compared with keys, and neighbours preferred.

    NACLIP (Hajimiri et al., WACV 2025), section 3.2; sinahmr/NACLIP@defb7c9, clip/model.py:

    .. math:: \mathrm{softmax}\left(K K^\top / \sqrt d + e^{-\lVert i - j \rVert^2 / 2 \sigma^2}\right) V

    with :math:`\lVert i - j \rVert` the distance of two patches on the grid; the class token gets none.
    """
    _, key, value = heads
    return _attend(key, key, value, preference(grid).to(key))


def preference(grid: tuple[int, int]) -> Float[Tensor, "p t"]:
    """What a patch's similarity to every token gains: 1 with itself, falling off with the distance.

    >>> preference((1, 2))
    tensor([[0.0000, 1.0000, 0.9802],
            [0.0000, 0.9802, 1.0000]])
    """
    rows, columns = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], dim=1).float()
    near = torch.exp(-(torch.cdist(places, places) ** 2) / (2 * NEIGHBOURHOOD**2))
    return F.pad(near, (1, 0))


# By name: what a patch sees, and whether the block's input and its MLP are added as they always are.
READ_OUTS: dict[str, tuple[Callable[[Heads, tuple[int, int]], Seen], bool]] = {
    "maskclip": (value_path, True),
    "sclip": (query_and_key, True),
    "naclip": (neighbourhood, False),
    "clearclip": (query_alone, False),
}


def read_out(
    transformer: Transformer,
    index: int,
    x: Float[Tensor, "b t c"],
    qkv: Float[Tensor, "b t c3"],
    kind: str,
    grid: tuple[int, int],
) -> Float[Tensor, "b p c"]:
    """The patches of one block, read in another way.

    Args:
        x: the block's input, class token included.
        qkv: query, key and value of every token, side by side, as `project_qkv` gives them.
        kind: a name of `READ_OUTS`.
        grid: rows and columns of patches.
    """
    see, is_whole = READ_OUTS[kind]
    query, key, value = rearrange(qkv, "b t (n h e) -> n b h t e", n=3, h=transformer.heads)
    seen = see((query, key, value), grid)
    tokens = transformer.blocks[index].out(rearrange(seen, "b h p e -> b p (h e)"))
    return feed_forward(transformer, index, x[:, 1:] + tokens) if is_whole else tokens


def _attend(
    compared: Tensor, others: Tensor, values: Tensor, preferred: Tensor | None = None
) -> Tensor:
    """What the patches see; the class token asks nothing, and is seen."""
    return F.scaled_dot_product_attention(compared[:, :, 1:], others, values, attn_mask=preferred)
