"""The text side of CoOp: one learned context, and behind it the state and the name of a category.

"[V_1] ... [V_N] normal bottle." and "[V_1] ... [V_N] anomalous bottle." share their vectors, with each
other and with all categories. The tower is causal, so sequences end at their end-of-text token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.soft_prompts import run_text_blocks, tokenise_beside_context
from clipad_core.clip.text import class_words, read_out
from clipad_core.methods.coop.config import CoOpConfig
from clipad_core.methods.coop.learner import CoOpLearner, context_length, embed_words
from clipad_core.methods.method import Category


def class_texts(config: CoOpConfig, categories: Sequence[str]) -> list[str]:
    """What stands for the class in the prompts: normal, anomalous, then the next category's.

    >>> class_texts(CoOpConfig(), ["metal_nut"])
    ['normal metal nut', 'anomalous metal nut']
    """
    return [
        f"{state} {class_words(category, config.class_name)}"
        for category in categories
        for state in (config.normal_state, config.anomalous_state)
    ]


def _tokenised(
    backbone: Backbone, config: CoOpConfig, categories: Sequence[str]
) -> Int[Tensor, "n t"]:
    """Token ids of all prompts without their context."""
    texts = [f"{text}." for text in class_texts(config, categories)]
    return tokenise_beside_context(backbone, texts, context_length(config), "prompt")


def check_category(backbone: Backbone, config: CoOpConfig, category: Category) -> None:
    """Refuse prompts that are too long for the text tower beside the context, and unfit initial words.

    Raises:
        ClipadError: a prompt that does not fit into the tower's context; an initial word that is more
            than one token.
    """
    _tokenised(backbone, config, [category.name])
    if config.context_words:
        embed_words(backbone, config)


def name_lengths(backbone: Backbone, config: CoOpConfig, categories: Sequence[str]) -> list[int]:
    """Tokens of every class text, its state word counted and the period behind it not."""
    ids = backbone.tokenizer(class_texts(config, categories))
    lengths: list[int] = (ids.argmax(dim=-1) - 1).tolist()
    return lengths


def embed_prompts(
    context: Float[Tensor, "*k m c"],
    backbone: Backbone,
    config: CoOpConfig,
    categories: Sequence[str],
) -> tuple[Float[Tensor, "n t c"], Int[Tensor, " n"]]:
    """Embed the prompts of some categories with the context in its place, without positions.

    The class text stands behind the context, inside it or before it; the period is no part of it.

    Args:
        context: of all prompts alike, or one of each.

    Returns:
        Tokens, and where each end-of-text token stands; behind it are only places to fill up a row.

    Raises:
        ClipadError: a prompt that does not fit into the tower's context.
    """
    ids = _tokenised(backbone, config, categories)
    ends = ids.argmax(dim=-1)
    words = backbone.text.embed(ids[:, : int(ends.max()) + 1])
    contexts = context.to(words.dtype).expand(len(words), -1, -1)
    length = contexts.shape[1]
    before = {"end": length, "middle": length // 2, "front": 0}[config.context_position]
    names = name_lengths(backbone, config, categories) if before < length else [0] * len(words)
    rows = [
        torch.cat([row[:1], vectors[:before], row[1 : 1 + name], vectors[before:], row[1 + name :]])
        for row, vectors, name in zip(words, contexts, names, strict=True)
    ]
    return torch.stack(rows), (ends + length).to(words.device)


def encode_context(
    context: Float[Tensor, "*k m c"],
    backbone: Backbone,
    config: CoOpConfig,
    categories: Sequence[str],
) -> Float[Tensor, "u 2 d"]:
    """Text embeddings of some categories, not normalised: row 0 normal, row 1 anomalous.

    Args:
        context: of all prompts alike, or one of each.
    """
    tower = backbone.text
    tokens, ends = embed_prompts(context, backbone, config, categories)
    tokens = tokens + tower.positional_embedding[: tokens.shape[1]]
    embeddings = read_out(tower, run_text_blocks(tower, tokens, {}, ends))
    return rearrange(embeddings, "(u two) d -> u two d", two=2)


def text_embeddings(
    learner: CoOpLearner, backbone: Backbone, config: CoOpConfig, categories: Sequence[str]
) -> Float[Tensor, "u 2 d"]:
    """The same with what was learned, of unit norm."""
    return F.normalize(encode_context(learner.context_tokens, backbone, config, categories), dim=-1)
