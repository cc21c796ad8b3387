"""A content-addressed store of frozen features: an image is encoded once, whatever is scored.

The key of an entry holds all it depends on: the image's bytes, the recipe, the backbone's tensors,
its precision, and the source of the code that encodes. So nothing has to be cleared by hand, a killed
run resumes at the image it stopped at, and a changed setting encodes only what it changes.
"""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor
from tqdm.auto import tqdm

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.preprocess import Pixels
from clipad_core.errors import ClipadError
from clipad_harness.base.files import alone
from clipad_harness.base.sealed import read_tensors, tell_damage, write_tensors
from clipad_harness.data.images import file_hash, read_image
from clipad_harness.experiments.shards import hash_of

Entry = dict[str, Tensor]
# Before images that other processes encode are looked at again.
SECONDS_TO_WAIT = 0.1


def code_digest(modules: Iterable[ModuleType]) -> str:
    """SHA-256 over the source of some modules: results are never reused across a code change."""
    found = hashlib.sha256()
    for module in modules:
        found.update(inspect.getsource(module).encode())
    return found.hexdigest()


class FeatureStore:
    """Entries by content; what is missing is encoded, the rest is read.

    Args:
        folder: where entries live; safe to delete at any time.
        backbone: the frozen CLIP.
        recipe: what is encoded of an image, a dataclass.
        encode: turns an RGB image into its entry. One at a time, which on a CPU costs the same: beside
            others the last bits of a matrix product differ, and an entry would depend on its run.
        code: digest of the code that encodes.
    """

    def __init__(
        self,
        folder: Path,
        backbone: Backbone,
        recipe: Any,
        encode: Callable[[Pixels], Entry],
        code: str,
    ) -> None:
        self.folder, self.backbone, self.encode = folder, backbone, encode
        self.about: dict[str, Any] = {
            "recipe": asdict(recipe),
            "backbone": backbone.key,
            "code": code,
        }

    def key(self, image: Path) -> str:
        """Everything an entry depends on, as one SHA-256."""
        return hash_of({"image": file_hash(image), **self.about})

    def fill(self, paths: Sequence[Path], what: str) -> list[Path]:
        """Encode what is missing; return the file of every image, in their order.

        Raises:
            ClipadError: an image cannot be read, or the folder cannot be written.
        """
        entries = {path: self._path(path) for path in paths}
        missing = [path for path, entry in entries.items() if not entry.is_file()]
        # A short job needs no bar; one that is interrupted goes on where it stopped.
        with tqdm(
            total=len(missing), desc=f"encode {what}", unit="image", leave=False, delay=2
        ) as bar:
            while missing:
                busy = []
                for path in missing:
                    if self._write_alone(path, entries[path]):
                        bar.update(1)
                    else:
                        busy.append(path)
                if len(busy) == len(missing):
                    time.sleep(SECONDS_TO_WAIT)
                missing = busy
        return [entries[path] for path in paths]

    def _write_alone(self, image: Path, entry: Path) -> bool:
        """Encode, unless it is there; False where another process is at it right now."""
        with alone(entry) as mine:
            if mine and not entry.is_file():
                self._write(image, entry)
        return mine

    def read(self, entry: Path, image: Path, wanted: Sequence[str] = ()) -> Entry:
        """One entry, or only the ``wanted`` tensors of it.

        A file that a disk that filled up, a copy cut short or a changed bit damaged, or that is in
        the place of another, is made again.

        Raises:
            ClipadError: it cannot be read even then, or the image cannot.
        """
        found = read_tensors(entry, entry.stem, wanted)
        if found is None:
            tell_damage(entry)
            self._write(image, entry)
            found = read_tensors(entry, entry.stem, wanted)
        if found is None:
            raise ClipadError(
                f"{entry}: was just written and is damaged already, expected what was written; check "
                "the disk and its memory."
            )
        return found

    def _path(self, image: Path) -> Path:
        key = self.key(image)
        return self.folder / key[:2] / f"{key}.safetensors"

    def _write(self, image: Path, entry: Path) -> None:
        write_tensors(entry, entry.stem, self.encode(np.asarray(read_image(image))))
