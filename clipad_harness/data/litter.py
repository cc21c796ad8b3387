"""What file managers, file servers, editors and browsers leave in folders, told by its name alone.

One rule for datasets and for photos: litter is never read, never searched, and no fault of a folder.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

# How a stream of a file (where it came from, a label) is shown as a file of its own beside it by
# systems that have no streams: ":", or what stands for it on file servers. A colon alone says nothing:
# "Re: photo.png" is a photo.
_STREAM = "*[:\uf022\uf03a]"

# In lower case. What begins with a dot is hidden and needs no line: .DS_Store, ._NAME, .AppleDouble,
# .@__thumb, .snapshot, .Trash-1000.
_PATTERNS = (
    # Windows: thumbnails, folder settings, bins, what a repair of the disk found.
    "thumbs*.db",
    "ehthumbs*.db",
    "desktop.ini",
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
    "picasa.ini",
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


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name was left by a program and is nobody's data.

    >>> [is_litter(name) for name in ("Thumbs.db", "1.png:Zone.Identifier", "@eaDir", "1.png")]
    [True, True, True, False]
    """
    lowered = name.lower()
    return lowered.startswith(".") or any(fnmatchcase(lowered, word) for word in _PATTERNS)
