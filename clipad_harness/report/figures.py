"""Figures of the reports: one house style, overlays, galleries, and alt texts.

`show` is how a notebook puts a figure on its page: the same data give the same bytes, the figure
carries its alt text, and it stays legible in light and dark.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import seaborn
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from numpy.typing import NDArray

from clipad_core.errors import ClipadError
from clipad_harness.base.files import replacing
from clipad_harness.report.tables import Html

# Okabe and Ito (2008), "Color Universal Design": told apart with every common colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# A difference, and where its interval begins and ends.
Interval = tuple[float, float, float]
# Of a difference whose interval holds zero.
UNCLEAR = "#8a929c"
# What stands in place of a drawing or a number that the data do not define.
UNDEFINED = "undefined for this data"
_DPI = 144
# Of pictures that are files of their own, beside text.
_FILE_DPI = 110
_CSS_PIXELS_PER_INCH = 96
# Characters of a line, which leave room for the drawing beside it.
_LONGEST_LABEL = 50


@dataclass(frozen=True)
class GalleryItem:
    """One image of a gallery.

    Attributes:
        image: (H, W, 3) uint8.
        anomaly_map: (H, W), finite; higher = more anomalous.
        mask: (H, W) of 0 and 1, the labelled defect; None where the image is normal.
        caption: a line above the image, for example `hazelnut/crack/004`.
        image_score: its score, printed below the image.
    """

    image: NDArray[np.uint8]
    anomaly_map: NDArray[np.floating]
    mask: NDArray[np.generic] | None
    caption: str
    image_score: float


def use_house_style() -> None:
    """Set seaborn's theme: white paper, colour-blind safe colours, the font that comes along."""
    seaborn.set_theme(
        context="notebook",
        style="whitegrid",
        palette=list(PALETTE),
        font="DejaVu Sans",
        font_scale=0.9,
        rc={
            "axes.edgecolor": "#8a929c",
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "figure.constrained_layout.use": True,
            "figure.dpi": _CSS_PIXELS_PER_INCH,
            "figure.figsize": (7.2, 3.8),
            "grid.color": "#e4e7eb",
            "savefig.dpi": _DPI,
            "savefig.facecolor": "white",
            "svg.hashsalt": "clipad",
            # Names come from data, where a dollar sign is a dollar sign.
            "text.parse_math": False,
        },
    )


def draw_intervals(
    panel: Axes, names: Sequence[str], intervals: Iterable[Interval], last: str = "o"
) -> None:
    """Differences with their intervals below each other; grey where an interval holds zero.

    Args:
        last: the marker of the last line.
    """
    for place, (value, low, high) in enumerate(intervals):
        panel.errorbar(
            value,
            place,
            xerr=[[abs(value - low)], [abs(high - value)]],
            fmt=last if place == len(names) - 1 else "o",
            color=PALETTE[0] if low > 0 or high < 0 else UNCLEAR,
            capsize=2,
        )
    panel.axvline(0, color="black", linewidth=1)
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.5, -0.5)
    seaborn.despine(ax=panel, left=True)


def show(
    figure: Figure, alt: str, *, caption: str | None = None, kind: Literal["png", "jpeg"] = "png"
) -> None:
    """Display a figure with its alt text and close it.

    Args:
        figure: drawn with matplotlib or seaborn.
        alt: what a reader who does not see the figure must know: what it shows and what follows.
        caption: a visible line below the figure.
        kind: `jpeg` keeps a page with many photographs small.

    Raises:
        ClipadError: an empty alt text.
    """
    encoded, width = _encoded(figure, alt, kind)
    mime = f"image/{kind}"
    about: dict[str, object] = {"alt": alt, "width": width}
    if caption:
        about["caption"] = caption
    display({mime: encoded, "text/plain": f"[figure] {alt}"}, metadata={mime: about}, raw=True)


def picture(figure: Figure, alt: str, caption: str) -> Html:
    """A figure as `show` puts it on a page, as HTML, for pages that are no notebooks; closes it.

    Raises:
        ClipadError: an empty alt text.
    """
    encoded, width = _encoded(figure, alt, "png")
    box = Html(
        '<figure class="plot"><div class="picture"><img src="data:image/png;base64,{}" alt="{}" width="{}">'
        "</div><figcaption>{}</figcaption></figure>"
    )
    return box.format(encoded, alt, width, caption)


def _encoded(figure: Figure, alt: str, kind: Literal["png", "jpeg"]) -> tuple[str, int]:
    """A figure in base64, and its width in pixels of CSS; closes it."""
    if not alt.strip():
        raise ClipadError(
            "alt: found an empty text, expected one sentence on what the figure says."
        )
    _shorten_labels(figure)
    buffer = io.BytesIO()
    # The canvas draws once; savefig would draw an unseen time before, for the layout alone.
    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    if kind == "png":
        canvas.print_png(buffer, metadata={"Software": None})
    else:
        canvas.print_jpg(buffer, pil_kwargs={"quality": 88})
    width = round(figure.get_size_inches()[0] * _CSS_PIXELS_PER_INCH)
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode("ascii"), width


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG and close it; the bytes depend on the picture alone.

    Raises:
        ClipadError: the folder cannot be written.
    """
    _shorten_labels(figure)
    with replacing(path) as temporary:
        # Without the library's name and version.
        figure.savefig(temporary, format="png", dpi=_FILE_DPI, metadata={"Software": None})
    plt.close(figure)
    return path


def shortened(label: str) -> str:
    """A label without the middle of its long lines: names from data have any length.

    >>> shortened("hex_nut"), shortened("a_name_of_a_part_" * 4 + "17")
    ('hex_nut', 'a_name_of_a_part_a_name_…_part_a_name_of_a_part_17')
    """
    half = _LONGEST_LABEL // 2
    lines = label.split("\n")
    return "\n".join(
        f"{line[: half - 1]}…{line[-half:]}" if len(line) > _LONGEST_LABEL else line
        for line in lines
    )


def _shorten_labels(figure: Figure) -> None:
    """Shorten whatever is written in a figure; alt texts and tables have the whole names."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [tick.get_text() for tick in axis.get_ticklabels()]
            if labels != (short := [*map(shortened, labels)]):
                axis.set_ticks(axis.get_ticklocs(), short)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(shortened(text.get_text()))


