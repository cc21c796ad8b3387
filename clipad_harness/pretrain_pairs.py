"""Drawn pairs on disk: shards of memory-mapped bytes, drawn once, when first asked for."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np

from clipad_harness.captions import Subject
from clipad_harness.drawing import draw_pair

SHARD = 250  # pairs in a shard: a second or two of drawing


class PairStore:
    """Pairs by number; pair i shows category ``i % len(categories)``, drawn from ``seed + i``.

    Args:
        folder: where shards lie; one folder for one choice of the other arguments.
        categories: what is drawn.
        size: side of the drawings in pixels.
        seed: of the first pair.
    """

    def __init__(self, folder: Path, categories: tuple[str, ...], size: int, seed: int) -> None:
        self._folder, self._categories = folder, categories
        self._size, self._seed = size, seed
        self._shards: dict[int, tuple[np.ndarray, np.ndarray, list[Subject]]] = {}

    def __getitem__(self, numbers: list[int]) -> tuple[np.ndarray, np.ndarray, list[Subject]]:
        """Images (b, 2, size, size, 3): sound then damaged; masks (b, size, size); subjects."""
        found = [(self._shard(number // SHARD), number % SHARD) for number in numbers]
        images = np.stack([shard[0][row] for shard, row in found])
        masks = np.unpackbits(np.stack([shard[1][row] for shard, row in found]), axis=-1)
        return images, masks[..., : self._size].astype(bool), [s[2][row] for s, row in found]

    def _shard(self, index: int) -> tuple[np.ndarray, np.ndarray, list[Subject]]:
        if index not in self._shards:
            path = self._folder / f"{index:05d}"
            if not path.exists():
                self._draw(index, path)
            self._shards[index] = (
                np.load(path / "images.npy", mmap_mode="r"),
                np.load(path / "masks.npy", mmap_mode="r"),
                [Subject(**row) for row in json.loads((path / "subjects.json").read_text())],
            )
        return self._shards[index]

    def _draw(self, index: int, path: Path) -> None:
        """Draw a shard beside its place and move it there in one rename."""
        draft = path.with_name(f".{path.name}.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        images = np.empty((SHARD, 2, self._size, self._size, 3), np.uint8)
        masks = np.empty((SHARD, self._size, self._size), bool)
        subjects = []
        for row, number in enumerate(range(index * SHARD, (index + 1) * SHARD)):
            category = self._categories[number % len(self._categories)]
            pair = draw_pair(category, self._seed + number, self._size)
            images[row, 0], images[row, 1], masks[row] = pair.sound, pair.damaged, pair.mask
            subjects.append(Subject(pair.name, pair.colour, pair.material, pair.defect))
        np.save(draft / "images.npy", images)
        np.save(draft / "masks.npy", np.packbits(masks, axis=-1))
        rows = [asdict(subject) for subject in subjects]
        (draft / "subjects.json").write_text(json.dumps(rows))
        os.replace(draft, path)
