"""A picture of a dataset at a glance: categories in rows, sound and damaged side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from clipad_core.errors import ClipadError

_TILE, _GAP, _CAPTION, _LABEL = 128, 8, 20, 132
_PAPER, _INK, _OUTLINE = (255, 255, 255), (32, 32, 32), (255, 0, 170)


def contact_sheet(root: Path, name: str, *, columns: int = 10) -> Image.Image:
    """Two sound images and one of every defect, as many as fit, a row for each category.

    A line around the ground-truth mask shows where the defect is; it keeps a little away from it.

    Args:
        root: folder of the datasets.
        name: a dataset below it in the MVTec layout.
        columns: pictures in a row, at least 3.

    Raises:
        ClipadError: there is no such dataset, or it holds no category.
    """
    folder = Path(root) / name
    categories = sorted(p for p in folder.glob("*") if (p / "train" / "good").is_dir())
    if not categories:
        raise ClipadError(f"{folder}: found no <category>/train/good, expected a dataset in the "
                          "MVTec layout; draw it first.")
    if columns < 3:
        raise ClipadError(f"columns: found {columns}, expected at least 3; raise it.")
    step = _TILE + _GAP
    sheet = Image.new("RGB", (_LABEL + columns * step + _GAP,
                              len(categories) * (step + _CAPTION) + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(16), ImageFont.load_default(13)
    for row, category in enumerate(categories):
        top = _GAP + row * (step + _CAPTION)
        label = category.name.replace("_", "\n")
        pen.multiline_text((_GAP, top + _TILE / 2), label, _INK, large, anchor="lm")
        for column, (image, mask, caption) in enumerate(_pictures(category, columns)):
            left = _LABEL + column * step
            sheet.paste(_tile(image, mask), (left, top))
            pen.text((left + _TILE / 2, top + _TILE + 2), caption, _INK, small, anchor="ma")
    return sheet


def _pictures(category: Path, columns: int) -> list[tuple[Path, Path | None, str]]:
    sound = sorted((category / "train" / "good").glob("*.png"))[:2]
    rows: list[tuple[Path, Path | None, str]] = [(path, None, "good") for path in sound]
    for defect in sorted(p.name for p in (category / "test").iterdir() if p.name != "good"):
        image = min((category / "test" / defect).glob("*.png"))
        mask = category / "ground_truth" / defect / f"{image.stem}_mask.png"
        rows.append((image, mask, defect.replace("_", " ")))
    return rows[:columns]


def _tile(image: Path, mask: Path | None) -> Image.Image:
    size = (_TILE, _TILE)
    with Image.open(image) as opened:
        tile = opened.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    if mask is None:
        return tile
    with Image.open(mask) as opened:
        region = opened.convert("L").resize(size, Image.Resampling.BILINEAR)
    region = region.point(np.where(np.arange(256) > 96, 255, 0).tolist())
    inner = region.filter(ImageFilter.MaxFilter(5))
    outline = ImageChops.subtract(inner.filter(ImageFilter.MaxFilter(3)), inner)
    tile.paste(_OUTLINE, (0, 0), outline)
    return tile
