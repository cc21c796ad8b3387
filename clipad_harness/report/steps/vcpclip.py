"""VCP-CLIP on a few images: what the page draws step by step."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
import torch
from einops import rearrange
from matplotlib.figure import Figure
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.features import Features
from clipad_core.methods.vcpclip.config import VCPCLIPConfig
from clipad_core.methods.vcpclip.detector import branch_maps
from clipad_core.methods.vcpclip.learner import VCPCLIPLearner
from clipad_core.methods.vcpclip.maps import fuse
from clipad_core.methods.vcpclip.text import text_embeddings
from clipad_harness.report.map_grid import draw_picture
from clipad_harness.report.steps.examples import Example

# The colours of an attention reach at least this far from an even weight, in multiples of it.
LEAST_REACH = 0.1


def embed_prompts(
    learner: VCPCLIPLearner,
    backbone: Backbone,
    config: VCPCLIPConfig,
    features: Sequence[Features],
) -> Tensor:
    """The two text embeddings of every image, (b, 2, d)."""
    images = torch.cat([one.image_embedding for one in features])
    with torch.no_grad():
        return text_embeddings(learner, backbone, config, images)


def context_figure(text: Tensor, rows: pd.DataFrame) -> tuple[Figure, str]:
    """Text embeddings of one prompt pair, made for many images, in their two main directions.

    Args:
        text: (b, 2, d).
        rows: an index row an image, in the same order.
    """
    points = rearrange(text, "b s d -> (b s) d")
    centred = points - points.mean(dim=0)
    _, lengths, directions = torch.linalg.svd(centred, full_matrices=False)
    # The sign of a singular vector is arbitrary; its largest entry decides it here.
    signs = torch.stack([torch.sign(one[one.abs().argmax()]) for one in directions[:2]])
    places = (centred @ directions[:2].T * signs).numpy()
    states = np.tile(["good", "damaged"], len(rows))
    names = np.repeat(rows["category"].str.replace("_", " ").to_numpy(), 2)
    figure, axes = plt.subplots(figsize=(6.6, 3.9))
    seaborn.scatterplot(
        x=places[:, 0], y=places[:, 1], hue=names, style=states, s=34, alpha=0.8, ax=axes
    )
    axes.set(xlabel="first direction", ylabel="second direction")
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    share = float((lengths[:2] ** 2).sum() / (lengths**2).sum())
    between, within = _spreads(text, list(rows["category"]))
    return figure, (
        f"Text embeddings of {len(rows)} images, {100 * share:.0f} % of their variance shown. Cosine "
        f"distance between images of one category {within:.4f}, of different ones {between:.4f}."
    )


def _spreads(text: Tensor, names: list[str]) -> tuple[float, float]:
    """Mean cosine distance of anomalous prompts between images of different and of one category."""
    cosine = 1 - text[:, 1] @ text[:, 1].T
    same = torch.tensor([[a == b for b in names] for a in names])
    other = ~same
    same.fill_diagonal_(False)
    return float(cosine[other].mean()), float(cosine[same].mean())


def attention_figure(
    backbone: Backbone,
    config: VCPCLIPConfig,
    learner: VCPCLIPLearner,
    examples: Sequence[Example],
) -> tuple[Figure, str]:
    """What the normal and the anomalous text embedding look at, heads averaged; the alt text.

    The last block's patches; a model without Post-VCP has no such attention.
    """
    grid, block = backbone.vision.grid, max(config.blocks)
    assert learner.post_vcp is not None, "the main variant has Post-VCP"
    text = embed_prompts(learner, backbone, config, [one.features for one in examples])
    figure, axes = plt.subplots(
        len(examples), 4, figsize=(8.4, 2.05 * len(examples)), squeeze=False
    )
    shares = []
    for line, example, pair in zip(axes, examples, text, strict=True):
        tokens = example.features.patch_tokens[block]
        seen = torch.nn.functional.normalize(tokens, dim=-1) if config.post_unit_tokens else tokens
        with torch.no_grad():
            asked = learner.post_vcp.ask(pair[None])
            found = learner.post_vcp.attention(asked, seen)[0].mean(dim=0)
        draw_picture(line[0], example.picture, example.mask)
        line[0].set_ylabel(example.name.replace(", ", "\n"), fontsize=8)
        pictures = {"“good” looks at": found[0], "“damaged” looks at": found[1]}
        pictures["damaged − good"] = found[1] - found[0]
        for one, (title, row) in zip(line[1:], pictures.items(), strict=True):
            # What hardly differs from even attention must not look as if it did.
            shown = (found.shape[1] * row).reshape(grid).numpy()
            even = 0.0 if "−" in title else 1.0
            reach = max(LEAST_REACH, float(np.abs(shown - even).max()))
            drawn = one.imshow(shown, cmap="RdBu_r", vmin=even - reach, vmax=even + reach)
            figure.colorbar(drawn, ax=one, fraction=0.046, pad=0.04).ax.tick_params(labelsize=6)
            one.set_xticks([])
            one.set_yticks([])
            one.set_title(title, fontsize=8.5, fontweight="normal")
        shares.append(float(found[1].max() * found.shape[1]))
    peaks = ", ".join(f"{share:.1f}" for share in shares)
    return figure, (
        f"Attention of both text embeddings to the patches of block {block}; highest weight of "
        f"“damaged”, as a multiple of an even one: {peaks}."
    )


def maps(
    backbone: Backbone,
    config: VCPCLIPConfig,
    learner: VCPCLIPLearner,
    examples: Sequence[Example],
) -> dict[str, list[Tensor]]:
    """Raw map, new map, their fusion, and the fusion smoothed."""
    columns: dict[str, list[Tensor]] = {}
    for example in examples:
        with torch.no_grad():
            raw, new = branch_maps(learner, backbone, config, example.features)
            plain = fuse(raw, new, config.changed({"sigma": 0}))
            found = {"raw map": raw, "new map": new, "fused": plain}
            found["smoothed"] = fuse(raw, new, config)
        for title, one in found.items():
            if one is not None:
                columns.setdefault(title, []).append(one[0])
    return columns
