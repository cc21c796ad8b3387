"""Heat maps over your photos, and one page that shows them by score with a threshold to move."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
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

from clipad_core.clip.image_file import Pixels, read_photo
from clipad_core.errors import ClipadError
from clipad_harness.base.files import replacing, write_text
from clipad_harness.photos.photos import (
    OVERLAY_COMMENT,
    TITLE,
    names_below,
    path_text,
    place_below,
)
from clipad_harness.photos.scoring import SCORE_DIGITS, Scored, Threshold, ranked, without_score
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
    lows, highs = zip(*(photo.extent for photo in scored), strict=True)
    return min(lows), max(highs)


def draw_overlays(
    scored: Sequence[Scored],
    folder: Path,
    value_range: tuple[int, int] | None = None,
    quiet: bool = False,
) -> tuple[list[PhotoCard], dict[Path, Scored]]:
    """Write the overlay of every photo that has a score, highest score first.

    Args:
        scored: photos, those that could not be scored as well.
        folder: to write into.
        value_range: see `clipad_core.read_image`.
        quiet: no progress bar.

    Returns:
        The cards of the page, highest score first, and photos that could not be drawn after they were
        scored, for instance since they went away, with what is wrong.
    """
    done = ranked(scored)
    limits, paths = shared_limits(done), [photo.path for photo in done]
    places = list(zip(done, names_below(paths), place_below(folder, paths, ".jpg"), strict=True))
    cards: list[PhotoCard] = []
    undrawn: dict[Path, Scored] = {}
    for photo, name, file in tqdm(places, "draw", unit="photo", disable=quiet):
        try:
            pixels = _shrink(read_photo(photo.path, value_range).pixels, OVERLAY_SIDE)
            anomaly_map = photo.anomaly_map()
        except ClipadError as error:
            undrawn[photo.path] = without_score(photo, error)
            continue
        heat = overlay(pixels, resize_map(anomaly_map, pixels.shape[:2]), limits=limits)
        with replacing(file) as temporary:
            picture = Image.fromarray(heat)
            picture.save(temporary, format="JPEG", quality=90, comment=OVERLAY_COMMENT)
        if len(cards) < PHOTOS_ON_PAGE:
            card = PhotoCard(
                name=path_text(name),
                score=photo.score or 0.0,
                link=quote(bytes(file.relative_to(folder.parent))),
                photo=_thumbnail(pixels),
                heat_map=_thumbnail(heat),
                where=strongest(anomaly_map),
            )
            cards.append(card)
    return cards, undrawn


def write_maps(scored: Sequence[Scored], folder: Path) -> None:
    """Write the anomaly map of every photo that has a score, as npy."""
    done = ranked(scored)
    places = place_below(folder, [photo.path for photo in done], ".npy")
    for photo, place in zip(done, places, strict=True):
        with replacing(place) as temporary, temporary.open("wb") as file:
            np.save(file, photo.anomaly_map())


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
    failed: Sequence[Scored] = (),
    threshold: Threshold | None = None,
    notes: Sequence[str] = (),
    others: Mapping[str, str] | None = None,
    subject: str,
    warning: str,
    provenance: Mapping[str, str],
    command: str,
) -> Path:
    """Write the page.

    Args:
        path: the HTML file.
        cards: the photos to show, highest score first.
        scored: all photos.
        failed: those that could not be scored.
        threshold: of good photos, where there are some.
        notes: what else is to be said of the photos.
        others: name of what was left out -> why.
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
        scores=[round(score, SCORE_DIGITS) for score in scores],
        threshold=threshold,
        is_highest=threshold is not None and threshold.is_highest,
        bad=sum(threshold.verdict(score) == "bad" for score in scores) if threshold else 0,
        failed=[(path_text(photo.path), photo.problem) for photo in failed],
        notes=notes,
        others=others or {},
        warning=warning,
        css=Markup((TEMPLATES / "photos.css").read_text(encoding="utf-8")),
    )
    title = f"{TITLE}: {subject}" if subject else TITLE
    html = page(
        title,
        body,
        provenance=provenance,
        command=command,
        is_home=True,
        has_record=False,
        script=(TEMPLATES / "photos.js").read_text(encoding="utf-8"),
    )
    return write_text(path, path_text(html))  # class name, weights and command may hold any bytes
