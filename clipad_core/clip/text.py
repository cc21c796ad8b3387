"""Prompts to text embeddings.

The text tower is causal, so a prompt's embedding depends on nothing behind its end-of-text token:
the context is cut there, which is exact and about four times cheaper than the full 77 tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from clipad_core.clip.device import chunk_sizes
from clipad_core.clip.transformer import (
    KeyValue,
    LayerNorm,
    Transformer,
    chunks,
    finish_block,
    project_qkv,
    read_layer_norm,
    read_transformer,
    run_block,
    run_last_block,
)
from clipad_core.errors import ClipadError

Tokenizer = Callable[[list[str]], Tensor]
# An ensemble has about ten; of ViT-B/16+ a hundred of them are half a gigabyte.
CHUNKS_KEPT = 128


class Beginnings:
    """Keys and values of the beginnings of prompts, kept for the next class.

    "a blurry photo of the flawless" stands before every class name, and a causal tower computes the
    same for it whatever follows. So a second class of an ensemble costs only its own words. What is
    embedded together is kept together: beside others the last bits of a matrix product differ, and an
    embedding would depend on what the process had embedded before.
    """

    def __init__(self) -> None:
        self._cache: OrderedDict[tuple[tuple[int, ...], ...], list[KeyValue]] = OrderedDict()

    def past(self, tower: TextTower, beginnings: Int[Tensor, "n t"]) -> list[KeyValue]:
        """Keys and values of every block for n beginnings of one length."""
        rows = [tuple(row) for row in beginnings.tolist()]
        together = tuple(dict.fromkeys(rows))
        if together not in self._cache:
            self._cache[together] = self._compute(tower, beginnings.new_tensor(together))
            if len(self._cache) > CHUNKS_KEPT:
                self._cache.popitem(last=False)
        places = torch.tensor([together.index(row) for row in rows]).to(tower.device)
        return [(key[places], value[places]) for key, value in self._cache[together]]

    def _compute(self, tower: TextTower, ids: Int[Tensor, "n t"]) -> list[KeyValue]:
        x = tower.embed(ids) + tower.positional_embedding[: ids.shape[1]]
        computed: list[KeyValue] = []
        heads = tower.transformer.heads
        for index in range(len(tower.transformer.blocks)):
            qkv = project_qkv(tower.transformer, index, x)
            _, key, value = rearrange(qkv, "n t (three h e) -> three n h t e", three=3, h=heads)
            computed.append((key, value))
            if index + 1 < len(tower.transformer.blocks):
                x = finish_block(tower.transformer, index, x, qkv, causal=True)
        return computed


@dataclass(frozen=True, eq=False)  # equal to itself alone, so that it can be a key
class TextTower:
    """The frozen text tower of one CLIP model.

    Attributes:
        beginnings: what it said of the beginnings of prompts, for the next class.
    """

    token_embedding: Tensor
    positional_embedding: Tensor
    transformer: Transformer
    ln_final: LayerNorm
    projection: Tensor
    # Made anew by `dataclasses.replace`: another tower says other things.
    beginnings: Beginnings = field(default_factory=Beginnings, init=False, repr=False)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.projection.device

    def embed(self, ids: Int[Tensor, "*n t"]) -> Float[Tensor, "*n t c"]:
        """Token embeddings; token ids stay on the CPU, where they are counted and compared."""
        return self.token_embedding[ids.to(self.device)]


def read_text_tower(model: Any) -> TextTower:
    """Read the tensors of an open_clip text tower (of ``CLIP`` or ``CustomTextCLIP``).

    Raises:
        ClipadError: the tower is not causal or does not read the end-of-text token.
    """
    tower = getattr(model, "text", model)
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", "argmax"))
    if getattr(tower, "attn_mask", None) is None or pool != "argmax":
        raise ClipadError(
            "backbone: its text tower is not CLIP's causal one read at the end-of-text token; choose "
            "a backbone such as ViT-B-16-plus-240."
        )
    return TextTower(
        token_embedding=tower.token_embedding.weight.detach(),
        positional_embedding=tower.positional_embedding.detach(),
        transformer=read_transformer(tower.transformer),
        ln_final=read_layer_norm(tower.ln_final),
        projection=tower.text_projection.detach(),
    )


def read_out(tower: TextTower, last: Float[Tensor, "n c"]) -> Float[Tensor, "n d"]:
    """``ln_final`` and projection of what the last block says of each prompt's end, not normalised."""
    return tower.ln_final(last) @ tower.projection


