"""A local branch beside the untouched image tower: V-V attention (DPAM) and its relatives.

AnomalyCLIP (Zhou et al., ICLR 2024), section 3.3 and appendix C. CLIP's class token gathers what it
wants from everywhere; for a map every patch should speak for itself. So from some block on a second
stream adds up attentions in which a patch is compared with others by its value (or its query, or its
key) alone: it then looks most at itself. The tower's own stream goes on as if nothing had happened,
and every block of the branch reads from it, never from the branch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.transformer import (
    Transformer,
    feed_forward,
    finish_block,
    project_qkv,
)
from clipad_core.clip.vision import VisionTower, embed_patches, pre_norm
from clipad_core.methods.anomalyclip.dense import READ_OUTS, read_out

# Which of query, key and value is compared with itself.
COMPARED = {"qq": 0, "kk": 1, "vv": 2}
TOWER = "qk"  # the tower's own stream


@dataclass(frozen=True)
class Branch:
    """What is computed beside the tower.

    Attributes:
        kinds: "vv", "qq", "kk", "qk" for the tower's own stream, or a name of `READ_OUTS`, which reads
            the kept blocks alone.
        from_layer: first block (1-based) that has the branch; before it there is one stream.
        blocks: 1-based numbers of the blocks whose output is kept.
        stream: "sum": attention outputs add up on the input of the first block; "mlp": each block
            starts from the tower's stream and ends with its MLP; "aliased": a sum that later blocks
            go on changing after it was kept, so every kept block holds the last one.
        class_ln_post: whether the class token passes ``ln_post``, as CLIP's own does.
    """

    kinds: tuple[str, ...]
    from_layer: int
    blocks: tuple[int, ...]
    stream: str
    class_ln_post: bool = False

    def last_block(self, depth: int) -> int:
        """The last block whose branch is needed; 0: none is."""
        if set(self.kinds) <= {TOWER, *READ_OUTS} or max(self.blocks) < self.from_layer - 1:
            return 0
        return depth if self.stream == "aliased" else max(self.blocks)


@dataclass
class _Streams:
    """One image's streams on their way through the tower; ``patches`` is kind -> block -> tokens."""

    branch: Branch
    local: dict[str, Tensor] = field(default_factory=dict)
    patches: dict[str, dict[int, Tensor]] = field(default_factory=dict)

    def add(self, transformer: Transformer, index: int, x: Tensor, qkv: Tensor) -> None:
        """Run the branch of one block; ``x`` is the input of the block, class token included."""
        for kind in self.branch.kinds:
            if kind == TOWER or kind in READ_OUTS:
                continue
            seen = self_attention(transformer, index, qkv, kind)
            if kind not in self.local:
                self.local[kind] = x[:, 1:] + seen
            elif self.branch.stream == "mlp":
                self.local[kind] = feed_forward(transformer, index, x[:, 1:] + seen)
            else:
                self.local[kind] = self.local[kind] + seen

    def read_out(
        self, transformer: Transformer, index: int, x: Tensor, qkv: Tensor, grid: tuple[int, int]
    ) -> None:
        """What a kept block gives where it is read in another way; ``x`` is its input."""
        for kind in READ_OUTS.keys() & set(self.branch.kinds):
            self.local[kind] = read_out(transformer, index, x, qkv, kind, grid)

    def needs_tower(self) -> bool:
        """Whether a block that is kept now is kept from the tower's own stream."""
        return not self.local or TOWER in self.branch.kinds

    def keep(self, block: int, x: Tensor) -> None:
        """Keep what a block gives: the branch where there is one, else the tower's stream."""
        for kind in self.branch.kinds:
            tokens = self.local.get(kind)
            tokens = x[:, 1:] if tokens is None else tokens
            self.patches.setdefault(kind, {})[block] = tokens

    def finish(self) -> dict[str, dict[int, Tensor]]:
        """What was kept, and the fault of the first releases where it is asked for."""
        if self.branch.stream == "aliased":
            for kind, last in self.local.items():
                # The first block of the branch already changed its input in place.
                late = [
                    block for block in self.patches[kind] if block >= self.branch.from_layer - 1
                ]
                self.patches[kind] |= dict.fromkeys(late, last)
        return self.patches


