"""AnomalyCLIP on a few images: what the page draws step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from einops import rearrange
from matplotlib.figure import Figure
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.transformer import project_qkv, run_block
from clipad_core.clip.vision import embed_patches, pre_norm
from clipad_core.methods.anomalyclip.branch import COMPARED
from clipad_core.methods.anomalyclip.config import AnomalyCLIPConfig
from clipad_core.methods.anomalyclip.detector import block_maps, encode, recipe
from clipad_core.methods.anomalyclip.learner import AnomalyCLIPLearner
from clipad_core.methods.anomalyclip.text import text_embeddings
from clipad_harness.report.map_grid import draw_picture
from clipad_harness.report.steps.examples import Example

STATES = ("normal", "anomalous")


def word_table(
    backbone: Backbone, before: AnomalyCLIPLearner, after: AnomalyCLIPLearner
) -> pd.DataFrame:
    """Nearest word of the vocabulary of every context vector, before and after training.

    As CoOp reports its prompts (Zhou et al., IJCV 2022, Table 4): nearest by Euclidean distance,
    among the words that the backbone knows (a stand-in's unused rows are zero).
    """
    from clipad_core.clip.open_clip import open_clip

    vocabulary = backbone.text.token_embedding
    known = torch.nonzero(vocabulary.abs().sum(dim=1) > 0)[:, 0]
    columns = {}
    for row, state in enumerate(STATES):
        for when, learner in (("before", before), ("after", after)):
            context = learner.context_tokens[row].detach()
            distance = torch.cdist(context, vocabulary[known])
            nearest = known[distance.argmin(dim=1)]
            words = [open_clip.decode(one[None]).strip() for one in nearest]
            pairs = zip(words, distance.min(dim=1).values.tolist(), strict=True)
            columns[f"{state}, {when}"] = [f"{word} ({length:.2f})" for word, length in pairs]
    index = pd.Index(range(1, len(context) + 1), name="vector")
    return pd.DataFrame(columns, index=index)


def prompt_figure(
    backbone: Backbone,
    config: AnomalyCLIPConfig,
    learners: Mapping[str, AnomalyCLIPLearner],
    examples: Sequence[Example],
) -> tuple[Figure, str]:
    """How anomalous the patches of some images look to each learner, defect apart; the alt text.

    Left to right from normal to anomalous text embedding: a patch's cosine with the second minus its
    cosine with the first.
    """
    figure, axes = plt.subplots(1, len(learners), figsize=(4.4 * len(learners), 2.8), squeeze=False)
    alt = []
    block = max(config.blocks)
    for one, (title, learner) in zip(axes[0], learners.items(), strict=True):
        with torch.no_grad():
            text = text_embeddings(learner, backbone, config, [e.category for e in examples])
        groups: dict[str, list[float]] = {"normal patches": [], "defect patches": []}
        for place, example in enumerate(examples):
            pair = text[place if len(text) > 1 else 0]
            lean = example.features.patch_tokens[block][0] @ (pair[1] - pair[0])
            inside = _covered(example, backbone.vision.grid)
            groups["normal patches"] += lean[~inside].tolist()
            groups["defect patches"] += lean[inside].tolist()
        for name, values in groups.items():
            one.hist(values, bins=40, density=True, alpha=0.6, label=name)
        gap = np.mean(groups["defect patches"]) - np.mean(groups["normal patches"])
        cosine = float(text[0, 0] @ text[0, 1])
        one.set_title(f"{title}: cosine of the prompts {cosine:.3f}", fontsize=9.5)
        one.set(xlabel="towards “damaged”", ylabel="density of patches", yticks=[])
        alt.append(f"{title}, defect patches lean {gap:+.3f} further to damaged")
    axes[0, -1].legend(frameon=False, fontsize=8)
    return figure, f"Patches between the two prompts: {'; '.join(alt)}."


def _covered(example: Example, grid: tuple[int, int]) -> Tensor:
    """Which patches are at least half defect."""
    if example.mask is None:
        return torch.zeros(grid[0] * grid[1], dtype=torch.bool)
    mask = torch.from_numpy(example.mask.astype(np.float32))[None, None]
    return torch.nn.functional.adaptive_avg_pool2d(mask, grid)[0, 0].flatten() >= 0.5


def attention_rows(
    backbone: Backbone, example: Example, block: int, patch: int
) -> dict[str, Tensor]:
    """What one patch looks at in a block, the mean over heads, a map a kind of attention.

    Kinds: "Q-K" is the tower's own, the others compare a patch with others by one of its parts.
    """
    tower = backbone.vision
    with torch.no_grad():
        embedded, _ = embed_patches(tower, example.pixels)
        x = pre_norm(tower, embedded)
        for index in range(block - 1):
            x = run_block(tower.transformer, index, x)
        qkv = project_qkv(tower.transformer, block - 1, x)
    parts = rearrange(qkv, "b t (n h e) -> n b h t e", n=3, h=tower.transformer.heads)
    pairs = {"Q-K": (0, 1)} | {f"{k[0]}-{k[1]}".upper(): (i, i) for k, i in COMPARED.items()}
    return {
        name: _row(parts[one][0], parts[other][0], patch) for name, (one, other) in pairs.items()
    }


def _row(one: Tensor, other: Tensor, patch: int) -> Tensor:
    """Attention of one patch to all patches, the mean over heads; the class token left out."""
    logits = torch.einsum("he,hte->ht", one[:, patch + 1], other) / one.shape[-1] ** 0.5
    return logits.softmax(dim=-1).mean(dim=0)[1:]


def attention_figure(
    backbone: Backbone, examples: Sequence[Example], block: int
) -> tuple[Figure, str]:
    """Q-K, Q-Q, K-K and V-V attention of one patch of every image; the alt text."""
    grid = backbone.vision.grid
    figure, axes = plt.subplots(len(examples), 5, figsize=(9.0, 1.9 * len(examples)), squeeze=False)
    selves: dict[str, list[float]] = {}
    for line, example in zip(axes, examples, strict=True):
        inside = _covered(example, grid).float()
        patch = int(inside.argmax()) if inside.any() else grid[0] * grid[1] // 2
        draw_picture(line[0], example.picture, example.mask)
        side = backbone.vision.patch_size
        top, left = divmod(patch, grid[1])
        line[0].plot((left + 0.5) * side, (top + 0.5) * side, "+", color="white", markersize=9)
        line[0].set_ylabel(example.name.replace(", ", "\n"), fontsize=8)
        rows = attention_rows(backbone, example, block, patch)
        for one, (name, row) in zip(line[1:], rows.items(), strict=True):
            one.imshow(row.reshape(grid).numpy(), cmap="magma")
            one.set_xticks([])
            one.set_yticks([])
            one.set_title(f"{name}: {100 * row[patch]:.0f} % on itself", fontsize=8)
            selves.setdefault(name, []).append(100 * float(row[patch]))
    words = ", ".join(f"{name} {np.mean(values):.0f} %" for name, values in selves.items())
    return figure, f"What a patch looks at in block {block}; share on itself, mean: {words}."


def maps_of_blocks(
    backbone: Backbone,
    config: AnomalyCLIPConfig,
    learner: AnomalyCLIPLearner,
    examples: Sequence[Example],
    kinds: Mapping[str, str],
) -> dict[str, list[Tensor]]:
    """Maps of the last block by kind of attention, unsmoothed, all with the same learner.

    Args:
        kinds: title -> `AnomalyCLIPConfig.branch`.
    """
    columns: dict[str, list[Tensor]] = {}
    for title, branch in kinds.items():
        changed = config.changed({"branch": branch})
        for example in examples:
            features = encode(backbone, example.pixels, recipe(changed))
            with torch.no_grad():
                text = text_embeddings(learner, backbone, changed, [example.category])
                one = block_maps(backbone, changed, features, text)[-1][0]
            columns.setdefault(title, []).append(one)
    return columns


def maps_by_block(
    backbone: Backbone,
    config: AnomalyCLIPConfig,
    learner: AnomalyCLIPLearner,
    examples: Sequence[Example],
    blocks: Sequence[int],
) -> dict[str, list[Tensor]]:
    """Maps of several blocks, unsmoothed, with prompts that were trained for the main ones."""
    changed = config.changed({"blocks": list(blocks)})
    columns: dict[str, list[Tensor]] = {f"block {block}": [] for block in sorted(blocks)}
    for example in examples:
        features = encode(backbone, example.pixels, recipe(changed))
        with torch.no_grad():
            text = text_embeddings(learner, backbone, changed, [example.category])
            maps = block_maps(backbone, changed, features, text)
        for block, one in zip(sorted(blocks), maps, strict=True):
            columns[f"block {block}"].append(one[0])
    return columns
