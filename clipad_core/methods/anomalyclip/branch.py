"""A local branch beside the untouched image tower: V-V attention (DPAM) and its relatives.

AnomalyCLIP (Zhou et al., ICLR 2024), section 3.3 and appendix C. CLIP's class token gathers what it
wants from everywhere; for a map every patch should speak for itself. So from some block on a second
stream adds up attentions in which a patch is compared with others by its value (or its query, or its
key) alone: it then looks most at itself. The tower's own stream goes on as if nothing had happened,
and every block of the branch reads from it, never from the branch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.features import Features
from clipad_core.clip.one_pass import FeatureReader, PassRecipe
from clipad_core.clip.transformer import (
    Transformer,
    feed_forward,
)
from clipad_core.clip.vision import VisionTower, project
from clipad_core.methods.anomalyclip.dense import READ_OUTS, read_out

# Which of query, key and value is compared with itself.
COMPARED = {"qq": 0, "kk": 1, "vv": 2}
TOWER = "qk"  # the tower's own stream


@dataclass(frozen=True)
class BranchRecipe(PassRecipe):
    """What must be encoded of an image: its class token, and patches of the branch beside the tower.

    Attributes:
        blocks: 1-based numbers of the blocks whose output is kept.
        kinds: "vv", "qq", "kk", "qk" for the tower's own stream, or a name of `READ_OUTS`, which reads
            the kept blocks alone.
        from_layer: first block (1-based) that has the branch; before it there is one stream.
        stream: "sum": attention outputs add up on the input of the first block; "mlp": each block
            starts from the tower's stream and ends with its MLP; "aliased": a sum that later blocks
            go on changing after it was kept, so every kept block holds the last one.
        class_ln_post: whether the class token passes ``ln_post``, as CLIP's own does.
    """

    kinds: tuple[str, ...] = ("vv",)
    from_layer: int = 1
    stream: str = "sum"
    class_ln_post: bool = False

    def reader(self, tower: VisionTower) -> BranchReader:
        """What reads one pass."""
        return BranchReader(tower, self)

    def numbers(self, tower: VisionTower) -> int:
        """How many numbers are kept of a view: all of the joint space."""
        return (len(self.blocks) * tower.patches + 1) * tower.proj.shape[1]

    def branched(self, depth: int) -> range:
        """The blocks of a tower of so many that have the branch: as far as one is needed."""
        is_bare = set(self.kinds) <= {TOWER, *READ_OUTS}
        if is_bare or max(self.blocks) < self.from_layer - 1:
            return range(0)
        last = depth if self.stream == "aliased" else max(self.blocks)
        return range(self.from_layer, last + 1)


class BranchReader(FeatureReader):
    """The branch beside one pass of the tower: one attention and one output layer in each of its blocks."""

    def __init__(self, tower: VisionTower, recipe: BranchRecipe) -> None:
        self.tower, self.recipe = tower, recipe
        self.branched = recipe.branched(tower.depth)
        self.blocks = {*self.branched, *recipe.blocks}
        self.reads_last = tower.depth in recipe.blocks and self._reads_tower(tower.depth)
        self._local: dict[str, Tensor] = {}
        # Of every kind the raw tokens of every kept block.
        self._kept: dict[str, dict[int, Tensor]] = {kind: {} for kind in recipe.kinds}

    def _reads_tower(self, number: int) -> bool:
        """Whether some kind has the tower's own stream in this block."""
        return any(
            kind == TOWER or (kind not in READ_OUTS and number not in self.branched)
            for kind in self.recipe.kinds
        )

    def see(self, number: int, x: Tensor, qkv: Tensor, after: Tensor | None) -> None:
        """Run the branch of one block, and keep what a kept one gives."""
        if number in self.branched:
            self._add(number - 1, x, qkv)
        if number not in self.recipe.blocks:
            return
        transformer, grid = self.tower.transformer, self.tower.grid
        for kind, kept in self._kept.items():
            if kind in READ_OUTS:
                kept[number] = read_out(transformer, number - 1, x, qkv, kind, grid)
            elif kind in self._local:
                kept[number] = self._local[kind]
            else:
                assert after is not None
                kept[number] = after[:, 1:]

    def _add(self, index: int, x: Tensor, qkv: Tensor) -> None:
        """The branch of one block, whose input is ``x``."""
        transformer = self.tower.transformer
        for kind in self.recipe.kinds:
            if kind not in COMPARED:
                continue
            seen = self_attention(transformer, index, qkv, kind)
            if kind not in self._local:
                self._local[kind] = x[:, 1:] + seen
            elif self.recipe.stream == "mlp":
                self._local[kind] = feed_forward(transformer, index, x[:, 1:] + seen)
            else:
                self._local[kind] = self._local[kind] + seen

    def patches(self) -> dict[str, dict[int, Float[Tensor, "b p c"]]]:
        """The raw tokens of every kind and kept block, with the first releases' fault where asked for."""
        if self.recipe.stream == "aliased":
            for kind, last in self._local.items():
                # The first block of the branch already changed its input in place.
                late = [block for block in self._kept[kind] if block >= self.recipe.from_layer - 1]
                self._kept[kind] |= dict.fromkeys(late, last)
        return self._kept

    def features(self, class_token: Float[Tensor, "b c"]) -> Features:
        """The projected class token, not normalised, and patch embeddings of unit norm.

        The class token is by default without ``ln_post``: the official code leaves it out, as its authors
        confirm. Patches of an ensemble are means of unit vectors: the mean of their logits is the logit
        of their mean.
        """
        tower, streams = self.tower, self.patches().values()
        if self.recipe.class_ln_post:
            class_token = tower.ln_post(class_token)
        patches = {}
        for block in self.recipe.blocks:
            units = [project(tower, tokens[block]) for tokens in streams]
            patches[block] = units[0] if len(units) == 1 else torch.stack(units).mean(dim=0)
        return Features(class_token @ tower.proj, patches)


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
