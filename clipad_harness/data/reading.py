"""One pass over a dataset's folder: the rows that are found, and everything that is wrong with it.

The layouts (`clipad_harness.data.layouts`) say where images and masks lie; what is the same for all of
them lives here: listing in one order, headers, pairing of image and mask by name, problems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clipad_core.clip.image_file import LONGEST_SIDE_RATIO
from clipad_core.errors import ClipadError
from clipad_harness.base.files import check_regular
from clipad_harness.data.images import SUFFIXES, image_size
from clipad_harness.data.litter import is_document, is_litter


class Reading:
    """Collects the rows and the problems of one dataset.

    Args:
        root: the dataset's folder.
        folders: the names that its card gives to the layout.
        masked: whether every anomalous image has a mask.
        headers: whether to open the files; without, only names are read.

    Attributes:
        rows, problems: what is found, and sentences on what is wrong with it.
        left_out: anomalous training images.
        listed: every image and mask of the folders that the layout looks into.
    """

    def __init__(
        self, root: Path, folders: Mapping[str, Any], masked: bool = True, headers: bool = True
    ) -> None:
        self.root, self.folders, self.masked, self.headers = root, folders, masked, headers
        self.rows: list[dict[str, object]] = []
        self.problems: list[str] = []
        self.left_out: list[str] = []
        self.listed: set[Path] = set()
        self._rows_of: set[Path] = set()
        self._sizes: dict[Path, tuple[int, int]] = {}
        self._tables: dict[str, pd.DataFrame] = {}

    def images(self, folder: Path, beside: Sequence[str] = ()) -> list[Path]:
        """The images of a folder, sorted by code point; what else lies there is a problem.

        Texts and the folders named in ``beside`` are no problem.
        """
        paths = []
        for path in entries(folder) if folder.is_dir() else []:
            if path.is_dir():
                if path.name not in beside:
                    self.problem(path, "a folder")
            elif path.suffix.lower() in SUFFIXES:
                self.listed.add(path)
                paths += [path] if self._readable(path) else []
            elif not is_document(path.name):
                self.problem(path, "no image by its name")
        return paths

    def image_folders(self, folder: Path) -> list[Path]:
        """The folders of a folder, sorted, each with the images of one mask; all else is a problem."""
        folders = folders_of(folder)
        for path in self.images(folder, [inner.name for inner in folders]):
            self.problem(path, "no folder of masks")
        for inner in folders:
            paths = self.images(inner)
            sizes = {self._sizes[path] for path in paths if path in self._sizes}
            if not paths:
                self.problem(inner, "no masks in it")
            elif len(sizes) > 1:
                self.problem(inner, "masks of different sizes")
            elif sizes:
                self._sizes[inner] = sizes.pop()
        return folders

    def place(self, names: Sequence[str]) -> Path:
        """The first of these folders that exists; none of them is a problem."""
        for name in names:
            if (self.root / name).is_dir():
                return self.root / name
        self.problem(self.root / names[0], "no such folder")
        return self.root / names[0]

    def table(self, name: str, columns: Sequence[str]) -> pd.DataFrame:
        """A table as `read_table` gives it; a missing or a foreign one is a problem and has no rows."""
        if name not in self._tables:
            try:
                self._tables[name] = read_table(self.root / name, columns)
            except ClipadError as error:
                self._tables[name] = pd.DataFrame(columns=list(columns))
                self.problem(self.root / name, _finding(error, self.root / name))
        return self._tables[name]

    def pair(
        self, images: list[Path], masks: list[Path], names: Sequence[str], place: Path | None
    ) -> dict[Path, Path]:
        """The mask of every image, by name; sizes are compared, and what is left over is a problem.

        Args:
            images, masks: as `images` lists them.
            names: what the stem of a mask may be, with ``{}`` for the stem of its image.
            place: where every image must have its mask; None where an image may have none.
        """
        by_stem: dict[str, list[Path]] = {}
        for mask in masks:
            by_stem.setdefault(mask.stem, []).append(mask)
        pairs: dict[Path, Path] = {}
        owners: dict[Path, Path] = {}
        for image in images:
            stems = [name.format(image.stem) for name in names]
            matching = sorted((m for stem in stems for m in by_stem.get(stem, ())), key=str)
            for mask in matching:
                if mask in owners:
                    message = f"mask of two images, {owners[mask].name} and {image.name}"
                    self.problem(mask, message)
                owners[mask] = image
            if len(matching) == 1:
                pairs[image] = matching[0]
                self.compare(image, matching[0])
            elif matching:
                self.problem(image, f"two masks, {' and '.join(mask.name for mask in matching)}")
            elif place is not None:
                self.problem(image, f"no mask in {self.name(place)}")
        for mask in masks:
            if mask not in owners:
                self.problem(mask, "mask without an image")
        return pairs

    def compare(self, image: Path, mask: Path) -> None:
        """A mask of another size than its image is a problem."""
        if image not in self._sizes or mask not in self._sizes:
            return
        (height, width), (rows, columns) = self._sizes[image], self._sizes[mask]
        if (height, width) != (rows, columns):
            message = f"mask of {rows} x {columns} pixels for an image of {height} x {width}"
            self.problem(mask, message)

    def row(
        self, category: str, split: str, defect: str, image: Path, mask: Path | None = None
    ) -> None:
        """One image: ``defect`` is ``good`` for a normal one.

        An image that a table lists twice is a problem, and counts once. Anomalous training images
        are ``left_out``: what a method refers to or calls normal is normal, in every layout.
        """
        if image in self._rows_of:
            self.problem(image, "listed twice")
            return
        self._rows_of.add(image)
        if split == "train" and defect != "good":
            self.left_out.append(self.name(image))
            return
        self.rows.append(
            {
                "category": category,
                "split": split,
                "defect": defect,
                "label": int(defect != "good"),
                "image": self.name(image),
                "mask": self.name(mask) if mask is not None else "",
            }
        )

    def name(self, path: Path) -> str:
        """A path below the root, with slashes."""
        return path.relative_to(self.root).as_posix()

    def problem(self, path: Path, message: str) -> None:
        """Note what is wrong with a file or a folder."""
        name = path.as_posix().removeprefix(f"{self.root.as_posix()}/")
        self.problems.append(f"{printable(name)}: {message}")

    def _readable(self, path: Path) -> bool:
        """Notes a file that is no image; it stays among the images, so that its mask is not alone."""
        try:
            path.name.encode()
        except UnicodeEncodeError:
            self.problem(path, "its name is not UTF-8")
            return False
        if self.headers:
            try:
                self._sizes[path] = size = image_size(path)
                if max(size) > LONGEST_SIDE_RATIO * min(size):
                    self.problem(path, f"one side more than {LONGEST_SIDE_RATIO} times the other")
            except ClipadError as error:
                self.problem(path, _finding(error, path))
        return True


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a table of texts, with or without a byte order mark.

    Spaces around the names of columns are removed (HeadCT's second column is `` hemorrhage``).

    Args:
        path: of a file in UTF-8, commas between its columns.
        columns: those that it must have.

    Raises:
        ClipadError: no such file, no table, or one that lacks a column.
    """
    check_regular(path)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ClipadError(f"{path}: no such file, expected a table; get it again.") from error
    except (OSError, ValueError) as error:
        fault = str(error).strip().rpartition("C error: ")[2] or type(error).__name__
        raise ClipadError(
            f"{path}: no readable table ({fault}), expected UTF-8 and commas between the columns "
            f"{', '.join(columns)}; save it so."
        ) from error
    table.columns = table.columns.str.strip()
    if set(columns) <= set(table.columns):
        return table
    fault = f"columns {', '.join(table.columns)} instead of {', '.join(columns)}"
    for mark, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(table.columns) == 1 and mark in table.columns[0]:
            fault = f"{word} between its columns instead of commas"
    raise ClipadError(
        f"{path}: {fault}, expected the columns {', '.join(columns)} with commas between them; save it so."
    )


def _finding(error: ClipadError, path: Path) -> str:
    """What a message about a file says of it, without what was expected."""
    return str(error).removeprefix(f"{path}: ").split(", expected")[0]


def printable(name: str) -> str:
    r"""A name that any terminal and file can take: bytes that are no UTF-8 are written as escapes.

    >>> printable("caf\udce9.png")
    'caf\\udce9.png'
    """
    return name.encode("utf-8", "backslashreplace").decode()


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted by code point, without litter (`is_litter`)."""
    try:
        paths = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise ClipadError(
            f"{folder}: cannot be listed ({error.strerror or error}), expected a readable folder; "
            "correct its permissions."
        ) from error
    return [path for path in paths if not is_litter(path.name)]


def folders_of(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by code point."""
    if not folder.is_dir():
        return []
    return [path for path in entries(folder) if path.is_dir()]
