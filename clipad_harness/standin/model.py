"""The stand-in CLIP while it is being trained: live towers, both contrasts, the stored file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from clipad_core.clip.open_clip import open_clip
from clipad_core.errors import ClipadError
from clipad_harness.base.files import replacing, write_text

MEAN = torch.tensor(open_clip.OPENAI_DATASET_MEAN)[:, None, None]
STD = torch.tensor(open_clip.OPENAI_DATASET_STD)[:, None, None]
# Detail below this variance (of normalised pixels) is grain and is not amplified further.
WHITENING_FLOOR = 0.01
# Deviation of a whitened direction; a positional embedding starts at about 0.09.
WHITENED_SIZE = 0.25


class Model(open_clip.CLIP):
    """open_clip's own model; here its vocabulary is row 0 (unknown, zero) and the rows in use."""


def build(architecture: dict[str, Any], rows: int) -> Model:
    """An untrained open_clip model whose vocabulary is row 0 (unknown, zero) and ``rows`` more."""
    text = {**architecture["text_cfg"], "vocab_size": rows + 1}
    model = Model(architecture["embed_dim"], architecture["vision_cfg"], text)
    with torch.no_grad():
        model.token_embedding.weight[0] = 0
    return model


def whiten(model: Model, images: Float[Tensor, "n 3 s s"]) -> None:
    """Start the patch embedding as a whitening of patches of these images (in [0, 1]).

    Natural patches vary a hundred times more in mean colour than in detail, and a random patch
    embedding passes that on: a scratch is then next to invisible at the start. After whitening every
    direction of a patch has about the same size. The same trick starts the fast CIFAR-10 networks of
    Jordan (2024, arXiv 2404.00498, section 3.2).
    """
    kernel = model.visual.conv1.weight
    patches = F.unfold(_normalise(images), kernel.shape[-1], stride=kernel.shape[-1])
    flat = rearrange(patches, "n d p -> (n p) d").double()
    flat = flat - flat.mean(dim=0)
    sizes, axes = torch.linalg.eigh(flat.T @ flat / len(flat))
    directions = axes / (sizes + WHITENING_FLOOR).sqrt()
    directions = directions.flip(1)[:, : len(kernel)].T * WHITENED_SIZE
    with torch.no_grad():
        kernel[: len(directions)] = directions.view(-1, *kernel.shape[1:]).float()


def attend(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None) -> Tensor:
    """Attention as printed (Vaswani et al., NeurIPS 2017, Eq. (1)).

    On CPUs the backward pass of torch's fused kernel takes 3 to 8 times as long in bfloat16.

    Args:
        query, key, value: (b, heads, t, e). hidden: True where a key is out of sight.
    """
    scores = query @ key.mT * query.shape[-1] ** -0.5
    if hidden is not None:
        scores = scores.masked_fill(hidden, float("-inf"))
    return scores.softmax(dim=-1) @ value


def run_block(block: Any, x: Float[Tensor, "b t c"], rows: Tensor | None, causal: bool) -> Tensor:
    """An open_clip block on all tokens, or on one token an item (``rows``) as the last block needs."""
    items, places = (torch.arange(count, device=x.device) for count in x.shape[:2])
    qkv = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    query, key, value = rearrange(qkv, "b t (n h e) -> n b h t e", n=3, h=block.attn.num_heads)
    hidden = None
    if causal:
        position = places[:, None] if rows is None else rows[:, None, None, None]
        hidden = places > position
    if rows is not None:
        query, x = query[items, :, rows].unsqueeze(2), x[items, rows].unsqueeze(1)
    mixed = rearrange(attend(query, key, value, hidden), "b h t e -> b t (h e)")
    x = x + block.attn.out_proj(mixed)
    return x + block.mlp(block.ln_2(x))


def run_tower(module: Any, x: Float[Tensor, "b t c"], rows: Tensor, causal: bool) -> Tensor:
    """All blocks; what leaves the last one at position ``rows`` of each item, (b, c)."""
    for block in module.resblocks[:-1]:
        x = run_block(block, x, None, causal)
    return run_block(module.resblocks[-1], x, rows, causal)[:, 0]


