"""The text tower on vectors instead of words: learnable tokens at the input and in deeper blocks.

Shared by AnomalyCLIP (compound prompts) and VCP-CLIP (deep text prompts). Gradients reach whatever
vectors need them; the tower itself stays frozen. Sequences end at the last token that matters: the
tower is causal, so nothing behind it is ever seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.text import TextTower
from clipad_core.clip.transformer import run_block, run_last_block
from clipad_core.errors import ClipadError


def tokenise_beside_context(
    backbone: Backbone, prompts: Sequence[str], length: int, name: str
) -> Int[Tensor, "n t"]:
    """Token ids of prompts that fit into the text tower beside so many learned vectors, on the CPU.

    Args:
        length: of the learned context, in tokens; 0: there is none.
        name: of the parameter that the prompts come from, for the message.

    Raises:
        ClipadError: a prompt that does not fit into the tower's context.
    """
    ids = backbone.tokenizer(list(prompts))
    ends = ids.argmax(dim=-1)
    limit, longest = len(backbone.text.positional_embedding), int(ends.max()) + 1
    # A tokenizer cuts what is longer, so that a prompt which fills the context may have been cut.
    if longest == ids.shape[1] or longest + length > limit:
        raise ClipadError(
            f"{name}: {prompts[int(ends.argmax())]!r} takes {longest} tokens or more and the context "
            f"{length}, expected at most {limit} together; shorten it or context_length."
        )
    return ids


def run_text_blocks(
    tower: TextTower,
    tokens: Float[Tensor, "n t c"],
    replaced: Mapping[int, Tensor],
    ends: Int[Tensor, " n"],
) -> Float[Tensor, "n c"]:
    """Run all blocks; before some of them the tokens behind the start token are replaced.

    Args:
        tokens: embedded prompts with their positional embeddings.
        replaced: index of a block (0-based) -> vectors that stand at positions 1, 2, ... from that
            block on: ``(m, c)`` for every prompt alike, or ``(n, m, c)``.
        ends: where each prompt's end-of-text token stands, of which alone the last block is computed.

    Returns:
        The output of the last block for that token, for `read_out`.
    """
    last = len(tower.transformer.blocks) - 1
    for index in range(last + 1):
        if index in replaced:
            fresh = replaced[index].to(tokens.dtype).expand(len(tokens), -1, -1)
            tokens = torch.cat([tokens[:, :1], fresh, tokens[:, 1 + fresh.shape[1] :]], dim=1)
        if index < last:
            tokens = run_block(tower.transformer, index, tokens, causal=True)
    return run_last_block(tower.transformer, tokens, ends, causal=True)
