"""Downloads from a server of our own, and archives that try to leave their folder."""

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import shutil
import subprocess
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from dataset_folders import pairs

from clipad_core.errors import ClipadError
from clipad_harness.cli.main import main
from clipad_harness.data.cards import Archive, card_names, read_card
from clipad_harness.data.datasets import read_index
from clipad_harness.data.fetch import download, fetch, offered, terms, unpack_archives
from clipad_harness.data.unpack import unpack


class Server:
    """Serves one file; can ignore ranges, cut the connection, or send something else."""

    def __init__(self, content: bytes) -> None:
        self.content, self.ranges, self.cut, self.status = content, True, 0, 200
        self.range_headers: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                range_header = self.headers.get("Range")
                outer.range_headers.append(range_header)
                start = int(range_header.removeprefix("bytes=").rstrip("-")) if range_header else 0
                if outer.status != 200:
                    self.send_error(outer.status)
                    return
                if range_header and outer.ranges and start >= len(outer.content):
                    self.send_error(416)
                    return
                start = start if outer.ranges else 0
                body = outer.content[start:]
                self.send_response(206 if start else 200)
                if start:
                    last = len(outer.content) - 1
                    self.send_header("Content-Range", f"bytes {start}-{last}/{len(outer.content)}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: outer.cut] if outer.cut else body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/set.zip"


@pytest.fixture
def packed(tmp_path: Path) -> bytes:
    """CVC-ColonDB in miniature, zipped with a folder around it."""
    pairs(tmp_path / "CVC", "images", "masks")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted((tmp_path / "CVC").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path))
    return buffer.getvalue()


