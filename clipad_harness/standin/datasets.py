"""The procedural datasets of the embedded default, drawn to disk in the MVTec layout.

`synthetic_auxiliary` and `synthetic_target` share no category, and the target shows two defects
that nothing else shows. The pictures come from `clipad_harness.standin.drawing`; nothing in them is
anybody's photograph.

    <root>/<name>/manifest.json
    <root>/<name>/<category>/train/good/000.png
    <root>/<name>/<category>/test/{good,<defect>}/000.png
    <root>/<name>/<category>/ground_truth/<defect>/000_mask.png    0 or 255, one channel
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from clipad_core.errors import ClipadError
from clipad_harness.base.files import replacing
from clipad_harness.base.settings import read_synthetic
from clipad_harness.standin import drawing
from clipad_harness.standin.drawing import AUXILIARY, TARGET, defects_of, draw_pair, draw_sound

DATASETS: dict[str, tuple[str, ...]] = {
    "synthetic_auxiliary": AUXILIARY,
    "synthetic_target": TARGET,
}
MANIFEST, PLAN = "manifest.json", "unfinished.json"


@dataclass(frozen=True)
class Parameters:
    """Everything the pixels of a dataset depend on."""

    name: str
    seed: int
    image_size: int
    train_good: int
    test_good: int
    test_damaged: int
    drawing: str  # digest of the drawing code

    def __post_init__(self) -> None:
        if self.name not in DATASETS:
            raise ClipadError(
                f"name: found {self.name!r}, expected one of {', '.join(DATASETS)}; choose one "
                "of these."
            )
        for field, least in (
            ("seed", 0),
            ("image_size", 48),
            ("train_good", 1),
            ("test_good", 1),
            ("test_damaged", 1),
        ):
            value = getattr(self, field)
            if not isinstance(value, int) or value < least:
                raise ClipadError(
                    f"{field}: found {value!r}, expected a whole number of at least {least}; "
                    "raise it."
                )


@dataclass(frozen=True)
class Shot:
    """One image to draw; `defect` is "good" for a sound one."""

    category: str
    split: str
    defect: str
    number: int

    @property
    def image(self) -> Path:
        """Where the image lies, below the dataset."""
        return Path(self.category, self.split, self.defect, f"{self.number:03d}.png")

    @property
    def mask(self) -> Path | None:
        """Where its mask lies; None for a sound image."""
        if self.defect == "good":
            return None
        return Path(self.category, "ground_truth", self.defect, f"{self.number:03d}_mask.png")

    def seed(self, dataset_seed: int) -> int:
        """A seed of its own for every image of every dataset seed."""
        text = f"{dataset_seed}/{self.image.as_posix()}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def draw_dataset(
    root: Path,
    name: str,
    *,
    seed: int,
    image_size: int,
    train_good: int,
    test_good: int,
    test_damaged: int,
    progress: bool = True,
) -> Path:
    """Draw one procedural dataset to `root / name` and return that folder.

    The same arguments give the same bytes. A finished dataset is recognised by its manifest and
    left alone; an interrupted one is taken up where it stopped; one of other parameters, of an
    older drawing code or with changed files is drawn anew.

    Args:
        root: folder of the datasets, created if absent.
        name: `synthetic_auxiliary` or `synthetic_target`.
        seed: at least 0.
        image_size: side of the square images in pixels, at least 48.
        train_good: sound training images a category.
        test_good: sound test images a category.
        test_damaged: damaged test images a category, spread evenly over its defects.
        progress: show a bar.

    Raises:
        ClipadError: an unknown name, a number out of range, or a folder there that is not ours.
    """
    parameters = Parameters(
        name, seed, image_size, train_good, test_good, test_damaged, drawing_digest()
    )
    folder = Path(root) / name
    if _is_finished(folder, parameters):
        return folder
    _prepare(folder, parameters)
    shots = list(plan(parameters))
    for shot in tqdm(shots, desc=f"drawing {name}", unit="image", disable=not progress):
        _draw(folder, shot, parameters)
    manifest = {
        "parameters": asdict(parameters),
        "images": len(shots),
        "content_hash": content_hash(folder),
    }
    _write(folder / MANIFEST, _json(manifest))
    (folder / PLAN).unlink()
    return folder


def plan(parameters: Parameters) -> Iterator[Shot]:
    """Every image of a dataset, category by category."""
    for category in DATASETS[parameters.name]:
        for number in range(parameters.train_good):
            yield Shot(category, "train", "good", number)
        for number in range(parameters.test_good):
            yield Shot(category, "test", "good", number)
        defects = defects_of(category)
        for index in range(parameters.test_damaged):
            number, place = divmod(index, len(defects))
            yield Shot(category, "test", defects[place], number)


def content_hash(folder: Path) -> str:
    """SHA-256 over the relative paths and bytes of all PNG files below a folder.

    Pixels are the same on every processor (`clipad_harness.standin.drawing.exact`), and so are these bytes:
    PNG's filters are chosen by integer sums, and Z_RLE looks for runs only, without the hash chains
    that versions of zlib for newer processors build otherwise. Another release of zlib may cut
    blocks elsewhere; Pillow's wheels bring their own.
    """
    digest = hashlib.sha256()
    files = sorted((p.relative_to(folder).as_posix(), p) for p in Path(folder).rglob("*.png"))
    for relative, path in files:
        digest.update(relative.encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def drawing_digest() -> str:
    """SHA-256 of the drawing code, so that a dataset of older code is seen as stale."""
    digest = hashlib.sha256()
    for path in sorted(Path(drawing.__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _is_finished(folder: Path, parameters: Parameters) -> bool:
    manifest = _read_json(folder / MANIFEST)
    return (
        manifest is not None
        and manifest.get("parameters") == asdict(parameters)
        and manifest.get("content_hash") == content_hash(folder)
    )


def _prepare(folder: Path, parameters: Parameters) -> None:
    """Make room: keep what an interrupted run of the same parameters left, else start empty."""
    if _read_json(folder / PLAN) == asdict(parameters) and not (folder / MANIFEST).exists():
        return
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MANIFEST).exists() and not (folder / PLAN).exists():
            raise ClipadError(
                f"{folder}: found files but neither {MANIFEST} nor {PLAN}, expected an empty "
                "folder or a procedural dataset; move the files away or choose another root."
            )
        # The plan stays until the end, so that a kill while emptying leaves a folder of ours.
        _write(folder / PLAN, _json({"emptying": parameters.name}))
        (folder / MANIFEST).unlink(missing_ok=True)
        for child in sorted(folder.iterdir()):
            if child.is_dir():
                shutil.rmtree(child)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / PLAN, _json(asdict(parameters)))


def _draw(folder: Path, shot: Shot, parameters: Parameters) -> None:
    """Draw one image unless it is there; its mask is written first, so an image has its mask."""
    if (folder / shot.image).exists():
        return
    seed, size = shot.seed(parameters.seed), parameters.image_size
    if shot.mask is None:
        _write(folder / shot.image, _png(draw_sound(shot.category, seed, size)))
        return
    pair = draw_pair(shot.category, seed, size, shot.defect)
    _write(folder / shot.mask, _png(pair.mask.astype(np.uint8) * np.uint8(255)))
    _write(folder / shot.image, _png(pair.damaged))


def _png(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    # On the grain of a photograph runs compress as well as zlib's search, in two fifths of its time.
    Image.fromarray(pixels).save(buffer, format="PNG", compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def _json(content: dict[str, object]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _read_json(path: Path) -> dict[str, object] | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise ClipadError(
            f"{path}: found text that is not JSON ({error}), expected a manifest; delete the "
            "folder and draw it again."
        ) from error
    return content


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def draw(root: Path, name: str) -> Path:
    """Stage `draw`: one drawn dataset, a number of images a category from params.yaml."""
    size = read_synthetic(root)
    return draw_dataset(
        root / "data" / "synthetic",
        name,
        seed=size.seed,
        image_size=size.image_size,
        train_good=size.train_good,
        test_good=size.test_good,
        test_damaged=size.test_damaged,
    )
