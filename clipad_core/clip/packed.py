"""Linear layers whose weights oneDNN has laid out for this CPU: torch's private operators, in one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@cache
def can_pack() -> bool:
    """Whether this torch has both operators that packed weights need; looked up once.

    They are ``torch.ops.mkldnn._reorder_linear_weight`` and ``torch.ops.mkldnn._linear_pointwise``.
    Every torch that is built with oneDNN has them, from 2.6, the oldest that clipad takes, to 2.13, the
    newest that it was tried with; a build without oneDNN has neither (macOS on arm64). They are private,
    so another version may drop them. Where they are missing, weights stay as they are and layers multiply
    by ``torch.nn.functional.linear``: the same function up to rounding, in more time.
    """
    return all(
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )


def pack_weight(weight: Float[Tensor, "n c"], rows: int) -> Float[Tensor, "n c"]:
    """Lay a weight out for products with inputs of about ``rows`` rows; only `packed_linear` reads it."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)


def packed_linear(
    x: Float[Tensor, "... c"], weight: Tensor, bias: Tensor | None, gelu: bool = False
) -> Float[Tensor, "... n"]:
    """``x @ weight.T + bias`` for a packed weight, and the exact (erf) GELU after it where asked for."""
    name, algorithm = ("gelu", "none") if gelu else ("none", "")
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], algorithm)


def packed_operations() -> dict[Any, Callable[..., int]]:
    """What ``FlopCounterMode`` must be told to count packed layers; empty where there are none."""
    return {torch.ops.mkldnn._linear_pointwise: _count_linear} if can_pack() else {}


def _count_linear(x: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    """Operations of one packed layer, from the shapes of its input and its weight.

    >>> _count_linear((2, 5, 3), (4, 3))
    240
    """
    return 2 * math.prod(x) * weight[0]
