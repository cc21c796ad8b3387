"""Image files of 10 to 16 bits, which Pillow reads and does not write."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image


def pgm(path: Path, values: np.ndarray, white: int, plain: bool = False) -> Path:
    """A PGM of (H, W), a PPM of (H, W, 3)."""
    kind = (3 if plain else 6) if values.ndim == 3 else (2 if plain else 5)
    head = f"P{kind}\n{values.shape[1]} {values.shape[0]}\n{white}\n".encode()
    text = " ".join(map(str, values.ravel().tolist())).encode()
    path.write_bytes(head + (text if plain else values.astype(">u2").tobytes()))
    return path


def tiff(path: Path, values: np.ndarray, bits: int, photometric: int = 1) -> Path:
    """A TIFF of (H, W) of 12 or 16 bits."""
    if bits == 12:
        lines = values.reshape(-1, 2).astype(int)
        first, second = lines[:, 0], lines[:, 1]
        packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1)
        data = packed.astype(np.uint8).tobytes()
    else:
        data = values.astype("<u2").tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric}
    tags |= {273: 8 + 2 + 12 * 9 + 4, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data)
    return path


def jpeg2000(path: Path, values: np.ndarray, bits: int) -> Path:
    """A JPEG 2000 of (H, W), or of (H, W, 3) with values around the middle of the range.

    What the header says of the bits is changed: the codestream holds distances from the middle.
    """
    written = 16 if values.ndim == 2 else 8
    shifted = values.astype(int) - 2 ** (bits - 1) + 2 ** (written - 1)
    Image.fromarray(shifted.astype(np.uint16 if written == 16 else np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"ihdr") + 14] = bits - 1
    first = content.index(b"\xff\x4f\xff\x51") + 42
    for channel in range(values.shape[2] if values.ndim == 3 else 1):
        content[first + 3 * channel] = bits - 1
    path.write_bytes(content)
    return path
