"""Your own photos: what files, folders and patterns name, and names for what is written about them."""

from __future__ import annotations

import glob
import hashlib
import mimetypes
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from PIL import Image

from clipad_core.clip.image_file import is_image, photo_formats
from clipad_core.errors import ClipadError
from clipad_harness.data.reading import entries

# What is written into the folder of `--out`.
TABLE, PAGE, OVERLAYS, MAPS = "scores.csv", "index.html", "overlays", "maps"
# By these a result is known for one, wherever it was moved and however it was renamed since.
TITLE, OVERLAY_COMMENT = "Photos by score", b"a heat map that `clipad score` drew"
_TABLE_HEADS = (b"file,score,problem\n", b"file,score,verdict,problem\n")
_PAGE_HEAD = re.compile(rb"<title>" + TITLE.encode() + rb"[^<]* clipad</title>")
# Python's own table: what a system adds to it differs from machine to machine.
_TYPES = mimetypes.MimeTypes()
_ARRAY = b"\x93NUMPY"
_MAP_HEAD = re.compile(
    rb"\x93NUMPY.{4}\{'descr': '<f4', 'fortran_order': False, 'shape': \(\d+, \d+\), \}", re.DOTALL
)
# In a pattern: any folders, none as well.
_ANY_FOLDERS = "**"
# A file's name may have 255 bytes on every common system; a temporary one has some more.
_LONGEST_NAME = 200


@dataclass(frozen=True)
class PhotoFiles:
    """What some files, folders and patterns hold.

    Attributes:
        photos: what is to be scored, each once, in order.
        unlisted: folders that could not be searched, and why.
        others: files that are no images, and why; of a folder that holds no photo but results of an
            earlier run or arrays, the folder.
    """

    photos: list[Path] = field(default_factory=list)
    unlisted: dict[Path, str] = field(default_factory=dict)
    others: dict[Path, str] = field(default_factory=dict)


def find_photos(words: Sequence[str], skip: Path | None = None, name: str = "photos") -> PhotoFiles:
    """The photos that files, folders (with all below them) and patterns name.

    Of a folder every file is taken that is an image by its content or its name, and one that is neither
    a text nor known to be something else: whoever reads them says which cannot be read. Linked folders
    are followed, each once; names that begin with a dot, litter of file managers, and what an earlier run
    wrote are no photos, and no pattern matches them.

    Args:
        words: as on the command line; a file is taken whatever it is. In patterns ``**`` stands for any
            folders, and a name that exists as it is written is meant, too: ``line[1]/*.jpg``.
        skip: a folder that is never searched: what is written there is no input.
        name: what messages call the words.

    Raises:
        ClipadError: a word that names nothing, or a folder without photos.
    """
    search = _Search(None if skip is None else os.path.realpath(skip))
    photos: dict[tuple[Path, str], Path] = {}
    for word in words:
        paths = search.photos(word)
        if not paths:
            raise ClipadError(f"{name}: {search.nothing_at(Path(word))}")
        for path in paths:
            photos.setdefault((path.parent.resolve(), path.name), path)
    paths = list(photos.values())
    return PhotoFiles(paths, search.unlisted, search.others(paths))


