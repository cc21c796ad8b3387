"""The method on a few images: what the WinCLIP page draws step by step."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.features import Features
from clipad_core.maps import association_scores
from clipad_core.methods.winclip.config import WinCLIPConfig, WindowAttention
from clipad_core.methods.winclip.prompts import find_ensemble, without_words
from clipad_core.methods.winclip.scoring import ReferenceMemory, patch_embeddings
from clipad_core.methods.winclip.windows import home_windows, window_index
from clipad_harness.report.figures import PALETTE
from clipad_harness.report.map_grid import draw_picture
from clipad_harness.report.questions import LEVELS, Asked
from clipad_harness.report.steps.examples import Example

# Points of AUROC that an axis shows at least.
LEAST_SPAN = 2.0


def windows_figure(backbone: Backbone, example: Example, scales: Sequence[int]) -> Figure:
    """The patch grid, and for every scale three windows: what is kept, what is dropped."""
    grid, patch = backbone.vision.grid, backbone.vision.patch_size
    figure, axes = plt.subplots(
        1, 1 + 2 * len(scales), figsize=(9.6, 9.6 / (1 + 2 * len(scales)) + 0.15)
    )
    draw_picture(axes[0], example.picture)
    for place in range(1, grid[0]):
        axes[0].axhline(place * patch - 0.5, color="white", linewidth=0.5)
        axes[0].axvline(place * patch - 0.5, color="white", linewidth=0.5)
    axes[0].set_title(f"{grid[0]} × {grid[1]} patches", fontsize=8.5, fontweight="normal")
    for number, scale in enumerate(scales):
        index = window_index(grid, scale)
        for shift, chosen in enumerate((0, _window_of(example, index, patch, grid))):
            panel = axes[1 + 2 * number + shift]
            covered = np.zeros(grid, dtype=bool)
            covered.ravel()[index[chosen].numpy()] = True
            full = np.kron(covered, np.ones((patch, patch), dtype=bool))
            faded = (0.15 * example.picture + 0.85 * 255).astype(np.uint8)
            draw_picture(panel, np.where(full[..., None], example.picture, faded))
            panel.set_title(
                f"{scale} × {scale}: {chosen + 1} of {len(index)}",
                fontsize=8.5,
                fontweight="normal",
            )
    return figure


def _window_of(example: Example, index: Tensor, patch: int, grid: tuple[int, int]) -> int:
    """The window with most of the defect; without a mask the middle one."""
    if example.mask is None or not example.mask.any():
        return len(index) // 2
    cells = example.mask.reshape(grid[0], patch, grid[1], patch).mean(axis=(1, 3)).ravel()
    return int(cells[index.numpy()].sum(axis=1).argmax())


def reach_figure(grid: tuple[int, int], scale: int, depth: int) -> tuple[Figure, str]:
    """Which patches reach the middle one, after how many blocks, where attention is local; the alt text.

    Args:
        grid: rows and columns of patches.
        scale: side of windows in patches.
        depth: blocks of the tower; of the last one no patch is read.
    """
    index, places = window_index(grid, scale), grid[0] * grid[1]
    kinds: dict[str, WindowAttention] = {
        "blocks": "plain",
        "shifted blocks": "shifted",
    }
    figure, axes = plt.subplots(1, len(kinds), figsize=(5.4, 2.6), layout="constrained")
    said = []
    for panel, (name, attention) in zip(axes, kinds.items(), strict=True):
        blocks = torch.full((places,), torch.nan)
        reached = torch.tensor([grid[0] // 2 * grid[1] + grid[1] // 2])
        for passed, block in enumerate(reversed(range(depth - 1)), start=1):
            reached = index[home_windows(grid, scale, attention, block)[reached]].unique()
            blocks[reached] = blocks[reached].nan_to_num(passed)
        seaborn.heatmap(
            blocks.view(grid).numpy(),
            ax=panel,
            square=True,
            cmap="viridis_r",
            vmin=1,
            vmax=depth - 1,
            cbar=attention == "shifted",
            cbar_kws={"ticks": range(1, depth)},
            xticklabels=False,
            yticklabels=False,
        )
        panel.spines[:].set_visible(True)
        panel.set_title(f"{name}: {len(reached)} of {places}", fontsize=8.5, fontweight="normal")
        said.append(f"{len(reached)} of {places} patches with {name}")
    about = f"Patches that reach the middle one through {depth - 1} blocks"
    return figure, f"{about}, windows of {scale} × {scale}: {', '.join(said)}."


def prompts_figure(normal: Tensor, anomalous: Tensor, text: Tensor) -> Figure:
    """Prompts and prototypes in the plane that separates the prototypes best.

    Across: along the line from the normal to the anomalous prototype; up: the direction in which
    the prompts differ most besides.

    Args:
        normal, anomalous: unit-norm prompt embeddings (n, d).
        text: the two prototypes (2, d).
    """
    across = torch.nn.functional.normalize(text[1] - text[0], dim=0)
    points = torch.cat([normal, anomalous, text])
    residual = (
        points - points.mean(dim=0) - ((points - points.mean(dim=0)) @ across)[:, None] * across
    )
    up = torch.linalg.svd(residual, full_matrices=False).Vh[0]
    # The sign of a singular vector is arbitrary; its largest entry decides it here.
    up = up * torch.sign(up[up.abs().argmax()])
    middle = text.mean(dim=0)
    x, y = ((points - middle) @ across).numpy(), ((points - middle) @ up).numpy()
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    kinds = ["normal prompts"] * len(normal) + ["anomalous prompts"] * len(anomalous)
    seaborn.scatterplot(
        x=x[:-2], y=y[:-2], hue=kinds, palette=list(PALETTE[:2]), s=26, alpha=0.65, ax=axes
    )
    axes.scatter(x[-2:], y[-2:], marker="*", s=320, c=PALETTE[:2], edgecolors="black", zorder=3)
    axes.axvline(0, color="#8a929c", linewidth=1, linestyle="--")
    axes.set(xlabel="from the normal to the anomalous prototype (stars)", ylabel="largest rest")
    axes.legend(frameon=False, fontsize=8)
    return figure


def nearest_figure(
    backbone: Backbone,
    example: Example,
    references: Sequence[Example],
    features: Features,
    memory: ReferenceMemory,
    config: WinCLIPConfig,
) -> Figure:
    """Four query patches and the reference patches nearest to them, in matching colours.

    Args:
        example: the query.
        references: the k normal shots in the memory's order.
        features, memory, config: what `score` reads; without a patch memory no patch is marked.
    """
    grid, side = backbone.vision.grid, backbone.vision.patch_size
    figure, axes = plt.subplots(
        1, 1 + len(references), figsize=(2.1 * (1 + len(references)), 2.6), squeeze=False
    )
    draw_picture(axes[0, 0], example.picture, example.mask)
    axes[0, 0].set_title("query", fontsize=8.5, fontweight="normal")
    for number, reference in enumerate(references):
        draw_picture(axes[0, 1 + number], reference.picture)
        axes[0, 1 + number].set_title(f"reference {number + 1}", fontsize=8.5, fontweight="normal")
    pairs = _nearest(backbone, features, memory, config)
    for (patch, nearest, _), colour in zip(pairs, PALETTE[1:], strict=False):
        image, place = divmod(nearest, grid[0] * grid[1])
        _box(axes[0, 0], patch, grid[1], side, colour)
        _box(axes[0, 1 + image], place, grid[1], side, colour)
    if not pairs:
        axes[0, 0].set_xlabel("no patch memory", fontsize=8, loc="left")
    for number, ((_, _, distance), colour) in enumerate(zip(pairs, PALETTE[1:], strict=False)):
        below = (0.26 * number, -0.04)
        axes[0, 0].annotate(
            f"{distance:.3f}", below, xycoords="axes fraction", va="top", fontsize=8, color=colour
        )
    return figure


def _nearest(
    backbone: Backbone, features: Features, memory: ReferenceMemory, config: WinCLIPConfig
) -> list[tuple[int, int, float]]:
    """Four patches from the most to the least anomalous: patch, its nearest reference, distance."""
    if memory.patches is None:
        return []
    tokens = features.patch_tokens[backbone.vision.depth]
    patches = patch_embeddings(backbone.vision, tokens, config.patch_feature)
    scores = association_scores(patches, memory.patches)[0]
    ranked = scores.argsort(descending=True)
    chosen = [int(ranked[len(ranked) * part // 100]) for part in (0, 20, 60, 95)]
    nearest = (patches[0][chosen] @ memory.patches.T).argmax(dim=1)
    return [(patch, int(best), float(scores[patch])) for patch, best in zip(chosen, nearest)]


def _box(axes: Axes, patch: int, width: int, side: int, colour: str) -> None:
    top, left = divmod(patch, width)
    for line, shade in ((4.0, "white"), (2.2, colour)):
        corner = (left * side - 0.5, top * side - 0.5)
        axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=shade, linewidth=line))


def similarity_figure(similarity: Tensor, texts: Sequence[str]) -> Figure:
    """A heat map of how alike texts are, alike ones side by side (average linkage).

    Args:
        similarity: cosine of every two (n, n).
        texts: n.
    """
    # Ties decide the order of the leaves: rounded, so that the last bits of a CPU do not.
    rounded = similarity.double().numpy().round(6)
    with plt.rc_context({"figure.constrained_layout.use": False}):
        grid = seaborn.clustermap(
            pd.DataFrame(rounded, index=list(texts), columns=list(texts)),
            figsize=(8.6, 5.6),
            cmap="viridis",
            dendrogram_ratio=(0.12, 0.0),
            cbar_kws={"label": "cosine", "format": "%.5f"},
            tree_kws={"colors": "#8a929c"},
            xticklabels=False,
        )
    grid.ax_col_dendrogram.set_visible(False)
    grid.figure.subplots_adjust(left=0.02, bottom=0.03, right=0.6, top=0.97)
    grid.ax_cbar.set_position((0.91, 0.3, 0.015, 0.4))
    grid.ax_heatmap.tick_params(labelsize=8)
    grid.ax_cbar.tick_params(labelsize=8)
    return grid.figure


def kept_table(*questions: Asked) -> pd.DataFrame:
    """What rows keep of WinCLIP's list and what they reach: the points of `kept_figure`.

    Returns:
        Columns ``line`` (what is fewer, and how it is chosen), ``kept`` (templates, or states of a
        label) and the AUROC of both levels, per cent; a row that keeps all begins the line of
        templates and of states.
    """
    rows = []
    for asked in questions:
        values = [asked.values(f"{level}_auroc") for level in LEVELS]
        for contender in asked.among:
            own = [float(series[contender.label]) for series in values]
            rows += [(*place, *own) for place in _places(contender.variant.config)]
    return pd.DataFrame(rows, columns=["line", "kept", *(f"{level}_auroc" for level in LEVELS)])


def _places(config: WinCLIPConfig) -> list[tuple[str, int]]:
    """On which lines a row stands, and where."""
    ensemble = find_ensemble(config.prompts)
    left = without_words(ensemble.templates, config.templates_without)
    templates, states = config.templates_kept, config.states_kept
    if config.templates_without:
        return [(f"without {', '.join(config.templates_without)}", templates or len(left))]
    if config.kept_by == "random":
        return [("templates at random", templates or len(left))]
    if templates and states:
        return [("templates and states by coverage", templates)]
    most = max(len(ensemble.normal_states), len(ensemble.anomalous_states))
    whole = [("templates by coverage", templates or len(left))] if not states else []
    return whole + ([("states by coverage", states or most)] if not templates else [])


def kept_figure(kept: pd.DataFrame) -> Figure:
    """AUROC of both levels against the number of templates or states that are kept.

    Args:
        kept: of `kept_table`.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.8))
    colours = dict(zip(dict.fromkeys(kept["line"]), PALETTE, strict=False))
    for panel, level in zip(axes, LEVELS, strict=True):
        for line, rows in kept.groupby("line", sort=False):
            rows, random = rows.sort_values("kept", kind="stable"), line == "templates at random"
            panel.plot(
                rows["kept"],
                rows[f"{level}_auroc"],
                marker="o",
                markersize=4,
                alpha=0.4 if random else 1,
                linestyle="none" if random else "-",
                color=colours[line],
                label=line,
            )
        panel.set_xscale("log", base=2)
        counts = sorted(set(kept.loc[kept["line"] == "templates by coverage", "kept"]))
        panel.set_xticks(counts, [str(count) for count in counts])
        panel.minorticks_off()
        # A tenth of a point shall look like one.
        low, high = panel.get_ylim()
        middle, half = (low + high) / 2, max((high - low) / 2, LEAST_SPAN / 2)
        panel.set_ylim(middle - half, middle + half)
        panel.set(xlabel="templates or states that are kept", title=f"{level} AUROC, per cent")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure
