"""The official initial values and sample order of VCP-CLIP, drawn in the official order.

The released code (xiaozhen228/VCP-CLIP@4dd96ec) seeds torch, builds CLIP twice (once as it is
stored, once for the input size and one more word), takes the deep prompts of the first, and then
makes the linear heads, Pre-VCP and Post-VCP. The rule is the same for every backbone and seed.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from clipad_core.clip.backbone import Backbone
from clipad_core.learned.official_init import (
    Architecture,
    architecture_of,
    draw_clip,
    draw_order,
    draw_seed,
)
from clipad_core.methods.vcpclip.config import VCPCLIPConfig
from clipad_core.methods.vcpclip.learner import (
    QueryDecoder,
    VCPCLIPLearner,
    empty_learner,
    post_width,
)
from clipad_core.methods.vcpclip.text import state_ids

# The official trainer looks at five validation categories after each epoch, once for each branch.
VALIDATION_PASSES = 2
STATE_STD = 0.02  # of states that begin at random, as CoOp's context does
LOGIT_SCALE = math.log(1 / 0.07)  # of both branches; CLIP's own start


def make_learner(backbone: Backbone, config: VCPCLIPConfig, seed: int) -> VCPCLIPLearner:
    """A learner with the initial values that the official code has after this seed.

    They are drawn in float32, as there, whatever precision the backbone has. A full ViT-L/14 takes
    some seconds: all its numbers are drawn twice before.

    Raises:
        ClipadError: a config that does not fit the backbone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        values = draw_values(architecture_of(backbone), config)
        # Drawn last, so that what is of the paper starts as it does there.
        values |= _draw_own(backbone, config)
    learner = empty_learner(backbone, config, {})
    own = {name: values[name] for name in learner.state_dict()}
    learner.load_state_dict(own, assign=True)
    return learner.to(backbone.device, backbone.dtype)


def _draw_own(backbone: Backbone, config: VCPCLIPConfig) -> dict[str, Tensor]:
    """Initial values of what the official code does not have."""
    values: dict[str, Tensor] = {}
    if config.state_length:
        number = len(config.normal_states) + len(config.anomalous_states)
        sizes = architecture_of(backbone)
        drawn = torch.empty(number, config.state_length, sizes.text_width).normal_(std=STATE_STD)
        words = config.state_init == "words"
        ids = state_ids(backbone.tokenizer, config) if words else None
        values["states"] = drawn if ids is None else backbone.text.embed(ids).to(drawn)
    if config.head == "decoder":
        values |= _named("decoder", QueryDecoder(architecture_of(backbone), config))
    return values


def sample_order(config: VCPCLIPConfig, backbone: Backbone, n: int, epochs: int) -> list[list[int]]:
    """Which image comes when in every epoch of the official training after ``config.seed``.

    The official run trains on a GPU, where dropout leaves this generator alone, as ours does. The
    index of an image is its place in the official list of the auxiliary dataset.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        draw_values(architecture_of(backbone), config)
        orders = []
        for _ in range(epochs):
            orders.append(draw_order(n).tolist())
            for _ in range(VALIDATION_PASSES):
                draw_seed()
        return orders


def draw_values(sizes: Architecture, config: VCPCLIPConfig) -> dict[str, Tensor]:
    """Draw all initial values from torch's own generator, named as in the learner.

    Every part is drawn whether the config uses it or not, so variants of one seed start alike.
    """
    values = _draw_prompted_clip(sizes, config)
    side = config.image_size // sizes.patch_size
    _draw_prompted_clip(replace(sizes, grid=side, vocabulary=sizes.vocabulary + 1), config)
    heads = [nn.Linear(sizes.vision_width, sizes.joint) for _ in config.blocks]
    pre = _draw_pre_vcp(sizes, config)
    post = _draw_post_vcp(sizes, config)
    for index, head in enumerate(heads):
        values |= _named(f"raw_heads.{index}", head)
    values |= pre | {"raw_logit_scale": torch.tensor(LOGIT_SCALE)}
    return values | (post if config.post_vcp else {})


def _draw_prompted_clip(sizes: Architecture, config: VCPCLIPConfig) -> dict[str, Tensor]:
    """CLIP with deep prompts; the path that loads OpenAI's file rounds linear layers to fp16."""
    draw_clip(sizes)
    width = sizes.text_width
    unused = torch.empty(width, sizes.joint).normal_(std=width**-0.5)
    first = torch.empty(1, config.deep_length, width).uniform_(-1, 1)
    values = {"unused_projection": unused, "deep_prompts.first": first}
    if config.deep_prompts:
        later = torch.empty(sizes.text_depth - 1, config.deep_length, width)
        values["deep_prompts.later"] = later.uniform_(-1, 1)
    project = nn.Linear(width, width)
    nn.init.kaiming_normal_(project.weight, a=0, mode="fan_out")
    rounded = _named("deep_prompts.project", project.half().float())
    return values | rounded | _named("deep_prompts.norm", nn.LayerNorm(width))


def _draw_pre_vcp(sizes: Architecture, config: VCPCLIPConfig) -> dict[str, Tensor]:
    """The category vectors are drawn twice (the first draw is thrown away), the mini-net between."""
    shape = (1, config.category_length, sizes.text_width)
    torch.randn(shape)
    mini_net = nn.Conv1d(1, config.category_length, 3)
    query = nn.init.trunc_normal_(torch.empty(shape))
    tensors = _named("pre_vcp.mini_net", mini_net) if config.pre_vcp else {}
    return {"pre_vcp.query": query} | tensors


def _draw_post_vcp(sizes: Architecture, config: VCPCLIPConfig) -> dict[str, Tensor]:
    width = post_width(sizes, config)
    layers = {
        "query": nn.Linear(sizes.text_width, width, bias=config.post_bias),
        "key": nn.Linear(sizes.vision_width, width, bias=config.post_bias),
        "value": nn.Linear(sizes.vision_width, width, bias=config.post_bias),
        "out": nn.Linear(width, sizes.vision_width, bias=config.post_bias),
    }
    values = {"post_vcp.logit_scale": torch.tensor(LOGIT_SCALE)}
    for name, layer in layers.items():
        values |= _named(f"post_vcp.{name}", layer)
    return values


def _named(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in module.state_dict().items()}