@torch.inference_mode()
def encode_tokens(
    tower: TextTower,
    token_ids: Int[Tensor, "n t"],
    skip: int = 0,
) -> Float[Tensor, "n d"]:
    """Embed tokenised prompts, not normalised: methods that average them may need their lengths.

    The end-of-text token has the largest id, so ``argmax`` finds it, as CLIP does. The keys and
    values of the first ``skip`` tokens come from the tower's `Beginnings`.

    Args:
        token_ids: on the CPU.
    """
    ends = token_ids.argmax(dim=-1)
    embeddings = []
    for part in chunks(len(token_ids), chunk_sizes(tower.device).prompts):
        ids, positions = token_ids[part], slice(skip, int(ends[part].max()) + 1)
        past: Sequence[KeyValue | None] = [None] * len(tower.transformer.blocks)
        if skip:
            past = tower.beginnings.past(tower, ids[:, :skip])
        x = tower.embed(ids[:, positions]) + tower.positional_embedding[positions]
        for index in range(len(past) - 1):
            x = run_block(tower.transformer, index, x, causal=True, past=past[index])
        rows = (ends[part] - skip).to(tower.device)
        x = run_last_block(tower.transformer, x, rows, causal=True, past=past[-1])
        embeddings.append(read_out(tower, x))
    return torch.cat(embeddings)


def encode_prompts(
    tower: TextTower,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    starts: Sequence[str] = (),
) -> Float[Tensor, "n d"]:
    """Raw text features: row i is what CLIP says of ``prompts[i]``, not normalised and not averaged.

    Each distinct prompt is embedded once. CLIP's own text embedding is the row divided by its norm::

        encode_prompts(backbone.text, backbone.tokenizer, ["a photo of a bottle."])

    Args:
        prompts: any texts.
        starts: for each prompt a beginning it shares with others; none: nothing is shared.

    Raises:
        ClipadError: a prompt that fills the context, whose end the tokenizer may have cut off.
    """
    start_of = dict(zip(prompts, starts, strict=True)) if starts else dict.fromkeys(prompts, "")
    distinct = list(start_of)
    ids = tokenizer(distinct)
    _check_ends(distinct, ids)
    skips = _shared_tokens(ids, tokenizer([start_of[prompt] for prompt in distinct]))
    order, embeddings = [], []
    for skip in skips.unique().tolist():
        rows = (skips == skip).nonzero()[:, 0]
        # Prompts of about the same length share a chunk, so none pays for a longer neighbour.
        rows = rows[ids[rows].argmax(dim=-1).argsort(stable=True)]
        order += rows.tolist()
        embeddings.append(encode_tokens(tower, ids[rows], skip if starts else 0))
    position = {distinct[row]: place for place, row in enumerate(order)}
    places = torch.tensor([position[prompt] for prompt in prompts])
    return torch.cat(embeddings)[places.to(tower.device)]


def mean_embedding(
    embeddings: Float[Tensor, "n d"], of_units: bool, to_unit: bool
) -> Float[Tensor, " d"]:
    r"""One embedding for several prompts: :math:`n(\frac1n \sum_i n(e_i))`, or less of it.

    Args:
        of_units: whether each prompt counts alike, whatever its length: the inner :math:`n`.
        to_unit: whether the mean has unit norm: the outer :math:`n`.

    >>> mean_embedding(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), of_units=True, to_unit=False)
    tensor([0.5000, 0.5000])
    """
    mean = (F.normalize(embeddings, dim=-1) if of_units else embeddings).mean(dim=0)
    return F.normalize(mean, dim=-1) if to_unit else mean


def check_prompts(tokenizer: Tokenizer, prompts: Sequence[str], context: int) -> None:
    """Refuse prompts that the text tower cannot read whole, without embedding any.

    Args:
        context: tokens that the tower reads, its start and end token among them.

    Raises:
        ClipadError: a prompt that fills the context, whose end the tokenizer may have cut off.
    """
    # A token stands for a byte at least, so most prompts need not be tokenised.
    long = [prompt for prompt in prompts if len(prompt.encode(errors="replace")) >= context - 2]
    if long:
        _check_ends(long, tokenizer(long))


def _check_ends(prompts: Sequence[str], ids: Int[Tensor, "n t"]) -> None:
    full = (ids.argmax(dim=-1) == ids.shape[1] - 1).nonzero()
    if len(full):
        raise ClipadError(
            f"prompt: found one of {ids.shape[1]} tokens or more, expected at most {ids.shape[1] - 1}: "
            f"{prompts[int(full[0])][:80]!r} ...; shorten the name of the category."
        )


def _shared_tokens(ids: Int[Tensor, "n t"], starts: Int[Tensor, "n t"]) -> Int[Tensor, " n"]:
    """How many leading tokens a prompt has in common with its beginning (its end-of-text not)."""
    same = (ids == starts) & (torch.arange(ids.shape[1]) < ids.argmax(-1)[:, None])
    return same.long().cumprod(dim=-1).sum(dim=-1)


# How a folder name becomes words. The paper prints "Metal nut" in its tables and leaves the exact
# strings open; most re-implementations insert the folder name as it is.
CLASS_NAME_RULES = ("spaces", "raw", "object")


def class_words(category: str, rule: str) -> str:
    """Turn a category (a folder name) into the words of a prompt.

    >>> class_words("metal_nut", "spaces"), class_words("metal_nut", "raw")
    ('metal nut', 'metal_nut')
    >>> class_words("metal_nut", "object")
    'object'
    """
    if rule not in CLASS_NAME_RULES:
        raise ClipadError(
            f"class_name: found {rule!r}, expected one of {', '.join(CLASS_NAME_RULES)}."
        )
    if rule == "object":
        return "object"
    return category.replace("_", " ") if rule == "spaces" else category