def say_undefined(panel: Axes) -> None:
    """Leave a panel empty but for the words that there is nothing to draw."""
    panel.text(0.5, 0.5, UNDEFINED, transform=panel.transAxes, ha="center", fontsize=9)
    panel.set(xticks=[], yticks=[])


def overlay(
    image: NDArray[np.uint8],
    anomaly_map: NDArray[np.floating],
    *,
    limits: tuple[float, float] | None = None,
    strength: float = 0.75,
) -> NDArray[np.uint8]:
    """Lay a map over its image: what scores low shows the image, what scores high glows.

    Args:
        image: (H, W, 3) uint8.
        anomaly_map: (H, W), finite.
        limits: the scores that are shown as nothing and as the full colour; None: the map's own.
        strength: opacity of the highest score, in [0, 1].

    Returns:
        (H, W, 3) uint8.

    Raises:
        ClipadError: shapes that differ, a value that is not finite.

    >>> black = np.zeros((1, 2, 3), dtype=np.uint8)
    >>> overlay(black, np.array([[0.0, 1.0]]))[0, 0].tolist()
    [0, 0, 0]
    """
    _check_pair(image, anomaly_map)
    low, high = limits or (float(anomaly_map.min()), float(anomaly_map.max()))
    share = np.clip((anomaly_map - low) / (high - low), 0, 1) if high > low else anomaly_map * 0.0
    colours = matplotlib.colormaps["inferno"](share)[..., :3] * 255
    alpha = (strength * share)[..., None]
    return np.asarray(np.rint((1 - alpha) * image + alpha * colours), dtype=np.uint8)


def _check_pair(image: NDArray[np.uint8], anomaly_map: NDArray[np.floating]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ClipadError(
            f"image: found {image.dtype} of shape {image.shape}, expected uint8 (H, W, 3)."
        )
    if anomaly_map.shape != image.shape[:2]:
        raise ClipadError(
            f"anomaly_map: found shape {anomaly_map.shape}, expected the image's "
            f"{image.shape[:2]}; resize the map first."
        )
    if not np.isfinite(anomaly_map).all():
        raise ClipadError("anomaly_map: found a value that is not finite; score the image again.")


def gallery(
    items: Sequence[GalleryItem],
    *,
    columns: int = 3,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Draw images with the defect's outline beside the same images under their maps.

    Args:
        items: in reading order.
        columns: items in a row; each takes two tiles.
        limits: as for `overlay`; None takes the lowest and highest score of all items, so that
            colours can be compared across the gallery.

    Raises:
        ClipadError: no items, or an item whose image, map and mask do not fit.
    """
    if not items:
        raise ClipadError("items: found none, expected at least one image for the gallery.")
    if limits is None:
        lows, highs = zip(*((i.anomaly_map.min(), i.anomaly_map.max()) for i in items), strict=True)
        limits = (float(min(lows)), float(max(highs)))
    columns = min(columns, len(items))
    rows = -(-len(items) // columns)
    figure, grid = plt.subplots(
        rows,
        2 * columns,
        figsize=(min(10.0, 3.4 * columns), (min(10.0, 3.4 * columns) / columns / 2 + 0.5) * rows),
        squeeze=False,
        layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.04, wspace=0.01, hspace=0.02),
    )
    tiles = grid.reshape(-1, 2)
    for pair, item in zip(tiles, items, strict=False):
        _draw_item(pair[0], pair[1], item, limits)
    for axes in tiles[len(items) :].ravel():
        axes.set_visible(False)
    return figure


def _draw_item(left: Axes, right: Axes, item: GalleryItem, limits: tuple[float, float]) -> None:
    left.imshow(item.image)
    right.imshow(overlay(item.image, item.anomaly_map, limits=limits))
    # parse_math: a caption comes from data, where a dollar sign is a dollar sign.
    left.set_title(item.caption, loc="left", fontsize=8.5, fontweight="normal", parse_math=False)
    left.set_xlabel(f"score {item.image_score:.3f}", fontsize=8.5, loc="left")
    for axes in (left, right):
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        if item.mask is not None and np.any(item.mask):
            if item.mask.shape != item.image.shape[:2]:
                raise ClipadError(
                    f"mask of {item.caption}: found shape {item.mask.shape}, expected the image's "
                    f"{item.image.shape[:2]}."
                )
            outline(axes, item.mask)


def outline(axes: Axes, mask: NDArray[np.generic]) -> None:
    """The border of a mask (H, W): a dark line under a light one is seen on every background."""
    for width, colour in ((2.2, "black"), (0.9, "#7df9ff")):
        axes.contour(mask.astype(float), [0.5], colors=colour, linewidths=width)