def self_attention(
    transformer: Transformer, index: int, qkv: Float[Tensor, "b t c3"], kind: str
) -> Float[Tensor, "b p c"]:
    r"""The patches' attention output of one block where one kind of token is compared with itself.

    AnomalyCLIP, appendix C; for "vv", with :math:`O` the block's own output layer:

    .. math:: O\left(\mathrm{softmax}(V V^\top / \sqrt d)\, V\right)

    Args:
        qkv: query, key and value of every token, side by side, as `project_qkv` gives them.
        kind: "vv", "qq" or "kk"; the values stay the values.
    """
    parts = rearrange(qkv, "b t (n h e) -> n b h t e", n=3, h=transformer.heads)
    compared = parts[COMPARED[kind]]
    seen = F.scaled_dot_product_attention(compared[:, :, 1:], compared, parts[2])
    return transformer.blocks[index].out(rearrange(seen, "b h p e -> b p (h e)"))


def run_branch(
    tower: VisionTower, x: Float[Tensor, "b t c"], branch: Branch
) -> tuple[Float[Tensor, "b c"], dict[str, dict[int, Tensor]]]:
    """One pass of the tower for both: its class token, and patches of the branch.

    Queries, keys and values are computed once a block; the branch costs one attention and one output
    layer, in the blocks where it is needed. Of the tower's last block only the class token is
    computed, unless its patches are wanted.

    Args:
        x: tokens after ``ln_pre``.

    Returns:
        The last block's class token before ``ln_post``, and kind -> block -> patch tokens.
    """
    streams, until = _Streams(branch), branch.last_block(tower.depth)
    for index in range(tower.depth):
        qkv = project_qkv(tower.transformer, index, x)
        if branch.from_layer <= index + 1 <= until:
            streams.add(tower.transformer, index, x, qkv)
        is_kept = index + 1 in branch.blocks
        if is_kept:
            streams.read_out(tower.transformer, index, x, qkv, tower.grid)
        needs_patches = is_kept and streams.needs_tower()
        if index + 1 < tower.depth or needs_patches:
            x = finish_block(tower.transformer, index, x, qkv)
        else:
            rows = torch.zeros(len(x), dtype=torch.long, device=x.device)
            x = finish_block(tower.transformer, index, x[:, :1], qkv, rows=rows)
        if is_kept:
            streams.keep(index + 1, x)
    return x[:, 0], streams.finish()


def encode_branch(
    tower: VisionTower, images: Float[Tensor, "b 3 H W"], branch: Branch
) -> tuple[Float[Tensor, "b d"], dict[str, dict[int, Tensor]]]:
    """Encode images, a bounded number at a time.

    Returns:
        The class token, projected, without ``ln_post`` unless the branch says otherwise (the official
        code leaves it out, as its authors confirm), and kind -> block -> patches after ``ln_post``
        and projection, (b, p, d). Nothing is normalised.
    """
    classes: list[Tensor] = []
    token_chunks: dict[str, dict[int, list[Tensor]]] = {
        kind: {block: [] for block in branch.blocks} for kind in branch.kinds
    }
    for part in tower.image_chunks(len(images)):
        embedded, _ = embed_patches(tower, images[part])
        first, patches = run_branch(tower, pre_norm(tower, embedded), branch)
        first = tower.ln_post(first) if branch.class_ln_post else first
        classes.append(first @ tower.proj)
        for kind, tokens in patches.items():
            for block, block_tokens in tokens.items():
                token_chunks[kind][block].append(tower.ln_post(block_tokens) @ tower.proj)
    joined = {
        kind: {block: torch.cat(parts) for block, parts in tokens.items()}
        for kind, tokens in token_chunks.items()
    }
    return torch.cat(classes), joined
