"""Fewer templates or states of a prompt list: chosen by coverage, at random, or by a word they hold.

The list of WinCLIP holds 22 templates, many of which say nearly the same. What a smaller list is worth
is asked of no paper; here it is a choice of the config like any other.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.prompt_ensemble import PromptEnsemble
from clipad_core.clip.text import TextTower, Tokenizer, encode_prompts
from clipad_core.methods.winclip.config import WinCLIPConfig
from clipad_core.methods.winclip.prompts import without_words

# What stands in a template or state while it is compared with the others.
NEUTRAL = "object"
# Gains of coverage that differ by less are one, so that the CPU decides nothing.
SAME = 1e-6


def most_covering(similarity: Float[Tensor, "n n"], count: int) -> list[int]:
    r"""The members of a set that stand for all of it, greedily: facility location.

    .. math:: f(S) = \sum_i \max_{j \in S} s_{ij}

    Adding the member that raises :math:`f` most, again and again, comes within :math:`1 - 1/e` of the best
    set of that size (Nemhauser, Wolsey and Fisher, Mathematical Programming 14, 1978). Of equal members
    the first is taken.

    Args:
        similarity: of every pair, higher is more alike; cosines.
        count: how many; at most n.

    Returns:
        Places, in the order in which they were chosen; those of a smaller count come first.

    >>> pairs = torch.tensor([[1.0, 0.9, 0.0], [0.9, 1.0, 0.2], [0.0, 0.2, 1.0]])
    >>> most_covering(pairs, 2)  # the middle one first, then the one that it covers least
    [1, 2]
    """
    chosen: list[int] = []
    covered = similarity.new_full((len(similarity),), -1.0)  # no cosine is lower
    for _ in range(count):
        gains = torch.maximum(similarity, covered[:, None]).sum(dim=0)
        gains[chosen] = -torch.inf
        best = int((gains >= gains.max() - SAME).nonzero()[0])
        chosen.append(best)
        covered = torch.maximum(covered, similarity[:, best])
    return chosen


def drawn(size: int, count: int, seed: int) -> list[int]:
    """Places drawn at random; those of a smaller count and the same seed come first.

    >>> drawn(22, 3, seed=1)[:2] == drawn(22, 2, seed=1)
    True
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(size, generator=generator)[:count].tolist()


def text_similarity(
    tower: TextTower, tokenizer: Tokenizer, texts: tuple[str, ...]
) -> Float[Tensor, "n n"]:
    """Cosine of every two templates or states, each around the word "object"."""
    prompts = [text.replace("{}", NEUTRAL) for text in texts]
    embeddings = F.normalize(encode_prompts(tower, tokenizer, prompts), dim=-1)
    return embeddings @ embeddings.T


def reduced(
    tower: TextTower, tokenizer: Tokenizer, ensemble: PromptEnsemble, config: WinCLIPConfig
) -> PromptEnsemble:
    """The prompts that ``config`` keeps of a list, in the order of the list.

    Of states as many are kept of either label as there are, up to ``states_kept``.
    """

    def kept(texts: tuple[str, ...], count: int | None) -> tuple[str, ...]:
        if count is None or count >= len(texts):
            return texts
        if config.kept_by == "random":
            places = drawn(len(texts), count, config.kept_seed)
        else:
            places = most_covering(text_similarity(tower, tokenizer, texts), count)
        return tuple(texts[place] for place in sorted(places))

    return replace(
        ensemble,
        normal_states=kept(ensemble.normal_states, config.states_kept),
        anomalous_states=kept(ensemble.anomalous_states, config.states_kept),
        templates=kept(
            without_words(ensemble.templates, config.templates_without), config.templates_kept
        ),
    )
