"""Unpacking archives from the network without leaving their folder.

An archive is a list of names that somebody else chose. Nothing is written for a name that is
absolute, climbs with ``..``, or is anything but a plain file or folder (a link could point
anywhere, and the next member be written through it). Everything goes to a scratch folder first and
is renamed at the end: after a failure, nothing is left.
"""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tqdm.auto import tqdm

from clipad_core.errors import ClipadError

_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError)


class _Member(NamedTuple):
    name: str
    kind: str  # "file", "folder" or what it is instead
    size: int
    content: AbstractContextManager[IO[bytes]] | None


def unpack(archives: Sequence[tuple[Path, str]], target: Path) -> Path:
    """Unpack archives (zip, tar, tar.gz, tar.xz, ...) together into a new folder.

    Args:
        archives: the files, each with the folder inside it whose contents count; "" or a folder
            that is not there: everything counts.
        target: must not exist, or be empty.

    Returns:
        ``target``.

    Raises:
        ClipadError: a target that is not empty, a damaged archive, a member that would leave the
            folder, is a link or a device, or comes twice, or a full disk. Nothing is left then.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ClipadError(
            f"{target}: found something there, expected no such folder or an empty one; move it away."
        )
    scratch = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(
            tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        )
        whole = scratch / "whole"
        whole.mkdir()
        for number, (archive, folder) in enumerate(archives):
            place = scratch / str(number)
            place.mkdir()
            _extract(archive, place)
            inner = place / folder
            for path in sorted((inner if inner.is_dir() else place).iterdir()):
                path.rename(whole / path.name)
        if target.is_dir():
            target.rmdir()
        os.replace(whole, target)
        target.chmod(0o755)
    except OSError as error:
        raise ClipadError(
            f"{target}: cannot be unpacked ({error.strerror or error}), expected a folder that can be "
            "written and space for it; correct that and run again."
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


def _extract(archive: Path, place: Path) -> None:
    try:
        bar = tqdm(_members(archive), f"unpack {archive.name}", unit="file", delay=2)
        for member in bar:
            path = _inside(member.name, place, archive)
            if member.kind == "folder":
                path.mkdir(parents=True, exist_ok=True)
                continue
            if member.kind != "file" or member.content is None:
                raise _refuse(archive, member.name, member.kind)
            free = shutil.disk_usage(place).free
            if member.size > free:
                raise ClipadError(
                    f"{archive.name}: {member.name!r} has {member.size} bytes and {free} are free, "
                    "expected more space; free some and run again."
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            with member.content as source, path.open("xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
    except FileExistsError as error:
        name = Path(str(error.filename)).relative_to(place).as_posix()
        raise _refuse(archive, name, "there twice") from error
    except _BROKEN as error:
        raise ClipadError(
            f"{archive}: found no whole archive ({error}), expected zip or tar; get it again."
        ) from error


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                kind = _kind(info.external_attr >> 16, info.is_dir())
                yield _Member(info.filename, kind, info.file_size, opened.open(info))
        return
    with tarfile.open(archive, "r:*") as packed:
        for one in packed:
            kind = "file" if one.isreg() else "folder" if one.isdir() else "a link or a device"
            content = packed.extractfile(one) if kind == "file" else None
            yield _Member(one.name, kind, one.size, closing(content) if content else None)


def _kind(mode: int, folder: bool) -> str:
    """What a zip member is; those made on Windows have no mode."""
    if folder:
        return "folder"
    plain = stat.S_IFMT(mode) in (0, stat.S_IFREG)
    return "file" if plain else "a link or a device"


def _inside(name: str, place: Path, archive: Path) -> Path:
    """Where a member goes; archives made on Windows may hold backslashes."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0].startswith("/") or ".." in parts or ":" in parts[0] or "\0" in name:
        raise _refuse(archive, name, "outside its folder")
    return place.joinpath(*parts)


def _refuse(archive: Path, name: str, what: str) -> ClipadError:
    return ClipadError(
        f"{archive.name}: found the member {name!r}, which is {what}, expected plain files in one "
        "folder. Nothing was unpacked; do not use this archive, get it from its source page."
    )
