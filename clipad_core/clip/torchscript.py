"""The tensors of a TorchScript archive, read without compiling or running anything in it.

OpenAI publishes CLIP as such archives. ``torch.jit.load`` compiles their code and calls the
``__setstate__`` methods it finds there, and ``torch.load(weights_only=True)`` refuses them. But the
archive is a zip file: ``data.pkl`` is the tree of modules, ``data/N`` are the numbers. Here the tree
is unpickled with a list of allowed names on which nothing can run, whatever file it is.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo, is_zipfile

import torch
from torch import Tensor

# Names of storages in an archive, as torch writes them: all types that weights have.
DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip that holds compiled constants."""
    if not is_zipfile(path):
        return False
    with ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Every tensor of a TorchScript archive under its dotted name.

    Raises:
        pickle.UnpicklingError: something in it is neither a tensor nor a module.
        Exception: whatever a damaged archive makes its readers raise.
    """
    with ZipFile(path) as archive:
        trees = [
            name
            for name in archive.namelist()
            if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(trees) != 1:
            raise ValueError(
                f"it holds {len(trees) or 'no'} trees of modules, expected one data.pkl"
            )
        folder = trees[0].removesuffix(".pkl")
        entries = [entry for entry in archive.infolist() if entry.filename.startswith(folder)]
        check_sizes(archive, entries)
        root = _Reader(archive, folder).load()
    return dict(_tensors(root, ""))


def check_sizes(archive: ZipFile, entries: Sequence[ZipInfo]) -> None:
    """Refuse entries that take more memory than the archive has bytes.

    torch packs code, never numbers nor the tree of modules, so that nothing it wrote is refused.

    Raises:
        ValueError: one that is compressed, or several that lie over each other.
    """
    for entry in entries:
        if entry.compress_type != ZIP_STORED or entry.file_size != entry.compress_size:
            raise ValueError("its numbers are compressed, so their size cannot be trusted")
    if sum(entry.file_size for entry in entries) > Path(str(archive.filename)).stat().st_size:
        raise ValueError("its entries are larger than itself")


class _Module:
    """An object of the archive: what it holds, none of what it does."""

    held: object = None

    def __setstate__(self, state: object) -> None:
        self.held = state


def _tensors(module: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    held = module.held if isinstance(module, _Module) else None
    for name, value in held.items() if isinstance(held, dict) else ():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        else:
            yield from _tensors(value, f"{prefix}{name}.")


class _Reader(pickle.Unpickler):
    """Unpickles the tree of modules; every name that it does not know is refused."""

    def __init__(self, archive: ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{folder}.pkl")))
        self.archive, self.folder = archive, folder
        self.storages: dict[int, Tensor] = {}

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Modules become plain holders, tensors are rebuilt here, lists are taken as they are."""
        if module.startswith("__torch__"):
            return _Module
        if module == "torch" and name in DTYPES:
            return lambda: DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle":
            return lambda value, *_: value
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no CLIP needs")

    def persistent_load(self, pid: Any) -> Tensor:
        """A storage of the archive as a flat tensor."""
        _, dtype, key, *_ = pid
        number = int(key)
        if number not in self.storages:
            content = bytearray(self.archive.read(f"{self.folder}/{number}"))
            empty = torch.zeros(0, dtype=dtype())
            self.storages[number] = torch.frombuffer(content, dtype=dtype()) if content else empty
        return self.storages[number]


def _rebuild(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    return storage.as_strided(size, stride, offset)
