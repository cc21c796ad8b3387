"""Unpacking archives from the network without leaving their folder.

An archive is a list of names that somebody else chose. ``zipfile`` and the ``data`` filter of
``tarfile`` write nothing outside a folder, but they drop or rewrite what they do not like. Here it is
refused: a name that is absolute, climbs with ``..`` or comes twice, and anything but a plain file or
folder. Before anything is written, the archive is read to its end, where formats keep what tells a
whole one from a cut one, all members are looked at and their sizes added up; what describes a member
may take only so many bytes. Everything goes to a scratch folder first and is renamed at the end: after
a failure, nothing is left.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import os
import re
import shutil
import stat
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tqdm.auto import tqdm

from clipad_core.errors import ClipadError
from clipad_harness.base.files import check_regular

_FILE, _FOLDER, _LINK = "file", "folder", "a link or a device"
_ZIP, _ZIP_ENTRY, _ENCRYPTED = b"PK", b"PK\x01\x02", 1
# What a packed tar begins with, and who reads it.
_PACKED: Mapping[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"]\x00\x00": lzma.open,
}
# Archives that are whole, but of a kind that Python does not read, by what they begin with.
_FOREIGN: Mapping[bytes, str] = {
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x28\xb5\x2f\xfd": "an archive packed with Zstandard",
    b"\x04\x22\x4d\x18": "an archive packed with LZ4",
    b"LZIP": "an archive packed with lzip",
    b"\x1f\x9d": "an archive packed with compress",
}
# A header holds a name and a few numbers; no dataset comes near any of these.
_HEADER_BYTES, _MEMBERS, _DEEPEST = 1 << 20, 2_000_000, 100
# Of what an archive says, messages quote so many characters.
_QUOTED = 100
_BLOCK = 1 << 20


@dataclass(frozen=True)
class _Member:
    """A file or folder of an archive; ``write`` puts it below a folder."""

    name: str
    kind: str
    size: int
    write: Callable[[Path], object]


def unpack(archives: Sequence[tuple[Path, str]], target: Path) -> Path:
    """Unpack archives (zip, tar, tar.gz, tar.xz, ...) together into a new folder.

    Args:
        archives: the files, each with the folder inside it whose contents count; "" or a folder
            that is not there: everything counts.
        target: must not exist, or be empty.

    Returns:
        ``target``.

    Raises:
        ClipadError: a target that is not empty, a damaged, cut or empty archive, a member that would
            leave the folder, is a link or a device, comes twice or has a name that the disk does not
            take, or a full disk. Nothing is left then.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ClipadError(
            f"{target}: found something there, expected no such folder or an empty one; move it away."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=target.parent, prefix=f".{target.name}.", suffix=".tmp", ignore_cleanup_errors=True
        ) as scratch:
            whole = Path(scratch, "whole")
            whole.mkdir()
            _check_space([archive for archive, _ in archives], whole)
            for number, (archive, folder) in enumerate(archives):
                place = Path(scratch, str(number))
                place.mkdir()
                _extract(archive, place)
                inner = place / folder
                for path in sorted((inner if inner.is_dir() else place).iterdir()):
                    path.rename(whole / path.name)
            if target.is_dir():
                target.rmdir()
            os.replace(whole, target)
    except OSError as error:
        raise ClipadError(
            f"{target}: cannot be unpacked ({error.strerror or error}), expected a folder that can be "
            "written and space for it; correct that and run again."
        ) from error
    return target


