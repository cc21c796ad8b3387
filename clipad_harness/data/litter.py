"""What file managers, file servers and browsers leave in folders, told by its name alone.

One rule for datasets and for photos: litter is never read, never searched, and no fault of a folder.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

# In lower case. What begins with a dot is hidden and needs no line: .DS_Store, ._NAME, .@__thumb,
# .Trash-1000.
_PATTERNS = (
    # Windows: thumbnails, folder settings, the bin, and where a downloaded file came from, which
    # other systems show as a file of its own beside it (":" becomes U+F03A on some of them).
    "thumbs*.db",
    "ehthumbs*.db",
    "desktop.ini",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "*[:\uf03a]zone.identifier*",
    "*[:\uf03a]smartscreen*",
    "*[:\uf03a]encryptable*",
    # macOS: the icon of a folder, what zip files carry beside the files, what servers keep for it.
    "icon\r",
    "__macosx",
    "*[:\uf03a]afp_afpinfo*",
    "*[:\uf03a]afp_resource*",
    "network trash folder",
    "temporary items",
    # File servers (Synology, QNAP) and ext4: thumbnails, bins, snapshots.
    "@eadir",
    "@tmp",
    "@sharebin",
    "#recycle",
    "#snapshot",
    "@recycle",
    "@recently-snapshot",
    "synoindex_media_info",
    "lost+found",
    # Programs that show pictures.
    "picasa.ini",
    "zbthumbnail.info",
)


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name was left by a program and is nobody's data.

    >>> [is_litter(name) for name in ("Thumbs.db", "1.png:Zone.Identifier", "@eaDir", "1.png")]
    [True, True, True, False]
    """
    lowered = name.lower()
    return lowered.startswith(".") or any(fnmatchcase(lowered, word) for word in _PATTERNS)
