"""The transformer of both CLIP towers as plain functions over frozen tensors.

open_clip builds modules; this file reads their tensors once and never calls their ``forward``. So
nothing here depends on whether a version runs its blocks batch-first (it changed in open_clip
2.26.1), no hook is needed, and the model is never edited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn

from clipad_core.clip.packed import can_pack, pack_weight, packed_linear
from clipad_core.errors import ClipadError

# Keys and values of earlier tokens in one block, each (b, heads, tokens, width of a head).
KeyValue = tuple[Tensor, Tensor]


def has_avx512() -> bool:
    """Whether this CPU has AVX-512; without it packed weights and bfloat16 are slower, not faster."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


@dataclass(frozen=True)
class Linear:
    """``x @ weight.T + bias``; ``packed`` weights are laid out for the CPU and cannot be trained."""

    weight: Tensor
    bias: Tensor | None
    packed: bool = False

    def __call__(self, x: Tensor, gelu: bool = False) -> Tensor:
        """Apply the layer, and the exact (erf) GELU after it where asked for."""
        if self.packed:
            return packed_linear(x, self.weight, self.bias, gelu)
        y = F.linear(x, self.weight, self.bias)
        return F.gelu(y) if gelu else y

    def pack(self, rows: int) -> Linear:
        """Return the same layer with its weight reordered once for inputs of about ``rows`` rows.

        Unchanged on a CPU without AVX-512, where the product with packed weights takes a sixth longer
        than the plain one in float32 and bfloat16 has no such order; in float64, which has none; and
        where torch lacks the operators (`can_pack`).
        """
        is_plain = self.weight.dtype == torch.float64 or not has_avx512() or not can_pack()
        if self.packed or is_plain:
            return self
        return Linear(pack_weight(self.weight, rows), self.bias, packed=True)

    def unpack(self) -> Linear:
        """Return the same layer with its weight as it was before it was packed, bit for bit."""
        return replace(self, weight=self.weight.to_dense(), packed=False) if self.packed else self

    def to(self, dtype: torch.dtype) -> Linear:
        """Return the same layer in another precision, before it is packed.

        Raises:
            ClipadError: a packed layer, whose weights lie as one precision has them.
        """
        if self.packed and dtype != self.weight.dtype:
            raise ClipadError(
                f"precision: found weights packed in {self.weight.dtype}, expected plain ones to turn into "
                f"{dtype}; load the backbone in that precision."
            )
        bias = None if self.bias is None else self.bias.to(dtype)
        return replace(self, weight=self.weight.to(dtype), bias=bias)