def check_space(name: str, needed: int, folder: Path) -> None:
    """Refuse what is larger than the disk has space, before it is written.

    Args:
        name: what needs the space, for the message.
        needed: in bytes.
        folder: where it is to lie; need not be there yet.

    Raises:
        ClipadError: less space is free.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise ClipadError(
            f"{name}: needs {min(needed, sys.maxsize):,} bytes or more and {free:,} are free in {place}, "
            "expected more space; free some and run again."
        )


def _check_space(archives: Sequence[Path], place: Path) -> None:
    """Refuse archives whose members together are larger than the disk has space."""
    needed = 0
    for archive in archives:
        with _open(archive) as members:
            for member in tqdm(members, f"check {archive.name}", unit="file", delay=2):
                needed += member.size
                check_space(archive.name, needed, place)


def _extract(archive: Path, place: Path) -> None:
    with _open(archive) as members:
        for member in tqdm(members, f"unpack {archive.name}", unit="file", delay=2):
            try:
                _check_place(archive, place, member)
                member.write(place)
            except OSError as error:
                if error.errno is None:  # of a damaged archive, not of the disk
                    raise
                raise ClipadError(
                    f"{archive.name}: its member {_quoted(member.name)} cannot be written "
                    f"({error.strerror}), expected a disk that takes such a name and has space for it; "
                    "correct that, or unpack the archive by hand."
                ) from error


@contextmanager
def _open(archive: Path) -> Iterator[Iterator[_Member]]:
    """The members of a zip or tar file, one after the other, each checked by its name and kind.

    Raises:
        ClipadError: a damaged archive, one that Python does not read, or a member that would leave
            its folder or is no plain file.
    """
    try:
        check_regular(archive)
        with archive.open("rb") as file:
            first = file.read(8)
        if kind := next(
            (words for start, words in _FOREIGN.items() if first.startswith(start)), ""
        ):
            raise _foreign(archive, kind)
        members = _zip_members if first.startswith(_ZIP) else _tar_members
        yield _checked(archive, members(archive, first))
    except ClipadError:
        raise
    except NotImplementedError as error:
        raise _foreign(
            archive, f"a zip file of a kind that Python cannot read ({error})"
        ) from error
    except Exception as error:  # a damaged archive makes its reader raise anything
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's; what gzip and bz2 raise of a damaged file has no number
        raise ClipadError(
            f"{archive}: found no whole archive ({str(error)[: 3 * _QUOTED] or type(error).__name__}), "
            "expected zip or tar; get it again."
        ) from error


def _foreign(archive: Path, kind: str) -> ClipadError:
    return ClipadError(
        f"{archive}: found {kind}, expected a zip or tar file that Python can read; unpack it yourself into "
        "a folder called like the dataset, and say --data and the folder that holds that one."
    )


def _zip_members(archive: Path, _first: bytes) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            # zipfile does not count entries: a wrong length makes the next ones part of a comment.
            if _ZIP_ENTRY in member.comment:
                raise zipfile.BadZipFile(f"a comment of {_quoted(member.filename)} without its end")
            if "\0" in member.orig_filename:  # zipfile cuts the name there
                member.filename = member.orig_filename
            if member.flag_bits & _ENCRYPTED:
                raise _foreign(archive, "an encrypted zip file")
            # Archives made on Windows may hold backslashes, and no mode.
            member.filename = member.filename.replace("\\", "/")
            is_plain = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG)
            kind = _FOLDER if member.is_dir() else _FILE if is_plain else _LINK
            yield _Member(member.filename, kind, member.file_size, partial(opened.extract, member))


def _tar_members(archive: Path, first: bytes) -> Iterator[_Member]:
    if not hasattr(tarfile, "data_filter"):
        raise ClipadError(
            f"{archive}: found Python {sys.version.split()[0]}, which cannot unpack tar files safely, "
            "expected 3.11.4 or newer; run clipad with that, or unpack the file by hand."
        )
    unpacked = next((open_ for start, open_ in _PACKED.items() if first.startswith(start)), open)
    with unpacked(archive, "rb") as file:
        headers = _Headers(file)
        with tarfile.open(fileobj=headers, mode="r:") as opened:
            while (member := opened.next()) is not None:
                # What is no number here tarfile takes for 0.
                if not re.fullmatch("[0-9]{1,20}", size := member.pax_headers.get("size", "0")):
                    raise tarfile.ReadError(f"{_quoted(member.name)} has the size {_quoted(size)}")
                member.name = member.name.replace("\\", "/")
                kind = _FOLDER if member.isdir() else _FILE if member.isreg() else _LINK
                write = partial(opened.extract, member, set_attrs=False, filter="data")
                headers.left = math.inf  # whoever writes the member reads all of it
                yield _Member(member.name, kind, member.size, write)
                headers.left = _HEADER_BYTES
        _check_end(headers.last, file)


def _check_end(last: bytes, file: IO[bytes]) -> None:
    """Read a tar file beyond its last member, to the end of what it is packed in.

    tarfile stops alike at the end of an archive (blocks of zeros; one alone is enough at the end of a
    file), at a damaged header and at the end of a cut file. What follows the blocks is nobody's, as
    long as it is no further member.

    Args:
        last: the block in which tarfile found no member.
        file: at the byte behind it.

    Raises:
        tarfile.ReadError: the archive is damaged or cut, or another one follows it.
    """
    if len(last) < tarfile.BLOCKSIZE or any(last + file.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError("a damaged header, or no mark of the end")
    while block := file.read(_BLOCK):
        for place in range(0, len(block.rstrip(b"\0")), tarfile.BLOCKSIZE):
            if _is_header(block[place : place + tarfile.BLOCKSIZE]):
                raise tarfile.ReadError("members behind the mark of the end")


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


class _Headers(io.BufferedIOBase):
    """A tar file for tarfile, which takes the length of a header from the header itself.

    Long names, extended headers and maps of sparse files are read whole before anybody can look at
    them; between two members so many bytes may be read as headers have.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.left: float = _HEADER_BYTES
        self.last = b""

    def tell(self) -> int:
        """Where the next byte stands."""
        return self.file.tell()

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte."""
        return self.file.seek(place, whence)

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes, where there may be so many; ``last`` keeps them."""
        if size is None or size < 0 or size > self.left:
            raise tarfile.ReadError(f"a header has more than {_HEADER_BYTES:,} bytes")
        self.left -= size
        self.last = self.file.read(size)
        return self.last


