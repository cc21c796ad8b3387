"""What AnomalyCLIP learns: vectors before the words of its two prompts, and vectors of deeper blocks.

The initial values and the order of the images are drawn as the released code (zqhang/AnomalyCLIP@
45ed4dd) draws them after the same seed: it makes CLIP, then what is learned, then its V-V layers, and
then a permutation an epoch. The rule is the same for every backbone and config.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from clipad_core.clip.backbone import Backbone
from clipad_core.errors import ClipadError
from clipad_core.learned.official_init import Architecture, architecture_of, draw_clip, draw_order
from clipad_core.methods.anomalyclip.config import AnomalyCLIPConfig
from clipad_core.methods.anomalyclip.dense import READ_OUTS

DEVIATION = 0.02  # of all initial vectors; C
# Width of linear layers that the official code makes, stores and never uses.
UNUSED_WIDTH = 896


class AnomalyCLIPLearner(nn.Module):
    """All that AnomalyCLIP learns, and nothing else.

    Make it with ``make_learner`` or from a checkpoint: the tensors have no values of their own here.

    Args:
        width: of the text tower.
        unused: how many of the official code's unused layers it carries along, so that an official
            file is written as it was read: 1 stands for as many equal ones, 0 for none.
    """

    unused_weight: Tensor
    unused_bias: Tensor

    def __init__(self, width: int, config: AnomalyCLIPConfig, unused: int = 1) -> None:
        super().__init__()
        states, later = 1 if config.shared_context else 2, config.prompt_depth - 1
        if config.context == "learned":
            # Row 0 normal, row 1 anomalous; one row where both share it.
            self.context_tokens = nn.Parameter(torch.empty(states, config.context_length, width))
        if later:
            self.compound_prompts = nn.Parameter(torch.empty(later, config.prompt_length, width))
            self.register_buffer("unused_weight", torch.empty(unused, UNUSED_WIDTH, width))
            self.register_buffer("unused_bias", torch.empty(unused, UNUSED_WIDTH))


def empty_learner(
    backbone: Backbone, config: AnomalyCLIPConfig, tensors: Mapping[str, Tensor]
) -> AnomalyCLIPLearner:
    """A learner without memory, to be filled by ``load_state_dict(..., assign=True)``.

    Args:
        backbone: gives the width.
        config: gives all other sizes but one.
        tensors: that it will be filled with: how many unused layers it carries along.

    Raises:
        ClipadError: a config that does not fit the backbone.
    """
    unused = len(tensors["unused_weight"]) if "unused_weight" in tensors else 1
    width = sizes_of(backbone, config).text_width
    with torch.device("meta"):
        return AnomalyCLIPLearner(width, config, unused)


def sizes_of(backbone: Backbone, config: AnomalyCLIPConfig) -> Architecture:
    """Read the sizes of a backbone, after a check that the config fits it.

    Raises:
        ClipadError: a block that does not exist, deeper prompts than the text tower has blocks.
    """
    sizes = architecture_of(backbone)
    limits = {
        "blocks": (max(config.blocks), sizes.vision_depth, "image tower"),
        "dpam_from_layer": (config.dpam_from_layer, sizes.vision_depth, "image tower"),
        "prompt_depth": (config.prompt_depth, sizes.text_depth, "text tower"),
    }
    for name, (value, limit, tower) in limits.items():
        unused = name == "dpam_from_layer" and config.branch in ("none", *READ_OUTS)
        if value > limit and not unused:
            raise ClipadError(
                f"{name}: found {value}, expected at most {limit}, the blocks of the {tower} of "
                f"{backbone.label}; choose among them."
            )
    return sizes


def make_learner(backbone: Backbone, config: AnomalyCLIPConfig, seed: int) -> AnomalyCLIPLearner:
    """A learner with the initial values that the official code has after this seed.

    They are drawn in float32, as there, whatever precision the backbone has. A full ViT-L/14 takes
    some seconds: all numbers of its CLIP are drawn before.

    Raises:
        ClipadError: a config that does not fit the backbone.
    """
    sizes = sizes_of(backbone, config)
    learner = empty_learner(backbone, config, {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        draw_clip(sizes)
        values = draw_values(sizes.text_width, config)
    initial = {name: values[name] for name in learner.state_dict()}
    learner.load_state_dict(initial, assign=True)
    return learner.to(backbone.device, backbone.dtype)


def draw_values(width: int, config: AnomalyCLIPConfig) -> dict[str, Tensor]:
    """Draw all initial values from torch's own generator, named as in the learner.

    Every part is drawn whether the config uses it or not, so variants of one seed start alike.
    """
    states = [torch.empty(config.context_length, width).normal_(std=DEVIATION) for _ in range(2)]
    shape = (config.prompt_length, width)
    later = [torch.empty(shape).normal_(std=DEVIATION) for _ in range(config.prompt_depth - 1)]
    unused = nn.Linear(width, UNUSED_WIDTH)
    values = {
        "context_tokens": torch.stack(states[:1] if config.shared_context else states),
        "unused_weight": unused.weight.detach()[None],
        "unused_bias": unused.bias.detach()[None],
    }
    return values | ({"compound_prompts": torch.stack(later)} if later else {})


def sample_order(
    config: AnomalyCLIPConfig, backbone: Backbone, n: int, epochs: int
) -> list[list[int]]:
    """Which image comes when in every epoch of the official training after ``config.seed``.

    The index of an image is its place in the official list of the auxiliary dataset.
    """
    sizes = sizes_of(backbone, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        draw_clip(sizes)
        draw_values(sizes.text_width, config)
        for _ in range(sizes.vision_depth - config.dpam_from_layer + 1):
            nn.Linear(sizes.vision_width, 3 * sizes.vision_width)
            nn.Linear(sizes.vision_width, sizes.vision_width)
        return [draw_order(n).tolist() for _ in range(epochs)]
