"""What VCP-CLIP learns: deep text prompts, linear heads, Pre-VCP, Post-VCP and two temperatures.

The modules hold tensors and say what each does with them; the frozen towers are never inside, so a
learner's ``state_dict`` is exactly what is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    width, part = post_width(sizes, config), "Post-VCP"
    if config.head == "decoder":
        width, part = sizes.joint, "the decoder"
    elif not config.post_vcp:
        return sizes
    if width % config.heads:
        raise ClipadError(
            f"heads: found {config.heads}, expected a divisor of {width}, the width of {part}."
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


class QueryDecoder(nn.Module):
    """A transformer decoder whose two queries are the text embeddings; it gives map and image score.

    After DETR (Carion et al., ECCV 2020): queries attend to each other and to the patches, and a linear
    layer says of each how much of it the image shows. As in MaskFormer (Cheng et al., NeurIPS 2021) a
    query's map is its product with every patch. The patches of each block have a projection of their own
    and are added up; their positions stand in them already. Nothing is dropped, so nothing is drawn.
    """

    def __init__(self, sizes: Architecture, config: VCPCLIPConfig) -> None:
        super().__init__()
        width = sizes.joint
        self.project = nn.ModuleList(nn.Linear(sizes.vision_width, width) for _ in config.blocks)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                width, config.heads, dim_feedforward=width, dropout=0.0, batch_first=True
            )
            for _ in range(config.decoder_layers)
        )
        # Without biases, which the difference of two logits does not see.
        self.mask = nn.Linear(width, width, bias=False)
        self.shown = nn.Linear(width, 1, bias=False)

    def forward(
        self, text: Float[Tensor, "b 2 d"], tokens: Sequence[Float[Tensor, "b p c"]]
    ) -> tuple[Float[Tensor, "b p 2"], Float[Tensor, "b 2"]]:
        r"""Logits of both queries at every patch, and of the whole image.

        With :math:`y` the added patches and :math:`o_s` what the last layer makes of query s:
        :math:`\langle y, W o_s \rangle / \sqrt d` and :math:`\langle w, o_s \rangle`.

        Args:
            text: unit norm, row 0 normal, row 1 anomalous.
            tokens: of the blocks, ascending; not normalised.
        """
        projected = [layer(x) for layer, x in zip(self.project, tokens, strict=True)]
        patches = self.norm(torch.stack(projected).sum(dim=0))
        queries = text
        for layer in self.layers:
            queries = layer(queries, patches)
        logits = patches @ self.mask(queries).transpose(1, 2) / patches.shape[-1] ** 0.5
        return logits, self.shown(queries)[..., 0]


class VCPCLIPLearner(nn.Module):
    """All that VCP-CLIP learns, and nothing else.

    Make it with ``make_learner`` or from a checkpoint: the tensors have no values of their own here.

    Attributes:
        states: vectors of every normal, then of every anomalous state; None: words stand for them.
        raw_heads, raw_logit_scale, post_vcp: of the contrastive head; the second one may be None there, too.
        decoder: of the other.
    """

    def __init__(self, sizes: Architecture, config: VCPCLIPConfig) -> None:
        super().__init__()
        self.deep_prompts = DeepPrompts(sizes, config)
        self.pre_vcp = PreVCP(sizes, config)
        self.states: nn.Parameter | None = None
        if config.state_length:
            number = len(config.normal_states) + len(config.anomalous_states)
            shape = (number, config.state_length, sizes.text_width)
            self.states = nn.Parameter(torch.empty(shape))
        self.post_vcp: PostVCP | None = None
        self.decoder: QueryDecoder | None = None
        if config.head == "decoder":
            self.decoder = QueryDecoder(sizes, config)
        else:
            self.post_vcp = PostVCP(sizes, config) if config.post_vcp else None
            heads = [nn.Linear(sizes.vision_width, sizes.joint) for _ in config.blocks]
            self.raw_heads = nn.ModuleList(heads)
            self.raw_logit_scale = nn.Parameter(torch.empty(()))
        # Handed to the official optimiser and stored in its files, but no formula reads it.
        self.register_buffer("unused_projection", torch.empty(sizes.text_width, sizes.joint))


def check_learner(learner: VCPCLIPLearner, config: VCPCLIPConfig) -> None:
    """Refuse fields that were changed after a training which made other parts.

    Raises:
        ClipadError: another head, or learned states of another number or length.
    """
    head = "contrastive" if learner.decoder is None else "decoder"
    if config.head != head:
        raise ClipadError(
            f"head: found {config.head}, expected {head}, which the learner was trained with; change it "
            "before the training."
        )
    if config.state_length:
        shape = None if learner.states is None else tuple(learner.states.shape[:2])
        number = len(config.normal_states) + len(config.anomalous_states)
        if shape != (number, config.state_length):
            learned = "none" if shape is None else f"{shape[0]} of length {shape[1]}"
            raise ClipadError(
                f"state_length: found {config.state_length} for {number} states, expected what the learner "
                f"has, {learned}; set 0 for the words, or change it before the training."
            )


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