@pytest.fixture
def server(packed: bytes, monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    serving = Server(packed)
    yield serving
    serving.server.shutdown()
    serving.server.server_close()


def archive_of(server: Server, **changes: object) -> Archive:
    digest = hashlib.sha256(server.content).hexdigest()
    archive = Archive("set.zip", server.url, digest, len(server.content), "CVC")
    return replace(archive, **changes)


def test_a_dataset_is_downloaded_checked_and_unpacked(server, tmp_path):
    card = replace(read_card("cvc_colondb"), archives=(archive_of(server),))
    folder, unchecked = fetch(card, tmp_path / "data")
    assert folder == tmp_path / "data" / "cvc_colondb"
    assert len(read_index(folder, "cvc_colondb")) == 3
    assert unchecked == []
    assert sorted(path.name for path in (tmp_path / "data").rglob("*.zip*")) == []
    assert not list((tmp_path / "data").glob(".*.tmp"))


def test_without_a_published_checksum_the_one_found_is_said(server, tmp_path):
    card = replace(read_card("cvc_colondb"), archives=(archive_of(server, sha256=None),))
    unchecked = fetch(card, tmp_path)[1]
    digest = hashlib.sha256(server.content).hexdigest()
    assert unchecked == [f"set.zip: no checksum is published; its SHA-256 is {digest}"]


def test_a_cut_download_is_kept_and_goes_on_where_it_stopped(server, tmp_path):
    server.cut = 100
    with pytest.raises(ClipadError, match=r"what came is kept. Run again"):
        download(archive_of(server), tmp_path)
    assert (tmp_path / "set.zip.part").stat().st_size == 100
    assert not (tmp_path / "set.zip").exists()
    server.cut = 0
    path = download(archive_of(server), tmp_path)
    assert server.range_headers == [None, "bytes=100-"]
    assert path.read_bytes() == server.content
    download(archive_of(server), tmp_path)
    assert len(server.range_headers) == 2  # a finished file is not asked for again


def test_a_server_without_ranges_starts_again(server, tmp_path):
    (tmp_path / "set.zip.part").write_bytes(server.content[:100])
    server.ranges = False
    assert download(archive_of(server), tmp_path).read_bytes() == server.content


def test_a_part_without_a_checksum_starts_again(server, tmp_path):
    (tmp_path / "set.zip.part").write_bytes(b"of another file")
    path = download(archive_of(server, sha256=None), tmp_path)
    assert (server.range_headers, path.read_bytes()) == ([None], server.content)


@pytest.mark.parametrize("size", [True, False])
def test_a_part_that_is_the_whole_file_is_taken(server, tmp_path, size):
    (tmp_path / "set.zip.part").write_bytes(server.content)
    archive = archive_of(server) if size else archive_of(server, size=None)
    assert download(archive, tmp_path).read_bytes() == server.content
    assert len(server.range_headers) == (0 if size else 1)


@pytest.mark.parametrize("start", [b"", b"something else"])
def test_a_wrong_hash_is_refused_and_nothing_stays(server, tmp_path, start):
    if start:
        (tmp_path / "set.zip.part").write_bytes(start)
    archive = archive_of(server, sha256="0" * 64)
    with pytest.raises(ClipadError, match=f"expected {'0' * 64}"):
        download(archive, tmp_path)
    assert list(tmp_path.glob("set.zip*")) == []


def test_no_server_and_no_web_address_are_one_message(server, tmp_path):
    server.status = 404
    with pytest.raises(ClipadError, match="the server says 404"):
        download(archive_of(server), tmp_path)
    with pytest.raises(ClipadError, match="cannot be downloaded"):
        download(archive_of(server, url="http://127.0.0.1:1/x.zip"), tmp_path)
    for url in ("http://[::1/x.zip", "http://ä.example/ö.zip", f"http://{'a' * 70}.example/x"):
        with pytest.raises(ClipadError, match="cannot be downloaded"):
            download(archive_of(server, url=url), tmp_path)
    (tmp_path / "secret").write_text("x")
    with pytest.raises(ClipadError, match="expected http or https"):
        download(archive_of(server, url=(tmp_path / "secret").as_uri()), tmp_path)


@pytest.mark.parametrize("sized", [True, False])
def test_a_download_that_the_disk_cannot_hold_is_refused_before_a_byte_is_written(
    server, tmp_path, monkeypatch, sized
):
    size = len(server.content)
    archive = archive_of(server) if sized else archive_of(server, size=None)
    card = replace(read_card("cvc_colondb"), archives=(archive,))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(ClipadError, match=f"needs {size:,} bytes or more and 100 are free in"):
        fetch(card, tmp_path)
    assert [
        path for path in tmp_path.rglob("*") if path.is_file() and "CVC" not in path.parts
    ] == []
    assert len(server.range_headers) == (0 if sized else 1)  # the card's size asks nobody
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=size))
    assert download(archive, tmp_path).read_bytes() == server.content


def test_what_came_of_a_download_needs_no_space_again(server, tmp_path, monkeypatch):
    (tmp_path / "set.zip.part").write_bytes(server.content[:-10])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=9))
    with pytest.raises(ClipadError, match=r"^set\.zip: needs 10 bytes or more and 9 are free"):
        download(archive_of(server), tmp_path)
    assert (tmp_path / "set.zip.part").stat().st_size == len(server.content) - 10
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    assert download(archive_of(server), tmp_path).read_bytes() == server.content


def test_a_cut_download_leaves_no_dataset(server, tmp_path):
    server.cut = 100
    card = replace(read_card("cvc_colondb"), archives=(archive_of(server),))
    with pytest.raises(ClipadError, match="cannot be downloaded .* what came is kept"):
        fetch(card, tmp_path)
    assert not (tmp_path / "cvc_colondb").exists()


def zipped(path: Path, *names: str, mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.txt", "fine")
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, "/etc/passwd" if mode else "evil")
    return path


def with_nul(path: Path) -> Path:
    path.write_bytes(path.read_bytes().replace(b"imagesX1.png", b"images\x001.png"))
    return path


