"""Prompts as the text tower reads them: a box a token, words and learned vectors apart."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from clipad_harness.report.figures import PALETTE

LONGEST_NAME = 8  # letters that a box holds, from the sixth on in smaller ones
SMALLER_FROM = 6
BRIGHT = 0.6  # above this share of the colour range a name is written in black


def token_names(
    ids: Sequence[int], places: Sequence[int] = (), symbol: str = "v", total: int = 0
) -> list[str]:
    """What each token says up to the end-of-text token, whose id is the largest; then nothing.

    Args:
        ids: with any number at the places of the learned vectors, or without them.
        places: of learned vectors, ascending.
        total: tokens with the learned vectors; 0: as many as ids.

    >>> token_names([49406, 13568, 14115, 269, 49407, 0])
    ['start', 'damaged', 'object', '.', 'end', '']
    >>> token_names([49406, 14115, 49407], [1, 2], "V", total=5)
    ['start', 'V1', 'V2', 'object', 'end']
    """
    from clipad_core.clip.open_clip import open_clip

    end = list(ids).index(max(ids))
    words = [open_clip.decode(torch.tensor([number])).strip() for number in ids[1:end]]
    names = ["start", *words, "end", *[""] * (len(ids) - end - 1)]
    for number, place in enumerate(places, start=1):
        if total > len(ids):
            names.insert(place, f"{symbol}{number}")
        else:
            names[place] = f"{symbol}{number}"
    return names


def prompt_figure(
    sequence: Tensor, ids: Tensor, places: Tensor, symbols: str, rows: Sequence[str]
) -> tuple[Figure, str]:
    """Prompts as rows of boxes, coloured by the length of each vector; the alt text.

    Args:
        sequence: embedded prompts with their learned vectors, (n, t, c).
        ids, places: see `token_names`; a row a prompt.
        symbols: a letter a prompt for its learned vectors.
        rows: name of every prompt.
    """
    total = sequence.shape[1]
    prompts = zip(ids.tolist(), places.tolist(), symbols, strict=True)
    names = [token_names(row, where, symbol, total) for row, where, symbol in prompts]
    learned = torch.zeros(sequence.shape[:2], dtype=torch.bool).scatter(1, places, True)
    return _boxes(sequence.norm(dim=-1), names, learned, rows)


def block_figure(
    inputs: Sequence[Tensor], names: Sequence[str], places: Sequence[int], fresh: Sequence[int]
) -> tuple[Figure, str]:
    """What every block of the text tower reads of one prompt; the alt text.

    Args:
        inputs: (t, c), a block.
        names: of the prompt's tokens; where there are more, new vectors were inserted.
        places: of learned vectors in the prompt.
        fresh: how many new learned vectors stand behind the start token, a block.
    """
    lengths = torch.stack([x.norm(dim=-1) for x in inputs])
    inserted = lengths.shape[1] - len(names)
    learned = torch.zeros(lengths.shape, dtype=torch.bool)
    learned[0, [place + inserted for place in places]] = True
    titles = []
    for row, count in enumerate(fresh):
        learned[row, 1 : 1 + count] = True
        own = [f"q{number}" for number in range(1, count + 1)]
        titles.append([names[0], *own, *names[1 + count - inserted :]])
    return _boxes(lengths, titles, learned, [f"block {row + 1}" for row in range(len(fresh))])


def _boxes(
    lengths: Tensor, names: Sequence[Sequence[str]], learned: Tensor, rows: Sequence[str]
) -> tuple[Figure, str]:
    """Boxes with names, a frame around what is learned; where nothing is named there is no box."""
    named = np.array([[bool(name) for name in row] for row in names])
    visible = np.where(named, lengths.numpy(), np.nan)
    side = min(0.62, 8.6 / visible.shape[1])
    figure, axes = plt.subplots(figsize=(side * visible.shape[1] + 1.5, 0.36 * len(visible) + 0.5))
    # A word that a stand-in does not know has length 0, and no place on the scale.
    low, high = float(visible[visible > 0].min()), float(np.nanmax(visible))
    norm = LogNorm(low, high)
    drawn = axes.imshow(visible, cmap="viridis", norm=norm, aspect="auto")
    for (row, place), length in np.ndenumerate(visible):
        colour = "black" if norm(length) > BRIGHT else "white"
        if named[row, place]:
            _name(axes, (place, row), names[row][place], colour, framed=bool(learned[row, place]))
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.03, pad=0.01)
    bar.set_ticks(ticks=[low, high], labels=[_short(low), _short(high)])
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=7)
    bar.set_label("length", fontsize=8)
    return figure, _alt(visible, learned.numpy() & named, rows)


def _name(axes: Axes, at: tuple[int, int], name: str, colour: str, *, framed: bool) -> None:
    text, size = name[:LONGEST_NAME], 7 if len(name) < SMALLER_FROM else 5.8
    axes.text(*at, text, ha="center", va="center", fontsize=size, color=colour, parse_math=False)
    if framed:
        corner = (at[0] - 0.46, at[1] - 0.42)
        axes.add_patch(
            Rectangle(corner, 0.92, 0.84, fill=False, edgecolor=PALETTE[1], linewidth=1.8)
        )


def _alt(lengths: NDArray[np.floating], learned: NDArray[np.bool_], rows: Sequence[str]) -> str:
    """How long learned vectors are beside the others."""
    parts = [f"{len(rows)} rows ({', '.join(rows)}), what is learned in frames"]
    for label, chosen in (("learned", lengths[learned]), ("other", lengths[~learned])):
        finite = chosen[np.isfinite(chosen)]
        if len(finite):
            parts.append(f"{label} vectors {_short(finite.min())} to {_short(finite.max())} long")
    return f"Tokens of the prompt: {'; '.join(parts)}."


def _short(length: float) -> str:
    """Two digits that matter, never an exponent for what a length can be.

    >>> _short(119.4), _short(0.2345)
    ('120', '0.23')
    """
    return f"{float(f'{length:.2g}'):g}"