class _Search:
    """Finds photos word by word, and remembers what it did not take.

    Args:
        skip: a folder that is never searched, as its links resolve.
    """

    def __init__(self, skip: str | None) -> None:
        self.skip = skip
        self.unlisted: dict[Path, str] = {}
        self._no_images: dict[Path, str] = {}
        self._results: dict[Path, str] = {}
        # Folders, as their links resolve, and the rest of the pattern that was looked for there.
        self._searched: set[tuple[Path, tuple[str, ...]]] = set()

    def photos(self, word: str) -> list[Path]:
        """The photos that a word names, in the order of their names."""
        path = Path(word)
        self._searched.clear()  # what two words name, each of them names
        if path.is_dir():
            photos = self._below(path)
        elif path.exists() or path.is_symlink():
            photos = [path]
        elif glob.has_magic(word):
            # A slash at the end: folders alone.
            end = (_ANY_FOLDERS,) if word.endswith(os.sep) else ()
            parts = path.relative_to(path.anchor).parts + end
            photos = []
            for match in self._matches(Path(path.anchor), parts):
                photos += self._below(match) if match.is_dir() else self._if_photo(match)
        else:
            photos = []
        return sorted(photos, key=os.fsencode)

    def others(self, photos: Sequence[Path]) -> dict[Path, str]:
        """What was not taken, and why: results and arrays by their folder, where no photo lies in it."""
        with_photos = {folder for path in photos for folder in path.parents}
        others = dict(self._no_images)
        for path, reason in self._results.items():
            others.setdefault(path if path.parent in with_photos else path.parent, reason)
        return others

    def nothing_at(self, path: Path) -> str:
        """What is to be said of a word that names no photo."""
        for place in (path, path.parent):
            if place in self.unlisted:
                return f"{path_text(place)}: {self.unlisted[place]}"
        problem = "a folder without photos" if path.is_dir() else "no such file, folder or match"
        folder, others = path if path.is_dir() else path.parent, self.others([])
        if folder in others:
            problem += f" ({path_text(folder)}: {others[folder]})"
        advice = "correct the path"
        if "[" in path_text(path):
            advice += " (in a pattern [ab] is one letter, a or b; a bracket itself is written [[])"
        return (
            f"found {problem} at {path_text(path)}, expected images "
            f"({', '.join(photo_formats())}); {advice}."
        )

    def _matches(self, folder: Path, parts: tuple[str, ...]) -> list[Path]:
        """What a pattern names below a folder: of what a search of that folder would list."""
        if not parts:
            return [folder]
        if not folder.is_dir():
            return []
        name, rest = parts[0], parts[1:]
        if name == _ANY_FOLDERS:
            if self._is_searched(folder, parts):
                return []
            if not rest:  # all below it
                return [folder]
            folders = [path for path in self._entries(folder) if path.is_dir()]
            return self._matches(folder, rest) + [
                match for path in folders for match in self._matches(path, parts)
            ]
        paths = [folder / name] if os.path.lexists(folder / name) else []
        if glob.has_magic(name):
            paths += [
                path
                for path in self._entries(folder)
                if fnmatch(path.name, name) and path not in paths
            ]
        return [match for path in paths for match in self._matches(path, rest)]

    def _below(self, folder: Path) -> list[Path]:
        photos = []
        for path in [] if self._is_searched(folder) else self._entries(folder):
            photos += self._below(path) if path.is_dir() else self._if_photo(path)
        return photos

    def _is_searched(self, folder: Path, parts: tuple[str, ...] = ()) -> bool:
        """Whether a folder was searched for something before, under whatever name; it is from now on."""
        place = folder.resolve(), parts
        is_searched = place in self._searched
        self._searched.add(place)
        return is_searched

    def _entries(self, folder: Path) -> list[Path]:
        """What lies in a folder, without the one that is never searched; links come last.

        So a folder is searched under its own name rather than under that of a link to it.
        """
        try:
            paths = entries(folder)
        except ClipadError as error:
            self.unlisted[folder] = str(error).removeprefix(f"{folder}: ")
            return []
        paths = [p for p in paths if not p.is_dir() or os.path.realpath(p) != self.skip]
        return sorted(paths, key=lambda path: path.is_symlink())

    def _if_photo(self, path: Path) -> list[Path]:
        head = _head(path)
        if _is_result(head):
            self._results[path] = "an earlier run wrote it"
        elif head is not None and head.startswith(_ARRAY):
            self._results[path] = "arrays, no images"
        elif _may_be_photo(path, head):
            return [path]
        else:
            self._no_images[path] = "no image"
        return []


def check_output(folder: Path) -> None:
    """Refuse a folder in which results would replace what somebody else put there.

    Raises:
        ClipadError: a file instead of the folder; a table or a page that `clipad score` did not write; a
            link or a file where a folder of results belongs; a path that is no text.
    """
    if path_text(folder) != str(folder):  # safetensors would read nothing of what it wrote there
        raise ClipadError(
            f"--out: found bytes that are no UTF-8 in {path_text(folder)}, expected a path of letters; "
            "choose another."
        )
    if folder.exists() and not folder.is_dir():
        raise ClipadError(
            f"--out: found a file at {path_text(folder)}, expected a folder; choose another name."
        )
    foreign = [path for path in (folder / TABLE, folder / PAGE) if not _is_result(_head(path))]
    inner = [folder / OVERLAYS, folder / MAPS]
    foreign += [path for path in inner if path.is_symlink() or not path.is_dir()]
    for path in foreign:
        if path.exists() or path.is_symlink():
            raise ClipadError(
                f"--out: found {path_text(path)}, which `clipad score` did not write, expected a new folder "
                "or one with its earlier results; choose another."
            )