def tarred(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:xz") as archive:
        for member in (tarfile.TarInfo("good.txt"), *members):
            member.size = 4 if member.isreg() else 0
            archive.addfile(member, io.BytesIO(b"evil"))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


ESCAPES = {
    "zip climbs": lambda path: zipped(path, "../evil.txt"),
    "zip name with a NUL": lambda path: with_nul(zipped(path, "imagesX1.png")),
    "zip climbs inside": lambda path: zipped(path, "images/../../evil.txt"),
    "zip climbs with backslashes": lambda path: zipped(path, "..\\evil.txt"),
    "zip absolute": lambda path: zipped(path, str(path.parent / "evil.txt")),
    "zip drive": lambda path: zipped(path, "C:/evil.txt"),
    "zip link": lambda path: zipped(path, "images/1.png", mode=0o120777),
    "zip twice": lambda path: zipped(path, "1.png", "images/../1.png", "1.png"),
    "zip twice over": lambda path: zipped(path, "1.png", "1.png"),
    "zip file as folder": lambda path: zipped(path, "1.png", "1.png/2.png"),
    "zip folder as file": lambda path: zipped(path, "1/2.png", "1"),
    "tar climbs": lambda path: tarred(path, member("../evil.txt")),
    "tar absolute": lambda path: tarred(path, member(str(path.parent / "evil.txt"))),
    "tar link": lambda path: tarred(path, member("images", tarfile.SYMTYPE, "/")),
    "tar link and through it": lambda path: tarred(
        path, member("out", tarfile.SYMTYPE, ".."), member("out/evil.txt")
    ),
    "tar hard link": lambda path: tarred(path, member("passwd", tarfile.LNKTYPE, "/etc/passwd")),
    "tar device": lambda path: tarred(path, member("zero", tarfile.CHRTYPE)),
    "tar pipe": lambda path: tarred(path, member("pipe", tarfile.FIFOTYPE)),
    "tar link inside": lambda path: tarred(path, member("1.png", tarfile.SYMTYPE, "good.txt")),
    "tar hard link inside": lambda path: tarred(path, member("1.png", tarfile.LNKTYPE, "good.txt")),
    "tar climbs with backslashes": lambda path: tarred(path, member("..\\evil.txt")),
    "tar twice": lambda path: tarred(path, member("1.png"), member("1.png")),
}


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_that_leaves_its_folder_is_refused_and_leaves_nothing(tmp_path, escape):
    archive = ESCAPES[escape](tmp_path / "archive")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ClipadError, match="Nothing was unpacked"):
        unpack([(archive, "")], tmp_path / "inner" / "set")
    after = sorted(path for path in tmp_path.rglob("*") if path.name != "inner")
    assert after == before


def test_good_archives_unpack_together_without_their_outer_folder(tmp_path):
    for number in (1, 2):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            archive.writestr(f"outer/part{number}/ä b.txt", "x")
            archive.writestr("outer/empty/" if number == 1 else "outer/none/", "")
    target = tmp_path / "set"
    target.mkdir()
    unpack([(tmp_path / "1.zip", "outer"), (tmp_path / "2.zip", "outer")], target)
    names = sorted(path.relative_to(target).as_posix() for path in target.rglob("*"))
    assert names == ["empty", "none", "part1", "part1/ä b.txt", "part2", "part2/ä b.txt"]
    with pytest.raises(ClipadError, match="found something there"):
        unpack([(tmp_path / "1.zip", "outer")], target)


def test_archives_made_on_windows_unpack_into_folders(tmp_path):
    zipped(tmp_path / "set.zip", "images\\", "images\\1.png")
    tarred(tmp_path / "set.tar", member("images\\2.png"))
    target = unpack(
        [(tmp_path / "set.zip", ""), (tmp_path / "set.tar", "images")], tmp_path / "set"
    )
    names = sorted(path.relative_to(target).as_posix() for path in target.rglob("*"))
    assert names == ["2.png", "good.txt", "images", "images/1.png"]