def _checked(archive: Path, members: Iterator[_Member]) -> Iterator[_Member]:
    """Members that may be written; the folder itself, as `tar -cf x.tar .` names it, is there already."""
    files = 0
    for number, member in enumerate(members):
        path = PurePosixPath(member.name)
        parts = path.parts
        if not parts and member.name and member.kind == _FOLDER:
            continue
        on_drive = re.match("[A-Za-z]:", member.name)  # of Windows
        outside = not parts or path.is_absolute() or ".." in parts or on_drive
        if "\0" in member.name:
            raise _refuse(archive, member.name, "of a name with a NUL byte")
        if outside:
            raise _refuse(archive, member.name, "outside its folder")
        if member.kind == _LINK:
            raise _refuse(archive, member.name, member.kind)
        if len(parts) > _DEEPEST:
            raise _refuse(archive, member.name, f"more than {_DEEPEST} folders deep")
        if member.size < 0 or number >= _MEMBERS:
            fault = (
                "of a size below zero" if member.size < 0 else f"not among the first {_MEMBERS:,}"
            )
            raise _refuse(archive, member.name, fault)
        files += member.kind == _FILE
        yield member
    if not files:
        raise ClipadError(
            f"{archive}: found no file in it, expected an archive with files; get it again."
        )


def _check_place(archive: Path, place: Path, member: _Member) -> None:
    """Refuse a member that is there already; ``place`` holds what was written before it."""
    path = place / member.name
    if path.parent.is_file() or (path.is_file() if member.kind == _FOLDER else path.exists()):
        raise _refuse(archive, member.name, "there twice")


def _refuse(archive: Path, name: str, fault: str) -> ClipadError:
    return ClipadError(
        f"{archive.name}: found the member {_quoted(name)}, which is {fault}, expected plain files in one "
        "folder. Nothing was unpacked; do not use this archive, get it from its source page."
    )


def _quoted(text: str) -> str:
    """What somebody else wrote, for a message.

    >>> _quoted("a" * 1000)[-7:]
    "aa' ..."
    """
    return f"{text[:_QUOTED]!r}{' ...' if len(text) > _QUOTED else ''}"
