"""The text side of VCP-CLIP: prompts with open places, filled for every image, run as one batch.

The official code runs the tower once an image over all 77 tokens. Here all images and states go
through together, and only as far as the last end-of-text token: the tower is causal, so this is
exact.
"""

from __future__ import annotations

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
from clipad_core.methods.vcpclip.config import CATEGORY, VCPCLIPConfig, prompts
from clipad_core.methods.vcpclip.learner import VCPCLIPLearner


@dataclass(frozen=True)
class OpenPrompts:
    """Tokenised prompts with places for the category vectors.

    Attributes:
        ids: token ids, 0 at the open places and behind the end.
        places: where the category vectors of each prompt go.
        ends: where each prompt's end-of-text token stands.
        normal: how many of the prompts, the first ones, speak of a normal object.
    """

    ids: Int[Tensor, "m t"]
    places: Int[Tensor, "m r"]
    ends: Int[Tensor, " m"]
    normal: int


@lru_cache(maxsize=256)
def _words(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """Token ids from the start token to the end-of-text token, which has the largest id.

    Kept, since every step of a training asks for the same few.
    """
    ids = tokenizer([text])[0]
    return tuple(ids[: int(ids.argmax()) + 1].tolist())


def open_prompts(tokenizer: Tokenizer, config: VCPCLIPConfig, context: int) -> OpenPrompts:
    """Tokenise the prompts of a config around their category vectors.

    Raises:
        ClipadError: a prompt that does not fit into the tower's context.
    """
    normal, anomalous = prompts(config)
    rows, starts = [], []
    extra = config.deep_length if config.deep_prompts else 0
    for prompt in normal + anomalous:
        before, after = (_words(tokenizer, part) for part in prompt.split(CATEGORY))
        rows.append([*before[:-1], *[0] * config.category_length, *after[1:]])
        starts.append(len(before) - 1)
        if len(rows[-1]) + extra > context:
            raise ClipadError(
                f"templates: {prompt!r} takes {len(rows[-1]) + extra} tokens, expected at most "
                f"{context}; shorten it, category_length or deep_length."
            )
    longest = max(len(row) for row in rows)
    return OpenPrompts(
        ids=torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
        places=torch.tensor(starts)[:, None] + torch.arange(config.category_length),
        ends=torch.tensor([len(row) - 1 for row in rows]),
        normal=len(normal),
    )


def check_templates(backbone: Backbone, config: VCPCLIPConfig, category: Category) -> None:
    """Refuse prompts that are too long for the text tower.

    Args:
        category: part of the shared signature; an image speaks in the place of its name.

    Raises:
        ClipadError: a prompt that does not fit into the tower's context.
    """
    open_prompts(backbone.tokenizer, config, len(backbone.text.positional_embedding))


def fill(
    backbone: Backbone, opened: OpenPrompts, category: Float[Tensor, "b r c"]
) -> Float[Tensor, "b m t c"]:
    """Embed every prompt for every image, category vectors in place, with positions."""
    tower = backbone.text
    words = tower.embed(opened.ids)
    filled = repeat(words, "m t c -> b m t c", b=len(category)).clone()
    prompt = torch.arange(len(words), device=tower.device)[:, None]
    filled[:, prompt, opened.places.to(tower.device)] = category[:, None].to(words.dtype)
    return filled + tower.positional_embedding[: words.shape[1]]


def text_embeddings(
    learner: VCPCLIPLearner,
    backbone: Backbone,
    config: VCPCLIPConfig,
    image_embedding: Float[Tensor, "b d"],
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b 2 d"]:
    """Text embeddings of every image: row 0 normal, row 1 anomalous, unit norm.

    VCP-CLIP, section 3.2 and Eq. (4). Several prompts of a state are averaged, each of unit norm.

    Args:
        image_embedding: projected class token, not normalised.
        generator: draws the dropout of the deep prompts; none: no dropout.
    """
    tower = backbone.text
    opened = open_prompts(backbone.tokenizer, config, len(tower.positional_embedding))
    filled = fill(backbone, opened, learner.pre_vcp(image_embedding))
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