@pytest.mark.parametrize("pack", [zipped, lambda path, *names: tarred(path, *map(member, names))])
def test_files_that_are_larger_than_the_disk_together_are_refused_before_one_is_written(
    tmp_path, monkeypatch, pack
):
    first, second = (pack(tmp_path / name, f"{name}.txt") for name in ("1", "2"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=15))
    monkeypatch.setattr(tarfile.TarFile, "extract", lambda *_, **__: pytest.fail("written"))
    monkeypatch.setattr(zipfile.ZipFile, "extract", lambda *_: pytest.fail("written"))
    with pytest.raises(ClipadError, match=r"^2: needs 16 bytes or more and 15 are free in"):
        unpack([(first, ""), (second, "")], tmp_path / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_an_archive_of_a_folder_itself_unpacks(tmp_path):
    pairs(tmp_path / "CVC", "images", "masks")
    for name, words in (("dot.tar", ["."]), ("slash.tar", ["./"]), ("inside.tar.gz", ["."])):
        subprocess.run(["tar", "-caf", tmp_path / name, *words], cwd=tmp_path / "CVC", check=True)
        folder = unpack([(tmp_path / name, "")], tmp_path / f"from {name}")
        assert len(read_index(folder, "cvc_colondb")) == 3
    with zipfile.ZipFile(tmp_path / "dot.zip", "w") as archive:
        archive.writestr("./", "")
        archive.writestr("./1.png", "x")
    folder = unpack([(tmp_path / "dot.zip", "")], tmp_path / "from dot.zip")
    assert [path.name for path in folder.iterdir()] == ["1.png"]


def long_header(kind: bytes, size: int) -> bytes:
    """What stands before a member with a name of many bytes, packed: a few kB."""
    header = member("././@LongLink", kind)
    header.size = size
    packed = gzip.compress(header.tobuf(tarfile.GNU_FORMAT), 1)
    zeros = gzip.compress(bytes(1 << 24), 9)  # joined, the pieces are one file of gzip
    return packed + zeros * (size >> 24) + gzip.compress(member("a.txt").tobuf() + bytes(1024))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, b"x", b"g"])
def test_a_header_of_gigabytes_is_refused_before_it_is_read(tmp_path, kind):
    (tmp_path / "set.tar.gz").write_bytes(long_header(kind, 1 << 33))
    tracemalloc.start()
    with pytest.raises(ClipadError, match="a header has more than 1,048,576 bytes"):
        unpack([(tmp_path / "set.tar.gz", "")], tmp_path / "set")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24
    assert [path.name for path in tmp_path.iterdir()] == ["set.tar.gz"]


