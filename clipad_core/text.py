"""Prompts to text embeddings.

The text tower is causal, so a prompt's embedding depends on nothing behind its end-of-text token:
the context is cut there, which is exact and about four times cheaper than the full 77 tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from clipad_core.errors import ClipadError
from clipad_core.prompts import PromptEnsemble
from clipad_core.transformer import (
    LayerNorm,
    Transformer,
    chunks,
    read_layer_norm,
    read_transformer,
    run_block,
    run_last_block,
)

Tokenizer = Callable[[list[str]], Tensor]
PROMPTS_PER_CHUNK = 64


@dataclass(frozen=True)
class TextTower:
    """The frozen text tower of one CLIP model."""

    token_embedding: Tensor
    positional_embedding: Tensor
    transformer: Transformer
    ln_final: LayerNorm
    projection: Tensor


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


@torch.inference_mode()
def encode_tokens(tower: TextTower, token_ids: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
    """Embed tokenised prompts, not normalised (the averagings below need their lengths).

    The end-of-text token has the largest id, so ``argmax`` finds it, as CLIP does.
    """
    ends = token_ids.argmax(dim=-1)
    found = []
    for part in chunks(len(token_ids), PROMPTS_PER_CHUNK):
        length = int(ends[part].max()) + 1
        x = tower.token_embedding[token_ids[part, :length]] + tower.positional_embedding[:length]
        for index in range(len(tower.transformer.blocks) - 1):
            x = run_block(tower.transformer, index, x, causal=True)
        x = run_last_block(tower.transformer, x, ends[part], causal=True)
        found.append(tower.ln_final(x) @ tower.projection)
    return torch.cat(found)


def encode_prompts(
    tower: TextTower, tokenizer: Tokenizer, prompts: Sequence[str]
) -> Float[Tensor, "n d"]:
    """Embed prompts, each distinct one once; row i belongs to ``prompts[i]``, not normalised."""
    distinct = list(dict.fromkeys(prompts))
    ids = tokenizer(distinct).to(tower.projection.device)
    # Prompts of about the same length share a chunk, so none pays for a longer neighbour.
    order = ids.argmax(dim=-1).argsort(stable=True)
    embeddings = torch.empty(len(distinct), tower.projection.shape[1], device=ids.device)
    embeddings[order] = encode_tokens(tower, ids[order])
    position = {prompt: row for row, prompt in enumerate(distinct)}
    return embeddings[[position[prompt] for prompt in prompts]]


def average(embeddings: Float[Tensor, "n d"], rule: str) -> Float[Tensor, " d"]:
    r"""Average the prompt embeddings of one state into its prototype, unit norm.

    WinCLIP (Jeong et al., CVPR 2023), section 4.1 averages per label and leaves the norm open:

    - ``mean_raw``: :math:`n(\frac1n \sum_i e_i)` (anomalib, zqhang, caoyunkang);
    - ``norm_mean``: :math:`n(\frac1n \sum_i n(e_i))` (mala-lab, common CLIP practice).

    >>> average(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), "norm_mean")
    tensor([0.7071, 0.7071])
    """
    if rule not in ("mean_raw", "norm_mean"):
        raise ClipadError(
            f"text_average: found {rule!r}, expected 'mean_raw' or 'norm_mean'; choose one of them."
        )
    if rule == "norm_mean":
        embeddings = F.normalize(embeddings, dim=-1)
    return F.normalize(embeddings.mean(dim=0), dim=-1)


def text_embeddings(
    tower: TextTower,
    tokenizer: Tokenizer,
    ensemble: PromptEnsemble,
    class_name: str,
    rule: str = "mean_raw",
) -> Float[Tensor, "s d"]:
    """Prototypes of an ensemble for one class: row 0 normal, row 1 anomalous, unit norm.

    A one-class ensemble has no anomalous prompt and gives row 0 alone.
    """
    groups = [group for group in ensemble.prompts(class_name) if group]
    embeddings = encode_prompts(tower, tokenizer, [prompt for group in groups for prompt in group])
    parts = embeddings.split([len(group) for group in groups])
    return torch.stack([average(part, rule) for part in parts])
