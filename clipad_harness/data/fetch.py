"""Getting a dataset from its publisher: download with resume, check, unpack."""

from __future__ import annotations

from collections.abc import Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tqdm.auto import tqdm

from clipad_core.errors import ClipadError
from clipad_harness.data.cards import Archive, DatasetCard
from clipad_harness.data.images import file_hash
from clipad_harness.data.layouts import expected
from clipad_harness.data.unpack import check_space, unpack

_BLOCK, _TIMEOUT = 1 << 20, 60


def offered(card: DatasetCard) -> bool:
    """Whether the publisher offers all files without a form, an account or a click."""
    return bool(card.archives) and all(archive.url for archive in card.archives)


def terms(card: DatasetCard) -> str:
    """What a person should read before downloading: licence, citation, source."""
    licence = card.licence or "not known; ask the publisher before you use it"
    lines = [card.title, f"  licence: {licence}", f"  cite: {card.citation.strip()}"]
    lines += [f"  source: {card.source_page}"]
    for archive in card.archives if offered(card) else ():
        size = f" ({archive.size / 1e6:,.0f} MB)" if archive.size else ""
        lines.append(f"  download: {archive.url}{size}")
    return "\n".join(lines)


def by_hand(card: DatasetCard, root: Path) -> str:
    """What to do where nothing can be downloaded without a person, and what should be there then."""
    if card.layout is None:
        return f"  {card.obtain.strip()}"
    return (
        f"  {card.obtain.strip()}\n"
        f"  expected in {root / card.name}: {expected(card.layout, card.folders)}"
    )


def fetch(card: DatasetCard, root: Path) -> tuple[Path, list[str]]:
    """Download, check and unpack a dataset into ``root/<name>``; a killed run goes on.

    Returns:
        The folder, and a line for each archive that could not be checked.

    Raises:
        ClipadError: no network, a wrong checksum, an unsafe archive, a folder that is not empty, or
            less space than the archives or their files need.
    """
    folder = root / ".downloads"
    check_space(card.title, sum(_to_come(archive, folder) for archive in card.archives), folder)
    paths = [download(archive, folder) for archive in card.archives]
    target, unchecked = unpack_archives(card, root, paths)
    for path in paths:
        path.unlink()
    return target, unchecked


def unpack_archives(card: DatasetCard, root: Path, paths: Sequence[Path]) -> tuple[Path, list[str]]:
    """Check and unpack archives that are on disk, in the order of the card's.

    Raises:
        ClipadError: another number of files than the card's, a wrong checksum, an unsafe archive.
    """
    if len(paths) != len(card.archives):
        names = ", ".join(archive.file for archive in card.archives) or "none: see its card"
        raise ClipadError(
            f"{card.name}: found {len(paths)} archives, expected {len(card.archives)} ({names})."
        )
    unchecked = []
    for archive, path in zip(card.archives, paths, strict=True):
        digest = verify(archive, path)
        if archive.sha256 is None:
            unchecked.append(f"{archive.file}: no checksum is published; its SHA-256 is {digest}")
    folders = [archive.folder for archive in card.archives]
    return unpack(list(zip(paths, folders, strict=True)), root / card.name), unchecked


def verify(archive: Archive, path: Path) -> str:
    """The SHA-256 of a file, compared with the archive's where that is known.

    Raises:
        ClipadError: another file, or none.
    """
    digest = file_hash(path)
    if archive.sha256 is not None and digest != archive.sha256:
        raise ClipadError(
            f"{path}: found SHA-256 {digest} and {path.stat().st_size} bytes, expected "
            f"{archive.sha256}{f' and {archive.size} bytes' if archive.size else ''}; the file is "
            "damaged or another one. Get it again."
        )
    return digest


def _to_come(archive: Archive, folder: Path) -> int:
    """How many bytes of an archive are not on the disk, as far as the card knows its size."""
    paths = folder / archive.file, _part(archive, folder)
    return max(
        0, (archive.size or 0) - sum(path.stat().st_size for path in paths if path.is_file())
    )


def _part(archive: Archive, folder: Path) -> Path:
    """Where an archive lies until it is whole."""
    return folder / f"{archive.file}.part"


def download(archive: Archive, folder: Path) -> Path:
    """Download an archive to ``folder``, or finish a download that was cut off.

    It goes on only where a checksum can prove that both pieces belong together, and starts again
    otherwise.

    Raises:
        ClipadError: no address or no http(s) one, no answer, less space on the disk than it needs, a
            connection that ended early (what came is kept), or a wrong checksum (what came is deleted).
    """
    path, part = folder / archive.file, _part(archive, folder)
    if not path.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _receive(archive, part)
            part.replace(path)
        except ClipadError:
            raise
        # An address or an answer that is none makes urllib raise a ValueError.
        except (OSError, HTTPException, ValueError) as error:
            raise ClipadError(
                f"{archive.url}: cannot be downloaded ({_reason(error)}); what came is kept. Run again "
                "to go on, or download it in a browser and name the file with --from."
            ) from error
    try:
        verify(archive, path)
    except ClipadError:
        path.unlink()
        raise
    return path


def _receive(archive: Archive, part: Path) -> None:
    url = str(archive.url)
    if urlsplit(url).scheme not in ("http", "https"):
        raise ClipadError(f"{url}: found no web address, expected http or https; correct the card.")
    start = part.stat().st_size if part.is_file() and archive.sha256 else 0
    if start and start == archive.size:
        return
    headers = {"User-Agent": "clipad"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with urlopen(Request(url, headers=headers), timeout=_TIMEOUT) as reply:
            _write(reply, part, start, archive)
    except HTTPError as error:
        if error.code != 416:  # 416: there is nothing after `start`, so the file is whole
            raise


def _write(reply: HTTPResponse, part: Path, start: int, archive: Archive) -> None:
    range_ = reply.headers.get("Content-Range", "")
    if reply.status != 206 or not range_.startswith(f"bytes {start}-"):
        start = 0
    length = reply.headers.get("Content-Length")
    total = start + int(length) if length else archive.size
    there = part.stat().st_size if part.is_file() else 0  # goes on, or makes room for another start
    check_space(archive.file, (total or 0) - there, part.parent)
    with (
        part.open("ab" if start else "wb") as file,
        tqdm(
            desc=archive.file,
            total=total,
            initial=start,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
        ) as bar,
    ):
        while block := reply.read(_BLOCK):
            file.write(block)
            bar.update(len(block))
    if total is not None and part.stat().st_size < total:
        raise HTTPException(f"{part.stat().st_size} of {total} bytes came")


def _reason(error: Exception) -> object:
    if isinstance(error, HTTPError):
        return f"the server says {error.code} {error.reason}"
    return error.reason if isinstance(error, URLError) else error
