"""What CoOp learns, one context for every category and both states, and how: SGD with a schedule.

Values are drawn as the official code (KaiyangZhou/CoOp@ff61507) draws them where the seed is set right
before its learner is made, images are ordered as torch's own loader orders them; what the official
program draws before either depends on its data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clipad_core.clip.backbone import Backbone
from clipad_core.errors import ClipadError
from clipad_core.learned.official_init import draw_order
from clipad_core.methods.coop.config import CoOpConfig

DEVIATION = 0.02  # of all initial vectors; P


class CoOpLearner(nn.Module):
    """All that CoOp learns; make it with `make_learner` or from a checkpoint, it has no values here.

    Args:
        length: of the context, in tokens.
        width: of the text tower.
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.context_tokens = nn.Parameter(torch.empty(length, width))


def context_length(config: CoOpConfig) -> int:
    """How many vectors there are: as many as initial words, where there are such.

    >>> context_length(CoOpConfig()), context_length(CoOpConfig(context_words="a photo of a"))
    (16, 4)
    """
    return len(config.context_words.split()) or config.context_length


def empty_learner(
    backbone: Backbone, config: CoOpConfig, tensors: Mapping[str, Tensor]
) -> CoOpLearner:
    """A learner without memory, to be filled by ``load_state_dict(..., assign=True)``.

    Args:
        tensors: that it will be filled with; its sizes are those of backbone and config.
    """
    with torch.device("meta"):
        return CoOpLearner(context_length(config), backbone.text.token_embedding.shape[1])


def make_learner(backbone: Backbone, config: CoOpConfig, seed: int) -> CoOpLearner:
    """A learner with its initial values: drawn in float32 after the seed, or those of words.

    Raises:
        ClipadError: initial words of which one is more than one token.
    """
    learner = empty_learner(backbone, config, {})
    values = embed_words(backbone, config) if config.context_words else _drawn(learner, seed)
    learner.load_state_dict({"context_tokens": values}, assign=True)
    return learner.to(backbone.device, backbone.dtype)


def _drawn(learner: CoOpLearner, seed: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.empty(learner.context_tokens.shape).normal_(std=DEVIATION)


def embed_words(backbone: Backbone, config: CoOpConfig) -> Float[Tensor, "m c"]:
    """The embeddings of the initial words.

    Raises:
        ClipadError: a word that is more than one token.
    """
    ids = backbone.tokenizer([config.context_words])[0]
    length, end = context_length(config), int(ids.argmax())
    if end - 1 != length:
        raise ClipadError(
            f"context_words: found {config.context_words!r}, {length} words of {end - 1} tokens, expected "
            "words of one token each; choose others."
        )
    return backbone.text.embed(ids[1:end]).clone()


def sample_order(config: CoOpConfig, backbone: Backbone, n: int, epochs: int) -> list[list[int]]:
    """Which image comes when in every epoch after ``config.seed``; what fills no batch is left out.

    As officially, a set smaller than a batch is one batch all the same.
    """
    whole = n - n % config.batch_size if config.drop_last and n >= config.batch_size else n
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return [draw_order(n).tolist()[:whole] for _ in range(epochs)]


def parameter_groups(
    learner: CoOpLearner, config: CoOpConfig, trained_on: str
) -> list[dict[str, Any]]:
    """One group: the context, at one rate whatever it is trained on."""
    return [{"params": list(learner.parameters()), "lr": config.learning_rate}]


def make_optimizer(groups: list[dict[str, Any]], config: CoOpConfig) -> torch.optim.Optimizer:
    r"""SGD with momentum, weight decay added to the gradient before it; or Adam.

    .. math:: v \leftarrow \mu v + (\nabla + \lambda w), \quad w \leftarrow w - \eta v
    """
    if config.optimizer == "adam":
        return torch.optim.Adam(
            groups, betas=(config.betas[0], config.betas[1]), weight_decay=config.weight_decay
        )
    return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)


def rate_factor(config: CoOpConfig, epoch: int) -> float:
    r"""Learning rate of an epoch, counted from 0, as a share of ``learning_rate``.

    The first epoch runs at ``warmup_rate``. The official schedule steps once an epoch and its cosine
    begins one late, so that it never reaches its end; with E epochs and :math:`e \ge 1`:

    .. math:: \tfrac12 \left(1 + \cos \frac{\pi (e - 1)}{E}\right)

    >>> config = CoOpConfig(epochs=3)
    >>> [round(0.002 * rate_factor(config, epoch), 6) for epoch in range(3)]
    [1e-05, 0.002, 0.0015]
    """
    if config.schedule == "constant":
        return 1.0
    if epoch == 0:
        return config.warmup_rate / config.learning_rate
    return (1 + math.cos(math.pi * (epoch - 1) / config.epochs)) / 2
