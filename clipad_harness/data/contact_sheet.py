"""A picture of a dataset at a glance: categories in rows, sound and damaged side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from clipad_core.errors import ClipadError
from clipad_harness.data.datasets import read_index
from clipad_harness.data.images import image_size, read_image, read_mask

_TILE, _GAP, _CAPTION, _LABEL = 128, 8, 20, 132
_PAPER, _INK, _OUTLINE = (255, 255, 255), (32, 32, 32), (255, 0, 170)
_Picture = tuple[Path, Path | None, str]


def contact_sheet(
    root: Path, name: str, *, categories: Sequence[str] = (), columns: int = 10
) -> Image.Image:
    """Two sound images and one of every defect, as many as fit, a row for each category.

    Where a category has only one kind of defect, the row is filled with it.

    A line around the ground-truth mask shows where the defect is; it keeps a little away from it.

    Args:
        root: folder of the datasets.
        name: a dataset below it.
        categories: only these; all where empty.
        columns: pictures in a row, at least 3.

    Raises:
        ClipadError: there is no such dataset, or it is damaged.
    """
    folder = Path(root) / name
    index = read_index(folder, name, categories)
    if columns < 3:
        raise ClipadError(f"columns: found {columns}, expected at least 3; raise it.")
    step = _TILE + _GAP
    sheet = Image.new(
        "RGB",
        (_LABEL + columns * step + _GAP, index["category"].nunique() * (step + _CAPTION) + _GAP),
        _PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(16), ImageFont.load_default(13)
    for row, (category, images) in enumerate(index.groupby("category", sort=False)):
        top = _GAP + row * (step + _CAPTION)
        label = str(category).replace("_", "\n").replace(" ", "\n")
        pen.multiline_text((_GAP, top + _TILE / 2), label, _INK, large, anchor="lm")
        for column, (image, mask, caption) in enumerate(_pictures(folder, images, columns)):
            left = _LABEL + column * step
            sheet.paste(_tile(image, mask), (left, top))
            pen.text((left + _TILE / 2, top + _TILE + 2), caption, _INK, small, anchor="ma")
    return sheet


def _pictures(folder: Path, rows: pd.DataFrame, columns: int) -> list[_Picture]:
    """Two normal images and the first of every defect; masks as the index pairs them.

    Where no image is for training, test images are the normal ones.
    """
    good = rows[rows["defect"] == "good"]
    sound = good[good["split"] == "train"]
    sound = (sound if len(sound) else good)[:2]
    damaged = rows[rows["label"] == 1]
    if damaged["defect"].nunique() > 1:
        damaged = damaged.drop_duplicates("defect")
    return [
        (
            folder / row["image"],
            folder / row["mask"] if row["mask"] else None,
            row["defect"].replace("_", " "),
        )
        for row in pd.concat([sound, damaged])[:columns].to_dict("records")
    ]


def _tile(image: Path, mask: Path | None) -> Image.Image:
    size = (_TILE, _TILE)
    tile = read_image(image).resize(size, Image.Resampling.LANCZOS)
    if mask is None:
        return tile
    marked = read_mask(mask, image_size(image))
    region = Image.fromarray(marked.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    region = region.point(np.where(np.arange(256) > 96, 255, 0).tolist())
    inner = region.filter(ImageFilter.MaxFilter(5))
    outline = ImageChops.subtract(inner.filter(ImageFilter.MaxFilter(3)), inner)
    tile.paste(_OUTLINE, (0, 0), outline)
    return tile
