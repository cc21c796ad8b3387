"""The text side of AnomalyCLIP: two prompts, learned vectors in front of their words.

"[V_1] ... [V_E] object." and "[W_1] ... [W_E] damaged object." (section 3.2), and fresh vectors in
the deeper blocks (Eq. (3)). The tower is causal, so the sequences end at their end-of-text token:
17 tokens instead of 77.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.soft_prompts import run_text_blocks, tokenise_beside_context
from clipad_core.clip.text import class_words, read_out
from clipad_core.errors import ClipadError
from clipad_core.methods.anomalyclip.config import OBJECT, STATE, WORD_SLOTS, AnomalyCLIPConfig
from clipad_core.methods.anomalyclip.learner import AnomalyCLIPLearner
from clipad_core.methods.method import Category, WordKind


def prompt_words(config: AnomalyCLIPConfig, category: str = "") -> tuple[str, str]:
    """The words of the normal and of the anomalous prompt.

    >>> prompt_words(AnomalyCLIPConfig())
    ('object.', 'damaged object.')
    >>> prompt_words(AnomalyCLIPConfig().changed({"object_word": "category"}), "metal_nut")
    ('metal nut.', 'damaged metal nut.')
    """
    rule = "object" if config.object_word == "object" else "spaces"
    named = config.template.replace(OBJECT, class_words(category, rule))
    states = (config.normal_state, config.anomalous_state)
    normal, anomalous = (" ".join(named.replace(STATE, state).split()) for state in states)
    return normal, anomalous


def category_words(config: AnomalyCLIPConfig) -> tuple[WordKind, ...]:
    """Which words of the tested category the state word names."""
    return tuple(kind for slot, kind in WORD_SLOTS.items() if slot in config.anomalous_state)


def with_words(config: AnomalyCLIPConfig, category: Category) -> tuple[AnomalyCLIPConfig, ...]:
    """The config with each of a category's words in its state word; itself where it asks for none.

    Raises:
        ClipadError: the category has no such words.

    >>> config = AnomalyCLIPConfig().changed({"anomalous_state": "damaged {defects}"})
    >>> [one.anomalous_state for one in with_words(config, Category("nut", ("bent", "flip")))]
    ['damaged bent', 'damaged flip']
    """
    kinds = category_words(config)
    if not kinds:
        return (config,)
    slot, words = f"{{{kinds[0]}}}", category.words(kinds[0])
    if not words:
        raise ClipadError(
            f"anomalous_state: found {slot!r}, of which {category.name or 'the category'} has none here, "
            "as in a training; expected plain words, or a change after training (at_test) for a category "
            "that has some."
        )
    states = [config.anomalous_state.replace(slot, word) for word in words]
    return tuple(replace(config, anomalous_state=state) for state in states)


def embeddings_of(
    learner: AnomalyCLIPLearner, backbone: Backbone, config: AnomalyCLIPConfig, category: Category
) -> Float[Tensor, "1 2 d"]:
    """The two prompts of a tested category: row 0 normal, row 1 anomalous, unit norm.

    Where the state word stands for several words of the category, each has a prompt, and the row is
    their mean, as of WinCLIP's states.
    """
    names = (category.name,) if category.name else ()
    configs = with_words(config, category)
    embeddings = [text_embeddings(learner, backbone, one, names) for one in configs]
    if len(embeddings) == 1:
        return embeddings[0]
    return F.normalize(torch.stack(embeddings).mean(dim=0), dim=-1)


def text_embeddings(
    learner: AnomalyCLIPLearner,
    backbone: Backbone,
    config: AnomalyCLIPConfig,
    categories: Sequence[str] = (),
) -> Float[Tensor, "n 2 d"]:
    """Text embeddings: row 0 normal, row 1 anomalous, unit norm.

    Args:
        categories: what each image shows; read only where ``object_word`` says so.

    Returns:
        One pair an entry of ``categories``, or a single pair that serves every image.

    Raises:
        ClipadError: no category where the prompts name it; a prompt that is too long; words of a
            category that nobody put in (`with_words`).
    """
    (config,) = with_words(config, Category())
    if config.object_word == "object":
        return _encode(learner, backbone, config, ("",))
    if not categories or not all(categories):
        raise ClipadError(
            "categories: found none, expected the category of every image: object_word is 'category'."
        )
    distinct = tuple(dict.fromkeys(categories))
    rows = torch.tensor([distinct.index(category) for category in categories])
    return _encode(learner, backbone, config, distinct)[rows.to(backbone.device)]


def _encode(
    learner: AnomalyCLIPLearner,
    backbone: Backbone,
    config: AnomalyCLIPConfig,
    categories: tuple[str, ...],
) -> Float[Tensor, "u 2 d"]:
    """Run the tower on both prompts of every category, as one batch."""
    tower = backbone.text
    tokens, ends = embed_prompts(learner, backbone, config, categories)
    replaced: dict[int, Tensor] = {}
    if config.prompt_depth > 1:
        for index, vectors in enumerate(learner.compound_prompts, start=1):
            # Copied before rounding, so that the gradient of every prompt is rounded by itself.
            copies = vectors.expand(len(tokens), -1, -1)
            replaced[index] = copies.half() if config.half_prompts else copies
    embeddings = read_out(tower, run_text_blocks(tower, tokens, replaced, ends))
    return rearrange(F.normalize(embeddings, dim=-1), "(u two) d -> u two d", two=2)


def _tokenised(
    backbone: Backbone, config: AnomalyCLIPConfig, categories: tuple[str, ...]
) -> Int[Tensor, "n t"]:
    """Token ids of both prompts of every category, where they fit into the tower's context."""
    prompts = [words for category in categories for words in prompt_words(config, category)]
    length = config.context_length if config.context == "learned" else 0
    return tokenise_beside_context(backbone, prompts, length, "template")


def check_category(backbone: Backbone, config: AnomalyCLIPConfig, category: Category) -> None:
    """Refuse prompts that are too long for the text tower.

    Args:
        category: read only where ``object_word`` or the state word asks for it.

    Raises:
        ClipadError: a prompt that does not fit into the tower's context; words that it has not.
    """
    for named in with_words(config, category):
        _tokenised(backbone, named, (category.name,))


def embed_prompts(
    learner: AnomalyCLIPLearner,
    backbone: Backbone,
    config: AnomalyCLIPConfig,
    categories: tuple[str, ...] = ("",),
) -> tuple[Float[Tensor, "n t c"], Int[Tensor, " n"]]:
    """Embed both prompts of every category, context in place, with positions.

    Returns:
        Tokens of the first category's normal and anomalous prompt, then of the next category's; and
        where each end-of-text token stands. Behind it there are only places to fill up a row.

    Raises:
        ClipadError: a prompt that does not fit into the tower's context.
    """
    tower = backbone.text
    ids = _tokenised(backbone, config, categories)
    ends = ids.argmax(dim=-1)
    embedded = tower.embed(ids[:, : int(ends.max()) + 1])
    if config.context == "learned":
        length = config.context_length
        context = learner.context_tokens.expand(2, -1, -1).repeat(len(categories), 1, 1)
        embedded = torch.cat([embedded[:, :1], context, embedded[:, 1:]], dim=1)
        ends = ends + length
    return embedded + tower.positional_embedding[: embedded.shape[1]], ends.to(tower.device)
