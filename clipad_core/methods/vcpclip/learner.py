"""What VCP-CLIP learns: deep text prompts, linear heads, Pre-VCP, Post-VCP and two temperatures.

The modules hold tensors and say what each does with them; the frozen towers are never inside, so a
learner's ``state_dict`` is exactly what is trained.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.prepare import check_has_blocks
from clipad_core.errors import ClipadError
from clipad_core.learned.official_init import Architecture, architecture_of
from clipad_core.methods.vcpclip.config import VCPCLIPConfig

# What `PostVCP.ask` says: a direction a head and text embedding, and what its bias adds.
Question = tuple[Float[Tensor, "b m s c"], Float[Tensor, "b m s 1"] | None]
NORM_EPS = 1e-6  # of prompt_norm; C: models/model_CLIP.py


def sizes_of(backbone: Backbone, config: VCPCLIPConfig) -> Architecture:
    """Read the sizes of a backbone, after a check that the config fits it.

    Raises:
        ClipadError: a block that does not exist, heads that do not divide, a text tower that is not
            as wide as the joint space.
    """
    sizes = architecture_of(backbone)
    check_has_blocks(backbone, config.blocks)
    if sizes.text_width != sizes.joint:
        raise ClipadError(
            f"backbone: its text tower is {sizes.text_width} wide and the joint space {sizes.joint}, "
            "expected the same: the image feature is added to word vectors. Choose another one."
        )
    width = post_width(sizes, config)
    if config.post_vcp and width % config.heads:
        raise ClipadError(
            f"heads: found {config.heads}, expected a divisor of {width}, the width of Post-VCP."
        )
    return sizes


def post_width(sizes: Architecture, config: VCPCLIPConfig) -> int:
    """Width of queries, keys and values in Post-VCP (paper and code differ)."""
    return sizes.vision_width if config.post_width == "vision" else sizes.joint


class DeepPrompts(nn.Module):
    """Learned vectors behind the start token of every text block (Eqs. (1) and (2)).

    All share one linear layer; a LayerNorm of their own stands before the tower's last one. Where
    they are off the official code still trains all but ``later`` without ever using them.
    """

    def __init__(self, sizes: Architecture, config: VCPCLIPConfig) -> None:
        super().__init__()
        width, length = sizes.text_width, config.deep_length
        self.first = nn.Parameter(torch.empty(1, length, width))
        if config.deep_prompts:
            self.later = nn.Parameter(torch.empty(sizes.text_depth - 1, length, width))
        self.project = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def vectors(
        self, copies: int, dropout: float, generator: torch.Generator | None
    ) -> Float[Tensor, "l k n c"]:
        """Vectors of every text block, for ``copies`` prompts each.

        Args:
            dropout: rate, drawn apart for every block, prompt and number, in this order.
            generator: where the draws come from; none: no dropout.
        """
        projected = self.project(torch.cat([self.first, self.later]))
        shape = (len(projected), copies, *projected.shape[1:])
        vectors = projected[:, None].expand(shape)
        if generator is None or dropout == 0:
            return vectors
        survives = torch.rand(shape, generator=generator, device=generator.device) >= dropout
        return vectors * survives.to(vectors.device) / (1 - dropout)


class PreVCP(nn.Module):
    """The image speaks into the prompt: category vectors from its global feature (Eq. (4))."""

    def __init__(self, sizes: Architecture, config: VCPCLIPConfig) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, config.category_length, sizes.text_width))
        # The mini-net slides over the channels of the feature, one kernel a category vector.
        self.mini_net = (
            nn.Conv1d(1, config.category_length, 3, padding="same") if config.pre_vcp else None
        )
        self.use_global = config.use_global

    def forward(self, image_embedding: Float[Tensor, "b d"]) -> Float[Tensor, "b r d"]:
        """Vectors that stand for the category in the prompts of each image."""
        if self.mini_net is None or not self.use_global:
            return self.query.expand(len(image_embedding), -1, -1)
        return self.query + self.mini_net(rearrange(image_embedding, "b d -> b 1 d"))


class PostVCP(nn.Module):
    """Text embeddings look at the patches of the image (Eqs. (5) to (8)); no residual."""

    def __init__(self, sizes: Architecture, config: VCPCLIPConfig) -> None:
        super().__init__()
        width, bias = post_width(sizes, config), config.post_bias
        self.heads = config.heads
        self.query = nn.Linear(sizes.joint, width, bias=bias)
        self.key = nn.Linear(sizes.vision_width, width, bias=bias)
        self.value = nn.Linear(sizes.vision_width, width, bias=bias)
        self.out = nn.Linear(width, sizes.vision_width, bias=bias)
        self.logit_scale = nn.Parameter(torch.empty(()))

    def ask(self, text: Float[Tensor, "b s d"]) -> Question:
        r"""What every head of each text embedding looks for: :math:`W_m^\top q_m`.

        So no key is ever made, and the patches of all blocks are asked the same.
        """
        query = rearrange(self.query(text), "b s (m e) -> b m s e", m=self.heads)
        weight = rearrange(self.key.weight, "(m e) c -> m e c", m=self.heads)
        direction = einsum(query, weight, "b m s e, m e c -> b m s c")
        offset = None
        if self.key.bias is not None:
            bias = rearrange(self.key.bias, "(m e) -> m e", m=self.heads)
            offset = einsum(query, bias, "b m s e, m e -> b m s")[..., None]
        return direction, offset

    def attention(
        self, question: Question, patches: Float[Tensor, "b p c"]
    ) -> Float[Tensor, "b m s p"]:
        r"""How much each head of each text embedding looks at each patch; sums to 1.

        :math:`\mathrm{softmax}(q_m^\top W_m x_p)`, without :math:`1/\sqrt d`.
        """
        direction, offset = question
        logits = einsum(direction, patches, "b m s c, b p c -> b m s p")
        return (logits if offset is None else logits + offset).softmax(dim=-1)

    def forward(
        self, question: Question, patches: Float[Tensor, "b p c"]
    ) -> Float[Tensor, "b s c"]:
        """Text embeddings made of what they saw in the patches, unit norm, as wide as the patches.

        Args:
            question: from ``ask``.
            patches: of one block.
        """
        mixed = einsum(self.attention(question, patches), patches, "b m s p, b p c -> b m s c")
        weight = rearrange(self.value.weight, "(m e) c -> m e c", m=self.heads)
        values = einsum(mixed, weight, "b m s c, m e c -> b s m e")
        values = rearrange(values, "b s m e -> b s (m e)")
        if self.value.bias is not None:
            values = values + self.value.bias  # the attention sums to 1
        return F.normalize(self.out(values), dim=-1)


class VCPCLIPLearner(nn.Module):
    """All that VCP-CLIP learns, and nothing else.

    Make it with ``make_learner`` or from a checkpoint: the tensors have no values of their own here.
    """

    def __init__(self, sizes: Architecture, config: VCPCLIPConfig) -> None:
        super().__init__()
        self.deep_prompts = DeepPrompts(sizes, config)
        self.pre_vcp = PreVCP(sizes, config)
        self.post_vcp = PostVCP(sizes, config) if config.post_vcp else None
        heads = [nn.Linear(sizes.vision_width, sizes.joint) for _ in config.blocks]
        self.raw_heads = nn.ModuleList(heads)
        self.raw_logit_scale = nn.Parameter(torch.empty(()))
        # Handed to the official optimiser and stored in its files, but no formula reads it.
        self.register_buffer("unused_projection", torch.empty(sizes.text_width, sizes.joint))


def empty_learner(
    backbone: Backbone, config: VCPCLIPConfig, tensors: Mapping[str, Tensor]
) -> VCPCLIPLearner:
    """A learner without memory, to be filled by ``load_state_dict(..., assign=True)``.

    Args:
        backbone: gives sizes.
        config: gives the others.
        tensors: that it will be filled with; no size is left to them.

    Raises:
        ClipadError: a config that does not fit the backbone.
    """
    sizes = sizes_of(backbone, config)
    with torch.device("meta"):
        return VCPCLIPLearner(sizes, config)