def _lower(x: Tensor) -> Tensor:
    """The residual stream in autocast's precision: half the memory traffic, which is what limits."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def _normalise(images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 3 s s"]:
    return (images - MEAN.to(images.device)) / STD.to(images.device)


def patch_tokens(model: Model, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b p c"]:
    """Patches with their positional embeddings, before any block; images in [0, 1]."""
    patches = model.visual.conv1(_normalise(images)).flatten(2).transpose(1, 2)
    return patches + model.visual.positional_embedding[1:]


def embed_view(
    model: Model, patches: Float[Tensor, "b p c"], numbers: Int[Tensor, "b k"]
) -> Float[Tensor, "b d"]:
    """Unit-norm embedding of what is left of each image when only some patches are kept.

    The others are dropped before the first block, as FLIP drops them in training and WinCLIP outside
    its windows; every kept patch keeps its positional embedding.
    """
    visual = model.visual
    tokens = patches.gather(1, numbers[..., None].expand(-1, -1, patches.shape[2]))
    first = visual.class_embedding + visual.positional_embedding[0]
    x = _lower(visual.ln_pre(torch.cat([first.expand(len(tokens), 1, -1), tokens], dim=1)))
    first_rows = torch.zeros(len(x), dtype=torch.long, device=x.device)
    x = run_tower(visual.transformer, x, first_rows, causal=False)
    return F.normalize((visual.ln_post(x) @ visual.proj).float(), dim=-1)


def embed_captions(
    model: Model, ids: Int[Tensor, "n t"], ends: Int[Tensor, " n"]
) -> Float[Tensor, "n d"]:
    """Unit-norm embedding of captions, read at their end-of-text token; row 0 stays zero."""
    x = F.embedding(ids, model.token_embedding.weight, padding_idx=0)
    x = _lower(x + model.positional_embedding[: ids.shape[1]])
    x = run_tower(model.transformer, x, ends, causal=True)
    return F.normalize((model.ln_final(x) @ model.text_projection).float(), dim=-1)


def batch_contrast(
    images: Float[Tensor, "n d"],
    captions: Float[Tensor, "n d"],
    same: Bool[Tensor, "n n"],
    scale: Tensor,
) -> Tensor:
    """CLIP's symmetric contrast (Radford et al., ICML 2021, Fig. 3) over a batch.

    Args:
        same: where image i is also truly described by caption j; such pairs are no negatives.

    A batch without any item has a loss of zero.
    """
    if not len(images):
        return images.sum()
    logits = scale * images @ captions.T
    duplicates = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    logits = logits.masked_fill(duplicates, float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def pair_contrast(
    images: Float[Tensor, "b 2 d"],
    captions: Float[Tensor, "b 2 d"],
    counted: Bool[Tensor, " b"],
    scale: Tensor,
    smoothing: float,
) -> Tensor:
    """The same contrast inside each pair: two images, two captions that differ only in the state.

    Args:
        images, captions: sound first, damaged second.
        counted: pairs whose damaged caption is true of the view; the others carry no loss.
        smoothing: label smoothing; keeps the logits of easy pairs finite, so that a softmax at
            CLIP's own temperature does not saturate.
    """
    logits = scale * torch.einsum("bid,bjd->bij", images, captions)
    target = torch.arange(2, device=logits.device).expand(len(logits), 2)
    rows = F.cross_entropy(logits.mT, target, reduction="none", label_smoothing=smoothing)
    columns = F.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)
    weight = counted.float()
    return ((rows + columns).mean(dim=1) * weight).sum() / (2 * weight.sum().clamp(min=1))


def sound_contrast(
    images: Float[Tensor, "b d"], captions: Float[Tensor, "b 2 d"], scale: Tensor, smoothing: float
) -> Tensor:
    """A view of a sound image against its true caption and the caption with the state flipped."""
    logits = scale * torch.einsum("bd,bjd->bj", images, captions)
    target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    return F.cross_entropy(logits, target, label_smoothing=smoothing)


def store(
    model: Model, rows: Int[Tensor, " rows"], architecture: dict[str, Any], stem: Path
) -> None:
    """Write ``stem.safetensors`` and ``stem.json``: open_clip's own tensors, used vocabulary only.

    ``token_embedding.weight`` holds the rows that captions used, ``token_embedding.rows`` their ids;
    every other row of the full vocabulary is zero.
    """
    state = {
        key: value.detach().float().cpu().contiguous() for key, value in model.state_dict().items()
    }
    state["token_embedding.weight"] = state["token_embedding.weight"][1:].contiguous()
    count = sum(value.numel() for value in state.values())
    state["token_embedding.rows"] = rows
    with replacing(stem.with_suffix(".safetensors")) as draft:
        save_file(state, draft, metadata={"clipad": "stand-in", "parameters": str(count)})
        sort_header(draft)
    write_text(stem.with_suffix(".json"), json.dumps(architecture, indent=4) + "\n")


def restore(model: Model, rows: Int[Tensor, " rows"], stem: Path) -> None:
    """Read what `store` wrote into a model of the same architecture and vocabulary.

    Raises:
        ClipadError: another vocabulary, or tensors that the model does not have.
    """
    path = stem.with_suffix(".safetensors")
    state = load_file(path)
    if not torch.equal(state.pop("token_embedding.rows"), rows):
        raise ClipadError(
            f"{path}: found the vocabulary of other captions, expected that of these settings; train "
            "from the start."
        )
    unknown = torch.zeros_like(state["token_embedding.weight"][:1])
    state["token_embedding.weight"] = torch.cat([unknown, state["token_embedding.weight"]])
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ClipadError(
            f"{path}: found tensors of another pretrain.architecture ({error}); train from the start."
        ) from error


def sort_header(path: Path) -> None:
    """Put the header of a safetensors file in order, which its writer leaves to chance."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    text = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    text = text.ljust(-len(text) % 8 + len(text))  # tensors start at a multiple of eight
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])