@dataclass(frozen=True)
class LayerNorm:
    """Layer normalisation in the precision of its weights, which is that of the residual stream."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise the last axis; under autocast in float32, as the published codes do."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps).to(x.dtype)


@dataclass(frozen=True)
class Block:
    """One pre-LN block: ``x += out(attention(ln_1 x)); x += project(gelu(expand(ln_2 x)))``."""

    ln_1: LayerNorm
    qkv: Linear
    out: Linear
    ln_2: LayerNorm
    expand: Linear
    project: Linear


@dataclass(frozen=True)
class Transformer:
    """A stack of blocks; ``quick_gelu`` is OpenAI's ``x * sigmoid(1.702 x)``."""

    blocks: tuple[Block, ...]
    heads: int
    quick_gelu: bool

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the matrix products; beside bfloat16 the residual stream stays in float32."""
        return self.blocks[0].qkv.bias.dtype  # type: ignore[union-attr]


def read_layer_norm(module: Any) -> LayerNorm:
    """Read a layer normalisation; anything else is another architecture."""
    if not isinstance(module, nn.LayerNorm):
        raise ClipadError(
            f"backbone: found {type(module).__name__} where CLIP has a LayerNorm; this tower is not a "
            "plain CLIP ViT. Choose a backbone such as ViT-B-16-plus-240, ViT-B-16 or ViT-L-14-336."
        )
    return LayerNorm(module.weight.detach(), module.bias.detach(), module.eps)


def _read_linear(module: nn.Linear) -> Linear:
    return Linear(module.weight.detach(), module.bias.detach())


def read_transformer(module: Any) -> Transformer:
    """Read the tensors of an open_clip ``Transformer`` of plain residual attention blocks.

    Raises:
        ClipadError: a block holds something this forward pass would ignore (layer scale, query-key
            normalisation, ...), so the result would be silently wrong.
    """
    blocks = []
    for block in module.resblocks:
        plain_parts = {"ln_1", "attn", "ls_1", "ln_2", "mlp", "ls_2"}
        extra = {name for name, child in block.named_children()} - plain_parts
        scaled = [n for n in ("ls_1", "ls_2") if not isinstance(getattr(block, n), nn.Identity)]
        if extra or scaled or not isinstance(block.attn, nn.MultiheadAttention):
            parts = sorted(extra) + scaled + [type(block.attn).__name__]
            raise ClipadError(
                f"backbone: its blocks hold {', '.join(parts)}, expected CLIP's plain residual attention "
                "blocks; choose a backbone without custom blocks."
            )
        attention = block.attn
        qkv = Linear(attention.in_proj_weight.detach(), attention.in_proj_bias.detach())
        blocks.append(
            Block(
                ln_1=read_layer_norm(block.ln_1),
                qkv=qkv,
                out=_read_linear(attention.out_proj),
                ln_2=read_layer_norm(block.ln_2),
                expand=_read_linear(block.mlp.c_fc),
                project=_read_linear(block.mlp.c_proj),
            )
        )
    quick = type(module.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    return Transformer(tuple(blocks), module.resblocks[0].attn.num_heads, quick)


def prepare(transformer: Transformer, dtype: torch.dtype, rows: int | None) -> Transformer:
    """Return the transformer in ``dtype``, with weights packed for about ``rows`` rows (None: not).

    In float32 those of the last ``qkv`` stay as they are: `run_class_token` takes them apart.
    """
    apart = transformer.blocks[-1].qkv if dtype == torch.float32 else None

    def convert(layer: Linear) -> Linear:
        converted = layer.to(dtype)
        return converted if rows is None or layer is apart else converted.pack(rows)

    return _with_layers(transformer, convert)


def unpack(transformer: Transformer) -> Transformer:
    """Return the transformer with no weight packed: a packed one lies where it was packed."""
    return _with_layers(transformer, Linear.unpack)


def _with_layers(transformer: Transformer, change: Callable[[Linear], Linear]) -> Transformer:
    """Return the transformer with every linear layer changed."""
    blocks = tuple(
        replace(
            block,
            qkv=change(block.qkv),
            out=change(block.out),
            expand=change(block.expand),
            project=change(block.project),
        )
        for block in transformer.blocks
    )
    return replace(transformer, blocks=blocks)


def project_qkv(transformer: Transformer, index: int, x: Float[Tensor, "... c"]) -> Tensor:
    """Query, key and value of block ``index`` side by side: ``in_proj(ln_1(x))``, (..., 3c)."""
    block = transformer.blocks[index]
    return block.qkv(block.ln_1(x).to(transformer.dtype))


def finish_block(
    transformer: Transformer,
    index: int,
    x: Float[Tensor, "b t c"],
    qkv: Float[Tensor, "b s c3"],
    causal: bool = False,
    rows: Tensor | None = None,
    past: KeyValue | None = None,
) -> Float[Tensor, "b t c"]:
    """Everything of a block after its ``qkv``.

    ``rows`` (one position an item) names the only token whose output is wanted; then ``x`` holds
    that token alone, while ``qkv`` still holds all of them. The result equals that row of the full
    block: keys and values come from every token, but no other query is computed. ``past`` holds the
    keys and values of tokens before these, which a causal tower computes once for many prompts.
    """
    block = transformer.blocks[index]
    query, key, value = rearrange(qkv, "b s (n h e) -> n b h s e", n=3, h=transformer.heads)
    before = 0 if past is None else past[0].shape[2]
    if past is not None:
        key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
    positions = torch.arange(query.shape[2], device=query.device)
    mask = None
    if rows is not None:
        query = query[torch.arange(len(rows), device=rows.device), :, rows].unsqueeze(2)
    if causal:
        last = positions if rows is None else rows[:, None, None, None]
        seen = torch.arange(key.shape[2], device=key.device)
        mask = seen <= before + (last[:, None] if rows is None else last)
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    x = x + block.out(rearrange(attended, "b h t e -> b t (h e)"))
    return feed_forward(transformer, index, x)


def feed_forward(
    transformer: Transformer, index: int, x: Float[Tensor, "*b c"]
) -> Float[Tensor, "*b c"]:
    """The second half of a block: ``x + project(gelu(expand(ln_2 x)))``."""
    block = transformer.blocks[index]
    hidden = block.ln_2(x).to(transformer.dtype)
    if transformer.quick_gelu:
        hidden = block.expand(hidden)
        hidden = hidden * torch.sigmoid(1.702 * hidden)
    else:
        hidden = block.expand(hidden, gelu=True)
    return x + block.project(hidden)


def run_block(
    transformer: Transformer,
    index: int,
    x: Float[Tensor, "b t c"],
    causal: bool = False,
    past: KeyValue | None = None,
) -> Float[Tensor, "b t c"]:
    """One whole block on every token."""
    qkv = project_qkv(transformer, index, x)
    return finish_block(transformer, index, x, qkv, causal, past=past)


def run_last_block(
    transformer: Transformer,
    x: Float[Tensor, "b t c"],
    rows: Tensor,
    causal: bool = False,
    past: KeyValue | None = None,
) -> Float[Tensor, "b c"]:
    """The last block for one token an item: ``rows`` gives its position."""
    last = len(transformer.blocks) - 1
    only = x[torch.arange(len(rows), device=rows.device), rows].unsqueeze(1)
    qkv = project_qkv(transformer, last, x)
    return finish_block(transformer, last, only, qkv, causal, rows, past)[:, 0]


def run_class_token(transformer: Transformer, x: Float[Tensor, "b t c"]) -> Float[Tensor, "b c"]:
    r"""The last block for the class token, token 0, of a tower that is not causal.

    Equal to that row of the whole block, but no key and no value is ever made: a head asks the tokens
    for :math:`W_k^\top q`, and :math:`W_v` is applied to their mean. A key's bias adds the same to all
    logits, and attention sums to 1. In bfloat16 the logits would be rounded, so there keys are made.
    """
    if transformer.dtype == torch.bfloat16:
        return run_last_block(
            transformer, x, torch.zeros(len(x), dtype=torch.long, device=x.device)
        )
    block, heads = transformer.blocks[-1], transformer.heads
    seen = block.ln_1(x)
    query, key, value = rearrange(block.qkv.weight, "(n h e) c -> n h e c", n=3, h=heads)
    query_bias, _, value_bias = block.qkv.bias.chunk(3)  # type: ignore[union-attr]
    class_query = F.linear(seen[:, 0], query.flatten(0, 1), query_bias) * query.shape[1] ** -0.5
    class_query = rearrange(class_query, "b (h e) -> b h e", h=heads)
    direction = einsum(class_query, key, "b h e, h e c -> b h c")
    attention = einsum(direction, seen, "b h c, b t c -> b h t").softmax(dim=-1)
    mean = einsum(attention, seen, "b h t, b t c -> b h c")
    attended = rearrange(einsum(mean, value, "b h c, h e c -> b h e"), "b h e -> b (h e)")
    only = x[:, 0] + block.out(attended + value_bias)
    return feed_forward(transformer, len(transformer.blocks) - 1, only)


def chunks(total: int, size: int) -> Iterable[slice]:
    """Cut ``range(total)`` into slices of at most ``size``, so that memory does not grow with it.

    >>> list(chunks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]
