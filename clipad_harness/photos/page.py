"""Heat maps over your photos, and one page that shows them by score with a threshold to move."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2
import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from clipad_core.clip.preprocess import Pixels
from clipad_harness.base.files import replacing, write_text
from clipad_harness.photos.photos import Scored, path_text, place_below, read_photo
from clipad_harness.report.figures import overlay
from clipad_harness.site.page import TEMPLATES, page

# Longest sides in pixels: the overlays beside the page, and the pictures inside it.
OVERLAY_SIDE, THUMBNAIL_SIDE = 1600, 320
# About 40 kB a photo: a page of so many opens at once everywhere.
PHOTOS_ON_PAGE = 500
_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")


@dataclass(frozen=True)
class PhotoCard:
    """One photo on the page: what it is called, its score, its two pictures as data, their texts."""

    name: str
    score: float
    link: str
    photo: str
    heat_map: str
    where: str


def shared_limits(scored: Sequence[Scored]) -> tuple[float, float]:
    """The lowest and the highest value of all maps, so that colours mean the same everywhere."""
    lows, highs = zip(*(_extent(photo) for photo in scored if photo.map_file), strict=True)
    return min(lows), max(highs)


def _extent(photo: Scored) -> tuple[float, float]:
    anomaly_map = np.load(photo.map_file or Path(), mmap_mode="r")
    return float(anomaly_map.min()), float(anomaly_map.max())


def draw_overlays(
    scored: Sequence[Scored], folder: Path, quiet: bool = False
) -> Iterator[PhotoCard]:
    """Write the overlay of every photo, highest score first, and yield the cards of the page."""
    limits = shared_limits(scored)
    files = dict(
        zip(
            scored,
            place_below(folder, [scored_photo.path for scored_photo in scored], ".jpg"),
            strict=True,
        )
    )
    ranked = sorted(files, key=lambda scored_photo: -(scored_photo.score or 0.0))
    for rank, scored_photo in enumerate(tqdm(ranked, "draw", unit="photo", disable=quiet)):
        photo = _shrink(read_photo(scored_photo.path), OVERLAY_SIDE)
        anomaly_map = np.load(scored_photo.map_file or Path())
        heat = overlay(photo, resize_map(anomaly_map, photo.shape[:2]), limits=limits)
        with replacing(files[scored_photo]) as temporary:
            Image.fromarray(heat).save(temporary, format="JPEG", quality=90)
        if rank < PHOTOS_ON_PAGE:
            relative = files[scored_photo].relative_to(folder.parent)
            yield PhotoCard(
                name=path_text(Path(relative.with_suffix("")).relative_to(folder.name)),
                score=scored_photo.score or 0.0,
                link=quote(bytes(relative)),
                photo=_thumbnail(photo),
                heat_map=_thumbnail(heat),
                where=strongest(anomaly_map),
            )


def resize_map(anomaly_map: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.float32]:
    """A map (H, W) at another size, bilinear between the centres of its pixels."""
    values = torch.from_numpy(np.asarray(anomaly_map, dtype=np.float32))[None, None]
    resized = torch.nn.functional.interpolate(values, size, mode="bilinear", align_corners=False)
    return np.asarray(resized[0, 0].numpy())


def strongest(anomaly_map: NDArray[np.floating]) -> str:
    """In which ninth of a map its highest value lies, for those who do not see it.

    >>> strongest(np.eye(3)[::-1] * [0, 0, 1])
    'upper right'
    """
    row, column = np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape)
    vertical = _ROWS[3 * int(row) // anomaly_map.shape[0]]
    horizontal = _COLUMNS[3 * int(column) // anomaly_map.shape[1]]
    return (
        "centre" if (vertical, horizontal) == ("middle", "centre") else f"{vertical} {horizontal}"
    )


def _shrink(photo: Pixels, side: int) -> Pixels:
    image = Image.fromarray(photo)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _thumbnail(photo: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(_shrink(photo, THUMBNAIL_SIDE)).save(buffer, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def write_page(
    path: Path,
    cards: Sequence[PhotoCard],
    scored: Sequence[Scored],
    *,
    subject: str,
    warning: str,
    provenance: Mapping[str, str],
    command: str,
) -> Path:
    """Write the page.

    Args:
        path: the HTML file.
        cards: the photos to show, highest score first.
        scored: all photos, those that could not be scored as well.
        subject: what the photos show, for the title.
        warning: stands first on the page where it is not empty.
        provenance: what made the scores.
        command: what makes them again.
    """
    scores = sorted((photo.score for photo in scored if photo.score is not None), reverse=True)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    body = environment.get_template("photos.html.j2").render(
        cards=cards,
        scores=[round(score, 6) for score in scores],
        median=float(np.median(scores)),
        failed=[(path_text(photo.path), photo.problem) for photo in scored if photo.score is None],
        warning=warning,
        css=Markup((TEMPLATES / "photos.css").read_text(encoding="utf-8")),
    )
    title = f"Photos by score: {subject}" if subject else "Photos by score"
    html = page(
        title,
        body,
        provenance=provenance,
        command=command,
        is_home=True,
        has_record=False,
        script=(TEMPLATES / "photos.js").read_text(encoding="utf-8"),
    )
    return write_text(path, html)
