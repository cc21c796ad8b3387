"""What file managers, file servers, editors and browsers leave in folders, told by its name alone.

One rule for datasets and for photos: litter is never read, never searched, and no fault of a folder.
What can hold an image (raw files, arrays, archives, names without a suffix) is never litter: it is named.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import PurePath

# How a stream of a file (where it came from, a label) is shown as a file of its own beside it by
# systems that have no streams: ":", or what stands for it on file servers. A colon alone says nothing:
# "Re: photo.png" is a photo.
_STREAM = "*[:\uf022\uf03a]"

# In lower case. What begins with a dot is hidden and needs no line: .DS_Store, ._NAME, .AppleDouble,
# .@__thumb, .snapshot, .Trash-1000.
_PATTERNS = (
    # Settings and databases of whatever program, thumbnails first: Thumbs.db, ehthumbs.db, Picasa.ini,
    # desktop.ini, sync.ffs_db, and what copies and encryption make of their names.
    "*.ini",
    "*.db",
    "*.ffs_db",
    "thumbs.db*",
    "picasa.ini*",
    "desktop.ini*",
    # Links to elsewhere, made by file managers.
    "*.lnk",
    "*.url",
    "*.webloc",
    # What game engines and Python write beside files.
    "*.import",
    "__pycache__",
    "*.pyc",
    # Windows: bins, what a repair of the disk found.
    "$recycle.bin",
    "recycler",
    "recycled",
    "system volume information",
    "found.[0-9][0-9][0-9]",
    # Streams: of Windows, its browsers and file servers, of macOS, of Dropbox.
    f"{_STREAM}zone.identifier*",
    f"{_STREAM}smartscreen*",
    f"{_STREAM}encryptable*",
    f"{_STREAM}favicon*",
    f"{_STREAM}oecustomproperty*",
    f"{_STREAM}ms-properties*",
    f"{_STREAM}*$data",
    f"{_STREAM}com.apple.*",
    f"{_STREAM}afp_*",
    f"{_STREAM}com.dropbox.*",
    # macOS: the icon of a folder, what zip files carry beside the files, what servers keep for it.
    "icon\r",
    "__macosx",
    "network trash folder",
    "temporary items",
    # File servers (Synology, QNAP, NetApp) and ext4: thumbnails, bins, snapshots.
    "@eadir",
    "@tmp",
    "@sharebin",
    "#recycle",
    "#snapshot",
    "@recycle",
    "@recently-snapshot",
    "~snapshot",
    "synoindex_media_info",
    "lost+found",
    # Programs that show pictures.
    "zbthumbnail.info",
    # Editors: copies of what was there before, and marks of what is open.
    "*~",
    "*.bak",
    "#*#",
    "~$*",
    # Browsers and programs that copy: what has not come whole.
    "*.part",
    "*.partial",
    "*.filepart",
    "*.crdownload",
    "*.opdownload",
    "*.download",
    "*.tmp",
)

# Texts, tables, labels and checksums that people and labelling tools put beside images; last, edits,
# ratings and thumbnails that cameras, phones and raw developers write beside a photo.
_DOCUMENTS = frozenset(
    (
        ".txt",
        ".md",
        ".rst",
        ".rtf",
        ".pdf",
        ".doc",
        ".docx",
        ".odt",
        ".html",
        ".htm",
        ".log",
        ".nfo",
    )
    + (".csv", ".tsv", ".xls", ".xlsx", ".ods", ".lst", ".names", ".cfg", ".toml")
    + (".json", ".jsonl", ".xml", ".yaml", ".yml")
    + (".md5", ".sha1", ".sha256", ".sfv", ".bib", ".license")
    + (".aae", ".xmp", ".thm", ".pp3", ".dop", ".cos", ".nksc", ".rrdata")
)


def is_document(name: str) -> bool:
    """Whether a file of this name is written about images and is none of them.

    In a folder of a dataset that is no fault; beside photos it is named, as every file that is not read.

    >>> is_document("labels.XML"), is_document("000.npy")
    (True, False)
    """
    return PurePath(name).suffix.lower() in _DOCUMENTS


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name was left by a program and is nobody's data.

    >>> [is_litter(name) for name in ("Thumbs.db", "1.png:Zone.Identifier", "@eaDir", "1.png")]
    [True, True, True, False]
    """
    lowered = name.lower()
    return lowered.startswith(".") or any(fnmatchcase(lowered, word) for word in _PATTERNS)
