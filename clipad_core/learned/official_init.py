"""The random numbers that OpenAI's CLIP class uses up when it is made.

Both official trainers seed torch, build CLIP (whose weights are then overwritten from the file) and
only then make what they learn, so a learner starts from their values only if the same numbers were
drawn before. Nothing is kept of these draws; they go into one buffer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from clipad_core.clip.backbone import Backbone


@dataclass(frozen=True)
class Architecture:
    """The sizes of a CLIP with a vision transformer.

    Attributes:
        grid: patches a side. The official codes know squares only; of a rectangle it is the shorter
            side, which fixes the draws as well as any other number.
    """

    vision_width: int
    vision_depth: int
    patch_size: int
    grid: int
    text_width: int
    text_depth: int
    context: int
    vocabulary: int
    joint: int


def architecture_of(backbone: Backbone) -> Architecture:
    """Read the sizes of a backbone; ``prepare`` does not change them."""
    vision, text = backbone.vision, backbone.text
    return Architecture(
        vision_width=vision.proj.shape[0],
        vision_depth=vision.depth,
        patch_size=vision.patch_size,
        grid=backbone.image_size // vision.patch_size,
        text_width=text.token_embedding.shape[1],
        text_depth=len(text.transformer.blocks),
        context=len(text.positional_embedding),
        vocabulary=len(text.token_embedding),
        joint=vision.proj.shape[1],
    )


def draw_clip(sizes: Architecture) -> None:
    """Draw from torch's own generator what making a CLIP of these sizes draws, in its order.

    Layers draw when they are made (``nn.Linear``: weight and bias uniform, ``nn.Embedding`` and bare
    parameters: normal); the text tower is then drawn again by CLIP's ``initialize_parameters``.
    A full ViT-L/14 takes seconds, so what the draws leave behind is kept and used again.
    """
    before = torch.get_rng_state().numpy().tobytes()
    torch.set_rng_state(_state_after_clip(sizes, before))


@lru_cache(maxsize=16)
def _state_after_clip(sizes: Architecture, before: bytes) -> Tensor:
    """The generator's state after all draws; it stood at ``before``."""
    width, text = sizes.vision_width, sizes.text_width
    buffer = torch.empty(max(sizes.vocabulary * text, 4 * width * width, 4 * text * text))
    _uniform(buffer, 3 * sizes.patch_size**2 * width)
    _normal(buffer, width)
    _normal(buffer, (sizes.grid**2 + 1) * width)
    for _ in range(sizes.vision_depth):
        _draw_block(buffer, width)
    _normal(buffer, width * sizes.joint)
    for _ in range(sizes.text_depth):
        _draw_block(buffer, text)
    _normal(buffer, sizes.vocabulary * text)

    _normal(buffer, sizes.vocabulary * text)
    _normal(buffer, sizes.context * text)
    for _ in range(sizes.text_depth):
        for factor in (3, 1, 4, 4):
            _normal(buffer, factor * text * text)
    _normal(buffer, text * sizes.joint)
    return torch.get_rng_state()


def _draw_block(buffer: Tensor, width: int) -> None:
    """One residual attention block: out_proj, in_proj, then the two layers of the MLP."""
    for weight, bias in ((1, 1), (3, 0), (4, 4), (4, 1)):
        _uniform(buffer, weight * width * width)
        _uniform(buffer, bias * width)


def _uniform(buffer: Tensor, count: int) -> None:
    _room(buffer, count).uniform_()


def _normal(buffer: Tensor, count: int) -> None:
    _room(buffer, count).normal_()


def _room(buffer: Tensor, count: int) -> Tensor:
    """A normal draw depends on its length, so the buffer is never too short for one."""
    return buffer[:count] if count <= len(buffer) else torch.empty(count)


def draw_order(n: int) -> Tensor:
    """One epoch's order of a shuffling ``DataLoader`` without workers, from torch's own generator.

    It draws a seed for workers it does not have, then the seed of the sampler.

    >>> with torch.random.fork_rng(devices=[]):
    ...     _ = torch.manual_seed(0)
    ...     order = draw_order(4)
    ...     _ = torch.manual_seed(0)
    ...     expected = list(torch.utils.data.DataLoader(range(4), batch_size=None, shuffle=True))
    >>> order.tolist() == expected
    True
    """
    draw_seed()
    seed = draw_seed()
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def draw_seed() -> int:
    """The seed that every pass over a ``DataLoader`` draws, also one that shuffles nothing."""
    return int(torch.empty((), dtype=torch.int64).random_())
