"""What APRIL-GAN learns, a linear layer a block, and the official random numbers that it starts from.

The code (ByChelsea/VAND-APRIL-GAN@f13b8a6) seeds torch, builds CLIP (once as it is stored and, at
another input size, once more for that) and then makes the layers. The rule is the same for every
backbone and seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.prepare import check_has_blocks
from clipad_core.learned.official_init import (
    Architecture,
    architecture_of,
    draw_clip,
    draw_order,
    draw_seed,
)
from clipad_core.methods.aprilgan.config import APRILGANConfig


class APRILGANLearner(nn.Module):
    """All that APRIL-GAN learns: linear layers from the tower's width into the joint space.

    Make it with ``make_learner`` or from a checkpoint: the tensors have no values of their own here.
    """

    def __init__(self, sizes: Architecture, blocks: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            [nn.Linear(sizes.vision_width, sizes.joint) for _ in range(blocks)]
        )


def empty_learner(
    backbone: Backbone, config: APRILGANConfig, tensors: Mapping[str, Tensor]
) -> APRILGANLearner:
    """A learner without memory, to be filled by ``load_state_dict(..., assign=True)``.

    Args:
        backbone: gives sizes.
        config: gives the number of blocks.
        tensors: part of the shared signature; no size is left to them.

    Raises:
        ClipadError: a block that the backbone does not have.
    """
    check_has_blocks(backbone, config.blocks)
    with torch.device("meta"):
        return APRILGANLearner(architecture_of(backbone), len(config.blocks))


def make_learner(backbone: Backbone, config: APRILGANConfig, seed: int) -> APRILGANLearner:
    """A learner with the initial values that the official code has after this seed.

    They are drawn in float32, as there, whatever precision the backbone has. A full ViT-L/14 takes
    some seconds: all its numbers are drawn twice before.

    Raises:
        ClipadError: a block that the backbone does not have.
    """
    learner = empty_learner(backbone, config, {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        values = draw_values(architecture_of(backbone), backbone.image_size, config)
    learner.load_state_dict(values, assign=True)
    return learner.to(backbone.device, backbone.dtype)


def sample_order(
    config: APRILGANConfig, backbone: Backbone, n: int, epochs: int
) -> list[list[int]]:
    """Which image comes when in every epoch of the official training after ``config.seed``.

    The index of an image is its place in the official list of the auxiliary dataset.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        draw_values(architecture_of(backbone), backbone.image_size, config)
        return [draw_order(n).tolist() for _ in range(epochs)]


def official_references(
    config: APRILGANConfig, backbone: Backbone, seed: int, k_shot: int, counts: Sequence[int]
) -> list[list[int]]:
    """Which references the official test takes after a seed, for every class in its order.

    Each class draws after the one before, with replacement, so they depend on the order of the classes
    (that of meta.json; the first version began MVTec AD with carpet, bottle, hazelnut, leather).

    Args:
        counts: how many training images each class has.

    Returns:
        For every class the places of its ``k_shot`` references in the list of its training images.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        draw_values(architecture_of(backbone), backbone.image_size, config)
        references = []
        for count in counts:
            references.append(torch.randint(0, count, (k_shot,)).tolist())
            draw_seed()
        return references


def draw_values(sizes: Architecture, native_size: int, config: APRILGANConfig) -> dict[str, Tensor]:
    """Draw all initial values from torch's own generator, named as in the learner.

    Args:
        native_size: input size that the weights were made for; at any other CLIP is built twice.
    """
    draw_clip(sizes)
    if config.image_size != native_size:
        draw_clip(replace(sizes, grid=config.image_size // sizes.patch_size))
    heads = [nn.Linear(sizes.vision_width, sizes.joint) for _ in config.blocks]
    return {
        f"heads.{index}.{name}": value
        for index, head in enumerate(heads)
        for name, value in head.state_dict().items()
    }
