"""The text side of VCP-CLIP: prompts with open places, filled for every image, run as one batch.

The official code runs the tower once an image over all 77 tokens. Here all images and states go
through together, and only as far as the last end-of-text token: the tower is causal, so this is
exact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.soft_prompts import run_text_blocks
from clipad_core.clip.text import Tokenizer, read_out
from clipad_core.errors import ClipadError
from clipad_core.methods.method import Category
from clipad_core.methods.vcpclip.config import CATEGORY, STATE, VCPCLIPConfig, prompts
from clipad_core.methods.vcpclip.learner import VCPCLIPLearner


@dataclass(frozen=True)
class OpenPrompts:
    """Tokenised prompts with places for the category vectors, and for states that are vectors.

    Attributes:
        ids: token ids, 0 at the open places and behind the end.
        places: where the category vectors of each prompt go.
        states: where the state vectors of each prompt go; empty where a word stands.
        ends: where each prompt's end-of-text token stands.
        normal: how many of the prompts, the first ones, speak of a normal object.
    """

    ids: Int[Tensor, "m t"]
    places: Int[Tensor, "m r"]
    states: list[list[int]]
    ends: Int[Tensor, " m"]
    normal: int


@lru_cache(maxsize=256)
def _words(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """Token ids from the start token to the end-of-text token, which has the largest id.

    Kept, since every step of a training asks for the same few.
    """
    ids = tokenizer([text])[0]
    return tuple(ids[: int(ids.argmax()) + 1].tolist())


def _open(
    tokenizer: Tokenizer, prompt: str, lengths: Mapping[str, int]
) -> tuple[list[int], dict[str, list[int]]]:
    """Token ids of a prompt, and the places of what stands open in it, so many tokens each."""
    start, end = _words(tokenizer, "")
    row: list[int] = [start]
    places: dict[str, list[int]] = {name: [] for name in lengths}
    for part in re.split(f"({'|'.join(map(re.escape, lengths))})", prompt):
        if part in lengths:
            places[part] = list(range(len(row), len(row) + lengths[part]))
            row += [0] * lengths[part]
        else:
            row += _words(tokenizer, part)[1:-1]
    return [*row, end], places


def open_prompts(
    tokenizer: Tokenizer, config: VCPCLIPConfig, context: int, state_of_references: bool = False
) -> OpenPrompts:
    """Tokenise the prompts of a config around their category vectors.

    Args:
        state_of_references: whether references stand for the state of normal prompts.

    Raises:
        ClipadError: a prompt that does not fit into the tower's context.
    """
    normal, anomalous = prompts(config, state_of_references)
    rows, categories, states = [], [], []
    extra = config.deep_length if config.deep_prompts else 0
    for index, prompt in enumerate(normal + anomalous):
        by_references = state_of_references and index < len(normal)
        state_length = config.category_length if by_references else config.state_length
        row, places = _open(
            tokenizer, prompt, {STATE: state_length, CATEGORY: config.category_length}
        )
        rows.append(row)
        categories.append(places[CATEGORY])
        states.append(places[STATE])
        if len(rows[-1]) + extra > context:
            raise ClipadError(
                f"templates: {prompt!r} takes {len(rows[-1]) + extra} tokens, expected at most "
                f"{context}; shorten it, category_length, state_length or deep_length."
            )
    longest = max(len(row) for row in rows)
    return OpenPrompts(
        ids=torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
        places=torch.tensor(categories),
        states=states,
        ends=torch.tensor([len(row) - 1 for row in rows]),
        normal=len(normal),
    )


def check_templates(backbone: Backbone, config: VCPCLIPConfig, category: Category) -> None:
    """Refuse prompts that are too long for the text tower, and words that no state can begin as.

    Args:
        category: part of the shared signature; an image speaks in the place of its name.

    Raises:
        ClipadError: a prompt that does not fit into the tower's context, or see `state_ids`.
    """
    context = len(backbone.text.positional_embedding)
    open_prompts(backbone.tokenizer, config, context)
    if config.reference_use == "state":
        open_prompts(backbone.tokenizer, config, context, state_of_references=True)
    if config.state_length and config.state_init == "words":
        state_ids(backbone.tokenizer, config)


def state_ids(tokenizer: Tokenizer, config: VCPCLIPConfig) -> Int[Tensor, "s n"]:
    """Token ids of every normal, then every anomalous state, which learned states begin as.

    Raises:
        ClipadError: a state that is not of ``state_length`` tokens.
    """
    ids = {s: _words(tokenizer, s)[1:-1] for s in (*config.normal_states, *config.anomalous_states)}
    for state, tokens in ids.items():
        if len(tokens) != config.state_length:
            raise ClipadError(
                f"state_length: found {config.state_length}, but {state!r} is {len(tokens)} tokens, expected "
                "the same; choose other words, or state_init: random."
            )
    return torch.tensor([ids[s] for s in (*config.normal_states, *config.anomalous_states)])


def fill(
    backbone: Backbone,
    opened: OpenPrompts,
    category: Float[Tensor, "b r c"],
    states: Sequence[Float[Tensor, "_ c"] | None] = (),
) -> Float[Tensor, "b m t c"]:
    """Embed every prompt for every image, category and state vectors in place, with positions.

    Args:
        states: of every prompt, None where a word stands; empty: words stand in all of them.
    """
    tower = backbone.text
    words = tower.embed(opened.ids)
    filled = repeat(words, "m t c -> b m t c", b=len(category)).clone()
    prompt = torch.arange(len(words), device=tower.device)[:, None]
    filled[:, prompt, opened.places.to(tower.device)] = category[:, None].to(words.dtype)
    for row, vectors in enumerate(states):
        if vectors is not None:
            filled[:, row, opened.states[row]] = vectors.to(words.dtype)
    return filled + tower.positional_embedding[: words.shape[1]]


def text_embeddings(
    learner: VCPCLIPLearner,
    backbone: Backbone,
    config: VCPCLIPConfig,
    image_embedding: Float[Tensor, "b d"],
    generator: torch.Generator | None = None,
    normal_state: Float[Tensor, "r c"] | None = None,
) -> Float[Tensor, "b 2 d"]:
    """Text embeddings of every image: row 0 normal, row 1 anomalous, unit norm.

    VCP-CLIP, section 3.2 and Eq. (4). Several prompts of a state are averaged, each of unit norm.

    Args:
        image_embedding: projected class token, not normalised.
        generator: draws the dropout of the deep prompts; none: no dropout.
        normal_state: vectors of references, in the place of the normal state; none: there are none.
    """
    tower = backbone.text
    by_references = normal_state is not None
    opened = open_prompts(
        backbone.tokenizer, config, len(tower.positional_embedding), by_references
    )
    vectors = _state_vectors(learner, config, normal_state)
    filled = fill(backbone, opened, learner.pre_vcp(image_embedding), vectors)
    tokens = rearrange(filled, "b m t c -> (b m) t c")
    ends = repeat(opened.ends.to(tokens.device), "m -> (b m)", b=len(filled))
    if config.deep_prompts:
        last = _run_deep(learner, backbone, config, tokens, ends, generator)
        embeddings = read_out(tower, last)
    else:
        embeddings = read_out(tower, run_text_blocks(tower, tokens, {}, ends))
    each = rearrange(F.normalize(embeddings, dim=-1), "(b m) d -> b m d", b=len(filled))
    states = each[:, : opened.normal], each[:, opened.normal :]
    return F.normalize(torch.stack([state.mean(dim=1) for state in states], dim=1), dim=-1)


def _state_vectors(
    learner: VCPCLIPLearner, config: VCPCLIPConfig, normal_state: Tensor | None
) -> list[Tensor | None]:
    """The state vectors of every prompt, in the order of `prompts`; None where a word stands."""
    count = len(config.normal_states)
    learned: list[Tensor | None] = [None] * (count + len(config.anomalous_states))
    if config.state_length and learner.states is not None:
        learned = list(learner.states)
    normal, anomalous = learned[:count], learned[count:]
    if normal_state is not None:
        normal = [normal_state]
    return [vectors for group in (normal, anomalous) for _ in config.templates for vectors in group]


def _run_deep(
    learner: VCPCLIPLearner,
    backbone: Backbone,
    config: VCPCLIPConfig,
    tokens: Float[Tensor, "k t c"],
    ends: Int[Tensor, " k"],
    generator: torch.Generator | None,
) -> Float[Tensor, "k c"]:
    """Run the tower with deep prompts; give back each end token, after ``prompt_norm``.

    The first vectors are inserted behind the start token, without positions; every deeper block
    finds its own in their place. So all that follows stands ``deep_length`` further back.
    """
    deep = learner.deep_prompts
    vectors = deep.vectors(len(tokens), config.dropout, generator)
    tokens = torch.cat([tokens[:, :1], vectors[0], tokens[:, 1:]], dim=1)
    replaced = {index: vectors[index] for index in range(1, len(vectors))}
    return deep.norm(run_text_blocks(backbone.text, tokens, replaced, ends + config.deep_length))