def clear_results(folder: Path, inputs: Sequence[Path]) -> None:
    """Remove what an earlier run wrote into a folder: it would not belong to the scores of the next one.

    Files are known by what they hold, and stay where they hold anything else.

    Args:
        folder: as `check_output` has passed it.
        inputs: files that the next run reads, which stay too.

    Raises:
        ClipadError: a file that cannot be removed.
    """
    read = {os.path.realpath(path) for path in inputs}
    folders = [
        Path(parent)
        for name in (OVERLAYS, MAPS)
        for parent, _, _ in os.walk(folder / name, topdown=False)
    ]
    try:
        for path in [folder / PAGE, *(path for parent in folders for path in parent.iterdir())]:
            head = None if path.is_symlink() or os.path.realpath(path) in read else _head(path)
            if _is_result(head) or (head is not None and _MAP_HEAD.match(head)):
                path.unlink()
        for parent in folders:
            if not any(parent.iterdir()):
                parent.rmdir()
    except OSError as error:
        raise ClipadError(
            f"--out: {path_text(error.filename)} of an earlier run cannot be removed "
            f"({error.strerror}), expected a folder to write into; choose another."
        ) from error


def _head(path: Path) -> bytes | None:
    """How a file begins; None: it cannot be read."""
    try:
        if not path.is_file():  # a pipe would be waited for, for ever
            return None
        with path.open("rb") as file:
            return file.read(4096)
    except OSError:
        return None


def _is_result(head: bytes | None) -> bool:
    """Whether `clipad score` wrote a file that begins so: a table, a page or a heat map."""
    return head is not None and (
        head.startswith(_TABLE_HEADS)
        or OVERLAY_COMMENT in head
        or _PAGE_HEAD.search(head) is not None
    )


def _may_be_photo(path: Path, head: bytes | None) -> bool:
    """Whether a file is an image by name or content, or nobody knows what: whoever reads it will say."""
    kind = _TYPES.guess_type(path.name)[0] or ""
    if kind.startswith("image/") or is_image(path):
        return True
    if kind:
        return False
    is_known = Image.registered_extensions().get(path.suffix.lower()) is not None
    return head is None or is_known or not _is_text(head)


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # a letter that the end of the piece cuts in two
    return True


def path_text(path: Path | str) -> str:
    r"""A path as text that every file and page can hold: bytes that are no UTF-8 become \xNN.

    >>> path_text(Path("caf\udce9.png"))
    'caf\\xe9.png'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def line_text(path: Path) -> str:
    r"""A path on one line, of which a terminal obeys nothing.

    >>> line_text(Path("two\nlines.png"))
    'two\\nlines.png'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in path_text(path))


def by_name(problems: Mapping[Path, str]) -> dict[str, str]:
    """What is wrong with files, each by its path below the folder that all have in common.

    >>> by_name({Path("p/a/1.jpg"): "empty", Path("p/b/1.jpg"): "no image"})
    {'a/1.jpg': 'empty', 'b/1.jpg': 'no image'}
    """
    names = map(path_text, names_below(list(problems)))
    return dict(zip(names, problems.values(), strict=True))


def names_below(paths: Sequence[Path]) -> list[Path]:
    """Of every photo its path below the folder that all have in common, however they were named.

    >>> names_below([Path("p/a/1.jpg"), Path("q/../p/b/1.jpg")])
    [PosixPath('a/1.jpg'), PosixPath('b/1.jpg')]
    """
    if not paths:
        return []
    whole = [os.path.abspath(path) for path in paths]
    base = os.path.commonpath([os.path.dirname(path) for path in whole])
    return [Path(os.path.relpath(path, base)) for path in whole]


def place_below(folder: Path, paths: Sequence[Path], suffix: str) -> list[Path]:
    """A file in ``folder`` for every photo, each another; names that are too long are shortened.

    >>> place_below(Path("out"), [Path("p/a/1.jpg"), Path("p/b/1.jpg")], ".npy")
    [PosixPath('out/a/1.jpg.npy'), PosixPath('out/b/1.jpg.npy')]
    """
    places: dict[str, Path] = {}
    for path, below in zip(paths, names_below(paths), strict=True):
        place = folder / below.with_name(_short(below.name, suffix))
        while os.path.normcase(place).casefold() in places:
            mark = hashlib.sha256(os.fsencode(path) + bytes(place)).hexdigest()[:8]
            place = place.with_name(_short(f"{mark}-{below.name}", suffix))
        places[os.path.normcase(place).casefold()] = place
    return list(places.values())


def _short(name: str, suffix: str) -> str:
    """A name with a suffix; of one that is too long the beginning, and a hash of the whole."""
    whole = os.fsencode(name)
    if len(whole) + len(suffix) <= _LONGEST_NAME:
        return name + suffix
    mark = hashlib.sha256(whole).hexdigest()[:8]
    beginning = whole[: _LONGEST_NAME - len(suffix) - 9].decode("utf-8", "ignore")
    return f"{beginning}-{mark}{suffix}"
