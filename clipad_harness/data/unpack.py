"""Unpacking archives from the network without leaving their folder.

An archive is a list of names that somebody else chose. ``zipfile`` and the ``data`` filter of
``tarfile`` write nothing outside a folder, but they drop or rewrite what they do not like. Here it is
refused: a name that is absolute, climbs with ``..`` or comes twice, and anything but a plain file or
folder. Everything goes to a scratch folder first and is renamed at the end: after a failure, nothing
is left.
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
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tqdm.auto import tqdm

from clipad_core.errors import ClipadError

_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError)
_LINK = "a link or a device"


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
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=target.parent, prefix=f".{target.name}.", suffix=".tmp", ignore_cleanup_errors=True
        ) as scratch:
            whole = Path(scratch, "whole")
            whole.mkdir()
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


def _extract(archive: Path, place: Path) -> None:
    try:
        if zipfile.is_zipfile(archive):
            _extract_zip(archive, place)
        else:
            _extract_tar(archive, place)
    except _BROKEN as error:
        raise ClipadError(
            f"{archive}: found no whole archive ({error}), expected zip or tar; get it again."
        ) from error


def _extract_zip(archive: Path, place: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        for member in tqdm(opened.infolist(), f"unpack {archive.name}", unit="file", delay=2):
            # Archives made on Windows may hold backslashes, and no mode.
            member.filename = member.filename.replace("\\", "/")
            is_plain = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG)
            kind = "folder" if member.is_dir() else "file" if is_plain else _LINK
            _check(archive, place, member.filename, kind, member.file_size)
            opened.extract(member, place)


def _extract_tar(archive: Path, place: Path) -> None:
    with tarfile.open(archive, "r:*") as opened:
        for member in tqdm(opened, f"unpack {archive.name}", unit="file", delay=2):
            member.name = member.name.replace("\\", "/")
            kind = "folder" if member.isdir() else "file" if member.isreg() else _LINK
            _check(archive, place, member.name, kind, member.size)
            opened.extract(member, place, set_attrs=False, filter="data")


def _check(archive: Path, place: Path, name: str, kind: str, size: int) -> None:
    """Refuse a member before it is written; ``place`` holds what was written before it."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0].startswith("/") or ".." in parts or ":" in parts[0] or "\0" in name:
        raise _refuse(archive, name, "outside its folder")
    if kind == _LINK:
        raise _refuse(archive, name, kind)
    path, free = place.joinpath(*parts), shutil.disk_usage(place).free
    if path.parent.is_file() or (path.is_file() if kind == "folder" else path.exists()):
        raise _refuse(archive, name, "there twice")
    if size > free:
        raise ClipadError(
            f"{archive.name}: {name!r} has {size} bytes and {free} are free, expected more space; free "
            "some and run again."
        )


def _refuse(archive: Path, name: str, fault: str) -> ClipadError:
    return ClipadError(
        f"{archive.name}: found the member {name!r}, which is {fault}, expected plain files in one "
        "folder. Nothing was unpacked; do not use this archive, get it from its source page."
    )