def test_headers_without_end_are_refused(tmp_path):
    header = member("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    header.size = 5
    block = header.tobuf(tarfile.GNU_FORMAT) + b"name\0".ljust(512, b"\0")
    (tmp_path / "set.tar.gz").write_bytes(gzip.compress(block * 5000))
    with pytest.raises(ClipadError, match="found no whole archive"):
        unpack([(tmp_path / "set.tar.gz", "")], tmp_path / "set")


def test_long_names_and_extended_headers_of_usual_size_are_read(tmp_path):
    for number, form in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        with tarfile.open(tmp_path / f"{number}.tar", "w", format=form) as archive:
            archive.addfile(member(f"{'ä' * 90}/{'b' * 200}.png"))
        folder = unpack([(tmp_path / f"{number}.tar", "")], tmp_path / str(number))
        assert (folder / ("ä" * 90) / f"{'b' * 200}.png").is_file()


def damaged(content: bytes) -> Iterator[bytes]:
    """One byte of a header changed, over all headers of a small archive."""
    for place in range(0, len(content), 19):
        yield content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_a_changed_byte_anywhere_is_one_message_or_a_whole_archive(tmp_path, kind):
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images/1.png", "x" * 600)
    else:
        with tarfile.open(fileobj=buffer, mode=kind, format=tarfile.PAX_FORMAT) as archive:
            info = member("images/ä.png")
            info.size = 600
            archive.addfile(info, io.BytesIO(b"x" * 600))
    for content in damaged(buffer.getvalue()[:3000]):
        (tmp_path / "set").write_bytes(content)
        with contextlib.suppress(ClipadError):
            shutil.rmtree(unpack([(tmp_path / "set", "")], tmp_path / "unpacked"))
        assert [path.name for path in tmp_path.iterdir()] == ["set"]


def sparse(**headers: str) -> bytes:
    """A tar file whose only member is sparse as its extended header says, in vain."""
    info = member("1.png")
    info.pax_headers = {f"GNU.sparse.{name}": value for name, value in headers.items()}
    return info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


DAMAGED_HEADERS = {
    "a map without numbers": sparse(map="x,y", size="3"),
    "a size that is no number": sparse(major="0", minor="1", map="0,1", size="x"),
    "a map without an end": sparse(major="1", minor="0", name="1.png", realsize="3"),
    "a cut map": member("1.png", tarfile.GNUTYPE_SPARSE).tobuf()[:482] + b"\1" + bytes(29),
    "a size below zero": b"\xff" * 12,
}


@pytest.mark.parametrize("fault", DAMAGED_HEADERS)
def test_a_damaged_header_is_one_message(tmp_path, fault):
    header = bytearray(DAMAGED_HEADERS[fault])
    if len(header) == 12:
        header = bytearray(member("1.png").tobuf())
        header[124:136] = DAMAGED_HEADERS[fault]
    if len(header) == 512:
        header[148:156] = b"%06o\0 " % sum(header[:148] + b" " * 8 + header[156:])
    (tmp_path / "set.tar").write_bytes(header)
    with pytest.raises(ClipadError, match=r"set\.tar: found"):
        unpack([(tmp_path / "set.tar", "")], tmp_path / "set")


def three_members(form: int = tarfile.GNU_FORMAT, records: bool = False) -> bytes:
    """A tar file: at 0, 1,536 and 3,072 a header, the end at 4,608; two blocks of zeros."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for number in range(3):
            info = member(f"{number}.png")
            info.size = 600
            archive.addfile(info, io.BytesIO(b"x" * 600))
    return buffer.getvalue() if records else buffer.getvalue()[: 4608 + 1024]


def replaced(content: bytes, place: int, other: bytes) -> bytes:
    return content[:place] + other + content[place + len(other) :]


TAR, PACKERS = three_members(), {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
NOT_WHOLE = {
    "cut at a later header": TAR[:1536],
    "cut inside a later header": TAR[:1700],
    "cut inside a file": TAR[:3900],
    "cut at its end": TAR[:4608],
    "cut inside the mark of its end": TAR[:5000],
    "a zeroed header in the middle": replaced(TAR, 1536, bytes(512)),
    "a zeroed header and zeros in the file": replaced(TAR, 1536, bytes(1536)),
    "a changed bit in a header in the middle": replaced(TAR, 1536, b"q"),
    "a changed bit in the last header": replaced(TAR, 3072, b"q"),
    "another tar file behind it": TAR + TAR,
    "gzip with another checksum": gzip.compress(TAR)[:-8] + bytes(8),
    "gzip without its last bytes": gzip.compress(TAR)[:-8],
    **{f"{name} cut": pack(TAR)[:-20] for name, pack in PACKERS.items()},
    "packed in two, the second lost": gzip.compress(TAR[:3072]),
}


@pytest.mark.parametrize("fault", NOT_WHOLE)
def test_an_archive_that_is_not_whole_is_refused_before_a_file_is_written(
    tmp_path, monkeypatch, fault
):
    monkeypatch.setattr(tarfile.TarFile, "extract", lambda *_, **__: pytest.fail("written"))
    (tmp_path / "set.tar").write_bytes(NOT_WHOLE[fault])
    with pytest.raises(ClipadError, match=r"set\.tar: found no whole archive"):
        unpack([(tmp_path / "set.tar", "")], tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["set.tar"]


@pytest.mark.parametrize(
    "content",
    [
        three_members(records=True),
        TAR[:5120],
        TAR + b"garbage" * 1000,
        *(pack(TAR) for pack in PACKERS.values()),
        gzip.compress(TAR[:3072]) + gzip.compress(TAR[3072:]),
        three_members(tarfile.USTAR_FORMAT),
    ],
    ids=[
        "records",
        "one block of zeros",
        "garbage behind the end",
        *PACKERS,
        "two of gzip",
        "ustar",
    ],
)
def test_whole_archives_unpack_whatever_follows_their_end(tmp_path, content):
    (tmp_path / "set.tar").write_bytes(content)
    folder = unpack([(tmp_path / "set.tar", "")], tmp_path / "set")
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert sizes == {"0.png": 600, "1.png": 600, "2.png": 600}


def folders_alone(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("images/", "")
    else:
        with tarfile.open(fileobj=buffer, mode=kind) as archive:
            archive.addfile(member("images", tarfile.DIRTYPE))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        bytes(10240),
        gzip.compress(bytes(10240)),
        b"PK\x05\x06" + bytes(18),
        *(folders_alone(kind) for kind in ("w", "w:gz", "zip")),
    ],
    ids=["zeros", "packed zeros", "zip", "folder of tar", "folder of tgz", "folder of zip"],
)
def test_an_archive_without_a_file_is_refused(tmp_path, content):
    zipped(tmp_path / "1.zip")
    (tmp_path / "2.zip").write_bytes(content)
    with pytest.raises(ClipadError, match=r"2\.zip: found no file in it, expected"):
        unpack([(tmp_path / "1.zip", ""), (tmp_path / "2.zip", "")], tmp_path / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.zip", "2.zip"]


@pytest.mark.parametrize("size", ["abc", "-5", "-1", " 3", "1_0", "9" * 4000, "9" * 5000, ""])
def test_a_size_that_is_none_is_one_short_message(tmp_path, size):
    info = member("1.png")
    info.pax_headers = {"size": size}
    (tmp_path / "set.tar").write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    with pytest.raises(
        ClipadError, match=r"set\.tar: found no whole archive ..1\.png. has the size"
    ) as caught:
        unpack([(tmp_path / "set.tar", "")], tmp_path / "set")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("pack", [zipped, lambda path, *names: tarred(path, *map(member, names))])
def test_a_name_that_the_disk_does_not_take_is_named_with_its_archive(tmp_path, pack):
    archive = pack(tmp_path / "set.archive", f"images/{'b' * 300}.png")
    with pytest.raises(
        ClipadError, match=r"^set\.archive: its member 'images/bbb.*cannot be written"
    ):
        unpack([(archive, "")], tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["set.archive"]


@pytest.mark.parametrize("name", ["../" + "x" * 5000, "x\n" * 5000 + "/../.."])
def test_of_a_long_name_a_message_has_the_beginning(tmp_path, name):
    with pytest.raises(ClipadError, match="outside its folder") as caught:
        unpack([(zipped(tmp_path / "set.zip", name), "")], tmp_path / "set")
    assert len(str(caught.value)) < 500


@pytest.mark.skipif(os.name == "nt", reason="Windows takes no colon in a name")
def test_a_colon_is_a_drive_behind_one_letter_alone(tmp_path):
    names = ["Re: photo.png", "12:30.png", "1:x.png", "images/c:x.png", ":.png", "ä:x.png"]
    for number, pack in enumerate((zipped, lambda p, *n: tarred(p, *map(member, n)))):
        archive = pack(tmp_path / f"{number}", *names)
        folder = unpack([(archive, "")], tmp_path / f"from {number}")
        assert all((folder / name).is_file() for name in names)
        for name in ("c:x.png", "C:\\x.png", "z:/x.png"):
            with pytest.raises(ClipadError, match="outside its folder"):
                unpack([(pack(tmp_path / "drive", name), "")], tmp_path / "set")


def test_names_equal_but_for_case_are_two_files_or_refused(tmp_path):
    archive = zipped(tmp_path / "set.zip", "A.png", "a.png")
    (tmp_path / "Case").mkdir()
    if (tmp_path / "case").exists():
        with pytest.raises(ClipadError, match="there twice"):
            unpack([(archive, "")], tmp_path / "set")
    else:
        folder = unpack([(archive, "")], tmp_path / "set")
        assert sorted(path.name for path in folder.iterdir()) == ["A.png", "a.png", "good.txt"]


@pytest.mark.parametrize("fault", ["cut", "checksum", "name", "length of a comment"])
def test_a_zip_file_that_is_not_whole_leaves_nothing(tmp_path, fault):
    content = zipped(tmp_path / "set.zip", "1.png").read_bytes()
    places = {
        "checksum": content.index(b"evil"),
        "name": content.index(b"1.png"),
        "length of a comment": content.index(b"PK\x01\x02") + 33,  # of the first entry, in 256
    }
    content = content[:-30] if fault == "cut" else replaced(content, places[fault], b"q")
    (tmp_path / "set.zip").write_bytes(content)
    with pytest.raises(ClipadError, match=r"set\.zip: found no whole archive"):
        unpack([(tmp_path / "set.zip", "")], tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]


def test_a_tar_file_that_ends_with_a_zip_file_is_a_tar_file(tmp_path):
    zipped(tmp_path / "inner.zip", "evil.txt")
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(tmp_path / "inner.zip", "inner.zip")
    folder = unpack([(tmp_path / "set.tar", "")], tmp_path / "set")
    assert [path.name for path in folder.iterdir()] == ["inner.zip"]


def test_folders_without_end_are_refused(tmp_path):
    tarred(tmp_path / "set.tar", member("a/" * 200 + "1.png"))
    with pytest.raises(ClipadError, match="more than 100 folders deep"):
        unpack([(tmp_path / "set.tar", "")], tmp_path / "set")


def test_a_python_without_the_filter_of_tarfile_says_so(tmp_path, monkeypatch):
    tarred(tmp_path / "set.tar")
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(ClipadError, match=r"found Python 3\..* expected 3\.11\.4 or newer"):
        unpack([(tmp_path / "set.tar", "")], tmp_path / "set")


def encrypted(path: Path) -> None:
    content = bytearray(zipped(path).read_bytes())
    content[content.index(b"PK\x03\x04") + 6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def of_another_compression(path: Path) -> None:
    content = bytearray(zipped(path).read_bytes())
    content[content.index(b"PK\x03\x04") + 8] = 96
    content[content.index(b"PK\x01\x02") + 10] = 96
    path.write_bytes(content)


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "encrypted": (encrypted, "an encrypted zip file"),
    "another compression": (of_another_compression, "a zip file of a kind that Python cannot read"),
    "RAR": (lambda path: path.write_bytes(b"Rar!\x1a\x07\x00" + b"x" * 99), "a RAR archive"),
    "7z": (lambda path: path.write_bytes(b"7z\xbc\xaf'\x1c" + b"x" * 99), "a 7z archive"),
    "tar.zst": (
        lambda path: path.write_bytes(b"\x28\xb5\x2f\xfd" + b"x" * 99),
        "an archive packed with Zstandard",
    ),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_whole_archive_that_python_cannot_read_is_called_what_it_is(tmp_path, kind):
    make, words = UNREADABLE[kind]
    make(tmp_path / "set.zip")
    with pytest.raises(ClipadError, match=f"found {words}.*unpack it yourself .* say --data"):
        unpack([(tmp_path / "set.zip", "")], tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("content", [b"", b"<html>sign in</html>", b"PK\x05\x06"])
def test_a_file_that_is_no_archive_is_named(tmp_path, content):
    (tmp_path / "set.zip").write_bytes(content)
    with pytest.raises(ClipadError, match=r"set\.zip: found no whole archive"):
        unpack([(tmp_path / "set.zip", "")], tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:xz"])
def test_a_cut_archive_leaves_nothing(tmp_path, kind):
    import random

    noise = random.Random(0).randbytes(100_000)
    with tarfile.open(tmp_path / "set.tar", kind) as archive:
        info = tarfile.TarInfo("a.bin")
        info.size = len(noise)
        archive.addfile(info, io.BytesIO(noise))
    whole = (tmp_path / "set.tar").read_bytes()
    (tmp_path / "set.tar").write_bytes(whole[:50_000])
    with pytest.raises(ClipadError, match="found no whole archive"):
        unpack([(tmp_path / "set.tar", "")], tmp_path / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set.tar"]


def test_archives_on_disk_are_checked_before_they_are_unpacked(server, tmp_path):
    card = replace(read_card("cvc_colondb"), archives=(archive_of(server),))
    (tmp_path / "mine.zip").write_bytes(server.content + b"x")
    with pytest.raises(ClipadError, match="damaged or another one"):
        unpack_archives(card, tmp_path, [tmp_path / "mine.zip"])
    with pytest.raises(ClipadError, match=r"found 2 archives, expected 1 \(set\.zip\)"):
        unpack_archives(card, tmp_path, [tmp_path / "mine.zip"] * 2)
    (tmp_path / "mine.zip").write_bytes(server.content)
    folder = unpack_archives(card, tmp_path, [tmp_path / "mine.zip"])[0]
    assert len(read_index(folder, "cvc_colondb")) == 3
    assert (tmp_path / "mine.zip").exists()  # a person's own file stays


@pytest.fixture
def command(server, tmp_path, monkeypatch):
    """`clipad data fetch cvc_colondb` as if its publisher were our server."""
    import clipad_harness.data.cards as cards

    card = replace(read_card("cvc_colondb"), archives=(archive_of(server),))
    monkeypatch.setattr(cards, "read_card", lambda name: card)
    monkeypatch.delenv("CLIPAD_DATA", raising=False)
    return ["data", "fetch", "cvc_colondb", "--data", str(tmp_path / "data")]


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("Yes", 0), ("n", 1), ("", 1), (None, 1)])
def test_the_licence_is_shown_and_asked_before_anything_is_downloaded(
    server, command, monkeypatch, capsys, answer, code
):
    def reply(question: str) -> str:
        output = capsys.readouterr().out
        assert "licence: not known" in output and "Bernal" in output and server.url in output
        assert server.range_headers == []
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", reply)
    assert main(command) == code
    assert bool(server.range_headers) == (code == 0)


def test_yes_is_not_asked_and_what_is_there_is_not_overwritten(
    server, command, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("builtins.input", lambda question: pytest.fail("was asked"))
    assert main([*command, "--yes"]) == 0
    assert capsys.readouterr().out.strip().endswith("cvc_colondb")
    assert main([*command, "--yes"]) == 1
    assert "is there already" in capsys.readouterr().err
    assert len(server.range_headers) == 1


@pytest.mark.parametrize("name", [n for n in card_names() if not offered(read_card(n))])
def test_a_dataset_behind_a_form_says_its_page_and_layout(name, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("CLIPAD_DATA", raising=False)
    assert main(["data", "fetch", name]) == 1
    output = capsys.readouterr()
    assert read_card(name).source_page in output.out
    published = read_card(name).layout is not None
    assert (f"expected in $CLIPAD_DATA/{name}: " in output.out) == published
    assert "nothing was downloaded" in output.err
    assert ("it is not published" in output.err) == (not published)


@pytest.mark.parametrize("name", [n for n in card_names() if offered(read_card(n))])
def test_offered_downloads_are_https_or_checked(name):
    for archive in read_card(name).archives:
        assert str(archive.url).startswith("https://")
        assert archive.sha256 is None or len(archive.sha256) == 64
    assert "licence" in terms(read_card(name))
